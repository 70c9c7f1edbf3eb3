"""The outside of a consumer's process: settings, log, signals, exit codes. Nothing here knows what a consumer does."""

import asyncio
import logging
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Literal

import click
import structlog

from consumers.errors import ConsumerError
from consumers.settings import ConsumerSettings, SettingsT, load

REPEAT_INTERVAL_S = 10  # often enough for someone who watches, seldom enough for a log that is kept

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def command(
    name: str,
    summary: str,
    settings_class: type[SettingsT],
    main: Callable[[SettingsT, asyncio.Event], Awaitable[None]],
) -> click.Command:
    """The command line of a consumer, which takes nothing but `--help`: everything else is in the environment.

    Exit codes: 0 after SIGTERM or Ctrl-C, 1 when something failed (its lines on stderr say what), 2 for wrong usage.

    Args:
        name: As typed: `python -m consumers.analytics`.
        summary: One paragraph for `--help`.
        settings_class: What is read from the environment.
        main: Runs until the event is set; it then has to end by itself.
    """

    @click.command(name=name, help=summary)
    def run() -> None:
        execute(name, settings_class, main)

    return run


def execute(
    name: str, settings_class: type[SettingsT], main: Callable[[SettingsT, asyncio.Event], Awaitable[None]]
) -> None:
    """Loads the settings and runs `main`; for a consumer whose command line takes more than `--help`.

    Args, exit codes: As of `command`.
    """
    try:
        settings = load(settings_class)
        configure_log(settings.log_format)
        _say_what_has_no_effect(settings)
        asyncio.run(_until_stopped(settings, main))
    except ConsumerError as error:
        _fail(str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours: its text may hold content, its place never does
        place = traceback.extract_tb(error.__traceback__)[-1]
        _fail(f"a fault in {name}, please report it: {type(error).__name__} at {place.filename}:{place.lineno}")


def configure_log(log_format: Literal["console", "json"]) -> None:
    """Sends our log and the libraries' to stderr, one line per entry.

    aiokafka stays at warnings: at debug it logs keys and values of records.
    """
    fields: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_SayOnceInAWhile())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_without_traceback, *fields],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("consumers").setLevel(logging.INFO)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *fields,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _without_traceback(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's exception by its type and place: its text, and the variables around it, may hold contents."""
    exc_info = entry.pop("exc_info", None)
    if isinstance(exc_info, tuple) and exc_info[0] is not None:
        place = traceback.extract_tb(exc_info[2])[-1:]
        where = f" at {place[0].filename}:{place[0].lineno}" if place else ""
        entry["raised"] = f"{exc_info[0].__name__}{where}"
    return entry


class _SayOnceInAWhile(logging.Filter):
    """Lets each of aiokafka's complaints through once per interval: while a broker is away it has forty a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the entry is written; by its text before the values are put in, of which there are few."""
        if not record.name.startswith("aiokafka"):
            return True
        text = str(record.msg)
        if record.created - self._said_at.get(text, 0.0) < REPEAT_INTERVAL_S:
            return False
        self._said_at[text] = record.created
        return True


async def _until_stopped(settings: SettingsT, main: Callable[[SettingsT, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await main(settings, stop)


def _say_what_has_no_effect(settings: ConsumerSettings) -> None:
    for name in settings.set_without_effect():
        log.warning("setting_without_effect", variable=name, reason="a later version will use it")


def _fail(lines: str) -> None:
    for line in lines.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(1)
