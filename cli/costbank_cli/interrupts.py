"""Ctrl-C and SIGTERM: handled at once, whatever the main thread is doing, with no partial output left behind.

Python runs signal handlers between two bytecodes of the main thread, so they cannot run while that thread is inside
FAISS, a BLAS, gensim or SentencePiece. The C-level handler does run: it writes the signal's number into a pipe. A
separate thread reads that pipe, prints that the command is stopping, and ends the process if the main thread does not.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["interrupted_message", "interruptible", "interruption_keeps"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MAIN_THREAD_S = 1.0
_UNWIND_S = 10.0
_CLEANUP_S = 2.0
_SHOW_CURSOR = "\x1b[?25h"

_NOTHING_LEFT = "no partial output was left behind"
_outcome = _NOTHING_LEFT


class _Interrupts:
    """The state of a stop: which signal was received, and whether the main thread has handled it."""

    def __init__(self, clean: Callable[[], None]) -> None:
        self._clean = clean
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._previous = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        # Shells start background jobs with SIGINT ignored, and so does nohup.
        handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._handle) for number in handled}
        self._received: signal.Signals | None = None
        self.raised_by: signal.Signals | None = None
        """The signal that was raised in the main thread, if any."""
        self._raised = threading.Event()
        self._not_announced = threading.Lock()
        threading.Thread(target=self._watch, name="costbank-signals", daemon=True).start()

    def close(self) -> None:
        """Restore the previous handlers. After a signal they stay replaced, so that its time limit still applies."""
        if self._received is None and not self._raised.is_set():
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous)
            os.close(self._write_end)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Runs in the main thread. Only the first signal is raised, so a second one does not stop the cleanup."""
        if self._raised.is_set():
            return
        self.raised_by = signal.Signals(number)
        self._raised.set()
        self._announce()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def _watch(self) -> None:
        while received := os.read(self._read_end, 64):
            for number in received:
                # A server installs its own handlers, and finishes running requests.
                if number in _SIGNALS and signal.getsignal(number) == self._handle:
                    self._answer(signal.Signals(number))

    def _answer(self, number: signal.Signals) -> None:
        if self._received is not None:
            self._end()
        self._received = number
        self._announce()
        # Once the main thread has ended, Python 3.12 and later start no thread, and the process is about to end anyway.
        with suppress(RuntimeError):
            threading.Thread(target=self._limit, name="costbank-limit", daemon=True).start()

    def _announce(self) -> None:
        """Print the message once, from whichever thread comes first."""
        if self._not_announced.acquire(blocking=False):
            _write_stderr("stopping… (press Ctrl-C again to stop at once)")

    def _limit(self) -> None:
        """End the process unless it ends by itself: soon if the main thread is stuck, later if it cleans up."""
        self._raised.wait(_MAIN_THREAD_S)
        if self._raised.is_set():
            time.sleep(_UNWIND_S)
        self._end()

    def _end(self) -> None:
        cleanup = threading.Thread(target=self._clean, name="costbank-cleanup", daemon=True)
        with suppress(RuntimeError):
            cleanup.start()
            cleanup.join(_CLEANUP_S)
        cursor = f"{_SHOW_CURSOR}\n" if os.isatty(2) else ""  # a bar on a terminal hides the cursor
        _write_stderr(f"{cursor}error: {interrupted_message()}")
        os._exit(128 + (self._received or signal.SIGINT))


def interrupted_message() -> str:
    """What a command that was stopped prints, without `error:`."""
    return f"interrupted; {_outcome}"


def interruption_keeps(outcome: str) -> None:
    """Say `outcome` if this run of a command is stopped from now on, because it leaves something that is of use."""
    global _outcome
    _outcome = outcome


@contextmanager
def interruptible(clean: Callable[[], None]) -> Iterator[None]:
    """Run a command that Ctrl-C and SIGTERM stop.

    The main thread gets a KeyboardInterrupt, or SystemExit for SIGTERM. If it does not end the process within seconds,
    or a second signal is received, another thread calls `clean` and ends the process with status 130 or 143.

    Args:
        clean: removes partial output.
    """
    interruption_keeps(_NOTHING_LEFT)
    interrupts = _Interrupts(clean)
    try:
        yield
    except Exception as error:
        # Interrupted code may raise other errors: importing an extension module raises ImportError.
        if interrupts.raised_by is None:
            raise
        if interrupts.raised_by == signal.SIGINT:
            raise KeyboardInterrupt from error
        sys.exit(128 + interrupts.raised_by)
    finally:
        interrupts.close()


def _write_stderr(text: str) -> None:
    """Write without Python's buffers and locks, which the main thread may hold."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
