"""`bridge simulate`: the stand-in for Meta. Realistic conversations at a rate, signed and delivered as Meta does."""

import asyncio
import json
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from bridge.commands.send import environment, remedy, where_to
from bridge.local.meta.deliveries import BATCH_EVENTS_MAX, RATE_PER_S, Plan, deliveries
from bridge.local.meta.sender import CONNECTIONS_MAX, RETRY_FOR_S, Sender, Tally, paced
from bridge.local.meta.signing import app_secret
from bridge.local.meta.truth import Ledger

# A terminal's line is rewritten often enough to look alive; a log gets a line seldom enough to be read.
_PROGRESS_TERMINAL_S, _PROGRESS_LOG_S = 0.5, 5.0
_SEED_BITS = 32  # short enough to be typed again
_EXIT_INTERRUPTED = 130

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Whoever tells seconds from milliseconds by magnitude (the contract's "Items") can only do so between these.
_START_YEARS = (1974, 5000)

_TOPIC_PREFIX = "instagram"  # where neither the option nor BRIDGE_TOPIC_PREFIX gives another
_SHARE = click.FloatRange(0, 1)


def _milliseconds(context: click.Context, _: click.Parameter, value: str | None) -> int:
    """RFC 3339 → milliseconds since the Unix epoch; now when there is none."""
    del context
    if value is None:
        return time.time_ns() // 1_000_000
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("must be a time like 2026-11-22T09:00:00Z") from None
    if moment.tzinfo is None:
        raise click.BadParameter("must say its zone: end it with Z or an offset")
    if not _START_YEARS[0] <= moment.year < _START_YEARS[1]:
        raise click.BadParameter(f"must be from {_START_YEARS[0]} on and before {_START_YEARS[1]}")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@click.command("simulate")
@where_to
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=RATE_PER_S,
    show_default=True,
    help="Deliveries a second; 0: as fast as they are answered.",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Deliveries that come at once, at the same rate on average.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds of event time in one second.",
)
@click.option("--count", type=click.IntRange(1), help="End after that many deliveries. [default: endless]")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="End after that many seconds.")
@click.option("--seed", type=click.IntRange(0), help="Repeats a run together with --start. [default: random, printed]")
@click.option(
    "--start", "start_ms", callback=_milliseconds, help="Event time of the first delivery, RFC 3339. [default: now]"
)
@click.option("--accounts", type=click.IntRange(1, 10_000), default=3, show_default=True, help="Business accounts.")
@click.option(
    "--customers", type=click.IntRange(1, 1_000_000), default=200, show_default=True, help="Customers of each account."
)
@click.option(
    "--batch",
    type=click.IntRange(1, BATCH_EVENTS_MAX),
    default=10,
    show_default=True,
    help="Most events in one delivery.",
)
@click.option(
    "--redeliver", type=_SHARE, default=0.02, show_default=True, help="Share of deliveries that repeat events."
)
@click.option(
    "--reorder", type=_SHARE, default=0.01, show_default=True, help="Share of events that later ones overtake."
)
@click.option("--quirks", type=_SHARE, default=0.01, show_default=True, help="Share of deliveries of an unusual shape.")
@click.option(
    "--retry-for",
    type=click.FloatRange(0),
    default=RETRY_FOR_S,
    show_default=True,
    help="Seconds to repeat a delivery not answered 200.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=CONNECTIONS_MAX,
    show_default=True,
    help="Deliveries under way at one time.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what must be in Kafka, one JSON line an event.",
)
@click.option("--topic-prefix", help="Of the topics in --truth. [default: BRIDGE_TOPIC_PREFIX, else instagram]")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the summary."
)
@click.pass_obj
def command(
    env_file: Path | None,
    /,
    *,
    url: str,
    app_secret_file: Path | None,
    label: str | None,
    burst: int,
    count: int | None,
    duration: float | None,
    seed: int | None,
    start_ms: int,
    retry_for: float,
    connections: int,
    truth: Path | None,
    topic_prefix: str | None,
    output: str,
    **plan_options: Any,  # noqa: ANN401 - the options that are a Plan's own, by its names
) -> None:
    """Deliver realistic conversations at a rate, as Meta does, until Ctrl-C or a limit.

    Hours in a minute, in bursts, every tenth body odd, and what must be in Kafka afterwards:

    Example: bridge simulate --speed 600 --burst 50 --quirks 0.1 --duration 60 --truth truth.jsonl
    """
    variables = environment(env_file)
    secret = app_secret(variables, file=app_secret_file, label=label)
    if truth is not None and not truth.absolute().parent.is_dir():
        raise click.ClickException(f"the folder of --truth does not exist: create {truth.absolute().parent}")
    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    plan = Plan(seed=seed, start_ms=start_ms, **plan_options)
    start = (_EPOCH + timedelta(milliseconds=start_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    click.echo(f"simulate: seed {seed}, start {start}, to {url}", err=True)

    ledger = Ledger(topic_prefix or variables.get("BRIDGE_TOPIC_PREFIX", _TOPIC_PREFIX)) if truth else None
    begin = time.monotonic()
    sender = Sender(url, secret, connections=connections, retry_for_s=retry_for, ledger=ledger)
    stopped_by = asyncio.run(_run(sender, plan, burst=burst, count=count, duration_s=duration))
    if ledger and truth:
        _write(ledger, truth)
    summary = {"seed": seed, "start": start, "seconds": round(time.monotonic() - begin, 1)} | _summary(sender.tally)
    click.echo(json.dumps(summary) if output == "json" else _text(summary))
    if stopped_by == signal.SIGINT:
        sys.exit(_EXIT_INTERRUPTED)
    tally = sender.tally
    if tally.given_up and tally.last_refusal and stopped_by is None:
        raise click.ClickException(f"{tally.given_up} deliveries were given up, {remedy(tally.last_refusal, url)}")


async def _run(sender: Sender, plan: Plan, *, burst: int, count: int | None, duration_s: float | None) -> int | None:
    """Sends until a limit or a signal; the signal's number, or None.

    The first signal lets posts that are under way have their answers, a second one does not wait for them.
    """
    signals: list[int] = []
    this_task = asyncio.current_task()

    def stop(number: int) -> None:
        signals.append(number)
        sender.stopping.set()
        if len(signals) > 1 and this_task:
            this_task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    made, stopping = deliveries(plan), sender.stopping
    stream = paced(made, rate=plan.rate, stopping=stopping, burst=burst, count=count, duration_s=duration_s)
    progress = asyncio.create_task(_show_progress(sender.tally))
    try:
        async with sender:
            await sender.send_all(stream)
    except asyncio.CancelledError:
        if not signals:
            raise
    finally:
        progress.cancel()
    return signals[0] if signals else None


async def _show_progress(tally: Tally) -> None:
    """One line that is rewritten on a terminal, a line now and then elsewhere."""
    is_terminal = sys.stderr.isatty()
    try:
        while True:
            await asyncio.sleep(_PROGRESS_TERMINAL_S if is_terminal else _PROGRESS_LOG_S)
            line = f"simulate: {tally.deliveries} deliveries, {tally.events} events, answers {_counts(tally.answers)}"
            click.echo(f"\r\x1b[K{line}" if is_terminal else line, err=True, nl=not is_terminal)
    finally:
        if is_terminal:
            click.echo(err=True)


def _write(ledger: Ledger, path: Path) -> None:
    try:
        ledger.write(path)
    except OSError as error:
        raise click.ClickException(f"--truth {path} cannot be written: {error.strerror}; name another file") from None


def _summary(tally: Tally) -> dict[str, Any]:
    return {
        "deliveries": tally.deliveries,
        "events": tally.events,
        "posts": tally.posts,
        "answers": dict(sorted(tally.answers.items())),
        "given_up": tally.given_up,
        "p50_ms": tally.percentile_ms(0.5),
        "p99_ms": tally.percentile_ms(0.99),
    }


def _text(summary: dict[str, Any]) -> str:
    return (
        f"{summary['deliveries']} deliveries with {summary['events']} events in {summary['seconds']} s, "
        f"{summary['posts']} posts, answers {_counts(summary['answers'])}, {summary['given_up']} given up, "
        f"p50 {summary['p50_ms']} ms, p99 {summary['p99_ms']} ms"
    )


def _counts(answers: Mapping[str, int]) -> str:
    return " ".join(f"{status}:{count}" for status, count in sorted(answers.items())) or "none yet"
