"""Of a record's Avro bytes only what analytics keeps: one function for each writer's schema, generated from it. Does no IO.

Reading the whole record with fastavro costs 25-30 µs, a reader's schema with fewer fields 35-40 µs, because resolution has its
price too; a function that knows what to pass over takes 3-6 µs. It follows Avro's rule of resolution by names: fields that
the writer has beyond ours are passed over, those that it lacks are null. Whatever it does not understand it leaves to
fastavro: `reader_of` gives None, or the function raises, and `row_of` makes the same row of fastavro's dictionary.

Avro 1.12 specification, "Binary Encoding".
"""

from collections.abc import Callable, Mapping
from typing import Any

Row = tuple[Any, ...]
"""The values of `COLUMNS`: text, whole numbers, booleans, a list of texts; times in milliseconds since the Unix epoch."""

KEYS = (
    "message", "message_edit", "reaction", "postback", "read", "optin",
    "pass_thread_control", "take_thread_control", "request_thread_control", "app_roles_json", "referral",
)  # fmt: skip
"""Under which the typed part lies, in the order in which the first of them names the kind (contract, "Items")."""

# Column → Avro type and the places that it is taken from, the first that holds something.
PATHS: dict[str, tuple[str, tuple[str, ...]]] = {
    "event_id": ("string", ("event_id",)),
    "origin": ("string", ("origin",)),
    "account_id": ("string", ("account_id",)),
    "customer_id": ("string", ("customer_id",)),
    "occurred_at": ("timestamp-millis", ("occurred_at",)),
    "received_at": ("timestamp-millis", ("received_at",)),
    "mid": ("string", ("message.mid", "message_edit.mid", "reaction.mid", "postback.mid", "read.mid")),
    "is_echo": ("boolean", ("message.is_echo",)),
    "is_deleted": ("boolean", ("message.is_deleted",)),
    "text": ("string", ("message.text", "message_edit.text", "value.text")),
    "num_edit": ("long", ("message_edit.num_edit",)),
    "action": ("string", ("reaction.action",)),
    "reaction": ("string", ("reaction.reaction", "reaction.emoji")),
    "attachments": ("string", ("message.attachments[].type",)),
    "story": ("present", ("message.reply_to.story",)),
    "payload": ("string", ("postback.payload",)),
    "ad_id": ("string", ("message.referral.ad_id", "referral.ad_id", "postback.referral.ad_id")),
    "ref": ("string", ("message.referral.ref", "referral.ref", "postback.referral.ref")),
}
COLUMNS = (*PATHS, "kind")

_WANTED = {path: avro_type for avro_type, paths in PATHS.values() for path in paths} | dict.fromkeys(KEYS, "present")
_ITEMS = "[]"
_UNION_BRANCHES_MAX = 64  # whose index is one byte
_INDENT = "    "


class _NotUnderstoodError(Exception):
    """The writer's schema has something that is left to fastavro."""


def reader_of(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> Callable[[bytes, int], Row] | None:
    """A function that reads a row from a value's bytes, beginning at an offset; None where fastavro has to.

    The function raises some exception when the bytes do not follow the schema.

    Args:
        writer: The schema that the bytes were written with, parsed by fastavro.
        reader: The packaged schema of the same topic.
    """
    if writer.get("name") != reader["name"]:
        return None
    has = {field["name"] for field in writer.get("fields", ())}
    if any("default" not in field and field["name"] not in has for field in reader["fields"]):
        return None
    try:
        source = _Generator(writer).source()
    except (_NotUnderstoodError, KeyError, TypeError):
        return None
    names: dict[str, Any] = {"more": _more}
    exec(compile(source, f"<reader of {writer['name']}>", "exec"), names)  # noqa: S102 - our own text; of the schema only positions and known names get into it
    function: Callable[[bytes, int], Row] = names["read"]
    return function


def row_of(value: Mapping[str, Any]) -> Row:
    """The row of a record that fastavro has read whole."""
    row = [
        next((found for path in paths if (found := _at(value, path, avro_type)) is not None), None)
        for avro_type, paths in PATHS.values()
    ]
    return (*row, next((key for key in KEYS if value.get(key) is not None), None))


def _at(value: Any, path: str, avro_type: str) -> Any:  # noqa: ANN401 - whatever lies there
    name, _, rest = path.partition(".")
    inner = value.get(name.removesuffix(_ITEMS))
    if inner is None:
        return None
    if name.endswith(_ITEMS):
        return [_at(item, rest, avro_type) for item in inner]
    if rest:
        return _at(inner, rest, avro_type)
    if avro_type == "timestamp-millis":
        return round(inner.timestamp() * 1000)
    return True if avro_type == "present" else inner


class _Generator:
    """Writes `read(b, p)`: `b` the bytes, `p` the place in them; a value beyond the end is noticed at the end."""

    def __init__(self, writer: Mapping[str, Any]) -> None:
        self._writer = writer
        self._lines: list[str] = []
        self._variables: dict[str, str] = {}  # path → the variable that holds what was there
        self._depth = 1
        self._names: dict[str, Any] = {}
        self._open: list[str] = []

    def source(self) -> str:
        """The function's text."""
        self._fields(self._writer, "")
        begin = ["def read(b, p):", *(f"{_INDENT}{name} = None" for name in self._variables.values())]
        self._line("if p != len(b):")
        self._line(f"{_INDENT}raise ValueError")
        columns = [self._first_of(paths) for _, paths in PATHS.values()]
        kind = "None"
        for key in reversed([key for key in KEYS if key in self._variables]):
            kind = f"{key!r} if {self._variables[key]} is not None else {kind}"
        self._line(f"return ({', '.join(columns)}, {kind})")
        return "\n".join([*begin, *self._lines]) + "\n"

    def _first_of(self, paths: tuple[str, ...]) -> str:
        known = [self._variables[path] for path in paths if path in self._variables]
        expression = known.pop() if known else "None"
        for name in reversed(known):
            expression = f"{name} if {name} is not None else {expression}"
        return expression

    def _line(self, text: str) -> None:
        self._lines.append(_INDENT * self._depth + text)

    def _fields(self, record: Mapping[str, Any], prefix: str) -> None:
        for field in record["fields"]:
            self._value(field["type"], prefix + field["name"])

    def _value(self, schema: Any, path: str) -> None:  # noqa: ANN401 - a schema is text, list or object
        """Lines that read what lies at a path, or pass over it."""
        if isinstance(schema, list):
            self._union(schema, path)
            return
        declaration = schema if isinstance(schema, dict) else self._names.get(schema, {"type": schema})
        kind = declaration["type"]
        if kind in {"record", "error"}:
            self._record(declaration, path)
        elif kind == "array":
            self._array(declaration["items"], path)
        elif path in _WANTED:
            self._wanted(declaration, path)
        else:
            self._pass_over(declaration)

    def _union(self, branches: list[Any], path: str) -> None:
        if len(branches) > _UNION_BRANCHES_MAX:
            raise _NotUnderstoodError
        self._line("i = b[p]; p += 1")
        word = "if"
        for index, branch in enumerate(branches):
            if branch == "null":
                continue
            self._line(f"{word} i == {2 * index}:")  # zigzag
            word = "elif"
            self._depth += 1
            self._value(branch, path)
            self._depth -= 1
        null = 2 * branches.index("null") if "null" in branches else -1
        self._line(f"{word} i != {null}:" if word == "elif" else f"if i != {null}:")
        self._line(f"{_INDENT}raise ValueError")

    def _record(self, declaration: Mapping[str, Any], path: str) -> None:
        name = declaration["name"]
        if name in self._open:  # a type that holds itself would be written out without end
            raise _NotUnderstoodError
        self._names[name] = declaration
        wanted = _WANTED.get(path)
        if wanted not in {None, "present"}:
            raise _NotUnderstoodError
        if wanted:
            self._line(f"{self._variable(path)} = True")
        self._open.append(name)
        self._fields(declaration, f"{path}.")
        self._open.pop()
        if not declaration["fields"]:
            self._line("pass")

    def _array(self, items: Any, path: str) -> None:  # noqa: ANN401 - a schema is text, list or object
        element = f"{path}{_ITEMS}"
        wanted = [name for name in _WANTED if name.startswith(element)]
        depth = self._depth  # an array within an array has variables of its own
        if wanted:
            [place] = wanted
            self._line(f"found{depth} = []")
        self._line("while True:")
        self._depth += 1
        self._number(f"n{depth}")
        self._line(f"if n{depth} == 0:")
        self._line(f"{_INDENT}break")
        self._line(f"if n{depth} < 0:")  # then the block's size follows, for whoever would leap over it
        self._depth += 1
        self._number("size")
        self._depth -= 1
        self._line(f"for _ in range(abs(n{depth})):")
        self._depth += 1
        if wanted:
            self._line(f"{self._variable(place)} = None")
        self._line("q = p")
        self._value(items, element)
        self._line("if p == q:")  # elements of no bytes could be counted for ever
        self._line(f"{_INDENT}raise ValueError")
        if wanted:
            self._line(f"found{depth}.append({self._variable(place)})")
        self._depth -= 2
        if wanted:
            self._line(f"{self._variable(place)} = found{depth}")

    def _variable(self, path: str) -> str:
        return self._variables.setdefault(path, f"v{len(self._variables)}")

    def _wanted(self, declaration: Mapping[str, Any], path: str) -> None:
        kind, wanted = declaration["type"], _WANTED[path]
        logical = declaration.get("logicalType")
        if wanted == "present":
            self._line(f"{self._variable(path)} = True")
            self._pass_over(declaration)
        elif (kind, wanted, logical) == ("string", "string", None):
            self._length()
            self._line(f"q = p + n; {self._variable(path)} = b[p:q].decode(); p = q")
        elif (kind, wanted, logical) in {("long", "long", None), ("long", "timestamp-millis", "timestamp-millis")}:
            self._number(self._variable(path))
        elif (kind, wanted) == ("boolean", "boolean"):
            self._line(f"{self._variable(path)} = b[p] != 0; p += 1")
        else:
            raise _NotUnderstoodError

    def _pass_over(self, declaration: Mapping[str, Any]) -> None:
        kind = declaration["type"]
        if kind in {"string", "bytes"}:
            self._length()
            self._line("p += n")
        elif kind in {"int", "long", "enum"}:
            if kind == "enum":
                self._names[declaration["name"]] = declaration
            self._number("n")
        elif kind in {"boolean", "float", "double", "fixed"}:
            if kind == "fixed":
                self._names[declaration["name"]] = declaration
            size = {"boolean": 1, "float": 4, "double": 8}.get(kind) or int(declaration["size"])
            self._line(f"p += {size}")
        elif kind == "null":
            self._line("pass")
        else:  # maps, and what a later Avro may have
            raise _NotUnderstoodError

    def _number(self, variable: str) -> None:
        self._line(f"{variable} = b[p]; p += 1")
        self._line(f"if {variable} > 127: {variable}, p = more(b, p, {variable})")
        self._line(f"{variable} = ({variable} >> 1) ^ -({variable} & 1)")

    def _length(self) -> None:
        self._line("n = b[p]; p += 1")
        self._line("if n > 127: n, p = more(b, p, n)")
        self._line("if n & 1: raise ValueError")  # zigzag's negative numbers
        self._line("n >>= 1")


_VARINT_BITS_MAX = 63  # of a long, ten bytes of seven bits


def _more(b: bytes, p: int, first: int) -> tuple[int, int]:
    """The rest of a variable-length number, still in zigzag, and the place behind it."""
    number, shift = first & 127, 7
    while True:
        byte = b[p]
        p += 1
        number |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 - the bit that says that more follows
            return number, p
        shift += 7
        if shift > _VARINT_BITS_MAX:
            raise ValueError
