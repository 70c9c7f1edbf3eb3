"""The whole thing on one machine: broker, registry, topics, ingress, consumers, page, and the stand-in for Meta."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
import msgspec

from bridge.errors import Misconfigured
from bridge.local.child import Child
from bridge.local.choice import DOCKER, choose_kafka, choose_registry
from bridge.local.jvm import free_port, is_free
from bridge.local.kafka import DATA
from bridge.local.service import Service

READY_DEADLINE_S = 60.0
"""For one of our programs to serve; it takes one or two seconds, a busy machine ten times that."""

_POLL_INTERVAL_S = 0.05
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=2)
_OWNER_ONLY = 0o600
_VALUES = {True: "confluent", False: "single-object"}
"""How values are written with a registry and without, in the words of a data folder's marker."""
_SCHEMAS = "schemas.mv.db"  # what the packaged registry keeps, as H2 names it: bridge.local.registry.DATABASE

RULES = """\
# What the sample auto-reply consumer answers; the first rule that matches wins. consumers/auto_reply/README.md has every key.
version: 1
human_pause_s: 60 # after somebody else answered: here, so that there is something to see
rules:
  - name: hello
    when: {text_contains: [hello, hi]}
    reply: {text: "Hi! How can we help?"}
  - name: rest
    when: {any_message: true}
    reply: {text: "Thank you, we will be with you shortly."}
"""


class Options(msgspec.Struct, frozen=True):
    """What `bridge dev` was asked for.

    Attributes:
        kafka: ``HOST:PORT``, ``docker``, or None for the packaged broker.
        registry: whether to run one.
        port: of the ingress, when it is free.
        port_asked: whether a person named the port, so that another one would be wrong.
        rate: deliveries a second of simulated traffic; 0 is none.
        data: folder for the broker's data, secrets and logs.
    """

    kafka: str | None
    registry: bool
    port: int
    port_asked: bool
    rate: float
    data: Path


class Stack(msgspec.Struct, frozen=True):
    """What runs, and where.

    Attributes:
        ingress, management, page: URLs.
        graph: URL of the stand-in for Graph API's status.
        replies: URL of auto_reply's metrics.
        services: what was taken as broker and registry, a line each.
        children: our programs; any of them ending is a failure.
        app_secret: the secret that deliveries are signed with.
        bootstrap_servers: the broker.
        registry_url: the registry; None without one.
    """

    ingress: str
    management: str
    page: str
    graph: str
    replies: str
    services: list[str]
    children: list[Child]
    app_secret: str
    verify_token: str
    bootstrap_servers: str
    registry_url: str | None


@contextlib.asynccontextmanager
async def running(options: Options, tell: Callable[[str], None]) -> AsyncIterator[Stack]:
    """Start everything in order, and stop it in reverse.

    Args:
        options: what to run.
        tell: takes one line for every step that takes longer than a moment.

    Raises:
        Misconfigured: a part does not come up, and what ran is stopped; or the folder was filled with the other choice of a
            registry.
    """
    data = options.data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    if options.port_asked and not is_free(options.port):
        raise Misconfigured(f"port {options.port} is taken: name another with --port, or stop what listens there")
    _refuse_mixture(options, data)
    async with contextlib.AsyncExitStack() as exits:
        services, reach = await _services(options, data, exits, tell)
        ports = [free_port(usual) for usual in (options.port, 8081, 8082, 8083, 8084)]
        stack = Stack(
            ingress=f"http://127.0.0.1:{ports[0]}/webhooks/instagram",
            management=f"http://127.0.0.1:{ports[1]}",
            page=f"http://127.0.0.1:{ports[2]}/",
            graph=f"http://127.0.0.1:{ports[3]}/status",
            replies=f"http://127.0.0.1:{ports[4]}/metrics",
            services=[service.description for service in services],
            children=[],
            app_secret=_kept_secret(data / "app-secret"),
            verify_token=_kept_secret(data / "verify-token"),
            bootstrap_servers=reach["KAFKA_BOOTSTRAP_SERVERS"],
            registry_url=reach.get("SCHEMA_REGISTRY_URL"),
        )
        bridge = {f"BRIDGE_{name}": value for name, value in reach.items()} | {
            "BRIDGE_APP_SECRETS": f"dev={stack.app_secret}",
            "BRIDGE_VERIFY_TOKEN": stack.verify_token,
            "BRIDGE_PORT": str(ports[0]),
            "BRIDGE_MANAGEMENT_PORT": str(ports[1]),
            "BRIDGE_TOPIC_REPLICATION_FACTOR": "1",
            "BRIDGE_SPOOL_DIR": str(data / "spool"),
        }
        tell("creating topics")
        await _child("topics", ("-m", "bridge", "topics", "apply"), bridge, data).run()
        if options.registry:
            await _child("schemas", ("-m", "bridge", "schemas", "register"), bridge, data).run()
        _marker(data, options.kafka).write_text(_VALUES[options.registry], "utf-8")
        tell("starting the ingress and the consumers")
        analytics = {f"ANALYTICS_{name}": value for name, value in reach.items()} | {
            "ANALYTICS_PORT": str(ports[2]),
            "ANALYTICS_DATABASE": str(_database(data, options.kafka)),
        }
        auto_reply = {f"AUTO_REPLY_{name}": value for name, value in reach.items()} | {
            "AUTO_REPLY_RULES": str(_kept_rules(data / "rules.yaml")),
            "AUTO_REPLY_GRAPH_URL": f"http://127.0.0.1:{ports[3]}/v25.0",
            "AUTO_REPLY_TOKENS": "*=the-stand-in-takes-any",
            "AUTO_REPLY_METRICS_PORT": str(ports[4]),
        }
        graph = ("-m", "bridge.local.meta.graph", "--port", str(ports[3]), "--webhook-url", stack.ingress)
        await _begin(_child("ingress", ("-m", "bridge", "serve"), bridge, data), stack, exits)
        await _begin(_child("analytics", ("-m", "consumers.analytics"), analytics, data), stack, exits)
        await _begin(_child("graph", graph, bridge, data), stack, exits)
        await _begin(_child("auto-reply", ("-m", "consumers.auto_reply"), auto_reply, data), stack, exits)
        await _until_serving(stack.children[0], f"{stack.management}/readyz")
        await _until_serving(stack.children[1], stack.page)
        await _until_serving(stack.children[2], stack.graph)
        if options.rate:
            simulate = ("-m", "bridge", "simulate", "--url", stack.ingress, "--rate", f"{options.rate:g}")
            await _begin(_child("simulate", simulate, bridge, data), stack, exits)
        yield stack
        tell("stopping")


async def _services(
    options: Options, data: Path, exits: contextlib.AsyncExitStack, tell: Callable[[str], None]
) -> tuple[list[Service], dict[str, str]]:
    """Start broker and registry; how to reach them is the same for the bridge and the consumers, but for the prefix."""
    tell("starting Kafka")
    broker = choose_kafka(options.kafka, data_dir=data)
    await exits.enter_async_context(broker)
    if not options.registry:
        return [broker], {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    tell("starting the schema registry")
    registry = choose_registry(options.kafka if options.kafka == DOCKER else None, data_dir=data)
    await exits.enter_async_context(registry)
    reach = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "SCHEMA_REGISTRY_URL": registry.url}
    return [broker, registry], reach


async def _begin(child: Child, stack: Stack, exits: contextlib.AsyncExitStack) -> None:
    await child.begin()
    exits.push_async_callback(child.stop)
    stack.children.append(child)


def _child(name: str, arguments: Sequence[str], environment: dict[str, str], data: Path) -> Child:
    """A child that knows nothing of settings that stand in our own environment for something else."""
    ours = ("BRIDGE_", "ANALYTICS_", "AUTO_REPLY_")
    inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith(ours)}
    return Child(name, *arguments, log=data / f"{name}.log", environment=inherited | environment)


async def _until_serving(child: Child, url: str) -> None:
    """Wait until it answers 200, or say why it never will."""
    ended = asyncio.create_task(child.ended())
    try:
        async with asyncio.timeout(READY_DEADLINE_S), aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT) as session:
            while not await _answers(session, url):
                await asyncio.wait({ended}, timeout=_POLL_INTERVAL_S)
                if ended.done():
                    ended.result()
    except TimeoutError:
        raise Misconfigured(f"{child.name} did not serve {url} in time; its log: {child.log}") from None
    finally:
        ended.cancel()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200  # noqa: PLR2004 - HTTP's OK
    except (aiohttp.ClientError, TimeoutError):
        return False


def _kept_secret(path: Path) -> str:
    """A secret of this data folder, made once; only its owner may read it."""
    if not path.exists():
        path.touch(_OWNER_ONLY)
        path.write_text(secrets.token_hex(16), "utf-8")
    return path.read_text("utf-8").strip()


def _refuse_mixture(options: Options, data: Path) -> None:
    """A broker's values are all written in one way: who reads the one, with or without a registry, may not read the other."""
    if options.kafka == DOCKER:  # a container's Kafka is a new one every time
        return
    marker = _marker(data, options.kafka)
    if marker.exists():
        registry = marker.read_text("utf-8") == _VALUES[True]
    elif options.kafka is None and any((data / DATA).glob("instagram.*")):  # topics, from before there was a marker
        registry = (data / _SCHEMAS).exists()
    else:
        return
    if registry != options.registry:
        how = "with --registry: give --registry again, or" if registry else "without --registry: leave it out, or give"
        where, option = (options.data, "--data") if options.kafka is None else (options.kafka, "--kafka")
        raise Misconfigured(f"{where} was filled {how} another {option}")


def _marker(data: Path, kafka: str | None) -> Path:
    """The file that says how this broker's values are written."""
    return data / f"values{_suffix(kafka)}"


def _suffix(kafka: str | None) -> str:
    """Of a file that belongs to one broker; the packaged one's has none."""
    return "" if kafka is None else f"-{kafka.replace(':', '-').replace('/', '-')}"


def _database(data: Path, kafka: str | None) -> Path:
    """The analytics database of this broker: its offsets are of one cluster, and it refuses another."""
    path = data / f"analytics{_suffix(kafka)}.duckdb"
    if kafka == DOCKER:  # a container's Kafka is a new one every time
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    return path


def _kept_rules(path: Path) -> Path:
    """The rules of the sample consumer, made once, for a person to edit."""
    if not path.exists():
        path.write_text(RULES, "utf-8")
    return path
