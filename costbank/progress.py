"""Progress of long-running work: bars on a terminal, lines in a log, or no reports at all.

Library code reports to a `Progress` that its caller passes in.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

__all__ = ["LogProgress", "Progress", "QuietProgress", "Step", "TerminalProgress"]

logger = logging.getLogger("costbank")


class Step(Protocol):
    """One step of long-running work, while it runs."""

    def advance(self, amount: int) -> None:
        """Report that `amount` more units are done; 0 reports that the step is still running."""
        ...


class Progress(Protocol):
    """Receives the progress of long-running work."""

    def step(self, title: str, total: int | None = None, unit: str = "") -> Any:
        """A context manager that yields a `Step`; `total` is a number of `unit`s, None if it is unknown."""
        ...

    def note(self, text: str) -> None:
        """Report a message of one line."""
        ...


class _SilentStep:
    def advance(self, amount: int) -> None:
        pass


class QuietProgress:
    """Reports nothing."""

    @contextmanager
    def step(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
        yield _SilentStep()

    def note(self, text: str) -> None:
        pass


class _LoggedStep:
    def __init__(self, title: str, total: int | None, unit: str, seconds_between_lines: float) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._seconds_between_lines = seconds_between_lines
        self._began = self._last = time.monotonic()
        self._done = 0

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last < self._seconds_between_lines:
            return
        self._last = now
        if not self._done or not self._unit:
            logger.info("%s: %.0f s so far", self._title, now - self._began)
            return
        rate = self._done / (now - self._began)
        share, remaining = "", ""
        if self._total:
            share = f" of {self._total:,} ({self._done / self._total:.0%})"
            remaining = f", {max(self._total - self._done, 0) / rate:,.0f} s left" if rate else ""
        logger.info("%s: %s%s %s, %s %s/s%s", self._title, f"{self._done:,}", share, self._unit, f"{rate:,.0f}",
                    self._unit, remaining)  # fmt: skip

    def finish(self) -> None:
        seconds = time.monotonic() - self._began
        counts = self._done and self._unit  # a number without a unit says nothing
        amount = f"{self._done:,} {self._unit} in " if counts else ""
        rate = f", {self._done / seconds:,.0f} {self._unit}/s" if counts and seconds > 0.1 else ""
        logger.info("%s: %s%.1f s%s", self._title, amount, seconds, rate)


class LogProgress:
    """Writes to the logger `costbank`: a line every `seconds_between_lines` seconds, and one after each step."""

    def __init__(self, seconds_between_lines: float = 10.0) -> None:
        self._seconds_between_lines = seconds_between_lines

    @contextmanager
    def step(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
        step = _LoggedStep(title, total, unit, self._seconds_between_lines)
        yield step
        step.finish()

    def note(self, text: str) -> None:
        logger.info("%s", text)


class _BarStep:
    def __init__(self, bars: Any, task: Any) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: int) -> None:
        self._bars.advance(self._task, amount)


class TerminalProgress:
    """Draws bars with the rate and the remaining time on a rich console."""

    def __init__(self, console: Any) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Step]:
        from rich import progress as rich_progress

        class Rate(rich_progress.ProgressColumn):
            def render(self, task: rich_progress.Task) -> str:
                speed = task.finished_speed or task.speed
                return f"{speed:,.0f} {unit}/s" if speed and unit else ""

        columns = [
            rich_progress.SpinnerColumn(finished_text="✓"),
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            Rate(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
        ]
        with rich_progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(title, total=total)
            yield _BarStep(bars, task)
            done = bars.tasks[0].completed
            bars.update(task, total=done or 1, completed=done or 1)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)
