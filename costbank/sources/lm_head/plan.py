"""Vectors from a pretrained model: the rows of its LM head, or of its embedding if the two are tied or it has no head.

The rows are read from the checkpoint in blocks; the model is never loaded.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from costbank.checkpoints import HeadChoice, Matrix, choose_head, open_checkpoint
from costbank.errors import UsageError
from costbank.hub import WEIGHT_FILES, local_path
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.sources.base import InputFile, SourcePlan, SourceVectors, mean_row, row_ranges
from costbank.sources.lm_head.settings import LMHeadBuild
from costbank.sources.lm_head.tokenizer import head_tokenizer
from costbank.tokenizers import Tokenizer, placeholder_counts
from costbank.vocab import TokenStatus, Vocab

__all__ = ["plan"]

_MIN_MEDIAN_COSINE = 0.5  # placeholders' rows with a smaller median cosine to their mean have no common direction
_MAX_SHOWN = 5

_ADVICE = (
    "Tokens are near each other if the model gives them similar logits: words that can replace each other in its "
    "predictions. Rows of rare tokens may still be close to their random initialization; see `costbank health`."
)


def plan(config: LMHeadBuild) -> SourcePlan:
    """Select the tensor, and check that its rows fit the tokenizer.

    Raises:
        UsageError: no model is named.
        InputNotFoundError: the model, its weights or its tokenizer does not exist.
        CheckpointError: the weights cannot be read, or the tensor has fewer rows than the tokenizer has tokens, not
            counting added tokens.
        TokenizerError: the tokenizer cannot be read, or is not the model's.
    """
    model = config.lm_head.model
    if model is None:
        raise UsageError(
            "the source lm-head needs a model",
            "name its folder, weights file, or id (org/name) in the Hugging Face cache with --model",
        )
    model = local_path(model, "model", WEIGHT_FILES)
    checkpoint = open_checkpoint(model)
    if config.tokenizer is not None:
        config = config.model_copy(update={"tokenizer": local_path(config.tokenizer, "tokenizer")})
    tokenizer = head_tokenizer(config, model)
    settings = config.lm_head
    head = choose_head(checkpoint, settings.tensor, tokenizer.least_rows)
    vocab, notes = tokenizer.vocab_of(head, settings.accept_other_tokenizer)
    keep = settings.keep_placeholders
    libraries = ("numpy", "gguf") if head.matrix.file.suffix == ".gguf" else ("numpy",)

    def make(progress: Progress) -> SourceVectors:
        for note in notes:
            progress.note(note)
        return _read(head, tokenizer.tokenizer, vocab, keep, progress)

    return SourcePlan(tokenizer.tokenizer, head.matrix.shape, make, libraries, _ADVICE)


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
        if unused_mean is not None and not keep and (outliers := _outliers(matrix, unused, unused_mean)):
            progress.note(_outlier_note(vocab, outliers))
    zero_rows = unused
    if keep:
        placeholders = unused & (np.diff(vocab.offsets) > 0)
        vocab = replace(vocab, status=np.where(placeholders, np.uint8(TokenStatus.SPECIAL), vocab.status))
        zero_rows = unused & ~placeholders
    rows = _HeadRows(matrix, zero_rows)
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
    kinds = ", ".join(f"{count:,} {label}" for label, count in counts.items())
    effect = "keep their rows" if keep else "get no vector, because models are not trained to predict them"
    total = sum(counts.values())
    are = "is a placeholder" if total == 1 else "are placeholders"
    return f"{counted(total, 'id')} {are} by name ({kinds}); they {effect}"


def _outliers(matrix: Matrix, unused: Bool[np.ndarray, "vocab"], mean: Float32[np.ndarray, "dim"]) -> list[int]:
    """Unused ids whose rows point in another direction than most; empty if the rows have no common direction."""
    parts = []
    for rows in _unused_rows(matrix, unused):
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(mean)
        parts.append(np.divide(rows @ mean, lengths, out=np.full(len(rows), np.nan, np.float32), where=lengths > 0))
    cosines = np.concatenate(parts)
    median = float(np.nanmedian(cosines)) if not np.isnan(cosines).all() else 0.0
    if median < _MIN_MEDIAN_COSINE:
        return []
    return np.flatnonzero(unused)[cosines < median / 2].tolist()


def _outlier_note(vocab: Vocab, outliers: list[int]) -> str:
    shown = ", ".join(f"{vocab.display(token_id)} (id {token_id})" for token_id in outliers[:_MAX_SHOWN])
    more = f" and {len(outliers) - _MAX_SHOWN:,} more" if len(outliers) > _MAX_SHOWN else ""
    return (
        f"the rows of {shown}{more} differ from those of the other placeholders, so the model may have been trained on "
        "them; to keep the rows of all placeholders, use --set lm_head.keep_placeholders=true"
    )


@dataclass
class _HeadRows:
    """The rows in order, zero for `unused` ids. The first iteration computes the sha256 of the stored bytes."""

    matrix: Matrix
    unused: Bool[np.ndarray, "vocab"]
    _input: InputFile | None = field(default=None)

    def __iter__(self) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        digest, size = hashlib.sha256(), 0
        for start, stop in row_ranges(self.matrix.shape[0], 4 * self.matrix.shape[1]):
            raw = self.matrix.read(start, stop)
            if self._input is None:
                digest.update(raw.data)
                size += raw.nbytes
            rows = self.matrix.decode(raw)
            unused = self.unused[start:stop]
            if unused.any():
                rows = np.where(unused[:, None], np.float32(0), rows)
            yield rows
        if self._input is None:
            self._input = InputFile(f"{self.matrix.file.name}:{self.matrix.name}", size, digest.hexdigest())

    def inputs(self) -> tuple[InputFile, ...]:
        return (self._input,) if self._input else ()
