import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gensim.models import Word2Vec

import costbank
from costbank.bank import Bank
from costbank.config import BuildConfig, CorpusConfig, Word2VecConfig, build_config
from costbank.errors import CorpusError, UsageError
from costbank.progress import QuietProgress
from costbank.sources import plan_source
from costbank.tokenizers import load_tokenizer
from costbank.vocab import TokenStatus
from tests.unit.recorded_progress import RecordedProgress


def _with(config: BuildConfig, **settings: object) -> BuildConfig:
    return config.model_copy(update={"word2vec": config.word2vec.model_copy(update=settings)})


@pytest.mark.slow
@pytest.mark.parametrize("document_tokens", [10, 1_000, 100_000])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_token_is_trained_however_long_the_documents(
    news: Path, news_model: Path, tmp_path: Path, document_tokens: int, workers: int
):
    words = news.read_text("utf-8").split()
    lines = [" ".join(words[i : i + document_tokens // 2]) for i in range(0, len(words), document_tokens // 2)]
    text = tmp_path / "text"
    text.write_text("\n".join(lines))
    config = build_config(
        source="word2vec", tokenizer=news_model, cache=tmp_path / "cache", corpus=CorpusConfig(files=(text,)),
        word2vec=Word2VecConfig(dim=8, epochs=2, window=2, negative=1, workers=workers),
    )  # fmt: skip
    facts = plan_source(config).make(QuietProgress()).facts
    assert facts["trained_tokens"] == facts["expected_tokens"] == 2 * facts["corpus_tokens"]
    assert facts["corpus_documents"] == len(lines)


@pytest.mark.slow
def test_one_worker_gives_the_same_bank_again(news_config: BuildConfig, news_bank: Bank, tmp_path: Path):
    again = costbank.build(news_config.model_copy(update={"store": tmp_path}))
    assert again.id == news_bank.id
    assert news_bank.manifest.reproducible


@pytest.mark.slow
def test_several_workers_say_that_they_are_not_reproducible(news_config: BuildConfig, tmp_path: Path):
    config = _with(news_config, workers=2).model_copy(update={"store": tmp_path})
    assert not costbank.build(config).manifest.reproducible


def test_another_seed_gives_another_bank(news_config: BuildConfig, news_bank: Bank, tmp_path: Path):
    assert costbank.build(_with(news_config, seed=7).model_copy(update={"store": tmp_path})).id != news_bank.id


def test_rare_ids_are_unseen_zero_rows_and_all_others_unit_rows(news_bank: Bank):
    vocab = news_bank.vocab
    norms = np.linalg.norm(news_bank.vectors(), axis=1)
    rare = (vocab.counts < 2) & np.isin(vocab.status, (TokenStatus.OK, TokenStatus.BYTE, TokenStatus.UNSEEN))
    assert (vocab.status[rare] == TokenStatus.UNSEEN).all()
    assert rare.sum() > 100
    assert (norms[vocab.counts < 2] == 0).all()
    assert np.allclose(norms[vocab.counts >= 2], 1, atol=1e-6)


def test_rows_are_gensims_vectors_under_their_ids(news: Path, news_config: BuildConfig, news_model: Path):
    """gensim trains on lists of strings in the same way: all rows are equal to the last bit."""
    tokenizer = load_tokenizer(news_model)
    source = plan_source(news_config).make(QuietProgress())
    rows = np.concatenate(list(source.blocks))
    lines = [line for line in news.read_text("utf-8").split("\n") if line.strip()]
    sentences = [[str(i) for i in tokenizer.encode([line])[0]] for line in lines]
    counts = Counter(token for sentence in sentences for token in sentence)
    model = Word2Vec(vector_size=24, epochs=2, min_count=2, workers=1, seed=1, sg=1)
    model.build_vocab_from_freq(
        {str(i): counts[str(i)] for i in range(2_000) if counts[str(i)]}, corpus_count=len(lines)
    )
    model.train(sentences, total_examples=len(lines), total_words=counts.total(), epochs=2)
    assert source.facts["trained_ids"] == len(model.wv)
    for token in model.wv.index_to_key:
        assert np.array_equal(rows[int(token)], model.wv[token])


@pytest.mark.parametrize(("text", "problem"), [("the\n", "ids occur"), ("the the the the the\n", "1 id occurs")])
def test_a_corpus_too_small_to_tell_ids_apart_is_refused(
    news_config: BuildConfig, tmp_path: Path, text: str, problem: str
):
    (tmp_path / "text").write_text(text)
    config = news_config.model_copy(
        update={"corpus": CorpusConfig(files=(tmp_path / "text",)), "store": tmp_path / "store"}
    )
    with pytest.raises(CorpusError, match=problem) as caught:
        costbank.build(config)
    assert "min_count" in caught.value.hint
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_an_error_while_gensim_reads_reaches_the_caller(news_config: BuildConfig, tmp_path: Path):
    """gensim reads in its own thread. The encoded text is deleted after the first epoch."""
    config = _with(news_config, epochs=3, workers=1).model_copy(update={"cache": tmp_path})

    def delete(title: str) -> None:
        if title == "train Word2Vec":
            shutil.rmtree(tmp_path / "text", ignore_errors=True)

    with pytest.raises(FileNotFoundError, match="text"):
        plan_source(config).make(RecordedProgress(delete))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"sg": False}, {"hs": True}, {"hs": True, "negative": 0}, {"sg": False, "hs": True, "sample": 0.0}],
    ids=["CBOW", "softmax and noise", "softmax alone", "CBOW, softmax, no subsampling"],
)
def test_rows_are_gensims_whatever_the_objective(
    news: Path, news_config: BuildConfig, news_model: Path, settings: dict[str, object]
):
    rows = np.concatenate(list(plan_source(_with(news_config, epochs=1, **settings)).make(QuietProgress()).blocks))
    tokenizer = load_tokenizer(news_model)
    lines = [line for line in news.read_text("utf-8").split("\n") if line.strip()]
    sentences = [[str(i) for i in tokenizer.encode([line])[0]] for line in lines]
    counts = Counter(token for sentence in sentences for token in sentence)
    model = Word2Vec(vector_size=24, epochs=1, min_count=2, workers=1, seed=1, **({"sg": 1} | settings))
    model.build_vocab_from_freq(
        {str(i): counts[str(i)] for i in range(2_000) if counts[str(i)]}, corpus_count=len(lines)
    )
    model.train(sentences, total_examples=len(lines), total_words=counts.total(), epochs=1)
    for token in model.wv.index_to_key:
        assert np.array_equal(rows[int(token)], model.wv[token])


def test_nothing_to_train_against_is_refused(news_config: BuildConfig):
    with pytest.raises(UsageError, match="leave no training target"):
        plan_source(_with(news_config, negative=0))
