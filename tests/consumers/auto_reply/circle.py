"""The whole circle on one machine: webhooks → ingress → Kafka → auto_reply → stand-in for Graph API → its echoes as webhooks."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition

from bridge.local.meta.graph import GraphStandIn, Request
from bridge.local.meta.sender import Sender
from tests.kafka.reading import Record, decode_single_object
from tests.kafka.serving import PARTITIONS, Serving
from tests.processes import Process, until

DEADLINE_S = 60
RULES = """
version: 1
human_pause_s: 3600
rules:
  - {name: shop, when: {postback: [SHOP]}, reply: {text: "Here is our shop."}}
  - {name: all, when: {any_message: true}, reply: {text: "Thank you."}}
"""


class Circle:
    """A bridge that serves, a stand-in for Graph API, and what starts auto_reply between them.

    Attributes:
        graph: the stand-in; its echoes go to the bridge.
        bots: every auto_reply that was begun.
    """

    def __init__(self, serving: Serving, sender: Sender, graph: GraphStandIn, folder: Path) -> None:
        self.graph = graph
        self.bots: list[Process] = []
        self._serving = serving
        self._sender = sender
        self._folder = folder
        self.prefix = serving.environment["BRIDGE_TOPIC_PREFIX"]
        self.bootstrap_servers = serving.environment["BRIDGE_KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def tokens(self) -> str:
        """What the stand-in takes, as auto_reply is told."""
        return ",".join(f"{account}={token}" for account, token in (self.graph.tokens or {}).items())

    async def begin(self, **variables: str) -> Process:
        """`python -m consumers.auto_reply`, which has its partitions when this returns."""
        process = await self.start(**variables)
        await process.until_printed('"event": "assigned"')
        return process

    async def start(self, **variables: str) -> Process:
        """`python -m consumers.auto_reply`; variables are settings without AUTO_REPLY_, empty ones are left out."""
        (self._folder / "rules.yaml").write_text(RULES, "utf-8")
        given = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "TOPIC_PREFIX": self.prefix,
            "GROUP_ID": self.prefix,
            "LOG_FORMAT": "json",
            "RULES": str(self._folder / "rules.yaml"),
            "GRAPH_URL": self.graph.url,
            "TOKENS": self.tokens,
            **variables,
        }
        environment = {f"AUTO_REPLY_{name}": value for name, value in given.items() if value}
        process = await Process.begin("-m", "consumers.auto_reply", folder=self._folder, environment=environment)
        self.bots.append(process)
        return process

    async def say(self, account: str, customer: str, **item: dict[str, Any]) -> None:
        """A customer writes, or does what `item` says; the bridge has it when this returns."""
        item = item or {"message": {"mid": secrets.token_hex(12), "text": f"question {secrets.token_hex(3)}"}}
        await self._deliver(account, {"sender": {"id": customer}, "recipient": {"id": account}, **item})

    async def echo(self, account: str, customer: str, text: str) -> None:
        """Somebody else answers the customer: a person in the inbox."""
        message = {"mid": secrets.token_hex(12), "text": text, "is_echo": True}
        await self._deliver(account, {"sender": {"id": account}, "recipient": {"id": customer}, "message": message})

    async def _deliver(self, account: str, item: dict[str, Any]) -> None:
        now = int(time.time() * 1000)
        entry = {"id": account, "time": now, "messaging": [{"timestamp": now, **item}]}
        answer = await self._sender.post(json.dumps({"object": "instagram", "entry": [entry]}).encode())
        assert answer.is_safe, answer

    def sent_to(self, customer: str) -> list[Request]:
        """The messages that reached a customer."""
        return [request for request in self.graph.messages if request.customer_id == customer]

    def asked_for(self, customer: str) -> list[Request]:
        """The requests for a customer, whether or not anything was sent."""
        return [request for request in self.graph.requests if request.customer_id == customer]

    async def ledger(self) -> list[dict[str, Any]]:
        """All committed entries, in order within each partition."""
        topic = f"{self.prefix}.auto_replies"
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            await consumer.seek_to_beginning(*places)
            found = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                batch = await consumer.getmany(timeout_ms=500)
                found += [record for records in batch.values() for record in records]
        finally:
            await consumer.stop()
        return [
            decode_single_object(
                Record("auto_replies", one.partition, one.offset, one.key, one.timestamp, {}, bytes(one.value or b""))
            )
            for one in found
        ]

    async def entries(self, customer: str) -> list[dict[str, Any]]:
        """The entries of one customer."""
        return [entry for entry in await self.ledger() if entry["customer_id"] == customer]

    async def until_entries(
        self, customer: str, wanted: Callable[[list[tuple[str, str]]], bool]
    ) -> list[tuple[str, str]]:
        """Status and reason of a customer's entries, as soon as they are as wanted."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            found = [(entry["status"], entry["reason"]) for entry in await self.entries(customer)]
            if wanted(found):
                return found
            assert time.monotonic() < deadline, f"{found} after {DEADLINE_S} s"
            await asyncio.sleep(0.1)

    async def until_sent(self, *customers: str) -> None:
        """Waits until each of them got a message."""
        left = set(customers)

        def all_got_one() -> bool:
            left.difference_update(request.customer_id for request in self.graph.messages)
            return not left

        await until(all_got_one, f"answers to {len(customers)} customers")

    async def end(self) -> None:
        """Kills what still runs."""
        await asyncio.gather(*(bot.end(signal.SIGKILL) for bot in self.bots))
        self.bots.clear()


async def metrics(port: int) -> str:
    """What auto_reply shows on its metrics port."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


def customers(count: int) -> list[str]:
    """Ids that no other test has."""
    return [f"9{secrets.randbelow(10**15):015}" for _ in range(count)]
