from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from bridge.local.jvm import free_port
from bridge.local.meta.truth import read
from tests.conftest import BeginBridge
from tests.meta.receiver import SECRET, Listen, accept

ENVIRONMENT = {"BRIDGE_APP_SECRETS": f"main={SECRET}"}
BODY = b'{ "object":"instagram", "entry":[] }\n'


async def refuse(_: bytes, __: int) -> int:
    return 503


async def test_send_accepted_prints_a_line_per_file_and_exits_0(
    bridge: BeginBridge, listen: Listen, tmp_path: Path
) -> None:
    """Files and stdin go out exactly as they are, in the order given."""
    receiver = await listen(accept)
    (tmp_path / "one.json").write_bytes(BODY)
    process = await bridge(
        "send", "--url", receiver.url, "one.json", "-", environment=ENVIRONMENT, stdin=b"\xff not JSON"
    )
    assert await process.end() == 0
    assert receiver.bodies == [BODY, b"\xff not JSON"]
    first, second = process.stdout.splitlines()
    assert first.startswith("one.json: 200  delivery d0  acknowledged by kafka")
    assert second.startswith("stdin: 200  delivery d1")


async def test_send_refused_exits_1_with_one_line_that_says_how_to_mend_it(bridge: BeginBridge, listen: Listen) -> None:
    """A refusal is a failure, its answer is still printed, and the secret never is."""
    receiver = await listen(refuse)
    process = await bridge("send", "--url", receiver.url, "--output", "json", "-", environment=ENVIRONMENT, stdin=BODY)
    assert await process.end() == 1
    answer = json.loads(process.stdout)
    assert answer.pop("ms") > 0
    assert answer == {"file": "stdin", "status": 503, "delivery_id": "d0", "acknowledged_by": "kafka"}
    (line,) = process.stderr.splitlines()
    assert "send it again" in line
    assert SECRET not in process.stdout + process.stderr


@pytest.mark.parametrize(
    ("options", "environment", "exit_code", "says"),
    [
        ((), ENVIRONMENT, 1, "nothing listens there: start the bridge"),
        ((), {}, 1, "set BRIDGE_APP_SECRETS or give --app-secret-file"),
        (("--app-secret-file", "missing"), ENVIRONMENT, 1, "name a readable text file"),
        (("--label", "other"), ENVIRONMENT, 1, "no app secret has the label 'other'"),
    ],
)
async def test_send_that_cannot_be_exits_1_with_one_line(
    bridge: BeginBridge, options: tuple[str, ...], environment: dict[str, str], exit_code: int, says: str
) -> None:
    """Nobody there, or nothing to sign with: one line says what to do, and there is no traceback."""
    url = f"http://127.0.0.1:{free_port()}/webhooks/instagram"
    process = await bridge("send", "--url", url, *options, "-", environment=environment, stdin=BODY)
    assert await process.end() == exit_code
    (line,) = process.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("send",),
        ("send", "no-such-file"),
        ("send", "--url", "localhost:8080", "-"),
        ("simulate", "--start", "2026-11-22T09:00:00"),
        ("simulate", "--batch", "1001"),
        ("simulate", "--quirks", "2"),
    ],
)
async def test_wrong_usage_exits_2(bridge: BeginBridge, arguments: tuple[str, ...]) -> None:
    """What can never work is wrong usage."""
    process = await bridge(*arguments, environment=ENVIRONMENT, stdin=b"")
    assert await process.end() == 2


async def test_simulate_of_an_equal_seed_and_start_repeats_every_byte(bridge: BeginBridge, listen: Listen) -> None:
    """A run can be had again from what it printed, and its secret from the env file."""
    options = ("--rate", "0", "--count", "200", "--connections", "1", "--quirks", "0.1", "--output", "json")
    first, second = await listen(accept), await listen(accept)
    process = await bridge("simulate", "--url", first.url, *options, environment=ENVIRONMENT)
    assert await process.end() == 0
    summary = json.loads(process.stdout)
    assert summary["answers"] == {"200": 200}
    assert summary["events"] == sum(len(read(body)) for body in first.bodies)
    repeated = ("--seed", str(summary["seed"]), "--start", summary["start"])
    process = await bridge("simulate", "--url", second.url, *options, *repeated, environment=ENVIRONMENT)
    assert await process.end() == 0
    assert second.bodies == first.bodies


async def test_simulate_interrupted_exits_130_with_a_complete_truth(
    bridge: BeginBridge, listen: Listen, tmp_path: Path
) -> None:
    """After Ctrl-C the truth tells of every post that was received, and of no other."""
    receiver = await listen(accept)
    options = ("--rate", "200", "--redeliver", "0.2", "--quirks", "0.2", "--truth", "truth.jsonl")
    process = await bridge(
        "simulate", "--url", receiver.url, *options, "--topic-prefix", "shop", environment=ENVIRONMENT
    )
    await receiver.until_posts(100)
    assert not (tmp_path / "truth.jsonl").exists()
    assert await process.end(signal.SIGINT) == 130
    *lines, last = map(json.loads, (tmp_path / "truth.jsonl").read_text().splitlines())
    received = Counter(event.event_id for body in receiver.bodies for event in read(body) if event.event_id)
    assert {line["event_id"]: line["times_sent"] for line in lines} == received
    assert {status for line in lines for status in line["statuses"]} == {200}
    assert last["totals"]["posts"] == len(receiver.bodies)
    assert all(line["topic"].startswith("shop.") for line in lines)
    assert "Traceback" not in process.stderr


async def test_simulate_terminated_exits_0(bridge: BeginBridge, listen: Listen) -> None:
    """SIGTERM is a clean stop."""
    receiver = await listen(accept)
    process = await bridge("simulate", "--url", receiver.url, "--rate", "100", environment=ENVIRONMENT)
    await receiver.until_posts(10)
    assert await process.end(signal.SIGTERM) == 0
    assert "given up" in process.stdout


async def test_simulate_that_is_refused_exits_1_and_says_why(bridge: BeginBridge, listen: Listen) -> None:
    """Deliveries that were never answered 200 make the run a failure."""
    receiver = await listen(refuse)
    options = ("--count", "3", "--rate", "0", "--retry-for", "0")
    process = await bridge("simulate", "--url", receiver.url, *options, environment=ENVIRONMENT)
    assert await process.end() == 1
    assert "3 deliveries were given up, answered 503" in process.stderr.splitlines()[-1]
