"""Comparing with a secret takes the same steps whatever the secret is: shown by the structure, not by a stopwatch."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from bridge.adapters.webhook import Webhook
from bridge.errors import SignatureMismatch
from bridge.signature import AppSecret, authenticate, claimed_digest
from tests.http.wire import openssl_signatures

LABELS = ["first", "second", "third"]
BODY = b'{"object":"instagram","entry":[]}'


class Watched(AppSecret):
    """A live app secret that tells when it signs."""

    __slots__ = ("_used",)

    def __init__(self, label: str, used: list[str]) -> None:
        super().__init__(label, label.encode())
        self._used = used

    def digest(self, body: bytes) -> bytes:
        """Sign; that is noted."""
        self._used.append(self.label)
        return super().digest(body)


@pytest.mark.parametrize("signer", [*LABELS, "nobody"])
def test_signature_of_whichever_secret_is_compared_with_all_of_them(signer: str) -> None:
    """The first of three, the last or none: each signs once, so the time does not tell which one it was."""
    used: list[str] = []
    secrets = [Watched(label, used) for label in LABELS]
    (signature,) = openssl_signatures([BODY], signer)
    try:
        matched = authenticate(BODY, claimed_digest=claimed_digest([signature]), app_secrets=secrets)
    except SignatureMismatch:
        matched = "nobody"
    assert matched == signer
    assert used == LABELS


@pytest.mark.parametrize("function", [authenticate, Webhook._challenge])  # noqa: SLF001 - its text is what is looked at
def test_secret_is_compared_by_compare_digest_alone(function: Callable[..., Any]) -> None:
    """Where a signature or the verify token is looked at, `==` and `in` meet constants only: they end at the first difference."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    compared = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and not any(isinstance(side, ast.Constant) for side in (node.left, *node.comparators))
    ]
    assert compared == []
    assert "compare_digest" in {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
