"""Training a SentencePiece tokenizer on texts."""

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
_MOST_SENTENCE_BYTES = 1 << 20  # SentencePiece leaves longer lines out without a word, by default those over 4 kB
_PART_CHARACTERS = 4_096
_SPECIAL_PIECES = 3  # <unk>, <s>, </s>
_BYTE_PIECES = 256
_MOST_PIECES = 100_000_000  # far above any vocabulary; near 2³¹ SentencePiece overflows and never ends


@dataclass(frozen=True)
class TrainingOptions:
    """What to train.

    Attributes:
        vocab_size: number of pieces, special and byte pieces included.
        model_type: `unigram` (Kudo 2018) or `bpe` (Sennrich et al. 2016).
        byte_fallback: add the 256 byte pieces, so that every text can be encoded.
        most_lines: of longer inputs, train on so many lines drawn with a fixed seed.
    """

    vocab_size: int = 16_000
    model_type: ModelType = "unigram"
    byte_fallback: bool = True
    most_lines: int = 1_000_000

    def check(self) -> None:
        """Refuse a number of pieces that no text can give.

        Raises:
            UsageError: it is too small for the special and byte pieces and one character, or absurdly large.
        """
        least = _SPECIAL_PIECES + _BYTE_PIECES * self.byte_fallback + 1
        if self.vocab_size < least:
            fixed = f"{_SPECIAL_PIECES} special" + (
                f" and {_BYTE_PIECES} byte pieces" if self.byte_fallback else " pieces"
            )
            smaller = ", or --no-byte-fallback for a smaller vocabulary" if self.byte_fallback else ""
            raise UsageError(
                f"a vocabulary of {self.vocab_size:,} pieces has no room for {fixed} and any character",
                f"give --vocab-size {least} or more, for instance 16000{smaller}",
            )
        if self.vocab_size > _MOST_PIECES:
            raise UsageError(
                f"a vocabulary of {self.vocab_size:,} pieces is too large", f"give --vocab-size {_MOST_PIECES} at most"
            )


def train_sentencepiece(
    inputs: Sequence[Path],
    out: Path,
    vocab_size: int = 16_000,
    model_type: ModelType = "unigram",
    byte_fallback: bool = True,
    most_lines: int = 1_000_000,
) -> Path:
    """Train a SentencePiece model on UTF-8 text files, each line a sentence, and write it to `out`.

    `out` is replaced only when the training has succeeded. The arguments after it are those of `TrainingOptions`.

    Raises:
        UsageError: `out` is a directory, or the options cannot be met by any text.
        InputNotFoundError, InputError: an input is missing, or is not UTF-8 text.
        TokenizerError: the text cannot give such a vocabulary.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a directory", "name the file to write: --out my.model")
    for path in inputs:
        check_readable(path, "training text")
    blocks = (text for path in inputs for text, _ in text_blocks(path))
    write_atomically(out, train_on_texts(blocks, TrainingOptions(vocab_size, model_type, byte_fallback, most_lines)))
    return out


def train_on_texts(texts: Iterable[str], options: TrainingOptions) -> bytes:
    """Train a SentencePiece model on texts, of which each line is a sentence, and give its file's content.

    Raises:
        UsageError: the options cannot be met by any text.
        CorpusError: the texts hold nothing.
        TokenizerError: the texts cannot give such a vocabulary.
        MissingExtraError: SentencePiece is not installed.
        Exception: whatever reading `texts` raises.
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
            max_sentence_length=_MOST_SENTENCE_BYTES,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if sentences.failure is not None:
            raise sentences.failure from None
        if not sentences.count:
            raise CorpusError("there is no text to train on", "give files with words in them") from None
        raise _explained(str(error), options.vocab_size) from error
    return model.getvalue()


class _Sentences:
    """Every line of some texts, long ones in parts that end at a space.

    The trainer turns what is raised while it reads into an error of its own, so the failure is kept here.
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


def _explained(message: str, vocab_size: int) -> TokenizerError:
    if too_many := re.search(r"Vocabulary size too high.*?<= (\d+)", message):
        return TokenizerError(
            f"the text is too small for {vocab_size:,} pieces",
            f"give more text, or --vocab-size {too_many[1]} at most",
        )
    if too_few := re.search(r"Vocabulary size is smaller than required_chars.*?(\d+) vs (\d+)", message):
        return TokenizerError(
            f"{vocab_size:,} pieces are fewer than the characters and bytes that the vocabulary must have",
            f"give --vocab-size {too_few[2]} or more",
        )
    reason = message.strip().splitlines()[-1] if message.strip() else f"unknown ({sys.platform})"
    return TokenizerError(f"SentencePiece could not train on this text: {reason}", "give more text, or fewer pieces")
