"""`make bench` in its smallest form: what it measures, what it leaves out, what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from bridge.local.service import Broker
from tests.processes import EXIT_DEADLINE_S, Process

BENCH = Path(__file__).parents[2] / "benchmarks" / "bench.py"
WITHOUT_GO = {"PATH": str(Path(sys.executable).parent)}
TINY = ("--events", "10", "--rounds", "1", "--seconds", "1", "--no-open-loop")


async def test_targets_that_cannot_be_built_are_left_out_and_the_others_measured(kafka: Broker, tmp_path: Path) -> None:
    """Without go on PATH a line names each of Go's programs, and the run goes on: whole deliveries are counted in Kafka."""
    results = tmp_path / "results.json"
    process = await Process.begin(
        *(BENCH, "--targets", "bento,bare,go", *TINY, "--kafka", kafka.bootstrap_servers, "--json", results),
        folder=tmp_path,
        environment=WITHOUT_GO,
    )
    code = await process.end(deadline_s=2 * EXIT_DEADLINE_S)
    assert code == 0, process.stderr
    left_out = [line for line in process.stdout.splitlines() if "left out" in line]
    assert left_out == [f"{target} is left out: there is no go on PATH" for target in ("bento", "go")]
    (measured,) = msgspec.json.decode(results.read_bytes())["medians"]
    assert measured["target"] == "bare"
    assert measured["records"] >= 10
    assert measured["records"] % 10 == 0


async def test_target_that_does_not_exist_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A wrong name is wrong usage: 2, with the names that there are."""
    process = await Process.begin(BENCH, "--targets", "bridge,benthos", folder=tmp_path)
    assert await process.end() == 2
    assert "no such target: benthos; there are bridge, bare, go, bento, bento-plain" in process.stderr
