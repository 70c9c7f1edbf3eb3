"""When the output, a file or a folder cannot be written: one line says so, and nothing else is blamed."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bridge.errors import Misconfigured

_WRITE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What a disk says, and a connection never."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes a file, or into a folder.

    Raises:
        Misconfigured: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written ({error.strerror}): name another folder") from None


def of_the_output(error: OSError) -> bool:
    """Whether it is stdout or stderr that could not be written; of a file that was opened the error knows the name."""
    return error.filename is None and error.errno in _WRITE_ERRNOS


def told(error: OSError) -> str:
    """What a command ends with that did not foresee it."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    return f"cannot write the output ({reason})" if of_the_output(error) else f"{type(error).__name__}: {reason}"


def let_go() -> None:
    """Not to try once more, when Python ends, what could not be written: it would complain again, and exit with 120."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # there is no stdout, or it has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
