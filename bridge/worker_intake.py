"""The promise for one of several workers: what Kafka does not take, the keeper of the one spool may (decision 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bridge.delivery import Delivery
from bridge.intake import Answer, Arrived, Found, Intake, Mode, Publisher


class Keeper(Protocol):
    """What a worker needs of the process that has the spool."""

    def hand_over(self, delivery: Delivery, answer: Answer, *, failed: bool) -> None:
        """Take a delivery; ``failed`` when Kafka did not acknowledge it to the worker, and it must be spooled."""


class WorkerIntake(Intake):
    """The intake of one of several workers: it publishes by itself, and hands everything else to the keeper.

    Args:
        publisher, found, body_bytes_max: as Intake's.
        keeper: has the spool, and an Intake of its own.
        shared_mode: the keeper's mode, as all processes see it.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        found: Found,
        body_bytes_max: int,
        keeper: Keeper,
        shared_mode: Callable[[], Mode],
    ) -> None:
        super().__init__(publisher=publisher, spool=None, found=found, body_bytes_max=body_bytes_max)
        self._keeper = keeper
        self._shared_mode = shared_mode

    @property
    def ready(self) -> bool:
        """Always: what Kafka does not take, the keeper may."""
        return True

    def _route(self, arrived: Sequence[Arrived]) -> None:
        # The keeper may be back at Kafka before this worker is: then it publishes, instead of spooling what nobody has tried yet.
        if self._shared_mode() is Mode.DIRECT and self._publisher.ready and self.pipeline is not None:
            self._direct(arrived)
            return
        for delivery, answer in arrived:
            self._keeper.hand_over(delivery, self._counted(answer), failed=False)

    def set_aside(self, delivery: Delivery, answer: Answer) -> None:
        """Let the keeper spool a delivery that Kafka did not acknowledge."""
        self._keeper.hand_over(delivery, answer, failed=True)
