"""Flink's connector for Kafka and its reader of a registry's Avro: `flink.lock` names them, the cache of the packaged Kafka keeps them.

`python -m tests.interop.jars fetch` fetches ahead; `lock` writes the lock anew (`make lock-java`).
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.local.artifacts import cache_dir
from bridge.local.maven import fetch, read_lock, repositories, write_lock

FLINK_VERSION = "2.3.0"  # PyFlink's, in locks/interop.txt
JARS = (
    # A connector has a version of its own; what follows the hyphen is the oldest Flink that it is made for.
    "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
    f"org.apache.flink:flink-sql-avro-confluent-registry:{FLINK_VERSION}",
)
LOCK = Path(__file__).with_name("flink.lock")


def flink_jars() -> list[Path]:
    """The jars, verified; fetches what is missing or torn.

    Raises:
        Misconfigured: A jar could not be had, or is not the one that was locked.
    """
    return fetch("Flink's connectors", read_lock(LOCK), cache_dir() / "jars")


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when a jar could not be had, with a line that says why."""
    try:
        match arguments:
            case ["fetch"]:
                flink_jars()
            case ["lock"]:
                with tempfile.TemporaryDirectory() as folder:
                    write_lock(LOCK, JARS, repositories(Path(folder), lambda _more_bytes: None))
            case _:
                sys.stderr.write("usage: python -m tests.interop.jars fetch|lock\n")
                return 2
    except Misconfigured as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
