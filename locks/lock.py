"""The lock files of the Python side: `check` says whether they belong to pyproject.toml, `write UV OPTION…` makes them.

A lock opens with a fingerprint of the tables it was made from, so `check` needs neither a network nor a resolver.
`dev.txt` holds everything that `make setup` installs, `bridge.txt` what the image does: the bridge, the sample consumers and
the build backend, in the versions of `dev.txt`. `interop.txt` stands alone: `make interop` installs it beside the others, because
PyFlink wants older versions of what they have.
"""  # noqa: INP001 - a script

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCKS = {
    "locks/dev.txt": ["--all-extras"],
    "locks/bridge.txt": ["--extra=consumers", "--extra=tracing", "--constraint=locks/dev.txt"],
    "locks/interop.txt": ["--group=pyproject.toml:interop"],
}
ALONE = "locks/interop.txt"
# Universal: one lock for every Python and machine. Hashes, and no address: the index is each user's own.
OPTIONS = (
    *("--universal", "--python-version=3.11", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
    *("--no-header", "--no-annotate", "--quiet"),
)


def heading(name: str, pyproject: dict[str, dict[str, object]]) -> str:
    """The first line of this lock, made from these tables."""
    project = pyproject["project"]
    if name == ALONE:
        tables = [project["requires-python"], pyproject["dependency-groups"]["interop"]]
    else:
        names = ("requires-python", "dependencies", "optional-dependencies")
        tables = [pyproject["build-system"]["requires"], *(project[name] for name in names)]
    fingerprint = hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()
    return f"# Made by: make lock. SHA-256 of the tables in pyproject.toml: {fingerprint}\n"


def main(arguments: list[str]) -> int:
    """Exit code 1 when a lock is stale, or could not be made."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    match arguments:
        case ["check"]:
            stale = [
                name for name in LOCKS if not (ROOT / name).read_text("utf-8").startswith(heading(name, pyproject))
            ]
            if stale:
                sys.stderr.write(f"{' and '.join(stale)}: not made from this pyproject.toml; run: make lock\n")
            return int(bool(stale))
        case ["write", uv, *options]:
            backend = "\n".join(
                pyproject["build-system"]["requires"]
            )  # pip builds with it and finds no index in a lock
            for name, extras in LOCKS.items():
                sources = [] if name == ALONE else ["pyproject.toml", "-"]
                command = [uv, "pip", "compile", *sources, *OPTIONS, *extras, *options, "-o", name]
                subprocess.run(command, cwd=ROOT, input=backend, text=True, check=True)  # noqa: S603 - as make gives it
                (ROOT / name).write_text(heading(name, pyproject) + (ROOT / name).read_text("utf-8"), "utf-8")
            return 0
        case _:
            sys.stderr.write("usage: python locks/lock.py check | write UV [OPTION…]\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
