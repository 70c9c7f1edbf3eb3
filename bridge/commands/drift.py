"""`bridge drift`: what Meta sends that the schemas do not know yet, since when, and where an example lies."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click
from aiokafka import ConsumerRecord

from bridge.adapters import past
from bridge.commands._progress import Progress
from bridge.commands._shared import fitting_table, moment_ms, output_option, printable, run, utc
from bridge.drift import Drift, Finding
from bridge.errors import Unreadable
from bridge.event import WEBHOOK_FIELDS
from bridge.routing import topic_name
from bridge.settings import KafkaSettings

SINCE = "1d"
"""A day: what came with a release of Meta's shows, and a busy bridge's day is read in minutes."""


def since(_: click.Context, __: click.Parameter, text: str) -> int:
    """The value of an option --since, in milliseconds since the Unix epoch."""
    return moment_ms(text)


class Looked(NamedTuple):
    """What was found in a range of topics.

    Attributes:
        records: how many were read.
        undecodable: of them those that could not be read.
    """

    findings: list[Finding]
    records: int
    undecodable: int


@click.command("drift")
@click.argument("webhook_fields", metavar="[FIELD]...", nargs=-1, type=click.Choice(WEBHOOK_FIELDS))
@click.option(
    "--since",
    "since_ms",
    default=SINCE,
    show_default=True,
    callback=since,
    help="Look at what was received since this time (RFC 3339) or in the last 15m, 2h, 7d.",
)
@output_option
@click.pass_obj
def command(env_file: Path | None, *, webhook_fields: tuple[str, ...], since_ms: int, output: str) -> None:
    """Show what the schemas do not know, of some webhook fields or of all: new keys, types, attachments and webhook fields.

    Each line has since when it is seen in the range, how often, and the first record that has it. All of it was published, in raw.
    `bridge schemas propose` makes fields of new keys.

    Example: bridge drift messages --since 7d
    """

    async def work(settings: KafkaSettings) -> Looked:
        return await look(settings, webhook_fields or WEBHOOK_FIELDS, since_ms)

    looked = run(env_file, work)
    if output == "json":
        click.echo(
            json.dumps({"since": since_ms, **looked._asdict(), "findings": [_row(each) for each in looked.findings]})
        )
        return
    records = "1 record" if looked.records == 1 else f"{looked.records} records"
    click.echo(f"{records} since {utc(since_ms)}, {looked.undecodable} cannot be decoded", err=True)
    if looked.findings:
        head = ["webhook field", "kind", "path", "types", "since", "example", "count"]
        click.echo(fitting_table([head, *map(_cells, looked.findings)]))


async def look(settings: KafkaSettings, webhook_fields: Collection[str], since_ms: int) -> Looked:
    """Walk the records of webhook fields that were received since a time (milliseconds since the Unix epoch)."""
    drift = Drift()
    records = undecodable = 0
    topics = [topic_name(settings.topic_prefix, webhook_field) for webhook_field in webhook_fields]
    spans = await past.spans_since(settings, topics, since_ms)
    progress = Progress("drift", sum(map(len, spans.values())))
    async for some in past.read(settings, spans):
        for record, value in some.records:
            records += 1
            try:
                if value is None:
                    undecodable += 1
                else:
                    drift.look(value, _place(record))
            except Unreadable:
                undecodable += 1
        progress.at(some.done)
    progress.end()
    return Looked(drift.findings, records, undecodable)


def _place(record: ConsumerRecord) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _row(finding: Finding) -> dict[str, Any]:
    topic, partition, offset = finding.place
    row = asdict(finding) | {"types": sorted(finding.types), "topic": topic, "partition": partition, "offset": offset}
    del row["place"]
    return row


def _cells(finding: Finding) -> list[object]:
    topic, partition, offset = finding.place
    types = " ".join(sorted(finding.types)) or "-"
    example = f"{topic}/{partition}/{offset}"
    path = printable(finding.path)
    return [finding.webhook_field, finding.kind, path, types, utc(finding.first_ms), example, finding.count]
