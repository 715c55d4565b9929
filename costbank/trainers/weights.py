"""A dataset column `token_weights`: from the dataset through the collator to the loss, or refused by name."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.trainers.alignment import align, row_name

__all__ = ["COLUMN", "WeightsCollator", "check_kept", "check_unseen", "count_weights", "having_weights"]

COLUMN = "token_weights"
"""The name of the column: one number for each token of a row, a factor of the loss of the label at the same place."""

_NEGATIVE = "a weight multiplies the loss of its token: give numbers from 0, which ignores it, upwards"


class WeightsCollator:
    """A data collator that also pads `token_weights`, with 0, to where the collator within puts each row's labels.

    Features without the column, and attributes of the collator within, are passed through.

    Args:
        inner: makes a batch of features; it may pad rows at either side, or join them in one row.
        args: of the trainer; those of SFTTrainer say how it has truncated rows.
    """

    def __init__(self, inner: Any, args: Any = None) -> None:
        self._inner = inner
        self._longest, self._mode = getattr(args, "max_length", None), getattr(args, "truncation_mode", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, features: list[Any], *args: Any, **kwargs: Any) -> Any:
        weighted = [isinstance(feature, Mapping) and feature.get(COLUMN) is not None for feature in features]
        if not any(weighted):
            return self._inner(features, *args, **kwargs)
        if not all(weighted):
            raise UsageError(
                f"{weighted.count(False)} of {len(features)} rows of a batch have no {COLUMN}",
                "give them to every row, 1 for a token that counts as usual, or leave the column out",
            )
        weights = [self._own_weights(feature) for feature in features]
        rest = [{name: value for name, value in feature.items() if name != COLUMN} for feature in features]
        batch = self._inner(rest, *args, **kwargs)
        aligned = align(batch, rest, weights)
        if aligned is None:
            raise UsageError(
                f"{type(self._inner).__name__} makes other rows than it is given, or in another order, so {COLUMN} "
                "cannot be put next to their tokens",
                f"have the collator make {COLUMN} itself, in the shape of labels, from a column of another name (with "
                "remove_unused_columns=False), or leave them out",
            )
        batch[COLUMN] = aligned
        return batch

    def _own_weights(self, feature: Mapping[str, Any]) -> Float[Tensor, "length"]:
        """The weights of a row, cut as SFTTrainer has cut its tokens."""
        weights = torch.as_tensor(feature[COLUMN], dtype=torch.float32)
        name = row_name(feature)
        if name is None:
            raise UsageError(f"a row has {COLUMN} and neither labels nor input_ids", "give a dataset of tokens")
        length = len(feature[name])
        if weights.ndim != 1:
            raise UsageError(f"{COLUMN} of a row have shape {list(weights.shape)}", "give one number for each token")
        if not bool((weights >= 0).all()):
            raise UsageError(f"{COLUMN} of a row hold {float(weights[~(weights >= 0)][0])}", _NEGATIVE)
        if len(weights) > length == self._longest and self._mode in ("keep_start", "keep_end"):
            weights = weights[:length] if self._mode == "keep_start" else weights[-length:]
        if len(weights) != length:
            raise UsageError(
                f"a row has {len(weights)} {COLUMN} and {length} tokens",
                f"give one number for each token; a dataset with {COLUMN} should hold input_ids, and no text that the "
                "trainer is to tokenize",
            )
        return weights


def having_weights(values: Any, *, read: bool) -> list[str]:
    """Which of the datasets among a trainer's arguments have the column: `train`, and for others their names.

    Args:
        values: arguments, or attributes, by name.
        read: read the first row of a streamed dataset that does not say what columns it has.
    """
    found = []
    for name, dataset in (("train", values.get("train_dataset")), ("eval", values.get("eval_dataset"))):
        parts = dataset.items() if isinstance(dataset, dict) else ((name, dataset),)
        found += [str(part) for part, of in parts if COLUMN in _columns(of, read=read)]
    return found


def check_kept(before: list[str], after: list[str]) -> None:
    """Check that datasets still have the column after a trainer has prepared them.

    Raises:
        UsageError: they do not.
    """
    lost = [name for name in before if name not in after]
    if lost:
        raise UsageError(
            f"the trainer drops the column {COLUMN} of the {', '.join(lost)} dataset while preparing it",
            "packing drops it: set packing=False (padding_free=True keeps it), or leave the column out",
        )


def check_unseen(dataloader: Any) -> None:
    """Check that a dataset has no weights, where the loss cannot see them.

    Of a dataset that does not say what columns it has, each row is looked at when it comes: reading one ahead may take
    it from a stream that gives it once.

    Raises:
        UsageError: it has some; or, later, a row has.
    """
    columns = getattr(getattr(dataloader, "dataset", None), "column_names", None)
    if columns is not None:
        _check_unseen(columns)
        return
    # accelerate wraps a loader.
    loader: Any = getattr(dataloader, "base_dataloader", dataloader)
    if hasattr(loader, "collate_fn"):
        loader.collate_fn = _Unweighted(loader.collate_fn)


class _Unweighted:
    """A data collator that refuses rows with weights, as the dataset gives them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, features: Any) -> Any:
        for feature in features if isinstance(features, list) else ():
            if isinstance(feature, Mapping):
                _check_unseen(feature)
        return self._inner(features)


def _check_unseen(columns: Any) -> None:
    if COLUMN in columns:
        raise UsageError(
            f"the dataset has {COLUMN}, and a Trainer gives compute_loss_func nothing but outputs and labels",
            f"take the EMOTrainerMixin, whose loss they reach, or leave the column {COLUMN} out",
        )


def count_weights(batch: Mapping[str, Tensor], shift: bool, ignore_index: int) -> Tensor:
    """What the loss of a batch counts for in a mean: the weights of its labels, or their number where it has none.

    Raises:
        UsageError: the weights are not a tensor, or on a CPU some are negative.
        ShapeError: they have another shape than the labels.
    """
    labels, weights = batch["labels"], batch.get(COLUMN)
    if weights is not None:
        _check_made(weights, labels)
    if shift or "shift_labels" in batch:
        labels, weights = labels[..., 1:], None if weights is None else weights[..., 1:]
    counted = labels != ignore_index
    return counted.sum() if weights is None else weights.masked_fill(~counted, 0).sum()


def _check_made(weights: Any, labels: Tensor) -> None:
    """Check weights of a batch, which its collator may have made itself."""
    if not isinstance(weights, Tensor):
        raise UsageError(f"{COLUMN} of a batch are of type {type(weights).__name__}", "have the collator make a tensor")
    if weights.shape != labels.shape:
        raise ShapeError(
            f"{COLUMN} of a batch have shape {list(weights.shape)}, and its labels {list(labels.shape)}",
            f"have the collator make {COLUMN} in the shape of labels, each at the place of its label",
        )
    if weights.device.type == "cpu" and not bool((weights >= 0).all()):
        raise UsageError(f"{COLUMN} of a batch hold {float(weights[~(weights >= 0)][0])}", _NEGATIVE)


def _columns(dataset: Any, *, read: bool) -> Any:
    """The names of a dataset's columns; none where they are not known."""
    columns = getattr(dataset, "column_names", None)
    if columns is None and read and hasattr(dataset, "column_names"):
        first = next(iter(dataset), None)
        columns = first if isinstance(first, Mapping) else None
    return columns or ()
