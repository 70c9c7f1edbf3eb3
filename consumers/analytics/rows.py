"""From records to rows: each by the generated reader of its writer's schema, and by fastavro whatever that one does not read.

Meant for a thread of its own, because a batch takes a tenth of a second; what has to wait for the registry asks the event loop.
"""

import asyncio
import statistics
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import ConsumerRecord

from consumers.analytics.projection import COLUMNS, Row, reader_of, row_of
from consumers.decoding import CONFLUENT_HEADER_BYTES, SINGLE_OBJECT_HEADER_BYTES, Decoder, reader_schemas
from consumers.errors import UndecodableError

READERS_MAX = 1000  # as many as the decoder keeps schemas; a reader is made in 10 ms
RECEIVED_AT = COLUMNS.index("received_at")
EVENT_ID = COLUMNS.index("event_id")

Result = TypeVar("Result")
Reader = Callable[[bytes, int], Row]


@dataclass(slots=True)
class Decoded:
    """What became of some records.

    Attributes:
        rows: By event_id, the first copy alone: `COLUMNS`, webhook field, partition, offset.
        records: How many were decoded, copies among them.
        undecodable: With the error, in their order, and how many had been decoded since the one before.
    """

    rows: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    records: int = 0
    undecodable: list[tuple[ConsumerRecord[bytes, bytes], UndecodableError, int]] = field(default_factory=list)

    def arrivals(self, read_at_ms: int) -> dict[str, tuple[int, float]]:
        """Per webhook field, how many new rows there are and the median of the seconds since their receipt."""
        lags: dict[str, list[int]] = {}
        for row in self.rows.values():
            lags.setdefault(row[len(COLUMNS)], []).append(read_at_ms - row[RECEIVED_AT])
        return {name: (len(of_one), statistics.median(of_one) / 1000) for name, of_one in lags.items()}


class Rows:
    """Makes rows of records.

    Args:
        decoder: Knows writers' schemas, and reads what is left to fastavro.
        topic_prefix: What stands before the dot in the topics' names.
        loop: Where the decoder lives; not the thread in which `decode` is called.
    """

    def __init__(self, decoder: Decoder, *, topic_prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        self._decoder = decoder
        self._topic_prefix = topic_prefix
        self._loop = loop
        self._packaged = reader_schemas()
        self._readers: dict[tuple[str, bytes], Reader] = {}

    def decode(self, records: Iterable[ConsumerRecord[bytes, bytes]]) -> Decoded:
        """Rows of records, in their order.

        Raises:
            RegistryUnavailableError: The registry could not be asked for a writer's schema; nothing is done yet.
        """
        decoded = Decoded()
        rows, last_bad_at = decoded.rows, 0
        for record in records:
            try:
                row = self._row(record)
            except UndecodableError as error:
                decoded.undecodable.append((record, error, decoded.records - last_bad_at))
                last_bad_at = decoded.records
                continue
            decoded.records += 1
            if row[EVENT_ID] not in rows:
                webhook_field = record.topic[len(self._topic_prefix) + 1 :]
                rows[row[EVENT_ID]] = (*row, webhook_field, record.partition, record.offset)
        return decoded

    def _row(self, record: ConsumerRecord[bytes, bytes]) -> Row:
        value = record.value or b""
        # Only a zero can begin the Confluent wire format, see consumers/decoding.py.
        begin = SINGLE_OBJECT_HEADER_BYTES if value[:1] != b"\0" else CONFLUENT_HEADER_BYTES
        reader = self._readers.get((record.topic, value[:begin]))
        try:
            return reader(value, begin) if reader else self._slowly(record)
        except (ValueError, IndexError):  # not Avro, as it seems: fastavro says what it is
            return self._by_fastavro(record)

    def _slowly(self, record: ConsumerRecord[bytes, bytes]) -> Row:
        """The first record of a schema, or one of a schema that is left to fastavro."""
        writer, begin = self._on_loop(self._decoder.writer(record))
        packaged = self._packaged[record.topic[len(self._topic_prefix) + 1 :]]
        reader = reader_of(writer, packaged) if isinstance(writer, dict) else None
        if reader is None:
            return self._by_fastavro(record)
        if len(self._readers) >= READERS_MAX:
            self._readers.clear()
        value = record.value or b""
        self._readers[record.topic, value[:begin]] = reader
        return reader(value, begin)

    def _by_fastavro(self, record: ConsumerRecord[bytes, bytes]) -> Row:
        return row_of(self._on_loop(self._decoder.decode(record)).value)

    def _on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
