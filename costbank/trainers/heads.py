"""The language-model head of a Hugging Face model, and the hidden states that go into it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.trainers.adapters import base_of, in_use

__all__ = ["FULL_LOGITS", "Head", "cut_inputs", "find_head", "output_module"]

FULL_LOGITS = "give emo=EMOLoss(bank), which takes the model's own logits"
"""What to do where the linear form cannot be used."""


@dataclass(frozen=True)
class Head:
    """Where the logits of a model come from.

    Attributes:
        model: the model itself, whatever wraps it.
        linear: the head.
        outer: the model as it was given, with what wraps it.
    """

    model: Any
    linear: nn.Linear
    outer: Any = None

    def wrapped(self) -> list[nn.Module]:
        """The model as it was given, and the model itself where that is another module."""
        return list({id(m): m for m in (self.outer, self.model) if isinstance(m, nn.Module)}.values())

    @contextmanager
    def hidden_states(self) -> Iterator[list[Float[Tensor, "batch length dim"]]]:
        """A list that gets the head's inputs of all positions when the model is called within.

        The head itself sees the last position alone, so that the model makes the logits of one position, whether it
        has `logits_to_keep` or not; a `logits_to_keep` that it is called with is left out. Hooks do this, and are there
        for as long as the context is; no forward is replaced.
        """
        caught: list[Tensor] = []

        def last(hidden: Tensor) -> Tensor:
            caught.append(hidden)
            return hidden[..., -1:, :] if hidden.ndim > 1 else hidden

        def keep_all(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            return arguments, {name: value for name, value in named.items() if name != "logits_to_keep"}

        with ExitStack() as hooks:
            for module in self.wrapped():
                hooks.callback(module.register_forward_pre_hook(keep_all, with_kwargs=True).remove)
            hooks.enter_context(cut_inputs(self.linear, last))
            yield caught


@contextmanager
def cut_inputs(module: nn.Module, cut: Any) -> Iterator[None]:
    """Have a module see `cut(inputs)` in the place of its inputs."""

    def change(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if arguments:
            return (cut(arguments[0]), *arguments[1:]), named
        name = next(iter(named))
        return arguments, {**named, name: cut(named[name])}

    handle = module.register_forward_pre_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def output_module(model: Any) -> nn.Module | None:
    """The module that makes the logits, of any kind: of one that PEFT trains whole, the copy in use."""
    model = base_of(model)
    module = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return None if module is None else in_use(module)


def find_head(model: Any) -> Head:
    """Find the head of a language model; PEFT's wrapping is looked through.

    A head that PEFT trains whole (`modules_to_save`) is the active adapter's copy.

    Raises:
        UsageError: the model is compiled as a whole, or has no head that is one whole `torch.nn.Linear`.
    """
    outer, model = model, base_of(model)
    name = type(model).__name__
    check_eager(outer)
    check_eager(model)
    head = output_module(model)
    if head is None:
        raise UsageError(f"{name} does not say which part of it is the head (get_output_embeddings)", FULL_LOGITS)
    # An adapter's layer holds the weight that it adapts, and would be left out silently: an adapter begins as zeros,
    # and no comparison of the first batch would see it.
    if hasattr(head, "base_layer") or type(head).__module__.startswith("peft."):
        raise UsageError(
            f"the head of {name} is adapted by PEFT's {type(head).__module__}.{type(head).__name__}, and is no longer "
            "one weight",
            "keep the adapter off the head (target_modules, target_parameters and trainable_token_indices without it, "
            f"and ensure_weight_tying=False), train it whole with modules_to_save, or {FULL_LOGITS}",
        )
    if not isinstance(head, nn.Linear):
        raise UsageError(f"the head of {name} is {type(head).__name__}, not a torch.nn.Linear", FULL_LOGITS)
    check_forward(head, name)
    check_weight(head.weight, name)
    return Head(model, head, outer)


def check_eager(model: Any) -> None:
    """Check that a model is not compiled as a whole.

    Raises:
        UsageError: it is: the hook on its head would not be called inside the compiled graph.
    """
    original = getattr(model, "_orig_mod", None)
    if original is not None or getattr(model, "_compiled_call_impl", None) is not None:
        name = type(model if original is None else base_of(original)).__name__
        raise UsageError(
            f"{name} is compiled as a whole (torch.compile), and hooks on its head are not called inside the graph",
            f"compile its backbone alone (model.base_model.compile()), or {FULL_LOGITS}",
        )


def check_forward(head: nn.Linear, name: str) -> None:
    """Check that a head computes what `torch.nn.Linear` does, from its structure.

    Raises:
        UsageError: its class or the module itself has another `forward`, as adapters outside PEFT, muP read-outs and
            quantized layers do.
    """
    own = vars(head).get("forward")
    # accelerate moves inputs between devices in a forward of its own, around the one that was there.
    moved = own is not None and getattr(vars(head).get("_old_forward"), "__func__", None) is nn.Linear.forward
    if type(head).forward is nn.Linear.forward and (own is None or moved):
        return
    what = f"{type(head).__module__}.{type(head).__name__}"
    raise UsageError(
        f"the head of {name} is {what}, whose forward is not that of torch.nn.Linear"
        if own is None
        else f"the forward of the head of {name} ({what}) has been replaced",
        f"what it does besides the product with its weight would be left out; {FULL_LOGITS}",
    )


def check_weight(weight: Tensor, name: str) -> None:
    """Check that a head's weight is there, whole, in floating point.

    Raises:
        UsageError: it is sharded, quantized or offloaded.
    """
    sharded = hasattr(weight, "placements")
    plain = type(weight.data) is Tensor and not weight.is_meta
    if sharded or not plain or weight.ndim != 2 or not weight.numel() or not weight.is_floating_point():
        kind = ", a DTensor" if sharded else "" if plain else f", a {type(weight.data).__name__} on {weight.device}"
        raise UsageError(
            f"the head of {name} is sharded, quantized or offloaded: its weight is {weight.dtype} of shape "
            f"{list(weight.shape)}{kind}",
            f"keep the head whole, or {FULL_LOGITS}",
        )


def block_logits(linear: nn.Linear, hidden: Float[Tensor, "*rows dim"], tokens: slice) -> Float[Tensor, "*rows some"]:
    """What a head gives some tokens, in float32."""
    weight = linear.weight[tokens]
    bias = None if linear.bias is None else linear.bias[tokens].float()
    with torch.autocast(weight.device.type, enabled=False):
        return nn.functional.linear(hidden.to(weight.device).float(), weight.float(), bias)
