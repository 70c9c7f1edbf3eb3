"""More than the bridge wants to hold at once: it says so to those who bring too much, and serves the others."""

from __future__ import annotations

import contextlib

from bridge.intake import BYTES_HELD_MAX
from tests.http.wire import PATH, Connection, request
from tests.kafka.serving import Street, message, notification

LARGEST = BYTES_HELD_MAX // 2
STRANGER = request(
    *("POST", PATH, f"X-Hub-Signature-256: sha256={'0' * 64}", "Transfer-Encoding: chunked"),
    body=f"{LARGEST:x}\r\n".encode() + b" " * LARGEST,
)


async def test_uploads_that_stop_do_not_keep_deliveries_out(plain: Street) -> None:
    """Strangers who fill the bound on held bytes with unsigned bodies, and never end them, are nobody's outage."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            connection = await stack.enter_async_context(Connection.open(plain.serving.port))
            await connection.send(STRANGER)
        await plain.serving.until_counted("instagram_bridge_held_bytes", BYTES_HELD_MAX)

        answer = await plain.serving.deliver(notification(message("kept out")))

    await plain.serving.until_counted("instagram_bridge_held_bytes", 0)
    assert answer.status == 200
