"""`costbank nearest BANK TOKEN`."""

from dataclasses import asdict
from pathlib import Path

import click

from costbank_cli.output import json_option, note, print_json, print_table, store_option

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
    token_id = vocab.find(token)
    neighbors = opened.nearest(token_id, k)
    status = vocab.status_of(token_id).name.lower()
    if as_json:
        print_json(
            {
                "bank": opened.name,
                "id": opened.id,
                "token": {"id": token_id, "text": vocab.display(token_id), "status": status},
                "neighbors": [asdict(neighbor) for neighbor in neighbors],
            }
        )
        return
    if not neighbors:
        note(f"{vocab.display(token_id)} (id {token_id}) has no vector ({status}): its cost to every token is 1")
        return
    print_table(
        ("cost", "id", f"nearest to {vocab.display(token_id)}"),
        [(n.cost, n.id, n.text) for n in neighbors],
        right=("cost", "id"),
    )
    if (word_start := vocab.word_start_of(token_id)) is not None:
        note(f"{vocab.display(word_start)} (id {word_start}), at the start of a word, is another token")
