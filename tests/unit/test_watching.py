"""When Meta was last heard of, and how long it took: as metrics, and as what /status shows."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from prometheus_client import generate_latest

from bridge.errors import Misconfigured
from bridge.notification import Note
from bridge.record import Record
from bridge.settings import Settings, load, watched_accounts
from bridge.telemetry import Telemetry
from bridge.watching import ACCOUNTS_MAX
from tests.unit.street import ACCOUNT, RECEIVED_AT, change, item, records, wrapped

NAME = "instagram_bridge"


def shown(telemetry: Telemetry, name: str) -> dict[str, float]:
    """The samples of /metrics that begin so."""
    lines = generate_latest(telemetry.registry).decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if line.startswith(f"{NAME}_{name}"))
    return {sample.removeprefix(f"{NAME}_{name}"): float(value) for sample, value in samples.items()}


def test_times_of_the_first_event_become_delays_of_meta_and_of_the_way() -> None:
    """Sent a quarter of a second after it happened, and here two seconds later; one observation a delivery."""
    telemetry, notes = Telemetry(), list[Note]()
    one = item('"message":{"mid":"m"}', timestamp=f"{RECEIVED_AT - 2250}")
    body = wrapped(one, item('"message":{"mid":"n"}')).replace(
        b'"time":1569262486134', f'"time":{RECEIVED_AT - 2000}'.encode()
    )
    telemetry.found([records(body)], notes)
    assert shown(telemetry, "meta_seconds_sum") == {"": 0.25}
    assert shown(telemetry, "arrival_seconds_sum") == {"": 2.0}
    buckets = shown(telemetry, "arrival_seconds_bucket")
    assert (buckets['{le="1.0"}'], buckets['{le="2.5"}'], buckets['{le="+Inf"}']) == (0, 1, 1)


def test_times_that_are_missing_or_in_the_future_break_nothing() -> None:
    """A change has no time of its own, a clock may be behind, a dead letter has neither, a notification may be empty."""
    telemetry = Telemetry()
    ahead = wrapped(change("mentions", "{}"), array="changes").replace(b"1569262486134", b"4102444800000")
    for body in (ahead, b"not JSON", b'{"object":"instagram","entry":[]}'):
        telemetry.found([records(body)], [])
    assert shown(telemetry, "arrival_seconds_count") == {"": 1}
    assert shown(telemetry, "arrival_seconds_sum") == {"": 0}
    assert shown(telemetry, "meta_seconds_count") == {"": 0}


def test_watched_account_is_told_by_its_label_and_silent_since_the_start() -> None:
    """Its id is in no metric; an account that never had an event counts from the start, so that its silence is noticed too."""
    began = time.time()
    telemetry = Telemetry({ACCOUNT: "shop", "17841499999999999": "outlet"})
    telemetry.found([records(wrapped(item('"message":{"mid":"m"}')))], [])
    gauges = shown(telemetry, "account_last_event_timestamp_seconds")
    assert gauges['{account="shop"}'] == RECEIVED_AT / 1000
    assert gauges['{account="outlet"}'] == pytest.approx(began, abs=60)
    assert ACCOUNT not in generate_latest(telemetry.registry).decode()
    assert telemetry.watch.seconds_ago(RECEIVED_AT / 1000 + 7) == {ACCOUNT: 7}


def test_accounts_beyond_the_bound_forget_the_silent_ones_but_no_watched_one() -> None:
    """However many accounts there are, memory is bounded."""
    (one,) = records(wrapped(item('"message":{"mid":"m"}')))
    telemetry = Telemetry({ACCOUNT: "shop"})
    telemetry.found([[msgspec.structs.replace(one, timestamp=1)]], [])
    for number in range(ACCOUNTS_MAX):
        telemetry.found([[Record(one.topic, None, b"", 1000 + number, f"{number}")]], [])
    known = telemetry.watch.seconds_ago(time.time())
    assert len(known) == ACCOUNTS_MAX // 2 + 1
    assert {ACCOUNT, f"{ACCOUNTS_MAX - 1}"} <= known.keys()
    assert "0" not in known


def settings(monkeypatch: pytest.MonkeyPatch, text: str) -> Settings:
    given: dict[str, Any] = {"APP_SECRETS": "s", "VERIFY_TOKEN": "t", "WATCHED_ACCOUNTS": text}
    for name, value in given.items():
        monkeypatch.setenv(f"BRIDGE_{name}", value)
    return load(Settings)[0]


def test_watched_accounts_have_the_given_label_or_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms beside each other."""
    assert watched_accounts(settings(monkeypatch, "shop=111,222")) == {"111": "shop", "222": "account-2"}
    assert watched_accounts(settings(monkeypatch, "")) == {}


@pytest.mark.parametrize("text", ["shop=1,shop=2", "shop=1,outlet=1", "Shop=1", "1,,2", "1,", "shop=", "a=b=c"])
def test_watched_accounts_that_are_ambiguous_stop_the_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Given twice, empty, or a label that is none: the setting is named."""
    with pytest.raises(Misconfigured, match="BRIDGE_WATCHED_ACCOUNTS"):
        settings(monkeypatch, text)
