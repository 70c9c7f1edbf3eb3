"""The tree of errors: every class carries its decision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import pytest

from bridge import errors
from bridge.errors import BridgeError, Misconfigured, Refused, Unreadable

Error = TypeVar("Error", bound=BridgeError)


def below(root: type[Error]) -> Iterator[type[Error]]:
    """The class and all that the project derives from it; a test's own are not the project's."""
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("bridge."):
            yield from below(child)


TREE = list(below(BridgeError))
each_error = pytest.mark.parametrize("error", TREE, ids=[error.__name__ for error in TREE])


@each_error
def test_error_of_every_class_has_its_own_reason_and_docstring(error: type[BridgeError]) -> None:
    """No class is empty or inherits what it should decide itself."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", vars(error)["reason"])
    assert (vars(error)["__doc__"] or "").strip().endswith(".")


@each_error
def test_tree_at_the_head_of_the_module_names_every_class(error: type[BridgeError]) -> None:
    """Who reads the first lines of errors.py has seen them all."""
    assert re.search(rf"\b{error.__name__}\b", errors.__doc__ or "")


def test_reasons_of_all_classes_are_distinct() -> None:
    """A metric's label, a log's key and a dead letter's reason name one class."""
    reasons = [error.reason for error in TREE]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("refused", list(below(Refused)), ids=lambda refused: refused.__name__)
def test_status_of_a_refusal_fits_whether_a_retry_helps(refused: type[Refused]) -> None:
    """Only 503 asks Meta to come again, in seconds rather than minutes; whatever a retry would not mend is 4xx."""
    if refused.http_status == 503:
        assert refused.retry_after_s is not None
        assert 1 <= refused.retry_after_s <= 60
    else:
        assert 400 <= refused.http_status < 500
        assert refused.retry_after_s is None


def test_statuses_of_all_refusals_are_those_of_the_contract() -> None:
    """contract.md "HTTP": 401 is a signature's, 403 a token's; the others that it names exist."""
    reasons: dict[int, set[str]] = {}
    for refused in below(Refused):
        reasons.setdefault(refused.http_status, set()).add(refused.reason)
    assert reasons.keys() >= {400, 401, 403, 404, 405, 408, 413, 503}
    assert reasons[401] == {f"signature_{how}" for how in ("missing", "repeated", "malformed", "mismatch")}
    assert reasons[403] == {"wrong_verify_token"}


@pytest.mark.parametrize("branch", [Unreadable, Misconfigured])
def test_errors_that_no_client_sees_have_no_status(branch: type[BridgeError]) -> None:
    """A dead letter is answered 200, and a misconfigured bridge does not answer."""
    assert not any(hasattr(error, "http_status") for error in below(branch))
