"""Objectives of costs that are known of each token's neighbors: sparse additions to what all tokens have in common."""

import math

import torch
from torch import Tensor

from costbank.errors import UsageError
from costbank.loss.columns import LabelPlace, Rows
from costbank.loss.costs import NeighborCosts
from costbank.loss.objectives.base import Block, Objective, of_columns

__all__ = ["D2GPo", "NeighborEMO", "NeighborGibbs", "NeighborLog"]


class NearbyObjective(Objective):
    """What reads a table of neighbors: their columns, and which of them are here."""

    def __init__(self, block: Block, costs: NeighborCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        column = self.costs.ids[labels].long() - self.block.columns.start
        # Where there is no neighbor, or it is another process's, any column will do: it is given nothing.
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
        wrong.mul_(of_columns(scale + weight * (self.far - value), rows))
        self.add_(wrong, self.masses * (self.near_costs - self.far[:, None]) * of_columns(weight, rows))
        return -weight * value * rows.hit

    def neighbor_mass(self, rows: Rows, measures: tuple[Tensor, ...]) -> Tensor:
        del rows
        return measures[1]


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
