"""`bridge replay range`: part of a topic once more, into a topic or into files."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
from aiokafka import TopicPartition

from bridge.adapters import files
from bridge.adapters.ranges import Copying, Range, copy, find, stored
from bridge.adapters.reader import partitions_of
from bridge.adapters.replaying import JOURNAL, committed_spans, journal, make_journal, republishing
from bridge.commands._progress import Pace, Progress
from bridge.commands._shared import completing, fitting_table, moment_ms, output_option, run
from bridge.errors import BridgeError, Misconfigured
from bridge.routing import AUTO_REPLIES, DEAD_LETTER, MANAGED_FIELDS, TOPIC_FIELDS, topic_name
from bridge.settings import KafkaSettings

RATE_PER_S = 1000.0
"""Unless another rate is given: an hour for 3.6 million, and a load that consumers of live events hardly notice."""


class Moment(NamedTuple):
    """A time as it was typed, and what that is in milliseconds since the Unix epoch."""

    text: str
    at_ms: int


def moment(_: click.Context, __: click.Parameter, text: str | None) -> Moment | None:
    """A time option's callback."""
    return None if text is None else Moment(text, moment_ms(text))


def new_replay_id() -> str:
    """A name for a replay that nobody named: its time, and four digits against another of the same second."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"


def replay_id_of(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """The callback of --id."""
    if text is not None and not (text.isascii() and text.replace("-", "").isalnum() and len(text) <= 64):  # noqa: PLR2004 - said in the message
        raise click.BadParameter("a replay's id is 1 to 64 letters, digits and hyphens")
    return text


@dataclass(frozen=True, slots=True)
class _Request:
    """The options, as click has read them."""

    source: str
    to_topic: str | None
    to_file: Path | None
    since: Moment | None
    until: Moment | None
    account: str | None
    customer: str | None
    webhook_field: str | None
    rate: float
    replay_id: str | None
    execute: bool
    output: str

    def check(self) -> None:
        """Whether they go together."""
        if (self.to_topic is None) == (self.to_file is None):
            raise click.UsageError("give one of --to-topic and --to-file")
        if self.since and self.until and self.since.at_ms >= self.until.at_ms:
            raise click.UsageError("--since must be before --until")
        if self.to_file and self.replay_id:
            raise click.UsageError("--id is for --to-topic: a file that was not completed is begun anew")

    def what(self, topic: str) -> Range:
        """The range that they mean now."""
        since_ms, until_ms = (moment and moment.at_ms for moment in (self.since, self.until))
        return Range(topic, since_ms, until_ms, self.account, self.customer, self.webhook_field)

    @property
    def asked(self) -> dict[str, str | None]:
        """What tells whether a later run means the same replay: times as they were typed."""
        since, until = (moment and moment.text for moment in (self.since, self.until))
        ids = {"account": self.account, "customer": self.customer, "webhook_field": self.webhook_field}
        return {"since": since, "until": until, **ids}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a run found or did.

    Attributes:
        matching: records in the range; of a replay that was interrupted, of what is left. None where it was not counted.
        copied: records that were written, in all runs of the replay.
    """

    execute: bool
    replay_id: str | None
    topic: str
    target: str
    spans: Mapping[TopicPartition, range]
    matching: int | None = None
    copied: int | None = None
    undecodable: int = 0


@click.command("range")
@click.argument("source", metavar="TOPIC", shell_complete=completing(MANAGED_FIELDS))
@click.option(
    "--to-topic",
    metavar="TOPIC",
    shell_complete=completing(MANAGED_FIELDS),
    help="Publish the records there; it may be the same topic.",
)
@click.option(
    "--to-file", type=click.Path(path_type=Path, dir_okay=False), help="Write them to FILE.avro, .jsonl or .parquet."
)
@click.option("--since", callback=moment, help="Received at this time (RFC 3339) or that long ago (2h, 7d) or later.")
@click.option("--until", callback=moment, help="Received before this time.")
@click.option("--account", help="Only events of this account id.")
@click.option("--customer", help="Only events with this customer id.")
@click.option("--webhook-field", help="Only events of this field; of `other`, what a change named.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=RATE_PER_S, show_default=True, help="Records a second."
)
@click.option(
    "--id", "replay_id", callback=replay_id_of, help="The replay's name; with one that was interrupted it goes on."
)
@click.option("--execute", is_flag=True, help="Do it; without this the records are counted.")
@output_option
@click.pass_obj
def command(env_file: Path | None, /, **options: Any) -> None:  # noqa: ANN401 - they are _Request's
    """Publish part of a TOPIC again, or write it to a file.

    TOPIC is a webhook field (messages) or a topic's whole name. A copy keeps key, value and headers, is stamped now, and has
    ig_replay_id and ig_replayed_from in its headers; what is itself a copy within the topic is passed over. Copies are
    committed together with how far the replay is: after Ctrl-C, the same command with --id goes on, and copies nothing twice.

    \b
    bridge replay range messages --since 2026-11-17T00:00:00Z --until 2026-11-18T00:00:00Z --to-file tuesday.avro --execute
    bridge replay range other --webhook-field message_echoes --to-topic echoes --id echoes-1 --execute
    """  # noqa: D301 - click's mark for lines that stay as they are
    request = _Request(**options)
    request.check()
    begun: list[str] = []
    try:
        outcome = run(env_file, lambda settings: _replay(settings, request, begun))
    except (KeyboardInterrupt, BridgeError, OSError):
        for replay_id in begun:
            click.echo(f"not finished; the same command with --id {replay_id} goes on where it stopped", err=True)
        raise
    _show_end(outcome, request.output)


async def _replay(settings: KafkaSettings, request: _Request, begun: list[str]) -> _Outcome:
    """Count, write or copy; the id of a replay that writes to a topic is told in ``begun``."""
    topic = whole_name(settings, request.source)
    what = request.what(topic)
    if request.to_file:
        return await _to_file(settings, what, request.to_file, request)
    target = whole_name(settings, request.to_topic or "")
    await _check_topics(settings, topic, target)
    copying = stored(await journal(settings), request.replay_id) if request.replay_id else None
    if copying is None:
        spans = await committed_spans(settings, topic, what.since_ms)
        copying = Copying(request.asked, what, target, {place.partition: span for place, span in spans.items()})
    elif (copying.asked, copying.what.topic, copying.target) != (request.asked, topic, target):
        raise Misconfigured(
            f"replay {request.replay_id} was begun with other options: repeat those, or give another --id"
        )
    if not request.execute:
        return await _count(settings, copying, request.replay_id)
    begun.append(request.replay_id or new_replay_id())
    return await _copy(settings, copying, begun[0], request)


def whole_name(settings: KafkaSettings, name: str) -> str:
    """A topic's name as Kafka has it; ``messages`` is short for the bridge's own topic of that webhook field."""
    return topic_name(settings.topic_prefix, name) if name in MANAGED_FIELDS else name


async def _check_topics(settings: KafkaSettings, topic: str, target: str) -> None:
    """Both topics exist, and the readers of the second expect such records.

    Raises:
        Misconfigured: one does not exist, or they do not go together.
    """
    await partitions_of(settings, [topic])  # first: what is said below makes no sense of a name that was mistyped
    if target == topic_name(settings.topic_prefix, DEAD_LETTER):
        raise Misconfigured("dead letters are put back by `bridge replay dead-letters`, and nothing else belongs there")
    if target in (topic_name(settings.topic_prefix, name) for name in (AUTO_REPLIES, JOURNAL)):
        raise Misconfigured(f"{target} is somebody's memory: a copy in it would be taken for what happened")
    ours = {topic_name(settings.topic_prefix, topic_field) for topic_field in TOPIC_FIELDS}
    if target in ours and target != topic:
        raise Misconfigured(f"{target} holds events of another field than {topic}: name that topic, or one of your own")
    await partitions_of(settings, [target])


async def _count(settings: KafkaSettings, copying: Copying, replay_id: str | None) -> _Outcome:
    matching, undecodable = 0, 0
    with Progress("reading", sum(map(len, copying.spans.values()))) as progress:
        async with aclosing(find(settings, copying.what, copying.spans)) as some:
            async for found in some:
                matching += len(found.records)
                undecodable += found.undecodable
                progress.at(_read(copying.spans, found.read_to), f"{matching} found")
    topic, target, copied = copying.what.topic, copying.target, copying.copied or None
    return _Outcome(False, replay_id, topic, target, copying.spans, matching, copied, undecodable)  # noqa: FBT003 - a row


async def _copy(settings: KafkaSettings, copying: Copying, replay_id: str, request: _Request) -> _Outcome:
    await make_journal(settings, copying.what.topic)
    async with republishing(settings, f"range.{replay_id}") as republisher:
        copying = stored(await journal(settings), replay_id) or copying  # another run may have gone on until just now
        spans, undecodable = copying.spans, 0
        if request.output == "text":
            click.echo(_plan(spans, None))
            click.echo(
                f"replay {replay_id}: {copying.what.topic} to {copying.target}, {request.rate:g} records/s at most"
            )
        pace = Pace(request.rate)
        with Progress("copying", sum(map(len, spans.values()))) as progress:
            async with aclosing(copy(settings, replay_id, copying, republisher)) as steps:
                async for so_far, unread in steps:
                    undecodable = unread
                    read_to = {place: span.start for place, span in so_far.spans.items()}
                    progress.at(_read(spans, read_to), f"{so_far.copied} copied")
                    await pace.after(so_far.copied - copying.copied)
                    copying = so_far
    topic = copying.what.topic
    return _Outcome(True, replay_id, topic, copying.target, spans, None, copying.copied, undecodable)  # noqa: FBT003 - a row


async def _to_file(settings: KafkaSettings, what: Range, path: Path, request: _Request) -> _Outcome:
    files.check(path)
    spans = await committed_spans(settings, what.topic, what.since_ms)
    copying = Copying({}, what, str(path), {place.partition: span for place, span in spans.items()})
    if not request.execute:
        return await _count(settings, copying, None)
    if request.output == "text":
        click.echo(_plan(spans, None))
    written, undecodable = 0, 0
    with Progress("writing", sum(map(len, spans.values()))) as progress, files.writing(path) as to:
        async with aclosing(find(settings, what, spans)) as some:
            async for found in some:
                for _, schema, value in found.records:
                    to.write(schema, value)
                written += len(found.records)
                undecodable += found.undecodable
                progress.at(_read(spans, found.read_to), f"{written} written")
    target = ", ".join(map(str, to.paths)) or "no file"
    return _Outcome(True, None, what.topic, target, spans, None, written, undecodable)  # noqa: FBT003 - a row


def _read(spans: Mapping[TopicPartition, range], read_to: Mapping[TopicPartition, int]) -> int:
    return sum(read_to[place] - span.start for place, span in spans.items())


def _plan(spans: Mapping[TopicPartition, range], matching: int | None) -> str:
    rows: list[list[Any]] = [["partition", "from", "to", "offsets"]]
    rows += [[place.partition, span.start, span.stop, len(span)] for place, span in sorted(spans.items())]
    rows.append(["total", "", "", sum(map(len, spans.values()))])
    found = "" if matching is None else f"\n{matching} records are in the range"
    return fitting_table(rows) + found


def _show_end(outcome: _Outcome, output: str) -> None:
    if output == "json":
        partitions = [
            {"partition": place.partition, "from": span.start, "to": span.stop}
            for place, span in sorted(outcome.spans.items())
        ]
        told = {name: getattr(outcome, name) for name in ("execute", "replay_id", "topic", "target")}
        told |= {"partitions": partitions} | {
            name: getattr(outcome, name) for name in ("matching", "copied", "undecodable")
        }
        click.echo(json.dumps(told))
    elif outcome.execute:
        click.echo(f"{outcome.copied} records of {outcome.topic} were written to {outcome.target}")
    else:
        click.echo(_plan(outcome.spans, outcome.matching))
        if outcome.copied:
            click.echo(f"{outcome.copied} more were copied before")
        click.echo(f"nothing was written; add --execute to write them to {outcome.target}")
    if outcome.undecodable:
        click.echo(
            f"{outcome.undecodable} records cannot be decoded and were left out: `bridge tail` says why", err=True
        )
