"""The YAML of a rules file, with the line of every value in it. Does no IO.

Read as YAML 1.2's core schema reads it, so that `no` is a word and `18:00` a time of day (PyYAML's own reading is 1.1, where
they are false and 1080). Keys are always text, so that an account id needs no quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml

VALUES_MAX = 200_000  # with those that an alias repeats: a thousand rules have a tenth of it
AGAIN = "\N{NULL}again"  # the last step to a key that its mapping has already; no key of a file, YAML takes no NUL

Path = tuple[str | int, ...]
"""Where a value stands: keys and indices from the top."""


class Document(NamedTuple):
    """What a file says.

    Attributes:
        value: Its lists, mappings, texts, numbers, booleans and nulls.
        lines: The line of each, counted from 1; of a mapping's value, the line of its key.
        problems: What is wrong with the YAML and does not keep it from being read.
    """

    value: Any
    lines: Mapping[Path, int]
    problems: list[tuple[Path, str]]

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class NotYaml(Exception):
    """It cannot be read at all; the text says why, `line` where, if anywhere."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to say it


for _tag, _form, _first in (
    ("tag:yaml.org,2002:bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_form})$"), list(_first))

_MEANINGS: Mapping[str, Callable[[str], Any]] = {
    "bool": lambda text: text.lower() == "true",
    "null": lambda _: None,
    "int": int,
    "float": float,
    "str": str,
}


def read(text: bytes) -> Document:
    """The document in a file's bytes.

    Raises:
        NotYaml: It is not one document of YAML in UTF-8, or is too large when its aliases are written out.
    """
    try:
        node = yaml.compose(text, _Loader)
        return _Reader().document(node)
    except yaml.MarkedYAMLError as error:
        problem = " ".join(part for part in (error.context, error.problem) if part)
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise NotYaml(f"this is not YAML: {problem}", line) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise NotYaml("this is not YAML in UTF-8") from None
    except RecursionError:
        raise NotYaml("this is nested too deep") from None


class _Reader:
    def __init__(self) -> None:
        self._lines: dict[Path, int] = {}
        self._problems: list[tuple[Path, str]] = []

    def document(self, node: yaml.Node | None) -> Document:
        return Document(self._value(node, ()) if node else None, self._lines, self._problems)

    def _value(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 - whatever stands there
        self._lines.setdefault(path, node.start_mark.line + 1)
        if len(self._lines) > VALUES_MAX:
            raise NotYaml(f"this has more than {VALUES_MAX} values")
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in (_MEANINGS if isinstance(node, yaml.ScalarNode) else ("map", "seq")):
            self._problems.append((path, "tags are not taken: write the value alone"))
            kind = "str"
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(element, (*path, index)) for index, element in enumerate(node.value)]
        try:
            node.value.encode()  # "\ud800" is half a character, which no request can carry
            return _MEANINGS[kind](node.value)
        except ValueError:
            self._problems.append((path, f"this {'number' if kind != 'str' else 'text'} cannot be read"))
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            inner = (*path, name)
            if name in found:
                self._lines[(*inner, AGAIN)] = key.start_mark.line + 1
                self._problems.append(((*inner, AGAIN), "stands here twice"))
                continue
            self._lines[inner] = key.start_mark.line + 1
            found[name] = self._value(value, inner)
        return found
