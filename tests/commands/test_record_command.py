"""`bridge record` where it does not read to the end, and where it may not write."""

from __future__ import annotations

from pathlib import Path

from bridge.local.service import Broker
from tests.commands.conftest import Run
from tests.commands.past import BEGIN_MS, RETENTION_MS, message, notification, produce, walked

SINCE_BEGIN = "2025-11-22T08:26:40Z"


async def test_record_that_has_enough_ends_without_a_word(
    run: Run, kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """At --count reading ends, though there is more, and nothing but the summary is said."""
    assert (await run("topics", "apply", TOPIC_RETENTION_MS=RETENTION_MS)).exit_code == 0
    body = notification(*(message(f"{number}") for number in range(1000)))
    await produce(kafka, walked(topic_prefix, body), received_at=BEGIN_MS)
    told = await run("record", "--field", "messages", "--since", SINCE_BEGIN, "--count", "5", "--to", "samples")
    assert told == (0, "5 samples in samples\n", "")
    assert len(list((tmp_path / "samples").iterdir())) == 5


async def test_record_into_a_folder_that_cannot_be_written_says_so_in_one_line(
    call_without_kafka: Run, tmp_path: Path
) -> None:
    """The folder, why, and what to do; root may write everywhere, but below a file nobody may."""
    (tmp_path / "body.json").write_bytes(notification(message("Hello")))
    told = await call_without_kafka("record", "body.json", "--to", "body.json/samples")
    assert told.complaint == "bridge: body.json/samples cannot be written (Not a directory): name another folder"
