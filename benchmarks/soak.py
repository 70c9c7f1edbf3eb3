"""A soak: many minutes at a share of the most, told minute by minute. Does no IO, reads no clock."""

from __future__ import annotations

import msgspec
from job import Result
from report import Scenario

_MIB = 1024 * 1024


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """One target's.

    Attributes:
        rate: deliveries a second that were due.
        result: its parts are minutes, the last one perhaps shorter.
        records: that Kafka got, at least as many as events were answered 200.
    """

    target: str
    scenario: Scenario
    rate: float
    result: Result
    records: int

    @property
    def rss_mib(self) -> tuple[float, float, float]:
        """The server's memory at the start, in the middle and at the end; of several processes, the largest's."""
        ends = [part.rss_bytes for part in self.result.parts]
        return self.result.rss_bytes / _MIB, ends[(len(ends) - 1) // 2] / _MIB, ends[-1] / _MIB


def soak_table(soak: Soak) -> str:
    """A line per minute, and what they come to."""
    result = soak.result
    lines = [
        f"soak: {soak.target}, {soak.scenario}, {soak.rate:,.0f} deliveries/s due for {result.seconds / 60:.1f} min",
        f"{'minute':>6}  {'deliveries/s':>12}  {'p50/p99 ms':>15}  {'own core %':>10}  {'stolen %':>8}  {'RSS MiB':>7}",
    ]
    for minute, part in enumerate(result.parts, start=1):
        latency = f"{part.p50_ms:.1f} / {part.p99_ms:.1f}"
        lines.append(
            f"{minute:>6}  {part.deliveries / part.seconds:>12,.0f}  {latency:>15}  "
            f"{100 * part.server_cpu_s / part.seconds:>10.0f}  {100 * part.stolen_share:>8.1f}  {part.rss_bytes / _MIB:>7.1f}"
        )
    start, middle, end = soak.rss_mib
    lines.append(
        f"RSS {start:.1f} MiB at the start, {middle:.1f} in the middle, {end:.1f} at the end, "
        f"{result.peak_rss_bytes / _MIB:.1f} at most; p99 {result.p99_ms:.1f} ms over all, "
        f"{max(part.p99_ms for part in result.parts):.1f} in the worst minute"
    )
    lines.append(
        f"answered 200: {result.acknowledged * soak.scenario.events:,} events, of them spooled first "
        f"{result.spooled * soak.scenario.events:,}; in Kafka: {soak.records:,}; "
        f"refused deliveries: {sum(result.refused.values()):,}"
    )
    return "\n".join(lines)
