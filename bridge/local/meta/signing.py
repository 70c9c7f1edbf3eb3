"""The app secret on Meta's side, and the signature it makes.

Apart from `bridge.signature`, which checks signatures: a mistake in one must not be repeated by the other.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import Misconfigured

SIGNATURE_HEADER = "X-Hub-Signature-256"

_LABELLED = re.compile(r"(?P<label>[a-z0-9_-]{1,32})=(?P<secret>.+)")


def signature(body: bytes, app_secret: str) -> str:
    """The value of `X-Hub-Signature-256` for these bytes (Meta, "Webhooks: getting started", validating payloads)."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()


def app_secret(environment: Mapping[str, str], *, file: Path | None = None, label: str | None = None) -> str:
    """The secret to sign with: from the file, else from BRIDGE_APP_SECRETS, else from BRIDGE_APP_SECRETS_FILE.

    Args:
        environment: holds those variables.
        file: holds what BRIDGE_APP_SECRETS would: comma-separated, each `label=secret` or `secret`.
        label: picks one of several; without it the first is taken.

    Raises:
        Misconfigured: none is there, or none has the label.
    """
    named = environment.get("BRIDGE_APP_SECRETS_FILE")
    if file is None and named and not environment.get("BRIDGE_APP_SECRETS"):
        file = Path(named)
    text = environment.get("BRIDGE_APP_SECRETS", "") if file is None else _content(file)
    for part in filter(None, map(str.strip, text.split(","))):
        labelled = _LABELLED.fullmatch(part)
        if label is None:
            return labelled["secret"] if labelled else part
        if labelled and labelled["label"] == label:
            return labelled["secret"]
    if label is not None:
        raise Misconfigured(f"no app secret has the label {label!r}; give one that BRIDGE_APP_SECRETS names")
    raise Misconfigured("no app secret to sign with; set BRIDGE_APP_SECRETS or give --app-secret-file FILE")


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"cannot read the app secret from {file} ({type(error).__name__}); name a readable text file"
        ) from None
