"""Files of Maven repositories, named in a lock file by coordinates, SHA-256 and size, fetched once and verified.

A lock names no address: the repository is the user's own (`[repositories]` in jgo's settings file; Maven Central without
one). A file reaches the place where it is used by one rename, after its hash was checked, so an interrupted run leaves
nothing half done there; what is found there later is hashed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import Misconfigured
from bridge.local.progress import Progress

if TYPE_CHECKING:
    from jgo.maven import Artifact, MavenContext

DOWNLOADS_AT_ONCE = 6  # most jars are small, so the round trips count: 46 jars in 4 s instead of 34
ATTEMPTS_MAX = 3  # a dropped connection is common, three in a row are an outage
SILENCE_MAX_S = 60  # how long a repository may send nothing; a mirror that fetches the file first is slow to begin
CAUSE_CHARACTERS_MAX = 300  # a repository may answer with a page; the beginning tells


@dataclass(frozen=True, slots=True)
class Locked:
    """One line of a lock file: ``group:artifact:version[:classifier:packaging] sha256 size``."""

    coordinates: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's name, as Maven forms it."""
        _, artifact, version, classifier, packaging = _split(self.coordinates)
        return f"{artifact}-{version}{classifier and '-'}{classifier}.{packaging}"

    def is_intact(self, path: Path) -> bool:
        """Whether ``path`` holds exactly this file."""
        return path.is_file() and path.stat().st_size == self.size_bytes and sha256(path) == self.sha256


class _Stopped(Exception):
    """Ends a download that nobody waits for any more, because another one failed or because of Ctrl-C."""


def read_lock(path: Path) -> list[Locked]:
    """The files that a lock file names, in its order."""
    lines = (line.split() for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    return [Locked(coordinates, digest, int(size)) for coordinates, digest, size in lines]


def write_lock(path: Path, coordinates: Sequence[str], context: MavenContext) -> None:
    """Fetches what ``coordinates`` name and locks it as it comes."""
    lines = ["# coordinates, SHA-256, bytes; made by: make lock-java"]
    for each in coordinates:
        file = artifact(each, context).resolve()
        lines.append(f"{each} {sha256(file)} {file.stat().st_size}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def fetch(what: str, files: Sequence[Locked], into: Path, stop: threading.Event | None = None) -> list[Path]:
    """Paths of ``files`` in the folder ``into``, all verified; fetches those that are missing or torn.

    Args:
        what: What the progress on stderr calls them.
        files: Whole lock files, so that the order is the lock's.
        into: Made when missing. Unfinished files are in its sibling `partial`.
        stop: Set by another thread to end the downloads early.

    Raises:
        Misconfigured: A file could not be had, or is not the one that was locked.
    """
    paths = [into / file.name for file in files]
    if not all(file.is_intact(path) for file, path in zip(files, paths, strict=True)):
        with alone(into.parent) as partial:
            into.mkdir(exist_ok=True)
            missing = [file for file in files if not file.is_intact(into / file.name)]
            with Progress(what, sum(file.size_bytes for file in missing)) as progress:
                _download_all(missing, into, partial, progress, stop or threading.Event())
    return paths


@contextmanager
def alone(cache: Path) -> Iterator[Path]:
    """Yields an empty folder for unfinished files; a second process waits here, then finds the work done."""
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / "partial"
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("another process fetches the same files: waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)  # its lock ends with that process, however it ends
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def repositories(folder: Path, follow: Callable[[int], None]) -> MavenContext:
    """The user's Maven repositories; what comes from them goes to ``folder``, ``follow`` hears of every piece's bytes."""
    from jgo.config import GlobalSettings  # noqa: PLC0415 - 0.2 s of import that a run which fetches nothing is spared
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - the same

    @contextmanager
    def progress(_name: str, _size_bytes: int) -> Iterator[Callable[[int], None]]:
        yield follow

    resolver = PythonResolver(progress_callback=progress)
    context = MavenContext(resolver=resolver, repo_cache=folder, timeout=SILENCE_MAX_S)
    context.remote_repos.update(GlobalSettings.load().repositories)
    return context


def artifact(coordinates: str, context: MavenContext) -> Artifact:
    """What ``coordinates`` name; its `resolve` fetches the file alone, without its POM: a lock knows what belongs together."""
    group, name, version, classifier, packaging = _split(coordinates)
    return context.project(group, name).at_version(version).artifact(classifier, packaging)


def sha256(path: Path) -> str:
    """The file's digest in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_all(
    files: Sequence[Locked], into: Path, partial: Path, progress: Progress, stop: threading.Event
) -> None:
    def follow(more_bytes: int) -> None:
        if stop.is_set():
            raise _Stopped
        progress.advance(more_bytes)

    context = repositories(partial, follow)
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        downloads = [pool.submit(_download, file, into, context) for file in files]
        try:
            for download in downloads:
                download.result()
        finally:
            stop.set()  # after a failure or Ctrl-C the others end at their next piece, not at their file's end
            pool.shutdown(wait=False, cancel_futures=True)


def _download(file: Locked, into: Path, context: MavenContext) -> None:
    fetched = artifact(file.coordinates, context)
    problem = ""
    for _ in range(ATTEMPTS_MAX):
        try:
            path = fetched.resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo's "not found" is a RuntimeError
            problem = f"{type(error).__name__}: {str(error)[:CAUSE_CHARACTERS_MAX]}"
        else:
            if file.is_intact(path):
                path.replace(into / file.name)
                return
            problem = f"what came has the SHA-256 {sha256(path)}, not {file.sha256} as locked"
        if (torn := fetched.cached_path) is not None:
            torn.unlink(missing_ok=True)  # jgo would take it for the whole file
    raise Misconfigured(
        f"could not fetch {file.name}: {problem}; see that your Maven repository can be reached, and try again"
    )


def _split(coordinates: str) -> tuple[str, str, str, str, str]:
    group, name, version, *rest = coordinates.split(":")
    classifier, packaging = rest or ("", "jar")
    return group, name, version, classifier, packaging
