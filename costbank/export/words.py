r"""A word for each token id: unique, without whitespace, and convertible back to the token's bytes.

A word is the token's text with these replacements:

    a space               ▁
    ▁ itself              \u2581
    a backslash           \\
    tab, LF, CR           \t  \n  \r
    any other invisible character (controls, other spaces, direction marks)
                          \xNN below U+0080, else \uNNNN or \UNNNNNNNN
    a byte that is not UTF-8
                          \xNN, where NN is 80 or more
    an id with no bytes, or with the same bytes as another id
                          \#123 at the end, where 123 is the id

If several ids have the same bytes, the first one that `Vocab.ids_of` returns gets the word without an id: an ordinary
token rather than a byte piece.
"""

import re
from collections import defaultdict

from costbank.vocab import Vocab

__all__ = ["bytes_of_word", "token_words"]

_NAMED = {" ": "▁", "▁": r"\u2581", "\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_BYTES_OF_NAMED = {"t": b"\t", "n": b"\n", "r": b"\r", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(?:([tnr\\])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))|(▁)")
_ID = re.compile(r"(?<!\\)((?:\\\\)*)\\#[0-9]+$")


def token_words(vocab: Vocab) -> list[str]:
    """The word of each id. Words are unique and not empty, and contain no whitespace."""
    tokens = [vocab.token(token_id) for token_id in range(vocab.size)]
    ids_of: dict[bytes, list[int]] = defaultdict(list)
    for token_id, token in enumerate(tokens):
        ids_of[token].append(token_id)
    words = [_escape_token(token) for token in tokens]
    for token, ids in ids_of.items():
        if token and len(ids) == 1:
            continue
        without_id = vocab.ids_of(token)[0] if token else None
        for token_id in ids:
            if token_id != without_id:
                words[token_id] += rf"\#{token_id}"
    return words


def bytes_of_word(word: str) -> bytes:
    """The bytes of the token that has this word in `token_words`."""
    word = _ID.sub(r"\1", word)
    parts, end = [], 0
    for match in _ESCAPE.finditer(word):
        parts.append(word[end : match.start()].encode())
        parts.append(_unescape(*match.groups()))
        end = match.end()
    return b"".join([*parts, word[end:].encode()])


def _escape_token(token: bytes) -> str:
    """The word for these bytes, without an id. Different bytes give different words; no bytes give an empty word."""
    return "".join(map(_escape, token.decode("utf-8", "surrogateescape")))


def _escape(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape decodes byte b as U+DC00 + b
        return rf"\x{code - 0xDC00:02x}"
    if code < 0x80:
        return rf"\x{code:02x}"
    return rf"\u{code:04x}" if code < 0x10000 else rf"\U{code:08x}"


def _unescape(named: str | None, byte: str | None, short: str | None, long: str | None, space: str | None) -> bytes:
    if named:
        return _BYTES_OF_NAMED[named]
    if byte:
        return bytes([int(byte, 16)])
    return b" " if space else chr(int(short or long or "", 16)).encode()
