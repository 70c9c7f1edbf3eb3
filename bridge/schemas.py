"""The packaged schemas: one .avsc per record, read once at start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from bridge.encoding import pascal_case


def load(topic_field: str) -> dict[str, Any]:
    """The schema of a topic's records, for ``messages``, …, ``other``, ``dead_letter``."""
    text = (files("schemas") / "avro" / f"instagram_bridge.{pascal_case(topic_field)}.avsc").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def released() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema that a version was released with, and its path below schemas/avro/history."""
    history = Path(str(files("schemas") / "avro" / "history"))
    for path in sorted(history.rglob("*.avsc")):
        yield str(path.relative_to(history)), json.loads(path.read_text("utf-8"))
