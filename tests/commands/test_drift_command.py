"""`bridge drift` and `bridge schemas propose` over records on a real Kafka, and the proposal at a real registry."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from bridge.local.service import Broker, Registry
from tests.commands.conftest import Run
from tests.commands.past import ACCOUNT, BEGIN_MS, CUSTOMER, RETENTION_MS, message, notification, produce, walked
from tests.commands.test_schemas_command import ask
from tests.kafka.serving import run as run_to_the_end
from tests.kafka.serving import serve_environment

SINCE_BEGIN = "2025-11-22T08:26:40Z"
PRIVATE = "Where is my parcel?"


def body(**keys: object) -> bytes:
    """A delivery with one message."""
    item = message("Hello")
    return notification(item | {"message": item["message"] | keys})


@pytest.fixture(scope="module")
def topic_prefix() -> str:
    """One for all tests of this module: none of them writes."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
async def prefix(kafka: Broker, topic_prefix: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Topics with four messages, an early one with a new key and two later that share another, and a dead letter."""
    environment = serve_environment(kafka.bootstrap_servers, topic_prefix, TOPIC_RETENTION_MS=RETENTION_MS)
    await run_to_the_end(tmp_path_factory.mktemp("apply"), environment, "topics", "apply")
    late = [{"type": "image", "payload": {"depth_url": "https://cdn.instagram.example/private"}}]
    bodies = [
        body(early=1),
        body(text="known"),
        body(attachments=late),
        body(text=PRIVATE, attachments=late),
        b"no JSON",
    ]
    for at, one in enumerate(bodies, BEGIN_MS - 1):
        await produce(kafka, walked(topic_prefix, one, received_at=at), received_at=at)
    return topic_prefix


async def test_drift_shows_since_when_how_often_and_where(run: Run, prefix: str) -> None:
    """Of the range alone, with a place that holds an example; what another webhook field has is not looked at."""
    found = await run("drift", "--since", SINCE_BEGIN, "--output", "json")
    (finding,) = found.said["findings"]
    place = {finding.pop(name) for name in ("partition", "offset")}
    assert finding == {
        "webhook_field": "messages",
        "kind": "unknown_key",
        "path": "message.attachments[].payload.depth_url",
        "first_ms": BEGIN_MS + 1,
        "last_ms": BEGIN_MS + 2,
        "count": 2,
        "types": ["string"],
        "topic": f"{prefix}.messages",
    }
    assert all(isinstance(number, int) for number in place)
    assert (found.said["records"], found.said["undecodable"]) == (3, 0)

    text = await run("drift", "messages", "--since", SINCE_BEGIN)
    head, line = text.stdout.splitlines()
    assert head.split()[:2] == ["webhook", "field"]
    assert "depth_url" in line
    assert "3 records since 2025-11-22T08:26:40.000Z, 0 cannot be decoded" in text.stderr
    assert (await run("drift", "comments", "--since", SINCE_BEGIN)).stdout == ""
    assert "'soon' is no time" in (await run("drift", "--since", "soon")).stderr


async def test_proposal_is_written_and_taken_by_a_registry_that_wants_full_compatibility(
    run: Run, registry: Registry, prefix: str, tmp_path: Path
) -> None:
    """The changed files go into the folder; the registry takes them beside the present ones, and not one with a field less."""
    assert (await run("schemas", "register", SCHEMA_REGISTRY_URL=registry.url)).exit_code == 0
    (tmp_path / "next").mkdir()
    proposed = await run(
        *("schemas", "propose", "messages", "--since", SINCE_BEGIN, "--to", "next"), SCHEMA_REGISTRY_URL=registry.url
    )
    assert proposed.exit_code == 0, proposed.stderr
    assert "added: message.attachments[].payload.depth_url as depth_url" in proposed.stderr
    names = {"instagram_bridge.Messages.avsc": "messages", "instagram_bridge.Standby.avsc": "standby"}
    assert {path.name for path in (tmp_path / "next").iterdir()} == set(names)
    for file, topic_field in names.items():
        text = (tmp_path / "next" / file).read_text("utf-8")
        assert '"name": "depth_url"' in text
        path = f"/subjects/{prefix}.{topic_field}-value/versions"
        assert (await asyncio.to_thread(ask, registry, path, {"schema": text}))["id"] > 0
        less: dict[str, Any] = json.loads(text)
        less["fields"] = less["fields"][1:]
        with pytest.raises(OSError, match="409"):
            await asyncio.to_thread(ask, registry, path, {"schema": json.dumps(less)})

    (tmp_path / "taken" / "instagram_bridge.Messages.avsc").mkdir(parents=True)
    refused = await run("schemas", "propose", "messages", "--since", SINCE_BEGIN, "--to", "taken")
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        1,
        "bridge: taken/instagram_bridge.Messages.avsc cannot be written (Is a directory): name another folder",
    )

    shown = await run("schemas", "propose", "messages", "--since", SINCE_BEGIN)
    assert shown.stdout == (tmp_path / "next/instagram_bridge.Messages.avsc").read_text("utf-8")
    assert "instagram_bridge.Standby.avsc" in shown.stderr
    nothing = await run("schemas", "propose", "comments", "--since", SINCE_BEGIN)
    assert (nothing.exit_code, nothing.stdout) == (0, "")


async def test_record_keeps_samples_that_can_be_sent_and_hold_nobody(run: Run, prefix: str, tmp_path: Path) -> None:
    """One body a file, in the order of receipt; what is no JSON is left out and said; a folder that is not empty is left alone."""
    since = ("--since", SINCE_BEGIN, "--to", "samples")
    told = await run(
        "record", *since, "--field", "messages", "--field", "dead_letter", "--keep-names", "--output", "json"
    )
    assert told.said == {"folder": "samples", "written": 3, "unreadable": 1}
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.name for file in files] == [f"00000{number}-messages.json" for number in (1, 2, 3)]
    bodies = [file.read_bytes() for file in files]
    assert not [
        name for name in (ACCOUNT, CUSTOMER, PRIVATE, "cdn.instagram", "m_Hello") if name.encode() in b"".join(bodies)
    ]
    assert [b"depth_url" in one for one in bodies] == [False, True, True]
    assert {record.topic for one in bodies for record in walked(prefix, one)} == {f"{prefix}.messages"}
    accounts = {json.loads(one)["entry"][0]["messaging"][0]["recipient"]["id"] for one in bodies}
    assert accounts == {json.loads(bodies[0])["entry"][0]["id"]}
    assert "name another folder" in (await run("record", *since)).complaint

    (tmp_path / "body.json").write_bytes(body(text=PRIVATE))
    assert "1 samples in of-files" in (await run("record", "body.json", "--to", "of-files")).stdout
    (sample,) = (tmp_path / "of-files").iterdir()
    assert sample.name == "000001-body.json"
    assert PRIVATE.encode() not in sample.read_bytes()
