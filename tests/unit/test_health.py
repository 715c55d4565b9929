"""Health detects planted defects and nothing else; its numbers are compared with other ways to compute them."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import costbank
from benchmarks.study.report import ROWS, read_rows
from costbank.analysis.health import Finding, HealthReport, Quality, Severity, health
from costbank.analysis.health.advice import shared_direction_advice
from costbank.analysis.health.duplicates import NEAR_COST, duplicate_groups, near_duplicate_groups
from costbank.analysis.health.hubness import hubness, k_occurrences
from costbank.analysis.health.outliers import norm_outliers, under_trained
from costbank.analysis.health.rows import iso_score, measure_rows, saturated_rows
from costbank.bank import Bank, BankWriter, Store
from costbank.bank.card import write_card
from costbank.bank.manifest import BankFacts
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.errors import CorruptBankError
from costbank.neighbors import NeighborTable, exact_neighbors
from costbank.progress import QuietProgress
from costbank.tensorfile import TensorSpec, read_header, write_tensors
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

GOLDEN = Store(Path(__file__).parents[2] / "data" / "golden" / "format1")


def _bank(place: Path, rows: np.ndarray, k: int = 10, dtype: str = "F32", source: str = "test", **given) -> Bank:
    """A bank of these rows, normalized, for tokens `t0`, `t1`, …"""
    vocab_size, dim = rows.shape
    unit, lengths = normalize(rows.astype(np.float32))
    status = given.get("status", [TokenStatus.OK] * vocab_size)
    vocab = Vocab.from_tokens([f"t{i}".encode() for i in range(vocab_size)], status)
    with BankWriter(place / "planted") as writer:
        stored = writer.write_vectors((vocab_size, dim), dtype, [unit])
        usable = stored.data.any(axis=1)
        writer.write_tokens(vocab)
        writer.write_rows(lengths, given.get("to_unused", np.full(vocab_size, np.nan, np.float32)))
        writer.write_neighbors(exact_neighbors(stored.float32, usable, k) if k else NeighborTable.empty(vocab_size, 0))
        facts = {
            "costbank": "0.1.0", "created": "2026-11-21T00:00:00+00:00", "reproducible": True, "source": source,
            "config": {"source": source, "transforms": given.get("transforms", [])},
            "run": {}, "facts": {}, "inputs": [], "libraries": {}, "seconds": {},
            "tokenizer": {"kind": "list", "file": "none", "sha256": "0" * 64, "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": vocab_size, "dim": dim, "dtype": dtype}, "status": vocab.status_counts(),
            "neighbors": {"k": k, "exact": True, "recall": 1.0}, "index": {"kind": "none", "rows": 0},
        }  # fmt: skip
        return Bank(writer.publish(BankFacts.model_validate(facts), lambda manifest: write_card(manifest, [])))


def _findings(bank_health: HealthReport) -> dict[str, Finding]:
    return {finding.code: finding for finding in bank_health.findings}


def _ids(finding: Finding) -> list[int]:
    return [token.id for token in finding.tokens]


def test_orthogonal_rows_have_no_mean_cosine_and_use_all_dimensions(tmp_path: Path):
    bank = _bank(tmp_path, np.vstack([np.eye(32), -np.eye(32)]))
    report = health(bank)
    assert report.mean_cosine == pytest.approx(-1 / 63, abs=1e-9)  # 32 of 64 · 63 / 2 pairs have −1, the others 0
    assert report.isotropy is not None
    assert report.isotropy.score == pytest.approx(1, abs=1e-6)
    assert report.isotropy.effective_dimension == pytest.approx(32, abs=1e-4)
    assert health(_bank(tmp_path, np.eye(32))).mean_cosine == pytest.approx(0, abs=1e-9)


def test_rows_that_are_all_the_same_have_a_mean_cosine_of_one_and_no_isotropy(tmp_path: Path):
    report = health(_bank(tmp_path, np.tile(np.arange(1.0, 31.0), (50, 1))))
    assert report.mean_cosine == pytest.approx(1, abs=1e-6)
    assert report.isotropy is None
    assert _findings(report)["equal-rows"].severity is Severity.SERIOUS
    assert (report.duplicates.groups, report.duplicates.tokens, report.duplicates.largest) == (1, 50, 50)
    assert report.quality is Quality.POOR
    assert report.verdict.startswith("do not use: equal-rows")


def test_rows_on_a_line_have_an_isotropy_of_zero(tmp_path: Path):
    line = np.zeros((40, 8))
    line[:, 0] = np.where(np.arange(40) % 2, 1, -1)
    report = health(_bank(tmp_path, line))
    assert report.isotropy is not None
    assert report.isotropy.score == pytest.approx(0, abs=1e-6)
    assert "low-isotropy" in _findings(report)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_mean_cosine_is_that_of_all_pairs(tmp_path: Path, random: np.random.Generator, dtype: str):
    bank = _bank(tmp_path, random.normal(size=(300, 40)) + 0.4, dtype=dtype)
    rows = bank.vectors().astype(np.float64)
    pairs = (rows @ rows.T)[~np.eye(300, dtype=bool)]
    assert health(bank).mean_cosine == pytest.approx(pairs.mean(), abs=1e-6)


def _iso_score_step_by_step(rows: np.ndarray) -> float:
    """The seven steps of the paper, with the eigenvalues of a PCA."""
    dim = rows.shape[1]
    moved = rows - rows.mean(axis=0)
    turned = moved @ np.linalg.svd(moved, full_matrices=False)[2].T
    variances = turned.var(axis=0)
    scaled = np.sqrt(dim) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (dim - np.sqrt(dim)))
    in_use = (dim - defect**2 * (dim - np.sqrt(dim))) ** 2 / dim
    return (in_use - 1) / (dim - 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1_000), st.floats(0, 3), st.floats(0, 2))
def test_isotropy_is_the_papers(dim: int, seed: int, skew: float, offset: float):
    generator = np.random.default_rng(seed)
    scales = np.exp(-skew * np.arange(dim) / dim)
    rows = normalize((scales * generator.normal(size=(3 * dim + 5, dim)) + offset).astype(np.float32))[0]
    covariance = np.cov(rows.astype(np.float64), rowvar=False)
    effective = np.trace(covariance) ** 2 / (covariance**2).sum()
    assert iso_score(effective, dim) == pytest.approx(_iso_score_step_by_step(rows.astype(np.float64)), abs=1e-9)


def test_isotropy_over_blocks_and_from_a_sample_agree_with_it(tmp_path: Path, random: np.random.Generator):
    bank = _bank(tmp_path, random.normal(size=(2_000, 48)) * np.linspace(0.2, 2, 48) + 0.3, k=0)
    expected = _iso_score_step_by_step(bank.vectors().astype(np.float64))
    measure = partial(measure_rows, bank, QuietProgress(), block_bytes=4 * 48 * 100)
    of_all = measure().isotropy
    assert of_all is not None
    assert of_all.score == pytest.approx(expected, abs=1e-5)
    assert of_all.sampled == 0
    same = measure(most_products=0).isotropy
    assert same is not None
    assert same.score == pytest.approx(expected, abs=1e-5)  # a sample of all rows is all rows
    assert same.sampled == 2_000
    estimate = measure(most_products=0, sampled_rows=700).isotropy
    assert estimate is not None
    assert estimate.sampled == 700
    assert estimate.score == pytest.approx(expected, rel=0.05)


def test_skewness_is_scipys(random: np.random.Generator):
    table = exact_neighbors(_unit(random, 400, 6).__getitem__, np.ones(400, bool), 12)
    actual, counts = hubness(table, np.ones(400, bool), exact=True)
    expected = np.array([(table.ids[:, :10] == i).sum() for i in range(400)])
    assert np.array_equal(counts, expected)
    assert actual.skewness == pytest.approx(stats.skew(expected), abs=1e-12)
    assert actual.antihubs == (expected == 0).sum()
    assert actual.k == 10


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 12))
def test_occurrences_are_counted_over_tokens_with_a_vector(seed: int, size: int, k: int):
    generator = np.random.default_rng(seed)
    usable = generator.random(size) < 0.8
    rows = np.where(usable[:, None], _unit(generator, size, 3), np.float32(0))
    table = exact_neighbors(rows.__getitem__, usable, k)
    result, counts = hubness(table, usable, exact=True)
    assert result.k == min(10, k)
    by_hand = [sum(i in table.ids[j, : result.k] for j in range(size)) for i in range(size)]
    assert counts.tolist() == by_hand
    assert (counts[~usable] == 0).all()
    of_usable = counts[usable]
    if len(of_usable) and of_usable.std() > 0:
        assert result.skewness == pytest.approx(stats.skew(of_usable.astype(float)), abs=1e-9)
    else:
        assert result.skewness == 0


def test_a_planted_hub_is_named(tmp_path: Path):
    """Every token is similar to token 7 and to no other."""
    rows = np.hstack([np.full((200, 1), 0.5), np.eye(200)])
    rows[7] = 0
    rows[7, 0] = 1
    report = health(_bank(tmp_path, rows, k=1))
    assert report.hubness is not None
    assert (report.hubness.largest, report.hubness.hubs) == (199, 1)
    assert report.hubness.hub_share == pytest.approx(199 / 200)
    assert report.hubness.antihubs == 198
    hubs = _findings(report)["hubs"]
    assert (hubs.severity, hubs.count) == (Severity.SERIOUS, 1)
    assert (hubs.tokens[0].id, hubs.tokens[0].text, hubs.tokens[0].value) == (7, "t7", 199)


def test_a_bank_without_a_table_says_so(tmp_path: Path, random: np.random.Generator):
    report = health(_bank(tmp_path, random.normal(size=(60, 32)), k=0))
    assert report.hubness is None
    assert report.near_duplicates is None
    assert _findings(report)["no-neighbor-table"].severity is Severity.INFO
    assert report.verdict == "meaning not tested (forms of words are too few to tell); geometry: no defect found"


def _unit(generator: np.random.Generator, size: int, dim: int) -> np.ndarray:
    return normalize(generator.normal(size=(size, dim)).astype(np.float32))[0]


def test_planted_duplicates_are_grouped_exactly_beyond_the_table(tmp_path: Path, random: np.random.Generator):
    rows = random.normal(size=(500, 32)).astype(np.float32)
    rows[100:160] = rows[3]
    rows[[20, 400]] = rows[19]
    rows[30] = 0
    rows[31] = 0
    rows[201] = rows[200]
    rows[201, 0] *= 1 + 1e-4
    report = health(_bank(tmp_path, rows, k=4), named=2)
    assert (report.duplicates.groups, report.duplicates.tokens, report.duplicates.largest) == (2, 64, 61)
    finding = _findings(report)["duplicates"]
    assert finding.severity is Severity.SERIOUS
    assert finding.count == 64
    assert [(group.size, [token.id for token in group.tokens]) for group in finding.groups] == [
        (61, [3, 100]), (3, [19, 20])
    ]  # fmt: skip
    assert report.near_duplicates is not None
    (near,) = _findings(report)["near-duplicates"].groups
    assert [token.id for token in near.tokens] == [200, 201]
    assert report.near_duplicates.groups == 1


@settings(max_examples=100, deadline=None)
@given(arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 8)))
def test_equal_groups_are_those_of_a_dictionary(rows: np.ndarray):
    first = np.array([int(np.flatnonzero(rows == row)[0]) for row in rows])
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows.tolist()):
        groups.setdefault(row, []).append(i)
    expected = sorted((g for g in groups.values() if len(g) > 1), key=lambda group: (-len(group), group[0]))
    assert [group.tolist() for group in duplicate_groups(first)] == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 25), st.data())
def test_near_groups_are_connected_components(size: int, data: st.DataObject):
    """Compared with a graph search from each token; tokens with the same row are one node."""
    first = np.arange(size)
    for i in range(1, size):
        if data.draw(st.booleans()):
            first[i] = first[data.draw(st.integers(0, i - 1))]
    ids = np.array([[data.draw(st.integers(0, size - 2))] for _ in range(size)], np.int32)
    ids += ids >= np.arange(size)[:, None]
    near = np.array([[data.draw(st.booleans())] for _ in range(size)])
    table = NeighborTable(ids, np.where(near, 0, 1).astype(np.float32))

    reached = np.equal.outer(first, first)
    for i in range(size):
        if near[i, 0]:
            reached[i, ids[i, 0]] = reached[ids[i, 0], i] = True
    for middle in range(size):
        reached |= np.outer(reached[:, middle], reached[middle])
    parts = {tuple(np.flatnonzero(row).tolist()) for row in reached}
    wanted = [part for part in parts if len({int(first[i]) for i in part}) > 1]
    expected = sorted(map(list, wanted), key=lambda part: (-len(part), min(first[i] for i in part)))
    assert [group.tolist() for group in near_duplicate_groups(table, np.ones(size, bool), first)] == expected


def test_a_chain_of_near_rows_is_one_group():
    size = 5_000
    ids = np.roll(np.arange(size, dtype=np.int32), -1)[:, None]
    costs = np.full((size, 1), NEAR_COST / 2, np.float32)
    costs[-1] = 1
    (group,) = near_duplicate_groups(NeighborTable(ids, costs), np.ones(size, bool), np.arange(size))
    assert len(group) == size


def test_zero_rows_of_usable_tokens_are_named(tmp_path: Path, random: np.random.Generator):
    rows = random.normal(size=(40, 32))
    rows[[4, 9, 11]] = 0
    status = [TokenStatus.OK] * 40
    status[9], status[11] = TokenStatus.BYTE, TokenStatus.SPECIAL
    report = health(_bank(tmp_path, rows, status=status))
    assert report.vectors == 37
    assert _ids(_findings(report)["zero-rows"]) == [4, 9]
    assert report.status == {"ok": 38, "byte": 1, "special": 1, "unused": 0, "unseen": 0}


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_saturated_rows_are_distinguished_from_normal_ones(tmp_path: Path, random: np.random.Generator, dtype: str):
    rows = random.normal(size=(2_000, 64))
    rows[[5, 77]] = 0.3 * random.choice([-1, 1], size=(2, 64))
    rows[78] = 0.3 * random.choice([-1, 1], size=64) * random.normal(1, 0.1, size=64)
    rows[500, :20] = 4 * np.sign(rows[500, :20])
    report = health(_bank(tmp_path, rows, k=0, dtype=dtype))
    assert report.saturation is not None
    assert (report.saturation.whole, report.saturation.partly) == (3, 1)
    assert report.saturation.median_variation == pytest.approx(np.sqrt(np.pi / 2 - 1), abs=0.02)
    whole = _findings(report)["saturated-rows"]
    assert sorted(_ids(whole)) == [5, 77, 78]
    assert _ids(whole)[-1] == 78
    partly = _findings(report)["partly-saturated-rows"]
    assert _ids(partly) == [500]
    assert partly.tokens[0].value == pytest.approx(20 / 64)


@pytest.mark.parametrize("dim", [32, 64, 512])
@pytest.mark.parametrize("kind", ["normal", "uniform", "laplace"])
def test_no_ordinary_row_is_taken_for_saturated(random: np.random.Generator, dim: int, kind: str):
    rows = getattr(random, kind)(size=(20_000, dim)) - (0.5 if kind == "uniform" else 0)
    magnitudes = np.abs(rows)
    variation = (magnitudes.std(axis=1) / magnitudes.mean(axis=1)).astype(np.float32)
    at_top = (magnitudes >= 0.99 * magnitudes.max(axis=1, keepdims=True)).sum(axis=1)
    whole, partly = saturated_rows(variation, at_top, dim)
    assert not whole.any()
    assert not partly.any()


def test_variation_is_that_of_the_magnitudes(tmp_path: Path, random: np.random.Generator):
    bank = _bank(tmp_path, random.normal(size=(50, 32)), k=0)
    magnitudes = np.abs(bank.vectors().astype(np.float64))
    measured = measure_rows(bank, QuietProgress())
    assert np.allclose(measured.variation, magnitudes.std(axis=1) / magnitudes.mean(axis=1), atol=1e-6)
    assert measured.at_top.tolist() == (magnitudes >= 0.99 * magnitudes.max(axis=1, keepdims=True)).sum(axis=1).tolist()


def test_saturation_is_not_claimed_of_turned_or_short_rows(tmp_path: Path, random: np.random.Generator):
    turned = health(_bank(tmp_path / "a", np.sign(random.normal(size=(50, 64))), transforms=["center"]))
    short = health(_bank(tmp_path / "b", np.sign(random.normal(size=(50, 8)))))
    assert turned.saturation is None
    assert short.saturation is None
    assert "a transform" in _findings(turned)["saturation-unknown"].meaning
    assert "fewer than 32" in _findings(short)["saturation-unknown"].meaning


def test_lengths_out_of_the_ordinary(random: np.random.Generator):
    lengths = random.lognormal(1, 0.1, size=5_000).astype(np.float32)
    lengths[[3, 4]], lengths[9] = 0.01, 100
    result = norm_outliers(lengths)
    assert (result.small, result.large) == (2, 1)
    assert result.median == pytest.approx(np.median(lengths))
    assert (result.least, result.largest) == (pytest.approx(0.01), 100)
    assert result.small_below == pytest.approx(np.e / 2, rel=0.02)  # narrow spread: the limit is half the median
    wide = norm_outliers(random.lognormal(1, 0.5, size=5_000).astype(np.float32))
    assert np.log(wide.large_above / wide.median) == pytest.approx(3, rel=0.1)
    assert (wide.small, wide.large) == (0, 0)
    assert norm_outliers(np.ones(3, np.float32)).small == 0


def test_nearness_to_unused_rows_is_judged_by_the_distribution(random: np.random.Generator):
    cosines = random.normal(0.1, 0.05, size=20_000).astype(np.float32)
    assert under_trained(cosines)[0].candidates == 0
    cosines[[7, 70, 700]] = 0.9, 0.99, 0.95
    result, ids = under_trained(cosines)
    assert ids.tolist() == [70, 700, 7]
    assert result.threshold == pytest.approx(0.55, abs=0.01)
    spread, _ = under_trained(random.normal(0, 0.2, size=20_000).clip(-0.99, 0.99).astype(np.float32))
    assert spread.threshold == pytest.approx(np.tanh(6 * 0.2), abs=0.03)
    assert under_trained(np.ones(5, np.float32))[0].candidates == 0


def _head(random: np.random.Generator) -> np.ndarray:
    """2,000 words, and 30 padding rows that share a direction, as weight decay and the softmax leave them."""
    rows = random.normal(size=(2_030, 64))
    shared = random.normal(size=64)
    rows[2_000:] = 0.05 * (shared + 0.2 * random.normal(size=(30, 64)))
    return rows


def _build(place: Path, head: np.ndarray, **settings) -> Bank:
    model = place / "model"
    model.mkdir(parents=True)
    (model / "vocab.txt").write_text("".join(f"word{i}\n" for i in range(2_000)))
    rows = head.astype(np.float32)
    write_tensors(model / "model.safetensors", {"lm_head.weight": (TensorSpec("F32", rows.shape), [rows])})
    settings.setdefault("neighbors", NeighborsConfig(k=10))
    return costbank.build(
        build_config(source="lm-head", name="m", store=place / "store", lm_head=LMHeadConfig(model=model), **settings)
    )


def test_a_head_without_defects_whose_vocabulary_has_no_word_forms(tmp_path: Path, random: np.random.Generator):
    report = health(_build(tmp_path, _head(random)))
    assert report.quality is Quality.UNKNOWN
    assert report.verdict == "meaning not tested (forms of words are too few to tell); geometry: no defect found"
    assert {finding.code for finding in report.findings} <= {"hubs", "word-forms-unknown"}
    assert report.under_training is not None
    assert report.under_training.candidates == 0
    assert report.status["unused"] == 30
    assert report.vectors == 2_000
    assert abs(report.mean_cosine or 1) < 0.01


@pytest.mark.parametrize("transforms", [(), ("center",)])
def test_a_head_with_everything_wrong_has_it_all_named(
    tmp_path: Path, random: np.random.Generator, transforms: tuple[str, ...]
):
    head = _head(random)
    head[[40, 41, 42, 43]] = head[2_000:].mean(axis=0) + 0.01 * random.normal(size=(4, 64))
    head[[100, 101, 102]] = random.choice([-0.1, 0.1], size=(3, 64))
    head[[200, 300]] = head[199]
    head[400] *= 50
    head[500] *= 0.001
    head[600] = 0
    report = health(_build(tmp_path, head, transforms=transforms))
    codes = _findings(report)
    assert sorted(_ids(codes["under-trained"])) == [40, 41, 42, 43]
    assert {40, 41, 42, 43, 100, 101, 102, 500} == set(_ids(codes["small-norms"]))
    assert _ids(codes["small-norms"])[0] == 500
    assert _ids(codes["large-norms"]) == [400]
    assert _ids(codes["unseen-tokens"]) == [600]
    (group,) = codes["duplicates"].groups
    assert [token.id for token in group.tokens] == [199, 200, 300]
    if transforms:
        assert report.saturation is None
    else:
        assert sorted(_ids(codes["saturated-rows"])) == [100, 101, 102]
        assert codes["saturated-rows"].severity is Severity.WARNING
    assert report.verdict.startswith("meaning not tested (forms of words are too few to tell); geometry: small-norms, ")
    assert "under-trained" in report.verdict
    assert "large-norms" not in report.verdict


def test_the_report_on_a_head_without_unused_rows_says_what_is_unknown(tmp_path: Path, random: np.random.Generator):
    head = _head(random)[:2_000]
    head[7] *= 0.01
    report = health(_build(tmp_path, head))
    assert report.under_training is None
    assert "small norms" in _findings(report)["no-unused-rows"].meaning
    assert _ids(_findings(report)["small-norms"]) == [7]


def test_rows_that_tokens_share_stand_for_unused_ones(tmp_path: Path, random: np.random.Generator):
    """In a head without unused ids, tokens that were never seen share one row, and rarely seen ones are near it."""
    head = _head(random)[:2_000]
    untrained = random.normal(size=64)
    head[[10, 20, 30, 40, 50, 60, 70, 80]] = untrained
    head[[500, 600]] = untrained + 0.1 * random.normal(size=(2, 64))
    report = health(_build(tmp_path / "shared", head))
    assert report.under_training is not None
    assert report.under_training.reference == "equal-rows"
    assert set(_ids(_findings(report)["under-trained"])) == {10, 20, 30, 40, 50, 60, 70, 80, 500, 600}
    assert "share bit for bit" in _findings(report)["under-trained"].meaning
    head[[10, 20, 30, 40]] = random.normal(size=64)
    assert health(_build(tmp_path / "two", head)).under_training is None, "rows of two directions stand for neither"
    transformed = _build(tmp_path / "turned", head, transforms=("center",))
    assert health(transformed).under_training is None


def test_a_common_direction_is_found_and_the_advice_works(tmp_path: Path, random: np.random.Generator):
    head = _head(random) + 1.2
    before = health(_build(tmp_path / "before", head))
    finding = _findings(before)["high-mean-cosine"]
    assert finding.severity is Severity.WARNING
    assert "--set 'transforms=[\"center\"]'" in finding.advice
    after = health(_build(tmp_path / "after", head, transforms=("center",)))
    assert abs(after.mean_cosine or 1) < 0.01
    assert all(finding.severity is Severity.INFO for finding in after.findings)


def test_advice_names_only_settings_that_exist(tmp_path: Path, random: np.random.Generator):
    import re

    from costbank.config import SOURCE_SECTIONS, load_config

    head = _head(random) + 1.2
    head[:200] = head[200]
    for source in SOURCE_SECTIONS:
        bank = _bank(
            tmp_path / source, head, k=0, source=source, status=[TokenStatus.UNSEEN, *[TokenStatus.OK] * 2_029]
        )
        for finding in health(bank).findings:
            for text in re.findall(r"--set ('[^']+'|[^ ,.]+\.?[^ ,.]*)", finding.advice):
                load_config({"source": source}, [text.strip("'").replace("=N", "=3")])
            for name in re.findall(r"--source (\S+)", finding.advice):
                load_config({"source": name})


@pytest.mark.parametrize(("source", "severity"), [("lm-head", "serious"), ("vectors", "info"), ("transfer", "info")])
def test_rows_that_are_shared_by_intent_are_no_warning(
    tmp_path: Path, random: np.random.Generator, source: str, severity: str
):
    """`king` and ` king` can get the same word's vector by design; in a pretrained head, equal rows are a defect."""
    head = _head(random)
    head[:400] = head[400]
    (result,) = [one for one in health(_bank(tmp_path, head, source=source)).findings if one.code == "duplicates"]
    assert result.severity.value == severity
    assert ("checkpoint" in result.advice) == (source == "lm-head")


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_banks_of_format_1_without_raw_rows(name: str):
    report = health(Bank(GOLDEN.resolve(name)))
    assert report.norms is None
    assert report.under_training is None
    assert {"no-raw-norms", "no-unused-rows", "saturation-unknown"} <= set(_findings(report))
    assert report.vectors == 260


@pytest.mark.slow
def test_a_word2vec_bank(news_bank: Bank):
    report = health(news_bank)
    rows = news_bank.vectors().astype(np.float64)
    rows = rows[rows.any(axis=1)]
    pairs = (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
    assert report.mean_cosine == pytest.approx(pairs.mean(), abs=1e-6)
    assert report.isotropy is not None
    assert report.isotropy.score == pytest.approx(_iso_score_step_by_step(rows), abs=1e-5)
    assert report.hubness is not None
    counts = k_occurrences(news_bank.neighbors, 10)[news_bank.usable].astype(float)
    assert report.hubness.skewness == pytest.approx(stats.skew(counts), abs=1e-9)
    assert "min_count" in _findings(report)["no-unused-rows"].meaning


@pytest.mark.parametrize("rows", [np.zeros((5, 30)), np.eye(5, 30)[:1], np.vstack([np.eye(1, 30), np.zeros((3, 30))])])
@pytest.mark.parametrize("k", [0, 3])
def test_banks_with_hardly_a_vector(tmp_path: Path, rows: np.ndarray, k: int):
    report = health(_bank(tmp_path, rows, k=k))
    assert report.vectors == int(rows.any())
    assert report.mean_cosine is None
    assert report.isotropy is None
    assert ("no-vectors" in _findings(report)) == (not rows.any())
    json.dumps(asdict(report), allow_nan=False)


@pytest.mark.parametrize(
    ("file", "tensor", "value", "message"),
    [
        ("vectors.safetensors", "vectors", np.float32("nan"), "row 2 has NaN"),
        ("vectors.safetensors", "vectors", np.float32("inf"), "row 2 has NaN or infinity"),
        ("vectors.safetensors", "vectors", np.float32("3e38"), "row 2 has"),
        ("rows.safetensors", "norms", np.float32("nan"), "lengths or cosines"),
        ("rows.safetensors", "norms", np.float32(-1), "lengths or cosines"),
        ("rows.safetensors", "to_unused", np.float32("inf"), "lengths or cosines"),
        ("neighbors.safetensors", "ids", np.int32(30), "outside the vocabulary"),
        ("neighbors.safetensors", "ids", np.int32(-2), "outside the vocabulary"),
    ],
)
def test_content_that_no_bank_has_is_named(
    tmp_path: Path, random: np.random.Generator, file: str, tensor: str, value: np.generic, message: str
):
    """The sizes do not change, so opening the bank does not detect the damage."""
    place = _bank(tmp_path, random.normal(size=(30, 8))).path
    begin = read_header(place / file).start + read_header(place / file).entries[tensor].begin
    data = np.fromfile(place / file, np.uint8)
    row = begin + 2 * 4 * (8 if tensor == "vectors" else 10 if tensor == "ids" else 1)
    data[row : row + 4] = np.frombuffer(value.tobytes(), np.uint8)
    (place / file).write_bytes(data.tobytes())
    with pytest.raises(CorruptBankError, match=message) as caught:
        health(Bank(place))
    assert caught.value.hint


@pytest.mark.parametrize("dim", [1, 2])
def test_rows_of_next_to_no_elements(tmp_path: Path, random: np.random.Generator, dim: int):
    json.dumps(asdict(health(_bank(tmp_path, random.normal(size=(30, dim))))), allow_nan=False)


def test_findings_are_ordered_and_named_as_far_as_asked(tmp_path: Path, random: np.random.Generator):
    rows = random.normal(size=(3_000, 32)) * random.lognormal(0, 0.1, size=(3_000, 1))
    rows[::20] = rows[0]
    rows[1:40:2] *= 0.01
    report = health(_bank(tmp_path, rows, k=0), named=3)
    weights = [list(Severity).index(finding.severity) for finding in report.findings]
    assert weights == sorted(weights, reverse=True)
    assert all(len(finding.tokens) <= 3 and len(finding.groups) <= 3 for finding in report.findings)
    assert _findings(report)["small-norms"].count == 20
    assert all(finding.meaning.endswith(".") and finding.advice.endswith(".") for finding in report.findings)


def test_what_the_advice_says_of_centering_is_in_the_rows():
    rows = [row for row in read_rows(ROWS) if row["setting"] == "continued-small" and row["split"] == "valid"]
    with_raw = {row["other text"] for row in rows if row["arm"] == "head-all-raw"}
    means = {
        (arm, measure): np.mean([row[measure] for row in rows if row["arm"] == arm and row["other text"] in with_raw])
        for arm in ("head-64-0.05", "head-64-raw", "head-all", "head-all-raw")
        for measure in ("ce", "other text: ce")
    }
    new, earlier = (
        [f"{abs(100 * np.expm1(means[centered, measure] - means[raw, measure])):.1f}"
         for centered, raw in (("head-64-0.05", "head-64-raw"), ("head-all", "head-all-raw"))]
        for measure in ("ce", "other text: ce")
    )  # fmt: skip
    advice = shared_direction_advice("lm-head", 64, transformed=False)
    assert f"{earlier[0]} to {earlier[1]} % lower perplexity" in advice
    assert f"{new[0]} to {new[1]} % higher perplexity" in advice
