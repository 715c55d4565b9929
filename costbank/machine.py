"""The cores and the memory that this process may use, on the machine or in a container."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["usable_cores", "usable_memory"]

_CGROUP = Path("/sys/fs/cgroup")
# In version 2 and version 1 of the kernel's control groups.
_CPU_LIMIT = "cpu.max"
_CPU_LIMITS_V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """The number of cores in this process's CPU set, or fewer if its container has a quota of CPU time.

    Args:
        cgroup: the directory of the kernel's control groups.
    """
    cores = len(os.sched_getaffinity(0))
    quota, period = _cpu_quota(cgroup)
    # A container with half a core still runs one thread.
    return min(cores, max(1, quota // period)) if quota > 0 and period > 0 else cores


def usable_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory of the machine, or fewer if this process's container has a limit.

    Args:
        cgroup: the directory of the kernel's control groups.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int((cgroup / file).read_text()))
    return min(limits)


def _cpu_quota(cgroup: Path) -> tuple[int, int]:
    """CPU time per period and length of a period, in microseconds; 0 or less without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (cgroup / _CPU_LIMIT).read_text().split()
        return int(quota), int(period)
    with suppress(OSError, ValueError):
        quota, period = (int((cgroup / file).read_text()) for file in _CPU_LIMITS_V1)
        return quota, period
    return 0, 0
