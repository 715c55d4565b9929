"""Corpus files behind URLs, on fsspec's filesystem in memory."""

import gzip
import json
from hashlib import sha256
from pathlib import Path

import fsspec
import numpy as np
import pytest

from costbank.corpus import EncodedCorpus, EncodingOptions, Sampling, encode_corpus
from costbank.corpus.readers import ReadOptions, find_files
from costbank.engines import open_engine
from costbank.errors import InputError, InputNotFoundError
from costbank.progress import Progress, QuietProgress
from costbank.tokenizers import load_tokenizer
from tests.unit.recorded_progress import RecordedProgress

TEXTS = ["one two three", "the prime minister said", "hundreds of people"]
URL = "memory://bucket/part-0.jsonl.gz"


@pytest.fixture
def content() -> bytes:
    written = gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode())
    with fsspec.open(URL, "wb") as file:
        file.write(written)
    return written


def _encode(
    url: str, model: Path, cache: Path, sampling: Sampling | None = None, progress: Progress | None = None
) -> EncodedCorpus:
    encoding = EncodingOptions(model, "auto", ReadOptions(), sampling=sampling)
    with open_engine("local", 1, None, None, cache) as engine:
        return encode_corpus(
            find_files([url]), encoding, load_tokenizer(model), engine, cache, progress or QuietProgress()
        )


@pytest.mark.parametrize("given", [URL, "memory://bucket", "memory://bucket/*.jsonl.gz"])
def test_a_url_is_read_as_the_file_would_be(given: str, content: bytes, news_model: Path, tmp_path: Path):
    (tmp_path / "part-0.jsonl.gz").write_bytes(content)
    local = _encode(str(tmp_path / "part-0.jsonl.gz"), news_model, tmp_path / "local")
    remote = _encode(given, news_model, tmp_path / "remote")
    assert np.array_equal(remote.parts[0].ids, local.parts[0].ids)
    assert remote.documents == len(TEXTS)
    assert (remote.inputs[0].size, remote.inputs[0].sha256) == (len(content), sha256(content).hexdigest())
    assert not (tmp_path / "remote" / "staging").exists()


def test_a_remote_file_is_fetched_once_and_again_after_a_change(content: bytes, news_model: Path, tmp_path: Path):
    first = _encode(URL, news_model, tmp_path)
    progress = RecordedProgress()
    assert _encode(URL, news_model, tmp_path, progress=progress).inputs == first.inputs
    assert "encode text" not in progress.steps
    with fsspec.open(URL, "wb") as file:
        file.write(gzip.compress(b'{"text": "something else"}\n'))
    progress = RecordedProgress()
    assert _encode(URL, news_model, tmp_path, progress=progress).documents == 1
    assert "encode text" in progress.steps


def test_segmentations_are_drawn_by_the_content_whenever_it_was_written(
    content: bytes, news_model: Path, tmp_path: Path
):
    (tmp_path / "part-0.jsonl.gz").write_bytes(content)
    drawn = [_encode(str(tmp_path / "part-0.jsonl.gz"), news_model, tmp_path / "local", Sampling(0.1, 3))]
    for number in range(2):
        with fsspec.open(URL, "wb") as file:
            file.write(content)
        drawn.append(_encode(URL, news_model, tmp_path / str(number), Sampling(0.1, 3)))
    assert np.array_equal(drawn[0].parts[0].ids, drawn[1].parts[0].ids)
    assert np.array_equal(drawn[1].parts[0].ids, drawn[2].parts[0].ids)


def test_missing_and_truncated_remote_files_are_errors(content: bytes, news_model: Path, tmp_path: Path):
    with pytest.raises(InputNotFoundError, match="does not exist"):
        _encode("memory://bucket/none.txt", news_model, tmp_path)
    with fsspec.open(URL, "wb") as file:
        file.write(content[:-5])
    with pytest.raises(InputError, match=r"memory://bucket/part-0\.jsonl\.gz is truncated"):
        _encode(URL, news_model, tmp_path)
    assert not (tmp_path / "staging").exists()
