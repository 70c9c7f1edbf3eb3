"""The packaged registry: Confluent's API, and ids that outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import aiohttp

from bridge.local.registry import LocalRegistry

LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h
SCHEMA = {"schema": '"string"'}


def listening_addresses(pid: int) -> list[str]:
    """The addresses of a process's listening TCP sockets, in the kernel's hex (proc(5), /proc/net/tcp)."""
    process = Path(f"/proc/{pid}")
    sockets = set()
    for link in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            sockets.add(str(link.readlink()))
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in (process / "net" / table).read_text().splitlines()[1:]
    ]
    return [row[1].partition(":")[0] for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in sockets]


async def test_restart_after_a_crash_keeps_schemas_and_ids(tmp_path: Path) -> None:
    """An id that the registry gave out is known after it was killed: records that carry it stay readable."""
    registry = LocalRegistry(data_dir=tmp_path / "with space", port=None)
    async with registry, aiohttp.ClientSession() as session:
        async with session.post(f"{registry.url}/subjects/probe-value/versions", json=SCHEMA) as response:
            schema_id = (await response.json(content_type=None))["id"]
        os.kill(registry.pid, signal.SIGKILL)
        await registry.stop()

        await registry.start()
        async with session.get(f"{registry.url}/schemas/ids/{schema_id}") as response:
            assert (await response.json(content_type=None))["schema"] == SCHEMA["schema"]


async def test_registry_listens_on_loopback_alone(tmp_path: Path) -> None:
    """Neither the API nor the management port can be reached from another machine."""
    async with LocalRegistry(data_dir=tmp_path, port=None) as registry:
        addresses = listening_addresses(registry.pid)

    assert len(addresses) == 2  # the API and the management port
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same in IPv6's words
