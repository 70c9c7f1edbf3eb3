"""rules.example.yaml as somebody's shop would live with it: conversations of days, with people who answer in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from consumers.auto_reply.rules import load_rules
from tests.consumers.auto_reply_rules.deciding import NOW, Thread, said, texts
from tests.docs.markdown import ROOT

EXAMPLE = ROOT / "consumers/auto_reply/rules.example.yaml"

BOT = "I am a bot; a person reads along.\n\n"
HELLO = "Hi! What is it about?"
HOURS = "We are open from Monday to Friday, 9:00 to 18:00."
REST = "Thank you, we have your message and answer soon."
CLOSED = "We are closed now, and answer from 9:00."
PERSON = "A person will answer you here."

Step = tuple[float, str | None, dict[str, Any], str]
"""Hours since noon, the text, what the message has besides, and what becomes of it: the bot's text, or the reason for none."""

MENTION = {"attachments": [{"type": "story_mention", "payload": {"url": "https://cdn.example/1"}}]}


def tapped(payload: str) -> dict[str, Any]:
    """What a message has besides its text when it came by a quick reply."""
    return {"quick_reply": {"payload": payload}}


def played(steps: list[Step]) -> list[str]:
    """What becomes of each step."""
    thread = Thread(load_rules(EXAMPLE))
    became = []
    for hours, text, part, _ in steps:
        moment = NOW + timedelta(hours=hours)
        if part.get("is_echo"):
            thread.human(text or "", moment=moment)
            became.append("a person")
            continue
        decision = thread.customer(said(text, part=part, moment=moment))
        became.append((texts(decision) or [decision.reason])[0])
    return became


def test_days_of_a_customer_go_as_the_example_says() -> None:
    """Greeting, a tapped answer, an order, Anna who takes over, a night, a hand-over, and a month later all from the beginning.

    It begins on Sunday at 13:00 in Berlin, where the shop is.
    """
    steps: list[Step] = [
        (0.0, "Hey! 👋", {}, BOT + HELLO),
        (0.1, "Opening hours", tapped("HOURS"), HOURS),
        (0.2, "ok", {}, REST),
        (0.3, "hello???", {}, "cooldown"),
        (0.4, "where is order No. 10023", {}, "We look after order 10023 and write to you here."),
        (0.5, "It left today, Anna", {"is_echo": True}, "a person"),
        (0.6, "thanks! and order 10024?", {}, "human_answered"),
        (0.7, "That one too", {"is_echo": True}, "a person"),
        (12.6, "HEY, order 10025?!", {}, "human_answered"),
        (12.8, "order 10025?!", {}, "We look after order 10025 and write to you here."),
        (12.9, "anyone?", {}, CLOSED),
        (13.0, None, MENTION, "Thank you for mentioning us!"),
        (13.1, None, MENTION, "daily_cap"),
        (13.2, "A person", tapped("HUMAN"), PERSON),
        (14.0, "hello", {}, "handed_over"),
        (14.1, "is a HUMAN there", {}, "hand_over_word"),
        (38.0, "hi", {}, "handed_over"),
        (38.2, "hi", {}, HELLO),
        (38.3, None, {"attachments": [{"type": "image", "payload": {"url": "https://cdn.example/2"}}]}, CLOSED),
        (800.0, "Hi again", {}, BOT + HELLO),
    ]
    assert played(steps) == [expected for *_, expected in steps]


def test_story_of_a_person_who_was_first_gets_no_bot_in_between() -> None:
    """Somebody from the team wrote to the customer: what comes back is theirs, until they have been silent for half a day."""
    steps: list[Step] = [
        (0.0, "Hi, you won our raffle!", {"is_echo": True}, "a person"),
        (0.1, "hello, really?", {}, "human_answered"),
        (0.2, None, MENTION, "human_answered"),
        (11.9, "Opening hours", tapped("HOURS"), "human_answered"),
        (12.0, "Opening hours", tapped("HOURS"), BOT + HOURS),
    ]
    assert played(steps) == [expected for *_, expected in steps]
