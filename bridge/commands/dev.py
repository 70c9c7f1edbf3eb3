"""``bridge dev``: the whole thing on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
import time
from pathlib import Path

import aiohttp
import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import BridgeError
from bridge.local.choice import DOCKER
from bridge.local.meta.signing import SIGNATURE_HEADER, signature
from bridge.local.stack import Options, Stack, running

_TERMINAL_INTERVAL_S, _LOG_INTERVAL_S = 1.0, 10.0
"""How often the line of figures is renewed: looking alive on a terminal, readable in a log."""

_CONSUMER_GROUPS = ("instagram-analytics", "instagram-auto-reply")


@click.command()
@click.option("--kafka", metavar="HOST:PORT", help="Take this broker.  [default: the packaged Apache Kafka]")
@click.option("--docker", is_flag=True, help="Take broker and registry from containers.")
@click.option("--registry", is_flag=True, help="Run a schema registry, and write Confluent's wire format.")
@click.option("--no-traffic", is_flag=True, help="Send no simulated deliveries.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 1000), default=5, show_default=True, help="Simulated deliveries a second."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port of the ingress.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data"),
    show_default=True,
    help="Data folder.",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    kafka: str | None,
    docker: bool,
    registry: bool,
    no_traffic: bool,
    rate: float,
    port: int,
    data: Path,
) -> None:
    """Run everything on this machine, until Ctrl-C.

    That is a real Kafka with its topics, the ingress, both sample consumers, the live page, and a stand-in for Meta that
    sends signed traffic, takes the answers and sends their echoes. The data folder keeps what they wrote.

    Example: bridge dev --registry --data .data-registry --rate 50
    """
    if docker and kafka:
        raise click.UsageError("--docker and --kafka exclude each other: choose one broker")
    options = Options(
        kafka=DOCKER if docker else kafka,
        registry=registry,
        port=port,
        port_asked=ctx.get_parameter_source("port") is not click.core.ParameterSource.DEFAULT,
        rate=0 if no_traffic else rate,
        data=data,
    )
    asyncio.run(_dev(options))


async def _dev(options: Options) -> None:
    """Run the stack until Ctrl-C or SIGTERM, or until a part of it ends by itself, which is an error."""
    this_task = asyncio.current_task()
    asked_to_stop = False

    def stop() -> None:
        nonlocal asked_to_stop
        if not asked_to_stop and this_task:
            asked_to_stop = True
            this_task.cancel()

    failure: Exception | None = None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with running(options, _tell) as stack:
            click.echo(_introduction(stack, options))
            async with asyncio.TaskGroup() as group:
                for child in stack.children:
                    group.create_task(child.ended())
                group.create_task(_show_figures(stack))
    except* asyncio.CancelledError:
        if not asked_to_stop:
            raise
    except* BridgeError as group:  # parts that fail together have one cause: the first says it
        failure = group.exceptions[0]
    if failure:
        raise failure  # by itself, for main to say it in one line
    click.echo(f"stopped; {options.data}/ keeps the data, the secrets and the logs")


def _tell(step: str) -> None:
    click.echo(f"{step} …", err=True)


def _introduction(stack: Stack, options: Options) -> str:
    """What runs where, and a delivery to paste."""
    moved = "" if f":{options.port}/" in stack.ingress else f"  (port {options.port} is taken)"
    reach = {"BRIDGE_KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers}
    if stack.registry_url:
        reach["BRIDGE_SCHEMA_REGISTRY_URL"] = stack.registry_url
    body = json.dumps(
        {
            "object": "instagram",
            "entry": [
                {
                    "id": "17841400000000001",
                    "time": int(time.time() * 1000),
                    "messaging": [
                        {
                            "sender": {"id": "900000000000001"},
                            "recipient": {"id": "17841400000000001"},
                            "timestamp": int(time.time() * 1000),
                            "message": {"mid": "pasted-from-the-readme", "text": "Hello from curl"},
                        }
                    ],
                }
            ],
        },
        separators=(",", ":"),
    )
    lines = [
        "",
        *(
            f"  broker     {line}" if place == 0 else f"  registry   {line}"
            for place, line in enumerate(stack.services)
        ),
        f"  ingress    {stack.ingress}{moved}",
        f"  management {stack.management}/status  /metrics  /readyz",
        f"  live page  {stack.page}",
        f"  answers    {stack.replies} (auto_reply), {stack.graph} (the stand-in for Graph API, whose echoes come back)",
        f"  data       {options.data.absolute()} (data, secrets, a log per part)",
        "",
        "  Send a delivery of your own, and see it on the live page:",
        "",
        f"curl -i {stack.ingress} \\",
        "  -H 'Content-Type: application/json' \\",
        f"  -H '{SIGNATURE_HEADER}: {signature(body.encode(), stack.app_secret)}' \\",
        f"  -d '{body}'",
        "",
        f"  Or watch the topics:  {' '.join(f'{name}={value}' for name, value in reach.items())} {_this_command()} tail",
        "",
        "  Ctrl-C stops everything.",
        "",
    ]
    return "\n".join(lines)


def _this_command() -> str:
    """How this program was called, for a line that can be pasted."""
    return (
        shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "bridge" else f"{shlex.quote(sys.executable)} -m bridge"
    )


async def _show_figures(stack: Stack) -> None:
    """One line that is renewed on a terminal, one now and then elsewhere."""
    terminal = sys.stdout.isatty()
    interval_s = _TERMINAL_INTERVAL_S if terminal else _LOG_INTERVAL_S
    before, then = {"deliveries": 0.0, "records": 0.0}, time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=interval_s)) as session:
        try:
            while True:
                await asyncio.sleep(interval_s)
                try:
                    counts, lag = await _counts(session, stack), await _lag(stack.bootstrap_servers)
                except (aiohttp.ClientError, KafkaError, OSError) as error:
                    line = f"no figures ({type(error).__name__})"
                else:
                    now = time.monotonic()
                    rates = {name: (counts[name] - before[name]) / (now - then) for name in before}
                    before, then = {name: counts[name] for name in before}, now
                    line = (
                        f"{rates['deliveries']:.1f} deliveries/s  {rates['records']:.1f} events/s  "
                        f"{counts['records']:.0f} events in all  lag {lag}  spool {counts['spool_deliveries']:.0f}"
                    )
                click.echo(f"\r\x1b[K  {line}" if terminal else line, nl=not terminal)
        finally:
            if terminal:
                click.echo()  # what comes after it begins a line of its own


async def _counts(session: aiohttp.ClientSession, stack: Stack) -> dict[str, float]:
    """Deliveries and records since the ingress began, and what it has in the spool."""
    async with session.get(f"{stack.management}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
        totals = {
            family.name.removeprefix("instagram_bridge_"): sum(
                sample.value for sample in family.samples if not sample.name.endswith("_created")
            )
            for family in families
        }
    return {name: totals.get(name, 0.0) for name in ("deliveries", "records", "spool_deliveries")}


async def _lag(bootstrap_servers: str) -> str:
    """Records that each sample consumer has yet to read."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await consumer.start()
        lags = []
        for group in _CONSUMER_GROUPS:
            committed = await admin.list_consumer_group_offsets(group)
            ends: dict[TopicPartition, int] = await consumer.end_offsets(list(committed)) if committed else {}
            behind = sum(max(0, ends[place] - max(0, committed[place].offset)) for place in ends)
            lags.append(f"{group.removeprefix('instagram-')} {behind}")
        return ", ".join(lags)
    finally:
        await consumer.stop()
        await admin.close()
