"""Vectors from a pretrained model: the rows of its LM head, or of its embedding where that is tied or alone.

The rows stream from the checkpoint a block at a time; the model itself is never loaded.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from costbank.checkpoints import HeadChoice, Matrix, choose_head, open_checkpoint
from costbank.errors import UsageError
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.sources.base import InputFile, SourcePlan, SourceVectors, mean_row, row_ranges
from costbank.sources.lm_head.settings import LMHeadBuild
from costbank.sources.lm_head.tokenizer import head_tokenizer
from costbank.tokenizers import Tokenizer, placeholder_counts
from costbank.vocab import TokenStatus, Vocab

__all__ = ["plan"]

_ALIKE = 0.5  # median cosine from which untrained rows count as alike
_MOST_SHOWN = 5

_ADVICE = (
    "Tokens are near each other that the model gives similar logits: words that can stand for each other in its eyes. "
    "Rows of rare tokens may hold more of their initial noise than of meaning; `costbank health` names them."
)


def plan(config: LMHeadBuild) -> SourcePlan:
    """Find the tensor and hold its rows against the tokenizer.

    Raises:
        UsageError: no model is named.
        InputNotFoundError: the model, its weights or a tokenizer for it is not there.
        CheckpointError: the weights cannot be read, or have fewer rows than the tokenizer has tokens of its own.
        TokenizerError: the tokenizer cannot be read, or is another than the model's.
    """
    model = config.lm_head.model
    if model is None:
        raise UsageError("an LM head bank needs a model", "give --model with a folder, a .safetensors or a .gguf file")
    checkpoint = open_checkpoint(model)
    chosen = head_tokenizer(config, model)
    settings = config.lm_head
    head = choose_head(checkpoint, settings.tensor, chosen.least_rows)
    vocab, notes = chosen.vocab_of(head, settings.accept_other_tokenizer)
    keep = settings.keep_placeholders
    libraries = ("numpy", "gguf") if head.matrix.file.suffix == ".gguf" else ("numpy",)

    def make(progress: Progress) -> SourceVectors:
        for note in notes:
            progress.note(note)
        return _read(head, chosen.tokenizer, vocab, keep, progress)

    return SourcePlan(chosen.tokenizer, head.matrix.shape, make, libraries, _ADVICE)


def _read(head: HeadChoice, tokenizer: Tokenizer, vocab: Vocab, keep: bool, progress: Progress) -> SourceVectors:
    matrix = head.matrix
    progress.note(head.line)
    if head.disagreement:
        progress.note(head.disagreement)
    unused = vocab.status == TokenStatus.UNUSED
    counts = placeholder_counts(vocab)
    unused_mean = mean_row(_unused_rows(matrix, unused))
    if counts:
        progress.note(_placeholder_note(counts, keep))
        if unused_mean is not None and not keep and (unlike := _unlike(matrix, unused, unused_mean)):
            progress.note(_unlike_note(vocab, unlike))
    zeroed = unused
    if keep:
        named = unused & (np.diff(vocab.offsets) > 0)
        vocab = replace(vocab, status=np.where(named, np.uint8(TokenStatus.SPECIAL), vocab.status))
        zeroed = unused & ~named
    rows = _HeadRows(matrix, zeroed)
    facts: dict[str, Any] = {
        "tensor": matrix.name,
        "tensor_dtype": matrix.dtype,
        "tensor_role": head.role,
        "tensor_reason": head.reason,
        "head_rows": matrix.shape[0],
        "tokenizer_tokens": tokenizer.vocab.size,
    }
    if head.tied is not None:
        facts["tied"] = head.tied
    if head.config_tied is not None:
        facts["config_says_tied"] = head.config_tied
    if counts:
        facts["placeholders"] = counts
    origin = f"tensor {matrix.name!r} in {matrix.file.name}"
    return SourceVectors(vocab, rows, facts, rows.inputs, origin=origin, unused_mean=unused_mean)


def _unused_rows(matrix: Matrix, unused: Bool[np.ndarray, "vocab"]) -> Iterator[Float32[np.ndarray, "rows dim"]]:
    for span in row_ranges(len(unused), 4 * matrix.shape[1]):
        if unused[slice(*span)].any():
            yield matrix.rows(*span)[unused[slice(*span)]]


def _placeholder_note(counts: dict[str, int], keep: bool) -> str:
    named = ", ".join(f"{count:,} {label}" for label, count in counts.items())
    what = "keep their rows" if keep else "get no vector, as no model is trained to predict them"
    total = sum(counts.values())
    are = "is a placeholder" if total == 1 else "are placeholders"
    return f"{counted(total, 'id')} {are} by name ({named}); they {what}"


def _unlike(matrix: Matrix, unused: Bool[np.ndarray, "vocab"], mean: Float32[np.ndarray, "dim"]) -> list[int]:
    """Unused ids whose rows point elsewhere than the others'. None where the rows have no direction in common."""
    parts = []
    for rows in _unused_rows(matrix, unused):
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(mean)
        parts.append(np.divide(rows @ mean, lengths, out=np.full(len(rows), np.nan, np.float32), where=lengths > 0))
    cosines = np.concatenate(parts)
    median = float(np.nanmedian(cosines)) if not np.isnan(cosines).all() else 0.0
    if median < _ALIKE:
        return []
    return np.flatnonzero(unused)[cosines < median / 2].tolist()


def _unlike_note(vocab: Vocab, unlike: list[int]) -> str:
    shown = ", ".join(f"{vocab.display(token_id)} (id {token_id})" for token_id in unlike[:_MOST_SHOWN])
    more = f" and {len(unlike) - _MOST_SHOWN:,} more" if len(unlike) > _MOST_SHOWN else ""
    return (
        f"the rows of {shown}{more} are unlike those of the other placeholders, so the model may have been trained on "
        "them; --set lm_head.keep_placeholders=true keeps all placeholders' rows"
    )


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
