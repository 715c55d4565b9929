"""The base of objectives: the value D of each token and its gradient, in closed form, in four stages per block.

Every gradient has one shape. For a token i that is not the label,

    ∂D/∂z_i = p_i (a + κ_i) − q_i,

with a number a for each row, the costs κ, and a target distribution q over all columns or a few. An objective returns
these terms as a `Gradient`, and the engine adds them up. Each stage returns a state, which the next stage gets: an
objective itself holds options and costs, but no state of a block.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from costbank.loss.engine.softmax import LabelColumn, PartialSums, SoftmaxStats, TargetTerm, VocabShard
from costbank.loss.engine.targets import Targets
from costbank.loss.engine.workspace import Workspace
from costbank.loss.options import EMOOptions

__all__ = [
    "Block",
    "Delta",
    "Gradient",
    "NeighborTerms",
    "Objective",
    "Rows",
    "Softened",
    "TileSums",
    "Tiles",
    "softened",
]


class Rows(Protocol):
    """What an objective may read of the logits or probabilities of a block: a tensor, or what stands for one."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def gather(self, dim: int, index: Tensor, /) -> Tensor: ...

    def sum(self, dim: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Block:
    """A block of tokens before its logits become probabilities.

    Attributes:
        logits: [n, columns], minus each row's shift, divided by the temperature; for a kernel, `Rows`.
        targets: the targets of the tokens.
        label: the labels' columns.
        shard: the slice of the vocabulary that the columns represent.
        workspace: buffers of the block's size.
        is_sorted: whether rows are sorted by label, so that equal labels can share a row of costs.
    """

    logits: Any
    targets: Targets
    label: LabelColumn
    shard: VocabShard
    workspace: Workspace
    is_sorted: bool = False

    @property
    def labels(self) -> Int64[Tensor, "n"]:
        """[n] token ids of the labels, in the whole vocabulary."""
        return self.targets.label

    def buffer(self, dtype: torch.dtype | None = None, rows: int | None = None) -> Float[Tensor, "rows columns"]:
        """The buffer for costs, uninitialized. A block has only one.

        Args:
            dtype: another type than that of sums.
            rows: fewer rows than the block.
        """
        return self.workspace.take("costs", self.logits.shape[0] if rows is None else rows, dtype)


class Tiles(NamedTuple):
    """What a Triton kernel reads besides the logits: tiles [n, columns], and numbers that hold for all rows.

    Attributes:
        costs: f with Σ p_i f_i among the sums, and p_i f_i in the gradient; or −⟨e_i, e_t⟩ if `log_power` is given.
        log_power: γ of the sum Σ p_i (1 − κ_i)^γ over tokens other than the label.
        targets: weights of a target distribution; or −⟨e_i, e_t⟩ if `temperature` is given.
        temperature: T of the weights u_i exp(−κ_i / T), which are 0 at masked tokens and at the label.
        factors: u, [columns].
        row_of: [n], the row of each token in a tile of −⟨e_i, e_t⟩, which equal labels share; None if each has its own.
    """

    costs: Tensor | None = None
    log_power: float | None = None
    targets: Tensor | None = None
    temperature: float | None = None
    factors: Tensor | None = None
    row_of: Tensor | None = None


class TileSums(NamedTuple):
    """The sums of tiles over this process's columns, each [n].

    Attributes:
        costs: Σ p_i f_i without the label.
        log: log Σ exp(z_i − shift) (1 − κ_i)^γ without the label.
        log_top: the logarithm of its largest term.
        targets: Σ q_i and Σ q_i (shift − z_i).
    """

    costs: Tensor
    log: Tensor
    log_top: Tensor
    targets: TargetTerm


class NeighborTerms(NamedTuple):
    """[n, k] values to add to columns [n, k] of the gradient; 0 for columns of other processes: those not `here`."""

    columns: Int64[Tensor, "n k"]
    values: Float[Tensor, "n k"]
    here: Bool[Tensor, "n k"]


class Gradient(NamedTuple):
    """∂D/∂z of a block: p_i · common + costs_i − factor · targets_i − floor + neighbors_i, and `label` at the label.

    Attributes:
        label: [n].
        common: [n], a.
        costs: [n, columns], p_i κ_i with the probabilities over this process's columns, up to a number in `common`; the
            engine overwrites it. For Triton kernels without p_i.
        targets: [n, columns]; the engine overwrites it. Triton kernels read `Tiles.targets` instead.
        factor: [n].
        floor: [n].
        neighbors: the terms of a few columns.
    """

    label: Tensor
    common: Tensor
    costs: Tensor | None = None
    targets: Tensor | None = None
    factor: Tensor | None = None
    floor: Tensor | None = None
    neighbors: NeighborTerms | None = None


class Objective:
    """Cross-entropy alone: D = 0.

    `probs` are a softmax over this process's columns, with 0 at the labels. `state` comes from the stage before. An
    objective with numbers for every column has `tiles` and `measured` for kernels.

    Attributes:
        needs_probs: whether `measured` needs the probabilities as a tensor, which a kernel then writes.
        needs_total: whether `read` needs the sum of each row of logits, which a kernel computes only then.
    """

    needs_probs = False
    needs_total = False

    def __init__(self, options: EMOOptions, costs: Any = None) -> None:
        self.options, self.costs = options, costs

    def read(self, block: Block) -> Any:
        """The first state, from the logits, which are overwritten afterwards."""
        return None

    def measure(self, probs: Any, state: Any) -> tuple[PartialSums, Any]:
        """The sums over this process's columns, and the next state."""
        return PartialSums(), state

    def tiles(self, block: Block) -> tuple[Tiles, Any]:
        """Instead of `read`, before the logits are read: what a kernel needs for `measure`, and a state."""
        return Tiles(), None

    def measured(self, block: Block, probs: Any, state: Any, sums: TileSums) -> tuple[PartialSums, Any]:
        """Instead of `measure`: the same sums and state, from those of a kernel."""
        return self.measure(probs, self.read(block))

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: Any) -> tuple[Float[Tensor, "n"], Any]:
        """D, from the sums over the whole vocabulary, and the next state."""
        return torch.zeros_like(stats.ce), state

    def gradient(self, probs: Any, stats: SoftmaxStats, value: Tensor, state: Any) -> Any:
        """The `Gradient` of D; None if it is 0. `probs` are None for a kernel."""
        return None

    def neighbor_mass(self, stats: SoftmaxStats, sums: PartialSums) -> Float[Tensor, "n"]:
        """The probability of the label's neighbors; NaN if the costs do not list them."""
        return torch.full_like(stats.ce, torch.nan)


class Delta(Objective):
    """D = 1 − p_t, ∂D/∂z_i = p_i p_t."""

    def value(self, stats: SoftmaxStats, sums: PartialSums, state: Any) -> tuple[Tensor, Any]:
        return stats.other_prob, state

    def gradient(self, probs: Any, stats: SoftmaxStats, value: Tensor, state: Any) -> Gradient:
        return Gradient(label=-value * stats.label_prob, common=stats.label_prob)


class Softened(NamedTuple):
    """Cross-entropy to a distribution with a weight at the label, and the weights of a term at other tokens.

    Attributes:
        value: −Σ q_i log p_i, [n], with q the weights divided by their total.
        total: [n], the sum of weights.
        others: [n], 1 − q_t.
    """

    value: Tensor
    total: Tensor
    others: Tensor

    def gradient(self, stats: SoftmaxStats) -> Gradient:
        """The gradient p − q, but without q at tokens other than the label."""
        return Gradient(label=self.others - stats.other_prob, common=torch.ones_like(self.total))


def softened(stats: SoftmaxStats, term: TargetTerm, label_weight: Tensor | float = 1.0) -> Softened:
    """Normalize the weights of the label and other tokens (`term`) to a distribution."""
    total = label_weight + term.weight
    others = term.weight / total
    value = stats.cross_entropy(TargetTerm(others, term.nll_from_max / total), label_weight / total)
    return Softened(value, total, others)
