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

import msgspec
from bodies import requests
from procfs import core_seconds, cpu_seconds, peak_rss_bytes

DRAIN_DEADLINE_S = 10.0
"""For the last answers; the bridge refuses after three seconds."""

CONNECT_TIMEOUT_S = 30.0
"""A full accept queue drops the handshake and the kernel repeats it after 1, 3, 7 … s."""

POLL_S = 0.05
READ_BYTES = 65536
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_OK = b"200"
_SPOOLED = b"\r\nX-Acknowledged-By: spool"


class Job(msgspec.Struct, kw_only=True):
    """What to send and what to watch; times in seconds, cores as Linux numbers them.

    Attributes:
        port: the server's, on 127.0.0.1.
        connections: open all the time; used in turn.
        in_flight: requests that wait for their answer at one time, at most.
        rate: deliveries a second; null for a closed loop.
        server_pid, broker_pid: whose CPU time is read at both ends of the window; null for a broker that is not ours.
    """

    port: int
    secret: str
    seed: int
    events: int
    accounts: int
    connections: int
    in_flight: int
    rate: float | None
    warm_up_s: float
    seconds: float
    server_pid: int
    broker_pid: int | None


class Result(msgspec.Struct, kw_only=True):
    """What happened in the window, and since the beginning.

    Attributes:
        seconds: length of the window.
        deliveries: answered 200 in the window.
        acknowledged: answered 200 since the beginning, after the window too.
        spooled: those of them that the bridge's spool has taken, not yet Kafka.
        refused: answers that were not 200, by status, since the beginning.
        p50_ms, p99_ms: of the answers in the window.
        server_cpu_s, broker_cpu_s, load_cpu_s: CPU seconds in the window.
        cores_busy: share of the window that each core was busy, whoever kept it so.
        peak_rss_bytes: the server's, the largest of its processes.
    """

    seconds: float
    deliveries: int
    acknowledged: int
    spooled: int
    refused: dict[str, int]
    p50_ms: float
    p99_ms: float
    server_cpu_s: float
    broker_cpu_s: float | None
    load_cpu_s: float
    cores_busy: dict[int, float]
    peak_rss_bytes: int


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
        opens = due + job.warm_up_s
        closes = opens + job.seconds
        before = None
        while (now := clock()) < closes:
            if before is None and now >= opens:
                before, acknowledged = self._measured(), self._acknowledged
                self._latencies.clear()
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
        if before is None:
            raise SystemExit("the window is empty: give --seconds more than 0")
        after, deliveries = self._measured(), self._acknowledged - acknowledged
        if not self._latencies:
            raise SystemExit("no delivery was answered within the window: give more --seconds")
        latencies = sorted(self._latencies)
        self._drain()
        return Result(
            seconds=after.at - before.at,
            deliveries=deliveries,
            acknowledged=self._acknowledged,
            spooled=self._spooled,
            refused=dict(self._refused),
            p50_ms=1000 * latencies[len(latencies) // 2],
            p99_ms=1000 * latencies[min(len(latencies) * 99 // 100, len(latencies) - 1)],
            server_cpu_s=after.server_s - before.server_s,
            broker_cpu_s=None if job.broker_pid is None else after.broker_s - before.broker_s,
            load_cpu_s=after.load_s - before.load_s,
            cores_busy={
                core: (busy - before.cores[core][0]) / max(total - before.cores[core][1], 1e-9)
                for core, (busy, total) in after.cores.items()
            },
            peak_rss_bytes=peak_rss_bytes(job.server_pid),
        )

    def _measured(self) -> _Measured:
        job = self._job
        return _Measured(
            at=time.perf_counter(),
            server_s=cpu_seconds(job.server_pid),
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
    at: float
    server_s: float
    broker_s: float
    load_s: float
    cores: dict[int, tuple[float, float]]


if __name__ == "__main__":
    result = Generator(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)).run()
    sys.stdout.buffer.write(msgspec.json.encode(result))
