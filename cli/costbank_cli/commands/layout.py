"""`costbank layout BANK`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import console_progress, json_option, note, print_json, store_option

if TYPE_CHECKING:
    from costbank.bank import Bank

__all__ = ["command"]

_MOST_SEED = (1 << 32) - 1


@click.command("layout")
@click.argument("bank", shell_complete=complete_bank)
@click.option("--seed", type=click.IntRange(0, _MOST_SEED), default=0, show_default=True, help="Seed of the map.")
@store_option
@json_option
def command(bank: str, seed: int, store: Path | None, as_json: bool) -> None:
    """Make a two-dimensional map of a bank's tokens.

    \b
    costbank layout my-bank
    costbank layout my-bank --seed 1

    The map shows which tokens are near each other: it is a t-SNE of the stored neighbor table. It is added to the bank,
    whose id and vectors stay the same, and takes the place of a map with another seed. Distances beyond the nearest
    tokens mean little; the command prints how many of the nearest tokens are also nearest on the map.
    """
    from costbank.analysis.layout import LayoutOptions, check_neighbors, layout_method, map_bank
    from costbank.bank import Bank, Store
    from costbank.bank.maps import add_map, check_can_add

    opened = Bank(Store(store).resolve(bank))
    check_neighbors(opened.manifest.neighbors.k)
    method = layout_method()
    facts = opened.manifest.map
    if facts and opened.has_map and (facts.seed, facts.method) == (seed, method):
        note(f"{opened.name}@{opened.id} has this map already")
    else:
        check_can_add(opened.path)
        token_map = map_bank(opened, LayoutOptions(seed), console_progress())
        add_map(opened.path, token_map.xy, token_map.facts)
        opened = Bank(opened.path)
    _print(opened, as_json)


def _print(bank: "Bank", as_json: bool) -> None:
    facts = bank.manifest.map
    assert facts is not None
    if as_json:
        print_json({"name": bank.name, "id": bank.id, "path": str(bank.path), "map": facts.model_dump()})
        return
    click.echo(
        f"{bank.name}@{bank.id}  map of {int(bank.usable.sum()):,} tokens, seed {facts.seed}: {facts.kept:.0%} of the "
        f"{facts.kept_of} nearest tokens are among the {facts.kept_of} nearest on the map"
    )
