import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costbank.neighbors import build_index, exact_neighbors, load_index, nearest_rows, search_index
from costbank.transforms import normalize


def _oracle(vectors: np.ndarray, usable: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair, one by one in float64, sorted by (cost as float32, id)."""
    ids, costs = np.full((len(vectors), k), -1), np.full((len(vectors), k), np.inf, np.float32)
    for i in np.flatnonzero(usable):
        pairs = []
        for j in np.flatnonzero(usable):
            if i != j:
                dot = sum(float(a) * float(b) for a, b in zip(vectors[i], vectors[j], strict=True))
                pairs.append((np.float32(max(0.0, 1.0 - dot)), j))
        for place, (cost, j) in enumerate(sorted(pairs)[:k]):
            ids[i, place], costs[i, place] = j, cost
    return ids, costs


def _rows(random: np.random.Generator, vocab: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rows = normalize(random.normal(size=(vocab, dim)).astype(np.float32))[0]
    rows[random.random(vocab) < 0.1] = 0
    return rows, rows.any(axis=1)


@pytest.mark.parametrize(("vocab", "dim", "k"), [(60, 5, 8), (150, 16, 20), (40, 3, 39), (30, 4, 64)])
def test_the_table_equals_brute_force(random: np.random.Generator, vocab: int, dim: int, k: int):
    rows, usable = _rows(random, vocab, dim)
    table = exact_neighbors(rows.__getitem__, usable, k)
    ids, costs = _oracle(rows, usable, k)
    assert np.array_equal(table.ids, ids)
    assert np.array_equal(table.costs, costs)


def test_many_equal_rows_are_ordered_by_id(random: np.random.Generator):
    """FAISS proposes any 27 of the 100 equal rows; the table must hold the first ten ids."""
    rows, usable = _rows(random, 200, 6)
    rows[50:150], usable[50:150] = rows[0] if usable[0] else rows[usable][0], True
    table = exact_neighbors(rows.__getitem__, usable, 10)
    ids, costs = _oracle(rows, usable, 10)
    assert np.array_equal(table.ids, ids)
    assert np.array_equal(table.costs, costs)


def test_rows_closer_than_float32_can_tell_are_still_in_order(random: np.random.Generator):
    """All rows are within 1e-4 of each other: costs are near 1e-8, where float32 products are only noise."""
    center = random.normal(size=8)
    rows = normalize((center + 1e-4 * random.normal(size=(120, 8))).astype(np.float32))[0]
    usable = np.ones(120, bool)
    table = exact_neighbors(rows.__getitem__, usable, 12)
    ids, costs = _oracle(rows, usable, 12)
    assert np.allclose(table.costs, costs, atol=1e-12, rtol=0)
    assert np.mean(table.ids == ids) > 0.99


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 35), st.integers(0, 1 << 32))
def test_the_table_equals_brute_force_on_coarse_rows(vocab: int, dim: int, k: int, seed: int):
    rows = normalize(np.random.default_rng(seed).integers(-1, 2, size=(vocab, dim)).astype(np.float32))[0]
    usable = rows.any(axis=1)
    table = exact_neighbors(rows.__getitem__, usable, k)
    ids, costs = _oracle(rows, usable, k)
    assert np.allclose(table.costs, costs, atol=1e-6)
    assert ((table.ids >= 0) == (ids >= 0)).all()
    assert (np.diff(np.where(np.isinf(table.costs), 9, table.costs), axis=1) >= 0).all()


def test_a_search_over_all_rows_gives_the_tables_answer(random: np.random.Generator):
    rows, usable = _rows(random, 90, 7)
    table = exact_neighbors(rows.__getitem__, usable, 12)
    for i in np.flatnonzero(usable)[:20]:
        ids, costs = nearest_rows(int(i), rows.__getitem__, usable, 12)
        assert np.array_equal(ids, table.ids[i])
        assert np.array_equal(costs, table.costs[i])


@pytest.mark.parametrize("usable_rows", [0, 1])
def test_a_single_row_has_no_neighbors(usable_rows: int):
    rows = np.zeros((4, 3), np.float32)
    rows[:usable_rows, 0] = 1
    table = exact_neighbors(rows.__getitem__, rows.any(axis=1), 2)
    assert (table.ids == -1).all()
    assert np.isinf(table.costs).all()


def test_the_index_finds_a_row_by_its_vector_under_its_token_id(random: np.random.Generator):
    rows, usable = _rows(random, 80, 9)
    kind, built = build_index(rows.__getitem__, usable)
    assert kind == "flat"
    index = load_index(faiss.serialize_index(built))
    ids = np.flatnonzero(usable)
    assert index.ntotal == len(ids)
    assert np.array_equal(search_index(index, rows[ids], 1)[:, 0], ids)
