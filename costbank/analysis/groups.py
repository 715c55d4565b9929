"""Whether the words of a group, such as synonyms, lie near each other."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.words import WordRows
from costbank.bank import Bank
from costbank.cost import pairwise_costs
from costbank.progress import Progress, QuietProgress

__all__ = ["GroupAgreement", "group_agreement"]

_BLOCK_BYTES = 64 << 20
_BLOCK_ROWS = 4_096


@dataclass(frozen=True)
class GroupAgreement:
    """How near the words of a group lie, averaged over the `words` of the `words_given` that count.

    Attributes:
        precision: the share of a word's group among as many nearest words as the group has other words; NaN without
            words.
        auc: the share of pairs of a word of the group and a word outside in which the first has the lower cost to the
            word, ties counted half; 0.5 is chance. NaN without words.
        words: a word in two groups counts twice.
        words_given: the words of all groups.
    """

    precision: float
    auc: float
    words: int
    words_given: int


def group_agreement(
    bank: Bank, groups: Iterable[Iterable[str]], with_pieces: bool = False, progress: Progress | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> GroupAgreement:  # fmt: skip
    """How near the words of a group lie, compared with all words of the vocabulary.

    A word counts if it and another word of its group have a row (see `costbank.analysis.words.WordRows`). It is
    compared with all tokens that start a word and with the words of several pieces in the groups.

    Args:
        bank: the bank to test.
        groups: words of similar meaning.
        with_pieces: whether words of several pieces count, too.
        progress: receives the number of words that were tested.
        block_bytes: memory for the costs of a block of words.
    """
    words = WordRows(bank, with_pieces)
    groups = [list(group) for group in groups]
    given = sum(map(len, groups))
    keys = [dict.fromkeys(key for word in group if (key := words.key(word)) is not None) for group in groups]
    tests = [(key, [k for k in group if k != key]) for group in keys for key in group if len(group) > 1]
    candidates = words.candidates()
    if not tests:
        return GroupAgreement(float("nan"), float("nan"), 0, given)
    precisions, aucs = [], []
    step = max(1, block_bytes // (4 * len(candidates)))
    with (progress or QuietProgress()).step("compare words of groups", len(tests), "words") as reported:
        for start in range(0, len(tests), step):
            block = tests[start : start + step]
            for (key, others), costs in zip(block, _costs(words, [key for key, _ in block], candidates), strict=True):
                own, members = np.searchsorted(candidates, key), np.searchsorted(candidates, others)
                precisions.append(_precision(np.delete(costs, own), members - (members > own)))
                aucs.append(_auc(np.delete(costs, own), members - (members > own)))
            reported.advance(len(block))
    measured = [auc for auc in aucs if not np.isnan(auc)]
    return GroupAgreement(
        float(np.mean(precisions)), float(np.mean(measured)) if measured else float("nan"), len(tests), given
    )


def _costs(
    words: WordRows, keys: list[int], candidates: Int64[np.ndarray, "candidates"]
) -> Float32[np.ndarray, "keys candidates"]:
    own = np.array(keys)
    rows, costs = words.rows(own), np.empty((len(own), len(candidates)), np.float32)
    for start in range(0, len(candidates), _BLOCK_ROWS):
        block = candidates[start : start + _BLOCK_ROWS]
        costs[:, start : start + _BLOCK_ROWS] = pairwise_costs(own, block, rows, words.rows(block))
    return costs


def _precision(costs: Float32[np.ndarray, "others"], members: Int64[np.ndarray, "members"]) -> float:
    """The share of members among the len(members) lowest costs; of equal costs, the smaller position comes first."""
    last = np.partition(costs, len(members) - 1)[len(members) - 1]
    below = np.flatnonzero(costs < last)
    equal = np.flatnonzero(costs == last)[: len(members) - len(below)]
    return float(np.isin(members, np.concatenate([below, equal])).mean())


def _auc(costs: Float32[np.ndarray, "others"], members: Int64[np.ndarray, "members"]) -> float:
    outside = np.sort(np.delete(costs, members))
    if not len(outside):
        return float("nan")
    smaller, at_most = (np.searchsorted(outside, costs[members], side) for side in ("left", "right"))
    return float((1 - (smaller + at_most) / (2 * len(outside))).mean())
