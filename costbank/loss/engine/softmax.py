"""The softmax of a block of logits over the whole vocabulary. A process has all columns or a slice of them.

Processes that share a vocabulary exchange statistics of each token, once per block. Each process sends its largest
logit, the logit of the label if it has it, the sum of exp(z − largest) over its other columns, and the objective's sums
over its columns; for parts also the best logit besides the label's, and for entropies the mean distance of its logits
from the largest.

The label's probability is always separate from the others. So 1 − p_t is a sum of small numbers and never a difference
of two large ones: a nearly certain token has an exact cross-entropy, cost and gradient in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["LabelColumn", "LocalStats", "PartialSums", "SoftmaxStats", "TargetTerm", "VocabShard"]


class TargetTerm(NamedTuple):
    """The contribution of target probabilities q_i of some tokens to −Σ q_i log p_i, each [n].

    Attributes:
        weight: Σ q_i.
        nll_from_max: Σ q_i (shift − z_i) over the columns of this process, or, merged, Σ q_i (max − z_i) over all: the
            negative log-likelihood up to the log-sum-exp.
    """

    weight: Tensor
    nll_from_max: Tensor


class PartialSums(NamedTuple):
    """An objective's sums over the columns of this process without the label; merged: over the whole vocabulary.

    Attributes:
        means: each [n] or [n, m], weighted by the probabilities of a softmax over these columns; merged: over all.
        targets: weighted by the objective's target distribution.
        logs: each [n], the logarithm of a sum of exp(z_i − shift); merged, of a sum of probabilities.
    """

    means: tuple[Tensor, ...] = ()
    targets: tuple[TargetTerm, ...] = ()
    logs: tuple[Tensor, ...] = ()


class SoftmaxStats(NamedTuple):
    """Softmax statistics of each token over the whole vocabulary, each [n].

    Attributes:
        ce: −log p_t.
        top: the largest logit, after temperature.
        label_gap: the label's logit minus `top`: at most 0, and −inf if the label is masked.
        log_sum: log Σ exp(z − top).
        label_prob: p_t.
        other_prob: 1 − p_t, as the sum over the other tokens.
        log_scale: log of the factor that makes exp(z − shift) of this process's columns a probability.
        scale: the factor that converts a probability over this process's columns to one over all columns; None for 1.
        correct: 1 if no logit is larger than the label's and no earlier logit equals it; empty if not requested.
        entropy: −Σ p_i log p_i; None if not requested.
    """

    ce: Tensor
    top: Tensor
    label_gap: Tensor
    log_sum: Tensor
    label_prob: Tensor
    other_prob: Tensor
    log_scale: Tensor
    scale: Tensor | None
    correct: Tensor
    entropy: Tensor | None = None

    @property
    def lse(self) -> Tensor:
        """log Σ exp z."""
        return self.top + self.log_sum

    def local(self, factors: Tensor) -> Tensor:
        """[n] factors of probabilities over all columns, converted to factors of those over this process's columns."""
        return factors if self.scale is None else factors * self.scale

    def cross_entropy(self, term: TargetTerm, own: Tensor | float | None) -> Tensor:
        """−Σ q_i log p_i, [n], where q is `own` at the label plus the weights of a term; its sum is 1.

        Logits are measured from the largest: if that is the label's, its cross-entropy is log Σ exp(z − top), with full
        precision.
        """
        nll = term.nll_from_max
        if own is not None:
            # A masked label is infinitely far, and may have no share.
            share = own if isinstance(own, Tensor) else torch.full_like(nll, own)
            nll = nll - torch.where(share > 0, share * self.label_gap, 0.0)
        base = torch.where(self.other_prob < 0.5, self.ce, self.log_sum)
        return base + nll


class LabelColumn(NamedTuple):
    """The columns of the labels [n, 1], and whether this process has them [n]; None if it has all."""

    column: Int64[Tensor, "n 1"]
    here: Bool[Tensor, "n"] | None


@dataclass(frozen=True)
class VocabShard:
    """The slice of the vocabulary that the columns of a block represent: all of it, or this process's part.

    Attributes:
        start: the token id of the first column.
        size: the number of columns.
        vocab: the number of tokens of the whole vocabulary.
        gather: turns [s, n] of each process into [processes, s, n]; None if the slice is the whole vocabulary.
        rank: the rank of this process in the group.
    """

    start: int
    size: int
    vocab: int
    gather: Callable[[Tensor], Tensor] | None = None
    rank: int = 0

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)

    def column_of(self, labels: Int64[Tensor, "n"]) -> LabelColumn:
        if self.gather is None:
            return LabelColumn(labels[:, None], None)
        column = labels - self.start
        here = (column >= 0) & (column < self.size)
        return LabelColumn(torch.where(here, column, 0)[:, None], here)

    def logits_of(self, logits: Tensor, label: LabelColumn) -> Tensor:
        """[n] logits of the labels; −inf if another process has the label."""
        target = logits.gather(1, label.column)[:, 0]
        return target if label.here is None else torch.where(label.here, target, -torch.inf)

    def put_label_(self, block: Tensor, label: LabelColumn, values: Tensor) -> None:
        """Write [n] values into the labels' columns that this process has."""
        if label.here is not None:
            values = torch.where(label.here, values, block.gather(1, label.column)[:, 0])
        block.scatter_(1, label.column, values[:, None])

    def without_label_(self, probs: Tensor, label: LabelColumn) -> Tensor:
        """Set the probabilities of the labels to 0, in place."""
        self.put_label_(probs, label, probs.new_zeros(len(probs)))
        return probs

    def best_other_logit(self, logits: Tensor, label: LabelColumn) -> Tensor:
        """[n] logits to compare with the label's logit.

        If this process has the label, the result is −inf if the label is the first of the largest, and inf otherwise.
        """
        first = logits.argmax(dim=1) == label.column[:, 0]
        own = torch.where(first, -torch.inf, torch.inf).to(logits.dtype)
        return own if label.here is None else torch.where(label.here, own, logits.amax(dim=1))

    def max_and_shift(self, logits: Float[Tensor, "n columns"]) -> tuple[Tensor, Tensor]:
        """[n] largest logits, and the shift that is subtracted from all logits."""
        top = logits.amax(dim=1)
        # If all columns of this process are masked for a token, other processes have its probability.
        return top, top if self.gather is None else torch.where(top == -torch.inf, 0.0, top)

    def softmax_(self, logits: Float[Tensor, "n columns"], top: Float[Tensor, "n"]) -> Tensor:
        """The softmax over this process's columns, in place, and its largest entries [n]."""
        if self.gather is not None:
            # If all columns are masked, make one finite, so that the softmax is defined; `merge` gives it weight 0.
            logits[:, 0] = torch.where(top == -torch.inf, 0.0, logits[:, 0])
        torch.softmax(logits, dim=1, out=logits)
        return logits.amax(dim=1)

    def merge(self, local: "LocalStats", temperature: float, sums: PartialSums) -> tuple[SoftmaxStats, PartialSums]:
        """Statistics and sums over the whole vocabulary, from those of all processes.

        Args:
            local: the statistics over this process's columns.
            temperature: the divisor of differences of logits.
            sums: the objective's sums over these columns, without the label.
        """
        if self.gather is None:
            return _whole(local, temperature, sums)
        # Sums are sent as Σ exp(z − top), but logits unchanged: only their differences have full precision.
        peak = local.peak
        sent = [torch.stack([local.top, local.label, local.others / peak]), *(_rows(m) / peak for m in sums.means)]
        sent += [*(torch.stack(term) for term in sums.targets), *(log[None] for log in sums.logs)]
        sent += [] if local.best_other is None else [local.best_other[None]]
        sent += [] if local.spread is None else [(local.spread / peak)[None]]
        statistics, *rest = self.gather(torch.cat(sent)).split([len(part) for part in sent], dim=1)
        tops, labels, others = statistics.unbind(dim=1)
        top, label = tops.amax(dim=0), labels.amax(dim=0)
        below, label_gap = (tops - top) / temperature, (label - top) / temperature
        lift = torch.exp(below)
        total = (lift * others).sum(dim=0) + torch.exp(label_gap)
        lift, log_sum = lift / total, torch.log(total)
        other_prob = (lift * others).sum(dim=0)
        ce = torch.where(other_prob < 0.5, -torch.log1p(-other_prob), log_sum - label_gap)
        spreads = None if local.spread is None else rest.pop()[:, 0]
        stats = SoftmaxStats(
            ce=ce,
            top=top / temperature,
            label_gap=label_gap,
            log_sum=log_sum,
            label_prob=torch.exp(-ce),
            other_prob=other_prob,
            log_scale=below[self.rank] - log_sum,
            scale=lift[self.rank] / peak,
            correct=ce.new_empty(0) if local.best_other is None else _label_is_best(rest.pop()[:, 0], labels),
        )
        if spreads is not None:
            # Each process measures from its own shift; a fully masked slice contributes nothing.
            spread = torch.where(lift > 0, lift * (spreads - others * below), 0.0).sum(dim=0)
            stats = stats._replace(entropy=_entropy(stats, spread))
        parts = iter(rest)
        means = tuple((lift[:, None] * next(parts)).sum(dim=0).T.reshape(mean.shape) for mean in sums.means)
        targets = tuple(_merged_term(next(parts), below) for _ in sums.targets)
        logs = tuple(torch.logsumexp(next(parts)[:, 0] + below, dim=0) - log_sum for _ in sums.logs)
        return stats, PartialSums(means, targets, logs)


class LocalStats(NamedTuple):
    """Softmax statistics of each token over the columns of this process, each [n].

    Attributes:
        top: the largest logit.
        label: the label's logit; −inf if another process has it.
        peak: the largest probability.
        others: the probability of all tokens except the label.
        best_other: see `VocabShard.best_other_logit`; None if parts are not requested.
        spread: Σ p_i (shift − z_i) / temperature without the label; None if entropies are not requested.
    """

    top: Tensor
    label: Tensor
    peak: Tensor
    others: Tensor
    best_other: Tensor | None
    spread: Tensor | None


def _whole(local: LocalStats, temperature: float, sums: PartialSums) -> tuple[SoftmaxStats, PartialSums]:
    """`VocabShard.merge` for one process with the whole vocabulary."""
    label_gap, log_peak, others = (local.label - local.top) / temperature, torch.log(local.peak), local.others
    ce = torch.where(others < 0.5, -torch.log1p(-others), -label_gap - log_peak)
    stats = SoftmaxStats(
        ce=ce,
        top=local.top / temperature,
        label_gap=label_gap,
        log_sum=-log_peak,
        label_prob=torch.exp(-ce),
        other_prob=others,
        log_scale=log_peak,
        scale=None,
        correct=ce.new_empty(0) if local.best_other is None else (local.best_other < 0).to(ce.dtype),
    )
    if local.spread is not None:
        stats = stats._replace(entropy=_entropy(stats, local.spread))
    return stats, sums._replace(logs=tuple(log + log_peak for log in sums.logs))


def _entropy(stats: SoftmaxStats, spread: Tensor) -> Tensor:
    """−Σ p_i log p_i, [n]; `spread` is Σ p_i (top − z_i) without the label, after temperature.

    The label's term is separate, so that the entropy of a nearly certain prediction is precise.
    """
    own = torch.where(stats.label_prob > 0, stats.label_prob * stats.ce, 0.0)
    return spread + stats.log_sum * stats.other_prob + own


def _rows(mean: Tensor) -> Tensor:
    """[n] or [n, m] as [1 or m, n]."""
    return mean.T if mean.ndim == 2 else mean[None]


def _merged_term(sent: Tensor, below: Tensor) -> TargetTerm:
    """Merge terms [processes, 2, n], given the `top` of each process minus the overall one."""
    weight, nll = sent.unbind(dim=1)
    # A fully masked slice is infinitely far below, and its own shift is 0.
    return TargetTerm(weight.sum(dim=0), (nll - torch.where(weight > 0, weight * below, 0.0)).sum(dim=0))


def _label_is_best(best_others: Tensor, labels: Tensor) -> Tensor:
    """1 if the label is the first of the largest, from [processes, n] best other logits and labels' logits."""
    ranks = torch.arange(len(best_others), device=best_others.device)[:, None]
    label = labels.amax(dim=0)
    best = torch.where(ranks <= labels.argmax(dim=0), best_others < label, best_others <= label)
    return best.all(dim=0).to(best_others.dtype)
