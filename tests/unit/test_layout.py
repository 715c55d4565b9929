"""Maps of tokens: planted clusters, brute force, and subprocesses with other numbers of threads."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from costbank.analysis.layout import LayoutOptions, TokenMap, check_neighbors, lay_out, map_bank
from costbank.bank import Bank, verify_bank
from costbank.config import build_config
from costbank.errors import MissingExtraError, UsageError
from costbank.neighbors import NeighborTable, exact_neighbors
from costbank.pipeline import build
from costbank.transforms import normalize
from tests.unit.recorded_progress import RecordedProgress
from tests.unit.small_bank import small_bank

QUICK = LayoutOptions(0, 20, 20)


def _mapped(
    rows: np.ndarray, k: int, options: LayoutOptions = QUICK
) -> tuple[TokenMap, NeighborTable, np.ndarray, np.ndarray]:
    """The map of these rows, their table, which are not zero, and the unit rows."""
    unit, _ = normalize(rows.astype(np.float32))
    usable = unit.any(axis=1)
    table = exact_neighbors(unit.__getitem__, usable, k)
    return lay_out(unit.__getitem__, usable, table, options), table, usable, unit


def _share_kept(places: np.ndarray, table: NeighborTable, k: int) -> float:
    """The mean share of each token's k stored neighbors among its k nearest places, by all distances."""
    places = places.astype(np.float64)
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :k]
    return float(
        np.mean([len({*near} & {*stored}) / k for near, stored in zip(nearest, table.ids[:, :k], strict=True)])
    )


def _planted(random: np.random.Generator, clusters: int, each: int, dim: int) -> np.ndarray:
    centers = random.standard_normal((clusters, dim))
    return np.repeat(centers, each, axis=0) + 0.4 * random.standard_normal((clusters * each, dim))


def test_planted_clusters_are_kept_better_than_by_principal_components(random: np.random.Generator):
    rows = _planted(random, 24, 10, 24)  # the nine nearest of each token are its cluster
    made, table, _, unit = _mapped(rows, 9, LayoutOptions(0, 100, 150))
    centered = unit - unit.mean(axis=0)
    components = centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T
    kept = _share_kept(made.xy, table, 9)
    assert kept > 0.9
    assert kept > _share_kept(components, table, 9) + 0.2
    assert made.facts.kept == pytest.approx(kept, abs=1e-3)  # equal distances may be ordered otherwise
    assert (made.facts.kept_of, made.facts.sampled, made.facts.neighbors, made.facts.seed) == (9, 240, 9, 0)


def test_the_grid_keeps_clusters_too(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("costbank.analysis.layout._LEAST_FOR_GRID", 0)
    made, table, _, _ = _mapped(_planted(random, 12, 10, 16), 9, LayoutOptions(0, 50, 50))
    assert _share_kept(made.xy, table, 9) > 0.9


def test_tokens_without_a_vector_have_no_place(random: np.random.Generator):
    rows = random.standard_normal((40, 6))
    rows[::5] = 0
    made, _, usable, _ = _mapped(rows, 8)
    np.testing.assert_array_equal(np.isfinite(made.xy), np.repeat(usable[:, None], 2, axis=1))
    assert np.isnan(made.xy[::5]).all()


@pytest.mark.parametrize("tokens", [2, 3, 4, 5, 6])
def test_very_small_banks_have_maps(random: np.random.Generator, tokens: int):
    made, _, _, _ = _mapped(random.standard_normal((tokens, 3)), min(4, tokens - 1))
    assert np.isfinite(made.xy).all()
    assert len(np.unique(made.xy, axis=0)) == tokens


def test_a_bank_without_vectors_has_no_map():
    with pytest.raises(UsageError, match="no token of the bank has a vector"):
        _mapped(np.zeros((5, 3)), 2)


def test_rows_of_one_dimension_and_equal_rows_have_places(random: np.random.Generator):
    assert np.isfinite(_mapped(random.standard_normal((8, 1)), 3)[0].xy).all()
    assert np.isfinite(_mapped(np.ones((30, 4)), 5)[0].xy).all()
    repeated = np.repeat(random.standard_normal((4, 6)), 20, axis=0)  # the table has only duplicates: four components
    assert np.isfinite(_mapped(repeated, 10, LayoutOptions(0, 50, 100))[0].xy).all()


def test_tokens_with_few_neighbors_or_none_have_places(random: np.random.Generator):
    unit, _ = normalize(random.standard_normal((60, 8)).astype(np.float32))
    usable = np.ones(60, bool)
    table = exact_neighbors(unit.__getitem__, usable, 6)
    ids = np.where(table.ids == 3, -1, table.ids)
    ids[3], ids[5, 2:] = -1, -1
    costs = np.where(ids < 0, np.inf, table.costs).astype(np.float32)
    made = lay_out(unit.__getitem__, usable, NeighborTable(ids, costs), LayoutOptions(0, 50, 100))
    assert np.isfinite(made.xy).all()


_PROGRAM = """
import hashlib, sys
import numpy as np
from costbank.analysis import layout
from costbank.neighbors import exact_neighbors
from costbank.transforms import normalize
layout._LEAST_FOR_GRID = int(sys.argv[2])
rows, _ = normalize(np.random.default_rng(5).standard_normal((400, 64), np.float32))
usable = np.ones(400, bool)
table = exact_neighbors(rows.__getitem__, usable, 10)
made = layout.lay_out(rows.__getitem__, usable, table, layout.LayoutOptions(int(sys.argv[1]), 15, 15))
print(hashlib.sha256(made.xy.tobytes()).hexdigest())
"""


def _digest(seed: int, threads: int, least_for_grid: int) -> str:
    command = [sys.executable, "-c", _PROGRAM, str(seed), str(least_for_grid)]
    threads_env = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | threads_env)
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("least_for_grid", [0, 5_000])
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(least_for_grid: int):
    first = _digest(0, 1, least_for_grid)
    assert _digest(0, 4, least_for_grid) == first
    assert _digest(1, 1, least_for_grid) != first


def test_progress_counts_all_iterations(random: np.random.Generator):
    advanced: list[str] = []
    progress = RecordedProgress(advanced.append)
    unit, _ = normalize(random.standard_normal((30, 4)).astype(np.float32))
    usable = np.ones(30, bool)
    lay_out(unit.__getitem__, usable, exact_neighbors(unit.__getitem__, usable, 5), QUICK, progress)
    assert progress.steps == ["lay out the map"]
    assert len(advanced) == 4  # one report after each ten of 40 iterations


def test_a_bank_without_neighbors_is_refused(tmp_path: Path):
    bank = small_bank(tmp_path, {"a": [1.0, 0.0], "b": [0.0, 1.0]}, k=0)
    with pytest.raises(UsageError, match="no") as caught:
        map_bank(bank)
    assert "--for-training" in caught.value.hint
    check_neighbors(1)


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    bank = small_bank(tmp_path, {"a": [1.0, 0.0], "b": [0.0, 1.0]}, k=1)
    with pytest.raises(MissingExtraError) as caught:
        map_bank(bank)
    assert caught.value.hint == "pip install 'costbank[map]'"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 60 words."""
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("[UNK]\n" + "".join(f"{stem}{end}\n" for stem in ["row", "cell", "plan", "walk", "call"] for end in
                                       ("", "s", "ed", "ing", "er", "ers", "able", "less", "ful", "ly")))  # fmt: skip
    return path


def _built(tokenizer: Path, store: Path, **settings: object) -> Bank:
    config = build_config(source="spelling", tokenizer=tokenizer, name="words", store=store, **settings)
    return build(config)


def test_a_build_with_a_map_has_the_id_of_a_build_without(tokenizer: Path, tmp_path: Path):
    plain = _built(tokenizer, tmp_path / "plain")
    mapped = _built(tokenizer, tmp_path / "mapped", map={"make": True, "seed": 7})
    assert (plain.id, plain.has_map, mapped.has_map) == (mapped.id, False, True)
    assert mapped.manifest.map is not None
    assert mapped.manifest.map.seed == 7
    np.testing.assert_array_equal(np.isfinite(mapped.map()).all(axis=1), mapped.usable)
    assert all(check.ok for check in verify_bank(mapped.path))
    digest = hashlib.sha256((mapped.path / "map.safetensors").read_bytes()).hexdigest()
    assert mapped.manifest.files["map.safetensors"].sha256 == digest
    made = map_bank(plain, LayoutOptions(7))
    np.testing.assert_array_equal(made.xy, mapped.map())
    assert made.facts == mapped.manifest.map


def test_a_build_of_an_existing_bank_adds_the_map(tokenizer: Path, tmp_path: Path):
    assert not _built(tokenizer, tmp_path).has_map
    assert _built(tokenizer, tmp_path, map={"make": True}).has_map


def test_a_build_without_a_table_refuses_a_map_before_any_work(tokenizer: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="neighbor table"):
        _built(tokenizer, tmp_path, map={"make": True}, neighbors={"k": 0})
    assert list(tmp_path.iterdir()) == []
