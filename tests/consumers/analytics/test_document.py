"""docs/analytics.md: its SQL runs, its settings and figures are the code's."""

from datetime import UTC, datetime, timedelta

import pytest

from consumers.analytics import measures
from consumers.analytics.settings import Settings
from consumers.analytics.store import Store
from tests.docs.markdown import ROOT, fences, rows

DOCUMENT = ROOT / "docs/analytics.md"


@pytest.mark.parametrize("query", fences(DOCUMENT, "sql"))
def test_query_of_the_document_runs_and_finds_something(store: Store, query: str) -> None:
    """Each as it is written."""
    assert store.cursor().execute(query).fetchall()


def test_settings_of_the_document_are_those_of_the_code() -> None:
    """All of them, with their defaults."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    shown = {Settings.variable(name): "unset" if value is None else f"{value}" for name, value in defaults.items()}
    written = {name: default for name, default, _ in rows(DOCUMENT, "| setting | default | is |")}
    assert written == shown | {
        "ANALYTICS_TRACING": "false",
        "ANALYTICS_SNAPSHOT": Settings.model_construct(database=defaults["database"]).snapshot_path.name,
    }


def test_figures_of_the_document_are_those_of_the_code(store: Store) -> None:
    """Every total, once."""
    now = datetime.now(UTC)
    found = measures.figures(
        store.cursor(), account_id=None, since=now - timedelta(days=1), until=now, now=now, unanswered_minutes=60
    )
    written = [name.strip() for names, _ in rows(DOCUMENT, "| figure | is |") for name in names.split(",")]
    assert sorted(written) == sorted(found["totals"])
