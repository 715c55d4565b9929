"""What every engine offers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

__all__ = ["MOST_ATTEMPTS", "ONE_THREAD_EACH", "Engine", "EngineKind", "Report", "Work"]

EngineKind = Literal["local", "ray"]
Shard = TypeVar("Shard")
Result = TypeVar("Result")

Report = Callable[[int], None]
"""Takes how much has been done since the last call, in whatever a step counts."""

Work = Callable[[Shard, Report], Result]
"""Works on one shard. A function of a module, so that other processes find it by its name; shards and results are
small, since they travel: bulk goes through files. Working on a shard twice must do no harm."""

MOST_ATTEMPTS = 4

ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""What a worker finds in its environment, since there is a worker for each core."""


class Engine(Protocol):
    """Runs work on shards, several at a time.

    Attributes:
        workers: how many shards are worked on at a time.
        memory: bytes that the work on one shard may take.
        machine_memory: bytes that work on one machine may take in all.
    """

    workers: int
    memory: int
    machine_memory: int

    def run(self, work: Work[Shard, Result], shards: Sequence[Shard], report: Report) -> Iterator[tuple[int, Result]]:
        """Work on every shard, and give (its number, the result) of each as it is finished.

        A shard whose worker died is given to another. The first error that `work` raises ends it all.

        Raises:
            EngineError: workers died on the same shard again and again.
        """
        ...
