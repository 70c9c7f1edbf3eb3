"""`bridge tail` on a real Kafka: records that the street made, in both value encodings, seen as an operator sees them."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from bridge.commands.tail import command
from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, confluent_prefix, single_object_prefix
from bridge.event import WEBHOOK_FIELDS
from bridge.local.service import Broker, Registry
from bridge.pipeline import Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER, MANAGED_FIELDS
from bridge.schemas import load
from tests.commands.conftest import Run
from tests.commands.past import RETENTION_MS
from tests.conftest import BeginBridge

ANSWER_S = 30
BEGIN_MS = 1_763_800_000_000
ACCOUNT, CUSTOMER, OTHER_CUSTOMER = "17841400000000001", "1254459154682919", "998877"
SINCE_BEGIN = datetime.fromtimestamp(BEGIN_MS / 1000, UTC).isoformat()
HOSTILE = 'a\x1b[31m"red"\x9b2J\r\nnext\u202e 👩\u200d👧'


def body(text: str, customer_id: str = CUSTOMER) -> bytes:
    """A delivery with one message."""
    item = {
        "sender": {"id": customer_id},
        "recipient": {"id": ACCOUNT},
        "timestamp": BEGIN_MS - 5000,
        "message": {"mid": "m_1", "text": text, "attachments": [{"type": "image", "payload": {"url": "u"}}]},
    }
    return json.dumps(
        {"object": "instagram", "entry": [{"id": ACCOUNT, "time": BEGIN_MS, "messaging": [item]}]}
    ).encode()


def records(
    topic_prefix: str, body: bytes, prefixes: Mapping[str, bytes] | None = None, received_at: int = BEGIN_MS
) -> list[Record]:
    """What the street makes of a body; without prefixes in single-object encoding."""
    schemas = {topic_field: load(topic_field) for topic_field in MANAGED_FIELDS}
    known = prefixes or {topic_field: single_object_prefix(schema) for topic_field, schema in schemas.items()}
    street = Pipeline(
        topic_prefix=topic_prefix,
        encoders={field: Encoder(field, schemas[field], known[field]) for field in WEBHOOK_FIELDS},
        dead_letters=DeadLetterEncoder(schemas[DEAD_LETTER], known[DEAD_LETTER]),
        record_bytes_max=1024 * 1024,
    )
    delivery = Delivery(body=body, received_at=received_at, delivery_id="0" * 32, app_secret_label="main")  # noqa: S106 - a label
    return street.records(delivery, [])


async def produce(kafka: Broker, records: Iterable[Record], received_at: int = BEGIN_MS) -> None:
    """Puts records into Kafka, and waits until they are there."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    for record in records:
        headers: list[tuple[str, str | bytes | None]] = [*record.headers]
        producer.produce(record.topic, record.value, record.key, timestamp=received_at, headers=headers)
    assert await asyncio.to_thread(producer.flush, ANSWER_S) == 0


@pytest.fixture
async def prefix(run: Run, topic_prefix: str) -> str:
    """A prefix whose topics exist, and keep records of another year."""
    assert (await run("topics", "apply", TOPIC_RETENTION_MS=RETENTION_MS)).exit_code == 0
    return topic_prefix


async def test_tail_since_a_time_decodes_both_value_encodings(
    run: Run, kafka: Broker, registry: Registry, prefix: str
) -> None:
    """Records from that time on come with all they hold, told by fingerprint or by the registry; earlier ones do not."""
    registered = await run("schemas", "register", "--output", "json", SCHEMA_REGISTRY_URL=registry.url)
    ids = dict(zip(MANAGED_FIELDS, (row["id"] for row in registered.said["subjects"]), strict=True))
    prefixes = {topic_field: confluent_prefix(schema_id) for topic_field, schema_id in ids.items()}
    await produce(kafka, records(prefix, body("too early")), received_at=BEGIN_MS - 1)
    await produce(kafka, records(prefix, body("plain")), received_at=BEGIN_MS)
    await produce(kafka, records(prefix, body("registered"), prefixes), received_at=BEGIN_MS + 1)

    tailed = await run(
        *("tail", "messages", "--since", SINCE_BEGIN, "--count", "2", "--output", "json"),
        SCHEMA_REGISTRY_URL=registry.url,
    )
    lines = [json.loads(line) for line in tailed.stdout.splitlines()]
    assert [line["value"]["message"]["text"] for line in lines] == ["plain", "registered"]
    for line in lines:
        assert (line["topic"], line["key"]) == (f"{prefix}.messages", f"{ACCOUNT}:{CUSTOMER}")
        assert (line["value"]["account_id"], line["value"]["occurred_at"]) == (ACCOUNT, BEGIN_MS - 5000)
        assert json.loads(line["value"]["raw"])["message"]["text"] == line["value"]["message"]["text"]

    alone = await run("tail", "messages", "--since", SINCE_BEGIN, "--count", "2")
    assert 'message(text="plain" attachments[image])' in alone.stdout
    assert "set BRIDGE_SCHEMA_REGISTRY_URL" in alone.stdout


async def test_tail_of_a_hostile_text_prints_one_line_without_control_characters(
    run: Run, kafka: Broker, prefix: str
) -> None:
    """Whatever a customer writes, a terminal obeys none of it, and it takes one line; long texts are cut."""
    await produce(kafka, records(prefix, body(HOSTILE)))
    await produce(kafka, records(prefix, body("x" * 5000)), received_at=BEGIN_MS + 1)
    tailed = await run("tail", "--since", SINCE_BEGIN, "--count", "2")
    first, second = tailed.stdout.removesuffix("\n").split("\n")
    assert all(character.isprintable() or character == "\u200d" for character in first)
    assert first.startswith(f"2025-11-22T08:26:40.000Z  messages  {ACCOUNT}  {CUSTOMER}  message(")
    assert "👩\u200d👧" in first
    assert len(second) < 400

    as_json = await run("tail", "--since", SINCE_BEGIN, "--count", "1", "--output", "json")
    assert as_json.stdout.removesuffix("\n").isprintable()
    assert as_json.said["value"]["message"]["text"] == HOSTILE


async def test_tail_by_account_and_customer_shows_only_theirs(run: Run, kafka: Broker, prefix: str) -> None:
    """Both filters hold together, and --count counts what is shown."""
    for customer_id in (CUSTOMER, OTHER_CUSTOMER, CUSTOMER):
        await produce(kafka, records(prefix, body(f"from {customer_id}", customer_id)))
    tailed = await run(
        *("tail", "--since", SINCE_BEGIN, "--account", ACCOUNT, "--customer", OTHER_CUSTOMER, "--count", "1")
    )
    [line] = tailed.stdout.splitlines()
    assert f"from {OTHER_CUSTOMER}" in line


async def test_tail_of_dead_letters_shows_why_and_how_large(run: Run, kafka: Broker, prefix: str) -> None:
    """dead_letter is shown when it is named: reason, size and detail; the body only as base64 with --output json."""
    await produce(kafka, records(prefix, b"\xffnot json"))
    tailed = await run("tail", "dead_letter", "--since", SINCE_BEGIN, "--count", "1")
    assert "dead_letter  not_utf8  9 bytes  " in tailed.stdout
    assert "not json" not in tailed.stdout
    as_json = await run("tail", "dead_letter", "--since", SINCE_BEGIN, "--count", "1", "--output", "json")
    assert base64.b64decode(as_json.said["value"]["body"]) == b"\xffnot json"


async def test_tail_over_values_that_are_no_events_goes_on(run: Run, kafka: Broker, prefix: str) -> None:
    """A value in no known encoding, with an unknown fingerprint, torn, or missing is told by its place, and the next one shown."""
    [good] = records(prefix, body("good"))
    foreign = [b"nonsense", b"\xc3\x01" + bytes(8) + b"rest", good.value[:40], b""]
    await produce(kafka, [Record.of(good.topic, good.key, value, []) for value in foreign])
    await produce(kafka, [good], received_at=BEGIN_MS + 1)
    tailed = await run("tail", "messages", "--since", SINCE_BEGIN, "--count", "5")
    *problems, last = tailed.stdout.splitlines()
    assert [line.partition("cannot be decoded, ")[2].partition(" (partition")[0] for line in problems] == [
        "it is neither in Confluent's wire format nor in Avro's single-object encoding",
        "its schema's fingerprint is none of this version's",
        "its bytes do not follow its schema (EOFError)",
        "it has no value",
    ]
    assert 'text="good"' in last


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_tail_without_since_shows_what_comes_until_it_is_stopped(
    *,
    run: Run,
    bridge: BeginBridge,
    kafka: Broker,
    environment: dict[str, str],
    prefix: str,
    number: signal.Signals,
    exit_code: int,
) -> None:
    """From now means from the line that says so; Ctrl-C ends with 130, SIGTERM with 0, both without a word more."""
    await produce(kafka, records(prefix, body("before")))
    tail = await bridge("tail", environment=environment)
    await tail.until_printed("from now")
    await produce(kafka, records(prefix, body("after")))
    await tail.until_printed("after")
    assert await tail.end(number) == exit_code
    assert "before" not in tail.stdout
    assert "Traceback" not in tail.stderr
    assert len(tail.stderr.splitlines()) <= 2, tail.stderr
    assert (await run("topics", "list")).exit_code == 0, "Kafka is still there"


async def test_tail_of_missing_topics_fails_in_one_line(run: Run, topic_prefix: str) -> None:
    """Topics that do not exist are named."""
    assert f"no such topic: {topic_prefix}.comments" in (await run("tail", "comments")).complaint


@pytest.mark.parametrize("arguments", [("mesages",), ("--since", "soon"), ("--count", "0")])
def test_tail_with_wrong_usage_exits_with_two(arguments: tuple[str, ...]) -> None:
    """No webhook field, no time, no count: usage, not failure."""
    assert CliRunner().invoke(command, arguments).exit_code == 2
