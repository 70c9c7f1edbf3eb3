"""`bridge subscribe`: an account's webhook fields, through the Graph API; every name is checked before the call."""

from __future__ import annotations

import asyncio
import difflib
import json
from pathlib import Path
from typing import NamedTuple

import click

from bridge.adapters.graph import INSTAGRAM_FIELDS, PAGE_FIELDS, PAGE_NAMES, Graph
from bridge.commands._shared import completing, fitting_table, output_option
from bridge.errors import Misconfigured
from bridge.event import OTHER, WEBHOOK_FIELDS
from bridge.settings import GraphSettings, load


class _Outcome(NamedTuple):
    """The fields before and after, and the permissions that the token lacks; None where Meta does not tell."""

    before: list[str]
    after: list[str]
    missing: list[str] | None


@click.command("subscribe")
@click.argument("account")
@click.argument("webhook_fields", metavar="[FIELD]...", nargs=-1, shell_complete=completing(INSTAGRAM_FIELDS))
@click.option("--page", is_flag=True, help="ACCOUNT is a Facebook Page, which has other names for some fields.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@output_option
@click.pass_obj
def command(
    env_file: Path | None, *, account: str, webhook_fields: tuple[str, ...], page: bool, dry_run: bool, output: str
) -> None:
    """Subscribe ACCOUNT, by its Instagram id, to webhook FIELDs; without any, to all that have a topic.

    What is subscribed already stays. Each name is checked first, because Meta refuses all for one that is wrong, and the
    token's permissions are looked at. Needs BRIDGE_GRAPH_TOKEN. The app's own subscription is made in Meta's dashboard.

    \b
    bridge subscribe 17841400000000001 --dry-run
    bridge subscribe 17841400000000001 messages message_reactions messaging_postbacks
    """  # noqa: D301 - click's mark for lines that stay as they are
    if not account.isascii() or not account.isdigit():
        raise click.BadParameter("an account's id is digits, as in the dashboard, and no name", param_hint="ACCOUNT")
    known = PAGE_FIELDS if page else INSTAGRAM_FIELDS
    wanted = webhook_fields or _all(page=page)
    if wrong := [name for name in wanted if name not in known]:
        raise click.BadParameter("; ".join(_wrong(name, known) for name in wrong), param_hint="FIELD")
    settings, _ = load(GraphSettings, env_file)
    outcome = asyncio.run(_subscribe(settings, account, wanted, dry_run=dry_run))
    _show(outcome, account, dry_run=dry_run, output=output)
    if outcome.missing:
        raise Misconfigured(
            f"the token lacks {', '.join(outcome.missing)}: give it these, or no direct message will come"
        )
    if lacking := sorted(set(wanted) - set(outcome.after)):
        raise Misconfigured(
            f"Meta took it and does not list {', '.join(lacking)}: see the app's dashboard, under Webhooks"
        )


def _all(*, page: bool) -> tuple[str, ...]:
    names = [name for name in WEBHOOK_FIELDS if name != OTHER]
    return (
        tuple(PAGE_NAMES.get(name, name) for name in names if name in PAGE_FIELDS + tuple(PAGE_NAMES))
        if page
        else tuple(names)
    )


def _wrong(name: str, known: tuple[str, ...]) -> str:
    other_names = PAGE_NAMES | {there: here for here, there in PAGE_NAMES.items()}
    near = [other_names[name]] if other_names.get(name) in known else difflib.get_close_matches(name, known, 1)
    return f"there is no webhook field {name!r}" + (f", but {near[0]}" if near else f": {', '.join(known)}")


async def _subscribe(settings: GraphSettings, account: str, wanted: tuple[str, ...], *, dry_run: bool) -> _Outcome:
    async with Graph(settings) as graph:
        before = await graph.subscribed(account)
        try:
            token = await graph.token()
        except Misconfigured as error:  # a token of Instagram Login may not be told of itself; the call decides then
            click.echo(f"the token's permissions are not known: {error}", err=True)
            missing = None
        else:
            if not token.is_valid:
                raise Misconfigured("Meta calls the token invalid: make a new one and set BRIDGE_GRAPH_TOKEN")
            missing = token.missing
        together = sorted({*before, *wanted})
        if dry_run or missing:
            return _Outcome(before, together if dry_run else before, missing)
        if together != before:
            await graph.subscribe(account, together)
        return _Outcome(before, await graph.subscribed(account), missing)


def _show(outcome: _Outcome, account: str, *, dry_run: bool, output: str) -> None:
    before, after, missing = outcome
    if output == "json":
        told = {
            "account": account,
            "dry_run": dry_run,
            "before": before,
            "after": after,
            "missing_permissions": missing,
        }
        click.echo(json.dumps(told))
        return
    rows = [
        [name, "yes" if name in before else "no", "yes" if name in after else "no"]
        for name in sorted({*before, *after})
    ]
    click.echo(fitting_table([["webhook field", "before", "after"], *rows]))
    if dry_run:
        click.echo("nothing was changed; leave --dry-run out to do it")
    elif before == after:
        click.echo(f"account {account} was left as it was")
    else:
        click.echo(f"account {account} is subscribed to {len(after)} webhook fields")
