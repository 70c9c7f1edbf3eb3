"""The Dockerfile, without Docker: what it copies and installs is enough for every program in the image, and no more."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import click
import pytest
from packaging.specifiers import SpecifierSet

from bridge.__main__ import bridge
from tests.deploy.description import ROOT, copied, image_environment, instructions, only

KEPT_OUT = (".env", ".git", ".data", "spool", "tests", "docs", "locks/dev.txt", "bridge/__pycache__")


def let_in(path: str) -> bool:
    """Whether .dockerignore lets a path into the build: the last rule that matches it or a folder above it decides."""
    above = [Path(path), *Path(path).parents]
    verdict = True
    for rule in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = rule.removeprefix("!")
        if pattern and not pattern.startswith("#") and any(place.match(pattern) for place in above):
            verdict = rule.startswith("!")
    return verdict


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what the image has: the project, built from what is copied, and the packages of the lock."""
    folder = tmp_path_factory.mktemp("image")
    source, environment = folder / "source", folder / "bridge"
    for path in copied():
        place = source / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, place)
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    locked = re.findall(r"^([a-z0-9-]+)==\S+ \\$", (source / "locks/bridge.txt").read_text("utf-8"), flags=re.MULTILINE)
    # As they are installed here, by hash, from a lock of the same versions; several share a folder (a namespace package).
    tops = {
        file.parts[0]: str(distribution(name).locate_file(file.parts[0]))
        for name in locked
        for file in distribution(name).files or []
    }
    for top in tops.keys() - {"..", "__pycache__"}:
        (packages / top).symlink_to(tops[top])
    (install,) = [rest for name, rest in instructions() if name == "RUN" and rest.endswith(" .")]
    words = install.replace("/opt/bridge", str(environment)).split()
    assert words[0] == "python"
    subprocess.run([sys.executable, *words[1:], "--quiet", "--no-index"], cwd=source, check=True)
    return environment


def test_dockerfile_copies_what_is_there_and_only_that_is_let_in() -> None:
    """A secret, data or history in the checkout cannot get into an image."""
    assert all((ROOT / path).exists() and let_in(path) for path in copied())
    assert not [path for path in KEPT_OUT if let_in(path)]


def test_packages_are_installed_by_hash_from_a_lock_with_the_same_versions_as_here() -> None:
    """What the tests ran with is what the image gets, byte for byte, without a compiler."""
    (install,) = [rest for name, rest in instructions() if name == "RUN" and "--require-hashes" in rest]
    assert "--only-binary :all:" in install
    assert install.endswith("-r locks/bridge.txt")
    locks = [(ROOT / "locks" / name).read_text("utf-8") for name in ("bridge.txt", "dev.txt")]
    image, here = [dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, flags=re.MULTILINE)) for lock in locks]
    assert image.items() <= here.items()


def test_every_command_of_the_image_finds_its_libraries(image: Path) -> None:
    """The list of commands imports all of them: the packages of the image are enough, also for what is of no use there."""
    done = subprocess.run([str(image / "bin/bridge"), "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^  ([a-z]+) ", done.stdout, flags=re.MULTILINE) == bridge.list_commands(click.Context(bridge))


@pytest.mark.parametrize("name", ["analytics", "auto_reply"])
def test_consumers_are_in_the_image_too(image: Path, tmp_path: Path, name: str) -> None:
    """They find their libraries, and the schemas and the page that they carry."""
    command = [str(image / "bin/python"), "-m", f"consumers.{name}", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (packages,) = image.glob("lib/python*/site-packages")
    for folder in ("bridge", "consumers", "schemas"):
        here = {
            path.relative_to(ROOT)
            for path in (ROOT / folder).rglob("*")
            if path.suffix in {".avsc", ".css", ".html", ".js", ".lock", ".py", ".sql"}
        }
        assert {path for path in here if not (packages / path).is_file()} == set()


def test_image_runs_without_root_on_a_python_that_the_project_allows() -> None:
    """A numeric user, which Kubernetes can check; a base that is pinned to a full version and is the same in both stages."""
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", only("USER"))
    base = only("ARG").removeprefix("PYTHON=")
    version = re.fullmatch(r"(\d+\.\d+\.\d+)-slim-[a-z]+", base)
    assert version
    assert version[1] in SpecifierSet(requires_python())
    assert {rest.split()[0] for name, rest in instructions() if name == "FROM"} == {"python:${PYTHON}"}


def requires_python() -> str:
    """Of pyproject.toml."""
    found: str = distribution("instagram-kafka-bridge").metadata["Requires-Python"]
    return found


def test_image_starts_the_bridge_directly_and_keeps_its_spool_in_a_volume() -> None:
    """No shell stands between a SIGTERM and the bridge; what it must not lose outlives the container."""
    assert json.loads(only("ENTRYPOINT")) == ["bridge"]
    assert json.loads(only("CMD")) == ["serve"]
    assert only("STOPSIGNAL") == "SIGTERM"
    assert json.loads(only("VOLUME")) == [image_environment()["BRIDGE_SPOOL_DIR"]]
