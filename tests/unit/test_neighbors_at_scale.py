"""Tables whose candidates come from a coarser form of the rows."""

import math
import re
from functools import partial

import numpy as np
import pytest

import costbank
from costbank.config import NeighborsConfig, VectorsConfig, build_config
from costbank.neighbors import build_index, exact_neighbors, find_neighbors, load_index, plan_neighbors, search_index
from costbank.neighbors.plan import measured_rate
from costbank.neighbors.search import RECALL_TOLERANCE, _recall
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
    result = find_neighbors(rows.__getitem__, usable, plan, 0.99, done.append, notes.append)
    assert result.method == method
    assert sum(done) == usable.sum()
    same = result.table.ids == exact.ids
    assert same[:, :10].mean() > 0.99
    assert np.array_equal(result.table.costs[same], exact.costs[same])
    assert (result.table.ids[~usable] == -1).all()
    assert "recall@10" in notes[0]


@pytest.mark.slow
def test_the_recall_is_that_against_the_exact_table(random: np.random.Generator):
    """If few of the dimensions are kept, candidates are poor, and the recall must show it."""
    rows = normalize(random.standard_normal((700, 640)).astype(np.float32))[0]
    usable = np.ones(700, bool)
    exact = exact_neighbors(rows.__getitem__, usable, 10)
    result = find_neighbors(rows.__getitem__, usable, plan_neighbors(700, 640, 10, "reduced"), 0.5)
    assert result.method == "reduced"
    assert result.recall == pytest.approx((result.table.ids == exact.ids).mean(), abs=0.03)


def _with_a_cluster(random: np.random.Generator, vocab: int = 2_000, clustered: int = 900) -> np.ndarray:
    """A head whose last rows were never trained and are nearly equal: costs of about 6e-5 between them."""
    rows = random.normal(size=(vocab, 64)).astype(np.float32)
    rows[-clustered:] = random.normal(size=64) + 0.008 * random.normal(size=(clustered, 64))
    return normalize(rows)[0]


def test_neighbors_within_the_tolerance_count_as_found(random: np.random.Generator):
    """8 bits cannot rank 900 rows with nearly one direction, and it does not matter which of them are in the table."""
    rows, usable = _with_a_cluster(random), np.ones(2_000, bool)
    result = find_neighbors(rows.__getitem__, usable, plan_neighbors(2_000, 64, 16, "int8"), 0.99)
    assert (result.method, result.recall_tolerance) == ("int8", RECALL_TOLERANCE)
    exact = exact_neighbors(rows.__getitem__, usable, 16)
    assert (result.table.ids == exact.ids)[-900:].mean() < 0.9, "other ids are found than the exact ones"
    assert (result.table.costs[:, :10] - exact.costs[:, 9:10] <= RECALL_TOLERANCE).mean() > 0.99
    assert result.recall > 0.99
    costs = np.maximum(0, 1 - np.einsum("rkd,rd->rk", rows[result.table.ids[:50]].astype("f8"), rows[:50].astype("f8")))
    assert np.array_equal(result.table.costs[:50], costs.astype("f4")), "costs are those of the ids in the table"


def test_a_neighbor_outside_the_tolerance_is_not_found():
    exact = np.array([[0.1, 0.2]], np.float32)
    assert _recall(np.array([[0.1, 0.20009]], np.float32), exact, 2) == 1
    assert _recall(np.array([[0.1, 0.20011]], np.float32), exact, 2) == 0.5
    assert _recall(np.array([[0.15, 0.2]], np.float32), exact, 2) == 1, "the last of the exact ones decides"
    assert _recall(np.array([[0.1, 0.2]], np.float32), exact, 1) == 1


def test_the_tolerance_is_in_the_bank_and_on_its_card(random: np.random.Generator, tmp_path):
    rows = _with_a_cluster(random, 1_000, 400)
    (tmp_path / "labels.txt").write_text("\n".join(f"label{i}" for i in range(len(rows))) + "\n")
    np.save(tmp_path / "rows.npy", rows)
    bank = costbank.build(
        build_config(
            source="vectors", tokenizer=tmp_path / "labels.txt", store=tmp_path, name="b",
            vectors=VectorsConfig(path=tmp_path / "rows.npy"), neighbors=NeighborsConfig(k=12, method="int8"),
        )
    )  # fmt: skip
    facts = bank.manifest.neighbors
    assert (facts.method, facts.exact, facts.recall_tolerance) == ("int8", False, 1e-4)
    assert facts.candidates == 12 + 1 + 32
    assert "within 0.0001 of the exact costs" in (bank.path / "README.md").read_text("utf-8")


class Blind:
    """A proposer that proposes the same tokens for every row."""

    query_rows = 64

    def __init__(self, read_rows, row_ids):
        pass

    def propose(self, positions, count):
        return np.broadcast_to(np.arange(count), (len(positions), count)).copy()


def _find_blindly(rows: np.ndarray, usable: np.ndarray, least_recall: float, **callbacks):
    plan = plan_neighbors(900, 96, 8, "int8")
    return find_neighbors(rows.__getitem__, usable, plan, least_recall, **callbacks, proposers={"int8": Blind})


def _last_recall(notes: list[str]) -> float:
    return float(re.findall(r"recall@8 ([0-9.]+)", "\n".join(notes[:-1]))[-1])


def test_candidates_that_fall_short_are_not_trusted(random: np.random.Generator):
    rows, usable = _rows(random)
    notes: list[str] = []
    result = _find_blindly(rows, usable, 0.99, note=notes.append)
    assert result.method == "exact"
    assert np.array_equal(result.table.ids, exact_neighbors(rows.__getitem__, usable, 8).ids)
    assert "an exact table is computed, which will take about" in notes[-1]
    assert f"--set neighbors.min_recall={math.floor(_last_recall(notes) * 100) / 100:.2f}" in notes[-1]
    assert len(notes) == 4, "more and more candidates are tried first"


def test_the_time_of_the_exact_table_is_noted_before_it_is_made(random: np.random.Generator):
    """A user who stops there has waited only for the sample."""
    rows, usable = _rows(random)
    done: list[int] = []

    def stop(text: str) -> None:
        if "will take about" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _find_blindly(rows, usable, 0.99, advance=done.append, note=stop)
    assert not done


def test_a_lower_recall_can_be_requested(random: np.random.Generator):
    rows, usable = _rows(random)
    result = _find_blindly(rows, usable, 0.0)
    assert result.method == "int8"
    assert result.recall < 0.5


RATES = {"float32": 5e10, "int8": 4e11}
"""Multiply-adds per second of an imaginary machine."""


@pytest.mark.parametrize(
    ("rows", "dim", "method"), [(32_000, 4_096, "exact"), (128_000, 512, "exact"), (151_936, 4_096, "int8")]
)
def test_the_method_follows_from_the_amount_of_work(rows: int, dim: int, method: str):
    plan = plan_neighbors(rows, dim, 64, rate=lambda element_type, _: RATES[element_type])
    assert plan.method == method
    slower = plan_neighbors(rows, dim, 64, rate=lambda element_type, _: RATES[element_type] / 1_000)
    assert slower.method == method, "the speed of the machine does not change the method"
    assert 0 < plan.seconds <= plan.exact_seconds < slower.exact_seconds
    assert "will take about" in str(plan)
    assert ("an exact table" in str(plan)) == (method != "exact")


@pytest.mark.parametrize("method", ["exact", "int8", "reduced"])
def test_the_time_is_estimated_from_the_speed_of_the_machine(method: str):
    """The time is that of all products, plus 1 ns per cost, and for int8 1 ns per element of the 2 k candidates."""
    rows, dim, k = 100_000, 1_000, 50
    calls: list[tuple[str, int]] = []

    def rate(element_type: str, size: int) -> float:
        calls.append((element_type, size))
        return RATES[element_type]

    plan = plan_neighbors(rows, dim, k, method, rate)
    exact = 1e13 / 5e10 + 10
    seconds = {"exact": exact, "int8": 1e13 / 4e11 + 10 + 10, "reduced": exact / 4}
    assert plan.exact_seconds == pytest.approx(exact)
    assert plan.seconds == pytest.approx(seconds[method])
    assert calls == [("float32", dim)] + [("int8", dim)] * (method == "int8")


@pytest.mark.parametrize("element_type", ["float32", "int8"])
def test_the_speed_of_this_machine_is_measured(element_type: str):
    """The bounds are wide enough for any machine; a wrong unit would be outside them."""
    assert 1e8 < measured_rate(element_type, 96) < 1e16


def test_a_plan_measures_this_machine():
    plan = plan_neighbors(900, 96, 8, "int8")
    assert plan.seconds > 0
    assert plan.exact_seconds > 0


def test_a_large_index_keeps_8_bits_and_is_decided_by_costs(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    import faiss

    rows, usable = _rows(random)
    build_small = partial(build_index, most_flat_bytes=1_000)
    kind, built = build_small(rows.__getitem__, usable)
    assert kind == "sq8"
    monkeypatch.setattr("costbank.pipeline.build_index", build_small)
    loaded = load_index(faiss.serialize_index(built))
    ids = np.flatnonzero(usable)
    assert np.mean(search_index(loaded, rows[ids], 1)[:, 0] == ids) > 0.99

    (tmp_path / "labels.txt").write_text("\n".join(f"label{i}" for i in range(len(rows))) + "\n")
    np.save(tmp_path / "rows.npy", rows)
    config = build_config(
        source="vectors", tokenizer=tmp_path / "labels.txt", store=tmp_path, name="b",
        vectors=VectorsConfig(path=tmp_path / "rows.npy"),
    )  # fmt: skip
    coarse = costbank.build(config)
    assert coarse.manifest.index.kind == "sq8"
    queries = random.standard_normal((20, rows.shape[1])).astype(np.float32)
    bare = costbank.build(config.model_copy(update={"name": "n", "neighbors": NeighborsConfig(k=0)}))
    assert bare.manifest.index.kind == "none"
    assert "index.faiss" not in bare.manifest.files
    assert coarse.search(queries, 5) == bare.search(queries, 5)
    assert bare.nearest(1, 5) == coarse.nearest(1, 5), "without a table all rows are searched"
