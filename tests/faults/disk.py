"""Disks that are full or fail: a small file system of its own where we may mount one, a limit on files everywhere."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bridge.adapters.spool import FREE_BYTES_MIN

MIB = 1 << 20

MAY_MOUNT = os.getuid() == 0


@contextlib.contextmanager
def small_disk(folder: Path, usable_bytes: int) -> Iterator[Path]:
    """A file system in this folder with little more than what the spool leaves free."""
    folder.mkdir()
    size = FREE_BYTES_MIN + usable_bytes
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Somebody else takes all of a file system, to the last byte."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(MIB)):
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def no_file_may_grow(pid: int) -> Iterator[None]:
    """Every write of a process beyond 4 KiB of a file fails (EFBIG)."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
