"""The steps of the demo. Each makes the calls that a user would make."""

import json
import math
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from costbank.bank import Bank
from costbank.config import CorpusConfig, build_config
from costbank.corpus.tokenizer_training import TrainingText, train_tokenizer
from costbank.files import write_atomically
from costbank.loss import EMOLoss
from costbank.pipeline import build
from costbank.progress import Progress
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.train import TrainingOptions
from costbank_cli.demo.docstrings import DEFAULT_PACKAGES, gather_docstrings
from costbank_cli.demo.language_model import HeldOutPoint, Training, train_in_each_way

__all__ = ["DemoOptions", "DemoResult", "run_demo"]

_WORDS = ("row", "minimum", "gradient", "left", "mean", "width", "upper", "string")
_HELD_OUT_EVERY = 20
_PLAIN, _START, _BOTH = "cross-entropy", "start", "start+EMOLoss"


@dataclass(frozen=True)
class DemoOptions:
    """The size of the demo: packages with docstrings, pieces of the tokenizer, steps of each training, and batches of
    held-out text."""

    packages: tuple[str, ...] = DEFAULT_PACKAGES
    vocab_size: int = 8_000
    steps: int = 240
    held_out_batches: int = 16


@dataclass(frozen=True)
class DemoResult:
    """The results of the demo.

    Attributes:
        bank: the bank `demo`.
        nearest: for some words, the tokens with the lowest cost to them.
        url, answer: a request to the service, and its answer.
        guess: the accuracy of always guessing the most frequent held-out token.
        training: for each way to train, measurements on held-out text during training.
    """

    bank: Bank
    nearest: dict[str, list[str]]
    url: str
    answer: dict[str, Any]
    guess: float
    training: dict[str, list[HeldOutPoint]]


@dataclass(frozen=True)
class _Texts:
    train: Path
    held_out: Path


def run_demo(
    store: Path, work: Path, say: Callable[[str], None], progress: Progress, options: DemoOptions | None = None
) -> DemoResult:
    """Docstrings → tokenizer → Word2Vec bank `demo` → nearest tokens, here and over HTTP → three trainings.

    Args:
        store: the store for the bank `demo`.
        work: a directory for the text and the tokenizer.
        say: called with each line of text.
        progress: reports long steps.
        options: the size of the demo.

    Raises:
        InputNotFoundError: none of the packages is installed.
    """
    options = options or DemoOptions()
    texts, model = _gather(work, options, say, progress), work / "docstrings.model"
    pieces = TrainingOptions(options.vocab_size)
    train_tokenizer(TrainingText((str(texts.train),)), model, pieces, progress, overwrite=True)
    say(f"2. tokenizer: SentencePiece, {options.vocab_size:,} pieces, in {model}")
    config = build_config(
        source="word2vec",
        tokenizer=model,
        name="demo",
        store=store,
        cache=work / "encoded",
        corpus=CorpusConfig(files=(str(texts.train),)),
        map={"make": True},
    )
    bank = build(config, progress)
    say(f"3. bank: {bank.name}@{bank.id}, {bank.size:,} tokens × {bank.dim:,}, in {bank.path}")
    nearest = _nearest(bank)
    say("4. tokens with the lowest cost:")
    for word, others in nearest.items():
        say(f"     {word:<12} {' '.join(others)}")
    url, answer = _over_http(store, bank)
    say(f"5. over HTTP: GET {url}")
    say("     " + ", ".join(f"{neighbor['text']} {neighbor['cost']:.3f}" for neighbor in answer["neighbors"]))
    tokenizer = load_tokenizer(model)
    train, held_out = (
        tokenizer.encode(path.read_text("utf-8").splitlines())[0] for path in (texts.train, texts.held_out)
    )
    training = train_in_each_way(
        _ways(bank), train, held_out, bank.size, options.steps, progress, options.held_out_batches
    )
    guess = float(np.bincount(held_out).max() / len(held_out))
    for line in _training_lines(training, guess):
        say(line)
    return DemoResult(bank, nearest, url, answer, guess, training)


def _gather(work: Path, options: DemoOptions, say: Callable[[str], None], progress: Progress) -> _Texts:
    """Write the docstrings to two files. The tokenizer, the bank and training do not use the held-out ones."""
    gathered, texts = work / "docstrings.txt", _Texts(work / "training.txt", work / "held-out.txt")
    count = gather_docstrings(gathered, options.packages, progress)
    lines = gathered.read_text("utf-8").splitlines(keepends=True)
    held_out = lines[::_HELD_OUT_EVERY]
    del lines[::_HELD_OUT_EVERY]
    write_atomically(texts.train, "".join(lines).encode())
    write_atomically(texts.held_out, "".join(held_out).encode())
    size = gathered.stat().st_size / 1e6
    say(f"1. text: {count:,} docstrings, {size:.1f} MB, in {gathered}; {len(held_out):,} of them are held out")
    return texts


def _ways(bank: Bank) -> dict[str, Training]:
    def plain(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits.flatten(0, 1), labels.flatten())

    return {_PLAIN: Training(plain), _START: Training(plain, bank), _BOTH: Training(EMOLoss(bank), bank)}


def _training_lines(training: dict[str, list[HeldOutPoint]], guess: float) -> Iterator[str]:
    yield "6. training: one small language model in three ways, on the same batches: with cross-entropy; the same after"
    yield "   start_from_bank(model, bank), here start; and with EMOLoss(bank) after that. On held-out docstrings:"
    yield "            cross-entropy in nats                        accuracy"
    titles = "   ".join(f"{name:>13}" for name in training)
    yield f"     step   {titles}   {titles}"
    for points in zip(*training.values(), strict=True):
        nats = "   ".join(f"{point.cross_entropy:>13.3f}" for point in points)
        hits = "   ".join(f"{point.accuracy:>13.1%}" for point in points)
        yield f"     {points[0].step:>4}   {nats}   {hits}"
    yield f"   Always guessing the most frequent token has an accuracy of {guess:.1%}."
    last = {name: points[-1].cross_entropy for name, points in training.items()}
    changes = " and ".join(
        f"{math.expm1(nats - last[_PLAIN]):+.1%} with {name}" for name, nats in last.items() if name != _PLAIN
    )
    yield f"   Final perplexity, relative to cross-entropy: {changes}."
    yield "   This is one short run of a small model, which saw less text than its bank. docs/training-results.md has"
    yield "   longer runs, also some in which model and bank saw the same text."


def _nearest(bank: Bank) -> dict[str, list[str]]:
    shown = {}
    for word in _WORDS:
        if ids := bank.vocab.ids_of(f" {word}".encode()):
            shown[bank.vocab.display(ids[0])] = [neighbor.text for neighbor in bank.nearest(ids[0], 6)]
    return shown


def _over_http(store: Path, bank: Bank) -> tuple[str, dict[str, Any]]:
    from costbank_service import Settings, serving

    with serving(Settings(store=store, port=0)) as base:
        url = f"{base}/v1/banks/{bank.name}/nearest?{urlencode({'token': '▁maximum', 'k': 5})}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return url, json.load(response)
