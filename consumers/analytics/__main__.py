"""`python -m consumers.analytics`: keeps the events of all event topics in a DuckDB file and serves the page over them."""

import asyncio
import gc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import structlog

from consumers.analytics.access import Access
from consumers.analytics.export import export as write_parquet
from consumers.analytics.feed import Feed
from consumers.analytics.ingest import opened
from consumers.analytics.page import Page, served
from consumers.analytics.readings import StoreReadings
from consumers.analytics.rebuild import rebuild as rebuild_database
from consumers.analytics.settings import Settings
from consumers.analytics.snapshot import keep
from consumers.process import execute

NAME = "consumers.analytics"

log: structlog.stdlib.BoundLogger = structlog.get_logger(NAME)


# Python's collector goes through all young objects whenever 700 were made. A batch is 20,000 rows that live until it is
# committed, none of them in a cycle: measured, looking at them took 7 µs of an event's 30.
COLLECT_AFTER_OBJECTS = 100_000


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Reads, keeps the snapshot and serves the page until the event is set."""
    gc.set_threshold(COLLECT_AFTER_OBJECTS)
    token = settings.token.get_secret_value() if settings.token else None
    access = Access(host=settings.host, token=token, variable=settings.variable("token"))
    feed = Feed()
    async with opened(settings, settings.database, feed=feed) as (ingest, store):

        def status() -> dict[str, Any]:
            return {
                "topic_prefix": settings.topic_prefix,
                "redeliveries": ingest.redeliveries,
                "dead_letters": ingest.dead_letters,
                "is_caught_up": ingest.is_caught_up,
            }

        readings = StoreReadings(store.cursor(), unanswered_minutes=settings.unanswered_minutes, status=status)
        page = Page(readings, feed, access)
        async with served(page, host=settings.host, port=settings.port, port_variable=settings.variable("port")):
            log.info("page", url=f"http://{settings.host}:{settings.port}/")
            copying = asyncio.create_task(keep(ingest, store, settings.snapshot_path))
            try:
                await ingest.run(stop.is_set)
            finally:
                copying.cancel()
                await asyncio.wait({copying})


def _milliseconds(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("must be a time like 2026-11-22T09:00:00Z") from None
    if moment.tzinfo is None:
        raise click.BadParameter("must say its zone: end it with Z or an offset")
    return round(moment.astimezone(UTC).timestamp() * 1000)


@click.group(name=NAME, invoke_without_command=True)
@click.option("--rebuild", is_flag=True, help="Make the database anew from Kafka and swap it in when it has caught up.")
@click.option(
    "--from", "since_ms", metavar="TIME", callback=_milliseconds, help="With --rebuild: what was received since then."
)
@click.pass_context
def command(context: click.Context, *, rebuild: bool, since_ms: int | None) -> None:
    """Keeps Instagram events in a DuckDB file, each exactly once, and serves figures of them on a live page.

    Settings are ANALYTICS_… environment variables.
    """
    if context.invoked_subcommand is not None:
        if rebuild:
            raise click.UsageError("--rebuild stands alone")
        return
    if since_ms is not None and not rebuild:
        raise click.UsageError("--from belongs to --rebuild")
    if rebuild:
        execute(NAME, Settings, lambda settings, stop: rebuild_database(settings, stop, since_ms=since_ms))
    else:
        execute(NAME, Settings, serve)


@command.command("export")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="A folder that does not exist yet.")
def export(to: Path) -> None:
    """Write all events as Parquet, a folder for each day and account; the consumer may run meanwhile."""

    async def work(settings: Settings, _: asyncio.Event) -> None:
        write_parquet(database=settings.database, snapshot=settings.snapshot_path, to=to)

    execute(NAME, Settings, work)


if __name__ == "__main__":
    command()
