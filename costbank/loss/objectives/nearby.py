"""Objectives of costs that are known of each token's neighbors: sparse additions to what all tokens have in common."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from costbank.errors import UsageError
from costbank.loss.columns import LabelPlace, Pull, Rows, Sums
from costbank.loss.costs import NeighborCosts
from costbank.loss.objectives.base import Block, Objective, of_columns, softened

__all__ = ["D2GPo", "NeighborEMO", "NeighborGibbs", "NeighborLog"]


class NearbyObjective(Objective):
    """What reads a table of neighbors: their columns, and which of them are here."""

    def __init__(self, block: Block, costs: NeighborCosts) -> None:
        super().__init__(block)
        self.costs = costs

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        del label
        ids = self.costs.ids[labels].long()
        column = ids - self.block.columns.start
        self.known = ids >= 0
        # Where there is no neighbor, or it is another process's, any column will do: it is given nothing.
        self.here = self.known & (column >= 0) & (column < self.block.columns.size)
        self.near = torch.where(self.here, column, 0)
        self.near_costs = self.costs.costs[labels].to(scores.dtype)
        self.far = self.costs.far[labels].to(scores.dtype)

    def pull(self, scores: Tensor, weights: Tensor) -> Pull:
        """Of [n, k] weights of the neighbors, those that are here and not masked."""
        logits = scores.gather(1, self.near)
        usable = self.here & (logits > -torch.inf)
        weights = torch.where(usable, weights, 0.0)
        return Pull(weights.sum(dim=1), -torch.where(usable, weights * logits, 0.0).sum(dim=1))

    def add_(self, wrong: Tensor, values: Tensor) -> None:
        """Add [n, k] to the columns of the neighbors."""
        wrong.scatter_add_(1, self.near, torch.where(self.here, values, 0.0))

    def measure(self, wrong: Tensor) -> Sums:
        """The neighbors' mass, and first of all means."""
        self.masses = torch.where(self.here, wrong.gather(1, self.near), 0.0)
        return Sums((self.masses.sum(dim=1),))

    def neighbor_mass(self, rows: Rows, sums: Sums) -> Tensor:
        del rows
        return sums.means[0]


class NeighborEMO(NearbyObjective):
    """K = far · (their mass that is left) + Σ p_i κ_i over the neighbors."""

    def measure(self, wrong: Tensor) -> Sums:
        near = super().measure(wrong)
        return Sums((*near.means, (self.masses * self.near_costs).sum(dim=1)))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        near, paid = sums.means
        return paid + self.far * (rows.miss - near).clamp_min(0.0)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        wrong.mul_(of_columns(scale + weight * (self.far - value), rows))
        self.add_(wrong, self.masses * (self.near_costs - self.far[:, None]) * of_columns(weight, rows))
        return -weight * value * rows.hit


class NeighborLog(NearbyObjective):
    """The same where every token but the neighbors is as similar as their mean cost says."""

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        super().read(scores, labels, label)
        power = self.block.options.log_power
        self.similar = (1.0 - self.near_costs).clamp_min(0.0).pow(power)
        self.similar_far = (1.0 - self.far).clamp_min(0.0).pow(power)
        self.alike = torch.where(self.here, scores.gather(1, self.near), -torch.inf) + torch.log(self.similar)

    def measure(self, wrong: Tensor) -> Sums:
        near = super().measure(wrong)
        unlike = ((1 - self.similar) * self.masses).sum(dim=1)
        return Sums((*near.means, unlike), logs=(torch.logsumexp(self.alike, dim=1),))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        near, unlike = sums.means
        far = (rows.miss - near).clamp_min(0.0)
        self.unlike = unlike + (1 - self.similar_far) * far
        terms = [-rows.ce, sums.logs[0], torch.log(self.similar_far) + torch.log(far)]
        lost = -torch.logsumexp(torch.stack(terms), dim=0)
        return torch.where(self.unlike < 0.5, -torch.log1p(-self.unlike), lost)

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        lift = torch.exp(value.clamp_max(50.0))
        # Far tokens whose share in the sum would be more than this hold no probability that float32 knows of.
        far = weight * torch.exp((torch.log(self.similar_far) + value).clamp_max(80.0))
        # Products have more digits than sums of logarithms, which are for what float32 cannot hold.
        drawn = torch.where(value[:, None] < 50.0, of_columns(lift, rows) * self.masses * self.similar,
                            torch.exp(self.alike + (rows.log_scale + value)[:, None]))  # fmt: skip
        wrong.mul_(of_columns(scale + weight - far, rows))
        self.add_(wrong, of_columns(far, rows) * self.masses - weight[:, None] * drawn)
        sure = (rows.miss - self.unlike) * lift - rows.miss
        return weight * torch.where(value < 1.0, sure, rows.hit - torch.exp(value - rows.ce))


class NeighborGibbs(NearbyObjective):
    """The same over the label and its neighbors."""

    def read(self, scores: Tensor, labels: Tensor, label: LabelPlace) -> None:
        super().read(scores, labels, label)
        soft = torch.exp(-self.near_costs / self.block.options.gibbs_temperature)
        self.soft = torch.where(scores.gather(1, self.near) > -torch.inf, soft, 0.0)
        self.pulled = self.pull(scores, soft)

    def measure(self, wrong: Tensor) -> Sums:
        return super().measure(wrong)._replace(pulls=(self.pulled,))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        self.q = softened(rows, sums.pulls[0])
        return self.q.value

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_(of_columns(scale + weight, rows))
        self.add_(wrong, -self.soft * (weight / self.q.total)[:, None])
        return weight * (self.q.others - rows.miss)


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
        options, vocab = self.block.options, self.block.columns.vocab
        ranks = torch.arange(self.near.shape[1] + 1, dtype=scores.dtype, device=scores.device)
        density = torch.exp(-0.5 * (ranks / options.d2gpo_std).square()) / (options.d2gpo_std * math.sqrt(2 * math.pi))
        bumps = torch.where(functional.pad(self.known, (1, 0), value=True),
                            torch.expm1(density / options.d2gpo_temperature), 0.0)  # fmt: skip
        self.floor = 1 / (vocab + bumps.sum(dim=1))
        self.share = bumps * self.floor[:, None]
        near = self.pull(scores, self.share[:, 1:])
        self.pulled = Pull(near.weight + self.floor * scores.shape[1], near.under - self.floor * scores.sum(dim=1))

    def measure(self, wrong: Tensor) -> Sums:
        return super().measure(wrong)._replace(pulls=(self.pulled,))

    def value(self, rows: Rows, sums: Sums) -> Tensor:
        return rows.cross_entropy(sums.pulls[0], self.share[:, 0])

    def gradient_(self, wrong: Tensor, rows: Rows, value: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        del value
        wrong.mul_(of_columns(scale + weight, rows)).sub_((weight * self.floor)[:, None])
        self.add_(wrong, -weight[:, None] * self.share[:, 1:])
        return weight * (1 - self.floor - self.share[:, 0] - rows.miss)
