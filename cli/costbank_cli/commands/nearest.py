"""`costbank nearest BANK TOKEN`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import json_option, note, note_other_match, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.bank import Neighbor
    from costbank.vocab import MatchedToken

__all__ = ["command", "cost_bars"]

_BAR_COLUMNS = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@click.command("nearest")
@click.argument("bank", shell_complete=complete_bank)
@click.argument("tokens", metavar="TOKEN...", nargs=-1, required=True)
@click.option("-k", default=10, show_default=True, help="Number of tokens.")
@click.option("--plot", is_flag=True, help="Draw each cost as a bar; a whole line is a cost of 1.")
@store_option
@json_option
def command(bank: str, tokens: tuple[str, ...], k: int, plot: bool, store: Path | None, as_json: bool) -> None:
    """List the tokens with the lowest cost to one token or several.

    \b
    costbank nearest my-bank king -k 20
    costbank nearest my-bank king queen --plot

    The lowest cost comes first. A token without a vector has cost 1 to every other token, so it has no nearest tokens.
    """
    from costbank import open_bank

    opened = open_bank(bank, store)
    vocab = opened.vocab
    matches = [vocab.match(token) for token in tokens]
    answers = [(vocab.describe(match), opened.nearest(match.id, k)) for match in matches]
    if as_json:
        results = [{"token": asdict(about), "neighbors": [asdict(n) for n in found]} for about, found in answers]
        # The form of one token is as the service answers GET, that of several as it answers POST.
        content = results[0] if len(results) == 1 else {"results": results}
        print_json({"bank": opened.name, "id": opened.id, **content})
        return
    for number, (match, (about, neighbors)) in enumerate(zip(matches, answers, strict=True)):
        if number:
            click.echo()
        _print_neighbors(about, neighbors, plot)
        note_other_match(vocab, match)


def cost_bars(costs: Sequence[float]) -> list[str]:
    """Bars of up to 30 columns, to an eighth of a column, for costs from 0 to 1; higher costs have a whole bar."""
    bars = []
    for cost in costs:
        eighths = round(min(max(cost, 0.0), 1.0) * _BAR_COLUMNS * 8)
        bars.append(_EIGHTHS[-1] * (eighths // 8) + _EIGHTHS[eighths % 8].strip())
    return bars


def _print_neighbors(about: "MatchedToken", neighbors: Sequence["Neighbor"], plot: bool) -> None:
    if not neighbors:
        note(f"{about.text} (id {about.id}) has no vector ({about.status}): its cost to every token is 1")
        return
    columns = ["cost", "id", f"nearest to {about.text}"]
    rows: list[list[object]] = [[n.cost, n.id, n.text] for n in neighbors]
    if plot:
        columns.insert(1, "from 0 to 1")
        for row, bar in zip(rows, cost_bars([n.cost for n in neighbors]), strict=True):
            row.insert(1, bar.ljust(_BAR_COLUMNS))
    print_table(columns, rows, right=("cost", "id"))
