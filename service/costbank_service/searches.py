"""Searches beyond the neighbor table, of which only so many run or wait at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import BoundedSemaphore
from typing import TypeVar

from costbank_service.problems import ServiceError

__all__ = ["OverloadedError", "SearchPool"]

_Answer = TypeVar("_Answer")


class OverloadedError(ServiceError):
    code = "overloaded"
    title = "Too many searches"
    http_status = 503


class SearchPool:
    """A few threads and a queue with an end. Each thread searches on one core."""

    def __init__(self, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(threads, "costbank-search", _keep_to_one_core)
        self._places = BoundedSemaphore(threads + queue)

    async def run(self, search: Callable[[], _Answer]) -> _Answer:
        """The answer of a search once a thread is free.

        Raises:
            OverloadedError: as many as may run and wait do already.
        """
        if not self._places.acquire(blocking=False):
            raise OverloadedError(
                "more searches beyond the neighbor tables are waiting than this service allows",
                "try again later, or ask for a k within the bank's table (`neighbors.k` of /v1/banks/{ref})",
            )
        try:
            future = self._executor.submit(search)
        except RuntimeError:  # the service is shutting down
            self._places.release()
            raise OverloadedError("the service is shutting down", "ask another one, or try again later") from None
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _keep_to_one_core() -> None:
    if find_spec("faiss"):
        import faiss

        # OpenMP counts threads for each thread that calls it: without this, each starts as many as there are cores.
        faiss.omp_set_num_threads(1)
