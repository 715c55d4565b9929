"""Costs of each token's nearest neighbors, and one mean cost for all others."""

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
    """For each token its k nearest with their costs; every other token costs the mean over those others.

    K is then Σ p_i κ_i over the neighbors and `far` · (their mass that is left): no product of all rows, and wrong by
    at most that mass times `deviation`.

    Attributes:
        ids: int32 [vocab, k]; −1 where a token has fewer neighbors.
        costs: [vocab, k], their costs; `far` where there is no neighbor.
        far: [vocab], the mean cost of the tokens that are neither the label nor its neighbors.
        deviation: [vocab], the largest difference of such a token's cost from that mean, or a bound of it.
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
        """Take the mean of all other costs from the rows themselves.

        Args:
            dense: the rows.
            ids: a table of nearest tokens, ascending by cost, −1 for none.
            costs: theirs.
            measure: find the largest deviations by computing all vocab² costs, block after block. Else they are
                bounded: no far token is nearer than the last neighbor, and none costs more than 2.
            block_rows: rows whose costs are held at a time.

        Raises:
            ShapeError: the tables are not for the tokens of `dense`, or all other tokens are neighbors.
        """
        size, k = ids.shape
        if size != dense.vocab_size or costs.shape != ids.shape:
            raise ShapeError(
                f"neighbors of shape {list(ids.shape)} with costs {list(costs.shape)} for {dense.vocab_size} tokens",
                "give one row of each for every token",
            )
        if k < 1:
            raise ShapeError("there are no neighbors", "give a table with k of 1 or more, or take form='dense'")
        present = ids >= 0
        others = size - 1 - present.sum(1)
        mean = dense.vectors.double().sum(0)
        far, deviation = [], []
        for start in range(0, size, block_rows):
            block = slice(start, start + block_rows)
            rows = dense.vectors[block].double()
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
        # A bound that is rounded may be none.
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
        exactly = "" if self.measured else ", by a bound that was not measured"
        return f"{self.ids.shape[1]} neighbors, K wrong by {worst:.3g} of the far mass at most{exactly}" + (
            rounding(self.costs, ", ")
        )
