"""Heads that are not one `torch.nn.Linear`: the matrix products in which a model makes its logits.

A model may multiply by a weight itself, compute that weight (from parts, or normalized), scale hidden states inside its
head, or add the product of an adapter. What these have in common is one or several matrix products as wide as the
logits. Such a product x · Wᵀ + b is observed where it is computed, with the factors that it has there. Several
products whose sum is the head's output are one product of their factors, side by side:

    c₁ x₁ W₁ᵀ + c₂ x₂ W₂ᵀ = [c₁ x₁, c₂ x₂] · [W₁, W₂]ᵀ
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from costbank.errors import UsageError
from costbank.trainers.adapters import unwrap_peft
from costbank.trainers.heads import (
    HeadCalls,
    ModelHead,
    check_eager,
    check_weight,
    embedding_rows,
    find_head,
    spread_positions,
    with_more_positions,
)
from costbank.trainers.logit_transform import MeasuredLogits, graph_leaves, logits_of, measure_logits
from costbank.trainers.own_loss_call import MAX_LOGITS, MODEL_ERRORS

__all__ = ["ProductHead", "find_and_measure", "locate_products"]

_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm)
_MOST_PARTS = 4
_SAME = 1e-2


class _Product(NamedTuple):
    """A product hidden · weightᵀ + bias, and a function that computes it with other hidden states."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    compute: Callable[[Tensor], Tensor]


@dataclass
class _Weights:
    """The weight [rows, dim] and the bias of the last call, in place of those of a `torch.nn.Linear`."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class ProductHead(ModelHead):
    """A head of one or several products that are as wide as the logits. `linear` has the weight of the last call.

    Attributes:
        calls: which of the products of that width in a call of the model, counted from 0.
        coefficients: the factor of each of them in the head's output.
        measured: the one to whose output known numbers are appended. The others get zeros.
    """

    calls: tuple[int, ...] = (0,)
    coefficients: tuple[float, ...] = (1.0,)
    measured: int = 0

    @contextmanager
    def watched(self, calls: HeadCalls, positions: int, append: Tensor | None) -> Iterator[None]:
        """See `ModelHead.watched`."""
        parts: list[_Product] = []
        counter = count()

        def compute(product: _Product) -> Tensor:
            if next(counter) not in self.calls:
                return product.compute(product.hidden)
            output = product.compute(spread_positions(product.hidden, positions))
            calls.outputs.append(output)
            is_measured = len(parts) == self.measured
            parts.append(product)
            if len(parts) == len(self.coefficients):
                hidden, self.linear.weight, self.linear.bias = _join(parts, self.coefficients)  # pyright: ignore[reportAttributeAccessIssue]
                calls.append(hidden)
                parts.clear()
            if append is None:
                return output
            return with_more_positions(output, append if is_measured else torch.zeros_like(append))

        with _ProductMode(compute, len(self.linear.weight)):
            yield


class _ProductMode(TorchFunctionMode):
    """Computes products of a width with a function. Each product x · W has x of at least two dimensions, and W of two.

    Args:
        compute: gets a product and returns its output.
        width: the number of columns; None for products of any width.
    """

    def __init__(self, compute: Callable[[_Product], Tensor], width: int | None) -> None:
        super().__init__()
        self._compute, self._width = compute, width

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        named = kwargs or {}
        product = None
        if func is torch.nn.functional.linear:
            product = _linear_product(func, *args, **{"hidden" if k == "input" else k: v for k, v in named.items()})
        elif func in _MATMULS and len(args) == 2 and not named:
            product = _matmul_product(func, *args)
        if product is None or product.hidden.ndim < 2 or product.weight.ndim != 2:
            return func(*args, **named)
        if self._width is not None and len(product.weight) != self._width:
            return func(*args, **named)
        return self._compute(product)


def _linear_product(func: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Product:
    return _Product(hidden, weight, bias, lambda some: func(some, weight, bias))


def _matmul_product(func: Any, one: Tensor, other: Any) -> _Product | None:
    if not isinstance(other, Tensor) or other.ndim != 2:
        return None
    return _Product(one, other.T, None, lambda some: func(some, other))


def _join(parts: list[_Product], coefficients: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Hidden states, weight and bias of one product that is the sum of several, each times its coefficient."""
    if len(parts) == 1:
        return parts[0].hidden, parts[0].weight, parts[0].bias
    first = parts[0]
    hidden = [part.hidden.to(first.hidden) * factor for part, factor in zip(parts, coefficients, strict=True)]
    biases = [part.bias * factor for part, factor in zip(parts, coefficients, strict=True) if part.bias is not None]
    weight = torch.cat([part.weight.to(first.weight) for part in parts], dim=1)
    return torch.cat(hidden, dim=-1), weight, sum(biases[1:], biases[0]) if biases else None


def find_and_measure(model: Any, call: Callable[[], Any]) -> tuple[ModelHead, MeasuredLogits]:
    """Find a model's head, a `torch.nn.Linear` or products, and measure what the model does to its output.

    Args:
        model: the model, with or without PEFT's wrapper.
        call: calls the model with some batch, without gradient, and returns its outputs.

    Raises:
        UsageError: see `find_head` and `measure_logits`; for the head that the model names, if products are none.
    """
    try:
        head = find_head(model)
        return head, measure_logits(head, call)
    except UsageError as error:
        try:
            products = locate_products(model, call)
            if products is not None:
                return products, measure_logits(products, call)
        except UsageError as second:
            raise error from second
        raise


def locate_products(model: Any, call: Callable[[], Any]) -> ProductHead | None:
    """Find the products in which a model makes its logits, in a few calls.

    Args:
        model, call: see `find_and_measure`.

    Returns:
        None if there are none, too many, or their weights do not outlive the call (sharded or offloaded models).

    Raises:
        UsageError: the model is compiled, a weight is quantized, or the logits are not a sum of the products.
    """
    base = unwrap_peft(model)
    check_eager(model)
    check_eager(base)
    if not _is_whole(base):
        return None
    try:
        parts = _search(base, call)
    except torch.OutOfMemoryError:
        raise
    except MODEL_ERRORS:
        return None
    if not 0 < len(parts) <= _MOST_PARTS:
        return None
    for part in parts.values():
        check_weight(part.weight, type(base).__name__)
    weights: Any = _Weights(next(iter(parts.values())).weight)
    head = ProductHead(base, weights, model, tuple(parts), (1.0,) * len(parts))
    return replace(head, coefficients=_coefficients(head, call)) if len(parts) > 1 else head


def _search(model: Any, call: Callable[[], Any]) -> dict[int, _Product]:
    """The products that a model's logits depend on directly, by their number among those of that width.

    In a second call, the output of each such product starts a graph of its own. The logits' graph then ends at the
    products that are in no other one's input.
    """
    widths: list[int] = []
    products: list[_Product] = []
    outputs: list[Tensor] = []
    vocabulary = _vocabulary_widths(model)

    def compute(product: _Product) -> Tensor:
        is_large = product.hidden[..., 0].numel() * len(product.weight) > MAX_LOGITS
        # One position suffices for logits.
        some = is_large and len(product.weight) in vocabulary
        return product.compute(spread_positions(product.hidden, 1) if some else product.hidden)

    def record(product: _Product) -> Tensor:
        widths.append(len(product.weight))
        return compute(product)

    def cut(product: _Product) -> Tensor:
        products.append(product)
        outputs.append(compute(product).detach().requires_grad_())
        # A copy, because a model may add a bias in place.
        return outputs[-1].clone()

    with torch.no_grad(), _ProductMode(record, None):
        width = logits_of(call()).shape[-1]
    wide = [rows for rows in widths if rows >= width]
    if not wide:
        return {}
    with torch.enable_grad(), _ProductMode(cut, wide[-1]):
        logits = logits_of(call())
    reached = {id(leaf) for leaf in graph_leaves(logits.grad_fn)}
    return {i: product for i, product in enumerate(products) if id(outputs[i]) in reached}


def _coefficients(head: ProductHead, call: Callable[[], Any]) -> tuple[float, ...]:
    """The factor of each product in their sum, relative to that of the first.

    Raises:
        UsageError: the logits are not a function of such a sum.
    """
    parts = range(len(head.coefficients))
    transforms = [measure_logits(replace(head, measured=part), call).transform for part in parts]
    first = transforms[0]
    for other in transforms[1:]:
        ratio = other.scale / first.scale
        if other.softcap != first.softcap and abs((other.softcap or 0.0) - (first.softcap or 0.0)) > _SAME * ratio:
            raise UsageError(f"{type(head.model).__name__} caps the products in its head separately")
    return tuple(transform.scale / first.scale for transform in transforms)


def _is_whole(model: Any) -> bool:
    """Whether parameters are plain tensors that stay where they are after a call: not sharded, and not offloaded."""
    sharded = any(kind.__name__ == "FullyShardedDataParallel" for m in model.modules() for kind in type(m).__mro__)
    return not sharded and not any(
        p.is_meta or p.shape == (0,) or hasattr(p, "placements") or hasattr(p, "ds_id") for p in model.parameters()
    )


def _vocabulary_widths(model: Any) -> set[int]:
    """Widths that are probably those of logits, for which one position suffices while products are searched."""
    return {embedding_rows(model, method) for method in ("get_input_embeddings", "get_output_embeddings")} - {0}
