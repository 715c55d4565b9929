"""BytePiece models (Su 2023): a unigram model over bytes, stored as JSON {base64 of the piece: [id, text, count]}.

The text in the file is lossy, so only the base64 is used. Text is encoded as in the reference implementation: NFC,
a split into lines that keep their line feeds, and the most probable segmentation of each line. The `tokenizers` library
computes it, with each byte written as the character of the same number, in time linear in the length of a line.
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
from costbank.tokenizers.base import byte_level_status, flatten_parts
from costbank.tokenizers.placeholders import build_vocab
from costbank.tokenizers.sampling.lattice import PieceScores
from costbank.tokenizers.sampling.trie import Trie
from costbank.tokenizers.sampling.unigram import UnigramSampler
from costbank.vocab import TokenStatus

__all__ = ["BytePieceTokenizer"]

_SPECIAL = (b"<pad>", b"<bos>", b"<eos>")
_UNREACHABLE = ("\ue000", "\ue001", "\ue002")  # in place of the special tokens: no byte is written as one of these
_LINE = re.compile(r".*\n+|.+")


class BytePieceTokenizer:
    """A BytePiece model as a `costbank.tokenizers.Tokenizer`. The counts of its vocabulary come from the file.

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
            pieces, counts = _parse(json.loads(path.read_bytes()))
        except (ValueError, TypeError, AttributeError, binascii.Error) as error:
            raise TokenizerError(
                f"{path} is not a BytePiece model: {error}", "give a .model file of BytePiece, or another tokenizer"
            ) from None
        log_total = math.log(sum(counts))
        self._pieces, self._scores = pieces, [math.log(n) - log_total for n in counts]
        scored = [(piece.decode("latin-1"), score) for piece, score in zip(pieces, self._scores, strict=True)]
        unigram = tokenizers.models.Unigram([*((special, 0.0) for special in _UNREACHABLE), *scored], 0)
        self._tokenizer = tokenizers.Tokenizer(unigram)
        status = [*[TokenStatus.SPECIAL] * len(_SPECIAL), *map(byte_level_status, pieces)]
        self.vocab = build_vocab([*_SPECIAL, *pieces], status, [*[-1] * len(_SPECIAL), *counts])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        lines_of_text = [_LINE.findall(unicodedata.normalize("NFC", text)) for text in texts]
        as_latin1 = [line.encode().decode("latin-1") for lines in lines_of_text for line in lines]
        encoded = [e.ids for e in self._tokenizer.encode_batch_fast(as_latin1, add_special_tokens=False)]
        return flatten_parts(encoded, np.fromiter(map(len, lines_of_text), np.int64, len(lines_of_text)))

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        normalized = [unicodedata.normalize("NFC", text) for text in texts]
        return self._sampler.sample(normalized, alpha, seeds)

    @cached_property
    def _sampler(self) -> UnigramSampler:
        ids = range(len(_SPECIAL), len(_SPECIAL) + len(self._pieces))
        scores = np.array([*[0.0] * len(_SPECIAL), *self._scores])
        return UnigramSampler(Trie.build(self._pieces, ids), PieceScores(scores), _LINE.findall)


def _parse(content: dict[str, Any]) -> tuple[list[bytes], list[int]]:
    """Pieces and counts by id. The ids follow those of the special tokens without a gap."""
    entries = sorted((int(token_id), base64.b64decode(key, validate=True), int(n))
                     for key, (token_id, _, n) in content.items())  # fmt: skip
    if [token_id for token_id, _, _ in entries] != list(range(len(_SPECIAL), len(_SPECIAL) + len(entries))):
        raise ValueError(f"its ids are not consecutive numbers from {len(_SPECIAL)} on")
    pieces = [piece for _, piece, _ in entries]
    if missing := set(range(256)) - {piece[0] for piece in pieces if len(piece) == 1}:
        raise ValueError(f"it has no piece for byte 0x{min(missing):02x}")
    if min(n for _, _, n in entries) < 1:
        raise ValueError("a count is not positive")
    return pieces, [n for _, _, n in entries]
