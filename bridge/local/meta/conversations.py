"""Who writes to whom and when: customers and businesses whose conversations go on in event time. No IO, no clock.

Every event of a conversation is under way equally long, so that they arrive in the order in which they occurred,
unless disorder is asked for.
"""

import heapq
from random import Random
from typing import Literal, NamedTuple

from bridge.local.meta import shapes
from bridge.local.meta.scenes import Conversation, Step, play, take_back
from bridge.local.meta.shapes import Json, chance

Container = Literal["messaging", "standby", "changes", "flat"]
"""Where in an entry an item stands; a flat one is spread over `entry.field` and `entry.value`."""

# From an event to its delivery under normal conditions, and how much longer one takes that others overtake.
_UNDER_WAY_MS = (80, 900)
_OVERTAKEN_MS = (2_000, 60_000)

# Of all that happens: what happens under a post or a story and not in a conversation.
_SHARE_OF_CHANGES = 0.06
_SHARE_OF_FLAT_CHANGES = 0.2
# Of all that happens in a conversation that another app has: that this app gets it back.
_SHARE_OF_RETURNS = 0.3


class Item(NamedTuple):
    """One item as Meta will send it; `body` is a JSON object unless a quirk made something else of it."""

    account: str
    container: Container
    body: object


class World:
    """Accounts, their customers, and every event that is under way.

    Args:
        rng: where all chance comes from; equal generators make equal worlds.
        accounts: number of business accounts.
        customers: number of customers of each account.
        reorder: share of items that others of their conversation may overtake.
    """

    def __init__(self, rng: Random, *, accounts: int, customers: int, reorder: float) -> None:
        self._rng = rng
        self._customers = customers
        self._reorder = reorder
        self._accounts = [shapes.account_id(rng) for _ in range(accounts)]
        self._conversations: dict[tuple[int, int], Conversation] = {}
        # (when it is to be sent, a number that keeps equals in order, the item)
        self._under_way: list[tuple[int, int, Item]] = []
        self._items_count = 0

    def next_item(self, now: int) -> Item:
        """What is due at `now` (ms), the longest due first; somebody acts when nothing is."""
        while not self._under_way or self._under_way[0][0] > now:
            self._act(now)
        return heapq.heappop(self._under_way)[2]

    def some_account(self) -> str:
        """The id of one of the accounts."""
        return self._rng.choice(self._accounts)

    def _act(self, now: int) -> None:
        """Lets somebody do something whose first event is due now."""
        conversation = self._some_conversation()
        occurred_at = now - conversation.under_way_ms
        if chance(self._rng, _SHARE_OF_CHANGES):
            self._send(now, _change(self._rng, conversation))
        elif conversation.standby and chance(self._rng, _SHARE_OF_RETURNS):
            conversation.standby = False
            self._send(now, _item(conversation, take_back(self._rng, occurred_at), standby=False))
        else:
            standby = conversation.standby
            for step in play(self._rng, conversation, occurred_at):
                self._send(step.occurred_at + conversation.under_way_ms, _item(conversation, step, standby=standby))

    def _send(self, send_at: int, item: Item) -> None:
        if chance(self._rng, self._reorder):
            send_at += self._rng.randint(*_OVERTAKEN_MS)
        self._items_count += 1
        heapq.heappush(self._under_way, (send_at, self._items_count, item))

    def _some_conversation(self) -> Conversation:
        rng = self._rng
        place = rng.randrange(len(self._accounts)), rng.randrange(self._customers)
        if place not in self._conversations:
            self._conversations[place] = Conversation(
                account=self._accounts[place[0]],
                customer=shapes.customer_id(rng),
                thread="3402823668417103" + shapes.digits(rng, 23),
                under_way_ms=rng.randint(*_UNDER_WAY_MS),
            )
        return self._conversations[place]


def _item(conversation: Conversation, step: Step, *, standby: bool) -> Item:
    parties: Json = {}
    if step.by != "nobody":
        sides = ({"id": conversation.customer}, {"id": conversation.account})
        sender, recipient = sides if step.by == "customer" else sides[::-1]
        parties = {"sender": sender, "recipient": recipient}
    keys = step.keys
    if standby and "postback" in keys:
        # An app that does not control the thread is not told what its button meant.
        keys = {"postback": {name: value for name, value in keys["postback"].items() if name != "payload"}}
    body = parties | {"timestamp": step.occurred_at} | keys
    return Item(conversation.account, "standby" if standby else "messaging", body)


def _change(rng: Random, conversation: Conversation) -> Item:
    name = rng.choices(("comments", "live_comments", "mentions", "story_insights"), (17, 8, 25, 5))[0]
    if name == "mentions":
        value = shapes.mention_value(rng)
    elif name == "story_insights":
        value = shapes.story_insights_value(rng)
    else:
        value = shapes.comment_value(rng, conversation.customer, live=name == "live_comments")
    container: Container = "flat" if chance(rng, _SHARE_OF_FLAT_CHANGES) else "changes"
    return Item(conversation.account, container, {"field": name, "value": value})
