from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bridge.errors import Misconfigured
from bridge.local.meta.signing import app_secret, signature


@pytest.mark.parametrize("body", [b"", b'{"object":"instagram","text":"\\u00e4"}', bytes(range(256)) * 300])
def test_signature_of_any_bytes_is_what_openssl_prints(body: bytes, tmp_path: Path) -> None:
    """The signature does not rest on our own word alone."""
    secret = "5a1f0c77 with spaces & ümläuts"  # noqa: S105 - guards nothing
    (tmp_path / "body").write_bytes(body)
    command = ["openssl", "dgst", "-sha256", "-hmac", secret, str(tmp_path / "body")]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert signature(body, secret) == "sha256=" + printed.split()[-1]


@pytest.mark.parametrize(
    ("secrets", "label", "chosen"),
    [
        ("abc", None, "abc"),
        ("old=abc, new=def", None, "abc"),
        ("old=abc,new=d=ef\n", "new", "d=ef"),
        ("Has=capitals", None, "Has=capitals"),
    ],
)
def test_app_secret_of_several_is_the_first_or_the_labelled(secrets: str, label: str | None, chosen: str) -> None:
    """BRIDGE_APP_SECRETS is read as the bridge reads it."""
    assert app_secret({"BRIDGE_APP_SECRETS": secrets}, label=label) == chosen


def test_app_secret_file_comes_before_the_environment(tmp_path: Path) -> None:
    """What is given on the command line wins; then the variable, then the file that a variable names."""
    given, named = tmp_path / "given", tmp_path / "named"
    given.write_text("from-given\n")
    named.write_text("from-named\n")
    environment = {"BRIDGE_APP_SECRETS": "from-variable", "BRIDGE_APP_SECRETS_FILE": str(named)}
    assert app_secret(environment, file=given) == "from-given"
    assert app_secret(environment) == "from-variable"
    assert app_secret({"BRIDGE_APP_SECRETS_FILE": str(named)}) == "from-named"


@pytest.mark.parametrize("environment", [{}, {"BRIDGE_APP_SECRETS": "a=hidden"}, {"BRIDGE_APP_SECRETS_FILE": "/none"}])
def test_app_secret_that_is_missing_says_how_to_give_one(environment: dict[str, str]) -> None:
    """The failure is one line with a remedy, and shows no secret."""
    with pytest.raises(Misconfigured, match=r"; (set|give|name) ") as failure:
        app_secret(environment, label="b")
    assert "hidden" not in str(failure.value)
