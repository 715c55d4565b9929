"""`costbank settings [SOURCE]`."""

from dataclasses import asdict

import click

from costbank_cli.output import json_option, print_json, print_table

__all__ = ["command"]


@click.command("settings")
@click.argument("source", required=False)
@json_option
def command(source: str | None, as_json: bool) -> None:
    """List the settings of a build.

    With their defaults, the values that they take and what they do; of one SOURCE (word2vec, cooccurrence, lm-head,
    vocabulary, vectors or transfer) or of all. They stand in a TOML file (costbank build --config my.toml) or in
    --set word2vec.epochs=10.
    """
    from costbank.config import list_settings

    listed = list_settings(source)
    if as_json:
        print_json([asdict(setting) for setting in listed])
        return
    print_table(
        ("setting", "default", "takes", "meaning"),
        [(f"{s.path}{'' if s.in_id else ' *'}", s.default, s.takes, s.meaning) for s in listed],
    )
    click.echo("\n* says where or how fast the work is done, and is not part of the bank's id")
