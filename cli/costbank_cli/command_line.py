"""The `costbank` command: finds the subcommand, and prints every error that a user can cause as two lines.

A subcommand's module is imported when the subcommand runs.
"""

import errno
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from costbank import __version__
from costbank.errors import CostbankError
from costbank_cli.interrupts import interrupted_message, interruptible
from costbank_cli.standard_streams import (
    BROKEN_PIPE_STATUS,
    BrokenOutputError,
    detect_broken_output,
    discard_output,
    open_missing_streams,
)

__all__ = ["COMMANDS", "command_line", "run"]

COMMANDS = {
    "tokenizer": "Train a tokenizer.",
    "build": "Build a bank from a source of vectors.",
    "show": "Show what a bank contains and how it was made.",
    "nearest": "List the tokens with the lowest cost to one token or several.",
    "health": "Report the quality of a bank's vectors.",
    "serve": "Serve a store's banks over HTTP, with a page to look at them.",
    "demo": "Run the whole workflow on the docstrings of installed packages.",
    "list": "List the banks of a store.",
    "walk": "Step from a token to its nearest tokens, and on from there.",
    "cost": "Show the costs between tokens.",
    "eval": "Test whether similar words have low costs, and neighbors fit held-out text.",
    "compare": "Compare the neighbors and costs of banks.",
    "layout": "Make a two-dimensional map of a bank's tokens.",
    "report": "Write a bank's charts, health and neighbors as one HTML file.",
    "verify": "Check every byte of a bank.",
    "rm": "Remove banks from a store.",
    "prune": "Remove all but the newest banks of each name.",
    "rename": "Rename a name with all its banks.",
    "cache": "Show or clear what is cached on this machine.",
    "export": "Write a bank as files that other tools can open.",
    "pull": "Copy a bank from a server, a bucket or the Hub into the store.",
    "push": "Copy a bank to a bucket or the Hub.",
    "settings": "List the settings of a build.",
    "plugin-path": "Print the path of a plugin for a training framework.",
}
"""The commands of a first session in the order of their use, then the others."""

_FIRST_SESSION = ("tokenizer", "build", "show", "nearest", "health", "serve")
_EXAMPLES = (
    "costbank build --source lm-head --model path/to/model --name my-model",
    "costbank show my-model",
    "costbank nearest my-model king",
    "costbank health my-model",
    'python: EMOLoss(open_bank("my-model"))  # a loss to train with',
    "costbank serve --open",
)
_COMPLETION = (
    'bash: eval "$(_COSTBANK_COMPLETE=bash_source costbank)"  # in ~/.bashrc',
    'zsh:  eval "$(_COSTBANK_COMPLETE=zsh_source costbank)"  # in ~/.zshrc',
    "fish: _COSTBANK_COMPLETE=fish_source costbank | source  # in ~/.config/fish/config.fish",
)

_INTERRUPTED = 128 + signal.SIGINT
_ENVIRONMENT = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM,
                errno.EROFS, errno.ELOOP, errno.EMFILE, errno.EIO)  # fmt: skip
"""Errors of paths and disks, as opposed to bugs."""

_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click raises for a group without a command, from 8.2 on; earlier versions print the help themselves."""


class _LazyGroup(click.Group):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with detect_broken_output():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with detect_broken_output():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"costbank_cli.commands.{cmd_name.replace('-', '_')}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from costbank_cli.usage_errors import NoSuchCommandError

            raise NoSuchCommandError(args[0], ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands by their short help, which imports none of them, then the options."""
        commands = [CompletionItem(name, help=short) for name, short in COMMANDS.items() if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        first = [(name, COMMANDS[name]) for name in _FIRST_SESSION]
        with formatter.section("Commands"):
            formatter.write_dl(first)
        with formatter.section("More commands"):
            formatter.write_dl([item for item in COMMANDS.items() if item not in first])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lines(formatter, "A first session", _EXAMPLES)
        _write_lines(formatter, "Shell completion", _COMPLETION)


def _write_lines(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    """Write lines without wrapping them, because users copy them."""
    with formatter.section(title):
        for line in lines:
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="costbank")
def command_line() -> None:
    """Build, inspect, serve and export banks of frozen token embeddings for EMO training.

    BANK is a name, name@idprefix, a path or, where it is only read, a URL. TOKEN is a word (king: the token for king at
    the start of a word, or else the piece with exactly these bytes), piece:king (the piece inside a word), id:123 or
    hex:e4bda0.
    """


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    The status is 0 done, 2 usage, 3 not found, 4 corrupt bank, 5 input, 130 interrupted, or 141 broken pipe.
    """
    open_missing_streams()
    try:
        with interruptible(_remove_partial_output):
            _invoke(arguments)
    except CostbankError as error:
        _fail(error.message, error.hint, error.exit_status)
    except click.ClickException as error:
        from costbank_cli.usage_errors import explain

        _fail(*explain(error, sys.argv[1:] if arguments is None else arguments), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail(interrupted_message(), "", _INTERRUPTED)
    except BrokenOutputError:
        discard_output()
        sys.exit(BROKEN_PIPE_STATUS)
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        path = f"{error.filename}: " if error.filename else ""
        _fail(f"{path}{error.strerror}", "check the path, its permissions and the disk", CostbankError.exit_status)
    sys.exit(0)


def _invoke(arguments: Sequence[str] | None) -> None:
    try:
        command_line.main(arguments, prog_name="costbank", standalone_mode=False)
    except _NO_ARGUMENTS as shown:
        with detect_broken_output():
            click.echo(shown.ctx.get_help())


def _fail(message: str, hint: str, status: int) -> NoReturn:
    with suppress(OSError):  # the reader has closed the pipe, or the disk is full
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    discard_output()
    sys.exit(status)


def _remove_partial_output() -> None:
    if "costbank.files" in sys.modules:  # otherwise nothing has been written yet
        from costbank.files import remove_half_made

        remove_half_made()
