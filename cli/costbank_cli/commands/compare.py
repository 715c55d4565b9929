"""`costbank compare BANK BANK...`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costbank_cli.completion import complete_bank
from costbank_cli.output import console_progress, json_option, print_facts, print_json, print_table, store_option

if TYPE_CHECKING:
    from costbank.analysis.comparison import BankComparison
    from costbank.analysis.counts import CountBand
    from costbank.analysis.stability import NeighborStability, Spread
    from costbank.bank import Neighbor

__all__ = ["command"]


@click.command("compare")
@click.argument("banks", metavar="BANK BANK...", nargs=-1, required=True, shell_complete=complete_bank)
@click.option("-k", default=10, show_default=True, help="Number of neighbors.")
@click.option("--tokens", "named", type=click.IntRange(min=0), default=10, show_default=True,
              help="Number of tokens to list whose neighbors differ most.")  # fmt: skip
@store_option
@json_option
def command(banks: tuple[str, ...], k: int, named: int, store: Path | None, as_json: bool) -> None:
    """Compare the neighbors and costs of banks.

    \b
    costbank compare my-bank other-bank
    costbank compare seed-1 seed-2 seed-3

    Tokens of one tokenizer are matched by their ids, those of different tokenizers by their bytes. Every measure is 1
    for banks that agree fully: the share of common neighbors, rank-biased overlap (which weighs the nearest more),
    the correlations of costs, and linear CKA. Large banks are sampled with a fixed seed, and the number of tokens is
    printed. The agreement by how often tokens occur follows, then the tokens whose neighbors differ most.

    Three or more banks, such as builds with different seeds, must have one tokenizer. Their neighbors are compared in
    all pairs: the mean, the range over pairs, and the least stable tokens. Their JSON has other keys than that of two.
    """
    from costbank import open_bank
    from costbank.analysis.comparison import compare_banks
    from costbank.analysis.stability import neighbor_stability

    if len(banks) < 2:
        raise click.UsageError("give two or more banks to compare")
    opened = [open_bank(bank, store) for bank in banks]
    if len(opened) == 2:
        comparison = compare_banks(opened[0], opened[1], k, named, console_progress())
        print_json(asdict(comparison)) if as_json else _print_comparison(comparison)
    else:
        stability = neighbor_stability(opened, k, named, console_progress())
        print_json(asdict(stability)) if as_json else _print_stability(stability)


def _print_comparison(comparison: "BankComparison") -> None:
    print_facts(_facts(comparison))
    _print_bands(comparison.by_count, comparison.k)
    if comparison.most_different:
        click.echo()
        print_table(
            ("overlap", "token", f"nearest in {comparison.first}", f"nearest in {comparison.second}"),
            [(t.overlap, t.text, _texts(t.first_neighbors), _texts(t.second_neighbors))
             for t in comparison.most_different],
            right=("overlap",),
        )  # fmt: skip


def _print_stability(stability: "NeighborStability") -> None:
    s = stability
    print_facts({
        "banks": ", ".join(s.banks),
        "tokens": f"one tokenizer; {s.common:,} with a vector in all banks",
        f"overlap@{s.k}": f"{_spread(s.overlap)} ({len(s.pairs)} pairs, neighbors of {_part(s.sampled, s.common)})",
        "rank-biased overlap": _spread(s.rank_biased_overlap),
    })  # fmt: skip
    _print_bands(s.by_count, s.k)
    if s.least_stable:
        click.echo()
        print_table(
            ("overlap", "count", "token", *(f"nearest in {bank}" for bank in s.banks)),
            [(t.overlap, "–" if t.count is None else f"{t.count:,}", t.text, *map(" ".join, t.neighbors))
             for t in s.least_stable],
            right=("overlap", "count"),
        )  # fmt: skip


def _print_bands(bands: "Sequence[CountBand]", k: int) -> None:
    if bands:
        click.echo()
        print_table(
            ("count in the corpus", "tokens", f"overlap@{k}", "rank-biased overlap"),
            [(f"{b.least:,} to {b.most:,}", f"{b.tokens:,}", b.overlap, b.rank_biased_overlap) for b in bands],
            right=("count in the corpus", "tokens", f"overlap@{k}", "rank-biased overlap"),
        )


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


def _spread(spread: "Spread") -> str:
    return f"{spread.mean:.4f}, from {spread.least:.4f} to {spread.most:.4f}"


def _texts(neighbors: "tuple[Neighbor, ...]") -> str:
    return " ".join(neighbor.text for neighbor in neighbors)
