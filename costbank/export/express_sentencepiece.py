"""SentencePiece models (Kudo & Richardson 2018) in the terms of the `tokenizers` library: unigram, BPE and char.

The library has no notion of pieces that text cannot reach, and a unigram model there would match `<s>` in a text. So
such pieces are spelled with a space before them, which no normalised text has in it. Byte pieces keep their names,
because the library looks them up by these; a score below any other keeps text from reaching them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from costbank.errors import TokenizerError, require
from costbank.export.express import all_merges, saved
from costbank.tokenizers import SentencePieceTokenizer

__all__ = ["from_sentencepiece"]

_UNIGRAM, _BPE, _WORD, _CHAR = 1, 2, 3, 4
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_USER_PENALTY = 0.1
_BYTE_NAME = "<0x0A>"
_IN_BYTE_NAMES = {
    "<": "<(?=0x[0-9A-F]{2}>)",
    ">": "(?<=<0x[0-9A-F]{2})>",
    "x": "(?<=<0)x(?=[0-9A-F]{2}>)",
    "0": "(?<=<)0(?=x[0-9A-F]{2}>)",
}
_MARGIN = 10.0


@dataclass(frozen=True)
class _Piece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class _Model:
    """What of a model's file decides how text is encoded; defaults are those of its format."""

    pieces: list[_Piece] = field(default_factory=list)
    kind: int = _UNIGRAM
    byte_fallback: bool = False
    space_after: bool = False
    char_map: bytes = b""
    space_first: bool = True
    remove_spaces: bool = True
    escape_spaces: bool = True

    @property
    def unknown(self) -> int:
        return next(token_id for token_id, piece in enumerate(self.pieces) if piece.kind == _UNKNOWN)


def from_sentencepiece(original: SentencePieceTokenizer, path: Path) -> bytes:  # noqa: ARG001
    """The tokenizer.json of a SentencePiece model.

    Raises:
        TokenizerError: it is of a kind that cannot be expressed.
    """
    t = require("tokenizers", "export")
    model = _read(path)
    if model.kind == _WORD or model.space_after or not model.escape_spaces:
        what = (
            "a model of whole words"
            if model.kind == _WORD
            else "a model with spaces written otherwise than before words"
        )
        raise TokenizerError(
            f"{path} is {what}, which cannot be expressed as a tokenizer.json",
            "export to a format without a tokenizer",
        )
    steps = [t.normalizers.Precompiled(model.char_map)] if model.char_map else []
    if model.remove_spaces:
        steps += [t.normalizers.Replace(t.Regex(r"\A +| +\z"), ""), t.normalizers.Replace(t.Regex(" {2,}"), " ")]
    user = [piece.text for piece in model.pieces if piece.kind == _USER]
    if model.kind == _UNIGRAM:
        tokenizer = _unigram(t, model)
        user = []  # a unigram model holds them itself
    else:
        tokenizer = _bpe(t, model)
    if model.space_first and not user:
        steps.append(t.normalizers.Prepend("▁"))
    steps.append(t.normalizers.Replace(" ", "▁"))
    tokenizer.normalizer = t.normalizers.Sequence(steps)
    if user:
        if model.space_first:
            tokenizer.pre_tokenizer = t.pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
        tokenizer.add_tokens([t.AddedToken(text, normalized=False) for text in user])
    ends = [t.decoders.Strip(" ", 1, 0)] if model.space_first else []
    tokenizer.decoder = t.decoders.Sequence(
        [t.decoders.Replace("▁", " "), t.decoders.ByteFallback(), t.decoders.Fuse(), *ends]
    )
    return saved(tokenizer)


def _unigram(t: Any, model: _Model) -> Any:
    scores = [piece.score for piece in model.pieces if piece.kind == _NORMAL] or [0.0]
    best, never = max(scores), len(_BYTE_NAME) * min(*scores, 0.0) - _MARGIN
    pieces = []
    for piece in model.pieces:
        if piece.kind == _NORMAL:
            pieces.append((piece.text, piece.score))
        elif piece.kind == _USER:
            # What SentencePiece gives them, so that they win over any other way to write their text.
            pieces.append((piece.text, best * len(piece.text.encode()) - _USER_PENALTY))
        elif piece.kind == _BYTE:
            pieces.append((piece.text, never))
        else:
            pieces.append((f" {piece.text}", 0.0))
    tokenizer = t.Tokenizer(t.models.Unigram(pieces, model.unknown, model.byte_fallback))
    known = {character for piece in model.pieces if piece.kind == _NORMAL for character in piece.text}
    if model.byte_fallback and (cut := next((rule for mark, rule in _IN_BYTE_NAMES.items() if mark not in known), "")):
        # A byte piece would still win over a character that no piece has; so its name in a text is cut at that one.
        tokenizer.pre_tokenizer = t.pre_tokenizers.Split(t.Regex(cut), "isolated")
    return tokenizer


def _bpe(t: Any, model: _Model) -> Any:
    """No merge leads to the name of a special or byte piece, so these keep theirs."""
    text = [piece for piece in model.pieces if piece.kind in (_NORMAL, _UNUSED)]
    ranked = [piece.text for piece in sorted(text, key=lambda piece: -piece.score)]
    merges = all_merges(ranked) if model.kind == _BPE else []
    return t.Tokenizer(
        t.models.BPE(
            {piece.text: token_id for token_id, piece in enumerate(model.pieces)},
            merges,
            unk_token=model.pieces[model.unknown].text,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    )


def _read(path: Path) -> _Model:
    """The model's file is a protocol buffer, of which this takes the fields above by their numbers."""
    pieces: list[_Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(path.read_bytes()):
        if number == 1:
            content = dict(_fields(value))
            score = struct.unpack("<f", content.get(2, bytes(4)))[0]
            pieces.append(_Piece(content[1].decode(), score, content.get(3, _NORMAL)))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    return _Model(
        pieces,
        kind=trainer.get(3, _UNIGRAM),
        byte_fallback=bool(trainer.get(35, False)),
        space_after=bool(trainer.get(24, False)),
        char_map=normalizer.get(2, b""),
        space_first=bool(normalizer.get(3, True)),
        remove_spaces=bool(normalizer.get(4, True)),
        escape_spaces=bool(normalizer.get(5, True)),
    )


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields: integers, or bytes where the value has a length or a fixed size."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(message, position)
        else:
            length = {1: 8, 5: 4}[wire]
        yield number, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
