"""A stand-in for Graph API's messages endpoint: it counts what it gets, fails as it is told, and sends echoes as webhooks.

Apart from `consumers.auto_reply`, which it is the other end of: what Graph API answers is written here from Meta's pages alone.
`bridge dev` runs it as a program; the tests run it in their own process and tell it how to behave.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import click
from aiohttp import web

from bridge.local.meta.sender import Sender
from bridge.local.meta.signing import app_secret

ECHOES_MAX = 100
"""In one delivery; Meta puts up to 1000 updates into one."""

ECHO_DELAY_S = 0.05
"""From an answer to its echo, with which further ones travel."""

_ECHO_RETRY_S = 0.5
_TEXT_BYTES_MAX = 1000
_REMEMBERED_MAX = 1_000_000


@dataclass
class Behaviour:
    """How requests for an account are answered.

    Attributes:
        latency_s: before an answer.
        status, code, subcode, is_transient: of an error; no error while code is None and status is 200.
        sends: whether the message is sent although an error, or nothing, is answered.
        loses_answer: whether the connection is closed instead of answering.
        headers: of every answer.
        rate_per_s: requests a second, beyond which 613 is answered with a usage header; None is no limit.
        times: for how many requests this holds; None for all.
        echoes: whether what is sent comes back.
    """

    latency_s: float = 0.0
    status: int = 200
    code: int | None = None
    subcode: int | None = None
    is_transient: bool = False
    sends: bool = False
    loses_answer: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    rate_per_s: float | None = None
    times: int | None = None
    echoes: bool = True


@dataclass(frozen=True)
class Request:
    """One request with a message or a sender action, as it arrived; `at` is Unix time in seconds."""

    at: float
    account_id: str
    customer_id: str
    body: Mapping[str, Any]
    sent_mid: str | None


class GraphStandIn:
    """The endpoint, as an async context manager.

    Attributes:
        requests: everything that arrived, oldest first.
        answers: how requests were answered, by status and code.
        behaviours: by account; "" is for all others.

    Args:
        port: on 127.0.0.1.
        tokens: by account, what a request must bear; others are answered 190. None takes any.
        echoes_to: sends echoes as deliveries; None sends none.
        lost_share: of requests that are sent and whose answer is lost, for some life in `bridge dev`.
    """

    def __init__(
        self,
        port: int,
        *,
        tokens: Mapping[str, str] | None = None,
        echoes_to: Sender | None = None,
        lost_share: float = 0.0,
    ) -> None:
        self.requests: deque[Request] = deque(maxlen=_REMEMBERED_MAX)
        self.answers: Counter[str] = Counter()
        self.behaviours: dict[str, Behaviour] = {"": Behaviour()}
        self.tokens = tokens
        self._port = port
        self._echoes_to = echoes_to
        self._lost_share = lost_share
        self._echoes: deque[tuple[str, dict[str, Any]]] = deque()
        self._windows: dict[str, tuple[int, int]] = {}
        self._runner: web.AppRunner | None = None
        self._echoing: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Its base, as Graph API's: with a version."""
        return f"http://127.0.0.1:{self._port}/v25.0"

    @property
    def messages(self) -> list[Request]:
        """The requests whose message reached the customer."""
        return [request for request in self.requests if request.sent_mid is not None]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v25.0/{sender}/messages", self._answer)
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._echoing = asyncio.create_task(self._send_echoes())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._echoing is not None:
            self._echoing.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        at = time.time()
        account_id = self._account_of(request)
        if account_id is None:
            return self._error(401, 190, None, {})
        body = json.loads(await request.read())
        behaviour = self._behaviour(account_id)
        if behaviour.latency_s:
            await asyncio.sleep(behaviour.latency_s)
        code = behaviour.code
        if code is None and behaviour.rate_per_s is not None and self._is_too_often(account_id, behaviour.rate_per_s):
            usage = {account_id: [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": 0}]}
            self._note(at, account_id, body, sent=False, echoes=False)
            return self._error(400, 613, None, {"X-Business-Use-Case-Usage": json.dumps(usage)})
        if code is None and behaviour.status == 200 and not _is_well_formed(body):  # noqa: PLR2004 - HTTP's OK
            self._note(at, account_id, body, sent=False, echoes=False)
            return self._error(400, 100, None, {})
        failed = code is not None or behaviour.status != 200  # noqa: PLR2004 - HTTP's OK
        sent = behaviour.sends or not failed
        mid = self._note(at, account_id, body, sent=sent, echoes=behaviour.echoes)
        if behaviour.loses_answer or random.random() < self._lost_share:  # noqa: S311 - no secret
            self.answers["lost"] += 1
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        if failed:
            return self._error(behaviour.status, code, behaviour.subcode, behaviour.headers, behaviour.is_transient)
        self.answers["200"] += 1
        answer = {"recipient_id": body["recipient"]["id"]} | ({"message_id": mid} if mid else {})
        return web.json_response(answer, headers=behaviour.headers)

    async def _status(self, _: web.Request) -> web.Response:
        """What arrived, for a person who looks."""
        figures = {"requests": len(self.requests), "messages": len(self.messages), "answers": dict(self.answers)}
        return web.json_response(figures)

    def _account_of(self, request: web.Request) -> str | None:
        """Whose request it is, by its path or, for `me`, by its token."""
        sender = request.match_info["sender"]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is None:
            return sender
        if sender == "me":
            return next((account_id for account_id, known in self.tokens.items() if known == token), None)
        return sender if token and self.tokens.get(sender) == token else None

    def _behaviour(self, account_id: str) -> Behaviour:
        behaviour = self.behaviours.get(account_id, self.behaviours[""])
        if behaviour.times is not None:
            if behaviour.times == 0:
                return self.behaviours[""] if account_id in self.behaviours and account_id else Behaviour()
            behaviour.times -= 1
        return behaviour

    def _is_too_often(self, account_id: str, rate_per_s: float) -> bool:
        second, count = self._windows.get(account_id, (0, 0))
        now = int(time.monotonic())
        count = count + 1 if second == now else 1
        self._windows[account_id] = now, count
        return count > rate_per_s

    def _note(self, at: float, account_id: str, body: dict[str, Any], *, sent: bool, echoes: bool) -> str | None:
        """Counts a request, and sends its message; the message's mid, when there is one."""
        message = body.get("message")
        customer_id = str(body.get("recipient", {}).get("id"))
        mid = f"aWdfZAG1faXRlbToxOk{secrets.token_hex(12)}" if sent and message is not None else None
        self.requests.append(Request(at, account_id, customer_id, body, mid))
        if mid is not None and message is not None and echoes and self._echoes_to is not None:
            self._echoes.append((account_id, _echo(account_id, customer_id, mid, message)))
        return mid

    def _error(
        self,
        status: int,
        code: int | None,
        subcode: int | None,
        headers: Mapping[str, str],
        is_transient: bool = False,  # noqa: FBT001, FBT002 - as Graph API names it
    ) -> web.Response:
        self.answers[f"{status} {code}"] += 1
        if code is None:
            return web.Response(status=status, text="<html>no JSON</html>", headers=headers)
        error: dict[str, Any] = {"message": "(#stand-in)", "type": "IGApiException", "code": code}
        error |= {"fbtrace_id": secrets.token_hex(8), "is_transient": is_transient}
        if subcode is not None:
            error["error_subcode"] = subcode
        return web.json_response({"error": error}, status=status, headers=headers)

    async def _send_echoes(self) -> None:
        """As Meta does: in order, together with what happened at the same time, again until it is answered 200."""
        while True:
            await asyncio.sleep(ECHO_DELAY_S)
            while self._echoes and self._echoes_to is not None:
                now = int(time.time() * 1000)
                entries: dict[str, dict[str, Any]] = {}
                for account_id, item in [self._echoes.popleft() for _ in range(min(ECHOES_MAX, len(self._echoes)))]:
                    entry = entries.setdefault(account_id, {"id": account_id, "time": now, "messaging": []})
                    entry["messaging"].append(item)
                body = json.dumps({"object": "instagram", "entry": list(entries.values())}).encode()
                while not (await self._echoes_to.post(body)).is_safe:  # noqa: ASYNC110 - the receiver sets no event of ours
                    await asyncio.sleep(_ECHO_RETRY_S)


def _echo(account_id: str, customer_id: str, mid: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """The item with which Meta tells of a message that an account sent."""
    shown: dict[str, Any] = {"mid": mid, "is_echo": True}
    if "text" in message:
        shown["text"] = message["text"]
    if "attachment" in message:
        payload = message["attachment"].get("payload", {})
        shown["attachments"] = [{"type": "template", "payload": {"generic": {"elements": payload.get("elements", [])}}}]
    parties = {"sender": {"id": account_id}, "recipient": {"id": customer_id}}
    return {**parties, "timestamp": int(time.time() * 1000), "message": shown}


def _is_well_formed(body: object) -> bool:
    """What Graph API takes: a recipient, and a message within its limits or a sender action."""
    if not isinstance(body, dict) or not isinstance(body.get("recipient"), dict) or not body["recipient"].get("id"):
        return False
    if body.get("sender_action") in ("typing_on", "typing_off", "mark_seen", "react", "unreact"):
        return "message" not in body
    message = body.get("message")
    if not isinstance(message, dict) or not ({"text", "attachment"} & message.keys()):
        return False
    return len(str(message.get("text", "")).encode()) <= _TEXT_BYTES_MAX


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="Port on 127.0.0.1.")
@click.option("--webhook-url", required=True, help="Where echoes go, signed with the first of BRIDGE_APP_SECRETS.")
@click.option("--latency-ms", type=click.IntRange(0), default=80, show_default=True, help="Before an answer.")
@click.option("--lost-share", type=click.FloatRange(0, 1), default=0.0, help="Of answers that are lost after a send.")
def main(port: int, webhook_url: str, latency_ms: int, lost_share: float) -> None:
    """Stand in for Graph API until SIGTERM."""

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as exits:
            sender = await exits.enter_async_context(Sender(webhook_url, app_secret(os.environ)))
            stand_in = GraphStandIn(port, echoes_to=sender, lost_share=lost_share)
            stand_in.behaviours[""] = Behaviour(latency_s=latency_ms / 1000)
            await exits.enter_async_context(stand_in)
            await stop.wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
