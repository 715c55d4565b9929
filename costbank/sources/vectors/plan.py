"""Vectors that somebody else made: a file of words, or an array and the list of what its rows stand for.

Words meet tokens by their bytes. Where an array comes without a list, its rows are the tokenizer's ids.
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
    given_tokenizer,
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
    "What is near what was decided by whoever made these vectors. A token that met no word has no vector and costs 1 "
    "to all others; one that met its word in another case, or with or without a space, shares that word's vector."
)
_TOKENIZER_ENDINGS = (".json", ".model", ".tiktoken", ".gguf")
_ARRAYS = {".npy": ("npy", "npz"), ".safetensors": ("safetensors",)}
_LOOSEST = {"exact": Match.EXACT, "word-start": Match.WORD_START, "folded": Match.FOLDED}


@dataclass(frozen=True)
class _Array:
    """An array of vectors, however it is stored. `at` gives float32 copies of the rows of some numbers."""

    rows: int
    dim: int
    at: Callable[[Int64[np.ndarray, "some"]], Float32[np.ndarray, "some dim"]]


def plan(config: VectorsBuild) -> SourcePlan:
    """Open the file and hold it against the tokenizer, or against the list of its words.

    Raises:
        UsageError: no file or no tokenizer is named.
        InputNotFoundError: a file is not there.
        InputError: a file is none of the formats, or an array has not one row for each word or token.
    """
    settings = config.vectors
    if settings.path is None:
        raise UsageError("a bank of given vectors needs their file", "give --vectors FILE")
    path = settings.path
    if not path.exists() and Path(f"{path}.index").exists():
        refuse_foreign_vectors(Path(f"{path}.index"), b"")
    check_readable(path, "vectors file")
    vocab = (tokenizer := given_tokenizer(config)).vocab
    loosest = _LOOSEST[settings.match]
    if path.suffix not in _ARRAYS:
        dim, make = _of_words(path, settings.vocabulary, vocab, loosest)
    else:
        with path.open("rb") as file:
            refuse_foreign_vectors(path, file.read(SIGNATURE_BYTES), _ARRAYS[path.suffix])
        array = _open_array(path, settings.tensor)
        dim = array.dim
        if settings.vocabulary:
            make = _of_list(array, settings.vocabulary, vocab, loosest)
        else:
            vocab, make = _by_id(array, path, vocab, settings.rows_are_ids)
    files = [path, settings.vocabulary] if settings.vocabulary else [path]

    def with_inputs(progress: Progress) -> SourceVectors:
        return replace(make(progress), inputs=lambda: _inputs(files), origin=path.name)

    return SourcePlan(tokenizer, (vocab.size, dim), with_inputs, advice=_ADVICE)


_Make = Callable[[Progress], SourceVectors]


def _of_words(path: Path, vocabulary: Path | None, vocab: Vocab, loosest: Match) -> tuple[int, _Make]:
    if vocabulary:
        raise UsageError(f"{path} names its words itself", "leave vectors.vocabulary out")
    file = open_word_file(path)

    def make(progress: Progress) -> SourceVectors:
        with progress.step("read vectors", file.bytes, "bytes") as step:
            found = read_word_file(file, wanted_words(vocab, loosest), step.advance)
        array = _Array(len(found.vectors), file.dim, found.vectors.__getitem__)
        facts = {"format": file.layout, "words": found.words}
        return _matched(vocab, match_tokens(vocab, found.rows, loosest), array, facts, progress)

    return file.dim, make


def _of_list(array: _Array, vocabulary: Path, vocab: Vocab, loosest: Match) -> _Make:
    is_tokenizer = vocabulary.is_dir() or vocabulary.suffix in _TOKENIZER_ENDINGS
    listed = load_tokenizer(vocabulary, "auto" if is_tokenizer else "list").vocab
    if listed.size != array.rows:
        raise InputError(
            f"{vocabulary} lists {listed.size:,} words for {array.rows:,} rows", "give the list that belongs to them"
        )
    rows = rows_of_vocab(listed, np.ones(listed.size, bool))
    if not is_tokenizer:
        rows = {unmarked(word): row for word, row in rows.items()}

    def make(progress: Progress) -> SourceVectors:
        return _matched(vocab, match_tokens(vocab, rows, loosest), array, {"words": listed.size}, progress)

    return make


def _by_id(array: _Array, path: Path, vocab: Vocab, insist: bool) -> tuple[Vocab, _Make]:
    if array.rows < vocab.size:
        raise InputError(
            f"{path} has {array.rows:,} rows, and the tokenizer has {vocab.size:,} tokens",
            "where rows are words and not ids, name their list with --set vectors.vocabulary=FILE",
        )
    if too_many_rows(array.rows, vocab.size) and not insist:
        raise InputError(
            f"{path} has {array.rows:,} rows, and the tokenizer has {vocab.size:,} tokens: rows are hardly token ids",
            "where rows are words, name their list with --set vectors.vocabulary=FILE; "
            "--set vectors.rows_are_ids=true takes them for token ids all the same",
        )
    vocab = vocab.padded(array.rows)
    unused = vocab.status == TokenStatus.UNUSED
    rows = np.where(unused, -1, np.arange(vocab.size))

    def make(progress: Progress) -> SourceVectors:
        progress.note(f"no list of words is given: row i of {path.name} is taken for token id i")
        mean = mean_row(_Gathered(array, np.flatnonzero(unused)))
        return SourceVectors(vocab, _Gathered(array, rows), {"matched": "by id"}, unused_mean=mean)

    return vocab, make


def _matched(vocab: Vocab, matches: Matches, array: _Array, facts: dict[str, Any], progress: Progress) -> SourceVectors:
    counted = {
        "matched": vocab.size - matches.count(Match.NONE),
        "matched_exactly": matches.count(Match.EXACT),
        "matched_by_word_start": matches.count(Match.WORD_START),
        "matched_in_lower_case": matches.count(Match.FOLDED),
    }
    if counted["matched"] < 2:
        raise InputError(
            f"{counted['matched']} of the tokenizer's {vocab.size:,} tokens are among the words",
            "check that words and tokenizer are of one language and script",
        )
    progress.note(
        f"{counted['matched']:,} of {vocab.size:,} tokens have a vector: {counted['matched_exactly']:,} by their exact "
        f"bytes, {counted['matched_by_word_start']:,} with or without a space before, "
        f"{counted['matched_in_lower_case']:,} in lower case"
    )
    return SourceVectors(vocab, _Gathered(array, matches.rows), facts | counted)


@dataclass(frozen=True)
class _Gathered:
    """The array's row of each id in turn; zero where that is −1."""

    array: _Array
    rows: Int64[np.ndarray, "vocab"]

    def __iter__(self) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        for start, stop in row_ranges(len(self.rows), 4 * self.array.dim):
            wanted = self.rows[start:stop]
            block = np.zeros((stop - start, self.array.dim), np.float32)
            block[wanted >= 0] = self.array.at(wanted[wanted >= 0])
            yield block


def _open_array(path: Path, tensor: str | None) -> _Array:
    if path.suffix == ".safetensors":
        matrix = choose_head(open_checkpoint(path), tensor).matrix
        rows, dim = matrix.shape
        return _Array(rows, dim, lambda ids: _rows_of(matrix, ids))
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is read as Python, and runs into whatever the bytes lead it to
        raise InputError(f"{path} is no .npy array of numbers: {error}", "write it with numpy.save") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays", "write the one that is meant with numpy.save")
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise InputError(
            f"{path} holds {array.dtype} of shape {list(array.shape)}", "give floats of shape [words or tokens, dim]"
        )
    rows, dim = array.shape
    return _Array(rows, dim, lambda ids: _narrowed(array[ids]))


def _narrowed(rows: np.ndarray) -> Float32[np.ndarray, "some dim"]:
    """As float32; what is too large for it becomes infinite, and is reported with the token that it is of."""
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def _rows_of(matrix: Matrix, ids: Int64[np.ndarray, "some"]) -> Float32[np.ndarray, "some dim"]:
    """One read for each run of numbers that follow each other."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1) if len(ids) else []
    rows = [matrix.rows(int(run[0]), int(run[-1]) + 1) for run in runs]
    return np.concatenate(rows) if rows else np.zeros((0, matrix.shape[1]), np.float32)


def _inputs(files: list[Path]) -> tuple[InputFile, ...]:
    return tuple(sha256_file(path).named(path.name) for path in files)
