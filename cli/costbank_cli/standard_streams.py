"""Handling of standard streams that are closed or have no reader."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["BROKEN_PIPE_STATUS", "BrokenOutputError", "detect_broken_output", "discard_output", "open_missing_streams"]

BROKEN_PIPE_STATUS = 128 + signal.SIGPIPE
"""The exit status after a broken pipe, like that of `cat` in `cat file | head -1`."""


class BrokenOutputError(Exception):
    """The reader of stdout or stderr has closed the pipe."""


def open_missing_streams() -> None:
    """Open the null device where a standard stream is closed.

    Otherwise the next file opened would get the stream's number, and a library that prints would write into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDONLY if name == "stdin" else os.O_WRONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115 - stays open as long as the process


@contextmanager
def detect_broken_output() -> Iterator[None]:
    """Turn a broken pipe on stdout or stderr into `BrokenOutputError`.

    Raises:
        BrokenOutputError: stdout or stderr is a pipe without a reader.
        RuntimeError: another pipe broke. That is a bug; click would treat it as a broken stdout.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        if _has_reader(1) and _has_reader(2):
            raise RuntimeError("a pipe other than stdout and stderr broke") from error
        raise BrokenOutputError from None


def discard_output() -> None:
    """Send a stream that cannot be written to the null device, so that the interpreter exits without an error."""
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
