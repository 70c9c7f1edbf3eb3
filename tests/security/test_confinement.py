"""`bridge serve` as a careful operator runs it: not as root, on a read-only file system, its spool alone writable."""

from __future__ import annotations

import os
import re
import signal
import stat
from pathlib import Path

from bridge.local.jvm import free_port
from tests.kafka.serving import Serving, message, notification, serve_environment
from tests.processes import Process
from tests.security.confine import NOBODY

CONFINE = Path(__file__).with_name("confine.py")


async def test_serve_without_rights_and_on_a_read_only_disk_takes_deliveries(tmp_path: Path) -> None:
    """Only the spool is written to, by a process that is not root; what it writes is its own alone."""
    working, spool = tmp_path / "working", tmp_path / "its spool"
    working.mkdir(mode=0o555)
    spool.mkdir()
    # Kafka is away, so that every delivery has to be written down.
    environment = serve_environment(f"127.0.0.1:{free_port()}", "test-confined")
    environment |= {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    process = await Process.begin(
        *(CONFINE, working, spool, "-m", "bridge", "serve"),
        folder=tmp_path,
        environment=environment,
    )
    serving = Serving(process, environment)
    try:
        await serving.until_ready()
        answer = await serving.deliver(notification(message("m")))
        assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "spool")
        assert_confined(process.pid)
        assert await process.end(signal.SIGTERM) == 0
    finally:
        await process.end(signal.SIGKILL)
    assert list(working.iterdir()) == []
    kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.iterdir()}
    assert any(name.endswith(".db") for name in kept)
    assert all(mode & 0o077 == 0 for mode in (*kept.values(), stat.S_IMODE(spool.stat().st_mode))), kept
    serving.assert_told_nothing()


def assert_confined(pid: int) -> None:
    """The process is not root; where we may arrange it, every mount but the spool is read-only."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    uids = {int(uid) for uid in re.findall(r"^Uid:\s+(.*)$", status, re.MULTILINE)[0].split()}
    assert 0 not in uids
    if os.geteuid() == 0:
        assert uids == {NOBODY}
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        lines = [line.split(" ") for line in Path(f"/proc/{pid}/mounts").read_text("utf-8").splitlines()]
        mounts = {line[1]: line[3].split(",") for line in lines}  # of two at one place the later one is on top
        assert [place for place, options in mounts.items() if "rw" in options] == ["/srv"]
