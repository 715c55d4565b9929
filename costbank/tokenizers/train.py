"""Training a SentencePiece tokenizer from text files."""

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from costbank.errors import TokenizerError, UsageError, require
from costbank.files import check_readable, text_blocks, write_atomically

__all__ = ["ModelType", "train_sentencepiece"]

ModelType = Literal["unigram", "bpe"]

_THREADS = os.cpu_count() or 1
_MOST_SENTENCE_BYTES = 1 << 20  # SentencePiece passes over longer lines in silence, by default over those of 4 kB
_PART_CHARACTERS = 4_096


def train_sentencepiece(
    inputs: Sequence[Path],
    out: Path,
    vocab_size: int = 16_000,
    model_type: ModelType = "unigram",
    byte_fallback: bool = True,
    most_lines: int = 1_000_000,
) -> Path:
    """Train a SentencePiece model and write it to `out`, which is replaced only when the training has succeeded.

    Args:
        inputs: UTF-8 text files; each line is a sentence.
        out: the `.model` file.
        vocab_size: number of pieces, special and byte pieces included.
        model_type: `unigram` (Kudo 2018) or `bpe` (Sennrich et al. 2016).
        byte_fallback: add the 256 byte pieces, so that every text can be encoded.
        most_lines: of longer inputs, train on so many lines drawn with a fixed seed.

    Raises:
        UsageError: `out` is a directory.
        InputNotFoundError, InputError: an input is missing, or is no UTF-8 text.
        TokenizerError: the text cannot give such a vocabulary.
    """
    sentencepiece = require("sentencepiece", "build")
    if out.is_dir():
        raise UsageError(f"{out} is a directory", "name the file to write: --out my.model")
    for path in inputs:
        check_readable(path, "training text")
        for _ in text_blocks(path):
            pass
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(inputs),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            byte_fallback=byte_fallback,
            input_sentence_size=most_lines,
            shuffle_input_sentence=True,
            max_sentence_length=_MOST_SENTENCE_BYTES,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise _explained(str(error), vocab_size) from error
    write_atomically(out, model.getvalue())
    return out


def _sentences(inputs: Sequence[Path]) -> Iterator[str]:
    """Every line, long ones in parts that end at a space."""
    for path in inputs:
        for text, _ in text_blocks(path):
            for line in text.split("\n"):
                while len(line) > _PART_CHARACTERS:
                    cut = line.rfind(" ", 1, _PART_CHARACTERS) if " " in line[1:_PART_CHARACTERS] else _PART_CHARACTERS
                    yield line[:cut]
                    line = line[cut:]
                if line:
                    yield line


def _explained(message: str, vocab_size: int) -> TokenizerError:
    if too_many := re.search(r"Vocabulary size too high.*?<= (\d+)", message):
        return TokenizerError(
            f"the text is too small for {vocab_size} pieces",
            f"give more text, or --vocab-size {too_many[1]} at most",
        )
    if too_few := re.search(r"Vocabulary size is smaller than required_chars.*?(\d+) vs (\d+)", message):
        return TokenizerError(
            f"{vocab_size} pieces are fewer than the characters and bytes that the vocabulary must have",
            f"give --vocab-size {too_few[2]} or more",
        )
    reason = message.strip().splitlines()[-1] if message.strip() else f"unknown ({sys.platform})"
    return TokenizerError(f"SentencePiece could not train on this text: {reason}", "give more text, or fewer pieces")
