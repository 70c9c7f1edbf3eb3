"""docs/sizing.md: every row of its table follows from its figures, and deploy/kubernetes from both."""

from __future__ import annotations

import math

import pytest

from bridge.settings import Settings
from tests.deploy.description import ROOT
from tests.deploy.test_kubernetes import of_kind
from tests.docs.markdown import rows

SIZING = ROOT / "docs/sizing.md"
FIGURES = {name: float(value) for name, value, _ in rows(SIZING, "| figure | value | from |")}
HEADING = (
    "| deliveries/s at the peak | cores busy | pods | Kafka MB/s at the peak | Kafka GB for 30 days, 3 replicas "
    "| spool lasts hours |"
)
_DAYS_S = 30 * 24 * 60 * 60
_REPLICAS = 3


@pytest.mark.parametrize("row", rows(SIZING, HEADING), ids=lambda row: row[0])
def test_row_of_the_table_follows_from_the_figures(row: list[str]) -> None:
    """As rounded as it is shown."""
    peak = float(row[0])
    average = peak * FIGURES["average to peak"]
    cores = peak * FIGURES["CPU seconds per 1000 deliveries"] / 1000
    pods = max(2, math.ceil(cores / FIGURES["busy share of a core"]) + 1)
    record_bytes = FIGURES["bytes per record"]
    spool_bytes = pods * Settings.model_fields["spool_bytes_max"].default
    computed = [
        cores,
        pods,
        peak * record_bytes / 1e6,
        average * _DAYS_S * record_bytes * _REPLICAS / 1e9,
        spool_bytes / (average * FIGURES["bytes per spooled delivery"]) / 3600,
    ]
    for shown, value in zip(row[1:], computed, strict=True):
        unit = 10 ** -len(shown.partition(".")[2])
        assert float(shown) == pytest.approx(value, rel=0, abs=0.51 * unit)


def test_autoscaler_keeps_the_busy_share_of_the_table() -> None:
    """A pod has one worker, which uses one core at most."""
    (metric,) = of_kind("HorizontalPodAutoscaler")["metrics"]
    target = metric["resource"]["target"]
    assert target["type"] == "AverageValue", "a share of the request would move with it"
    assert int(target["averageValue"].removesuffix("m")) == 1000 * FIGURES["busy share of a core"]
