"""`bridge doctor` at Kafka and the registry: reach, rights, topics, sizes, schemas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from bridge import schemas
from bridge.adapters import topics
from bridge.adapters.connection import admin
from bridge.adapters.registry import COMPATIBILITY, Registry, RegistryUnreachable
from bridge.adapters.rights import DESCRIBE, DESCRIBE_CONFIGS, WRITE, Cluster, look
from bridge.adapters.topics import DEAD_LETTER_MARGIN_BYTES, PARTITIONS, REPLICAS, Topic
from bridge.commands._finding import Finding, clock, failure
from bridge.errors import Misconfigured
from bridge.routing import DEAD_LETTER, TOPIC_FIELDS, topic_name
from bridge.settings import KafkaSettings

_NEEDED = {WRITE: "Write", DESCRIBE: "Describe", DESCRIBE_CONFIGS: "DescribeConfigs"}
_SAFE_REPLICAS = 2
_IN_SYNC, _RETENTION_BYTES, _REQUEST_BYTES = "min.insync.replicas", "retention.bytes", "socket.request.max.bytes"
_NO_LIMIT = "-1"
_APPLY = "bridge topics apply"


async def kafka(settings: KafkaSettings) -> AsyncIterator[Finding]:
    """From the first connection to what each topic takes; stops where nothing more can be learned."""
    servers = settings.kafka_bootstrap_servers
    try:
        cluster = await look(settings)
    except Misconfigured as error:
        yield failure("kafka", str(error))
        return
    except (KafkaError, OSError) as error:
        remedy = "start it, or correct BRIDGE_KAFKA_BOOTSTRAP_SERVERS and what secures it"
        yield Finding("kafka", "fail", f"no Kafka answers at {servers} ({type(error).__name__})", remedy)
        return
    few = cluster.brokers < settings.topic_replication_factor
    yield Finding(
        "kafka",
        "warn" if few else "ok",
        f"{cluster.brokers} broker{'s' * (cluster.brokers != 1)} of cluster {cluster.cluster_id}, {settings.kafka_security_protocol}",
        f"BRIDGE_TOPIC_REPLICATION_FACTOR={settings.topic_replication_factor} wants as many brokers" if few else "",
    )
    if cluster.producing is None:
        yield Finding("kafka producing", "ok", "an idempotent producer is let in")
    else:
        yield Finding("kafka producing", "fail", cluster.producing, "give the user Write on the topics")
    names = [topic_name(settings.topic_prefix, topic_field) for topic_field in TOPIC_FIELDS]
    for finding in (*_rights(cluster, names), *_replicas(cluster, names)):
        yield finding
    try:
        found = await topics.read(settings, TOPIC_FIELDS)
    except (KafkaError, OSError) as error:
        remedy = "give the user DescribeConfigs on the topics: the bridge looks at them when it starts"
        yield Finding("topics", "fail", f"their configuration is not shown ({type(error).__name__})", remedy)
        return
    for finding in _topics(settings, found, cluster):
        yield finding
    yield await _request_bytes(settings)


def _rights(cluster: Cluster, names: list[str]) -> Iterator[Finding]:
    lacking: dict[str, list[str]] = {}
    known = [name for name in names if name in cluster.topics]
    for name in known:
        operations = cluster.topics[name].operations
        missing = [] if operations is None else [word for code, word in _NEEDED.items() if code not in operations]
        if missing:
            lacking.setdefault(", ".join(missing), []).append(name)
    for missing_rights, where in lacking.items():
        yield Finding(
            "kafka rights", "fail", f"no {missing_rights} on {', '.join(where)}", "add ACLs for the bridge's user"
        )
    if known and not lacking:
        yield Finding("kafka rights", "ok", f"Write, Describe, DescribeConfigs on {len(known)} topics")


def _replicas(cluster: Cluster, names: list[str]) -> Iterator[Finding]:
    """How the partitions stand at this moment."""
    standing = {name: cluster.topics[name].partitions for name in names if name in cluster.topics}
    if dark := sorted(name for name, parts in standing.items() if any(part.leader < 0 for part in parts)):
        yield Finding(
            "topics' leaders", "fail", f"partitions without a leader: {', '.join(dark)}", "start their brokers"
        )
    if behind := sorted(
        name for name, parts in standing.items() if any(part.in_sync < part.replicas for part in parts)
    ):
        yield Finding("topics in sync", "warn", f"replicas are behind: {', '.join(behind)}", "look at the brokers")


def _topics(settings: KafkaSettings, found: Mapping[str, Topic], cluster: Cluster) -> Iterator[Finding]:
    broken = False
    for line in topics.problems(settings, found):
        broken = True
        yield failure("topics", line)
    for name, topic in found.items():
        in_sync = int(topic.config[_IN_SYNC])
        standing = cluster.topics.get(name)  # asked a moment before
        if standing and any(part.in_sync < in_sync for part in standing.partitions):
            broken = True
            yield Finding(
                "topics", "fail", f"{name} has fewer replicas in sync than {_IN_SYNC}={in_sync}", "start brokers"
            )
    if not broken:
        partitions = {topic.partitions for topic in found.values()}
        yield Finding("topics", "ok", f"all {len(found)}, with {'/'.join(map(str, sorted(partitions)))} partitions")
    weak = sorted(
        name for name, topic in found.items() if min(topic.replicas, int(topic.config[_IN_SYNC])) < _SAFE_REPLICAS
    )
    if weak:
        some = f"{len(weak)} of {len(found)} topics"
        remedy = "three brokers and BRIDGE_TOPIC_REPLICATION_FACTOR=3 before the topics are made"
        yield Finding("replication", "warn", f"a 200 is as safe as one broker: {some} have one copy for sure", remedy)
    elif found:
        replicas = min(topic.replicas for topic in found.values())
        yield Finding("replication", "ok", f"{replicas} replicas, {_IN_SYNC} 2 or more")
    changes = [
        change
        for change in topics.plan(settings, found)
        if change.current is not None and change.topic in found and change.setting not in (REPLICAS, PARTITIONS)
    ]
    if changes and not broken:
        differing = ", ".join(sorted({change.setting for change in changes}))
        yield Finding("topics' settings", "warn", f"{differing} are not as set", f"`{_APPLY} --dry-run` shows them")
    if limited := sorted(name for name, topic in found.items() if topic.config.get(_RETENTION_BYTES) != _NO_LIMIT):
        yield Finding(
            "retention", "warn", f"{_RETENTION_BYTES} is set: events may go early from {', '.join(limited)}", "unset it"
        )


async def _request_bytes(settings: KafkaSettings) -> Finding:
    """The last link of the chain of sizes: what a broker reads at once."""
    needed = settings.body_bytes_max + DEAD_LETTER_MARGIN_BYTES
    dead_letter = topic_name(settings.topic_prefix, DEAD_LETTER)
    try:
        async with admin(settings) as client:
            broker = (await client.describe_cluster())["brokers"][0]["node_id"]
            answers = await client.describe_configs([ConfigResource(ConfigResourceType.BROKER, str(broker))])
        configs = {entry[0]: entry[1] for answer in answers for *_, entries in answer.resources for entry in entries}
        taken = int(configs[_REQUEST_BYTES])
    except (KafkaError, OSError, KeyError, ValueError, IndexError):
        return Finding(
            "sizes at the broker",
            "ok",
            f"not shown to this user, who may not describe the cluster's settings: {_REQUEST_BYTES}",
        )
    if taken < needed:
        return Finding(
            "sizes at the broker",
            "fail",
            f"{_REQUEST_BYTES}={taken}, and {dead_letter} may need {needed}",
            "raise it, or lower BRIDGE_BODY_BYTES_MAX",
        )
    return Finding("sizes at the broker", "ok", f"{_REQUEST_BYTES} {taken}, needed {needed}")


async def registry(settings: KafkaSettings) -> AsyncIterator[Finding]:
    """Whether every schema is registered, and what may be registered after it."""
    if settings.schema_registry_url is None:
        yield Finding("registry", "ok", "none is set: values are in single-object encoding")
        return
    subjects = {
        f"{topic_name(settings.topic_prefix, topic_field)}-value": schemas.load(topic_field)
        for topic_field in TOPIC_FIELDS
    }
    try:
        async with Registry(settings) as asked:
            ids = {subject: await asked.schema_id(subject, schema) for subject, schema in subjects.items()}
            levels = {subject: await asked.compatibility(subject) for subject in subjects}
            told = clock(asked.date, "the registry")
    except (Misconfigured, RegistryUnreachable) as error:
        yield failure("registry", str(error))
        return
    if missing := [subject for subject, schema_id in ids.items() if schema_id is None]:
        yield Finding("registry", "fail", f"not registered: {', '.join(missing)}", "run `bridge schemas register`")
    else:
        yield Finding("registry", "ok", f"all {len(ids)} schemas are registered")
    if lax := sorted(subject for subject, level in levels.items() if level != COMPATIBILITY):
        yield Finding(
            "compatibility",
            "warn",
            f"not {COMPATIBILITY}: {', '.join(lax)}",
            "`bridge schemas register` sets it; a schema that breaks readers could be registered",
        )
    else:
        yield Finding("compatibility", "ok", f"{COMPATIBILITY} for every subject")
    if told:
        yield told
