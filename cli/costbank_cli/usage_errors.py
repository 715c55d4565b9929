"""Usage errors of the command line, with a suggestion of the command, option or value that was meant."""

import re
from collections.abc import Sequence
from itertools import pairwise

import click

from costbank.suggestions import closest, plain

__all__ = ["NoSuchCommandError", "explain"]

_COMMANDS = {
    "neighbors": "nearest", "neighbours": "nearest", "similar": "nearest", "search": "nearest", "near": "nearest",
    "knn": "nearest", "costs": "cost", "distance": "cost", "info": "show", "inspect": "show", "describe": "show",
    "ls": "list", "banks": "list", "check": "verify", "fsck": "verify", "quality": "health", "diagnose": "health",
    "convert": "export", "save": "export", "server": "serve", "run": "serve", "start": "serve", "create": "build",
    "make": "build", "new": "build", "try": "demo", "example": "demo", "config": "settings", "options": "settings",
    "evaluate": "eval", "benchmark": "eval", "diff": "compare", "train": "tokenizer train",
    "tokenize": "tokenizer train",
}  # fmt: skip
"""Names that other tools use, and our commands for them."""

_NOT_ONE_OF = re.compile(r"'(?P<given>[^']*)' is not one of (?P<choices>.*)\.$")
_NO_SUCH_COMMAND = getattr(click.exceptions, "NoSuchCommand", ())
"""What click raises for an unknown command, from 8.4 on."""


class NoSuchCommandError(click.UsageError):
    """A group has no command of this name."""

    def __init__(self, command_name: str, ctx: click.Context) -> None:
        super().__init__(f"unknown command {command_name!r}", ctx)
        self.command_name = command_name


def explain(error: click.ClickException, arguments: Sequence[str]) -> tuple[str, str]:
    """The message and the hint of an error.

    Args:
        error: what click raised.
        arguments: the whole command line.
    """
    context: click.Context | None = getattr(error, "ctx", None)
    see = f"see {context.command_path if context else 'costbank'} --help"
    message, suggestion = error.format_message(), None
    if isinstance(error, (NoSuchCommandError, _NO_SUCH_COMMAND)):
        name = str(getattr(error, "command_name", ""))
        message, suggestion = f"unknown command {name!r}", _command(name, context)
    elif isinstance(error, click.NoSuchOption):
        message, suggestion = f"unknown option {error.option_name}", _option(error.option_name, context, arguments)
    elif match := _NOT_ONE_OF.search(message):
        suggestion = closest(match["given"], re.findall(r"'(.*?)'", match["choices"]))
    return message, f"did you mean {suggestion}? {see}" if suggestion else see


def _command(name: str, context: click.Context | None) -> str | None:
    if context is None or not isinstance(context.command, click.Group):
        return None
    if name == "help":
        return f"{context.command_path} --help"
    top = context.parent is None
    near = closest(name, context.command.list_commands(context), _COMMANDS if top else None)
    return f"{context.command_path} {near}" if near else None


def _option(name: str, context: click.Context | None, arguments: Sequence[str]) -> str | None:
    """The option that was most likely meant, or the setting for `--set`."""
    if context is None:
        return None
    options = [option for parameter in context.command.params for option in parameter.opts + parameter.secondary_opts]
    near = closest(name, [option for option in [*options, *context.help_option_names] if option.startswith("--")])
    if "--set" not in options or (near is not None and plain(near) == plain(name)):
        return near
    from costbank.config import like_settings, settings_called

    setting, source = name.lstrip("-").replace("-", "_"), _source(arguments)
    paths = settings_called(setting, source) or ([] if near else like_settings(setting, source))
    if context.command.name != "build":  # the other commands with --set take only settings of a corpus
        paths = [path for path in paths if path.startswith("corpus.")]
    return " or ".join(f"--set {path}=…" for path in paths) or near


def _source(arguments: Sequence[str]) -> str | None:
    """The source that a command line names, if it exists."""
    from costbank.config import SOURCE_SECTIONS

    sources = [value for option, value in pairwise(arguments) if option == "--source"]
    sources += [argument.partition("=")[2] for argument in arguments if argument.startswith("--source=")]
    return next((source for source in sources if source in SOURCE_SECTIONS), None)
