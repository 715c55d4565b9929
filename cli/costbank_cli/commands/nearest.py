"""`costbank nearest BANK TOKEN`."""

from dataclasses import asdict
from pathlib import Path

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import json_option, note, note_other_match, print_json, print_table, store_option

__all__ = ["command"]


@click.command("nearest")
@click.argument("bank", shell_complete=complete_bank)
@click.argument("token")
@click.option("-k", default=10, show_default=True, help="Number of tokens.")
@store_option
@json_option
def command(bank: str, token: str, k: int, store: Path | None, as_json: bool) -> None:
    """List the tokens with the lowest cost to a token.

    \b
    costbank nearest my-bank king -k 20

    The lowest cost comes first. A token without a vector has cost 1 to every other token, so it has no nearest tokens.
    """
    from costbank import open_bank

    opened = open_bank(bank, store)
    vocab = opened.vocab
    match = vocab.match(token)
    about = vocab.describe(match)
    neighbors = opened.nearest(about.id, k)
    if as_json:
        print_json(
            {
                "bank": opened.name,
                "id": opened.id,
                "token": asdict(about),
                "neighbors": [asdict(neighbor) for neighbor in neighbors],
            }
        )
        return
    if neighbors:
        print_table(
            ("cost", "id", f"nearest to {about.text}"),
            [(n.cost, n.id, n.text) for n in neighbors],
            right=("cost", "id"),
        )
    else:
        note(f"{about.text} (id {about.id}) has no vector ({about.status}): its cost to every token is 1")
    note_other_match(vocab, match)
