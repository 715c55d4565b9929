"""Prepare a call, for all forms of the loss: checks, the tokens that count, and the plan of the blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from costbank.errors import ShapeError
from costbank.loss.arguments import check_costs, check_devices, check_label_range, check_labels
from costbank.loss.costs import Costs, DenseCosts
from costbank.loss.engine.call import Call, Tokens, scaled
from costbank.loss.engine.kernels.choice import uses_kernels
from costbank.loss.engine.objectives import objective_of
from costbank.loss.engine.outcome import BlockPlan
from costbank.loss.engine.result import accumulation_dtype
from costbank.loss.engine.softmax import VocabShard
from costbank.loss.engine.targets import SoftTargets, check_soft
from costbank.loss.mistakes import check_kinds
from costbank.loss.options import EMOOptions

__all__ = ["Arguments", "prepare"]

_CHUNK_ROWS_ON_CPU = 256
_CHUNK_BYTES = 1 << 29
_CHUNK_UNIT = 64
_MOST_CHUNK_ROWS = 16_384
_FEW_LABELS = 0.9


@dataclass(frozen=True)
class Arguments:
    """The arguments that all forms of the loss have in common.

    Attributes:
        labels: [...], token ids, or soft targets.
        costs: None for objectives without costs.
        options: the options, with a number as weight.
        token_weights: [...], or None.
        parts: whether parts are requested.
        entropy: whether the parts include the entropy.
    """

    labels: Tensor | SoftTargets
    costs: Costs | None
    options: EMOOptions
    token_weights: Tensor | None
    parts: bool = False
    entropy: bool = False

    def check_kinds(self, **tensors: object) -> None:
        """Check that costs are `Costs`, and that labels, weights and other arguments are tensors.

        Raises:
            UsageError: an argument has another type; see `costbank.loss.mistakes.check_kinds`.
        """
        check_kinds(self.costs, **tensors, labels=self.labels, token_weights=self.token_weights)


def prepare(
    arguments: Arguments,
    shape: torch.Size,
    shard: VocabShard,
    dtype: torch.dtype,
    compact: bool,
    device: torch.device,
    **tensors: Tensor | None,
) -> Call:
    """Check the arguments, and determine the tokens that count.

    Args:
        arguments: the arguments of the loss.
        shape: the shape of the rows, which labels and weights must have.
        shard: the slice of the vocabulary that the logits' columns represent.
        dtype: the type of the logits.
        compact: leave out ignored rows, which waits for an accelerator, unless the options keep them. While a CUDA
            graph is captured, that is impossible, and they stay.
        device: of the logits.
        **tensors: the other tensors of the call by name; they must be on the same device as labels, weights and costs.

    Raises:
        ShapeError: labels, weights or costs do not match the logits.
        UsageError: labels are not integers or are out of range (checked asynchronously on an accelerator), the
            objective does not support the costs, or tensors are on several devices.
    """
    labels, costs, options, weights = arguments.labels, arguments.costs, arguments.options, arguments.token_weights
    soft = isinstance(labels, SoftTargets)
    check_costs(costs, shard.vocab, options)
    if soft:
        check_soft(labels, shape, shard.vocab, costs, options)
    check_devices(costs, options, **tensors, labels=labels, token_weights=weights)
    sums = accumulation_dtype(dtype, options)
    kernels = uses_kernels(options, device, sums)
    # All processes that share a vocabulary need the same number, whatever the sizes of their slices.
    chunk_rows = options.chunk_rows or _chunk_rows(device, shard.vocab, dtype if kernels else sums)
    compact = compact and options.skip_ignored and not _is_captured(device)
    tokens = _lay_out(arguments, shape, shard.vocab, sums, chunk_rows, compact, kernels)
    plan = BlockPlan(
        objective_of(costs, options, soft),
        options,
        shard,
        with_parts=arguments.parts,
        with_entropy=arguments.entropy or options.entropy_gate is not None,
        kernels=kernels,
        is_sorted=tokens.is_sorted,
    )
    return Call(shape, tokens, plan, sums)


def _chunk_rows(device: torch.device, columns: int, dtype: torch.dtype) -> int:
    """Rows of a block of logits of this type: on an accelerator, as many as 512 MiB hold, and at most 16,384."""
    if device.type == "cpu":
        return _CHUNK_ROWS_ON_CPU
    rows = max(1, _CHUNK_BYTES // (max(1, columns) * dtype.itemsize) // _CHUNK_UNIT) * _CHUNK_UNIT
    return min(rows, _MOST_CHUNK_ROWS)


def _is_captured(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _lay_out(
    arguments: Arguments, shape: torch.Size, width: int, dtype: torch.dtype, chunk_rows: int, compact: bool,
    kernels: bool,
) -> Tokens:  # fmt: skip
    """The targets and weights of all rows, in one dimension.

    Args:
        arguments: the arguments of the loss.
        shape: the shape of the rows.
        width: the size of the whole vocabulary.
        dtype: the type of sums.
        chunk_rows: rows of a block.
        compact: leave out ignored rows.
        kernels: whether blocks run on Triton kernels.
    """
    labels, options, token_weights = arguments.labels, arguments.options, arguments.token_weights
    if token_weights is not None and token_weights.shape != shape:
        raise ShapeError(
            f"token_weights of shape {list(token_weights.shape)} for {list(shape)} tokens",
            f"give weights of shape {list(shape)}; with shift, each is the weight of the label at its position",
        )
    weights = None if token_weights is None else token_weights.detach().to(dtype)
    if isinstance(labels, SoftTargets):
        flat, kept = labels.flat(dtype)
    else:
        check_labels(labels, shape)
        labels = labels.long()
        if options.shift:
            labels, weights = _shifted(labels, weights, options)
        flat, kept = _labels(labels, width, options)
    scale, index, is_sorted = None, None, False
    if weights is not None:
        kept = kept & (weights.reshape(-1) != 0)
        weights, scale = scaled(torch.where(kept, weights.reshape(-1), 0.0))
        denominator = weights.sum() * scale
    else:
        denominator = kept.sum().to(dtype)
    if compact:
        index, is_sorted = _index(flat, kept, arguments.costs, kernels)
    return Tokens(
        labels=flat,
        weights=weights,
        scale=scale,
        kept=kept,
        index=index,
        all_kept=compact,
        is_sorted=is_sorted,
        denominator=torch.where(denominator == 0, 1.0, denominator),
        chunk_rows=chunk_rows,
    )


def _index(
    labels: Tensor | SoftTargets, kept: Tensor, costs: Costs | None, kernels: bool
) -> tuple[Tensor | None, bool]:
    """The indices of kept rows, and whether they are sorted by label; None for all rows in their order.

    They are sorted if many labels are equal, because equal labels can share a row of costs.
    """
    index = kept.nonzero()[:, 0]
    if isinstance(labels, Tensor) and isinstance(costs, DenseCosts) and (index.device.type == "cpu" or kernels):
        ordered, order = labels[index].sort(stable=True)
        if len(torch.unique_consecutive(ordered)) < _FEW_LABELS * len(index):
            return index[order], True
    return (None if len(index) == len(kept) else index), False


def _shifted(labels: Tensor, weights: Tensor | None, options: EMOOptions) -> tuple[Tensor, Tensor | None]:
    """Each position's next label and its weight; the last position is ignored."""
    if labels.ndim == 0:
        raise ShapeError("one label cannot be shifted", "give sequences [..., length], or use shift=False")
    if labels.shape[-1] == 0:
        return labels, weights
    labels = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=options.ignore_index)
    return labels, None if weights is None else torch.nn.functional.pad(weights[..., 1:], (0, 1))


def _labels(labels: Tensor, width: int, options: EMOOptions) -> tuple[Tensor, Tensor]:
    """[tokens] labels, 0 if ignored, and whether each is not ignored."""
    flat = labels.reshape(-1)
    kept = flat != options.ignore_index
    check_label_range(flat, kept, width, options)
    return torch.where(kept, flat, 0), kept
