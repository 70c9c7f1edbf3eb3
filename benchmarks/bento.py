"""Bento beside the bridge: its two configurations, and the schema that it looks up in a registry."""

from __future__ import annotations

import json
from pathlib import Path

from topics import MESSAGES

from bridge.adapters.registry import Registry
from bridge.routing import topic_name
from bridge.settings import KafkaSettings

SOURCE = Path(__file__).parent / "reference" / "bento"

CONFIGURATIONS = {"bento": SOURCE / "bento.yaml", "bento-plain": SOURCE / "plain.yaml"}
"""By target. It is one program."""


async def register(settings: KafkaSettings) -> None:
    """Register the schema of its records for the topic that the load fills.

    Raises:
        BridgeError: the registry does not take it.
    """
    subject = f"{topic_name(settings.topic_prefix, MESSAGES)}-value"
    async with Registry(settings) as registry:
        await registry.register(subject, json.loads((SOURCE / "record.avsc").read_text("utf-8")))


def environment(settings: KafkaSettings) -> dict[str, str]:
    """What its configurations name beyond the variables of every reference."""
    return {"REFERENCE_PREFIX": settings.topic_prefix, "REFERENCE_REGISTRY_URL": settings.schema_registry_url or ""}
