"""The tokens that a typed text can mean, as bytes, the likeliest first. `costbank.vocab.Vocab.match` looks them up."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "BYTE_LEVEL_ALPHABET",
    "FORMS",
    "WORD_START_MARKS",
    "Reading",
    "case_variants",
    "printable",
    "readings",
    "text_bytes",
]

WORD_START_MARKS = ("▁", "Ġ")
"""How tokenizers write a leading space: SentencePiece as U+2581, byte-level BPE as U+0120."""

FORMS = "name a token by its text, or as piece:ing (within a word), id:123 or hex:e4bda0"
"""The ways to name a token, for hints."""

_SPACES = str.maketrans(dict.fromkeys(WORD_START_MARKS, " "))
_MARKS = str.maketrans({**dict.fromkeys(WORD_START_MARKS, " "), "Ċ": "\n"})
_ONLY_MARKS = re.compile(r"[ ▁ĠĊ]+")
_LEADING = re.compile(r"[ ▁Ġ]+")
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([ntr\\]))")
_LETTER_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_WORD_END = "</w>"
_WITHIN_WORD = "##"


def _byte_level_alphabet() -> dict[str, int]:
    """The byte of each character of byte-level BPE (Radford et al. 2019): U+0100 and above are unprintable bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_LEVEL_ALPHABET = _byte_level_alphabet()
"""The byte that each character of a byte-level BPE token stands for."""


@dataclass(frozen=True)
class Reading:
    """A token that a text can mean.

    Attributes:
        token: the bytes of the token.
        literal: whether these are the bytes of the text itself, with nothing added or replaced.
        byte_piece: whether the text means a token of status byte (`<0x41>`), not the character with the same byte.
    """

    token: bytes
    literal: bool = False
    byte_piece: bool = False


def text_bytes(text: str) -> bytes:
    """The text in UTF-8. Surrogates, which stand for bytes of a command line that are not UTF-8, become these bytes."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def printable(data: bytes) -> str:
    """Bytes as one printable line of text; control characters and bytes that are not UTF-8 as `\\n`, `\\xe4`."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def readings(text: str, *, word_ends_in_space: bool = False, piece: bool = False) -> Iterator[Reading]:
    """The tokens that a text can mean, the likeliest first.

    These are: the token that starts a word with the text; the exact text; then other spellings: `##ing` of WordPiece,
    `king</w>` of CLIP's BPE, `<0x0A>`, escapes such as `\\n` and `\\xe4` as costbank prints them, ▁ within a token,
    characters of byte-level BPE; and all of these for the text in Unicode's composed and decomposed forms.

    Args:
        text: as typed, without a prefix such as `piece:`.
        word_ends_in_space: whether the vocabulary marks the end of a word instead of its start.
        piece: whether the text is a token within a word, not one that starts a word.
    """
    forms = dict.fromkeys([text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))])
    for form in forms if text else ():
        yield from _readings(form, word_ends_in_space, piece)


def case_variants(text: str) -> list[str]:
    """The text in other letter cases: `king`, `King`, `KING`, without the text itself."""
    variants = (text.lower(), text.capitalize(), text.title(), text.upper(), text.casefold())
    return [variant for variant in dict.fromkeys(variants) if variant != text]


def _readings(text: str, word_ends_in_space: bool, piece: bool) -> Iterator[Reading]:
    literal = Reading(text_bytes(text), literal=True)
    if piece:
        yield literal
    if _ONLY_MARKS.fullmatch(text):
        yield Reading(text_bytes(text.translate(_MARKS)))
    elif leading := _LEADING.match(text):
        yield Reading(b" " * leading.end() + text_bytes(text[leading.end() :]))
    if not piece:
        if text[0] != " ":
            yield Reading(literal.token + b" " if word_ends_in_space else b" " + literal.token)
        yield literal
    yield from _other_spellings(text)


def _other_spellings(text: str) -> Iterator[Reading]:
    if text.startswith(_WITHIN_WORD) and len(text) > len(_WITHIN_WORD):
        yield Reading(text_bytes(text.removeprefix(_WITHIN_WORD)))
    if text.endswith(_WORD_END) and len(text) > len(_WORD_END):
        yield Reading(text_bytes(text.removesuffix(_WORD_END)) + b" ")
    if byte := _BYTE_PIECE.fullmatch(text):
        yield Reading(bytes([int(byte[1], 16)]), byte_piece=True)
    if any(mark in text for mark in WORD_START_MARKS):
        yield Reading(text_bytes(text.translate(_SPACES)))
    if _ESCAPE.search(text):
        # `printable` writes \xa0 both for the byte and for the character U+00A0.
        yield Reading(_unescaped(text, as_bytes=True))
        yield Reading(_unescaped(text, as_bytes=False))
    if any(ord(char) > 0xFF for char in text) and (token := _from_byte_level(text)) is not None:
        yield Reading(token)


def _unescaped(text: str, *, as_bytes: bool) -> bytes:
    parts, end = [], 0
    for escape in _ESCAPE.finditer(text):
        byte, short, long, letter = escape.groups()
        parts.append(text_bytes(text[end : escape.start()].translate(_SPACES)))
        code = int(byte or short or long or "0", 16)
        if byte and as_bytes:
            parts.append(bytes([code]))
        elif letter:
            parts.append(_LETTER_ESCAPES[letter].encode())
        elif code < 0x110000:
            parts.append(text_bytes(chr(code)))
        end = escape.end()
    return b"".join([*parts, text_bytes(text[end:].translate(_SPACES))])


def _from_byte_level(text: str) -> bytes | None:
    """The bytes of a text in byte-level BPE's characters; None unless they have a line break or non-ASCII characters.

    Without this condition, words of some languages would be read as control characters, such as č as a carriage return.
    """
    if not all(char in BYTE_LEVEL_ALPHABET for char in text):
        return None
    token = bytes(BYTE_LEVEL_ALPHABET[char] for char in text)
    try:
        decoded = token.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return token if "Ċ" in text or not decoded.isascii() else None
