"""Pass the dataset column `token_weights` through the collator to the loss."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.trainers.alignment import align_to_batch, label_column

__all__ = [
    "TOKEN_WEIGHTS",
    "WeightsCollator",
    "check_columns_kept",
    "datasets_with_weights",
    "refuse_token_weights",
    "weighted_token_count",
]

TOKEN_WEIGHTS = "token_weights"
"""The name of the column: for each token of a row, a factor of the loss of the label at the same position."""

_NEGATIVE = "a weight multiplies the loss of its token: give numbers of 0 or more; 0 ignores the token"


class WeightsCollator:
    """A data collator that also pads `token_weights` with 0, so that they match the labels of the inner collator.

    Features without the column, and attributes of the inner collator, are passed through.

    Args:
        inner: the collator that makes a batch; it may pad rows on either side, or join them into one row.
        args: the trainer's arguments. Those of SFTTrainer say how it truncates rows.
    """

    def __init__(self, inner: Any, args: Any = None) -> None:
        self._inner = inner
        self._max_length, self._truncation = getattr(args, "max_length", None), getattr(args, "truncation_mode", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, features: list[Any], *args: Any, **kwargs: Any) -> Any:
        has_weights = [isinstance(feature, Mapping) and feature.get(TOKEN_WEIGHTS) is not None for feature in features]
        if not any(has_weights):
            return self._inner(features, *args, **kwargs)
        if not all(has_weights):
            raise UsageError(
                f"{has_weights.count(False)} of {len(features)} rows of a batch have no {TOKEN_WEIGHTS}",
                "give weights to every row (1 for a token that counts as usual), or leave the column out",
            )
        weights = [self._weights_of(feature) for feature in features]
        unweighted = [{name: value for name, value in feature.items() if name != TOKEN_WEIGHTS} for feature in features]
        batch = self._inner(unweighted, *args, **kwargs)
        aligned = align_to_batch(batch, unweighted, weights)
        if aligned is None:
            raise UsageError(
                f"{type(self._inner).__name__} returns other rows than it gets, or in another order, so "
                f"{TOKEN_WEIGHTS} cannot be aligned with their tokens",
                f"make {TOKEN_WEIGHTS} in the collator, in the shape of labels, from a column of another name (with "
                "remove_unused_columns=False), or leave the column out",
            )
        batch[TOKEN_WEIGHTS] = aligned
        return batch

    def _weights_of(self, feature: Mapping[str, Any]) -> Float[Tensor, "length"]:
        """The weights of a row, truncated as SFTTrainer truncates its tokens."""
        weights = torch.as_tensor(feature[TOKEN_WEIGHTS], dtype=torch.float32)
        name = label_column(feature)
        if name is None:
            raise UsageError(f"a row has {TOKEN_WEIGHTS}, but neither labels nor input_ids", "give a dataset of tokens")
        length = len(feature[name])
        if weights.ndim != 1:
            raise UsageError(
                f"{TOKEN_WEIGHTS} of a row have shape {list(weights.shape)}", "give one number for each token"
            )
        if not bool((weights >= 0).all()):
            raise UsageError(f"{TOKEN_WEIGHTS} of a row contain {float(weights[~(weights >= 0)][0])}", _NEGATIVE)
        if len(weights) > length == self._max_length and self._truncation in ("keep_start", "keep_end"):
            weights = weights[:length] if self._truncation == "keep_start" else weights[-length:]
        if len(weights) != length:
            raise UsageError(
                f"a row has {len(weights)} {TOKEN_WEIGHTS} and {length} tokens",
                f"give one number for each token; a dataset with {TOKEN_WEIGHTS} needs input_ids, not text for the "
                "trainer to tokenize",
            )
        return weights


def datasets_with_weights(values: Any, *, read: bool) -> list[str]:
    """The names of a trainer's datasets that have the column: `train`, `eval`, or the names of several eval datasets.

    Args:
        values: the trainer's arguments, or its attributes, by name.
        read: read the first row of a streamed dataset with unknown columns.
    """
    names = []
    for name, dataset in (("train", values.get("train_dataset")), ("eval", values.get("eval_dataset"))):
        parts = dataset.items() if isinstance(dataset, dict) else ((name, dataset),)
        names += [str(part) for part, rows in parts if TOKEN_WEIGHTS in _columns(rows, read=read)]
    return names


def check_columns_kept(before: list[str], after: list[str]) -> None:
    """Check that a trainer has not dropped the column while preparing its datasets.

    Raises:
        UsageError: it has.
    """
    lost = [name for name in before if name not in after]
    if lost:
        raise UsageError(
            f"the trainer drops the column {TOKEN_WEIGHTS} of the {', '.join(lost)} dataset while preparing it",
            "packing drops it: set packing=False (padding_free=True keeps it), or leave the column out",
        )


def refuse_token_weights(dataloader: Any) -> None:
    """Refuse a dataset with the column, for a loss that cannot see it.

    If the dataset's columns are unknown, each row is checked when it is collated: reading a row ahead could lose it
    from a stream that yields each row only once.

    Raises:
        UsageError: the dataset has the column; later, a row has it.
    """
    columns = getattr(getattr(dataloader, "dataset", None), "column_names", None)
    if columns is not None:
        _refuse_column(columns)
        return
    # accelerate wraps the loader.
    loader: Any = getattr(dataloader, "base_dataloader", dataloader)
    if hasattr(loader, "collate_fn"):
        loader.collate_fn = _RefusingCollator(loader.collate_fn)


class _RefusingCollator:
    """A data collator that refuses rows with the column."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, features: Any) -> Any:
        for feature in features if isinstance(features, list) else ():
            if isinstance(feature, Mapping):
                _refuse_column(feature)
        return self._inner(features)


def _refuse_column(columns: Any) -> None:
    if TOKEN_WEIGHTS in columns:
        raise UsageError(
            f"the dataset has {TOKEN_WEIGHTS}, but a Trainer gives compute_loss_func only outputs and labels",
            f"use the EMOTrainerMixin, which passes them to its loss, or leave the column {TOKEN_WEIGHTS} out",
        )


def weighted_token_count(batch: Mapping[str, Tensor], shift: bool, ignore_index: int) -> Tensor:
    """The divisor of a batch's loss in a mean: the sum of its weights, or the number of its labels without weights.

    Raises:
        UsageError: the weights are not a tensor, or some are negative (checked on a CPU).
        ShapeError: the weights do not have the shape of the labels.
    """
    labels, weights = batch["labels"], batch.get(TOKEN_WEIGHTS)
    if weights is not None:
        _check_batch_weights(weights, labels)
    if shift or "shift_labels" in batch:
        labels, weights = labels[..., 1:], None if weights is None else weights[..., 1:]
    counted = labels != ignore_index
    return counted.sum() if weights is None else weights.masked_fill(~counted, 0).sum()


def _check_batch_weights(weights: Any, labels: Tensor) -> None:
    """Check the weights of a batch, which may come from the user's collator."""
    if not isinstance(weights, Tensor):
        raise UsageError(
            f"{TOKEN_WEIGHTS} of a batch are of type {type(weights).__name__}", "make a tensor in the collator"
        )
    if weights.shape != labels.shape:
        raise ShapeError(
            f"{TOKEN_WEIGHTS} of a batch have shape {list(weights.shape)}, and its labels {list(labels.shape)}",
            f"make {TOKEN_WEIGHTS} in the collator in the shape of labels, each at the position of its label",
        )
    if weights.device.type == "cpu" and not bool((weights >= 0).all()):
        raise UsageError(f"{TOKEN_WEIGHTS} of a batch contain {float(weights[~(weights >= 0)][0])}", _NEGATIVE)


def _columns(dataset: Any, *, read: bool) -> Any:
    """The names of a dataset's columns; none if they are unknown."""
    columns = getattr(dataset, "column_names", None)
    if columns is None and read and hasattr(dataset, "column_names"):
        first = next(iter(dataset), None)
        columns = first if isinstance(first, Mapping) else None
    return columns or ()
