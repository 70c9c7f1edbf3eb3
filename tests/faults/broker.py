"""The packaged Kafka behind a proxy: it can be killed, cut off, emptied and changed behind the bridge's back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from bridge.local.jvm import free_port
from bridge.local.kafka import DATA, LocalKafka
from tests.faults.proxy import Proxy
from tests.kafka.reading import Reader, Record

_DEADLINE_S = 60

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:nobody",
    "allow.everyone.if.no.acl.found": "true",
}
"""Everybody may do everything, until `forbid` says otherwise."""

TIDY = {"log.segment.delete.delay.ms": "100"}
"""What is deleted is soon gone from the disk."""


class ProxiedKafka(LocalKafka):
    """Tells its clients the proxy's address in place of its own.

    Args:
        data_dir: its folder.

    Attributes:
        network: between its clients and it.
    """

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir=data_dir, port=None)
        self.network = Proxy(free_port())
        self._reached = False

    @property
    def bootstrap_servers(self) -> str:
        """The proxy's address."""
        return f"127.0.0.1:{self.network.port}"

    async def start(self) -> None:
        """Start the broker, and the proxy with the first start."""
        await super().start()
        if not self._reached:
            self.network.start(self.port)
            self._reached = True

    async def wipe(self) -> None:
        """Kill the broker, and bring it back without anything that it knew."""
        await self.kill()
        shutil.rmtree(self.data_dir / DATA)
        await self.start()

    async def records(self, prefix: str) -> list[Record]:
        """Everything that lies in the bridge's topics of this prefix."""
        reader = Reader(self.bootstrap_servers, prefix)
        try:
            return await reader.new()
        finally:
            reader.close()

    def delete_topics(self, *names: str) -> None:
        """Delete topics, all when none is named, by another client than ours; the broker has heard of it when this returns."""
        admin = self._admin()
        found = list(names) or [name for name in admin.list_topics(timeout=_DEADLINE_S).topics if name[0] != "_"]
        for done in admin.delete_topics(found, operation_timeout=_DEADLINE_S).values():
            done.result(_DEADLINE_S)  # as for a topic's size
        deadline = time.monotonic() + _DEADLINE_S
        while not admin.list_topics(timeout=_DEADLINE_S).topics.keys().isdisjoint(found):
            assert time.monotonic() < deadline, "the broker did not hear of it"

    def set_message_bytes(self, topic: str, bytes_max: int) -> None:
        """Change a topic's max.message.bytes, by another client than ours; the broker has heard of it when this returns."""
        entry = ConfigEntry("max.message.bytes", f"{bytes_max}", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin = self._admin()
        for done in admin.incremental_alter_configs([resource]).values():
            done.result(_DEADLINE_S)  # the controller knows it now, the broker a moment later
        deadline = time.monotonic() + _DEADLINE_S
        asked = ConfigResource(ResourceType.TOPIC, topic)
        while True:
            (found,) = [done.result(_DEADLINE_S) for done in admin.describe_configs([asked]).values()]
            if found["max.message.bytes"].value == f"{bytes_max}":
                return
            assert time.monotonic() < deadline, "the broker did not hear of it"

    def forbid(self, operation: AclOperation, topic: str) -> None:
        """Let nobody do this to a topic any more."""
        admin = self._admin()
        for done in admin.create_acls([AclBinding(*_denial(operation, topic))]).values():
            done.result(_DEADLINE_S)

    def allow(self, operation: AclOperation, topic: str) -> None:
        """Let everybody do it again."""
        admin = self._admin()
        for done in admin.delete_acls([AclBindingFilter(*_denial(operation, topic))]).values():
            done.result(_DEADLINE_S)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})

    def _configure(self, data: str, internal_port: int) -> None:
        advertised = f"CLIENT://127.0.0.1:{self.network.port},INTERNAL://127.0.0.1:{internal_port}"
        self._properties = {**AUTHORIZER, **TIDY, "advertised.listeners": advertised}
        super()._configure(data, internal_port)


def _denial(
    operation: AclOperation, topic: str
) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    """An access rule as Kafka has it: about this topic, for everybody from everywhere."""
    return ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*", operation, AclPermissionType.DENY
