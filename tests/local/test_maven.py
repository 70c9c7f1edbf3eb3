"""Locked downloads: what is fetched, what is refused, and what an interruption leaves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bridge.errors import Misconfigured
from bridge.local.artifacts import KAFKA, KAFKA_LOCK, LOGGING, REGISTRY, REGISTRY_LOCK, TOOLS
from bridge.local.maven import Locked, fetch, read_lock

CONTENT = b"the bytes of a jar"
LOCKED = Locked("org.example:thing:1.0", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def publish(repository: Path, content: bytes) -> Path:
    folder = repository / "org" / "example" / "thing" / "1.0"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "thing-1.0.jar"
    path.write_bytes(content)
    return path


def test_fetch_missing_file_comes_from_the_users_repository(repository: Path, tmp_path: Path) -> None:
    """A locked file that is not there is fetched from the repository that the user's settings name."""
    publish(repository, CONTENT)

    (path,) = fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")

    assert path == tmp_path / "cache" / "jars" / "thing-1.0.jar"
    assert path.read_bytes() == CONTENT


def test_fetch_file_that_is_there_asks_nobody(repository: Path, tmp_path: Path) -> None:
    """A file that is there and whole is not fetched again."""
    published = publish(repository, CONTENT)
    fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")
    published.unlink()

    (path,) = fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")

    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("torn", [b"", CONTENT[:5], CONTENT.upper()], ids=["empty", "short", "same length"])
def test_fetch_torn_file_is_fetched_again(repository: Path, tmp_path: Path, torn: bytes) -> None:
    """A file that is there but not as locked is replaced."""
    publish(repository, CONTENT)
    jars = tmp_path / "cache" / "jars"
    jars.mkdir(parents=True)
    (jars / LOCKED.name).write_bytes(torn)

    (path,) = fetch("a thing", [LOCKED], jars)

    assert path.read_bytes() == CONTENT


def test_fetch_after_an_interrupted_run_starts_afresh(repository: Path, tmp_path: Path) -> None:
    """What a killed run left among the unfinished files is neither used nor kept."""
    publish(repository, CONTENT)
    unfinished = tmp_path / "cache" / "partial" / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(CONTENT[:3])

    (path,) = fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")

    assert path.read_bytes() == CONTENT
    assert not (tmp_path / "cache" / "partial").exists()


def test_fetch_other_bytes_than_locked_are_refused(repository: Path, tmp_path: Path) -> None:
    """A repository that serves other bytes than the lock names is not believed, and they are not kept."""
    publish(repository, b"another jar")

    with pytest.raises(Misconfigured, match=r"thing-1\.0\.jar.*SHA-256.*as locked"):
        fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")

    assert list((tmp_path / "cache" / "jars").iterdir()) == []


def test_fetch_file_that_nobody_has_says_which(repository: Path, tmp_path: Path) -> None:
    """A file that the repository does not have is named in one line."""
    assert list(repository.iterdir()) == []

    with pytest.raises(Misconfigured, match=r"^could not fetch thing-1\.0\.jar: .*try again$"):
        fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")


def test_fetch_shows_its_progress(repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal, progress is plain lines, the last one with everything."""
    publish(repository, CONTENT)

    fetch("a thing", [LOCKED], tmp_path / "cache" / "jars")

    assert capfd.readouterr().err.splitlines()[-1] == "fetching a thing: 0.0 of 0.0 MB"


def test_locks_hold_what_the_versions_name() -> None:
    """The lock files were made from the versions that the code names."""
    kafka = [file.coordinates for file in read_lock(KAFKA_LOCK)]
    assert (kafka[0], *kafka[-2:]) == (KAFKA, TOOLS, LOGGING)
    assert [file.coordinates for file in read_lock(REGISTRY_LOCK)] == [REGISTRY]
    assert f"org.apache.logging.log4j:log4j-core:{LOGGING.rpartition(':')[2]}" in kafka
