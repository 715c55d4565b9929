"""Samples of the study's models: how they are drawn, how much they repeat, and how close they are to a text."""

import importlib.util
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.study.__main__ import main
from benchmarks.study.design import ARMS, SETTINGS
from benchmarks.study.measures import sequences
from benchmarks.study.model import Decoder
from benchmarks.study.pretrained import Pretrained
from benchmarks.study.report import report
from benchmarks.study.samples import Mauve, continuations, repetition
from benchmarks.study.text import Files, open_text
from benchmarks.study.training import train
from costbank.bank import Bank
from costbank.export import export_bank
from costbank.tokenizers import load_tokenizer

TINY = SETTINGS["tiny"]


@pytest.fixture(params=["decoder", "pretrained"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Decoder | Pretrained:
    torch.manual_seed(0)
    if request.param == "decoder":
        chosen: Decoder | Pretrained = Decoder(TINY)
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=TINY.vocab, **sizes)).save_pretrained(tmp_path)
        chosen = Pretrained(tmp_path)
    with torch.no_grad():
        chosen.embedding.weight.mul_(20)
    return chosen


def test_at_a_low_temperature_each_token_is_the_most_likely_one(model: Decoder | Pretrained):
    prompts = torch.randint(TINY.vocab, (130, 6))
    drawn = continuations(model, prompts, 5, temperature=1e-4)
    with torch.no_grad():
        logits = (model(torch.cat([prompts, drawn], dim=1)) @ model.embedding.weight.T)[:, 5:10]
    own = logits.gather(2, drawn[:, :, None])[:, :, 0]
    assert float((logits.amax(2) - own).max()) < 0.01
    assert len(drawn.unique()) > 20


def test_tokens_are_drawn_with_their_probabilities(model: Decoder | Pretrained):
    prompt = torch.randint(TINY.vocab, (1, 6))
    drawn = continuations(model, prompt.repeat(4_000, 1), 1, temperature=0.7)
    with torch.no_grad():
        probabilities = (model(prompt)[0, -1] @ model.embedding.weight.T / 0.7).softmax(0)
    shares = torch.bincount(drawn[:, 0], minlength=TINY.vocab) / 4_000
    assert float((shares - probabilities).abs().max()) < 4 * 0.5 / 4_000**0.5
    assert float(probabilities.max()) > 0.1
    assert torch.equal(drawn, continuations(model, prompt.repeat(4_000, 1), 1, temperature=0.7))


def test_repetition_counts_pairs_and_returns():
    assert repetition(torch.arange(40).view(2, 20)) == {"distinct-2": 1.0, "repetition": 0.0}
    again = repetition(torch.arange(4).repeat(2, 5))
    assert again["distinct-2"] == pytest.approx(4 / 38)
    # Every token is the one four and the one eight before it.
    assert again["repetition"] == pytest.approx(2.0)


@pytest.fixture(scope="module")
def encoder(news_bank: Bank, news_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "model"
    export_bank(news_bank, "sentence-transformers", folder, news_model)
    return folder


@pytest.mark.slow
def test_mauve_tells_texts_that_are_alike_from_others(encoder: Path, news: Path, news_model: Path):
    tokenizer = load_tokenizer(news_model)
    ids = np.concatenate([tokenizer.encode([line])[0] for line in news.read_text().splitlines()]).astype(np.int64)
    prompts, text = sequences(ids[: 300 * 16 + 1], 16)[0].split(8, dim=1)
    mauve = Mauve(encoder, tokenizer.vocab, prompts, text)
    generator = torch.Generator().manual_seed(0)
    noise = torch.from_numpy(ids)[torch.randint(len(ids), text.shape, generator=generator)]
    rare = torch.full_like(text, int(ids[0]))
    same, other, worst = mauve(text), mauve(noise), mauve(rare)
    assert same == pytest.approx(1, abs=1e-3)
    assert worst < 0.5 < other < 0.99
    assert mauve(noise) == other


@pytest.mark.slow
def test_a_run_with_an_encoder_measures_samples(encoder: Path, news: Path, tmp_path: Path):
    text = open_text(Files(news), TINY, tmp_path)
    row = train(ARMS["ce"], replace(TINY, steps=2), 0, text, tmp_path, "valid", "cpu", encoder)
    for place in ("", " at the fitted temperature"):
        assert 0 < row[f"MAUVE{place}"] < 1
        assert 0 < row[f"samples: distinct-2{place}"] <= 1
    assert row["text: distinct-2"] < row["samples: distinct-2"]


def test_runs_with_an_encoder_have_a_table_of_their_samples():
    row = {"setting": "tiny", "sizes": asdict(TINY), "text": "x", "split": "test", "arm": "ce", "seed": 0, "ce": 5.0,
           "accuracy": 0.1, "calibration error": 0.01, "seconds": 1.0}  # fmt: skip
    measures = ("MAUVE", "samples: distinct-2", "samples: repetition")
    of_samples = {f"{name}{place}": 0.5 for name in measures for place in ("", " at the fitted temperature")}
    of_samples |= {"text: distinct-2": 0.8, "text: repetition": 0.1, "fitted temperature": 0.94, "encoder": "model"}
    runs = [row | of_samples | {"MAUVE": 0.2, "arm": "worse"}, row | of_samples | {"MAUVE": 0.3}]
    runs.append(runs[1] | {"MAUVE": 0.4, "seed": 1})
    plain, *_, samples = report([row, *runs]).split("\n\n")
    assert "MAUVE" not in plain
    assert samples.splitlines()[2:] == [
        "| ce | 1 | 0.350 | 0.300 to 0.400 | 0.500 | 0.500 |",
        "| worse | 1 | 0.200 | | 0.500 | 0.500 |",
        "| worse | 0.94, fitted | 0.500 | | 0.500 | 0.500 |",
        "| ce | 0.94, fitted | 0.500 | 0.500 to 0.500 | 0.500 | 0.500 |",
        "| the text | | | | 0.800 | 0.100 |",
    ]
    assert "MAUVE" not in report([row])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["small", "--encoder", "missing"], "missing has no modules.json or config.json"),
        (["small", "--encoder", "."], "give --encoder the folder of a sentence encoder"),
        (["finetune-small", "--other", "x", "--encoder", "ENCODER"], "does not go with finetune-small"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused_before_any_work(
    arguments: list[str], error: str, encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given = [str(encoder) if argument == "ENCODER" else argument for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["benchmarks.study", *given, "--text", "not-read"])
    with pytest.raises(SystemExit):
        main()
    assert error in capsys.readouterr().err


def test_an_encoder_without_the_package_of_mauve_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec
    monkeypatch.setattr("benchmarks.study.__main__.find_spec", lambda name: None if name == "mauve" else find(name))
    monkeypatch.setattr(sys, "argv", ["benchmarks.study", "small", "--text", "not-read", "--encoder", "."])
    with pytest.raises(SystemExit):
        main()
    assert "--encoder needs mauve: pip install mauve-text" in capsys.readouterr().err


def test_a_model_that_was_trained_before_does_not_start_from_a_bank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = ["benchmarks.study", "continued-small", "--text", "not-read", "--other", "not-read"]
    monkeypatch.setattr(sys, "argv", [*command, "--arms", "start-from-bank"])
    with pytest.raises(SystemExit):
        main()
    assert "start-from-bank would overwrite the embedding of a model that was trained" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(FileNotFoundError, match="not-read"):  # the arms by default are accepted
        main()


def test_ids_beyond_the_tokens_are_read_as_new_lines(encoder: Path, news_model: Path):
    vocab = load_tokenizer(news_model).vocab
    prompts, text = torch.full((30, 3), 300), torch.arange(400, 490).view(30, 3)
    mauve = Mauve(encoder, vocab, prompts, text)
    beyond = text.clone()
    beyond[:, 1] = vocab.size + 7
    assert 0 < mauve(beyond) < 1
