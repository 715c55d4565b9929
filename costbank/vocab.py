"""What the ids of a tokenizer stand for: bytes, status, counts, and a fingerprint of all of it.

A `Vocab` holds flat arrays rather than one object a token, so that a bank can map it straight from its file.
It does not encode text; that is a tokenizer's work.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from costbank.errors import ShapeError, TokenNotFoundError

__all__ = ["WORD_START_MARKS", "TokenStatus", "Vocab", "display_bytes"]

WORD_START_MARKS = ("▁", "Ġ")
"""How tokenizers spell a leading space: SentencePiece writes U+2581, byte-level BPE U+0120."""

_MOST_SUGGESTIONS = 5


class TokenStatus(IntEnum):
    """Why a token has, or has not, a vector that can be trusted. The numbers are part of bank format 1."""

    OK = 0
    BYTE = 1
    SPECIAL = 2
    UNUSED = 3
    UNSEEN = 4


_FIRST_FOUND = (TokenStatus.OK, TokenStatus.BYTE, TokenStatus.UNSEEN, TokenStatus.SPECIAL, TokenStatus.UNUSED)


def display_bytes(token: bytes) -> str:
    """One printable line for a token: a leading space as ▁, control characters and broken UTF-8 escaped."""
    text = token.decode("utf-8", "backslashreplace")
    text = "▁" * (len(text) - len(text.lstrip(" "))) + text.lstrip(" ")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass(frozen=True, eq=False)
class Vocab:
    """The ids 0 … size − 1 of one tokenizer.

    Attributes:
        data: all tokens' bytes, one after the other; special tokens hold their literal text, padding rows nothing.
        offsets: token i is data[offsets[i]:offsets[i + 1]].
        status: a `TokenStatus` for each id.
        counts: how often each id occurred where that is known, else −1.
    """

    data: UInt8[np.ndarray, "total"]
    offsets: Int64[np.ndarray, "vocab_plus_1"]
    status: UInt8[np.ndarray, "vocab"]
    counts: Int64[np.ndarray, "vocab"]

    def __post_init__(self) -> None:
        if not len(self.offsets) - 1 == len(self.status) == len(self.counts):
            raise ShapeError(
                f"a vocabulary of {len(self.offsets) - 1} tokens with {len(self.status)} statuses "
                f"and {len(self.counts)} counts",
                "give one of each for every token id",
            )

    @classmethod
    def from_tokens(
        cls, tokens: Sequence[bytes], status: Sequence[TokenStatus], counts: Sequence[int] | None = None
    ) -> "Vocab":
        """Lay out a list of tokens, in the order of their ids. Counts default to unknown (−1)."""
        lengths = np.fromiter((len(token) for token in tokens), np.int64, len(tokens))
        return cls(
            data=np.frombuffer(b"".join(tokens), np.uint8),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            status=np.array(status, np.uint8),
            counts=np.full(len(tokens), -1, np.int64) if counts is None else np.array(counts, np.int64),
        )

    @property
    def size(self) -> int:
        return len(self.status)

    def token(self, token_id: int) -> bytes:
        """The bytes of one id.

        Raises:
            TokenNotFoundError: the id is outside the vocabulary.
        """
        return self.data[self.offsets[self.check(token_id)] : self.offsets[token_id + 1]].tobytes()

    def check(self, token_id: int) -> int:
        """The id itself where the vocabulary has it.

        Raises:
            TokenNotFoundError: the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.size:
            raise TokenNotFoundError(
                f"token id {token_id} is outside the vocabulary", f"ids go from 0 to {self.size - 1}"
            )
        return token_id

    def display(self, token_id: int) -> str:
        """One printable line for an id; padding ids, which stand for no bytes, show as <unused id>."""
        return display_bytes(self.token(token_id)) or f"<unused {token_id}>"

    def status_of(self, token_id: int) -> TokenStatus:
        return TokenStatus(int(self.status[self.check(token_id)]))

    def status_counts(self) -> dict[str, int]:
        """How many ids have each status, every status named."""
        counts = np.bincount(self.status, minlength=len(TokenStatus))
        return {status.name.lower(): int(counts[status]) for status in TokenStatus}

    @cached_property
    def ordinary(self) -> Bool[np.ndarray, "vocab"]:
        """Which ids a text can hold: neither special nor unused, and of at least a byte."""
        can_occur = np.isin(self.status, (TokenStatus.OK, TokenStatus.BYTE, TokenStatus.UNSEEN))
        return can_occur & (np.diff(self.offsets) > 0)

    def with_counts(self, counts: Int64[np.ndarray, "vocab"]) -> "Vocab":
        """The same tokens with a corpus's counts."""
        return replace(self, counts=counts.astype(np.int64, copy=False))

    def with_evidence(self, seen: Bool[np.ndarray, "vocab"]) -> "Vocab":
        """The same tokens, of which the ordinary ones without evidence become `UNSEEN`."""
        ordinary = np.isin(self.status, (TokenStatus.OK, TokenStatus.BYTE))
        return replace(self, status=np.where(ordinary & ~seen, np.uint8(TokenStatus.UNSEEN), self.status))

    def padded(self, size: int) -> "Vocab":
        """The same tokens and, up to `size`, unused ids after them: rows that a model's head has to spare."""
        more = size - self.size
        return replace(
            self,
            offsets=np.concatenate([self.offsets, np.full(more, self.offsets[-1])]),
            status=np.concatenate([self.status, np.full(more, TokenStatus.UNUSED, np.uint8)]),
            counts=np.concatenate([self.counts, np.full(more, -1, np.int64)]),
        )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over every id's bytes and status: equal vocabularies, however stored, have equal ones.

        Taken of a tokenizer's own vocabulary, before any corpus marks ids as unseen.
        """
        digest = hashlib.sha256(b"costbank vocabulary 1\n")
        for array, dtype in ((self.offsets, "<i8"), (self.data, "u1"), (self.status, "u1")):
            digest.update(array.astype(dtype).tobytes())
        return digest.hexdigest()

    def ids_of(self, token: bytes) -> list[int]:
        """All ids that stand for exactly these bytes: those of ordinary tokens first, then byte pieces and the rest."""
        if not token:
            return []
        ids = self._ids_starting(token, exact=True)
        return sorted(ids.tolist(), key=lambda token_id: (_FIRST_FOUND.index(self.status[token_id]), token_id))

    def find(self, text: str) -> int:
        """The id that a person means by `text`.

        In this order: `id:123`, `hex:e4bda0`, the exact bytes of the text, the text with each leading ▁ or Ġ read
        as a space, the text with a space before it.

        Raises:
            TokenNotFoundError: no token fits; the hint names some that come close.
        """
        kind, _, value = text.partition(":")
        if kind == "id" and re.fullmatch(r"-?[0-9]{1,18}", value):
            return self.check(int(value))
        spellings = [text.encode("utf-8", "surrogateescape")] if text else []
        if kind == "hex" and value:
            try:
                spellings.append(bytes.fromhex(value))
            except ValueError:
                raise TokenNotFoundError(f"{text!r} is not a token in hexadecimal", "write it as hex:e4bda0") from None
        if text.startswith(WORD_START_MARKS):
            word = text.lstrip("".join(WORD_START_MARKS))
            spellings.append(b" " * (len(text) - len(word)) + word.encode("utf-8", "surrogateescape"))
        elif text:
            spellings.append(b" " + spellings[0])
        for spelling in spellings:
            if ids := self.ids_of(spelling):
                return ids[0]
        raise TokenNotFoundError(f"no token is spelled {text!r}", self._suggestion(spellings))

    def word_start_of(self, token_id: int) -> int | None:
        """The id that is this token with a space before it, where the vocabulary has one."""
        ids = self.ids_of(b" " + self.token(token_id))
        return ids[0] if ids else None

    def _ids_starting(self, prefix: bytes, exact: bool = False) -> Int64[np.ndarray, "found"]:
        lengths = np.diff(self.offsets)
        ids = np.flatnonzero(lengths == len(prefix) if exact else lengths >= len(prefix))
        for position, byte in enumerate(prefix):
            ids = ids[self.data[self.offsets[ids] + position] == byte]
        return ids

    def _suggestion(self, spellings: list[bytes]) -> str:
        for spelling in reversed(spellings):
            for end in range(len(spelling), len(spelling) // 2, -1):
                ids = self._ids_starting(spelling[:end])
                if len(ids):
                    names = ", ".join(self.display(int(i)) for i in ids[:_MOST_SUGGESTIONS])
                    return f"tokens that begin alike: {names}; or name one as id:123 or hex:e4bda0"
        return "name a token by its text, as id:123 or as hex:e4bda0"
