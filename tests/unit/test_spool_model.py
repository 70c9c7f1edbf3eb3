"""The spool against a list: whatever is put, read, forgotten, refused by a failing disk, closed or killed, in any order."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from hypothesis.strategies import integers, lists

from bridge.adapters.spool import SqliteSpool
from bridge.adapters.spool_file import ROW_OVERHEAD_BYTES
from bridge.delivery import Delivery
from tests.unit.spooled import BYTES_MAX, READ_BYTES, RECEIVED_AT, failing_disk, put

SIZES = lists(integers(0, 2 * READ_BYTES), min_size=1, max_size=20)


class SpoolModel(RuleBasedStateMachine):
    """Drives a spool, and a list that knows what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "0"
        self.number = 0
        self.expected: list[Delivery] = []
        self.open()

    def open(self) -> None:
        """Open the spool over the folder."""

        async def make() -> SqliteSpool:
            return SqliteSpool(self.folder, BYTES_MAX)

        self.spool = self.runner.run(make())

    def made(self, sizes: list[int]) -> list[Delivery]:
        """New deliveries with bodies of these sizes."""
        self.number += len(sizes)
        return [
            Delivery(b"x" * size, RECEIVED_AT + self.number - place, f"{self.number}-{place}", "new")
            for place, size in enumerate(sizes)
        ]

    @rule(sizes=SIZES)
    def puts(self, sizes: list[int]) -> None:
        """What is put is taken."""
        given = self.made(sizes)
        assert self.runner.run(put(self.spool, given)) == [None] * len(given)
        self.expected += given

    @rule(sizes=SIZES, file_bytes_max=integers(0, 100_000))
    def puts_on_a_disk_that_may_fail(self, sizes: list[int], file_bytes_max: int) -> None:
        """What is taken is there, and what is refused is not."""
        given = self.made(sizes)
        with failing_disk(file_bytes_max):
            outcomes = self.runner.run(put(self.spool, given))
        self.expected += [each for each, outcome in zip(given, outcomes, strict=True) if outcome is None]

    @rule(bytes_max=integers(0, 4 * READ_BYTES), kept=integers(0, 3))
    def reads_and_forgets(self, bytes_max: int, kept: int) -> None:
        """What is read is the beginning of what is there; some of it, or all, is forgotten."""
        found = list(self.runner.run(self.spool.oldest(bytes_max)))
        assert found == self.expected[: len(found)]
        assert bool(found) == bool(self.expected)
        done = len(found) - kept
        if done > 0:
            self.runner.run(self.spool.forget(done))
            del self.expected[:done]

    @rule()
    def closes_and_opens(self) -> None:
        """An orderly end keeps everything."""
        self.runner.run(self.spool.close())
        self.open()

    @rule()
    def is_killed_and_opens(self) -> None:
        """So does a crash: what lies on the disk now is all that the next one finds."""
        copy = self.root / f"{int(self.folder.name) + 1}"
        shutil.copytree(self.folder, copy)
        self.runner.run(self.spool.close())
        shutil.rmtree(self.folder)
        self.folder = copy
        self.open()

    @invariant()
    def counts(self) -> None:
        """Number, bytes and the oldest one's time are those of the list."""
        assert self.spool.deliveries == len(self.expected)
        assert self.spool.bytes == sum(len(each.body) + ROW_OVERHEAD_BYTES for each in self.expected)
        assert (self.spool.oldest_received_at is None) == (not self.expected)
        assert self.spool.set_aside == 0

    def teardown(self) -> None:
        """Close everything."""
        self.runner.run(self.spool.close())
        self.runner.close()
        shutil.rmtree(self.root)


def test_spool_driven_at_random_holds_what_a_list_holds() -> None:
    """No sequence of operations loses, invents or reorders a delivery."""
    run_state_machine_as_test(
        SpoolModel,
        settings=settings(
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],  # a real disk
        ),
    )
