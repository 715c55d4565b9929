"""Which tokens the columns of a block stand for: all of them, or this process's slice of the vocabulary.

Processes that share a vocabulary exchange statistics of rows, once for a block and never a tensor of the block's width.
Each sends, for each token, its largest logit, the label's logit if it has it, the sum of its wrong tokens' exponentials
below that largest, and what the objective sums over its columns; where parts are asked for also the label's best rival.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["Columns", "LabelPlace", "Rows"]


class Rows(NamedTuple):
    """Softmax statistics of each token over the whole vocabulary, each [n].

    Attributes:
        ce: −log p_t.
        lse: log Σ exp z.
        hit: p_t.
        miss: 1 − p_t, as the sum of the others.
        scale: what a wrong token's probability among this process's columns is to be multiplied by.
        correct: 1 where no logit is above the label's, nor an earlier one equal to it; empty where not asked for.
    """

    ce: Tensor
    lse: Tensor
    hit: Tensor
    miss: Tensor
    scale: Tensor | None
    correct: Tensor


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
        gather: [s, n] of this process to [processes, s, n] of all; None where the slice is the vocabulary.
        rank: which of them is this one.
    """

    start: int
    size: int
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

    def tops_(self, scores: Float[Tensor, "n columns"]) -> tuple[Tensor, Tensor]:
        """[n] largest logits, and what to subtract from the logits before their softmax."""
        top = scores.amax(dim=1)
        if self.gather is None:
            return top, top
        # A token whose columns here are all masked has its mass at other processes. One of them is made finite, so that
        # there is a softmax, which `merge` then weighs with 0.
        masked = top == -torch.inf
        scores[:, 0] = torch.where(masked, 0.0, scores[:, 0])
        return top, torch.where(masked, 0.0, top)

    def merge(
        self,
        target: Float[Tensor, "n"],
        top: Float[Tensor, "n"],
        temperature: float,
        peak: Float[Tensor, "n"],
        miss: Float[Tensor, "n"],
        rival: Float[Tensor, "n"] | None,
        measures: tuple[Tensor, ...],
    ) -> tuple[Rows, tuple[Tensor, ...]]:
        """Statistics over the whole vocabulary from those of the columns here.

        Args:
            target: the label's logit, −inf where it is not here.
            top: the largest logit here.
            temperature: what differences of these logits are divided by.
            peak: its share of the softmax over the columns here.
            miss: the wrong tokens' share of that softmax.
            rival: see `rival`.
            measures: each a sum over the wrong tokens here, weighted by that softmax.

        Returns:
            The statistics, and the measures weighted by the softmax over all.
        """
        if self.gather is None:
            ce = torch.where(miss < 0.5, -torch.log1p(-miss), (top - target) / temperature - torch.log(peak))
            correct = miss.new_empty(0) if rival is None else (rival < 0).to(miss.dtype)
            return Rows(ce, top / temperature - torch.log(peak), torch.exp(-ce), miss, None, correct), measures
        others = () if rival is None else (rival,)
        # Sums are sent as Σ exp(z − top), and logits as they were: only their differences have all digits.
        every = self.gather(torch.stack([top, target, miss / peak, *(measure / peak for measure in measures), *others]))
        tops, targets, sums = every[:, 0], every[:, 1], every[:, 2]
        target, top = targets.amax(dim=0), tops.amax(dim=0)
        lift = torch.exp((tops - top) / temperature)
        ahead = (target - top) / temperature
        whole = (lift * sums).sum(dim=0) + torch.exp(ahead)
        lift = lift / whole
        wrong = (lift * sums).sum(dim=0)
        ce = torch.where(wrong < 0.5, -torch.log1p(-wrong), torch.log(whole) - ahead)
        correct = miss.new_empty(0)
        if rival is not None:
            ranks = torch.arange(len(every), device=target.device)[:, None]
            stands = torch.where(ranks <= targets.argmax(dim=0), every[:, -1] < target, every[:, -1] <= target)
            correct = stands.all(dim=0).to(miss.dtype)
        merged = tuple((lift * every[:, 3 + i]).sum(dim=0) for i in range(len(measures)))
        rows = Rows(ce, top / temperature + torch.log(whole), torch.exp(-ce), wrong, lift[self.rank] / peak, correct)
        return rows, merged
