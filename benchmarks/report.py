"""Measurements, their medians, and how they are shown. Does no IO, reads no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec
from job import Result

FOREIGN_SHARE_MAX = 0.05
"""Of the server's core taken by others: beyond it rates fall, and CPU figures grow, for caches are cold after each turn."""

STOLEN_SHARE_MAX = 0.01
"""Of all cores' time, what the hypervisor took: it comes in stalls of milliseconds, so beyond this p99 is the hypervisor's."""

SATURATED_SHARE_MIN = 0.9
"""Of its core: a server that used less, with nobody else there, was not the bottleneck."""

_MIB = 1024 * 1024


class Scenario(msgspec.Struct, frozen=True):
    """What is sent: events per delivery, accounts they belong to, partitions per topic, connections kept open."""

    events: int = 1
    accounts: int = 10
    partitions: int = 12
    connections: int = 64

    def __str__(self) -> str:
        default = Scenario()
        events = f"{self.events} event{'s' if self.events > 1 else ''} per delivery"
        named = ("accounts", "partitions", "connections")
        unusual = [f"{getattr(self, name)} {name}" for name in named if getattr(self, name) != getattr(default, name)]
        return ", ".join([events, *unusual])


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one target, or the medians of several.

    Attributes:
        loop: ``closed`` finds the most that is taken; ``open`` is latency at a share of that.
        cpu_s_per_1000_deliveries, cpu_s_per_1000_events: the server's CPU seconds, user and system, all its processes.
        server_share: of its core that the server used.
        foreign_share: of the server's core that somebody else used; null where the server had more than one core.
        other_share: of the busiest other core, where load and Kafka are.
        stolen_share: of all cores' time, what the hypervisor gave to other machines.
        records: read back from Kafka, at least as many as events were answered 200.
        spooled, refused: deliveries that the spool took first, and those that were not answered 200.
    """

    target: str
    scenario: Scenario
    loop: str
    deliveries_per_s: float
    events_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000_deliveries: float
    cpu_s_per_1000_events: float
    peak_rss_mib: float
    server_share: float
    foreign_share: float
    other_share: float
    stolen_share: float
    records: float
    spooled: float
    refused: float


def measurement(
    target: str, scenario: Scenario, loop: str, result: Result, *, records: int, server_core: int
) -> Measurement:
    """The figures of one round."""
    deliveries = max(result.deliveries, 1)
    server_share = result.server_cpu_s / result.seconds
    return Measurement(
        target=target,
        scenario=scenario,
        loop=loop,
        deliveries_per_s=result.deliveries / result.seconds,
        events_per_s=result.deliveries * scenario.events / result.seconds,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        cpu_s_per_1000_deliveries=1000 * result.server_cpu_s / deliveries,
        cpu_s_per_1000_events=1000 * result.server_cpu_s / deliveries / scenario.events,
        peak_rss_mib=result.peak_rss_bytes / _MIB,
        server_share=server_share,
        foreign_share=max(0.0, result.cores_busy[server_core] - server_share),
        other_share=max((busy for core, busy in result.cores_busy.items() if core != server_core), default=0.0),
        stolen_share=result.stolen_share,
        records=records,
        spooled=result.spooled,
        refused=sum(result.refused.values()),
    )


def medians(rounds: Sequence[Measurement]) -> list[Measurement]:
    """One measurement for every target, scenario and loop, in the order in which they first stand."""
    groups: dict[tuple[str, Scenario, str], list[Measurement]] = {}
    for one in rounds:
        groups.setdefault((one.target, one.scenario, one.loop), []).append(one)
    return [_median(group) for group in groups.values()]


def _median(group: Sequence[Measurement]) -> Measurement:
    named = {"target", "scenario", "loop"}
    figures = [name for name in Measurement.__struct_fields__ if name not in named]
    return msgspec.structs.replace(group[0], **{name: median(getattr(one, name) for one in group) for name in figures})


def table(scenario: Scenario, rounds: Sequence[Measurement]) -> str:
    """One scenario as text: a row per target, medians; latency of the open loop beside the closed one's."""
    mine = [one for one in rounds if one.scenario == scenario]
    middle = {(one.target, one.loop): one for one in medians(mine)}
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for target in dict.fromkeys(one.target for one in mine):
        closed, opened = middle.get((target, "closed")), middle.get((target, "open"))
        rows.append(_row(target, closed or opened, opened, [one for one in mine if one.target == target]))
    return f"{scenario}\n{_aligned(rows)}"


_HEADINGS = (
    "",
    "deliveries/s",
    "± %",
    "events/s",
    "CPU s per 1000 deliveries",
    "per 1000 events",
    "p50/p99 ms at most",
    "at open loop",
    "RSS MiB",
    "own core %",
    "others there %",
    "load+Kafka core %",
    "stolen %",
    "records",
    "spooled",
    "refused",
)


def _row(
    target: str, middle: Measurement | None, opened: Measurement | None, rounds: Sequence[Measurement]
) -> tuple[str, ...]:
    if middle is None:
        return (target,)
    rates = [one.deliveries_per_s for one in rounds if one.loop == middle.loop]
    return (
        target,
        f"{middle.deliveries_per_s:,.0f}",
        f"{50 * (max(rates) - min(rates)) / max(middle.deliveries_per_s, 1):.0f}",
        f"{middle.events_per_s:,.0f}",
        f"{middle.cpu_s_per_1000_deliveries:.4f}",
        f"{middle.cpu_s_per_1000_events:.4f}",
        f"{middle.p50_ms:.1f} / {middle.p99_ms:.1f}",
        f"{opened.p50_ms:.1f} / {opened.p99_ms:.1f} ({opened.deliveries_per_s:,.0f}/s)" if opened else "-",
        f"{max(one.peak_rss_mib for one in rounds):.0f}",
        f"{100 * middle.server_share:.0f}",
        f"{100 * middle.foreign_share:.0f}",
        f"{100 * middle.other_share:.0f}",
        f"{100 * middle.stolen_share:.1f}",
        f"{sum(one.records for one in rounds):,.0f}",
        f"{sum(one.spooled for one in rounds):,.0f}",
        f"{sum(one.refused for one in rounds):,.0f}",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows if len(row) > column) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        for row in rows
    )


def ratios(rounds: Iterable[Measurement], subject: str = "bridge") -> list[str]:
    """How near the subject comes to each reference, a line per scenario and reference; 1 is as good."""
    closed = {(one.target, one.scenario): one for one in medians([one for one in rounds if one.loop == "closed"])}
    lines = []
    for (target, scenario), reference in closed.items():
        ours = closed.get((subject, scenario))
        if target != subject and ours is not None:
            by_rate = ours.deliveries_per_s / max(reference.deliveries_per_s, 1)
            by_cpu = reference.cpu_s_per_1000_deliveries / max(ours.cpu_s_per_1000_deliveries, 1e-9)
            lines.append(f"{subject} / {target}: {by_rate:.2f} by deliveries/s, {by_cpu:.2f} by CPU ({scenario})")
    return lines


def warnings(rounds: Iterable[Measurement]) -> list[str]:
    """Why some rates are not what they seem."""
    lines = []
    closed = medians([one for one in rounds if one.loop == "closed"])
    stolen_share = max((one.stolen_share for one in closed), default=0.0)
    if stolen_share > STOLEN_SHARE_MAX:
        lines.append(
            f"the hypervisor took up to {stolen_share:.1%} of all cores: latencies are its, and even ratios are rough"
        )
    for one in closed:
        who = f"{one.target}, {one.scenario}"
        if one.foreign_share > FOREIGN_SHARE_MAX:
            lines.append(
                f"{who}: others took {one.foreign_share:.0%} of its core: rates are too low, CPU figures too high"
            )
        elif one.server_share < SATURATED_SHARE_MIN:
            lines.append(
                f"{who}: it used {one.server_share:.0%} of its core: load or Kafka held it up (or more workers)"
            )
    return lines
