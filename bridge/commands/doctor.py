"""`bridge doctor`: everything between Meta and Kafka, one line each, with what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
from yarl import URL

from bridge.commands import _check_graph, _check_here, _check_kafka, _check_meta
from bridge.commands._finding import Finding, Outcome
from bridge.commands._shared import output_option, printable
from bridge.errors import Misconfigured
from bridge.settings import KafkaSettings, Settings, live_secrets, load

_COLOURS: dict[Outcome, str] = {"ok": "green", "warn": "yellow", "fail": "red"}
_NAME_CHARACTERS = 20
_FAILED = 1


def _public_url(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    if text is not None:
        try:
            url = URL(text)
            valid = url.scheme in ("http", "https") and bool(url.host)
        except ValueError:
            valid = False
        if not valid:
            raise click.BadParameter("it is no address that begins with https://")
    return text


@click.command("doctor")
@click.option(
    "--as-meta", metavar="URL", callback=_public_url, help="Play Meta against this public URL, and check nothing else."
)
@click.option("--account", default="me", help="Whose subscription is asked for. [default: the token's own account]")
@output_option
@click.pass_obj
def command(env_file: Path | None, *, as_meta: str | None, account: str, output: str) -> None:
    """Check settings, secrets, spool, Kafka, topics, registry and Meta's side; exit code 1 if deliveries would be lost or refused.

    Changes nothing. With --as-meta the webhook behind a URL is asked as Meta asks, in right and in wrong ways: DNS, TLS,
    verification requests, signed, tampered, oversized, slow and stalled deliveries. They hold no entry, so nothing is published.

    \b
    bridge --env-file .env doctor
    bridge --env-file .env doctor --as-meta https://hooks.example.com/webhooks/instagram
    """  # noqa: D301 - click's mark for lines that stay as they are
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # its words would stand beside our lines
    logging.getLogger("asyncio").addHandler(logging.NullHandler())
    found = asyncio.run(_check(env_file, as_meta, account, show=output == "text"))
    failed = sum(finding.outcome == "fail" for finding in found)
    if output == "json":
        click.echo(json.dumps({"ok": not failed, "findings": [finding._asdict() for finding in found]}))
    else:
        warned = sum(finding.outcome == "warn" for finding in found)
        click.echo(f"{len(found)} checks: {failed} failed, {warned} warnings")
    if failed:
        sys.exit(_FAILED)


async def _check(env_file: Path | None, as_meta: str | None, account: str, *, show: bool) -> list[Finding]:
    found = []
    async for finding in _findings(env_file, as_meta, account):
        if show:
            click.echo(_line(finding))
        found.append(finding)
    return found


async def _findings(env_file: Path | None, as_meta: str | None, account: str) -> AsyncIterator[Finding]:
    settings: Settings | None = None
    try:
        settings, _ = load(Settings, env_file)
    except Misconfigured as error:
        for line in str(error).splitlines():
            yield Finding("settings", "fail", line)
    else:
        yield Finding("settings", "ok", "`bridge serve` would start with them")
    if as_meta is not None:
        checks = [] if settings is None else [_check_meta.public(as_meta, settings)]
    else:
        checks = list(_checks(env_file, settings, account))
    for check in checks:
        async for finding in check:
            yield finding


def _checks(env_file: Path | None, settings: Settings | None, account: str) -> Iterator[AsyncIterator[Finding]]:
    """What can be checked; without the app's secrets that is Kafka and the registry."""
    kafka: KafkaSettings | None = settings
    if settings is None:
        with contextlib.suppress(Misconfigured):  # it was said
            kafka, _ = load(KafkaSettings, env_file)
    else:
        yield _check_here.here(settings, env_file)
    if kafka is not None:
        yield _check_kafka.kafka(kafka)
        yield _check_kafka.registry(kafka)
    if settings is not None:
        yield _check_graph.graph(settings, live_secrets(settings)[0].key.decode(), account)


def _line(finding: Finding) -> str:
    remedy = f": {finding.remedy}" if finding.remedy else ""
    text = printable(f"{finding.check.ljust(_NAME_CHARACTERS)}  {finding.found}{remedy}")
    outcome = finding.outcome.ljust(4)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        outcome = click.style(outcome, fg=_COLOURS[finding.outcome])
    return f"{outcome}  {text}"
