"""Whether forms of one word lie nearer to each other than by chance: a test of the vectors that needs no word list.

The vocabulary itself holds pairs of tokens that are two forms of one word: ▁king and king, ▁king and ▁King, ▁king and
▁kings. In trained vectors the forms of a word are near each other. In random vectors they are not, nor in good vectors
in the rows of other tokens. For each pair, the cosine of its two rows is compared with other cosines: of its first row
to the second rows of all other pairs of the same kind, and of its second row to their first rows. The share of these
other cosines that are smaller, with ties counted half, is the area under the ROC curve (AUC): 0.5 by chance, 1 if a
form always lies nearer to its partner than to all others. A row is compared only with rows of the same kind of form, so
a cluster of capitalized tokens, or of plurals, does not count. Pairs of bit-equal rows show nothing and are left out.

The test shows that rows belong to their tokens and are more than noise. It does not show that near tokens have similar
meanings; `costbank.analysis.evaluation` does, given a list of judgments. Text without letter case, spaces or endings
(Chinese, Japanese) has too few such pairs for a result.
"""

import unicodedata
from collections import Counter
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float64, Int64

from costbank.analysis.health.result import Evidence, FormPairs, IdRange, WordForms
from costbank.bank import Bank
from costbank.vocab import TokenStatus, Vocab

__all__ = ["BUILT_IN_SOURCES", "form_pairs", "pair_wins", "word_forms"]

BUILT_IN_SOURCES = ("spelling", "transfer")
"""Sources that make forms of a word similar by construction: from equal n-grams, or as sums of shared pieces."""

_LEAST_LETTERS = 3
_LEAST_STEM = 4
_LONGEST_ENDING = 3
_ENDINGS = 8
_LEAST_ENDING_PAIRS = 10
_MARKED_SHARE = 0.01
_LEAST_PAIRS = 20
_SAMPLED_PAIRS = 1_000
_SAMPLE_SEED = 1
_RANGES = 4

_NEARER_DEVIATIONS = 4.0
_CHANCE_DEVIATIONS = 3.0
_CHANCE_AUC = 0.6
_LEAST_AUC = 0.65
_LEAST_HEAD_AUC = 0.85
"""Measured: heads of trained models 0.97 to 0.99, banks from 1 to 5 MB of text 0.60 (Word2Vec of 1 MB) to 0.84; see
docs/health.md. A head with half of its rows shifted has at most 0.75."""

Pairs = Int64[np.ndarray, "pairs 2"]


def word_forms(bank: Bank, usable: Bool[np.ndarray, "vocab"], first_equal: Int64[np.ndarray, "vocab"]) -> WordForms:
    """Test a bank's rows with the word forms in its vocabulary: at most 1,000 pairs of a kind, from a fixed seed.

    Args:
        bank: the bank.
        usable: which rows have a direction.
        first_equal: for each id, the smallest id with the same row; pairs of equal rows are left out.
    """
    kinds, largest_ids, wins = [], [], []
    tokens: set[int] = set()
    for kind, pairs in form_pairs(bank.vocab, usable).items():
        differing = pairs[first_equal[pairs[:, 0]] != first_equal[pairs[:, 1]]]
        if len(differing) < _LEAST_PAIRS:
            continue
        tokens.update(differing.reshape(-1).tolist())
        chosen = np.sort(np.random.default_rng(_SAMPLE_SEED).permutation(len(differing))[:_SAMPLED_PAIRS])
        pair_ids = differing[chosen]
        kind_wins = pair_wins(bank.vectors(pair_ids[:, 0]), bank.vectors(pair_ids[:, 1]))
        bank.release()
        kinds.append(
            FormPairs(kind, len(kind_wins), float(kind_wins.mean()), float(kind_wins.std() / sqrt(len(kind_wins))))
        )
        largest_ids.append(pair_ids.max(axis=1))
        wins.append(kind_wins)
    if not kinds:
        return WordForms((), 0, 0, None, None, Evidence.UNDECIDED, ())
    total = sum(kind.pairs for kind in kinds)
    # A token may be in pairs of every kind, so the errors are added as if the kinds were fully correlated.
    auc = sum(kind.auc * kind.pairs for kind in kinds) / total
    error = sum(kind.standard_error * kind.pairs for kind in kinds) / total
    chance_error = sum(_chance_error(kind.pairs) * kind.pairs for kind in kinds) / total
    least_auc = _LEAST_HEAD_AUC if bank.manifest.source == "lm-head" else _LEAST_AUC
    evidence = _evidence(auc, chance_error, least_auc)
    ranges = _ranges(np.concatenate(largest_ids), np.concatenate(wins), bank.size, least_auc)
    return WordForms(tuple(kinds), total, len(tokens), auc, error, evidence, ranges)


def pair_wins(
    first: Float64[np.ndarray, "pairs dim"] | np.ndarray, second: Float64[np.ndarray, "pairs dim"] | np.ndarray
) -> Float64[np.ndarray, "pairs"]:
    """For each pair of rows, the share of other pairs' partners that are farther away, with ties counted half."""
    cosines = first.astype(np.float64) @ second.astype(np.float64).T
    own = np.diag(cosines)
    count = len(cosines) - 1
    wins = np.zeros(len(cosines))
    for others in (cosines, cosines.T):
        # A pair ties with itself, so one tie is subtracted.
        wins += ((others < own[:, None]).sum(axis=1) + 0.5 * ((others == own[:, None]).sum(axis=1) - 1)) / count
    return wins / 2


def form_pairs(vocab: Vocab, usable: Bool[np.ndarray, "vocab"]) -> dict[str, Pairs]:
    """Pairs of ids that are two forms of one word, by kind. A token is in at most one pair of a kind.

    `space`: without and with a space before it. `case`: in lower case and capitalized. `ending`: a word of at least
    four letters, and the same word with one of the vocabulary's eight most frequent endings.
    """
    ids = _words(vocab, usable)
    space = [(i, ids[f" {text}"]) for text, i in ids.items() if f" {text}" in ids]
    case = []
    for text, i in ids.items():
        mark, word = _split_space(text)
        other = mark + word.capitalize()
        if word == word.lower() and other != text and other in ids:
            case.append((i, ids[other]))
    kinds = {"space": space, "case": case, "ending": _ending_pairs(ids)}
    return {kind: np.array(pairs, np.int64).reshape(-1, 2) for kind, pairs in kinds.items()}


def _words(vocab: Vocab, usable: np.ndarray) -> dict[str, int]:
    """The ids of tokens of at least three letters and nothing else, except for a space before them, by text."""
    ids: dict[str, int] = {}
    for token_id in np.flatnonzero(usable & (vocab.status == TokenStatus.OK)).tolist():
        try:
            text = vocab.token(token_id).decode()
        except UnicodeDecodeError:
            continue
        word = _split_space(text)[1]
        if len(word) >= _LEAST_LETTERS and _is_word(word):
            ids.setdefault(text, token_id)
    return ids


def _split_space(text: str) -> tuple[str, str]:
    return (" ", text[1:]) if text.startswith(" ") else ("", text)


def _is_word(word: str) -> bool:
    """Whether a text has only letters and marks, such as the vowel marks of many scripts."""
    return word.isalpha() or (word[0].isalpha() and all(unicodedata.category(c)[0] in "LM" for c in word))


def _ending_pairs(ids: dict[str, int]) -> list[tuple[int, int]]:
    marked = [text for text in ids if text.startswith(" ")]
    # If the tokenizer marks word starts, other tokens are parts of words, and their endings mean little.
    words = marked if len(marked) >= _MARKED_SHARE * len(ids) else list(ids)
    cuts = [
        (text[:-length], text[-length:], text)
        for text in words
        for length in range(1, _LONGEST_ENDING + 1)
        if len(_split_space(text)[1]) - length >= _LEAST_STEM and text[:-length] in ids
    ]
    counts = Counter(ending for _, ending, _ in cuts)
    common = [ending for ending, count in counts.most_common(_ENDINGS) if count >= _LEAST_ENDING_PAIRS]
    pairs, used = [], set[int]()
    for stem, ending, text in cuts:
        pair = ids[stem], ids[text]
        if ending in common and used.isdisjoint(pair):
            used.update(pair)
            pairs.append(pair)
    return pairs


def _chance_error(pairs: int) -> float:
    """The standard error of the AUC of this many random pairs, or slightly more.

    The result of each of a random pair's two comparisons is uniform, with a variance of 1/12; their average has less.
    """
    return 1 / sqrt(12 * pairs)


def _evidence(auc: float, chance_error: float, least_auc: float) -> Evidence:
    if auc - 0.5 >= _NEARER_DEVIATIONS * chance_error:
        return Evidence.NEARER if auc >= least_auc else Evidence.WEAK
    return Evidence.CHANCE if auc + _CHANCE_DEVIATIONS * chance_error < _CHANCE_AUC else Evidence.UNDECIDED


def _ranges(largest_ids: np.ndarray, wins: np.ndarray, size: int, least_auc: float) -> tuple[IdRange, ...]:
    """The evidence by ranges of a pair's larger id, because rows may be shifted from some id on."""
    ends = np.linspace(0, size, _RANGES + 1).astype(int)
    ranges = []
    for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        inside = wins[(largest_ids >= start) & (largest_ids < stop)]
        if len(inside) >= _LEAST_PAIRS:
            auc = float(inside.mean())
            # A token may be in pairs of three kinds.
            evidence = _evidence(auc, _chance_error(max(1, len(inside) // 3)), least_auc)
            ranges.append(IdRange(start, stop - 1, len(inside), auc, evidence))
    return tuple(ranges)
