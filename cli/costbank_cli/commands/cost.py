"""`costbank cost BANK TOKEN TOKEN…`."""

from dataclasses import asdict
from pathlib import Path

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import json_option, note_other_match, print_json, print_table, store_option

__all__ = ["command"]


@click.command("cost")
@click.argument("bank", shell_complete=complete_bank)
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN TOKEN...")
@store_option
@json_option
def command(bank: str, tokens: tuple[str, ...], store: Path | None, as_json: bool) -> None:
    """Show the costs between tokens.

    \b
    costbank cost my-bank king queen car

    A cost is 0 between a token and itself, about 1 between unrelated tokens, and at most 2.
    """
    import numpy as np

    from costbank import open_bank
    from costbank.cost import shortest_float

    if len(tokens) < 2:
        raise click.UsageError("at least two tokens are needed")
    opened = open_bank(bank, store)
    vocab = opened.vocab
    matches = [vocab.match(token) for token in tokens]
    ids = np.array([match.id for match in matches])
    names = [vocab.display(match.id) for match in matches]
    costs = [[shortest_float(cost) for cost in row] for row in opened.cost_matrix(ids, ids)]
    if as_json:
        listed = [asdict(vocab.describe(match)) for match in matches]
        print_json({"bank": opened.name, "id": opened.id, "tokens": listed, "costs": costs})
        return
    rows = [(name, *row) for name, row in zip(names, costs, strict=True)]
    print_table(("", *names), rows, right=names)
    for match in dict.fromkeys(matches):
        note_other_match(vocab, match)
