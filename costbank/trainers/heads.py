"""The language-model head of a Hugging Face model, and the hidden states that it gets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from costbank.errors import UsageError
from costbank.trainers.adapters import active_module, unwrap_peft

__all__ = [
    "FULL_LOGITS",
    "HeadCalls",
    "ModelHead",
    "check_eager",
    "check_weight",
    "embedding_rows",
    "find_head",
    "head_output",
    "head_rows",
    "output_module",
    "replaced_input",
    "spread_positions",
    "with_more_positions",
]

FULL_LOGITS = "give emo=EMOLoss(bank), the logits form, which uses the model's own logits"
"""The hint of errors about models that the linear form cannot be used with."""


class HeadCalls(list[Tensor]):
    """The head's inputs, [batch, length, dim], one for each call of the model.

    Attributes:
        outputs: the head's outputs, for the positions that it got.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []


@dataclass(frozen=True)
class ModelHead:
    """The head of a model.

    Attributes:
        model: the model without wrappers.
        linear: its head.
        wrapper: the model with its wrappers, as `find_head` got it.
    """

    model: Any
    linear: nn.Linear
    wrapper: Any = None

    def modules(self) -> list[nn.Module]:
        """The model with its wrappers and without, once if they are the same."""
        return list({id(m): m for m in (self.wrapper, self.model) if isinstance(m, nn.Module)}.values())

    @contextmanager
    def hidden_states(
        self, positions: int = 1, *, append: Float[Tensor, "more rows"] | None = None
    ) -> Iterator[HeadCalls]:
        """Yield a list to which each call of the model appends the head's input at all positions.

        The head itself gets only the last position, so the model computes the logits of one position, whether it has a
        `logits_to_keep` or not. If it is called with a `logits_to_keep`, the argument is dropped. Forward hooks do
        this while the context is open; no `forward` is replaced.

        Args:
            positions: how many positions the head gets; see `spread_positions`.
            append: outputs that follow those of the head, as more positions of each row.
        """
        calls = HeadCalls()

        def drop_logits_to_keep(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> tuple[tuple, dict]:
            return arguments, {name: value for name, value in named.items() if name != "logits_to_keep"}

        with ExitStack() as hooks:
            for module in self.modules():
                hooks.callback(module.register_forward_pre_hook(drop_logits_to_keep, with_kwargs=True).remove)
            hooks.enter_context(self.watched(calls, positions, append))
            yield calls

    @contextmanager
    def watched(self, calls: HeadCalls, positions: int, append: Tensor | None) -> Iterator[None]:
        """Append to `calls`, and change what the head gets and returns, while the context is open."""

        def keep_some(hidden: Tensor) -> Tensor:
            calls.append(hidden)
            return spread_positions(hidden, positions)

        def add_outputs(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            calls.outputs.append(output)
            return output if append is None else with_more_positions(output, append)

        with ExitStack() as hooks:
            hooks.callback(self.linear.register_forward_hook(add_outputs).remove)
            hooks.enter_context(replaced_input(self.linear, keep_some))
            yield


def spread_positions(hidden: Float[Tensor, "*batch length dim"], count: int) -> Float[Tensor, "*batch some dim"]:
    """Hidden states at up to `count` positions that are spread evenly, the last one included."""
    if hidden.ndim < 2:
        return hidden
    length = hidden.shape[-2]
    chosen = sorted({length - 1 - (length * step) // count for step in range(min(count, length))})
    return hidden[..., chosen, :] if len(chosen) > 1 else hidden[..., -1:, :]


def with_more_positions(output: Float[Tensor, "*batch some rows"], more: Float[Tensor, "more rows"]) -> Tensor:
    """A head's output, followed by `more` in each row of the batch."""
    if output.ndim < 2:
        return output
    return torch.cat([output, more.to(output.device, output.dtype).expand(*output.shape[:-2], *more.shape)], dim=-2)


@contextmanager
def replaced_input(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Call a module with `replace(x)` instead of its first input x."""

    def hook(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if arguments:
            return (replace(arguments[0]), *arguments[1:]), named
        name = next(iter(named))
        return arguments, {**named, name: replace(named[name])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def output_module(model: Any) -> nn.Module | None:
    """The module that makes the logits, of any class. If PEFT trains a copy of it, this is the copy in use."""
    model = unwrap_peft(model)
    module = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return None if module is None else active_module(module)


def embedding_rows(model: Any, method: str) -> int:
    """The rows of the weight of the module that a method of the model returns; 0 if there is none."""
    try:  # a model may have no such method, not implement it, or return None or a module without a tensor
        return len(getattr(model, method)().weight)
    except (AttributeError, NotImplementedError, TypeError):
        return 0


def head_rows(model: Any) -> int | None:
    """The rows of the weight that a model names as its head; None if that is another layer, sharded or quantized."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    tokens = embedding_rows(model, "get_input_embeddings")
    # A sharded or quantized weight has another shape. It is refused later, with its name.
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point() or len(weight) < tokens:
        return None
    return len(weight)


def find_head(model: Any) -> ModelHead:
    """Find the head of a language model, inside PEFT's wrapper if there is one.

    If PEFT trains a copy of the head (`modules_to_save`), it is the active adapter's copy.

    Raises:
        UsageError: the model is compiled as a whole, or its head is not one unsharded `torch.nn.Linear`.
    """
    wrapper, model = model, unwrap_peft(model)
    name = type(model).__name__
    check_eager(wrapper)
    check_eager(model)
    head = output_module(model)
    if head is None:
        raise UsageError(f"{name} does not say which part of it is the head (get_output_embeddings)", FULL_LOGITS)
    # An adapter's layer also has a weight, that of the layer it adapts. The adapter would be left out silently: it
    # starts at zero, so no comparison of the first batch would show it.
    if hasattr(head, "base_layer") or type(head).__module__.startswith("peft."):
        raise UsageError(
            f"the head of {name} is adapted by PEFT's {type(head).__module__}.{type(head).__name__}, so it is not one "
            "weight",
            "keep the adapter off the head (leave it out of target_modules, target_parameters and "
            "trainable_token_indices, and set ensure_weight_tying=False), train it fully with modules_to_save, or "
            f"{FULL_LOGITS}",
        )
    if not isinstance(head, nn.Linear):
        raise UsageError(f"the head of {name} is {type(head).__name__}, not a torch.nn.Linear", FULL_LOGITS)
    check_forward(head, name)
    check_weight(head.weight, name)
    return ModelHead(model, head, wrapper)


def check_eager(model: Any) -> None:
    """Check that a model is not compiled as a whole.

    Raises:
        UsageError: it is. The compiled graph would not call the hook on its head.
    """
    original = getattr(model, "_orig_mod", None)
    if original is not None or getattr(model, "_compiled_call_impl", None) is not None:
        name = type(model if original is None else unwrap_peft(original)).__name__
        raise UsageError(
            f"{name} is compiled as a whole (torch.compile), and a compiled graph does not call the hooks on its head",
            f"compile only its backbone (model.base_model.compile()), or {FULL_LOGITS}",
        )


def check_forward(head: nn.Linear, name: str) -> None:
    """Check that a head has the `forward` of `torch.nn.Linear`.

    Raises:
        UsageError: its class or the module itself has another `forward`, as in adapters outside PEFT, muP readouts
            and quantized layers.
    """
    own_forward = vars(head).get("forward")
    # accelerate replaces the forward with one that moves inputs between devices and then calls the original.
    is_accelerate = getattr(vars(head).get("_old_forward"), "__func__", None) is nn.Linear.forward
    if type(head).forward is nn.Linear.forward and (own_forward is None or is_accelerate):
        return
    class_name = f"{type(head).__module__}.{type(head).__name__}"
    raise UsageError(
        f"the head of {name} is {class_name}, whose forward is not that of torch.nn.Linear"
        if own_forward is None
        else f"the forward of the head of {name} ({class_name}) has been replaced",
        f"the linear form would only multiply by its weight and leave out the rest; {FULL_LOGITS}",
    )


def check_weight(weight: Tensor, name: str) -> None:
    """Check that a head's weight is a plain tensor in floating point.

    Raises:
        UsageError: it is sharded, quantized or offloaded.
    """
    is_sharded = hasattr(weight, "placements")
    is_plain = type(weight.data) is Tensor and not weight.is_meta
    if is_sharded or not is_plain or weight.ndim != 2 or not weight.numel() or not weight.is_floating_point():
        class_name = f", a {type(weight.data).__name__} on {weight.device}"
        kind = ", a DTensor" if is_sharded else "" if is_plain else class_name
        raise UsageError(
            f"the head of {name} is sharded, quantized or offloaded: its weight is {weight.dtype} of shape "
            f"{list(weight.shape)}{kind}",
            f"do not shard, quantize or offload the head, or {FULL_LOGITS}",
        )


def head_output(linear: nn.Linear, hidden: Float[Tensor, "*rows dim"], tokens: slice) -> Float[Tensor, "*rows some"]:
    """The output of a head for some tokens, in float32."""
    weight = linear.weight[tokens]
    bias = None if linear.bias is None else linear.bias[tokens].float()
    with torch.autocast(weight.device.type, enabled=False):
        return nn.functional.linear(hidden.to(weight.device).float(), weight.float(), bias)
