"""README.md, done as it says: its shell block delivers, its Python reads."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

from bridge.local.service import Broker
from tests.docs.markdown import ROOT, fences
from tests.kafka.reading import decode_single_object
from tests.kafka.serving import APP_SECRET, opened, serve_environment
from tests.processes import Process

README = ROOT / "README.md"


async def test_readmes_delivery_is_accepted_and_its_reader_prints_the_event(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """The signature by openssl is taken, and confluent-kafka with fastavro reads the text; only ports and names differ."""
    (delivery,) = [block for block in fences(README, "sh") if "openssl" in block]
    (reader,) = fences(README, "python")
    assert reader.count('"127.0.0.1:9092"') == reader.count('"hello"') == reader.count('"instagram.messages"') == 1
    here = {
        "127.0.0.1:9092": kafka.bootstrap_servers,
        '"hello"': f'"{topic_prefix}"',
        "instagram.messages": f"{topic_prefix}.messages",
        "schemas/avro": str(ROOT / "schemas/avro"),
    }
    for written, place in here.items():
        reader = reader.replace(written, place)
    environment = serve_environment(kafka.bootstrap_servers, topic_prefix)
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/app-secret").write_text(APP_SECRET, "utf-8")
    async with opened(tmp_path, environment, decode_single_object) as street:
        shell = delivery.replace(":8080/", f":{street.serving.port}/")
        answer = await asyncio.to_thread(subprocess.check_output, ["bash", "-ec", shell], cwd=tmp_path, text=True)
        assert answer.startswith("HTTP/1.1 200 ")
        assert "X-Acknowledged-By: kafka" in answer
        (tmp_path / "reader.py").write_text(reader, "utf-8")
        process = await Process.begin("reader.py", folder=tmp_path)
        try:
            await process.until_printed("900000000000001 Hello from openssl")
        finally:
            await process.end(signal.SIGKILL)  # it reads for ever
