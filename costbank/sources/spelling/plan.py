"""Vectors from the spelling of tokens: byte n-grams, idf weights and a truncated SVD.

This is latent semantic analysis (Deerwester et al. 1990). The documents are tokens, and the terms are their byte
n-grams with marked word boundaries, as in fastText (Bojanowski et al. 2017). Each token has two views: unchanged, and
folded (in lower case and at the start of a word), so "King", " king" and "king" are near each other but not equal.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from costbank.errors import TokenizerError, UsageError, require
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.sources.base import SourcePlan, SourceVectors, configured_tokenizer, in_blocks
from costbank.sources.spelling.settings import SpellingBuild, SpellingConfig
from costbank.transforms import signed
from costbank.vocab import Vocab

__all__ = ["ngram_matrix", "plan", "spelling_vectors"]

sparse = require("scipy.sparse", "build")
svds = require("scipy.sparse.linalg", "build").svds
threadpoolctl = require("threadpoolctl", "build")

_START, _END, _SYMBOLS = 257, 258, 259
_MIN_TOKENS = 3
_MIN_NORM = 1e-6
_SEED = 0
_ADVICE = (
    "Tokens are near each other if their spelling is similar: forms of one word, words with the same stem, the same "
    "word with and without a space or a capital. Such vectors separate near misses in spelling from other errors, need "
    "neither a model nor a corpus, and serve as a baseline. They do not reflect meaning: synonyms that share no "
    "letters cost about 1, and words with similar spelling are near, whatever they mean."
)


def plan(config: SpellingBuild) -> SourcePlan:
    """Check the tokenizer and the settings.

    Raises:
        UsageError: no tokenizer is named, or the minimum n-gram length is above the maximum.
        InputNotFoundError, TokenizerError: see `load_tokenizer`; or the tokenizer has fewer than three ordinary tokens.
    """
    settings = config.spelling
    if settings.min_ngram > settings.max_ngram:
        raise UsageError(
            f"spelling.min_ngram={settings.min_ngram} is larger than spelling.max_ngram={settings.max_ngram}",
            "set spelling.min_ngram to at most spelling.max_ngram",
        )
    tokenizer = configured_tokenizer(config)
    ordinary = int(tokenizer.vocab.ordinary.sum())
    if ordinary < _MIN_TOKENS:
        raise TokenizerError(
            f"{tokenizer.file} has {counted(ordinary, 'ordinary token')}; spelling vectors need at least {_MIN_TOKENS}",
            "use another tokenizer",
        )
    dim = min(settings.dim, ordinary - 1)

    def make(progress: Progress) -> SourceVectors:
        rows, facts = spelling_vectors(tokenizer.vocab, settings, dim, progress)
        return SourceVectors(tokenizer.vocab, in_blocks(rows), facts, origin="the spelling vectors")

    return SourcePlan(tokenizer, (tokenizer.vocab.size, dim), make, ("numpy", "scipy"), _ADVICE)


def spelling_vectors(
    vocab: Vocab, settings: SpellingConfig, dim: int, progress: Progress
) -> tuple[Float32[np.ndarray, "vocab dim"], dict[str, float]]:
    """The rows of U·Σ of the weighted n-gram matrix, and facts about them for the manifest.

    The length of a row, between 0 and 1, is the share of the token's spelling that `dim` dimensions preserve. A row is
    zero if its token is special, unused or empty, or has no n-gram in common with another token. Each singular vector
    has the sign that makes its largest element positive.
    """
    ordinary = np.flatnonzero(vocab.ordinary)
    tokens = [vocab.token(token_id) for token_id in ordinary.tolist()]
    with progress.step("count n-grams"):
        weighted = ngram_matrix(tokens, settings.min_ngram, settings.max_ngram)
    with progress.step("factorize"):
        left, values = _truncated_svd(weighted, dim)
    ordinary_rows = (left * values).astype(np.float32)
    ordinary_rows[np.linalg.norm(ordinary_rows, axis=1) < _MIN_NORM] = 0
    rows = np.zeros((vocab.size, dim), np.float32)
    rows[ordinary, : ordinary_rows.shape[1]] = ordinary_rows
    facts = {
        "ngrams": weighted.shape[1],
        "ngram_occurrences": weighted.nnz,
        "spelling_kept": round(float(np.square(values).sum() / max(weighted.power(2).sum(), 1e-300)), 4),
    }
    return rows, facts


def ngram_matrix(tokens: list[bytes], min_ngram: int, max_ngram: int) -> Any:
    """The matrix of tokens and byte n-grams: idf = ln(tokens / tokens with the n-gram), then rows scaled to length 1.

    N-grams that only one token has are ignored. If no token starts with a space, every token is marked as a word start.

    Args:
        tokens: the bytes of each token.
        min_ngram: the minimum length of an n-gram in bytes, including boundary marks.
        max_ngram: the maximum length; at most 7, so that an n-gram fits in 64 bits.

    Returns:
        `scipy.sparse.csr_matrix` of float64.
    """
    all_start_words = not any(token.startswith(b" ") for token in tokens)
    exact = [_symbols(token, all_start_words) for token in tokens]
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


def _symbols(token: bytes, starts_word: bool) -> Int64[np.ndarray, "symbols"]:
    """A start mark, in place of a leading space or if `starts_word`; then each byte plus 1; then an end mark."""
    start = [_START] if starts_word or token.startswith(b" ") else []
    word = token if starts_word else token.removeprefix(b" ")
    return np.array([*start, *(byte + 1 for byte in word), _END], np.int64)


def _occurrences(
    symbols: Int64[np.ndarray, "symbols"], owners: Int64[np.ndarray, "symbols"], length: int, tokens: int
) -> list[Any]:
    """The idf-weighted columns of the n-grams of one length; an empty list if no two tokens share an n-gram."""
    starts = len(symbols) - length + 1
    if starts < 1:
        return []
    codes = np.zeros(starts, np.int64)
    for position in range(length):
        codes = codes * _SYMBOLS + symbols[position : position + starts]
    in_token = owners[:starts] == owners[length - 1 :]
    ngrams, columns = np.unique(codes[in_token], return_inverse=True)
    matrix = sparse.csc_matrix((np.ones(len(columns)), (owners[:starts][in_token], columns)), (tokens, len(ngrams)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    frequency = np.diff(matrix.indptr)
    shared = frequency > 1
    matrix, frequency = matrix[:, shared], frequency[shared]
    return [matrix @ sparse.diags(np.log(tokens / frequency))] if shared.any() else []


def _truncated_svd(matrix: Any, dim: int) -> tuple[Float64[np.ndarray, "rows rank"], Float64[np.ndarray, "rank"]]:
    """At most `dim` left singular vectors and values, descending; bit-equal on any number of cores."""
    smaller = min(matrix.shape)
    with threadpoolctl.threadpool_limits(1):
        if dim < smaller - 1:
            start = np.random.default_rng(_SEED).standard_normal(smaller)
            left, values, _ = svds(matrix, dim, v0=start, return_singular_vectors="u")
        else:
            left, values, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-values, kind="stable")[:dim]
    return signed(left[:, order]), values[order]
