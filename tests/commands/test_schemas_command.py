"""`bridge schemas` on a real registry, looked at over plain HTTP; the rule by which schemas are compared."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import shutil
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bridge.adapters.registry import RegistryUnreachable, schema_ids
from bridge.commands.schemas import incompatibilities
from bridge.errors import Misconfigured
from bridge.local.jvm import free_port
from bridge.local.service import Registry
from bridge.routing import MANAGED_FIELDS
from bridge.schemas import load
from bridge.settings import KafkaSettings
from tests.commands.conftest import Run

ANSWER_S = 60  # a first registration takes seconds on a busy machine

Schema = dict[str, Any]


def ask(registry: Registry, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
    """The registry's own answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - the test's own registry
        registry.url + path, data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 - as above
        return json.load(answer)


async def test_register_twice_registers_once_with_full_compatibility(
    run: Run, registry: Registry, topic_prefix: str
) -> None:
    """Every packaged schema is under <topic>-value, FULL_TRANSITIVE; a second run finds the same ids."""
    first = await run("schemas", "register", "--output", "json", SCHEMA_REGISTRY_URL=registry.url)
    rows = first.said["subjects"]
    assert [row["subject"] for row in rows] == [f"{topic_prefix}.{topic_field}-value" for topic_field in MANAGED_FIELDS]
    for topic_field, row in zip(MANAGED_FIELDS, rows, strict=True):
        held = json.loads((await asyncio.to_thread(ask, registry, f"/schemas/ids/{row['id']}"))["schema"])
        assert held["name"].rpartition(".")[2] == load(topic_field)["name"]
        assert list(incompatibilities(load(topic_field), held)) == []
        level = await asyncio.to_thread(ask, registry, f"/config/{row['subject']}")
        assert level["compatibilityLevel"] == "FULL_TRANSITIVE"

    second = await run("schemas", "register", "--output", "json", SCHEMA_REGISTRY_URL=registry.url)
    assert [row["id"] for row in second.said["subjects"]] == [row["id"] for row in rows]
    assert {row["outcome"] for row in second.said["subjects"]} == {"already there"}
    checked = await run("schemas", "check", "--output", "json", SCHEMA_REGISTRY_URL=registry.url)
    assert {row["outcome"] for row in checked.said["subjects"]} == {"compatible"}
    # The registered one, and the one of 0.1.0, which had no ledger yet.
    assert [row["versions"] for row in checked.said["subjects"]] == [2] * (len(MANAGED_FIELDS) - 1) + [1]


async def test_register_over_an_incompatible_schema_is_refused_and_check_says_why(
    run: Run, registry: Registry, topic_prefix: str
) -> None:
    """One subject that holds something else is named with the reason; the others are registered all the same."""
    subject = f"{topic_prefix}.messages-value"
    other = load("messages")
    other["fields"] = [member for member in other["fields"] if member["name"] != "event_id"]
    await asyncio.to_thread(ask, registry, f"/subjects/{subject}/versions", {"schema": json.dumps(other)})

    checked = await run("schemas", "check", SCHEMA_REGISTRY_URL=registry.url)
    assert "1 schemas are not compatible" in checked.complaint
    assert f"{subject}: version 1: event_id is only in the new one and has no default" in checked.stdout

    refused = await run("schemas", "register", SCHEMA_REGISTRY_URL=registry.url)
    assert "`bridge schemas check`" in refused.complaint
    assert [line.split()[1] for line in refused.stdout.splitlines()[1:3]] == ["refused", "registered"]
    assert len(refused.stdout.splitlines()) == 1 + len(MANAGED_FIELDS) + 1


async def test_check_against_a_release_that_had_another_type_names_release_and_field(
    run: Run, registry: Registry, tmp_path: Path
) -> None:
    """A released schema counts although this registry never saw it, and where there is no registry at all."""
    packaged = tmp_path / "schemas" / "avro"  # the command runs in this folder, and takes it for its own
    shutil.copytree(Path(__file__).parents[2] / "schemas" / "avro", packaged)
    old = load("messages")
    old["fields"][0]["type"] = "bytes"
    release = packaged / "history" / "0.0.1" / "instagram_bridge.Messages.avsc"
    release.parent.mkdir(parents=True)
    release.write_text(json.dumps(old), "utf-8")

    for variables in ({"SCHEMA_REGISTRY_URL": registry.url}, {}):
        checked = await run("schemas", "check", **variables)
        assert (checked.exit_code, "1 schemas are not compatible" in checked.stderr) == (1, True)
        assert f"released 0.0.1/{release.name}: event_id was bytes and is string" in checked.stdout


async def test_schema_ids_before_and_after_register(
    run: Run, registry: Registry, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up registers nothing: it names what is missing with the command, and afterwards gives the ids."""
    monkeypatch.setenv("BRIDGE_SCHEMA_REGISTRY_URL", registry.url)
    wanted = {f"{topic_prefix}.{topic_field}-value": load(topic_field) for topic_field in MANAGED_FIELDS}
    for _ in range(2):
        with pytest.raises(Misconfigured, match="bridge schemas register") as problem:
            await schema_ids(KafkaSettings(), wanted)
        assert all(subject in str(problem.value) for subject in wanted)
    registered = await run("schemas", "register", "--output", "json", SCHEMA_REGISTRY_URL=registry.url)
    ids = {row["subject"]: row["id"] for row in registered.said["subjects"]}
    assert await schema_ids(KafkaSettings(), wanted) == ids


async def test_schemas_without_a_registry_names_the_setting(run: Run) -> None:
    """Without BRIDGE_SCHEMA_REGISTRY_URL nothing can be registered, and a check says that it asked none."""
    assert "set BRIDGE_SCHEMA_REGISTRY_URL" in (await run("schemas", "register")).complaint
    checked = await run("schemas", "check")
    assert (checked.exit_code, "BRIDGE_SCHEMA_REGISTRY_URL is not set" in checked.stderr) == (0, True)


async def test_schemas_with_a_wrong_address_fails_in_one_line(run: Run, registry: Registry) -> None:
    """No address, nobody there, and a server that is no registry: each says what to correct, and no password is shown."""
    for url in ("registry:8085", f"http://u:hidden@127.0.0.1:{free_port()}", registry.url.rpartition("/")[0]):
        complaint = (await run("schemas", "check", SCHEMA_REGISTRY_URL=url)).complaint
        assert "BRIDGE_SCHEMA_REGISTRY_URL" in complaint
        assert "hidden" not in complaint


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"BASIC_AUTH_USER_INFO": "me:pa:ss"}, f"Basic {base64.b64encode(b'me:pa:ss').decode()}"),
        ({"BEARER_AUTH_TOKEN": "abc"}, "Bearer abc"),
    ],
)
async def test_schema_ids_with_credentials_sends_them(
    variables: dict[str, str], header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Basic and bearer credentials go into the Authorization header; a refusal of them names the settings."""
    seen: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"error_code": 401}, status=401)

    async with Served(answer) as url:
        monkeypatch.setenv("BRIDGE_SCHEMA_REGISTRY_URL", url)
        for name, value in variables.items():
            monkeypatch.setenv(f"BRIDGE_SCHEMA_REGISTRY_{name}", value)
        with pytest.raises(Misconfigured, match="BRIDGE_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO") as problem:
            await schema_ids(KafkaSettings(), {"a-value": load("messages")})
    assert seen == [header]
    assert "pa:ss" not in str(problem.value)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_schema_ids_from_a_busy_registry_is_worth_another_try(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that pass by themselves are told apart from those that a person must mend."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    async with Served(answer) as url:
        monkeypatch.setenv("BRIDGE_SCHEMA_REGISTRY_URL", url)
        with pytest.raises(RegistryUnreachable):
            await schema_ids(KafkaSettings(), {"a-value": load("messages")})


class Served:
    """An HTTP server with one answer to everything; gives its address."""

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        self._runner = web.ServerRunner(web.Server(answer))

    async def __aenter__(self) -> str:
        port = free_port()
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{port}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def record(*fields: Schema) -> Schema:
    """A record with these fields."""
    return {"type": "record", "name": "R", "namespace": "n", "fields": list(fields)}


MILLIS, MICROS = ({"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("millis", "micros"))
TEXT = {"name": "text", "type": ["null", "string"], "default": None}
INNER = {"type": "record", "name": "Inner", "fields": [TEXT]}
WIDER = {"type": "record", "name": "Inner", "fields": [TEXT, {"name": "more", "type": "int"}]}
SELF = record({"name": "next", "type": ["null", "R"], "default": None})


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (record(TEXT), record(TEXT, {"name": "n", "type": ["null", "long"], "default": None}), []),
        (record(TEXT), record(TEXT, {"name": "n", "type": "long"}), ["n is only in the new one and has no default"]),
        (record({"name": "n", "type": "long"}), record(), ["n is only in the old one and has no default"]),
        (record({"name": "t", "type": MILLIS}), record({"name": "t", "type": MICROS}), ["t was "]),
        (record({"name": "t", "type": MILLIS}), record({"name": "t", "type": "long"}), ["t was "]),
        (record({"name": "n", "type": "int"}), record({"name": "n", "type": "long"}), ["n was int and is long"]),
        (record({"name": "s", "type": {"type": "string"}}), record({"name": "s", "type": "string"}), []),
        (record({"name": "s", "type": ["null", "string"]}), record({"name": "s", "type": "string"}), ["s was "]),
        (record({"name": "i", "type": INNER}), record({"name": "i", "type": WIDER}), ["i.more is only in the new"]),
        (
            record({"name": "a", "type": {"type": "array", "items": INNER}}),
            record({"name": "a", "type": {"type": "array", "items": WIDER}}),
            ["a[].more is only in the new"],
        ),
        (record(), record({"name": "i", "type": ["null", WIDER], "default": None}), []),
        ({**record(), "name": "S"}, record(), ["the record was "]),
        (SELF, copy.deepcopy(SELF), []),
    ],
)
def test_incompatibilities_of_two_schemas_are_those_of_avro_both_ways(
    old: Schema, new: Schema, told: list[str]
) -> None:
    """One-sided fields need a default and everything else must be the same, whichever of the two is older."""
    for one, other in ((old, new), (new, old)):
        found = list(incompatibilities(one, other))
        assert len(found) == len(told), found
    for line, beginning in zip(incompatibilities(old, new), told, strict=True):
        assert line.startswith(beginning)
