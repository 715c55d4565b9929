"""The fields of a SentencePiece model file that the library does not expose: kinds of pieces, and normalization.

The file is a protocol buffer (`sentencepiece_model.proto`). The needed fields are read by their numbers, and have
the same names here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Int32

__all__ = ["ModelKind", "Piece", "PieceKind", "SentencePieceFile"]


class ModelKind(IntEnum):
    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class PieceKind(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class SentencePieceFile:
    """The fields that decide how text is encoded. Their defaults are those of the format."""

    pieces: list[Piece] = field(default_factory=list)
    kind: ModelKind = ModelKind.UNIGRAM
    byte_fallback: bool = False
    treat_whitespace_as_suffix: bool = False
    precompiled_charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True

    @property
    def unknown(self) -> int:
        return next(token_id for token_id, piece in enumerate(self.pieces) if piece.kind == PieceKind.UNKNOWN)

    @property
    def byte_ids(self) -> Int32[np.ndarray, "256"] | None:
        """The piece of each byte if the model encodes unknown characters as bytes, else None."""
        if not self.byte_fallback:
            return None
        byte_pieces = (
            (int(piece.text[1:-1], 16), n) for n, piece in enumerate(self.pieces) if piece.kind == PieceKind.BYTE
        )
        return np.array([token_id for _, token_id in sorted(byte_pieces)], np.int32)

    @classmethod
    def read(cls, content: bytes) -> "SentencePieceFile":
        """Parse the content of a model file that the library has accepted."""
        pieces: list[Piece] = []
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        for number, value in _fields(content):
            if number == 1:
                piece = dict(_fields(value))
                score = struct.unpack("<f", piece.get(2, bytes(4)))[0]
                pieces.append(Piece(piece[1].decode(), score, PieceKind(piece.get(3, PieceKind.NORMAL))))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
        return cls(
            pieces,
            kind=ModelKind(trainer.get(3, ModelKind.UNIGRAM)),
            byte_fallback=bool(trainer.get(35, False)),
            treat_whitespace_as_suffix=bool(trainer.get(24, False)),
            precompiled_charsmap=normalizer.get(2, b""),
            add_dummy_prefix=bool(normalizer.get(3, True)),
            remove_extra_whitespaces=bool(normalizer.get(4, True)),
            escape_whitespaces=bool(normalizer.get(5, True)),
        )


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The number and the value of each field of a message: an integer for a varint, bytes for all other types."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        else:
            length = {1: 8, 5: 4}[wire_type]
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
