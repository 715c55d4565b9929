"""The losses as modules with options and costs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Self, TypeGuard

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss.arguments import check_labels, check_linear, check_logits, eager
from costbank.loss.costs import (
    Costs,
    DenseCosts,
    DenseSmoothing,
    NeighborSmoothing,
    fit_width,
    open_costs,
    open_smoothing,
    same_pin,
)
from costbank.loss.engine.objectives import check_form
from costbank.loss.engine.result import EMOResult
from costbank.loss.engine.targets import SoftTargets
from costbank.loss.functional import emo_loss, emo_loss_with_parts, logit_gradient
from costbank.loss.linear import linear_emo_loss, linear_emo_loss_with_parts, linear_gradients
from costbank.loss.mistakes import check_kinds, like_costs, refuse_classes_second, refuse_other_shapes
from costbank.loss.module_numbers import number_of
from costbank.loss.options import EMO_MIXINGS, RAISED_PERPLEXITY, EMOOptions, PresetName
from costbank.loss.prepare import Arguments

__all__ = ["EMOLoss", "LinearEMOLoss"]

_LOG = logging.getLogger(__name__)


class _Loss(nn.Module):
    """Costs and options. A checkpoint contains the name and id of the costs' bank, but not the costs."""

    def __init__(
        self,
        costs: Bank | Costs | None,
        options: EMOOptions | None = None,
        *,
        preset: PresetName | None = None,
        **changes: Any,
    ) -> None:
        super().__init__()
        if options is not None and preset is not None:
            raise UsageError(f"options and preset={preset!r}", "give one of them, and single options by name")
        self.options = replace(options or EMOOptions.preset(preset or _preset_for(costs, changes)), **changes)
        # Costs keep their width; a bank's costs are fitted to the logits.
        self._bank_size = costs.size if isinstance(costs, Bank) else None
        self.costs = _costs_for(costs, self.options) if isinstance(costs, Bank) else costs
        if self.costs is not None and not isinstance(self.costs, Costs):
            raise UsageError(f"costs are of type {type(self.costs).__name__}", f"give {like_costs(self.costs, '{}')}")
        check_form(self.costs, self.options)
        self._number = number_of(self)
        _warn_of_mixing(self.options)

    def fit(self, width: int) -> None:
        """Fit the costs to the width of the logits if the loss was made from a bank; otherwise change nothing.

        Ids beyond the bank (added tokens, the padding of a head) cost 1 to every token, and a warning is logged. Each
        call of the loss fits the costs to its logits.

        Raises:
            ShapeError: the logits are more than a quarter wider than the bank, or lack tokens that have a vector.
        """
        if self._misfits(width):
            self._refit(width)

    def _misfits(self, width: int) -> bool:
        """Whether the costs come from a bank and have another width. Arguments are checked before costs are fitted."""
        if self._bank_size is None or self.costs is None or not self.options.needs_costs:
            return False
        return self.costs.vocab_size != width

    @eager
    def _refit(self, width: int, rows: Tensor | None = None, labels: Any = None) -> None:
        """Fit the costs to a width. If the call's rows and labels are given, their shapes are compared first."""
        if rows is not None and isinstance(labels, Tensor):
            check_labels(labels, rows.shape[:-1])
        bank_size = self._bank_size
        assert isinstance(self.costs, DenseCosts | NeighborSmoothing)
        assert bank_size is not None
        is_smoothing = isinstance(self.costs, DenseSmoothing | NeighborSmoothing)
        opened = "open_smoothing(bank" if is_smoothing else "open_costs(bank, 'dense'"
        self.costs = fit_width(self.costs, width, bank_size, f"{type(self).__name__}({opened}, vocab_size={width}))")
        if width > bank_size:
            _LOG.warning(
                "the logits are %s wide, and %s has %s tokens: the ids beyond these (added tokens, or the padding of a "
                "head) %s", f"{width:,}", self.costs.bank, f"{bank_size:,}",
                "are trained with cross-entropy alone" if is_smoothing else "cost 1 to every token",
            )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copy has costs of its own.
        self._number = number_of(self)

    def _replicate_for_data_parallel(self) -> Self:
        replica = super()._replicate_for_data_parallel()
        replica._number = number_of(replica)
        return replica

    def _is_compiled(self, labels: object) -> TypeGuard[Tensor]:
        """Whether a call is traced by torch.compile, and can be one operation of its graph."""
        return torch.compiler.is_compiling() and isinstance(labels, Tensor) and self.options.reduction != "none"

    @property
    def pin(self) -> str:
        """The identity of the costs, stored in checkpoints: the bank's name and id, and the form of the costs."""
        return self.costs.pin if self.costs is not None else "no costs"

    def extra_repr(self) -> str:
        return f"{self.costs!r}, {self.options}"

    def get_extra_state(self) -> Tensor:
        """The pin as bytes in a tensor, for checkpoint formats that only store tensors."""
        return torch.tensor(list(self.pin.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Check that a checkpoint was trained with these costs.

        Raises:
            UsageError: it was trained with other costs.
        """
        saved = bytes(state.tolist()).decode()
        if not same_pin(saved, self.pin):
            raise UsageError(
                f"the checkpoint was trained with the costs {saved}, but this loss has {self.pin}",
                "open the bank of the checkpoint; to change costs on purpose, do not load the loss's state",
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] -- all are passed on
        # A model may have been trained without this loss, so a missing key is not an error.
        state_dict = {prefix + "_extra_state": self.get_extra_state(), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = super()._apply(fn, recurse)
        if self.costs is not None:
            self.costs = self.costs.to(fn(torch.empty(0, device=self.costs.device)).device)
        return moved


@cache
def _warn_of_mixing(options: EMOOptions) -> None:
    """Log what a mixing did to models in the study, once for each choice of options."""
    if options.mixing in RAISED_PERPLEXITY and not options.is_cross_entropy:
        _LOG.warning(
            "mixing %r raised the held-out perplexity of small models by %s relative to cross-entropy, and "
            "preset='recommended' lowered it: compare both with cross-entropy on your text",
            options.mixing, RAISED_PERPLEXITY[options.mixing],
        )  # fmt: skip


def _preset_for(costs: Bank | Costs | None, changes: dict[str, Any]) -> PresetName:
    """What single options change: `recommended`, unless the costs or an option belong to another objective."""
    is_of_emo = changes.get("mixing") in EMO_MIXINGS or "target_mass" in changes
    default = "emo" if isinstance(costs, Bank) and is_of_emo else "neighbor_smoothing"
    is_smoothing = isinstance(costs, Bank | DenseSmoothing | NeighborSmoothing)
    is_recommended = is_smoothing and changes.get("objective", default) == "neighbor_smoothing"
    return "recommended" if is_recommended else "published"


def _costs_for(bank: Bank, options: EMOOptions) -> Costs:
    """What an objective needs of a bank."""
    return open_smoothing(bank) if options.objective == "neighbor_smoothing" else open_costs(bank)


class EMOLoss(_Loss):
    """`emo_loss` with its costs and options: `EMOLoss(open_bank("my-bank"))(logits, labels)`.

    The costs move with the module to a device, but `.half()` and `.bfloat16()` do not change their type. They are
    neither parameters nor buffers: a checkpoint holds the name and id of their bank instead.

    Args:
        costs: a bank, for what the objective needs of it (distributions for `neighbor_smoothing`, else dense costs),
            fitted to the logits at each call (see `fit`); or `open_smoothing(bank, …)`, or costs of another form or
            width from `open_costs(bank, …)`; None for objectives without costs.
        options: the objective, the mixing, the reduction and others.
        preset: instead of options, a combination by name; see `EMOOptions.preset`. Default: `recommended` for a bank
            or `open_smoothing(bank, …)`; `published` for other costs, another objective, or options of `emo` alone.
        **changes: single options by name, such as `weight=0.05`.

    Raises:
        UsageError: an option has an invalid value; or, later, a loaded checkpoint was trained with other costs.
    """

    def forward(
        self,
        logits: Float[Tensor, "*tokens vocab"],
        labels: Integer[Tensor, "*tokens"] | SoftTargets,
        *,
        token_weights: Float[Tensor, "*tokens"] | None = None,
        step: int | None = None,
    ) -> Tensor:
        """The loss of logits [..., vocab] for labels [...]. See `emo_loss`."""
        if self._is_compiled(labels):
            from costbank.loss.compiled import compiled_loss

            return compiled_loss(self._number, logits, None, labels, None, token_weights, step)
        self._fit_to(logits, labels, token_weights)
        return emo_loss(logits, labels, self.costs, self.options, token_weights=token_weights, step=step)

    def with_parts(
        self,
        logits: Float[Tensor, "*tokens vocab"],
        labels: Integer[Tensor, "*tokens"] | SoftTargets,
        *,
        token_weights: Float[Tensor, "*tokens"] | None = None,
        step: int | None = None,
        entropy: bool = False,
    ) -> EMOResult:
        """The loss and the parts of each token's loss. See `emo_loss_with_parts`."""
        self._fit_to(logits, labels, token_weights)
        return emo_loss_with_parts(
            logits, labels, self.costs, self.options, token_weights=token_weights, step=step, entropy=entropy
        )

    def loss_and_gradients(
        self, logits: Tensor, weight: None, labels: Tensor, bias: None, token_weights: Tensor | None, step: int | None,
        wanted: tuple[bool, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
        """See `LinearEMOLoss.loss_and_gradients`, for logits."""
        del weight, bias
        self._fit_to(logits, labels, token_weights)
        arguments = Arguments(labels, self.costs, self.options.at(step), token_weights)
        loss, factor, gradient = logit_gradient(logits, arguments, wanted[0])
        return loss, factor, (gradient, None, None)

    def _fit_to(self, logits: Tensor, labels: Tensor | SoftTargets, token_weights: Tensor | None) -> None:
        if isinstance(logits, Tensor) and logits.ndim and self._misfits(logits.shape[-1]):
            check_kinds(self.costs, logits=logits, labels=labels, token_weights=token_weights)
            check_logits(logits)
            refuse_classes_second(logits, labels)
            self._refit(logits.shape[-1], logits, labels)


class LinearEMOLoss(_Loss):
    """`linear_emo_loss` with its costs and options: `LinearEMOLoss(bank)(hidden, head.weight, labels)`.

    The arguments, and the handling of costs, are those of `EMOLoss`.
    """

    def forward(
        self,
        hidden: Float[Tensor, "*tokens dim"],
        weight: Float[Tensor, "vocab dim"],
        labels: Integer[Tensor, "*tokens"] | SoftTargets | None = None,
        *,
        bias: Float[Tensor, "vocab"] | None = None,
        token_weights: Float[Tensor, "*tokens"] | None = None,
        step: int | None = None,
    ) -> Tensor:
        """The loss of hidden states [..., dim] under a head's weight [vocab, dim]. See `linear_emo_loss`."""
        if self._is_compiled(labels):
            from costbank.loss.compiled import compiled_loss

            return compiled_loss(self._number, hidden, weight, labels, bias, token_weights, step)
        targets = self._fit_to(hidden, weight, labels, bias, token_weights)
        return linear_emo_loss(
            hidden, weight, targets, self.costs, self.options, bias=bias, token_weights=token_weights, step=step
        )

    def with_parts(
        self,
        hidden: Float[Tensor, "*tokens dim"],
        weight: Float[Tensor, "vocab dim"],
        labels: Integer[Tensor, "*tokens"] | SoftTargets | None = None,
        *,
        bias: Float[Tensor, "vocab"] | None = None,
        token_weights: Float[Tensor, "*tokens"] | None = None,
        step: int | None = None,
        entropy: bool = False,
    ) -> EMOResult:
        """The loss and the parts of each token's loss. See `linear_emo_loss_with_parts`."""
        targets = self._fit_to(hidden, weight, labels, bias, token_weights)
        return linear_emo_loss_with_parts(
            hidden, weight, targets, self.costs, self.options,
            bias=bias, token_weights=token_weights, step=step, entropy=entropy,
        )  # fmt: skip

    def loss_and_gradients(
        self, hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, token_weights: Tensor | None,
        step: int | None, wanted: tuple[bool, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
        """The loss; and a factor of its gradients of hidden states, weight and bias, and these: for `compiled`.

        Without autograd. Gradients times the factor may be too small for float16, until a gradient scaler's factor is
        multiplied with it.
        """
        self._fit_to(hidden, weight, labels, bias, token_weights)
        arguments = Arguments(labels, self.costs, self.options.at(step), token_weights)
        return linear_gradients(hidden, weight, bias, arguments, wanted)

    def _fit_to(
        self,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor | SoftTargets | None,
        bias: Tensor | None,
        token_weights: Tensor | None,
    ) -> Tensor | SoftTargets:
        if labels is None:  # probably a call with logits and labels
            raise UsageError(
                "labels are missing: the arguments are (hidden, head.weight, labels)",
                "for logits and labels, use EMOLoss; for hidden states, give the head's weight as well",
            )
        if isinstance(weight, Tensor) and weight.ndim and self._misfits(len(weight)):
            check_kinds(self.costs, hidden=hidden, weight=weight, labels=labels, bias=bias, token_weights=token_weights)
            refuse_other_shapes(hidden, weight, self.costs, labels)
            check_linear(hidden, weight, bias)
            self._refit(len(weight), hidden, labels)
        return labels
