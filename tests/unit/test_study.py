"""The study: its comparison of arms, and a tiny run of every kind of arm."""

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.study.design import ARMS, SETTINGS, Arm
from benchmarks.study.losses import build_bank, loss_of
from benchmarks.study.measures import measure, sequences, temperature_of
from benchmarks.study.model import Decoder
from benchmarks.study.report import ROWS, compare, read_rows, report
from benchmarks.study.text import Files, open_text
from benchmarks.study.training import train, train_base
from costbank.loss import DenseCosts, EMOLoss, EMOOptions
from costbank.loss.options import RAISED_PERPLEXITY

ROOT = Path(__file__).parents[2]
TINY = SETTINGS["tiny"]
CONTINUED = replace(TINY, base_steps=10, base_tokens=8_000)
FURTHER = [name for name, arm in ARMS.items() if arm.head is not None or arm.bank_text == "base"]
FROM_SCRATCH = [name for name in ARMS if name not in FURTHER]


def _rows(arm: str, values: list[float]) -> list[dict]:
    fixed = {"setting": "tiny", "sizes": asdict(TINY), "text": "x", "split": "valid", "arm": arm}
    more = {"accuracy": 0.1, "calibration error": 0.01, "seconds": 1.0}
    return [fixed | more | {"seed": seed, "ce": value} for seed, value in enumerate(values)]


def test_arms_are_compared_over_the_seeds_that_both_have():
    rows = [*_rows("ce", [5.0, 5.2, 5.1]), *_rows("recommended", [4.95, 5.13])]
    comparison = compare(rows, "recommended")
    assert comparison is not None
    assert comparison.differences == pytest.approx([-0.05, -0.07])
    assert comparison.percent == pytest.approx(100 * (math.exp(-0.06) - 1))
    assert comparison.interval is not None
    # Student's t of 12.706 for one degree of freedom, and a standard error of 0.01.
    low, high = (100 * (math.exp(-0.06 + sign * 12.706 * 0.01) - 1) for sign in (-1, 1))
    assert comparison.interval == pytest.approx((low, high), abs=1e-3)
    assert compare(rows, "absent") is None
    one = compare([*_rows("ce", [5.0]), *_rows("recommended", [4.9])], "recommended")
    assert one is not None
    assert one.interval is None


def test_the_report_lists_the_best_arm_first_and_those_that_diverged():
    rows = [*_rows("ce", [5.0, 5.1]), *_rows("recommended", [4.9, 5.0]), _rows("emo2", [9.0])[0] | {"diverged": 7}]
    lines = report(rows).splitlines()
    assert [line.split(" |")[0] for line in lines[4:]] == ["| recommended", "| ce", "| emo2"]
    assert "-9.5 %" in lines[4]
    assert "diverged" in lines[6]


@pytest.fixture(scope="module")
def text(news: Path, tmp_path_factory: pytest.TempPathFactory):
    return open_text(Files(news), TINY, tmp_path_factory.mktemp("study"))


def test_parts_of_the_text_do_not_overlap(text, news: Path):
    folder = text.train_file.parent
    names = ("valid", "test", "all", "train")
    parts = {name: Counter((folder / f"{name}.txt").read_text().splitlines()) for name in names}
    # The file has some lines twice.
    assert parts["valid"] + parts["test"] + parts["all"] == Counter(news.read_text().splitlines())
    assert parts["train"] <= parts["all"]
    assert min(map(len, parts.values())) > 5
    assert len(text.train) == TINY.train_tokens
    # The bank's text is the text of the training tokens: not a line more.
    encoded = sum(len(text.tokenizer.encode([line])[0]) + 1 for line in text.train_file.read_text().splitlines())
    assert TINY.train_tokens <= encoded < TINY.train_tokens + 400


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FROM_SCRATCH if "2000" not in name])  # there are 400 tokens
def test_every_arm_trains(text, tmp_path_factory: pytest.TempPathFactory, name: str):
    folder = tmp_path_factory.getbasetemp() / "study-banks"
    row = train(ARMS[name], TINY, 0, text, folder, "valid", "cpu")
    assert math.isfinite(row["ce"])
    assert 0 <= row["accuracy"] <= row["accuracy@5"] <= 1
    assert row["bank"].startswith(ARMS[name].bank_text) == (ARMS[name].bank is not None)
    json.dumps(row)


@pytest.fixture(scope="module")
def continued(news: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("continued")
    lines = news.read_text().splitlines()
    files = Files(folder / "text.txt", folder / "other.txt")
    files.text.write_text("\n".join(lines[: len(lines) // 2]))
    (folder / "other.txt").write_text("\n".join(lines[len(lines) // 2 :]))
    text = open_text(files, CONTINUED, folder)
    train_base(CONTINUED, text, folder, "cpu")
    return folder, text


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FURTHER, "ce"])
def test_every_arm_trains_a_model_further(continued, name: str):
    folder, text = continued
    (before, row) = (train(arm, CONTINUED, 0, text, folder, "valid", "cpu") for arm in (ARMS["untrained"], ARMS[name]))
    assert row["ce"] < before["ce"]
    assert row["other text: ce"] != before["other text: ce"]
    of_head = ARMS[name].head is not None
    assert row["bank"].startswith("head") == of_head
    assert row["bank"].startswith("base-") == (ARMS[name].bank_text == "base")


def test_other_text_is_compared_with_cross_entropy_at_its_best_rate():
    sizes = asdict(CONTINUED)
    runs = [("ce", 1e-4, 5.0, 6.0), ("ce", 3e-4, 4.8, 6.3), ("head-64", 3e-4, 4.8, 6.2)]
    measured = {"accuracy": 0.1, "calibration error": 0.01, "seconds": 1.0, "text": "x", "split": "test", "seed": 0}
    rows = [
        measured | {"setting": "tiny", "arm": arm, "sizes": sizes | {"lr": lr}, "ce": ce, "other text: ce": other}
        for arm, lr, ce, other in runs
    ]
    lines = report(rows).splitlines()
    assert lines[4].startswith("| ce | 0.0003 | 1 | 121.5 | | | 544.6 | | |")
    assert lines[5].startswith("| head-64 | 0.0003 | 1 | 121.5 | +0.0 % | | 492.7 | -9.5 % | |")
    assert lines[6].startswith("| ce | 0.0001 | 1 | 148.4 | +22.1 % | | 403.4 | -25.9 % | |")


@pytest.mark.slow
def test_a_shuffled_bank_differs_only_in_who_is_near(text, tmp_path: Path):
    bank = build_bank(ARMS["recommended"], text, tmp_path)
    hidden, weight = torch.randn(2, 5, 8), torch.randn(TINY.vocab, 8)
    labels = torch.randint(300, TINY.vocab, (2, 5))
    arms = [ARMS[name] for name in ("recommended", "shuffled")]
    losses = [float(loss_of(arm, text, bank)(hidden, weight, labels, 0)) for arm in arms]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_losses_outside_the_library_are_their_formulas(text):
    hidden, weight, labels = torch.randn(2, 5, 8), torch.randn(TINY.vocab, 8), torch.randint(0, TINY.vocab, (2, 5))
    log_probs = torch.log_softmax(hidden @ weight.T, -1).flatten(0, 1)
    ce = -log_probs[torch.arange(10), labels.flatten()].mean()
    shares = torch.from_numpy(np.bincount(text.train, minlength=TINY.vocab) / len(text.train)).float()
    towards_unigrams = 0.9 * ce - 0.1 * (log_probs @ shares).mean()
    penalized = ce + 0.1 * (log_probs.exp() * log_probs).sum(1).mean()
    for arm, expected in ((Arm(unigram_smoothing=0.1), towards_unigrams), (Arm(confidence_penalty=0.1), penalized)):
        assert float(loss_of(arm, text, None)(hidden, weight, labels, 0)) == pytest.approx(float(expected), rel=1e-5)


def test_measures_are_those_of_the_predictions(text):
    torch.manual_seed(0)
    model = Decoder(TINY)
    with torch.no_grad():
        model.embedding.weight.mul_(30)  # predictions that are sure, and wrong
    counts = np.bincount(text.train, minlength=TINY.vocab)
    result = measure(model, text.valid[:700], counts, TINY, temperature_of(model, text.valid[:700], TINY))
    inputs, labels = sequences(text.valid[:700], TINY.context)
    logits = (model(inputs) @ model.embedding.weight.T).flatten(0, 1).detach()
    assert result["ce"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels.flatten())), rel=1e-5)
    assert result["accuracy"] == pytest.approx(float((logits.argmax(1) == labels.flatten()).float().mean()))
    assert result["mean confidence"] - result["accuracy"] == pytest.approx(result["calibration error"], abs=0.05)
    assert result["ce at the fitted temperature"] < result["ce"]


@pytest.mark.slow
def test_a_study_goes_on_where_it_was(news: Path, tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "benchmarks.study", "tiny", "--text", news, "--work", tmp_path / "work",
               "--rows", rows, "--processes", "1", "--seeds", "2", "--arms", "ce"]  # fmt: skip
    for arms, done in ((["ce"], 0), (["ce", "recommended"], 2)):
        result = subprocess.run(
            [*map(str, command[:-1]), *arms], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, result.stderr[-2000:]
        assert f"{2 * len(arms)} runs, of which {done} are done" in result.stderr
    assert "| recommended | 2 |" in result.stdout
    assert [json.loads(line)["arm"] for line in rows.read_text().splitlines()] == [
        "ce",
        "ce",
        "recommended",
        "recommended",
    ]
    wrong = subprocess.run(
        [*map(str, command), "--set", "drop=1"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 1
    assert "give NAME=VALUE with one of vocab, " in wrong.stderr


@pytest.mark.parametrize("mixing", RAISED_PERPLEXITY)
def test_what_the_library_says_of_a_mixing_is_in_the_rows(mixing: str):
    rows = read_rows(ROWS)
    comparison = compare(
        [r for r in rows if (r["setting"], r["split"]) == ("small", "valid")], mixing.replace("_", "-")
    )
    assert comparison is not None
    assert RAISED_PERPLEXITY[mixing] == f"{comparison.percent:.0f} %"


def test_the_rows_are_those_of_the_arms():
    rows = read_rows(ROWS)
    assert {"ce", "recommended", "shuffled"} <= {row["arm"] for row in rows if row["split"] == "test"}
    for row in rows:
        assert json.loads(json.dumps(row["design"])) == json.loads(json.dumps(asdict(ARMS[row["arm"]])))


def test_a_harmful_mixing_is_named_in_the_log_once(costs: DenseCosts, caplog: pytest.LogCaptureFixture):
    options = EMOOptions(mixing="emo1_clamped", z_loss=0.123)
    for _ in range(2):
        EMOLoss(costs, options)
    (message,) = [
        record.getMessage() for record in caplog.records if "raised the held-out perplexity" in record.message
    ]
    assert message.startswith("mixing 'emo1_clamped' raised the held-out perplexity of small models by 9 %")
    EMOLoss(costs, mixing="fixed")
    assert len([record for record in caplog.records if "held-out" in record.message]) == 1


@pytest.fixture
def costs() -> DenseCosts:
    return DenseCosts(torch.nn.functional.normalize(torch.randn(30, 8), dim=1))
