"""What a run says meanwhile: results on stdout, one updating line on stderr."""

from __future__ import annotations

import sys

_CLEAR = "\r\x1b[2K"


def progress(text: str) -> None:
    """Tell what is going on: rewritten in place on a terminal, a line each elsewhere; empty text clears it."""
    if sys.stderr.isatty():
        print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a result."""
    progress("")
    print(text, flush=True)
