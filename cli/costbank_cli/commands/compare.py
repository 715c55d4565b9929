"""`costbank compare BANK BANK`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import console_progress, json_option, print_facts, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.analysis.comparison import BankComparison
    from costbank.bank import Neighbor

__all__ = ["command"]


@click.command("compare")
@click.argument("first", metavar="BANK", shell_complete=complete_bank)
@click.argument("second", metavar="BANK", shell_complete=complete_bank)
@click.option("-k", default=10, show_default=True, help="Number of neighbors.")
@click.option("--tokens", "named", type=click.IntRange(min=0), default=10, show_default=True,
              help="Number of tokens to list whose neighbors differ most.")  # fmt: skip
@store_option
@json_option
def command(first: str, second: str, k: int, named: int, store: Path | None, as_json: bool) -> None:
    """Compare the neighbors and costs of two banks.

    \b
    costbank compare my-bank other-bank

    Tokens of one tokenizer are matched by their ids, those of different tokenizers by their bytes. Every measure is 1
    for banks that agree fully: the share of common neighbors, rank-biased overlap (which weighs the nearest more),
    the correlations of costs, and linear CKA. Large banks are sampled with a fixed seed, and the number of tokens is
    printed. The tokens whose neighbors differ most follow, with their neighbors in both banks.
    """
    from costbank import open_bank
    from costbank.analysis.comparison import compare_banks

    comparison = compare_banks(open_bank(first, store), open_bank(second, store), k, named, console_progress())
    if as_json:
        print_json(asdict(comparison))
        return
    print_facts(_facts(comparison))
    if comparison.most_different:
        click.echo()
        print_table(
            ("overlap", "token", f"nearest in {comparison.first}", f"nearest in {comparison.second}"),
            [(t.overlap, t.text, _texts(t.first_neighbors), _texts(t.second_neighbors))
             for t in comparison.most_different],
            right=("overlap",),
        )  # fmt: skip


def _facts(comparison: "BankComparison") -> dict[str, object]:
    c = comparison
    matched = "one tokenizer" if c.same_tokenizer else f"different tokenizers, {c.matched:,} tokens matched by bytes"
    return {
        "banks": f"{c.first}, {c.second}",
        "tokens": f"{matched}; {c.common:,} with a vector in both",
        f"overlap@{c.k}": f"{c.overlap:.4f} (neighbors of {_part(c.sampled, c.common)})",
        "rank-biased overlap": f"{c.rank_biased_overlap:.4f}",
        "costs": f"Pearson {_number(c.pearson)}, Spearman {_number(c.spearman)} ({c.pairs:,} pairs of tokens)",
        "linear CKA": f"{_number(c.linear_cka)} (rows of {_part(c.cka_tokens, c.common)})",
    }


def _part(sampled: int, tokens: int) -> str:
    return f"all {tokens:,} tokens" if sampled == tokens else f"a sample of {sampled:,} tokens"


def _number(value: float | None) -> str:
    return "unknown: all are equal in one bank" if value is None else f"{value:.4f}"


def _texts(neighbors: "tuple[Neighbor, ...]") -> str:
    return " ".join(neighbor.text for neighbor in neighbors)
