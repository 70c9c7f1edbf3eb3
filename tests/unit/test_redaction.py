"""Redaction: nothing of anybody survives it, and the street sees the same shapes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import Unreadable
from bridge.local.meta.deliveries import Plan, deliveries
from bridge.redaction import Redactor
from tests.unit.street import decoded, item, record, records, wrapped

SEED = sorted((Path(__file__).parents[1] / "vectors" / "seed").rglob("*.json"))
TRAFFIC = [each.body for each in islice(deliveries(Plan(seed=5, start_ms=1_795_338_000_000, quirks=0.3)), 400)]
BODIES = [*(path.read_bytes() for path in SEED), *TRAFFIC]

PRIVATE_CHARACTERS_MIN = 6  # a shorter one may come about by chance
METAS = re.compile(  # what may survive: Meta's own values in these bodies, which name nobody
    r"instagram|template|story_mention|unsupported_type|ephemeral|like_heart|unreact|notification_messages|OPEN_THREAD|IGME-SOURCE-LINK"
    r"|(live_)?comments|mentions|story_insights|messages|postback|general|ig_(post|reel|story)"
)

redactor = Redactor(b"the same in every test")


def strings(value: object) -> Iterator[str]:
    """Every string value of a body, and its long numbers; keys and times aside."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in {"time", "timestamp", "watermark"}:
                yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield str(value)


def redacted(bodies: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Those that can be, each with what becomes of it."""
    for body in bodies:
        with contextlib.suppress(Unreadable):
            yield body, redactor.redact(body)


READABLE = list(redacted(BODIES))


def test_redacted_bodies_hold_no_id_text_or_url_of_the_originals() -> None:
    """Of Meta's examples and of 400 made-up deliveries: no string of six characters, wherever it stood."""
    private = {
        text
        for body, _ in READABLE
        for text in strings(json.loads(body))
        if len(text) >= PRIVATE_CHARACTERS_MIN and not METAS.fullmatch(text)
    }
    assert len(private) > 1000
    kept = "\n".join(text for _, after in READABLE for text in strings(json.loads(after)))
    assert [text for text in private if text in kept] == []
    assert set(re.findall(r"https?://([^/?]*)", kept)) == {"media.example"}


@pytest.mark.parametrize(("body", "after"), READABLE[: len(SEED) + 100], ids=lambda _: "")
def test_redacted_body_walks_to_the_same_webhook_fields(body: bytes, after: bytes) -> None:
    """As many records, in the same topics, and null where there was null."""
    made, again = records(body), records(after)
    assert [one.topic for one in again] == [one.topic for one in made]
    for one, other in zip(made, again, strict=True):
        shapes = [{key: value is None for key, value in decoded(each).items()} for each in (one, other)]
        assert shapes[0] == shapes[1]


def test_redacted_events_are_as_many_different_ones_as_before() -> None:
    """Redeliveries stay redeliveries, and no two events become one."""

    def event_ids(bodies: Iterable[bytes]) -> list[bytes | None]:
        return [dict(one.headers).get("ce_id") for body in bodies for one in records(body)]

    before, after = (event_ids(bodies) for bodies in zip(*READABLE, strict=True))
    assert len(set(before)) == len(set(after)) == len(set(zip(before, after, strict=True)))


def test_id_is_the_same_everywhere_as_a_string_and_as_a_number() -> None:
    """The account, its party and its mention in another body stay one."""
    one = json.loads(redactor.redact(b'{"id":"17841400000000001","ad_id":17841400000000001}'))
    other = json.loads(redactor.redact(b'{ "sender": [{"id": "\\u00317841400000000001"}] }'))
    assert one["id"] == str(one["ad_id"]) == other["sender"][0]["id"] != "17841400000000001"
    assert len(one["id"]) == 17
    another = json.loads(Redactor(b"another recording").redact(b'{"id":"17841400000000001"}'))
    assert another["id"] != one["id"]


def test_shape_of_a_literal_is_kept_to_the_last_escape() -> None:
    """Spaces, escapes, pairs and halves of them, joiners, case and punctuation; the rest is another character."""
    text = r'"Ab, \u00e4\u00c4 9-07 \ud83d\ude0d \ud83d! \n\"\/\\ \u200d ❤️ 😍 дом 家"'
    (after,) = re.findall(r'"text" : (".*")', redactor.redact(f'{{"text" : {text}}}'.encode()).decode())
    assert len(after) == len(text)
    for one, other in zip(json.loads(text), json.loads(after), strict=True):
        kept = one in ' ,-!\n"/\\0\u200d\ufe0f\ud83d'
        assert (one == other) == kept, (one, other)
        assert (one.isupper(), one.isdigit()) == (other.isupper(), other.isdigit()) or not one.isascii()
    assert re.sub(r"[0-9a-f]{4}", "xxxx", after).count(r"\uxxxx") == text.count(r"\u")


def test_metas_words_flags_times_and_short_numbers_stay() -> None:
    """What decides how an item is read, and counts; the same word as a text does not."""
    kept = '"message":{"is_echo":"true","attachments":[{"type":"ig_reel"}],"num_edit":"12345","new":[-1, 1234, 1e3, true, null]}'
    body = wrapped(item(kept))
    after = json.loads(redactor.redact(body))["entry"][0]["messaging"][0]
    message = after["message"]
    assert (message["is_echo"], message["attachments"], message["num_edit"]) == ("true", [{"type": "ig_reel"}], "12345")
    assert after["timestamp"] == json.loads(body)["entry"][0]["messaging"][0]["timestamp"]
    assert [*message.values()][-1] == [-1, 1234, 1000.0, True, None]
    assert json.loads(redactor.redact(b'{"text":"ig_reel","title":"true"}')) != {"text": "ig_reel", "title": "true"}


def test_unknown_names_are_replaced_unless_they_are_to_be_kept() -> None:
    """A key that nobody knows could be a name; whoever wants to show what is new keeps it, and its text still goes."""
    body = b'{"shown_on":"kitchen","type":"hologram","field":"creator_news","Anna Mueller":"x","12345678":1}'
    assert not re.search(rb"shown_on|kitchen|hologram|creator_news|Anna|12345678", redactor.redact(body))
    kept = Redactor(b"k", keep_names=True).redact(body)
    assert re.findall(rb"shown_on|kitchen|hologram|creator_news|Anna|12345678", kept) == [
        *(b"shown_on", b"hologram", b"creator_news"),
    ]


@pytest.mark.parametrize("body", [b"", b"not JSON", b"\xff", b'{"a":NaN}', b"[" * 65 + b"]" * 65, b'{"a":1} x'])
def test_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    """What is no JSON has no places where ids stand, so nothing of it is kept."""
    with pytest.raises(Unreadable):
        redactor.redact(body)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_any_json_stays_json_of_the_same_shape(value: object, escaped: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """The same types at the same places, and the same again when redacted again with the same key."""
    body = json.dumps(value, ensure_ascii=escaped, indent=1).encode("utf-8", "surrogatepass")
    after = redactor.redact(body)
    assert redactor.redact(body) == after
    assert re.sub(rb'"(?:[^"\\]|\\.)*"|[-+0-9.eE]+', b"", after) == re.sub(rb'"(?:[^"\\]|\\.)*"|[-+0-9.eE]+', b"", body)
    assert type(json.loads(after)) is type(json.loads(body))


def test_sample_of_a_message_is_typed_like_the_message() -> None:
    """Attachment, reply and referral are where they were."""
    body = wrapped(item('"message":{"mid":"m_1","text":"Grüße","reply_to":{"mid":"m_0"},"referral":{"ad_id":1234567}}'))
    before, after = decoded(record(body))["message"], decoded(record(redactor.redact(body)))["message"]
    assert len(after["text"].encode()) == len(before["text"].encode())
    assert re.fullmatch(r"[a-z]_[1-9]", after["mid"])
    assert re.fullmatch(r"[1-9][0-9]{6}", after["referral"]["ad_id"])
