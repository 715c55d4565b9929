"""One block of token rows on Triton kernels: losses, and the gradient of its logits.

The stages are those of `costbank.loss.engine.blocks`, but the logits stay what they are until the gradient overwrites
them: a kernel reads a row twice, and no probabilities are stored. Objectives give the same formulas to both paths.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from costbank.loss.engine.kernels import rows
from costbank.loss.engine.kernels.device import device_of
from costbank.loss.engine.objectives import Block, Gradient
from costbank.loss.engine.objectives.base import Tiles, TileSums
from costbank.loss.engine.outcome import BlockPlan, BlockResult, Factors, Outcome, Softmax, outcome_of
from costbank.loss.engine.softmax import LabelColumn, LocalStats, SoftmaxStats, TargetTerm
from costbank.loss.engine.targets import SoftTargets, Targets, TargetShares, targets_of
from costbank.loss.engine.workspace import Workspace
from costbank.loss.options import EMOOptions

__all__ = ["kernel_losses"]

_MOST_COLUMNS = 8_192
_WARPS = {8_192: 16, 4_096: 8, 2_048: 8}
_SUMS, _VECTORS = 11, 7


@dataclass(frozen=True)
class RowLogits:
    """What stands for logits [n, columns] after softcap, shift and temperature: see `objectives.base.Rows`.

    Attributes:
        logits: as they are in memory.
        options: softcap and temperature.
        shift: [n].
        total: [n], the sum of each row.
    """

    logits: Tensor
    options: EMOOptions
    shift: Tensor
    total: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.logits.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def gather(self, dim: int, index: Tensor, /) -> Tensor:
        values, cap = self.logits.gather(dim, index).float(), self.options.softcap
        if cap is not None:
            values = torch.where(values == -torch.inf, values, cap * torch.tanh(values / cap))
        return (values - self.shift[:, None]) / self.options.temperature

    def sum(self, dim: int, /) -> Tensor:
        del dim
        return self.total


@dataclass(frozen=True)
class RowProbs:
    """What stands for the softmax over this process's columns, with 0 at the labels.

    Attributes:
        logits: the logits.
        peak: [n], the largest probability.
        labels: [n], the columns of the labels; −1 if they are not here.
    """

    logits: RowLogits
    peak: Tensor
    labels: Tensor

    def gather(self, dim: int, index: Tensor, /) -> Tensor:
        probs = self.logits.gather(dim, index).exp() * self.peak[:, None]
        return torch.where(index == self.labels[:, None], 0.0, probs)


class _Sums(NamedTuple):
    """The sums of `rows.row_sums`, each [n]."""

    top: Tensor
    label: Tensor
    others: Tensor
    costs: Tensor
    log_top: Tensor
    log_sum: Tensor
    weight: Tensor
    nll: Tensor
    minus_total: Tensor
    spread: Tensor
    beaten: Tensor


def kernel_losses(
    logits: Float[Tensor, "n columns"],
    labels: Int64[Tensor, "n"] | SoftTargets,
    weights: Float[Tensor, "n"] | None,
    kept: Bool[Tensor, "n"] | None,
    plan: BlockPlan,
    workspace: Workspace,
    gradient: Float[Tensor, "n columns"] | None = None,
) -> BlockResult:
    """Losses of a block, and the gradient of the sum of weighted losses if the plan asks for it.

    Args:
        logits: in any floating-point type.
        labels: the labels, or soft targets.
        weights: of tokens, or None.
        kept: [n], which rows have a gradient; None: all of them.
        plan: what all blocks have in common.
        workspace: buffers of the block's size, of float32 unless another type is requested.
        gradient: where the gradient is written; None: over the logits.
    """
    targets = targets_of(labels, plan.options, plan.shard, torch.float32)
    label = plan.shard.column_of(targets.label)
    launch = _Launch.of(logits, label, plan.options)
    unread = RowLogits(logits, plan.options, launch.none, launch.none)
    tiles, state = plan.objective.tiles(Block(unread, targets, label, plan.shard, workspace, plan.is_sorted))
    shares = targets.shares()
    if shares.tile is not None:
        tiles = tiles._replace(targets=shares.tile)
    softmax, sums, peak = _softmax(launch, targets, label, tiles, state, plan, workspace)
    outcome = outcome_of(softmax, targets, weights, plan)
    if outcome.factors is not None:
        terms = plan.objective.gradient(None, softmax.stats, outcome.value, outcome.state)
        into = logits if gradient is None else gradient
        vectors, costs = _gradient(sums, peak, softmax.stats, outcome, terms, shares, tiles)
        near = _near_of(outcome.factors, terms, shares)
        launch.gradients(into, vectors, tiles._replace(costs=costs), kept, near)
    return outcome.result


@dataclass(frozen=True)
class _Launch:
    """A block's arguments that both kernels have in common.

    Attributes:
        logits: [n, columns].
        columns: int64 [n], the label's columns; −1 where another process has the label.
        options: the options.
        none: [n] of zeros, which stands for what is not there.
        all_rows: [n], 0 to n − 1.
    """

    logits: Tensor
    columns: Tensor
    options: EMOOptions
    none: Tensor
    all_rows: Tensor

    @classmethod
    def of(cls, logits: Tensor, label: LabelColumn, options: EMOOptions) -> "_Launch":
        column = label.column[:, 0]
        if label.here is not None:
            column = torch.where(label.here, column, -1)
        none = torch.zeros(len(logits), dtype=torch.float32, device=logits.device)
        all_rows = torch.arange(len(logits), device=logits.device)
        return cls(logits, column.contiguous(), options, none, all_rows)

    @property
    def block(self) -> dict[str, int]:
        """Columns that a program reads at a time, and its warps."""
        width = self.logits.shape[1]
        columns = min(_MOST_COLUMNS, 1 << (width - 1).bit_length()) if width > 1 else 1
        return {"BLOCK": columns, "num_warps": _WARPS.get(columns, 4)}

    def sums(self, tiles: Tiles, total: bool, spread: bool, best: bool) -> _Sums:
        count, width = self.logits.shape
        out = torch.empty(_SUMS, count, dtype=torch.float32, device=self.logits.device)
        if count:
            launch: Any = rows.row_sums[(count,)]
            with device_of(self.logits):
                launch(
                    self.logits, self.logits.stride(0), self.columns, *self._tiles(tiles), out, count,
                    *self._numbers(tiles), WIDTH=width, **_flags(self.options, tiles),
                    TOTAL=total, SPREAD=spread, BEST=best, **self.block,
                )  # fmt: skip
        return _Sums(*out.unbind(0))

    def gradients(
        self, into: Tensor, vectors: Tensor, tiles: Tiles, kept: Tensor | None = None,
        near: tuple[Tensor, Tensor] | None = None, slope: bool = True,
    ) -> None:  # fmt: skip
        """Write gradients from `vectors` [7, n]; `near` has columns and values [n, k]."""
        count, width = self.logits.shape
        if not count:
            return
        # Always given, so that one compiled kernel serves all calls: a CUDA graph can be captured after any of them.
        kept = torch.ones_like(self.all_rows, dtype=torch.bool) if kept is None else kept
        columns, values = near or (self.columns, self.none)
        size = columns.shape[1] if near else 0
        launch: Any = rows.row_gradients[(count,)]
        with device_of(self.logits):
            launch(
                self.logits, self.logits.stride(0), into, into.stride(0), self.columns, *self._tiles(tiles),
                vectors, count, kept.to(torch.int8), columns.contiguous(), values.contiguous(), *self._numbers(tiles),
                WIDTH=width, **_flags(self.options, tiles), SLOPE=slope and self.options.softcap is not None, NEAR=size,
                NEAR_BLOCK=1 << max(0, size - 1).bit_length(), **self.block,
            )  # fmt: skip

    def _tiles(self, tiles: Tiles) -> tuple[Tensor | int, ...]:
        """Tiles and their strides, the factors of the targets, and the row of each token in the tiles."""
        costs, targets = (self.none[None] if tile is None else _by_rows(tile) for tile in (tiles.costs, tiles.targets))
        factors = self.none if tiles.factors is None else tiles.factors.contiguous()
        row_of = self.all_rows if tiles.row_of is None else tiles.row_of
        return costs, costs.stride(0), targets, targets.stride(0), factors, row_of

    def _numbers(self, tiles: Tiles) -> tuple[float, ...]:
        """Softcap, 1 / temperature, power of similarities, and 1 / the temperature of the targets."""
        rate = 0.0 if tiles.temperature is None else 1.0 / tiles.temperature
        return float(self.options.softcap or 1.0), 1.0 / self.options.temperature, float(tiles.log_power or 1.0), rate


def _flags(options: EMOOptions, tiles: Tiles) -> dict[str, int]:
    kind = 0 if tiles.targets is None else rows.WEIGHTS if tiles.temperature is None else rows.PRODUCTS
    has_costs = tiles.costs is not None
    return {"CAP": options.softcap is not None, "COSTS": has_costs and tiles.log_power is None,
            "LOG": has_costs and tiles.log_power is not None, "TARGETS": kind}  # fmt: skip


def _by_rows(tile: Tensor) -> Tensor:
    """The tile with neighboring columns next to each other in memory."""
    return tile if tile.stride(1) == 1 else tile.contiguous()


def _softmax(
    launch: _Launch, targets: Targets, label: LabelColumn, tiles: Tiles, state: object, plan: BlockPlan,
    workspace: Workspace,
) -> tuple[Softmax, _Sums, Tensor]:  # fmt: skip
    """Statistics over the whole vocabulary; this process's sums, and its largest probability [n]."""
    options, objective, shard = plan.options, plan.objective, plan.shard
    needs_total = options.label_smoothing > 0 or objective.needs_total
    sums = launch.sums(tiles, needs_total, plan.with_entropy, plan.with_parts)
    # A row without a finite logit: other processes have its probability, or it is NaN.
    shift = sums.top if shard.gather is None else torch.where(sums.top == -torch.inf, 0.0, sums.top)
    own = torch.exp((sums.label - shift) / options.temperature)
    peak = 1.0 / (sums.others + own)
    if shard.gather is not None:
        peak = torch.where(sums.top == -torch.inf, 1.0, peak)
    logits = RowLogits(launch.logits, options, shift, -sums.minus_total)
    block = Block(logits, targets, label, shard, workspace)
    probs: RowProbs | Tensor = RowProbs(logits, peak, launch.columns)
    if objective.needs_probs:
        probs = workspace.take("probabilities", len(peak))
        vectors = torch.stack([shift, peak, *[launch.none] * (_VECTORS - 2)])
        launch.gradients(probs, vectors, Tiles(), slope=False)
    of_tile = TargetTerm(sums.weight, sums.nll)
    # Soft targets over all tokens are a tile of weights; other tiles of targets belong to the objective.
    is_teacher = tiles.targets is not None and tiles.temperature is None
    term = of_tile if is_teacher else targets.term(logits)
    of_tiles = TileSums(sums.costs * peak, sums.log_top + torch.log(sums.log_sum), sums.log_top, of_tile)
    partial, state = objective.measured(block, probs, state, of_tiles)
    own_targets = partial.targets
    if term is not None:
        partial = partial._replace(targets=(*own_targets, term))
    best = spread = None
    if plan.with_parts:
        best = torch.where(sums.beaten > 0, torch.inf, -torch.inf)
        best = best if label.here is None else torch.where(label.here, best, sums.top)
    if plan.with_entropy:
        spread = sums.spread * peak
    local = LocalStats(sums.top, sums.label, peak, sums.others * peak, best, spread)
    stats, merged = shard.merge(local, options.temperature, partial)
    softmax = Softmax(
        stats,
        merged._replace(targets=merged.targets[: len(own_targets)]),
        None if term is None else merged.targets[-1],
        state,
    )
    return softmax, sums._replace(top=shift), peak


def _gradient(
    sums: _Sums, peak: Tensor, stats: SoftmaxStats, outcome: Outcome, terms: Gradient | None, shares: TargetShares,
    tiles: Tiles,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The vectors [7, n] of `rows.row_gradients`, and the tile of costs."""
    factors, none = outcome.factors, torch.zeros_like(peak)
    assert factors is not None
    target = none if shares.tile is None else factors.ce
    floor = none if shares.floor is None else factors.ce * shares.floor
    common, costs, of_label = None, tiles.costs, None
    if terms is not None:
        common, of_label = terms.common, terms.label
        target = target if terms.factor is None else factors.value * terms.factor
        floor = floor if terms.floor is None else floor + factors.value * terms.floor
        costs = costs if terms.costs is None else terms.costs
    at_label = factors.label(stats, of_label, None if shares.label is None else factors.ce * shares.label)
    log_top = torch.where(sums.log_top == -torch.inf, 0.0, sums.log_top)
    # exp(z_i − shift) times the peak is a probability over this process's columns.
    prob, cost = factors.shared(stats, common) * peak, stats.local(factors.value) * peak
    return torch.stack([sums.top, prob, cost, target, floor, at_label, log_top]), costs


def _near_of(factors: Factors, terms: Gradient | None, shares: TargetShares) -> tuple[Tensor, Tensor] | None:
    """The columns that get something of their own, and what is added to the gradient there, each [n, k]."""
    if terms is not None and terms.neighbors is not None:
        columns, values, here = terms.neighbors
        return torch.where(here, columns, -1), values * factors.value[:, None]
    if shares.columns is not None and shares.values is not None:
        return shares.columns, -shares.values * factors.ce[:, None]
    return None
