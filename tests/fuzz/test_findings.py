"""What `make fuzz` found, each with the input that it came down to."""

from __future__ import annotations

import asyncio

from bridge.adapters.http import BODY_TIMEOUT_S
from tests.fuzz.edge import Edge
from tests.fuzz.requests import Signed

REPEATED = 20
"""Half of the deliveries are acknowledged later than the client hangs up."""


async def test_half_request_behind_the_last_answer_is_not_waited_for() -> None:
    """A client that ends its sending in the middle of a second request, while the first is published, is let go at once."""
    edge = await Edge.opened()
    whole, half = Signed(0).requests()[0], Signed(1).requests()[0][:-5]
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S / 2):
            for _ in range(REPEATED):
                assert await edge.sent([whole + half], hang_up=False)
    finally:
        await edge.close()


async def test_head_without_headers_in_pieces_is_refused() -> None:
    """Nobody has looked for the longest of no headers."""
    edge = await Edge.opened()
    try:
        for pieces in ([b"POST / HTTP/1.1\r\n\r\n"], [b"POST / HT", b"TP/1.1\r\n", b"\r\n"]):
            answered = await edge.sent(pieces, hang_up=False)
            assert answered is not None
            assert answered.startswith(b"HTTP/1.1 400 ")
    finally:
        await edge.close()
