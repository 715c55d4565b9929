"""The Ray engine on clusters of real raylets gives the counts of the local engine, whatever happens to the nodes."""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costbank.corpus import EncodedCorpus, EncodingOptions, encode_corpus
from costbank.corpus.readers import PartSizes, ReadOptions, find_files
from costbank.engines import open_engine
from costbank.errors import CorpusError, UsageError
from costbank.progress import QuietProgress
from costbank.sources.cooccurrence.contexts import ContextSet, context_set
from costbank.sources.cooccurrence.counting import CountSizes, pair_weights
from costbank.sources.cooccurrence.pair_counts import count_pairs
from costbank.tokenizers import load_tokenizer

QUIET = QuietProgress()
WEIGHTS = pair_weights(5)


PARTS = PartSizes(min_bytes=20_000)
SHARDS = CountSizes(shards=40, min_shard_pairs=5_000)


@pytest.fixture
def counted(news: Path, news_model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Encodes and counts the news with one engine, in its own cache."""

    def count(
        kind: str, processes: int | None, address: str | None = None, contexts: ContextSet | None = None
    ) -> tuple[EncodedCorpus, Any, Path]:
        cache = tmp_path / f"{kind}{processes}"
        encoding = EncodingOptions(news_model, "auto", ReadOptions())
        files, tokenizer = find_files([str(news)]), load_tokenizer(news_model)
        with open_engine(kind, processes, 1 << 30, address, cache) as engine:
            corpus = encode_corpus(files, encoding, tokenizer, engine, cache, QUIET, PARTS)
            return corpus, count_pairs(corpus, WEIGHTS, engine, cache, QUIET, SHARDS, contexts), cache

    return count


def test_the_counts_are_those_of_the_local_engine(cluster: Any, counted: Callable[..., Any]):
    corpus, counts, cache = counted("ray", None, cluster.address)
    local_corpus, local_counts, _ = counted("local", 1)
    assert len(corpus.parts) > 10
    assert counts.digest == local_counts.digest
    for part, local_part in zip(corpus.parts, local_corpus.parts, strict=True):
        assert np.array_equal(part.ids, local_part.ids)
    assert not (cache / "staging").exists()
    assert not list((cache / "pairs").glob("*.work"))


def test_contexts_are_counted_as_by_the_local_engine(cluster: Any, counted: Callable[..., Any]):
    of_tokens = counted("local", 1)[1].digest
    for positions, ngram in ((True, 1), (False, 3)):
        contexts = context_set(WEIGHTS, "left", positions, ngram, buckets=1 << 20, vocab_size=2_000)
        digest = counted("ray", None, cluster.address, contexts)[1].digest
        assert digest == counted("local", 1, contexts=contexts)[1].digest
        assert digest != of_tokens


def test_only_the_shards_of_a_killed_raylet_are_repeated(cluster: Any, counted: Callable[..., Any], tmp_path: Path):
    in_the_middle = threading.Event()

    def kill_in_the_middle() -> None:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("rayNone/pairs/*.work/*.run"))) < 3 and time.monotonic() < until:
            time.sleep(0.005)
        if list(tmp_path.glob("rayNone/pairs/*.work")):
            in_the_middle.set()
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    _, counts, cache = counted("ray", None, cluster.address)
    killer.join()
    assert in_the_middle.is_set()
    assert counts.digest == counted("local", 1)[1].digest
    assert not list((cache / "pairs").glob("*.work"))


def test_a_cluster_is_started_where_none_is_named_and_gone_afterwards(counted: Callable[..., Any]):
    assert counted("ray", 2)[1].digest == counted("local", 2)[1].digest


def test_an_address_where_nothing_answers_is_refused_at_once(tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"):
        open_engine("ray", None, None, "127.0.0.1:9", tmp_path)
    assert time.monotonic() - began < 15


def test_a_node_that_cannot_access_the_shared_directory_is_refused_before_any_work(cluster: Any, tmp_path: Path):
    directory = os.open(tmp_path, os.O_DIRECTORY)
    number = fcntl.fcntl(directory, fcntl.F_DUPFD, 900)
    shared = Path(f"/proc/self/fd/{number}")  # file descriptors differ between processes
    try:
        with pytest.raises(UsageError, match=f"cannot access {shared}") as caught:
            open_engine("ray", None, None, cluster.address, shared)
    finally:
        os.close(number)
        os.close(directory)
    assert "--cache" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_node_with_another_version_of_costbank_is_refused_before_any_work(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    metadata = tmp_path / "packages" / "costbank-0.0.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: costbank\nVersion: 0.0.9\n")
    with monkeypatch.context() as node_environment:
        node_environment.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "packages"), *sys.path]))
        node = cluster.add_node(num_cpus=1)
    try:
        with pytest.raises(UsageError, match=r"has costbank 0\.0\.9, but this machine has") as caught:
            open_engine("ray", None, None, cluster.address, tmp_path / "shared")
    finally:
        cluster.remove_node(node)
    assert f"costbank[build]=={version('costbank')}" in caught.value.hint
    assert not list((tmp_path / "shared").iterdir())


def test_an_error_of_the_work_comes_as_it_is(cluster: Any, news_model: Path, tmp_path: Path):
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    with (
        open_engine("ray", None, None, cluster.address, tmp_path) as engine,
        pytest.raises(CorpusError, match="offset 5"),
    ):
        encode_corpus(
            find_files([str(tmp_path / "bad.txt")]), EncodingOptions(news_model, "auto", ReadOptions()),
            load_tokenizer(news_model), engine, tmp_path, QUIET,
        )  # fmt: skip
