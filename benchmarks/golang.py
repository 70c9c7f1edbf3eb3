"""The Go programs that are measured beside the bridge: built when `go` is on PATH, kept in the cache of what is fetched.

A binary's name has a hash of its sources, of what they are locked to and of the compiler, so it is built once for each.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.local.artifacts import cache_dir

HASH_DIGITS = 16
"""Of SHA-256: two builds under one name would take 2^32 of them."""


async def built(source: Path) -> Path:
    """The program of a folder with a main.go, a go.mod and a go.sum.

    Raises:
        Misconfigured: there is no go on PATH, or it cannot build this; the message says which, in a few words.
    """
    go = shutil.which("go")
    if go is None:
        raise Misconfigured("there is no go on PATH")
    binary = cache_dir() / "benchmarks" / f"{source.name}-{_digest(source, await _run(source, go, 'version'))}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
            partial = Path(folder) / source.name
            await _run(source, go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(partial), ".")
            partial.rename(binary)  # only a whole one ever has this name
    return binary


def _digest(source: Path, compiler: str) -> str:
    digest = hashlib.sha256(compiler.encode())
    for file in sorted((*source.glob("*.go"), *source.glob("go.*"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:HASH_DIGITS]


async def _run(source: Path, go: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(go, *arguments),
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = (complaints.decode("utf-8", "replace").strip().splitlines() or ["it gave no reason"])[-1]
        raise Misconfigured(f"go {arguments[0]} failed: {last}")
    return printed.decode("utf-8", "replace")
