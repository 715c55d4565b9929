"""`costbank nearest BANK TOKEN`."""

from dataclasses import asdict
from pathlib import Path

import click

from costbank_cli.output import json_option, note, note_other_reading, print_json, print_table, store_option

__all__ = ["command"]


@click.command("nearest")
@click.argument("bank")
@click.argument("token")
@click.option("-k", default=10, show_default=True, help="How many tokens.")
@store_option
@json_option
def command(bank: str, token: str, k: int, store: Path | None, as_json: bool) -> None:
    """Show the tokens of least cost to a token.

    The cheapest come first. A token without a vector costs 1 to every token, and has none nearest."""
    from costbank.bank import open_bank

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
    note_other_reading(vocab, match)
