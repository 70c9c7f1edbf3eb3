"""docs/metrics.md and docs/errors.md say what the code has, no more and no less."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TypeVar, get_args

from bridge.delivery import Delivery
from bridge.errors import BridgeError, Refused, Unreadable
from bridge.intake import Acknowledger
from bridge.notification import Note
from bridge.pipeline import RECORD_TOO_LARGE, UNPROCESSABLE
from bridge.record import Record
from bridge.telemetry import Telemetry
from tests.docs.markdown import ROOT, rows

ERRORS = ROOT / "docs/errors.md"
METRICS = ROOT / "docs/metrics.md"
METRICS_HEADING = "| metric | kind | labels | what it counts |"

Error = TypeVar("Error", bound=BridgeError)


def leaves(root: type[Error]) -> Iterator[type[Error]]:
    """The errors that are raised: the classes that no other of the project derives from."""
    children = [child for child in root.__subclasses__() if child.__module__.startswith("bridge.")]
    if not children:
        yield root
    for child in children:
        yield from leaves(child)


def test_metrics_of_the_document_are_those_of_the_code() -> None:
    """Names, kinds and labels, of everything that a scrape can show."""
    telemetry = Telemetry({"17841400000000001": "shop"})
    telemetry.authenticated([Delivery(b"{}", 1_763_800_000_000, "0" * 32, "new")])
    telemetry.acknowledged("kafka", time.monotonic())
    telemetry.refused("bad_request", delivery=False, verification=False)
    telemetry.refused("wrong_verify_token", delivery=False, verification=True)
    telemetry.found([[Record.of("instagram.messages", None, b"", [])]], [Note("unknown_key", "message.new")])
    shown = set()
    for family in telemetry.registry.collect():
        assert family.samples, f"{family.name} has labels, and this test sets none"
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown.add((name, family.type, ", ".join(sorted(labels))))
    assert {(name, kind, labels) for name, kind, labels, _ in rows(METRICS, METRICS_HEADING)} == shown


def test_metrics_of_deliveries_name_each_acknowledger_as_the_document_does() -> None:
    """A scrape explains itself in the document's words: what a delivery's outcome can be, and where one in flight may be."""
    written = {name: text for name, _, _, text in rows(METRICS, METRICS_HEADING)}
    told = {family.name: family.documentation for family in Telemetry().registry.collect()}
    for text in (written["instagram_bridge_deliveries_total"], told["instagram_bridge_deliveries"]):
        assert set(get_args(Acknowledger)) <= set(re.findall(r"\w+", text))
    in_flight = "instagram_bridge_deliveries_in_flight"
    for text in (written[in_flight], told[in_flight]):
        assert "read, published or spooled" in text


def test_refusals_of_the_document_are_those_of_the_code() -> None:
    """Every reason with its status, and when to come again."""
    heading = "| reason | status | Retry-After | when | what to do |"
    written = {(reason, int(status), retry) for reason, status, retry, _, _ in rows(ERRORS, heading)}
    assert written == {(error.reason, error.http_status, f"{error.retry_after_s or ''}") for error in leaves(Refused)}


def test_dead_letters_reasons_of_the_document_are_those_of_the_code() -> None:
    """The classes of what cannot be read, and the two reasons that no class carries."""
    written = {reason for reason, _, _ in rows(ERRORS, "| reason | what is in `body` | why |")}
    assert written == {error.reason for error in leaves(Unreadable)} | {RECORD_TOO_LARGE, UNPROCESSABLE}


def test_no_reason_of_the_tree_is_missing_from_the_document() -> None:
    """The three tables together are all that errors.py names."""
    tables = (
        *rows(ERRORS, "| reason | status | Retry-After | when | what to do |"),
        *rows(ERRORS, "| reason | what is in `body` | why |"),
        *rows(ERRORS, "| reason | what happens |"),
    )
    tree = {error.reason for error in leaves(BridgeError) if error.__module__ == BridgeError.__module__}
    assert {row[0] for row in tables} >= tree
