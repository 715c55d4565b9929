"""The tokens of a tokenizer by id: their bytes, status and counts, and a fingerprint of the vocabulary.

A `Vocab` has flat arrays instead of an object per token, so that a bank can map them from its file. It does not encode
text; a tokenizer does.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from operator import index
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from costbank.errors import ShapeError, TokenNotFoundError, UsageError
from costbank.token_names import FORMS, WORD_START_MARKS, Reading, case_variants, printable, readings, text_bytes

__all__ = ["WORD_START_MARKS", "MatchedToken", "TokenFacts", "TokenMatch", "TokenStatus", "Vocab", "display_bytes"]

_MOST_SUGGESTIONS = 5
_MOST_QUOTED = 60
_ID = re.compile(r"id:(-?[0-9]{1,18})")


class TokenStatus(IntEnum):
    """Why a token has a vector or not. The numbers are part of bank format 1."""

    OK = 0
    BYTE = 1
    SPECIAL = 2
    UNUSED = 3
    UNSEEN = 4


_STATUS_ORDER = (TokenStatus.OK, TokenStatus.BYTE, TokenStatus.UNSEEN, TokenStatus.SPECIAL, TokenStatus.UNUSED)


@dataclass(frozen=True)
class TokenMatch:
    """The token that a text names.

    Attributes:
        id: the token.
        other: another token that the same text can mean, such as the piece `king` if `id` is `▁king`; otherwise None.
    """

    id: int
    other: int | None = None


@dataclass(frozen=True)
class TokenFacts:
    """The description of a token. `text` is for people to read; `count` is None if it is unknown."""

    id: int
    text: str
    status: str
    count: int | None


@dataclass(frozen=True)
class MatchedToken(TokenFacts):
    """The description of the token that a text names, and of another that the same text can mean."""

    other: TokenFacts | None


def display_bytes(token: bytes) -> str:
    """A token as one printable line: leading spaces as ▁, control characters and invalid UTF-8 escaped."""
    stripped = token.lstrip(b" ")
    return "▁" * (len(token) - len(stripped)) + printable(stripped)


@dataclass(frozen=True, eq=False)
class Vocab:
    """The ids 0 … size − 1 of one tokenizer.

    Attributes:
        data: the bytes of all tokens, concatenated; special tokens have their literal text, padding rows no bytes.
        offsets: token i is data[offsets[i]:offsets[i + 1]].
        status: a `TokenStatus` for each id.
        counts: occurrences of each id in the corpus; −1 if unknown.
    """

    data: UInt8[np.ndarray, "total"]
    offsets: Int64[np.ndarray, "vocab_plus_1"]
    status: UInt8[np.ndarray, "vocab"]
    counts: Int64[np.ndarray, "vocab"]

    def __post_init__(self) -> None:
        if not len(self.offsets) - 1 == len(self.status) == len(self.counts):
            raise ShapeError(
                f"the vocabulary has {len(self.offsets) - 1} tokens, {len(self.status)} statuses and "
                f"{len(self.counts)} counts",
                "give a status and a count for every token id",
            )

    @classmethod
    def from_tokens(
        cls, tokens: Sequence[bytes], status: Sequence[TokenStatus], counts: Sequence[int] | None = None
    ) -> "Vocab":
        """A vocabulary of these tokens, in the order of their ids. Without counts, all are unknown (−1)."""
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
        """The bytes of an id.

        Raises:
            TokenNotFoundError: the id is outside the vocabulary.
        """
        return self.data[self.offsets[self.check(token_id)] : self.offsets[token_id + 1]].tobytes()

    def check(self, token_id: int) -> int:
        """The id itself, if it is in the vocabulary.

        Raises:
            TokenNotFoundError: the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.size:
            raise TokenNotFoundError(
                f"token id {token_id} is outside the vocabulary", f"ids go from 0 to {self.size - 1}"
            )
        return token_id

    def display(self, token_id: int) -> str:
        """An id as one printable line; ids without bytes, such as padding, as `<unused 123>`."""
        return display_bytes(self.token(token_id)) or f"<unused {token_id}>"

    def status_of(self, token_id: int) -> TokenStatus:
        return TokenStatus(int(self.status[self.check(token_id)]))

    def status_counts(self) -> dict[str, int]:
        """The number of ids with each status, including zeros."""
        counts = np.bincount(self.status, minlength=len(TokenStatus))
        return {status.name.lower(): int(counts[status]) for status in TokenStatus}

    @cached_property
    def ordinary(self) -> Bool[np.ndarray, "vocab"]:
        """Which ids can occur in text: neither special nor unused, with at least one byte."""
        can_occur = np.isin(self.status, (TokenStatus.OK, TokenStatus.BYTE, TokenStatus.UNSEEN))
        return can_occur & (np.diff(self.offsets) > 0)

    def with_counts(self, counts: Int64[np.ndarray, "vocab"]) -> "Vocab":
        """The same tokens with other counts."""
        return replace(self, counts=counts.astype(np.int64, copy=False))

    def with_evidence(self, seen: Bool[np.ndarray, "vocab"]) -> "Vocab":
        """The same tokens; those of status ok and byte that are not `seen` become `UNSEEN`."""
        ordinary = np.isin(self.status, (TokenStatus.OK, TokenStatus.BYTE))
        return replace(self, status=np.where(ordinary & ~seen, np.uint8(TokenStatus.UNSEEN), self.status))

    def first(self, size: int) -> "Vocab":
        """The vocabulary of the ids below `size`."""
        offsets = self.offsets[: size + 1]
        return Vocab(self.data[: offsets[-1]], offsets, self.status[:size], self.counts[:size])

    def padded(self, size: int) -> "Vocab":
        """The same tokens, followed by unused ids up to `size`, for the padding rows of a model's head."""
        added = size - self.size
        return replace(
            self,
            offsets=np.concatenate([self.offsets, np.full(added, self.offsets[-1])]),
            status=np.concatenate([self.status, np.full(added, TokenStatus.UNUSED, np.uint8)]),
            counts=np.concatenate([self.counts, np.full(added, -1, np.int64)]),
        )

    @cached_property
    def fingerprint(self) -> str:
        """The sha256, in hexadecimal, of every id's bytes and status; rule 17 of the bank format.

        It identifies a tokenizer's own vocabulary, before a corpus marks ids as unseen.
        """
        digest = hashlib.sha256(b"costbank vocabulary 1\n")
        for array, dtype in ((self.offsets, "<i8"), (self.data, "u1"), (self.status, "u1")):
            digest.update(array.astype(dtype).tobytes())
        return digest.hexdigest()

    def ids_of(self, token: bytes) -> list[int]:
        """All ids with exactly these bytes, in the order ok, byte, unseen, special, unused, then by id."""
        if not token:
            return []
        ids = self._ids_with(token)
        return sorted(ids.tolist(), key=lambda token_id: (_STATUS_ORDER.index(int(self.status[token_id])), token_id))

    def match(self, token: str | SupportsIndex) -> TokenMatch:
        """The token that a text or an id names, and another that the text can mean.

        A text names the token that starts a word with it (`king`: ▁king, Ġking, WordPiece's `king`), otherwise the
        exact piece. Leading ▁ and Ġ are spaces. The literal text of a special token names that token. `piece:king` is
        the exact piece (WordPiece's `##king`), `id:123` an id, `hex:e4bda0` the bytes of a token. The spellings of
        tokenizers (`##ing`, `king</w>`, `<0x0A>`, `Ċ`) and of costbank's own output also name their tokens.

        Raises:
            TokenNotFoundError: no token matches; the hint names similar tokens.
            UsageError: `token` is neither a text nor an integer.
        """
        if not isinstance(token, str):
            return TokenMatch(self._checked_id(token))
        if (match := self.lookup(token)) is not None:
            return match
        if id_match := _ID.fullmatch(token):
            self.check(int(id_match[1]))
        raise TokenNotFoundError(_no_match(token), self._suggestion(token))

    def lookup(self, token: str) -> TokenMatch | None:
        """`match` for a text, but None if no token matches: without suggestions, which take a pass over all ids."""
        id_match, ids = _ID.fullmatch(token), list[int]()
        if id_match and 0 <= int(id_match[1]) < self.size:
            ids.append(int(id_match[1]))
        for reading in self._readings(token):
            matches = self.ids_of(reading.token)
            if reading.byte_piece:
                matches.sort(key=lambda token_id: self.status[token_id] != TokenStatus.BYTE)
            if matches and matches[0] not in ids:
                is_special = reading.literal and self.status[matches[0]] == TokenStatus.SPECIAL and not id_match
                ids.insert(0 if is_special else len(ids), matches[0])
            if len(ids) == 2:
                break
        return TokenMatch(*ids) if ids else None

    def find(self, token: str | SupportsIndex) -> int:
        """The id of the token that `match` returns.

        Raises:
            TokenNotFoundError, UsageError: see `match`.
        """
        return self.match(token).id

    def name_of(self, token_id: int) -> str:
        """A text that names this id for `match`: the displayed text, the same after `piece:`, or `id:123`."""
        displayed = self.display(token_id)
        for name in (displayed, f"piece:{displayed}"):
            try:
                if self.find(name) == token_id:
                    return name
            except TokenNotFoundError:
                continue
        return f"id:{token_id}"

    def facts_of(self, token_id: int) -> TokenFacts:
        count = int(self.counts[self.check(token_id)])
        status = self.status_of(token_id).name.lower()
        return TokenFacts(token_id, self.display(token_id), status, count if count >= 0 else None)

    def describe(self, match: TokenMatch) -> MatchedToken:
        """The description of a match; `dataclasses.asdict` turns it into JSON values."""
        other = None if match.other is None else self.facts_of(match.other)
        return MatchedToken(**vars(self.facts_of(match.id)), other=other)

    def _checked_id(self, token: SupportsIndex) -> int:
        try:
            return self.check(index(token))
        except TypeError:
            raise UsageError(f"a token must be a string or an id, not a {type(token).__name__}", FORMS) from None

    @cached_property
    def _lengths(self) -> Int64[np.ndarray, "vocab"]:
        return np.diff(self.offsets)

    def _suggestion(self, token: str) -> str:
        """A hint for a text that names no token: similar tokens, by names for `match`, and ways to name a token."""
        text = token.removeprefix("piece:")
        if not text or text.startswith("hex:"):
            return FORMS
        if text.isdecimal() and text.isascii() and len(text) < 19 and int(text) < self.size:
            return f"write id:{int(text)} for the token with this id"
        bare = text.lstrip(" ".join(WORD_START_MARKS))
        folded = unicodedata.normalize("NFKD", bare)
        without_accents = "".join(char for char in folded if not unicodedata.combining(char))
        similar = [
            *case_variants(text),
            bare,
            text.strip(),
            *case_variants(bare),
            unicodedata.normalize("NFC", folded),
            without_accents,
        ]
        similar_readings = [reading for variant in dict.fromkeys(similar) for reading in readings(variant)]
        ids = [matches[0] for reading in similar_readings if (matches := self.ids_of(reading.token))]
        kind = "similar tokens"
        if not ids:
            candidates = [self._longest_common_start(reading.token) for reading in readings(text)]
            ids = max(candidates, key=lambda pair: pair[0], default=(0, []))[1]
            kind = "tokens with the same beginning"
        if not ids:
            return FORMS
        names = dict.fromkeys(self.name_of(token_id) for token_id in dict.fromkeys(ids[:_MOST_SUGGESTIONS]))
        return f"{kind}: {', '.join(names)}; or {FORMS}"

    @cached_property
    def _words_end_in_space(self) -> bool:
        """Whether tokens mark the end of a word, as CLIP's do, rather than its start."""
        longer = np.flatnonzero(self._lengths > 1)
        starts = np.count_nonzero(self.data[self.offsets[longer]] == 0x20)
        ends = np.count_nonzero(self.data[self.offsets[longer + 1] - 1] == 0x20)
        return bool(ends > max(100 * starts, self.size // 10))

    def _readings(self, token: str) -> Iterator[Reading]:
        """The tokens that a text can mean, first with `piece:` or `hex:` as a prefix, then as part of the text."""
        kind, _, value = token.partition(":")
        if kind == "piece":
            yield from readings(value, piece=True)
        if kind == "hex" and value and (data := _from_hex(value)) is not None:
            yield Reading(data)
        yield from readings(token, word_ends_in_space=self._words_end_in_space)

    def _ids_with(self, token: bytes) -> Int64[np.ndarray, "matches"]:
        ids = np.flatnonzero(self._lengths == len(token))
        for position, byte in enumerate(token):
            if not len(ids):
                break
            ids = ids[self.data[self.offsets[ids] + position] == byte]
        return ids

    def _longest_common_start(self, token: bytes) -> tuple[int, list[int]]:
        """The number of characters in the longest common start with any token, and the tokens that have it.

        The result is (0, []) unless the common start is more than half of this token.
        """
        common_bytes, ids = 0, np.arange(self.size)
        for position, byte in enumerate(token):
            longer = ids[self._lengths[ids] > position]
            matches = longer[self.data[self.offsets[longer] + position] == byte]
            if not len(matches):
                break
            common_bytes, ids = position + 1, matches
        common = token[:common_bytes].decode("utf-8", "ignore").strip()
        is_enough = 2 * len(common) > len(token.decode("utf-8", "replace").strip())
        return (len(common), ids[:_MOST_SUGGESTIONS].tolist()) if is_enough else (0, [])


def _from_hex(digits: str) -> bytes | None:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def _no_match(token: str) -> str:
    """The message for a text that names no token."""
    ellipsis = "…" if len(token) > _MOST_QUOTED else ""
    quoted = f"'{printable(text_bytes(token[:_MOST_QUOTED]))}{ellipsis}'"
    if not token:
        return "an empty text names no token"
    kind, _, value = token.partition(":")
    if kind == "hex" and _from_hex(value) is None:
        return f"{quoted} is not hexadecimal"
    if kind == "id" and value.isdecimal():
        return f"{quoted} is outside the vocabulary"
    return f"no token matches {quoted}"
