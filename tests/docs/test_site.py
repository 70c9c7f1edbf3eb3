"""The documentation as a site: it builds without a warning, asks no other machine for anything, and its made pages are current."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from bridge.routing import MANAGED_FIELDS
from tests.docs.catalogue import DOCUMENT, catalogue
from tests.docs.markdown import ROOT, slugs, text

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""What makes a browser fetch something while it shows a page, and where it stands."""


class _Loads(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        self.addresses += [value for name, value in attrs if value and name == LOADED.get(tag)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_site_has_every_document_of_docs(site: Path) -> None:
    """It builds without a warning, and each document is a page of it; README is the first."""
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if not (site / page).is_file()} == set()
    assert "The promise" in text(site / "index.html")
    assert "bridge replay dead-letters" in text(site / "commands.html")


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """No font, script or picture comes from another machine, and every one is there."""
    for page in site.rglob("*.html"):
        loads = _Loads()
        loads.feed(text(page))
        for address in loads.addresses:
            assert not re.match(r"(?:[a-z]+:)?//", address), (page.name, address)
            base = site if address.startswith("/") else page.parent
            assert (base / address.lstrip("/").partition("?")[0]).exists(), (page.name, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\([\"']?|@import [\"'])(?:https?:)?//", text(style)), style.name


def test_catalogue_is_what_make_catalogue_writes() -> None:
    """docs/catalogue.md follows from today's schemas, street and settings; `make catalogue` mends it."""
    assert text(DOCUMENT) == catalogue()
    assert re.findall(r"^## instagram\.(\w+)$", text(DOCUMENT), flags=re.MULTILINE) == list(MANAGED_FIELDS)


def test_runbook_has_a_heading_for_every_alert() -> None:
    """Whoever is woken lands at what to do."""
    rules = yaml.safe_load(text(ROOT / "deploy/prometheus/alerts.yml"))
    alerts = [rule["annotations"]["runbook"] for group in rules["groups"] for rule in group["rules"]]
    assert alerts
    for address in alerts:
        file, _, heading = address.partition("#")
        assert heading in slugs(ROOT / file), address
