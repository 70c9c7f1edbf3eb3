"""A record's raw in an envelope again: the street makes the same record of it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from bridge.local.meta.deliveries import Plan, deliveries
from bridge.reassembly import body_of
from tests.unit.street import ACCOUNT, change, decoded, item, record, records, wrapped

SEED = sorted((Path(__file__).parents[1] / "vectors" / "seed").rglob("*.json"))
ENTRY = f'"id":"{ACCOUNT}","time":1569262486'
MESSAGE = item('"message":{"mid":"m","text":"half \\ud83d"}')
BODIES = {
    "flat": f'{{"object":"instagram","entry":[{{{ENTRY},"field":"mentions","value":{{"media_id":1.0}},"new":[ 1 ]}}]}}',
    "flat without an id": '{"object":"instagram","entry":[{"time":1569262486,"field":"x","value":{}}]}',
    "bare": '{"field":"comments", "value":{"id":"1"}}',
    "change without a value": f'{{"object":"instagram","entry":[{{{ENTRY},"changes":[{{"field":"mentions"}}]}}]}}',
    "change of an entry without id": '{"object":"instagram","entry":[{"changes":[{"field":"x","entry":1,"value":2}]}]}',
    "change with an id of its own": f'{{"object":"instagram","entry":[{{{ENTRY},"changes":[{{"id":"7","field":"x","value":2}}]}}]}}',
    "entry without items": f'{{"object":"instagram","entry":[{{{ENTRY},"messaging":[]}}]}}',
    "entry that is no object": '{"object":"instagram","entry":["ü"]}',
    "test button": wrapped(change("messages", MESSAGE), array="changes", entry_id='"0"').decode(),
    "standby": wrapped(MESSAGE, array="standby").decode(),
    "id as a number": wrapped(MESSAGE, entry_id=ACCOUNT).decode(),
}


def assert_same(body: bytes) -> int:
    """Every event of a body comes again from its own record; gives how many there were."""
    events = [one for one in records(body) if not one.topic.endswith("dead_letter")]
    for one in events:
        again = record(body_of(decoded(one)))
        assert (again.topic, again.key, again.headers) == (one.topic, one.key, one.headers)
        assert decoded(again) == decoded(one)
    return len(events)


@pytest.mark.parametrize("name", BODIES)
def test_record_of_each_form_walks_to_itself(name: str) -> None:
    """Flat, bare, wrapped: event_id, key and value are the same, raw to the last space."""
    assert assert_same(BODIES[name].encode()) == 1


@pytest.mark.parametrize("path", SEED, ids=lambda path: path.stem)
def test_record_of_metas_own_example_walks_to_itself(path: Path) -> None:
    """What Meta's page shows."""
    assert assert_same(path.read_bytes()) > 0


def test_records_of_made_up_traffic_walk_to_themselves() -> None:
    """A thousand deliveries, every second one of them odd."""
    plan = Plan(seed=11, start_ms=1_795_338_000_000, quirks=0.5)
    assert sum(assert_same(delivery.body) for delivery in islice(deliveries(plan), 1000)) > 1000
