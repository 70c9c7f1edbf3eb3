"""Between workers and the keeper of their one spool: deliveries one way, answers the other, over a socket pair.

Workers publish to Kafka by themselves. The keeper, their parent, has the spool; while deliveries must queue behind spooled
ones, or when a worker's own publishing failed, the worker hands them to the keeper and answers with the keeper's answer. A
byte of shared memory tells all workers where deliveries go; the keeper changes it before it answers the delivery that is
the reason, so whoever comes after that answer sees it.

Frames are a length (four bytes, big-endian) and a msgpack array.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from bridge.delivery import Delivery
from bridge.errors import BridgeError, NotAcknowledged, Overloaded, Refused, SpoolFailed, SpoolFull
from bridge.intake import Acknowledger, Answer, Arrived, Mode

_LENGTH_BYTES = 4

_REFUSALS: dict[str, type[Refused]] = {
    error.reason: error for error in (NotAcknowledged, Overloaded, SpoolFailed, SpoolFull)
}
_MODES = list(Mode)


class ModeFlag:
    """Where deliveries go, seen by the keeper and by all its workers at once.

    Args:
        descriptor: of a memory file (os.memfd_create) of at least one byte.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 1)

    def __call__(self) -> Mode:
        """Read it."""
        return _MODES[self._memory[0]]

    def set(self, mode: Mode) -> None:
        """Change it; one byte is written at once."""
        self._memory[0] = _MODES.index(mode)


class _Handed(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """A delivery on its way to the keeper; ``failed`` when the worker's own publishing was not acknowledged."""

    number: int
    failed: bool
    delivery: Delivery


class _Answered(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """The keeper's answer: who acknowledged the delivery, or the reason of the refusal."""

    number: int
    outcome: str


class _Asked(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """The keeper wants a worker's report."""

    number: int


class Report(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """What a worker tells of itself.

    Attributes:
        number: of the question.
        serving: whether its public port is open.
        metrics: in Prometheus' text form.
        status: its part of /status.
    """

    number: int
    serving: bool
    metrics: bytes
    status: dict[str, object]


class _Framed(asyncio.Protocol):
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[_LENGTH_BYTES:end])
            del self._buffer[:end]
            self.frame_received(frame)

    def frame_received(self, frame: bytes) -> None:
        raise NotImplementedError

    def send(self, message: msgspec.Struct) -> None:
        if self.transport is not None:
            frame = msgspec.msgpack.encode(message)
            self.transport.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)


class WorkerEnd(_Framed):
    """A worker's end; keeps `bridge.worker_intake.Keeper`.

    Attributes:
        report: makes the worker's report under a number; set before the keeper asks for it.
        lost: called when the keeper is gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.report: Callable[[int], Report] | None = None
        self.lost: Callable[[], None] = lambda: None
        self._number = 0
        self._waiting: dict[int, Answer] = {}

    def hand_over(self, delivery: Delivery, answer: Answer, *, failed: bool) -> None:
        """Let the keeper take a delivery; ``answer`` is called with its answer, or when it is gone."""
        if self.transport is None or self.transport.is_closing():
            answer(NotAcknowledged("the keeper of the spool is gone"))
            return
        self._number += 1
        self._waiting[self._number] = answer
        self.send(_Handed(self._number, failed, delivery))

    def frame_received(self, frame: bytes) -> None:
        """Pass an answer on, or report."""
        message = msgspec.msgpack.decode(frame, type=_Answered | _Asked)
        if isinstance(message, _Asked):
            if self.report is not None:
                self.send(self.report(message.number))
            return
        refusal = _REFUSALS.get(message.outcome)
        outcome = refusal("the keeper refused") if refusal else msgspec.convert(message.outcome, Acknowledger)
        self._waiting.pop(message.number)(outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        """Refuse what waits: without the keeper nobody knows where those deliveries are."""
        del exc
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer(NotAcknowledged("the keeper of the spool is gone"))
        self.lost()


class KeeperEnd(_Framed):
    """The keeper's end, one for each worker.

    Args:
        take: takes a delivery that must go the keeper's way.
        set_aside: takes one that Kafka did not take from the worker.
    """

    def __init__(
        self, take: Callable[[Sequence[Arrived]], None], set_aside: Callable[[Delivery, Answer], None]
    ) -> None:
        super().__init__()
        self._take = take
        self._set_aside = set_aside
        self._number = 0
        self._reports: dict[int, asyncio.Future[Report]] = {}

    async def report(self, timeout_s: float) -> Report | None:
        """Ask the worker for its report; None when it does not answer in time."""
        self._number += 1
        number = self._number
        self._reports[number] = asyncio.get_running_loop().create_future()
        self.send(_Asked(number))
        try:
            return await asyncio.wait_for(self._reports[number], timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._reports[number]

    def frame_received(self, frame: bytes) -> None:
        """Take a delivery, and answer when it is taken; or take a report."""
        message = msgspec.msgpack.decode(frame, type=_Handed | Report)
        if isinstance(message, Report):
            asked = self._reports.get(message.number)
            if asked is not None and not asked.done():
                asked.set_result(message)
            return
        number = message.number

        def answer(outcome: Acknowledger | Refused) -> None:
            self.send(_Answered(number, outcome.reason if isinstance(outcome, BridgeError) else outcome))

        if message.failed:
            self._set_aside(message.delivery, answer)
        else:
            self._take([(message.delivery, answer)])


async def connect(end: _Framed, side: socket.socket) -> None:
    """Run an end on its side of the socket pair."""
    side.setblocking(False)  # noqa: FBT003 - the socket module takes no keyword
    await asyncio.get_running_loop().create_unix_connection(lambda: end, sock=side)
