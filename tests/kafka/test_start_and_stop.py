"""How `bridge serve` starts, refuses to start, and ends."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from bridge.local.jvm import free_port
from bridge.local.service import Broker, Registry
from tests.conftest import BeginBridge
from tests.http.wire import Connection
from tests.kafka.load import Load
from tests.kafka.reading import decode_single_object
from tests.kafka.serving import APP_SECRET, VERIFY_TOKEN, begun, message, notification, opened, run, serve_environment
from tests.processes import Process

Environment = dict[str, str]


@pytest.fixture
def environment(kafka: Broker, topic_prefix: str) -> Environment:
    """Of a bridge over topics that do not exist yet."""
    return serve_environment(kafka.bootstrap_servers, topic_prefix)


async def refusal(process: Process) -> str:
    """What a start that must fail says, as a person reads it: after `bridge: `, no traceback, no secret."""
    assert await process.end() == 1, process.stdout + process.stderr
    said = process.stderr
    assert "Traceback" not in said
    assert APP_SECRET not in said
    assert VERIFY_TOKEN not in said
    _, _, told = said.partition("bridge: ")
    assert told, said
    return told


async def test_start_without_topics_names_each_and_the_command(
    bridge: BeginBridge, environment: Environment, topic_prefix: str
) -> None:
    """It creates no topic, and says what does."""
    told = await refusal(await bridge("serve", environment=environment))

    assert f"{topic_prefix}.messages" in told
    assert f"{topic_prefix}.dead_letter" in told
    assert "bridge topics apply" in told


async def test_start_with_a_topic_that_takes_smaller_records_is_refused(
    bridge: BeginBridge, environment: Environment, topic_prefix: str, tmp_path: Path
) -> None:
    """Sizes that do not agree would be found by a delivery, too late."""
    await run(tmp_path, environment, "topics", "apply")
    small = ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": environment["BRIDGE_KAFKA_BOOTSTRAP_SERVERS"]})
    topic = ConfigResource(ResourceType.TOPIC, f"{topic_prefix}.standby", incremental_configs=[small])
    admin.incremental_alter_configs([topic])[topic].result(60)

    told = await refusal(await bridge("serve", environment=environment))

    assert f"{topic_prefix}.standby" in told
    assert "bridge topics apply" in told


async def test_start_without_registered_schemas_names_the_command(
    bridge: BeginBridge, environment: Environment, registry: Registry, tmp_path: Path, topic_prefix: str
) -> None:
    """With a registry it registers nothing, never falls back, and says what does."""
    await run(tmp_path, environment, "topics", "apply")

    told = await refusal(await bridge("serve", environment={**environment, "BRIDGE_SCHEMA_REGISTRY_URL": registry.url}))

    assert f"{topic_prefix}.messages-value" in told
    assert "bridge schemas register" in told


async def test_start_with_wrong_settings_names_all_of_them_at_once(bridge: BeginBridge) -> None:
    """One start tells everything that is wrong, and how to mend it."""
    wrong = {
        "BRIDGE_APP_SECRETS": f"a={APP_SECRET},a={APP_SECRET}",
        "BRIDGE_PORT": "tcp://10.0.0.1:8080",
        "BRIDGE_MANAGEMENT_PORT": "99999",
        "BRIDGE_TOPIC_PREFIX": "No Prefix",
        "BRIDGE_PUBLISH_DEADLINE_MS": "an hour",
        "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": "somewhere",
        "BRIDGE_BODY_BYTES_MAXIMUM": "1",
        "BRIDGE_TEST_ANYTHING": "is the tests' own",
    }

    told = await refusal(await bridge("serve", environment=wrong))

    for name in [*wrong, "BRIDGE_VERIFY_TOKEN"]:
        assert (name in told) == (name not in ("BRIDGE_TEST_ANYTHING", "BRIDGE_APP_SECRETS")), name
    assert "enableServiceLinks" in told


async def test_start_without_any_setting_names_the_secrets_it_needs(bridge: BeginBridge) -> None:
    """There is no unsafe default."""
    told = await refusal(await bridge("serve", environment={}))

    assert "BRIDGE_APP_SECRETS" in told
    assert "BRIDGE_VERIFY_TOKEN" in told


@pytest.mark.parametrize("which", ["BRIDGE_PORT", "BRIDGE_MANAGEMENT_PORT"])
async def test_start_on_a_taken_port_names_it(
    bridge: BeginBridge, environment: Environment, tmp_path: Path, which: str
) -> None:
    """Who listens there already is not disturbed, and the start says which port it wanted."""
    await run(tmp_path, environment, "topics", "apply")
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = f"{other.getsockname()[1]}"
        told = await refusal(await bridge("serve", environment={**environment, which: port}))

    assert port in told


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_stop_of_an_idle_bridge_is_clean(
    environment: Environment, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    """Open connections do not hold it up, nor does a body that never ends."""
    body = notification(message("half"))
    async with opened(tmp_path, environment, decode_single_object) as street:
        async with Connection.open(street.serving.port) as idle, Connection.open(street.serving.port) as half:
            await half.send(street.serving.signed(body)[:-10])
            await street.serving.until_counted("instagram_bridge_held_bytes", len(body) - 10)
            assert await street.serving.process.end(number) == exit_code
            assert await idle.until_closed() == b""
            assert b" 200 " not in await half.until_closed()
        assert await street.reader.new() == []


async def test_stop_while_it_starts_is_clean(environment: Environment, tmp_path: Path) -> None:
    """A bridge that still waits for Kafka ends as well as one that serves."""
    nowhere = {**environment, "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    async with begun(tmp_path, nowhere) as serving:
        await serving.until_asked("/livez", 200)
        await serving.process.until_printed("away")
        assert await serving.process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_end_under_load_loses_nothing_that_was_answered_200(
    environment: Environment, tmp_path: Path, number: signal.Signals
) -> None:
    """However it ends: what was acknowledged is in Kafka, in order, once; a second bridge takes over."""
    async with opened(tmp_path, environment, decode_single_object) as street:
        load = Load(street.serving)
        await load.until_more(200)
        exit_code = await street.serving.process.end(number)
        await load.until(lambda answers: answers[0, None] > 0)
        async with begun(tmp_path, environment) as second:
            await second.until_ready()
            await load.until_more(50)
            await load.stop()
        records = await street.reader.new()

    assert exit_code == (0 if number is signal.SIGTERM else -number)
    load.assert_kept(records, lambda record: decode_single_object(record)["message"]["mid"])


async def test_records_of_every_size_around_a_small_limit_are_taken_by_kafka(
    environment: Environment, tmp_path: Path
) -> None:
    """Whatever the limit, our measure of a record is never smaller than Kafka's: byte by byte, none is refused."""
    small = {**environment, "BRIDGE_RECORD_BYTES_MAX": "4096"}
    async with opened(tmp_path, small, decode_single_object) as street:

        async def published(sizes: range) -> list[int]:
            items = [{**message(f"{size}", customer_id=f"{size}"), "unknown": "x" * size} for size in sizes]
            delivery_id = await street.serving.accepted(notification(*items))
            records = await street.reader.of(delivery_id)
            assert len(records) == len(items)
            values = [decode_single_object(record) for record in records if record.topic_field == "messages"]
            return sorted(int(value["message"]["mid"]) for value in values)

        roughly = await published(range(2000, 4000, 50))
        last = roughly[-1]
        exactly = await published(range(last, last + 50))

    assert roughly == list(range(2000, last + 1, 50))
    assert exactly == list(range(last, exactly[-1] + 1))
    assert exactly[-1] < last + 49
