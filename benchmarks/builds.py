"""Builds from a text: the whole command, watched; and the text's encoding alone, for what begins after it."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.processes import Usage, watched
from costbank.corpus import EncodedCorpus, EncodingOptions, Sampling, encode_corpus
from costbank.corpus.readers import ReadOptions, find_files
from costbank.engines import Engine, open_engine
from costbank.progress import QuietProgress
from costbank.tokenizers import Tokenizer, load_tokenizer

__all__ = ["PROCESSES", "build", "encode", "local_engine"]

PROCESSES = 2


def build(
    source: str, text: Path, model: Path, place: Path, name: str, cache: Path, settings: Mapping[str, object]
) -> Usage:
    """A bank in `place/store` by `costbank build`, as a process of its own, with two processes or threads."""
    command = [sys.executable, "-m", "costbank_cli", "build", "--source", source, "--corpus", str(text),
               "--tokenizer", str(model), "--name", name, "--store", str(place / "store"), "--cache", str(cache),
               "--processes", str(PROCESSES)]  # fmt: skip
    threads = {"word2vec.workers": PROCESSES} if source == "word2vec" else {}
    for setting, value in (threads | dict(settings)).items():
        command += ["--set", f"{setting}={str(value).lower()}"]
    return watched(command)


def encode(
    text: Path, model: Path, cache: Path, engine: Engine, sampling: Sampling | None = None,
    tokenizer: Tokenizer | None = None,
) -> EncodedCorpus:  # fmt: skip
    """Encode a text into a cache, where a build of the same text, tokenizer and sampling finds it."""
    encoding = EncodingOptions(model.absolute(), "auto", ReadOptions(), sampling=sampling)
    files = find_files([str(text)])
    return encode_corpus(files, encoding, tokenizer or load_tokenizer(model), engine, cache, QuietProgress())


def local_engine(cache: Path) -> AbstractContextManager[Engine]:
    """Two processes of this machine."""
    return open_engine("local", PROCESSES, None, None, cache)
