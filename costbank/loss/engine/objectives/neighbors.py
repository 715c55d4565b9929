"""Objectives with a table of each token's neighbors: all columns but a few have the same cost or target."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from costbank.errors import UsageError
from costbank.loss.costs import NeighborCosts, NeighborSmoothing
from costbank.loss.engine.objectives.base import (
    Block,
    Gradient,
    NeighborTerms,
    Objective,
    Rows,
    Softened,
    softened,
)
from costbank.loss.engine.softmax import PartialSums, SoftmaxStats, TargetTerm
from costbank.loss.options import EMOOptions

__all__ = ["D2GPo", "NeighborEMO", "NeighborLog", "SmoothedOverNeighbors"]


class _Neighbors(NamedTuple):
    """The labels' neighbors, each [n, k].

    Attributes:
        exists: false if a token has fewer neighbors.
        here: whether this process has the neighbor's column.
        columns: that column; any column if it is not here.
    """

    exists: Tensor
    here: Tensor
    columns: Tensor

    def logits(self, block: Block) -> Tensor:
        """[n, k] logits; −inf if a neighbor is not here."""
        return torch.where(self.here, block.logits.gather(1, self.columns), -torch.inf)

    def probs(self, probs: Rows) -> Tensor:
        """[n, k] probabilities; 0 if a neighbor is not here."""
        return torch.where(self.here, probs.gather(1, self.columns), 0.0)

    def term(self, block: Block, weights: Tensor) -> TargetTerm:
        """The term of [n, k] weights, of neighbors that are here and not masked."""
        logits = self.logits(block)
        usable = logits > -torch.inf
        weights = torch.where(usable, weights, 0.0)
        return TargetTerm(weights.sum(dim=1), -torch.where(usable, weights * logits, 0.0).sum(dim=1))

    def add(self, values: Tensor) -> NeighborTerms:
        """[n, k] values for the neighbors' columns."""
        return NeighborTerms(self.columns, torch.where(self.here, values, 0.0), self.here)


class NeighborObjective(Objective):
    """The base of objectives with a table of neighbors. The first of their `means` is the neighbors' probability."""

    costs: NeighborCosts | NeighborSmoothing

    def neighbors(self, block: Block) -> _Neighbors:
        ids = self.costs.ids[block.labels].long()
        column = ids - block.shard.start
        exists = ids >= 0
        here = exists & (column >= 0) & (column < block.shard.size)
        return _Neighbors(exists, here, torch.where(here, column, 0))

    def label_costs(self, block: Block) -> tuple[Tensor, Tensor]:
        """κ of the neighbors [n, k], and κ of all other tokens [n]."""
        costs = self.costs
        assert isinstance(costs, NeighborCosts)
        dtype = block.logits.dtype
        return costs.costs[block.labels].to(dtype), costs.far[block.labels].to(dtype)

    def neighbor_mass(self, stats: SoftmaxStats, sums: PartialSums) -> Tensor:
        return sums.means[0]


class _CostsState(NamedTuple):
    """Neighbors, their κ [n, k], and κ of all other tokens [n]."""

    neighbors: _Neighbors
    costs: Tensor
    far_cost: Tensor


class NeighborEMO(NeighborObjective):
    """D = K = Σ p_i κ_i with κ_i = far outside the neighbors, ∂K/∂z_i = p_i (far − K) + p_i (κ_i − far)."""

    def read(self, block: Block) -> _CostsState:
        return _CostsState(self.neighbors(block), *self.label_costs(block))

    def measure(self, probs: Rows, state: _CostsState) -> tuple[PartialSums, tuple[_CostsState, Tensor]]:
        near = state.neighbors.probs(probs)
        return PartialSums(means=(near.sum(dim=1), (near * state.costs).sum(dim=1))), (state, near)

    def value(
        self, stats: SoftmaxStats, sums: PartialSums, state: tuple[_CostsState, Tensor]
    ) -> tuple[Tensor, tuple[_CostsState, Tensor]]:
        mass, cost = sums.means
        return cost + state[0].far_cost * (stats.other_prob - mass).clamp_min(0.0), state

    def gradient(self, probs: Rows, stats: SoftmaxStats, value: Tensor, state: tuple[_CostsState, Tensor]) -> Gradient:
        (near, costs, far), near_probs = state
        return Gradient(
            label=-value * stats.label_prob,
            common=far - value,
            neighbors=near.add(near_probs * _local(costs - far[:, None], stats)),
        )


class _LogState(NamedTuple):
    """Neighbors; their s_i, and log p_i s_i up to the shift [n, k]; s of far tokens [n]."""

    neighbors: _Neighbors
    similar: Tensor
    log_terms: Tensor
    far: Tensor


class NeighborLog(NeighborObjective):
    """D = −log Σ p_i s_i with s_i = s_far outside the neighbors, ∂D/∂z_i = p_i − p_i s_i e^D."""

    def read(self, block: Block) -> _LogState:
        near, (costs, far_cost), power = self.neighbors(block), self.label_costs(block), self.options.log_power
        similar = (1.0 - costs).clamp_min(0.0).pow(power)
        far = (1.0 - far_cost).clamp_min(0.0).pow(power)
        return _LogState(near, similar, near.logits(block) + torch.log(similar), far)

    def measure(self, probs: Rows, state: _LogState) -> tuple[PartialSums, tuple[_LogState, Tensor]]:
        near = state.neighbors.probs(probs)
        means = (near.sum(dim=1), ((1 - state.similar) * near).sum(dim=1))
        return PartialSums(means, logs=(torch.logsumexp(state.log_terms, dim=1),)), (state, near)

    def value(
        self, stats: SoftmaxStats, sums: PartialSums, state: tuple[_LogState, Tensor]
    ) -> tuple[Tensor, tuple[_LogState, Tensor, Tensor]]:
        read, near_probs = state
        mass, unlike = sums.means
        far_prob = (stats.other_prob - mass).clamp_min(0.0)
        unlike = unlike + (1 - read.far) * far_prob  # Σ p_i (1 − s_i)
        terms = [-stats.ce, sums.logs[0], torch.log(read.far) + torch.log(far_prob)]
        lost = -torch.logsumexp(torch.stack(terms), dim=0)
        return torch.where(unlike < 0.5, -torch.log1p(-unlike), lost), (read, near_probs, unlike)

    def gradient(
        self, probs: Rows, stats: SoftmaxStats, value: Tensor, state: tuple[_LogState, Tensor, Tensor]
    ) -> Gradient:
        read, near_probs, unlike = state
        lift = torch.exp(value.clamp_max(50.0))
        # With a larger factor, far tokens have no probability in float32.
        far = torch.exp((torch.log(read.far) + value).clamp_max(80.0))
        # Products are more precise than sums of logarithms, which are for numbers outside the range of float32.
        similar = torch.where(value[:, None] < 50.0, _local(lift[:, None], stats) * near_probs * read.similar,
                              torch.exp(read.log_terms + (stats.log_scale + value)[:, None]))  # fmt: skip
        sure = (stats.other_prob - unlike) * lift - stats.other_prob
        return Gradient(
            label=torch.where(value < 1.0, sure, stats.label_prob - torch.exp(value - stats.ce)),
            common=1 - far,
            neighbors=read.neighbors.add(_local(far[:, None], stats) * near_probs - similar),
        )


class _SmoothingState(NamedTuple):
    """Neighbors, q_i of those that are not masked [n, k], and their term."""

    neighbors: _Neighbors
    weights: Tensor
    term: TargetTerm


class SmoothedOverNeighbors(NeighborObjective):
    """D = −Σ q_i log p_i with q from a table, ∂D/∂z_i = p_i − q_i. The label has the shares of masked neighbors."""

    def read(self, block: Block) -> _SmoothingState:
        near, costs = self.neighbors(block), self.costs
        assert isinstance(costs, NeighborSmoothing)
        weights = costs.weights[block.labels].to(block.logits.dtype)
        weights = torch.where(near.logits(block) > -torch.inf, weights, 0.0)
        return _SmoothingState(near, weights, near.term(block, weights))

    def measure(self, probs: Rows, state: _SmoothingState) -> tuple[PartialSums, _SmoothingState]:
        return PartialSums(means=(state.neighbors.probs(probs).sum(dim=1),), targets=(state.term,)), state

    def value(
        self, stats: SoftmaxStats, sums: PartialSums, state: _SmoothingState
    ) -> tuple[Tensor, tuple[_SmoothingState, Softened]]:
        q = softened(stats, sums.targets[0], (1.0 - sums.targets[0].weight).clamp_min(0.0))
        return q.value, (state, q)

    def gradient(
        self, probs: Rows, stats: SoftmaxStats, value: Tensor, state: tuple[_SmoothingState, Softened]
    ) -> Gradient:
        (near, weights, _), q = state
        return q.gradient(stats)._replace(neighbors=near.add(-weights / q.total[:, None]))


class _RankState(NamedTuple):
    """Neighbors; the share of every token [n]; the excess of the label and its neighbors [n, 1 + k]; and a term."""

    neighbors: _Neighbors
    floor: Tensor
    shares: Tensor
    term: TargetTerm


class D2GPo(NeighborObjective):
    """D = −Σ q_i log p_i, q = softmax(N(rank; 0, σ) / T) over all tokens, ∂D/∂z_i = p_i − q_i.

    Beyond 6 σ ranks the density is 0, and all tokens have the same share (Li et al. 2020).
    """

    needs_total = True

    def __init__(self, options: EMOOptions, costs: Any) -> None:
        super().__init__(options, costs)
        needed = min(math.ceil(6 * options.d2gpo_std), costs.vocab_size - 1)
        if costs.ids.shape[1] < needed:
            raise UsageError(
                f"d2gpo_std={options.d2gpo_std} needs {needed} neighbors per token, but there are {costs.ids.shape[1]}",
                f"open the bank's costs with k={needed} or more",
            )

    def read(self, block: Block) -> _RankState:
        near, logits, std = self.neighbors(block), block.logits, self.options.d2gpo_std
        ranks = torch.arange(near.columns.shape[1] + 1, dtype=logits.dtype, device=logits.device)
        density = torch.exp(-0.5 * (ranks / std).square()) / (std * math.sqrt(2 * math.pi))
        bumps = torch.where(functional.pad(near.exists, (1, 0), value=True),
                            torch.expm1(density / self.options.d2gpo_temperature), 0.0)  # fmt: skip
        floor = 1 / (block.shard.vocab + bumps.sum(dim=1))
        shares = bumps * floor[:, None]
        term = near.term(block, shares[:, 1:])
        term = TargetTerm(term.weight + floor * logits.shape[1], term.nll_from_max - floor * logits.sum(1))
        return _RankState(near, floor, shares, term)

    def measure(self, probs: Rows, state: _RankState) -> tuple[PartialSums, _RankState]:
        return PartialSums(means=(state.neighbors.probs(probs).sum(dim=1),), targets=(state.term,)), state

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: _RankState) -> tuple[Tensor, _RankState]:
        return stats.cross_entropy(sums.targets[0], state.shares[:, 0]), state

    def gradient(self, probs: Rows, stats: SoftmaxStats, value: Tensor, state: _RankState) -> Gradient:
        return Gradient(
            label=1 - state.floor - state.shares[:, 0] - stats.other_prob,
            common=torch.ones_like(value),
            floor=state.floor,
            neighbors=state.neighbors.add(-state.shares[:, 1:]),
        )


def _local(factors: Tensor, stats: SoftmaxStats) -> Tensor:
    """[n, 1 or k] factors of the probabilities over this process's columns."""
    return factors if stats.scale is None else factors * stats.scale[:, None]
