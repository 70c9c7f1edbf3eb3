"""What breaks strict parsers, all of it seen in the wild: deformed items, odd envelopes, the dashboard's own, no JSON at all.

Each quirk is one small function that returns something new and leaves its argument alone; bytes are a body as it is,
everything else is still JSON. What must become of each is for `truth` and the contract to say, not for this module. Does
no IO, reads no clock.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from bridge.local.meta import shapes
from bridge.local.meta.conversations import Item
from bridge.local.meta.shapes import Json

_TOO_DEEP = 70
"""Objects and arrays within one another, where the contract reads 64."""


def deformed(rng: Random, item: Item) -> Item:
    """The same item with one thing wrong with it."""
    if not isinstance(item.body, dict):
        return item
    if item.container in {"changes", "flat"}:
        return item._replace(body=item.body | {"field": "creator_marketplace_projects"})
    return item._replace(body=rng.choice(_OF_ITEMS)(rng, item.body))


def oddly_wrapped(rng: Random, notification: Json) -> object:
    """The same entries in another envelope."""
    return rng.choice(_OF_ENVELOPES)(notification)


def whole_body(rng: Random, account: str, now: int) -> object:
    """A whole body that belongs to no conversation; `now` in milliseconds."""
    return rng.choice(_WHOLE_BODIES)(rng, account, now)


def _ids_are_numbers(_: Random, item: Json) -> Json:
    # Larger than 2^53: a parser that reads numbers as doubles changes them.
    return item | {side: {"id": int(item[side]["id"])} for side in ("sender", "recipient") if side in item}


def _time_in_seconds(_: Random, item: Json) -> Json:
    return item | {"timestamp": item["timestamp"] // 1000}


def _time_is_text(_: Random, item: Json) -> Json:
    return item | {"timestamp": str(item["timestamp"])}


def _time_is_absurd(_: Random, item: Json) -> Json:
    return item | {"timestamp": 900_000_000_000_000_000}


def _no_time(_: Random, item: Json) -> Json:
    return {name: value for name, value in item.items() if name != "timestamp"}


def _two_keys(rng: Random, item: Json) -> Json:
    return item | {"referral": shapes.link_referral(rng)}


def _with_a_reaction(rng: Random, item: Json) -> Json:
    # Two keys, of which the message's comes first, wherever it stands.
    mid = next((value["mid"] for value in item.values() if isinstance(value, dict) and "mid" in value), "m_1")
    return {"reaction": shapes.reaction(rng, mid)} | item


def _ids_are_names(_: Random, item: Json) -> Json:
    return item | {side: {"id": f"igid:{item[side]['id']}"} for side in ("sender", "recipient") if side in item}


def _no_known_key(_: Random, item: Json) -> Json:
    kept = {name: item[name] for name in ("sender", "recipient", "timestamp") if name in item}
    return kept | {"delivery": {"watermark": item["timestamp"]}}


def _no_object(rng: Random, _: Json) -> object:
    return rng.choice(("an item should be an object", 17, None, [1.50, "ü"]))


def _no_mid(_: Random, item: Json) -> Json:
    return {
        name: {key: inner for key, inner in value.items() if key != "mid"} if isinstance(value, dict) else value
        for name, value in item.items()
    }


def _to_oneself(_: Random, item: Json) -> Json:
    return item | {"recipient": item["sender"]} if "sender" in item else item


def _lone_surrogate(_: Random, item: Json) -> Json:
    # Half an emoji: cut in the middle by somebody who counted UTF-16 units. Ids and reactions keep their meaning.
    return item | {"message": item["message"] | {"text": "cut in half \ud83d"}} if "message" in item else item


def _new_keys(_: Random, item: Json) -> Json:
    added: Json = {"shown_on": {"device": "brille", "price": 0.10}}
    if "message" in item:
        hologram = {"type": "hologram", "payload": {"depth_url": "https://cdn.instagram.example/h/1"}}
        added["message"] = item["message"] | {"attachments": [hologram], "folder": "general"}
    return item | added


_OF_ITEMS: tuple[Callable[[Random, Json], object], ...] = (
    _ids_are_numbers,
    _time_in_seconds,
    _time_is_text,
    _time_is_absurd,
    _no_time,
    _two_keys,
    _with_a_reaction,
    _ids_are_names,
    _no_known_key,
    _no_object,
    _no_mid,
    _to_oneself,
    _lone_surrogate,
    _new_keys,
)


def _in_an_array(notification: Json) -> object:
    return [notification]


def _entry_of_nobody(notification: Json) -> object:
    return notification | {"entry": [entry | {"id": "0"} for entry in notification["entry"]]}


def _entry_of_the_customer(notification: Json) -> object:
    # As Meta's samples of postbacks and referrals have it, whose entry.id is an IGSID.
    return notification | {"entry": [_named_by_its_sender(entry) for entry in notification["entry"]]}


def _named_by_its_sender(entry: Json) -> Json:
    senders = [item["sender"] for item in entry.get("messaging", ()) if isinstance(item, dict) and "sender" in item]
    return entry | senders[0] if senders else entry


def _one_event_twice(notification: Json) -> object:
    # In the place of another one, so that a full body stays one that Meta would send.
    repeated = [
        {name: [*value[:-1], value[0]] if isinstance(value, list) and value else value for name, value in entry.items()}
        for entry in notification["entry"]
    ]
    return notification | {"entry": repeated}


def _entry_without_time(notification: Json) -> object:
    kept = [{name: value for name, value in entry.items() if name != "time"} for entry in notification["entry"]]
    return notification | {"entry": kept}


_OF_ENVELOPES: tuple[Callable[[Json], object], ...] = (
    _in_an_array,
    _entry_of_nobody,
    _entry_of_the_customer,
    _entry_without_time,
    _one_event_twice,
)


def _changes(account: str, time: int, change: Json) -> Json:
    return {"object": "instagram", "entry": [{"id": account, "time": time, "changes": [change]}]}


def _test_value() -> Json:
    # As the App Dashboard's "Test" button of `messages` sends it: the time a string, in seconds.
    return {
        "sender": {"id": "12334"},
        "recipient": {"id": "23245"},
        "timestamp": "1527459824",
        "message": {"mid": "random_mid", "text": "random_text"},
    }


def _test_of_messages(_: Random, __: str, now: int) -> object:
    return _changes("0", now // 1000, {"field": "messages", "value": _test_value()})


def _test_of_comments(_: Random, __: str, now: int) -> object:
    value = {
        "from": {"id": "232323232", "username": "test"},
        "media": {"id": "123123123", "media_product_type": "FEED"},
        "id": "17865799348089039",
        "parent_id": "1231231234",
        "text": "This is an example.",
    }
    return _changes("0", now // 1000, {"field": "comments", "value": value})


def _bare_message(_: Random, __: str, ___: int) -> object:
    return {"field": "messages", "value": _test_value()}


def _bare_mention(rng: Random, _: str, __: int) -> object:
    return {"field": "mentions", "value": shapes.mention_value(rng)}


def _never_asked_for(rng: Random, account: str, now: int) -> object:
    value: dict[str, Any] = {"creator": shapes.digits(rng, 16), "budget": 1250.00}
    return _changes(account, now // 1000, {"field": "creator_marketplace_invited", "value": value})


def _of_a_page(rng: Random, account: str, now: int) -> object:
    item = {"sender": {"id": shapes.digits(rng, 16)}, "recipient": {"id": account}, "timestamp": now}
    message = {"message": {"mid": "m_" + shapes.digits(rng, 30), "text": "for a Facebook page"}}
    return {"object": "page", "entry": [{"id": account, "time": now, "messaging": [item | message]}]}


def _entry_without_items(_: Random, account: str, now: int) -> object:
    return {"object": "instagram", "entry": [{"id": account, "time": now}]}


def _nothing(_: Random, __: str, ___: int) -> object:
    return {"object": "instagram", "entry": []}


def _entry_no_array(_: Random, account: str, now: int) -> object:
    return {"object": "instagram", "entry": {"id": account, "time": now}}


def _no_object_at_all(rng: Random, _: str, __: int) -> object:
    return rng.choice(("instagram", None, 17))


def _too_deep(_: Random, account: str, now: int) -> object:
    value: object = {}
    for _level in range(_TOO_DEEP):
        value = [value]
    return {"object": "instagram", "entry": [{"id": account, "time": now, "messaging": [{"new": value}]}]}


def _cut_off(_: Random, account: str, now: int) -> object:
    return json.dumps({"object": "instagram", "entry": [{"id": account, "time": now}]}).encode()[:-3]


def _not_a_number(_: Random, account: str, now: int) -> object:
    return (
        f'{{"object":"instagram","entry":[{{"id":"{account}","time":{now},"messaging":[{{"price":NaN}}]}}]}}'.encode()
    )


def _not_utf8(_: Random, account: str, now: int) -> object:
    return f'{{"object":"instagram","entry":[{{"id":"{account}","time":{now},"new":"\xfc"}}]}}'.encode("latin-1")


def _a_form(_: Random, account: str, __: int) -> object:
    return f"object=instagram&entry={account}".encode()


_WHOLE_BODIES: tuple[Callable[[Random, str, int], object], ...] = (
    _test_of_messages,
    _test_of_comments,
    _bare_message,
    _bare_mention,
    _never_asked_for,
    _of_a_page,
    _entry_without_items,
    _nothing,
    _entry_no_array,
    _no_object_at_all,
    _too_deep,
    _cut_off,
    _not_a_number,
    _not_utf8,
    _a_form,
)
