"""A pool of threads for searches beyond the neighbor table, with a bounded queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import BoundedSemaphore, Lock
from typing import TypeVar

from costbank_service.problems import ServiceError

__all__ = ["OverloadedError", "SearchPool"]

_Answer = TypeVar("_Answer")


class OverloadedError(ServiceError):
    code = "overloaded"
    title = "Too many searches"
    http_status = 503


class SearchPool:
    """Threads, each searching on one core, and a bounded queue."""

    def __init__(self, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(threads, "costbank-search", _use_one_core)
        self._threads = threads
        self._slots = BoundedSemaphore(threads + queue)
        self._pending = 0
        self._counting = Lock()

    @property
    def running(self) -> int:
        return min(self._pending, self._threads)

    @property
    def waiting(self) -> int:
        return max(0, self._pending - self._threads)

    async def run(self, search: Callable[[], _Answer]) -> _Answer:
        """Run a search when a thread is free.

        Raises:
            OverloadedError: the queue is full, or the service is shutting down.
        """
        if not self._slots.acquire(blocking=False):
            raise OverloadedError(
                "too many requests that need a search thread are waiting",
                "try again later; neighbors within the bank's table (`neighbors.k` in /v1/banks/{ref}) need none",
            )
        try:
            future = self._executor.submit(search)
        except RuntimeError:  # the service is shutting down
            self._slots.release()
            raise OverloadedError("the service is shutting down", "try again later, or use another instance") from None
        with self._counting:
            self._pending += 1
        future.add_done_callback(lambda _: self._ended())
        return await asyncio.wrap_future(future)

    def _ended(self) -> None:
        with self._counting:
            self._pending -= 1
        self._slots.release()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _use_one_core() -> None:
    if find_spec("faiss"):
        import faiss

        # OpenMP has a thread pool per calling thread: without this, each search would start a thread per core.
        faiss.omp_set_num_threads(1)
