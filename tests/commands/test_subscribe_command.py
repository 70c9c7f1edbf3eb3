"""`bridge subscribe` against a stand-in for the Graph API."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.commands.conftest import Outcome, Run
from tests.commands.graph import ACCOUNT, TOKEN, StandIn, standing_in


@pytest.fixture
def call(call_without_kafka: Run) -> Run:
    """This command asks no Kafka."""
    return call_without_kafka


@pytest.fixture
async def graph() -> AsyncIterator[StandIn]:
    """A Graph API with one account that has subscribed nothing."""
    async with standing_in() as state:
        yield state


async def subscribe(call: Run, graph: StandIn, *arguments: str, token: str = TOKEN) -> Outcome:
    """What the command left behind; it never shows the token."""
    outcome = await call("subscribe", *arguments, GRAPH_URL=graph.url, GRAPH_TOKEN=token)
    assert token not in outcome.stdout + outcome.stderr
    return outcome


async def test_subscribe_adds_to_what_is_there_and_shows_before_and_after(call: Run, graph: StandIn) -> None:
    """A dry run calls nothing; then the fields that were there stay, and a second run has nothing to do."""
    graph.subscribed = ["comments"]
    wanted = (ACCOUNT, "messages", "message_reactions")
    dry = await subscribe(call, graph, *wanted, "--dry-run")
    assert dry.exit_code == 0
    assert [line.split() for line in dry.stdout.splitlines()[1:4]] == [
        ["comments", "yes", "yes"],
        ["message_reactions", "no", "yes"],
        ["messages", "no", "yes"],
    ]
    assert graph.posts == []
    done = await subscribe(call, graph, *wanted, "--output", "json")
    assert done.said["before"] == ["comments"]
    assert done.said["after"] == graph.subscribed == ["comments", "message_reactions", "messages"]
    again = await subscribe(call, graph, *wanted)
    assert again.stdout.splitlines()[-1] == f"account {ACCOUNT} was left as it was"
    assert len(graph.posts) == 1


async def test_subscribe_without_fields_takes_all_that_have_a_topic(call: Run, graph: StandIn) -> None:
    """Each of the bridge's webhook fields is one that Meta knows."""
    assert (await subscribe(call, graph, ACCOUNT)).exit_code == 0
    assert len(graph.subscribed) == 13
    assert "other" not in graph.subscribed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("messages", "message_reads"), "'message_reads', but messaging_seen"),
        (("mesages",), "'mesages', but messages"),
        (("--page", "messaging_seen"), "'messaging_seen', but message_reads"),
        (("nothing-like-it",), "story_insights"),
    ],
)
async def test_subscribe_to_a_name_that_meta_does_not_know_calls_nothing(
    call: Run, graph: StandIn, arguments: tuple[str, ...], told: str
) -> None:
    """One wrong name would fail all: it is told before anything is sent, with the right one."""
    refused = await subscribe(call, graph, ACCOUNT, *arguments)
    assert refused.exit_code == 2
    assert told in refused.stderr
    assert graph.posts == []


async def test_subscribe_with_a_token_that_is_not_enough_says_what_it_lacks(call: Run, graph: StandIn) -> None:
    """Too few permissions, an invalid token, none at all, another account: one line each, and no subscription."""
    graph.scopes = ["instagram_business_basic"]
    assert "lacks instagram_business_manage_messages" in (await subscribe(call, graph, ACCOUNT)).stderr
    graph.scopes = ["instagram_basic", "instagram_manage_messages"]
    lacking = await subscribe(call, graph, ACCOUNT)
    assert (lacking.exit_code, "lacks pages_manage_metadata" in lacking.stderr) == (1, True)
    graph.is_valid = False
    assert "invalid" in (await subscribe(call, graph, ACCOUNT)).complaint
    wrong = await subscribe(call, graph, ACCOUNT, token="another-token")  # noqa: S106 - guards nothing
    assert "code 190" in wrong.complaint
    assert "BRIDGE_GRAPH_TOKEN" in (await call("subscribe", ACCOUNT, GRAPH_URL=graph.url)).complaint
    assert "code 100" in (await subscribe(call, graph, "1")).complaint
    assert (await subscribe(call, graph, "our_shop")).exit_code == 2
    nobody = await call("subscribe", ACCOUNT, GRAPH_URL="http://127.0.0.1:9/v25.0", GRAPH_TOKEN=TOKEN)
    assert "no Graph API answers" in nobody.complaint
    assert graph.posts == []
