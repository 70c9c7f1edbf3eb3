"""X-Hub-Signature-256 against HMACs that openssl made: ``printf BODY | openssl dgst -sha256 -hmac SECRET``."""

from __future__ import annotations

import hmac

import pytest

from bridge.errors import Refused, SignatureMalformed, SignatureMismatch, SignatureMissing, SignatureRepeated
from bridge.signature import AppSecret, authenticate, claimed_digest

FIRST, SECOND, THIRD = (
    AppSecret("page", b"app-secret-1"),
    AppSecret("instagram", b"app-secret-2"),
    AppSecret("cyrillic", "ключ".encode()),
)
SECRETS = [FIRST, SECOND, THIRD]

BODY = b'{"object":"instagram","entry":[]}'
BY_FIRST = "6a154a46b4d1798bdc4f054e72c7f06fe41769605d46ec4e0de45cff36e29ee2"
BY_SECOND = "bbd929ca43a025aab15631dd2c33dc37556638ab041e50ab07b7e226d4c96d46"

OPENSSL = [
    (FIRST, BODY, BY_FIRST),
    (SECOND, BODY, BY_SECOND),
    (FIRST, b"", "141680187efb610d9f28ea617a8fe902610e8a09ae982bf690d88a6473b8ee46"),
    (FIRST, rb'{"text":"\u00e4 \ud83d\ude00"}', "8c30ff503c1f52d292a8565b5492f70c8fce3fc6bf34306b4ebc4026094d96d7"),
    (FIRST, b"\xff\x00\n", "e3945874c4c71f526bfacff0a3a5f66aab6b45ddcba4bacda0433d7361a01acc"),
    (THIRD, b"x", "2dc0f3535c988d226ad6f2d66976797443be55a1a83e30f5ed3a926183d5e1dc"),
]


@pytest.mark.parametrize(("secret", "body", "digest"), OPENSSL)
def test_signature_made_by_openssl_names_its_secret(secret: AppSecret, body: bytes, digest: str) -> None:
    """Whichever live secret signed the bytes is told by its label."""
    assert authenticate(body, claimed_digest=claimed_digest([f"sha256={digest}"]), app_secrets=SECRETS) == secret.label


def test_signature_in_uppercase_hex_is_taken() -> None:
    """Hex digits mean the same in either case."""
    assert (
        authenticate(BODY, claimed_digest=claimed_digest(["sha256=" + BY_FIRST.upper()]), app_secrets=SECRETS) == "page"
    )


def test_signature_by_equal_secrets_names_the_first() -> None:
    """Two labels for one secret: the first one is told."""
    twice = [AppSecret("old", b"app-secret-1"), FIRST]
    assert authenticate(BODY, claimed_digest=claimed_digest(["sha256=" + BY_FIRST]), app_secrets=twice) == "old"


def refusal(body: bytes, signatures: list[str], app_secrets: list[AppSecret]) -> Refused:
    with pytest.raises(Refused) as caught:
        authenticate(body, claimed_digest=claimed_digest(signatures), app_secrets=app_secrets)
    return caught.value


def test_signature_missing_is_refused() -> None:
    """No header, no delivery."""
    assert isinstance(refusal(BODY, [], SECRETS), SignatureMissing)


@pytest.mark.parametrize("second", [BY_FIRST, BY_SECOND, "0" * 64])
def test_signature_given_twice_is_refused_even_when_both_are_right(second: str) -> None:
    """A proxy might have checked the other one."""
    assert isinstance(refusal(BODY, [f"sha256={BY_FIRST}", f"sha256={second}"], SECRETS), SignatureRepeated)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "sha256=",
        BY_FIRST,
        f"sha1={BY_FIRST[:40]}",
        f"SHA256={BY_FIRST}",
        f"sha256={BY_FIRST[:-1]}",
        f"sha256={BY_FIRST}0",
        f"sha256= {BY_FIRST}",
        f" sha256={BY_FIRST}",
        f"sha256={BY_FIRST}\n",
        f"sha256={BY_FIRST},sha256={BY_FIRST}",
        f"sha256={'g' * 64}",
        f"sha256={'é' * 64}",
        f"sha256={'１' * 64}",  # noqa: RUF001 - full-width digits, which int() and \d would take
        "sha256=\udcff" + BY_FIRST[1:],
    ],
)
def test_signature_malformed_is_refused(header: str) -> None:
    """Anything but sha256= and 64 ASCII hex digits, non-ASCII text among it, is refused without a crash."""
    assert isinstance(refusal(BODY, [header], SECRETS), SignatureMalformed)


@pytest.mark.parametrize("body", [BODY + b"\n", BODY[:-1], BODY.replace(b"instagram", b"Instagram"), b""])
def test_signature_of_other_bytes_is_refused(body: bytes) -> None:
    """One byte more, less or other, and the signature is not the body's."""
    assert isinstance(refusal(body, [f"sha256={BY_FIRST}"], SECRETS), SignatureMismatch)


@pytest.mark.parametrize("digest", [BY_SECOND, "0" * 64])
def test_signature_by_no_live_secret_is_refused(digest: str) -> None:
    """A secret that was taken out of service signs nothing any more."""
    assert isinstance(refusal(BODY, [f"sha256={digest}"], [FIRST]), SignatureMismatch)


@pytest.mark.parametrize("signatures", [[], ["sha256=x"], ["sha256=" + "0" * 64], ["sha256=" + BY_FIRST] * 2])
def test_refusal_of_a_signature_holds_no_secret_body_or_digest(signatures: list[str]) -> None:
    """Whoever reads the log or the answer learns nothing to forge with."""
    said = repr(refusal(BODY, signatures, [SECOND]))
    for hidden in ("app-secret", "entry", BY_FIRST, BY_SECOND, "0000"):
        assert hidden not in said


def test_app_secret_shown_hides_its_key() -> None:
    """A secret that ends up in a log or a traceback shows its label alone."""
    assert "app-secret" not in f"{FIRST!r} {FIRST} {SECRETS}"
    assert "page" in repr(FIRST)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_digest_is_hmac_for_keys_of_any_length(length: int) -> None:
    """Shorter than a block of SHA-256, exactly one, and longer; again and again, for one secret signs all bodies."""
    key = bytes(range(1, length + 1))
    secret = AppSecret("main", key)
    for body in (b"", b"x", bytes(10_000)):
        assert secret.digest(body) == hmac.digest(key, body, "sha256")
