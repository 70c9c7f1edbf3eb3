"""What can go wrong in a consumer, by what has to be done about it.

    Exception
    ├── ConsumerError             a person has to mend something: the process says this one line and ends with exit code 1
    ├── RegistryUnavailableError  the schema registry gave no answer to rely on: try the same record again later
    └── UndecodableError          this record will never be readable: set it aside as a dead letter and go on

No text of these holds anything of a record's key or value.
"""


class ConsumerError(Exception):
    """Something that only a person can mend; its text is one line that says what happened and how to mend it."""


class RegistryUnavailableError(Exception):
    """The schema registry is away, refuses us, or is not a registry at all; the record itself may be sound."""


class UndecodableError(Exception):
    """A record whose value cannot be read, now or later.

    Args:
        topic: The record's topic.
        partition: The record's partition.
        offset: The record's offset.
        reason: A slug for counting: `no_value`, `unknown_encoding`, `unknown_fingerprint`, `no_registry`,
            `unknown_schema_id`, `unusable_schema`, `schema_mismatch` or `broken_value`.
        detail: One sentence for a person, without content.
    """

    def __init__(self, *, topic: str, partition: int, offset: int, reason: str, detail: str) -> None:
        super().__init__(f"{topic} partition {partition} offset {offset}: {reason}: {detail}")
        self.reason = reason
        self.detail = detail
