import os
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from costbank.corpus import (
    EncodedCorpus,
    EncodingOptions,
    Sampling,
    digests,
    encode_corpus,
    encoding,
    refuse_sampling,
    token_counts,
)
from costbank.corpus.readers import DEFAULT_PART_SIZES, PartSizes, ReadOptions, find_files
from costbank.engines import open_engine
from costbank.errors import CorpusError, UsageError
from costbank.progress import QuietProgress
from costbank.sources.cooccurrence.counting import pair_weights
from costbank.sources.cooccurrence.pair_counts import count_pairs
from costbank.tokenizers import load_tokenizer
from costbank.vocab import TokenStatus
from tests.unit.recorded_progress import RecordedProgress

IDS = np.arange(2_000)


SMALL_PARTS = PartSizes(min_bytes=20_000)


def _encode(
    files: list[Path], model: Path, cache: Path, rule: str = "line", processes: int = 1, progress=None,
    part_sizes: PartSizes = DEFAULT_PART_SIZES, **options
) -> EncodedCorpus:  # fmt: skip
    encoding = EncodingOptions(model, "auto", ReadOptions(rule), **options)
    corpus_files = find_files([str(file) for file in files])
    with open_engine("local", processes, None, None, cache) as engine:
        return encode_corpus(
            corpus_files, encoding, load_tokenizer(model), engine, cache, progress or QuietProgress(), part_sizes
        )


def _entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "text").rglob("*") if path.is_file()]


def test_ids_and_ends_are_the_tokenizers_own(news: Path, news_model: Path, tmp_path: Path):
    corpus = _encode([news], news_model, tmp_path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(news_model))
    lines = [line for line in news.read_text("utf-8").split("\n") if line.strip()]
    expected = processor.encode(lines)
    assert corpus.documents == len(lines)
    assert list(corpus.sentences(10_000, IDS)) == expected
    with open_engine("local", 1, None, None, tmp_path) as engine:
        counts = token_counts(corpus, engine, lambda _: None)
    assert np.array_equal(counts, np.bincount([i for ids in expected for i in ids], minlength=2_000))
    assert corpus.parts[0].ids.dtype == np.uint16


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_parts_are_encoded_side_by_side_and_come_in_the_order_of_the_text(
    news: Path, news_model: Path, tmp_path: Path, processes: int
):
    corpus = _encode([news], news_model, tmp_path, processes=processes, part_sizes=SMALL_PARTS)
    assert len(corpus.parts) > 10
    lines = [line for line in news.read_text("utf-8").split("\n") if line.strip()]
    expected = sentencepiece.SentencePieceProcessor(model_file=str(news_model)).encode(lines)
    assert list(corpus.sentences(10_000, IDS)) == expected
    assert corpus.documents == len(lines)


def test_long_documents_are_cut_and_nothing_is_lost(news: Path, news_model: Path, tmp_path: Path):
    corpus = _encode([news], news_model, tmp_path)
    cut = list(corpus.sentences(37, IDS))
    assert max(map(len, cut)) == 37
    assert len(cut) == corpus.sentence_count(37)
    assert list(chain(*cut)) == list(chain(*corpus.sentences(10_000, IDS)))


def test_a_file_is_encoded_once(news: Path, news_model: Path, tmp_path: Path):
    steps: list[list[str]] = []
    corpora: list[EncodedCorpus] = []
    for _ in range(2):
        progress = RecordedProgress()
        corpora.append(_encode([news], news_model, tmp_path, progress=progress))
        steps.append(progress.steps)
    assert ["encode text" in run for run in steps] == [True, False]
    assert np.array_equal(corpora[0].parts[0].ids, corpora[1].parts[0].ids)


def test_a_file_that_nothing_touched_is_not_even_read(
    news: Path, news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = tmp_path / "text.txt"
    text.write_bytes(news.read_bytes())
    an_hour_ago = time.time() - 3600
    os.utime(text, (an_hour_ago, an_hour_ago))
    monkeypatch.setattr(digests.time, "time_ns", lambda: 1 << 62)
    steps: list[list[str]] = []
    inputs = []
    for content in (news.read_bytes(), None, news.read_bytes()[:-100]):
        if content and steps:
            text.write_bytes(content)
        progress = RecordedProgress()
        inputs.append(_encode([text], news_model, tmp_path / "cache", progress=progress).inputs)
        steps.append(progress.steps)
    assert ["digest files" in run for run in steps] == [True, False, True]
    assert inputs[0] == inputs[1] != inputs[2]


def test_a_file_that_was_only_just_written_is_read_again(news_model: Path, tmp_path: Path):
    """A change within one tick of the file system's clock would not change the file's times."""
    text = tmp_path / "text.txt"
    text.write_text("one two three\n")
    _encode([text], news_model, tmp_path / "cache")
    assert not (tmp_path / "cache" / "digests").exists()


def test_another_rule_or_content_is_encoded_anew(news_model: Path, tmp_path: Path):
    path = tmp_path / "text"
    path.write_text("one two\nthree\n\nfour\n")
    assert _encode([path], news_model, tmp_path / "cache").documents == 3
    assert _encode([path], news_model, tmp_path / "cache", "paragraph").documents == 2
    path.write_text("one two\n")
    assert _encode([path], news_model, tmp_path / "cache").documents == 1


@pytest.mark.slow
def test_a_bad_file_leaves_only_what_is_whole_in_the_cache(news: Path, news_model: Path, tmp_path: Path):
    path = tmp_path / "text"
    path.write_bytes(b"fine\n" * 100_000 + b"\xff\n")
    with pytest.raises(CorpusError, match="offset 500000"):
        _encode([news, path], news_model, tmp_path / "cache", part_sizes=SMALL_PARTS)
    left = [entry.name for entry in (tmp_path / "cache").iterdir()]
    assert "staging" not in left
    whole = _entries(tmp_path / "cache")
    assert whole
    path.write_bytes(b"fine\n" * 100_000)
    _encode([news, path], news_model, tmp_path / "cache", part_sizes=SMALL_PARTS)
    assert set(whole) < set(_entries(tmp_path / "cache"))


def test_leftovers_of_a_killed_process_are_removed(news: Path, news_model: Path, tmp_path: Path):
    left = tmp_path / "staging" / ".staging-left"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"half")
    _encode([news], news_model, tmp_path)
    assert not left.exists()


def test_a_corpus_without_words_is_refused(news_model: Path, tmp_path: Path):
    path = tmp_path / "blank"
    path.write_text("\n \n\n")
    with pytest.raises(CorpusError, match="has no text"):
        _encode([path], news_model, tmp_path / "cache")


@pytest.mark.parametrize("bytes_kept", [0, 1_001, -1, -8, -16])
def test_an_entry_that_is_not_whole_is_encoded_anew(news: Path, news_model: Path, tmp_path: Path, bytes_kept: int):
    whole = list(_encode([news], news_model, tmp_path).sentences(10_000, IDS))
    (entry,) = _entries(tmp_path)
    os.truncate(entry, bytes_kept if bytes_kept >= 0 else entry.stat().st_size + bytes_kept)
    assert list(_encode([news], news_model, tmp_path).sentences(10_000, IDS)) == whole


def test_another_version_of_the_tokenizers_library_encodes_anew(
    news: Path, news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _encode([news], news_model, tmp_path)
    monkeypatch.setattr(encoding, "version", lambda name: f"{name} 99")
    _encode([news], news_model, tmp_path)
    assert len(_entries(tmp_path)) == 2


def test_a_file_that_changes_while_it_is_read_is_refused_and_not_kept(news_model: Path, tmp_path: Path):
    path = tmp_path / "text"
    path.write_text("one two\n")

    def append(title: str) -> None:
        if title == "encode text":
            with path.open("a") as file:
                file.write("three\n")

    with pytest.raises(CorpusError, match="text was changed while it was being read"):
        _encode([path], news_model, tmp_path / "cache", progress=RecordedProgress(append))
    assert _entries(tmp_path / "cache") == []


def test_ids_of_the_same_content_elsewhere_are_mapped_where_they_lie_there(
    news_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """This also holds if both files have the same relative name."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "ids.npy", np.arange(5, 25, dtype=np.uint16))
    for folder in ("a", "b"):
        monkeypatch.chdir(tmp_path / folder)
        corpus = _encode([Path("ids.npy")], news_model, tmp_path / "cache")
        assert corpus.parts[0].ids_path == tmp_path / folder / "ids.npy"


def test_ids_that_change_after_they_were_checked_are_refused(news_model: Path, tmp_path: Path):
    path = tmp_path / "ids.npy"
    np.save(path, np.arange(5, 25, dtype=np.uint16))
    corpus = _encode([path], news_model, tmp_path / "cache")
    corpus.refuse_changed()
    np.save(path, np.arange(6, 26, dtype=np.uint16))
    with pytest.raises(CorpusError, match="was changed"):
        corpus.refuse_changed()
    with open_engine("local", 1, None, None, tmp_path) as engine, pytest.raises(CorpusError, match="was changed"):
        count_pairs(corpus, pair_weights(2), engine, tmp_path / "cache", QuietProgress())
    assert not [path for path in (tmp_path / "cache" / "pairs").iterdir() if not path.name.endswith(".work")]


def test_an_index_that_changes_while_ids_are_mapped_is_refused(news_model: Path, tmp_path: Path):
    path, index = tmp_path / "ids.ds", tmp_path / "ids.ds.index"
    path.write_bytes(np.arange(5, 25, dtype=np.uint16).tobytes())
    index.write_bytes(np.array([10, 20], np.uint64).tobytes())

    def change(title: str) -> None:
        if title == "encode text":
            index.write_bytes(np.array([5, 20], np.uint64).tobytes())

    with pytest.raises(CorpusError, match="index was changed"):
        _encode([path], news_model, tmp_path / "cache", progress=RecordedProgress(change))
    assert _entries(tmp_path / "cache") == []


def test_bad_records_are_skipped_and_noted_each_time_and_do_not_pass_where_they_are_refused(
    news_model: Path, tmp_path: Path
):
    path, cache = tmp_path / "text.jsonl", tmp_path / "cache"
    path.write_text('{"text": "one two"}\n{"text": 3}\nnothing\n{"text": "three"}\n')
    with pytest.raises(CorpusError, match="offset 20"):
        _encode([path], news_model, cache)
    for _ in range(2):
        progress = RecordedProgress()
        corpus = _encode([path], news_model, cache, progress=progress, on_error="skip")
        assert (corpus.documents, corpus.skipped) == (2, 2)
        assert len(progress.notes) == 1
        assert "skipped 2 bad records" in progress.notes[0]
        assert "offset 32" in progress.notes[0]
    with pytest.raises(CorpusError, match="offset 20"):
        _encode([path], news_model, cache)


def test_token_ids_are_mapped_where_they_lie(news_model: Path, tmp_path: Path):
    ids = np.array([5, 6, 7, 3, 8, 9, 3], np.uint16)
    path = tmp_path / "train.bin"
    path.write_bytes(ids.tobytes())
    corpus = _encode([path], news_model, tmp_path / "cache", separator=3)
    assert list(corpus.sentences(100, IDS)) == [[5, 6, 7, 3], [8, 9, 3]]
    assert corpus.parts[0].ids_path == path
    assert corpus.inputs[0].size == 14
    path.write_bytes(np.array([5, 6, 2_000], np.uint16).tobytes())
    with pytest.raises(CorpusError, match="id 2000 at position 2"):
        _encode([path], news_model, tmp_path / "cache", separator=3)


@pytest.mark.slow
def test_drawn_segmentations_are_the_same_on_any_number_of_processes(news: Path, news_model: Path, tmp_path: Path):
    def sentences(cache: str, processes: int, sampling: Sampling | None) -> list[list[int]]:
        corpus = _encode(
            [news], news_model, tmp_path / cache, processes=processes, sampling=sampling, part_sizes=SMALL_PARTS
        )
        return list(corpus.sentences(9_999, IDS))

    drawn = [sentences(str(number), number, Sampling(0.1, 4)) for number in (1, 2, 3)]
    assert drawn[0] == drawn[1] == drawn[2]
    assert sentences("1", 1, Sampling(0.1, 5)) != drawn[0]
    best = sentences("1", 1, None)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(news_model))
    assert [processor.decode(ids) for ids in drawn[0]] == [processor.decode(ids) for ids in best]
    assert sum(map(len, drawn[0])) > 1.2 * sum(map(len, best))


def test_documents_of_the_same_text_are_drawn_apart(news_model: Path, tmp_path: Path):
    path = tmp_path / "text"
    path.write_text("internationalization of governments\n" * 50)
    drawn = list(_encode([path], news_model, tmp_path / "c", sampling=Sampling(0.1, 4)).sentences(9_999, IDS))
    assert len(set(map(tuple, drawn))) > 25


def test_documents_of_the_same_text_are_drawn_apart_in_other_parts_too(news_model: Path, tmp_path: Path):
    path = tmp_path / "text"
    path.write_text(" ".join(["internationalization of governments"] * 40) + "\n")
    path.write_text(path.read_text() * 60)
    parts = _encode([path], news_model, tmp_path / "c", sampling=Sampling(0.1, 4), part_sizes=SMALL_PARTS).parts
    firsts = [tuple(part.ids[: part.ends[0]].tolist()) for part in parts]
    assert len(firsts) > 3
    assert len(set(firsts)) == len(firsts)


def test_sampling_trains_pieces_that_the_best_segmentation_never_uses(news: Path, news_model: Path, tmp_path: Path):
    ordinary = load_tokenizer(news_model).vocab.status == TokenStatus.OK
    part = tmp_path / "part.txt"
    part.write_text("\n".join(news.read_text("utf-8").split("\n")[:60]))
    with open_engine("local", 1, None, None, tmp_path) as engine:
        best, drawn = (
            token_counts(_encode([part], news_model, tmp_path, sampling=how), engine, lambda _: None)[ordinary]
            for how in (None, Sampling(0.2, 4))
        )
    assert ((best == 0) & (drawn > 0)).sum() > 5


def test_a_tokenizer_without_sampling_is_refused(tmp_path: Path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match="list tokenizers do not support sampling"):
        refuse_sampling(load_tokenizer(tmp_path / "vocab.txt"), Sampling(0.1, 1))
