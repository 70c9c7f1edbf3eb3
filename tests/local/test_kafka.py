"""The packaged broker: ports, data, a crash on either side, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.errors import Misconfigured
from bridge.local.choice import GivenKafka
from bridge.local.jvm import free_port
from bridge.local.kafka import LocalKafka
from bridge.local.service import Broker
from tests.processes import Process, until

SECRET = "not-for-others"  # noqa: S105 - a word to look for
GONE_DEADLINE_S = 10  # the kernel needs milliseconds to end a JVM; a busy machine more
PARENT = """
import asyncio, pathlib, sys
from bridge.local.kafka import LocalKafka

async def main():
    broker = LocalKafka(data_dir=pathlib.Path(sys.argv[1]), port=None)
    async with broker:
        print("up", broker.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def write(broker: Broker, topic: str, values: list[bytes]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def read(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        return [(await consumer.getone()).value for _ in range(count)]


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalKafka]:
    """A broker that was started while its usual port was taken and a secret stood in our environment."""
    with socket.create_server(("127.0.0.1", free_port())) as other, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRIDGE_APP_SECRETS", SECRET)
        broker = LocalKafka(data_dir=tmp_path_factory.mktemp("running"), port=other.getsockname()[1])
        async with broker:
            assert broker.port != other.getsockname()[1]
            yield broker


async def test_start_usual_port_taken_takes_another(running: LocalKafka) -> None:
    """A taken port is no obstacle: another one below the ephemeral range is taken and told."""
    assert running.port < 32_768
    assert str(running.port) in running.description
    await write(running, "probe", [b"value"])
    assert await read(running, "probe", 1) == [b"value"]


async def test_start_over_a_folder_in_use_is_refused(running: LocalKafka) -> None:
    """Two brokers never share a folder; the second is told so and the first goes on."""
    with pytest.raises(Misconfigured, match="another broker runs over"):
        await LocalKafka(data_dir=running.data_dir, port=None).start()
    await GivenKafka(running.bootstrap_servers).start()


async def test_broker_gets_no_variable_of_ours(running: LocalKafka) -> None:
    """A secret in our environment does not reach the broker's."""
    environment = Path(f"/proc/{running.pid}/environ").read_text("utf-8")  # noqa: ASYNC240 - no disk is asked

    assert "CLASSPATH" in environment
    assert SECRET not in environment


async def test_restart_on_another_port_keeps_the_records(tmp_path: Path) -> None:
    """The data folder alone carries the records: over a stop, another port, and a crash."""
    first = LocalKafka(data_dir=tmp_path, port=None)
    async with first:
        await write(first, "kept", [b"one", b"two"])

    second = LocalKafka(data_dir=tmp_path, port=None)
    async with second:
        assert second.port != first.port
        assert await read(second, "kept", 2) == [b"one", b"two"]
        port = second.port
        await second.kill()
        await second.start()
        assert second.port == port
        assert await read(second, "kept", 2) == [b"one", b"two"]


async def test_start_after_interrupted_formatting_formats_again(tmp_path: Path) -> None:
    """A run that was killed while it formatted the folder leaves nothing that a later start trips over."""
    data_dir = tmp_path / "data"
    parent = await Process.begin("-c", PARENT, data_dir, folder=tmp_path)
    await until((data_dir / "kafka.unfinished").exists, "the storage tool makes its folder")
    await parent.end(signal.SIGKILL)
    assert not (data_dir / "kafka").exists()

    async with LocalKafka(data_dir=data_dir, port=None) as broker:
        await write(broker, "probe", [b"value"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_end_of_the_parent_leaves_no_broker(tmp_path: Path, number: signal.Signals) -> None:
    """However the process ends that started a broker, the broker ends too."""
    parent = await Process.begin("-c", PARENT, tmp_path / "data", folder=tmp_path)
    output = await parent.until_printed("up ")
    pid = int(output.split()[1])
    assert exists(pid)

    await parent.end(number)

    await until(lambda: not exists(pid), "the broker is gone", GONE_DEADLINE_S)


async def test_start_that_fails_says_the_brokers_last_words(tmp_path: Path) -> None:
    """A broker that dies at its start is told of in one line: what it said last, and where the rest is."""
    broker = LocalKafka(data_dir=tmp_path, port=None, properties={"num.network.threads": "none"})

    with pytest.raises(Misconfigured) as refused:
        await broker.start()

    message = str(refused.value)
    assert "num.network.threads" in message
    assert str(tmp_path / "kafka.log") in message
    assert "\n" not in message


async def test_given_kafka_that_is_not_there_says_so() -> None:
    """A broker that was named and does not answer is told of in one line, with its address."""
    address = f"127.0.0.1:{free_port()}"

    with pytest.raises(Misconfigured, match=f"no Kafka serves {address}"):
        await GivenKafka(address).start()


def test_given_kafka_that_is_no_address_says_so() -> None:
    """What is no HOST:PORT is refused before anything is tried."""
    with pytest.raises(Misconfigured, match="HOST:PORT"):
        GivenKafka("localhost")


def test_free_port_twice_gives_two_ports() -> None:
    """A port that was given is not given again, even before anything listens on it."""
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == len(ports)
