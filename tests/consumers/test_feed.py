"""The live feed: what of an event everybody may see, how long it is kept, and what an unsend takes away."""

from typing import Any

import pytest

from consumers.analytics import feed as analytics_feed
from consumers.analytics.feed import EVENTS_MAX, Feed
from tests.consumers.samples import decoded, event, message


def shown(feed: Feed, *, since: int = 0) -> list[dict[str, Any]]:
    """The feed of all accounts, with texts."""
    return feed.after(since, account_id=None, with_text=True)


def test_feed_keeps_the_newest_and_counts_them_on() -> None:
    """A reader that comes later gets what came since its version, and never more than the newest hundred."""
    feed = Feed()
    feed.add(decoded(message()) for _ in range(EVENTS_MAX + 50))
    assert [entry["number"] for entry in shown(feed)] == list(range(51, EVENTS_MAX + 51))
    version = feed.version
    feed.add([decoded(message("one more"))])
    assert [(entry["number"], entry["text"]) for entry in shown(feed, since=version)] == [(EVENTS_MAX + 51, "one more")]
    assert feed.after(0, account_id="nobody", with_text=True) == []


def test_feed_tells_no_text_unless_asked() -> None:
    """What people wrote, buttons' titles among it, is nowhere else in an entry."""
    feed = Feed()
    tap = {"mid": "t", "title": "secret words", "payload": "p"}
    comment = {"id": "1", "text": "secret words"}
    feed.add(
        [
            decoded(message("secret words")),
            decoded(event("messaging_postbacks", postback=tap), record_name="MessagingPostbacks"),
            decoded(event("comments", value=comment), record_name="Comments"),
        ]
    )
    assert [entry["text"] for entry in shown(feed)] == ["secret words"] * 3
    hidden = feed.after(0, account_id=None, with_text=False)
    assert "secret" not in repr(hidden)
    assert [(entry["kind"], entry["summary"]) for entry in hidden] == [
        ("message", "text of 12 characters"),
        ("postback", "button"),
        ("change", "text of 12 characters"),
    ]


def test_feed_forgets_a_text_with_its_unsend_in_either_order() -> None:
    """Of the message and of its edits; other messages keep theirs; an unsend is remembered for those that are late."""
    feed = Feed()
    unsend = decoded(message("still there", part={"mid": "m-1", "is_deleted": True}))
    edit = decoded(
        event("message_edit", message_edit={"mid": "m-1", "text": "edited", "num_edit": 1}), record_name="MessageEdit"
    )
    feed.add([decoded(message("first", part={"mid": "m-1"})), edit, decoded(message("other", part={"mid": "m-2"}))])
    version = feed.version
    feed.add([unsend])
    assert [(entry["number"], entry["text"]) for entry in shown(feed, since=version)] == [
        (1, None),
        (2, None),
        (4, None),
    ]
    feed.add([decoded(message("late", part={"mid": "m-1"})), edit])
    assert [entry["text"] for entry in shown(feed)] == [None, None, "other", None, None, None]
    assert [entry["unsent"] for entry in shown(feed)] == [False, False, False, True, False, False]


def test_feed_remembers_a_bounded_number_of_unsends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten for the next: memory does not grow with what is unsent."""
    monkeypatch.setattr(analytics_feed, "UNSENT_MAX", 2)
    feed = Feed()
    feed.add(decoded(message(None, part={"mid": f"m-{number}", "is_deleted": True})) for number in range(3))
    feed.add(decoded(message("late", part={"mid": f"m-{number}"})) for number in range(3))
    assert [entry["text"] for entry in shown(feed)[3:]] == ["late", None, None]


def test_feed_shortens_what_was_made_long() -> None:
    """Types and texts are whatever was sent; an entry of the feed stays small."""
    feed = Feed()
    feed.add([decoded(message("x" * 100_000, part={"attachments": [{"type": "y" * 100_000}]}))])
    assert len(repr(shown(feed))) < 3_000
