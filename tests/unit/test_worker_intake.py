"""A worker's intake: what it publishes by itself, and what it hands to the keeper, in whose word."""

from __future__ import annotations

import pytest

from bridge.delivery import Delivery
from bridge.errors import Refused, SpoolFailed
from bridge.intake import Acknowledger, Answer, Mode
from bridge.worker_intake import WorkerIntake
from tests.unit.test_intake import PIPELINE, ScriptedKafka, delivery


class ScriptedKeeper:
    """Keeps `bridge.worker_intake.Keeper`; answers when the test says so.

    Attributes:
        got: delivery ids, and whether Kafka failed them.
    """

    def __init__(self) -> None:
        self.got: list[tuple[str, bool]] = []
        self._waiting: list[Answer] = []

    def hand_over(self, delivery: Delivery, answer: Answer, *, failed: bool) -> None:
        """Let it wait for its answer."""
        self.got.append((delivery.delivery_id, failed))
        self._waiting.append(answer)

    def answer(self, outcome: Acknowledger | Refused) -> None:
        """To all that wait."""
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer(outcome)


class Worker:
    """Such an intake.

    Attributes:
        keepers_mode: as the keeper has it.
        answers: by delivery id.
    """

    def __init__(self) -> None:
        self.kafka = ScriptedKafka()
        self.keeper = ScriptedKeeper()
        self.keepers_mode = Mode.DIRECT
        self.answers: dict[str, Acknowledger | Refused] = {}
        self.intake = WorkerIntake(
            publisher=self.kafka,
            found=lambda _walked, _notes: None,
            body_bytes_max=1 << 20,
            keeper=self.keeper,
            shared_mode=lambda: self.keepers_mode,
        )
        self.intake.pipeline = PIPELINE

    def take(self, *names: str) -> None:
        """Deliveries arrive together."""
        self.intake.take([(delivery(name), self._answer(name)) for name in names])

    def _answer(self, name: str) -> Answer:
        def answer(outcome: Acknowledger | Refused) -> None:
            assert name not in self.answers, "a delivery is answered once"
            self.answers[name] = outcome

        return answer


def test_take_direct_and_acknowledged_is_the_workers_own() -> None:
    """The keeper hears nothing of it."""
    worker = Worker()
    worker.kafka.connect()
    worker.take("a", "b")
    assert worker.answers == {}
    worker.kafka.acknowledge()
    assert worker.kafka.topic == ["a", "b"]
    assert worker.answers == {"a": "kafka", "b": "kafka"}
    assert worker.keeper.got == []


@pytest.mark.parametrize("outcome", ["kafka", "spool", SpoolFailed("disk")])
def test_take_with_kafka_not_there_for_the_worker_lets_the_keeper_try(outcome: Acknowledger | Refused) -> None:
    """The keeper may be back before: nobody has failed yet. Its answer is the worker's."""
    worker = Worker()
    worker.take("a", "b")
    assert worker.keeper.got == [("a", False), ("b", False)]
    assert worker.answers == {}
    worker.keeper.answer(outcome)
    assert worker.answers == {"a": outcome, "b": outcome}
    assert worker.intake.deliveries_in_flight == 0
    worker.kafka.connect()
    worker.kafka.acknowledge()
    assert worker.kafka.topic == []


@pytest.mark.parametrize("mode", [Mode.SPOOLING, Mode.HANDOVER])
def test_take_while_the_keeper_is_not_direct_queues_behind_its_spool(mode: Mode) -> None:
    """Though Kafka is there for the worker; and from the moment on at which the mode changes, either way."""
    worker = Worker()
    worker.kafka.connect()
    worker.keepers_mode = mode
    worker.take("a", "b")
    worker.keepers_mode = Mode.DIRECT
    worker.take("c")
    worker.keepers_mode = mode
    worker.take("d")
    assert worker.keeper.got == [("a", False), ("b", False), ("d", False)]
    worker.kafka.acknowledge()
    assert worker.kafka.topic == ["c"]
    assert worker.answers == {"c": "kafka"}


def test_take_before_topics_and_schemas_are_known_lets_the_keeper_try() -> None:
    """A worker without a street cannot make records, and nobody has failed."""
    worker = Worker()
    worker.intake.pipeline = None
    worker.kafka.connect()
    worker.take("a")
    assert worker.keeper.got == [("a", False)]


@pytest.mark.parametrize("outcome", ["spool", SpoolFailed("disk")])
def test_take_not_acknowledged_has_failed_and_the_keeper_must_spool_it(outcome: Acknowledger | Refused) -> None:
    """In order; and what comes after goes to the keeper too, untried."""
    worker = Worker()
    worker.kafka.connect()
    worker.take("a", "b")
    assert worker.keeper.got == []
    worker.kafka.fail()
    worker.take("c")
    assert worker.keeper.got == [("a", True), ("b", True), ("c", False)]
    assert worker.answers == {}
    worker.keeper.answer(outcome)
    assert worker.answers == dict.fromkeys("abc", outcome)
    assert worker.intake.deliveries_in_flight == 0


def test_worker_is_ready_whatever_kafka_and_the_keeper_are() -> None:
    """What Kafka does not take, the keeper may."""
    worker = Worker()
    worker.intake.pipeline = None
    worker.keepers_mode = Mode.SPOOLING
    assert worker.intake.ready
