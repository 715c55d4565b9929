"""`costbank plugin-path`: where a framework finds its plugin."""

from pathlib import Path

import click

import costbank

__all__ = ["command"]

_FILES = {"ms-swift": "costbank_ms_swift.py"}


@click.command("plugin-path", short_help="Print the path of a plugin for a training framework.")
@click.argument("framework", type=click.Choice(list(_FILES)))
def command(framework: str) -> None:
    """Print the path of the file that FRAMEWORK loads as a plugin.

    ms-swift takes it as --external_plugins "$(costbank plugin-path ms-swift)" with --loss_type emo.
    """
    click.echo(Path(costbank.__file__).parent / "trainers" / "plugins" / _FILES[framework])
