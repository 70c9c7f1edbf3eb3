"""docs/tutorial.md, typed as it stands: its deliveries are taken, and its consumer keeps each question once."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from bridge.local.service import Broker
from tests.docs.markdown import ROOT, fences
from tests.kafka.reading import decode_single_object
from tests.kafka.serving import APP_SECRET, opened, serve_environment
from tests.processes import Process, until

TUTORIAL = ROOT / "docs/tutorial.md"
QUESTION = "900000000000001 Do you ship to Graz?"
TIMES_SENT = 2


async def test_tutorials_consumer_keeps_a_question_once_whatever_comes_twice(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Sent, sent again, and read again from the beginning: one row. Only ports and names differ from the page."""
    environment = serve_environment(kafka.bootstrap_servers, topic_prefix)
    here = {
        "127.0.0.1:9092": kafka.bootstrap_servers,
        '"questions"': f'"{topic_prefix}"',
        "group questions": f"group {topic_prefix}",
        "instagram.messages": f"{topic_prefix}.messages",
        "bridge send": f"bridge send --url http://127.0.0.1:{environment['BRIDGE_PORT']}/webhooks/instagram",
    }

    def of_the_page(block: str) -> str:
        for written, place in here.items():
            block = block.replace(written, place)
        return block

    async def type_in(block: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, **environment, "PATH": path}
        command = ["bash", "-ec", of_the_page(block)]
        return await asyncio.to_thread(subprocess.check_output, command, cwd=tmp_path, env=variables, text=True)

    async def start() -> Process:
        return await Process.begin("questions.py", folder=tmp_path)

    first, again, replay = (
        next(block for block in fences(TUTORIAL, "sh") if block.startswith(begin))
        for begin in ("cat > question.json", "bridge send", "bridge replay")
    )
    (program,) = fences(TUTORIAL, "python")
    (tmp_path / "questions.py").write_text(of_the_page(program), "utf-8")
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/app-secret").write_text(f"new={APP_SECRET}", "utf-8")
    async with opened(tmp_path, environment, decode_single_object):
        consumer = await start()
        try:
            assert "kafka" in await type_in(first)
            await consumer.until_printed(QUESTION)
            await type_in(again)
            await consumer.until_printed("known")
            assert await consumer.end(signal.SIGINT) == 0, consumer.stderr
        finally:
            await consumer.end(signal.SIGKILL)
        assert [line.split()[0] for line in consumer.stdout.splitlines()] == ["new", "known"]

        await type_in(replay.splitlines()[-1])  # the line before it shows the plan alone
        consumer = await start()
        try:
            await until(lambda: consumer.stdout.count(QUESTION) == TIMES_SENT, "both records are read again")
        finally:
            await consumer.end(signal.SIGKILL)
        assert "new" not in consumer.stdout
    rows = sqlite3.connect(tmp_path / "questions.sqlite").execute("SELECT customer_id, text FROM questions").fetchall()
    assert [" ".join(row) for row in rows] == [QUESTION]
