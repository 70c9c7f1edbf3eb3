"""How far a partition of an event topic is decided: what may be committed. Does no IO."""

from __future__ import annotations


class Progress:
    """Offsets of one partition that were taken and not yet decided; taken in order, decided in any."""

    def __init__(self) -> None:
        self._under_way: dict[int, None] = {}
        self._next: int | None = None
        self._committed: int | None = None

    def taken(self, offset: int) -> None:
        """The next record was read."""
        self._under_way[offset] = None
        self._next = offset + 1

    def decided(self, offset: int) -> None:
        """The ledger says what became of it."""
        self._under_way.pop(offset, None)

    def to_commit(self) -> int | None:
        """The offset before which everything is decided, when it is another one than last time."""
        safe = next(iter(self._under_way), self._next)
        if safe is None or safe == self._committed:
            return None
        return safe

    def committed(self, offset: int) -> None:
        """Kafka has it."""
        self._committed = offset
