"""`python -m consumers.analytics`: counts the events of all event topics, prints the counts and serves the page."""

import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from typing import Any, ClassVar

import structlog
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from consumers.analytics.counts import Counts
from consumers.analytics.page import Page, is_loopback, served
from consumers.analytics.report import report
from consumers.decoding import reader_schemas
from consumers.process import command
from consumers.settings import ConsumerSettings
from consumers.worker import Worker

log: structlog.stdlib.BoundLogger = structlog.get_logger("consumers.analytics")


class Settings(ConsumerSettings):
    """Every `ANALYTICS_…` variable that has an effect."""

    model_config = SettingsConfigDict(env_prefix="ANALYTICS_")
    not_used_yet: ClassVar[frozenset[str]] = frozenset({"ANALYTICS_DATABASE", "ANALYTICS_SNAPSHOT"})

    group_id: str = Field(default="instagram-analytics", min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(default=8082, ge=1, le=65535)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Counts, prints and serves until the event is set."""
    counts = Counts(started_at=datetime.now(UTC))
    worker = Worker(settings, webhook_fields=sorted(reader_schemas()), handle=counts.handle)

    def figures() -> dict[str, Any]:
        return counts.as_json() | {
            "topic_prefix": settings.topic_prefix,
            "dead_letters": worker.dead_letters,
        }

    page = Page(counts, figures=figures, host=settings.host)
    async with served(page, host=settings.host, port=settings.port, port_variable=settings.variable("port")):
        log.info("page", url=f"http://{settings.host}:{settings.port}/")
        if not is_loopback(settings.host):
            log.warning("page_open_to_others", reason="whoever reaches this address sees it: it asks for no password")
        printing = asyncio.create_task(report(counts, out=sys.stdout))
        try:
            await worker.run(stop)
        finally:
            printing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await printing


if __name__ == "__main__":
    command(
        "consumers.analytics",
        "Counts Instagram events per account and webhook field, prints the counts and serves a live page. "
        "Settings are ANALYTICS_… environment variables.",
        Settings,
        main,
    )()
