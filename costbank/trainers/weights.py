"""A dataset column `token_weights`: from the dataset through the collator to the loss, or refused by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from costbank.errors import UsageError

__all__ = ["COLUMN", "WeightsCollator", "check_kept", "check_unseen", "count_weights", "having_weights"]

COLUMN = "token_weights"
"""The name of the column: one number for each token of a row, a factor of the loss of the label at the same place."""

_AGREEMENT = 0.5


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
        batch[COLUMN] = _align(batch, rest, weights, type(self._inner).__name__)
        return batch

    def _own_weights(self, feature: Mapping[str, Any]) -> Float[Tensor, "length"]:
        """The weights of a row, cut as SFTTrainer has cut its tokens."""
        weights = torch.as_tensor(feature[COLUMN], dtype=torch.float32)
        length = len(_tokens(feature)[1])
        if weights.ndim != 1:
            raise UsageError(f"{COLUMN} of a row have shape {list(weights.shape)}", "give one number for each token")
        if len(weights) > length == self._longest and self._mode in ("keep_start", "keep_end"):
            weights = weights[:length] if self._mode == "keep_start" else weights[-length:]
        if len(weights) != length:
            raise UsageError(
                f"a row has {len(weights)} {COLUMN} and {length} tokens",
                f"give one number for each token; a dataset with {COLUMN} should hold input_ids, and no text that the "
                "trainer is to tokenize",
            )
        return weights


def having_weights(values: Any) -> Iterator[str]:
    """Which of the datasets among a trainer's arguments have the column: `train`, and for others their names."""
    for name, dataset in (("train", values.get("train_dataset")), ("eval", values.get("eval_dataset"))):
        parts = dataset.items() if isinstance(dataset, dict) else ((name, dataset),)
        yield from (str(part) for part, of in parts if COLUMN in (getattr(of, "column_names", None) or ()))


def check_kept(before: list[str], after: list[str]) -> None:
    """Check that datasets still have the column after a trainer has prepared them.

    Raises:
        UsageError: they do not.
    """
    lost = [name for name in before if name not in after]
    if lost:
        raise UsageError(
            f"the trainer drops the column {COLUMN} of the dataset {', '.join(lost)} while it prepares it",
            "packing drops it: set packing=False (padding_free=True keeps it), or leave the column out",
        )


def check_unseen(dataloader: Any) -> None:
    """Check that a dataset has no weights, where the loss cannot see them.

    Raises:
        UsageError: it has some.
    """
    dataset: Any = getattr(dataloader, "dataset", None)
    columns = getattr(dataset, "column_names", None)
    if columns is None and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and len(dataset):
        first: Any = dataset[0]
        columns = list(first) if isinstance(first, Mapping) else None
    if COLUMN in (columns or ()):
        raise UsageError(
            f"the dataset has {COLUMN}, and a Trainer gives compute_loss_func nothing but outputs and labels",
            f"take the EMOTrainerMixin, whose loss they reach, or leave the column {COLUMN} out",
        )


def count_weights(batch: Mapping[str, Tensor], shift: bool, ignore_index: int) -> Tensor:
    """What the loss of a batch counts for in a mean: the weights of its labels, or their number where it has none."""
    labels, weights = batch["labels"], batch.get(COLUMN)
    if shift or "shift_labels" in batch:
        labels, weights = labels[..., 1:], None if weights is None else weights[..., 1:]
    counted = labels != ignore_index
    return counted.sum() if weights is None else weights.masked_fill(~counted, 0.0).sum()


def _tokens(feature: Mapping[str, Any]) -> tuple[str, Any]:
    """What a row's weights are for: its labels, which an encoder-decoder has others of than tokens, or its tokens."""
    name = "labels" if feature.get("labels") is not None else "input_ids"
    if feature.get(name) is None:
        raise UsageError(f"a row has {COLUMN} and neither labels nor input_ids", "give a dataset of tokens")
    return name, feature[name]


def _align(batch: Any, features: list[dict[str, Any]], weights: list[Tensor], collator: str) -> Float[Tensor, "b n"]:
    placed = batch[_tokens(features[0])[0]]
    width, lengths = placed.shape[-1], [len(own) for own in weights]
    if len(placed) == 1 and len(features) > 1 and sum(lengths) <= width:
        # All rows joined in one.
        return nn.functional.pad(torch.cat(weights), (0, width - sum(lengths)))[None]
    if len(placed) != len(features) or max(lengths) > width:
        raise _changed(collator)
    rows = []
    for row, feature, own in zip(placed, features, weights, strict=True):
        tokens = torch.as_tensor(_tokens(feature)[1]).to(row.device)
        spare = width - len(own)
        starts = {start: _agreement(row[start : start + len(own)], tokens) for start in (0, spare)}
        start = max(starts, key=lambda place, found=starts: (found[place], -place))
        if spare and starts[start] < _AGREEMENT:
            raise _changed(collator)
        rows.append(nn.functional.pad(own, (start, spare - start)))
    return torch.stack(rows)


def _agreement(row: Tensor, tokens: Tensor) -> float:
    return float((row == tokens).float().mean()) if len(tokens) else 1.0


def _changed(collator: str) -> UsageError:
    return UsageError(
        f"{collator} makes other rows than it is given, so {COLUMN} cannot be put beside their tokens",
        f"have the collator make {COLUMN} itself, in the shape of labels, from a column of another name (with "
        "remove_unused_columns=False), or leave them out",
    )
