"""The entry point of `costbank`: Ctrl-C is handled before anything that takes time is imported."""

import os
import signal
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: for a call inside another program. None takes the arguments of this process, and makes Ctrl-C end
            the process without a traceback, even while modules are still being imported.
    """
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing is written until `interruptible` takes over. A background job of a shell still ignores Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments is None and os.environ.get("_COSTBANK_COMPLETE"):
        from costbank_cli.shells import complete

        complete()
    from costbank_cli.command_line import run

    run(arguments)
