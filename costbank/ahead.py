"""Making the next blocks while the last one is being used."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], most: int = 3) -> Iterator[Item]:
    """The same items in the same order, of which another thread makes up to `most` while one is in use."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, "costbank-ahead") as thread:
        coming = deque(thread.submit(next, iterator, _END) for _ in range(most))
        try:
            while (item := coming.popleft().result()) is not _END:
                coming.append(thread.submit(next, iterator, _END))
                yield item  # type: ignore[misc]
        finally:
            for waiting in coming:
                waiting.cancel()
