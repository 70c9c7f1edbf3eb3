"""What a load is asked to do, and what it answers; both cross between two processes as JSON."""

from __future__ import annotations

import msgspec


class Job(msgspec.Struct, kw_only=True):
    """What to send and what to watch; times in seconds, cores as Linux numbers them.

    Attributes:
        port: the server's, on 127.0.0.1.
        connections: open all the time; used in turn.
        in_flight: requests that wait for their answer at one time, at most.
        rate: deliveries a second; null for a closed loop.
        server_pid, broker_pid: whose CPU time is read at both ends of the window; null for a broker that is not ours.
        parts: of equal length, that the window is also told in.
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
    parts: int = 1


class Part(msgspec.Struct, kw_only=True):
    """One part of the window: lengths, times and shares as in the whole; the server's memory at the part's end."""

    seconds: float
    deliveries: int
    p50_ms: float
    p99_ms: float
    server_cpu_s: float
    stolen_share: float
    rss_bytes: int


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
        stolen_share: of all cores' time in the window, what the hypervisor gave to other machines.
        rss_bytes, peak_rss_bytes: the server's, the largest of its processes: when the window opened, and ever.
        parts: of the window, in order.
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
    stolen_share: float
    rss_bytes: int
    peak_rss_bytes: int
    parts: list[Part]
