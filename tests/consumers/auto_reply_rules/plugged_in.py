"""Deciders as somebody might write them; the tests' rules name them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

RELEASE = threading.Event()
"""Lets go of what hangs, at the end of a test."""


def shout(question: dict[str, Any]) -> dict[str, Any]:
    """Answers with what the customer wrote."""
    return {"reply": {"text": f"{{{question['event']['message']['text'].upper()}}}"}}


async def think(question: dict[str, Any]) -> dict[str, Any]:
    """Answers without a thread."""
    await asyncio.sleep(0)
    return {"reply": {"text": f"{question['rule']}: {question['conversation']['answers_in_24_h']}"}}


def nothing(_: dict[str, Any]) -> dict[str, Any]:
    """Wants no answer."""
    return {"reply": None}


def too_long(_: dict[str, Any]) -> dict[str, Any]:
    """Answers with more than Graph API takes."""
    return {"reply": {"text": 1001 * "a"}}


def no_answer(_: dict[str, Any]) -> str:
    """Answers in a shape of its own."""
    return "hello"


def half_a_character(_: dict[str, Any]) -> dict[str, Any]:
    """Answers with what no request can carry."""
    return {"reply": {"generic_template": [{"title": "\ud800", "subtitle": "s"}]}}


def broken(_: dict[str, Any]) -> dict[str, Any]:
    """Fails."""
    raise LookupError("what the customer wrote")


def gone(_: dict[str, Any]) -> dict[str, Any]:
    """Tries to end the process."""
    raise SystemExit(3)


def hang(_: dict[str, Any]) -> dict[str, Any]:
    """Takes too long, in a thread."""
    RELEASE.wait()
    return {"reply": {"text": "late"}}


async def hang_in_the_loop(_: dict[str, Any]) -> dict[str, Any]:
    """Takes too long, in the loop."""
    await asyncio.Event().wait()
    return {"reply": {"text": "late"}}
