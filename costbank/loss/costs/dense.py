"""Costs from a vector for each token, of all its dimensions or of fewer."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs.base import UNNAMED, Costs, rounding
from costbank.loss.costs.products import product_

__all__ = ["DenseCosts", "LowRankCosts"]


@dataclass(frozen=True, eq=False, repr=False)
class DenseCosts(Costs):
    """The exact costs of a bank: c(i, t) = 1 − ⟨e_i, e_t⟩ over unit or zero rows e, and 0 for i = t.

    Attributes:
        vectors: [vocab, dim], floating point.

    Raises:
        ShapeError: vectors are not a floating-point tensor [vocab, dim].
        UsageError: vectors that are from no bank have a row of another length, or NaN.
    """

    vectors: Float[Tensor, "vocab dim"]

    def __post_init__(self) -> None:
        rows = self.vectors
        if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point():
            what = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise ShapeError(f"vectors are {what}", "give a floating-point torch.Tensor [vocab, dim]")
        if self.bank == UNNAMED and rows.device.type != "meta":
            self._check_rows()

    def _check_rows(self) -> None:
        lengths = torch.linalg.vector_norm(
            self.vectors, dim=1, dtype=torch.promote_types(self.vectors.dtype, torch.float32)
        )
        # As a type of 16 bits rounds them.
        wrong = ~((lengths - 1.0).abs() <= 1e-2) & (lengths != 0.0)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise UsageError(
                f"the vector of token {row} has length {lengths[row].item():.4g}",
                "divide rows by their lengths, torch.nn.functional.normalize(rows, dim=1); rows of zeros may stay",
            )

    @property
    def form(self) -> str:
        return "dense"

    @property
    def vocab_size(self) -> int:
        return self.vectors.shape[0]

    @property
    def device(self) -> torch.device:
        return self.vectors.device

    @property
    def error(self) -> str:
        return rounding(self.vectors) or "exact"

    def negated_products(
        self, labels: Int64[Tensor, "n"], columns: slice, out: Float[Tensor, "n columns"]
    ) -> Float[Tensor, "n columns"]:
        """Write −⟨e_i, e_t⟩ for the tokens i of `columns` and the labels t into `out`.

        On a CPU those of equal labels that follow each other are computed once.
        """
        if labels.device.type != "cpu":
            return self._multiply(labels, columns, out)
        distinct, counts = torch.unique_consecutive(labels, return_counts=True)
        self._multiply(distinct, columns, out[: len(distinct)])
        # Spread from the last: a row is read before it is written over, since no label stands after its first place.
        end = len(labels)
        for row, count in reversed(list(enumerate(counts.tolist()))):
            start = max(end - count, row + 1)
            if start < end:
                out[start:end] = out[row]
            end -= count
        return out

    def fill(
        self, labels: Int64[Tensor, "n"], columns: slice, out: Float[Tensor, "n columns"]
    ) -> Float[Tensor, "n columns"]:
        """Write the costs of the tokens of `columns` to the labels into `out`; never below 0.

        The cost of a label to itself comes out as rounding leaves it: the caller masks it.
        """
        return self.negated_products(labels, columns, out).add_(1.0).clamp_min_(0.0)

    def _multiply(self, labels: Tensor, columns: slice, out: Tensor) -> Tensor:
        targets, rows = self.vectors[labels], self.vectors[columns]
        if out.dtype == torch.float64:
            targets, rows = targets.double(), rows.double()
        product_(targets.neg(), rows.T, out)
        return out

    def rows(self, labels: Int64[Tensor, "n"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n vocab"]:
        """The costs of every token to each label: never negative, and 0 at the label."""
        out = torch.empty(len(labels), self.vocab_size, dtype=dtype, device=self.device)
        self.fill(labels, slice(None), out)
        return out.scatter_(1, labels[:, None], 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class LowRankCosts(DenseCosts):
    """Costs from the rows' projections onto the directions that hold most of them.

    Projecting onto the first principal axes (not centred) changes ⟨e_i, e_t⟩ by ⟨r_i, r_t⟩, r being what was cut off;
    so no cost is wrong by more than the product of the two longest r.

    Attributes:
        largest_error: that product, and what float32 rounds of rows: no cost of two different tokens is further from
            the bank's.
        mean_error: mean of |⟨r_i, r_t⟩| over sampled pairs.
    """

    largest_error: float
    mean_error: float

    def _check_rows(self) -> None:
        """What is cut off shortens rows."""

    @classmethod
    def project(cls, costs: DenseCosts, rank: int, sample: int = 2_048) -> "LowRankCosts":
        """Keep `rank` dimensions of dense costs.

        Args:
            costs: of any width; the projection is computed in float64.
            rank: from 1 to the dimensions that there are.
            sample: rows, evenly spaced, whose pairs the mean error is taken over.

        Raises:
            ShapeError: the rank is out of range.
        """
        dim = costs.vectors.shape[1]
        if not 1 <= rank <= dim:
            raise ShapeError(f"rank is {rank}, and the rows of {costs.bank} have {dim} dimensions", f"give 1 to {dim}")
        blocks = costs.vectors.split(16_384)
        gram = torch.zeros(dim, dim, dtype=torch.float64, device=costs.device)
        for block in blocks:
            wide = block.double()
            gram.addmm_(wide.T, wide)
        axes = torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1)
        rows, lengths = [], []
        for block in blocks:
            wide = block.double()
            near = wide @ axes
            rows.append(near.to(torch.float32))
            # Of the residual itself: its square as a difference of squares would lose half the digits.
            lengths.append((wide - near @ axes.T).norm(dim=1))
        longest = torch.cat(lengths).topk(min(2, costs.vocab_size)).values
        chosen = costs.vectors[:: max(1, costs.vocab_size // sample)].double()
        cut = chosen - chosen @ axes @ axes.T
        products = (cut @ cut.T).abs_().fill_diagonal_(0.0)
        mean = products.sum() / max(1, len(cut) * (len(cut) - 1))
        largest = float(longest.prod()) if len(longest) == 2 else 0.0
        # Each of two unit rows is off by half an epsilon of its length at most.
        return cls(torch.cat(rows), largest + torch.finfo(torch.float32).eps, float(mean), bank=costs.bank)

    @property
    def form(self) -> str:
        return "low-rank"

    @property
    def pin(self) -> str:
        return f"{super().pin} {self.vectors.shape[1]}"

    @property
    def error(self) -> str:
        return f"{self.vectors.shape[1]} dimensions, costs wrong by {self.largest_error:.3g} at most, " + (
            f"by {self.mean_error:.3g} in the mean" + rounding(self.vectors, ", ")
        )
