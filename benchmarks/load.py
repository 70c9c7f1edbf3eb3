"""The load: a process of its own that posts prepared requests over keep-alive connections and times the answers.

Run by servers.py: reads a Job as JSON from stdin, prints a Result as JSON. A bare loop over epoll, because a generator on
asyncio would need as much of its core as the server under test does; one request at a time per connection.

Closed loop (no rate): the next request leaves when an answer arrives, so it finds the most that a server takes. Open loop
(a rate): requests are due at fixed times whatever the server does, and latency counts from when they were due, so a stall
shows in every request that waited for it.
"""

from __future__ import annotations

import re
import resource
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
from bodies import requests
from job import Job, Part, Result
from procfs import Core, core_seconds, cpu_seconds, family, peak_rss_bytes

DRAIN_DEADLINE_S = 10.0
"""For the last answers; the bridge refuses after three seconds."""

CONNECT_TIMEOUT_S = 30.0
"""A full accept queue drops the handshake and the kernel repeats it after 1, 3, 7 … s."""

POLL_S = 0.05
READ_BYTES = 65536
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_OK = b"200"
_SPOOLED = b"\r\nX-Acknowledged-By: spool"


class _Connection:
    __slots__ = ("began", "received", "socket", "unsent")

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.began = 0.0
        self.unsent: memoryview | None = None
        self.received = b""


class Generator:
    """Posts the requests of one job, over and over."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._requests = requests(
            events=job.events,
            accounts=job.accounts,
            secret=job.secret,
            seed=job.seed,
            authority=f"127.0.0.1:{job.port}",
        )
        self._next = 0
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._in_flight = 0
        self._acknowledged = 0
        self._spooled = 0
        self._refused: Counter[str] = Counter()
        self._latencies: list[float] = []

    def run(self) -> Result:
        """Connect, warm up, measure, drain."""
        job, clock, poll = self._job, time.perf_counter, self._epoll.poll
        self._connect()
        due = clock()
        opens = mark = due + job.warm_up_s
        closes = opens + job.seconds
        marks: list[_Measured] = []
        while (now := clock()) < closes:
            if now >= mark:
                if not marks:
                    self._latencies.clear()
                marks.append(self._measured())
                mark = opens + len(marks) * job.seconds / job.parts
            wait_s = POLL_S
            if job.rate is None:
                while self._in_flight < job.in_flight:
                    self._post(clock())
            else:
                while due <= now and self._in_flight < job.in_flight:
                    self._post(due)
                    due += 1 / job.rate
                wait_s = max(0.0, min(due - now, POLL_S)) if self._in_flight < job.in_flight else POLL_S
            for fd, events in poll(wait_s):
                self._ready(fd, events)
        if not marks:
            raise SystemExit("the window is empty: give --seconds more than 0")
        marks.append(self._measured())
        if not self._latencies:
            raise SystemExit("no delivery was answered within the window: give more --seconds")
        latencies = self._latencies.copy()  # those of the drain belong to no window
        self._drain()
        return self._result(marks, latencies)

    def _result(self, marks: Sequence[_Measured], latencies: list[float]) -> Result:
        """Everything is sorted here, for a generator that pauses to do so measures its own pause."""
        before, after = marks[0], marks[-1]
        parts = [
            Part(
                seconds=end.at - begin.at,
                deliveries=end.answered - begin.answered,
                p50_ms=p50_ms,
                p99_ms=p99_ms,
                server_cpu_s=end.server_s - begin.server_s,
                stolen_share=_stolen_share(begin, end),
                rss_bytes=end.rss_bytes,
            )
            for begin, end in pairwise(marks)
            for p50_ms, p99_ms in [_percentiles_ms(latencies[begin.answered : end.answered])]
        ]
        p50_ms, p99_ms = _percentiles_ms(latencies)
        return Result(
            seconds=after.at - before.at,
            deliveries=len(latencies),
            acknowledged=self._acknowledged,
            spooled=self._spooled,
            refused=dict(self._refused),
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            server_cpu_s=after.server_s - before.server_s,
            broker_cpu_s=None if self._job.broker_pid is None else after.broker_s - before.broker_s,
            load_cpu_s=after.load_s - before.load_s,
            cores_busy={
                number: (core.busy - before.cores[number].busy) / max(core.total - before.cores[number].total, 1e-9)
                for number, core in after.cores.items()
            },
            stolen_share=_stolen_share(before, after),
            rss_bytes=before.rss_bytes,
            peak_rss_bytes=after.peak_rss_bytes,
            parts=parts,
        )

    def _measured(self) -> _Measured:
        job = self._job
        return _Measured(
            at=time.perf_counter(),
            answered=len(self._latencies),
            server_s=cpu_seconds(job.server_pid),
            rss_bytes=_rss_bytes(job.server_pid),
            peak_rss_bytes=peak_rss_bytes(job.server_pid),
            broker_s=0.0 if job.broker_pid is None else cpu_seconds(job.broker_pid),
            load_s=time.process_time(),
            cores=core_seconds(),
        )

    def _connect(self) -> None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
        for _ in range(self._job.connections):
            opened = socket.create_connection(("127.0.0.1", self._job.port), CONNECT_TIMEOUT_S)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.settimeout(0)
            connection = self._connections[opened.fileno()] = _Connection(opened)
            self._idle.append(connection)
            self._epoll.register(opened, select.EPOLLIN)

    def _post(self, began: float) -> None:
        request = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        connection = self._idle.popleft()
        connection.began = began
        self._in_flight += 1
        sent = connection.socket.send(request)
        if sent < len(request):
            connection.unsent = memoryview(request)[sent:]
            self._epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _ready(self, fd: int, events: int) -> None:
        connection = self._connections[fd]
        if events & select.EPOLLOUT and connection.unsent is not None:
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
            if not connection.unsent:
                connection.unsent = None
                self._epoll.modify(connection.socket, select.EPOLLIN)
        if events & ~select.EPOLLOUT:
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        data = connection.socket.recv(READ_BYTES)
        if not data:
            raise SystemExit("the server closed a connection under load")
        if connection.received:
            data, connection.received = connection.received + data, b""
        head_end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, max(head_end, 0))
        if head_end >= 0 and length is None:
            raise SystemExit("the server answered without Content-Length")
        if length is None or len(data) < head_end + 4 + int(length[1]):
            connection.received = data
            return
        status = data[9:12]
        if status == _OK:
            self._acknowledged += 1
            self._spooled += _SPOOLED in data
            self._latencies.append(time.perf_counter() - connection.began)
        else:
            self._refused[status.decode("ascii", "replace")] += 1
        self._in_flight -= 1
        self._idle.append(connection)

    def _drain(self) -> None:
        deadline = time.perf_counter() + DRAIN_DEADLINE_S
        while self._in_flight and time.perf_counter() < deadline:
            for fd, events in self._epoll.poll(POLL_S):
                self._ready(fd, events)
        if self._in_flight:
            raise SystemExit(f"{self._in_flight} deliveries were never answered")
        for connection in self._connections.values():
            connection.socket.close()


class _Measured(msgspec.Struct):
    """What counters say at one moment; ``answered`` is of the latencies, since the window opened."""

    at: float
    answered: int
    server_s: float
    rss_bytes: int
    peak_rss_bytes: int
    broker_s: float
    load_s: float
    cores: dict[int, Core]


def _stolen_share(begin: _Measured, end: _Measured) -> float:
    stolen_s = sum(core.stolen - begin.cores[number].stolen for number, core in end.cores.items())
    return stolen_s / (end.at - begin.at) / len(end.cores)


def _rss_bytes(pid: int) -> int:
    """What the process, or the largest of its descendants, holds now: the second figure of statm, in pages (proc(5))."""
    pages = (int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid))
    return max(pages) * resource.getpagesize()


def _percentiles_ms(latencies: list[float]) -> tuple[float, float]:
    """p50 and p99; zeroes when nothing was answered."""
    ranked = sorted(latencies) or [0.0]
    return 1000 * ranked[len(ranked) // 2], 1000 * ranked[min(len(ranked) * 99 // 100, len(ranked) - 1)]


if __name__ == "__main__":
    result = Generator(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)).run()
    sys.stdout.buffer.write(msgspec.json.encode(result))
