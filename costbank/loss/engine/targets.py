"""The targets of the cross-entropy: a label, a smoothed label, or a distribution over tokens.

Each is a distribution q with a label, represented by the label's own share and a term for the other tokens.
−Σ q_i log p_i has the gradient p − q. The label of soft targets is their most probable token. So the arithmetic for
labels serves all three, and a nearly certain teacher keeps its precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs import Costs, DenseCosts
from costbank.loss.engine.softmax import SoftmaxStats, TargetTerm, VocabShard
from costbank.loss.options import EMOOptions

__all__ = [
    "SmoothedTargets",
    "SoftTargets",
    "TargetShares",
    "Targets",
    "TeacherTargets",
    "check_soft",
    "targets_of",
]


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Target distributions q, passed to a loss instead of labels.

    A position with only zeros is ignored. At other positions, probabilities are divided by their sum, so that a
    teacher's k most probable tokens form a distribution. Targets get no gradient.

    Attributes:
        probabilities: [..., vocab], or [..., k] with `ids`; not negative.
        ids: [..., k], the tokens of the probabilities, distinct in each row.

    Raises:
        ShapeError: `ids` and `probabilities` have different shapes.
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
        """The shape of the positions."""
        return self.probabilities.shape[:-1]

    @property
    def device(self) -> torch.device:
        return self.probabilities.device

    def flat(self, dtype: torch.dtype) -> tuple["SoftTargets", Tensor]:
        """The targets with one dimension of positions, and whether each position counts, [tokens]."""
        q = self.probabilities.detach().reshape(-1, self.probabilities.shape[-1])
        # Dense probabilities keep their type: rows are divided by their sums later, block by block.
        kept = q.sum(dim=1, dtype=dtype) != 0
        ids = None if self.ids is None else self.ids.reshape(q.shape).long()
        return SoftTargets(q, ids), kept

    def __getitem__(self, rows: "slice | Tensor") -> "SoftTargets":
        return SoftTargets(self.probabilities[rows], None if self.ids is None else self.ids[rows])


class TargetShares(NamedTuple):
    """Σ q_i of tokens other than the label, and their q_i: one number, a tile [n, columns], or that of a few columns.

    Attributes:
        label: 1 − q_t, the sum.
        floor: the share of every token.
        tile: the shares [n, columns].
        columns: [n, k], distinct in a row, or −1.
        values: [n, k], their shares.
    """

    label: Tensor | float | None = None
    floor: float | None = None
    tile: Tensor | None = None
    columns: Tensor | None = None
    values: Tensor | None = None


class Targets:
    """Labels: q is 1 at the label.

    Attributes:
        label: [n] token ids of the whole vocabulary.
        own: the share of the label that `term` does not include; None for 0.
    """

    own: float | None = None

    def __init__(self, label: Int64[Tensor, "n"]) -> None:
        self.label = label

    def term(self, logits: Any) -> TargetTerm | None:
        """The contribution of q to the cross-entropy besides the label's own share; None for 0.

        `logits` are [n, columns] after the shift and the temperature, or what stands for them (`objectives.Rows`).
        """
        del logits

    def cross_entropy(self, stats: SoftmaxStats, term: TargetTerm | None) -> Tensor:
        """−Σ q_i log p_i in nats, [n], with the term merged over the whole vocabulary."""
        return stats.ce if term is None else stats.cross_entropy(term, self.own)

    def subtract_(self, grad: Float[Tensor, "n columns"], weight: Float[Tensor, "n"]) -> Tensor | None:
        """Subtract weight · q from the columns of other tokens; returns what to add to −weight at the label, [n]."""
        del grad, weight

    def shares(self) -> "TargetShares":
        """q of other tokens, for a kernel."""
        return TargetShares()


class SmoothedTargets(Targets):
    """Label smoothing: q is 1 − ε at the label, plus ε spread evenly over all tokens, including the label."""

    def __init__(self, label: Int64[Tensor, "n"], epsilon: float, shard: VocabShard) -> None:
        super().__init__(label)
        self.epsilon, self.own, self.share = epsilon, (1.0 - epsilon) or None, epsilon / shard.vocab

    def term(self, logits: Any) -> TargetTerm:
        total = logits.sum(1)
        return TargetTerm(torch.full_like(total, logits.shape[1] * self.share), -self.share * total)

    def subtract_(self, grad: Float[Tensor, "n columns"], weight: Float[Tensor, "n"]) -> Tensor:
        grad.sub_((weight * self.share)[:, None])
        return weight * (self.epsilon - self.share)

    def shares(self) -> "TargetShares":
        return TargetShares(label=self.epsilon - self.share, floor=self.share)


class TeacherTargets(Targets):
    """Soft targets over the columns of this process.

    Attributes:
        q: [n, entries], over all tokens or those of `ids`; each row sums to 1, or is 0 if ignored.
        ids: [n, entries], or None.
        label: [n], the most probable token of each row.
        label_share: [n], the share of the label.
        other_share: [n], the share of all other tokens, as a sum: 1 − `label_share` would lose the precision of a
            nearly certain teacher.
    """

    def __init__(self, targets: SoftTargets, shard: VocabShard, dtype: torch.dtype) -> None:
        q = targets.probabilities.to(dtype)
        q = q / q.sum(dim=1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
        self.q, self.ids, self._shard = q, targets.ids, shard
        first = q.argmax(dim=1, keepdim=True)
        super().__init__((first if self.ids is None else self.ids.gather(1, first))[:, 0])
        self.label_share = q.gather(1, first)[:, 0]
        self.other_share = q.scatter(1, first, 0.0).sum(dim=1)
        if self.ids is None:
            self._here = q[:, shard.slice]
        else:
            column = self.ids - shard.start
            here = (column >= 0) & (column < shard.size)
            # Tokens of other processes add 0 to a column here.
            self._here, self._column = torch.where(here, q, 0.0), torch.where(here, column, 0)

    def term(self, logits: Any) -> TargetTerm:
        entries = logits if self.ids is None else logits.gather(1, self._column)
        # A token without a share adds 0, whatever its logit.
        weighted = torch.where(self._here > 0, self._here * entries, 0.0).sum(dim=1)
        return TargetTerm(self._here.sum(dim=1), -weighted)

    def subtract_(self, grad: Float[Tensor, "n columns"], weight: Float[Tensor, "n"]) -> Tensor:
        self.add_(grad, -self._here * weight[:, None])
        return weight * self.other_share

    def shares(self) -> "TargetShares":
        if self.ids is None:
            return TargetShares(label=self.other_share, tile=self._here)
        # Tokens of other processes have a share of 0.
        return TargetShares(self.other_share, columns=torch.where(self._here > 0, self._column, -1), values=self._here)

    def add_(self, block: Float[Tensor, "n columns"], values: Float[Tensor, "n entries"]) -> None:
        """Add values to the columns of their tokens."""
        if self.ids is None:
            block.add_(values)
        else:
            block.scatter_add_(1, self._column, values)

    def mean_of(self, vectors: Float[Tensor, "vocab dim"]) -> Float[Tensor, "n dim"]:
        """Σ q_i e_i of each row."""
        if self.ids is None:
            return torch.mm(self.q, vectors)
        return torch.bmm(self.q[:, None], vectors[self.ids])[:, 0]

    def times(self, values: Float[Tensor, "vocab"]) -> Float[Tensor, "n entries"]:
        """q_i v_i of this process's entries, from values of all tokens."""
        return self._here * (values[self._shard.slice] if self.ids is None else values[self.ids])


def targets_of(
    labels: Int64[Tensor, "n"] | SoftTargets, options: EMOOptions, shard: VocabShard, dtype: torch.dtype
) -> Targets:
    """The targets of a block of tokens."""
    if isinstance(labels, SoftTargets):
        return TeacherTargets(labels, shard, dtype)
    return SmoothedTargets(labels, options.label_smoothing, shard) if options.label_smoothing else Targets(labels)


def check_soft(
    targets: SoftTargets, shape: Sequence[int], width: int, costs: Costs | None, options: EMOOptions
) -> None:
    """Check soft targets against rows of logits of a shape.

    Raises:
        ShapeError: they have other positions, or another vocabulary.
        UsageError: a probability is negative or not finite, an id is out of range, or the options or costs do not
            support soft targets.
    """
    if tuple(targets.shape) != tuple(shape):
        raise ShapeError(
            f"soft targets have positions of shape {list(targets.shape)}, but logits have {list(shape)}",
            "give a distribution for each row of logits",
        )
    _check_entries(targets, width)
    if options.objective not in ("emo", "kernel", "ce"):
        raise UsageError(
            f"the objective {options.objective!r} does not support soft targets", "use 'emo', 'kernel' or 'ce'"
        )
    if options.objective != "ce" and not isinstance(costs, DenseCosts):
        form = "no" if costs is None else costs.form
        raise UsageError(
            f"soft targets cannot be combined with {form} costs", "open the bank's costs as dense or low-rank"
        )
    for name, default in (("shift", False), ("label_smoothing", 0.0), ("target_mass", "excluded")):
        if getattr(options, name) != default:
            raise UsageError(
                f"{name} cannot be combined with soft targets", f"omit {name}, and include its effect in the targets"
            )


def _check_entries(targets: SoftTargets, width: int) -> None:
    probabilities, ids = targets.probabilities, targets.ids
    entries = probabilities.shape[-1]
    if entries < 1:
        raise ShapeError("soft targets have no entries", "give the probability of at least one token")
    if ids is not None and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        raise UsageError(f"ids of soft targets are {ids.dtype}", "give integer token ids")
    if ids is None and entries != width:
        raise ShapeError(
            f"soft targets are over {entries:,} tokens, but the logits are {width:,} wide",
            "give a probability for each token, or the tokens of the probabilities as ids=",
        )
    if targets.device.type == "cpu":
        if (probabilities < 0).any() or not probabilities.isfinite().all():
            raise UsageError("a target's probability is negative or not finite", "give probabilities, not logits")
        if ids is not None and ((ids < 0) | (ids >= width)).any():
            raise UsageError("an id of a soft target is not in the vocabulary", f"give ids below {width:,}")
    elif ids is not None:
        inside = ((ids >= 0) & (ids < width)).all()
        torch._assert_async(inside, f"an id of a soft target is not below {width}")  # pyright: ignore[reportPrivateImportUsage]
