"""Vectors from the spelling of a vocabulary alone: byte n-grams, idf weights, a truncated SVD.

This is latent semantic analysis (Deerwester et al. 1990) with tokens for documents and their byte n-grams, with word
boundaries marked as in fastText (Bojanowski et al. 2017), for terms. Each token is seen twice: as it is, and folded,
without case and as if it began a word, so that "King", " king" and "king" are near each other but not the same.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from costbank.errors import TokenizerError, UsageError, require
from costbank.progress import Progress
from costbank.sources.base import SourcePlan, SourceVectors, given_tokenizer, in_blocks
from costbank.sources.spelling.settings import SpellingBuild, SpellingConfig
from costbank.transforms import signed
from costbank.vocab import Vocab

__all__ = ["ngram_matrix", "plan", "spelling_vectors"]

sparse = require("scipy.sparse", "build")
svds = require("scipy.sparse.linalg", "build").svds
threadpoolctl = require("threadpoolctl", "build")

_START, _END, _SYMBOLS = 257, 258, 259
_LEAST_TOKENS = 3
_LEAST_NORM = 1e-6
_SEED = 0
_ADVICE = (
    "Tokens are near each other that are spelled alike: forms of one word, words of one stem, the same word with and "
    "without a space or a capital. That is good for telling near misses of spelling from other mistakes, for a "
    "tokenizer that has neither a model nor a corpus yet, and as a baseline. It is no good for meaning: synonyms that "
    "share no letters cost about 1, and words that look alike are near whatever they mean."
)


def plan(config: SpellingBuild) -> SourcePlan:
    """Spelling vectors need a tokenizer and nothing else.

    Raises:
        UsageError: no tokenizer is named, or the n-gram lengths do not fit.
        InputNotFoundError, TokenizerError: as in `load_tokenizer`, or it has fewer than three ordinary tokens.
    """
    settings = config.spelling
    if settings.min_ngram > settings.max_ngram:
        raise UsageError(
            f"spelling.min_ngram is {settings.min_ngram}, above spelling.max_ngram, {settings.max_ngram}",
            "set the one at most as large as the other",
        )
    tokenizer = given_tokenizer(config)
    spelled = int(tokenizer.vocab.ordinary.sum())
    if spelled < _LEAST_TOKENS:
        raise TokenizerError(
            f"{tokenizer.file} has {spelled} ordinary tokens; spelling vectors need {_LEAST_TOKENS}",
            "name another tokenizer",
        )
    dim = min(settings.dim, spelled - 1)

    def make(progress: Progress) -> SourceVectors:
        rows, facts = spelling_vectors(tokenizer.vocab, settings, dim, progress)
        return SourceVectors(tokenizer.vocab, in_blocks(rows), facts, origin="the spelling vectors")

    return SourcePlan(tokenizer, (tokenizer.vocab.size, dim), make, ("numpy", "scipy"), _ADVICE)


def spelling_vectors(
    vocab: Vocab, settings: SpellingConfig, dim: int, progress: Progress
) -> tuple[Float32[np.ndarray, "vocab dim"], dict[str, float]]:
    """The rows of U·Σ of the weighted n-gram matrix, and facts about it.

    A row's length is the share of the token's spelling that `dim` directions keep, between 0 and 1. Special, unused and
    empty tokens have zero rows, as do tokens that share no n-gram with another. Singular vectors are unique up to their
    sign; the largest element of each is made positive.
    """
    spelled = np.flatnonzero(vocab.ordinary)
    tokens = [vocab.token(token_id) for token_id in spelled.tolist()]
    with progress.step("count n-grams"):
        weighted = ngram_matrix(tokens, settings.min_ngram, settings.max_ngram)
    with progress.step("factorise"):
        left, values = _truncated_svd(weighted, dim)
    found = (left * values).astype(np.float32)
    found[np.linalg.norm(found, axis=1) < _LEAST_NORM] = 0
    rows = np.zeros((vocab.size, dim), np.float32)
    rows[spelled, : found.shape[1]] = found
    facts = {
        "ngrams": weighted.shape[1],
        "ngram_occurrences": weighted.nnz,
        "spelling_kept": round(float(np.square(values).sum() / max(weighted.power(2).sum(), 1e-300)), 4),
    }
    return rows, facts


def ngram_matrix(tokens: list[bytes], min_ngram: int, max_ngram: int) -> Any:
    """Tokens × their byte n-grams: 0, or the idf ln(tokens / tokens that have it); rows of unit length.

    An n-gram of one token only says nothing about others and is left out. Where no token begins with a space, each is a
    word of its own, and begins as one.

    Args:
        tokens: the bytes of each token.
        min_ngram, max_ngram: lengths in bytes, boundary marks included; at most 7, so that 64 bits hold one.

    Returns:
        `scipy.sparse.csr_matrix` of float64.
    """
    words = not any(token.startswith(b" ") for token in tokens)
    exact = [_symbols(token, words) for token in tokens]
    folded = [_symbols(_fold(token), True) for token in tokens]
    parts = []
    for view in (exact, folded):
        symbols, owners = np.concatenate(view), np.repeat(np.arange(len(tokens)), list(map(len, view)))
        for length in range(min_ngram, max_ngram + 1):
            parts += _occurrences(symbols, owners, length, len(tokens))
    if not parts:
        return sparse.csr_matrix((len(tokens), 1), dtype=np.float64)
    matrix = sparse.hstack(parts, format="csr")
    lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).ravel())
    return sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ matrix


def _fold(token: bytes) -> bytes:
    word = token.lstrip(b" ") or token
    try:
        return word.decode("utf-8").casefold().encode("utf-8")
    except UnicodeDecodeError:
        return word.lower()


def _symbols(token: bytes, word: bool) -> Int64[np.ndarray, "symbols"]:
    """The bytes as numbers from 1 on, a leading space as the mark of a start, then the mark of the token's end."""
    start = [_START] if word or token.startswith(b" ") else []
    rest = token if word else token.removeprefix(b" ")
    return np.array([*start, *(byte + 1 for byte in rest), _END], np.int64)


def _occurrences(
    symbols: Int64[np.ndarray, "symbols"], owners: Int64[np.ndarray, "symbols"], length: int, tokens: int
) -> list[Any]:
    """The idf-weighted columns of all n-grams of one length; none where no two tokens share one."""
    starts = len(symbols) - length + 1
    if starts < 1:
        return []
    codes = np.zeros(starts, np.int64)
    for position in range(length):
        codes = codes * _SYMBOLS + symbols[position : position + starts]
    within = owners[:starts] == owners[length - 1 :]
    found, columns = np.unique(codes[within], return_inverse=True)
    held = sparse.csc_matrix((np.ones(len(columns)), (owners[:starts][within], columns)), (tokens, len(found)))
    held.sum_duplicates()
    held.data[:] = 1
    frequency = np.diff(held.indptr)
    shared = frequency > 1
    held, frequency = held[:, shared], frequency[shared]
    return [held @ sparse.diags(np.log(tokens / frequency))] if shared.any() else []


def _truncated_svd(matrix: Any, dim: int) -> tuple[Float64[np.ndarray, "rows kept"], Float64[np.ndarray, "kept"]]:
    """Left singular vectors and values, descending, at most `dim` of them; the same on any number of cores."""
    smaller = min(matrix.shape)
    with threadpoolctl.threadpool_limits(1):
        if dim < smaller - 1:
            start = np.random.default_rng(_SEED).standard_normal(smaller)
            left, values, _ = svds(matrix, dim, v0=start, return_singular_vectors="u")
        else:
            left, values, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-values, kind="stable")[:dim]
    return signed(left[:, order]), values[order]
