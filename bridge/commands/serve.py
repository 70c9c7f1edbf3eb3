"""``bridge serve``: the ingress alone, for production."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from bridge.app import serve
from bridge.settings import Settings, load
from bridge.telemetry import configure_logging

_INTERRUPTED = 130


@click.command()
@click.pass_obj
def command(env_file: Path | None) -> None:
    r"""Serve the webhook until SIGTERM.

    Everything is set by the environment (`bridge settings` lists it). Creates no topic and registers no schema: run `bridge
    topics apply`, and with a registry `bridge schemas register`, first.

    \b
    Example:
      BRIDGE_APP_SECRETS_FILE=/run/secrets/app BRIDGE_VERIFY_TOKEN_FILE=/run/secrets/token bridge serve
    """
    settings, _ = load(Settings, env_file)
    configure_logging(settings.log_format, settings.log_level)
    if asyncio.run(serve(settings)):
        sys.exit(_INTERRUPTED)
