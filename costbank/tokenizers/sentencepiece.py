"""SentencePiece models (`.model`): unigram, BPE, word and char."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError, UsageError, require
from costbank.tensorfile import sha256_file
from costbank.tokenizers.base import encode_threads, joined
from costbank.tokenizers.bpe_dropout import BPEDropout
from costbank.tokenizers.lattice import Scores
from costbank.tokenizers.placeholders import vocab_of
from costbank.tokenizers.sentencepiece_file import ModelKind, PieceKind, SentencePieceFile
from costbank.tokenizers.trie import Trie
from costbank.tokenizers.unigram import UnigramSampler
from costbank.vocab import TokenStatus, Vocab

__all__ = ["SentencePieceTokenizer"]

_SPACE = "▁"
_UNITS = re.compile(f"{_SPACE}+[^{_SPACE}]*|[^{_SPACE}]+")
_SPACE_INSIDE = re.compile(f"[^{_SPACE}]{_SPACE}")
_UNKNOWN_PENALTY = 10.0
_USER_BONUS = 0.1
_HIGHEST_SCORE = 0.0  # in a model without ordinary pieces


class SentencePieceTokenizer:
    """A SentencePiece model behind the interface of `costbank.tokenizers.Tokenizer`.

    A piece's bytes are its text with ▁ read as a space; `<0x0A>` pieces are the byte itself; control and unknown
    pieces keep their literal text and are special.

    Raises:
        TokenizerError: the file is no SentencePiece model.
    """

    kind = "sentencepiece"
    libraries: tuple[str, ...] = ("sentencepiece",)
    added_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path) -> None:
        sentencepiece = require("sentencepiece", "build")
        sentencepiece.set_min_log_level(3)
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        except (RuntimeError, TypeError) as error:
            raise TokenizerError(
                f"{path} is no SentencePiece model",
                "name a .model, tokenizer.json or .tiktoken file; for a plain list, --set tokenizer_kind=list",
            ) from error
        self.vocab = self._read_vocab()

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return joined(self._processor.encode(list(texts), num_threads=encode_threads()))

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return self._sampler.sample(self._processor.normalize(list(texts)), alpha, seeds)

    @cached_property
    def _sampler(self) -> UnigramSampler | BPEDropout:
        """What draws by this model's rules.

        Raises:
            UsageError: a text has only one segmentation.
        """
        model = SentencePieceFile.read(self._processor.serialized_model_proto())
        if model.kind in (ModelKind.WORD, ModelKind.CHAR):
            raise UsageError(
                f"a SentencePiece model of the kind {model.kind.name.lower()} has only one segmentation of a text",
                "leave --sampling out, or give a unigram or BPE model",
            )
        return BPEDropout(model, _units(model)) if model.kind == ModelKind.BPE else _unigram(model)

    def _read_vocab(self) -> Vocab:
        processor = self._processor
        tokens, status = [], []
        for token_id in range(processor.get_piece_size()):
            piece = processor.id_to_piece(token_id)
            if processor.is_byte(token_id):
                tokens.append(bytes([int(piece[1:-1], 16)]))
                status.append(TokenStatus.BYTE)
            elif processor.is_control(token_id) or processor.is_unknown(token_id):
                tokens.append(piece.encode())
                status.append(TokenStatus.SPECIAL)
            else:
                tokens.append(piece.replace(_SPACE, " ").encode())
                status.append(TokenStatus.UNUSED if processor.is_unused(token_id) else TokenStatus.OK)
        return vocab_of(tokens, status)


def _units(model: SentencePieceFile) -> Callable[[str], list[str]]:
    """Cuts a text before spaces where no piece goes on over one, else leaves it whole."""
    apart = (PieceKind.CONTROL, PieceKind.UNKNOWN, PieceKind.BYTE)
    if any(_SPACE_INSIDE.search(piece.text) for piece in model.pieces if piece.kind not in apart):
        return lambda text: [text] if text else []
    return _UNITS.findall


def _unigram(model: SentencePieceFile) -> UnigramSampler:
    """Scores of unknown and user-defined pieces are those that SentencePiece gives them in `unigram_model.cc`."""
    kinds = np.array([piece.kind for piece in model.pieces])
    scores = np.array([piece.score for piece in model.pieces], np.float64)
    scores[model.unknown] = scores[kinds == PieceKind.NORMAL].min(initial=_HIGHEST_SCORE) - _UNKNOWN_PENALTY
    user = np.flatnonzero(kinds == PieceKind.USER)
    scores[user] = [_USER_BONUS * (len(model.pieces[n].text) - 1) for n in user.tolist()]
    usable = np.flatnonzero((kinds == PieceKind.NORMAL) | (kinds == PieceKind.USER)).tolist()
    trie = Trie.of([model.pieces[n].text.encode() for n in usable], usable)
    return UnigramSampler(trie, Scores(scores, model.unknown), _units(model), model.byte_ids)
