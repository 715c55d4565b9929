"""The steps of the demonstration, each the same call that a user would make."""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from costbank.bank import Bank
from costbank.config import BuildConfig, CorpusConfig
from costbank.corpus import DEFAULT_PACKAGES, gather_docstrings
from costbank.pipeline import build
from costbank.progress import Progress
from costbank.tokenizers import load_tokenizer
from costbank.tokenizers.train import train_sentencepiece
from costbank_cli.demo.language_model import TrainingPoint, train_language_model

__all__ = ["DemoResult", "run_demo"]

_VOCAB = 8_000
_WORDS = ("row", "minimum", "gradient", "left", "mean", "width", "upper", "string")
_STEPS = 240
_TRAINING_SECONDS = 45.0


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made: the bank, the answers on the way, and the course of the training."""

    bank: Bank
    nearest: dict[str, list[str]]
    url: str
    answer: dict[str, Any]
    training: list[TrainingPoint]


def run_demo(store: Path, work: Path, say: Callable[[str], None], progress: Progress) -> DemoResult:
    """Docstrings → tokenizer → Word2Vec bank `demo` → nearest tokens, here and over HTTP → EMO training steps.

    Args:
        store: where the bank is kept, under the name `demo`.
        work: a directory for the text and the tokenizer.
        say: called with each line for the person.
    """
    corpus, model = work / "docstrings.txt", work / "docstrings.model"
    documents = gather_docstrings(corpus, DEFAULT_PACKAGES, progress)
    say(f"1. text: {documents:,} docstrings, {corpus.stat().st_size / 1e6:.1f} MB, in {corpus}")
    with progress.step("train a tokenizer"):
        train_sentencepiece([corpus], model, _VOCAB)
    say(f"2. tokenizer: SentencePiece, {_VOCAB:,} pieces, in {model}")
    config = BuildConfig(
        source="word2vec",
        tokenizer=model,
        name="demo",
        store=store,
        cache=work / "encoded",
        corpus=CorpusConfig(files=(str(corpus),)),
    )
    bank = build(config, progress)
    say(f"3. bank: {bank.name}@{bank.id}, {bank.size:,} tokens × {bank.dim}, in {bank.path}")
    nearest = _nearest(bank)
    say("4. nearest-cost tokens:")
    for word, others in nearest.items():
        say(f"     {word:<12} {' '.join(others)}")
    url, answer = _over_http(store, bank)
    say(f"5. over HTTP: GET {url}")
    say("     " + ", ".join(f"{neighbor['text']} {neighbor['cost']:.3f}" for neighbor in answer["neighbors"]))
    tokenizer = load_tokenizer(model)
    ids, _ = tokenizer.encode(corpus.read_text("utf-8").splitlines())
    training = train_language_model(ids, bank, _STEPS, _TRAINING_SECONDS, progress)
    say("6. a small language model, trained with EMOLoss from this bank (means since the line before):")
    say("     step   cross-entropy   expected cost   accuracy")
    for point in training:
        say(f"     {point.step:>4}   {point.cross_entropy:>13.3f}   {point.cost:>13.4f}   {point.accuracy:>8.1%}")
    return DemoResult(bank, nearest, url, answer, training)


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
