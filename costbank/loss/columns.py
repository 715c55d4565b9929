"""Which tokens the columns of a block stand for: all of them, or this process's slice of the vocabulary.

Processes that share a vocabulary exchange statistics of rows, once for a block and never a tensor of the block's width.
Each sends, for each token, the log-sum-exp of its wrong tokens' logits, the label's logit if it has it, its best rival
of the label, and what the objective sums over its columns.
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

    def merge(
        self,
        target: Float[Tensor, "n"],
        lse: Float[Tensor, "n"],
        miss: Float[Tensor, "n"],
        rival: Float[Tensor, "n"] | None,
        measures: tuple[Tensor, ...],
    ) -> tuple[Rows, tuple[Tensor, ...]]:
        """Statistics over the whole vocabulary from those of the columns here.

        Args:
            target: the label's logit, −inf where it is not here.
            lse: of the logits here.
            miss: the wrong tokens' share of the softmax over the columns here.
            rival: see `rival`.
            measures: each a mean over the columns here, weighted by that softmax.

        Returns:
            The statistics, and the measures weighted by the softmax over all.
        """
        if self.gather is None:
            correct = miss.new_empty(0) if rival is None else (rival < 0).to(miss.dtype)
            ce = torch.where(miss < 0.5, -torch.log1p(-miss), lse - target)
            return Rows(ce, lse, torch.exp(target - lse), miss, None, correct), measures
        lost = torch.zeros_like(miss) if rival is None else rival
        mine = torch.stack([lse + torch.log(miss), target, lost, *(measure / miss for measure in measures)])
        every = self.gather(mine)
        wrong, target = every[:, 0], every[:, 1].amax(dim=0)
        lse = torch.logsumexp(torch.cat([wrong, target[None]]), dim=0)
        shares = torch.exp(wrong - lse)
        total = shares.sum(dim=0)
        ce = torch.where(total < 0.5, -torch.log1p(-total), lse - target)
        ranks = torch.arange(len(every), device=target.device)[:, None]
        owner = every[:, 1].argmax(dim=0)
        stands = torch.where(ranks <= owner, every[:, 2] < target, every[:, 2] <= target)
        scale = torch.where(miss > 0, shares[self.rank] / miss, 0.0)
        # A process without a wrong token's mass sends 0/0, of which it has no share.
        merged = tuple((shares * torch.nan_to_num(every[:, 3 + i])).sum(dim=0) for i in range(len(measures)))
        return Rows(ce, lse, torch.exp(target - lse), total, scale, stands.all(dim=0).to(miss.dtype)), merged
