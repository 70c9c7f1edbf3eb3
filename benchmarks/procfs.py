"""What Linux tells of processes and cores: CPU seconds, peak memory, how busy a core was (proc(5)). Linux only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME = 11  # of the fields after the process's name in /proc/PID/stat, as are the next ones
_IDLE, _IOWAIT, _STEAL = 3, 4, 7  # of the figures in /proc/stat


def family(pid: int) -> list[int]:
    """A process and its descendants: a server with workers is all of them."""
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    except FileNotFoundError:
        return []
    return [pid, *(descendant for child in children for descendant in family(child))]


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:  # the thread ended, or the kernel was built without CONFIG_PROC_CHILDREN
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, in steps of 10 ms."""
    ticks = 0
    for member in family(pid):
        after_name = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[_UTIME]) + int(after_name[_UTIME + 1])
    return ticks / _TICKS_PER_S


def peak_rss_bytes(pid: int) -> int:
    """The most memory that the process, or one of its descendants, has held so far."""
    return max(_status_bytes(member, "VmHWM") for member in family(pid))


def rss_bytes(pid: int) -> int:
    """The memory that the process itself holds now."""
    return _status_bytes(pid, "VmRSS")


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


class Core(NamedTuple):
    """A core's seconds since boot: busy with whatever, of these for another machine of the same hypervisor, and all."""

    busy: float
    stolen: float
    total: float


def core_seconds() -> dict[int, Core]:
    """Every core's."""
    cores = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *figures = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [int(figure) for figure in figures[:8]]  # the rest is counted in these already
            total = sum(ticks)
            seconds = (each / _TICKS_PER_S for each in (total - ticks[_IDLE] - ticks[_IOWAIT], ticks[_STEAL], total))
            cores[int(name[3:])] = Core(*seconds)
    return cores
