"""Where a data collator has put the tokens of each row, and so where numbers that belong to them go."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["align", "row_name"]

# Of a batch and of its rows: what tells one row from another.
_NAMES = ("labels", "input_ids")
_AGREEMENT = 0.5


def row_name(feature: Mapping[str, Any]) -> str | None:
    """What the numbers of a row are for: its labels, which of an encoder-decoder are not its inputs, or its inputs."""
    return next((name for name in _NAMES if feature.get(name) is not None), None)


def align(
    batch: Mapping[str, Any], features: list[dict[str, Any]], numbers: list[Float[Tensor, "length"]]
) -> Float[Tensor, "rows width"] | None:
    """Numbers of rows, padded with 0 to where a batch has the tokens of each row.

    A row may be padded at either side, or all be joined in one row, in their order. Some of its tokens may be masked or
    their labels ignored, as long as most agree, and no other row agrees better.

    Args:
        batch: what the collator made.
        features: what it was given, with `labels` or `input_ids`.
        numbers: of each feature, one for each label or token.

    Returns:
        None where the batch holds other rows, or has them in another order.
    """
    placed = {name: batch[name] for name in _NAMES if isinstance(batch.get(name), Tensor) and batch[name].ndim == 2}
    target = placed.get(row_name(features[0]) or "")
    if target is None:
        return None
    (count, width), lengths = target.shape, [len(own) for own in numbers]
    # An encoder's tokens are not where a decoder's labels are.
    placed = {name: rows for name, rows in placed.items() if rows.shape == target.shape}
    if count == 1 and len(features) > 1 and sum(lengths) <= width:
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
        for number, start in enumerate(starts):
            if not _is_there(placed, 0, start, features, number, lengths):
                return None
        return nn.functional.pad(torch.cat(numbers), (0, width - sum(lengths)))[None]
    if count != len(features) or max(lengths) > width:
        return None
    rows = []
    for number, own in enumerate(numbers):
        spare = width - len(own)
        agreements = {start: _agreement(placed, number, start, features[number], len(own)) for start in (0, spare)}
        start = max(agreements, key=lambda place, found=agreements: (found[place], -place))
        if not _is_there(placed, number, start, features, number, lengths):
            return None
        rows.append(nn.functional.pad(own, (start, spare - start)))
    return torch.stack(rows)


def _is_there(
    placed: dict[str, Tensor], row: int, start: int, features: list[dict[str, Any]], number: int, lengths: list[int]
) -> bool:
    """Whether a feature is at a place of a batch, rather than another of the same length."""
    own = _agreement(placed, row, start, features[number], lengths[number])
    if own == 1.0:
        return True
    others = (f for i, f in enumerate(features) if i != number and lengths[i] == lengths[number])
    best = max((_agreement(placed, row, start, other, lengths[number]) for other in others), default=0.0)
    return own >= max(best, _AGREEMENT)


def _agreement(placed: dict[str, Tensor], row: int, start: int, feature: dict[str, Any], length: int) -> float:
    """The part of a feature's tokens and labels that a place of a batch has.

    A token may be there as an input or as a label: masking leaves it in one of them.
    """
    found, looked = 0, 0
    for name in _NAMES:
        tokens = feature.get(name)
        if tokens is None or len(tokens) != length:
            continue
        parts = [rows[row, start : start + length] for rows in placed.values()]
        tokens = torch.as_tensor(tokens).to(parts[0].device)
        found += int(torch.stack([part == tokens for part in parts]).any(dim=0).sum())
        looked += length
    return found / looked if looked else 1.0
