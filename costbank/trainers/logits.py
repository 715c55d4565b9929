"""What a model does between its head and its logits: a scale, a softcap, a bias, tokens that it masks or leaves out.

It is measured, and not read from a config: the head's output is replaced by numbers that are known, and the logits that
come out show what the model does. So it does not matter what a config calls a setting, whether the model applies it,
and what the head's weight holds; a head of zeros is as good as any.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.loss import EMOOptions
from costbank.trainers.heads import FULL_LOGITS, Head

__all__ = ["LogitForm", "learned_after", "measure_form"]

# Magnitudes that are put in the place of logits: 2^-6 to 2^14, which float16 can hold.
_LEAST, _MOST = -6.0, 14.0
# A mask is the least number of its type, or -inf; no bias of a trained model is anything like it.
_MASKED = -1e4
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class LogitForm:
    """Logits as a function of x = hidden · weightᵀ + bias, the head's output.

    They are C · tanh(scale · x / C) of a softcap C, or scale · x without one, plus `offset`.

    Attributes:
        width: number of logits; of a wider head, the first rows.
        scale: of the head's output.
        softcap: C, or None.
        offset: [width], in float32, −inf where a token is masked; None where there is none.
    """

    width: int
    scale: float = 1.0
    softcap: float | None = None
    offset: Float[Tensor, "width"] | None = None

    def options(self, options: EMOOptions) -> EMOOptions:
        """Options by which a linear loss of the head's weight is that of the model's logits.

        A scale s of the logits is a temperature 1 / s of the loss: C tanh(s x / C) / T is c tanh(x / c) / (T / s) for
        c = C / s.
        """
        softcap = None if self.softcap is None else self.softcap / self.scale
        return replace(options, softcap=softcap, temperature=options.temperature / self.scale)

    def weight(self, linear: nn.Linear) -> Tensor:
        """The head's rows that have logits, [width, dim]."""
        return linear.weight if len(linear.weight) == self.width else linear.weight[: self.width]

    def bias(self, linear: nn.Linear) -> Tensor | None:
        """What a linear loss adds to its products, [width]; None for nothing."""
        bias = None if linear.bias is None else linear.bias[: self.width]
        if self.offset is None:
            return bias
        offset = self.offset.to(linear.weight.device) / self.scale
        return offset if bias is None else offset + bias.float()

    def apply(self, scores: Float[Tensor, "*rows some"], tokens: slice = slice(None)) -> Float[Tensor, "*rows some"]:
        """The logits of some tokens, of what the head gives them."""
        logits = scores * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.offset is None else logits + self.offset[tokens].to(logits.device)

    def __str__(self) -> str:
        parts = [f"a scale of {self.scale:.6g}"] if self.scale != 1.0 else []
        if self.softcap is not None:
            parts.append(f"a softcap of {self.softcap:.6g}")
        if self.offset is not None:
            masked = int(self.offset.isneginf().sum())
            parts += [f"{masked:,} masked tokens"] if masked else ["a bias"]
        return " and ".join(parts) or "nothing"


def measure_form(head: Head, call: Callable[[], Any]) -> LogitForm:
    """Measure what a model does to its head's output.

    Args:
        head: of the model.
        call: calls the model with some batch, without gradient, and returns its outputs.

    Raises:
        UsageError: the model calls its head more or less often than once, something between the head and the logits is
            learned, or it is neither a scale nor a softcap.
    """
    name, rows = type(head.model).__name__, _known(len(head.linear.weight))
    counts: list[torch.dtype] = []

    def answer(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        counts.append(output.dtype)
        values = rows.to(output.device, output.dtype)
        return values.expand(*output.shape[:-2], *values.shape) if output.ndim > 1 else output

    handle = head.linear.register_forward_hook(answer)
    try:
        with head.hidden_states(), torch.no_grad():
            logits = logits_of(call())
    except UsageError:
        raise
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if not counts:
            raise
        raise UsageError(
            f"{name} needs the logits of all positions itself: with those of some it raised {type(error).__name__}: "
            f"{error}",
            FULL_LOGITS,
        ) from error
    finally:
        handle.remove()
    check_calls(head, len(counts))
    if logits.ndim < 3 or logits.shape[-2] != len(rows):
        raise UsageError(f"{name} gives logits of shape {list(logits.shape)} for {len(rows)} positions", FULL_LOGITS)
    answers = logits.flatten(0, -3)[0].double().cpu()
    inputs = rows.to(counts[0]).double()
    eps = max(torch.finfo(counts[0]).eps, torch.finfo(logits.dtype).eps)
    return _fit(name, inputs, answers, eps, list(_numbers(getattr(head.model, "config", None))))


def check_calls(head: Head, count: int) -> None:
    """Check that a model called its head once.

    Raises:
        UsageError: it did not, as where it multiplies with the weight itself, or predicts several tokens at once.
    """
    if count != 1:
        raise UsageError(
            f"{type(head.model).__name__} calls its head ({type(head.linear).__name__}) {count} times for a batch, so "
            "its hidden states cannot be taken there",
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
        raise UsageError(f"the model gives no logits: {names}", "give a model with a language-model head")
    return logits


@contextmanager
def learned_after(head: Head) -> Iterator[Callable[[Tensor], list[list[int]]]]:
    """Yield a function of the logits that the model makes within: the shapes of parameters between head and logits.

    They are found in the graph of the gradient, so there are none where none is kept. The graph is followed from the
    outputs of the model itself: what wraps it, as DistributedDataParallel does where it looks for unused parameters,
    may join all outputs in one node, and then every parameter stands before the logits.
    """
    heads: list[Any] = []
    outputs: list[Any] = []

    def parameters(logits: Tensor) -> list[list[int]]:
        found, seen = [], {output.grad_fn for output in heads}
        # A module within returns before the one around it. PEFT calls some models past their hooks, but never itself.
        left: list[Any] = [(logits_of(outputs[0]) if outputs else logits).grad_fn]
        while left:
            node = left.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if hasattr(node, "variable"):
                found.append(list(node.variable.shape))
            left += [before for before, _ in node.next_functions]
        return found

    with ExitStack() as hooks:
        hooks.callback(head.linear.register_forward_hook(lambda _m, _i, output: heads.append(output)).remove)
        for module in head.wrapped():
            hooks.callback(module.register_forward_hook(lambda _m, _i, output: outputs.append(output)).remove)
        yield parameters


def _known(width: int) -> Float64[Tensor, "three width"]:
    """Zeros; numbers of many sizes and both signs, one for each token; and these in another order."""
    places = (torch.arange(width, dtype=torch.float64) * _GOLDEN) % 1.0
    values = torch.exp2(_LEAST + (_MOST - _LEAST) * places) * (1 - 2 * (torch.arange(width) % 2))
    return torch.stack([torch.zeros_like(values), values, -values.flip(0)])


def _fit(name: str, inputs: Tensor, answers: Tensor, eps: float, named: list[float]) -> LogitForm:
    width = answers.shape[-1]
    if width > inputs.shape[-1]:
        raise UsageError(f"{name} gives {width:,} logits where its head has {inputs.shape[-1]:,} rows", FULL_LOGITS)
    inputs, offset = inputs[:, :width], answers[0]
    masked = (answers <= _MASKED).all(dim=0) & (answers == answers[0]).all(dim=0)
    offset = offset.masked_fill(masked, -math.inf)
    given, seen = inputs[1:, ~masked], (answers[1:] - answers[0])[:, ~masked]
    # What a 16-bit type cannot hold any more says nothing.
    fits = seen.isfinite()
    given, seen = given[fits], seen[fits]
    around = offset.expand(2, -1)[:, ~masked][fits].abs()
    scale, softcap = _scale_and_cap(given, seen, 8 * eps, around)
    if scale is None:
        near = given.abs().sub(1.0).abs().argmin() if len(given) else None
        shown = "" if near is None else f": the head's {given[near]:.3g} becomes {seen[near]:.3g}"
        raise UsageError(
            f"{name} does something to its logits that is neither a scale nor a softcap{shown}", FULL_LOGITS
        )
    scale = _named(scale, named, 2 * eps)
    softcap = None if softcap is None else _named(softcap, named, 2 * eps)
    plain = not masked.any() and not offset.any()
    if softcap is not None and not plain and offset[~masked].any():
        raise UsageError(f"{name} adds a bias to logits that it has capped", FULL_LOGITS)
    return LogitForm(width, scale, softcap, None if plain else offset.float())


def _scale_and_cap(given: Tensor, seen: Tensor, rounding: float, around: Tensor) -> tuple[float | None, float | None]:
    """The scale and the softcap by which `given` became `seen`; None for both where neither explains it."""

    def explains(model: Tensor) -> bool:
        return bool(((seen - model).abs() <= rounding * (model.abs() + around)).all())

    if not len(given):
        return None, None
    scale = float((seen / given).median())
    if scale > 0 and explains(scale * given):
        return scale, None
    cap = float(seen.abs().max())
    middle = (seen.abs() < 0.7 * cap) & (seen.abs() > 0.02 * cap)
    if not middle.any():
        return None, None
    scale = float((cap * torch.atanh(seen[middle] / cap) / given[middle]).median())
    if scale > 0 and explains(cap * torch.tanh(scale * given / cap)):
        return scale, cap
    return None, None


def _named(value: float, named: list[float], rounding: float) -> float:
    """The number of the config that a measured one is, or its inverse; else itself."""
    exact = [1.0, *named, *(1 / number for number in named)]
    near = min(exact, key=lambda number: abs(number - value))
    return near if abs(near - value) <= rounding * abs(value) else value


def _numbers(config: Any) -> Iterator[float]:
    """All positive numbers in a config, its parts included."""
    for value in (vars(config) if hasattr(config, "__dict__") else config if isinstance(config, dict) else {}).values():
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value > 0 and math.isfinite(value):
                yield float(value)
        elif isinstance(value, dict) or hasattr(value, "to_dict"):
            yield from _numbers(value)
