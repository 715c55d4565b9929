"""Which tokens the columns of a block stand for: all of them, or this process's slice of the vocabulary.

Processes that share a vocabulary exchange statistics of rows, once for a block and never a tensor of the block's width.
Each sends, for each token, its largest logit, the label's logit if it has it, the sum of its wrong tokens' exponentials
below that largest, and what the objective sums over its columns; where parts are asked for also the label's best rival,
and where entropies are, how far its logits lie below that largest in the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["Columns", "LabelPlace", "Pull", "Rows", "Sums"]


class Pull(NamedTuple):
    """Weights w_i of tokens towards which logits are pulled, each sum [n].

    Attributes:
        weight: Σ w_i.
        under: Σ w_i (base − z_i) as it is summed over the columns here; Σ w_i (top − z_i) over all when merged.
    """

    weight: Tensor
    under: Tensor


class Sums(NamedTuple):
    """What an objective sums over the wrong tokens here; and, merged, over all.

    Attributes:
        means: each [n] or [n, m], weighted by probabilities: of a softmax over the columns here; merged, over all.
        pulls: weighted by what they say.
        logs: each [n], the logarithm of a sum of exp(z_i − base); merged, of a sum of probabilities.
    """

    means: tuple[Tensor, ...] = ()
    pulls: tuple[Pull, ...] = ()
    logs: tuple[Tensor, ...] = ()


class Rows(NamedTuple):
    """Softmax statistics of each token over the whole vocabulary, each [n].

    Attributes:
        ce: −log p_t.
        top: the largest logit, after temperature.
        ahead: the label's logit less that: 0 at most, and −inf where it is masked.
        log_whole: log Σ exp(z − top).
        hit: p_t.
        miss: 1 − p_t, as the sum of the others.
        log_scale: log of what exp(z − base) of a column here is to be multiplied by to be a probability.
        scale: what a wrong token's probability among this process's columns is to be multiplied by; None for 1.
        correct: 1 where no logit is above the label's, nor an earlier one equal to it; empty where not asked for.
        entropy: −Σ p_i log p_i; None where not asked for.
    """

    ce: Tensor
    top: Tensor
    ahead: Tensor
    log_whole: Tensor
    hit: Tensor
    miss: Tensor
    log_scale: Tensor
    scale: Tensor | None
    correct: Tensor
    entropy: Tensor | None = None

    @property
    def lse(self) -> Tensor:
        """log Σ exp z."""
        return self.top + self.log_whole

    def cross_entropy(self, pull: Pull, own: Tensor | float | None) -> Tensor:
        """−Σ q_i log p_i, [n].

        q has the pull's weights, and at the label `own` beside what the pull gives it; its sum is 1. All is measured
        from the largest logit: where that is the label's, its cross-entropy is log Σ exp(z − top), with all digits.
        """
        under = pull.under if own is None else pull.under - own * self.ahead
        return torch.where(self.miss < 0.5, self.ce, self.log_whole) + under


class LabelPlace(NamedTuple):
    """Columns of the labels [n, 1], and whether they are here [n]; None where all are."""

    column: Int64[Tensor, "n 1"]
    here: Bool[Tensor, "n"] | None


@dataclass(frozen=True)
class Columns:
    """A slice of the vocabulary.

    Attributes:
        start: the token of the first column.
        size: how many columns.
        vocab: how many tokens there are.
        gather: [s, n] of this process to [processes, s, n] of all; None where the slice is the vocabulary.
        rank: which of them is this one.
    """

    start: int
    size: int
    vocab: int
    gather: Callable[[Tensor], Tensor] | None = None
    rank: int = 0

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.size)

    def place(self, labels: Int64[Tensor, "n"]) -> LabelPlace:
        if self.gather is None:
            return LabelPlace(labels[:, None], None)
        column = labels - self.start
        here = (column >= 0) & (column < self.size)
        return LabelPlace(torch.where(here, column, 0)[:, None], here)

    def at_label(self, scores: Tensor, label: LabelPlace) -> Tensor:
        """[n] logits of the labels; −inf where a label is another process's."""
        target = scores.gather(1, label.column)[:, 0]
        return target if label.here is None else torch.where(label.here, target, -torch.inf)

    def put_label_(self, block: Tensor, label: LabelPlace, values: Tensor) -> None:
        """Write [n] values where the labels are, if they are here."""
        if label.here is not None:
            values = torch.where(label.here, values, block.gather(1, label.column)[:, 0])
        block.scatter_(1, label.column, values[:, None])

    def without_label_(self, probabilities: Tensor, label: LabelPlace) -> Tensor:
        self.put_label_(probabilities, label, probabilities.new_zeros(len(probabilities)))
        return probabilities

    def rival(self, scores: Tensor, label: LabelPlace) -> Tensor:
        """The logit that the label has to stand against: −inf where it is first here, inf where it has lost."""
        first = scores.argmax(dim=1) == label.column[:, 0]
        own = torch.where(first, -torch.inf, torch.inf).to(scores.dtype)
        return own if label.here is None else torch.where(label.here, own, scores.amax(dim=1))

    def tops(self, scores: Float[Tensor, "n columns"]) -> tuple[Tensor, Tensor]:
        """[n] largest logits, and the base: what is subtracted from logits before they are worked with."""
        top = scores.amax(dim=1)
        # A token whose columns here are all masked has its mass at other processes.
        return top, top if self.gather is None else torch.where(top == -torch.inf, 0.0, top)

    def softmax_(self, scores: Float[Tensor, "n columns"], top: Float[Tensor, "n"]) -> Tensor:
        """The softmax over the columns here in place, and its largest entries [n]."""
        if self.gather is not None:
            # Of columns that are all masked one is made finite, so that there is a softmax; `merge` weighs it with 0.
            scores[:, 0] = torch.where(top == -torch.inf, 0.0, scores[:, 0])
        torch.softmax(scores, dim=1, out=scores)
        return scores.amax(dim=1)

    def merge(
        self,
        target: Float[Tensor, "n"],
        top: Float[Tensor, "n"],
        temperature: float,
        peak: Float[Tensor, "n"],
        miss: Float[Tensor, "n"],
        rival: Float[Tensor, "n"] | None,
        sums: Sums,
        spread: Float[Tensor, "n"] | None = None,
    ) -> tuple[Rows, Sums]:
        """Statistics over the whole vocabulary from those of the columns here.

        Args:
            target: the label's logit, −inf where it is not here.
            top: the largest logit here.
            temperature: what differences of these logits are divided by.
            peak: its share of the softmax over the columns here.
            miss: the wrong tokens' share of that softmax.
            rival: see `rival`.
            sums: of the wrong tokens here.
            spread: Σ p_i (base − z_i) / temperature over the wrong tokens here, where entropies are asked for.

        Returns:
            The statistics, and the sums over all.
        """
        if self.gather is None:
            rows, sums = _alone((target - top) / temperature, top / temperature, torch.log(peak), miss, rival, sums)
            return (rows if spread is None else rows._replace(entropy=_entropy(rows, spread))), sums
        # Sums are sent as Σ exp(z − top), and logits as they were: only their differences have all digits.
        sent = [torch.stack([top, target, miss / peak]), *(_columns(mean) / peak for mean in sums.means)]
        sent += [*(torch.stack(pull) for pull in sums.pulls), *(log[None] for log in sums.logs)]
        sent += [] if rival is None else [rival[None]]
        sent += [] if spread is None else [(spread / peak)[None]]
        every, *others = self.gather(torch.cat(sent)).split([len(part) for part in sent], dim=1)
        tops, targets, misses = every.unbind(dim=1)
        top, target = tops.amax(dim=0), targets.amax(dim=0)
        apart, ahead = (tops - top) / temperature, (target - top) / temperature
        lift = torch.exp(apart)
        whole = (lift * misses).sum(dim=0) + torch.exp(ahead)
        lift, log_whole = lift / whole, torch.log(whole)
        wrong = (lift * misses).sum(dim=0)
        ce = torch.where(wrong < 0.5, -torch.log1p(-wrong), log_whole - ahead)
        spreads = None if spread is None else others.pop()[:, 0]
        rows = Rows(
            ce=ce,
            top=top / temperature,
            ahead=ahead,
            log_whole=log_whole,
            hit=torch.exp(-ce),
            miss=wrong,
            log_scale=apart[self.rank] - log_whole,
            scale=lift[self.rank] / peak,
            correct=miss.new_empty(0) if rival is None else _stands(others.pop()[:, 0], targets),
        )
        if spreads is not None:
            # Each process has measured from its own base; a slice that is all masked has nothing to be measured.
            below = torch.where(lift > 0, lift * (spreads - misses * apart), 0.0).sum(dim=0)
            rows = rows._replace(entropy=_entropy(rows, below))
        of_each = iter(others)
        means = tuple((lift[:, None] * next(of_each)).sum(dim=0).T.reshape(mean.shape) for mean in sums.means)
        pulls = tuple(_merged_pull(next(of_each), apart) for _ in sums.pulls)
        logs = tuple(torch.logsumexp(next(of_each)[:, 0] + apart, dim=0) - log_whole for _ in sums.logs)
        return rows, Sums(means, pulls, logs)


def _alone(
    ahead: Tensor, top: Tensor, log_peak: Tensor, miss: Tensor, rival: Tensor | None, sums: Sums
) -> tuple[Rows, Sums]:
    """`merge` where the columns are the vocabulary, `ahead` the label's logit less the largest one."""
    ce = torch.where(miss < 0.5, -torch.log1p(-miss), -ahead - log_peak)
    rows = Rows(
        ce=ce,
        top=top,
        ahead=ahead,
        log_whole=-log_peak,
        hit=torch.exp(-ce),
        miss=miss,
        log_scale=log_peak,
        scale=None,
        correct=miss.new_empty(0) if rival is None else (rival < 0).to(miss.dtype),
    )
    return rows, sums._replace(logs=tuple(log + log_peak for log in sums.logs))


def _entropy(rows: Rows, below: Tensor) -> Tensor:
    """log Σ exp(z − top) + Σ p_i (top − z_i), [n]; `below` is that sum over the wrong tokens, after temperature."""
    return rows.log_whole + below - torch.where(rows.hit > 0, rows.hit * rows.ahead, 0.0)


def _columns(mean: Tensor) -> Tensor:
    """[n] or [n, m] as [1 or m, n]."""
    return mean.T if mean.ndim == 2 else mean[None]


def _merged_pull(sent: Tensor, apart: Tensor) -> Pull:
    """From [processes, 2, n] of pulls, and how far the tops of processes lie apart from that of all."""
    weight, under = sent.unbind(dim=1)
    # A slice that is all masked is infinitely far, and has no base to measure from: its own is 0.
    return Pull(weight.sum(dim=0), (under - torch.where(weight > 0, weight * apart, 0.0)).sum(dim=0))


def _stands(rivals: Tensor, targets: Tensor) -> Tensor:
    """1 where the label is the first of the largest: [processes, n] of rivals, and of labels' logits."""
    ranks = torch.arange(len(rivals), device=rivals.device)[:, None]
    target = targets.amax(dim=0)
    stands = torch.where(ranks <= targets.argmax(dim=0), rivals < target, rivals <= target)
    return stands.all(dim=0).to(rivals.dtype)
