"""A delivery: one POST as received, and the name it goes by. Does no IO, reads no clock."""

from __future__ import annotations

import msgspec


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One authentic POST, exactly as its bytes came.

    Attributes:
        body: the bytes that were signed.
        received_at: when the body was complete; milliseconds since the Unix epoch, UTC.
        delivery_id: our own name for this POST, 32 hex digits; a retry by Meta is another delivery with another one.
        app_secret_label: the label of the app secret that its signature matched.
        traceparent: of the span that it is taken in, as W3C's Trace Context has it; null when nothing is traced.
    """

    body: bytes
    received_at: int
    delivery_id: str
    app_secret_label: str
    traceparent: str | None = None
