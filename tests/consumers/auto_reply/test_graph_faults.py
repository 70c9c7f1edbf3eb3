"""What customers get when Graph API refuses, is slow, loses answers or is away. Real Kafka, real ingress, real processes."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from itertools import pairwise

import pytest

from bridge.local.jvm import free_port
from bridge.local.meta.graph import Behaviour, GraphStandIn
from tests.consumers.auto_reply.circle import Circle, customers
from tests.consumers.auto_reply.conftest import ACCOUNTS
from tests.processes import until

ERRORS = {
    # Nothing was sent and never will be; only this event is concerned.
    (10, 2534022): ["failed outside_answer_window"],
    (10, 2018278): ["failed outside_answer_window"],
    (10, 2018300): ["failed controlled_by_another_app"],
    (100, 2534014): ["failed no_such_person"],
    (551, None): ["failed person_unreachable"],
    # The account is stopped.
    (190, None): ["failed token_invalid"],
    (200, None): ["failed permission_missing"],
    (10, 1893063): ["failed permission_missing"],
    (100, 2534029): ["failed permission_missing"],
    # Certainly not sent: tried again.
    (4, None): ["deferred rate_limited", "intended rule_matched", "sent rule_matched"],
    (17, None): ["deferred rate_limited", "intended rule_matched", "sent rule_matched"],
    (32, None): ["deferred rate_limited", "intended rule_matched", "sent rule_matched"],
    (613, None): ["deferred rate_limited", "intended rule_matched", "sent rule_matched"],
    (80002, None): ["deferred rate_limited", "intended rule_matched", "sent rule_matched"],
    # Perhaps sent: never again.
    (1, None): ["unknown no_echo"],
    (2, None): ["unknown no_echo"],
    (None, 500): ["unknown no_echo"],
}
STOPPING = [(190, None), (200, None), (10, 1893063), (100, 2534029)]


def behaviour(code: int | None, subcode: int | None) -> Behaviour:
    """Answers the first request so, and what comes after it as it should."""
    if code is None:
        return Behaviour(status=subcode or 0, times=1)
    return Behaviour(status=400, code=code, subcode=subcode, times=1)


def contains(wanted: tuple[str, ...], entries: list[tuple[str, str]]) -> bool:
    """Whether an entry is there."""
    return wanted in entries


async def test_each_error_of_the_table_has_its_own_consequence_and_hurts_no_other_account(circle: Circle) -> None:
    """One account for each error, all at once: refused, stopped, tried again or left to the echo, and no message twice."""
    some = dict(zip(ERRORS, zip(ACCOUNTS, customers(len(ERRORS)), strict=False), strict=True))
    circle.graph.behaviours |= {some[error][0]: behaviour(*error) for error in ERRORS}
    well = list(ACCOUNTS)[len(ERRORS)]
    [healthy, *later] = customers(1 + len(STOPPING))
    bot = await circle.begin(UNKNOWN_AFTER_S="2")
    await asyncio.gather(*(circle.say(*conversation) for conversation in some.values()), circle.say(well, healthy))
    await circle.until_sent(healthy)

    for error, wanted in ERRORS.items():
        last = tuple(wanted[-1].split())
        found = await circle.until_entries(some[error][1], partial(contains, last))
        told = [" ".join(entry) for entry in found if entry[1] != "own_echo"]
        assert told == ["intended rule_matched", *wanted], error
        assert len(circle.sent_to(some[error][1])) == ("sent rule_matched" in wanted), error

    await asyncio.gather(
        *(circle.say(some[error][0], customer) for error, customer in zip(STOPPING, later, strict=True))
    )
    for customer in later:
        assert await circle.until_entries(customer, bool) == [("skipped", "account_stopped")]
        assert circle.asked_for(customer) == []
    assert bot.stderr.count('"event": "account_stopped"') == len(STOPPING)
    assert bot.stderr.count('"event": "outcome_unknown"') == 3

    bot.send(signal.SIGHUP)
    await bot.until_printed("account_resumed")
    [again] = customers(1)
    await circle.say(some[190, None][0], again)
    await circle.until_sent(again)
    assert await bot.end(signal.SIGTERM) == 0
    assert "Traceback" not in bot.stderr


@pytest.mark.parametrize("loss", [Behaviour(loses_answer=True), Behaviour(status=500, code=2, sends=True)])
async def test_answer_that_is_lost_after_a_send_is_told_by_the_echo(circle: Circle, loss: Behaviour) -> None:
    """The message was sent, its answer never came: the echo makes it `sent`, and nothing is sent again."""
    [customer] = customers(1)
    circle.graph.behaviours[""] = loss
    loss.sends = True
    bot = await circle.begin()
    await circle.say(next(iter(ACCOUNTS)), customer)
    found = await circle.until_entries(customer, lambda entries: ("sent", "echo") in entries)
    assert set(found) == {("intended", "rule_matched"), ("skipped", "own_echo"), ("sent", "echo")}
    [sent] = [entry for entry in await circle.entries(customer) if entry["status"] == "sent"]
    assert sent["message_ids"] == [request.sent_mid for request in circle.asked_for(customer)]
    assert await bot.end(signal.SIGTERM) == 0


async def test_graph_api_that_is_away_costs_time_and_no_answer(circle: Circle) -> None:
    """Refused connections sent nothing: the events wait, and are answered once when it is back."""
    some, port = customers(5), free_port()
    bot = await circle.begin(GRAPH_URL=GraphStandIn(port).url)
    await asyncio.gather(*(circle.say(account, customer) for account, customer in zip(ACCOUNTS, some, strict=False)))
    await until(lambda: bot.stderr.count("graph_unreachable") >= 5, "every account backs off")
    async with GraphStandIn(port, tokens=dict(ACCOUNTS)) as back:
        await until(lambda: {request.customer_id for request in back.messages} >= set(some), "answers")
        assert len(back.messages) == len(some)
    found = [entry["status"] for entry in await circle.entries(some[0])]
    assert (found[0], "deferred" in found) == ("intended", True)
    assert await bot.end(signal.SIGTERM) == 0


async def test_slow_account_delays_no_other_and_keeps_its_own_order(circle: Circle) -> None:
    """While one account's answers take a second each, another's leave at once; one conversation stays in order."""
    slow, fast = list(ACCOUNTS)[:2]
    circle.graph.behaviours[slow] = Behaviour(latency_s=1.0)
    [talking, *quick] = customers(21)
    bot = await circle.begin()
    for _ in range(3):
        await circle.say(slow, talking)
    await asyncio.gather(*(circle.say(fast, customer) for customer in quick))
    await circle.until_sent(*quick)
    assert len(circle.sent_to(talking)) < 3
    await until(lambda: len(circle.sent_to(talking)) == 3, "the slow ones")
    asked = [request.at for request in circle.asked_for(talking)]
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(asked))
    assert await bot.end(signal.SIGTERM) == 0
