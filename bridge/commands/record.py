"""`bridge record`: real deliveries as samples without their people, one body a file, ready for `bridge send`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO, NamedTuple

import click

from bridge.adapters import past
from bridge.commands._output import writing
from bridge.commands._progress import Progress
from bridge.commands._shared import output_option, run
from bridge.commands.drift import SINCE, since
from bridge.errors import Misconfigured, Unreadable
from bridge.event import WEBHOOK_FIELDS
from bridge.reassembly import body_of
from bridge.redaction import Redactor
from bridge.routing import DEAD_LETTER, TOPIC_FIELDS, topic_name
from bridge.settings import KafkaSettings

COUNT, COUNT_MAX = 100, 100_000
"""Enough to see most shapes; and what still fits into memory and a folder."""

_KEY_BYTES = 32


class Sample(NamedTuple):
    """A body, and what its file is called after.

    Attributes:
        name: the webhook field, or the file that it was read from.
    """

    name: str
    body: bytes


@click.command("record")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.File("rb"))
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new or an empty folder."
)
@click.option(
    "--field", "fields", multiple=True, type=click.Choice(TOPIC_FIELDS), help="Of these alone. [default: all events]"
)
@click.option("--since", "since_ms", default=SINCE, show_default=True, callback=since, help="As of `bridge drift`.")
@click.option("--account", help="Only events of this account id.")
@click.option(
    "--count", type=click.IntRange(1, COUNT_MAX), default=COUNT, show_default=True, help="Most samples of each field."
)
@click.option(
    "--keep-names", is_flag=True, help="Leave keys and types that no schema knows: needed to show what is new."
)
@output_option
@click.pass_obj
def command(
    env_file: Path | None,
    *,
    files: Sequence[IO[bytes]],
    folder: Path,
    fields: tuple[str, ...],
    since_ms: int,
    account: str | None,
    count: int,
    keep_names: bool,
    output: str,
) -> None:
    """Keep deliveries as redacted samples: events of the topics, each as a body of its own, or the bodies in FILE... (- is stdin).

    Ids are replaced, the same one everywhere by the same; texts and URLs too, character by character. Meta's own words, times, short
    numbers, lengths, punctuation and escapes stay. The key of a recording is thrown away: no two can be joined.

    Example: bridge record --field messages --since 2h --to samples && bridge send samples/*
    """
    with writing(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise Misconfigured(f"{folder} is not empty: name another folder")

    async def work(settings: KafkaSettings) -> list[Sample]:
        return await _events(settings, fields or WEBHOOK_FIELDS, since_ms, account=account, count=count)

    samples = [Sample(Path(file.name).stem, file.read()) for file in files] if files else run(env_file, work)
    redactor = Redactor(secrets.token_bytes(_KEY_BYTES), keep_names=keep_names)
    written = unreadable = 0
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for sample in samples:
            try:
                body = redactor.redact(sample.body)
            except Unreadable:
                unreadable += 1
                continue
            written += 1
            (folder / f"{written:06d}-{sample.name}.json").write_bytes(body)
    if output == "json":
        click.echo(json.dumps({"folder": str(folder), "written": written, "unreadable": unreadable}))
        return
    told = f", {unreadable} left out: what is no JSON cannot be redacted" if unreadable else ""
    click.echo(f"{written} samples in {folder}{told}")


async def _events(
    settings: KafkaSettings, fields: Sequence[str], since_ms: int, *, account: str | None, count: int
) -> list[Sample]:
    """Bodies of events, and of dead letters that hold a delivery, in the order in which they were received."""
    topics = {topic_name(settings.topic_prefix, field): field for field in fields}
    spans = await past.spans_since(settings, list(topics), since_ms)
    found: dict[str, list[tuple[int, bytes]]] = {field: [] for field in fields}
    with Progress("record", sum(map(len, spans.values()))) as progress:
        async with aclosing(past.read(settings, spans)) as read:
            async for some in read:
                for record, value in some.records:
                    field = topics[record.topic]
                    if value is None or len(found[field]) >= count or account not in (None, value.get("account_id")):
                        continue
                    body = value["body"] if field == DEAD_LETTER else body_of(value)
                    found[field].append((value["received_at"], body))
                progress.at(some.done)
                if all(len(bodies) >= count for bodies in found.values()):
                    break
    return [Sample(field, body) for field, _, body in sorted(_flat(found), key=lambda each: each[1])]


def _flat(found: dict[str, list[tuple[int, bytes]]]) -> Iterator[tuple[str, int, bytes]]:
    for field, bodies in found.items():
        for received_at, body in bodies:
            yield field, received_at, body
