"""`bridge doctor` on this machine: settings, secrets, the spool's disk. Asks nobody."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bridge.adapters.topics import DEAD_LETTER_MARGIN_BYTES
from bridge.commands._finding import Finding
from bridge.settings import PREFIX, SECRETS, Settings, live_secrets, read

_APP_SECRET = re.compile(rb"[0-9a-f]{32}")
_VERIFY_TOKEN_CHARACTERS_MIN = 16
"""Whoever knows the token can only have a challenge echoed; still, it should not be guessed."""

_FSYNC_WARN_S = 0.5
"""A sixth of the publish deadline: a disk so slow refuses deliveries when Kafka is away and many come."""

_NO_DISK = {"tmpfs": "memory", "ramfs": "memory", "overlay": "a container's own layer"}
_REMOTE = ("nfs", "cifs", "smb", "fuse.", "9p", "ceph", "glusterfs")
_MOUNTS = Path("/proc/self/mounts")
_MIB = 1024 * 1024


async def here(settings: Settings, env_file: Path | None) -> AsyncIterator[Finding]:
    """All of it."""
    for finding in (*secrets(settings, env_file), *spool(settings), *sizes(settings)):
        yield finding


def secrets(settings: Settings, env_file: Path | None) -> Iterator[Finding]:
    """App secrets and verify token: whether they look like what Meta gives out, and who can read their files."""
    for secret in live_secrets(settings):
        name = f"app secret {secret.label}"
        if _APP_SECRET.fullmatch(secret.key):
            yield Finding(name, "ok", "32 hex digits, as Meta's are")
        else:
            odd = " with white space or quotes" if re.search(rb"[\s\"']", secret.key) else ""
            yield Finding(
                name,
                "warn",
                f"{len(secret.key)} bytes{odd}, Meta's are 32 hex digits",
                "copy it again from the dashboard",
            )
    token = settings.verify_token.get_secret_value()
    if token != token.strip():
        yield Finding(
            "verify token", "warn", "begins or ends with white space", "take it out, here and in the dashboard"
        )
    elif len(token) < _VERIFY_TOKEN_CHARACTERS_MIN:
        yield Finding("verify token", "warn", f"{len(token)} characters", "make a longer one: openssl rand -hex 32")
    else:
        yield Finding("verify token", "ok", f"{len(token)} characters")
    values = read(env_file).values
    for setting in sorted(SECRETS):
        path = values.get(f"{PREFIX}{setting.upper()}_FILE")
        if path and Path(path).stat().st_mode & stat.S_IROTH:
            yield Finding("secrets' files", "warn", f"{path} can be read by everybody", f"chmod o= {path}")


def spool(settings: Settings) -> Iterator[Finding]:
    """Whether the spool's disk takes a file, keeps it, and has room."""
    if not settings.spool_dir:
        yield Finding("spool", "warn", "there is none: an outage of Kafka is answered 503", "set BRIDGE_SPOOL_DIR")
        return
    folder = there = Path(settings.spool_dir).absolute()
    try:
        while not there.exists():  # the bridge makes it
            there = there.parent
        took_s = _fsync(there)
    except OSError as error:
        yield Finding(
            "spool",
            "fail",
            f"{folder} takes no file ({error.strerror})",
            "let this user write there, or set BRIDGE_SPOOL_DIR",
        )
        return
    slow = took_s > _FSYNC_WARN_S
    yield Finding(
        "spool fsync",
        "warn" if slow else "ok",
        f"{1000 * took_s:.1f} ms in {folder}",
        "use a faster local disk" if slow else "",
    )
    kind = _file_system(there)
    if kind in _NO_DISK:
        yield Finding(
            "spool disk", "warn", f"{kind}: {_NO_DISK[kind]}, gone with this machine or container", "use a volume"
        )
    elif kind.startswith(_REMOTE):
        yield Finding("spool disk", "warn", f"{kind}: not a local disk", "use one: SQLite's promises need it")
    free, wanted = shutil.disk_usage(there).free, settings.spool_bytes_max
    room = f"{free // _MIB} MiB free, {wanted // _MIB} MiB allowed"
    if free < wanted:
        yield Finding("spool room", "warn", room, "make room, or lower BRIDGE_SPOOL_BYTES_MAX")
    else:
        yield Finding("spool room", "ok", room)
    if folder.exists() and folder.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        yield Finding(
            "spool rights", "warn", "others may look into its folder: it holds messages", f"chmod o= {folder}"
        )
    with contextlib.suppress(OSError):
        if damaged := sorted(path.name for path in folder.glob("*.corrupt")):
            yield Finding("spool files", "warn", f"set aside as damaged: {', '.join(damaged)}", "see ARCHITECTURE.md")


def sizes(settings: Settings) -> Iterator[Finding]:
    """What may come in, against what may go out; the topics' sizes are compared with Kafka's."""
    body, record = settings.body_bytes_max, settings.record_bytes_max
    chain = f"HTTP body {body}, producer {body + DEAD_LETTER_MARGIN_BYTES}, record {record} bytes"
    if record > body:
        yield Finding("sizes", "warn", chain, "BRIDGE_RECORD_BYTES_MAX need not be more than BRIDGE_BODY_BYTES_MAX")
    else:
        yield Finding("sizes", "ok", chain)


def _fsync(folder: Path) -> float:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(bytes(4096))
        file.flush()
        begun = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - begun


def _file_system(path: Path) -> str:
    """The kind of the file system that holds a path; empty where this machine does not tell."""
    found = ("", "")
    with contextlib.suppress(OSError):
        for line in _MOUNTS.read_text("utf-8", "replace").splitlines():
            _, mount, kind, *_ = line.split(" ")
            if (mount == "/" or f"{path}/".startswith(f"{mount}/")) and len(mount) >= len(found[0]):
                found = mount, kind
    return found[1]
