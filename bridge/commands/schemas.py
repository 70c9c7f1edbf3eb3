"""`bridge schemas`: registers the packaged schemas; checks that they go with all that is registered and was released."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import fastavro

from bridge import schemas
from bridge.adapters.registry import Registry, SchemaRefused
from bridge.commands._shared import output_option, run, table
from bridge.encoding import Schema
from bridge.errors import Misconfigured
from bridge.routing import TOPIC_FIELDS, topic_name
from bridge.settings import KafkaSettings


@click.group("schemas")
def command() -> None:
    """Register and check the schemas of the topics' values."""


@command.command("register")
@output_option
@click.pass_obj
def register(env_file: Path | None, *, output: str) -> None:
    """Register every packaged schema under <topic>-value, with compatibility FULL_TRANSITIVE.

    Needs BRIDGE_SCHEMA_REGISTRY_URL. A second run registers nothing.

    Example: bridge schemas register
    """

    async def work(settings: KafkaSettings) -> list[dict[str, object]]:
        rows = []
        async with Registry(settings) as registry:
            for subject, schema in _subjects(settings).items():
                known = await registry.schema_id(subject, schema)
                row: dict[str, object] = {"subject": subject, "outcome": "already there", "id": known}
                try:
                    schema_id = await registry.register(subject, schema)
                except SchemaRefused as refusal:
                    row = {"subject": subject, "outcome": "refused", "id": None, "detail": str(refusal)}
                else:
                    if known is None:
                        row = {"subject": subject, "outcome": "registered", "id": schema_id}
                rows.append(row)
        return rows

    rows = run(env_file, work)
    _show(rows, output)
    if refused := [row for row in rows if row["outcome"] == "refused"]:
        raise Misconfigured(f"{len(refused)} schemas refused: `bridge schemas check` shows what is not compatible")


@command.command("check")
@output_option
@click.pass_obj
def check(env_file: Path | None, *, output: str) -> None:
    """Check every packaged schema against each registered and each released version of it, both ways.

    What counts is Avro's full compatibility, and besides it that no type changes its meaning (logicalType). The registry's own
    setting is not asked, and nothing is registered. Without BRIDGE_SCHEMA_REGISTRY_URL the released versions are all.

    Example: bridge schemas check --output json
    """

    async def work(settings: KafkaSettings) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        if settings.schema_registry_url is None:
            click.echo("BRIDGE_SCHEMA_REGISTRY_URL is not set: checked against the released versions alone", err=True)
        async with contextlib.AsyncExitStack() as stack:
            registry = await stack.enter_async_context(Registry(settings)) if settings.schema_registry_url else None
            for subject, schema in _subjects(settings).items():
                versions = await _earlier(subject, schema, registry)
                found = [f"{name}: {line}" for name, old in versions.items() for line in incompatibilities(old, schema)]
                outcome = "incompatible" if found else "compatible" if versions else "new"
                rows.append({"subject": subject, "outcome": outcome, "versions": len(versions)})
                if found:
                    rows[-1]["detail"] = "; ".join(found)
        return rows

    rows = run(env_file, work)
    _show(rows, output)
    if broken := [row for row in rows if row["outcome"] == "incompatible"]:
        raise Misconfigured(
            f"{len(broken)} schemas are not compatible: a released field stays as it is, and a new one has a default"
        )


def incompatibilities(old: Schema, new: Schema) -> Iterator[str]:
    """Why a reader with one schema would not read, or would misread, what a writer with the other wrote.

    A field that only one side has needs a default there; all else must be the same. That is Avro's full compatibility without
    its leniency: string and bytes do not pass for each other, nor one logicalType for another.
    """
    before, after = dict(_described(old)), dict(_described(new))
    for path in before | after:
        if path in before and path in after:
            if before[path].kind != after[path].kind:
                yield f"{path or 'the record'} was {before[path].kind} and is {after[path].kind}"
            continue
        one, other, side = (before, after, "old") if path in before else (after, before, "new")
        if not one[path].omissible and path.rpartition(".")[0] in other:
            yield f"{path} is only in the {side} one and has no default"


class _Described(NamedTuple):
    kind: str
    omissible: bool
    """Whether a schema that lacks it can still be read."""


def _described(schema: Schema) -> Iterator[tuple[str, _Described]]:
    """Every field of a schema by its path, however deep: ``message.attachments[].type``."""
    named: dict[str, Any] = {}
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)), named_schemas=named)

    def walk(node: Any, path: str, within: tuple[str, ...], *, omissible: bool) -> Iterator[tuple[str, _Described]]:  # noqa: ANN401 - an Avro type: name, object or union
        branches = [named.get(branch, branch) if isinstance(branch, str) else branch for branch in _branches(node)]
        yield path, _Described(" or ".join(sorted(map(_kind, branches))), omissible)
        for branch in branches:
            if not isinstance(branch, dict):
                continue
            for inner in (branch[key] for key in ("items", "values") if key in branch):
                yield from walk(inner, f"{path}[]", within, omissible=True)
            name = branch.get("name", "")
            if branch["type"] == "record" and name not in within:  # a type may hold itself
                for member in branch["fields"]:
                    inside = f"{path}.{member['name']}" if path else member["name"]
                    yield from walk(member["type"], inside, (*within, name), omissible="default" in member)

    yield from walk(parsed, "", (), omissible=False)


def _branches(node: Any) -> list[Any]:  # noqa: ANN401 - an Avro type: name, object or union
    return node if isinstance(node, list) else [node]


def _kind(node: Any) -> str:  # noqa: ANN401 - an Avro type: name or object
    """A type in a few words; equal words are the same type, apart from its fields."""
    if isinstance(node, str):
        return node
    told = [
        str(node[key])
        for key in ("type", "name", "logicalType", "symbols", "size", "precision", "scale")
        if key in node
    ]
    return " ".join(told)


def _subjects(settings: KafkaSettings) -> dict[str, Schema]:
    """The packaged schemas by subject."""
    return {
        f"{topic_name(settings.topic_prefix, topic_field)}-value": schemas.load(topic_field)
        for topic_field in TOPIC_FIELDS
    }


async def _earlier(subject: str, schema: Schema, registry: Registry | None) -> dict[str, Schema]:
    """Every version that a schema has to go with: those of its subject, if there is a registry, and the released ones."""
    registered = await registry.versions(subject) if registry is not None else {}
    versions = {f"version {number}": old for number, old in registered.items()}
    return versions | {
        f"released {path}": old
        for path, old in schemas.released()
        if all(old.get(key) == schema.get(key) for key in ("namespace", "name"))
    }


def _show(rows: Sequence[Mapping[str, object]], output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"subjects": rows}))
        return
    columns = [column for column in rows[0] if column != "detail"]
    click.echo(table([columns, *(["-" if row[column] is None else row[column] for column in columns] for row in rows)]))
    for row in rows:
        if "detail" in row:
            click.echo(f"{row['subject']}: {row['detail']}")
