from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from itertools import islice

from bridge.local.jvm import free_port
from bridge.local.meta.deliveries import Delivery, Plan, deliveries
from bridge.local.meta.sender import Sender, paced
from bridge.local.meta.signing import signature
from bridge.local.meta.truth import Ledger, read
from tests.meta.receiver import SECRET, Listen, accept


def some(count: int, customers: int = 200) -> list[Delivery]:
    plan = Plan(seed=11, start_ms=1_795_338_000_000, customers=customers, batch=5, redeliver=0)
    return list(islice(deliveries(plan), count))


async def stream(taken: Iterable[Delivery]) -> AsyncIterator[Delivery]:
    for delivery in taken:
        yield delivery


def keys_of(body: bytes) -> set[str]:
    return {event.key for event in read(body) if event.key is not None}


async def test_posts_carry_the_exact_bytes_and_their_signature(listen: Listen) -> None:
    """What is signed is what is sent."""
    receiver = await listen(accept)
    taken = some(50)
    async with Sender(receiver.url, SECRET) as sender:
        await sender.send_all(stream(taken))
    assert Counter(receiver.bodies) == Counter(delivery.body for delivery in taken)
    assert receiver.signatures == [signature(body, SECRET) for body in receiver.bodies]
    assert sender.tally.answers == {"200": 50}


async def test_order_of_each_conversation_is_kept_over_32_connections(listen: Listen) -> None:
    """Posts go side by side, but never two of one conversation, and each conversation's in its own order."""
    busy: set[str] = set()

    async def answer_some_time_later(body: bytes, number: int) -> int:
        keys = keys_of(body)
        assert not busy & keys
        busy.update(keys)
        for _ in range(number * 7919 % 50):
            await asyncio.sleep(0)  # lets others overtake: no time passes
        busy.difference_update(keys)
        return 200

    receiver = await listen(answer_some_time_later)
    taken = some(600, customers=20)
    async with Sender(receiver.url, SECRET, connections=32) as sender:
        await sender.send_all(stream(taken))
    assert sender.tally.answers == {"200": 600}
    assert receiver.most_at_once > 4
    for key in set().union(*(delivery.keys for delivery in taken)):
        sent = [delivery.body for delivery in taken if key in delivery.keys]
        assert [body for body in receiver.bodies if key in keys_of(body)] == sent


async def test_deliveries_that_are_refused_come_again_byte_for_byte_and_in_order(listen: Listen) -> None:
    """503 and 500 are retried until 200, and hold back what follows in the same conversation."""
    posts = Counter[bytes]()
    accepted: list[bytes] = []

    async def refuse_at_first(body: bytes, _: int) -> int:
        posts[body] += 1
        if posts[body] <= len(body) % 3:
            return (503, 500)[len(body) % 2]
        accepted.append(body)
        return 200

    receiver = await listen(refuse_at_first)
    taken = some(60, customers=5)
    ledger = Ledger()
    async with Sender(receiver.url, SECRET, ledger=ledger) as sender:
        await sender.send_all(stream(taken))
    assert posts == {delivery.body: 1 + len(delivery.body) % 3 for delivery in taken}
    for key in set().union(*(delivery.keys for delivery in taken)):
        sent = [delivery.body for delivery in taken if key in delivery.keys]
        assert [body for body in accepted if key in keys_of(body)] == sent
    *lines, last = ledger.lines()
    assert all(line["statuses"][-1] == 200 for line in lines)
    assert last["totals"]["deliveries"] == 60
    assert last["totals"]["posts"] == sum(posts.values()) == len(receiver.bodies)


async def test_deliveries_that_nobody_takes_are_given_up(listen: Listen) -> None:
    """Retries are bounded, and what was given up is counted and explained."""

    async def refuse(_: bytes, __: int) -> int:
        return 401

    receiver = await listen(refuse)
    async with Sender(receiver.url, SECRET, retry_for_s=0) as sender:
        await sender.send_all(stream(some(5)))
    assert sender.tally.given_up == 5
    assert sender.tally.last_refusal is not None
    assert sender.tally.last_refusal.status == 401

    ledger = Ledger()
    nowhere = f"http://127.0.0.1:{free_port()}/webhooks/instagram"
    async with Sender(nowhere, SECRET, retry_for_s=0, ledger=ledger) as sender:
        await sender.send_all(stream(some(5)))
    assert sender.tally.given_up == 5
    assert {status for line in list(ledger.lines())[:-1] for status in line["statuses"]} == {None}


async def test_stopping_waits_for_answers_and_posts_nothing_new(listen: Listen) -> None:
    """A stop loses no answer: what was posted is known to be safe or not."""
    may_answer = asyncio.Event()

    async def wait(_: bytes, __: int) -> int:
        await may_answer.wait()
        return 200

    receiver = await listen(wait)
    async with Sender(receiver.url, SECRET, connections=3) as sender:
        stream = paced(deliveries(Plan(seed=1, start_ms=1_795_338_000_000)), rate=0, stopping=sender.stopping)
        sending = asyncio.create_task(sender.send_all(stream))
        await receiver.until_posts(3)
        sender.stopping.set()
        may_answer.set()
        await sending
    assert len(receiver.bodies) == 3
    assert sender.tally.answers == {"200": 3}
    assert sender.tally.given_up == 0


async def test_paced_deliveries_keep_the_rate_and_end_at_the_count() -> None:
    """21 deliveries at 50 a second take 0.4 s."""
    begin = time.monotonic()
    plan = Plan(seed=1, start_ms=1_795_338_000_000)
    taken = [one async for one in paced(deliveries(plan), rate=50, stopping=asyncio.Event(), count=21)]
    assert len(taken) == 21
    assert time.monotonic() - begin >= 0.39


async def test_paced_deliveries_in_bursts_keep_the_rate_on_average() -> None:
    """Ten come without a wait, then none for the time of ten."""
    plan = Plan(seed=1, start_ms=1_795_338_000_000)
    begin = time.monotonic()
    stream = paced(deliveries(plan), rate=50, stopping=asyncio.Event(), burst=10, count=21)
    taken = [time.monotonic() - begin async for _ in stream]
    assert taken[10] >= 0.2
    assert taken[20] >= 0.4
    ended = [one async for one in paced(deliveries(plan), rate=1, stopping=asyncio.Event(), burst=10, duration_s=0.1)]
    assert len(ended) == 10


async def test_paced_deliveries_end_with_the_duration() -> None:
    """A bounded run ends by itself."""
    plan = Plan(seed=1, start_ms=1_795_338_000_000)
    async with asyncio.timeout(30):
        taken = [one async for one in paced(deliveries(plan), rate=1000, stopping=asyncio.Event(), duration_s=0.1)]
    assert 1 <= len(taken) <= 101
