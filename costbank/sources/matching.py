"""Match tokens with the words of another vocabulary by bytes, with or without a leading space, or in lower case."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from costbank.vocab import WORD_START_MARKS, TokenStatus, Vocab

__all__ = ["Match", "Matches", "match_tokens", "rows_of_vocab", "same_bytes", "unmarked", "wanted_words"]


_MARKS = tuple(mark.encode() for mark in WORD_START_MARKS)


class Match(IntEnum):
    """How a token matches a word; a larger value is a looser match."""

    NONE = 0
    EXACT = 1
    WORD_START = 2
    FOLDED = 3


@dataclass(frozen=True)
class Matches:
    """The row of each token's word, or −1, and the kind of match (a `Match`)."""

    rows: Int64[np.ndarray, "vocab"]
    how: UInt8[np.ndarray, "vocab"]

    def count(self, match: Match) -> int:
        """The number of tokens with this kind of match."""
        return int((self.how == match).sum())


def match_tokens(vocab: Vocab, rows: Mapping[bytes, int], loosest: Match) -> Matches:
    """Match each token with a word.

    A token matches the word with its exact bytes; else (`WORD_START`) the word that has or lacks a leading space; else
    (`FOLDED`) a word that is equal in lower case, with or without the space. Special and unused tokens match no word,
    and a byte token matches only its exact byte.

    Args:
        vocab: the tokens.
        rows: the row of each word. Of several words that are equal in lower case, the first one is used.
        loosest: the loosest kind of match to accept.
    """
    folded: dict[bytes, int] = {}
    if loosest == Match.FOLDED:
        for word, row in rows.items():
            folded.setdefault(_fold(word), row)
    matched_rows = np.full(vocab.size, -1, np.int64)
    how = np.zeros(vocab.size, np.uint8)
    for token_id in np.flatnonzero(vocab.ordinary).tolist():
        for match, spelling in _spellings(vocab, token_id, loosest):
            row = (folded if match == Match.FOLDED else rows).get(spelling)
            if row is not None:
                matched_rows[token_id], how[token_id] = row, match
                break
    return Matches(matched_rows, how)


def wanted_words(vocab: Vocab, loosest: Match) -> Callable[[bytes], bool]:
    """A predicate: whether `match_tokens` with the same `loosest` can match a word with some token."""
    spellings = {
        spelling
        for token_id in np.flatnonzero(vocab.ordinary).tolist()
        for _, spelling in _spellings(vocab, token_id, loosest)
    }
    if loosest == Match.FOLDED:
        return lambda word: word in spellings or _fold(word) in spellings
    return spellings.__contains__


def rows_of_vocab(vocab: Vocab, usable: Bool[np.ndarray, "vocab"]) -> dict[bytes, int]:
    """The ids of usable ordinary tokens by bytes; of equal tokens, the first with the status `OK`, else the first."""
    rows: dict[bytes, int] = {}
    for status in (TokenStatus.OK, TokenStatus.BYTE):
        for token_id in np.flatnonzero(usable & (vocab.status == status)).tolist():
            rows.setdefault(vocab.token(token_id), token_id)
    return rows


def same_bytes(vocab: Vocab, other: Vocab, usable: Bool[np.ndarray, "other"]) -> Int64[np.ndarray, "vocab"]:
    """For each token, the usable id of `other` with the same bytes and any status, or −1.

    If several ids have these bytes (such as a letter and a byte token), the result is the token's own id if it is one
    of them, else the first id with the same status, else the first id. A token without bytes gets −1.
    """
    ids: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(usable & (np.diff(other.offsets) > 0)).tolist():
        ids.setdefault(other.token(row), []).append(row)
    rows = np.full(vocab.size, -1, np.int64)
    for token_id in np.flatnonzero(np.diff(vocab.offsets) > 0).tolist():
        candidates = ids.get(vocab.token(token_id))
        if candidates:
            same_status = [row for row in candidates if other.status[row] == vocab.status[token_id]]
            rows[token_id] = token_id if token_id in candidates else (same_status or candidates)[0]
    return rows


def unmarked(word: bytes) -> bytes:
    """Replace each leading `▁` or `Ġ` of a word with a space."""
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
