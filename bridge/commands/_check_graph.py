"""`bridge doctor` asks Meta: the token, its permissions, what the account has subscribed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from bridge.adapters.graph import Graph
from bridge.commands._finding import Finding, clock, failure
from bridge.errors import Misconfigured
from bridge.settings import GraphSettings

_TOKEN_WARN_DAYS, _DAY_S = 7, 86_400
"""A working week to make a new one; Meta's long-lived tokens last sixty days."""


async def graph(settings: GraphSettings, app_secret: str | None, account: str) -> AsyncIterator[Finding]:
    """What Meta says of the token, its permissions, and what the account has subscribed."""
    if settings.graph_token is None:
        yield Finding("Graph API", "ok", "not asked: BRIDGE_GRAPH_TOKEN is not set")
        return
    async with Graph(settings, app_secret) as asked:
        try:
            token = await asked.token()
        except Misconfigured as error:
            yield failure("Graph token", f"Meta does not tell of it: {error}")._replace(outcome="warn")
        else:
            days = (token.expires_at - time.time()) / _DAY_S
            if not token.is_valid:
                yield Finding(
                    "Graph token", "fail", "Meta calls it invalid", "make a new one and set BRIDGE_GRAPH_TOKEN"
                )
            elif token.expires_at and days < _TOKEN_WARN_DAYS:
                yield Finding("Graph token", "warn", f"valid for {days:.1f} days more", "renew it")
            else:
                yield Finding("Graph token", "ok", f"valid{f' for {days:.0f} days more' if token.expires_at else ''}")
            lacking = ", ".join(token.missing)
            yield Finding(
                "Graph permissions",
                "fail" if lacking else "ok",
                f"missing: {lacking}" if lacking else f"{len(token.scopes)}, all that are needed",
                "give the token these in the app's dashboard" if lacking else "",
            )
        try:
            names = await asked.subscribed(account)
        except Misconfigured as error:
            yield failure("subscription", str(error))
        else:
            if "messages" in names:
                yield Finding("subscription", "ok", ", ".join(names))
            else:
                found = f"without messages: {', '.join(names) or 'nothing'}"
                yield Finding("subscription", "fail", found, "run `bridge subscribe ACCOUNT`")
        if told := clock(asked.date, "Meta"):
            yield told
