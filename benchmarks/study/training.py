"""One run: a model trained with one arm and one seed, and measured."""

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.study.design import Arm, Setting
from benchmarks.study.losses import Loss, build_bank, loss_of, permutation
from benchmarks.study.measures import measure, measure_samples, sequences, temperature_of
from benchmarks.study.model import Decoder
from benchmarks.study.pretrained import Pretrained
from benchmarks.study.text import Files, StudyText, open_text
from costbank.trainers.initialization import initial_embedding
from costbank.trainers.replacement import TokenReplacement

__all__ = ["is_base_trained", "start_worker", "train", "train_base", "train_in_process"]

_BASE = "base.safetensors"
_BETAS, _CLIP = (0.9, 0.95), 1.0


def is_base_trained(folder: Path) -> bool:
    return (folder / "base" / _BASE).exists()


def train_base(setting: Setting, text: StudyText, folder: Path, device: str) -> None:
    """Train the model that a setting starts from, by cross-entropy on its base text, unless that has been done."""
    file = folder / "base" / _BASE
    if text.base is None or is_base_trained(folder):
        return
    first = replace(setting, steps=setting.base_steps, lr=setting.base_lr, train_tokens=setting.base_tokens, warmup=50)
    torch.manual_seed(0)
    model = Decoder(first).to(device)
    _fit(model, Arm(), first, 0, loss_of(Arm(), text.base, None, device=device),
         sequences(text.base.train, first.context), None, device)  # fmt: skip
    tensors = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    part = file.with_suffix(".part")
    save_file(tensors | {"lm_head.weight": tensors["embedding.weight"].clone()}, part)
    part.rename(file)


def train(
    arm: Arm, setting: Setting, seed: int, text: StudyText, folder: Path, split: str, device: str,
    encoder: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train and measure. Runs with the same seed start from the same weights and see the same batches.

    Args:
        arm: the loss.
        setting: the model and the training.
        seed: of the weights, the order of the sequences, and dropout.
        text: the text.
        folder: for banks, and with the base model.
        split: `valid` or `test`, the text of the measures.
        device: where to train.
        encoder: the folder of a sentence encoder, to measure samples too.

    Returns:
        The measures, the bank's name and id, and the seconds of training; or the step at which the loss was not finite.
    """
    bank = build_bank(arm, text, folder)
    facts = {"bank": "" if bank is None else f"{bank.name}@{bank.id}"}
    torch.manual_seed(seed)
    model = _start(setting, text, folder).to(device)
    if arm.starts_from_bank:
        assert bank is not None
        rows, usable = initial_embedding(bank, setting.dim), torch.from_numpy(bank.usable)
        order = permutation(usable) if arm.shuffled else torch.arange(len(rows))
        model.embedding.weight.data.copy_(rows[order])
    occurrences = np.bincount(text.train, minlength=text.tokenizer.vocab.size)
    replacement = None
    if arm.replaced:
        replacement = TokenReplacement(
            text.tokenizer.vocab.size if bank is None else bank, arm.replaced, by=arm.replaced_by,
            counts=torch.from_numpy(occurrences), seed=seed,
        )  # fmt: skip
    began = time.perf_counter()
    train_loss, diverged = _fit(
        model, arm, setting, seed, loss_of(arm, text, bank, setting.steps, device),
        sequences(text.train, setting.context, text.train_answers), replacement, device,
    )  # fmt: skip
    if diverged is not None:
        return facts | {"diverged": diverged}
    seconds = time.perf_counter() - began
    temperature = temperature_of(model, text.valid, setting, text.valid_answers)
    held_out = (text.valid, text.valid_answers) if split == "valid" else (text.test, text.test_answers)
    measures = measure(model, held_out[0], occurrences, setting, temperature, held_out[1])
    if encoder is not None:
        measures |= measure_samples(model, held_out[0], text.tokenizer.vocab, setting, encoder, temperature)
    if len(text.other):
        of_other = measure(model, text.other, occurrences, setting, temperature)
        measures |= {f"other text: {name}": of_other[name] for name in ("ce", "perplexity", "accuracy")}
    return facts | measures | {"fitted temperature": temperature, "train loss": train_loss, "seconds": seconds}


def train_in_process(
    arm: Arm, seed: int, setting: Setting, files: Files, folder: Path, split: str, device: str
) -> dict[str, Any]:
    """`train` in a process of its own, which opens the text itself."""
    return train(arm, setting, seed, open_text(files, setting, folder), folder, split, device, files.encoder)


def start_worker() -> None:
    """One thread for each run; and no worker goes on without the study, if that is killed."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _start(setting: Setting, text: StudyText, folder: Path) -> Decoder | Pretrained:
    """The model before training: a pretrained one, the base model, or one with random weights."""
    if setting.pretrained:
        return Pretrained(text.model)
    model = Decoder(setting)
    if text.base is not None:
        tensors = load_file(folder / "base" / _BASE)
        del tensors["lm_head.weight"]
        model.load_state_dict(tensors)
    return model


def _fit(
    model: Decoder | Pretrained, arm: Arm, setting: Setting, seed: int, loss_function: Loss,
    data: tuple[Tensor, Tensor], replacement: TokenReplacement | None, device: str,
) -> tuple[float, int | None]:  # fmt: skip
    """Train a model on `sequences`; its last loss, and the step at which the loss was not finite."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": setting.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=setting.lr, betas=_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, setting))
    inputs, labels = data
    batches = _batches(len(inputs), setting, seed)
    train_loss = math.nan
    model.train()
    for step in range(setting.steps if arm.trains else 0):
        rows = next(batches)
        tokens = inputs[rows] if replacement is None else replacement.replace(inputs[rows])
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            hidden = model(tokens.to(device))
        loss = loss_function(hidden, model.embedding.weight, labels[rows].to(device), step)
        train_loss = loss.item()
        if not math.isfinite(train_loss):
            return train_loss, step
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return train_loss, None


def _rate(step: int, setting: Setting) -> float:
    warm = min(1.0, (step + 1) / setting.warmup)
    return warm * (0.1 + 0.9 * (1 + math.cos(math.pi * step / setting.steps)) / 2)


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
