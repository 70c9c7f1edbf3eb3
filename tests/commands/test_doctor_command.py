"""`bridge doctor`: a healthy bridge passes; each thing that is broken has its line, with what to do."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from bridge.local.jvm import free_port
from bridge.local.kafka import LocalKafka
from bridge.local.service import Broker, Registry
from tests.commands.conftest import Outcome, Run
from tests.commands.graph import ACCOUNT, TOKEN, standing_in
from tests.kafka.reading import Reader
from tests.kafka.serving import begun, serve_environment
from tests.security.certificates import Authority

ANSWER_S = 30
APP_SECRET, VERIFY_TOKEN = "0123456789abcdef0123456789abcdef", "a-long-enough-verify-token"
SECRETS = {"APP_SECRETS": f"main={APP_SECRET}", "VERIFY_TOKEN": VERIFY_TOKEN}


def findings(outcome: Outcome) -> dict[str, list[tuple[str, str]]]:
    """By check the outcomes, each with what was found and what to do; no secret is in any of it."""
    assert not any(secret in outcome.stdout + outcome.stderr for secret in (APP_SECRET, VERIFY_TOKEN, TOKEN))
    found: dict[str, list[tuple[str, str]]] = {}
    for one in outcome.said["findings"]:
        assert one["outcome"] == "ok" or one["remedy"] or one["check"] == "settings", f"nothing is said to do: {one}"
        found.setdefault(one["check"], []).append((one["outcome"], f"{one['found']}: {one['remedy']}"))
    assert outcome.said["ok"] == (outcome.exit_code == 0)
    return found


def failed(outcome: Outcome) -> dict[str, str]:
    """Those that fail, with all that is said of them."""
    every = findings(outcome)
    return {
        check: "; ".join(text for how, text in lines if how == "fail")
        for check, lines in every.items()
        if any(how == "fail" for how, _ in lines)
    }


async def until_failed(call: Run, wanted: dict[str, list[str]], **variables: str) -> Outcome:
    """Asks until just these checks fail, with these words: what an administrator changes reaches a broker a moment later."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            outcome = await call("doctor", "--output", "json", **variables)
            told = failed(outcome)
            if told.keys() == wanted.keys() and all(word in told[check] for check in wanted for word in wanted[check]):
                return outcome


async def test_doctor_of_a_healthy_bridge_finds_nothing_that_fails(call: Run, registry: Registry) -> None:
    """Kafka, topics, registry, spool and Meta's side are looked at, and exit code 0; for people one line a check."""
    url = {"SCHEMA_REGISTRY_URL": registry.url}
    assert (await call("topics", "apply")).exit_code == 0
    assert (await call("schemas", "register", **url)).exit_code == 0
    async with standing_in() as graph:
        graph.subscribed = ["comments", "messages"]
        meta = {"GRAPH_URL": graph.url, "GRAPH_TOKEN": TOKEN}
        healthy = await call("doctor", "--output", "json", **SECRETS, **url, **meta)
        text = await call("doctor", "--account", ACCOUNT, **SECRETS, **url, **meta)
    found = findings(healthy)
    assert healthy.exit_code == 0, healthy
    for check in (
        "kafka",
        "kafka producing",
        "kafka rights",
        "topics",
        "sizes at the broker",
        "registry",
        "compatibility",
    ):
        assert [how for how, _ in found[check]] == ["ok"], (check, found)
    for check in ("settings", "app secret main", "verify token", "spool fsync", "sizes", "Graph token", "subscription"):
        assert [how for how, _ in found[check]] == ["ok"], (check, found)
    assert [how for how, _ in found["replication"]] == ["warn"], "one broker keeps one copy"
    lines = text.stdout.splitlines()
    assert len(lines) == len(healthy.said["findings"]) + 1
    assert all(line[:6] in ("ok    ", "warn  ") for line in lines[:-1])
    assert lines[-1].startswith(f"{len(lines) - 1} checks: 0 failed, ")
    assert "\x1b" not in text.stdout, "colours are for terminals"


async def test_doctor_names_everything_that_is_wrong_with_topics_and_registry(
    call: Run, kafka: Broker, registry: Registry, topic_prefix: str
) -> None:
    """Missing topics, sizes, cleanup and schemas fail, each with the command that mends it."""
    url = {"SCHEMA_REGISTRY_URL": registry.url}
    nothing = failed(await call("doctor", "--output", "json", **SECRETS, **url))
    assert set(nothing) == {"topics", "registry"}
    assert "bridge topics apply" in nothing["topics"]
    assert "bridge schemas register" in nothing["registry"]

    assert (await call("topics", "apply")).exit_code == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    changes = {"messages": ("max.message.bytes", "1000"), "comments": ("cleanup.policy", "compact")}
    changes |= {"mentions": ("retention.bytes", "1000000"), "standby": ("min.insync.replicas", "2")}
    resources = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            f"{topic_prefix}.{topic_field}",
            incremental_configs=[ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)],
        )
        for topic_field, (name, value) in changes.items()
    ]
    for answer in admin.incremental_alter_configs(resources).values():
        await asyncio.to_thread(answer.result, ANSWER_S)
    words = {
        "messages": "has max.message.bytes=1000",
        "comments": "has cleanup.policy",
        "standby": "has min.insync.replicas=2",
    }
    wanted = [f"{topic_prefix}.{topic_field} {word}" for topic_field, word in words.items()]
    broken = await until_failed(call, {"topics": wanted}, **SECRETS)
    assert findings(broken)["retention"][0][0] == "warn"
    huge = await call("doctor", "--output", "json", **SECRETS, BODY_BYTES_MAX="67108864", RECORD_BYTES_MAX="16777216")
    assert "settings need" in failed(huge)["topics"]


async def test_doctor_of_a_bridge_that_cannot_work_says_all_of_it_at_once(call: Run, tmp_path: Path) -> None:
    """Settings, secrets, spool, registry, Graph: what is wrong with one does not hide the others."""
    bare = await call("doctor", "--output", "json", PORT="http")
    assert {"BRIDGE_PORT", "BRIDGE_APP_SECRETS", "BRIDGE_VERIFY_TOKEN"} <= {
        one["found"].split(" ")[0].rstrip(":") for one in bare.said["findings"] if one["check"] == "settings"
    }
    (tmp_path / "spool").write_text("no folder", "utf-8")
    (tmp_path / "token").write_text("short\n", "utf-8")
    (tmp_path / "token").chmod(0o644)
    async with standing_in() as graph:
        graph.scopes, graph.date = ["instagram_basic"], "Sat, 21 Nov 2020 00:00:00 GMT"
        wrong = await call(
            *("doctor", "--output", "json"),
            APP_SECRETS="it's no secret of Meta's",
            VERIFY_TOKEN_FILE="token",  # noqa: S106 - the file's name
            SCHEMA_REGISTRY_URL=f"http://127.0.0.1:{free_port()}",
            GRAPH_URL=graph.url,
            GRAPH_TOKEN=TOKEN,
        )
    assert wrong.exit_code == 1
    assert failed(wrong).keys() >= {"spool", "topics", "registry", "Graph permissions", "subscription", "clock"}
    found = findings(wrong)
    assert found["app secret secret-1"][0][0] == found["verify token"][0][0] == found["secrets' files"][0][0] == "warn"
    nobody = await call("doctor", "--output", "json", **SECRETS, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert "no Kafka answers" in failed(nobody)["kafka"]
    assert (await call("doctor", "--as-meta", "example.com")).exit_code == 2


async def test_doctor_finds_rights_that_the_bridges_user_lacks(call: Run, tmp_path: Path) -> None:
    """A user that may look and not write is told so for each topic; once it may write, nothing fails."""
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    properties = {
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f'{plain} user_admin="a" user_bridge="b";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin",
    }
    sasl = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", **SECRETS}
    async with LocalKafka(data_dir=tmp_path / "locked", port=None, properties=properties) as broker:
        servers = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        operator = {**sasl, **servers, "KAFKA_SASL_USERNAME": "admin", "KAFKA_SASL_PASSWORD": "a"}
        bridge = {**sasl, **servers, "KAFKA_SASL_USERNAME": "bridge", "KAFKA_SASL_PASSWORD": "b"}
        assert (await call("topics", "apply", **operator)).exit_code == 0
        blind = await call("doctor", "--output", "json", **bridge)
        assert failed(blind).keys() >= {"kafka producing", "topics"}
        admin = AdminClient(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "admin",
                "sasl.password": "a",
            }
        )
        await allow(admin, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
        await until_failed(call, {"kafka producing": [], "kafka rights": ["no Write on "]}, **bridge)
        await allow(admin, AclOperation.WRITE)
        await until_failed(call, {}, **bridge)
        stranger = await call("doctor", "--output", "json", **{**bridge, "KAFKA_SASL_PASSWORD": "c"})
        assert "refuses our PLAIN credentials" in failed(stranger)["kafka"]


async def allow(admin: AdminClient, *operations: AclOperation) -> None:
    """Let the user `bridge` do this with every topic."""
    rules = [
        AclBinding(
            ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:bridge", "*", operation, AclPermissionType.ALLOW
        )
        for operation in operations
    ]
    for answer in admin.create_acls(rules).values():
        await asyncio.to_thread(answer.result, ANSWER_S)


async def test_doctor_as_meta_passes_a_bridge_and_publishes_nothing(
    call: Run, kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Right requests are answered and wrong ones refused; not one record comes of it, nor a word about the deliveries' secrets."""
    environment = serve_environment(kafka.bootstrap_servers, topic_prefix, **SECRETS)
    assert (await call("topics", "apply", TOPIC_PARTITIONS=environment["BRIDGE_TOPIC_PARTITIONS"])).exit_code == 0
    async with begun(tmp_path, environment) as serving:
        await serving.until_ready()
        root = f"http://127.0.0.1:{serving.port}"
        url = f"{root}/webhooks/instagram"
        right = await call("doctor", "--as-meta", url, "--output", "json", **SECRETS)
        wrong = await call("doctor", "--as-meta", f"{root}/webhooks/facebook", "--output", "json", **SECRETS)
        bare = [await call("doctor", "--as-meta", f"{root}{end}", "--output", "json", **SECRETS) for end in ("", "/")]
        other = {"APP_SECRETS": "f" * 32, "VERIFY_TOKEN": f"{VERIFY_TOKEN}-of-another"}
        stranger = await call("doctor", "--as-meta", url, "--output", "json", **other)
        reader = Reader(kafka.bootstrap_servers, topic_prefix)
        try:
            assert await reader.new() == []
        finally:
            reader.close()
    found = findings(right)
    assert right.exit_code == 0, right
    assert {check: lines[0][0] for check, lines in found.items()} == {
        **dict.fromkeys(
            ("settings", "verification", "wrong verify token", "signed by main", "tampered", "clock"), "ok"
        ),
        **dict.fromkeys(("signed, 4194304 bytes", "oversized", "slow", "stalled"), "ok"),
        **dict.fromkeys(("DNS", "TLS"), "warn"),  # Meta could not come to this address
    }
    assert "acknowledged by none" in found["signed by main"][0][1]
    assert found["stalled"][0][1].startswith("408 ")
    for elsewhere in (wrong, *bare):  # Meta with that URL gets 404 too
        told = failed(elsewhere)
        assert told["verification"] == told["signed by main"] == "404: the path should be /webhooks/instagram"
    assert failed(stranger).keys() >= {"verification", "signed by secret-1"}
    assert "app secret" in failed(stranger)["signed by secret-1"]


@asynccontextmanager
async def answering(status: int, text: str = "", context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that says the same to everybody."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    runner = web.AppRunner(web.Application(client_max_size=1 << 30))
    runner.app.router.add_route("*", "/{path:.*}", answer)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{port}/webhooks/instagram"
    finally:
        await runner.cleanup()


@contextmanager
def impolite(context: ssl.SSLContext) -> Iterator[str]:
    """The address of a server that answers 502, and nothing when the other side says that it closes; nor does it close."""
    connections: list[ssl.SSLSocket] = []

    def answer(connection: ssl.SSLSocket) -> None:
        with suppress(OSError), connection.makefile("rb") as stream:
            connection.do_handshake()
            while stream.readline():
                headers = http.client.parse_headers(stream)
                stream.read(int(headers.get("Content-Length", 0)))
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    def accept() -> None:
        with suppress(OSError), ThreadPoolExecutor() as answering:
            while True:
                connections.append(listener.accept()[0])
                answering.submit(answer, connections[-1])

    with context.wrap_socket(
        socket.create_server(("127.0.0.1", free_port())), server_side=True, do_handshake_on_connect=False
    ) as listener:
        accepting = Thread(target=accept)
        accepting.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/webhooks/instagram"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for connection in connections:
        connection.close()


async def test_doctor_as_meta_closes_what_it_opened_though_the_other_side_does_not(
    call_without_kafka: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS a close wants an answer; without one the connections are closed all the same, or the fixture tells of them."""
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.vouch("server", alternative_name="IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with impolite(context) as url:
        outcome = await call_without_kafka("doctor", "--as-meta", url, "--output", "json", **SECRETS)
    assert "start the bridge" in failed(outcome)["signed by main"]


async def test_doctor_as_meta_does_not_pass_what_is_no_bridge(
    call_without_kafka: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says 200 to all fails; a certificate that Meta would not trust is told before anything is sent."""
    started = time.monotonic()
    async with answering(200, "fine") as url:
        fooled = failed(await call_without_kafka("doctor", "--as-meta", url, "--output", "json", **SECRETS))
        site = url.removesuffix("/webhooks/instagram")
        pathless = failed(await call_without_kafka("doctor", "--as-meta", site, "--output", "json", **SECRETS))
    assert fooled.keys() >= {"verification", "wrong verify token", "signed by main", "tampered"}
    for check in ("verification", "signed by main"):
        assert "the path should be /webhooks/instagram" in pathless[check], "whatever the site's first page answers"
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.vouch("server", alternative_name="IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with answering(502, context=context) as url:
        untrusted = failed(await call_without_kafka("doctor", "--as-meta", url, "--output", "json", **SECRETS))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        trusted = await call_without_kafka("doctor", "--as-meta", url, "--output", "json", **SECRETS)
    assert set(untrusted) == {"TLS"}
    every: dict[str, Any] = findings(trusted)
    assert every["TLS"][0][0] == "warn", "valid for two days"
    assert "start the bridge" in failed(trusted)["signed by main"]
    nowhere = await call_without_kafka("doctor", "--as-meta", "https://nowhere.invalid", "--output", "json", **SECRETS)
    assert set(failed(nowhere)) >= {"DNS"}
    assert time.monotonic() - started < 60
