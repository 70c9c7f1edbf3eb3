"""A short run of `make fuzz`, from a fixed seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz

SEED = 20261122


@pytest.mark.parametrize(("target", "cases"), [("parsing", 2000), ("edge", 1000)])
def test_fuzz_from_a_fixed_seed_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, cases: int
) -> None:
    """No body and no connection of this run breaks a promise of `tests.fuzz.parsing` or `tests.fuzz.edge`."""
    monkeypatch.chdir(tmp_path)  # findings are written there
    assert fuzz(target, SEED, cases=cases) == []
