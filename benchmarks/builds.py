"""Builds from a text: run and measure the whole command, or only encode the text for a later build."""

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
    source: str, text: Path, model: Path, folder: Path, name: str, cache: Path, settings: Mapping[str, object]
) -> Usage:
    """Run `costbank build` in its own process, with two workers, into `folder/store`."""
    command = [sys.executable, "-m", "costbank_cli", "build", "--source", source, "--corpus", str(text),
               "--tokenizer", str(model), "--name", name, "--store", str(folder / "store"), "--cache", str(cache),
               "--processes", str(PROCESSES)]  # fmt: skip
    threads = {"word2vec.workers": PROCESSES} if source == "word2vec" else {}
    for setting, value in (threads | dict(settings)).items():
        command += ["--set", f"{setting}={str(value).lower()}"]
    return watched(command)


def encode(
    text: Path, model: Path, cache: Path, engine: Engine, sampling: Sampling | None = None,
    tokenizer: Tokenizer | None = None,
) -> EncodedCorpus:  # fmt: skip
    """Encode a text into a cache, for a build of the same text, tokenizer and sampling."""
    encoding = EncodingOptions(model.absolute(), "auto", ReadOptions(), sampling=sampling)
    files = find_files([str(text)])
    return encode_corpus(files, encoding, tokenizer or load_tokenizer(model), engine, cache, QuietProgress())


def local_engine(cache: Path) -> AbstractContextManager[Engine]:
    """An engine with two processes on this machine."""
    return open_engine("local", PROCESSES, None, None, cache)
