"""The engine that the settings ask for."""

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from costbank.engines.base import Engine, EngineKind
from costbank.engines.local import LocalEngine

__all__ = ["machine_memory", "open_engine"]

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def open_engine(
    kind: EngineKind, processes: int | None, memory: int | None, ray_address: str | None, shared: Path
) -> AbstractContextManager[Engine]:
    """An engine, to be closed after use.

    Args:
        kind: `local` processes, or `ray`.
        processes: shards at a time; None: a core each.
        memory: bytes that the work may take on one machine; None: half of what this one has.
        ray_address: of a running cluster; None starts one on this machine.
        shared: a directory that all machines of a cluster see.

    Raises:
        UsageError: the cluster cannot be used; the message says why.
    """
    memory = memory or machine_memory() // 2
    if kind == "local":
        return LocalEngine(processes or len(os.sched_getaffinity(0)), memory)
    from costbank.engines.ray import RayEngine

    return RayEngine(ray_address, processes, memory, shared)


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container that this runs in."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _CONTAINER_LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text()))
    return min(found)
