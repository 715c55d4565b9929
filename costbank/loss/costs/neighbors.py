"""Costs of each token's nearest neighbors, and one mean cost for all other tokens."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from costbank.errors import ShapeError
from costbank.loss.costs.base import Costs, rounding
from costbank.loss.costs.dense import DenseCosts

__all__ = ["NeighborCosts"]


@dataclass(frozen=True, eq=False, repr=False)
class NeighborCosts(Costs):
    """The costs of each token's k nearest neighbors, and the mean cost of all other tokens.

    K is then Σ p_i κ_i over the neighbors plus `far` times the probability of the other tokens. No product of all rows
    is needed, and the error of K is at most that probability times `deviation`.

    Attributes:
        ids: int32 [vocab, k], the neighbors, distinct in a row; −1 if a token has fewer.
        costs: [vocab, k], the costs of the neighbors; `far` where `ids` is −1.
        far: [vocab], the mean cost of the tokens that are neither the label nor its neighbors.
        deviation: [vocab], the largest difference between the cost of such a token and `far`, or a bound on it.
        measured: whether the deviations are exact.
    """

    ids: Integer[Tensor, "vocab k"]
    costs: Float[Tensor, "vocab k"]
    far: Float[Tensor, "vocab"]
    deviation: Float[Tensor, "vocab"]
    measured: bool

    @classmethod
    def from_table(
        cls,
        dense: DenseCosts,
        ids: Integer[Tensor, "vocab k"],
        costs: Float[Tensor, "vocab k"],
        measure: bool,
        block_rows: int = 256,
    ) -> "NeighborCosts":
        """Compute the mean cost of all other tokens from the rows.

        Args:
            dense: the rows.
            ids: the nearest tokens of each token, ascending by cost; −1 for none.
            costs: the costs of these tokens.
            measure: compute all vocab² costs, block by block, to find the largest deviations. Otherwise they are
                bounded: a far token costs at least as much as the last neighbor, and at most 2.
            block_rows: rows of the cost matrix in memory at a time.

        Raises:
            ShapeError: the tables are not for the tokens of `dense`, or have no columns.
        """
        size, k = ids.shape
        if size != dense.vocab_size or costs.shape != ids.shape:
            raise ShapeError(
                f"neighbors of shape {list(ids.shape)} with costs {list(costs.shape)} for {dense.vocab_size} tokens",
                "give a row of ids and a row of costs for each token",
            )
        if k < 1:
            raise ShapeError("there are no neighbors", "give a table with k of 1 or more, or use form='dense'")
        present = ids >= 0
        others = size - 1 - present.sum(1)
        mean = dense.wide(dtype=torch.float64).sum(0)
        far, deviation = [], []
        for start in range(0, size, block_rows):
            block = slice(start, start + block_rows)
            rows = dense.wide(block, torch.float64)
            total = size - 1 - (rows @ mean - rows.square().sum(1))
            near = torch.where(present[block], costs[block].double(), 0.0).sum(1)
            center = ((total - near) / others[block].clamp_min(1)).clamp_min(0.0).float()
            far.append(center)
            if measure:
                own = torch.arange(start, start + len(rows), device=dense.device)
                away = dense.rows(own).sub_(center[:, None]).abs_()
                known = torch.where(present[block], ids[block].long(), own[:, None])
                deviation.append(away.scatter_(1, own[:, None], 0.0).scatter_(1, known, 0.0).amax(1))
            else:
                last = torch.where(present[block], costs[block].float(), 0.0).amax(1)
                deviation.append(torch.maximum(center - last, 2.0 - center))
        far_costs = torch.cat(far)
        known_costs = torch.where(present, costs.float(), far_costs[:, None])
        return cls(ids.int(), known_costs, far_costs, torch.cat(deviation), measure, bank=dense.bank)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        moved = super().to(device, dtype)
        # A bound that is rounded may be too small.
        object.__setattr__(moved, "deviation", self.deviation.to(device))
        return moved

    @property
    def form(self) -> str:
        return "neighbors"

    @property
    def pin(self) -> str:
        return f"{super().pin} {self.ids.shape[1]}"

    @property
    def vocab_size(self) -> int:
        return self.ids.shape[0]

    @property
    def device(self) -> torch.device:
        return self.ids.device

    @property
    def error(self) -> str:
        worst = float(self.deviation.max())
        exactly = "" if self.measured else ", not measured"
        return (
            f"{self.ids.shape[1]} neighbors, error of K at most {worst:.3g} times the probability of other tokens"
            f"{exactly}{rounding(self.costs, ', ')}"
        )
