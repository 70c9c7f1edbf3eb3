"""The services of docker-compose.yml as plain processes, in their order, over the broker and the registry that all tests share.

Only places differ: hosts, ports, folders. Commands, settings and health checks are those of the files.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

from bridge.local.jvm import free_port
from bridge.local.service import Broker, Registry
from tests.consumers.running import until
from tests.deploy.description import ROOT, compose, exec_form, services
from tests.http.wire import openssl_signatures
from tests.kafka.serving import message, notification
from tests.processes import POLL_INTERVAL_S, START_DEADLINE_S, Process

APP_SECRET = "c0ffee"  # noqa: S105 - guards nothing
TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - guards nothing
DOCKER_STOP_S = 10  # what Docker gives where the file says nothing
CHECK_DEADLINE_S = 30  # a program that starts and asks once: a tenth of a second, and a busy machine


class Running(NamedTuple):
    """A service that runs.

    Attributes:
        environment: its own, with the places of this machine.
        healthcheck: what Docker would ask; None: nothing.
        stop_s: how long it may take to end.
    """

    process: Process
    environment: dict[str, str]
    healthcheck: list[str] | None
    stop_s: float

    async def until_healthy(self) -> None:
        """Waits until Docker would call it healthy; fails when it ends before."""
        async with asyncio.timeout(START_DEADLINE_S):
            while self.healthcheck and not await succeeds(self.healthcheck, self.environment):
                assert self.process.exit_code is None, self.process.stderr
                await asyncio.sleep(POLL_INTERVAL_S)


async def succeeds(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a health check's command ends with 0."""
    words = [sys.executable if word == "python" else word for word in command]
    check = await asyncio.create_subprocess_exec(*words, env=environment, stderr=asyncio.subprocess.DEVNULL)
    return await asyncio.wait_for(check.wait(), CHECK_DEADLINE_S) == 0


@pytest.fixture
async def stack(
    kafka: Broker, registry: Registry, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[dict[str, Running]]:
    """The services that stay, each begun when those before it are healthy or have done their work."""
    content = compose(
        {
            "BRIDGE_APP_SECRETS": f"one={APP_SECRET}",
            "BRIDGE_VERIFY_TOKEN": "a-token",
            "BRIDGE_TOPIC_PREFIX": topic_prefix,
            "BRIDGE_TOPIC_PARTITIONS": "2",
            "ANALYTICS_TOKEN": TOKEN,
        }
    )
    page_port = f"{free_port()}"
    places = {
        "BRIDGE_HOST": "127.0.0.1",
        "BRIDGE_PORT": f"{free_port()}",
        "BRIDGE_MANAGEMENT_PORT": f"{free_port()}",
        "BRIDGE_SPOOL_DIR": str(tmp_path / "spool"),
        "ANALYTICS_HOST": "127.0.0.1",
        "ANALYTICS_DATABASE": str(tmp_path / "analytics.duckdb"),
        "ANALYTICS_PORT": page_port,
        "AUTO_REPLY_RULES": str(ROOT / "consumers/auto_reply/rules.example.yaml"),
    }
    hosts = {"kafka:9092": kafka.bootstrap_servers, "http://registry:8080/apis/ccompat/v7": registry.url}
    running: dict[str, Running] = {}
    try:
        for name, service in services(content).items():
            program, *arguments = service.command
            command = ["-m", "bridge", *arguments] if program == "bridge" else arguments
            environment = {key: hosts.get(value, value) for key, value in service.environment.items() if key != "PATH"}
            prefix = next(key.partition("KAFKA_")[0] for key in environment if "KAFKA_" in key)
            environment |= {key: place for key, place in places.items() if key.startswith(prefix)}
            process = await Process.begin(*command, folder=tmp_path, environment=environment)
            if content["services"][name]["restart"] == "on-failure:5":
                assert await process.end() == 0, process.stderr
                continue
            check = service.healthcheck and [word.replace("8082", page_port) for word in service.healthcheck]
            stop = content["services"][name].get("stop_grace_period", f"{DOCKER_STOP_S}s")
            running[name] = Running(process, environment, check, float(stop.removesuffix("s")))
            await running[name].until_healthy()
        yield running
    finally:
        await asyncio.gather(*(service.process.end(signal.SIGKILL) for service in running.values()))


async def test_services_of_the_compose_file_work_together_and_stop_in_time(stack: dict[str, Running]) -> None:
    """A signed delivery is acknowledged by Kafka, counted by one consumer, decided on by the other; SIGTERM ends all."""
    assert stack.keys() == {"bridge", "analytics", "auto_reply"}
    body = notification(message("m-1", text="hello") | {"timestamp": now_ms()})
    signature = {"X-Hub-Signature-256": openssl_signatures([body], APP_SECRET)[0]}
    webhook = f"http://127.0.0.1:{stack['bridge'].environment['BRIDGE_PORT']}/webhooks/instagram"
    counts = f"http://127.0.0.1:{stack['analytics'].environment['ANALYTICS_PORT']}/api/counts"
    async with aiohttp.ClientSession() as session:
        async with session.post(webhook, data=body, headers=signature) as answer:
            assert (answer.status, answer.headers["X-Acknowledged-By"]) == (200, "kafka")
        await stack["auto_reply"].process.until_printed("would_reply")
        await until(lambda: json_of(session, counts), lambda figures: figures["events"] == 1)
    for service in stack.values():
        assert await service.process.end(signal.SIGTERM, service.stop_s) == 0
        assert service.healthcheck is None or not await succeeds(service.healthcheck, service.environment)


async def test_registrys_health_check_tells_ready_from_not_ready_and_from_nothing(registry: Registry) -> None:
    """Bash alone reads the status line: 200 is healthy, another status and a port where nobody listens are not."""
    given = {"BRIDGE_APP_SECRETS": "a", "BRIDGE_VERIFY_TOKEN": "b", "ANALYTICS_TOKEN": "c"}
    check = exec_form(compose(given)["services"]["registry"]["healthcheck"]["test"])
    address = URL(registry.url)

    async def healthy(path: str, port: int | None) -> bool:
        return await succeeds([word.replace("9000", f"{port}").replace("/health/ready", path) for word in check], {})

    assert await healthy(f"{address.path}/subjects", address.port)
    assert not await healthy("/there-is-no-such-page", address.port)
    assert not await healthy(f"{address.path}/subjects", free_port())


async def json_of(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """What is answered there."""
    async with session.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        found: dict[str, Any] = json.loads(await answer.text())
        return found


def now_ms() -> int:
    """Milliseconds since the Unix epoch: the sample answers nobody whose message is old."""
    return time.time_ns() // 1_000_000
