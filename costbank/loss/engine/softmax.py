"""The softmax of a block of logits over the whole vocabulary, of which a process may hold all or a slice.

Processes that share a vocabulary exchange statistics of tokens, once for each block and never a tensor of the block's
width. Each sends, for each token, its largest logit, the label's logit if it has it, the sum of its other tokens'
exponentials below that largest, and what the objective sums over its columns; where parts are asked for also the best
logit besides the label's, and where entropies are, the mean distance of its logits from that largest.

The label's own probability is kept apart from the others throughout. So 1 − p_t is a sum of small numbers and never a
difference of two large ones: a token that is nearly certain keeps an exact cross-entropy, cost and gradient in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["LabelColumn", "LocalStats", "PartialSums", "SoftmaxStats", "TargetTerm", "VocabShard"]


class TargetTerm(NamedTuple):
    """What target probabilities q_i of some tokens give to −Σ q_i log p_i, each [n].

    Attributes:
        weight: Σ q_i.
        nll_from_max: Σ q_i (shift − z_i) over the columns of this process, or, merged, Σ q_i (max − z_i) over all: the
            negative log-likelihood up to the log-sum-exp.
    """

    weight: Tensor
    nll_from_max: Tensor


class PartialSums(NamedTuple):
    """What an objective sums over the columns of this process without the label; merged, over the whole vocabulary.

    Attributes:
        means: each [n] or [n, m], weighted by probabilities: those of a softmax over these columns; merged, over all.
        targets: weighted by targets of the objective's own.
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
        label_gap: the label's logit less that: at most 0, and −inf where the label is masked.
        log_sum: log Σ exp(z − top).
        label_prob: p_t.
        other_prob: 1 − p_t, as the sum over the other tokens.
        log_scale: log of what exp(z − shift) of a column of this process is multiplied by to be a probability.
        scale: what a probability among this process's columns is multiplied by to be one among all; None for 1.
        correct: 1 where no logit is above the label's, nor an earlier one equal to it; empty where not asked for.
        entropy: −Σ p_i log p_i; None where not asked for.
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
        """[n] factors of probabilities among all columns as factors of those among this process's columns."""
        return factors if self.scale is None else factors * self.scale

    def cross_entropy(self, term: TargetTerm, own: Tensor | float | None) -> Tensor:
        """−Σ q_i log p_i, [n], where q is `own` at the label, and a term's weights there and elsewhere; its sum is 1.

        All is measured from the largest logit: where that is the label's, its cross-entropy is log Σ exp(z − top), with
        all digits.
        """
        nll = term.nll_from_max if own is None else term.nll_from_max - own * self.label_gap
        return torch.where(self.other_prob < 0.5, self.ce, self.log_sum) + nll


class LabelColumn(NamedTuple):
    """Columns of the labels [n, 1], and whether this process has them [n]; None where it has all."""

    column: Int64[Tensor, "n 1"]
    here: Bool[Tensor, "n"] | None


@dataclass(frozen=True)
class VocabShard:
    """The slice of the vocabulary that the columns of a block stand for: all of it, or this process's part.

    Attributes:
        start: the token of the first column.
        size: number of columns.
        vocab: number of tokens of the whole vocabulary.
        gather: [s, n] of this process to [processes, s, n] of all; None where the slice is the vocabulary.
        rank: which of the processes this one is.
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
        """[n] logits of the labels; −inf where a label is another process's."""
        target = logits.gather(1, label.column)[:, 0]
        return target if label.here is None else torch.where(label.here, target, -torch.inf)

    def put_label_(self, block: Tensor, label: LabelColumn, values: Tensor) -> None:
        """Write [n] values in the labels' columns, where this process has them."""
        if label.here is not None:
            values = torch.where(label.here, values, block.gather(1, label.column)[:, 0])
        block.scatter_(1, label.column, values[:, None])

    def without_label_(self, probs: Tensor, label: LabelColumn) -> Tensor:
        """The same probabilities in place, 0 at the labels."""
        self.put_label_(probs, label, probs.new_zeros(len(probs)))
        return probs

    def best_other_logit(self, logits: Tensor, label: LabelColumn) -> Tensor:
        """[n] to be compared with the label's logit.

        Where the label is here the comparison is already made: −inf where it is the first of the largest, else inf.
        """
        first = logits.argmax(dim=1) == label.column[:, 0]
        own = torch.where(first, -torch.inf, torch.inf).to(logits.dtype)
        return own if label.here is None else torch.where(label.here, own, logits.amax(dim=1))

    def max_and_shift(self, logits: Float[Tensor, "n columns"]) -> tuple[Tensor, Tensor]:
        """[n] largest logits, and the shift: what is subtracted from logits before anything else."""
        top = logits.amax(dim=1)
        # A token whose columns here are all masked has its mass at other processes.
        return top, top if self.gather is None else torch.where(top == -torch.inf, 0.0, top)

    def softmax_(self, logits: Float[Tensor, "n columns"], top: Float[Tensor, "n"]) -> Tensor:
        """The softmax over the columns here in place, and its largest entries [n]."""
        if self.gather is not None:
            # Of columns that are all masked one is made finite, so that there is a softmax; `merge` weighs it with 0.
            logits[:, 0] = torch.where(top == -torch.inf, 0.0, logits[:, 0])
        torch.softmax(logits, dim=1, out=logits)
        return logits.amax(dim=1)

    def merge(self, local: "LocalStats", temperature: float, sums: PartialSums) -> tuple[SoftmaxStats, PartialSums]:
        """Statistics and sums over the whole vocabulary from those over the columns of this process.

        Args:
            local: the statistics over these columns.
            temperature: what differences of logits are divided by.
            sums: over these columns without the label.
        """
        if self.gather is None:
            return _whole(local, temperature, sums)
        # Sums are sent as Σ exp(z − top), and logits as they were: only their differences have all digits.
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
            # Each process measures from its own shift; a slice that is all masked has nothing to measure.
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
        label: the label's logit, −inf where another process has it.
        peak: the largest probability.
        others: the probability of all tokens but the label.
        best_other: see `VocabShard.best_other_logit`; None where parts are not asked for.
        spread: Σ p_i (shift − z_i) / temperature without the label; None where entropies are not asked for.
    """

    top: Tensor
    label: Tensor
    peak: Tensor
    others: Tensor
    best_other: Tensor | None
    spread: Tensor | None


def _whole(local: LocalStats, temperature: float, sums: PartialSums) -> tuple[SoftmaxStats, PartialSums]:
    """`VocabShard.merge` where the columns are the vocabulary."""
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
    """log Σ exp(z − top) + Σ p_i (top − z_i), [n]; `spread` is that sum without the label, after temperature."""
    own = torch.where(stats.label_prob > 0, stats.label_prob * stats.label_gap, 0.0)
    return stats.log_sum + spread - own


def _rows(mean: Tensor) -> Tensor:
    """[n] or [n, m] as [1 or m, n]."""
    return mean.T if mean.ndim == 2 else mean[None]


def _merged_term(sent: Tensor, below: Tensor) -> TargetTerm:
    """From [processes, 2, n] of terms, and the tops of processes less that of all."""
    weight, nll = sent.unbind(dim=1)
    # A slice that is all masked is infinitely far below, and its own shift is 0.
    return TargetTerm(weight.sum(dim=0), (nll - torch.where(weight > 0, weight * below, 0.0)).sum(dim=0))


def _label_is_best(best_others: Tensor, labels: Tensor) -> Tensor:
    """1 where the label is the first of the largest: [processes, n] of best other logits, and of labels' logits."""
    ranks = torch.arange(len(best_others), device=best_others.device)[:, None]
    label = labels.amax(dim=0)
    best = torch.where(ranks <= labels.argmax(dim=0), best_others < label, best_others <= label)
    return best.all(dim=0).to(best_others.dtype)
