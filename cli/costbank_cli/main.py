"""The `costbank` command: finds the subcommand, and turns every error that a person can cause into two lines.

A subcommand's module is imported when it is run, and no library of ours before it needs it.
"""

import errno
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from costbank import __version__
from costbank.errors import CostbankError
from costbank_cli.stopping import stoppable
from costbank_cli.streams import NO_READER, NoReaderError, discard_output, noticing_lost_readers, open_missing_streams

__all__ = ["COMMANDS", "command_line", "main"]

COMMANDS = {
    "build": "Build a bank from a source of vectors.",
    "settings": "List the settings of a build.",
    "nearest": "Show the tokens of least cost to a token.",
    "cost": "Show the costs between tokens.",
    "show": "Show what a bank holds and where it came from.",
    "list": "List the banks of a store.",
    "verify": "Check every byte of a bank.",
    "health": "Report the quality of a bank's vectors.",
    "export": "Write a bank as files that other tools open.",
    "serve": "Serve a store's banks over HTTP.",
    "demo": "Run the whole journey on text that every installation has.",
    "tokenizer": "Make a tokenizer.",
}

_INTERRUPTED = 128 + signal.SIGINT
_ENVIRONMENT = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM,
                errno.EROFS, errno.ELOOP, errno.EMFILE, errno.EIO)  # fmt: skip
"""What a path or a disk brings about rather than a mistake of ours."""


_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises for a group without a command, from 8.2 on; earlier versions print the help themselves."""


class _LazyGroup(click.Group):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with noticing_lost_readers():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with noticing_lost_readers():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"costbank_cli.commands.{cmd_name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from costbank_cli.mistakes import NoSuchCommandError

            raise NoSuchCommandError(args[0], ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="costbank")
def command_line() -> None:
    """Frozen token cost embeddings: build them, keep them as banks, look at them, serve them.

    BANK is a name, name@idprefix, or a path. TOKEN is a text (king: the token that starts a word with it, else the
    exact piece), or piece:king (the piece within a word), id:123, or hex:e4bda0.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 2 usage, 3 not found, 4 corrupt, 5 input, 130 interrupted, 141 unread."""
    open_missing_streams()
    try:
        with stoppable(_remove_half_made):
            _run(arguments)
    except CostbankError as error:
        _fail(error.message, error.hint, error.exit_status)
    except click.ClickException as error:
        from costbank_cli.mistakes import explained

        _fail(*explained(error, sys.argv[1:] if arguments is None else arguments), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; nothing half-made was left behind", "", _INTERRUPTED)
    except NoReaderError:
        discard_output()
        sys.exit(NO_READER)
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror}", "check the path, its permissions and the disk", CostbankError.exit_status)
    sys.exit(0)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        command_line.main(arguments, prog_name="costbank", standalone_mode=False)
    except _NO_ARGUMENTS as shown:
        with noticing_lost_readers():
            click.echo(shown.ctx.get_help())


def _fail(message: str, hint: str, status: int) -> NoReturn:
    with suppress(OSError):  # whoever would read it has gone, or its disk is full
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    discard_output()
    sys.exit(status)


def _remove_half_made() -> None:
    if "costbank.files" in sys.modules:  # else nothing has been written yet
        from costbank.files import remove_half_made

        remove_half_made()
