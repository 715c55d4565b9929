"""Training a tokenizer on the inputs that a build's --corpus takes, and the resulting file."""

import gzip
import json
import logging
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from costbank.corpus.readers import ReadOptions
from costbank.corpus.tokenizer_training import TrainingText, train_tokenizer
from costbank.engines import run_in_child
from costbank.errors import CorpusError, CostbankError, EngineError, InputNotFoundError, TokenizerError, UsageError
from costbank.progress import LogProgress, QuietProgress
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.train import TrainingOptions, train_on_texts, train_sentencepiece
from tests.unit.recorded_progress import RecordedProgress

SMALL = TrainingOptions(900, "bpe")


def _fingerprint(model: Path) -> str:
    return load_tokenizer(model).vocab.fingerprint


@pytest.fixture(scope="module")
def expected(news: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of the tokenizer that SentencePiece trains on the plain text."""
    return _fingerprint(train_sentencepiece([news], tmp_path_factory.mktemp("expected") / "a.model", 900, "bpe"))


def _as_json(lines: list[str]) -> bytes:
    return "".join(json.dumps({"id": 1, "body": line}) + "\n" for line in lines).encode()


def test_a_folder_of_json_lines_by_field_gives_the_tokenizer_of_its_text(news: Path, tmp_path: Path, expected: str):
    lines = news.read_text("utf-8").splitlines()
    folder = tmp_path / "corpus" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(_as_json(lines[:100]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(_as_json(lines[100:])))
    text = TrainingText((str(tmp_path / "corpus"),), read=ReadOptions(text_field="body"))
    out = train_tokenizer(text, tmp_path / "new" / "a.model", SMALL, QuietProgress())
    assert _fingerprint(out) == expected
    assert [path.name for path in out.parent.iterdir()] == ["a.model"]
    assert out.stat().st_mode & 0o777 == 0o644


def test_a_url_is_trained_on_as_the_file_would_be(news: Path, tmp_path: Path, expected: str):
    out = train_tokenizer(TrainingText((f"local://{news}",)), tmp_path / "a.model", SMALL, QuietProgress())
    assert _fingerprint(out) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["a.model"]


def test_a_file_that_is_there_is_replaced_only_where_that_is_wanted(news: Path, tmp_path: Path, expected: str):
    out = tmp_path / "a.model"
    out.write_bytes(b"precious")
    text = TrainingText((str(news),))
    with pytest.raises(UsageError, match="already exists") as caught:
        train_tokenizer(text, out, SMALL, QuietProgress())
    assert "--overwrite" in caught.value.hint
    assert out.read_bytes() == b"precious"
    train_tokenizer(text, out, SMALL, QuietProgress(), overwrite=True)
    assert _fingerprint(out) == expected


def test_a_link_that_leads_nowhere_is_a_file_that_is_there(news: Path, tmp_path: Path):
    out = tmp_path / "a.model"
    out.symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="already exists"):
        train_tokenizer(TrainingText((str(news),)), out, SMALL, QuietProgress())


def test_a_file_that_appears_during_the_training_is_kept(news: Path, tmp_path: Path):
    out = tmp_path / "a.model"

    class Rival(QuietProgress):
        @contextmanager
        def step(self, title: str, total: int | None = None, unit: str = ""):
            if title.startswith("train"):
                out.write_bytes(b"precious")
            with super().step(title, total, unit) as step:
                yield step

    with pytest.raises(UsageError, match="another process created"):
        train_tokenizer(TrainingText((str(news),)), out, SMALL, Rival())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.model", b"precious")]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (TrainingOptions(0), "a vocabulary of 0 pieces has no room", "--vocab-size 260 or more"),
        (TrainingOptions(-5), "a vocabulary of -5 pieces", "--no-byte-fallback"),
        (TrainingOptions(259), "3 special pieces, 256 byte pieces and one character", "--vocab-size 260"),
        (TrainingOptions(3, byte_fallback=False), "3 special pieces and one character", "--vocab-size 4 or more"),
        (TrainingOptions(2**31 - 1), "2,147,483,647 pieces is too large", "100000000"),
        (TrainingOptions(2**40), "is too large", "100000000"),
    ],
)
def test_a_number_of_pieces_that_no_text_gives_is_refused_before_the_text_is_looked_for(
    tmp_path: Path, options: TrainingOptions, message: str, hint: str
):
    with pytest.raises(UsageError, match=message) as caught:
        train_tokenizer(TrainingText((str(tmp_path / "missing.txt"),)), tmp_path / "a.model", options, QuietProgress())
    assert hint in caught.value.hint
    with pytest.raises(UsageError, match=message):
        train_on_texts(["some text"], options)


@pytest.mark.parametrize("pieces", [260, 4])
def test_the_least_number_of_pieces_can_be_trained(pieces: int):
    assert train_on_texts(["aa aa"] * 9, TrainingOptions(pieces + 1, "bpe", byte_fallback=pieces > 256))


@pytest.fixture
def inputs(news: Path, tmp_path: Path) -> Path:
    place = tmp_path / "in"
    (place / "none").mkdir(parents=True)
    (place / "blank.txt").write_text("\n \n\n")
    (place / "one.txt").write_text("one line\n")
    (place / "bad.jsonl").write_bytes(_as_json(news.read_text("utf-8").splitlines()) + b'{"body": 7}\n{"bo')
    (place / "utf16.txt").write_bytes("some text in another encoding\n".encode("utf-16"))
    np.save(place / "ids.npy", np.arange(100))
    return place


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.txt", InputNotFoundError, "missing.txt"),
        ("none", InputNotFoundError, "no file matches"),
        ("*.parquet", InputNotFoundError, "no file|no corpus file"),
        ("blank.txt", CorpusError, "there is no text to train on"),
        ("one.txt", TokenizerError, "too small for 900 pieces"),
        ("bad.jsonl", CorpusError, "in the field 'body'"),
        ("utf16.txt", CorpusError, "UTF-16"),
        ("ids.npy", UsageError, "holds token ids"),
    ],
)
def test_unusable_text_is_refused_and_leaves_no_file(
    inputs: Path, tmp_path: Path, name: str, error: type[CostbankError], message: str
):
    text = TrainingText((str(inputs / name),), read=ReadOptions(text_field="body"))
    with pytest.raises(error, match=message) as caught:
        train_tokenizer(text, tmp_path / "out" / "a.model", SMALL, QuietProgress())
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_bad_records_are_left_out_and_named_where_that_is_wanted(inputs: Path, tmp_path: Path, expected: str):
    progress = RecordedProgress()
    text = TrainingText((str(inputs / "bad.jsonl"),), read=ReadOptions(text_field="body"), on_error="skip")
    assert _fingerprint(train_tokenizer(text, tmp_path / "a.model", SMALL, progress)) == expected
    assert progress.notes[0].startswith("skipped 2 bad records:\n")
    assert progress.notes[0].count("bad.jsonl") == 2


def test_where_all_was_skipped_the_error_says_how_much(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("é\n".encode("latin-1") * 7)
    with pytest.raises(CorpusError, match=r"no text to train on; skipped: 7 unreadable records, such as .*a\.txt"):
        train_tokenizer(
            TrainingText((str(tmp_path / "a.txt"),), on_error="skip"), tmp_path / "a.model", SMALL, QuietProgress()
        )


def test_long_lines_are_trained_on_whole(tmp_path: Path, news: Path):
    line = " ".join(news.read_text("utf-8").split())
    assert len(line) > 1 << 18
    (tmp_path / "line.txt").write_text(line)
    out = train_tokenizer(TrainingText((str(tmp_path / "line.txt"),)), tmp_path / "a.model", SMALL, QuietProgress())
    assert load_tokenizer(out).vocab.size == 900


@pytest.mark.slow
def test_the_training_shows_that_it_goes_on(news: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="costbank")
    many = TrainingText((str(news),))
    train_tokenizer(many, tmp_path / "a.model", TrainingOptions(4_000), LogProgress(seconds_between_lines=0.0))
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("read text: ") for line in lines)
    first = next(i for i, line in enumerate(lines) if line.startswith("train a unigram tokenizer: "))
    assert lines[first].endswith("s so far")
    assert "so far" not in lines[-1]
    assert lines[-1].startswith("train a unigram tokenizer: ")


def _sleep(seconds, report):
    report(3)
    time.sleep(seconds)
    return seconds


def _be_killed(_shard, _report):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_work_in_a_child_is_watched_twice_a_second():
    ticks, reported = [], []
    assert run_in_child(_sleep, 1.6, reported.append, lambda: ticks.append(1)) == 1.6
    assert len(ticks) >= 3
    assert sum(reported) == 3


def test_a_killed_child_process_gives_a_clear_error():
    with pytest.raises(EngineError, match="was killed") as caught:
        run_in_child(_be_killed, None, lambda _: None, lambda: None)
    assert "memory" in caught.value.message


def test_paths_may_be_strings(news: Path, tmp_path: Path):
    written = train_sentencepiece([str(news)], str(tmp_path / "a.model"), 500)
    assert load_tokenizer(written).vocab.size == 500
