"""Tests of a bank's vectors: agreement with human judgments, analogies, and neighbors shared with another bank."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.words import WordRows
from costbank.bank import Bank
from costbank.cost import row_costs
from costbank.errors import InputError, UsageError, require
from costbank.progress import Progress, QuietProgress

__all__ = ["Analogies", "WordSimilarity", "analogies", "neighbor_overlap", "word_similarity"]

_LEAST_PAIRS = 3
_BLOCK_BYTES = 64 << 20
_WORDS_HINT = "use a bank with a larger vocabulary, or words in its language"


@dataclass(frozen=True)
class WordSimilarity:
    """Spearman's ρ between similarities (1 − cost) and judgments, over `pairs` of the `pairs_given`.

    ρ is NaN if all similarities or all judgments are equal.
    """

    rho: float
    pairs: int
    pairs_given: int


@dataclass(frozen=True)
class Analogies:
    """The share of correct answers, over `questions` of the `questions_given`."""

    accuracy: float
    questions: int
    questions_given: int


def word_similarity(
    bank: Bank, judgments: Iterable[tuple[str, str, float]], with_pieces: bool = False
) -> WordSimilarity:
    """Agreement with human judgments of word pairs, such as WordSim-353 (Finkelstein et al. 2002).

    A pair counts if each word is one token that starts a word, as it is spelled or in lower case, and has a vector.

    Args:
        bank: the bank to test.
        judgments: two words and their similarity, on any scale.
        with_pieces: whether words of several pieces count, too, with the normalized mean of the pieces' vectors. A bank
            does not contain its tokenizer, so the pieces are found by greedy longest match over the vocabulary, first
            a piece that starts a word.

    Raises:
        InputError: fewer than three pairs count.
    """
    judgments = list(judgments)
    result = similarity_of_pairs(WordRows(bank, with_pieces), judgments)
    if result.pairs < _LEAST_PAIRS:
        raise InputError(
            f"{result.pairs} of {len(judgments)} word pairs consist of tokens of this vocabulary, but "
            f"{_LEAST_PAIRS} are needed",
            _WORDS_HINT,
        )
    return result


def similarity_of_pairs(words: WordRows, judgments: Sequence[tuple[str, str, float]]) -> WordSimilarity:
    """`word_similarity` for any number of pairs; ρ is NaN if fewer than three count."""
    stats = require("scipy.stats", "build")
    pairs = [(words.key(a), words.key(b), score) for a, b, score in judgments]
    usable = [(a, b, score) for a, b, score in pairs if a is not None and b is not None]
    if len(usable) < _LEAST_PAIRS:
        return WordSimilarity(float("nan"), len(usable), len(judgments))
    first, second = (words.rows(np.array([pair[i] for pair in usable])) for i in (0, 1))
    similarity = 1.0 - row_costs(first, second[:, None, :])[:, 0]
    scores = np.array([score for _, _, score in usable])
    constant = min(np.ptp(similarity), np.ptp(scores)) == 0
    rho = float("nan") if constant else float(stats.spearmanr(similarity, scores).statistic)
    return WordSimilarity(rho, len(usable), len(judgments))


def analogies(
    bank: Bank, questions: Iterable[tuple[str, str, str, str]], block_bytes: int = _BLOCK_BYTES,
    with_pieces: bool = False,
) -> Analogies:  # fmt: skip
    """The share of questions “a is to b as c is to …” for which the answer of least cost to e_b − e_a + e_c is d.

    This is 3CosAdd (Mikolov, Yih & Zweig 2013). Possible answers are the ordinary tokens that start a word and have a
    vector, without a, b and c; the answer is therefore wrong if d is one of these. A question counts if its four words
    are tokens, as in `word_similarity`.

    Args:
        bank: the bank to test.
        questions: the words a, b, c and d.
        block_bytes: memory for the scores of a block of possible answers.
        with_pieces: see `word_similarity`. The words of several pieces in the questions are then possible answers, too.

    Raises:
        InputError: no question counts.
    """
    questions = list(questions)
    result = answers_to(WordRows(bank, with_pieces), questions, block_bytes)
    if not result.questions:
        raise InputError(f"0 of {len(questions)} questions consist of tokens of this vocabulary", _WORDS_HINT)
    return result


def answers_to(
    words: WordRows, questions: Sequence[tuple[str, str, str, str]], block_bytes: int = _BLOCK_BYTES,
    progress: Progress | None = None,
) -> Analogies:  # fmt: skip
    """`analogies` for any number of questions; the accuracy is NaN if none counts."""
    keys = {word: words.key(word) for word in dict.fromkeys(word for four in questions for word in four)}
    keys_of_questions = [[keys[word] for word in four] for four in questions]
    usable = np.array([row for row in keys_of_questions if None not in row], np.int64).reshape(-1, 4)
    if not len(usable):
        return Analogies(float("nan"), 0, len(questions))
    abc, expected = usable[:, :3], usable[:, 3]
    a, b, c = (words.rows(abc[:, i]) for i in range(3))
    answers = _best_answers(words, b - a + c, abc, block_bytes, progress or QuietProgress())
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


def _best_answers(
    words: WordRows,
    queries: Float32[np.ndarray, "queries dim"],
    excluded: Int64[np.ndarray, "queries excluded"],
    block_bytes: int,
    progress: Progress,
) -> Int64[np.ndarray, "queries"]:
    """For each query, the candidate with the largest product that is not excluded; the smallest key of equal ones."""
    best, answers = np.full(len(queries), -np.inf, np.float32), np.full(len(queries), -1)
    step = max(1, block_bytes // (4 * len(queries)))
    rows, candidates = np.arange(len(queries)), words.candidates()
    with progress.step("answer analogies", len(candidates), "words") as reported:
        for start in range(0, len(candidates), step):
            block = candidates[start : start + step]
            scores = queries @ words.rows(block).T
            for keys in excluded.T:
                columns = np.minimum(np.searchsorted(block, keys), len(block) - 1)
                in_block = block[columns] == keys
                scores[rows[in_block], columns[in_block]] = -np.inf
            columns = scores.argmax(axis=1)
            better = scores[rows, columns] > best
            best[better], answers[better] = scores[rows, columns][better], block[columns][better]
            reported.advance(len(block))
    return answers
