"""What analytics prints: a block that is drawn over on a terminal, plain lines elsewhere."""

import asyncio
import contextlib
import io
from datetime import UTC, datetime

import pytest

from consumers.analytics import report as analytics_report
from consumers.analytics.counts import Counts
from tests.consumers.samples import decoded, message


class Terminal(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


async def printed(counts: Counts, out: io.StringIO, *, then: list[str]) -> str:
    """What is printed before and after one event per account id in `then`."""
    task = asyncio.create_task(analytics_report.report(counts, out=out))
    await asyncio.sleep(0)  # lets it print what is there
    await counts.handle([decoded(message(account_id=account_id)) for account_id in then])
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return out.getvalue()


@pytest.fixture
def counts() -> Counts:
    """Counts of nothing yet."""
    return Counts(started_at=datetime.now(UTC))


async def test_report_on_a_terminal_draws_over_its_own_lines(counts: Counts) -> None:
    """It goes up as many lines as it had drawn, and an account id cannot steer the terminal."""
    await counts.handle([decoded(message(account_id="1"))])
    text = await printed(counts, Terminal(), then=["2\x1b[2J"])
    first, second = text.split("\x1b[2F\x1b[J")
    assert first == "events 1  redeliveries 0  accounts 1\n  1  messages 1\n"
    assert second == "events 2  redeliveries 0  accounts 2\n  1  messages 1\n  2?[2J  messages 1\n"


async def test_report_elsewhere_prints_plain_lines_with_the_accounts_that_have_most(counts: Counts) -> None:
    """No control characters; beyond ten accounts the rest is only counted."""
    accounts = [str(number) for number in range(12) for _ in range(12 - number)]
    lines = (await printed(counts, io.StringIO(), then=accounts)).splitlines()
    assert lines[:3] == [
        "events 0  redeliveries 0  accounts 0",
        "events 78  redeliveries 0  accounts 12",
        "  0  messages 12",
    ]
    assert lines[-1] == "  and 2 more accounts"
    assert len(lines) == 1 + 1 + 10 + 1
