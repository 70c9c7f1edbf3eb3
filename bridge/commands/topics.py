"""`bridge topics`: creates and updates the bridge's topics, showing the difference first; lists them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from bridge.adapters import topics
from bridge.adapters.reader import held
from bridge.adapters.topics import PARTITIONS, REPLICAS, Change, Topic
from bridge.commands._shared import output_option, run, table
from bridge.errors import Misconfigured
from bridge.routing import MANAGED_FIELDS, topic_name
from bridge.settings import KafkaSettings

_NOTHING = "nothing to change"
_LISTED = (
    ("retention_ms", "retention.ms"),
    ("max_message_bytes", "max.message.bytes"),
    ("min_insync_replicas", "min.insync.replicas"),
    ("cleanup_policy", "cleanup.policy"),
)


@click.group("topics")
def command() -> None:
    """Create, update and list the bridge's topics."""


@command.command("apply")
@click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")
@click.option(
    "--break-order",
    is_flag=True,
    help="Grow partitions too. Conversations then move to other partitions: what is already there and what comes is no "
    "longer in order for a consumer.",
)
@output_option
@click.pass_obj
def apply(env_file: Path | None, *, dry_run: bool, break_order: bool, output: str) -> None:
    """Make the topics what the settings say, after showing the difference.

    Retention, sizes and safety are set; BRIDGE_TOPIC_REPLICATION_FACTOR counts where a topic is created. One of
    max.message.bytes or min.insync.replicas that is higher than needed stays. A second run changes nothing.

    Example: bridge topics apply --dry-run
    """

    async def work(settings: KafkaSettings) -> None:
        found = await topics.read(settings)
        changes = topics.plan(settings, found)
        left = [change for change in changes if change.current is not None and change.setting == REPLICAS]
        changes = [change for change in changes if change not in left]
        if output == "text":
            click.echo("\n".join(_difference(changes)) or _NOTHING)
        for line in _replica_notes(left):
            click.echo(line, err=True)
        if not dry_run:
            _refuse_moving_keys(changes, break_order=break_order)
            if changes:
                await topics.apply(settings, found, changes)
        applied = bool(changes) and not dry_run
        if output == "json":
            shown = {"applied": applied, "changes": [asdict(change) for change in changes]}
            click.echo(json.dumps(shown | {"left": [asdict(change) for change in left]}))
        elif applied:
            click.echo("applied")

    run(env_file, work)


@command.command("list")
@output_option
@click.pass_obj
def show(env_file: Path | None, *, output: str) -> None:
    """Show the topics: partitions, replicas, retention, sizes, and how many records they hold.

    Records are counted by offsets, from the earliest to the latest that Kafka keeps.

    Example: bridge topics list --output json
    """

    async def work(settings: KafkaSettings) -> tuple[dict[str, Topic], dict[str, int], list[str]]:
        found = await topics.read(settings)
        names = [topic_name(settings.topic_prefix, topic_field) for topic_field in MANAGED_FIELDS]
        return found, await held(settings, list(found)), names

    found, records, names = run(env_file, work)
    rows = [
        {
            "topic": name,
            PARTITIONS: found[name].partitions,
            REPLICAS: found[name].replicas,
            **{column: found[name].config[config] for column, config in _LISTED},
            "records": records[name],
        }
        for name in names
        if name in found
    ]
    missing = [name for name in names if name not in found]
    if output == "json":
        typed = [{key: _number(value) for key, value in row.items()} for row in rows]
        click.echo(json.dumps({"topics": typed, "missing": missing}))
        return
    if rows:
        click.echo(table([list(rows[0]), *(list(row.values()) for row in rows)]))
    if missing:
        click.echo(f"missing: {', '.join(missing)}: run `bridge topics apply`", err=True)


def _difference(changes: Sequence[Change]) -> list[str]:
    """One line a topic."""
    by_topic: dict[str, list[Change]] = {}
    for change in changes:
        by_topic.setdefault(change.topic, []).append(change)
    return [
        f"{topic}: create, {', '.join(f'{change.setting}={change.wanted}' for change in differing)}"
        if differing[0].current is None
        else f"{topic}: {', '.join(f'{change.setting} {change.current} → {change.wanted}' for change in differing)}"
        for topic, differing in by_topic.items()
    ]


def _replica_notes(left: Sequence[Change]) -> list[str]:
    by_count: dict[tuple[str | None, str], list[str]] = {}
    for change in left:
        by_count.setdefault((change.current, change.wanted), []).append(change.topic)
    return [
        f"left as they are, with replicas {current} and not {wanted}: {', '.join(names)}; Kafka's "
        "kafka-reassign-partitions changes that"
        for (current, wanted), names in by_count.items()
    ]


def _refuse_moving_keys(changes: Sequence[Change], *, break_order: bool) -> None:
    """Growing moves keys, shrinking is not to be had; before anything is done, so that all topics stay alike."""
    resized = [change for change in changes if change.setting == PARTITIONS and change.current is not None]
    fewer = [change for change in resized if int(change.wanted) < int(change.current or 0)]
    for change in fewer or resized:
        keep = f"set BRIDGE_TOPIC_PARTITIONS={change.current}"
        if fewer:
            raise Misconfigured(f"nothing changed: Kafka takes no partitions away from {change.topic}: {keep}")
        if not break_order:
            raise Misconfigured(
                f"nothing changed: with {change.wanted} partitions instead of {change.current} in {change.topic}, keys move "
                "to other partitions and conversations lose their order across the change: "
                f"{keep}, or let consumers read all there is and then give --break-order"
            )


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.lstrip("-").isdigit() else value
