"""`bridge replay`: sets a consumer group elsewhere, so that it reads again or passes over; shows its plan before it acts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from bridge.adapters import groups
from bridge.adapters.groups import Move, Target
from bridge.commands._shared import moment_ms, output_option, run, table
from bridge.errors import Misconfigured
from bridge.settings import KafkaSettings


def _target(_: click.Context, __: click.Parameter, text: str) -> Target:
    if text == "beginning":
        return Target("beginning")
    if text == "end":
        return Target("end")
    if text.isascii() and text.isdigit():
        return Target("offset", int(text))
    return Target("time", moment_ms(text))


@click.command("replay")
@click.option("--group", "group_id", required=True, help="The consumer group.")
@click.option(
    "--to",
    "target",
    required=True,
    callback=_target,
    metavar="beginning|end|TIME|OFFSET",
    help="Where it is to go on: TIME is RFC 3339 or how long ago (15m, 2h, 7d), by when the bridge received an event.",
)
@click.option(
    "--topic", "topics", multiple=True, help="A topic by its whole name. [default: all that the group has read]"
)
@click.option("--execute", is_flag=True, help="Do it; without this the plan is all.")
@output_option
@click.pass_obj
def command(
    env_file: Path | None, *, group_id: str, target: Target, topics: tuple[str, ...], execute: bool, output: str
) -> None:
    """Set a consumer group to another place in its topics; its members must be stopped.

    The plan shows for each partition the offset to go on from now (current) and then (target), how many records will be read
    again or be skipped, and how many there are to read then (lag). A place before the first or after the last record that a
    partition holds becomes the first or the last. Only with --execute is anything changed.

    Example: bridge replay --group crm --to 2h --topic instagram.messages --execute
    """

    async def work(settings: KafkaSettings) -> tuple[list[Move], int]:
        group = await groups.find(settings, group_id)
        if group is None:
            raise Misconfigured(f"Kafka knows no group {group_id}: it has no committed offset and no member")
        if execute and group.members:
            raise groups.active(group_id)
        chosen = topics or {partition.topic for partition in group.committed}
        if not chosen:
            raise Misconfigured(f"group {group_id} has committed no offset yet: name its topics with --topic")
        moves = await groups.plan(settings, group, chosen, target)
        _show(moves, execute=execute, output=output)
        if execute:
            await groups.move(settings, group_id, moves)
        return moves, group.members

    moves, members = run(env_file, work)
    if output == "json":
        return
    if execute:
        click.echo(f"group {group_id} is set in {len(moves)} partitions")
    elif members:
        click.echo(f"nothing was changed; stop the {members} members of group {group_id}, then add --execute")
    else:
        click.echo("nothing was changed; add --execute to do it")


def _show(moves: Sequence[Move], *, execute: bool, output: str) -> None:
    rows = [
        {
            "topic": move.topic,
            "partition": move.partition,
            "current": move.current,
            "target": move.target,
            "read_again": None if move.current is None else max(0, move.current - move.target),
            "skipped": None if move.current is None else max(0, move.target - move.current),
            "lag": move.end - move.target,
        }
        for move in moves
    ]
    if output == "json":
        click.echo(json.dumps({"execute": execute, "partitions": rows}))
        return
    total = [sum(row[name] or 0 for row in rows) for name in ("read_again", "skipped", "lag")]  # type: ignore[misc] # numbers or None
    cells = [["-" if cell is None else cell for cell in row.values()] for row in rows]
    click.echo(table([list(rows[0]), *cells, ["total", "", "", "", *total]]))
