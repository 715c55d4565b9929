"""Score a bank on a file of held-out text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from costbank.analysis.substitution import Substitution, neighbor_targets, substitution
from costbank.bank import Bank
from costbank.errors import InputError, UsageError
from costbank.files import check_readable, text_blocks
from costbank.plurals import counted
from costbank.progress import Progress, QuietProgress
from costbank.tokenizers import Tokenizer
from costbank.tokenizers.of_bank import tokenizer_of_bank

__all__ = ["LEAST_TOKENS", "MOST_TOKENS", "EncodedText", "encode_text", "score_text"]

LEAST_TOKENS = 1_000
MOST_TOKENS = 2_000_000
_LINES_AT_A_TIME = 4_096


@dataclass(frozen=True)
class EncodedText:
    """The token ids of the lines of a text, and the position at which each line ends.

    Attributes:
        is_whole: false if the file has more text than was read.
    """

    tokens: Integer[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "lines"]
    is_whole: bool


def score_text(
    bank: Bank, text: Path, tokenizer: Path | None, k: int, progress: Progress | None = None,
    most_tokens: int = MOST_TOKENS,
) -> Substitution:  # fmt: skip
    """How much likelier a bank's k nearest are in the contexts of a text than random tokens of their frequencies.

    See `costbank.analysis.substitution`. The text must not be part of the bank's corpus: a bank knows the contexts of
    the text that it was counted from.

    Args:
        bank: the bank.
        text: a UTF-8 file. Each line is a text of its own.
        tokenizer: the file of the bank's tokenizer, or a model folder.
        k: the number of neighbors of a token.
        progress: receives the bytes that were encoded, then pairs of tokens.
        most_tokens: the rest of a longer text is ignored, with a note.

    Raises:
        UsageError: there is no tokenizer, or the bank's neighbor table has fewer than k columns.
        InputNotFoundError, InputError, CorpusError: a file is missing, empty, or not text, or the text is too short.
        TokenizerError: the tokenizer is not the bank's, or cannot encode text.
    """
    progress = progress or QuietProgress()
    if tokenizer is None:
        expected = bank.manifest.tokenizer
        raise UsageError(
            f"{text} must be encoded, but {bank.name} does not contain its tokenizer",
            f"give it with --tokenizer FILE: {expected.file} ({expected.kind})",
        )
    check_readable(text, "text")
    targets = neighbor_targets(bank, k)
    encoded = encode_text(tokenizer_of_bank(bank, tokenizer)[0], text, progress, most_tokens)
    if len(encoded.tokens) < LEAST_TOKENS:
        raise InputError(
            f"{text} has {counted(len(encoded.tokens), 'token')}, but {LEAST_TOKENS:,} are needed",
            "give more text, best 100,000 tokens or more",
        )
    if not encoded.is_whole:
        progress.note(f"{text} is longer than {most_tokens:,} tokens; the rest is ignored")
    return substitution(targets, encoded.tokens, encoded.ends, progress)


def encode_text(tokenizer: Tokenizer, text: Path, progress: Progress, most_tokens: int = MOST_TOKENS) -> EncodedText:
    """Encode the lines of a UTF-8 file, up to a number of tokens.

    Raises:
        CorpusError: the file is not UTF-8 text.
        TokenizerError: the tokenizer cannot encode text.
    """
    ids: list[np.ndarray] = [np.empty(0, np.int32)]
    ends: list[np.ndarray] = [np.empty(0, np.int64)]
    count = 0
    with progress.step("encode text", text.stat().st_size, "bytes") as step:
        for lines, size in _lines(text):
            own, own_ends = tokenizer.encode(lines)
            ids.append(own)
            ends.append(own_ends + count)
            count += len(own)
            step.advance(size)
            if count > most_tokens:
                break
    tokens, all_ends = np.concatenate(ids), np.concatenate(ends)
    return EncodedText(tokens[:most_tokens], np.minimum(all_ends, most_tokens), count <= most_tokens)


def _lines(text: Path) -> Iterator[tuple[list[str], int]]:
    """Some lines at a time, and the bytes of the file up to their end since the lines before."""
    for block, size in text_blocks(text):
        lines = block.split("\n")
        for start in range(0, len(lines), _LINES_AT_A_TIME):
            is_last = start + _LINES_AT_A_TIME >= len(lines)
            yield lines[start : start + _LINES_AT_A_TIME], size if is_last else 0
