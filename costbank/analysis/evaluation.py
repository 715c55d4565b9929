"""What a bank's vectors are worth: agreement with people on words, analogies, neighbors shared with another bank."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from costbank.bank import Bank
from costbank.cost import row_costs
from costbank.errors import InputError, UsageError, require

__all__ = ["Analogies", "WordSimilarity", "analogies", "neighbor_overlap", "word_similarity"]

_SCORE_BYTES = 64 << 20
_SPACE = ord(" ")


@dataclass(frozen=True)
class WordSimilarity:
    """Spearman's ρ between similarity 1 − cost and the judgements, and how many of the pairs it is over."""

    rho: float
    pairs: int
    pairs_given: int


@dataclass(frozen=True)
class Analogies:
    """The share of questions that were answered rightly, and how many of those given could be asked."""

    accuracy: float
    questions: int
    questions_given: int


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


def analogies(bank: Bank, questions: Iterable[tuple[str, str, str, str]]) -> Analogies:
    """How many questions “a is to b as c is to …” have d for the answer of least cost to e_b − e_a + e_c.

    This is 3CosAdd (Mikolov, Yih & Zweig 2013). Answers are the ordinary tokens that start a word and have a vector,
    without a, b and c; a question whose d is one of these is answered wrongly. A question counts where its four words
    are found, as those of `word_similarity` are.

    Raises:
        InputError: no question counts.
    """
    given = list(questions)
    ids = {word: _whole_word(bank, word) for word in dict.fromkeys(word for question in given for word in question)}
    found = [[ids[word] for word in question] for question in given]
    usable = np.array([question for question in found if None not in question], np.int64).reshape(-1, 4)
    if not len(usable):
        raise InputError(f"of {len(given)} questions, none is in whole pieces of this vocabulary",
                         "take a larger vocabulary, or words of its language")  # fmt: skip
    asked, wanted = usable[:, :3], usable[:, 3]
    a, b, c = (bank.vectors(asked[:, i]) for i in range(3))
    answers = _best_but(bank, b - a + c, np.flatnonzero(_word_starts(bank)), asked)
    return Analogies(float(np.mean(answers == wanted)), len(usable), len(given))


def neighbor_overlap(first: Bank, second: Bank, k: int = 10) -> float:
    """The share of a token's k nearest that two banks of one tokenizer have in common, on average.

    The average is over the tokens that have neighbors in both. Where a bank has fewer than k to give, the share is out
    of the most that either gives.

    Raises:
        UsageError: the banks are of different tokenizers, or a neighbor table is narrower than k.
        InputError: no token has neighbors in both.
    """
    if first.manifest.tokenizer.fingerprint != second.manifest.tokenizer.fingerprint:
        raise UsageError(f"{first.name} and {second.name} are of different tokenizers", "give two banks of one")
    widest = min(first.neighbors.k, second.neighbors.k)
    if not 1 <= k <= widest:
        raise UsageError(
            f"k is {k}, and both neighbor tables hold {widest}", "give a smaller k, or build with neighbors.k"
        )
    size = min(first.size, second.size)
    near = [bank.neighbors.ids[:size, :k] for bank in (first, second)]
    most = np.maximum(*((ids >= 0).sum(axis=1) for ids in near))
    both = (near[0][:, 0] >= 0) & (near[1][:, 0] >= 0)
    if not both.any():
        raise InputError(f"no token has neighbors in {first.name} and in {second.name}", "build them from more text")
    # A row names each neighbor once, so an id that stands twice in both rows together is in each.
    together = np.sort(np.hstack(near)[both], axis=1)
    shared = ((together[:, 1:] == together[:, :-1]) & (together[:, 1:] >= 0)).sum(axis=1)
    return float(np.mean(shared / most[both]))


def _whole_word(bank: Bank, word: str) -> int | None:
    for spelling in (word, word.lower()):
        for token_id in bank.vocab.ids_of(f" {spelling}".encode()):
            if bank.has_vector(token_id):
                return token_id
    return None


def _word_starts(bank: Bank) -> Bool[np.ndarray, "vocab"]:
    """The ordinary tokens of a space and more, that have a vector."""
    vocab = bank.vocab
    starts = vocab.ordinary & bank.usable & (np.diff(vocab.offsets) > 1)
    at = vocab.offsets[:-1][starts]
    starts[starts] = (vocab.data[at] == _SPACE) & (vocab.data[at + 1] != _SPACE)
    return starts


def _best_but(
    bank: Bank,
    queries: Float32[np.ndarray, "queries dim"],
    candidates: Int64[np.ndarray, "candidates"],
    excluded: Int64[np.ndarray, "queries excluded"],
) -> Int64[np.ndarray, "queries"]:
    """The candidate of the largest product with each query but the excluded ones; of equal ones the smallest id."""
    best, answers = np.full(len(queries), -np.inf, np.float32), np.full(len(queries), -1)
    step = max(1, _SCORE_BYTES // (4 * len(queries)))
    each = np.arange(len(queries))
    for start in range(0, len(candidates), step):
        block = candidates[start : start + step]
        scores = queries @ bank.vectors(block).T
        for column in excluded.T:
            places = np.minimum(np.searchsorted(block, column), len(block) - 1)
            there = block[places] == column
            scores[each[there], places[there]] = -np.inf
        places = scores.argmax(axis=1)
        better = scores[each, places] > best
        best[better], answers[better] = scores[each, places][better], block[places][better]
    return answers
