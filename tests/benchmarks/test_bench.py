"""`make bench` in its smallest form: what it measures, what it leaves out, what it refuses."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import msgspec
import pytest

from bridge.local.jvm import free_port
from bridge.local.service import Broker
from tests.processes import EXIT_DEADLINE_S, Process, until

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BENCH = BENCHMARKS / "bench.py"
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


async def test_soak_of_a_moment_tells_memory_latency_and_records(kafka: Broker, tmp_path: Path) -> None:
    """At a given rate it needs no round before it; Kafka holds what was answered 200."""
    results = tmp_path / "results.json"
    process = await Process.begin(
        *(BENCH, "--targets", "bare", "--soak-minutes", "0.05", "--rate", "100"),
        *("--kafka", kafka.bootstrap_servers, "--json", results),
        folder=tmp_path,
    )
    code = await process.end(deadline_s=2 * EXIT_DEADLINE_S)
    assert code == 0, process.stderr
    found = msgspec.json.decode(results.read_bytes())
    assert found["rounds"] == []
    (soak,) = found["soaks"]
    assert soak["rate"] == 100
    assert soak["records"] >= soak["result"]["acknowledged"] > 0
    assert len(soak["result"]["parts"]) == 1
    assert soak["result"]["parts"][0]["deliveries"] == soak["result"]["deliveries"]
    assert f"in Kafka: {soak['records']:,}" in process.stdout


async def test_parts_of_a_window_come_to_the_whole(tmp_path: Path) -> None:
    """Every answer of the window is in one part, and so is every second."""
    port = free_port()
    server = await Process.begin(
        BENCHMARKS / "reference" / "trivial.py", folder=tmp_path, environment={"REFERENCE_PORT": str(port)}
    )
    try:
        await until(lambda: listens(port), "the trivial server's port")
        job = {
            "port": port,
            "secret": "secret",
            "seed": 1,
            "events": 1,
            "accounts": 1,
            "connections": 2,
            "in_flight": 2,
            "rate": 200.0,
            "warm_up_s": 0.1,
            "seconds": 1.5,
            "server_pid": server.pid,
            "broker_pid": None,
            "parts": 3,
        }
        load = await Process.begin(BENCHMARKS / "load.py", folder=tmp_path, stdin=msgspec.json.encode(job))
        assert await load.end() == 0, load.stderr
    finally:
        await server.end(signal.SIGKILL)
    result = msgspec.json.decode(load.stdout)
    assert len(result["parts"]) == 3
    assert sum(part["deliveries"] for part in result["parts"]) == result["deliveries"]
    assert sum(part["seconds"] for part in result["parts"]) == pytest.approx(result["seconds"])
    stolen_s = sum(part["stolen_share"] * part["seconds"] for part in result["parts"])
    assert stolen_s == pytest.approx(result["stolen_share"] * result["seconds"])
    assert all(part["rss_bytes"] > 0 for part in result["parts"])


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def test_target_that_does_not_exist_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A wrong name is wrong usage: 2, with the names that there are."""
    process = await Process.begin(BENCH, "--targets", "bridge,benthos", folder=tmp_path)
    assert await process.end() == 2
    assert "no such target: benthos; there are bridge, bare, go, bento, bento-plain" in process.stderr
