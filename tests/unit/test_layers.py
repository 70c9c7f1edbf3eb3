"""The street stands alone: no network library, no socket."""

from __future__ import annotations

import subprocess
import sys

STREET = [
    "delivery",
    "signature",
    "coercion",
    "jsontext",
    "notification",
    "event",
    "routing",
    "encoding",
    "schemas",
    "pipeline",
]

PROGRAM = """
import _socket, importlib, sys

def refuse(*arguments, **options):
    raise AssertionError("the street opened a socket")

_socket.socket = refuse
for module in sys.argv[1:]:
    importlib.import_module(f"bridge.{module}")
print(*sorted(name for name in sys.modules if "." not in name))
"""


def test_street_imported_loads_no_network_library_and_opens_no_socket() -> None:
    """bridge/pipeline.py and what it needs run with sockets switched off, and bring no client or server along."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *STREET], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"bridge", "msgspec", "fastavro"} <= loaded
    assert not loaded & {
        "aiohttp",
        "aiokafka",
        "asyncio",
        "socket",
        "sqlite3",
        "requests",
        "prometheus_client",
        "structlog",
    }
