"""Requests as Meta sends them, rendered and signed before any clock starts. Does no IO, reads no clock.

Text messages, as most of Meta's traffic is: a mid of 170 characters, ids of 15 to 17 digits, non-ASCII escaped. Mids are
distinct, and conversations many, so that every partition is hit and no server can win by remembering.
"""

from __future__ import annotations

import base64
import json
from random import Random

from bridge.local.meta.shapes import TEXTS, account_id, customer_id
from bridge.local.meta.signing import SIGNATURE_HEADER, signature

PATH = "/webhooks/instagram"

POOL_DELIVERIES_MIN, POOL_DELIVERIES_MAX, POOL_EVENTS = 64, 20_000, 100_000
"""How many distinct requests are made, in deliveries and, within these, in events: 45 MB. Then they begin anew."""

CUSTOMERS = 10_000
"""Conversations, spread over the accounts: about as many as are active at one time at a large business."""

_START_MS = 1_780_000_000_000
_ENTRY_EVENTS_MAX = 25
"""Events in one entry; Meta groups the updates of one account, and a large body holds several accounts."""

_MID_PREFIX = "aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlEOj"
_MID_RANDOM_BYTES = 99  # 132 characters of base64: with prefix and suffix 170
_TEXTS = [json.dumps(text) for text in TEXTS]


def requests(*, events: int, accounts: int, secret: str, seed: int, authority: str) -> list[bytes]:
    """Complete POST requests with ``events`` events each, signed with ``secret``; equal arguments, equal bytes.

    Another seed gives other mids from the same conversations: those of a business go on, they are not all new at once.
    """
    rng = Random(0)  # noqa: S311 - made-up customers, repeatable: nothing here is secret
    customers_each = max(1, CUSTOMERS // accounts)
    world = [(account_id(rng), [customer_id(rng) for _ in range(customers_each)]) for _ in range(accounts)]
    rng.seed(seed)
    count = max(POOL_DELIVERIES_MIN, min(POOL_DELIVERIES_MAX, POOL_EVENTS // events))
    return [_request(_body(rng, world, events, _START_MS + number), secret, authority) for number in range(count)]


def _body(rng: Random, world: list[tuple[str, list[str]]], events: int, now: int) -> bytes:
    entries = []
    for begin in range(0, events, _ENTRY_EVENTS_MAX):
        account, customers = rng.choice(world)
        items = [_item(rng, account, customers, now) for _ in range(min(_ENTRY_EVENTS_MAX, events - begin))]
        entries.append(f'{{"id":"{account}","time":{now},"messaging":[{",".join(items)}]}}')
    return f'{{"object":"instagram","entry":[{",".join(entries)}]}}'.encode("ascii")


def _item(rng: Random, account: str, customers: list[str], now: int) -> str:
    mid = f"{_MID_PREFIX}{base64.b64encode(rng.randbytes(_MID_RANDOM_BYTES)).decode()}ZD"
    return (
        f'{{"sender":{{"id":"{rng.choice(customers)}"}},"recipient":{{"id":"{account}"}},"timestamp":{now - 300},'
        f'"message":{{"mid":"{mid}","text":{rng.choice(_TEXTS)}}}}}'
    )


def _request(body: bytes, secret: str, authority: str) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: facebookexternalua\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\n{SIGNATURE_HEADER}: {signature(body, secret)}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
