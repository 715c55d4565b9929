"""How well a bank's neighbors stand in for a token in held-out text, under an n-gram model of that text.

A loss that softens labels says that the neighbors j of a label t would have been possible in its place. The contexts of
t in held-out text tell how far that is true. Let l and r be the tokens next to t, independent of each other given the
token between them. Then, for another token j' as frequent as j, so that P(j) = P(j'),

    log P(j | l, r) − log P(j' | l, r) = [log P(j | l) − log P(j' | l)] + [log P(j | r) − log P(j' | r)]

P(j | l) is the interpolated model of Witten & Bell (1991; see Chen & Goodman 1999) of the text's bigrams. With c(l, j)
their counts, c(l) the sum of these over j, T(l) the number of distinct tokens after l, and P(j) the share of j in the
text,

    P(j | l) = (c(l, j) + T(l) P(j)) / (c(l) + T(l))
    log P(j | l) = log P(j) + g(l, j) + log(T(l) / (c(l) + T(l)))  with  g(l, j) = log(1 + c(l, j) / (T(l) P(j)))

The first and the last term are the same for j and j'. P(j | r) is the same for the text read backwards. So the score is
the mean over the tokens t of the text of

    Σ_j q_t(j) [g(l, j) − E g(l, j')]  +  the same with r

where q_t are the weights of the neighbors of t, and E is the mean over the tokens j' ≠ t in the class of j by
frequency. For neighbors that are random tokens, its expectation is 0. g is 0 for all pairs that do not occur, so that
only the pairs of the text are visited. The parts are standard; the measure is our own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Integer

from costbank.bank import Bank
from costbank.errors import InputError, UsageError
from costbank.progress import Progress, QuietProgress, Step
from costbank.vocab import TokenStatus

__all__ = ["Substitutes", "Substitution", "neighbor_targets", "substitution", "substitution_of"]

_BLOCK_BYTES = 32 << 20
_BLOCK_PAIRS = 8_192
_LEAST_CLASS = 20


@dataclass(frozen=True)
class Substitutes:
    """For each token as a label, other tokens and their weights.

    Attributes:
        ids: the other tokens; −1 if there are fewer.
        weights: they sum to 1 in each row, or are all 0 for a label that is not softened.
        candidates: the tokens that could be in any row; random tokens are drawn from these.
    """

    ids: Int32[np.ndarray, "vocab k"]
    weights: Float32[np.ndarray, "vocab k"]
    candidates: Bool[np.ndarray, "vocab"]

    @property
    def softened(self) -> Bool[np.ndarray, "vocab"]:
        """Which labels have other tokens with a weight."""
        return (self.weights > 0).sum(axis=1) > 0


@dataclass(frozen=True)
class Substitution:
    """How much likelier a bank's neighbors are in the contexts of a token than random tokens of their frequencies.

    Attributes:
        score: the difference of log-likelihoods in nats per token of the text: `left` + `right`.
        left: the part of the token before.
        right: the part of the token after.
        tokens: the tokens of the text.
        softened: how many of them have neighbors; the others count with a difference of 0.
        distinct_pairs: the different pairs of adjacent tokens in the text.
    """

    score: float
    left: float
    right: float
    tokens: int
    softened: int
    distinct_pairs: int


def neighbor_targets(bank: Bank, k: int) -> Substitutes:
    """Equal weights on the k nearest of each token, as its neighbor table has them.

    Special tokens and single bytes are neither softened nor neighbors, as in `neighbor_smoothing`.

    Raises:
        UsageError: k is not between 1 and the number of columns of the table.
    """
    if not 1 <= k <= bank.neighbors.k:
        columns = f"the neighbor table of {bank.name} has {bank.neighbors.k} columns"
        hint = f"give a k from 1 to {bank.neighbors.k}, or build the bank" if bank.neighbors.k else "build the bank"
        raise UsageError(f"k is {k}, but {columns}", f"{hint} with a larger --set neighbors.k=N")
    candidates = bank.usable & bank.vocab.ordinary & (bank.vocab.status != TokenStatus.BYTE)
    ids = np.where(candidates[:, None], bank.neighbors.ids[:, :k], -1)
    weights = ((ids >= 0) & candidates[ids]).astype(np.float32)
    return Substitutes(ids, weights / np.maximum(weights.sum(axis=1, keepdims=True), 1), candidates)


def substitution_of(
    bank: Bank, tokens: Integer[np.ndarray, "tokens"], ends: Int64[np.ndarray, "texts"], k: int = 10,
    progress: Progress | None = None,
) -> Substitution:  # fmt: skip
    """The score of a bank's k nearest on a held-out text; see `substitution` and the docstring of the module."""
    return substitution(neighbor_targets(bank, k), tokens, ends, progress)


def substitution(
    targets: Substitutes, tokens: Integer[np.ndarray, "tokens"], ends: Int64[np.ndarray, "texts"],
    progress: Progress | None = None, block_bytes: int = _BLOCK_BYTES,
) -> Substitution:  # fmt: skip
    """How much likelier neighbors are in the contexts of a token than random tokens of their frequencies, in nats.

    Args:
        targets: the neighbors of each token.
        tokens: the ids of all texts, as `Tokenizer.encode` returns them.
        ends: the position at which each text ends. Tokens of two texts are no pair.
        progress: receives the number of distinct pairs.
        block_bytes: memory for the pairs of a block of contexts.

    Raises:
        InputError: an id is outside the vocabulary, or no two tokens follow each other.
    """
    vocab, progress = len(targets.ids), progress or QuietProgress()
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab:
        raise InputError(
            f"the text has token ids from {tokens.min()} to {tokens.max()}, but the bank has {vocab:,} tokens",
            "encode the text with the tokenizer that the bank was built with",
        )
    adjacent = np.ones(max(0, len(tokens) - 1), bool)
    adjacent[ends[(ends > 0) & (ends < len(tokens))] - 1] = False
    if not adjacent.any():
        raise InputError("no two tokens of the text follow each other", "give a longer text")
    before, after = tokens[:-1][adjacent], tokens[1:][adjacent]
    counts = np.bincount(tokens, minlength=vocab)
    baseline = _Baseline.of(targets, counts)
    sides = [_Bigrams.of(before, after, vocab), _Bigrams.of(after, before, vocab)]
    total = sum(len(side.labels) for side in sides)
    with progress.step("neighbors in their contexts", total, "pairs") as step:
        left, right = (_total(side, targets, baseline, block_bytes, step) / len(tokens) for side in sides)
    softened = int(counts[targets.softened].sum())
    return Substitution(left + right, left, right, len(tokens), softened, len(sides[0].labels))


@dataclass(frozen=True)
class _Bigrams:
    """The distinct pairs of a context and the token next to it, in the order of contexts.

    Attributes:
        contexts, labels: the tokens of each pair.
        counts: how often it occurs.
        gains: g, the log-likelihood that the pair's occurrences add.
    """

    contexts: Int64[np.ndarray, "pairs"]
    labels: Int64[np.ndarray, "pairs"]
    counts: Int64[np.ndarray, "pairs"]
    gains: Float64[np.ndarray, "pairs"]

    @classmethod
    def of(cls, contexts: Integer[np.ndarray, "n"], labels: Integer[np.ndarray, "n"], vocab: int) -> "_Bigrams":
        pairs, counts = np.unique(contexts.astype(np.int64) * vocab + labels, return_counts=True)
        context, label = np.divmod(pairs, vocab)
        share = np.bincount(labels, minlength=vocab) / len(labels)
        distinct = np.bincount(context, minlength=vocab)
        return cls(context, label, counts, np.log1p(counts / (distinct[context] * share[label])))


@dataclass(frozen=True)
class _Baseline:
    """Random tokens in the place of each label's neighbors, from the class of each neighbor by frequency.

    Attributes:
        class_of: the class of each token; −1 for tokens that are no candidates or not in the text.
        weights: for each label and class, the weight of its neighbors in the class, divided by the number of tokens in
            the class without the label.
    """

    class_of: Int64[np.ndarray, "vocab"]
    weights: Float32[np.ndarray, "vocab classes"]

    @classmethod
    def of(cls, targets: Substitutes, counts: Int64[np.ndarray, "vocab"]) -> "_Baseline":
        class_of = frequency_classes(counts, targets.candidates)
        sizes = np.bincount(class_of[class_of >= 0], minlength=1)
        weights = np.zeros((len(counts), len(sizes)), np.float32)
        labels = np.arange(len(counts))
        for ids, own in zip(targets.ids.T, targets.weights.T, strict=True):
            known = (own > 0) & (class_of[ids] >= 0)
            weights[labels[known], class_of[ids[known]]] += own[known]
        others = np.tile(sizes, (len(counts), 1))
        in_class = np.flatnonzero(class_of >= 0)
        others[in_class, class_of[in_class]] -= 1
        return cls(class_of, weights / np.maximum(others, 1).astype(np.float32))


def frequency_classes(
    counts: Int64[np.ndarray, "vocab"], candidates: Bool[np.ndarray, "vocab"], least: int = _LEAST_CLASS
) -> Int64[np.ndarray, "vocab"]:
    """Classes of tokens whose counts lie between two powers of two, 0 for the most frequent tokens.

    A class of fewer than `least` tokens is joined to the next rarer one, and the rarest class to the one before it.
    Tokens that are no candidates, or have a count of 0, have the class −1.
    """
    class_of = np.full(len(counts), -1, np.int64)
    members = np.flatnonzero(candidates & (counts > 0))
    exponents = np.frexp(counts[members].astype(np.float64))[1]
    number, size = 0, 0
    for exponent in np.unique(exponents)[::-1].tolist():
        if size >= least:
            number, size = number + 1, 0
        inside = members[exponents == exponent]
        class_of[inside] = number
        size += len(inside)
    if size < least:
        class_of[class_of == number] = max(0, number - 1)
    return class_of


def _total(pairs: _Bigrams, targets: Substitutes, baseline: _Baseline, block_bytes: int, step: Step) -> float:
    """The sum over all pairs in the text of the neighbors' g, less that of random tokens."""
    vocab, classes = baseline.class_of.size, baseline.weights.shape[1]
    rows = max(1, block_bytes // (4 * vocab))
    starts = np.append(np.flatnonzero(np.diff(pairs.contexts, prepend=-1)), len(pairs.contexts))
    gains_of = np.zeros((rows, vocab), np.float32)
    is_softened, total = targets.softened, 0.0
    for first in range(0, len(starts) - 1, rows):
        block = slice(starts[first], starts[min(first + rows, len(starts) - 1)])
        labels, gains = pairs.labels[block], pairs.gains[block].astype(np.float32)
        row = np.cumsum(np.diff(pairs.contexts[block], prepend=pairs.contexts[block][0]) > 0)
        gains_of[row, labels] = gains
        known = baseline.class_of[labels] >= 0
        keys = row[known] * classes + baseline.class_of[labels[known]]
        of_class = np.bincount(keys, gains[known], rows * classes).reshape(rows, classes)
        kept = np.flatnonzero(is_softened[labels])
        for part in np.array_split(kept, 1 + len(kept) // _BLOCK_PAIRS):
            label, own, weights = labels[part], row[part], targets.weights[labels[part]]
            neighbors = (gains_of[own[:, None], targets.ids[label]] * weights).sum(axis=1)
            random = (baseline.weights[label] * of_class[own]).sum(axis=1)
            # The sum over the label's class includes the label, which is not a random token: take it out.
            in_class = baseline.weights[label, baseline.class_of[label]] * gains[part]
            random -= np.where(baseline.class_of[label] >= 0, in_class, 0)
            total += float((neighbors - random) @ pairs.counts[block][part])
        gains_of[row, labels] = 0
        step.advance(len(labels))
    return total
