"""Any bytes as the body of an authentic delivery: whatever they are, they become records, dead letters or nothing to publish."""

from __future__ import annotations

import time
from random import Random

from bridge.pipeline import UNPROCESSABLE
from bridge.record import Record
from tests.fuzz.mutation import JSON_TOKENS, mutated, reshaped, seeds
from tests.unit.street import decoded, topic_field_of, walk

CORPUS = seeds()

CASE_CPU_S_MAX, CPU_S_PER_BYTE_MAX = 0.5, 20e-6
"""Of processor time: items of three bytes cost 5 µs a byte, Meta's own 0.1. Work that grows with the square of a body is more."""


class Parsing:
    """The street under mutated bodies."""

    async def case(self, random: Random) -> bytes:
        """Run one case.

        Returns:
            What it was about, for whoever wants to see it.

        Raises:
            Finding: something is not as it should be.
        """
        body = _body(random)
        try:
            _check(body)
        except Exception as error:
            raise Finding(body) from error
        return body

    async def close(self) -> None:
        """Nothing is open."""


class Finding(AssertionError):
    """A case that failed: its argument is the input, its cause what was wrong."""


def _body(random: Random) -> bytes:
    body = random.choice(CORPUS)
    match random.randrange(8):
        case 0:
            return mutated(random, b"", CORPUS, JSON_TOKENS)
        case 1:
            return mutated(random, body, CORPUS, JSON_TOKENS)
        case 2:
            return mutated(random, reshaped(random, body), CORPUS, JSON_TOKENS)
        case _:
            return reshaped(random, body)


def _check(body: bytes) -> None:
    began = time.thread_time()
    records, notes = walk(body)
    spent = time.thread_time() - began
    assert spent < CASE_CPU_S_MAX + CPU_S_PER_BYTE_MAX * len(body), f"{spent:.1f} s for {len(body)} bytes"
    assert records or any(note.kind == "empty" for note in notes), "neither published nor said to be empty"
    assert walk(body) == (records, notes), "another walk gives something else"
    for record in records:
        _check_record(record, body)


def _check_record(record: Record, body: bytes) -> None:
    """Another Avro reader takes the value to its last byte, and nothing of the delivery's text is lost."""
    value = decoded(record)
    if topic_field_of(record) == "dead_letter":
        assert value["reason"] != UNPROCESSABLE, f"our own code stumbled: {value['detail']}"
        assert value["body"] in body
    else:
        assert value["raw"].encode() in body, "raw is not a slice of the body"
        assert dict(record.headers)["ce_id"] == value["event_id"].encode()
