"""What the ids of a tokenizer stand for: bytes, status, counts, and a fingerprint of all of it.

A `Vocab` holds flat arrays rather than one object a token, so that a bank can map it straight from its file.
It does not encode text; that is a tokenizer's work.
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
    """Why a token has, or lacks, a meaningful vector. The numbers are part of bank format 1."""

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
        id: the token that is taken.
        other: another token that the same text may mean, such as the piece `king` where `▁king` is taken; else None.
    """

    id: int
    other: int | None = None


@dataclass(frozen=True)
class TokenFacts:
    """One token, described. `text` is for people; `count` is None in a vocabulary without counts."""

    id: int
    text: str
    status: str
    count: int | None


@dataclass(frozen=True)
class MatchedToken(TokenFacts):
    """The token that a text matches, and another that the same text may mean."""

    other: TokenFacts | None


def display_bytes(token: bytes) -> str:
    """One printable line for a token: a leading space as ▁, control characters and broken UTF-8 escaped."""
    rest = token.lstrip(b" ")
    return "▁" * (len(token) - len(rest)) + printable(rest)


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

    def first(self, size: int) -> "Vocab":
        """The ids below `size` alone."""
        offsets = self.offsets[: size + 1]
        return Vocab(self.data[: offsets[-1]], offsets, self.status[:size], self.counts[:size])

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
        ids = self._ids_with(token)
        return sorted(ids.tolist(), key=lambda token_id: (_STATUS_ORDER.index(self.status[token_id]), token_id))

    def match(self, token: str | SupportsIndex) -> TokenMatch:
        """The token that a person means, and another that they may mean.

        A text is the token that starts a word with it (`king`: ▁king, Ġking, WordPiece's `king`), else the exact
        piece. A special token goes by its literal text. Leading ▁ and Ġ are spaces. `piece:king` is the exact piece
        (WordPiece's `##king`), `id:123` an id, `hex:e4bda0` a token's bytes. What tokenizers write for a token
        (`##ing`, `king</w>`, `<0x0A>`, `Ċ`) and what costbank prints for it is understood as well. An integer is an id.

        Raises:
            TokenNotFoundError: no token fits; the hint names some that come close.
            UsageError: `token` is neither a text nor an integer.
        """
        if not isinstance(token, str):
            return TokenMatch(self._checked_id(token))
        stated, ids = _ID.fullmatch(token), list[int]()
        if stated and 0 <= int(stated[1]) < self.size:
            ids.append(int(stated[1]))
        for reading in self._meanings(token):
            matches = self.ids_of(reading.token)
            if reading.byte_piece:
                matches.sort(key=lambda token_id: self.status[token_id] != TokenStatus.BYTE)
            if matches and matches[0] not in ids:
                special = reading.literal and self.status[matches[0]] == TokenStatus.SPECIAL and not stated
                ids.insert(0 if special else len(ids), matches[0])
            if len(ids) == 2:
                break
        if not ids:
            if stated:
                self.check(int(stated[1]))
            raise TokenNotFoundError(_refusal(token), self._suggestion(token))
        return TokenMatch(*ids)

    def find(self, token: str | SupportsIndex) -> int:
        """The id of `match`."""
        return self.match(token).id

    def name_of(self, token_id: int) -> str:
        """A text that `match` takes for this id: what is displayed, else with `piece:` before it, else `id:123`."""
        shown = self.display(token_id)
        for name in (shown, f"piece:{shown}"):
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
        """A match, described; `dataclasses.asdict` makes JSON of it."""
        other = None if match.other is None else self.facts_of(match.other)
        return MatchedToken(**vars(self.facts_of(match.id)), other=other)

    def _checked_id(self, token: SupportsIndex) -> int:
        try:
            return self.check(index(token))
        except TypeError:
            raise UsageError(f"a token is named by a text or an id, not by {type(token).__name__}", FORMS) from None

    @cached_property
    def _lengths(self) -> Int64[np.ndarray, "vocab"]:
        return np.diff(self.offsets)

    def _suggestion(self, token: str) -> str:
        """Tokens that a text nearly names, by names that `match` takes, and the forms that there are."""
        text = token.removeprefix("piece:")
        if not text or text.startswith("hex:"):
            return FORMS
        if text.isdecimal() and text.isascii() and len(text) < 19 and int(text) < self.size:
            return f"the token with the id {int(text)} is id:{int(text)}"
        bare = text.lstrip(" ".join(WORD_START_MARKS))
        folded = unicodedata.normalize("NFKD", bare)
        plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
        near = [
            *case_variants(text),
            bare,
            text.strip(),
            *case_variants(bare),
            unicodedata.normalize("NFC", folded),
            plain,
        ]
        meant = [reading for other in dict.fromkeys(near) for reading in readings(other)]
        ids, kind = [same[0] for reading in meant if (same := self.ids_of(reading.token))], "close"
        if not ids:
            alike = [self._beginning_alike(reading.token) for reading in readings(text)]
            ids, kind = max(alike, key=lambda pair: pair[0], default=(0, []))[1], "that begin alike"
        if not ids:
            return FORMS
        names = dict.fromkeys(self.name_of(token_id) for token_id in dict.fromkeys(ids[:_MOST_SUGGESTIONS]))
        return f"tokens {kind}: {', '.join(names)}; or {FORMS}"

    @cached_property
    def _words_end_in_space(self) -> bool:
        """Whether tokens mark the end of a word, as CLIP's do, rather than its start."""
        longer = np.flatnonzero(self._lengths > 1)
        starts = np.count_nonzero(self.data[self.offsets[longer]] == 0x20)
        ends = np.count_nonzero(self.data[self.offsets[longer + 1] - 1] == 0x20)
        return bool(ends > max(100 * starts, self.size // 10))

    def _meanings(self, token: str) -> Iterator[Reading]:
        """What a text may mean, its prefixes read first, and after these as part of the text."""
        kind, _, value = token.partition(":")
        if kind == "piece":
            yield from readings(value, piece=True)
        if kind == "hex" and value and (stated := _from_hex(value)) is not None:
            yield Reading(stated)
        yield from readings(token, word_ends_in_space=self._words_end_in_space)

    def _ids_with(self, token: bytes) -> Int64[np.ndarray, "matches"]:
        ids = np.flatnonzero(self._lengths == len(token))
        for position, byte in enumerate(token):
            if not len(ids):
                break
            ids = ids[self.data[self.offsets[ids] + position] == byte]
        return ids

    def _beginning_alike(self, token: bytes) -> tuple[int, list[int]]:
        """The most first characters that tokens share with this one, and those tokens; none if half or fewer."""
        shared, alike = 0, np.arange(self.size)
        for position, byte in enumerate(token):
            longer = alike[self._lengths[alike] > position]
            matches = longer[self.data[self.offsets[longer] + position] == byte]
            if not len(matches):
                break
            shared, alike = position + 1, matches
        common = token[:shared].decode("utf-8", "ignore").strip()
        enough = 2 * len(common) > len(token.decode("utf-8", "replace").strip())
        return (len(common), alike[:_MOST_SUGGESTIONS].tolist()) if enough else (0, [])


def _from_hex(digits: str) -> bytes | None:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def _refusal(token: str) -> str:
    more = "…" if len(token) > _MOST_QUOTED else ""
    shown = f"'{printable(text_bytes(token[:_MOST_QUOTED]))}{more}'"
    if not token:
        return "an empty text names no token"
    kind, _, value = token.partition(":")
    if kind == "hex" and _from_hex(value) is None:
        return f"{shown} is not a token in hexadecimal"
    if kind == "id" and value.isdecimal():
        return f"{shown} is outside the vocabulary"
    return f"no token is spelled {shown}"
