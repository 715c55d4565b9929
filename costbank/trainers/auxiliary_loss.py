"""Terms that a model adds to its cross-entropy: the auxiliary losses of mixtures of experts."""

from typing import Any

from torch import Tensor

from costbank.errors import UsageError

__all__ = ["auxiliary_loss", "loss_coefficients"]

_BALANCE = ("router_aux_loss_coef", "aux_loss_coef")
_ROUTER_Z = ("router_z_loss_coef",)
_COEFFICIENTS = {
    "aux_loss": _BALANCE,
    "encoder_aux_loss": _BALANCE,
    "decoder_aux_loss": _BALANCE,
    "encoder_z_loss": _ROUTER_Z,
    "decoder_z_loss": _ROUTER_Z,
}
"""Auxiliary losses among a model's outputs, with the names that their coefficients can have."""


def auxiliary_loss(model: Any, outputs: Any) -> Tensor | None:
    """The sum of a model's auxiliary losses, each times the model's own coefficient; None if there are none.

    Args:
        model: the model itself, without wrappers.
        outputs: what the model returned.

    Raises:
        UsageError: there is one, and neither the model nor its config has a coefficient for it.
    """
    total = None
    for name, coefficients in _COEFFICIENTS.items():
        value = outputs.get(name) if isinstance(outputs, dict) else None
        if isinstance(value, Tensor):
            term = value * _coefficient(model, name, coefficients)
            total = term if total is None else total + term
    return total


def loss_coefficients(model: Any) -> dict[str, float]:
    """Nonzero settings of a model's config that may add a term to the model's own loss."""
    config = _text_config(model)
    settings = {name: getattr(config, name, None) for name in sorted(vars(config)) if "loss" in name}
    return {n: v for n, v in settings.items() if isinstance(v, int | float) and not isinstance(v, bool) and v}


def _coefficient(model: Any, output: str, names: tuple[str, ...]) -> float:
    for owner in (model, _text_config(model), model.config):
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int | float):
                return float(value)
    raise UsageError(
        f"{type(model).__name__} returns {output}, but has no coefficient for it ({', '.join(names)})",
        "set output_router_logits=False in its config, so that there is no auxiliary loss",
    )


def _text_config(model: Any) -> Any:
    try:
        return model.config.get_text_config()
    except ValueError:  # a model with several text models, such as Musicgen
        return model.config
