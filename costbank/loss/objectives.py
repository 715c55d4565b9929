"""The objectives: the value D of each token, and its gradient over the probabilities of the wrong tokens.

An objective sees a block three times: its logits (`read`), its probabilities with the label's own left out (`measure`,
`value`), and again when they become the gradient (`gradient_`). Formulas are those of `EMOOptions`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss.columns import Columns, LabelPlace, Rows
from costbank.loss.costs import Costs, DenseCosts, NeighborCosts
from costbank.loss.options import EMOOptions

__all__ = ["Objective", "Rows", "objective_of"]


class Buffers(Protocol):
    def take(self, name: str, rows: int) -> Tensor: ...


@dataclass
class Block:
    """What an objective is given: whose columns these are, and buffers to work in."""

    options: EMOOptions
    columns: Columns
    buffers: Buffers


class Objective:
    """Cross-entropy alone: D = 0."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def read(self, scores: Float[Tensor, "n columns"], labels: Int64[Tensor, "n"], label: LabelPlace) -> None:
        """Take from the logits what is needed, before they become probabilities."""

    def measure(self, wrong: Float[Tensor, "n columns"]) -> tuple[Tensor, ...]:
        """[n] sums over the columns here, weighted by the wrong tokens' probabilities."""
        del wrong
        return ()

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        """D, [n]."""
        del measures
        return torch.zeros_like(rows.ce)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        """Make `wrong` into scale · wrong + weight · ∂D/∂z over the wrong tokens; the label's own entry is returned."""
        del value, weight
        wrong.mul_(_columns(scale, rows))
        return torch.zeros_like(scale)

    def neighbor_mass(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        """The probability of the label's neighbors; NaN where costs know of none."""
        del measures
        return torch.full_like(rows.ce, torch.nan)


class Delta(Objective):
    """1 − p_t, with the gradient p_t · p_i."""

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return rows.miss

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(_columns(scale + weight * rows.hit, rows))
        return -weight * value * rows.hit


class DenseEMO(Objective):
    """K = Σ p_i κ_i, with the gradient p_i (κ_i − K).

    κ_i = 1 − ⟨e_i, e_t⟩ is never made: with y_i = −p_i ⟨e_i, e_t⟩, K is the probability of a miss and Σ y_i, and the
    gradient y_i + p_i (1 − K). That is two passes less.
    """

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        out = self.block.buffers.take("costs", len(scores))
        self.saved = self.costs.negated_products(labels, self.block.columns.slice, out)

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        return (self.saved.mul_(wrong).sum(dim=1),)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        return (rows.miss + measures[0]).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(_columns(scale + weight * (1 - value), rows)).add_(self.saved.mul_(_columns(weight, rows)))
        return -weight * value * rows.hit


class NearbyObjective(Objective):
    """What reads a table of neighbors: their columns, and which of them are here."""

    def __init__(self, block: Block, costs: NeighborCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        column = self.costs.ids[labels].long() - self.block.columns.start
        # The label is its own neighbor where there is none: that entry holds no probability, and gets nothing.
        self.here = (self.costs.ids[labels] >= 0) & (column >= 0) & (column < self.block.columns.size)
        self.near = torch.where(self.here, column, 0)
        self.near_costs = self.costs.costs[labels].to(scores.dtype)
        self.far = self.costs.far[labels].to(scores.dtype)

    def mass(self, wrong: Tensor) -> Tensor:
        """[n, k] probabilities of the neighbors that are here."""
        return torch.where(self.here, wrong.gather(1, self.near), 0.0)

    def add_(self, wrong: Tensor, values: Tensor) -> None:
        """Add [n, k] to the columns of the neighbors."""
        wrong.scatter_add_(1, self.near, torch.where(self.here, values, 0.0))


class NeighborEMO(NearbyObjective):
    """K = far · (their mass that is left) + Σ p_i κ_i over the neighbors."""

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        self.masses = self.mass(wrong)
        return (self.masses * self.near_costs).sum(dim=1), self.masses.sum(dim=1)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        paid, near = measures
        return paid + self.far * (rows.miss - near).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(_columns(scale + weight * (self.far - value), rows))
        self.add_(wrong, self.masses * (self.near_costs - self.far[:, None]) * _columns(weight, rows))
        return -weight * value * rows.hit

    def neighbor_mass(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del rows
        return measures[1]


class Kernel(Objective):
    """½ ‖u‖², u = Σ p_i e_i − e_t, with the gradient p_i (⟨e_i − e_t, u⟩ − ‖u‖²)."""

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        self.targets = self.costs.vectors[labels].to(scores.dtype)

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        vectors = self.costs.vectors.to(wrong.dtype)
        # Over the wrong tokens alone: as a difference of two near unit vectors it would lose a sure token's digits.
        self.u = torch.mm(wrong, vectors) - wrong.sum(dim=1)[:, None] * self.targets
        return (0.5 * self.u.square().sum(dim=1),)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del rows
        return measures[0]

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        pull = self.block.buffers.take("costs", len(wrong))
        torch.mm(self.u, self.costs.vectors.to(wrong.dtype).T, out=pull)
        pull.sub_(((self.u * self.targets).sum(dim=1) + 2 * value)[:, None]).mul_(weight[:, None]).add_(scale[:, None])
        wrong.mul_(pull)
        return -weight * 2 * value * rows.hit


class DenseLog(Objective):
    """−log Σ p_i s_i, with the gradient p − a, a = softmax(z + log s).

    The same reading of the label apart as for cross-entropy gives D = CE(p) − CE(a), each exact for sure tokens.
    """

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        similar = self.block.buffers.take("costs", len(scores))
        self.costs.fill(labels, self.block.columns.slice, similar)
        similar.neg_().add_(1.0).clamp_min_(0.0).log_().mul_(self.block.options.log_power)
        self.block.columns.put_label_(similar, label, scores.new_zeros(len(scores)))
        similar.add_(scores)
        target = scores.gather(1, label.column)[:, 0]
        top = similar.amax(dim=1)
        torch.softmax(similar, dim=1, out=similar)
        peak = similar.amax(dim=1)
        self.drawn = self.block.columns.without_label_(similar, label)
        self.miss = self.drawn.sum(dim=1)
        self.ce = torch.where(self.miss < 0.5, -torch.log1p(-self.miss), top - target - torch.log(peak))

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return (rows.ce - self.ce).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_((scale + weight)[:, None]).sub_(self.drawn.mul_(weight[:, None]))
        return weight * (self.miss - rows.miss)


class NeighborLog(NearbyObjective):
    """The same where every token but the neighbors is as similar as their mean cost says."""

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        super().read(scores, labels, label)
        power = self.block.options.log_power
        self.similar = (1.0 - self.near_costs).clamp_min(0.0).pow(power)
        self.similar_far = (1.0 - self.far).clamp_min(0.0).pow(power)
        ahead = scores.gather(1, self.near) - scores.gather(1, label.column)
        self.ahead = torch.where(self.here, ahead, -torch.inf) + torch.log(self.similar)

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        self.masses = self.mass(wrong)
        return (self.masses.sum(dim=1),)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        near = measures[0]
        far = (rows.miss - near).clamp_min(0.0)
        unlike = self.unlike = ((1 - self.similar) * self.masses).sum(dim=1) + (1 - self.similar_far) * far
        total = rows.hit + self.similar_far * far + (self.similar * self.masses).sum(dim=1)
        # Sums that float32 cannot hold are taken as logarithms, which have fewer digits where it can.
        terms = [-rows.ce[:, None], (torch.log(self.similar_far) + torch.log(far))[:, None],
                 self.ahead - rows.ce[:, None]]  # fmt: skip
        lost = -torch.logsumexp(torch.cat(terms, dim=1), dim=1)
        return torch.where(unlike < 0.5, -torch.log1p(-unlike), torch.where(total > 1e-30, -torch.log(total), lost))

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        # Far tokens that share in a sum this small hold no probability that float32 knows of.
        lift = torch.exp(value.clamp_max(80.0))
        far = weight * self.similar_far * lift
        drawn = torch.where(value[:, None] < 50.0, self.masses * self.similar * lift[:, None],
                            torch.exp(self.ahead + (value - rows.ce)[:, None]))  # fmt: skip
        drawn_far = far[:, None] * self.masses - weight[:, None] * drawn
        wrong.mul_((scale + weight - far)[:, None])
        self.add_(wrong, drawn_far)
        sure = (rows.miss - self.unlike) * lift - rows.miss
        return weight * torch.where(value < 1.0, sure, rows.hit - torch.exp(value - rows.ce))

    def neighbor_mass(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del rows
        return measures[0]


class DenseGibbs(Objective):
    """−Σ q_i log p_i, q = softmax(−κ / T) over all tokens, with the gradient p − q."""

    def __init__(self, block: Block, costs: DenseCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        soft = self.block.buffers.take("costs", len(scores))
        self.costs.fill(labels, self.block.columns.slice, soft)
        self.block.columns.put_label_(soft, label, scores.new_zeros(len(scores)))
        soft.div_(-self.block.options.gibbs_temperature).masked_fill_(scores == -torch.inf, -torch.inf)
        torch.softmax(soft, dim=1, out=soft)
        self.soft = self.block.columns.without_label_(soft, label)
        self.others = self.soft.sum(dim=1)
        target = scores.gather(1, label.column)
        # Differences from the label's logit: what they add to its cross-entropy. A masked token adds nothing.
        ahead = torch.where(self.soft > 0, (target - scores) * self.soft, 0.0)
        self.excess = ahead.sum(dim=1)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return rows.ce + self.excess

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_((scale + weight)[:, None]).sub_(self.soft.mul_(weight[:, None]))
        return weight * (self.others - rows.miss)


class NeighborGibbs(NearbyObjective):
    """The same over the label and its neighbors."""

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        super().read(scores, labels, label)
        logits = scores.gather(1, self.near)
        usable = self.here & (logits > -torch.inf)
        energies = torch.where(usable, -self.near_costs / self.block.options.gibbs_temperature, -torch.inf)
        soft = torch.softmax(torch.nn.functional.pad(energies, (1, 0)), dim=1)[:, 1:]
        self.soft = soft
        self.others = soft.sum(dim=1)
        self.excess = torch.where(usable, (scores.gather(1, label.column) - logits) * soft, 0.0).sum(dim=1)

    def measure(self, wrong: Tensor) -> tuple[Tensor, ...]:
        return (self.mass(wrong).sum(dim=1),)

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return rows.ce + self.excess

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_((scale + weight)[:, None])
        self.add_(wrong, -weight[:, None] * self.soft)
        return weight * (self.others - rows.miss)

    def neighbor_mass(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del rows
        return measures[0]


class D2GPo(NearbyObjective):
    """−Σ q_i log p_i, q = softmax(N(rank; 0, σ) / T) over all tokens, with the gradient p − q.

    Past 6 σ ranks the density is nothing, and all tokens have the same share.
    """

    def __init__(self, block: Block, costs: NeighborCosts) -> None:
        super().__init__(block, costs)
        needed = min(math.ceil(6 * block.options.d2gpo_std), costs.vocab_size - 1)
        if costs.ids.shape[1] < needed:
            raise UsageError(
                f"d2gpo_std is {block.options.d2gpo_std}, and there are {costs.ids.shape[1]} neighbors a token",
                f"open the bank's costs with k={needed} or more",
            )

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        super().read(scores, labels, label)
        options, size = self.block.options, scores.shape[1]
        ranks = torch.arange(self.near.shape[1] + 1, dtype=scores.dtype, device=scores.device)
        density = torch.exp(-0.5 * (ranks / options.d2gpo_std).square()) / (options.d2gpo_std * math.sqrt(2 * math.pi))
        bump = torch.expm1(density / options.d2gpo_temperature)
        present = torch.nn.functional.pad(self.here, (1, 0), value=True)
        bumps = torch.where(present, bump, 0.0)
        self.floor = 1 / (size + bumps.sum(dim=1))
        self.share = bumps * self.floor[:, None]
        target = scores.gather(1, label.column)
        near = torch.where(self.here, (target - scores.gather(1, self.near)) * self.share[:, 1:], 0.0).sum(dim=1)
        self.excess = near + self.floor * size * (target[:, 0] - scores.mean(dim=1))

    def value(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del measures
        return rows.ce + self.excess

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_((scale + weight)[:, None]).sub_((weight * self.floor)[:, None])
        self.add_(wrong, -weight[:, None] * self.share[:, 1:])
        return weight * (1 - self.floor - self.share[:, 0] - rows.miss)


def _columns(values: Tensor, rows: Rows) -> Tensor:
    """[n, 1] factors of the probabilities of the columns here, which sum to 1 over these alone."""
    return (values if rows.scale is None else values * rows.scale)[:, None]


_DENSE = {"emo": DenseEMO, "kernel": Kernel, "log": DenseLog, "gibbs": DenseGibbs}
_NEARBY = {"emo": NeighborEMO, "log": NeighborLog, "gibbs": NeighborGibbs, "d2gpo": D2GPo}
_SHARDED = ("emo", "delta", "ce", "tailr", "mixce")


def objective_of(costs: Costs | None, options: EMOOptions, columns: Columns, buffers: Buffers) -> Objective:
    """The objective of a block.

    Raises:
        UsageError: the objective is not to be had from costs of this form, or from a slice of the vocabulary.
    """
    block, name = Block(options, columns, buffers), options.objective
    if columns.gather is not None and (name not in _SHARDED or options.label_smoothing):
        what = "label smoothing" if name in _SHARDED else f"the objective {name!r}"
        raise UsageError(
            f"{what} over a vocabulary that processes share",
            f"it is there for {', '.join(_SHARDED)}, without smoothing",
        )
    if name == "delta":
        return Delta(block)
    if not options.needs_costs:
        return Objective(block)
    if isinstance(costs, DenseCosts) and name in _DENSE:
        return _DENSE[name](block, costs)
    if isinstance(costs, NeighborCosts) and name in _NEARBY:
        return _NEARBY[name](block, costs)
    if costs is None:
        raise UsageError(f"the objective {name!r} needs costs", "give a bank's: bank.costs('dense')")
    forms = ", ".join(form for form, known in (("dense or low-rank", _DENSE), ("neighbors", _NEARBY)) if name in known)
    raise UsageError(f"the objective {name!r} with {costs.form} costs", f"open the bank's costs as {forms}")
