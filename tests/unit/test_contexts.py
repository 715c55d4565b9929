"""Contexts of one side, at a position, and of several tokens, compared with counting one by one."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import costbank
from costbank.config import BuildConfig, CooccurrenceConfig, CorpusConfig, EngineConfig, build_config
from costbank.engines import open_engine
from costbank.errors import CorpusError, UsageError
from costbank.progress import QuietProgress
from costbank.sources.cooccurrence.contexts import context_set
from costbank.sources.cooccurrence.counting import CountSizes, pair_weights
from costbank.sources.cooccurrence.packing import PairPacking
from costbank.sources.cooccurrence.pair_counts import count_pairs
from costbank.sources.cooccurrence.ppmi import PpmiOptions, pair_marginals, plan_ppmi
from costbank.tokenizers import load_tokenizer
from tests.unit.test_pair_counting import DOCUMENTS, as_counter, make_corpus

QUIET = QuietProgress()
VOCAB, BUCKETS = 10, 1 << 40
"""So many buckets that no two n-grams of a test share one."""


def _one_by_one(
    documents: list[list[int]], weights: tuple[int, ...], side: str, positions: bool, ngram: int
) -> Counter[tuple[int, object]]:
    """The weight of each token with each context, which is named by what it is."""
    counts: Counter[tuple[int, object]] = Counter()
    signs = {"both": (-1, 1), "left": (-1,), "right": (1,)}[side]
    for document in documents:
        for at, token in enumerate(document):
            for sign in signs:
                reach = at if sign < 0 else len(document) - 1 - at
                for distance in range(1, min(reach, len(weights)) + 1):
                    other = document[at + sign * distance]
                    counts[token, (sign * distance, other) if positions else other] += weights[distance - 1]
                for length in range(2, min(reach, ngram) + 1):
                    start = at - length if sign < 0 else at + 1
                    counts[token, (sign, tuple(document[start : start + length]))] += weights[0]
    return counts


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=DOCUMENTS, window=st.integers(1, 4), flat=st.booleans(), side=st.sampled_from(["both", "left", "right"]),
    positions=st.booleans(), ngram=st.integers(1, 4), chunk=st.integers(1, 40), parts=st.integers(1, 3),
)  # fmt: skip
def test_counts_are_those_of_counting_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], window: int, flat: bool, side: str,
    positions: bool, ngram: int, chunk: int, parts: int,
):  # fmt: skip
    folder = tmp_path_factory.mktemp("counts")
    weights = pair_weights(window, flat)
    contexts = context_set(weights, side, positions, ngram, BUCKETS, VOCAB)
    if contexts is None:
        assert (side, positions, ngram) == ("both", False, 1)
        return
    corpus = make_corpus(folder, documents, parts)
    with open_engine("local", 1, 1 << 30, None, folder) as engine:
        counts = count_pairs(corpus, weights, engine, folder, QUIET, CountSizes(chunk_tokens=chunk), contexts)
    expected = _one_by_one(documents, weights, side, positions, ngram)
    # The ids of contexts are arbitrary, but one to one: the columns of the two tables are the same, in some order.
    columns: list[dict[object, dict[int, int]]] = []
    for table in (expected, as_counter(counts)):
        columns.append({})
        for (token, context), weight in table.items():
            columns[-1].setdefault(context, {})[token] = weight
    one, other = (sorted(map(sorted, (c.items() for c in side.values()))) for side in columns)
    assert one == other
    if positions is False and ngram == 1:
        assert as_counter(counts) == expected


def test_ids_of_kinds_do_not_overlap():
    contexts = context_set((2, 1), "both", True, 3, 1 << 10, VOCAB)
    assert contexts is not None
    starts = [kind.start for kind in contexts.kinds]
    assert starts == [0, 10, 20, 30, 40, 40 + 1024, 40 + 2048, 40 + 3072]
    assert contexts.size == 40 + 4096
    assert contexts.span == 3


def test_n_grams_spread_evenly_over_their_buckets():
    contexts = context_set((1,), "left", False, 2, 1 << 10, 200)
    assert contexts is not None
    pairs = np.array(list(product(range(200), repeat=2)), np.uint64)
    tokens = np.concatenate([pairs, np.zeros((len(pairs), 1), np.uint64)], axis=1).ravel()
    buckets = contexts.buckets_of(contexts.kinds[1], tokens, len(tokens) - 2)[::3]
    load = np.bincount(buckets.astype(np.int64), minlength=1 << 10)
    # 40,000 n-grams in 1,024 buckets: χ² has 1,023 degrees of freedom, a mean of 1,023 and a deviation of 45.
    chi_square = ((load - len(pairs) / 1024) ** 2 / (len(pairs) / 1024)).sum()
    assert abs(chi_square - 1023) < 5 * 45


def test_values_of_ordered_pairs_are_those_of_the_formula():
    random = np.random.default_rng(0)
    table = random.integers(0, 6, (7, 12)) * random.integers(0, 2, (7, 12))
    table[3], table[:, 5] = 0, 0
    first, second = np.nonzero(table)
    blocks = [(first[a:b], second[a:b], table[first[a:b], second[a:b]]) for a, b in ((0, 9), (9, len(first)))]
    marginals = pair_marginals(blocks, 7, 12)
    assert marginals.rows.tolist() == table.sum(axis=1).tolist()
    assert marginals.columns.tolist() == table.sum(axis=0).tolist()
    rows, columns = table.sum(axis=1) > 4, table.sum(axis=0) > 2
    matrix = plan_ppmi(blocks, marginals, rows, columns, PpmiOptions(0.75, 0.9)).make().toarray()
    smoothed = table.sum(axis=0) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(table * smoothed.sum() / (table.sum(axis=1)[:, None] * smoothed)) - np.log(0.9)
    expected = np.where(table > 0, np.maximum(pmi, 0), 0)[rows][:, columns]
    assert np.allclose(matrix, expected, atol=1e-6)


def test_ids_without_room_in_an_entry_are_refused():
    assert PairPacking(1 << 18, 1 << 30).weight_bits == 16
    with pytest.raises(CorpusError, match="too many to count pairs") as caught:
        PairPacking(1 << 18, (1 << 30) + 1)
    assert "ngram_buckets" in caught.value.hint


@pytest.mark.slow
def test_a_bank_of_left_contexts_has_the_same_id_on_any_number_of_processes(
    news: Path, news_model: Path, tmp_path: Path
):
    """Its nearest tokens are those that follow the same tokens, by the formula and a dense factorization."""

    def config(processes: int) -> BuildConfig:
        return build_config(
            source="cooccurrence", tokenizer=news_model, name="left", store=tmp_path / f"store{processes}",
            cache=tmp_path / f"cache{processes}", corpus=CorpusConfig(files=(str(news),)),
            engine=EngineConfig(processes=processes),
            cooccurrence=CooccurrenceConfig(
                dim=24, window=2, side="left", positions=True, ngram=2, ngram_buckets=1 << 24
            ),
        )  # fmt: skip

    banks = [costbank.build(config(processes)) for processes in (1, 3)]
    assert banks[0].id == banks[1].id
    tokenizer = load_tokenizer(news_model)
    size, window = tokenizer.vocab.size, 2
    columns: dict[object, int] = {}
    cells: Counter[tuple[int, int]] = Counter()
    frequency: Counter[int] = Counter()
    for line in news.read_text("utf-8").split("\n"):
        ids = tokenizer.encode([line])[0].tolist()
        frequency.update(ids)
        for at, token in enumerate(ids):
            for distance in range(1, min(window, at) + 1):
                cells[token, columns.setdefault((distance, ids[at - distance]), len(columns))] += window + 1 - distance
            if at > 1:
                cells[token, columns.setdefault(tuple(ids[at - 2 : at]), len(columns))] += window
    token, column = np.array(list(cells)).T
    counts = np.array(list(cells.values()), np.float64)
    kept = np.array([frequency[i] >= 5 for i in range(size)])
    of_token, smoothed = np.bincount(token, counts, size), np.bincount(column, counts) ** 0.75
    pmi = np.log(counts * smoothed.sum() / (of_token[token] * smoothed[column]))
    ppmi = csr_matrix((np.maximum(pmi, 0), (token, column)), (size, len(columns)))[kept]
    _, left = np.linalg.eigh((ppmi @ ppmi.T).toarray())
    rows = left[:, :-25:-1]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result = banks[0].vectors(np.flatnonzero(kept))
    # About 75 of 50,000 bigrams share one of 16 M buckets.
    assert np.quantile(np.abs(result @ result.T - rows @ rows.T), 0.999) < 0.05


def test_buckets_must_be_a_power_of_two():
    with pytest.raises(UsageError, match="power of two"):
        build_config(source="cooccurrence", tokenizer=Path("x"), cooccurrence={"ngram_buckets": 3_000})
