r"""A word for every token id: unique, without whitespace, and readable back to the token's bytes.

Text stands as it is, except that

    a space is            ▁
    ▁ itself is           \u2581
    a backslash is        \\
    tab, LF and CR are    \t  \n  \r
    another character that shows nothing (controls, other spaces, marks of direction) is \xNN below U+0080,
                          else \uNNNN or \UNNNNNNNN
    a byte that is not UTF-8 is \xNN, with NN from 80 on
    \#123 at the end      tells the id, where another id has the same bytes, or where there are no bytes

Of several ids with the same bytes, the one that `Vocab.ids_of` names first has the plain word: an ordinary token before
a byte piece.
"""

import re
from collections import defaultdict

from costbank.vocab import Vocab

__all__ = ["bytes_of_word", "spelled", "words"]

_NAMED = {" ": "▁", "▁": r"\u2581", "\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_MEANT = {"t": b"\t", "n": b"\n", "r": b"\r", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(?:([tnr\\])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))|(▁)")
_ID = re.compile(r"(?<!\\)((?:\\\\)*)\\#[0-9]+$")


def words(vocab: Vocab) -> list[str]:
    """The word of each id; no two are the same, and none is empty or has whitespace in it."""
    tokens = [vocab.token(token_id) for token_id in range(vocab.size)]
    ids_of: dict[bytes, list[int]] = defaultdict(list)
    for token_id, token in enumerate(tokens):
        ids_of[token].append(token_id)
    result = [spelled(token) for token in tokens]
    for token, ids in ids_of.items():
        if token and len(ids) == 1:
            continue
        plain = vocab.ids_of(token)[0] if token else None
        for token_id in ids:
            if token_id != plain:
                result[token_id] += rf"\#{token_id}"
    return result


def spelled(token: bytes) -> str:
    """A token's bytes as a word; different bytes have different words. That of no bytes is empty."""
    return "".join(map(_written, token.decode("utf-8", "surrogateescape")))


def bytes_of_word(word: str) -> bytes:
    """The bytes of the token that a word of `words` stands for."""
    word = _ID.sub(r"\1", word)
    result, end = [], 0
    for found in _ESCAPE.finditer(word):
        result.append(word[end : found.start()].encode())
        result.append(_meant(*found.groups()))
        end = found.end()
    return b"".join([*result, word[end:].encode()])


def _written(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape holds a byte
        return rf"\x{code - 0xDC00:02x}"
    if code < 0x80:
        return rf"\x{code:02x}"
    return rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"


def _meant(named: str | None, byte: str | None, short: str | None, long: str | None, space: str | None) -> bytes:
    if named:
        return _MEANT[named]
    if byte:
        return bytes([int(byte, 16)])
    return b" " if space else chr(int(short or long or "", 16)).encode()
