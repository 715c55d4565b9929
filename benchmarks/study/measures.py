"""What a trained model is measured by, on text that it was not trained on."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from benchmarks.study.design import LABEL_GROUPS, Setting
from benchmarks.study.model import Decoder
from benchmarks.study.pretrained import Pretrained
from benchmarks.study.samples import Mauve, continuations, repetition
from benchmarks.study.text import IGNORED
from costbank.vocab import Vocab

__all__ = ["measure", "measure_samples", "sequences", "temperature_of"]

_BATCH_TOKENS = 2_048
_BINS = 15
_TEMPERATURES = np.geomspace(0.7, 1.4, 13)
_FITTED_TOKENS = 10_000
_SAMPLE_TOKENS, _MOST_SAMPLES = 32, 1_000


def sequences(
    ids: Int64[np.ndarray, "tokens"], context: int, answers: Bool[np.ndarray, "tokens"] | None = None
) -> tuple[Int64[Tensor, "n context"], Int64[Tensor, "n context"]]:
    """Consecutive sequences and their labels: the token after each of theirs, or -100 if that is not of an answer."""
    tokens = torch.from_numpy(ids)
    labels = tokens if answers is None else tokens.where(torch.from_numpy(answers), IGNORED)
    count = (len(tokens) - 1) // context
    return tokens[: count * context].view(count, context), labels[1 : count * context + 1].view(count, context)


@torch.no_grad()
def temperature_of(
    model: Decoder | Pretrained, ids: Int64[np.ndarray, "tokens"], setting: Setting,
    answers: Bool[np.ndarray, "tokens"] | None = None,
) -> float:  # fmt: skip
    """The temperature of the logits, of 13 from 0.7 to 1.4, with the least cross-entropy on the start of this text."""
    sums = np.zeros(len(_TEMPERATURES))
    count = (_FITTED_TOKENS - 1) // setting.context
    inputs, all_labels = sequences(ids, setting.context, answers)
    for logits, labels in _batches(model, inputs[:count], all_labels[:count]):
        for i, temperature in enumerate(_TEMPERATURES.tolist()):
            sums[i] += float(torch.nn.functional.cross_entropy(logits / temperature, labels, reduction="sum"))
    return float(_TEMPERATURES[sums.argmin()])


@torch.no_grad()
def measure(
    model: Decoder | Pretrained, ids: Int64[np.ndarray, "tokens"], counts: Int64[np.ndarray, "vocab"], setting: Setting,
    temperature: float, answers: Bool[np.ndarray, "tokens"] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Cross-entropy in nats (also at a temperature, and by the frequency of labels), accuracy, calibration error.

    Args:
        model: the model.
        ids: the text.
        counts: how often each token occurs in the training text.
        setting: the length of sequences.
        temperature: a temperature that was fitted on other text.
        answers: which tokens are measured; all if None.
    """
    inputs, all_labels = sequences(ids, setting.context, answers)
    ce, cool, ranks, confidence = [], [], [], []
    for logits, labels in _batches(model, inputs, all_labels):
        log_probs = torch.log_softmax(logits, dim=1)
        own = log_probs.gather(1, labels[:, None])
        ce.append(-own[:, 0])
        cool.append(torch.nn.functional.cross_entropy(logits / temperature, labels, reduction="none"))
        ranks.append((log_probs > own).sum(dim=1))
        confidence.append(log_probs.amax(dim=1).exp())
    nats, rank, sure = torch.cat(ce), torch.cat(ranks), torch.cat(confidence)
    of_label = counts[all_labels[all_labels != IGNORED].numpy()]
    groups = {name: (of_label >= low) & (of_label < high) for name, (low, high) in LABEL_GROUPS.items()}
    return {
        "ce": float(nats.mean()),
        "perplexity": math.exp(float(nats.mean())),
        "ce at the fitted temperature": float(torch.cat(cool).mean()),
        "accuracy": float((rank == 0).float().mean()),
        "accuracy@5": float((rank < 5).float().mean()),
        "calibration error": _calibration_error(sure, (rank == 0).float()),
        "mean confidence": float(sure.mean()),
        **{f"ce of labels: {name}": float(nats[torch.from_numpy(group)].mean()) for name, group in groups.items()
           if group.any()},
        **({} if isinstance(model, Pretrained) else _repetition_of_samples(model, inputs)),
    }  # fmt: skip


def _batches(
    model: Decoder | Pretrained, inputs: Int64[Tensor, "n context"], labels: Int64[Tensor, "n context"]
) -> Iterator[tuple[Float[Tensor, "labels vocab"], Int64[Tensor, "labels"]]]:
    """Logits and labels of the tokens that have a label."""
    device = model.embedding.weight.device
    model.eval()
    batch = max(1, _BATCH_TOKENS // inputs.shape[1])
    for start in range(0, len(inputs), batch):
        part = slice(start, start + batch)
        kept = labels[part] != IGNORED
        hidden = model(inputs[part].to(device))[kept.to(device)]
        yield (hidden @ model.embedding.weight.T).float(), labels[part][kept].to(device)


def _calibration_error(confidence: Float[Tensor, "n"], correct: Float[Tensor, "n"]) -> float:
    """The mean difference of confidence and accuracy over 15 bins of equal width (Guo et al. 2017)."""
    bins = (confidence * _BINS).long().clamp_max(_BINS - 1)
    size = torch.bincount(bins, minlength=_BINS)
    gaps = torch.bincount(bins, confidence - correct, _BINS).abs()
    return float(gaps[size > 0].sum() / len(confidence))


def _repetition_of_samples(model: Decoder | Pretrained, inputs: Int64[Tensor, "n context"]) -> dict[str, float]:
    """Of about 64 samples, which follow the first halves of sequences."""
    half = inputs.shape[1] // 2
    return repetition(continuations(model, inputs[:: max(1, len(inputs) // 64), :half], inputs.shape[1] - half))


def measure_samples(
    model: Decoder | Pretrained, ids: Int64[np.ndarray, "tokens"], vocab: Vocab, setting: Setting, encoder: Path,
    temperature: float,
) -> dict[str, float]:  # fmt: skip
    """MAUVE, distinct bigrams and repetition of samples, at a temperature of 1 and at a fitted one.

    Args:
        model: the model.
        ids: a text. Samples follow 32 of its tokens (half a sequence, if that is shorter), and are as long; there are
            at most 1,000.
        vocab: the tokens.
        setting: the length of sequences.
        encoder: the folder of a sentence encoder.
        temperature: one that was fitted on other text. A loss that only makes predictions sharper or flatter gains
            nothing there.
    """
    length = min(_SAMPLE_TOKENS, setting.context // 2)
    inputs, _ = sequences(ids, 2 * length)
    prompts, text = inputs[:_MOST_SAMPLES].split(length, dim=1)
    mauve = Mauve(encoder, vocab, prompts, text)
    measures = {f"text: {name}": value for name, value in repetition(text).items()}
    for place, degrees in (("", 1.0), (" at the fitted temperature", temperature)):
        samples = continuations(model, prompts, length, degrees)
        of_samples = {"MAUVE": mauve(samples)} | {f"samples: {name}": v for name, v in repetition(samples).items()}
        measures |= {f"{name}{place}": value for name, value in of_samples.items()}
    return measures
