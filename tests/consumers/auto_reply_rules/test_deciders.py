"""Decisions of one's own: asked within their time, held to the limits, and replaced by the rule's reply when they fail."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.deciders import ANSWER_BYTES_MAX, THREADS_MAX, Deciders
from consumers.auto_reply.decision import Decision
from consumers.auto_reply.rules import Rules
from consumers.decoding import Event
from consumers.errors import ConsumerError
from tests.consumers.auto_reply_rules import plugged_in
from tests.consumers.auto_reply_rules.deciding import NOW, SMALLEST, decision_on, rules_of, said, texts
from tests.consumers.running import until
from tests.consumers.samples import ACCOUNT, CUSTOMER

HERE = "tests.consumers.auto_reply_rules.plugged_in"
SECRET = "what the customer wrote"  # noqa: S105 - nothing secret, but nothing for a log


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What hangs does so until this is set, or the test is over."""
    plugged_in.RELEASE.clear()
    yield plugged_in.RELEASE
    plugged_in.RELEASE.set()


def asking(decide: str, *, reply: str = "reply: {text: fallback}", top: str = "") -> Rules:
    """A file whose one rule leaves every message to a decider."""
    return rules_of(
        f"version: 1\n{top}\nrules:\n- {{name: a, when: {{any_message: true}}, decide: {decide}, {reply}}}\n"
    )


def function(name: str, *, timeout_ms: int = 5_000) -> str:
    """The decider of that name, with a time that a busy machine has too."""
    return f'{{function: "{HERE}:{name}", timeout_ms: {timeout_ms}}}'


async def settled(rules: Rules, happened: Event | None = None, conversation: Conversation | None = None) -> Decision:
    """What becomes of a message."""
    happened = happened or said(SECRET)
    decision = decision_on(happened, rules, conversation)
    async with Deciders(rules) as deciders:
        return await deciders.settled(decision, happened, conversation or Conversation())


async def test_function_answers_from_a_thread_or_from_the_loop() -> None:
    """A plain function and an async one alike; a brace of theirs is a brace."""
    shouted = await settled(asking(function("shout")), said("hi"))
    assert (shouted.action, shouted.reason, texts(shouted)) == ("reply", "decider_answered", ["{HI}"])
    assert texts(await settled(asking(function("think")))) == ["a: 0"]


async def test_decision_that_asks_nobody_stays_as_it_is() -> None:
    """Whoever settles every decision changes none of the others."""
    rules = rules_of(SMALLEST)
    assert await settled(rules, said("hello")) == decision_on(said("hello"), rules)


async def test_decider_that_wants_no_answer_gets_none() -> None:
    """The rule's reply is for failures, not for this."""
    decision = await settled(asking(function("nothing")))
    assert (decision.action, decision.reason, decision.messages) == ("skip", "decider_declined", ())


@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("too_long", "breaks_a_limit"),
        ("no_answer", "wrong_shape"),
        ("half_a_character", "not_json"),
        ("broken", "LookupError"),
        ("gone", "SystemExit"),
        ("hang", "late"),
        ("hang_in_the_loop", "late"),
    ],
)
async def test_function_that_fails_is_replaced_by_the_rules_reply(name: str, problem: str) -> None:
    """Whatever it does; the log names the rule and the problem, and nothing that was written."""
    timeout_ms = 50 if problem == "late" else 5_000
    with capture_logs() as entries:
        decision = await settled(asking(function(name, timeout_ms=timeout_ms)))
    assert (decision.action, decision.reason, texts(decision)) == ("reply", "decider_failed", ["fallback"])
    assert [(entry["rule"], entry["problem"]) for entry in entries] == [("a", problem)]
    assert SECRET not in str(entries)


async def test_without_a_reply_of_the_rule_a_failure_sends_nothing() -> None:
    """And says so."""
    decision = await settled(asking(function("broken"), reply="cooldown_s: 0"))
    assert (decision.action, decision.reason, decision.rule, decision.messages) == ("skip", "decider_failed", "a", ())


async def test_disclosure_stands_before_what_a_decider_says() -> None:
    """It is the bot all the same."""
    decision = await settled(asking(function("shout"), top="disclosure: {text: Bot.}"), said("hi"))
    assert texts(decision) == ["Bot.\n\n{HI}"]
    assert decision.discloses


async def test_disclosure_that_leaves_no_room_for_what_a_decider_says_is_a_broken_limit() -> None:
    """Both together are one message; the fallback was checked with the disclosure when the rules were loaded."""
    rules = asking(function("shout"), top=f"disclosure: {{text: {300 * 'b'}}}")
    for size, reason in ((699, "decider_failed"), (698, "decider_answered")):
        with capture_logs() as entries:
            decision = await settled(rules, said((size - 2) * "a"))
        assert decision.reason == reason
        assert {entry["problem"] for entry in entries} == ({"breaks_a_limit"} if reason == "decider_failed" else set())
        assert texts(decision)[0].startswith("bbb")


async def test_decider_is_told_how_often_the_bot_answered_in_the_last_day() -> None:
    """An answer of yesterday's morning is none of today's evening."""
    rules = asking(function("think"))
    known = Conversation()
    for hours in (49, 23, 1):
        earlier = Decision("reply", "rule_matched", NOW - timedelta(hours=hours), "a", ({"message": {"text": "ok"}},))
        known = known.answered(earlier)
    assert texts(await settled(rules, conversation=known)) == ["a: 2"]
    late = said("hi", moment=NOW + timedelta(hours=23, minutes=30))
    decision = decision_on(late, rules, known, now=NOW + timedelta(hours=23, minutes=30))
    async with Deciders(rules) as deciders:
        assert texts(await deciders.settled(decision, late, known)) == ["a: 0"]


async def test_functions_that_never_return_take_no_more_threads_than_the_limit(
    hanging: threading.Event,
) -> None:
    """Then the fallback comes at once, and threads that are let go can be used again."""
    rules = asking(function("hang", timeout_ms=200))
    happened = said("hi")
    decision = decision_on(happened, rules)
    async with Deciders(rules) as deciders:
        with capture_logs() as entries:
            ask = [deciders.settled(decision, happened, Conversation()) for _ in range(THREADS_MAX + 5)]
            answers = await asyncio.gather(*ask)
        assert {texts(answer)[0] for answer in answers} == {"fallback"}
        assert {entry["problem"] for entry in entries} == {"late", "busy"}
        hanging.set()

        async def reason() -> str:
            return (await deciders.settled(decision, happened, Conversation())).reason

        await until(reason, lambda found: found == "decider_answered")


@pytest.mark.parametrize("name", ["absent:shout", f"{HERE}:absent"])
def test_function_that_cannot_be_imported_is_named(name: str) -> None:
    """When the rules are put to use, not when the first customer writes."""
    with pytest.raises(ConsumerError, match=f"decide.function {name} cannot be imported"):
        Deciders(asking(f'{{function: "{name}"}}'))


@asynccontextmanager
async def endpoint(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A decider on this machine: its URL."""
    app = web.Application()
    app.router.add_post("/", handle)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


def http(url: str, *, timeout_ms: int = 5_000) -> str:
    """A decider at that URL."""
    return f'{{http: {{url: "{url}"}}, timeout_ms: {timeout_ms}}}'


async def test_endpoint_gets_the_question_and_answers() -> None:
    """The event without its raw text, times as RFC 3339, what the rule found, what is known of the conversation."""
    questions = []

    async def answer(request: web.Request) -> web.Response:
        questions.append(await request.json())
        return web.json_response(
            {"reply": {"text": "Hello", "quick_replies": [{"title": "Hours", "payload": "HOURS"}]}}
        )

    async with endpoint(answer) as url:
        decision = await settled(asking(http(url)), said("hi"))
    assert decision.messages[0]["message"]["quick_replies"][0]["payload"] == "HOURS"
    (question,) = questions
    event = question.pop("event")
    assert (event["account_id"], event["customer_id"], event["message"]["text"]) == (ACCOUNT, CUSTOMER, "hi")
    assert event["received_at"] == NOW.isoformat()
    assert "raw" not in event
    assert question == {
        "version": 1,
        "rule": "a",
        "conversation": {"is_first": True, "customer_at": None, "human_at": None, "answers_in_24_h": 0},
        "values": dict.fromkeys(question["values"]) | {"text": "hi"},
    }


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, b"{}", "status_500"),
        (302, b"", "status_302"),
        (200, b"<html>", "not_json"),
        (200, 100_000 * b"[", "too_large"),
        (200, 60_000 * b"[", "not_json"),
        (200, b"[]", "wrong_shape"),
        (200, b'{"reply": {}, "more": 1}', "wrong_shape"),
        (200, b'{"reply": {"text": ""}}', "breaks_a_limit"),
        (200, b'{"reply": {"text": "\\ud800"}}', "not_json"),
        (200, b'{"reply": {"text": "a", "attachments": []}}', "breaks_a_limit"),
    ],
)
async def test_endpoint_that_answers_wrongly_is_replaced_by_the_rules_reply(
    status: int, body: bytes, problem: str
) -> None:
    """Errors, redirects, other formats and answers over a limit."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Location": "/"} if status == 302 else None)

    async with endpoint(answer) as url:
        with capture_logs() as entries:
            decision = await settled(asking(http(url)))
    assert (decision.reason, texts(decision)) == ("decider_failed", ["fallback"])
    assert [entry["problem"] for entry in entries] == [problem]


async def test_endpoint_that_never_ends_its_answer_is_late_or_too_large() -> None:
    """Neither its time nor its size goes beyond the limits."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(ANSWER_BYTES_MAX * b" ")
        except ConnectionError:
            return response

    async def silent(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    for handle, problem in ((answer, "too_large"), (silent, "late")):
        async with endpoint(handle) as url:
            with capture_logs() as entries:
                decision = await settled(asking(http(url, timeout_ms=200 if problem == "late" else 5_000)))
        assert decision.reason == "decider_failed"
        assert [entry["problem"] for entry in entries] == [problem]


async def test_endpoint_that_is_away_is_said_once_in_a_while() -> None:
    """A thousand failures are no thousand lines."""
    rules = asking(http("http://127.0.0.1:1/"))
    happened = said("hi")
    async with Deciders(rules) as deciders:
        with capture_logs() as entries:
            for _ in range(3):
                decision = await deciders.settled(decision_on(happened, rules), happened, Conversation())
                assert texts(decision) == ["fallback"]
    assert len(entries) == 1
    assert logging.getLevelName(entries[0]["log_level"].upper()) == logging.WARNING
    assert json.dumps(entries).count("127.0.0.1") == 0
