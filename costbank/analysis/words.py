"""The rows of words: a word's own token, or the mean of its pieces.

A bank does not contain its tokenizer, only the bytes of the tokens. A word of several pieces is therefore segmented by
greedy longest match: the first piece is the longest token that starts a word and begins the word, and each next piece
is the longest token at the position behind it. A tokenizer can segment the same word differently.
"""

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64

from costbank.bank import Bank
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["WordRows", "ids_by_bytes"]

_SPACE = ord(" ")


class WordRows:
    """Unit rows of words, each named by a key: the id of a token, or a larger number for a word of several pieces.

    A word is looked up as it is spelled, then in lower case. Only ordinary tokens with a vector are used.
    """

    def __init__(self, bank: Bank, with_pieces: bool = False) -> None:
        """
        Args:
            bank: the bank with the tokens.
            with_pieces: whether a word that is not one token has the normalized mean of its pieces' rows.
        """
        self._bank = bank
        self._with_pieces = with_pieces
        self._keys_of_pieces: dict[tuple[int, ...], int | None] = {}
        self._means: list[np.ndarray] = []

    def key(self, word: str) -> int | None:
        """The key of a word; None if it is not one token, or cannot be made of pieces where these are allowed."""
        spellings = dict.fromkeys((word, word.lower())) if word else ()
        for spelling in spellings:
            if (token_id := self._ids.get(b" " + spelling.encode())) is not None:
                return token_id
        for spelling in spellings if self._with_pieces else ():
            if (pieces := self.pieces(spelling)) and (key := self._key_of_pieces(pieces)) is not None:
                return key
        return None

    def pieces(self, word: str) -> tuple[int, ...]:
        """The tokens of a word by greedy longest match; none if no token matches at some position.

        If no token that starts a word begins the word, as in text without spaces, its first piece has no space.
        """
        data = b" " + word.encode()
        first = self._longest(data, 0)
        # A token that is only a space says nothing about the word.
        pieces, position = ([first[0]], first[1]) if first and first[1] > 1 else ([], 1)
        while position < len(data):
            piece = self._longest(data, position)
            if piece is None:
                return ()
            pieces.append(piece[0])
            position += piece[1]
        return tuple(pieces)

    def rows(self, keys: Int64[np.ndarray, "keys"]) -> Float32[np.ndarray, "keys dim"]:
        """The rows of these keys."""
        size = self._bank.size
        rows = np.empty((len(keys), self._bank.dim), np.float32)
        is_token = keys < size
        rows[is_token] = self._bank.vectors(keys[is_token])
        for position in np.flatnonzero(~is_token).tolist():
            rows[position] = self._means[int(keys[position]) - size]
        return rows

    def candidates(self) -> Int64[np.ndarray, "candidates"]:
        """The keys of all tokens that start a word, and of all words of several pieces so far, ascending."""
        means = self._bank.size + np.arange(len(self._means))
        return np.concatenate([np.flatnonzero(_word_starts(self._bank)), means])

    def _key_of_pieces(self, pieces: tuple[int, ...]) -> int | None:
        if pieces not in self._keys_of_pieces:
            mean = self._bank.vectors(np.array(pieces)).mean(axis=0, dtype=np.float64)
            unit, lengths = normalize(mean[None])
            self._keys_of_pieces[pieces] = self._bank.size + len(self._means) if lengths[0] > 0 else None
            if lengths[0] > 0:
                self._means.append(unit[0])
        return self._keys_of_pieces[pieces]

    def _longest(self, data: bytes, start: int) -> tuple[int, int] | None:
        """The longest token at a position, and its number of bytes."""
        for length in range(min(self._longest_token, len(data) - start), 0, -1):
            if (token_id := self._ids.get(data[start : start + length])) is not None:
                return token_id, length
        return None

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return ids_by_bytes(self._bank.vocab, self._bank.usable)

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self._ids), default=0)


def ids_by_bytes(vocab: Vocab, among: Bool[np.ndarray, "vocab"]) -> dict[bytes, int]:
    """The ids of ordinary tokens by their bytes; of several ids, the first of status ok, else the first."""
    data, offsets = vocab.data.tobytes(), vocab.offsets.tolist()
    ids: dict[bytes, int] = {}
    chosen, is_ok = vocab.ordinary & among, vocab.status == TokenStatus.OK
    for token_id in (*np.flatnonzero(chosen & is_ok).tolist(), *np.flatnonzero(chosen & ~is_ok).tolist()):
        ids.setdefault(data[offsets[token_id] : offsets[token_id + 1]], token_id)
    return ids


def _word_starts(bank: Bank) -> Bool[np.ndarray, "vocab"]:
    """Which tokens are ordinary, have a vector, and begin with exactly one space."""
    vocab = bank.vocab
    starts = vocab.ordinary & bank.usable & (np.diff(vocab.offsets) > 1)
    offsets = vocab.offsets[:-1][starts]
    starts[starts] = (vocab.data[offsets] == _SPACE) & (vocab.data[offsets + 1] != _SPACE)
    return starts
