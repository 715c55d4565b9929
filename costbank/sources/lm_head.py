"""Vectors from a pretrained model: the rows of its LM head, or of its embedding where that is tied or alone.

The rows stream from the checkpoint a block at a time; the model itself is never loaded.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from costbank.checkpoints import Head, Matrix, choose_head, find_gguf, open_checkpoint
from costbank.config import BuildConfig
from costbank.errors import CheckpointError, InputNotFoundError, UsageError
from costbank.progress import Progress
from costbank.sources.base import InputFile, SourcePlan, SourceVectors, mean_row, row_ranges
from costbank.tokenizers import GGUFTokenizer, Tokenizer, find_tokenizer, load_tokenizer
from costbank.vocab import TokenStatus

__all__ = ["plan"]

_ADVICE = (
    "Tokens are near each other that the model gives similar logits: words that can stand for each other in its eyes. "
    "Rows of rare tokens may hold more of their initial noise than of meaning; `costbank health` names them."
)


def plan(config: BuildConfig) -> SourcePlan:
    """Find the tensor and hold its rows against the tokenizer.

    Raises:
        UsageError: no model is named.
        InputNotFoundError: the model, its weights or a tokenizer for it is not there.
        CheckpointError: the weights cannot be read, or have fewer rows than the tokenizer has tokens.
    """
    model = config.lm_head.model
    if model is None:
        raise UsageError("an LM head bank needs a model", "give --model with a folder, a .safetensors or a .gguf file")
    checkpoint = open_checkpoint(model)
    tokenizer = _tokenizer(config, model)
    head = choose_head(checkpoint, config.lm_head.tensor)
    rows, tokens = head.matrix.shape[0], tokenizer.vocab.size
    if rows < tokens:
        raise CheckpointError(
            f"tensor {head.matrix.name!r} has {rows:,} rows, and the tokenizer has {tokens:,} tokens",
            "give the tokenizer that the model was trained with",
        )
    libraries = ("numpy", "gguf") if head.matrix.file.suffix == ".gguf" else ("numpy",)
    return SourcePlan(
        tokenizer, head.matrix.shape, lambda progress: _read(head, tokenizer, progress), libraries, _ADVICE
    )


def _tokenizer(config: BuildConfig, model: Path) -> Tokenizer:
    """The one that is named, else the one beside the weights, else the tokens in a GGUF file."""
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer, config.tokenizer_kind)
    if gguf := find_gguf(model):
        return GGUFTokenizer(gguf)
    folder = model if model.is_dir() else model.parent
    try:
        return load_tokenizer(find_tokenizer(folder), config.tokenizer_kind)
    except InputNotFoundError as error:
        raise InputNotFoundError(str(error), "give --tokenizer FILE") from None


def _read(head: Head, tokenizer: Tokenizer, progress: Progress) -> SourceVectors:
    matrix = head.matrix
    if head.guessed:
        progress.note(f"the {head.role} is taken to be {matrix.name!r}; name another tensor with --tensor")
    if head.disagreement:
        progress.note(head.disagreement)
    vocab = tokenizer.vocab.padded(matrix.shape[0])
    unused = vocab.status == TokenStatus.UNUSED
    rows = _HeadRows(matrix, unused)
    facts: dict[str, Any] = {
        "tensor": matrix.name,
        "tensor_dtype": matrix.dtype,
        "tensor_role": head.role,
        "head_rows": matrix.shape[0],
        "tokenizer_tokens": tokenizer.vocab.size,
    }
    if head.tied is not None:
        facts["tied"] = head.tied
    if head.config_tied is not None:
        facts["config_says_tied"] = head.config_tied
    origin = f"tensor {matrix.name!r} in {matrix.file.name}"
    ranges = row_ranges(vocab.size, 4 * matrix.shape[1])
    unused_rows = (matrix.rows(*span)[unused[slice(*span)]] for span in ranges if unused[slice(*span)].any())
    return SourceVectors(vocab, rows, facts, rows.inputs, origin=origin, unused_mean=mean_row(unused_rows))


@dataclass
class _HeadRows:
    """The rows in order, those of unused ids as zero. The first pass takes the sha256 of the stored bytes."""

    matrix: Matrix
    unused: Bool[np.ndarray, "vocab"]
    _taken: InputFile | None = field(default=None)

    def __iter__(self) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        digest, size = hashlib.sha256(), 0
        for start, stop in row_ranges(self.matrix.shape[0], 4 * self.matrix.shape[1]):
            raw = self.matrix.read(start, stop)
            if self._taken is None:
                digest.update(raw.data)
                size += raw.nbytes
            rows = self.matrix.decode(raw)
            unused = self.unused[start:stop]
            if unused.any():
                rows = np.where(unused[:, None], np.float32(0), rows)
            yield rows
        if self._taken is None:
            self._taken = InputFile(f"{self.matrix.file.name}:{self.matrix.name}", size, digest.hexdigest())

    def inputs(self) -> tuple[InputFile, ...]:
        return (self._taken,) if self._taken else ()
