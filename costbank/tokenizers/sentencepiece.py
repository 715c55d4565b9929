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
from costbank.tokenizers.added_tokens import Entry, read_settings, with_added
from costbank.tokenizers.base import encode_threads, joined
from costbank.tokenizers.class_ids import ids_are_assumed, layout_of
from costbank.tokenizers.placeholders import vocab_of
from costbank.tokenizers.sampling.bpe_dropout import BPEDropout
from costbank.tokenizers.sampling.lattice import Scores
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
_HIGHEST_SCORE = 0.0  # in a model without ordinary pieces


class SentencePieceTokenizer:
    """A SentencePiece model behind the interface of `costbank.tokenizers.Tokenizer`.

    A piece's bytes are its text with ▁ read as a space; `<0x0A>` pieces are the byte itself; control and unknown
    pieces keep their literal text and are special. Tokens that were added, and ids that the model's class shifts, are
    read from the files next to it.

    Attributes:
        settings: what these files say.
        ids_assumed: whether ids are taken for the pieces' numbers though the file's name is that of models that shift
            them, and nothing says whether this one does.

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
                "name a .model, tokenizer.json or .tiktoken file; for a plain list, --set tokenizer_kind=list",
            ) from error
        self.settings = read_settings(path)
        self.ids_assumed = ids_are_assumed(path, self.settings)
        try:
            own = self._entries()
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"{path} is a damaged SentencePiece model: a piece is not UTF-8 ({error.object!r:.60})",
                "download or copy it again",
            ) from None
        layout = layout_of(path, self.settings, [entry.text for entry in own], self._processor.unk_id())
        self._ids = layout.of_pieces if layout and layout.moved else None
        if layout:
            own = [
                Entry(item, item.encode(), TokenStatus.SPECIAL) if isinstance(item, str) else own[item]
                for item in layout.items
            ]
        if self._ids is not None:  # encoded text is kept under this
            self.sha256 = sha256(self.sha256.encode() + self._ids.astype("<i4").tobytes()).hexdigest()
        entries, added = with_added(own, self.settings, path, reads_spaces=True)
        self.added_ids = added | layout.appended if layout else added
        self.vocab = vocab_of([entry.token for entry in entries], [entry.status for entry in entries])

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        ids, ends = joined(self._processor.encode(list(texts), num_threads=encode_threads()))
        return (ids if self._ids is None else self._ids[ids]), ends

    def sample(
        self, texts: Sequence[str], alpha: float, seeds: Integer[np.ndarray, "texts"]
    ) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        ids, ends = self._sampler.sample(self._processor.normalize(list(texts)), alpha, seeds)
        return (ids if self._ids is None else self._ids[ids]), ends

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

    def _entries(self) -> list[Entry]:
        processor = self._processor
        entries = []
        for token_id in range(processor.get_piece_size()):
            piece = processor.id_to_piece(token_id)
            if processor.is_byte(token_id):
                entries.append(Entry(piece, bytes([int(piece[1:-1], 16)]), TokenStatus.BYTE))
            elif processor.is_control(token_id) or processor.is_unknown(token_id):
                entries.append(Entry(piece, piece.encode(), TokenStatus.SPECIAL))
            else:
                status = TokenStatus.UNUSED if processor.is_unused(token_id) else TokenStatus.OK
                entries.append(Entry(piece, piece.replace(_SPACE, " ").encode(), status))
        return entries


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
