"""The conditions of rules, each one met and missed: what an event is, and what time it is where the rule says."""

from __future__ import annotations

from datetime import datetime

import pytest

from consumers.decoding import Event
from tests.consumers.auto_reply_rules.deciding import POSTBACK, REFERRAL, came, decision_on, rule, said
from tests.consumers.samples import ACCOUNT

STORY = {"story": {"id": "1", "url": "https://cdn.example/1"}}
MENTION = [{"type": "story_mention", "payload": {"url": "https://cdn.example/2"}}]


@pytest.mark.parametrize(
    ("when", "happened", "held"),
    [
        ("{any_message: true}", said(None), True),
        ("{any_message: true}", came("messaging_postbacks", postback=POSTBACK), False),
        ("{any_message: true}", came("messaging_referral", referral=REFERRAL), False),
        ("{quick_reply: [A, B]}", said("b", part={"quick_reply": {"payload": "B"}}), True),
        ("{quick_reply: [A, B]}", said("b", part={"quick_reply": {"payload": "b"}}), False),
        ("{quick_reply: true}", said("b", part={"quick_reply": {"payload": "B"}}), True),
        ("{quick_reply: true}", said("b"), False),
        ("{postback: [HOURS]}", came("messaging_postbacks", postback=POSTBACK), True),
        ("{postback: [OTHER]}", came("messaging_postbacks", postback=POSTBACK), False),
        ("{postback: true}", came("messaging_postbacks", postback=POSTBACK | {"payload": None, "mid": None}), True),
        ("{postback: [HOURS]}", said("HOURS", part={"quick_reply": {"payload": "HOURS"}}), False),
        ("{story: [reply]}", said("nice", part={"reply_to": STORY}), True),
        ("{story: [reply]}", said("nice", part={"reply_to": {"mid": "m"}}), False),
        ("{story: [mention]}", said(None, part={"attachments": MENTION}), True),
        ("{story: [reply]}", said(None, part={"attachments": MENTION}), False),
        ("{story: [mention, reply]}", said("nice", part={"reply_to": STORY}), True),
        ("{referral_ref: [flyer-7]}", came("messaging_referral", referral=REFERRAL), True),
        ("{referral_ref: [flyer-7]}", said("hi", part={"referral": REFERRAL}), True),
        ("{referral_ref: [flyer-7]}", said("hi", referral=REFERRAL), True),
        ("{referral_ref: true}", came("messaging_postbacks", postback=POSTBACK | {"referral": REFERRAL}), True),
        ("{referral_ref: true}", came("messaging_referral", referral=REFERRAL | {"ref": None}), False),
        ("{referral_ref: [flyer]}", came("messaging_referral", referral=REFERRAL), False),
        ("{ad_id: [120]}", said("hi", part={"referral": REFERRAL}), True),
        ("{ad_id: ['121']}", said("hi", part={"referral": REFERRAL}), False),
        ("{ad_id: true}", said("hi"), False),
        ("{attachment_type: [image, ig_reel]}", said(None, part={"attachments": [{"type": "ig_reel"}]}), True),
        ("{attachment_type: [image]}", said(None, part={"attachments": [{"type": "ig_reel"}, {"type": None}]}), False),
        ("{attachment_type: true}", said(None, part={"attachments": [{"type": "of_tomorrow"}]}), True),
        ("{attachment_type: true}", said("hi", part={"attachments": []}), False),
        (f"{{account: [{ACCOUNT}]}}", said("hi"), True),
        ("{account: [1]}", said("hi"), False),
        ("{first_message: true}", said("hi"), True),
        ("{first_message: false}", said("hi"), False),
        ("{text_contains: [hi], account: [1]}", said("hi"), False),
        ("{text_contains: [hi], first_message: true, any_message: true}", said("hi"), True),
    ],
)
def test_condition_holds_for_what_it_names_and_for_nothing_else(when: str, happened: Event, held: bool) -> None:  # noqa: FBT001 - a case
    """Every condition, met and missed; several in one rule all have to hold."""
    assert (decision_on(happened, rule(when)).rule == "a") == held


BERLIN = "zone: Europe/Berlin"


@pytest.mark.parametrize(
    ("time", "now", "held"),
    [
        ("from: 09:00, to: 18:00", "2026-11-22T08:00:00Z", True),
        ("from: 09:00, to: 18:00", "2026-11-22T07:59:59Z", False),
        ("from: 09:00, to: 18:00", "2026-11-22T16:59:59Z", True),
        ("from: 09:00, to: 18:00", "2026-11-22T17:00:00Z", False),
        # In summer the same hours are an hour earlier in UTC; on 2026-10-25 at 03:00 clocks go back to 02:00.
        ("from: 09:00, to: 18:00", "2026-07-01T07:00:00Z", True),
        ("from: 02:30, to: 03:00", "2026-10-25T00:30:00Z", True),
        ("from: 02:30, to: 03:00", "2026-10-25T01:30:00Z", True),
        ("from: 02:30, to: 03:00", "2026-10-25T02:00:00Z", False),
        # On 2026-03-29 there is no 02:30.
        ("from: 02:30, to: 03:00", "2026-03-29T01:00:00Z", False),
        ("from: 22:00, to: 06:00", "2026-11-22T23:00:00Z", True),
        ("from: 22:00, to: 06:00", "2026-11-22T04:59:00Z", True),
        ("from: 22:00, to: 06:00", "2026-11-22T05:00:00Z", False),
        ("from: 00:00, to: 24:00, days: [sun]", "2026-11-22T22:59:59Z", True),
        ("from: 00:00, to: 24:00, days: [sun]", "2026-11-22T23:00:00Z", False),
        # The night from Friday to Saturday is Friday's.
        ("from: 22:00, to: 06:00, days: [fri]", "2026-11-21T03:00:00Z", True),
        ("from: 22:00, to: 06:00, days: [fri]", "2026-11-20T03:00:00Z", False),
        ("from: 22:00, to: 24:00, days: [fri]", "2026-11-20T22:59:00Z", True),
        ("from: 22:00, to: 24:00, days: [fri]", "2026-11-20T23:00:00Z", False),
    ],
)
def test_time_of_day_is_the_places_own(time: str, now: str, held: bool) -> None:  # noqa: FBT001 - a case
    """By the clocks of the place, over midnight and through both changes of daylight saving time."""
    moment = datetime.fromisoformat(now)
    decision = decision_on(said("hi", moment=moment), rule(f"{{time: {{{time}, {BERLIN}}}}}"), now=moment)
    assert (decision.rule == "a") == held
