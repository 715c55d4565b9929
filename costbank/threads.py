"""Threads that work while the caller does: the next items computed in advance, and a function run on every core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

__all__ = ["map_in_order", "prefetch"]

Item = TypeVar("Item")
_END = object()


def prefetch(items: Iterable[Item], most: int = 3) -> Iterator[Item]:
    """The same items in the same order; another thread computes up to `most` of them in advance."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, "costbank-prefetch") as thread:
        pending = deque(thread.submit(next, iterator, _END) for _ in range(most))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(thread.submit(next, iterator, _END))
                yield cast(Item, item)
        finally:
            for future in pending:
                future.cancel()


def map_in_order(
    function: Callable[..., Iterable[Item]], items: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[list[Item]]:
    """For each item, in order, the list of the results of a function.

    Args:
        function: called in one of the threads, with the elements of an item as its arguments.
        items: read one at a time; at most `workers` + 1 results are in memory.
        workers: the number of threads.
    """
    with ThreadPoolExecutor(workers) as threads:
        pending: deque[Future[list[Item]]] = deque()
        for item in items:
            pending.append(threads.submit(lambda arguments: list(function(*arguments)), item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
