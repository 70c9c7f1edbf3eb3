"""What the engines are held against is itself right, and has something of everything."""

from collections import Counter

from tests.interop.engine import ROOT, Rows, statements
from tests.interop.world import ANSWERED_AFTER_S, ASKED, REALLY_AFTER_S, World
from tests.kafka.serving import ACCOUNT

VIEWS = {
    *("events_by_field", "messages_by_hour", "questions", "first_responses", "totals_by_day", "new_customers_by_day"),
    *("first_responses_by_day", "reactions_by_day", "attachments_by_day", "postbacks_by_day", "ads_by_day"),
    *("refs_by_day", "seen_by_day", "lag_by_day"),
}
"""Every view over events that an engine has for others to read."""


async def test_world_has_copies_and_every_measure_something(world: World, wanted: dict[str, Rows]) -> None:
    """Nothing is equal only because it is empty."""
    assert wanted.keys() == VIEWS
    assert [view for view, rows in wanted.items() if not rows] == []
    totals: Counter[str] = Counter()
    for row in wanted["totals_by_day"]:
        totals.update({name: number for name, number in row.items() if isinstance(number, int)})
    assert [name for name, total in totals.items() if not total] == []
    assert len(totals) == len(wanted["totals_by_day"][0]) - len(("account_id", "day"))
    records = await world.topics.records("messages")
    assert len({dict(record.headers)["ce_id"] for record in records}) < len(records)


def test_duckdb_has_what_the_truth_says(world: World, wanted: dict[str, Rows]) -> None:
    """By webhook field, of all events but the conversation that was told by hand."""
    found: Counter[str] = Counter()
    for row in wanted["events_by_field"]:
        if row["account_id"] != ACCOUNT:
            found[row["webhook_field"]] += row["events"]
    assert found == Counter(line["topic"].removeprefix(f"{world.topics.prefix}.") for line in world.truth)


def test_late_answer_corrects_the_question_in_duckdb(wanted: dict[str, Rows]) -> None:
    """The conversation that was told by hand has one question, and the answer that came last was the first."""
    [row] = [row for row in wanted["first_responses"] if row["account_id"] == ACCOUNT]
    assert row["asked_at"] == ASKED.replace(tzinfo=None)
    assert row["seconds"] == REALLY_AFTER_S < ANSWERED_AFTER_S


def test_both_engines_have_the_same_views() -> None:
    """Those that DuckDB is asked for; the others are steps on the way to them."""
    steps = {"events", "direct_messages", "store_events", "store_undecodable_records", "question_times"}
    places = dict.fromkeys(("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "TOPIC_PREFIX"), "x")
    for engine in ("clickhouse", "flink"):
        texts = [text for path in (ROOT / "deploy" / engine).glob("*.sql") for text in statements(path, places)]
        made = {text.split()[text.split().index("VIEW") + 1] for text in texts if " VIEW " in text.partition("\n")[0]}
        assert made - steps == VIEWS
