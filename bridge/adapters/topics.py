"""The bridge's topics: what must be true of them before it starts, and what `bridge topics apply` makes true.

Kafka answers most administration with error codes, and aiokafka's admin client passes them on instead of raising; here every
answer is looked at. Topics are found by listing all: asking for one by name may create it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError, KafkaError, for_code

from bridge.adapters.connection import admin
from bridge.errors import Misconfigured
from bridge.routing import AUTO_REPLIES, DEAD_LETTER, MANAGED_FIELDS, TOPIC_FIELDS, topic_name
from bridge.settings import KafkaSettings

_log = structlog.get_logger()

DEAD_LETTER_MARGIN_BYTES = 64 * 1024
"""What a dead letter adds to the body it holds: the contract's figure, a hundred times what its other fields take."""

READ_TIMEOUT_S = 10.0
"""For all topics and their configurations: milliseconds on a healthy cluster, and an operator waits."""

APPLY_TIMEOUT_S = 60.0
"""For Kafka to create some hundred partitions with their replicas, and for all of it to be seen."""

LEDGER_RETENTION_MS_MIN = 3 * 24 * 3600 * 1000
"""For auto_replies: an event may be answered for a day, and what was decided must be known for longer than that."""

_SEEN_INTERVAL_S = 0.1
"""Between two looks at whether a change is in force; brokers learn of it from the controller within a second."""

PARTITIONS, REPLICAS = "partitions", "replicas"
_POLICY, _RETENTION, _MESSAGE_BYTES, _IN_SYNC = (
    "cleanup.policy",
    "retention.ms",
    "max.message.bytes",
    "min.insync.replicas",
)
_OWN_CONFIG = 1
"""Kafka's DYNAMIC_TOPIC_CONFIG: set for this topic, not inherited from the broker."""

_SAFE_REPLICAS = 2
_APPLY = "run `bridge topics apply`"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as Kafka has it.

    Attributes:
        replicas: of the partition that has the fewest.
        config: every configuration in force, Kafka's own text.
        own: those of them that were set for this topic.
    """

    partitions: int
    replicas: int
    config: Mapping[str, str]
    own: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a topic and the settings.

    Attributes:
        setting: ``partitions``, ``replicas`` or one of Kafka's topic configurations.
        current: None where the topic does not exist.
    """

    topic: str
    setting: str
    current: str | None
    wanted: str


async def check(settings: KafkaSettings) -> int:
    """Make sure that the topics can take what the bridge will send.

    Returns:
        The number of partitions of every event topic; dead_letter has at least as many.

    Raises:
        Misconfigured: one line for every problem, with the command that mends it.
        KafkaError, OSError: Kafka cannot be reached.
    """
    topics = await read(settings, TOPIC_FIELDS)
    refuse_problems(settings, topics)
    weak = sorted(name for name, topic in topics.items() if min(topic.replicas, _in_sync(topic)) < _SAFE_REPLICAS)
    if weak:
        _log.warning("topics_without_replicas", topics=weak, meaning="a 200 is as safe as one broker")
    return min(topic.partitions for topic in topics.values())


async def check_again(settings: KafkaSettings) -> tuple[int, int]:
    """Make sure of the same for a bridge that serves already: a size that was lowered meanwhile is taken over, not refused.

    Returns:
        The number of partitions, as of `check`; the largest record, in bytes, that all event topics take and the settings allow.

    Raises:
        Misconfigured, KafkaError, OSError: as of `check`.
    """
    topics = await read(settings, TOPIC_FIELDS)
    dead_letter = topic_name(settings.topic_prefix, DEAD_LETTER)
    smallest = min(
        (int(topic.config[_MESSAGE_BYTES]) for name, topic in topics.items() if name != dead_letter),
        default=settings.record_bytes_max,
    )
    taken = min(smallest, settings.record_bytes_max)
    refuse_problems(settings.model_copy(update={"record_bytes_max": taken}), topics)
    if taken < settings.record_bytes_max:
        meaning = f"larger records are dead-lettered: {_APPLY}"
        _log.warning("topics_take_less", bytes_max=taken, wanted=settings.record_bytes_max, meaning=meaning)
    return min(topic.partitions for topic in topics.values()), taken


async def read(settings: KafkaSettings, topic_fields: Iterable[str] = MANAGED_FIELDS) -> dict[str, Topic]:
    """The bridge's topics that exist, by name.

    Args:
        settings: how to reach Kafka, and the topics' prefix.
        topic_fields: whose topics are looked for.

    Raises:
        KafkaError, OSError: Kafka cannot be reached, or does not let us see a topic's configuration.
    """
    names = {topic_name(settings.topic_prefix, topic_field) for topic_field in topic_fields}
    async with asyncio.timeout(READ_TIMEOUT_S), admin(settings) as client:
        described = [topic for topic in await client.describe_topics() if topic["topic"] in names]
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic["topic"]) for topic in described]
        answers = await client.describe_configs(resources)
    configs: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            _raise_for(code, message)
            every = {entry[0]: entry[1] for entry in entries}
            configs[name] = every, {entry[0]: entry[1] for entry in entries if entry[3] == _OWN_CONFIG}
    return {
        topic["topic"]: Topic(
            partitions=len(topic["partitions"]),
            replicas=min(len(partition["replicas"]) for partition in topic["partitions"]),
            config=configs[topic["topic"]][0],
            own=configs[topic["topic"]][1],
        )
        for topic in described
    }


def plan(settings: KafkaSettings, topics: Mapping[str, Topic]) -> list[Change]:
    """What differs between the settings and the topics, topic by topic."""
    changes = []
    for topic_field in MANAGED_FIELDS:
        name = topic_name(settings.topic_prefix, topic_field)
        topic = topics.get(name)
        replicas = topic.replicas if topic else settings.topic_replication_factor
        wanted = {
            PARTITIONS: str(settings.topic_partitions),
            REPLICAS: str(settings.topic_replication_factor),
            **_wanted_config(settings, topic_field, replicas),
        }
        for setting, value in wanted.items():
            if topic is None:
                changes.append(Change(name, setting, None, value))
            elif not _fits(setting, current := _current(topic, setting), value, replicas):
                changes.append(Change(name, setting, current, value))
    return changes


async def apply(settings: KafkaSettings, topics: Mapping[str, Topic], changes: Sequence[Change]) -> None:
    """Make the changes, and wait until Kafka shows them. The replicas of a topic that exists are left as they are.

    Raises:
        Misconfigured: Kafka refuses a change; the message is Kafka's.
        KafkaError, OSError: Kafka cannot be reached, or some change is still not to be seen after a minute.
    """
    made = [change for change in changes if change.current is None or change.setting != REPLICAS]
    async with asyncio.timeout(APPLY_TIMEOUT_S):
        await _make(settings, topics, made)
        awaited = {(change.topic, change.setting) for change in made}
        while True:
            left = plan(settings, await read(settings))
            if awaited.isdisjoint((change.topic, change.setting) for change in left):
                return
            await asyncio.sleep(_SEEN_INTERVAL_S)


async def _make(settings: KafkaSettings, topics: Mapping[str, Topic], changes: Sequence[Change]) -> None:
    by_topic: dict[str, dict[str, str]] = {}
    for change in changes:
        by_topic.setdefault(change.topic, {})[change.setting] = change.wanted
    new = [_new_topic(name, values) for name, values in by_topic.items() if name not in topics]
    altered = {name: values for name, values in by_topic.items() if name in topics}
    grown = {
        name: NewPartitions(int(values.pop(PARTITIONS))) for name, values in altered.items() if PARTITIONS in values
    }
    # AlterConfigs replaces all that was set for a topic, and aiokafka has no IncrementalAlterConfigs: what somebody else set
    # is read and sent along (test_apply_over_a_config_of_somebody_else_keeps_it).
    configs = [
        ConfigResource(ConfigResourceType.TOPIC, name, {**topics[name].own, **values})
        for name, values in altered.items()
        if values
    ]
    async with admin(settings) as client:
        if new:
            answer = await client.create_topics(new)
            _refuse((name, code, message) for name, code, message, *_ in answer.topic_errors)
        if configs:
            for answer in await client.alter_configs(configs):
                _refuse((name, code, message) for code, message, _, name in answer.resources)
        if grown:
            await client.create_partitions(grown)


def refuse_problems(settings: KafkaSettings, topics: Mapping[str, Topic]) -> None:
    """Make sure that there are no `problems`.

    Raises:
        Misconfigured: one line for every problem, with the command that mends it.
    """
    if found := "\n".join(problems(settings, topics)):
        raise Misconfigured(found)


def problems(settings: KafkaSettings, topics: Mapping[str, Topic]) -> Iterator[str]:
    """Why the bridge must not start with these topics, one line each."""
    names = {topic_field: topic_name(settings.topic_prefix, topic_field) for topic_field in TOPIC_FIELDS}
    missing = [name for name in names.values() if name not in topics]
    if missing:
        yield f"missing topics: {', '.join(missing)}: {_APPLY}"
    most = max((topic.partitions for name, topic in topics.items() if name != names[DEAD_LETTER]), default=0)
    grow = f"run `BRIDGE_TOPIC_PARTITIONS={most} bridge topics apply --break-order`"
    for topic_field, name in names.items():
        topic = topics.get(name)
        if topic is None:
            continue
        if topic.partitions < most:  # the publisher spreads dead letters over as many partitions as the events
            yield f"{name} has {topic.partitions} partitions, other topics of the bridge {most}: {grow}"
        if topic.config[_POLICY] != "delete":
            yield f"{name} has {_POLICY}={topic.config[_POLICY]}, which loses events: {_APPLY}"
        needed = _message_bytes(settings, topic_field)
        if int(topic.config[_MESSAGE_BYTES]) < needed:
            yield f"{name} has {_MESSAGE_BYTES}={topic.config[_MESSAGE_BYTES]}, the settings need {needed}: {_APPLY}"
        if topic.replicas < _in_sync(topic):
            yield f"{name} has {_IN_SYNC}={_in_sync(topic)}, and only {topic.replicas} replicas: {_APPLY}"


def _wanted_config(settings: KafkaSettings, topic_field: str, replicas: int) -> dict[str, str]:
    retention_ms = settings.topic_retention_ms
    if topic_field == AUTO_REPLIES:
        retention_ms = max(retention_ms, LEDGER_RETENTION_MS_MIN)
    return {
        _POLICY: "delete",
        _RETENTION: str(retention_ms),
        _MESSAGE_BYTES: str(_message_bytes(settings, topic_field)),
        # One broker may be away without a delivery being refused; all others have what was answered 200.
        _IN_SYNC: str(max(1, replicas - 1)),
    }


def _message_bytes(settings: KafkaSettings, topic_field: str) -> int:
    if topic_field == DEAD_LETTER:
        return settings.body_bytes_max + DEAD_LETTER_MARGIN_BYTES
    return settings.record_bytes_max


def _current(topic: Topic, setting: str) -> str:
    if setting == PARTITIONS:
        return str(topic.partitions)
    return str(topic.replicas) if setting == REPLICAS else topic.config[setting]


def _fits(setting: str, current: str, wanted: str, replicas: int) -> bool:
    """Whether a value may stay. Room for larger records or more safety that somebody gave is not taken back."""
    if setting == _MESSAGE_BYTES:
        return int(current) >= int(wanted)
    if setting == _IN_SYNC:
        return int(wanted) <= int(current) <= replicas  # more than there are replicas would refuse every record
    return current == wanted


def _in_sync(topic: Topic) -> int:
    return int(topic.config[_IN_SYNC])


def _new_topic(name: str, values: Mapping[str, str]) -> NewTopic:
    config = {setting: value for setting, value in values.items() if setting not in (PARTITIONS, REPLICAS)}
    return NewTopic(name, int(values[PARTITIONS]), int(values[REPLICAS]), topic_configs=config)


def _refuse(answers: Iterable[tuple[str, int, str | None]]) -> None:
    """Raise what Kafka refused, one line for every reason."""
    names: dict[tuple[int, str], list[str]] = {}
    for name, code, message in answers:
        if code:
            names.setdefault((code, message or for_code(code).__name__), []).append(name)
    if names:
        raise Misconfigured("\n".join(_refusal(code, text, topics) for (code, text), topics in names.items()))


def _refusal(code: int, text: str, topics: Sequence[str]) -> str:
    remedy = ""
    if code == InvalidReplicationFactorError.errno:
        remedy = ": start more brokers, or set BRIDGE_TOPIC_REPLICATION_FACTOR to as many as there are"
    return f"Kafka refuses {', '.join(topics)}: {text.rstrip('.')}{remedy}"


def _raise_for(code: int, message: str | None) -> None:
    if code:
        error: KafkaError = for_code(code)(message)
        raise error
