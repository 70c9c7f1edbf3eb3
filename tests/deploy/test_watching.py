"""Alert rules and dashboard: every query asks for metrics, labels and values that the bridge has; promtool has the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from bridge.errors import Refused
from tests.deploy.description import ROOT
from tests.docs.markdown import rows
from tests.docs.test_reference import leaves

RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text("utf-8"))

METRICS = {
    name: (kind, set(filter(None, labels.split(", "))))
    for name, kind, labels, _ in rows(ROOT / "docs/metrics.md", "| metric | kind | labels | what it counts |")
}
SCRAPED = {"instance", "job"}
"""Labels that Prometheus adds."""

VALUES = {
    "outcome": {"kafka", "spool", "none", "accepted", *(error.reason for error in leaves(Refused))},
    "kind": {"unknown_key", "unknown_value", "wrong_type", "second_key", "empty", "unreadable"},
}
"""Of labels whose values are a closed set."""


def panels() -> Iterator[dict[str, Any]]:
    """Those of the dashboard that show something."""
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            yield panel


QUERIES = [
    *((alert["alert"], alert["expr"]) for alert in ALERTS),
    *((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]),
]
each_query = pytest.mark.parametrize("query", [query for _, query in QUERIES], ids=[name for name, _ in QUERIES])


def asked(query: str) -> Iterator[tuple[str, str]]:
    """Every metric of a query by its name in the register, and the matchers that stand behind it."""
    for name, matchers in re.findall(r"\b(instagram_bridge_\w+)(?:\{([^}]*)\})?", query):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        yield (base if METRICS.get(base, ("", ()))[0] == "histogram" else name), matchers


@each_query
def test_query_asks_for_metrics_and_labels_that_exist(query: str) -> None:
    """A renamed metric would make an alert silent for ever."""
    found = list(asked(query))
    assert found
    for metric, matchers in found:
        assert metric in METRICS
        for label, operator, text in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in METRICS[metric][1] | SCRAPED, metric
            if label in VALUES:
                assert set(text.split("|")) <= VALUES[label], (label, operator)
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    assert grouped <= set().union(*(METRICS[metric][1] for metric, _ in found)) | {"le"} | SCRAPED


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_alert_says_what_it_is_how_bad_and_where_to_read_on(alert: dict[str, Any]) -> None:
    """One of three severities; the runbook has a heading of the alert's name; what a summary shows is there to be shown."""
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in labels.split(",")}
    assert shown <= (grouped or SCRAPED)


def test_every_metric_is_on_the_dashboard() -> None:
    """What is counted can be seen."""
    assert {metric for panel in panels() for target in panel["targets"] for metric, _ in asked(target["expr"])} == set(
        METRICS
    )


def test_dashboard_has_a_place_a_source_and_a_number_of_its_own_for_every_panel() -> None:
    """None covers another, each asks the Prometheus that was chosen."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}


def test_every_alert_is_replayed_by_promtool() -> None:
    """alerts_test.yml has a history in which it fires; `make alerts` runs it."""
    replayed = (ROOT / "deploy/prometheus/alerts_test.yml").read_text("utf-8")
    assert {alert["alert"] for alert in ALERTS} == set(re.findall(r'alertname="(\w+)"', replayed))
