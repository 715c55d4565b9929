"""How much the neighbors of tokens change if a bank is built again, with another seed or on other text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Int64

from costbank.analysis.agreement import Reader
from costbank.analysis.counts import CountBand, bands_by_count, known_counts
from costbank.analysis.nearest import nearest_common, sampled_positions
from costbank.analysis.overlap import overlap, rank_biased_overlap
from costbank.bank import Bank
from costbank.errors import InputError, UsageError, require
from costbank.plurals import counted
from costbank.progress import Progress, QuietProgress

__all__ = ["BankPair", "NeighborStability", "Spread", "TokenStability", "neighbor_stability"]

_SEED = 1
_MOST_TOKENS = 5_000
_LEAST_TOKENS = 3


@dataclass(frozen=True)
class Spread:
    """The mean, the smallest and the largest of the values of all pairs of banks."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class BankPair:
    """The mean agreement of two of the banks, as name@id."""

    first: str
    second: str
    overlap: float
    rank_biased_overlap: float


@dataclass(frozen=True)
class TokenStability:
    """The agreement of one token's neighbors, averaged over all pairs of banks.

    Attributes:
        count: how often the token occurs; None if no bank knows.
        neighbors: its nearest tokens as text, in the order of the banks.
    """

    id: int
    text: str
    count: int | None
    overlap: float
    rank_biased_overlap: float
    neighbors: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class NeighborStability:
    """How far the neighbors of tokens agree between banks of one tokenizer.

    Attributes:
        banks: as name@id.
        k: the number of neighbors.
        common: the tokens with a vector in all banks; neighbors are searched among these.
        sampled: the tokens whose neighbors were compared.
        overlap: the mean share of a token's k nearest that are the same in two banks; chance is k / (common − 1).
        rank_biased_overlap: the same with more weight on the nearest (Webber et al. 2010, p = 0.9, extrapolated).
        pairs: these two for each pair of banks.
        by_count: the agreement of tokens by how often they occur; empty if no bank knows.
        least_stable: the sampled tokens whose neighbors agree least.
    """

    banks: tuple[str, ...]
    k: int
    common: int
    sampled: int
    overlap: Spread
    rank_biased_overlap: Spread
    pairs: tuple[BankPair, ...]
    by_count: tuple[CountBand, ...]
    least_stable: tuple[TokenStability, ...]


def neighbor_stability(
    banks: Sequence[Bank], k: int = 10, named: int = 10, progress: Progress | None = None,
    most_tokens: int = _MOST_TOKENS,
) -> NeighborStability:  # fmt: skip
    """Compare the neighbors of tokens between all pairs of several banks of one tokenizer.

    Args:
        banks: two or more banks, such as builds of one config with different seeds.
        k: how many neighbors of a token are compared, among the tokens with a vector in all banks.
        named: how many of the least stable tokens are listed.
        progress: receives the number of tokens, bank by bank.
        most_tokens: the largest number of tokens that are compared; more are sampled with a fixed seed.

    Raises:
        InputError: fewer than three tokens have a vector in all banks.
        UsageError: there are fewer than two banks, their tokenizers differ, or k is not between 1 and the number of
            other common tokens.
        MissingExtraError: FAISS is not installed.
    """
    require("faiss", "build")
    ids, progress = _common_ids(banks), progress or QuietProgress()
    if not 1 <= k < len(ids):
        raise UsageError(
            f"k is {k}, but a token has {len(ids) - 1:,} other tokens with a vector in all banks",
            f"give a k from 1 to {len(ids) - 1:,}",
        )
    sample = sampled_positions(len(ids), most_tokens, np.random.default_rng(_SEED))
    nearest = [nearest_common(bank, _reader(bank, ids), len(ids), sample, k, progress)[0] for bank in banks]
    pairs = list(combinations(range(len(banks)), 2))
    overlaps, ranked = np.empty((2, len(pairs), len(sample)))
    with progress.step("compare neighbors", len(pairs), "pairs of banks") as step:
        for p, (a, b) in enumerate(pairs):
            for i, lists in enumerate(zip(nearest[a].tolist(), nearest[b].tolist(), strict=True)):
                overlaps[p, i], ranked[p, i] = overlap(*lists), rank_biased_overlap(*lists)
            step.advance(1)
    names = tuple(f"{bank.name}@{bank.id}" for bank in banks)
    of_token = overlaps.mean(axis=0), ranked.mean(axis=0)
    known = known_counts(banks)
    counts = None if known is None else known[1][ids[sample]]
    # Equal means of other numbers can differ in their last digits.
    least_stable = np.lexsort([own.round(9) for own in reversed(of_token)])[:named]
    display = banks[0].vocab.display
    return NeighborStability(
        banks=names, k=k, common=len(ids), sampled=len(sample),
        overlap=_spread(overlaps), rank_biased_overlap=_spread(ranked),
        pairs=tuple(BankPair(names[a], names[b], float(overlaps[p].mean()), float(ranked[p].mean()))
                    for p, (a, b) in enumerate(pairs)),
        by_count=() if counts is None else bands_by_count(counts, *of_token),
        least_stable=tuple(
            TokenStability(
                int(ids[sample[i]]), display(int(ids[sample[i]])), None if counts is None else int(counts[i]),
                float(of_token[0][i]), float(of_token[1][i]),
                tuple(tuple(map(display, ids[table[i]].tolist())) for table in nearest),
            )
            for i in least_stable.tolist()
        ),
    )  # fmt: skip


def _common_ids(banks: Sequence[Bank]) -> Int64[np.ndarray, "common"]:
    """The ids of tokens with a vector in all banks."""
    if len(banks) < 2:
        raise UsageError(f"{counted(len(banks), 'bank')} to compare", "give two or more banks")
    first = banks[0]
    for bank in banks[1:]:
        if (bank.manifest.tokenizer.fingerprint, bank.size) != (first.manifest.tokenizer.fingerprint, first.size):
            raise UsageError(
                f"{first.name} and {bank.name} have different tokenizers",
                "give banks of one tokenizer; two banks of different tokenizers can be compared with each other",
            )
    ids = np.flatnonzero(np.logical_and.reduce([bank.usable for bank in banks]))
    if len(ids) < _LEAST_TOKENS:
        raise InputError(
            f"{counted(len(ids), 'token')} of these banks have a vector in all of them, but {_LEAST_TOKENS} are needed",
            "build them from more text",
        )
    return ids


def _reader(bank: Bank, ids: Int64[np.ndarray, "common"]) -> Reader:
    return lambda positions: bank.vectors(ids[positions])


def _spread(values: Float64[np.ndarray, "pairs tokens"]) -> Spread:
    of_pair = values.mean(axis=1)
    return Spread(float(of_pair.mean()), float(of_pair.min()), float(of_pair.max()))
