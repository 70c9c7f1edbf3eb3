"""`bridge replay dead-letters`: what was set aside goes down the street once more, each letter once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from bridge.adapters import dead_letters, topics
from bridge.adapters.dead_letters import Letter
from bridge.adapters.reader import Undecodable
from bridge.adapters.replaying import Republisher, committed_spans, journal, make_journal, republishing
from bridge.app import new_pipeline, value_prefixes
from bridge.commands._progress import Pace, Progress
from bridge.commands._replay_range import RATE_PER_S, Moment, moment, new_replay_id, replay_id_of
from bridge.commands._shared import fitting_table, output_option, printable, run
from bridge.errors import Unreadable
from bridge.pipeline import RECORD_TOO_LARGE, UNPROCESSABLE, Pipeline
from bridge.settings import KafkaSettings

_REASONS = (
    *(error.reason for error in Unreadable.__subclasses__()),
    *(RECORD_TOO_LARGE, UNPROCESSABLE),
    Undecodable.reason,
)
"""All that the street sets aside for (docs/errors.md), and that of a letter which cannot be decoded itself."""

_FAILURES_SHOWN_MAX = 20
"""Lines for people: a screen; --output json has all that are kept."""

_FAILURES_KEPT_MAX = 1000
"""Beyond that they are only counted: whoever has so many looks at the first."""


@dataclass(slots=True)
class _Outcome:
    """What became of the letters, by the reason that they were set aside for.

    Attributes:
        letters, put_back_before, put_back, events, failed: counts; without --execute, what would be put back.
        failures: place, reason and detail of the letters that fail again.
    """

    letters: Counter[str] = field(default_factory=Counter)
    put_back_before: Counter[str] = field(default_factory=Counter)
    put_back: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def count(self, letter: Letter) -> None:
        """Take a letter into account."""
        self.letters[letter.reason] += 1
        if letter.put_back:
            self.put_back_before[letter.reason] += 1
        elif letter.failure is None:
            self.put_back[letter.reason] += 1
            self.events[letter.reason] += len(letter.records)
        else:
            self.failed[letter.reason] += 1
            if len(self.failures) < _FAILURES_KEPT_MAX:
                (partition, offset), (reason, detail) = letter.place, letter.failure
                self.failures.append({"partition": partition, "offset": offset, "reason": reason, "detail": detail})


@dataclass(frozen=True, slots=True)
class _Chosen:
    reasons: Sequence[str]
    since: Moment | None
    until: Moment | None

    def holds(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.since is None or letter.received_at >= self.since.at_ms)
            and (self.until is None or letter.received_at < self.until.at_ms)
        )


@click.command("dead-letters")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    type=click.Choice(_REASONS),
    help="Only those set aside for this reason. [default: all]",
)
@click.option("--since", callback=moment, help="Received at this time (RFC 3339) or that long ago (2h, 7d) or later.")
@click.option("--until", callback=moment, help="Received before this time.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=RATE_PER_S, show_default=True, help="Events a second."
)
@click.option("--id", "replay_id", callback=replay_id_of, help="What ig_replay_id is to say. [default: the time]")
@click.option("--execute", is_flag=True, help="Do it; without this nothing is published.")
@output_option
@click.pass_obj
def command(
    env_file: Path | None,
    *,
    reasons: tuple[str, ...],
    since: Moment | None,
    until: Moment | None,
    rate: float,
    replay_id: str | None,
    execute: bool,
    output: str,
) -> None:
    """Read dead letters again with this version and these settings, and publish the events that they hold.

    To be run when what made them dead letters is mended. Each is put back once, however often this runs: what is published is
    remembered in the same transaction. Those that fail again are told of and stay. Events keep received_at, delivery id and
    event_id, and have ig_replay_id in their headers.

    Example: bridge replay dead-letters --reason record_too_large --execute
    """
    outcome, replay_id = _Outcome(), replay_id or new_replay_id()
    chosen = _Chosen(reasons, since, until)

    async def work(settings: KafkaSettings) -> None:
        topics.refuse_problems(settings, await topics.read(settings))
        pipeline = new_pipeline(settings, await value_prefixes(settings), settings.record_bytes_max)
        if not execute:
            await _walk(settings, pipeline, chosen, outcome)
            return
        await make_journal(settings, dead_letters.topic(settings))
        async with republishing(settings, "dead-letters") as republisher:
            await _walk(settings, pipeline, chosen, outcome, (republisher, replay_id, Pace(rate)))

    try:
        run(env_file, work)
    except KeyboardInterrupt:
        done = f"{outcome.put_back.total()} letters were put back" if execute else "nothing was published"
        click.echo(f"not finished; {done}; the same command goes on", err=True)
        raise
    _show(outcome, replay_id, execute=execute, output=output)


async def _walk(
    settings: KafkaSettings,
    pipeline: Pipeline,
    chosen: _Chosen,
    outcome: _Outcome,
    publishing: tuple[Republisher, str, Pace] | None = None,
) -> None:
    known = await journal(settings)
    spans = await committed_spans(settings, dead_letters.topic(settings), chosen.since and chosen.since.at_ms)
    what, total = "putting back" if publishing else "reading", sum(map(len, spans.values()))
    with Progress(what, total) as progress:
        async with aclosing(dead_letters.read(settings, pipeline, known, spans)) as read:
            async for some in read:
                letters = [letter for letter in some.letters if chosen.holds(letter)]
                if publishing:
                    await _publish(letters, *publishing)
                for letter in letters:
                    outcome.count(letter)
                done = sum(some.read_to[place] - span.start for place, span in spans.items())
                progress.at(done, f"{outcome.put_back.total()} letters")


async def _publish(letters: Sequence[Letter], republisher: Republisher, replay_id: str, pace: Pace) -> None:
    async with aclosing(dead_letters.put_back(letters, replay_id, republisher)) as transactions:
        async for events in transactions:
            await pace.after(events)


def _show(outcome: _Outcome, replay_id: str, *, execute: bool, output: str) -> None:
    counts = ("letters", "put_back_before", "put_back", "events", "failed")
    by_reason = [
        {"reason": reason, **{name: getattr(outcome, name)[reason] for name in counts}}
        for reason in sorted(outcome.letters)
    ]
    if output == "json":
        told = {"execute": execute, "replay_id": replay_id if execute else None, "reasons": by_reason}
        click.echo(json.dumps(told | {"failures": outcome.failures}))
        return
    if not by_reason:
        click.echo("there is no such dead letter")
        return
    total = ["total", *(getattr(outcome, name).total() for name in counts)]
    head = [
        "reason",
        "letters",
        "put back before",
        "put back" if execute else "can be put back",
        "events",
        "fail again",
    ]
    click.echo(fitting_table([head, *(list(row.values()) for row in by_reason), total]))
    for failure in outcome.failures[:_FAILURES_SHOWN_MAX]:
        place = f"partition {failure['partition']}, offset {failure['offset']}"
        click.echo(printable(f"fails again: {place}: {failure['reason']} ({failure['detail']})"))
    if (more := outcome.failed.total() - _FAILURES_SHOWN_MAX) > 0:
        click.echo(f"and {more} more")
    if execute:
        click.echo(f"put back with ig_replay_id {replay_id}" if outcome.put_back else "there was nothing to put back")
    else:
        click.echo(
            "nothing was published; add --execute to put them back" if outcome.put_back else "nothing to put back"
        )
