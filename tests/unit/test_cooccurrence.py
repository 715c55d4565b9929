from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import costbank
from costbank.bank import Bank
from costbank.config import BuildConfig, CooccurrenceConfig, CorpusConfig, EngineConfig, build_config
from costbank.errors import CorpusError, UsageError
from costbank.progress import QuietProgress
from costbank.sources import plan_source
from costbank.tokenizers import load_tokenizer
from costbank.vocab import TokenStatus


@pytest.fixture(scope="module")
def config(news: Path, news_model: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    place = tmp_path_factory.mktemp("counted")
    return build_config(
        source="cooccurrence", tokenizer=news_model, name="news", store=place / "store", cache=place / "cache",
        corpus=CorpusConfig(files=(str(news),)),
        cooccurrence=CooccurrenceConfig(dim=24, power=0.5, side="both", window=5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bank(config: BuildConfig) -> Bank:
    return costbank.build(config)


def _with(config: BuildConfig, tmp_path: Path, **settings: object) -> BuildConfig:
    changed = config.cooccurrence.model_copy(update=settings)
    return config.model_copy(update={"cooccurrence": changed, "store": tmp_path / "store"})


@pytest.mark.slow
def test_rows_are_those_of_the_formula_done_densely(news: Path, news_model: Path, bank: Bank):
    """An independent definition: pairs counted one by one, logarithms in float64, a full decomposition."""
    tokenizer = load_tokenizer(news_model)
    size, window, alpha = tokenizer.vocab.size, 5, 0.75
    counts, frequency = np.zeros((size, size)), Counter()
    for line in news.read_text("utf-8").split("\n"):
        ids = tokenizer.encode([line])[0].tolist()
        frequency.update(ids)
        for at, token in enumerate(ids):
            for distance in range(1, min(window, len(ids) - 1 - at) + 1):
                counts[token, ids[at + distance]] += window + 1 - distance
                counts[ids[at + distance], token] += window + 1 - distance
    kept = np.array([frequency[i] >= 5 for i in range(size)])
    marginals = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(counts * (marginals**alpha).sum() / (marginals[:, None] * marginals[None, :] ** alpha))
    ppmi = np.where(counts > 0, np.maximum(pmi, 0), 0)[kept][:, kept]
    # The squares of the singular values, and the left singular vectors.
    squares, left = np.linalg.eigh(ppmi @ ppmi.T)
    rows = left[:, :-25:-1] * squares[:-25:-1] ** 0.25
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result = bank.vectors(np.flatnonzero(kept))
    assert np.abs(result @ result.T - rows @ rows.T).max() < 1e-4
    assert (bank.vocab.status[kept] != TokenStatus.UNSEEN).all()
    assert (np.linalg.norm(bank.vectors(np.flatnonzero(~kept)), axis=1) == 0).all()


@pytest.mark.slow
def test_the_bank_is_the_same_on_any_number_of_processes(config: BuildConfig, bank: Bank, tmp_path: Path):
    for processes in (1, 2, 3):
        again = _with(config, tmp_path).model_copy(
            update={"engine": EngineConfig(processes=processes), "cache": tmp_path / str(processes)}
        )
        assert costbank.build(again).id == bank.id
    assert bank.manifest.reproducible


def test_the_manifest_records_how_the_bank_was_built(bank: Bank, news: Path):
    facts = bank.manifest.facts
    assert facts["corpus_documents"] == len([line for line in news.read_text("utf-8").split("\n") if line.strip()])
    assert len(facts["counts_sha256"]) == 64
    assert facts["residual"] < 1e-5
    assert bank.manifest.inputs[0]["name"] == news.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"window": 2}, {"weighting": "flat"}, {"min_count": 20}, {"min_pair": 5}, {"contexts": 300}, {"smoothing": 1.0},
     {"shift": 3.0}, {"cap": 1.5}, {"power": 0.0}],
    ids=lambda settings: next(iter(settings)),
)  # fmt: skip
def test_every_setting_has_an_effect(config: BuildConfig, bank: Bank, tmp_path: Path, settings: dict[str, object]):
    other = costbank.build(_with(config, tmp_path, **settings))
    both = np.array([bank.has_vector(i) and other.has_vector(i) for i in range(bank.size)])
    assert not np.allclose(bank.vectors(np.flatnonzero(both)), other.vectors(np.flatnonzero(both)), atol=1e-3)


def test_a_matrix_that_does_not_fit_into_memory_is_refused_with_a_hint(config: BuildConfig, tmp_path: Path):
    large = _with(config, tmp_path, dim=8_000).model_copy(update={"engine": EngineConfig(memory=64 << 20)})
    with pytest.raises(CorpusError, match="factorizing the matrix of") as caught:
        costbank.build(large)
    assert "min_pair" in caught.value.hint


def test_counts_of_few_dimensions_leave_the_others_zero(news_model: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("the a of\n" * 50)
    source = plan_source(
        build_config(
            source="cooccurrence", tokenizer=news_model, cache=tmp_path, corpus=CorpusConfig(files=(str(text),)),
            cooccurrence=CooccurrenceConfig(dim=64),
        )
    ).make(QuietProgress())  # fmt: skip
    rows = np.concatenate(list(source.blocks))
    assert np.isfinite(rows).all()
    assert 0 < (rows != 0).any(axis=0).sum() < 10


def test_a_corpus_without_pairs_within_the_window_is_refused(news_model: Path, tmp_path: Path):
    ids = np.array([5, 6] * 40, np.uint16)
    np.save(tmp_path / "ids.npy", ids.reshape(-1, 1))
    config = build_config(
        source="cooccurrence", tokenizer=news_model, store=tmp_path, cache=tmp_path,
        corpus=CorpusConfig(files=(str(tmp_path / "ids.npy"),)),
    )  # fmt: skip
    with pytest.raises(CorpusError, match="no window of the corpus has two tokens") as caught:
        costbank.build(config)
    assert "corpus.documents" in caught.value.hint


def test_text_is_needed(news_model: Path):
    with pytest.raises(UsageError, match="needs a corpus"):
        plan_source(build_config(source="cooccurrence", tokenizer=news_model))
