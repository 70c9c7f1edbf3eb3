"""`bridge tail`: what happens, as it happens: the records of the bridge's topics, decoded, one line each."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import click

from bridge.adapters.reader import Decoder, Undecodable, fetch, following
from bridge.commands._shared import moment_ms, output_option, printable, run, utc
from bridge.event import OTHER, WEBHOOK_FIELDS
from bridge.routing import DEAD_LETTER, MANAGED_FIELDS, topic_name
from bridge.schemas import load
from bridge.settings import KafkaSettings

_TEXT_CHARACTERS_MAX = 80
"""Of one value in a line for people; --output json has all of it."""

_SUMMARY_CHARACTERS_MAX = 240
"""Of what a line for people says of the event: three lines of a terminal."""

_COMMON = frozenset(member["name"] for member in load(OTHER)["fields"]) - {"named_field"}
"""What every event has; the rest of a record is what happened."""

_UNTOLD = frozenset({"mid"})
"""Meta's message ids: 150 characters that tell a person nothing."""


class _Record(Protocol):
    """What we read of aiokafka's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@click.command("tail")
@click.argument("topic_fields", metavar="[FIELD]...", nargs=-1, type=click.Choice(MANAGED_FIELDS))
@click.option(
    "--since",
    "since_ms",
    callback=lambda _, __, text: None if text is None else moment_ms(text),
    help="Begin with what was received at this time (RFC 3339) or that long ago (15m, 2h, 7d). [default: now]",
)
@click.option("--account", help="Only events of this account id.")
@click.option("--customer", help="Only events with this customer id.")
@click.option("--count", type=click.IntRange(1), help="End after that many records. [default: endless]")
@output_option
@click.pass_obj
def command(
    env_file: Path | None,
    *,
    topic_fields: tuple[str, ...],
    since_ms: int | None,
    account: str | None,
    customer: str | None,
    count: int | None,
    output: str,
) -> None:
    """Show events as they arrive, of some webhook fields or of all; dead_letter only when it is named.

    A line begins with the time at which the bridge received the event. Joins no consumer group and changes nothing. With
    --output json times are milliseconds since the Unix epoch, and bytes are base64.

    Example: bridge tail messages message_reactions --since 15m
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a terminal without UTF-8 must not end it
    show = _as_json if output == "json" else _as_text

    def wanted(record: Mapping[str, Any]) -> bool:
        return account in (None, record.get("account_id")) and customer in (None, record.get("customer_id"))

    async def work(settings: KafkaSettings) -> None:
        fields = dict.fromkeys(topic_fields or WEBHOOK_FIELDS)
        topics = {topic_name(settings.topic_prefix, topic_field): topic_field for topic_field in fields}
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit, 0)  # asked to end, it has done its work
        await _tail(settings, topics, since_ms=since_ms, wanted=wanted, count=count, show=show)

    run(env_file, work)


async def _tail(
    settings: KafkaSettings,
    topics: Mapping[str, str],
    *,
    since_ms: int | None,
    wanted: Callable[[Mapping[str, Any]], bool],
    count: int | None,
    show: Callable[[str, _Record, Mapping[str, Any] | None, str | None], str],
) -> None:
    decoder = Decoder(settings)
    shown = 0
    async with following(settings, topics, since_ms) as consumer:
        start = "now" if since_ms is None else utc(since_ms)
        click.echo(f"tail: {', '.join(topics)} from {start}; Ctrl-C ends it", err=True)
        while True:
            for record in await fetch(consumer):
                value, problem = None, None
                try:
                    value = await decoder.decode(record.value)
                except Undecodable as error:
                    problem = str(error)
                if value is not None and not wanted(value):
                    continue
                click.echo(show(topics[record.topic], record, value, problem))
                shown += 1
                if shown == count:
                    return


def _as_json(topic_field: str, record: _Record, value: Mapping[str, Any] | None, problem: str | None) -> str:
    del topic_field
    line = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "value": value,
    }
    if problem is not None:
        line["problem"] = problem
    return json.dumps(line, default=lambda content: base64.b64encode(content).decode())


def _as_text(topic_field: str, record: _Record, value: Mapping[str, Any] | None, problem: str | None) -> str:
    """Time, webhook field, account, customer, and what happened; of whatever a customer wrote, only printable characters."""
    cells = [utc(record.timestamp), topic_field]
    if value is None:
        cells.append(f"cannot be decoded, {problem} (partition {record.partition}, offset {record.offset})")
    elif topic_field == DEAD_LETTER:
        cells += [f"{value.get('reason')}", f"{len(value.get('body', b''))} bytes", f"{value.get('detail') or '-'}"]
    else:
        told = " ".join(_told(key, value[key]) for key in value if key not in _COMMON and value[key] is not None)
        cells += [value.get("account_id") or "-", value.get("customer_id") or "-", _cut(told, _SUMMARY_CHARACTERS_MAX)]
    return "  ".join(printable(str(cell)) for cell in cells)


def _told(key: str, value: object) -> str:
    """One key of a record: flags and texts as they are, what holds others in parentheses, missing ones not at all."""
    if isinstance(value, dict):
        inner = (_told(name, value[name]) for name in value if value[name] is not None and name not in _UNTOLD)
        return f"{key}({' '.join(inner)})"
    if isinstance(value, list):
        kinds = (element.get("type") if isinstance(element, dict) else element for element in value)
        return f"{key}[{', '.join(str(kind or '?') for kind in kinds)}]"
    if isinstance(value, str):
        return f"{key}={json.dumps(_cut(value, _TEXT_CHARACTERS_MAX), ensure_ascii=False)}"
    return key if value is True else f"{key}={value}"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
