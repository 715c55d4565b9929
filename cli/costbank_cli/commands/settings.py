"""`costbank settings [SOURCE]`."""

from dataclasses import asdict

import click

from costbank_cli.choices import SOURCES
from costbank_cli.completion import complete_from
from costbank_cli.output import json_option, print_json, print_table

__all__ = ["command"]


_SECTIONS = "\n".join(f"{source:<13} {', '.join(sections)}" for source, sections in SOURCES.items())
_HELP = f"""List the settings of a build.

Prints each setting of one SOURCE, or of all sources, with its default, the values it takes and its meaning.

\b
costbank settings word2vec

Give settings in a TOML file (costbank build --config my.toml) or on the command line (--set word2vec.epochs=10). All
sources have the settings without a section and those of `storage` and `neighbors`. The other sections belong to:

\b
{_SECTIONS}
"""


@click.command("settings", help=_HELP)
@click.argument("source", required=False, shell_complete=complete_from(SOURCES))
@json_option
def command(source: str | None, as_json: bool) -> None:
    from costbank.config import list_settings

    listed = list_settings(source)
    if as_json:
        print_json([asdict(setting) for setting in listed])
        return
    print_table(
        ("setting", "default", "takes", "meaning"),
        [(f"{s.path}{'' if s.in_id else ' *'}", s.default, s.takes, s.meaning) for s in listed],
    )
    click.echo("\n* does not change the bank's id: it only says where files are or how fast the work is done")
