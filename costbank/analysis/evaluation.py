"""How well a bank's costs agree with what people say of words."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from costbank.bank import Bank
from costbank.cost import row_costs
from costbank.errors import InputError, require

__all__ = ["WordSimilarity", "word_similarity"]


@dataclass(frozen=True)
class WordSimilarity:
    """Spearman's ρ between similarity 1 − cost and the judgements, and how many of the pairs it is over."""

    rho: float
    pairs: int
    pairs_given: int


def word_similarity(bank: Bank, judgements: Iterable[tuple[str, str, float]]) -> WordSimilarity:
    """Agreement with human judgements of word pairs, such as WordSim-353 (Finkelstein et al. 2002).

    A pair counts where each word is one piece that starts a word (as it is spelled, else in lower case) and has a
    vector.

    Raises:
        InputError: fewer than three pairs count.
    """
    stats = require("scipy.stats", "build")
    given = list(judgements)
    found = [(_whole_word(bank, a), _whole_word(bank, b), score) for a, b, score in given]
    usable = [(a, b, score) for a, b, score in found if a is not None and b is not None]
    if len(usable) < 3:
        raise InputError(f"{len(usable)} of {len(given)} word pairs are whole pieces of this vocabulary",
                         "take a larger vocabulary, or words of its language")  # fmt: skip
    first, second = (bank.vectors(np.array([pair[i] for pair in usable])) for i in (0, 1))
    similarity = 1.0 - row_costs(first, second[:, None, :])[:, 0]
    rho = stats.spearmanr(similarity, [score for _, _, score in usable]).statistic
    return WordSimilarity(float(rho), len(usable), len(given))


def _whole_word(bank: Bank, word: str) -> int | None:
    for spelling in (word, word.lower()):
        for token_id in bank.vocab.ids_of(f" {spelling}".encode()):
            if bank.has_vector(token_id):
                return token_id
    return None
