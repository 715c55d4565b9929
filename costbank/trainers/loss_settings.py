"""Settings of a loss in the configuration files of frameworks: a bank by name, and single options."""

from typing import Any

from costbank.errors import UsageError
from costbank.loss import EMOLoss
from costbank.opening import open_bank
from costbank.trainers.reduction import check_ignore_index
from costbank.trainers.tokenizer import check_tokenizer

__all__ = ["chosen_options", "loss_from_settings", "required_bank"]


def chosen_options(
    preset: str | None = None,
    objective: str | None = None,
    mixing: str | None = None,
    weight: float | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments of `EMOLoss` for settings, of which those that are None are not set.

    Raises:
        UsageError: an option is set twice.
    """
    named = {"preset": preset, "objective": objective, "mixing": mixing, "weight": weight}
    chosen = {name: value for name, value in named.items() if value is not None}
    twice = sorted(set(chosen).intersection(options or {}))
    if twice:
        raise UsageError(f"{', '.join(twice)} is set twice: by itself and in the options", "set it once")
    return {**chosen, **(options or {})}


def loss_from_settings(bank: str | None, setting: str, tokenizer: Any = None, **settings: Any) -> EMOLoss:
    """The loss for a bank's name, path or URL and the settings of `chosen_options`.

    Args:
        bank: the bank.
        setting: the name of the setting that holds it, for the error.
        tokenizer: the model's, which is checked before the costs are read; None if it is checked elsewhere.
        **settings: see `chosen_options`.

    Raises:
        UsageError: there is no bank, or an option is invalid.
        TokenizerError: the tokenizer is not the bank's.
        CostbankError: the bank cannot be opened; see `open_bank`.
    """
    opened, options = open_bank(required_bank(bank, setting)), chosen_options(**settings)
    if tokenizer is not None:
        check_tokenizer(opened, tokenizer)
    loss = EMOLoss(opened, **options)
    check_ignore_index(loss)
    return loss


def required_bank(bank: str | None, setting: str) -> str:
    if not bank:
        raise UsageError(f"{setting} is not set", f"set {setting} to the name, path or URL of a bank: my-bank@00d1cfda")
    return bank
