"""Text encoded once: token ids and document ends of each file, mapped from disk when they are used.

An entry is a directory named by a digest of the file's content, the tokenizer's file and the rule that makes
documents. It appears under its name only when complete, so an interrupted encoding costs one file at most.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt

from costbank.corpus.text import DocumentRule, read_documents
from costbank.errors import CorpusError
from costbank.files import staging_directory, storage_errors
from costbank.progress import Progress
from costbank.tensorfile import sha256_file
from costbank.tokenizers import Tokenizer

__all__ = ["EncodedCorpus", "EncodedFile", "encode_corpus"]

_ENCODING = "costbank encoded text 1"
_COUNT_TOKENS = 1 << 22
_LIST_TOKENS = 1 << 17


@dataclass(frozen=True)
class EncodedFile:
    """One file's token ids, and where each document ends in them. Both arrays are mapped, not loaded."""

    path: Path
    size: int
    sha256: str
    ids: UInt[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "documents"]


@dataclass(frozen=True)
class EncodedCorpus:
    """The files of a corpus in the order given, as the ids of one tokenizer."""

    files: tuple[EncodedFile, ...]
    vocab_size: int

    @property
    def tokens(self) -> int:
        return sum(len(file.ids) for file in self.files)

    @property
    def documents(self) -> int:
        return sum(len(file.ends) for file in self.files)

    @cached_property
    def counts(self) -> Int64[np.ndarray, "vocab"]:
        """How often each id occurs."""
        counts = np.zeros(self.vocab_size, np.int64)
        for file in self.files:
            for start in range(0, len(file.ids), _COUNT_TOKENS):
                counts += np.bincount(file.ids[start : start + _COUNT_TOKENS], minlength=self.vocab_size)
        return counts

    def sentences(self, most_tokens: int, names: Shaped[np.ndarray, "vocab"]) -> Iterator[list[Any]]:
        """Every document as a list of the names of its ids, longer documents cut into parts of `most_tokens`."""
        for file in self.files:
            ends = _part_ends(file.ends, most_tokens)
            first = start = 0
            while first < len(ends):
                last = max(first + 1, int(np.searchsorted(ends, start + _LIST_TOKENS, "right")))
                block = names[file.ids[start : ends[last - 1]]].tolist()
                begin = 0
                for end in (ends[first:last] - start).tolist():
                    yield block[begin:end]
                    begin = end
                first, start = last, int(ends[last - 1])

    def sentence_count(self, most_tokens: int) -> int:
        """How many lists `sentences` gives."""
        return sum(len(_part_ends(file.ends, most_tokens)) for file in self.files)


def _part_ends(ends: Int64[np.ndarray, "documents"], most_tokens: int) -> Int64[np.ndarray, "parts"]:
    """Where each part of a document ends, when none may be longer than `most_tokens`; empty documents have none."""
    lengths = np.diff(ends, prepend=0)
    parts = -(-lengths // most_tokens)
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.minimum(np.repeat(ends - lengths, parts) + (number + 1) * most_tokens, np.repeat(ends, parts))


def encode_corpus(
    paths: Sequence[Path], tokenizer: Tokenizer, rule: DocumentRule, cache: Path, progress: Progress
) -> EncodedCorpus:
    """Encode text files, or map what an earlier call has encoded.

    Raises:
        CorpusError: a file is not UTF-8 text, or nothing in the corpus becomes a token.
        StorageError: the cache cannot be written.
    """
    with storage_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        files = tuple(_encoded_file(path, tokenizer, rule, cache, progress) for path in paths)
    corpus = EncodedCorpus(files, tokenizer.vocab.size)
    if corpus.tokens == 0:
        names = ", ".join(str(path) for path in paths)
        raise CorpusError(f"the corpus holds no text: {names}", "give files with words in them")
    return corpus


def _encoded_file(path: Path, tokenizer: Tokenizer, rule: DocumentRule, cache: Path, progress: Progress) -> EncodedFile:
    content = sha256_file(path)
    versions = [f"{name} {version(name)}" for name in tokenizer.libraries]
    key = sha256(json.dumps([_ENCODING, content.sha256, tokenizer.sha256, versions, rule]).encode()).hexdigest()[:32]
    entry, dtype = cache / key, _id_dtype(tokenizer.vocab.size)
    arrays = _read_entry(entry, dtype)
    if arrays is None:
        shutil.rmtree(entry, ignore_errors=True)
        with staging_directory(cache) as staged:
            _encode_into(staged, path, tokenizer, rule, content.size, progress)
            if sha256_file(path) != content:
                raise CorpusError(f"{path} was changed while it was read", "build again when nothing writes to it")
            try:
                staged.rename(entry)
            except OSError:
                if not entry.is_dir():  # another process may have finished the same file first
                    raise
        arrays = _read_entry(entry, dtype)
    if arrays is None:
        raise CorpusError(f"the encoded text in {entry} cannot be read back", f"remove {cache} and build again")
    return EncodedFile(path, content.size, content.sha256, *arrays)


def _read_entry(entry: Path, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray] | None:
    """The two arrays of an entry, mapped; None where there is none, or not all of it reached the disk."""
    try:
        ids, ends = _mapped(entry / "ids", dtype), _mapped(entry / "ends", np.dtype("<i8"))
    except (OSError, ValueError):
        return None
    whole = len(ids) == (int(ends[-1]) if len(ends) else 0) and (np.diff(ends, prepend=0) >= 0).all()
    return (ids, ends) if whole else None


def _encode_into(
    directory: Path, path: Path, tokenizer: Tokenizer, rule: DocumentRule, size: int, progress: Progress
) -> None:
    dtype, tokens = _id_dtype(tokenizer.vocab.size), 0
    with (
        (directory / "ids").open("wb") as ids_file,
        (directory / "ends").open("wb") as ends_file,
        progress.step(f"encode {path.name}", size, "bytes") as step,
    ):
        for texts, consumed in read_documents(path, rule):
            ids, ends = tokenizer.encode(texts)
            ids_file.write(ids.astype(dtype).tobytes())
            ends_file.write((ends + tokens).astype("<i8").tobytes())
            tokens += len(ids)
            step.advance(consumed)
        for file in (ids_file, ends_file):
            file.flush()
            os.fsync(file.fileno())


def _id_dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.zeros(0, dtype)
