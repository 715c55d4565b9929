"""Tests of a bank's vectors: agreement with human judgments, analogies, and neighbors shared with another bank."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from costbank.bank import Bank
from costbank.cost import row_costs
from costbank.errors import InputError, UsageError, require

__all__ = ["Analogies", "WordSimilarity", "analogies", "neighbor_overlap", "word_similarity"]

_BLOCK_BYTES = 64 << 20
_SPACE = ord(" ")
_WORDS_HINT = "use a bank with a larger vocabulary, or words in its language"


@dataclass(frozen=True)
class WordSimilarity:
    """Spearman's ρ between similarities (1 − cost) and judgments, over `pairs` of the `pairs_given`."""

    rho: float
    pairs: int
    pairs_given: int


@dataclass(frozen=True)
class Analogies:
    """The share of correct answers, over `questions` of the `questions_given`."""

    accuracy: float
    questions: int
    questions_given: int


def word_similarity(bank: Bank, judgments: Iterable[tuple[str, str, float]]) -> WordSimilarity:
    """Agreement with human judgments of word pairs, such as WordSim-353 (Finkelstein et al. 2002).

    A pair counts if each word is one token that starts a word, as it is spelled or in lower case, and has a vector.

    Args:
        bank: the bank to test.
        judgments: two words and their similarity, on any scale.

    Raises:
        InputError: fewer than three pairs count.
    """
    stats = require("scipy.stats", "build")
    judgments = list(judgments)
    pairs = [(_word_token(bank, a), _word_token(bank, b), score) for a, b, score in judgments]
    usable = [(a, b, score) for a, b, score in pairs if a is not None and b is not None]
    if len(usable) < 3:
        raise InputError(
            f"{len(usable)} of {len(judgments)} word pairs consist of tokens of this vocabulary, but 3 are needed",
            _WORDS_HINT,
        )
    first, second = (bank.vectors(np.array([pair[i] for pair in usable])) for i in (0, 1))
    similarity = 1.0 - row_costs(first, second[:, None, :])[:, 0]
    rho = stats.spearmanr(similarity, [score for _, _, score in usable]).statistic
    return WordSimilarity(float(rho), len(usable), len(judgments))


def analogies(bank: Bank, questions: Iterable[tuple[str, str, str, str]], block_bytes: int = _BLOCK_BYTES) -> Analogies:
    """The share of questions “a is to b as c is to …” for which the answer of least cost to e_b − e_a + e_c is d.

    This is 3CosAdd (Mikolov, Yih & Zweig 2013). Possible answers are the ordinary tokens that start a word and have a
    vector, without a, b and c; the answer is therefore wrong if d is one of these. A question counts if its four words
    are tokens, as in `word_similarity`.

    Args:
        bank: the bank to test.
        questions: the words a, b, c and d.
        block_bytes: memory for the scores of a block of possible answers.

    Raises:
        InputError: no question counts.
    """
    questions = list(questions)
    ids = {word: _word_token(bank, word) for word in dict.fromkeys(word for words in questions for word in words)}
    question_ids = [[ids[word] for word in words] for words in questions]
    usable = np.array([row for row in question_ids if None not in row], np.int64).reshape(-1, 4)
    if not len(usable):
        raise InputError(f"0 of {len(questions)} questions consist of tokens of this vocabulary", _WORDS_HINT)
    abc, expected = usable[:, :3], usable[:, 3]
    a, b, c = (bank.vectors(abc[:, i]) for i in range(3))
    answers = _best_answers(bank, b - a + c, np.flatnonzero(_word_starts(bank)), abc, block_bytes)
    return Analogies(float(np.mean(answers == expected)), len(usable), len(questions))


def neighbor_overlap(first: Bank, second: Bank, k: int = 10) -> float:
    """The average share of a token's k nearest that two banks of one tokenizer have in common.

    The average is over the tokens with neighbors in both banks. If a token has fewer than k neighbors, the share is
    relative to the larger of its two numbers of neighbors.

    Raises:
        UsageError: the banks have different tokenizers, or a neighbor table has fewer than k columns.
        InputError: no token has neighbors in both banks.
    """
    if first.manifest.tokenizer.fingerprint != second.manifest.tokenizer.fingerprint:
        raise UsageError(f"{first.name} and {second.name} have different tokenizers", "give two banks of one tokenizer")
    columns = min(first.neighbors.k, second.neighbors.k)
    if not 1 <= k <= columns:
        raise UsageError(
            f"k is {k}, but the narrower neighbor table has {columns} columns",
            f"give a k from 1 to {columns}, or build both banks with a larger neighbors.k",
        )
    size = min(first.size, second.size)
    tables = [bank.neighbors.ids[:size, :k] for bank in (first, second)]
    counts = np.maximum(*((ids >= 0).sum(axis=1) for ids in tables))
    in_both = (tables[0][:, 0] >= 0) & (tables[1][:, 0] >= 0)
    if not in_both.any():
        raise InputError(f"no token has neighbors in both {first.name} and {second.name}", "build them from more text")
    # A row of a table has each id once, so an id that occurs twice in the two rows is in both.
    sorted_ids = np.sort(np.hstack(tables)[in_both], axis=1)
    shared = ((sorted_ids[:, 1:] == sorted_ids[:, :-1]) & (sorted_ids[:, 1:] >= 0)).sum(axis=1)
    return float(np.mean(shared / counts[in_both]))


def _word_token(bank: Bank, word: str) -> int | None:
    """The token with a vector that starts a word and is this word."""
    for spelling in (word, word.lower()):
        for token_id in bank.vocab.ids_of(f" {spelling}".encode()):
            if bank.has_vector(token_id):
                return token_id
    return None


def _word_starts(bank: Bank) -> Bool[np.ndarray, "vocab"]:
    """Which tokens are ordinary, have a vector, and begin with exactly one space."""
    vocab = bank.vocab
    starts = vocab.ordinary & bank.usable & (np.diff(vocab.offsets) > 1)
    offsets = vocab.offsets[:-1][starts]
    starts[starts] = (vocab.data[offsets] == _SPACE) & (vocab.data[offsets + 1] != _SPACE)
    return starts


def _best_answers(
    bank: Bank,
    queries: Float32[np.ndarray, "queries dim"],
    candidates: Int64[np.ndarray, "candidates"],
    excluded: Int64[np.ndarray, "queries excluded"],
    block_bytes: int,
) -> Int64[np.ndarray, "queries"]:
    """For each query, the candidate with the largest product that is not excluded; the smallest id of equal ones."""
    best, answers = np.full(len(queries), -np.inf, np.float32), np.full(len(queries), -1)
    step = max(1, block_bytes // (4 * len(queries)))
    rows = np.arange(len(queries))
    for start in range(0, len(candidates), step):
        block = candidates[start : start + step]
        scores = queries @ bank.vectors(block).T
        for ids in excluded.T:
            columns = np.minimum(np.searchsorted(block, ids), len(block) - 1)
            in_block = block[columns] == ids
            scores[rows[in_block], columns[in_block]] = -np.inf
        columns = scores.argmax(axis=1)
        better = scores[rows, columns] > best
        best[better], answers[better] = scores[rows, columns][better], block[columns][better]
    return answers
