"""Run as a script: becomes the program it is given, which the kernel then kills when the process that began this dies.

`python tether.py PARENT_PID PROGRAM ARGUMENT…`. So a broker never outlives us, whatever ends us, `kill -9` included. A
preexec_fn would do the same, but it runs Python between fork and exec, where a lock that another thread held is held for
ever; util-linux's setpriv would too, but it is not on every Linux. PR_SET_PDEATHSIG survives the exec (prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that begins something in the background has it ignored
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL)) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() == int(sys.argv[1]):  # else it died before the call above, and no signal will come
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted: that is what exec is for
