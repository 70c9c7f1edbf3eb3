"""A record of a schema that somebody registers later: every record within it has a field more, and that in front."""

import json
from typing import Any

from bridge.local.service import Registry
from tests.consumers.running import Topics
from tests.consumers.samples import confluent, message, schema
from tests.consumers.test_processes import register

ATTACHMENT, AD_ID = "image", "23842"
EVENT = message(
    part={"is_echo": True, "attachments": [{"type": ATTACHMENT}], "referral": {"ad_id": AD_ID}},
    raw=json.dumps({"message": {"attachments": [{"type": ATTACHMENT}]}}),
)


def wider(declaration: Any) -> Any:  # noqa: ANN401 - a schema is text, list or object
    """The same with a field more in each record."""
    if isinstance(declaration, list):
        return [wider(branch) for branch in declaration]
    if not isinstance(declaration, dict):
        return declaration
    inner = {name: wider(value) if name in {"type", "items"} else value for name, value in declaration.items()}
    if inner["type"] == "record":
        extra = {"name": "from_the_future", "type": ["null", "string"], "default": None}
        inner["fields"] = [extra, *(wider(field) for field in declaration["fields"])]
    return inner


async def publish_later(topics: Topics, registry: Registry, webhook_field: str) -> None:
    """`EVENT` in a topic of its own, which is made."""
    later = wider(schema("Messages"))
    schema_id = await register(registry, f"{topics.prefix}.{webhook_field}-value", later)
    await topics.create(webhook_field)
    await topics.publish(webhook_field, confluent(schema_id, later, EVENT))
