"""A program as a container would run it: ``python confine.py WORKING SPOOL ARGUMENT…`` runs ``python ARGUMENT…`` in WORKING.

As root: in a mount namespace of its own in which everything but the spool, which is at /srv, is read-only; as nobody, and without
the right to more. As anybody else, who may not do that: as they are, in a working directory that they cannot write to.
"""

from __future__ import annotations

import os
import sys

NOBODY = 65534

# dac_read_search lets nobody read this checkout and this Python, wherever root keeps them; it gives no right to write.
_AS_NOBODY = f"""
spool=$1; shift
mount --make-rprivate / && mount --bind "$spool" /srv || exit 90
while read -r _ at _; do mount -o remount,ro,bind "$(printf '%b' "$at")" 2>/dev/null; done < /proc/self/mounts
mount -o remount,rw,bind /srv || exit 91
exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --no-new-privs \\
  --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "$@"
"""


def main(working: str, spool: str, arguments: list[str]) -> None:
    """Never returns: the process becomes the program."""
    os.chdir(working)
    command = [sys.executable, *arguments]
    os.environ["BRIDGE_SPOOL_DIR"] = spool
    if os.geteuid() == 0:
        os.chown(spool, NOBODY, NOBODY)
        os.environ["BRIDGE_SPOOL_DIR"] = "/srv"
        command = ["unshare", "--mount", "sh", "-c", _AS_NOBODY, "sh", spool, *command]
    os.execvp(command[0], command)  # noqa: S606 - the test's own


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
