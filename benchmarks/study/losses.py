"""The loss of an arm: hidden states, the head's weight, labels and the step in, a mean over labels out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import costbank
from benchmarks.study.design import Arm
from benchmarks.study.text import IGNORED, StudyText
from costbank import Bank, build_config, open_bank
from costbank.errors import BankNotFoundError, UsageError
from costbank.loss import (
    Costs,
    DenseCosts,
    DenseSmoothing,
    LinearEMOLoss,
    NeighborSmoothing,
    Schedule,
    open_costs,
    open_smoothing,
)

__all__ = ["Loss", "build_bank", "costs_of", "loss_of", "permutation"]

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def build_bank(arm: Arm, text: StudyText, folder: Path) -> Bank | None:
    """The bank of an arm, built unless it is there; None if the arm has none."""
    where: dict[str, Any] = {"store": folder / "banks", "cache": folder / "cache"}
    if arm.head is not None:
        name = "-".join(["head", *arm.head])
        where |= {"source": "lm-head", "transforms": arm.head, "lm_head": {"model": text.model}}
        if text.base is not None:
            where |= {"tokenizer": text.model, "lm_head": {"model": text.model.parent / "base.safetensors"}}
    elif arm.bank is not None:
        settings = [f"{key}{value}".lower().replace("_", "") for key, value in arm.bank.items()]
        name = "-".join([arm.bank_text, *settings])[:64]
        base_file = None if text.base is None else text.base.train_file
        file = {"train": text.train_file, "all": text.all_file, "base": base_file}[arm.bank_text]
        where |= {"source": "cooccurrence", "tokenizer": text.model, "corpus": {"files": [str(file)]},
                  "cooccurrence": arm.bank, "engine": {"processes": 1}}  # fmt: skip
    else:
        return None
    try:
        return open_bank(name, folder / "banks")
    except BankNotFoundError:
        return costbank.build(build_config(name=name, **where))


def loss_of(arm: Arm, text: StudyText, bank: Bank | None, steps: int = 0, device: str = "cpu") -> Loss:
    """The loss of an arm, over so many steps."""
    if arm.unigram_smoothing:
        counts = torch.from_numpy(text.train).bincount(minlength=text.tokenizer.vocab.size).float()
        return _with_logits(lambda logits, ce: _towards(counts / counts.sum(), logits, ce, arm.unigram_smoothing))
    if arm.confidence_penalty:
        return _with_logits(lambda logits, ce: ce - arm.confidence_penalty * _entropy(logits))
    options: dict[str, Any] = dict(arm.options)
    if arm.fade:
        options["weight"] = Schedule(options["weight"], 0.0, steps=int(arm.fade * steps))
    module = LinearEMOLoss(costs_of(arm, bank), **options).to(device)
    return lambda hidden, weight, labels, step: module(hidden, weight, labels, step=step)


def costs_of(arm: Arm, bank: Bank | None) -> Costs | None:
    """The costs of an arm, or its distributions of labels, shuffled if it says so; None for losses without costs."""
    if bank is None or arm.options["objective"] == "ce":
        return None
    if arm.options["objective"] == "neighbor_smoothing":
        costs: Costs = open_smoothing(bank, **arm.smoothing)
    else:
        costs = open_costs(bank, arm.form)
    return _shuffled(costs) if arm.shuffled else costs


def _shuffled(costs: Costs) -> Costs:
    """The same rows, permuted among the tokens that have one. All arms and seeds have the same permutation."""
    if isinstance(costs, NeighborSmoothing):
        order = permutation(costs.softened)
        new_id = order.argsort().int()  # the rows go to other tokens, and so do the tokens in them
        return replace(costs, ids=new_id[costs.ids.clamp_min(0).long()][order], weights=costs.weights[order])
    if not isinstance(costs, DenseCosts):
        raise UsageError(f"costs of the form {costs.form} cannot be shuffled here", "use dense ones")
    order = permutation(costs.softened if isinstance(costs, DenseSmoothing) else costs.vectors.any(dim=1))
    return replace(costs, vectors=costs.vectors[order])


def permutation(usable: Tensor) -> Tensor:
    """[vocab]: which token's row each token has; its own if it is not usable."""
    ids = usable.nonzero()[:, 0]
    order = torch.arange(len(usable))
    order[ids] = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(7))]
    return order


def _with_logits(combine: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The mean of a loss of each label, from its log-probabilities and its cross-entropy."""

    def loss(hidden: Tensor, weight: Tensor, labels: Tensor, _step: int) -> Tensor:
        kept = labels != IGNORED
        log_probs = torch.log_softmax((hidden[kept] @ weight.T).float(), dim=1)
        losses = combine(log_probs, -log_probs.gather(1, labels[kept][:, None])[:, 0])
        return losses.sum() / max(1, len(losses))

    return loss


def _towards(shares: Tensor, log_probs: Tensor, ce: Tensor, weight: float) -> Tensor:
    return (1 - weight) * ce - weight * log_probs @ shares.to(log_probs.device)


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(dim=1)
