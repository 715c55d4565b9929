"""Find where a data collator put the tokens of each row, to put numbers that belong to tokens at the same positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["align_to_batch", "label_column"]

# Columns by which a row is recognized in a batch, in order of preference.
_TOKEN_COLUMNS = ("labels", "input_ids")
_LEAST_AGREEMENT = 0.5


def label_column(feature: Mapping[str, Any]) -> str | None:
    """The column that a row's numbers belong to: its labels, or its inputs if there are no labels.

    Labels come first because in an encoder-decoder, inputs have other positions.
    """
    return next((name for name in _TOKEN_COLUMNS if feature.get(name) is not None), None)


def align_to_batch(
    batch: Mapping[str, Any], features: list[dict[str, Any]], numbers: list[Float[Tensor, "length"]]
) -> Float[Tensor, "rows width"] | None:
    """Pad the numbers of each row with 0, to where the batch has that row's tokens.

    The collator may have padded a row on either side, or joined all rows into one, in order. It may have masked tokens
    or ignored labels, as long as most of them agree and no other row agrees better.

    Args:
        batch: the collator's output.
        features: the collator's input, with `labels` or `input_ids`.
        numbers: for each feature, one number for each label or token.

    Returns:
        None if the batch has other rows than the features, or has them in another order.
    """
    columns = {n: batch[n] for n in _TOKEN_COLUMNS if isinstance(batch.get(n), Tensor) and batch[n].ndim == 2}
    target = columns.get(label_column(features[0]) or "")
    if target is None:
        return None
    (count, width), lengths = target.shape, [len(row) for row in numbers]
    # An encoder's tokens have other positions than a decoder's labels.
    matcher = _Matcher({n: rows for n, rows in columns.items() if rows.shape == target.shape}, features, lengths)
    if count == 1 and len(features) > 1 and sum(lengths) <= width:
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
        if not all(matcher.matches(0, start, index) for index, start in enumerate(starts)):
            return None
        return nn.functional.pad(torch.cat(numbers), (0, width - sum(lengths)))[None]
    if count != len(features) or max(lengths) > width:
        return None
    padded = []
    for index, row in enumerate(numbers):
        padding = width - len(row)
        # Padding on the right wins a tie.
        start = max((0, padding), key=lambda start, index=index: matcher.agreement(index, start, index))
        if not matcher.matches(index, start, index):
            return None
        padded.append(nn.functional.pad(row, (start, padding - start)))
    return torch.stack(padded)


@dataclass(frozen=True)
class _Matcher:
    """Compares the rows of a batch with features.

    Attributes:
        columns: the token columns of the batch, all of one shape.
        features: the collator's input.
        lengths: the number of tokens of each feature.
    """

    columns: dict[str, Tensor]
    features: list[dict[str, Any]]
    lengths: Sequence[int]

    def matches(self, row: int, start: int, index: int) -> bool:
        """Whether row `row` has feature `index` from position `start` on, and not another feature of that length."""
        agreement = self.agreement(row, start, index)
        if agreement == 1.0:
            return True
        others = (i for i, length in enumerate(self.lengths) if i != index and length == self.lengths[index])
        best_other = max((self.agreement(row, start, other) for other in others), default=0.0)
        return agreement >= max(best_other, _LEAST_AGREEMENT)

    def agreement(self, row: int, start: int, index: int) -> float:
        """The share of a feature's tokens and labels that row `row` has from position `start` on.

        A token counts if it is there as an input or as a label, because masking may have removed one of the two.
        """
        length = self.lengths[index]
        windows = [rows[row, start : start + length] for rows in self.columns.values()]
        equal, compared = 0, 0
        for name in _TOKEN_COLUMNS:
            tokens = self.features[index].get(name)
            if tokens is None or len(tokens) != length:
                continue
            tokens = torch.as_tensor(tokens).to(windows[0].device)
            equal += int(torch.stack([window == tokens for window in windows]).any(dim=0).sum())
            compared += length
        return equal / compared if compared else 1.0
