"""The standard streams of a process that may lack some of them, or whose reader may go away."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["NO_READER", "NoReaderError", "discard_output", "noticing_lost_readers", "open_missing_streams"]

NO_READER = 128 + signal.SIGPIPE
"""The status of a command whose output nobody reads on: that of `cat` in `cat file | head -1`."""


class NoReaderError(Exception):
    """Whoever read stdout or stderr has gone."""


def open_missing_streams() -> None:
    """Open the null device where a standard stream is closed.

    The next file that is opened would get the stream's number otherwise, and a library that prints would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDONLY if name == "stdin" else os.O_WRONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


@contextmanager
def noticing_lost_readers() -> Iterator[None]:
    """Turn a write that found no reader into `NoReaderError`.

    Raises:
        NoReaderError: stdout or stderr is a pipe that nobody reads.
        RuntimeError: it was another pipe; that is a mistake of ours, which click would take for the former.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        if _has_reader(1) and _has_reader(2):
            raise RuntimeError("a pipe broke that is neither stdout nor stderr") from error
        raise NoReaderError from None


def discard_output() -> None:
    """Let what cannot be written go nowhere, so that the interpreter does not try again as it ends, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _has_reader(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return not any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
