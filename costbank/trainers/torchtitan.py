"""The loss and the checked tokenizer of torchtitan, and the function that puts both into a config."""

from dataclasses import dataclass, fields, replace
from typing import Any

from costbank.errors import require
from costbank.trainers.frameworks import require_framework

# Before the imports that need them: if one is missing, the error says what to install.
require("torch", "trainers")
require_framework("torchtitan.components.loss", "torchtitan")

import spmd_types as spmd  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torchtitan.components.loss import BaseLoss, ChunkedLossWrapper, CrossEntropyLoss  # pyright: ignore[reportMissingImports]
from torchtitan.components.tokenizer import HuggingFaceTokenizer  # pyright: ignore[reportMissingImports]
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size  # pyright: ignore[reportMissingImports]

from costbank.errors import UsageError
from costbank.opening import open_bank
from costbank.trainers.in_force import announce
from costbank.trainers.loss_settings import loss_from_settings, required_bank
from costbank.trainers.model_loss import check_has_logits
from costbank.trainers.split_logits import loss_sum
from costbank.trainers.tokenizer import check_tokenizer

__all__ = ["EMOTokenizer", "TorchtitanEMOLoss", "with_emo"]


class TorchtitanEMOLoss(BaseLoss):
    """A loss for `Trainer.Config.loss`, alone or as `loss_fn` of a `ChunkedLossWrapper`.

    The sum over tokens is divided by the number of valid tokens of all processes, as torchtitan's own losses do it.
    Labels are already shifted. Logits may be split by vocabulary (tensor parallelism), with any of torchtitan's three
    backends. The loss is not compiled.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        """The settings, which the command line overrides: `--loss.bank`, or `--loss.loss_fn.bank` in a chunked loss.

        Attributes:
            bank: the name, path or URL of the bank.
            preset, objective, mixing, weight: options of costbank's `EMOLoss`.
            global_vocab_size: the width of the logits of all processes, for tensor parallelism with `spmd_types`.
        """

        bank: str = ""
        preset: str | None = None
        objective: str | None = None
        mixing: str | None = None
        weight: float | None = None
        global_vocab_size: int | None = None

    def __init__(self, config: Config, *, compile_config: Any = None) -> None:
        del compile_config
        self.emo = loss_from_settings(
            config.bank,
            "loss.bank",
            preset=config.preset,
            objective=config.objective,
            mixing=config.mixing,
            weight=config.weight,
        )
        self.global_vocab_size = config.global_vocab_size
        if config.global_vocab_size is not None:
            self.emo.fit(config.global_vocab_size)
        announce(self.emo, "torchtitan")

    def __call__(
        self, pred: Tensor, labels: Tensor, global_valid_tokens: Tensor | None = None, **_others: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of logits [batch, length, vocab] for labels [batch, length], and no metrics.

        Raises:
            ShapeError: the bank has another width.
            UsageError: see costbank's `emo_loss`.
        """
        check_has_logits(pred)
        checks_types = spmd.is_type_checking()
        with spmd.no_typecheck():
            group, size = None, None
            if not hasattr(pred, "placements") and spmd_mesh_size("tp") > 1:
                mesh: Any = current_spmd_mesh()
                group, size = mesh.get_group("tp"), self.global_vocab_size
            loss = loss_sum(self.emo, pred, labels, group=group, vocab_size=size)
            if global_valid_tokens is not None:
                loss = loss / global_valid_tokens
            if checks_types:
                spmd.assert_type(loss, {"dp": spmd.P, "cp": spmd.P, "tp": spmd.I})
        return loss, {}


class EMOTokenizer(HuggingFaceTokenizer):
    """torchtitan's tokenizer, which refuses to load if it is not that of the bank.

    Raises:
        TokenizerError: it is not.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(HuggingFaceTokenizer.Config):
        """The settings.

        Attributes:
            bank: the name, path or URL of the bank.
        """

        bank: str = ""

    def __init__(self, config: Config, *, tokenizer_path: str) -> None:
        super().__init__(config, tokenizer_path=tokenizer_path)
        check_tokenizer(open_bank(required_bank(config.bank, "tokenizer.bank")), self.tokenizer)


def with_emo(config: Any, bank: str, **settings: Any) -> Any:
    """A config of torchtitan's `Trainer` with the loss of a bank, for a config function.

        def llama3_8b_emo():
            return with_emo(llama3_8b(), "my-bank@00d1cfdac0c85487")

    Cross-entropy is replaced, also inside a `ChunkedLossWrapper`, and the tokenizer is checked when it is loaded.

    Args:
        config: a config of `Trainer`; its loss and its tokenizer are changed.
        bank: the name, path or URL of the bank.
        **settings: fields of `TorchtitanEMOLoss.Config`.

    Returns:
        The config.

    Raises:
        UsageError: the config's loss is not a cross-entropy, its tokenizer is not torchtitan's `HuggingFaceTokenizer`,
            or a setting is unknown.
    """
    unknown = sorted(set(settings).difference(field.name for field in fields(TorchtitanEMOLoss.Config)))
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)}: no such setting", "see costbank.trainers.torchtitan.TorchtitanEMOLoss.Config"
        )
    if type(config.tokenizer) is not HuggingFaceTokenizer.Config:
        raise UsageError(
            f"the config's tokenizer is {type(config.tokenizer).__qualname__}, which cannot be checked",
            "use HuggingFaceTokenizer, or set config.loss = TorchtitanEMOLoss.Config(bank=…) yourself",
        )
    config.loss = _replaced(config.loss, bank, settings)
    config.tokenizer = EMOTokenizer.Config(bank=bank)
    return config


def _replaced(loss: Any, bank: str, settings: dict[str, Any]) -> Any:
    """The config of a loss with the cross-entropy in it replaced."""
    if isinstance(loss, ChunkedLossWrapper.Config):
        return replace(loss, loss_fn=_replaced(loss.loss_fn, bank, settings))
    if not isinstance(loss, CrossEntropyLoss.Config):
        raise UsageError(
            f"the config's loss is {type(loss).__qualname__}, not a cross-entropy",
            "set config.loss = TorchtitanEMOLoss.Config(bank=…) yourself if the model is trained to predict tokens",
        )
    return TorchtitanEMOLoss.Config(**{"bank": bank, "global_vocab_size": loss.global_vocab_size, **settings})
