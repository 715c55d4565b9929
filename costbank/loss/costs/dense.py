"""Costs from a vector for each token, with all its dimensions or fewer."""

from dataclasses import dataclass, field
from typing import Self

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from costbank.errors import ShapeError, UsageError
from costbank.loss.costs.base import UNNAMED, Costs, check_type, rounding
from costbank.loss.costs.float8 import FLOAT8, Float8Rows, RoundingError
from costbank.loss.costs.products import product_

__all__ = ["DenseCosts", "LowRankCosts"]

_CONVERTED_ROWS = 16_384


@dataclass(frozen=True, eq=False, repr=False)
class DenseCosts(Costs):
    """The exact costs of a bank: c(i, t) = 1 − ⟨e_i, e_t⟩ over unit or zero rows e, and 0 for i = t.

    Attributes:
        vectors: [vocab, dim], floating point. In `torch.float8_e4m3fn`, a row e_i is `vectors[i] · scales[i]`, and
            `to` makes them; `wide` has the rows themselves in every type.
        scales: float32 [vocab], with rows in 8 bits; else None.
        rounding_error: how much 8 bits changed the costs of the rows that were rounded last; None if no rows were.

    Raises:
        ShapeError: vectors are not a floating-point tensor [vocab, dim], or have another number of scales.
        UsageError: vectors that do not come from a bank have a row whose length is neither 1 nor 0, or NaN; or vectors
            in 8 bits have no scales. Rows with scales are not checked.
    """

    vectors: Float[Tensor, "vocab dim"]
    scales: Float[Tensor, "vocab"] | None = field(default=None, kw_only=True)
    rounding_error: RoundingError | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        rows = self.vectors
        if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point():
            what = f"{rows.dtype} of shape {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise ShapeError(f"vectors are {what}", "give a floating-point torch.Tensor [vocab, dim]")
        if rows.element_size() == 1 and self.scales is None:
            raise UsageError(
                f"vectors are {rows.dtype} without scales",
                "give wide rows: DenseCosts(rows).to(dtype=torch.float8_e4m3fn)",
            )
        if self.scales is not None and self.scales.shape != rows.shape[:1]:
            raise ShapeError(
                f"scales of shape {list(self.scales.shape)} for {len(rows):,} vectors", "give a scale for each vector"
            )
        if self.bank == UNNAMED and rows.device.type != "meta" and self.scales is None:
            self._check_rows()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same costs on another device, or with their rows in another type: see `Costs.to`.

        In `torch.float8_e4m3fn`, rows take a quarter of the memory of float32, and the costs have the error in
        `rounding_error`. Each product converts them block by block: on CUDA to bfloat16, elsewhere to the type of
        the product.

        Raises:
            UsageError: costs cannot have this type, or the device does not have it.
        """
        check_type(dtype, self.device if device is None else device)
        if dtype is None or dtype == self.vectors.dtype:
            return super().to(device)
        if dtype == FLOAT8:
            moved = super().to(device)
            rows = Float8Rows(self.vocab_size, self.vectors.shape[1], moved.device)
            if moved.device.type != "meta":
                for start in range(0, self.vocab_size, _CONVERTED_ROWS):
                    rows.put(start, moved.vectors[start : start + _CONVERTED_ROWS])
            changes = {"vectors": rows.vectors, "scales": rows.scales, "rounding_error": rows.error}
        elif self.scales is not None:
            moved = super().to(device)
            changes = {"vectors": moved.wide(dtype=dtype), "scales": None}
        else:
            return super().to(device, dtype)
        for name, value in changes.items():
            object.__setattr__(moved, name, value)
        return moved

    def wide(
        self, rows: slice | Int64[Tensor, "n"] = slice(None), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n dim"]:
        """Some of the rows e_i, in a type of 16 bits or more; without a copy if they have it."""
        if self.scales is None:
            return self.vectors[rows].to(dtype)
        return self._unscaled(rows, dtype) * self.scales[rows, None].to(dtype)

    def _unscaled(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        # As bytes, which every device can index.
        return self.vectors.view(torch.uint8)[rows].view(self.vectors.dtype).to(dtype)

    @property
    def has_vector(self) -> Bool[Tensor, "vocab"]:
        """Whether the row of each token is not 0."""
        return self.vectors.any(dim=1) if self.scales is None else self.scales != 0

    @property
    def product_dtype(self) -> torch.dtype:
        """The type of products of rows: that of 16-bit rows, bfloat16 for those of 8 bits, and else float32."""
        if self.vectors.element_size() == 1:
            return torch.bfloat16
        return self.vectors.dtype if self.vectors.element_size() == 2 else torch.float32

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
        return self.rounding() or "exact"

    def rounding(self, before: str = "") -> str:
        """A note on the rounding of rows for `error`; empty for float32 and wider types."""
        if self.rounding_error is not None:
            return f"{before}rounded to {str(FLOAT8).removeprefix('torch.')}, {self.rounding_error}"
        return rounding(self.vectors, before)

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
        if self.scales is not None:
            return self._products_of_scaled(labels, columns, out)
        targets, rows = self.vectors[labels], self.vectors[columns]
        if out.dtype == torch.float64 or rows.dtype == torch.float64:
            targets, rows = targets.to(out.dtype), rows.to(out.dtype)
        product_(targets.neg(), rows.T, out)
        return out

    def _products_of_scaled(self, labels: Tensor, columns: slice, out: Tensor) -> Tensor:
        """Rows in 8 bits are converted block by block. 16 bits hold the numbers before they are scaled."""
        dtype = torch.bfloat16 if out.is_cuda and out.dtype != torch.float64 else out.dtype
        assert self.scales is not None
        targets = self.wide(labels, dtype).neg_()
        start, stop, _ = columns.indices(self.vocab_size)
        for first in range(start, stop, _CONVERTED_ROWS):
            piece = slice(first, min(stop, first + _CONVERTED_ROWS))
            products = out[:, first - start : piece.stop - start]
            product_(targets, self._unscaled(piece, dtype).T, products)
            products.mul_(self.scales[piece].to(out.dtype))
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
        blocks = [slice(start, start + 16_384) for start in range(0, costs.vocab_size, 16_384)]
        gram = torch.zeros(dim, dim, dtype=torch.float64, device=costs.device)
        for block in blocks:
            wide = costs.wide(block, torch.float64)
            gram.addmm_(wide.T, wide)
        axes = torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1)
        rows, lengths = [], []
        for block in blocks:
            wide = costs.wide(block, torch.float64)
            near = wide @ axes
            rows.append(near.to(torch.float32))
            # Computed from the residual itself: a difference of squares would lose half the digits.
            lengths.append((wide - near @ axes.T).norm(dim=1))
        longest = torch.cat(lengths).topk(min(2, costs.vocab_size)).values
        chosen = costs.wide(slice(None, None, max(1, costs.vocab_size // sample)), torch.float64)
        cut = chosen - chosen @ axes @ axes.T
        products = (cut @ cut.T).abs_().fill_diagonal_(0.0)
        mean = products.sum() / max(1, len(cut) * (len(cut) - 1))
        largest = float(longest.prod()) if len(longest) == 2 else 0.0
        # Rounding moves each of the two unit rows by at most half an epsilon.
        largest += torch.finfo(torch.float32).eps
        return cls(torch.cat(rows), largest, float(mean), bank=costs.bank, rounding_error=costs.rounding_error)

    @property
    def form(self) -> str:
        return "low-rank"

    @property
    def pin(self) -> str:
        return f"{super().pin} {self.vectors.shape[1]}"

    @property
    def error(self) -> str:
        return f"{self.vectors.shape[1]} dimensions, error of a cost at most {self.largest_error:.3g}, " + (
            f"{self.mean_error:.3g} on average" + self.rounding(", ")
        )
