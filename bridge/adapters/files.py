"""Records of a range as files: JSON lines, Avro containers, Parquet.

In JSON times are milliseconds since the Unix epoch, and bytes base64. A file has its name only when it is whole, and
only its user reads it: it holds messages. Avro containers and Parquet keep the writer's schema, and so there is one file for
each: `range.avro`, then `range-2.avro` where the range goes across a change of the schema.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from fastavro.write import Writer as ContainerWriter

from bridge.encoding import Schema
from bridge.errors import Misconfigured

if TYPE_CHECKING:
    import pyarrow as pa

_PARQUET_ROWS = 10_000
"""Of a row group: some 10 MB of events, what Parquet's readers take at once."""


class _Writer(Protocol):
    def write(self, value: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class _Lines:
    def __init__(self, file: IO[bytes], _: Schema) -> None:
        self._file = file

    def write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, default=lambda content: base64.b64encode(content).decode())
        self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        pass


class _Container:
    def __init__(self, file: IO[bytes], schema: Schema) -> None:
        self._writer = ContainerWriter(file, schema, codec="deflate")

    def write(self, value: Mapping[str, Any]) -> None:
        self._writer.write(dict(value))

    def close(self) -> None:
        self._writer.flush()


class _Parquet:
    def __init__(self, file: IO[bytes], schema: Schema) -> None:
        import pyarrow as pa  # noqa: PLC0415 - an extra, and half a second at every start
        from pyarrow import parquet  # noqa: PLC0415 - as above

        self._table = pa.Table
        named: dict[str, Any] = {}
        self._schema = pa.schema([(member["name"], _arrow(member["type"], named, pa)) for member in schema["fields"]])
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._rows: list[Mapping[str, Any]] = []

    def write(self, value: Mapping[str, Any]) -> None:
        self._rows.append(value)
        if len(self._rows) >= _PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []


FORMATS: Mapping[str, Callable[[IO[bytes], Schema], _Writer]] = {
    ".jsonl": _Lines,
    ".avro": _Container,
    ".parquet": _Parquet,
}
"""By the end of a file's name."""


def check(path: Path) -> None:
    """Whether a range can become this file.

    Raises:
        Misconfigured: its name's end is unknown, it exists, its folder does not, or pyarrow is not installed.
    """
    if path.suffix not in FORMATS:
        raise Misconfigured(f"{path}: the name says the format, and must end in {', '.join(FORMATS)}")
    if path.exists():
        raise Misconfigured(f"{path} exists: remove it, or name another file")
    if not path.parent.is_dir():
        raise Misconfigured(f"{path.parent} is no folder: make it, or name another file")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401, ICN001, PLC0415 - whether it is there
        except ImportError:
            raise Misconfigured(
                "Parquet needs the extra `parquet`: pip install 'instagram-kafka-bridge[parquet]'"
            ) from None


class Files:
    """What a range is written to.

    Attributes:
        paths: the files, as they will be called.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = FORMATS[path.suffix]
        self._by_schema: dict[str, tuple[IO[bytes], _Writer]] = {}
        self.paths: list[Path] = []

    def write(self, schema: Schema, value: Mapping[str, Any]) -> None:
        """Append a record.

        Raises:
            Misconfigured: the disk does not take it.
        """
        with _disk(self._path):
            self._write(schema, value)

    def _write(self, schema: Schema, value: Mapping[str, Any]) -> None:
        name = "" if self._new is _Lines else json.dumps(schema, sort_keys=True)
        if name not in self._by_schema:
            number = len(self.paths) + 1
            path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
            self.paths.append(path)
            file = os.fdopen(os.open(_partial(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
            self._by_schema[name] = file, self._new(file, schema)
        self._by_schema[name][1].write(value)

    def finish(self) -> None:
        """Complete the files and give them their names.

        Raises:
            Misconfigured: the disk does not take them.
        """
        with _disk(self._path):
            for file, writer in self._by_schema.values():
                writer.close()
                file.close()
            self._by_schema = {}
            for path in self.paths:
                _partial(path).rename(path)

    def discard(self) -> None:
        """Remove what is not complete."""
        for file, _ in self._by_schema.values():
            with contextlib.suppress(OSError):
                file.close()
        for path in self.paths:
            _partial(path).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Files]:
    """Files that are complete when the context ends, and are not there when it fails.

    Raises:
        Misconfigured: the disk does not take them.
    """
    files = Files(path)
    try:
        yield files
        files.finish()
    finally:
        files.discard()


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written ({error.strerror}): name a file elsewhere") from None


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _arrow(kind: Any, named: dict[str, Any], pa: Any) -> pa.DataType:  # noqa: ANN401 - an Avro type, and a module
    """Arrow's type for an Avro type; what is nullable in Avro is so in Parquet, where every column is."""
    if isinstance(kind, list):
        [kind] = [branch for branch in kind if branch != "null"]
    if isinstance(kind, str):
        simple = {"string": pa.string(), "bytes": pa.binary(), "long": pa.int64(), "boolean": pa.bool_()}
        return named[kind] if kind in named else simple[kind]
    if kind.get("logicalType") == "timestamp-millis":
        return pa.timestamp("ms", tz="UTC")
    if kind["type"] == "array":
        return pa.list_(_arrow(kind["items"], named, pa))
    if kind["type"] == "record":
        struct = pa.struct([(member["name"], _arrow(member["type"], named, pa)) for member in kind["fields"]])
        named[kind["name"]] = named[f"{kind.get('namespace', 'instagram_bridge.types')}.{kind['name']}"] = struct
        return struct
    return _arrow(kind["type"], named, pa)
