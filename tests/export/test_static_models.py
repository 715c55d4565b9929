"""Folders that model2vec and sentence-transformers open, and in which a text is the mean of the bank's rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer

from costbank.bank import Bank
from costbank.errors import StorageError, TokenizerError, UsageError
from costbank.export import export_bank
from costbank.tokenizers import load_tokenizer

TEXTS = [
    "The minister said on Monday that the budget is balanced.",
    "king",
    "a\n b  \tc 日本 🙂",
    "the " * 2_000 + "king " * 2_000,
]
TOLERANCE = 5e-5  # both sum thousands of rows in float32
BOTH = ["model2vec", "sentence-transformers"]


def _means(bank: Bank, tokenizer: Path, without: int | None = None) -> np.ndarray:
    encoded = [load_tokenizer(tokenizer).encode([text])[0] for text in TEXTS]
    return np.stack([bank.vectors(ids[ids != without]).astype("f8").mean(axis=0) for ids in encoded])


def _encoded(folder: Path, library: str) -> np.ndarray:
    if library == "model2vec":
        return StaticModel.from_pretrained(folder).encode(TEXTS)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(TEXTS, show_progress_bar=False)


@pytest.mark.parametrize("library", BOTH)
def test_a_text_is_the_mean_of_the_rows_of_its_ids(news_bank: Bank, news_model: Path, tmp_path: Path, library: str):
    exported = export_bank(news_bank, library, tmp_path / "model", news_model)
    np.testing.assert_allclose(_encoded(tmp_path / "model", library), _means(news_bank, news_model), atol=TOLERANCE)
    assert exported.rows == news_bank.size
    assert {path.name for path in exported.files} == {path.name for path in (tmp_path / "model").iterdir()}


@pytest.mark.parametrize("library", BOTH)
def test_rows_past_the_tokenizer_are_kept(news_model: Path, bank_of, tmp_path: Path, library: str):
    bank = bank_of(news_model, spare=7)
    export_bank(bank, library, tmp_path / "model", news_model)
    tensors = safetensors.numpy.load_file(tmp_path / "model" / "model.safetensors")
    rows = tensors["embeddings" if library == "model2vec" else "embedding.weight"]
    assert rows.dtype == np.float32
    assert np.array_equal(rows, bank.vectors())
    np.testing.assert_allclose(_encoded(tmp_path / "model", library), _means(bank, news_model), atol=TOLERANCE)


def test_ids_that_no_token_has_keep_their_rows(bank_of, tmp_path: Path):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 3}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    bank = bank_of(tmp_path)
    export_bank(bank, "model2vec", tmp_path / "model", tmp_path)
    embeddings = StaticModel.from_pretrained(tmp_path / "model").encode(["b", "a b"])
    np.testing.assert_allclose(embeddings, [bank.vectors()[3], bank.vectors()[[1, 3]].mean(axis=0)], atol=TOLERANCE)


def test_model2vec_leaves_the_unknown_token_out(news: Path, bank_of, tmp_path: Path):
    from costbank.tokenizers.train import train_sentencepiece

    path = train_sentencepiece([news], tmp_path / "m.model", 900, byte_fallback=False)
    bank = bank_of(path)
    for library, without in (("model2vec", 0), ("sentence-transformers", None)):
        export_bank(bank, library, tmp_path / library, path)
        np.testing.assert_allclose(_encoded(tmp_path / library, library), _means(bank, path, without), atol=TOLERANCE)


def test_sentence_transformers_opens_what_is_for_model2vec_too(news_model: Path, bank_of, tmp_path: Path):
    bank = bank_of(news_model, spare=7)
    export_bank(bank, "model2vec", tmp_path / "model", news_model)
    np.testing.assert_allclose(
        _encoded(tmp_path / "model", "sentence-transformers"), _means(bank, news_model), atol=TOLERANCE
    )


@pytest.mark.parametrize("library", BOTH)
def test_the_tokenizer_is_required_and_must_be_the_banks(news_bank: Bank, news: Path, tmp_path: Path, library: str):
    from costbank.tokenizers.train import train_sentencepiece

    with pytest.raises(UsageError, match="a bank contains only a vocabulary") as caught:
        export_bank(news_bank, library, tmp_path / "model")
    assert "--tokenizer" in caught.value.hint
    other = train_sentencepiece([news], tmp_path / "other.model", 900)
    with pytest.raises(TokenizerError, match="not the tokenizer of this bank"):
        export_bank(news_bank, library, tmp_path / "model", other)
    assert [path.name for path in tmp_path.iterdir()] == ["other.model"]


@pytest.mark.parametrize("library", BOTH)
def test_the_estimated_size_is_enough(news_bank: Bank, news_model: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch, library: str):  # fmt: skip
    from costbank.export import FORMATS, publish

    exported = export_bank(news_bank, library, tmp_path / "model", news_model)
    assert (
        exported.size
        <= FORMATS[library].estimate_bytes(news_bank, "F32") + (tmp_path / "model" / "tokenizer.json").stat().st_size
    )
    monkeypatch.setattr(publish, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1_000))
    with pytest.raises(StorageError, match="MB free"):
        export_bank(news_bank, library, tmp_path / "other", news_model)


def test_the_configurations_are_plain_json(news_bank: Bank, news_model: Path, tmp_path: Path):
    export_bank(news_bank, "model2vec", tmp_path / "model", news_model)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["normalize"], config["max_length"], config["hidden_dim"]) == (False, None, news_bank.dim)
    assert f"{news_bank.name}@{news_bank.id}" in (tmp_path / "model" / "README.md").read_text()
