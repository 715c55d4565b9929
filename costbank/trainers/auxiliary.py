"""What models add to their cross-entropy themselves: the losses of mixtures of experts."""

from typing import Any

from torch import Tensor

from costbank.errors import UsageError

__all__ = ["auxiliary_loss", "own_factors"]

_BALANCE = ("router_aux_loss_coef", "aux_loss_coef")
_ROUTER_Z = ("router_z_loss_coef",)
# Outputs of models, and the names of the factors that they are added with.
_OUTPUTS = {
    "aux_loss": _BALANCE,
    "encoder_aux_loss": _BALANCE,
    "decoder_aux_loss": _BALANCE,
    "encoder_z_loss": _ROUTER_Z,
    "decoder_z_loss": _ROUTER_Z,
}


def auxiliary_loss(model: Any, outputs: Any) -> Tensor | None:
    """The auxiliary losses among a model's outputs, weighed as the model weighs them; None where there are none.

    Args:
        model: the model itself.
        outputs: what it returned.

    Raises:
        UsageError: there is one, and neither the model nor its config says how it is weighed.
    """
    total = None
    for name, factors in _OUTPUTS.items():
        value = outputs.get(name) if isinstance(outputs, dict) else None
        if isinstance(value, Tensor):
            weighed = value * _factor(model, name, factors)
            total = weighed if total is None else total + weighed
    return total


def own_factors(model: Any) -> dict[str, float]:
    """Settings of a config by which a model may add a loss of its own, those that are not 0."""
    config = _text_config(model)
    named = {name: getattr(config, name, None) for name in sorted(vars(config)) if "loss" in name}
    return {n: v for n, v in named.items() if isinstance(v, int | float) and not isinstance(v, bool) and v}


def _factor(model: Any, output: str, names: tuple[str, ...]) -> float:
    for place in (model, _text_config(model), model.config):
        for name in names:
            value = getattr(place, name, None)
            if isinstance(value, int | float):
                return float(value)
    raise UsageError(
        f"{type(model).__name__} gives {output}, and does not say how it is weighed ({', '.join(names)})",
        "set output_router_logits=False in its config, so that there is no auxiliary loss",
    )


def _text_config(model: Any) -> Any:
    try:
        return model.config.get_text_config()
    except ValueError:  # one of several text models, as Musicgen is
        return model.config
