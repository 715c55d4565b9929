"""One run: a model trained with one arm and one seed, and measured."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.study.design import Arm, Setting
from benchmarks.study.losses import build_bank, loss_of
from benchmarks.study.measures import measure, sequences, temperature_of
from benchmarks.study.model import Decoder
from benchmarks.study.text import StudyText, open_text
from costbank.trainers.replacement import TokenReplacement

__all__ = ["train", "train_in_process"]

_WARMUP_STEPS = 50
_BETAS, _CLIP = (0.9, 0.95), 1.0


def train(
    arm: Arm, setting: Setting, seed: int, text: StudyText, folder: Path, split: str, device: str
) -> dict[str, Any]:
    """Train and measure. Runs with the same seed start from the same weights and see the same batches.

    Args:
        arm: the loss.
        setting: the model and the training.
        seed: of the weights, the order of the sequences, and dropout.
        text: the text.
        folder: for banks.
        split: `valid` or `test`, the text of the measures.
        device: where to train.

    Returns:
        The measures, the bank's name and id, and the seconds of training; or the step at which the loss was not finite.
    """
    bank = build_bank(arm, text, folder)
    facts = {"bank": "" if bank is None else f"{bank.name}@{bank.id}"}
    torch.manual_seed(seed)
    model = Decoder(setting).to(device)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": setting.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=setting.lr, betas=_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, setting.steps))
    loss_function = loss_of(arm, setting, text, bank)
    inputs, labels = sequences(text.train, setting.context)
    replacement = None
    if arm.replaced:
        counts = torch.from_numpy(text.train).bincount(minlength=setting.vocab)
        replacement = TokenReplacement(
            setting.vocab if bank is None else bank, arm.replaced, by=arm.replaced_by, counts=counts, seed=seed
        )
    batches = _batches(len(inputs), setting, seed)
    train_loss = math.nan
    began = time.perf_counter()
    for step in range(setting.steps):
        rows = next(batches)
        ids = inputs[rows] if replacement is None else replacement.replace(inputs[rows])
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            hidden = model(ids.to(device))
        loss = loss_function(hidden, model.embedding.weight, labels[rows].to(device), step)
        train_loss = loss.item()
        if not math.isfinite(train_loss):
            return facts | {"diverged": step}
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    seconds = time.perf_counter() - began
    temperature = temperature_of(model, text.valid, setting)
    occurrences = np.bincount(text.train, minlength=setting.vocab)
    held_out = text.valid if split == "valid" else text.test
    measures = measure(model, held_out, occurrences, setting, temperature)
    return facts | measures | {"fitted temperature": temperature, "train loss": train_loss, "seconds": seconds}


def train_in_process(
    arm: Arm, seed: int, setting: Setting, file: Path, folder: Path, split: str, device: str
) -> dict[str, Any]:
    """`train` in a process of its own, which opens the text itself."""
    return train(arm, setting, seed, open_text(file, setting, folder), folder, split, device)


def _rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warm * (0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2)


def _batches(count: int, setting: Setting, seed: int) -> Iterator[Tensor]:
    """Row numbers of batches, without end: each epoch has every row once, in another order."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.empty(0, dtype=torch.long)
    while True:
        while len(rest) < setting.batch:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        batch: Tensor = rest[: setting.batch]
        rest = rest[setting.batch :]
        yield batch
