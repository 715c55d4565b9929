"""The score of neighbors in the contexts of held-out text, against its definition and closed forms."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.substitution import (
    Substitutes,
    Substitution,
    frequency_classes,
    neighbor_targets,
    substitution,
    substitution_of,
)
from costbank.bank import Bank
from costbank.errors import InputError, UsageError
from tests.unit.recorded_progress import RecordedProgress
from tests.unit.small_bank import small_bank

Texts = list[list[int]]


def _flat(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    return np.array([i for text in texts for i in text], np.int32), np.cumsum([len(text) for text in texts])


def _targets(q: dict[int, dict[int, float]], vocab: int, candidates: set[int] | None = None) -> Substitutes:
    ids, weights = np.full((vocab, vocab), -1, np.int32), np.zeros((vocab, vocab), np.float32)
    for label, shares in q.items():
        ids[label, : len(shares)] = list(shares)
        weights[label, : len(shares)] = list(shares.values())
    is_candidate = np.ones(vocab, bool) if candidates is None else np.isin(np.arange(vocab), list(candidates))
    return Substitutes(ids, weights, is_candidate)


def _oracle(q: dict[int, dict[int, float]], texts: Texts, classes: list[set[int]]) -> tuple[float, float]:
    """The left and the right part, token by token."""
    tokens = sum(map(len, texts))
    forwards = [pair for text in texts for pair in pairwise(text)]
    left, right = (_sum(q, pairs, classes) / tokens for pairs in (forwards, [(t, r) for r, t in forwards]))
    return left, right


def _sum(q: dict[int, dict[int, float]], pairs: list[tuple[int, int]], classes: list[set[int]]) -> float:
    """The sum over pairs of a context and a label, from probabilities of the interpolated bigram model."""
    bigrams = Counter(pairs)
    contexts, unigrams = Counter(context for context, _ in pairs), Counter(label for _, label in pairs)
    types = Counter(context for context, _ in bigrams)

    def ratio(context: int, j: int) -> float:
        """log P(j | context) − log P(j)."""
        if not unigrams[j]:
            return math.log(types[context] / (contexts[context] + types[context]))
        share = unigrams[j] / len(pairs)
        smoothed = (bigrams[context, j] + types[context] * share) / (contexts[context] + types[context])
        return math.log(smoothed) - math.log(share)

    total = 0.0
    for context, label in pairs:
        for j, weight in q.get(label, {}).items():
            own = next((members for members in classes if j in members), {j})
            others = [ratio(context, other) for other in own - {label}]
            total += weight * (ratio(context, j) - float(np.mean(others)))
    return total


def _classes(texts: Texts, candidates: set[int], least: int = 20) -> list[set[int]]:
    counts = Counter(i for text in texts for i in text)
    classes: list[set[int]] = [set()]
    for power in range(30, -1, -1):
        members = {i for i in candidates if 2**power <= counts[i] < 2 ** (power + 1)}
        if members and len(classes[-1]) >= least:
            classes.append(set())
        classes[-1] |= members
    if len(classes) > 1 and len(classes[-1]) < least:
        rarest = classes.pop()
        classes[-1] |= rarest
    return classes


@pytest.mark.parametrize("block_bytes", [1, 2_000, 1 << 20])
def test_the_score_is_the_mean_difference_of_log_likelihoods(random: np.random.Generator, block_bytes: int):
    vocab = 90
    shares = 1 / np.arange(1, vocab + 1)
    texts = [random.choice(vocab, length, p=shares / shares.sum()).tolist() for length in (1, 2, 300, 0, 500, 7)]
    candidates = set(range(3, vocab)) - {20}
    q = {
        int(t): dict(zip(others.tolist(), weights.tolist(), strict=True))
        for t in random.permutation(sorted(candidates))[:70]
        for others in [random.permutation(sorted(candidates - {int(t)}))[:4]]
        for weights in [random.dirichlet(np.ones(4))]
    }
    classes = _classes(texts, candidates)
    assert len(classes) > 1
    progress = RecordedProgress()
    result = substitution(_targets(q, vocab, candidates), *_flat(texts), progress, block_bytes)
    left, right = _oracle(q, texts, classes)
    assert (result.left, result.right) == pytest.approx((left, right), rel=1e-5)
    assert result.score == result.left + result.right
    counts = Counter(i for text in texts for i in text)
    distinct = {pair for text in texts for pair in pairwise(text)}
    assert result.tokens == sum(map(len, texts))
    assert result.softened == sum(counts[t] for t in q)
    assert result.distinct_pairs == len(distinct)
    assert progress.steps == ["neighbors in their contexts"]


def _interchangeable(repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """x a y · x b y · z c w · z d w: a and b have the same contexts, and so have c and d."""
    x, y, z, w, a, b, c, d = range(8)
    return _flat([[x, a, y], [x, b, y], [z, c, w], [z, d, w]] * repeats)


@pytest.mark.parametrize("repeats", [1, 5, 200])
def test_synonyms_score_high_and_other_words_below_zero(repeats: int):
    # g(x, b) = log(1 + n / (2 · 1/8)); one of the three other words of the class shares the contexts of a.
    gain = math.log(1 + 4 * repeats)
    for partners, share in (((5, 4, 7, 6), 2 / 3), ((6, 7, 4, 5), -1 / 3)):
        q = {t: {j: 1.0} for t, j in zip((4, 5, 6, 7), partners, strict=True)}
        result = substitution(_targets(q, 8, {4, 5, 6, 7}), *_interchangeable(repeats))
        assert (result.left, result.right) == pytest.approx((share * gain / 3,) * 2, rel=1e-6)
        assert (result.tokens, result.softened) == (12 * repeats, 4 * repeats)


def test_all_other_tokens_of_a_class_as_neighbors_score_zero(random: np.random.Generator):
    texts = [random.integers(0, 12, 400).tolist() for _ in range(3)]
    q = {t: {j: 1 / 11 for j in range(12) if j != t} for t in range(12)}
    result = substitution(_targets(q, 12), *_flat(texts))
    assert abs(result.left) + abs(result.right) < 1e-6


def test_shuffled_neighbors_score_about_zero(tmp_path: Path, random: np.random.Generator):
    """Planted groups of five synonyms: each context is followed by all words of one group."""
    groups, words = 24, 120
    group = np.arange(words) % groups
    texts = []
    for _ in range(3_000):
        chosen = random.integers(groups)
        texts.append([words + int(chosen), int(random.choice(np.flatnonzero(group == chosen))), words + int(chosen)])
    rows = np.eye(groups)[group] + 0.05 * random.standard_normal((words, groups))
    contexts = {f" c{i}": np.zeros(groups) for i in range(groups)}

    def score(order: np.ndarray, name: str) -> Substitution:
        own = {f" w{i}": row for i, row in enumerate(rows[order])} | contexts
        bank = small_bank(tmp_path / name, own, k=4, unseen=tuple(contexts))
        return substitution_of(bank, *_flat(texts), k=4)

    real = score(np.arange(words), "real")
    shuffled = [score(random.permutation(words), f"shuffled{i}").score for i in range(12)]
    # Each word has 4 synonyms; log(1 + c / (T P)) is at least log(1 + 1 / (5 / 120 / 2)).
    assert real.score > 2
    assert abs(np.mean(shuffled)) < 0.02 * real.score
    assert max(map(abs, shuffled)) < 0.1 * real.score


def test_equal_weights_of_the_nearest_that_can_be_neighbors(news_bank: Bank):
    targets = neighbor_targets(news_bank, 5)
    ok = news_bank.usable & (news_bank.vocab.status == 0)
    assert targets.candidates.tolist() == ok.tolist()
    for t in range(0, news_bank.size, 97):
        near = [n.id for n in news_bank.nearest(t, 5) if ok[n.id]] if ok[t] else []
        used = targets.weights[t] > 0
        assert targets.ids[t][used].tolist() == near
        assert targets.weights[t][used] == pytest.approx(1 / max(1, len(near)))


def test_classes_join_neighboring_powers_of_two():
    counts = np.array([0, 1, 1, 2, 3, 4, 9, 100, 7])
    everything = np.ones(9, bool)
    assert frequency_classes(counts, everything, 1).tolist() == [-1, 4, 4, 3, 3, 2, 1, 0, 2]
    assert frequency_classes(counts, everything, 3).tolist() == [-1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert frequency_classes(counts, everything, 50).tolist() == [-1] + [0] * 8
    assert frequency_classes(counts, np.arange(9) > 5, 2).tolist() == [-1] * 6 + [0, 0, 0]
    assert frequency_classes(np.zeros(3, np.int64), np.ones(3, bool)).tolist() == [-1] * 3


def test_a_text_of_other_tokens_or_without_pairs_is_refused(news_bank: Bank):
    targets = neighbor_targets(news_bank, 3)
    for texts in ([[]], [[4], [5], [6]]):
        with pytest.raises(InputError, match="no two tokens of the text follow each other"):
            substitution(targets, *_flat(texts))
    with pytest.raises(InputError, match=f"up to {news_bank.size}|to {news_bank.size}, but the bank has"):
        substitution(targets, *_flat([[1, news_bank.size]]))
    for k in (0, 10_000):
        with pytest.raises(UsageError, match=f"k is {k}, but the neighbor table of news has"):
            neighbor_targets(news_bank, k)
