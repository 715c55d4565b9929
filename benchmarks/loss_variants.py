"""The shapes, inputs and losses of the loss benchmark.

Every variant is a mean loss of hidden states and a head's weight. A test checks that variants with the same objective
and the same costs compute the same function.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from costbank.loss import Costs, DenseCosts, EMOOptions, LowRankCosts, NeighborCosts, emo_loss, linear_emo_loss
from costbank.loss.costs.products import add_product_

__all__ = ["SHAPES", "Inputs", "Shape", "Variant", "variants_for"]

NEIGHBORS = 64
_LOGIT_STD = 3.0
# With this much of the label's row in a hidden state, the cross-entropy is about 4.5 nats over 128,256 tokens.
_LABEL_SHARE = 1.3
_CUDA_TOKENS = 8192
_FLOOR_ROWS = 2048


@dataclass(frozen=True)
class Shape:
    """The tokens of a batch, the vocabulary and the width of a head, and what the model does to its logits."""

    name: str
    tokens: int
    vocab: int
    dim: int
    softcap: float | None = None
    ignored: float = 0.0

    def on(self, device: str) -> "Shape":
        """The same shape, with as many tokens as a step on an accelerator has."""
        return self if device == "cpu" else replace(self, tokens=_CUDA_TOKENS)

    @property
    def description(self) -> str:
        capped = f", softcap {self.softcap:g}" if self.softcap else ""
        ignored = f", {self.ignored:.0%} of the labels ignored" if self.ignored else ""
        return f"{self.tokens:,} tokens × {self.vocab:,}, d = {self.dim:,}{capped}{ignored}"


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 32, 64, 8),
        Shape("small", 1024, 8192, 256),
        Shape("32k", 2048, 32_768, 512),
        Shape("32k-ignored", 2048, 32_768, 512, ignored=0.2),
        Shape("gpt2", 2048, 50_257, 768),
        Shape("128k", 1024, 128_256, 1024),
        Shape("llama3-8b", 256, 128_256, 4096),
        Shape("gemma2", 256, 256_000, 2304, softcap=30.0),
        Shape("qwen3", 256, 151_936, 2048),
    )
}


class Inputs:
    """The inputs of every variant, in float32 on a CPU and bfloat16 on an accelerator. Each shape has fixed inputs.

    Attributes:
        hidden: [tokens, dim], with a gradient; the label's logit is among the largest, as in a trained model.
        weight: [vocab, dim], with a gradient; it gives logits with the spread of a real model's.
        labels: [tokens], drawn by Zipf's law; the lowest id is the most frequent.
    """

    def __init__(self, shape: Shape, device: str) -> None:
        self.shape, self.device = shape, device
        self.dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self._generator = torch.Generator(device).manual_seed(0)
        self._rows: dict[int, Tensor] = {}
        hidden = self._normal(shape.tokens, shape.dim)
        weight = self._normal(shape.vocab, shape.dim).mul_(_LOGIT_STD / shape.dim**0.5)
        self.weight = weight.requires_grad_()
        shares = 1 / torch.arange(1, shape.vocab + 1, device=device)
        self.labels = torch.multinomial(shares, shape.tokens, replacement=True, generator=self._generator)
        self.hidden = hidden.add_(weight.detach()[self.labels], alpha=_LABEL_SHARE).requires_grad_()
        ignored = torch.rand(shape.tokens, generator=self._generator, device=device) < shape.ignored
        self.labels[ignored] = -100

    @property
    def gradient_bytes(self) -> int:
        return (self.hidden.numel() + self.weight.numel()) * self.hidden.element_size()

    def rows(self, dim: int) -> Tensor:
        """Random unit rows [vocab, dim] for costs, made once."""
        if dim not in self._rows:
            rows = self._normal(self.shape.vocab, dim)
            self._rows[dim] = rows.div_(rows.norm(dim=1, keepdim=True))
        return self._rows[dim]

    def table(self) -> tuple[Tensor, Tensor]:
        """A neighbor table: for each token, distinct random ids with ascending random costs."""
        size = self.shape.vocab
        k = min(NEIGHBORS, size // 4)
        random = {"generator": self._generator, "device": self.device}
        offsets = torch.randint(1, (size - 1) // k + 1, (size, k), **random).cumsum(1)
        ids = (torch.arange(size, device=self.device)[:, None] + offsets) % size
        return ids.int(), torch.rand(size, k, **random).mul_(0.6).add_(0.2).sort(dim=1).values

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Variant:
    """A loss, or only the matrix products of one.

    Attributes:
        loss: computes the loss from the inputs and the costs.
        costs: makes the costs for the inputs, once; returns None if the loss has no costs.
        objective: the objective that the loss computes; `products` for the matrix products alone.
        needs: the optional module that implements it.
        softcap: whether it supports a softcap.
        cuda: whether it needs an accelerator.
    """

    name: str
    loss: Callable[[Inputs, Costs | None], Tensor]
    costs: Callable[[Inputs], Costs | None]
    objective: Literal["ce", "emo", "products"]
    needs: str | None = None
    softcap: bool = True
    cuda: bool = False

    def usable(self, shape: Shape, device: str) -> bool:
        return (
            (self.needs is None or find_spec(self.needs) is not None)
            and (self.softcap or shape.softcap is None)
            and (not self.cuda or device == "cuda")
        )


def variants_for(shape: Shape, device: str) -> dict[str, Variant]:
    """The variants that can run on this device, ours first. All others are compared with the first."""
    every = list(_VARIANTS)
    if hasattr(F, "linear_cross_entropy"):
        every += [
            Variant("F.linear_cross_entropy", _torch_linear, _no_costs, "ce", softcap=False),
            Variant("F.linear_cross_entropy, chunked", _torch_chunked, _no_costs, "ce", softcap=False),
        ]
    return {variant.name: variant for variant in every if variant.usable(shape, device)}


def _no_costs(inputs: Inputs) -> None:
    del inputs


def _dense(inputs: Inputs) -> DenseCosts:
    return DenseCosts(inputs.rows(inputs.shape.dim))


def _low_rank(rank: int) -> Callable[[Inputs], LowRankCosts]:
    # Random rows have no principal axes, so the projected rows are drawn directly.
    return lambda inputs: LowRankCosts(inputs.rows(rank), largest_error=0.0, mean_error=0.0)


def _neighbors(inputs: Inputs) -> NeighborCosts:
    # Means over the other tokens need rows, but only a few dimensions.
    return NeighborCosts.from_table(DenseCosts(inputs.rows(64)), *inputs.table(), measure=False)


def _options(inputs: Inputs, objective: Literal["ce", "emo"]) -> EMOOptions:
    return EMOOptions(objective=objective, softcap=inputs.shape.softcap)


def _linear_ce(inputs: Inputs, costs: Costs | None) -> Tensor:
    return linear_emo_loss(inputs.hidden, inputs.weight, inputs.labels, costs, _options(inputs, "ce"))


def _linear_emo(inputs: Inputs, costs: Costs | None) -> Tensor:
    return linear_emo_loss(inputs.hidden, inputs.weight, inputs.labels, costs, _options(inputs, "emo"))


def _pytorch_ce(inputs: Inputs, costs: Costs | None) -> Tensor:
    options = replace(_options(inputs, "ce"), kernels="torch")
    return linear_emo_loss(inputs.hidden, inputs.weight, inputs.labels, costs, options)


class _Products(torch.autograd.Function):
    """The three matrix products that any such loss needs, 6NVd operations, and nothing else."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros(weight.shape, device=weight.device)
        for rows in range(0, len(hidden), _FLOOR_ROWS):
            block = hidden[rows : rows + _FLOOR_ROWS]
            logits = block @ weight.T
            torch.mm(logits, weight, out=of_hidden[rows : rows + _FLOOR_ROWS])
            add_product_(of_weight, logits, block)
        ctx.gradients = of_hidden, of_weight.to(weight.dtype)
        return hidden.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- any number
        del incoming
        return ctx.gradients


def _products(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    loss = _Products.apply(inputs.hidden, inputs.weight)
    assert isinstance(loss, Tensor)
    return loss


def _logits(inputs: Inputs, hidden: Tensor) -> Tensor:
    logits, cap = hidden @ inputs.weight.T, inputs.shape.softcap
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _full_emo(inputs: Inputs, costs: Costs | None) -> Tensor:
    return emo_loss(_logits(inputs, inputs.hidden), inputs.labels, costs)


def _full_ce(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    return F.cross_entropy(_logits(inputs, inputs.hidden), inputs.labels)


def _straightforward(inputs: Inputs, costs: Costs | None) -> Tensor:
    """The formula, written directly for autograd."""
    assert isinstance(costs, DenseCosts)
    kept = inputs.labels != -100
    labels = inputs.labels[kept]
    log_p = torch.log_softmax(_logits(inputs, inputs.hidden[kept]).float(), dim=1)
    ce = -log_p.gather(1, labels[:, None])[:, 0]
    mean_row = log_p.exp().to(costs.vectors.dtype) @ costs.vectors
    cost = 1 - (mean_row * costs.vectors[labels]).float().sum(dim=1)
    ratio = (ce / (cost + 1e-10)).detach().clamp_max(3.0)
    return (0.5 * (ce + ratio * cost)).mean()


def _published(inputs: Inputs, costs: Costs | None) -> Tensor:
    """The published loss. Position i predicts label i + 1, so it gets one more row, and drops that row's logits.

    The batch is one sequence, so that its slices of logits are views. Other batches need copies, and more memory.
    """
    assert isinstance(costs, DenseCosts)
    logits = _logits(inputs, F.pad(inputs.hidden, (0, 0, 0, 1)))
    labels = F.pad(inputs.labels, (1, 0), value=-100)
    return import_module("emo.loss").EMOLoss(logits[None], labels[None], costs.vectors)


def _torch_linear(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    return F.linear_cross_entropy(inputs.hidden, inputs.weight, inputs.labels)


def _torch_chunked(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(inputs.hidden, inputs.weight, inputs.labels, options=options)


def _liger(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    loss_of = import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    return loss_of(inputs.hidden, inputs.weight, inputs.labels, softcap=inputs.shape.softcap)


def _cut(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    loss_of = import_module("cut_cross_entropy").linear_cross_entropy
    return loss_of(inputs.hidden, inputs.weight, inputs.labels, softcap=inputs.shape.softcap)


def _quack(inputs: Inputs, costs: Costs | None) -> Tensor:
    del costs
    loss_of = import_module("quack.linear_cross_entropy").chunked_linear_cross_entropy
    return loss_of(inputs.hidden, inputs.weight, inputs.labels)


_VARIANTS = (
    Variant("cross-entropy", _linear_ce, _no_costs, "ce"),
    Variant("neighbors 64", _linear_emo, _neighbors, "emo"),
    Variant("low-rank 64", _linear_emo, _low_rank(64), "emo"),
    Variant("low-rank 256", _linear_emo, _low_rank(256), "emo"),
    Variant("dense", _linear_emo, _dense, "emo"),
    Variant("dense, full logits", _full_emo, _dense, "emo"),
    Variant("straightforward EMO", _straightforward, _dense, "emo"),
    Variant("published EMOLoss", _published, _dense, "emo", needs="emo"),
    Variant("F.cross_entropy", _full_ce, _no_costs, "ce"),
    Variant("Liger", _liger, _no_costs, "ce", needs="liger_kernel", cuda=True),
    Variant("cut-cross-entropy", _cut, _no_costs, "ce", needs="cut_cross_entropy", cuda=True),
    Variant("quack", _quack, _no_costs, "ce", needs="quack", softcap=False, cuda=True),
    Variant("cross-entropy, PyTorch's operations", _pytorch_ce, _no_costs, "ce", cuda=True),
    Variant("products alone", _products, _no_costs, "products", cuda=True),
)
