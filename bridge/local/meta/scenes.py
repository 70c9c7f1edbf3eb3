"""What people do in a conversation: scenes of one or a few steps, each with its moment in event time. No IO, no clock.

A scene is played when somebody acts: it yields what happens now and what follows from it (the second message, the
second thought, the answer minutes later, the read receipt), all of it planned ahead.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

from bridge.local.meta import shapes
from bridge.local.meta.shapes import Json, chance

Side = Literal["customer", "account", "nobody"]
"""Who acts, and is the item's sender; an item of nobody names neither sender nor recipient."""

# Medians and widths (sigma of the logarithm) of log-normal waiting times: most people answer within minutes, some
# the next day. 24 hours is how long Meta lets a business answer, so nothing waits longer.
_ANSWER_MEDIAN_S, _ANSWER_SIGMA = 240.0, 1.2
_READ_MEDIAN_S, _READ_SIGMA = 90.0, 1.3
_WAIT_MS_MAX = 24 * 3600 * 1000

# Messages a later one can refer to (reply, reaction), per conversation.
_REMEMBERED_MAX = 8


class Step(NamedTuple):
    """Something that happens in a conversation: when (ms), who acts, and the item's own key with its object."""

    occurred_at: int
    by: Side
    keys: Json


@dataclass
class Conversation:
    """One customer and one account; `under_way_ms` is how long each of its events takes to be delivered."""

    account: str
    customer: str
    thread: str
    under_way_ms: int
    standby: bool = False
    remembered: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_MAX))

    def new_mid(self, rng: Random, occurred_at: int) -> str:
        """The id of a message that is written at that time, to be referred to later."""
        mid = shapes.mid(rng, self.account, self.thread)
        self.remembered.append((occurred_at, mid))
        return mid

    def earlier_mid(self, rng: Random, now: int) -> str | None:
        """A message that was written before `now`: answers are planned ahead, and nobody reacts to the future."""
        earlier = [mid for occurred_at, mid in self.remembered if occurred_at < now]
        return rng.choice(earlier) if earlier else None


def _wait_ms(rng: Random, median_s: float, sigma: float) -> int:
    return min(1 + int(rng.lognormvariate(math.log(median_s * 1000), sigma)), _WAIT_MS_MAX)


def _pause_ms(rng: Random) -> int:
    """Between two things the same person does in a row."""
    return rng.randint(1_500, 40_000)


def _message(rng: Random, conversation: Conversation, at: int, by: Side, **more: object) -> Step:
    return Step(at, by, {"message": {"mid": conversation.new_mid(rng, at), **more}})


def _texts(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    for _ in range(rng.choices((1, 2, 3), (7, 2, 1))[0]):
        step = _message(rng, conversation, at, "customer", text=rng.choice(shapes.TEXTS))
        yield step
        if chance(rng, 0.05):
            # The noise that accompanies a new message: an edit that edits nothing and names nobody.
            edit = {"mid": step.keys["message"]["mid"], "num_edit": rng.choice((0, 0, "0"))}
            yield Step(at, "nobody", {"message_edit": edit})
        at += _pause_ms(rng)


def _media(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    attachments = [shapes.attachment(rng) for _ in range(rng.choices((1, 2, 3), (8, 1, 1))[0])]
    text = {"text": rng.choice(shapes.TEXTS)} if chance(rng, 0.2) else {}
    yield _message(rng, conversation, at, "customer", **text, attachments=attachments)


def _reply(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    earlier = conversation.earlier_mid(rng, at)
    reply_to: Json = {"mid": earlier} if earlier and chance(rng, 0.6) else shapes.story_reply(rng)
    if "mid" in reply_to and chance(rng, 0.2):
        reply_to["is_self_reply"] = True
    yield _message(rng, conversation, at, "customer", text=rng.choice(shapes.TEXTS), reply_to=reply_to)


def _quick_reply(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    title, payload = rng.choice(shapes.BUTTONS)
    yield _message(rng, conversation, at, "customer", text=title, quick_reply={"payload": payload})


def _postback(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    title, payload = rng.choice(shapes.BUTTONS)
    mid = conversation.new_mid(rng, at)
    yield Step(at, "customer", {"postback": {"mid": mid, "title": title, "payload": payload}})


def _from_elsewhere(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    referral = rng.choice((shapes.ad_referral, shapes.product_referral))(rng)
    yield _message(rng, conversation, at, "customer", text=rng.choice(shapes.TEXTS), referral=referral)


def _link(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    yield Step(at, "customer", {"referral": shapes.link_referral(rng)})
    yield from _texts(rng, conversation, at + _pause_ms(rng))


def _reaction(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    mid = conversation.earlier_mid(rng, at)
    if mid is None:
        step = _message(rng, conversation, at, "customer", text=rng.choice(shapes.TEXTS))
        yield step
        mid, at = step.keys["message"]["mid"], at + _pause_ms(rng)
    by: Side = "customer" if chance(rng, 0.8) else "account"
    yield Step(at, by, {"reaction": shapes.reaction(rng, mid)})
    if chance(rng, 0.3):
        at += _pause_ms(rng)
        yield Step(at, by, {"reaction": {"mid": mid, "action": "unreact"}})
        if chance(rng, 0.5):
            yield Step(at + _pause_ms(rng), by, {"reaction": shapes.reaction(rng, mid)})


def _unsend(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    step = _message(rng, conversation, at, "customer", text=rng.choice(shapes.TEXTS))
    yield step
    deleted = {"mid": step.keys["message"]["mid"], "is_deleted": True}
    yield Step(at + _pause_ms(rng), "customer", {"message": deleted})


def _edit(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    step = _message(rng, conversation, at, "customer", text=rng.choice(shapes.TEXTS))
    yield step
    for num_edit in range(1, rng.choice((2, 2, 2, 3))):
        at += _pause_ms(rng)
        edit = {"mid": step.keys["message"]["mid"], "text": rng.choice(shapes.TEXTS), "num_edit": num_edit}
        yield Step(at, "customer", {"message_edit": edit})


def _unsupported(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    yield _message(rng, conversation, at, "customer", is_unsupported=True)


def _handover(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    keys = shapes.handover(rng, back=False)
    if "pass_thread_control" in keys:
        conversation.standby = True
    yield Step(at, "account" if "app_roles" in keys else "customer", keys)


def _optin(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    del conversation
    yield Step(at, "customer", {"optin": shapes.optin(rng)})


def _answer(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    """The business answers, by its app within seconds or by a person later; the customer reads it and may react."""
    if chance(rng, 0.3):
        at += rng.randint(900, 3_000)
        written = {"text": rng.choice(shapes.ANSWERS), "is_echo": True, "app_id": int(shapes.APP_ID)}
        step = _message(rng, conversation, at, "account", **written)
    else:
        at += _wait_ms(rng, _ANSWER_MEDIAN_S, _ANSWER_SIGMA)
        what = rng.choices(("text", "template", "media"), (85, 10, 5))[0]
        content: Json = {"text": rng.choice(shapes.ANSWERS)}
        if what != "text":
            content = {"attachments": [shapes.template(rng) if what == "template" else shapes.attachment(rng, "image")]}
        step = _message(rng, conversation, at, "account", **content, is_echo=True)
    yield step
    if chance(rng, 0.85):
        at += _wait_ms(rng, _READ_MEDIAN_S, _READ_SIGMA)
        mid = step.keys["message"]["mid"]
        yield Step(at, "customer", {"read": {"mid": mid}})
        if chance(rng, 0.1):
            yield Step(at + _pause_ms(rng), "customer", {"reaction": shapes.reaction(rng, mid)})


_Scene = Callable[[Random, Conversation, int], Iterator[Step]]
# A scene, how often it is played, and whether a business answers it. After the shares seen on one real account
# (1,148 deliveries), with the rare ones raised so that a few thousand events show them all.
_SCENES: tuple[tuple[_Scene, int, bool], ...] = (
    (_texts, 45, True),
    (_media, 16, True),
    (_reaction, 8, False),
    (_reply, 7, True),
    (_postback, 5, True),
    (_quick_reply, 4, True),
    (_from_elsewhere, 4, True),
    (_edit, 4, True),
    (_link, 2, True),
    (_unsend, 2, False),
    (_handover, 2, False),
    (_unsupported, 1, False),
    (_optin, 1, False),
)
_SCENE_WEIGHTS = tuple(weight for _, weight, _ in _SCENES)
_SHARE_OF_ANSWERED = 0.8


def play(rng: Random, conversation: Conversation, at: int) -> Iterator[Step]:
    """One scene that begins at `at` (ms), and what the business makes of it."""
    scene, _, is_answered = rng.choices(_SCENES, _SCENE_WEIGHTS)[0]
    for step in scene(rng, conversation, at):
        yield step
        at = step.occurred_at
    if is_answered and chance(rng, _SHARE_OF_ANSWERED):
        yield from _answer(rng, conversation, at)


def take_back(rng: Random, at: int) -> Step:
    """The app takes the thread back from the inbox it was handed to."""
    return Step(at, "customer", shapes.handover(rng, back=True))
