"""Threads that work while the caller does: the next items made in advance, and a function run on every core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["map_in_order", "prefetch"]

Item = TypeVar("Item")
_END = object()


def prefetch(items: Iterable[Item], most: int = 3) -> Iterator[Item]:
    """The same items in the same order; another thread makes up to `most` of them while one is in use."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, "costbank-prefetch") as thread:
        pending = deque(thread.submit(next, iterator, _END) for _ in range(most))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(thread.submit(next, iterator, _END))
                yield item  # type: ignore[misc]
        finally:
            for waiting in pending:
                waiting.cancel()


def map_in_order(
    function: Callable[..., Iterable[Item]], items: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[list[Item]]:
    """What a function gives for each item as a list, in the order of the items.

    Args:
        function: called with an item's elements as its arguments, in one of the threads.
        items: taken one at a time; at most `workers` + 1 results wait to be used.
        workers: number of threads.
    """
    with ThreadPoolExecutor(workers) as threads:
        pending: deque[Future[list[Item]]] = deque()
        for item in items:
            pending.append(threads.submit(lambda chosen: list(function(*chosen)), item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
