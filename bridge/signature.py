"""X-Hub-Signature-256: which live app secret signed these bytes. Does no IO, reads no clock.

Meta signs the body as it goes over the wire: ``sha256=`` and the hex HMAC-SHA256 of the raw bytes, keyed with the app
secret (developers.facebook.com/docs/graph-api/webhooks/getting-started, "Validating Payloads", read 2026-11-22).
An app that uses Instagram Login signs with the *Instagram* app secret, a Page-routed one with the Meta app secret, so more
than one secret is live even when none is being rotated.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

from bridge.errors import SignatureMalformed, SignatureMismatch, SignatureMissing, SignatureRepeated

_BLOCK_BYTES = hashlib.sha256().block_size
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""What the key is mixed with, a byte at a time."""

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})", re.ASCII)


class AppSecret:
    """A live app secret under its label; the label is the operator's, never derived from the secret.

    Attributes:
        label: what logs, metrics and dead letters show.
        key: the secret's bytes.
    """

    __slots__ = ("_inner", "_outer", "key", "label")

    def __init__(self, label: str, key: bytes) -> None:
        self.label = label
        self.key = key
        # HMAC is a hash within a hash, each begun with a block made of the key (RFC 2104 section 2). That is always the same, and a
        # third of what a usual body costs.
        block = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def digest(self, body: bytes) -> bytes:
        """The HMAC-SHA256 of a body."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        return f"AppSecret(label={self.label!r})"


def claimed_digest(signatures: Sequence[str]) -> bytes:
    """The digest that a delivery claims, for a look before its body is read.

    Args:
        signatures: every value of the X-Hub-Signature-256 header.

    Raises:
        SignatureMissing: the header is not there.
        SignatureRepeated: it is there more than once.
        SignatureMalformed: it is not ``sha256=`` and 64 hex digits.
    """
    if not signatures:
        raise SignatureMissing("no X-Hub-Signature-256 header")
    if len(signatures) > 1:
        raise SignatureRepeated("more than one X-Hub-Signature-256 header")
    match = _SIGNATURE.fullmatch(signatures[0])
    if match is None:
        raise SignatureMalformed("X-Hub-Signature-256 is not sha256= and 64 hex digits")
    return bytes.fromhex(match[1])


def authenticate(body: bytes, *, claimed_digest: bytes, app_secrets: Sequence[AppSecret]) -> str:
    """Tell which app secret signed the body.

    Every live secret is tried, whichever matches: the time taken does not tell which one did.

    Args:
        body: the bytes as received.
        claimed_digest: see the function of this name.
        app_secrets: the live secrets, at least one.

    Returns:
        The label of the secret that matched (of the first, should two be equal).

    Raises:
        SignatureMismatch: no live secret gives this signature.
    """
    matched = None
    for secret in app_secrets:
        if hmac.compare_digest(secret.digest(body), claimed_digest) and matched is None:
            matched = secret.label
    if matched is None:
        raise SignatureMismatch("no live app secret gives this signature over these bytes")
    return matched
