"""`python -m consumers.auto_reply`: answers customers by rules, each event once at most. `… rules` checks and tries a rules file."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import click
import structlog

from consumers.auto_reply.accounts import Accounts
from consumers.auto_reply.deciders import Deciders
from consumers.auto_reply.entries import Encoder
from consumers.auto_reply.figures import Figures
from consumers.auto_reply.graph import Graph
from consumers.auto_reply.replier import Replier
from consumers.auto_reply.rules import load_rules
from consumers.auto_reply.rules_command import rules as rules_command
from consumers.auto_reply.settings import Settings
from consumers.auto_reply.tokens import Tokens
from consumers.auto_reply.tools import Tools, present
from consumers.decoding import AUTO_REPLIES, Decoder, packaged_text
from consumers.errors import ConsumerError, RegistryUnavailableError
from consumers.process import command
from consumers.registry import SchemaRegistry

TOKENS_INTERVAL_S = 2.0  # between two looks at the file of tokens; a person waits for it

log: structlog.stdlib.BoundLogger = structlog.get_logger("consumers.auto_reply")


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Loads rules and tokens, and answers until the event is set."""
    rules = load_rules(settings.rules)
    for warning in rules.warnings:
        log.warning("rules_warning", about=warning)
    log.info("rules_loaded", rules=[rule.name for rule in rules.rules], dry_run=not settings.sends)
    if not settings.sends and not settings.dry_run:
        log.warning(
            "sends_nothing", remedy="set AUTO_REPLY_GRAPH_URL and AUTO_REPLY_TOKENS_FILE, or AUTO_REPLY_DRY_RUN=true"
        )
    tokens = Tokens(settings.tokens.get_secret_value() if settings.tokens else None, settings.tokens_file)
    accounts = Accounts(tokens, rate_per_s=settings.account_rate_per_s)
    figures = Figures()
    async with contextlib.AsyncExitStack() as exits:
        tools = Tools(
            rules=rules,
            deciders=await exits.enter_async_context(Deciders(rules)),
            accounts=accounts,
            graph=await exits.enter_async_context(
                Graph(str(settings.graph_url), login=settings.graph_login, tokens=tokens)
            ),
            figures=figures,
            event_age_max=timedelta(seconds=settings.event_age_max_s),
            unknown_after=timedelta(seconds=settings.unknown_after_s),
            dry_run=not settings.sends,
            now=present,
        )
        url = settings.schema_registry_url
        registry = await exits.enter_async_context(SchemaRegistry(str(url))) if url else None
        replier = Replier(
            settings,
            tools,
            looks_back=max(rules.looks_back, tools.event_age_max),
            decoder=Decoder(topic_prefix=settings.topic_prefix, registry=registry),
            encoder=Encoder(await _schema_id(registry, settings) if registry else None),
        )
        _show(figures, accounts, replier)
        if settings.metrics_port is not None:
            exits.callback(figures.serve(settings.metrics_host, settings.metrics_port))
        await exits.enter_async_context(_reloading(tokens, accounts))
        await replier.run(stop)


GAUGES = {
    "accounts_stopped": "Accounts that send nothing until somebody mends it.",
    "partitions": "Partitions that this process has.",
    "without_outcome": "Intents that wait for Graph API's answer or for an echo.",
    "waiting": "Events that wait for their turn or their answer.",
}


def _show(figures: Figures, accounts: Accounts, replier: Replier) -> None:
    reads: dict[str, Callable[[], float]] = {
        "accounts_stopped": accounts.stopped,
        "partitions": lambda: len(replier.partitions),
        "without_outcome": lambda: sum(partition.without_outcome for partition in list(replier.partitions.values())),
        "waiting": lambda: sum(partition.waiting for partition in list(replier.partitions.values())),
    }
    for name, meaning in GAUGES.items():
        figures.gauge(name, meaning, reads[name])


async def _schema_id(registry: SchemaRegistry, settings: Settings) -> int:
    subject = f"{settings.topic_prefix}.{AUTO_REPLIES}-value"
    try:
        schema_id = await registry.schema_id(subject, packaged_text("AutoReplies"))
    except RegistryUnavailableError as error:
        raise ConsumerError(str(error)) from None
    if schema_id is None:
        raise ConsumerError(f"subject {subject} has not the schema of this version: run `bridge schemas register`")
    return schema_id


@contextlib.asynccontextmanager
async def _reloading(tokens: Tokens, accounts: Accounts) -> AsyncIterator[None]:
    """Takes new tokens when their file changes; on SIGHUP also lets every stopped account try again."""

    def reload(*, everybody: bool) -> None:
        try:
            changed = tokens.reload()
        except ConsumerError as error:
            log.error("tokens_not_reloaded", reason=str(error))  # noqa: TRY400 - the line says it, a traceback no more
            return
        log.info("tokens_reloaded", changed=sorted(changed))
        accounts.resume(None if everybody else changed)

    async def watch() -> None:
        while True:
            await asyncio.sleep(TOKENS_INTERVAL_S)
            if tokens.has_changed():
                reload(everybody=False)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: reload(everybody=True))
    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        loop.remove_signal_handler(signal.SIGHUP)


@click.group(
    name="consumers.auto_reply",
    invoke_without_command=True,
    help="Answers Instagram messages by the rules in AUTO_REPLY_RULES, each event once at most, and records every decision in "
    "`<prefix>.auto_replies`. Settings are AUTO_REPLY_… environment variables.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Runs the consumer when no command is named."""
    if context.invoked_subcommand is None:
        context.invoke(command("consumers.auto_reply", "", Settings, main))


cli.add_command(rules_command)

if __name__ == "__main__":
    cli()
