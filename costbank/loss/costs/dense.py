"""Costs from a vector for each token, with all its dimensions or fewer."""

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
        UsageError: vectors that do not come from a bank have a row whose length is neither 1 nor 0, or NaN.
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
        # 16-bit types round the lengths.
        wrong = ~((lengths - 1.0).abs() <= 1e-2) & (lengths != 0.0)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise UsageError(
                f"the vector of token {row} has length {lengths[row].item():.4g}",
                "divide rows by their lengths: torch.nn.functional.normalize(rows, dim=1); rows of zeros are allowed",
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

        On a CPU, the row of consecutive equal labels is computed once.
        """
        if labels.device.type != "cpu":
            return self.products_of(labels, columns, out)
        distinct, counts = torch.unique_consecutive(labels, return_counts=True)
        self.products_of(distinct, columns, out[: len(distinct)])
        # From the last row to the first, so that each row is read before it is overwritten.
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
        """Write c(i, t) for the tokens i of `columns` and the labels t into `out`. No cost is below 0.

        The cost of a label to itself has a rounding error, so the caller masks it.
        """
        return self.negated_products(labels, columns, out).add_(1.0).clamp_min_(0.0)

    def products_of(
        self, labels: Int64[Tensor, "n"], columns: slice, out: Float[Tensor, "n columns"]
    ) -> Float[Tensor, "n columns"]:
        """`negated_products`, computed for each label, also for equal ones."""
        targets, rows = self.vectors[labels], self.vectors[columns]
        if out.dtype == torch.float64 or rows.dtype == torch.float64:
            targets, rows = targets.to(out.dtype), rows.to(out.dtype)
        product_(targets.neg(), rows.T, out)
        return out

    def rows(self, labels: Int64[Tensor, "n"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n vocab"]:
        """The costs of every token to each label: never negative, and 0 at the label."""
        out = torch.empty(len(labels), self.vocab_size, dtype=dtype, device=self.device)
        self.fill(labels, slice(None), out)
        return out.scatter_(1, labels[:, None], 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class LowRankCosts(DenseCosts):
    """Costs from projections of the rows onto their first principal axes, without centering.

    The projection changes ⟨e_i, e_t⟩ by ⟨r_i, r_t⟩, with r the residual of a row. So the error of a cost is at most the
    product of the two largest residual lengths.

    Attributes:
        largest_error: that product plus the float32 rounding of rows. It bounds the error of the cost between two
            different tokens.
        mean_error: the mean of |⟨r_i, r_t⟩| over sampled pairs.
    """

    largest_error: float
    mean_error: float

    def _check_rows(self) -> None:
        """Check nothing: projected rows are shorter than 1."""

    @classmethod
    def project(cls, costs: DenseCosts, rank: int, sample: int = 2_048) -> "LowRankCosts":
        """Keep `rank` dimensions of dense costs.

        Args:
            costs: the costs, of any width; the projection is computed in float64.
            rank: from 1 to the number of dimensions.
            sample: how many evenly spaced rows to take; the mean error is that of their pairs.

        Raises:
            ShapeError: the rank is out of range.
        """
        dim = costs.vectors.shape[1]
        if not 1 <= rank <= dim:
            raise ShapeError(f"rank is {rank}, but the rows of {costs.bank} have {dim} dimensions", f"give 1 to {dim}")
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
            # Computed from the residual itself: a difference of squares would lose half the digits.
            lengths.append((wide - near @ axes.T).norm(dim=1))
        longest = torch.cat(lengths).topk(min(2, costs.vocab_size)).values
        chosen = costs.vectors[:: max(1, costs.vocab_size // sample)].double()
        cut = chosen - chosen @ axes @ axes.T
        products = (cut @ cut.T).abs_().fill_diagonal_(0.0)
        mean = products.sum() / max(1, len(cut) * (len(cut) - 1))
        largest = float(longest.prod()) if len(longest) == 2 else 0.0
        # Rounding moves each of the two unit rows by at most half an epsilon.
        return cls(torch.cat(rows), largest + torch.finfo(torch.float32).eps, float(mean), bank=costs.bank)

    @property
    def form(self) -> str:
        return "low-rank"

    @property
    def pin(self) -> str:
        return f"{super().pin} {self.vectors.shape[1]}"

    @property
    def error(self) -> str:
        return f"{self.vectors.shape[1]} dimensions, error of a cost at most {self.largest_error:.3g}, " + (
            f"{self.mean_error:.3g} on average" + rounding(self.vectors, ", ")
        )
