"""What a loss is called with, checked and laid out for the blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import Costs, DenseCosts, width_hint
from costbank.loss.objectives import check_form
from costbank.loss.options import EMOOptions
from costbank.loss.soft import SoftTargets

__all__ = ["Tokens", "check_costs", "check_devices", "check_finite", "check_labels", "check_plain", "lay_out"]

_CHUNK_ROWS = {"cpu": 256}
_CHUNK_ROWS_ELSEWHERE = 2048
_FEW_LABELS = 0.9


@dataclass(frozen=True)
class Tokens:
    """The labels of a call, one for each row of logits.

    Attributes:
        labels: int64 [tokens], 0 where ignored; or soft targets.
        weights: [tokens] or None; 0 where ignored, and 1 at most in size, so that gradients in float16 keep their
            digits.
        scale: what losses are to be multiplied by for that.
        kept: [tokens], which are not ignored, nor have a weight of 0.
        index: the rows that are kept, where rows are left out; else None.
        denominator: what the sum of losses is divided by: a scalar.
        chunk_rows: rows in a block.
    """

    labels: Tensor | SoftTargets
    weights: Tensor | None
    scale: Tensor | None
    kept: Tensor
    index: Tensor | None
    denominator: Tensor
    chunk_rows: int

    def blocks(self) -> list["slice | Tensor"]:
        """The rows of each block: slices, or indices where ignored rows are left out."""
        if self.index is not None:
            return list(self.index.split(self.chunk_rows)) if len(self.index) else []
        return [slice(start, start + self.chunk_rows) for start in range(0, len(self.kept), self.chunk_rows)]


def lay_out(
    labels: Tensor | SoftTargets,
    shape: torch.Size,
    width: int,
    options: EMOOptions,
    token_weights: Tensor | None,
    dtype: torch.dtype,
    costs: Costs | None,
    compact: bool,
) -> Tokens:
    """Check labels and weights against rows of logits of a shape, and say which rows count.

    Args:
        labels: as the loss was called with them.
        shape: of the rows: what labels are to have.
        width: of the vocabulary.
        options: whose ignore_index, shift, reduction and chunk_rows are followed.
        token_weights: as the loss was called with them.
        dtype: of the sums.
        costs: on a CPU, dense ones of equal labels are computed once where these are in one block.
        compact: leave ignored rows out. On an accelerator this waits for the device once.

    Raises:
        ShapeError: labels or weights of another shape.
        UsageError: labels that are not integers, or out of range (found asynchronously on an accelerator).
    """
    if token_weights is not None and token_weights.shape != shape:
        raise ShapeError(
            f"token_weights of shape {list(token_weights.shape)} for {list(shape)} tokens",
            f"give weights of shape {list(shape)}; with shift, that of the label at the same place",
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
    scale = None
    if weights is not None:
        kept = kept & (weights.reshape(-1) != 0)
        weights, scale = scaled(torch.where(kept, weights.reshape(-1), 0.0))
        denominator = weights.sum() * scale
    else:
        denominator = kept.sum().to(dtype)
    index = _index(flat, kept, costs) if compact else None
    rows = options.chunk_rows or _CHUNK_ROWS.get(kept.device.type, _CHUNK_ROWS_ELSEWHERE)
    return Tokens(
        labels=flat,
        weights=weights,
        scale=scale,
        kept=kept,
        index=index,
        denominator=torch.where(denominator == 0, 1.0, denominator),
        chunk_rows=rows,
    )


def _index(labels: Tensor | SoftTargets, kept: Tensor, costs: Costs | None) -> Tensor | None:
    """The rows that are kept, by label where that brings many equal ones together; None for all as they are."""
    index = kept.nonzero()[:, 0]
    if isinstance(labels, Tensor) and isinstance(costs, DenseCosts) and index.device.type == "cpu":
        ordered, order = labels[index].sort(stable=True)
        if len(torch.unique_consecutive(ordered)) < _FEW_LABELS * len(index):
            return index[order]
    return None if len(index) == len(kept) else index


def scaled(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights over the largest of their sizes, and that size; 1 where there is none."""
    size = weights.abs().amax() if len(weights) else weights.new_ones(())
    size = torch.where(size > 0, size, 1.0)
    return weights / size, size


def _shifted(labels: Tensor, weights: Tensor | None, options: EMOOptions) -> tuple[Tensor, Tensor | None]:
    """Each position's next label and its weight; the last position is ignored."""
    if labels.ndim == 0:
        raise ShapeError("one label cannot be shifted", "give sequences [..., length], or shift=False")
    if labels.shape[-1] == 0:
        return labels, weights
    labels = torch.nn.functional.pad(labels[..., 1:], (0, 1), value=options.ignore_index)
    return labels, None if weights is None else torch.nn.functional.pad(weights[..., 1:], (0, 1))


def check_labels(labels: Tensor, shape: torch.Size) -> None:
    """Check that labels are integers, one for each row.

    Args:
        labels: as the loss was called with them.
        shape: of the rows.

    Raises:
        ShapeError: they have another shape.
        UsageError: they have another type.
    """
    if labels.ndim and labels.shape[:-1] == shape and labels.shape[-1] > 1:
        raise ShapeError(
            f"labels of shape {list(labels.shape)} for {list(shape)} tokens",
            "give token ids, such as labels.argmax(-1) of one-hot rows; distributions of tokens go into SoftTargets",
        )
    if labels.shape != shape:
        raise ShapeError(
            f"labels of shape {list(labels.shape)} for {list(shape)} tokens",
            f"give labels of shape {list(shape)}, one for each row",
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(
            f"labels are {labels.dtype}", "give integer token ids: labels.long() where they are whole numbers"
        )


def _labels(labels: Tensor, width: int, options: EMOOptions) -> tuple[Tensor, Tensor]:
    """[tokens] labels, 0 where ignored, and which are not."""
    flat = labels.reshape(-1)
    kept = flat != options.ignore_index
    _check_range(flat, kept, width, options)
    return torch.where(kept, flat, 0), kept


def check_plain(**tensors: Tensor | None) -> None:
    """Refuse tensors that are shared out over processes: their rows are not all here.

    Raises:
        UsageError: one of them is a DTensor.
    """
    for name, tensor in tensors.items():
        # Told by what it has: importing its class would load all of torch.distributed.
        placements = getattr(tensor, "placements", None)
        if placements is not None:
            placed = ", ".join(map(str, placements))
            raise UsageError(
                f"{name} is a DTensor placed {placed}",
                "where its rows are a slice of the vocabulary (tensor parallelism), call parallel_linear_emo_loss, for "
                "logits parallel_emo_loss; under FSDP call the loss inside the forward of a wrapped module, where "
                "weights are whole; else give .full_tensor()",
            )


def check_costs(costs: Costs | None, width: int, options: EMOOptions) -> None:
    """Check that costs are there if they are needed, in a form that will do, and for as many tokens as the logits have.

    Raises:
        UsageError: they are not there, or of another form.
        ShapeError: they are for another number of tokens.
    """
    check_form(costs, options)
    if costs is None or not options.needs_costs:
        return
    if width != costs.vocab_size:
        raise ShapeError(
            f"the logits are {width:,} wide, and the costs of {costs.bank} are for {costs.vocab_size:,} tokens",
            f"if the ids agree (added tokens, or a padded head), take {width_hint(costs, width)}; "
            "else take the bank of this model's tokenizer",
        )


def check_devices(costs: Costs | None, options: EMOOptions, **tensors: Tensor | SoftTargets | None) -> None:
    """Check that everything is on one device.

    Raises:
        UsageError: it is not; all places are named.
    """
    places = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if costs is not None and options.needs_costs:
        places["costs"] = costs.device
    if len(set(places.values())) > 1:
        told = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise UsageError(f"{told}: that is more than one device", "move them to one with .to(device)")


def check_finite(losses: Tensor, options: EMOOptions, what: str) -> None:
    """Refuse losses that are NaN, and so logits that are NaN or inf.

    On an accelerator nothing waits: the process is ended by the device, with the message, when it gets there.

    Raises:
        UsageError: on a CPU.
    """
    if options.nan_logits == "pass":
        return
    advice = (
        "look for the step before which the model's weights became NaN (a learning rate, float16 without a scaler); "
        "nan_logits='pass' lets them through as a NaN loss"
    )
    if losses.device.type == "cpu":
        if losses.isnan().any():
            raise UsageError(f"the loss is NaN: {what}", advice)
    elif losses.device.type != "meta":
        torch._assert_async(~losses.isnan().any(), f"{what}; {advice}")  # pyright: ignore[reportPrivateImportUsage]


def _check_range(labels: Tensor, kept: Tensor, width: int, options: EMOOptions) -> None:
    allowed = ~kept | ((labels >= 0) & (labels < width))
    if labels.device.type == "cpu":
        if not allowed.all():
            wrong = labels[~allowed][0].item()
            raise UsageError(
                f"label {wrong} is neither a token id below {width:,} nor ignore_index={options.ignore_index}",
                "give the ids of this bank's tokenizer, or the ignore_index that your data uses",
            )
    elif labels.device.type != "meta":
        # The one check that does not wait for the device; PyTorch has no public name for it.
        torch._assert_async(  # pyright: ignore[reportPrivateImportUsage]
            allowed.all(), f"a label is neither below {width} nor {options.ignore_index}"
        )
