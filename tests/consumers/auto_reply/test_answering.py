"""What customers get, counted where it arrives: at the stand-in for Graph API. Real Kafka, real ingress, real processes."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bridge.local.jvm import free_port
from bridge.local.meta.graph import Behaviour
from tests.consumers.auto_reply.circle import Circle, customers, metrics
from tests.consumers.auto_reply.conftest import ACCOUNTS
from tests.kafka.serving import PARTITIONS
from tests.processes import until

A, B, *OTHERS = ACCOUNTS
INTENDED_THEN_SENT = [("intended", "rule_matched"), ("sent", "rule_matched")]


async def test_events_of_all_kinds_get_the_answer_that_is_due_and_the_ledger_says_why(circle: Circle) -> None:
    """A message, a postback and a second message are answered in order; echoes, unsends and people's answers keep it silent."""
    port = free_port()
    bot = await circle.begin(METRICS_PORT=f"{port}")
    asking, tapping, unsending, helped = customers(4)
    await circle.say(A, asking)
    await circle.say(A, asking)
    await circle.say(A, tapping, postback={"mid": "p1", "title": "Shop", "payload": "SHOP"})
    await circle.say(A, unsending, message={"mid": "gone", "is_deleted": True})
    await circle.echo(A, helped, "I am Anna, how can I help?")
    await circle.say(A, helped)
    await circle.until_sent(asking, tapping)
    own_echo = ("skipped", "own_echo")
    assert sorted(await circle.until_entries(asking, lambda found: len(found) == 6)) == sorted(
        2 * [*INTENDED_THEN_SENT, own_echo]
    )
    assert [request.body["message"]["text"] for request in circle.sent_to(tapping)] == ["Here is our shop."]
    assert await circle.until_entries(unsending, bool) == [("skipped", "unsent")]
    assert await circle.until_entries(helped, lambda found: len(found) == 2) == [
        ("skipped", "echo"),
        ("skipped", "human_answered"),
    ]
    assert circle.asked_for(helped) == circle.asked_for(unsending) == []
    sent = [entry for entry in await circle.entries(asking) if entry["status"] == "sent"]
    assert {mid for entry in sent for mid in entry["message_ids"]} == {
        request.sent_mid for request in circle.sent_to(asking)
    }
    shown = await metrics(port)
    assert 'instagram_auto_reply_events_total{outcome="sent",reason="rule_matched"} 3.0' in shown
    assert f"instagram_auto_reply_partitions {PARTITIONS}.0" in shown
    assert await bot.end(signal.SIGTERM) == 0
    printed = bot.stdout + bot.stderr
    assert "Traceback" not in printed
    assert not any(hidden in printed for hidden in [*ACCOUNTS.values(), "question", "Thank you."])


async def test_replay_from_the_beginning_sends_nothing(circle: Circle) -> None:
    """A group that is set to offset 0 reads all again, knows all of it, and asks Graph API for nothing."""
    some = customers(20)
    bot = await circle.begin()
    await asyncio.gather(*(circle.say(A, customer) for customer in some))
    await circle.until_sent(*some)
    assert await bot.end(signal.SIGTERM) == 0
    asked, entries = len(circle.graph.requests), await circle.ledger()

    bot = await circle.begin(GROUP_ID=f"{circle.prefix}-again")
    await until_read(circle, f"{circle.prefix}-again")
    assert len(circle.graph.requests) == asked
    assert await bot.end(signal.SIGTERM) == 0
    late = [entry["reason"] for entry in await circle.ledger() if entry not in entries]
    assert set(late) <= {"own_echo"}, "an echo of the last answers may have come after the first process ended"


async def until_read(circle: Circle, group_id: str) -> None:
    """Waits until a group has committed all that the three topics hold."""
    topics = [f"{circle.prefix}.{name}" for name in ("messages", "messaging_postbacks", "messaging_referral")]
    places = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
    admin = AIOKafkaAdminClient(bootstrap_servers=circle.bootstrap_servers)
    consumer = AIOKafkaConsumer(bootstrap_servers=circle.bootstrap_servers)
    await asyncio.gather(admin.start(), consumer.start())
    try:
        ends = {place: end for place, end in (await consumer.end_offsets(places)).items() if end}
        async with asyncio.timeout(60):
            while True:
                committed = await admin.list_consumer_group_offsets(group_id)
                if all(place in committed and committed[place].offset >= end for place, end in ends.items()):
                    return
                await asyncio.sleep(0.1)
    finally:
        await asyncio.gather(admin.close(), consumer.stop())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_process_that_ends_under_load_again_and_again_answers_nobody_twice(
    circle: Circle, number: signal.Signals
) -> None:
    """Every event is answered once, or is an intent that the ledger shows; nothing is lost in between."""
    some = customers(180)
    circle.graph.behaviours[""] = Behaviour(latency_s=0.1)
    bot = await circle.begin(UNKNOWN_AFTER_S="3")
    for begin in range(0, len(some), 60):
        before = len(circle.graph.messages)
        group = some[begin : begin + 60]
        await asyncio.gather(*(circle.say(OTHERS[place % 2], customer) for place, customer in enumerate(group)))
        if begin + 60 < len(some):
            await until(partial(has_sent, circle, before + 10), "answers after a start")
            await bot.end(number)
            bot = await circle.begin(UNKNOWN_AFTER_S="3")

    async with asyncio.timeout(60):
        while set(found := await last_words(circle, some)) != set(some) or set(found.values()) - {"sent", "unknown"}:  # noqa: ASYNC110 - a ledger sets no event of ours
            await asyncio.sleep(0.2)
    reached = {request.customer_id for request in circle.graph.messages}
    assert max(len(circle.sent_to(customer)) for customer in some) == 1
    assert {customer for customer, status in found.items() if status == "sent"} == reached & set(some)
    unknown = [customer for customer, status in found.items() if status == "unknown"]
    assert not reached & set(unknown), "the echo would have told"
    if number == signal.SIGTERM:
        assert unknown == []
    assert await bot.end(signal.SIGTERM) == 0


def has_sent(circle: Circle, count: int) -> bool:
    """Whether so many messages reached somebody."""
    return len(circle.graph.messages) >= count


async def last_words(circle: Circle, some: list[str]) -> dict[str, str]:
    """What the ledger says of the question of each customer; echoes are events of their own."""
    asked = set(some)
    entries = [entry for entry in await circle.ledger() if entry["customer_id"] in asked]
    return {
        entry["customer_id"]: entry["status"] for entry in entries if entry["reason"] not in ("echo", "own_echo")
    } | {entry["customer_id"]: "sent" for entry in entries if entry["status"] == "sent"}


async def test_second_process_that_joins_and_leaves_under_load_answers_with_the_first(circle: Circle) -> None:
    """Both answer, each event is answered once, and none is lost when partitions move there and back."""
    some = customers(300)
    circle.graph.behaviours[""] = Behaviour(latency_s=0.02)
    first = await circle.begin()

    async def ask() -> None:
        for place, customer in enumerate(some):
            await circle.say(OTHERS[place % 8], customer)
            await asyncio.sleep(0.01)  # a load that lasts while partitions move, not a wait

    asking = asyncio.create_task(ask())
    second = await circle.begin()
    await until(lambda: first.stderr.count('"event": "assigned"') == 2, "the first has its share")
    await until(lambda: len(circle.graph.messages) > 0, "answers")
    assert await second.end(signal.SIGTERM) == 0
    await asking
    await circle.until_sent(*some)
    assert max(len(circle.sent_to(customer)) for customer in some) == 1
    assert await first.end(signal.SIGTERM) == 0


async def test_old_owner_that_wakes_up_is_fenced_and_sends_nothing(circle: Circle) -> None:
    """A process that was stopped while another took its partitions cannot write an intent, so it cannot send."""
    [asked_before, asked_after] = customers(2)
    old = await circle.begin()
    await circle.say(A, asked_before)
    await circle.until_sent(asked_before)
    old.send(signal.SIGSTOP)
    # Another group by mistake is the hardest case: the brokers' group protocol does not know of the two.
    new = await circle.begin(GROUP_ID=f"{circle.prefix}-new")
    await circle.say(A, asked_after)
    await circle.until_sent(asked_after)
    old.send(signal.SIGCONT)
    await old.until_printed("ledger_lost")
    assert await old.end(signal.SIGTERM) == 0
    await new.end(signal.SIGTERM)
    assert len(circle.asked_for(asked_after)) == 1


async def test_echo_storm_is_never_answered(circle: Circle) -> None:
    """Hundreds of echoes of strangers and of our own change nothing but the ledger."""
    some = customers(3)
    bot = await circle.begin()
    before = len(circle.graph.requests)
    await asyncio.gather(*(circle.echo(A, some[place % 3], f"echo {place}") for place in range(300)))
    await circle.until_entries(some[0], lambda found: len(found) == 100)
    assert len(circle.graph.requests) == before
    assert await bot.end(signal.SIGTERM) == 0


async def test_dry_run_decides_and_sends_nothing(circle: Circle) -> None:
    """Everything but the request: the ledger says what would have been sent."""
    [customer] = customers(1)
    bot = await circle.begin(DRY_RUN="true", GRAPH_URL="", TOKENS="")
    await circle.say(A, customer)
    assert await circle.until_entries(customer, bool) == [("would_reply", "rule_matched")]
    [entry] = await circle.entries(customer)
    assert "Thank you." in entry["messages_json"]
    assert circle.asked_for(customer) == []
    assert await bot.end(signal.SIGTERM) == 0


async def test_topics_that_do_not_belong_together_are_refused_at_the_start(circle: Circle) -> None:
    """Without them nobody could say who answered what: one line says which, and what to do."""
    bot = await circle.start(TOPIC_PREFIX="nothing-here")
    assert await bot.end() == 1
    assert "error: missing topics: nothing-here.messages" in bot.stderr
    assert "bridge topics apply" in bot.stderr


async def test_tokens_file_that_changes_is_taken_up_while_running(circle: Circle, tmp_path: Path) -> None:
    """An account whose token is refused stops alone; with a new one in the file it answers again; other accounts went on."""
    file = tmp_path / "tokens"
    file.write_text(f"{A}=expired\n{B}={ACCOUNTS[B]}\n", "utf-8")
    early, late, other = customers(3)
    bot = await circle.begin(TOKENS="", TOKENS_FILE=str(file))
    await circle.say(A, early)
    assert ("failed", "token_invalid") in await circle.until_entries(early, lambda found: len(found) == 2)
    await circle.say(A, customers(1)[0])
    await circle.say(B, other)
    await circle.until_sent(other)
    file.write_text(f"{A}={ACCOUNTS[A]},{B}={ACCOUNTS[B]}", "utf-8")
    await bot.until_printed("account_resumed")
    await circle.say(A, late)
    await circle.until_sent(late)
    assert await bot.end(signal.SIGTERM) == 0
    assert not any(token in bot.stderr for token in ["expired", *ACCOUNTS.values()])
