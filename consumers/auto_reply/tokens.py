"""The access token of each account, from a setting or from a file that is read again when it changes. Prints no token."""

from __future__ import annotations

from pathlib import Path

from consumers.errors import ConsumerError

OTHERS = "*"  # an account's place for every account without a token of its own: the stand-in for Graph API takes any


def parse(text: str, *, source: str) -> dict[str, str]:
    """`account=token,…` (or one on each line) as a dictionary.

    Args:
        text: What was given.
        source: What messages call it.

    Raises:
        ConsumerError: A part is not of this form, or an account has two; says which part by its number, never the token.
    """
    tokens: dict[str, str] = {}
    parts = [part.strip() for line in text.splitlines() for part in line.split(",")]
    for number, part in enumerate(filter(None, parts), start=1):
        account_id, equals, token = (word.strip() for word in part.partition("="))
        # A header takes no other characters, and a token has none.
        if not (equals and account_id and token and token.isascii() and token.isprintable() and " " not in token):
            raise ConsumerError(f"{source}: part {number} is not account=token")
        if account_id in tokens:
            raise ConsumerError(f"{source}: account {account_id} has two tokens")
        tokens[account_id] = token
    return tokens


class Tokens:
    """The tokens in force.

    Args:
        text: `AUTO_REPLY_TOKENS`, which never changes while we run.
        file: `AUTO_REPLY_TOKENS_FILE`, which may; what stands in it comes first.

    Raises:
        ConsumerError: What is given cannot be used.
    """

    def __init__(self, text: str | None, file: Path | None) -> None:
        self._fixed = parse(text, source="AUTO_REPLY_TOKENS") if text else {}
        self._file = file
        self._read: dict[str, str] = {}
        self._stamp: tuple[int, int, int] | None = None
        self.reload()

    def __getitem__(self, account_id: str) -> str | None:
        """The token of an account, else the one for all others, else None."""
        tokens = (self._read, self._fixed)
        return next((found for name in (account_id, OTHERS) for known in tokens if (found := known.get(name))), None)

    def has_changed(self) -> bool:
        """Whether the file is another one than the one that was read last."""
        return self._file is not None and _stamp(self._file) != self._stamp

    def reload(self) -> set[str]:
        """Reads the file again, and says whose token is another one now.

        Raises:
            ConsumerError: The file cannot be used; the tokens stay as they were.
        """
        if self._file is None:
            return set()
        # First the stamp: a file that is written meanwhile then counts as changed.
        self._stamp = _stamp(self._file)
        try:
            text = self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConsumerError(f"{self._file}: the tokens cannot be read ({type(error).__name__})") from None
        tokens = parse(text, source=str(self._file))
        changed = {
            account for account in tokens.keys() | self._read.keys() if tokens.get(account) != self._read.get(account)
        }
        self._read = tokens
        return changed


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
