"""What a SentencePiece model's file says beyond what the library tells: types of pieces, and how text is normalised.

The file is a protocol buffer (`sentencepiece_model.proto`), of which this takes the fields it needs by their numbers.
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
    """What of a model's file decides how text is encoded; defaults are those of its format."""

    pieces: list[Piece] = field(default_factory=list)
    kind: ModelKind = ModelKind.UNIGRAM
    byte_fallback: bool = False
    space_after: bool = False
    char_map: bytes = b""
    space_first: bool = True
    remove_spaces: bool = True
    escape_spaces: bool = True

    @property
    def unknown(self) -> int:
        return next(token_id for token_id, piece in enumerate(self.pieces) if piece.kind == PieceKind.UNKNOWN)

    @property
    def byte_ids(self) -> Int32[np.ndarray, "256"] | None:
        """The piece of each byte, where unknown characters become such."""
        if not self.byte_fallback:
            return None
        of_bytes = (
            (int(piece.text[1:-1], 16), n) for n, piece in enumerate(self.pieces) if piece.kind == PieceKind.BYTE
        )
        return np.array([token_id for _, token_id in sorted(of_bytes)], np.int32)

    @classmethod
    def read(cls, content: bytes) -> "SentencePieceFile":
        """Read the content of a file that the library has accepted."""
        pieces: list[Piece] = []
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        for number, value in _fields(content):
            if number == 1:
                of_piece = dict(_fields(value))
                score = struct.unpack("<f", of_piece.get(2, bytes(4)))[0]
                pieces.append(Piece(of_piece[1].decode(), score, PieceKind(of_piece.get(3, PieceKind.NORMAL))))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
        return cls(
            pieces,
            kind=ModelKind(trainer.get(3, ModelKind.UNIGRAM)),
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
