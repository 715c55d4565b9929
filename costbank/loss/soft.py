"""Soft targets: a distribution over tokens for each position, such as a teacher's, in the place of a label.

The likeliest token of a distribution q stands as its label, so that the arithmetic of labels holds for the rest, and a
teacher that is nearly certain loses no digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.columns import Columns, Pull
from costbank.loss.costs import Costs, DenseCosts
from costbank.loss.options import EMOOptions

__all__ = ["SoftBlock", "SoftTargets", "check_soft"]


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Target distributions q, given to a loss where labels would be.

    A position whose probabilities are all 0 is ignored; others are divided by their sum, so that a teacher's k
    likeliest tokens are a distribution of their own. No gradient goes to them.

    Attributes:
        probabilities: [..., vocab], or [..., k] with `ids`; not negative.
        ids: [..., k], the tokens of the probabilities, different ones in each row.
    """

    probabilities: Float[Tensor, "*tokens entries"]
    ids: Integer[Tensor, "*tokens entries"] | None = None

    def __post_init__(self) -> None:
        if self.ids is not None and self.ids.shape != self.probabilities.shape:
            raise ShapeError(
                f"ids of shape {list(self.ids.shape)} for probabilities of shape {list(self.probabilities.shape)}",
                "give a token id for each probability",
            )

    @property
    def shape(self) -> torch.Size:
        """Of the positions."""
        return self.probabilities.shape[:-1]

    @property
    def device(self) -> torch.device:
        return self.probabilities.device

    def flat(self, dtype: torch.dtype) -> tuple["SoftTargets", Tensor]:
        """The same with one dimension of positions, and which are not ignored, [tokens]."""
        q = self.probabilities.detach().reshape(-1, self.probabilities.shape[-1])
        # A dense teacher's type is kept: its rows are divided by their sums block by block.
        kept = q.sum(dim=1, dtype=dtype) != 0
        ids = None if self.ids is None else self.ids.reshape(q.shape).long()
        return SoftTargets(q, ids), kept

    def __getitem__(self, rows: "slice | Tensor") -> "SoftTargets":
        return SoftTargets(self.probabilities[rows], None if self.ids is None else self.ids[rows])


class SoftBlock:
    """The soft targets of a block of rows, before the columns of a slice of the vocabulary.

    Attributes:
        q: [n, entries], over all tokens or those of `ids`; each row sums to 1, or is 0 where ignored.
        ids: [n, entries], or None.
        label: [n], the likeliest token of each row.
        at_label: [n], its probability.
        others: [n], the probability of all other tokens: a sum, since the difference from 1 would lose a sure
            teacher's digits.
        own: what the label has beside its place in q: nothing.
    """

    own = None

    def __init__(self, targets: SoftTargets, columns: Columns, dtype: torch.dtype) -> None:
        q = targets.probabilities.to(dtype)
        q = q / q.sum(dim=1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
        self.q, self.ids = q, targets.ids
        first = q.argmax(dim=1, keepdim=True)
        self.at_label = q.gather(1, first)[:, 0]
        self.others = q.scatter(1, first, 0.0).sum(dim=1)
        self.label = (first if self.ids is None else self.ids.gather(1, first))[:, 0]
        if self.ids is None:
            self._here = q[:, columns.slice]
        else:
            column = self.ids - columns.start
            here = (column >= 0) & (column < columns.size)
            # What is another process's adds nothing to a column of ours.
            self._here, self._column = torch.where(here, q, 0.0), torch.where(here, column, 0)

    def pull(self, scores: Float[Tensor, "n columns"]) -> Pull:
        """Towards all tokens of q, the label too."""
        logits = scores if self.ids is None else scores.gather(1, self._column)
        # A token that has no probability counts for nothing, whatever its logit.
        below = torch.where(self._here > 0, self._here * logits, 0.0).sum(dim=1)
        return Pull(self._here.sum(dim=1), -below)

    def pull_(self, block: Float[Tensor, "n columns"], weight: Float[Tensor, "n"]) -> Tensor:
        """Subtract weight · q from the columns; what it is at the label, beyond −weight, is returned."""
        self.add_(block, -self._here * weight[:, None])
        return weight * self.others

    def add_(self, block: Float[Tensor, "n columns"], values: Tensor) -> None:
        """Add [n, entries here] to the columns of the tokens that they stand for."""
        if self.ids is None:
            block.add_(values)
        else:
            block.scatter_add_(1, self._column, values)

    def mean_of(self, vectors: Float[Tensor, "vocab dim"]) -> Float[Tensor, "n dim"]:
        """Σ q_i e_i of each row."""
        if self.ids is None:
            return torch.mm(self.q, vectors)
        return torch.bmm(self.q[:, None], vectors[self.ids])[:, 0]

    def times(self, values: Float[Tensor, "vocab"], columns: Columns) -> Tensor:
        """[n, entries here] q_i v_i, of values of all tokens."""
        if self.ids is None:
            return self._here * values[columns.slice]
        return self._here * values[self.ids]


def check_soft(
    targets: SoftTargets, shape: Sequence[int], width: int, costs: Costs | None, options: EMOOptions
) -> None:
    """Check soft targets against rows of logits of a shape.

    Raises:
        ShapeError: they are for other positions, or another vocabulary.
        UsageError: a probability is negative or an id out of range, or options or costs do not support soft targets.
    """
    if tuple(targets.shape) != tuple(shape):
        raise ShapeError(
            f"soft targets for positions of shape {list(targets.shape)}, and logits for {list(shape)}",
            "give a distribution for each row of logits",
        )
    entries = targets.probabilities.shape[-1]
    ids = targets.ids
    if entries < 1:
        raise ShapeError("soft targets of no tokens", "give the probability of one token at least")
    if ids is not None and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        raise UsageError(f"ids of soft targets are {ids.dtype}", "give integer token ids")
    if targets.ids is None and entries != width:
        raise ShapeError(
            f"soft targets over {entries:,} tokens, and the logits are {width:,} wide",
            "give a probability for each token, or ids= of the tokens that they are for",
        )
    if options.objective not in ("emo", "kernel", "ce"):
        raise UsageError(f"the objective {options.objective!r} of soft targets", "take 'emo', 'kernel' or 'ce'")
    if options.objective != "ce" and not isinstance(costs, DenseCosts):
        form = "no" if costs is None else costs.form
        raise UsageError(f"soft targets with {form} costs", "open the bank's costs as dense or low-rank")
    for name, default in (("shift", False), ("label_smoothing", 0.0), ("target_mass", "excluded")):
        if getattr(options, name) != default:
            raise UsageError(f"{name} with soft targets", "put it into the targets themselves")
    if targets.device.type == "cpu":
        if (targets.probabilities < 0).any() or not targets.probabilities.isfinite().all():
            raise UsageError("a target's probability is negative or not finite", "give probabilities, not logits")
        if targets.ids is not None and ((targets.ids < 0) | (targets.ids >= width)).any():
            raise UsageError("an id of a soft target is not a token of the vocabulary", f"give ids below {width:,}")
    elif targets.ids is not None:
        inside = ((targets.ids >= 0) & (targets.ids < width)).all()
        torch._assert_async(inside, f"an id of a soft target is not below {width}")  # pyright: ignore[reportPrivateImportUsage]
