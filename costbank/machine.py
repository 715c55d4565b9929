"""What this process may use of the machine: cores and memory, also inside a container."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["usable_cores", "usable_memory"]

_CGROUP = Path("/sys/fs/cgroup")
# Of the kernel's control groups, the present version and the one before.
_CPU_LIMIT = "cpu.max"
_OLD_CPU_LIMITS = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def usable_cores() -> int:
    """Cores that this process may run on: those of its CPU set, or fewer where a container has a quota of CPU time."""
    cores = len(os.sched_getaffinity(0))
    quota, period = _cpu_quota()
    # A container of half a core still runs one thread.
    return min(cores, max(1, quota // period)) if quota > 0 and period > 0 else cores


def usable_memory() -> int:
    """Bytes of memory of this machine, or of the container that this process runs in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int((_CGROUP / file).read_text()))
    return min(limits)


def _cpu_quota() -> tuple[int, int]:
    """Microseconds of CPU time allowed in each period, and those of a period; 0 or less without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / _CPU_LIMIT).read_text().split()
        return int(quota), int(period)
    with suppress(OSError, ValueError):
        quota, period = (int((_CGROUP / file).read_text()) for file in _OLD_CPU_LIMITS)
        return quota, period
    return 0, 0
