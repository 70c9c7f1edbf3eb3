"""The numbers on standard output: a block that is redrawn on a terminal, plain lines now and then anywhere else."""

import asyncio
import shutil
import sys
from typing import TextIO

from consumers.analytics.counts import Counts, Tally

REDRAW_INTERVAL_S = 0.5
LINES_INTERVAL_S = 5
ACCOUNTS_SHOWN_MAX = 10  # those with most events; the page has all


async def report(counts: Counts, *, out: TextIO = sys.stdout) -> None:
    """Prints until cancelled, only when something changed, and the last numbers at the end."""
    printed = _Printed(out)
    try:
        while True:
            printed.update(counts)
            await asyncio.sleep(REDRAW_INTERVAL_S if out.isatty() else LINES_INTERVAL_S)
    finally:
        printed.update(counts)


class _Printed:
    """What stands on the output, so that a terminal's block can be drawn over."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._version = -1
        self._height = 0

    def update(self, counts: Counts) -> None:
        if counts.version == self._version:
            return
        lines = summary(counts)
        if self._out.isatty():
            columns = shutil.get_terminal_size().columns
            lines = [line[: columns - 1] for line in lines]  # a wrapped line would break the count of lines
            self._out.write(f"\x1b[{self._height}F\x1b[J" if self._height else "")
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._version, self._height = counts.version, len(lines)


def summary(counts: Counts) -> list[str]:
    """One line with the totals, one per account with its webhook fields."""
    lines = [
        f"events {counts.total.events:,}  redeliveries {counts.redeliveries:,}  accounts {len(counts.by_account):,}"
    ]
    ranking = sorted(counts.by_account.items(), key=lambda item: -_events(item[1]))
    for account, fields in ranking[:ACCOUNTS_SHOWN_MAX]:
        numbers = "  ".join(f"{name} {tally.events:,}" for name, tally in sorted(fields.items()))
        # An account id is Meta's to choose: nothing in it may steer a terminal.
        lines.append(f"  {''.join(c if c.isprintable() else '?' for c in account)}  {numbers}")
    if len(ranking) > ACCOUNTS_SHOWN_MAX:
        lines.append(f"  and {len(ranking) - ACCOUNTS_SHOWN_MAX:,} more accounts")
    return lines


def _events(fields: dict[str, Tally]) -> int:
    return sum(tally.events for tally in fields.values())
