"""App secrets and verify token change under load, by a file and SIGHUP, and no delivery notices."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from bridge.local.service import Broker
from tests.http.wire import PATH, Connection, exchange, openssl_signatures, post, request
from tests.kafka.serving import (
    APP_SECRET,
    OLD_APP_SECRET,
    VERIFY_TOKEN,
    Serving,
    begun,
    message,
    notification,
    run,
    serve_environment,
)
from tests.processes import until

BODY = notification(message("reloaded"))
SENDERS = 3
NEW, OLD = f"new={APP_SECRET}\n".encode(), f"old={OLD_APP_SECRET}".encode()
BOTH = NEW.strip() + b"," + OLD
NEW_TOKEN = "another-token"  # noqa: S105 - guards nothing


@pytest.fixture(scope="module")
def signed() -> dict[str, bytes]:
    """The delivery as each secret signs it."""
    live = {"new": APP_SECRET, "old": OLD_APP_SECRET}
    return {label: post(BODY, *openssl_signatures([BODY], secret)) for label, secret in live.items()}


class Rotating:
    """A bridge whose secrets are in files."""

    def __init__(self, serving: Serving, folder: Path, workers: int) -> None:
        self.serving = serving
        self.folder = folder
        self._processes = 1 if workers == 1 else 1 + workers

    async def reload(self, name: str, content: bytes) -> str:
        """Replaces a file, tells the bridge, and returns the line that each of its processes logs."""
        return await self._told(name, content, "secrets_reloaded", self._processes)

    async def reload_in_vain(self, content: bytes) -> str:
        """Does so with a bad file of app secrets; its workers are not bothered."""
        return await self._told("secrets", content, "secrets_not_reloaded", 1)

    async def _told(self, name: str, content: bytes, event: str, lines: int) -> str:
        known = len(self._lines(event))
        (self.folder / name).write_bytes(content)
        os.kill(self.serving.process.pid, signal.SIGHUP)
        await until(lambda: len(self._lines(event)) == known + lines, event)
        return self._lines(event)[-1]

    async def status(self, delivery: bytes) -> int:
        """Of the answer to a request."""
        return (await exchange(self.serving.port, delivery)).status

    def _lines(self, event: str) -> list[str]:
        return [line for line in self.serving.process.stderr.splitlines() if event in line]


@pytest.fixture(scope="module", params=[1, 2])
async def running(
    request: pytest.FixtureRequest, kafka: Broker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rotating]:
    """The bridge of this module, once as one process and once as two workers and their keeper."""
    workers: int = request.param
    folder = tmp_path_factory.mktemp("rotating")
    (folder / "secrets").write_text(f"old={OLD_APP_SECRET}\n", "utf-8")
    (folder / "token").write_text(f"{VERIFY_TOKEN}\n", "utf-8")
    files = {"APP_SECRETS_FILE": "secrets", "VERIFY_TOKEN_FILE": "token"}
    environment = serve_environment(
        kafka.bootstrap_servers, f"test-{secrets.token_hex(6)}", WORKERS=f"{workers}", **files
    )
    del environment["BRIDGE_APP_SECRETS"], environment["BRIDGE_VERIFY_TOKEN"]
    await run(folder, environment, "topics", "apply")
    async with begun(folder, environment) as serving:
        await serving.until_ready()
        yield Rotating(serving, folder, workers)


@pytest.fixture
async def rotating(running: Rotating) -> Rotating:
    """It, with the old app secret alone."""
    await running.reload("secrets", OLD)
    return running


@asynccontextmanager
async def load(port: int, using: list[bytes]) -> AsyncIterator[list[int]]:
    """Senders that never pause, each on a connection that is kept; ``using`` is what they send now. The answers' statuses."""
    statuses: list[int] = []
    end = asyncio.Event()

    async def send() -> None:
        async with Connection.open(port) as connection:
            while not end.is_set():
                await connection.send(using[0])
                statuses.append((await connection.answer()).status)

    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(send())
        yield statuses
        end.set()


async def more(statuses: list[int], count: int = 50) -> None:
    """Waits until so many more deliveries were answered."""
    wanted = len(statuses) + count
    async with asyncio.timeout(60):
        while len(statuses) < wanted:  # noqa: ASYNC110 - the senders are other tasks
            await asyncio.sleep(0.01)


async def test_rotation_under_load_refuses_no_delivery(rotating: Rotating, signed: dict[str, bytes]) -> None:
    """Old, then both, then the sender changes, then new alone: all 200, and the old secret is 401 from then on."""
    using = [signed["old"]]
    async with load(rotating.serving.port, using) as statuses:
        await more(statuses)
        assert await rotating.status(signed["new"]) == 401
        assert '["new", "old"]' in await rotating.reload("secrets", BOTH)
        assert await rotating.status(signed["new"]) == 200
        await more(statuses)
        using[0] = signed["new"]
        await more(statuses)
        known = (await rotating.serving.status())["app_secrets"]
        assert list(known) == ["new", "old"]
        assert all(isinstance(secret["last_matched_seconds_ago"], int) for secret in known.values())
        await rotating.reload("secrets", NEW)
        await more(statuses)
    assert set(statuses) == {200}
    assert await rotating.status(signed["old"]) == 401
    assert list((await rotating.serving.status())["app_secrets"]) == ["new"]


async def test_secret_that_has_not_matched_since_the_start_is_shown_so(rotating: Rotating) -> None:
    """A label without a match is the one that may go, or the one that is set wrong."""
    await rotating.reload("secrets", OLD + b",third=never-used")
    assert (await rotating.serving.status())["app_secrets"]["third"] == {"last_matched_seconds_ago": None}


@pytest.mark.parametrize("content", [b"", b"new=,old=x", b"one=s3cret,one=two", b"\xff\xfe"])
async def test_bad_file_changes_nothing_and_is_said(
    rotating: Rotating, signed: dict[str, bytes], content: bytes
) -> None:
    """Empty, half written, a label twice, no text: one line without the content, and the old secret serves on."""
    line = await rotating.reload_in_vain(content)
    assert "BRIDGE_APP_SECRETS" in line
    assert "s3cret" not in line
    assert await rotating.status(signed["old"]) == 200


async def test_file_that_is_gone_changes_nothing_and_is_said(rotating: Rotating, signed: dict[str, bytes]) -> None:
    """As while a volume is mounted anew."""
    (rotating.folder / "token").rename(rotating.folder / "token.gone")
    assert "BRIDGE_VERIFY_TOKEN_FILE" in await rotating.reload_in_vain(BOTH)
    (rotating.folder / "token.gone").rename(rotating.folder / "token")
    assert await rotating.status(signed["old"]) == 200
    assert await rotating.status(signed["new"]) == 401


async def test_verify_token_is_reloaded_too(rotating: Rotating) -> None:
    """The new token counts from the reload on, and the old one no more."""

    async def status(token: str) -> int:
        query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={quote(token)}"
        return await rotating.status(request("GET", f"{PATH}?{query}"))

    assert await status(NEW_TOKEN) == 403
    await rotating.reload("token", NEW_TOKEN.encode())
    assert await status(NEW_TOKEN) == 200
    assert await status(VERIFY_TOKEN) == 403
