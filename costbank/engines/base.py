"""The interface of every engine."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

__all__ = ["MAX_ATTEMPTS", "ONE_THREAD_EACH", "Engine", "EngineKind", "Report", "Work"]

EngineKind = Literal["local", "ray"]
Shard = TypeVar("Shard")
Result = TypeVar("Result")

Report = Callable[[int], None]
"""Called with the amount of work since the last call, in the unit of the progress step, such as bytes or tokens."""

Work = Callable[[Shard, Report], Result]
"""Processes one shard. It must be a module-level function, because worker processes import it by name. Shards and
results are pickled and sent between processes, so they must be small; large data goes through files. The function must
be idempotent: after a worker dies, its shard is processed again."""

MAX_ATTEMPTS = 4

ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment variables of each worker: one thread per library, because there is one worker per core."""


class Engine(Protocol):
    """Runs a function on many shards in parallel.

    Attributes:
        workers: the number of shards processed at a time.
        memory: bytes of memory that the work on one shard may use.
        machine_memory: bytes of memory that all workers of one machine may use together.
    """

    workers: int
    memory: int
    machine_memory: int

    def run(self, work: Work[Shard, Result], shards: Sequence[Shard], report: Report) -> Iterator[tuple[int, Result]]:
        """Call `work` on every shard, and yield (shard number, result) in order of completion.

        A shard is retried on another worker if its worker dies. The first exception that `work` raises stops the run.

        Raises:
            EngineError: workers died repeatedly.
            Exception: any exception that `work` raises.
        """
        ...
