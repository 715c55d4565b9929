import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from costbank.corpus import cache as cache_module
from costbank.corpus import encode_corpus
from costbank.errors import CorpusError
from costbank.progress import QuietProgress
from costbank.tokenizers import load_tokenizer

QUIET = QuietProgress()
IDS = np.arange(2_000)


def test_ids_and_ends_are_the_tokenizers_own(news: Path, news_model: Path, tmp_path: Path):
    corpus = encode_corpus([news], load_tokenizer(news_model), "line", tmp_path, QUIET)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(news_model))
    lines = [line for line in news.read_text("utf-8").split("\n") if line.strip()]
    expected = processor.encode(lines)
    assert corpus.documents == len(lines)
    assert list(corpus.sentences(10_000, IDS)) == expected
    assert np.array_equal(corpus.counts, np.bincount([i for ids in expected for i in ids], minlength=2_000))
    assert corpus.files[0].ids.dtype == np.uint16


def test_long_documents_are_cut_and_nothing_is_lost(news: Path, news_model: Path, tmp_path: Path):
    corpus = encode_corpus([news], load_tokenizer(news_model), "line", tmp_path, QUIET)
    cut = list(corpus.sentences(37, IDS))
    assert max(map(len, cut)) == 37
    assert len(cut) == corpus.sentence_count(37)
    assert list(chain(*cut)) == list(chain(*corpus.sentences(10_000, IDS)))


def test_a_file_is_encoded_once(news: Path, news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tokenizer = load_tokenizer(news_model)
    first = encode_corpus([news], tokenizer, "line", tmp_path, QUIET)
    monkeypatch.setattr(cache_module, "_encode_into", None)
    again = encode_corpus([news], tokenizer, "line", tmp_path, QUIET)
    assert np.array_equal(first.files[0].ids, again.files[0].ids)


def test_another_rule_or_content_is_encoded_anew(news_model: Path, tmp_path: Path):
    tokenizer, path = load_tokenizer(news_model), tmp_path / "text"
    path.write_text("one two\nthree\n\nfour\n")
    assert encode_corpus([path], tokenizer, "line", tmp_path / "cache", QUIET).documents == 3
    assert encode_corpus([path], tokenizer, "paragraph", tmp_path / "cache", QUIET).documents == 2
    path.write_text("one two\n")
    assert encode_corpus([path], tokenizer, "line", tmp_path / "cache", QUIET).documents == 1


def test_a_bad_file_leaves_nothing_in_the_cache(news_model: Path, tmp_path: Path):
    path = tmp_path / "text"
    path.write_bytes(b"fine\n" * 2_000_000 + b"\xff\n")
    with pytest.raises(CorpusError):
        encode_corpus([path], load_tokenizer(news_model), "line", tmp_path / "cache", QUIET)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_removed(news: Path, news_model: Path, tmp_path: Path):
    left = tmp_path / ".staging-left"
    left.mkdir()
    (left / "ids").write_bytes(b"half")
    encode_corpus([news], load_tokenizer(news_model), "line", tmp_path, QUIET)
    assert not left.exists()


def test_a_corpus_without_words_is_refused(news_model: Path, tmp_path: Path):
    path = tmp_path / "blank"
    path.write_text("\n \n\n")
    with pytest.raises(CorpusError, match="holds no text"):
        encode_corpus([path], load_tokenizer(news_model), "line", tmp_path / "cache", QUIET)


@pytest.mark.parametrize(("name", "bytes_kept"), [("ids", 1_001), ("ids", 1_000), ("ends", 80), ("ends", 0)])
def test_an_entry_that_is_not_whole_is_encoded_anew(
    news: Path, news_model: Path, tmp_path: Path, name: str, bytes_kept: int
):
    tokenizer = load_tokenizer(news_model)
    whole = encode_corpus([news], tokenizer, "line", tmp_path, QUIET).counts
    (entry,) = tmp_path.iterdir()
    os.truncate(entry / name, bytes_kept)
    assert np.array_equal(encode_corpus([news], tokenizer, "line", tmp_path, QUIET).counts, whole)


def test_another_version_of_the_tokenizers_library_encodes_anew(
    news: Path, news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = load_tokenizer(news_model)
    encode_corpus([news], tokenizer, "line", tmp_path, QUIET)
    monkeypatch.setattr(cache_module, "version", lambda name: f"{name} 99")
    encode_corpus([news], tokenizer, "line", tmp_path, QUIET)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(
    news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, encode = tmp_path / "text", cache_module._encode_into
    path.write_text("one two\n")

    def append_meanwhile(directory, text, *rest):
        encode(directory, text, *rest)
        with text.open("a") as file:
            file.write("three\n")

    monkeypatch.setattr(cache_module, "_encode_into", append_meanwhile)
    with pytest.raises(CorpusError, match="was changed while it was read"):
        encode_corpus([path], load_tokenizer(news_model), "line", tmp_path / "cache", QUIET)
    assert list((tmp_path / "cache").iterdir()) == []
