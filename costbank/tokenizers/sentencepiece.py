"""SentencePiece models (`.model`): unigram, BPE, word and char."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.errors import TokenizerError, require
from costbank.tensorfile import sha256_file
from costbank.tokenizers.base import encode_threads, joined
from costbank.vocab import TokenStatus, Vocab

__all__ = ["SentencePieceTokenizer"]

_SPACE = "▁"


class SentencePieceTokenizer:
    """A SentencePiece model behind the interface of `costbank.tokenizers.Tokenizer`.

    A piece's bytes are its text with ▁ read as a space; `<0x0A>` pieces are the byte itself; control and unknown
    pieces keep their literal text and are special.

    Raises:
        TokenizerError: the file is no SentencePiece model.
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
                f"{path} is no SentencePiece model",
                "name a .model, tokenizer.json or .tiktoken file; for a plain list, --set tokenizer_kind=list",
            ) from error
        self.vocab = self._read_vocab()

    def encode(self, texts: Sequence[str]) -> tuple[Integer[np.ndarray, "tokens"], Int64[np.ndarray, "texts"]]:
        return joined(self._processor.encode(list(texts), num_threads=encode_threads()))

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
        return Vocab.from_tokens(tokens, status)
