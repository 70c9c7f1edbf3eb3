"""Random notifications: Meta's shapes by the schemas, anything else wherever it may stand, and many ways to write one value.

A document is plain Python, with `Number` for numbers, because how they are written counts. `write` makes JSON text of it.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.properties.jsontree import Number
from tests.properties.reference import CHANGES, KEYS
from tests.unit.street import SCHEMAS

Document = dict[str, Any] | list[Any] | str | bool | None
Documents = st.SearchStrategy[Any]


WORDS = [
    "",
    "text",
    "ä€ß",
    "😀",
    'a "quote" \\ / \t\n',
    "\u0000\u001f\u007f\u2028",
    "{[",
    "\ud800",
    "x\udfffy",
    "react",
    "IGME",
]
IDS = [
    "17841400000000001",
    "1254459154682919",
    "IGSID",
    "0",
    "ü:1",
    Number("17841400000000001"),
    Number("1784140000000000000009"),
]
TIMES = [
    "1569262485",
    "1569262485.5",
    "soon",
    "",
    "1e9",
    *map(Number, ("1569262485349", "1569262485", "1569262485.25", "0")),
]
TIMES += map(
    Number, ("1569262485349123", "-1", "99999999999", "100000000000", "99999999999999", "100000000000000000", "1e12")
)
COUNTS = ["1", "-1", "two", "9223372036854775808", *map(Number, ("0", "1", "2.0", "2.5", "1e3", "9223372036854775807"))]
COUNTS += map(Number, ("9223372036854775808", "-9223372036854775808", "-9223372036854775809"))
FLAGS = [True, False, "true", "false", "1", "0", "TRUE", Number("1"), Number("0"), Number("2"), Number("1.0")]
SCALARS = [None, True, *map(Number, ("1", "-2.50", "1e999", "12345678901234567890123")), "text", "\ud800", "{"]

ANYTHING: Documents = st.sampled_from(SCALARS) | st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "mid", "new", "ключ"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def _weighted(*choices: tuple[int, Documents]) -> Documents:
    """One strategy, each so many times as likely; `one_of` would flatten what it is given and lose the weights."""
    drawn = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(drawn) - 1).flatmap(drawn.__getitem__)


def _loose(strategy: Documents) -> Documents:
    """Mostly the right type: one draw in twelve is anything, one null."""
    return _weighted((10, strategy), (1, ANYTHING), (1, st.none()))


def _object(members: dict[str, Documents]) -> Documents:
    """Any of the members, and now and then a key that nobody knows."""
    return st.fixed_dictionaries({}, optional={**members, "new_key": ANYTHING})


def _by_schema(name: str, kind: Any, named: dict[str, Any]) -> Documents:  # noqa: ANN401 - an Avro type: name or object
    if isinstance(kind, str) and kind in named:
        return _by_schema(name, named[kind], named)
    if kind == "string":
        return st.sampled_from(IDS if name in ("id", "mid") or name.endswith("_id") else WORDS)
    if kind in ("boolean", "long"):
        return st.sampled_from(FLAGS if kind == "boolean" else COUNTS)
    if kind["type"] == "array":
        return st.lists(_loose(_by_schema(name, kind["items"], named)), max_size=2)
    if kind["type"] != "record":
        return st.sampled_from(TIMES)
    named[f"{kind['namespace']}.{kind['name']}"] = kind
    return _object(
        {
            field["name"].removesuffix("_json"): ANYTHING
            if field["name"].endswith("_json")
            else _loose(_by_schema(field["name"], field["type"][1], named))
            for field in kind["fields"]
        }
    )


def _typed_part(topic_field: str, key: str) -> Documents:
    named: dict[str, Any] = {}
    fields = {
        field["name"]: field["type"][1] for field in SCHEMAS[topic_field]["fields"] if isinstance(field["type"], list)
    }
    typed = {name: _by_schema(name, kind, named) for name, kind in fields.items() if not name.endswith("_json")}
    return typed.get(key, st.dictionaries(st.sampled_from(["app", "123"]), ANYTHING, max_size=2))


PARTS = {key: _loose(_typed_part("standby", key)) for key in KEYS}
PARTY = _loose(st.fixed_dictionaries({"id": _loose(st.sampled_from(IDS))}, optional={"new_key": ANYTHING}))
AROUND = st.fixed_dictionaries(
    {}, optional={"sender": PARTY, "recipient": PARTY, "timestamp": _loose(st.sampled_from(TIMES))}
)


@st.composite
def items(draw: st.DrawFn) -> Document:
    """An element of messaging[] or standby[]."""
    item: dict[str, Any] = draw(AROUND)
    for key in draw(_weighted((6, ONE_KEY), (2, TWO_KEYS), (1, st.just([])))):
        item[key] = draw(PARTS[key])
    return item


ONE_KEY = st.sampled_from(list(KEYS)).map(lambda key: [key])
TWO_KEYS = st.lists(st.sampled_from(list(KEYS)), min_size=2, max_size=3, unique=True)
CHANGE_VALUES = {field: _loose(_typed_part(field, "value")) for field in CHANGES}
NAMED_FIELDS = [*CHANGES, *CHANGES, *KEYS.values(), "standby", "story_mentions", *KEYS, "other", "dead_letter"]


@st.composite
def changes(draw: st.DrawFn) -> Document:
    """An element of changes[]."""
    named = draw(_loose(st.sampled_from(NAMED_FIELDS)))
    values = CHANGE_VALUES[named] if isinstance(named, str) and named in CHANGE_VALUES else _loose(items())
    change = {"field": named, "value": draw(values)}
    missing = draw(_weighted((9, st.just("timestamp")), (1, st.sampled_from(["field", "value"]))))
    return {key: value for key, value in {**change, "timestamp": Number("1569262485")}.items() if key != missing}


def _several(strategy: Documents) -> Documents:
    return _loose(_weighted((9, st.lists(_loose(strategy), min_size=1, max_size=3)), (1, st.just([]))))


FORMS = {
    "messaging": _several(items()),
    "standby": _several(items()),
    "changes": _several(changes()),
    "flat": changes(),
}


@st.composite
def entries(draw: st.DrawFn) -> Document:
    """An element of entry[]."""
    entry: dict[str, Any] = draw(_object({"id": _loose(st.sampled_from(IDS)), "time": _loose(st.sampled_from(TIMES))}))
    for form in draw(
        st.lists(st.sampled_from(list(FORMS)), min_size=draw(st.sampled_from([1, 1, 1, 0])), max_size=2, unique=True)
    ):
        drawn = draw(FORMS[form])
        entry |= drawn if form == "flat" else {form: drawn}
    return entry


OBJECTS = _weighted((12, st.just("instagram")), (1, st.sampled_from(["page", None, "Instagram", Number("1")])))
WRAPPED = st.fixed_dictionaries({"object": OBJECTS, "entry": _several(entries())}, optional={"new_key": ANYTHING})
SEVERAL = st.lists(_loose(_weighted((4, WRAPPED), (1, changes()))), max_size=3)
NOTIFICATIONS = _weighted((12, WRAPPED), (2, changes()), (2, SEVERAL), (1, ANYTHING))
SPELLINGS = st.integers(0, 2**16).map(lambda seed: Random(seed) if seed else None)  # noqa: S311 - a spelling is no secret
"""How a document is written; None is the plain way."""


def write(document: Document, spelling: Random | None = None) -> str:
    """JSON text of a document: any key order, spacing and escapes, and now and then a duplicate key before the one that counts."""
    if isinstance(document, Number):
        return document
    if isinstance(document, str):
        return _write_string(document, spelling)
    if isinstance(document, list):
        return "[" + ",".join(_spaced(write(element, spelling), spelling) for element in document) + "]"
    if not isinstance(document, dict):
        return json.dumps(document)
    members = list(document.items())
    if spelling:
        spelling.shuffle(members)
        if members and spelling.random() < 0.05:
            members.insert(0, (members[-1][0], "shadowed"))
    pairs = (
        f"{_spaced(_write_string(key, spelling), spelling)}:{_spaced(write(value, spelling), spelling)}"
        for key, value in members
    )
    return "{" + ",".join(pairs) + "}"


def _spaced(text: str, spelling: Random | None) -> str:
    return spelling.choice(["", "", " ", "\n"]) + text + spelling.choice(["", "", "\t "]) if spelling else text


def _write_string(text: str, spelling: Random | None) -> str:
    escaped = spelling is None or spelling.random() < 0.5 or not text.isprintable()
    written = json.dumps(text, ensure_ascii=escaped)
    return written.replace("/", "\\/") if spelling and spelling.random() < 0.5 else written
