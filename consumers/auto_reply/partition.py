"""One partition at work: every event of it gets one decision, and an answer at most once. This file holds the failure story.

    event ──▶ known already? ──▶ its conversation's lane, one at a time ──▶ the account's turn ──▶ decide
          ──▶ `intended`, committed ──▶ Graph API ──▶ `sent` / `failed` / `deferred`, or nothing is known and the echo tells

What waits in a lane is in no ledger, and its offset is not committed: after a crash it is read again. What has an intent is
never sent again, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import replace
from typing import Any

import structlog

from consumers.auto_reply.accounts import WAITING_MAX, Account
from consumers.auto_reply.conversation import Conversation, is_echo
from consumers.auto_reply.decision import Decision, decide
from consumers.auto_reply.entries import Entry, Key, Status, conversation_key
from consumers.auto_reply.graph import Answer
from consumers.auto_reply.ledger import Ledger, LedgerLostError
from consumers.auto_reply.memory import Memory
from consumers.auto_reply.progress import Progress
from consumers.auto_reply.tools import Tools, carry_out
from consumers.decoding import Event

WATCH_INTERVAL_S = 1.0  # between two looks at intents without an outcome; they wait for minutes
# For requests that are under way when a partition is given back. With the ledger's last flush it stays under the group's
# session timeout, for aiokafka sends no heartbeat meanwhile.
SETTLE_DEADLINE_S = 3.0
# From an intent to its request. A process that was stopped for longer in between must not surprise anybody when it wakes up.
SEND_DEADLINE_S = 30.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Partition:
    """One partition of the event topics and of the ledger, which this process owns.

    Attributes:
        progress: By event topic, how far it is decided.
        fault: What went wrong in a way that should not be possible.

    Args:
        memory: Has read the ledger.
        ledger: Where entries go; it has to give them to `memory.learn`.
        tools: Shared.
    """

    def __init__(self, memory: Memory, ledger: Ledger, tools: Tools) -> None:
        self.progress: dict[str, Progress] = {}
        self.fault: BaseException | None = None
        self.ledger = ledger
        self._memory = memory
        self._tools = tools
        self._lanes: dict[Key, deque[Event]] = {}
        self._in_lanes: set[str] = set()
        self._walks: set[asyncio.Task[None]] = set()
        self._sending: dict[str, asyncio.Task[None] | None] = {}
        self._echo_until: dict[str, float] = {}
        self._closing = False
        self._watch = asyncio.create_task(self._watch_for_echoes())
        self._watch.add_done_callback(self._ended)

    @property
    def without_outcome(self) -> int:
        """How many intents wait for an answer or an echo."""
        return sum(1 for _ in self._memory.without_outcome())

    @property
    def waiting(self) -> int:
        """How many events wait for their turn or their answer."""
        return len(self._in_lanes)

    def take(self, event: Event) -> None:
        """Takes the next event of one of the topics."""
        progress = self.progress.setdefault(event.topic, Progress())
        progress.taken(event.offset)
        if self._memory.is_decided(event.event_id) or event.event_id in self._in_lanes:
            # A redelivery, or a replay. While the first copy waits, its own offset keeps it from being lost.
            self._tools.figures.decided("decided_before", "decided_before")
            progress.decided(event.offset)
            return
        key = conversation_key(event.value["account_id"], event.value["customer_id"])
        if is_echo(event):
            # Ahead of what waits: a person's answer counts for the questions before it.
            self._take_echo(event)
        elif key is None:
            self._record(event, self._decide(event))
        elif key in self._lanes:
            self._join_lane(self._lanes[key], event, key)
        elif _is_answer(decision := self._decide(event)):
            lane: deque[Event] = deque()
            if self._join_lane(lane, event, key):
                self._lanes[key] = lane
                walk = asyncio.create_task(self._walk(key, lane))
                self._walks.add(walk)
                walk.add_done_callback(self._ended)
        else:
            self._record(event, decision)

    def skip(self, topic: str, offset: int) -> None:
        """Passes over a record that was set aside as a dead letter."""
        progress = self.progress.setdefault(topic, Progress())
        progress.taken(offset)
        progress.decided(offset)

    async def close(self) -> None:
        """Gives the partition back: what waits is dropped, what is under way gets its outcome, what is known is written."""
        self._closing = True
        self._watch.cancel()
        sending = {task for task in self._sending.values() if task is not None}
        for walk in self._walks - sending:
            walk.cancel()
        if sending:
            await asyncio.wait(sending, timeout=SETTLE_DEADLINE_S)
        with contextlib.suppress(LedgerLostError, TimeoutError):
            await asyncio.wait_for(self.ledger.flushed(), SETTLE_DEADLINE_S)
        for walk in self._walks:
            walk.cancel()
        await asyncio.gather(*self._walks, self._watch, return_exceptions=True)
        for event_id in self._in_lanes.copy():
            self._in_lanes.discard(event_id)

    def _decide(self, event: Event) -> Decision:
        now = self._tools.now()
        # What is older than our memory of the ledger may have been answered.
        age_max = min(self._tools.event_age_max, now - self._memory.known_since)
        return decide(event, self._conversation(event), self._tools.rules, now=now, event_age_max=age_max)

    def _conversation(self, event: Event) -> Conversation:
        key = conversation_key(event.value["account_id"], event.value["customer_id"])
        return self._memory.conversation(key) if key else Conversation()

    def _join_lane(self, lane: deque[Event], event: Event, key: Key) -> bool:
        account = self._tools.accounts[key[0]]
        if account.waiting >= WAITING_MAX:
            self._record(event, Decision("skip", "too_many_waiting", self._tools.now()))
            log.error("too_many_waiting", account_id=key[0], waiting=account.waiting)
            return False
        account.waiting += 1
        self._in_lanes.add(event.event_id)
        lane.append(event)
        return True

    async def _walk(self, key: Key, lane: deque[Event]) -> None:
        """Answers the events of one conversation, each when the one before it is done."""
        account = self._tools.accounts[key[0]]
        try:
            while lane and not self._closing:
                if await self._is_done_with(lane[0], key, account):
                    account.waiting -= 1
                    self._in_lanes.discard(lane.popleft().event_id)
        finally:
            account.waiting -= len(lane)
            del self._lanes[key]

    async def _is_done_with(self, event: Event, key: Key, account: Account) -> bool:
        """Decides on one event when its account has a turn for it; False when it may be tried again."""
        tools = self._tools
        async with account.place():
            has_turn = tools.dry_run
            while True:
                if not tools.dry_run:
                    await account.open()
                decision = self._decide(event)
                if not _is_answer(decision) or has_turn:
                    break
                if account.stopped is not None:
                    decision = replace(decision, action="skip", reason="account_stopped", messages=(), discloses=False)
                    break
                has_turn = account.is_free
                await account.turn()
                if has_turn:
                    break
                has_turn = True  # it has waited: time has passed, a person may have answered
            if decision.action == "ask":
                decision = await tools.deciders.settled(decision, event, self._conversation(event))
                if not _is_answer(again := self._decide(event)):
                    decision = again
            if not decision.messages:
                self._record(event, decision)
            elif tools.dry_run:
                self._record(event, decision, "would_reply")
                log.info("would_reply", rule=decision.rule, account_id=key[0], event_id=event.event_id)
            else:
                self._sending[event.event_id] = asyncio.current_task()
                try:
                    return await self._send(event, key, decision, account)
                finally:
                    del self._sending[event.event_id]
            return True

    async def _send(self, event: Event, key: Key, decision: Decision, account: Account) -> bool:
        """Intent, requests, outcome; False when nothing was sent and it may be tried again."""
        tools = self._tools
        before = self._memory.conversation(key)
        after = before.seen(event, is_own_echo=self._memory.is_own).answered(decision)
        intent = Entry.of(event, decision, "intended", after)
        begin = asyncio.get_running_loop().time()
        await asyncio.shield(self.ledger.add(intent, urgent=True))
        if asyncio.get_running_loop().time() - begin > SEND_DEADLINE_S:
            current = self._memory.conversation(key).not_sent(decision)
            self._add(event, intent.becomes("failed", "too_late", decided_at=tools.now(), conversation=current))
            return True
        requested_at = tools.now()
        tools.figures.requested((requested_at - intent.received_at).total_seconds())
        begin = asyncio.get_running_loop().time()
        answer, mids = await carry_out(tools.graph, account, key[1], decision.messages)
        tools.figures.answered(asyncio.get_running_loop().time() - begin)
        known: dict[str, Any] = {
            "requested_at": requested_at,
            "decided_at": tools.now(),
            "graph_error": answer.error,
            "conversation": None,
        }
        if answer.kind == "sent":
            self._add(event, intent.becomes("sent", decision.reason, **known | {"message_ids": mids}))
        elif answer.kind in ("limited", "unreachable") and not mids:
            # Certainly not sent: the conversation is as before, but for what a person wrote meanwhile.
            restored = replace(before, human_at=self._memory.conversation(key).human_at)
            self.ledger.add(intent.becomes("deferred", answer.reason, **known | {"conversation": restored}))
            tools.figures.decided("deferred", answer.reason)
            return False
        elif answer.kind == "lost":
            self._lost(event, intent, answer)
        else:
            current = self._memory.conversation(key)
            known |= {"message_ids": mids, "conversation": current if mids else current.not_sent(decision)}
            self._add(event, intent.becomes("failed", answer.reason, **known))
            log.warning(
                "not_sent", account_id=key[0], reason=answer.reason, graph_error=answer.error, event_id=event.event_id
            )
        return True

    def _lost(self, event: Event, intent: Entry, answer: Answer) -> None:
        """Nobody knows whether it was sent: from here on only an echo tells, and one may have come already."""
        self._progress_of(event).decided(event.offset)
        self._tools.figures.decided("lost", answer.reason)
        log.warning(
            "answer_lost",
            account_id=intent.account_id,
            reason=answer.reason,
            graph_error=answer.error,
            event_id=intent.event_id,
        )
        self._settle_by_echo(intent)

    def _take_echo(self, event: Event) -> None:
        decision = self._decide(event)
        intent = self._memory.answer_of(event)
        is_own = intent is not None or self._memory.is_own(event)
        if is_own and decision.reason == "echo":
            decision = replace(decision, reason="own_echo")
        self._record(event, decision)
        if intent is not None and intent.event_id not in self._sending:
            self._settle_by_echo(intent)

    def _settle_by_echo(self, intent: Entry) -> None:
        """Makes an intent `sent` when all its messages came back."""
        mids = self._memory.mids(intent.event_id)
        if len(mids) >= sum("message" in body for body in intent.messages):
            now = self._tools.now()
            self.ledger.add(intent.becomes("sent", "echo", message_ids=mids, decided_at=now, conversation=None))
            self._tools.figures.decided("sent", "echo")
            self._echo_until.pop(intent.event_id, None)

    async def _watch_for_echoes(self) -> None:
        """Records intents as unknown whose echo did not come in time: of this process, and of those before it."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            now = loop.time()
            for intent in list(self._memory.without_outcome()):
                if intent.event_id in self._sending:
                    continue
                until = self._echo_until.setdefault(intent.event_id, now + self._tools.unknown_after.total_seconds())
                if now >= until:
                    del self._echo_until[intent.event_id]
                    mids = self._memory.mids(intent.event_id)
                    changes = {"message_ids": mids, "decided_at": self._tools.now(), "conversation": None}
                    self.ledger.add(intent.becomes("unknown", "no_echo", **changes))
                    self._tools.figures.decided("unknown", "no_echo")
                    log.error(
                        "outcome_unknown", account_id=intent.account_id, event_id=intent.event_id, rule=intent.rule
                    )

    def _record(self, event: Event, decision: Decision, status: Status = "skipped") -> None:
        """Writes the one entry of an event that is not sent."""
        before = self._conversation(event)
        after = before.answered(decision)
        # An echo from before our memory may be our own.
        if not is_echo(event) or event.value["received_at"] >= self._memory.known_since:
            after = after.seen(event, is_own_echo=self._memory.is_own)
        self._add(event, Entry.of(event, decision, status, None if after == before else after))
        for rule in decision.cut_off:
            log.warning("regex_cut_off", rule=rule, event_id=event.event_id)

    def _add(self, event: Event, entry: Entry) -> None:
        """Writes an entry after which its event is decided."""
        progress, offset = self._progress_of(event), event.offset

        def committed(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                progress.decided(offset)

        self.ledger.add(entry).add_done_callback(committed)
        self._tools.figures.decided(entry.status, entry.reason)

    def _progress_of(self, event: Event) -> Progress:
        return self.progress[event.topic]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._walks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, LedgerLostError):
            self.fault = error


def _is_answer(decision: Decision) -> bool:
    return bool(decision.messages) or decision.action == "ask"
