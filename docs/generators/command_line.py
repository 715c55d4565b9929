"""The reference of the command line, made from click's commands."""

import inspect
import re
from collections.abc import Iterator

import click
from costbank_cli.command_line import command_line

from docs.generators.tables import table

__all__ = ["page"]

_ABOVE = """# Command line

`costbank COMMAND --help` prints the same text. [Errors](errors.md#exit-statuses-of-the-command-line) lists the exit
statuses.

"""


def page() -> str:
    """Every command with its usage, its help and its options."""
    # The root has the settings of a real call, because commands keep the help option that they were first read with.
    root = click.Context(command_line, info_name="costbank", **command_line.context_settings)
    return _ABOVE + "\n".join(
        [_prose(command_line), *(text for context in _leaves(root) for text in _section(context))]
    )


def _leaves(root: click.Context) -> Iterator[click.Context]:
    """A context for every command. Groups are replaced by their commands."""
    assert isinstance(root.command, click.Group)
    for name in root.command.list_commands(root):
        command = root.command.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        if isinstance(command, click.Group):
            yield from _leaves(context)
        else:
            yield context


def _section(context: click.Context) -> Iterator[str]:
    command = context.command
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    yield f"## {context.command_path}\n"
    yield f"```\n{usage}\n```\n"
    yield _prose(command)
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    yield table(("option", "meaning"), [(f"`{names}`", _literal(text)) for names, text in records])


def _prose(command: click.Command) -> str:
    """The help of a command. Paragraphs that click does not wrap (`\\b`) become blocks of code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        unwrapped = paragraph.removeprefix("\b\n")
        paragraphs.append(_literal(paragraph) if unwrapped == paragraph else f"```\n{unwrapped}\n```")
    return "\n\n".join(paragraphs) + "\n"


def _literal(text: str) -> str:
    """Text with Markdown's special characters escaped, outside of `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<[])", r"\\\1", part) for part in parts)
