"""Train a SentencePiece tokenizer on texts."""

import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from costbank.errors import CorpusError, TokenizerError, UsageError, require
from costbank.files import check_readable, text_blocks, write_atomically
from costbank.machine import usable_cores

__all__ = ["ModelType", "TrainingOptions", "train_on_texts", "train_sentencepiece"]

ModelType = Literal["unigram", "bpe"]

_THREADS = usable_cores()
_MAX_SENTENCE_BYTES = 1 << 20  # SentencePiece silently skips longer lines, by default those over 4 kB
_PART_CHARACTERS = 4_096
_SPECIAL_PIECES = 3  # <unk>, <s>, </s>
_BYTE_PIECES = 256
_MAX_PIECES = 100_000_000  # far more than any vocabulary has; near 2³¹ SentencePiece overflows and never ends


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training.

    Attributes:
        vocab_size: the number of pieces, including special and byte pieces.
        model_type: `unigram` (Kudo 2018) or `bpe` (Sennrich et al. 2016).
        byte_fallback: add the 256 byte pieces, so that every text can be encoded.
        most_lines: if the input has more lines, train on this many of them, sampled with a fixed seed.
    """

    vocab_size: int = 16_000
    model_type: ModelType = "unigram"
    byte_fallback: bool = True
    most_lines: int = 1_000_000

    def check(self) -> None:
        """Check the number of pieces.

        Raises:
            UsageError: it is too small for the special and byte pieces and one character, or far too large.
        """
        least = _SPECIAL_PIECES + _BYTE_PIECES * self.byte_fallback + 1
        if self.vocab_size < least:
            fixed = f"{_SPECIAL_PIECES} special pieces" + (
                f", {_BYTE_PIECES} byte pieces" if self.byte_fallback else ""
            )
            smaller = ", or --no-byte-fallback for a smaller vocabulary" if self.byte_fallback else ""
            raise UsageError(
                f"a vocabulary of {self.vocab_size:,} pieces has no room for {fixed} and one character",
                f"give --vocab-size {least} or more, for instance 16000{smaller}",
            )
        if self.vocab_size > _MAX_PIECES:
            raise UsageError(
                f"a vocabulary of {self.vocab_size:,} pieces is too large", f"give --vocab-size {_MAX_PIECES} or less"
            )


def train_sentencepiece(
    inputs: Sequence[str | Path],
    out: str | Path,
    vocab_size: int = 16_000,
    model_type: ModelType = "unigram",
    byte_fallback: bool = True,
    most_lines: int = 1_000_000,
) -> Path:
    """Train a SentencePiece model on UTF-8 text files, with a sentence on each line, and write it to `out`.

    `out` is replaced only after the training has succeeded. See `TrainingOptions` for the other arguments.

    Raises:
        UsageError: `out` is a directory, or the options cannot be met with any text.
        InputNotFoundError, InputError: an input is missing, or is not UTF-8 text.
        TokenizerError: the text is too small for the vocabulary, or the vocabulary is too small for the text.
    """
    out, inputs = Path(out), [Path(path) for path in inputs]
    if out.is_dir():
        raise UsageError(f"{out} is a directory", "give the file to write, such as --out my.model")
    for path in inputs:
        check_readable(path, "training text")
    blocks = (text for path in inputs for text, _ in text_blocks(path))
    write_atomically(out, train_on_texts(blocks, TrainingOptions(vocab_size, model_type, byte_fallback, most_lines)))
    return out


def train_on_texts(texts: Iterable[str], options: TrainingOptions) -> bytes:
    """Train a SentencePiece model on texts with a sentence on each line, and return the content of its file.

    Raises:
        UsageError: the options cannot be met with any text.
        CorpusError: the texts are empty.
        TokenizerError: the texts are too small for the vocabulary, or the vocabulary is too small for the texts.
        MissingExtraError: SentencePiece is not installed.
        Exception: whatever the iteration over `texts` raises.
    """
    options.check()
    sentencepiece = require("sentencepiece", "build")
    model, sentences = io.BytesIO(), _Sentences(texts)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=options.vocab_size,
            model_type=options.model_type,
            byte_fallback=options.byte_fallback,
            input_sentence_size=options.most_lines,
            shuffle_input_sentence=True,
            max_sentence_length=_MAX_SENTENCE_BYTES,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if sentences.failure is not None:
            raise sentences.failure from None
        if not sentences.count:
            raise CorpusError("there is no text to train on", "give files that contain text") from None
        raise _training_error(str(error), options.vocab_size) from error
    return model.getvalue()


class _Sentences:
    """The lines of texts. Long lines are split at a space.

    Attributes:
        count: how many sentences were read.
        failure: the exception that reading the texts raised. The trainer raises one of its own instead.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.count = 0
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._texts:
                for line in text.split("\n"):
                    for sentence in _parts(line):
                        self.count += 1
                        yield sentence
        except Exception as error:
            self.failure = error
            raise


def _parts(line: str) -> Iterator[str]:
    while len(line) > _PART_CHARACTERS:
        cut = line.rfind(" ", 1, _PART_CHARACTERS) if " " in line[1:_PART_CHARACTERS] else _PART_CHARACTERS
        yield line[:cut]
        line = line[cut:]
    if line:
        yield line


def _training_error(message: str, vocab_size: int) -> TokenizerError:
    if too_many := re.search(r"Vocabulary size too high.*?<= (\d+)", message):
        return TokenizerError(
            f"the text is too small for {vocab_size:,} pieces",
            f"give more text, or --vocab-size {too_many[1]} or less",
        )
    if too_few := re.search(r"Vocabulary size is smaller than required_chars.*?(\d+) vs (\d+)", message):
        return TokenizerError(
            f"{vocab_size:,} pieces are fewer than the characters and bytes that the vocabulary must have",
            f"give --vocab-size {too_few[2]} or more",
        )
    reason = message.strip().splitlines()[-1] if message.strip() else f"unknown ({sys.platform})"
    return TokenizerError(f"SentencePiece could not train on this text: {reason}", "give more text, or fewer pieces")
