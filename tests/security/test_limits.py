"""What SECURITY.md tells is there: its limits are those of the code, its tests exist."""

from __future__ import annotations

import importlib

import pytest

from bridge.settings import PREFIX, Settings
from tests.docs.markdown import ROOT, rows, spans

UNITS = {"": 1, "s": 1, "ms": 1, "KiB": 1024, "MiB": 1024 * 1024}
DOCUMENT = ROOT / "SECURITY.md"
ROWS = rows(DOCUMENT, "| limit | of | name |")


@pytest.mark.parametrize(("limit", "_of", "name"), ROWS)
def test_limit_of_the_document_is_the_one_in_the_code(limit: str, _of: str, name: str) -> None:
    """A setting's default, or a module's constant."""
    if name.startswith(PREFIX):
        value = Settings.model_fields[name.removeprefix(PREFIX).lower()].get_default()
    else:
        module, _, constant = name.rpartition(".")
        value = getattr(importlib.import_module(module), constant)
    number, _, unit = limit.partition(" ")
    assert int(number) * UNITS[unit] == value


def test_every_test_of_the_document_exists() -> None:
    """A defence whose test was moved or dropped is not defended any more."""
    named = {span for span in spans(DOCUMENT) if span.startswith("tests/")}
    assert {path for path in named if not (ROOT / path).exists()} == set()
