"""Existing vectors: a file of words with vectors, or an array of rows and a list of their words.

Words are matched with tokens by bytes. Without a list of words, the rows of an array are the tokenizer's ids.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from costbank.checkpoints import Matrix, choose_head, open_checkpoint
from costbank.errors import InputError, UsageError
from costbank.files import check_readable, sha256_file
from costbank.progress import Progress
from costbank.signatures import SIGNATURE_BYTES
from costbank.sources.base import (
    InputFile,
    SourcePlan,
    SourceVectors,
    configured_tokenizer,
    mean_row,
    row_ranges,
    too_many_rows,
)
from costbank.sources.matching import Match, Matches, match_tokens, rows_of_vocab, unmarked, wanted_words
from costbank.sources.vectors.foreign import refuse_foreign_vectors
from costbank.sources.vectors.settings import VectorsBuild
from costbank.sources.vectors.wordfiles import open_word_file, read_word_file
from costbank.tokenizers import load_tokenizer
from costbank.vocab import TokenStatus, Vocab

__all__ = ["plan"]

_ADVICE = (
    "Which tokens are near each other depends on the file of vectors. A token that matches no word has no vector, and "
    "its cost to every other token is 1. A token that matches a word in another case, or with or without a space, has "
    "that word's vector."
)
_TOKENIZER_ENDINGS = (".json", ".model", ".tiktoken", ".gguf")
_ARRAYS = {".npy": ("npy", "npz"), ".safetensors": ("safetensors",)}
_LOOSEST = {"exact": Match.EXACT, "word-start": Match.WORD_START, "folded": Match.FOLDED}


@dataclass(frozen=True)
class _Array:
    """An array of vectors in any storage; `at` returns float32 copies of the rows with the given numbers."""

    rows: int
    dim: int
    at: Callable[[Int64[np.ndarray, "some"]], Float32[np.ndarray, "some dim"]]


def plan(config: VectorsBuild) -> SourcePlan:
    """Open the file, and compare it with the tokenizer or with the list of its words.

    Raises:
        UsageError: no file or no tokenizer is named, or the file already has words and a list is named.
        InputNotFoundError: a file does not exist.
        InputError: the format is unsupported, or the number of rows of an array does not fit the words or tokens.
        TokenizerError: the tokenizer, or one that is named as the list of words, cannot be read.
    """
    settings = config.vectors
    if settings.path is None:
        raise UsageError("the source vectors needs a file of vectors", "name one with --vectors FILE")
    path = settings.path
    if not path.exists() and Path(f"{path}.index").exists():
        refuse_foreign_vectors(Path(f"{path}.index"), b"")
    check_readable(path, "vectors file")
    vocab = (tokenizer := configured_tokenizer(config)).vocab
    loosest = _LOOSEST[settings.match]
    if path.suffix not in _ARRAYS:
        dim, make = _from_words(path, settings.vocabulary, vocab, loosest)
    else:
        with path.open("rb") as file:
            refuse_foreign_vectors(path, file.read(SIGNATURE_BYTES), _ARRAYS[path.suffix])
        array = _open_array(path, settings.tensor)
        dim = array.dim
        if settings.vocabulary:
            make = _from_list(array, settings.vocabulary, vocab, loosest)
        else:
            vocab, make = _from_ids(array, path, vocab, settings.rows_are_ids)
    files = [path, settings.vocabulary] if settings.vocabulary else [path]

    def with_inputs(progress: Progress) -> SourceVectors:
        return replace(make(progress), inputs=lambda: _inputs(files), origin=path.name)

    return SourcePlan(tokenizer, (vocab.size, dim), with_inputs, advice=_ADVICE)


_Make = Callable[[Progress], SourceVectors]


def _from_words(path: Path, vocabulary: Path | None, vocab: Vocab, loosest: Match) -> tuple[int, _Make]:
    if vocabulary:
        raise UsageError(f"{path} already has words", "remove the setting vectors.vocabulary")
    file = open_word_file(path)

    def make(progress: Progress) -> SourceVectors:
        with progress.step("read vectors", file.bytes, "bytes") as step:
            words = read_word_file(file, wanted_words(vocab, loosest), step.advance)
        array = _Array(len(words.vectors), file.dim, words.vectors.__getitem__)
        facts = {"format": file.layout, "words": words.words}
        return _matched(vocab, match_tokens(vocab, words.rows, loosest), array, facts, progress)

    return file.dim, make


def _from_list(array: _Array, vocabulary: Path, vocab: Vocab, loosest: Match) -> _Make:
    is_tokenizer = vocabulary.is_dir() or vocabulary.suffix in _TOKENIZER_ENDINGS
    listed = load_tokenizer(vocabulary, "auto" if is_tokenizer else "list").vocab
    if listed.size != array.rows:
        raise InputError(
            f"{vocabulary} lists {listed.size:,} words, but there are {array.rows:,} rows of vectors",
            "set vectors.vocabulary to the list of the words of these vectors",
        )
    rows = rows_of_vocab(listed, np.ones(listed.size, bool))
    if not is_tokenizer:
        rows = {unmarked(word): row for word, row in rows.items()}

    def make(progress: Progress) -> SourceVectors:
        return _matched(vocab, match_tokens(vocab, rows, loosest), array, {"words": listed.size}, progress)

    return make


def _from_ids(array: _Array, path: Path, vocab: Vocab, rows_are_ids: bool) -> tuple[Vocab, _Make]:
    if array.rows < vocab.size:
        raise InputError(
            f"{path} has {array.rows:,} rows, but the tokenizer has {vocab.size:,} tokens",
            "if the rows are words, name the list of words with --set vectors.vocabulary=FILE",
        )
    if too_many_rows(array.rows, vocab.size) and not rows_are_ids:
        raise InputError(
            f"{path} has {array.rows:,} rows, but the tokenizer has {vocab.size:,} tokens: rows are probably not token "
            "ids",
            "if the rows are words, name the list of words with --set vectors.vocabulary=FILE; "
            "if they are token ids, use --set vectors.rows_are_ids=true",
        )
    vocab = vocab.padded(array.rows)
    unused = vocab.status == TokenStatus.UNUSED
    rows = np.where(unused, -1, np.arange(vocab.size))

    def make(progress: Progress) -> SourceVectors:
        progress.note(f"without a list of words, row i of {path.name} is the vector of token id i")
        mean = mean_row(_Gathered(array, np.flatnonzero(unused)))
        return SourceVectors(vocab, _Gathered(array, rows), {"matched": "by id"}, unused_mean=mean)

    return vocab, make


def _matched(vocab: Vocab, matches: Matches, array: _Array, facts: dict[str, Any], progress: Progress) -> SourceVectors:
    counts = {
        "matched": vocab.size - matches.count(Match.NONE),
        "matched_exactly": matches.count(Match.EXACT),
        "matched_by_word_start": matches.count(Match.WORD_START),
        "matched_in_lower_case": matches.count(Match.FOLDED),
    }
    if counts["matched"] < 2:
        raise InputError(
            f"{counts['matched']} of the tokenizer's {vocab.size:,} tokens match a word",
            "use words and a tokenizer of the same language and script",
        )
    progress.note(
        f"{counts['matched']:,} of {vocab.size:,} tokens have a vector: {counts['matched_exactly']:,} by their exact "
        f"bytes, {counts['matched_by_word_start']:,} with or without a leading space, "
        f"{counts['matched_in_lower_case']:,} in lower case"
    )
    return SourceVectors(vocab, _Gathered(array, matches.rows), facts | counts)


@dataclass(frozen=True)
class _Gathered:
    """The rows of the array that belong to the ids, in order; zero for −1."""

    array: _Array
    rows: Int64[np.ndarray, "vocab"]

    def __iter__(self) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        for start, stop in row_ranges(len(self.rows), 4 * self.array.dim):
            rows = self.rows[start:stop]
            block = np.zeros((stop - start, self.array.dim), np.float32)
            block[rows >= 0] = self.array.at(rows[rows >= 0])
            yield block


def _open_array(path: Path, tensor: str | None) -> _Array:
    if path.suffix == ".safetensors":
        matrix = choose_head(open_checkpoint(path), tensor).matrix
        rows, dim = matrix.shape
        return _Array(rows, dim, lambda ids: _rows_of(matrix, ids))
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, so damaged bytes can raise any exception
        raise InputError(f"{path} is not a .npy array of numbers: {error}", "write it with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays", "save only the array of vectors with numpy.save")
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise InputError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}", "save floats of shape [words or tokens, dim]"
        )
    rows, dim = array.shape
    return _Array(rows, dim, lambda ids: _narrowed(array[ids]))


def _narrowed(rows: np.ndarray) -> Float32[np.ndarray, "some dim"]:
    """Convert to float32. Values that are too large become infinite; the pipeline reports them with their token."""
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def _rows_of(matrix: Matrix, ids: Int64[np.ndarray, "some"]) -> Float32[np.ndarray, "some dim"]:
    """The rows of a matrix, with one read for each run of consecutive numbers."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1) if len(ids) else []
    rows = [matrix.rows(int(run[0]), int(run[-1]) + 1) for run in runs]
    return np.concatenate(rows) if rows else np.zeros((0, matrix.shape[1]), np.float32)


def _inputs(files: list[Path]) -> tuple[InputFile, ...]:
    return tuple(sha256_file(path).named(path.name) for path in files)
