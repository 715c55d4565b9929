"""`costbank plugin-path FRAMEWORK`."""

from pathlib import Path

import click

import costbank
from costbank_cli.output import json_option, print_json

__all__ = ["command"]

_FILES = {"ms-swift": "costbank_ms_swift.py"}


@click.command("plugin-path")
@click.argument("framework", type=click.Choice(list(_FILES)))
@json_option
def command(framework: str, as_json: bool) -> None:
    """Print the path of a plugin for a training framework.

    \b
    swift sft --external_plugins "$(costbank plugin-path ms-swift)" --loss_type emo …

    The framework loads this file by its path, and the file registers the loss there.
    """
    path = Path(costbank.__file__).parent / "trainers" / "plugins" / _FILES[framework]
    if as_json:
        print_json({"framework": framework, "path": str(path)})
    else:
        click.echo(path)
