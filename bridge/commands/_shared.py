"""What the operators' commands share: settings, one run against Kafka, times, and text that is safe on a terminal."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from aiokafka.errors import KafkaError

from bridge.commands._output import of_the_output
from bridge.errors import Misconfigured
from bridge.settings import KafkaSettings, load

T = TypeVar("T")

_DURATION = re.compile(r"(\d{1,9})(s|m|h|d)", re.ASCII)
_JOINER = "\N{ZERO WIDTH JOINER}"
"""Makes one emoji of several, and nothing else to a terminal."""

_NOTHING_IN_A_CELL = ("", "-")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people or for programs.",
)


def completing(names: Iterable[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What a shell offers for a value that may be one of these names, and may be another: click's ``shell_complete``."""
    known = list(names)
    return lambda _, __, begun: [name for name in known if name.startswith(begun)]


def run(env_file: Path | None, work: Callable[[KafkaSettings], Coroutine[Any, Any, T]]) -> T:
    """Run a command's work with the settings that reach Kafka; no app secret is needed.

    Raises:
        Misconfigured: a setting is wrong, or Kafka cannot be reached or refuses; one line says which.
        OSError: the output, or a file, cannot be written.
    """
    settings, _ = load(KafkaSettings, env_file)
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # its words would stand beside our one line
    try:
        return asyncio.run(work(settings))
    except BrokenPipeError:
        raise  # whoever read our output has gone; click ends quietly
    except (KafkaError, OSError) as error:
        if isinstance(error, OSError) and (error.filename is not None or of_the_output(error)):
            raise  # Kafka has no part in it
        servers, kind = settings.kafka_bootstrap_servers, type(error).__name__
        if isinstance(error, KafkaError) and not error.retriable:
            raise Misconfigured(f"Kafka at {servers} refuses ({kind}): see what its user may do") from None
        raise Misconfigured(
            f"no Kafka answers at {servers} ({kind}): start it, or correct BRIDGE_KAFKA_BOOTSTRAP_SERVERS and what secures it"
        ) from None


def moment_ms(text: str) -> int:
    """A time (RFC 3339, with its zone) or how long ago (90s, 15m, 2h, 7d) → milliseconds since the Unix epoch.

    Raises:
        click.BadParameter: it is neither.
    """
    if match := _DURATION.fullmatch(text):
        return max(0, time.time_ns() // 1_000_000 - int(match[1]) * _SECONDS[match[2]] * 1000)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or when.timestamp() < 0:
        raise click.BadParameter(f"{text!r} is no time like 2026-11-22T09:00:00Z and no duration like 15m")
    return int(when.timestamp() * 1000)


def utc(milliseconds: int) -> str:
    """RFC 3339 with milliseconds, or the number where no such year is."""
    try:
        return (
            datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def printable(text: str) -> str:
    """Text whose control, format and other unseen characters are escaped: none of it is obeyed by a terminal."""
    return "".join(
        character if character.isprintable() or character == _JOINER else character.encode("unicode_escape").decode()
        for character in text
    )


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows as columns as wide as they need to be; a column of numbers, below its head, stands to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    columns = []
    for column in zip(*texts, strict=True):
        width = max(map(len, column))
        filled = [cell for cell in column[1:] if cell not in _NOTHING_IN_A_CELL]
        to_the_right = bool(filled) and all(map(str.isdigit, filled))
        columns.append([cell.rjust(width) if to_the_right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def fitting_table(rows: Sequence[Sequence[object]]) -> str:
    """A table with a head; on a terminal that is too narrow for it, each row as lines of its own."""
    wide = table(rows)
    if not sys.stdout.isatty() or max(map(len, wide.splitlines())) <= shutil.get_terminal_size().columns:
        return wide
    head, *rest = rows
    width = max(len(str(name)) for name in head)
    return "\n\n".join(
        "\n".join(f"{str(name).ljust(width)}  {cell}" for name, cell in zip(head, row, strict=True) if cell != "")
        for row in rest
    )
