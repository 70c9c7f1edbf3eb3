"""The experiment that `make chaos` runs, in its short form."""

from __future__ import annotations

import re
from pathlib import Path

from tests.processes import Process

ROOT = Path(__file__).parents[2]
MINUTES = 0.6
DEADLINE_S = 400
"""A start, the minutes, an account; and ten times that on a busy machine."""


async def test_chaos_for_a_short_while_loses_nothing(tmp_path: Path) -> None:
    """Everything breaks once, and nothing that was answered 200 is missing or overtaken; the table says so."""
    arguments = ("-m", "tests.chaos", "--minutes", f"{MINUTES}", "--seed", "4")
    chaos = await Process.begin(*arguments, folder=tmp_path, environment={"PYTHONPATH": str(ROOT)})
    try:
        assert await chaos.end(deadline_s=DEADLINE_S) == 0, chaos.stdout + chaos.stderr
    finally:
        chaos.kill()
    figures = {name: int(count) for name, count in re.findall(r"^(\D+?) +(\d+)$", chaos.stdout, re.MULTILINE)}
    print(chaos.stdout)
    assert (figures["lost"], figures["out of order"]) == (0, 0)
    assert min(figures["acknowledged by kafka"], figures["acknowledged by spool"], figures["without an answer"]) > 0
    assert "bridge killed" in chaos.stdout
    assert "broker killed" in chaos.stdout
