"""Ctrl-C and SIGTERM: answered at once, whatever the main thread is doing, and nothing half-made is left behind.

Python runs signal handlers between two bytecodes of the main thread, and so not while that thread is inside FAISS, a
BLAS, gensim or SentencePiece. The C part of a signal does arrive: it writes the signal's number into a pipe. A thread
of its own reads that pipe, says that the command is stopping, and ends the process where the main thread does not.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STUCK_S = 1.0
_UNWINDING_S = 10.0
_CLEANING_S = 2.0
_SHOW_CURSOR = "\x1b[?25h"


class _Stopping:
    """What is known of a stop: which signal asked for it, and whether the main thread has taken it up."""

    def __init__(self, clean: Callable[[], None]) -> None:
        self._clean = clean
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._previous = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        # A shell has the commands that it runs in the background ignore Ctrl-C, and so do nohup and its like.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._taken_up) for number in heeded}
        self._asked: signal.Signals | None = None
        self.raised_by: signal.Signals | None = None
        """The signal that was raised in the main thread, if any was."""
        self._raised = threading.Event()
        self._unsaid = threading.Lock()
        threading.Thread(target=self._watch, name="costbank-stopping", daemon=True).start()

    def close(self) -> None:
        """Give the signals back, unless one has come: what is left to be done then has its time limit still."""
        if self._asked is None and not self._raised.is_set():
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous)
            os.close(self._write_end)

    def _taken_up(self, number: int, _frame: FrameType | None) -> None:
        """Runs in the main thread. Only the first signal is raised, so that no other breaks off the cleaning up."""
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
                # A server takes signals itself, and lets running requests finish.
                if number in _SIGNALS and signal.getsignal(number) == self._taken_up:
                    self._answer(signal.Signals(number))

    def _answer(self, number: signal.Signals) -> None:
        if self._asked is not None:
            self._end()
        self._asked = number
        self._announce()
        threading.Thread(target=self._limit, name="costbank-limit", daemon=True).start()

    def _announce(self) -> None:
        """Say it once, from whichever thread is first."""
        if self._unsaid.acquire(blocking=False):
            _say("stopping… (again to end at once)")

    def _limit(self) -> None:
        """End the process if it does not end by itself: soon where the main thread is stuck, later where it cleans."""
        self._raised.wait(_STUCK_S)
        if self._raised.is_set():
            time.sleep(_UNWINDING_S)
        self._end()

    def _end(self) -> None:
        cleaning = threading.Thread(target=self._clean, name="costbank-cleaning", daemon=True)
        cleaning.start()
        cleaning.join(_CLEANING_S)
        shown_again = f"{_SHOW_CURSOR}\n" if os.isatty(2) else ""  # a bar on a terminal hides the cursor
        _say(f"{shown_again}error: interrupted; nothing half-made was left behind")
        os._exit(128 + (self._asked or signal.SIGINT))


@contextmanager
def stoppable(clean: Callable[[], None]) -> Iterator[None]:
    """Run a command that Ctrl-C and SIGTERM stop.

    The main thread gets a KeyboardInterrupt, or SystemExit for SIGTERM. Where it does not end the process within
    seconds, or at a second signal, `clean` is called, from another thread, and the process ends with 130 or 143.

    Args:
        clean: removes what is half-made.
    """
    stopping = _Stopping(clean)
    try:
        yield
    except Exception as error:
        # What was broken off fails in ways of its own: an extension module's import says that it failed.
        if stopping.raised_by is None:
            raise
        if stopping.raised_by == signal.SIGINT:
            raise KeyboardInterrupt from error
        sys.exit(128 + stopping.raised_by)
    finally:
        stopping.close()


def _say(text: str) -> None:
    """Past Python's buffers and locks, which the main thread may hold."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
