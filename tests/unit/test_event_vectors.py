"""The vectors of tests/vectors/event_ids.toml: each against sha256 of its own text, and the street against each."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bridge.event import CHANGE_FIELDS, WEBHOOK_FIELD_OF_KEY, WEBHOOK_FIELDS
from bridge.routing import record_key
from tests.unit.street import events

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: list[dict[str, Any]] = tomllib.loads((FOLDER / "event_ids.toml").read_text("utf-8"))["vector"]

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@each_vector
def test_event_id_of_a_vector_is_the_sha256_of_its_text(vector: dict[str, Any]) -> None:
    """A vector's ids follow from the texts beside them: anyone can recompute them with sha256sum."""
    for expected in vector["event"]:
        assert sha256(expected["identity"])[:32] == expected["event_id"]
        if "canonical" in expected:
            assert expected["identity"].endswith(f',"{sha256(expected["canonical"])}"]')


@each_vector
def test_event_of_a_vector_has_its_field_kind_key_and_id(vector: dict[str, Any]) -> None:
    """The street names every event as the vector says, in the order of the items."""
    body = (FOLDER / vector["file"]).read_bytes() if "file" in vector else vector["body"].encode()
    found = [
        (event.webhook_field, event.kind, record_key(event.account_id, event.customer_id), event.event_id)
        for event in events(body)
    ]
    assert found == [
        (one["webhook_field"], one.get("kind"), one["key"].encode() if "key" in one else None, one["event_id"])
        for one in vector["event"]
    ]


def test_vectors_cover_every_seed_file_field_and_kind() -> None:
    """No seed case, topic of events or kind is without a vector."""
    expected = [event for vector in VECTORS for event in vector["event"]]
    assert {event["webhook_field"] for event in expected} == set(WEBHOOK_FIELDS)
    assert {event.get("kind") for event in expected} >= {*WEBHOOK_FIELD_OF_KEY, *CHANGE_FIELDS}
    assert {vector["file"] for vector in VECTORS if "file" in vector} == {
        f"seed/{path.name}" for path in (FOLDER / "seed").glob("*.json")
    }
