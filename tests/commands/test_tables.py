"""Tables on terminals of any width."""

from __future__ import annotations

import sys

import pytest

from bridge.commands._shared import fitting_table

ROWS: list[list[object]] = [["topic", "offsets", "note"], ["instagram.messages", 7, "-"], ["total", 1207, ""]]


@pytest.fixture
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of that width; None for a pipe, where a narrow terminal's width counts for nothing."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: request.param is not None, raising=False)
    monkeypatch.setenv("COLUMNS", f"{request.param or 20}")


@pytest.mark.parametrize("columns", [None, 34], indirect=True)
def test_table_that_fits_or_goes_into_a_pipe_has_a_line_a_row(columns: None) -> None:
    """Numbers stand to the right, also above a total; nothing is cut."""
    del columns
    assert fitting_table(ROWS).splitlines() == [
        "topic               offsets  note",
        "instagram.messages        7  -",
        "total                  1207",
    ]


@pytest.mark.parametrize("columns", [32], indirect=True)
def test_table_on_a_terminal_that_is_too_narrow_has_a_line_a_cell(columns: None) -> None:
    """Each row is a block of its own, without the cells that say nothing."""
    del columns
    assert fitting_table(ROWS).split("\n\n") == [
        "topic    instagram.messages\noffsets  7\nnote     -",
        "topic    total\noffsets  1207",
    ]
