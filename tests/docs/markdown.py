"""The project's Markdown, as far as it can be held against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATHS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def name(path: Path) -> str:
    """A file as a person would say it."""
    return str(path.relative_to(ROOT))


def text(path: Path) -> str:
    """What it says."""
    return path.read_text("utf-8")


def fences(path: Path, language: str) -> list[str]:
    """The blocks of a language."""
    return [block for tag, block in _FENCE.findall(text(path)) if tag == language]


def spans(path: Path) -> list[str]:
    """What stands in backticks within a line, outside blocks."""
    return [str(span) for span in _SPAN.findall(_FENCE.sub("", text(path)))]


def commands(path: Path) -> Iterator[str]:
    """Every line of a shell block, continued ones joined and comments left out, and every span."""
    for block in fences(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"(^|\s)#.*", "", line).strip():
                yield command
    yield from spans(path)


def rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the table that begins with this line, without backticks."""
    lines = text(path).splitlines()
    start = lines.index(heading) + 2
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


def slugs(path: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text(path)), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
