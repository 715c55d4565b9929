"""Objectives for costs from a vector for each token: κ_i = 1 − ⟨e_i, e_t⟩."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from costbank.loss.costs import LEAST_SUM, DenseCosts, DenseSmoothing
from costbank.loss.engine.objectives.base import (
    Block,
    Gradient,
    Objective,
    Softened,
    Tiles,
    TileSums,
    softened,
)
from costbank.loss.engine.softmax import PartialSums, SoftmaxStats, TargetTerm
from costbank.loss.engine.targets import TeacherTargets

__all__ = ["DenseEMO", "DenseLog", "Kernel", "SmoothedOverAll", "SoftEMO"]


def _products(costs: DenseCosts, block: Block) -> tuple[Tensor, Tensor | None]:
    """−⟨e_i, e_t⟩ for Triton kernels, in float32 or 16 bits; and the row of each token in them."""
    labels, row_of = block.labels, None
    if block.is_sorted:
        labels, row_of = torch.unique_consecutive(labels, return_inverse=True)
    return costs.products_of(labels, block.shard.slice, block.buffer(costs.product_dtype, len(labels))), row_of


class DenseEMO(Objective):
    """D = K = Σ p_i κ_i, ∂K/∂z_i = p_i (κ_i − K).

    κ_i is never computed: with y_i = −p_i ⟨e_i, e_t⟩, p_i κ_i = p_i + y_i. So K = (1 − p_t) + Σ y_i, and the gradient
    is p_i (1 − K) + y_i. That saves two passes.
    """

    def read(self, block: Block) -> Tensor:
        return self.costs.negated_products(block.labels, block.shard.slice, block.buffer())

    def measure(self, probs: Tensor, state: Tensor) -> tuple[PartialSums, Tensor]:
        weighted = state.mul_(probs)
        return PartialSums(means=(weighted.sum(dim=1),)), weighted

    def tiles(self, block: Block) -> tuple[Tiles, Tensor]:
        products, row_of = _products(self.costs, block)
        return Tiles(costs=products, row_of=row_of), products

    def measured(self, block: Block, probs: Any, state: Tensor, sums: TileSums) -> tuple[PartialSums, Tensor]:
        return PartialSums(means=(sums.costs,)), state

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: Tensor) -> tuple[Tensor, Tensor]:
        return (stats.other_prob + sums.means[0]).clamp_min(0.0), state

    def gradient(self, probs: Tensor | None, stats: SoftmaxStats, value: Tensor, state: Tensor) -> Gradient:
        return Gradient(label=-value * stats.label_prob, common=1 - value, costs=state)


class _SoftCosts(NamedTuple):
    """[n, columns] costs to a distribution, later weighted by probabilities; and [n] that of the label."""

    costs: Tensor
    label: Tensor


class SoftEMO(Objective):
    """D = Σ_ij p_i q_j c(i, j) = Σ p_i s_i, ∂D/∂z_i = p_i (s_i − D).

    This is the cost of the product coupling of p and q: an upper bound on the Earth Mover's Distance, equal to it if q
    is one-hot. It is not 0 for p = q.
    """

    def read(self, block: Block) -> _SoftCosts:
        targets = block.targets
        assert isinstance(targets, TeacherTargets)
        vectors = self.costs.wide(dtype=block.logits.dtype)
        mean = targets.mean_of(vectors)
        # ⟨e_j, e_j⟩ is not exactly 1, and a token's cost to itself is 0.
        own = 1.0 - torch.linalg.vector_norm(vectors, dim=1).square()
        costs = block.buffer()
        torch.mm(mean.neg(), vectors[block.shard.slice].T, out=costs).add_(1.0)
        targets.add_(costs, -targets.times(own))
        label = 1.0 - (mean * vectors[block.labels]).sum(dim=1) - targets.label_share * own[block.labels]
        return _SoftCosts(costs.clamp_min_(0.0), label.clamp_min_(0.0))

    def measure(self, probs: Tensor, state: _SoftCosts) -> tuple[PartialSums, _SoftCosts]:
        return PartialSums(means=(state.costs.mul_(probs).sum(dim=1),)), state

    def tiles(self, block: Block) -> tuple[Tiles, _SoftCosts]:
        state = self.read(block)
        return Tiles(costs=state.costs), state

    def measured(self, block: Block, probs: Any, state: _SoftCosts, sums: TileSums) -> tuple[PartialSums, _SoftCosts]:
        return PartialSums(means=(sums.costs,)), state

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: _SoftCosts) -> tuple[Tensor, _SoftCosts]:
        return sums.means[0] + stats.label_prob * state.label, state

    def gradient(self, probs: Tensor | None, stats: SoftmaxStats, value: Tensor, state: _SoftCosts) -> Gradient:
        return Gradient(label=stats.label_prob * (state.label - value), common=-value, costs=state.costs)


class _KernelState(NamedTuple):
    """Vectors [columns, dim], the label's [n, dim], the targets' mean [n, dim], and a maker of a buffer."""

    vectors: Tensor
    label: Tensor
    mean: Tensor
    buffer: Callable[[], Tensor]


class Kernel(Objective):
    """D = ½ ‖u‖², u = Σ p_i e_i − ē_q, ∂D/∂z_i = p_i (⟨e_i, u⟩ − ⟨ē_q, u⟩ − 2 D); ē_q is e_t for a label.

    For soft targets it is the cost of the product coupling, minus half of the costs of p to itself and of q to itself
    (the debiased bound of Genevay, Peyré & Cuturi 2018, arXiv 1706.00292; a token without a vector has no cost to
    itself).
    """

    needs_probs = True

    def read(self, block: Block) -> _KernelState:
        vectors, targets = self.costs.wide(dtype=block.logits.dtype), block.targets
        label = vectors[block.labels]
        mean = targets.mean_of(vectors) if isinstance(targets, TeacherTargets) else label
        return _KernelState(vectors[block.shard.slice], label, mean, block.buffer)

    def measure(self, probs: Tensor, state: _KernelState) -> tuple[PartialSums, _KernelState]:
        return PartialSums(means=(torch.mm(probs, state.vectors),)), state

    def value(
        self, stats: SoftmaxStats, sums: PartialSums, state: _KernelState
    ) -> tuple[Tensor, tuple[_KernelState, Tensor]]:
        # Measured from the label's vector: for a nearly certain token, a difference of unit vectors loses precision.
        u = sums.means[0] - stats.other_prob[:, None] * state.label + (state.label - state.mean)
        return 0.5 * u.square().sum(dim=1), (state, u)

    def gradient(
        self, probs: Tensor | None, stats: SoftmaxStats, value: Tensor, state: tuple[_KernelState, Tensor]
    ) -> Gradient:
        (vectors, label, mean, buffer), u = state
        costs = torch.mm(u, vectors.T, out=buffer())
        if probs is not None:
            costs.mul_(probs)
        at_label = ((label - mean) * u).sum(dim=1) - 2 * value
        common = -(u * mean).sum(dim=1) - 2 * value
        return Gradient(label=stats.label_prob * at_label, common=common, costs=costs)


class _LogState(NamedTuple):
    """exp(z_i − shift) s_i divided by its largest value [n, columns], and the log of that value [n].

    With Triton kernels, −⟨e_i, e_t⟩ instead of the first.
    """

    similar: Tensor
    top: Tensor


class DenseLog(Objective):
    """D = −log Σ p_i s_i, ∂D/∂z_i = p_i − a_i, a_i = p_i s_i / Σ_j p_j s_j.

    The sum is computed as a logarithm, because all probable tokens may be dissimilar to the label.
    """

    def read(self, block: Block) -> _LogState:
        logits, similar = block.logits, block.buffer()
        self.costs.fill(block.labels, block.shard.slice, similar)
        similar.neg_().add_(1.0).clamp_min_(0.0).log_().mul_(self.options.log_power).add_(logits)
        block.shard.put_label_(similar, block.label, logits.new_full((len(logits),), -torch.inf))
        top = similar.amax(dim=1)
        # There may be no similar token, or all of them may be in other processes.
        similar.sub_(top.clamp_min(torch.finfo(similar.dtype).min)[:, None]).exp_()
        return _LogState(similar, top)

    def measure(self, probs: Tensor, state: _LogState) -> tuple[PartialSums, _LogState]:
        return PartialSums(logs=(state.top + torch.log(state.similar.sum(dim=1)),)), state

    def tiles(self, block: Block) -> tuple[Tiles, Tensor]:
        products, row_of = _products(self.costs, block)
        return Tiles(costs=products, log_power=self.options.log_power, row_of=row_of), products

    def measured(self, block: Block, probs: Any, state: Tensor, sums: TileSums) -> tuple[PartialSums, _LogState]:
        return PartialSums(logs=(sums.log,)), _LogState(state, sums.log_top)

    def value(
        self, stats: SoftmaxStats, sums: PartialSums, state: _LogState
    ) -> tuple[Tensor, tuple[_LogState, Tensor]]:
        value = -torch.logaddexp(-stats.ce, sums.logs[0])
        others = torch.exp(sums.logs[0] + value)  # the share of other tokens in Σ p_i s_i
        return value.clamp_min(0.0), (state, others)

    def gradient(
        self, probs: Tensor | None, stats: SoftmaxStats, value: Tensor, state: tuple[_LogState, Tensor]
    ) -> Gradient:
        (similar, top), others = state
        return Gradient(
            label=others - stats.other_prob,
            common=torch.ones_like(value),
            targets=similar,
            factor=torch.exp(top + stats.log_scale + value),
        )


class _SmoothingState(NamedTuple):
    """u_i exp(−κ_i / T) of tokens other than the label [n, columns]; whether each label is softened [n]; their term.

    With Triton kernels, −⟨e_i, e_t⟩ instead of the first.
    """

    weights: Tensor
    softened: Tensor
    term: TargetTerm


class SmoothedOverAll(Objective):
    """D = −Σ q_i log p_i, q_i ∝ u_i exp(−κ_i / T) over all tokens with or without the label, ∂D/∂z_i = p_i − q_i."""

    costs: DenseSmoothing

    def read(self, block: Block) -> _SmoothingState:
        logits, weights, costs = block.logits, block.buffer(), self.costs
        costs.fill(block.labels, block.shard.slice, weights)
        weights.div_(-costs.temperature).exp_().mul_(costs.factors[block.shard.slice])
        weights.masked_fill_(logits == -torch.inf, 0.0)
        block.shard.without_label_(weights, block.label)
        softened = costs.softened[block.labels].to(weights.dtype)
        # A masked token adds 0.
        nll = -torch.where(weights > 0, logits * weights, 0.0).sum(dim=1)
        return _SmoothingState(weights, softened, TargetTerm(softened * weights.sum(dim=1), softened * nll))

    def measure(self, probs: Tensor, state: _SmoothingState) -> tuple[PartialSums, _SmoothingState]:
        return PartialSums(targets=(state.term,)), state

    def tiles(self, block: Block) -> tuple[Tiles, Tensor]:
        products, row_of = _products(self.costs, block)
        factors, temperature = self.costs.factors[block.shard.slice], self.costs.temperature
        return Tiles(targets=products, temperature=temperature, factors=factors, row_of=row_of), products

    def measured(self, block: Block, probs: Any, state: Tensor, sums: TileSums) -> tuple[PartialSums, _SmoothingState]:
        softened = self.costs.softened[block.labels].to(sums.targets.weight.dtype)
        term = TargetTerm(softened * sums.targets.weight, softened * sums.targets.nll_from_max)
        return PartialSums(targets=(term,)), _SmoothingState(state, softened, term)

    def value(
        self, stats: SoftmaxStats, sums: PartialSums, state: _SmoothingState
    ) -> tuple[Tensor, tuple[_SmoothingState, Softened]]:
        term = sums.targets[0]
        # A label that is not softened, or whose other tokens are masked or far away, has all of q.
        label_weight = torch.where(term.weight > LEAST_SUM, self.costs.label_weight, 1.0)
        q = softened(stats, term, label_weight)
        return q.value, (state, q)

    def gradient(
        self, probs: Tensor, stats: SoftmaxStats, value: Tensor, state: tuple[_SmoothingState, Softened]
    ) -> Gradient:
        (weights, is_softened, _), q = state
        return q.gradient(stats)._replace(targets=weights, factor=is_softened / q.total)
