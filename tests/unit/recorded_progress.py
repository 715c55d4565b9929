from collections.abc import Callable, Iterator
from contextlib import contextmanager

from costbank.progress import QuietProgress, Step


class RecordedProgress(QuietProgress):
    """Progress that records the titles of steps and the notes, and calls `on_advance` when a step advances."""

    def __init__(self, on_advance: Callable[[str], None] | None = None) -> None:
        self.steps: list[str] = []
        self.notes: list[str] = []
        self._on_advance = on_advance

    @contextmanager
    def step(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
        self.steps.append(title)
        yield _Step(title, self._on_advance)

    def note(self, text: str) -> None:
        self.notes.append(text)


class _Step:
    def __init__(self, title: str, on_advance: Callable[[str], None] | None) -> None:
        self._title, self._on_advance = title, on_advance

    def advance(self, amount: int) -> None:
        if self._on_advance:
            self._on_advance(self._title)
