"""What runs one function over many shards: processes of this machine, or a Ray cluster."""

from contextlib import AbstractContextManager
from pathlib import Path

from costbank.engines.base import Engine, EngineKind, Report
from costbank.engines.local import LocalEngine, run_in_child
from costbank.machine import usable_cores, usable_memory

__all__ = ["Engine", "EngineKind", "Report", "open_engine", "run_in_child"]


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
    memory = memory or usable_memory() // 2
    if kind == "local":
        return LocalEngine(processes or usable_cores(), memory)
    from costbank.engines.ray import RayEngine

    return RayEngine(ray_address, processes, memory, shared)
