"""The shipped experiment, in its short form."""

from __future__ import annotations

from pathlib import Path

from tests.faults.broker import ProxiedKafka
from tests.faults.chaos import experiment

SECONDS = 30
SEED = 7


async def test_chaos_loses_nothing_and_keeps_the_order(broken: ProxiedKafka, tmp_path: Path) -> None:
    """Half a minute of faults: whatever was answered 200 is in Kafka, each conversation's first copies in order."""
    result = await experiment(broken, tmp_path, seconds=SECONDS, seed=SEED)
    assert result.kept, result.table()
    assert result.figures.by_kafka > 0
    assert result.figures.delivered >= result.figures.by_kafka + result.figures.by_spool
    assert sum(map(len, result.recoveries_s.values())) >= 2
