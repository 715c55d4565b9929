"""Tables whose candidates come from a coarser form of the rows."""

import numpy as np
import pytest

import costbank
from costbank.config import BuildConfig, NeighborsConfig, VectorFileConfig
from costbank.neighbors import build_index, exact_neighbors, find_neighbors, load_index, plan_neighbors, search_index
from costbank.neighbors import index as index_module
from costbank.transforms import normalize


def _rows(random: np.random.Generator, vocab: int = 900, dim: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Families around centers, some rows zero."""
    centers = random.standard_normal((30, dim))
    rows = normalize((centers[random.integers(0, 30, vocab)] + random.standard_normal((vocab, dim))).astype(np.float32))
    rows[0][::17] = 0
    return rows[0], rows[0].any(axis=1)


@pytest.mark.parametrize("method", ["int8", "reduced"])
def test_candidates_are_decided_by_their_exact_costs(random: np.random.Generator, method: str):
    rows, usable = _rows(random)
    exact = exact_neighbors(rows.__getitem__, usable, 20)
    notes: list[str] = []
    plan = plan_neighbors(len(rows), rows.shape[1], 20, method)
    done: list[int] = []
    found = find_neighbors(rows.__getitem__, usable, plan, 0.99, done.append, notes.append)
    assert found.method == method
    assert sum(done) == usable.sum()
    same = found.table.ids == exact.ids
    assert same[:, :10].mean() > 0.99
    assert np.array_equal(found.table.costs[same], exact.costs[same])
    assert (found.table.ids[~usable] == -1).all()
    assert "recall@10" in notes[0]


def test_the_recall_is_that_against_the_exact_table(random: np.random.Generator):
    """With far fewer dimensions kept than there are, candidates are poor, and the figure must say so."""
    rows = normalize(random.standard_normal((700, 640)).astype(np.float32))[0]
    usable = np.ones(700, bool)
    exact = exact_neighbors(rows.__getitem__, usable, 10)
    found = find_neighbors(rows.__getitem__, usable, plan_neighbors(700, 640, 10, "reduced"), 0.5)
    assert found.method == "reduced"
    assert found.recall == pytest.approx((found.table.ids == exact.ids).mean(), abs=0.03)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposer that proposes the same tokens to everyone."""
    from costbank.neighbors import search

    class Blind:
        query_rows = 64

        def __init__(self, rows, row_ids):
            pass

        def propose(self, positions, count):
            return np.broadcast_to(np.arange(count), (len(positions), count)).copy()

    monkeypatch.setitem(search._PROPOSERS, "int8", Blind)


@pytest.mark.usefixtures("blind")
def test_candidates_that_fall_short_are_not_trusted(random: np.random.Generator):
    rows, usable = _rows(random)
    notes: list[str] = []
    found = find_neighbors(rows.__getitem__, usable, plan_neighbors(900, 96, 8, "int8"), 0.99, note=notes.append)
    assert found.method == "exact"
    assert np.array_equal(found.table.ids, exact_neighbors(rows.__getitem__, usable, 8).ids)
    assert "made exactly" in notes[-1]
    assert len(notes) == 4, "more and more candidates are tried first"


@pytest.mark.usefixtures("blind")
def test_a_lower_recall_can_be_asked_for(random: np.random.Generator):
    rows, usable = _rows(random)
    found = find_neighbors(rows.__getitem__, usable, plan_neighbors(900, 96, 8, "int8"), 0.0)
    assert found.method == "int8"
    assert found.recall < 0.5


@pytest.mark.parametrize(
    ("rows", "dim", "method"), [(32_000, 4_096, "exact"), (128_000, 512, "exact"), (151_936, 4_096, "int8")]
)
def test_the_method_follows_from_the_amount_of_work(rows: int, dim: int, method: str):
    plan = plan_neighbors(rows, dim, 64)
    assert plan.method == method
    assert 0 < plan.seconds <= plan.exact_seconds
    assert "will take about" in str(plan)
    assert ("an exact one" in str(plan)) == (method != "exact")


def test_a_large_index_keeps_8_bits_and_is_decided_by_costs(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    import faiss

    rows, usable = _rows(random)
    monkeypatch.setattr(index_module, "_MOST_FLAT_BYTES", 1_000)
    kind, built = build_index(rows.__getitem__, usable)
    assert kind == "sq8"
    loaded = load_index(faiss.serialize_index(built))
    ids = np.flatnonzero(usable)
    assert np.mean(search_index(loaded, rows[ids], 1)[:, 0] == ids) > 0.99

    (tmp_path / "labels.txt").write_text("\n".join(f"label{i}" for i in range(len(rows))) + "\n")
    np.save(tmp_path / "rows.npy", rows)
    config = BuildConfig(
        source="vectors", tokenizer=tmp_path / "labels.txt", store=tmp_path, name="b",
        vector_file=VectorFileConfig(path=tmp_path / "rows.npy"),
    )  # fmt: skip
    coarse = costbank.build(config)
    assert coarse.manifest.index.kind == "sq8"
    queries = random.standard_normal((20, rows.shape[1])).astype(np.float32)
    bare = costbank.build(config.model_copy(update={"name": "n", "neighbors": NeighborsConfig(k=0)}))
    assert bare.manifest.index.kind == "none"
    assert "index.faiss" not in bare.manifest.files
    assert coarse.search(queries, 5) == bare.search(queries, 5)
    assert bare.nearest(1, 5) == coarse.nearest(1, 5), "without a table all rows are searched"
