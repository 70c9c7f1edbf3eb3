"""One real Kafka node (KRaft, broker and controller in one) on 127.0.0.1, from the packaged jars.

Its data lives in a folder and survives a restart, on the same port or another: the configuration is written anew at every
start. The folder is formatted beside its place and renamed into it, so one that was interrupted is simply made again.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bridge.errors import Misconfigured
from bridge.local.artifacts import KAFKA_VERSION, in_background, kafka_jars
from bridge.local.jvm import JavaServer, free_port, is_free
from bridge.local.service import Broker

USUAL_PORT = 9092
READY_DEADLINE_S = 90  # 3 s on a quiet machine; 18 s were seen on two busy cores

# Relative to the data folder, which is the broker's working directory: so its path may hold spaces, commas and umlauts.
DATA = "kafka"
UNFINISHED = "kafka.unfinished"
CONFIGURATION = "server.properties"
LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c)%n
logger.kafka.name = kafka.server.KafkaConfig
logger.kafka.level = warn
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
"""

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    # CLIENT is what a test may secure; on INTERNAL the node talks to itself and we ask whether it is ready.
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "INTERNAL",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",  # the default waits 3 s for members that never come
    # A killed node is taken back when its old session has timed out, by default after 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "4194304",  # the default takes 128 MiB of the heap at the start
}


class LocalKafka(Broker):
    """The packaged broker.

    Args:
        data_dir: Its folder; made when missing. One broker at a time may run over it.
        port: The port to take when it is free, else another one is taken (`port` says which); None: any.
        properties: Broker properties that replace or join ours, for example to secure the listener CLIENT.
        joins: A started broker, to whose cluster this one is added, without a vote; None: a cluster of its own.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int | None = USUAL_PORT,
        properties: Mapping[str, str] | None = None,
        joins: LocalKafka | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._usual_port = port
        self._properties = properties or {}
        self._joins = joins
        self._node_id = 1 if joins is None else joins.next_node_id()
        self._nodes = 1
        self._port: int | None = None
        self._controller_port: int | None = None  # kept over restarts, for those that join
        self._server: JavaServer | None = None
        self._lock: IO[str] | None = None

    @property
    def port(self) -> int:
        """The port of the listener for clients, from the first start on; a restart keeps it."""
        if self._port is None:
            raise RuntimeError("the broker was never started, so it has no port yet")
        return self._port

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def description(self) -> str:
        """Version, address and folder."""
        return (
            f"Apache Kafka {KAFKA_VERSION}, packaged, at {self.bootstrap_servers}, its data and log in {self.data_dir}"
        )

    def next_node_id(self) -> int:
        """The id of the next broker that joins."""
        self._nodes += 1
        return self._nodes

    @property
    def controller_port(self) -> int:
        """Where brokers that join find the controller, from the first start on."""
        if self._controller_port is None:
            raise RuntimeError("only a started broker with a cluster of its own can be joined")
        return self._controller_port

    @property
    def cluster_id(self) -> str:
        """Of the cluster that it belongs to, from the first start on."""
        lines = (self.data_dir / DATA / "meta.properties").read_text("utf-8").splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    @property
    def pid(self) -> int:
        """The running JVM's process id."""
        if self._server is None:
            raise RuntimeError("the broker does not run")
        return self._server.pid

    async def start(self) -> None:
        """Starts the broker, after fetching what is missing of it."""
        jars = await in_background(kafka_jars)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        try:
            await self._start(":".join(map(str, jars)))
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Stops the broker in order."""
        if self._server is not None:
            await self._server.stop()
        self._leave_folder()

    async def kill(self) -> None:
        """Ends the broker as a crash would (SIGKILL); `start` brings it back on the same port."""
        if self._server is not None:
            await self._server.kill()
        self._leave_folder()

    async def restart(self) -> None:
        """Stops the broker in order and starts it again on the same port."""
        await self.stop()
        await self.start()

    async def _start(self, class_path: str) -> None:
        (self.data_dir / "log4j2.properties").write_text(LOG4J, "utf-8")
        if self._port is None:
            self._port = free_port(self._usual_port)
        elif not is_free(self._port):
            raise Misconfigured(f"port {self._port} is taken by now: end what listens there, or start anew on another")
        internal_port = free_port()

        if not (self.data_dir / DATA).exists():
            await self._format(class_path)
        self._configure(DATA, internal_port)
        self._server = self._java("Kafka", ("kafka.Kafka", CONFIGURATION), class_path)
        await self._server.begin()
        await self._server.until_ready(lambda: is_ready(f"127.0.0.1:{internal_port}"), READY_DEADLINE_S)

    async def _format(self, class_path: str) -> None:
        shutil.rmtree(self.data_dir / UNFINISHED, ignore_errors=True)
        self._configure(UNFINISHED, free_port())
        if self._joins is None:
            cluster_id = (
                base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            )  # as Kafka's own Uuid is written
        else:
            cluster_id = self._joins.cluster_id
        arguments = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", f"--config={CONFIGURATION}")
        await self._java("Kafka's storage tool", arguments, class_path).run()
        (self.data_dir / UNFINISHED).rename(self.data_dir / DATA)

    def _configure(self, data: str, internal_port: int) -> None:
        listeners = f"CLIENT://127.0.0.1:{self.port},INTERNAL://127.0.0.1:{internal_port}"
        properties = {**PROPERTIES, "listeners": listeners, "advertised.listeners": listeners, "log.dirs": data}
        if self._joins is None:
            self._controller_port = self._controller_port or free_port()
            properties["listeners"] += f",CONTROLLER://127.0.0.1:{self._controller_port}"
            properties["controller.quorum.voters"] = f"1@127.0.0.1:{self._controller_port}"
        else:
            properties["node.id"], properties["process.roles"] = str(self._node_id), "broker"
            properties["controller.quorum.voters"] = f"1@127.0.0.1:{self._joins.controller_port}"
        properties.update(self._properties)
        lines = "".join(f"{key}={value.replace(chr(92), chr(92) * 2)}\n" for key, value in properties.items())
        (self.data_dir / CONFIGURATION).write_text(lines, "latin-1")  # java.util.Properties reads nothing else

    def _java(self, name: str, arguments: tuple[str, ...], class_path: str) -> JavaServer:
        return JavaServer(
            name=name,
            arguments=("-Dlog4j2.configurationFile=log4j2.properties", *arguments),
            log=self.data_dir / "kafka.log",
            environment={"CLASSPATH": class_path},  # not as an argument: `ps` stays readable
        )

    def _take_folder(self) -> None:
        if self._lock is not None:
            raise RuntimeError("this broker was already started")
        lock = (self.data_dir / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with this process, however that ends
        except BlockingIOError:
            lock.close()
            raise Misconfigured(
                f"another broker runs over {self.data_dir}: stop it, or choose another folder for the data"
            ) from None
        self._lock = lock

    def _leave_folder(self) -> None:
        self._server = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


async def is_ready(bootstrap_servers: str) -> bool:
    """Whether a broker answers and is a live member of its cluster: only then can topics be created.

    Raises:
        OSError: No broker is there.
    """
    # aiokafka would log an error for every refused connection, and there are seconds of those while a broker starts.
    host, _, port = bootstrap_servers.partition(",")[0].rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()
    await writer.wait_closed()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except KafkaError:
        return False
    finally:
        await admin.close()
