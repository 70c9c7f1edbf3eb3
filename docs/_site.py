"""What mkdocs.yml cannot say: pages that stand elsewhere in the project, links to them, and the commands' own help.

The documents are written to be read where they lie. Here README.md becomes the first page; a link to a file that is no page
becomes its name; `folder/` in the navigation stands for all pages of that folder which it does not name (`./`: of docs/).
"""  # noqa: INP001 - a hook, which mkdocs loads by its path

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from bridge.__main__ import bridge

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "schemas/README.md": "schemas.md",
    "consumers/auto_reply/README.md": "auto-reply.md",
}
"""Documents outside of docs/, and what they are called in the site."""

COMMANDS_PAGE = "commands.md"
TERMINAL_COLUMNS = 100
"""How wide the commands' help is set; a page's block of code holds that much without scrolling."""

_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts a folder's pages where the navigation names the folder."""
    named = set(_paths(config.nav))
    config.nav = _expanded(config.nav, named)
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages from outside, and the one that is made here."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, COMMANDS_PAGE, content=_commands()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the project into links between pages of the site."""
    del config, files
    if page.file.abs_src_path is None:  # made here, and without links
        return markdown
    source = Path(page.file.abs_src_path).relative_to(ROOT)
    here = Path(page.file.src_uri).parent

    def turned(link: re.Match[str]) -> str:
        mark, text, target, heading = link.groups(default="")
        if re.match(r"[a-z]+:", target):
            return link[0]
        file = os.path.normpath(source.parent / target)
        place = PAGES.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if place and ((ROOT / file).is_file() or not (ROOT / file).exists()):
            return f"{mark}[{text}]({os.path.relpath(place, here)}{heading})"  # one that is missing is mkdocs' to tell
        if not (ROOT / file).exists():
            return link[0]
        return text if file in text or f"`{target}`" in text else f"{text} (`{file}`)"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(turned, part) for part in parts)


def _paths(node: Any) -> Iterator[str]:  # noqa: ANN401 - mkdocs' navigation: lists, dictionaries, paths
    if isinstance(node, str):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _paths(inner)


def _expanded(node: Any, named: set[str]) -> Any:  # noqa: ANN401 - as above
    if isinstance(node, list):
        pages = [_expanded(entry, named) for entry in node]
        return [page for entry in pages for page in (entry if isinstance(entry, list) else [entry])]
    if isinstance(node, dict):
        return {title: _expanded(entry, named) for title, entry in node.items()}
    if isinstance(node, str) and node.endswith("/"):
        found = (os.path.normpath(f"{node}{path.name}") for path in sorted((ROOT / "docs" / node).glob("*.md")))
        return [page for page in found if page not in named]
    return node


def _commands() -> str:
    """The help of every command, as it prints it."""
    parts = ["# Commands\n\nWhat `--help` says..\n"]
    pending: list[tuple[str, click.Command, click.Context | None]] = [("bridge", bridge, None)]
    while pending:
        name, command, parent = pending.pop(0)
        context = click.Context(command, info_name=name, parent=parent, max_content_width=TERMINAL_COLUMNS)
        context.terminal_width = TERMINAL_COLUMNS
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            inner = [(each, command.get_command(context, each)) for each in command.list_commands(context)]
            pending[:0] = [(each, found, context) for each, found in inner if found is not None]
    return "\n".join(parts)
