"""The Graph client against the stand-in, over HTTP: its two forms, its token, and what an account makes of the answers."""

from __future__ import annotations

import asyncio
import socket

from structlog.testing import capture_logs

from bridge.local.jvm import free_port
from bridge.local.meta.graph import Behaviour, GraphStandIn
from consumers.auto_reply.accounts import Accounts
from consumers.auto_reply.graph import Graph
from consumers.auto_reply.tokens import Tokens
from consumers.auto_reply.tools import carry_out

TOKENS = {"1": "one-token", "2": "two-token"}
HELLO = {"message": {"text": "Hello"}}
SEEN = {"sender_action": "mark_seen"}


def tokens() -> Tokens:
    """Those that the stand-in takes."""
    return Tokens(",".join(f"{account}={token}" for account, token in TOKENS.items()), None)


async def test_both_logins_post_to_their_own_path_for_their_own_account() -> None:
    """Instagram Login names the account, Facebook Login says `me` and is known by the token, which no URL ever holds."""
    async with GraphStandIn(free_port(), tokens=TOKENS) as graph:
        for login, account in (("instagram", "1"), ("facebook", "2")):
            async with Graph(graph.url, login=login, tokens=tokens()) as client:  # type: ignore[arg-type]  # a literal each
                answer = await client.post(account, "900", HELLO)
                assert (answer.kind, answer.message_id) == ("sent", graph.requests[-1].sent_mid)
        assert [(request.account_id, request.customer_id) for request in graph.requests] == [("1", "900"), ("2", "900")]
        assert graph.requests[0].body == {"recipient": {"id": "900"}, **HELLO}


async def test_connection_that_is_refused_sent_nothing_and_one_that_breaks_may_have() -> None:
    """The first may be tried again, the second never."""
    async with Graph(f"http://127.0.0.1:{free_port()}/v25.0", login="instagram", tokens=tokens()) as client:
        assert (await client.post("1", "900", HELLO)).kind == "unreachable"
    async with GraphStandIn(free_port(), tokens=TOKENS) as graph:
        graph.behaviours[""] = Behaviour(loses_answer=True)
        async with Graph(graph.url, login="instagram", tokens=tokens()) as client:
            assert (await client.post("1", "900", HELLO)).kind == "lost"
        assert len(graph.messages) == 1


async def test_host_that_says_nothing_is_no_reason_to_send_twice() -> None:
    """A server that takes the connection and closes it without a word: lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def hang_up() -> None:
            taken, _ = await asyncio.get_running_loop().sock_accept(server)
            taken.close()

        server.settimeout(0)
        hanging_up = asyncio.create_task(hang_up())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        async with Graph(url, login="instagram", tokens=tokens()) as client:
            assert (await client.post("1", "900", HELLO)).kind == "lost"
        await hanging_up


async def test_answer_of_several_bodies_ends_with_the_first_that_fails_but_for_sender_actions() -> None:
    """A refused `mark_seen` costs no answer; a refused message ends the rest."""
    async with (
        GraphStandIn(free_port(), tokens=TOKENS) as graph,
        Graph(graph.url, login="instagram", tokens=tokens()) as client,
    ):
        account = Accounts(tokens(), rate_per_s=100)["1"]
        graph.behaviours["1"] = Behaviour(status=400, code=100, subcode=None, times=1)
        answer, mids = await carry_out(client, account, "900", (SEEN, HELLO))
        assert (answer.kind, list(mids)) == ("sent", [graph.messages[0].sent_mid])
        graph.behaviours["1"] = Behaviour(status=400, code=551, times=1)
        answer, mids = await carry_out(client, account, "900", (HELLO, HELLO))
        assert (answer.reason, mids) == ("person_unreachable", ())
        assert len(graph.requests) == 3


async def test_limit_backs_off_one_account_and_usage_headers_say_how_long() -> None:
    """The account is closed for as long as Graph API says; its neighbour is open; a token that is gone stops it."""
    async with (
        GraphStandIn(free_port(), tokens=TOKENS) as graph,
        Graph(graph.url, login="instagram", tokens=tokens()) as client,
    ):
        accounts = Accounts(tokens(), rate_per_s=100)
        usage = {"X-Business-Use-Case-Usage": '{"1":[{"estimated_time_to_regain_access":1}]}'}
        graph.behaviours["1"] = Behaviour(status=400, code=80002, headers=usage)
        with capture_logs() as logs:
            answer, _ = await carry_out(client, accounts["1"], "900", (HELLO,))
        assert (answer.kind, logs[0]["event"], logs[0]["seconds"]) == ("limited", "account_backs_off", 60.0)
        assert (accounts["1"].is_free, accounts["2"].is_free) == (False, True)
        accounts["1"].stop("token_invalid")
        await asyncio.wait_for(accounts["1"].open(), 1)  # nobody waits for an account that is stopped
        assert accounts.stopped() == 1
        accounts.resume()
        assert (accounts.stopped(), accounts["1"].is_free) == (0, True)


async def test_rate_of_an_account_holds_back_what_is_too_much() -> None:
    """Beyond the burst of a tenth of a second, requests leave at the rate."""
    account = Accounts(tokens(), rate_per_s=50)["1"]
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for _ in range(15):
        await account.turn()
    assert loop.time() - begin >= 9 / 50  # five at once, ten at the rate; the last of them leaves on time
