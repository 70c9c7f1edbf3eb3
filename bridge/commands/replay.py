"""`bridge replay`: a consumer group reads again, a range is published again, dead letters are put back; the plan comes first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from bridge.adapters import groups
from bridge.adapters.groups import Group, Move, Target
from bridge.commands import _replay_dead_letters, _replay_range
from bridge.commands._shared import completing, fitting_table, moment_ms, output_option, printable, run
from bridge.errors import Misconfigured
from bridge.routing import MANAGED_FIELDS
from bridge.settings import KafkaSettings


class _Replay(click.Group):
    """Takes `bridge replay --group G …` for `bridge replay group G …`, as it was called first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the subcommand where only its options are given."""
        if args and args[0].startswith("--") and not args[0].startswith("--help"):
            args = ["group", *args]
        return super().parse_args(ctx, args)


@click.group("replay", cls=_Replay)
def command() -> None:
    """Read again, publish again, put back: shows its plan first, acts only with --execute.

    \b
    bridge replay group crm --to 2h                    what crm would read again
    bridge replay range messages --since 7d --to-file week.parquet --execute
    bridge replay range messages --since 2h --to-topic messages --execute
    bridge replay dead-letters                         which could be put back now
    """  # noqa: D301 - click's mark for lines that stay as they are


command.add_command(_replay_range.command)
command.add_command(_replay_dead_letters.command)


def _target(_: click.Context, __: click.Parameter, text: str) -> Target:
    if text == "beginning":
        return Target("beginning")
    if text == "end":
        return Target("end")
    if text.isascii() and text.isdigit():
        return Target("offset", int(text))
    return Target("time", moment_ms(text))


@command.command("group")
@click.argument("group_id", metavar="GROUP", required=False)
@click.option("--group", "named", hidden=True)
@click.option(
    "--to",
    "target",
    required=True,
    callback=_target,
    metavar="beginning|end|TIME|OFFSET",
    help="Where it is to go on: TIME is RFC 3339 or how long ago (15m, 2h, 7d), by when the bridge received an event.",
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    shell_complete=completing(MANAGED_FIELDS),
    help="A webhook field (messages) or a topic's whole name. [default: all that the group has read]",
)
@click.option("--execute", is_flag=True, help="Do it; without this the plan is all.")
@output_option
@click.pass_obj
def group(
    env_file: Path | None,
    *,
    group_id: str | None,
    named: str | None,
    target: Target,
    topics: tuple[str, ...],
    execute: bool,
    output: str,
) -> None:
    """Set a consumer group to another place in its topics; its members must be stopped.

    The plan shows for each partition the offset to go on from now (current) and then (target), how many records will be read
    again or be skipped, and how many there are to read, before and after (lag). A place before the first or after the last
    record that a partition holds becomes the first or the last. Only with --execute is anything changed.

    Example: bridge replay group crm --to 2h --topic messages --execute
    """
    name = group_id or named
    if not name:
        raise click.UsageError("name the consumer group: bridge replay group GROUP --to …")

    async def work(settings: KafkaSettings) -> tuple[list[Move], Group]:
        found = await groups.find(settings, name)
        if found is None:
            raise Misconfigured(f"Kafka knows no group {name}: it has no committed offset and no member")
        if execute and found.members:
            raise groups.active(name)
        groups.refuse_rebuilders(name, found)
        asked = {_replay_range.whole_name(settings, topic) for topic in topics}
        chosen = asked or {partition.topic for partition in found.committed}
        if not chosen:
            raise Misconfigured(f"group {name} has committed no offset yet: name its topics with --topic")
        moves = await groups.plan(settings, found, chosen, target)
        _show(moves, execute=execute, output=output)
        if execute:
            await groups.move(settings, name, moves)
        return moves, found

    moves, found = run(env_file, work)
    if output == "json":
        return
    if execute:
        click.echo(f"group {printable(name)} is set in {len(moves)} partitions")
    elif found.members:
        members = "1 member" if found.members == 1 else f"{found.members} members"
        click.echo(f"nothing was changed; stop the {members} of group {name}, then add --execute")
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
            "lag_before": None if move.current is None else max(0, move.end - move.current),
            "lag": move.end - move.target,
        }
        for move in moves
    ]
    if output == "json":
        click.echo(json.dumps({"execute": execute, "partitions": rows}))
        return
    total = [sum(row[name] or 0 for row in rows) for name in ("read_again", "skipped", "lag_before", "lag")]  # type: ignore[misc] # numbers or None
    cells = [["-" if cell is None else cell for cell in row.values()] for row in rows]
    click.echo(fitting_table([list(rows[0]), *cells, ["total", "", "", "", *total]]))
