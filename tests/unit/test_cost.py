"""What a delivery costs, in calls of functions: the same on any machine, however busy, where seconds are not.

A call is one of Python's or C's, as sys.setprofile sees them, from the bytes on a connection to the records that the
publisher gets and the answer. CPU follows them closely (docs/performance.md). A budget is what the street took when it was
written, and a tenth: raise one only with the reason in the commit.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import pytest

from bridge.adapters.http import Connection
from bridge.adapters.webhook import _TOGETHER_DELIVERIES, PATH
from bridge.errors import Refused
from bridge.record import Record
from tests.unit.port import SECRET, put_together
from tests.unit.street import ACCOUNT, CUSTOMER

DELIVERIES = _TOGETHER_DELIVERIES  # so none waits for others
CALLS_MAX = {1: 181, 10: 728, 100: 6180}
"""By events per delivery."""


class Acknowledging:
    """A publisher that acknowledges at once and counts."""

    ready = True

    def __init__(self) -> None:
        self.records = 0

    async def until_ready(self) -> None:
        """It always is."""

    def publish(self, records: Sequence[Record], settled: Callable[[Refused | None], None]) -> None:
        """Count, and acknowledge."""
        self.records += len(records)
        settled(None)


def delivery(number: int, events: int) -> bytes:
    """A signed request with text messages of customers of their own."""
    items = [
        {
            "sender": {"id": f"{CUSTOMER}{event}"},
            "recipient": {"id": ACCOUNT},
            "timestamp": 1_763_800_000_000 + event,
            "message": {"mid": f"mid-{number}-{event}", "text": "Is the blue one still there?"},
        }
        for event in range(events)
    ]
    entry = {"id": ACCOUNT, "time": 1_763_800_000_100 + number, "messaging": items}
    body = json.dumps({"object": "instagram", "entry": [entry]}).encode()
    signature = hmac.digest(SECRET, body, "sha256").hex()
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def calls_of(
    connections: Sequence[Connection], deliveries: Sequence[bytes], published: Callable[[], bool]
) -> int:
    """How many functions are called while the deliveries are taken, one on each connection, until they are published."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        for connection, each in zip(connections, deliveries, strict=True):
            connection.data_received(each)
        while not published():  # noqa: ASYNC110 - turns of the loop are a part of what is counted
            await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("events", CALLS_MAX)
async def test_delivery_takes_no_more_calls_than_its_budget(events: int) -> None:
    """From bytes to records and the answer, per delivery of 1, 10 and 100 events."""
    publisher = Acknowledging()
    _, webhook = put_together(publisher)
    deliveries = [delivery(number, events) for number in range(2 * DELIVERIES)]
    connections, clients = [], []
    for _ in range(DELIVERIES):
        ours, theirs = socket.socketpair()
        connections.append((await asyncio.get_running_loop().create_connection(webhook, sock=ours))[1])
        clients.append(theirs)
    half = DELIVERIES * events  # of the records; what is looked up once is known then
    await calls_of(connections, deliveries[:DELIVERIES], lambda: publisher.records == half)
    calls = await calls_of(connections, deliveries[DELIVERIES:], lambda: publisher.records == 2 * half)
    for client in clients:
        assert client.recv(1 << 20).count(b"HTTP/1.1 200 OK\r\n") == 2
        client.close()
    await webhook.stop(1)
    assert publisher.records == 2 * DELIVERIES * events
    assert calls <= CALLS_MAX[events] * DELIVERIES, f"{calls / DELIVERIES:.0f} calls a delivery"
