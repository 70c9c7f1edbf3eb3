"""A stand-in for Meta's Graph API: tokens, permissions and subscriptions of one account, over HTTP on 127.0.0.1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bridge.local.jvm import free_port

ACCOUNT, TOKEN = "17841400000000001", "IGAA-a-token-that-nobody-should-see"
KNOWN = {
    *(
        "agent_messages",
        "messages",
        "messaging_postbacks",
        "messaging_seen",
        "messaging_handover",
        "messaging_referral",
    ),
    *("messaging_optins", "message_reactions", "message_edit", "standby"),
    *("comments", "live_comments", "mentions", "story_insights"),
}
"""Meta's own list, as its error text gives it."""


@dataclass
class StandIn:
    """Its state, for a test to set and to read.

    Attributes:
        posts: the fields of every call that subscribed.
        date: of every answer; None for the real time.
    """

    scopes: list[str] = field(
        default_factory=lambda: ["instagram_business_basic", "instagram_business_manage_messages"]
    )
    subscribed: list[str] = field(default_factory=list)
    posts: list[list[str]] = field(default_factory=list)
    is_valid: bool = True
    expires_at: int = 0
    date: str | None = None
    url: str = ""


def refusal(code: int, message: str, status: int = 400) -> web.Response:
    """As Meta says no."""
    error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A"}
    return web.json_response({"error": error}, status=status)


@asynccontextmanager
async def standing_in() -> AsyncIterator[StandIn]:
    """Serves until the context ends."""
    state = StandIn()

    async def answer(request: web.Request) -> web.Response:
        response = await _answer(request, state)
        if state.date is not None:
            response.headers["Date"] = state.date
        return response

    application = web.Application()
    application.router.add_route("*", "/v25.0/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    state.url = f"http://127.0.0.1:{port}/v25.0"
    try:
        yield state
    finally:
        await runner.cleanup()


async def _answer(request: web.Request, state: StandIn) -> web.Response:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return refusal(190, f"Invalid OAuth access token {TOKEN}", 401)
    path = request.match_info["path"]
    if path == "debug_token":
        told: dict[str, Any] = {"is_valid": state.is_valid, "expires_at": state.expires_at, "scopes": state.scopes}
        return web.json_response({"data": told})
    if path not in (f"{ACCOUNT}/subscribed_apps", "me/subscribed_apps"):
        return refusal(100, "Unsupported request. Object does not exist")
    if request.method == "POST":
        wanted = request.query["subscribed_fields"].split(",")
        state.posts.append(wanted)
        if set(wanted) - KNOWN:
            return refusal(100, "Param subscribed_fields[0] must be one of {…}")
        state.subscribed = wanted
        return web.json_response({"success": True})
    return web.json_response({"data": [{"id": "1", "subscribed_fields": state.subscribed}] if state.subscribed else []})
