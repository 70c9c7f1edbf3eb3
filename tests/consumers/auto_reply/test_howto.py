"""docs/how-to/answer.md says what the code has, no more and no less."""

from __future__ import annotations

import re

from consumers.auto_reply import graph
from consumers.auto_reply.__main__ import GAUGES
from consumers.auto_reply.figures import Figures
from consumers.auto_reply.settings import Settings
from consumers.settings import ConsumerSettings
from tests.docs.markdown import ROOT, rows, text

PAGE = ROOT / "docs/how-to/answer.md"


def test_settings_of_the_page_are_those_of_the_code() -> None:
    """Names and defaults, of those that only auto_reply has."""
    own = {name: field for name, field in Settings.model_fields.items() if name not in ConsumerSettings.model_fields}
    wanted = {}
    for name, field in own.items():
        default = field.default
        shown = "required" if field.is_required() else "unset" if default is None else str(default)
        wanted[Settings.variable(name)] = shown.lower() if isinstance(default, bool) else shown
    assert {name: default for name, default, _ in rows(PAGE, "| setting | default | what it is |")} == wanted


def test_settings_of_every_consumer_are_named_on_the_page() -> None:
    """Each with auto_reply's prefix, as it is typed."""
    named = set(re.findall(r"\bAUTO_REPLY_[A-Z_]+", text(PAGE)))
    assert {Settings.variable(name) for name in ConsumerSettings.model_fields} <= named


def test_metrics_of_the_page_are_those_of_the_code() -> None:
    """Names, kinds and labels."""
    figures = Figures()
    for name, meaning in GAUGES.items():
        figures.gauge(name, meaning, lambda: 0.0)
    figures.decided("sent", "rule_matched")
    shown = set()
    for family in figures.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown.add((name, family.type, ", ".join(sorted(labels))))
    heading = "| metric | kind | labels | what it counts |"
    assert {(name, kind, labels) for name, kind, labels, _ in rows(PAGE, heading)} == shown


def test_error_codes_of_the_page_are_those_of_the_code() -> None:
    """Every code that is told apart, and what it is called."""
    told = {
        code: reason
        for codes, reason, _ in rows(PAGE, "| code/subcode | reason | what is done |")
        for code in re.findall(r"\d+(?:/\d+)?", codes.replace("HTTP 429", "").replace("HTTP 5xx", ""))
    }
    wanted = dict.fromkeys(map(str, graph.LIMITED), "rate_limited") | dict.fromkeys(
        map(str, graph.MAYBE_SENT), "graph_error"
    )
    for (code, subcode), reason in (graph.STOP | graph.REFUSED).items():
        wanted[f"{code}" if subcode is None else f"{code}/{subcode}"] = reason
    assert told == wanted
