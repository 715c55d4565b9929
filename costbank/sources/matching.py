"""Which of another vocabulary's words a token is: by its bytes, with or without the space before it, in any case."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from costbank.vocab import WORD_START_MARKS, TokenStatus, Vocab

__all__ = ["Match", "Matches", "match_tokens", "rows_of_vocab", "same_bytes", "unmarked", "wanted_words"]


_MARKS = tuple(mark.encode() for mark in WORD_START_MARKS)


class Match(IntEnum):
    """How a token found its word; the first that applies. The larger, the looser."""

    NONE = 0
    EXACT = 1
    WORD_START = 2
    FOLDED = 3


@dataclass(frozen=True)
class Matches:
    """The row of each token's word, −1 where there is none, and how it was found (a `Match`)."""

    rows: Int64[np.ndarray, "vocab"]
    how: UInt8[np.ndarray, "vocab"]

    def count(self, match: Match) -> int:
        return int((self.how == match).sum())


def match_tokens(vocab: Vocab, rows: Mapping[bytes, int], loosest: Match) -> Matches:
    """Find each token among words that have rows.

    A token is the word of its exact bytes; else (`WORD_START`) the one with a space before it more or less; else
    (`FOLDED`) one that is the same in lower case, again with or without the space. Special and unused tokens are
    nothing's word, and a byte piece is only that of its exact byte.

    Args:
        vocab: the tokens.
        rows: the row of each word; the first of those that are alike in lower case stands for them.
        loosest: how far to go.
    """
    folded: dict[bytes, int] = {}
    if loosest == Match.FOLDED:
        for word, row in rows.items():
            folded.setdefault(_fold(word), row)
    found = np.full(vocab.size, -1, np.int64)
    how = np.zeros(vocab.size, np.uint8)
    for token_id in np.flatnonzero(vocab.ordinary).tolist():
        for match, spelling in _spellings(vocab, token_id, loosest):
            row = (folded if match == Match.FOLDED else rows).get(spelling)
            if row is not None:
                found[token_id], how[token_id] = row, match
                break
    return Matches(found, how)


def wanted_words(vocab: Vocab, loosest: Match) -> Callable[[bytes], bool]:
    """Whether some token could be this word, by `match_tokens` with the same `loosest`."""
    wanted = {
        spelling
        for token_id in np.flatnonzero(vocab.ordinary).tolist()
        for _, spelling in _spellings(vocab, token_id, loosest)
    }
    if loosest == Match.FOLDED:
        return lambda word: word in wanted or _fold(word) in wanted
    return wanted.__contains__


def rows_of_vocab(vocab: Vocab, usable: Bool[np.ndarray, "vocab"]) -> dict[bytes, int]:
    """The id of each ordinary token that is usable, by its bytes: an `OK` one before others, and a lower id."""
    rows: dict[bytes, int] = {}
    for status in (TokenStatus.OK, TokenStatus.BYTE):
        for token_id in np.flatnonzero(usable & (vocab.status == status)).tolist():
            rows.setdefault(vocab.token(token_id), token_id)
    return rows


def same_bytes(vocab: Vocab, other: Vocab, usable: Bool[np.ndarray, "other"]) -> Int64[np.ndarray, "vocab"]:
    """The usable id of `other` that has each token's exact bytes, whatever the status of either; −1 for none.

    Where several ids have these bytes (a letter and its byte piece), the same id is taken if it is one of them, else
    the first of the same status, else the first. Tokens without bytes have none.
    """
    ids: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(usable & (np.diff(other.offsets) > 0)).tolist():
        ids.setdefault(other.token(row), []).append(row)
    rows = np.full(vocab.size, -1, np.int64)
    for token_id in np.flatnonzero(np.diff(vocab.offsets) > 0).tolist():
        candidates = ids.get(vocab.token(token_id))
        if candidates:
            of_status = [row for row in candidates if other.status[row] == vocab.status[token_id]]
            rows[token_id] = token_id if token_id in candidates else (of_status or candidates)[0]
    return rows


def unmarked(word: bytes) -> bytes:
    """The word with each leading mark `▁` or `Ġ` as the space that it stands for."""
    spaces = 0
    while mark := next((mark for mark in _MARKS if word.startswith(mark)), None):
        word, spaces = word[len(mark) :], spaces + 1
    return b" " * spaces + word


def _spellings(vocab: Vocab, token_id: int, loosest: Match) -> Iterator[tuple[Match, bytes]]:
    token = vocab.token(token_id)
    yield Match.EXACT, token
    if vocab.status[token_id] == TokenStatus.BYTE or not token.strip():
        return
    other = token[1:] if token.startswith(b" ") else b" " + token
    if loosest >= Match.WORD_START:
        yield Match.WORD_START, other
    if loosest >= Match.FOLDED:
        yield Match.FOLDED, _fold(token)
        yield Match.FOLDED, _fold(other)


def _fold(word: bytes) -> bytes:
    try:
        return word.decode("utf-8").lower().encode("utf-8")
    except UnicodeDecodeError:
        return word.lower()
