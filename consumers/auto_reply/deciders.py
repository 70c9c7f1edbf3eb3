"""Decisions of one's own: a rule may leave its answer to an HTTP endpoint or to a Python function, within a time limit.

Whatever goes wrong there, the rule's own `reply` is sent instead, or nothing when it has none. What they answer is held to the
same limits as the rules file. README.md has the shapes of question and answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
import structlog
from pydantic import ValidationError

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import Decision, disclosure_due
from consumers.auto_reply.rulebook.reply import Reply, Unrenderable
from consumers.auto_reply.rulebook.rule import Decide
from consumers.auto_reply.rules import Rules
from consumers.decoding import Event
from consumers.errors import ConsumerError
from consumers.process import REPEAT_INTERVAL_S

ANSWER_BYTES_MAX = 64 * 1024  # ten times the largest template
THREADS_MAX = 64  # of functions that are not async; one that never returns keeps its thread
CONNECTIONS_MAX = 256  # of all endpoints together: a thousand questions a second that take a quarter of a second each

Question = Mapping[str, Any]
_Ask = Callable[[Question], Awaitable[object]]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class _Failed(Exception):
    """No answer that can be used; the text is a slug."""


class Deciders:
    """Asks the deciders that the rules name; an async context manager.

    Args:
        rules: The rules whose decisions it settles.

    Raises:
        ConsumerError: A function that they name cannot be imported.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._session: aiohttp.ClientSession | None = None
        self._threads = 0
        self._said_at: dict[tuple[str, str], float] = {}
        self._asked = {rule.name: (rule.decide, self._way_to(rule.decide)) for rule in rules.rules if rule.decide}

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def settled(self, decision: Decision, event: Event, conversation: Conversation) -> Decision:
        """The decision itself, or what the decider makes of one with the action `ask`: to reply or to skip.

        Never raises for what a decider does, and takes no longer than its time limit. Ask it before the intent is written.

        Args:
            decision: Of `decide`, on this event.
            event: What is decided on.
            conversation: What it was decided with.
        """
        if decision.action != "ask" or decision.rule is None:
            return decision
        try:
            reply = await self._reply(decision.rule, _question(decision, event, conversation))
            if reply is None:
                return replace(
                    decision, action="skip", reason="decider_declined", messages=(), discloses=False, values={}
                )
            account_id, now = event.value["account_id"], decision.decided_at
            disclosure = disclosure_due(conversation, self._rules, account_id=account_id, now=now)
            messages = reply.bodies({}, disclosure=disclosure)
        except (_Failed, Unrenderable) as error:
            # With the disclosure before it, a text may be too long that was not by itself.
            self._say(decision.rule, str(error) if isinstance(error, _Failed) else "breaks_a_limit")
            return replace(
                decision, action="reply" if decision.messages else "skip", reason="decider_failed", values={}
            )
        return replace(
            decision,
            action="reply",
            reason="decider_answered",
            messages=messages,
            discloses=disclosure is not None,
            values={},
        )

    async def _reply(self, rule: str, question: Question) -> Reply | None:
        decide, ask = self._asked[rule]
        try:
            async with asyncio.timeout(decide.timeout_ms / 1000):
                return _reply_in(await ask(question))
        except _Failed:
            raise
        except TimeoutError:
            raise _Failed("late") from None
        except Exception as error:  # noqa: BLE001 - somebody else's code: its error must not end the answers of others
            raise _Failed(type(error).__name__) from None

    def _way_to(self, decide: Decide) -> _Ask:
        if decide.http is not None:
            url = decide.http.url
            return lambda question: self._post(url, question)
        name = decide.function or ""
        module_name, _, function_name = name.partition(":")
        try:
            function = getattr(importlib.import_module(module_name), function_name)
        except Exception as error:  # noqa: BLE001 - whatever the module does when it is imported
            raise ConsumerError(f"decide.function {name} cannot be imported ({type(error).__name__})") from None
        if inspect.iscoroutinefunction(function):
            return function  # type: ignore[no-any-return]  # what it returns is looked at when it does
        return lambda question: self._in_thread(function, question)

    async def _post(self, url: str, question: Question) -> object:
        if self._session is None:
            raise RuntimeError("Deciders is an async context manager")
        try:
            async with self._session.post(url, json=question, allow_redirects=False) as response:
                if response.status != 200:  # noqa: PLR2004 - HTTP's OK
                    raise _Failed(f"status_{response.status}")
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _Failed("too_large")
        except aiohttp.ClientError as error:
            raise _Failed(type(error).__name__) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise _Failed("not_json") from None

    async def _in_thread(self, function: Callable[[Question], object], question: Question) -> object:
        # A thread of its own, not the loop's pool: one that never returns must not keep the process from ending.
        if self._threads >= THREADS_MAX:
            raise _Failed("busy")
        self._threads += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def finish(answer: object, error: BaseException | None) -> None:
            self._threads -= 1
            if done.cancelled():
                return
            if error is None:
                done.set_result(answer)
            else:
                done.set_exception(_Failed(type(error).__name__))

        def work() -> None:
            answer, error = None, None
            try:
                answer = function(question)
            except BaseException as raised:  # noqa: BLE001 - as above; a SystemExit would end this thread silently
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever wanted to know
                loop.call_soon_threadsafe(finish, answer, error)

        threading.Thread(target=work, name="decider", daemon=True).start()
        return await done

    def _say(self, rule: str, problem: str) -> None:
        now = time.monotonic()
        if now - self._said_at.get((rule, problem), -REPEAT_INTERVAL_S) >= REPEAT_INTERVAL_S:
            self._said_at[rule, problem] = now
            log.warning("decider_failed", rule=rule, problem=problem)


def _question(decision: Decision, event: Event, conversation: Conversation) -> Question:
    told = {name: value for name, value in event.value.items() if name != "raw"}
    known = {
        "is_first": conversation.is_first(decision.decided_at),
        "customer_at": conversation.customer_at,
        "human_at": conversation.human_at,
        "answers_in_24_h": conversation.answers(decision.decided_at),
    }
    question = {"version": 1, "rule": decision.rule, "event": told, "conversation": known, "values": decision.values}
    # As JSON, so that a function and an endpoint get the same: times as RFC 3339.
    plain: Question = json.loads(json.dumps(question, default=_rfc_3339))
    return plain


def _rfc_3339(moment: datetime) -> str:
    return moment.isoformat()


def _reply_in(answer: object) -> Reply | None:
    """The reply of an answer, held to every limit; None when there shall be none."""
    if not isinstance(answer, Mapping) or set(answer) != {"reply"}:
        raise _Failed("wrong_shape")
    reply = answer["reply"]
    if reply is None:
        return None
    if not isinstance(reply, Mapping):
        raise _Failed("wrong_shape")
    try:
        json.dumps(reply, ensure_ascii=False).encode()
        # A decider writes the text itself, so a brace in it is a brace.
        literal = {
            key: value.replace("{", "{{").replace("}", "}}") if key == "text" and isinstance(value, str) else value
            for key, value in reply.items()
        }
        return Reply.model_validate(literal)
    except ValidationError:
        raise _Failed("breaks_a_limit") from None
    except (ValueError, TypeError, RecursionError):
        raise _Failed("not_json") from None
