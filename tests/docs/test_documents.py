"""What the Markdown files name exists: commands with their options, settings, targets of make, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bridge.__main__ import bridge
from bridge.settings import SECRETS, Settings
from consumers.analytics.settings import Settings as AnalyticsSettings
from consumers.auto_reply.settings import Settings as AutoReplySettings
from tests.docs.markdown import PATHS, ROOT, commands, name, rows, slugs, text

SETTINGS = {
    *(f"BRIDGE_{setting.upper()}" for setting in Settings.model_fields),
    *(f"BRIDGE_{setting.upper()}_FILE" for setting in SECRETS),
    "BRIDGE_TEST_KAFKA",
}
for kind in (AnalyticsSettings, AutoReplySettings):
    SETTINGS |= {kind.variable(setting) for setting in kind.model_fields} | kind.not_used_yet

each_document = pytest.mark.parametrize("path", PATHS, ids=name)


def refused(command: str) -> str | None:
    """Why the program would not take ``bridge …``, as it stands; what comes after an ellipsis or a placeholder is not looked at."""
    words = shlex.split(re.split(r"\s[|>&]|…|\.\.\.", command)[0])[1:]
    known: click.Command = bridge
    context = click.Context(known, info_name="bridge")
    try:
        while True:
            _, words, _ = known.make_parser(context).parse_args(list(words))
            if not isinstance(known, click.Group) or not words:
                return None
            inner = known.get_command(context, words[0])
            if inner is None:
                return f"there is no command {words[0]}"
            known, context, words = inner, click.Context(inner, parent=context), words[1:]
    except click.UsageError as error:
        return error.format_message()


@each_document
def test_every_bridge_command_of_a_document_can_be_typed(path: Path) -> None:
    """In blocks and in lines: the command exists, and takes the options that are named."""
    found = [re.sub(r"^(\.venv/bin/|([A-Z_]+=\S* )+)", "", command) for command in commands(path)]
    problems = {command: refused(command) for command in found if re.match(r"bridge( [a-z-]|$)", command)}
    assert {command: problem for command, problem in problems.items() if problem} == {}


@each_document
def test_every_setting_of_a_document_exists(path: Path) -> None:
    """A name that ends in an underscore stands for all that begin so."""
    named = set(re.findall(r"\b(?:BRIDGE|ANALYTICS|AUTO_REPLY)_[A-Z_]*", text(path)))
    unknown = {variable for variable in named - SETTINGS if not _begins_some(variable)}
    assert unknown == set()


def _begins_some(variable: str) -> bool:
    return variable.endswith("_") and any(setting.startswith(variable) for setting in SETTINGS)


@each_document
def test_every_target_of_make_in_a_document_exists(path: Path) -> None:
    """`make x` is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    named = {target for command in commands(path) for target in re.findall(r"(?:^|\s)make ([a-z-]+)", command)}
    assert named <= targets


@each_document
def test_every_link_of_a_document_leads_somewhere(path: Path) -> None:
    """Files, folders and headings of this project; what is on other machines is not asked."""
    links = re.findall(r"\]\(([^)\s]+)\)", text(path))
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file) if file else path
        if not target.exists() or (heading and heading not in slugs(target)):
            broken.append(link)
    assert broken == []


def test_readme_lists_all_commands() -> None:
    """The table of commands is what `bridge --help` lists."""
    listed = {command.removeprefix("bridge ") for command, _ in rows(ROOT / "README.md", "| command | does |")}
    assert listed == set(bridge.list_commands(click.Context(bridge)))


@pytest.mark.parametrize(
    "command", ["bridge serv", "bridge topics make", "bridge tail --until 5m", "bridge --loud serve"]
)
def test_command_that_cannot_be_typed_is_found(command: str) -> None:
    """What these tests are for: a command, a subcommand or an option that is not there."""
    assert refused(command)
