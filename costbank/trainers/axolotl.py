"""A plugin for axolotl: `plugins: [costbank.trainers.axolotl.EMOPlugin]` and `costbank_bank: NAME` in its YAML file."""

from typing import TYPE_CHECKING, Any

from costbank.errors import require
from costbank.trainers.frameworks import require_framework

# Before the imports that need them. axolotl logs the ImportError of a plugin and trains without it. This error is not
# an ImportError, so it ends the run.
require("torch", "trainers")
require("transformers", "trainers")
require_framework("axolotl.integrations.base", "axolotl")

from pydantic import BaseModel

from costbank.errors import UsageError
from costbank.trainers.fused_losses import refuse_fused_losses
from costbank.trainers.loss_settings import chosen_options, required_bank
from costbank.trainers.model_loss_callback import EMOLossCallback

if TYPE_CHECKING:
    _BasePlugin: Any = object
else:
    from axolotl.integrations.base import BasePlugin as _BasePlugin

__all__ = ["EMOArgs", "EMOPlugin"]

_CCE_PLUGIN = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"
_OTHER_LOSSES = (
    "liger_fused_linear_cross_entropy",
    "cut_cross_entropy",
    "unsloth_cross_entropy_loss",
    "chunked_cross_entropy",
    "kd_trainer",
    "orpo_alpha",
    "label_smoothing_factor",
    "use_eaft",
    "rl",
    "reward_model",
    "process_reward_model",
)


class EMOArgs(BaseModel):
    """The keys of axolotl's YAML file.

    Attributes:
        costbank_bank: the name, path or URL of the bank.
        costbank_preset, costbank_objective, costbank_mixing, costbank_weight: options of `EMOLoss`.
        costbank_options: further options by name.
    """

    costbank_bank: str | None = None
    costbank_preset: str | None = None
    costbank_objective: str | None = None
    costbank_mixing: str | None = None
    costbank_weight: float | None = None
    costbank_options: dict[str, Any] | None = None


class EMOPlugin(_BasePlugin):
    """Trains with the loss of a bank, through `model.loss_function`. See `EMOArgs` for its keys.

    When the configuration is read, it refuses settings with which another loss would take the place of this one: those
    of Liger's fused linear cross-entropy, cut cross-entropy, chunked cross-entropy, distillation and reinforcement
    learning. When the trainer has been made, it checks the tokenizer and the model, sets `model.loss_function`, and
    logs that it is in force. Before each optimizer step it checks that the gradients came from this loss; see
    `EMOLossCallback`.

    Raises:
        UsageError: see above; or `costbank_bank` is not set.
        TokenizerError, ShapeError: the bank belongs to another tokenizer, or the head has another width.
    """

    def get_input_args(self) -> str:
        """The model of the plugin's keys."""
        return "costbank.trainers.axolotl.EMOArgs"

    def register(self, cfg: Any) -> None:
        """Check the configuration before a model is loaded."""
        if self._is_configured(cfg):
            _check(cfg)

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Put the loss into the trainer's model."""
        if not self._is_configured(cfg):
            return
        _check(cfg)
        options = chosen_options(
            cfg.get("costbank_preset"),
            cfg.get("costbank_objective"),
            cfg.get("costbank_mixing"),
            cfg.get("costbank_weight"),
            dict(cfg.get("costbank_options") or {}),
        )
        callback = EMOLossCallback(required_bank(cfg.get("costbank_bank"), "costbank_bank"), place="axolotl", **options)
        callback.install(trainer.model, trainer.processing_class)
        trainer.add_callback(callback)

    def _is_configured(self, cfg: Any) -> bool:
        """Whether the plugin belongs to this configuration. axolotl keeps plugins of earlier ones in its process."""
        return any(str(name).startswith("costbank.") for name in cfg.get("plugins") or [])


def _check(cfg: Any) -> None:
    """Refuse a configuration that has no bank, or another loss.

    Raises:
        UsageError: see above.
    """
    required_bank(cfg.get("costbank_bank"), "costbank_bank")
    settings = {name: cfg.get(name) for name in _OTHER_LOSSES}
    # The plugin of cut cross-entropy is on by default.
    if _CCE_PLUGIN in (cfg.get("plugins") or []) and settings["cut_cross_entropy"] is None:
        raise UsageError(
            f"{_CCE_PLUGIN} is among the plugins: cut cross-entropy would take the place of this loss",
            "remove it from the plugins, or set cut_cross_entropy: false",
        )
    refuse_fused_losses(settings)
