"""The entry point of `costbank`: Ctrl-C is handled before anything that takes time is imported."""

import os
import signal
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: those of a call inside another program; None: those of this process, which is then ours, so that
            Ctrl-C ends it without a traceback from the first moment on.
    """
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `interruptible` takes over nothing has been written. A shell's background job ignores Ctrl-C still.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments is None and os.environ.get("_COSTBANK_COMPLETE"):
        from costbank_cli.shells import complete

        complete()
    from costbank_cli.command_line import run

    run(arguments)
