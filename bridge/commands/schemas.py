"""`bridge schemas`: registers the packaged schemas, checks them against all earlier versions, and proposes the next ones."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import fastavro

from bridge import proposal, schemas
from bridge.adapters.registry import Registry, SchemaRefused
from bridge.commands._output import writing
from bridge.commands._shared import output_option, printable, run, table, utc
from bridge.commands.drift import SINCE, look, since
from bridge.encoding import Encoder, Schema
from bridge.errors import Misconfigured
from bridge.event import WEBHOOK_FIELDS
from bridge.proposal import Proposal
from bridge.routing import MANAGED_FIELDS, TOPIC_FIELDS, topic_name
from bridge.settings import KafkaSettings


@click.group("schemas")
def command() -> None:
    """Register, check and extend the schemas of the topics' values."""


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


@command.command("propose")
@click.argument("webhook_field", metavar="FIELD", type=click.Choice(WEBHOOK_FIELDS))
@click.option("--since", "since_ms", default=SINCE, show_default=True, callback=since, help="As of `bridge drift`.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Write every changed .avsc there, such as schemas/avro. [default: FIELD's on stdout]",
)
@click.pass_obj
def propose(env_file: Path | None, *, webhook_field: str, since_ms: int, folder: Path | None) -> None:
    """Write the next schema of a webhook field, with the keys that `bridge drift` finds as new fields.

    Every one is nullable with default null, its type as seen, its doc for you to fill in. Types that other schemas share are
    changed there too. Each result is proved to go with all registered and all released versions.

    Example: bridge schemas propose messages --since 7d --to schemas/avro
    """

    async def work(settings: KafkaSettings) -> tuple[Proposal, list[str], int]:
        looked = await look(settings, [webhook_field], since_ms)
        packaged = {field: schemas.load(field) for field in TOPIC_FIELDS}
        made = proposal.propose(webhook_field, looked.findings, packaged)
        problems = []
        async with contextlib.AsyncExitStack() as stack:
            registry = await stack.enter_async_context(Registry(settings)) if settings.schema_registry_url else None
            for field, schema in made.schemas.items():
                subject = f"{topic_name(settings.topic_prefix, field)}-value"
                versions = {"packaged": packaged[field]} | await _earlier(subject, schema, registry)
                problems += [
                    f"{field}, {name}: {line}"
                    for name, old in versions.items()
                    for line in incompatibilities(old, schema)
                ]
                Encoder(field, schema, b"")  # the table is of use only if a function can be made of it
        return made, problems, looked.records

    made, problems, records = run(env_file, work)
    for finding, why in made.left:
        click.echo(f"left out: {finding.kind} {printable(finding.path)}: {why}", err=True)
    if problems:
        raise Misconfigured(f"the proposal would not go with earlier versions: {'; '.join(problems)}")
    if not made.added:
        click.echo(f"no new key in {records} records of {webhook_field} since {utc(since_ms)}", err=True)
        return
    for path, name in made.added:
        click.echo(f"added: {printable(path)} as {name}", err=True)
    for field, schema in made.schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        file = f"instagram_bridge.{schema['name']}.avsc"
        if folder is not None:
            with writing(folder / file):
                (folder / file).write_text(text + "\n", "utf-8")
            click.echo(f"written: {folder / file}", err=True)
        elif field == webhook_field:
            click.echo(text)
        else:
            click.echo(f"also changed, and written with --to: {file}", err=True)


async def _earlier(subject: str, schema: Schema, registry: Registry | None) -> dict[str, Schema]:
    """Every version that a schema has to go with: those of its subject, if there is a registry, and the released ones."""
    registered = await registry.versions(subject) if registry is not None else {}
    versions = {f"version {number}": old for number, old in registered.items()}
    return versions | {
        f"released {path}": old
        for path, old in schemas.released()
        if all(old.get(key) == schema.get(key) for key in ("namespace", "name"))
    }


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
        for topic_field in MANAGED_FIELDS
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
