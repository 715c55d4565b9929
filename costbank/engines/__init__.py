"""Run one function on many shards, in processes of this machine or on a Ray cluster."""

from contextlib import AbstractContextManager
from pathlib import Path

from costbank.engines.base import Engine, EngineKind, Report
from costbank.engines.local import LocalEngine, run_in_child
from costbank.machine import usable_cores, usable_memory

__all__ = ["Engine", "EngineKind", "Report", "open_engine", "run_in_child"]


def open_engine(
    kind: EngineKind, processes: int | None, memory: int | None, ray_address: str | None, shared: Path
) -> AbstractContextManager[Engine]:
    """Open an engine; leaving its `with` block stops the worker processes.

    Args:
        kind: `local` processes, or `ray`.
        processes: shards processed at a time. None: one per usable core; with Ray, one per CPU of the cluster.
        memory: bytes of memory that the work may use on one machine. None: half of the usable memory of this machine.
        ray_address: the address of a running Ray cluster. None: start one on this machine.
        shared: a directory that every machine of the cluster can access under this path.

    Raises:
        MissingExtraError: the engine is `ray`, and Ray is not installed.
        UsageError: the Ray cluster cannot be used; the message says why.
    """
    memory = memory or usable_memory() // 2
    if kind == "local":
        return LocalEngine(processes or usable_cores(), memory)
    from costbank.engines.ray import RayEngine

    return RayEngine(ray_address, processes, memory, shared)
