"""``python -m tests.fuzz``: bodies and connections from a seed, for as long as one likes.

Case N of a seed is the same whenever and however often it runs: ``--seed S --first N --cases 1`` brings a finding back.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from random import Random

import click
import structlog
import uvloop

from tests.fuzz.edge import Edge
from tests.fuzz.parsing import Finding, Parsing

TARGETS = ("parsing", "edge")
FINDINGS_MAX = 20
"""Then it ends: they have a common cause."""


def fuzz(target: str, seed: int, *, first: int = 0, cases: int | None = None, seconds: float = 0) -> list[int]:
    """Run cases of one target, so many or for so long; the numbers of those that failed, each with its input in a file."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `bridge serve` has it
        return runner.run(_fuzz(target, seed, first=first, cases=cases, seconds=seconds))


async def _fuzz(target: str, seed: int, *, first: int, cases: int | None, seconds: float) -> list[int]:
    fuzzed = Parsing() if target == "parsing" else await Edge.opened()
    findings: list[int] = []
    number = first
    ends_at = time.monotonic() + seconds
    try:
        while number < first + cases if cases is not None else time.monotonic() < ends_at:
            try:
                await fuzzed.case(Random(f"{target} {seed} {number}"))  # noqa: S311 - repeatable on purpose
            except Finding as finding:
                findings.append(number)
                file = Path(f"fuzz-{target}-{seed}-{number}.bin")
                file.write_bytes(finding.args[0])  # noqa: ASYNC240 - nothing else runs
                again = f"--target {target} --seed {seed} --first {number} --cases 1"
                click.echo(f"{finding.__cause__!r}\n  input: {file}; again: make fuzz ARGS='{again}'")
                if len(findings) == FINDINGS_MAX:
                    break
            number += 1
    finally:
        await fuzzed.close()
    click.echo(f"{target}: {number - first} cases from seed {seed}, {len(findings)} findings")
    return findings


@click.command()
@click.option("--target", type=click.Choice([*TARGETS, "all"]), default="all", show_default=True)
@click.option("--seed", type=int, default=None, help="Default: the clock's.")
@click.option("--seconds", type=float, default=60, show_default=True, help="For every target.")
@click.option("--cases", type=int, default=None, help="Instead of --seconds.")
@click.option("--first", type=int, default=0, help="Number of the first case.")
def main(*, target: str, seed: int | None, seconds: float, cases: int | None, first: int) -> None:
    """Feed bytes that nobody should send to the parsing and to the public port; exit code 1 when something was found."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    seed = time.time_ns() if seed is None else seed
    findings = [
        fuzz(each, seed, first=first, cases=cases, seconds=seconds)
        for each in (TARGETS if target == "all" else (target,))
    ]
    sys.exit(any(findings))


if __name__ == "__main__":
    main()
