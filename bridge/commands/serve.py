"""``bridge serve``: the ingress alone, for production."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import click
import uvloop

from bridge.adapters.keeper import ModeFlag, WorkerEnd, connect
from bridge.app import Serving, run
from bridge.ingress import Ingress
from bridge.settings import Settings, load
from bridge.telemetry import configure_logging
from bridge.workers import Keeper, Worker

_INTERRUPTED = 130


@click.command()
@click.option("--worker", hidden=True, help="Descriptors that a keeper gives to its worker.")
@click.pass_obj
def command(env_file: Path | None, *, worker: str | None) -> None:
    """Serve the webhook until SIGTERM; SIGHUP reads the secrets anew from their files.

    Everything is set by the environment (`bridge settings` lists it). Creates no topic and registers no schema: run `bridge
    topics apply`, and with a registry `bridge schemas register`, first.

    Example: BRIDGE_APP_SECRETS_FILE=/run/secrets/app BRIDGE_VERIFY_TOKEN_FILE=/run/secrets/token bridge serve
    """
    settings, _ = load(Settings, env_file)
    configure_logging(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        interrupted = runner.run(_serve(settings, worker, lambda: load(Settings, env_file)[0]))
    if interrupted:
        sys.exit(_INTERRUPTED)


async def _serve(settings: Settings, worker: str | None, read_again: Callable[[], Settings]) -> bool:
    serving: Serving
    if worker is not None:
        channel, memory = map(int, worker.split(","))
        end = WorkerEnd()
        await connect(end, socket.socket(fileno=channel))
        serving = Worker(settings, end, ModeFlag(memory))
    elif settings.workers > 1:
        serving = Keeper(settings)
    else:
        serving = Ingress(settings)
    return await run(serving, read_again)
