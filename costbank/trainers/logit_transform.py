"""What a model does between its head and its logits: a scale, a softcap, a bias, masked or omitted tokens.

It is measured, not read from a config: known numbers replace the head's output, and the resulting logits show what the
model does with them. So it does not matter what a config calls a setting, whether the model applies it, or what the
head's weight is, even if that is all zeros.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.loss import EMOOptions
from costbank.trainers.heads import FULL_LOGITS, HeadCalls, ModelHead, spread_positions

__all__ = [
    "LogitTransform",
    "MeasuredLogits",
    "check_called_once",
    "graph_leaves",
    "known_outputs",
    "logits_of",
    "measure_logits",
    "parameters_after_head",
]

# Exponents of the magnitudes that replace the head's output: 2^-6 to 2^14, which float16 can hold.
_LEAST_EXPONENT, _LARGEST_EXPONENT = -6.0, 14.0
# Masked logits are the smallest number of their type, or -inf. No bias of a trained model is as low as this.
_MASKED_BELOW = -1e4
# Multiples of the golden ratio, modulo 1, are spread evenly over [0, 1).
_GOLDEN_RATIO = 0.6180339887498949
# The part of a capped curve that determines its scale: neither flat nor rounded away.
_CURVE_MIDDLE = (0.02, 0.7)
_ROUNDING_STEPS = 8
# Positions at which the model's own logits are compared.
_COMPARED_POSITIONS = 4


@dataclass(frozen=True)
class LogitTransform:
    """Logits as a function of x = hidden · weightᵀ + bias, the head's output.

    They are C · tanh(scale · x / C) for a softcap C, or scale · x without one, plus `offset`.

    Attributes:
        width: the number of logits; if the head has more rows, these are the first.
        scale: the factor of the head's output.
        softcap: C, or None.
        offset: [width], float32, −inf for a masked token; None if there is none.
        factor: the scale as the model computes it from parameters, with its gradient; None if the scale is constant.
    """

    width: int
    scale: float = 1.0
    softcap: float | None = None
    offset: Float[Tensor, "width"] | None = None
    factor: Float[Tensor, ""] | None = None

    def options(self, options: EMOOptions) -> EMOOptions:
        """Options with which a linear loss of the head's weight is the loss of the model's logits.

        A scale s of the logits is a temperature 1 / s of the loss: C tanh(s x / C) / T is c tanh(x / c) / (T / s) for
        c = C / s. A factor with a gradient multiplies hidden states and bias instead.
        """
        if self.factor is not None:
            return replace(options, softcap=self.softcap)
        softcap = None if self.softcap is None else self.softcap / self.scale
        return replace(options, softcap=softcap, temperature=options.temperature / self.scale)

    def hidden(self, hidden: Tensor) -> Tensor:
        """Hidden states for a linear loss."""
        return hidden if self.factor is None else hidden * self.factor.to(hidden.device, hidden.dtype)

    def weight(self, linear: nn.Linear) -> Tensor:
        """The rows of the head's weight that have logits, [width, dim]."""
        return linear.weight if len(linear.weight) == self.width else linear.weight[: self.width]

    def bias(self, linear: nn.Linear) -> Tensor | None:
        """The bias for a linear loss, [width]; None if there is none."""
        bias = None if linear.bias is None else linear.bias[: self.width]
        if self.factor is not None and bias is not None:
            bias = bias.float() * self.factor.to(bias.device)
        if self.offset is None:
            return bias
        offset = self.offset.to(linear.weight.device) / (self.scale if self.factor is None else 1.0)
        return offset if bias is None else offset + bias.float()

    def apply(self, outputs: Float[Tensor, "*rows some"], tokens: slice = slice(None)) -> Float[Tensor, "*rows some"]:
        """The logits of some tokens, from the head's output for them."""
        logits = outputs * (self.scale if self.factor is None else self.factor.to(outputs.device))
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.offset is None else logits + self.offset[tokens].to(logits.device)

    def __str__(self) -> str:
        parts = [f"a scale of {self.scale:.6g}"] if self.scale != 1.0 else []
        if self.factor is not None:
            parts = [f"a learned scale of {float(self.factor):.6g}"]
        if self.softcap is not None:
            parts.append(f"a softcap of {self.softcap:.6g}")
        if self.offset is not None:
            masked = int(self.offset.isneginf().sum())
            bias = "a learned bias" if self.offset.requires_grad else "a bias"
            parts += [f"{masked:,} masked tokens"] if masked else [bias]
        return " and ".join(parts) or "nothing"


@dataclass(frozen=True)
class MeasuredLogits:
    """What a model does to its head's output, and logits of the same call to compare it with.

    Attributes:
        transform: what the model does.
        hidden: the head's input at a few positions, [batch, some, dim].
        logits: the model's own logits at these positions, [batch, some, width].
        output_dtype: the type of the head's output, which under autocast is not that of its weight.
    """

    transform: LogitTransform
    hidden: Tensor
    logits: Tensor
    output_dtype: torch.dtype


def measure_logits(head: ModelHead, call: Callable[[], Any]) -> MeasuredLogits:
    """Measure what a model does to its head's output.

    Known numbers are added to the head's output as more positions, in the same call of the model.

    Args:
        head: the model's head.
        call: calls the model with some batch, without gradient, and returns its outputs.

    Raises:
        UsageError: the model does not call its head exactly once, needs the logits of all positions, or does
            something other than scale, cap, shift and mask its head's output.
    """
    name, known = type(head.model).__name__, known_outputs(len(head.linear.weight))
    calls = HeadCalls()
    try:
        with head.hidden_states(_COMPARED_POSITIONS, append=known) as calls, torch.no_grad():
            logits = logits_of(call())
    except (UsageError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if not calls:
            raise
        raise UsageError(
            f"{name} needs the logits of all positions itself: with only a few positions, it raised "
            f"{type(error).__name__}: {error}",
            FULL_LOGITS,
        ) from error
    check_called_once(head, len(calls))
    hidden = spread_positions(calls[0], _COMPARED_POSITIONS)
    positions = hidden.shape[-2] + len(known)
    if logits.ndim < 3 or logits.shape[-2] != positions:
        raise UsageError(f"{name} returns logits of shape {list(logits.shape)} for {positions} positions", FULL_LOGITS)
    if logits.shape[-1] > known.shape[-1]:
        raise UsageError(
            f"{name} returns {logits.shape[-1]:,} logits, but its head has {known.shape[-1]:,} rows", FULL_LOGITS
        )
    dtype = calls.outputs[0].dtype
    outputs = known.to(dtype).double()[:, : logits.shape[-1]]
    eps = max(torch.finfo(dtype).eps, torch.finfo(logits.dtype).eps)
    config_values = list(_positive_numbers(getattr(head.model, "config", None)))
    of_known = logits[..., hidden.shape[-2] :, :].flatten(0, -3)[0].double().cpu()
    transform = _fit(name, outputs, of_known, eps, config_values)
    return MeasuredLogits(transform, hidden, logits[..., : hidden.shape[-2], :], dtype)


def check_called_once(head: ModelHead, count: int) -> None:
    """Check that a model called its head once.

    Raises:
        UsageError: it did not, because it multiplies by the weight itself, or predicts several tokens at once.
    """
    if count != 1:
        raise UsageError(
            f"{type(head.model).__name__} calls its head ({type(head.linear).__name__}) {count} times for a batch, so "
            "its hidden states cannot be read there",
            FULL_LOGITS,
        )


def logits_of(outputs: Any) -> Tensor:
    """The logits among a model's outputs.

    Raises:
        UsageError: there are none.
    """
    logits = outputs.get("logits") if isinstance(outputs, dict) else outputs[0]
    if not isinstance(logits, Tensor):
        names = ", ".join(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise UsageError(f"the model returns no logits; it returns {names}", "use a model with a language-model head")
    return logits


@contextmanager
def parameters_after_head(head: ModelHead) -> Iterator[Callable[[Tensor, HeadCalls], list[Tensor]]]:
    """Yield a function of logits made in the context, and the head's calls: the parameters between head and logits.

    The parameters are those in the gradient's graph; there are none without a graph. The search starts from the outputs
    of the model itself. A wrapper may join all outputs in one node, as DistributedDataParallel does when it looks for
    unused parameters, so that every parameter seems to come after the head.
    """
    model_outputs: list[Any] = []

    def parameters(logits: Tensor, calls: HeadCalls) -> list[Tensor]:
        # A wrapped model returns before its wrapper. PEFT skips the hooks of some wrapped models, but not its own.
        last = (logits_of(model_outputs[0]) if model_outputs else logits).grad_fn
        return graph_leaves(last, stop={output.grad_fn for output in calls.outputs})

    with ExitStack() as hooks:
        for module in head.modules():
            hooks.callback(module.register_forward_hook(lambda _m, _i, output: model_outputs.append(output)).remove)
        yield parameters


def graph_leaves(node: Any, stop: Iterable[Any] = ()) -> list[Tensor]:
    """The tensors whose gradients a graph computes, without those that are reached only through nodes in `stop`."""
    leaves, visited, pending = [], set(stop), [node]
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        pending += [parent for parent, _ in node.next_functions]
    return leaves


def known_outputs(width: int) -> Float64[Tensor, "three width"]:
    """Three head outputs: zeros; numbers of many magnitudes and both signs; and these in reverse, negated."""
    fractions = (torch.arange(width, dtype=torch.float64) * _GOLDEN_RATIO) % 1.0
    magnitudes = torch.exp2(_LEAST_EXPONENT + (_LARGEST_EXPONENT - _LEAST_EXPONENT) * fractions)
    values = magnitudes * (1 - 2 * (torch.arange(width) % 2))
    return torch.stack([torch.zeros_like(values), values, -values.flip(0)])


def _fit(
    name: str,
    outputs: Float64[Tensor, "three width"],
    logits: Float64[Tensor, "three width"],
    eps: float,
    config_values: list[float],
) -> LogitTransform:
    """The transform that turns the known outputs of a head into these logits."""
    masked = (logits <= _MASKED_BELOW).all(dim=0) & (logits == logits[0]).all(dim=0)
    offset = logits[0].masked_fill(masked, -math.inf)
    has_offset = bool(masked.any() or offset.any())
    x, y = outputs[1:, ~masked], (logits[1:] - logits[0])[:, ~masked]
    # 16-bit types can overflow.
    finite = y.isfinite()
    x, y = x[finite], y[finite]
    offset_size = offset.expand(2, -1)[:, ~masked][finite].abs()
    scale, softcap = _fit_curve(x, y, _ROUNDING_STEPS * eps, offset_size)
    if scale is None:
        near_one = x.abs().sub(1.0).abs().argmin() if len(x) else None
        example = "" if near_one is None else f": {x[near_one]:.3g} from the head becomes {y[near_one]:.3g}"
        raise UsageError(
            f"{name} does something to its logits that is neither a scale nor a softcap{example}", FULL_LOGITS
        )
    scale = _snap(scale, config_values, 2 * eps)
    softcap = None if softcap is None else _snap(softcap, config_values, 2 * eps)
    if softcap is not None and offset[~masked].any():
        raise UsageError(f"{name} adds a bias to logits after their softcap", FULL_LOGITS)
    return LogitTransform(logits.shape[-1], scale, softcap, offset.float() if has_offset else None)


def _fit_curve(x: Tensor, y: Tensor, rounding: float, offset_size: Tensor) -> tuple[float | None, float | None]:
    """The scale, and the softcap if there is one, with which x becomes y; None and None if there are none."""

    def fits(predicted: Tensor) -> bool:
        return bool(((y - predicted).abs() <= rounding * (predicted.abs() + offset_size)).all())

    if not len(x):
        return None, None
    scale = float((y / x).median())
    if scale > 0 and fits(scale * x):
        return scale, None
    cap = float(y.abs().max())
    least, most = _CURVE_MIDDLE
    middle = (y.abs() < most * cap) & (y.abs() > least * cap)
    if not middle.any():
        return None, None
    scale = float((cap * torch.atanh(y[middle] / cap) / x[middle]).median())
    if scale > 0 and fits(cap * torch.tanh(scale * x / cap)):
        return scale, cap
    return None, None


def _snap(value: float, config_values: list[float], rounding: float) -> float:
    """The exact value for a measured one: 1, a number from the config, or the inverse of one, if any is close."""
    exact_values = [1.0, *config_values, *(1 / number for number in config_values)]
    nearest = min(exact_values, key=lambda number: abs(number - value))
    return nearest if abs(nearest - value) <= rounding * abs(value) else value


def _positive_numbers(config: Any) -> Iterator[float]:
    """All positive numbers in a config and its nested configs."""
    for value in (vars(config) if hasattr(config, "__dict__") else config if isinstance(config, dict) else {}).values():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value > 0 and math.isfinite(value):
                yield float(value)
        elif isinstance(value, dict) or hasattr(value, "to_dict"):
            yield from _positive_numbers(value)
