"""BytePiece models (Su 2023): a unigram model over bytes, kept as JSON {base64 of the piece: [id, text, count]}.

The text in the file is lossy, so the base64 is what counts. Encoding is that of the reference: NFC, lines with the line
feeds after them, and the segmentation of each with the largest product of the pieces' shares. It is done by
`tokenizers` with every byte written as the character of that number, which stays linear on long lines.
"""

import base64
import binascii
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError, require
from costbank.files import sha256_file
from costbank.tokenizers.base import joined, status_of_bytes
from costbank.tokenizers.placeholders import vocab_of
from costbank.tokenizers.sampling.lattice import Scores
from costbank.tokenizers.sampling.trie import Trie
from costbank.tokenizers.sampling.unigram import UnigramSampler
from costbank.vocab import TokenStatus

__all__ = ["BytePieceTokenizer"]

_SPECIAL = (b"<pad>", b"<bos>", b"<eos>")
_UNREACHABLE = ("\ue000", "\ue001", "\ue002")  # stand for the special tokens; no byte is written as these
_LINE = re.compile(r".*\n+|.+")


class BytePieceTokenizer:
    """A BytePiece model behind the interface of `costbank.tokenizers.Tokenizer`; counts are the file's own.

    Raises:
        TokenizerError: the file is not a BytePiece model.
    """

    kind = "bytepiece"
    libraries: tuple[str, ...] = ("tokenizers",)
    added_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        tokenizers = require("tokenizers", "build")
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        try:
            pieces, counts = _read(json.loads(path.read_bytes()))
        except (ValueError, TypeError, AttributeError, binascii.Error) as error:
            raise TokenizerError(
                f"{path} is not a BytePiece model: {error}", "name a .model file of BytePiece, or another tokenizer"
            ) from None
        log_total = math.log(sum(counts))
        self._pieces, self._scores = pieces, [math.log(n) - log_total for n in counts]
        scored = [(piece.decode("latin-1"), score) for piece, score in zip(pieces, self._scores, strict=True)]
        model = tokenizers.models.Unigram([*((mark, 0.0) for mark in _UNREACHABLE), *scored], 0)
        self._tokenizer = tokenizers.Tokenizer(model)
        status = [*[TokenStatus.SPECIAL] * len(_SPECIAL), *map(status_of_bytes, pieces)]
        self.vocab = vocab_of([*_SPECIAL, *pieces], status, [*[-1] * len(_SPECIAL), *counts])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        lines = _lines(texts)
        written = [line.encode().decode("latin-1") for of_text in lines for line in of_text]
        encoded = [e.ids for e in self._tokenizer.encode_batch_fast(written, add_special_tokens=False)]
        return _of_texts(lines, encoded)

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        composed = [unicodedata.normalize("NFC", text) for text in texts]
        return self._sampler.sample(composed, alpha, seeds)

    @cached_property
    def _sampler(self) -> UnigramSampler:
        ids = range(len(_SPECIAL), len(_SPECIAL) + len(self._pieces))
        scores = np.array([*[0.0] * len(_SPECIAL), *self._scores])
        return UnigramSampler(Trie.of(self._pieces, ids), Scores(scores), _LINE.findall)


def _lines(texts: Sequence[str]) -> list[list[str]]:
    return [_LINE.findall(unicodedata.normalize("NFC", text)) for text in texts]


def _of_texts(
    lines: list[list[str]], encoded: Sequence[Sequence[int]]
) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
    """The ids of lines as those of the texts that they are of."""
    ids, line_ends = joined(encoded)
    text_ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)))
    return ids, np.concatenate([[0], line_ends])[text_ends]


def _read(content: dict[str, Any]) -> tuple[list[bytes], list[int]]:
    """Pieces and counts in the order of ids, which begin after the special tokens and leave nothing out."""
    entries = sorted((int(token_id), base64.b64decode(key, validate=True), int(n))
                     for key, (token_id, _, n) in content.items())  # fmt: skip
    if [token_id for token_id, _, _ in entries] != list(range(len(_SPECIAL), len(_SPECIAL) + len(entries))):
        raise ValueError("its ids are not all the numbers from 3 on")
    pieces = [piece for _, piece, _ in entries]
    if missing := set(range(256)) - {piece[0] for piece in pieces if len(piece) == 1}:
        raise ValueError(f"it has no piece for byte 0x{min(missing):02x}")
    if min(n for _, _, n in entries) < 1:
        raise ValueError("a count is not positive")
    return pieces, [n for _, _, n in entries]
