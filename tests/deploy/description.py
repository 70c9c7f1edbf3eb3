"""What Dockerfile and docker-compose.yml say, read as far as they go: enough of both languages, and an error for the rest."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
OURS = "instagram-kafka-bridge"
"""The image that the Dockerfile makes."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}|\$\$|\$")


class MissingVariableError(Exception):
    """Compose stops here; its text is what a person reads."""


class Service(NamedTuple):
    """A service of ours as compose would start it.

    Attributes:
        command: entry point and arguments.
        environment: with the image's own; what .env does not set is not there.
        healthcheck: the command, or None where there is none.
    """

    command: list[str]
    environment: dict[str, str]
    healthcheck: list[str] | None


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, an instruction and its arguments each."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def only(name: str) -> str:
    """The arguments of an instruction that stands there once."""
    (rest,) = [rest for instruction, rest in instructions() if instruction == name]
    return rest


def image_environment() -> dict[str, str]:
    """What the final stage's ENV sets."""
    last = [rest for name, rest in instructions() if name == "ENV"][-1]
    return dict(pair.split("=", 1) for pair in shlex.split(last))


def image_healthcheck() -> list[str]:
    """The command of HEALTHCHECK."""
    command: list[str] = json.loads(only("HEALTHCHECK").partition("CMD ")[2])
    return command


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    sources = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    return [source for few in sources for source in few]


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with .env's variables put in.

    Raises:
        MissingVariableError: one that it requires is missing or empty.
    """
    content: dict[str, Any] = _filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8")), variables)
    for service in content["services"].values():
        environment = service.get("environment", {})
        given = {name: variables.get(name) if value is None else value for name, value in environment.items()}
        service["environment"] = {name: value for name, value in given.items() if value is not None}
    return content


def named_variables() -> set[str]:
    """The variables that docker-compose.yml takes from .env."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    passed_on = {
        name
        for service in content["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return passed_on | {match[1] for match in _VARIABLE.finditer(yaml.safe_dump(content)) if match[1]}


def services(content: Mapping[str, Any]) -> dict[str, Service]:
    """Ours, in the order in which they may start."""
    described: dict[str, Any] = content["services"]
    waits = {name: set(service.get("depends_on", ())) for name, service in described.items()}
    return {
        name: _service(described[name])
        for name in TopologicalSorter(waits).static_order()
        if described[name]["image"] == OURS
    }


def _service(described: Mapping[str, Any]) -> Service:
    check = described.get("healthcheck")
    if check is None:
        healthcheck = image_healthcheck()
    elif check.get("disable"):
        healthcheck = None
    else:
        healthcheck = exec_form(check["test"])
    return Service(
        command=[*described.get("entrypoint", json.loads(only("ENTRYPOINT"))), *described["command"]],
        environment=image_environment() | described["environment"],
        healthcheck=healthcheck,
    )


def exec_form(test: Sequence[str]) -> list[str]:
    """The command of a health check that asks for no shell."""
    assert test[0] == "CMD"
    return list(test[1:])


def _filled(node: Any, variables: Mapping[str, str]) -> Any:  # noqa: ANN401 - whatever YAML holds
    if isinstance(node, dict):
        return {key: _filled(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(element, variables) for element in node]
    return _VARIABLE.sub(lambda match: _value(match, variables), node) if isinstance(node, str) else node


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    name, operator, text = match.groups()
    if match[0] == "$$":
        return "$"
    assert name, f"a lone $ in {match.string!r}: compose takes it for a variable"
    value = variables.get(name, "")
    if not value and operator == "?":
        raise MissingVariableError(f"{name}: {text}")
    return value or text or ""
