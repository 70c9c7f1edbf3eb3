"""The two consumers as a user starts them: they consume, count and decide, and stop when told to."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.local.service import Registry
from tests.consumers.running import Consumers, Topics, until
from tests.consumers.samples import ACCOUNT, confluent, event, message, schema, single_object, wider
from tests.processes import Process

RULES = """
version: 1
rules:
  - {name: hello, when: {text_contains: [hello, hi]}, reply: {text: "Hi!"}}
  - {name: rest, when: {any_message: true}, reply: {text: "We answer soon."}}
"""


async def register(registry: Registry, subject: str, document: dict[str, Any]) -> int:
    """Registers a schema and returns its id."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{registry.url}/subjects/{subject}/versions", json={"schema": json.dumps(document)}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return int((await answer.json())["id"])


def logged(process: Process, entry: str) -> list[dict[str, Any]]:
    """The log entries of one name that a process has written so far."""
    entries = [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]
    return [found for found in entries if found["event"] == entry]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_analytics_counts_each_event_once_and_stops_with_exit_code_0(
    topics: Topics, consumers: Consumers, number: signal.Signals
) -> None:
    """Counts per account and webhook field are right, a redelivery and a broken record change nothing in them."""
    await topics.create("messages", "message_reactions", "messages-dlt")
    twice = single_object("Messages", message())
    await topics.publish("messages", twice, single_object("Messages", message(account_id="2")), b"broken", twice)
    await topics.publish("messages", single_object("Messages", message(account_id=None)), partition=1)
    reaction = {"mid": "m", "action": "react", "reaction": "love", "emoji": "❤"}
    await topics.publish(
        "message_reactions", single_object("MessageReactions", event("message_reactions", reaction=reaction))
    )
    process, counts = await consumers.begin_analytics()
    figures = await until(counts, lambda found: found["events"] == 4 and found["redeliveries"] == 1)
    assert (figures["dead_letters"], figures["topic_prefix"]) == (1, topics.prefix)
    assert {name: tally["events"] for name, tally in figures["webhook_fields"].items()} == {
        "message_reactions": 1,
        "messages": 3,
    }
    assert {
        account: {name: tally["events"] for name, tally in fields.items()}
        for account, fields in figures["accounts"].items()
    } == {ACCOUNT: {"message_reactions": 1, "messages": 1}, "2": {"messages": 1}, "no account": {"messages": 1}}
    assert await process.end(number) == 0
    assert "Traceback" not in process.stderr


async def test_analytics_reads_registered_schemas_and_newer_ones(
    topics: Topics, consumers: Consumers, registry: Registry
) -> None:
    """With the real registry: today's schema and a wider one that someone registers later, side by side."""
    await topics.create("messages")
    subject = f"{topics.prefix}.messages-value"
    today = await register(registry, subject, schema("Messages"))
    await topics.publish("messages", confluent(today, schema("Messages"), message()))
    process, counts = await consumers.begin_analytics(SCHEMA_REGISTRY_URL=registry.url)
    await until(counts, lambda found: found["events"] == 1)
    later = await register(registry, subject, wider(schema("Messages")))
    assert later != today
    newer = message() | {"from_the_future": "x"}
    await topics.publish("messages", confluent(later, wider(schema("Messages")), newer))
    await until(counts, lambda found: found["events"] == 2)
    assert await process.end(signal.SIGTERM) == 0


async def test_analytics_sets_a_record_of_an_unknown_schema_id_aside(
    topics: Topics, consumers: Consumers, registry: Registry
) -> None:
    """The real registry's word that it knows no such id is final; what follows is counted."""
    await topics.create("messages", "messages-dlt")
    known = await register(registry, f"{topics.prefix}.messages-value", schema("Messages"))
    await topics.publish("messages", confluent(2_000_000_000, schema("Messages"), message()))
    await topics.publish("messages", confluent(known, schema("Messages"), message()))
    process, counts = await consumers.begin_analytics(SCHEMA_REGISTRY_URL=registry.url)
    await until(counts, lambda found: (found["events"], found["dead_letters"]) == (1, 1))
    assert "unknown_schema_id" in logged(process, "dead_lettered")[0]["record"]


async def test_analytics_on_a_taken_port_says_which_and_exits_with_1(consumers: Consumers) -> None:
    """One line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await consumers.begin("analytics", PORT=str(port))
        assert await process.end() == 1
    assert f"error: port {port} is taken: end what listens there or set ANALYTICS_PORT\n" in process.stderr
    assert "Traceback" not in process.stderr


async def test_auto_reply_without_a_graph_url_logs_what_it_would_answer_and_sends_nothing(
    topics: Topics, consumers: Consumers, tmp_path: Path
) -> None:
    """A redelivery, an echo, an unsend, a dashboard test and a replayed record get no reply; no text is logged."""
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    await topics.create("messages", "messaging_postbacks", "messaging_referral", "auto_replies")
    hello, image = message("hello, secret words"), message(None, customer_id="2", sender_id="2")
    await topics.publish("messages", *[single_object("Messages", hello)] * 2)
    # The echo belongs to another conversation: in this one it would be a person who answers, and keep the bot silent.
    silent = [
        message(part={"is_echo": True}, customer_id="3"),
        message(part={"is_deleted": True}),
        message(origin="changes"),
    ]
    await topics.publish("messages", *(single_object("Messages", value) for value in silent))
    await topics.publish("messages", single_object("Messages", message("replayed")), headers={"ig_replay_id": b"r"})
    await topics.publish("messages", single_object("Messages", image))
    process = await consumers.begin("auto_reply", RULES=str(tmp_path / "rules.yaml"))
    await process.until_printed(image["event_id"])
    assert {(reply["event_id"], reply["rule"]) for reply in logged(process, "would_reply")} == {
        (hello["event_id"], "hello"),
        (image["event_id"], "rest"),
    }
    assert await process.end(signal.SIGTERM) == 0
    assert logged(process, "sends_nothing")
    assert "secret words" not in process.stderr + process.stdout


@pytest.mark.parametrize(
    ("name", "variables", "said"),
    [
        ("auto_reply", {}, "error: AUTO_REPLY_RULES: Field required"),
        ("auto_reply", {"RULES": "absent.yaml"}, "error: absent.yaml: the rules cannot be read"),
        (
            "auto_reply",
            {"RULES": "x", "GRAPH_URL": "http://127.0.0.1:1"},
            "error: AUTO_REPLY_TOKENS_FILE (or AUTO_REPLY_TOKENS): needed for sending",
        ),
        ("analytics", {"PORT": "0"}, "error: ANALYTICS_PORT: "),
        ("analytics", {"HOST": "::"}, "error: ANALYTICS_TOKEN must be set, because :: is open to others"),
        ("analytics", {"TOKEN_FILE": "absent"}, "error: ANALYTICS_TOKEN_FILE: the file cannot be read"),
    ],
)
async def test_consumer_with_a_bad_setting_says_so_in_one_line_and_exits_with_1(
    consumers: Consumers, name: str, variables: dict[str, str], said: str
) -> None:
    """No traceback, and nothing is read."""
    process = await consumers.begin(name, **variables)
    assert await process.end() == 1
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(said)
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("name", ["analytics", "auto_reply"])
async def test_consumer_with_an_argument_it_does_not_take_exits_with_2(tmp_path: Path, name: str) -> None:
    """Wrong usage has an exit code of its own."""
    process = await Process.begin("-m", f"consumers.{name}", "--no-such-option", folder=tmp_path)
    assert await process.end() == 2
