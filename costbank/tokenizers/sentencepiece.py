"""SentencePiece models (`.model`): unigram, BPE, word and char."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError, UsageError, require
from costbank.files import sha256_file
from costbank.tokenizers.added_tokens import VocabEntry, add_tokens, read_settings, vocab_of_entries
from costbank.tokenizers.base import encode_threads, flatten
from costbank.tokenizers.class_ids import assumes_unshifted_ids, id_layout
from costbank.tokenizers.sampling.bpe_dropout import BPEDropout
from costbank.tokenizers.sampling.lattice import PieceScores
from costbank.tokenizers.sampling.trie import Trie
from costbank.tokenizers.sampling.unigram import UnigramSampler
from costbank.tokenizers.sentencepiece_file import ModelKind, PieceKind, SentencePieceFile
from costbank.vocab import TokenStatus

__all__ = ["SentencePieceTokenizer"]

_SPACE = "▁"
_UNITS = re.compile(f"{_SPACE}+[^{_SPACE}]*|[^{_SPACE}]+")
_SPACE_INSIDE = re.compile(f"[^{_SPACE}]{_SPACE}")
_UNKNOWN_PENALTY = 10.0
_USER_BONUS = 0.1
_HIGHEST_SCORE = 0.0  # instead of the lowest score, if the model has no ordinary pieces


class SentencePieceTokenizer:
    """A SentencePiece model as a `costbank.tokenizers.Tokenizer`.

    The bytes of a piece are its text with ▁ replaced by a space. A `<0x0A>` piece is the byte itself. Control and
    unknown pieces are special, and represent their literal text. The files next to the model list added tokens and name
    the class, which may shift ids.

    Attributes:
        settings: the contents of these files.
        ids_assumed: whether it is only an assumption that ids are the pieces' numbers. Models with a file of this name
            usually shift ids, and no file says whether this model does.

    Raises:
        TokenizerError: the file is not a SentencePiece model, a file next to it contradicts it, or its class shifts ids
            in a way that is not supported.
    """

    kind = "sentencepiece"
    libraries: tuple[str, ...] = ("sentencepiece",)

    def __init__(self, path: Path) -> None:
        sentencepiece = require("sentencepiece", "build")
        sentencepiece.set_min_log_level(3)
        self.file, self.sha256 = path.name, sha256_file(path).sha256
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        except (RuntimeError, TypeError) as error:
            raise TokenizerError(
                f"{path} is not a SentencePiece model",
                "give a .model, tokenizer.json or .tiktoken file; for a plain list, add --set tokenizer_kind=list",
            ) from error
        self.settings = read_settings(path)
        self.ids_assumed = assumes_unshifted_ids(path, self.settings)
        try:
            own = self._entries()
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"{path} is a damaged SentencePiece model: a piece is not UTF-8 ({error.object!r:.60})",
                "download or copy it again",
            ) from None
        layout = id_layout(path, self.settings, [entry.text for entry in own], self._processor.unk_id())
        self._piece_ids = layout.piece_ids if layout and layout.shifted else None
        if layout:
            own = [
                VocabEntry(item, item.encode(), TokenStatus.SPECIAL) if isinstance(item, str) else own[item]
                for item in layout.items
            ]
        if self._piece_ids is not None:  # part of the key of encoded text
            self.sha256 = sha256(self.sha256.encode() + self._piece_ids.astype("<i4").tobytes()).hexdigest()
        entries, added = add_tokens(own, self.settings, path, metaspace=True)
        self.added_ids = added | layout.appended if layout else added
        self.vocab = vocab_of_entries(entries)

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        pieces, ends = flatten(self._processor.encode(list(texts), num_threads=encode_threads()))
        return self._to_ids(pieces), ends

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        pieces, ends = self._sampler.sample(self._processor.normalize(list(texts)), alpha, seeds)
        return self._to_ids(pieces), ends

    def _to_ids(self, pieces: Integer[np.ndarray, "tokens"]) -> Integer[np.ndarray, "tokens"]:
        return pieces if self._piece_ids is None else self._piece_ids[pieces]

    @cached_property
    def _sampler(self) -> UnigramSampler | BPEDropout:
        """The sampler for this kind of model.

        Raises:
            UsageError: the model has only one segmentation of each text.
        """
        model = SentencePieceFile.read(self._processor.serialized_model_proto())
        if model.kind in (ModelKind.WORD, ModelKind.CHAR):
            raise UsageError(
                f"a SentencePiece model of type {model.kind.name.lower()} has only one segmentation of each text",
                "omit --sampling, or give a unigram or BPE model",
            )
        return BPEDropout(model, _splitter(model)) if model.kind == ModelKind.BPE else _unigram_sampler(model)

    def _entries(self) -> list[VocabEntry]:
        processor = self._processor
        entries = []
        for token_id in range(processor.get_piece_size()):
            piece = processor.id_to_piece(token_id)
            if processor.is_byte(token_id):
                entries.append(VocabEntry(piece, bytes([int(piece[1:-1], 16)]), TokenStatus.BYTE))
            elif processor.is_control(token_id) or processor.is_unknown(token_id):
                entries.append(VocabEntry(piece, piece.encode(), TokenStatus.SPECIAL))
            else:
                status = TokenStatus.UNUSED if processor.is_unused(token_id) else TokenStatus.OK
                entries.append(VocabEntry(piece, piece.replace(_SPACE, " ").encode(), status))
        return entries


def _splitter(model: SentencePieceFile) -> Callable[[str], list[str]]:
    """A function that splits a text before each run of spaces, or not at all if a piece has a space inside."""
    not_text = (PieceKind.CONTROL, PieceKind.UNKNOWN, PieceKind.BYTE)
    if any(_SPACE_INSIDE.search(piece.text) for piece in model.pieces if piece.kind not in not_text):
        return lambda text: [text] if text else []
    return _UNITS.findall


def _unigram_sampler(model: SentencePieceFile) -> UnigramSampler:
    """The sampler of a unigram model. Unknown and user-defined pieces have the scores of `unigram_model.cc`."""
    kinds = np.array([piece.kind for piece in model.pieces])
    scores = np.array([piece.score for piece in model.pieces], np.float64)
    scores[model.unknown] = scores[kinds == PieceKind.NORMAL].min(initial=_HIGHEST_SCORE) - _UNKNOWN_PENALTY
    user = np.flatnonzero(kinds == PieceKind.USER)
    scores[user] = [_USER_BONUS * (len(model.pieces[n].text) - 1) for n in user.tolist()]
    usable = np.flatnonzero((kinds == PieceKind.NORMAL) | (kinds == PieceKind.USER)).tolist()
    trie = Trie.build([model.pieces[n].text.encode() for n in usable], usable)
    return UnigramSampler(trie, PieceScores(scores, model.unknown), _splitter(model), model.byte_ids)
