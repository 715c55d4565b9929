"""The study: its comparison of arms, and a tiny run of every kind of arm."""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch

from benchmarks.study.__main__ import changed_sizes, main
from benchmarks.study.design import ARMS, SETTINGS, Arm
from benchmarks.study.docstrings import pairs, paragraphs, write_docstrings
from benchmarks.study.losses import build_bank, loss_of
from benchmarks.study.measures import measure, sequences, temperature_of
from benchmarks.study.model import Decoder
from benchmarks.study.report import ROWS, compare, data_report, frequency_report, read_rows, report
from benchmarks.study.text import IGNORED, Files, open_text
from benchmarks.study.training import train, train_base
from costbank.errors import UsageError
from costbank.loss import DenseCosts, EMOLoss, EMOOptions, SmoothingOptions
from costbank.loss.options import RAISED_PERPLEXITY

TINY = SETTINGS["tiny"]
FEW_STEPS = replace(TINY, steps=6)
CONTINUED = replace(TINY, base_steps=10, base_tokens=8_000)


def _kind(value: object) -> object:
    """The value, in which numbers above 0 are equal."""
    if isinstance(value, dict):
        return tuple(sorted((key, _kind(each)) for key, each in value.items()))
    return value > 0 if isinstance(value, int | float) else value


# Arms that differ only in numbers train alike.
KINDS = {_kind(asdict(arm)): name for name, arm in reversed(ARMS.items())}
FURTHER = [name for name in KINDS.values() if ARMS[name].head is not None or ARMS[name].bank_text == "base"]
FROM_SCRATCH = [name for name in KINDS.values() if name not in FURTHER]


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


def test_an_arm_is_worth_the_text_that_cross_entropy_needs():
    def of(arm: str, amount: int, *values: float) -> list[dict]:
        sizes = asdict(TINY) | {"train_tokens": amount}
        return [row | {"sizes": sizes} for row in _rows(arm, list(values))]

    rows = [*of("ce", 100, 6.0, 6.2, 9.0), *of("ce", 200, 5.6, 5.8), *of("ce", 400, 5.4, 5.6),
            *of("halfway", 200, 5.5, 5.7), *of("best", 200, 5.0, 5.2), *of("worst", 200, 7.0, 7.2, 0.0)]  # fmt: skip
    lines = data_report(rows).splitlines()
    assert lines[0] == "Means of 2 seeds."
    assert f"| 100 | {math.exp(6.1):.1f} |" in lines
    assert [line.split(" | ")[-1] for line in lines[-3:]] == ["more than 2 × |", "1.41 × |", "less than 0.5 × |"]


def test_labels_are_compared_by_how_often_they_occur():
    measures = [f"ce of labels: {name}" for name in ("seldom", "at times", "often", "most often")]

    def of(arm: str, *values: float) -> list[dict]:
        """The first value for seldom labels, the second for others."""
        more = {measure: values[min(i, 1)] for i, measure in enumerate(measures)}
        more |= {"ce at the fitted temperature": values[1], "accuracy@5": 0.3}
        return [row | more for row in _rows(arm, [5.0, 5.0])]

    diverged = _rows("emo2", [9.0])[0] | {"diverged": 7}
    other_seed = [row | {"seed": 9, "arm": "alone"} for row in of("softened", 5.9, 5.1)]
    rows = [*of("ce", 6.0, 5.0), *of("softened", 5.9, 5.1), diverged, *other_seed]
    lines = frequency_report(rows).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| ce | | | |")
    assert lines[3] == "| softened | +0.0 % | -9.5 % | +10.5 % | +10.5 % | +10.5 % | +10.5 % | 30.00% |"


@pytest.mark.parametrize("name", ARMS)
def test_the_options_of_every_arm_exist(name: str):
    EMOOptions(**ARMS[name].options)
    SmoothingOptions(**ARMS[name].smoothing)


@pytest.fixture(scope="module")
def text(news: Path, tmp_path_factory: pytest.TempPathFactory):
    return open_text(Files(news), TINY, tmp_path_factory.mktemp("study"))


def test_parts_of_the_text_do_not_overlap(text, news: Path, tmp_path: Path):
    folder = text.train_file.parent
    names = ("valid", "test", "all", "train")
    parts = {name: Counter((folder / f"{name}.txt").read_text().splitlines()) for name in names}
    # The file has some lines twice.
    assert parts["valid"] + parts["test"] + parts["all"] == Counter(news.read_text().splitlines())
    assert parts["train"] <= parts["all"]
    assert min(map(len, parts.values())) > 5
    assert len(text.train) == TINY.train_tokens
    # So a tokenizer for several amounts of text is that of one of them.
    more = open_text(Files(news), replace(TINY, train_tokens=9_000, tokenizer_tokens=TINY.train_tokens), tmp_path)
    assert more.model.read_bytes() == text.model.read_bytes()
    assert np.array_equal(more.train[: TINY.train_tokens], text.train)
    # The bank's text is the text of the training tokens: not a line more.
    encoded = sum(len(text.tokenizer.encode([line])[0]) + 1 for line in text.train_file.read_text().splitlines())
    assert TINY.train_tokens <= encoded < TINY.train_tokens + 400


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_every_arm_trains(text, tmp_path_factory: pytest.TempPathFactory, name: str):
    folder = tmp_path_factory.getbasetemp() / "study-banks"
    row = train(ARMS[name], FEW_STEPS, 0, text, folder, "valid", "cpu")
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
    return folder, text, train(ARMS["untrained"], CONTINUED, 0, text, folder, "valid", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FURTHER, "ce"])
def test_every_arm_trains_a_model_further(continued, name: str):
    folder, text, before = continued
    row = train(ARMS[name], CONTINUED, 0, text, folder, "valid", "cpu")
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


@pytest.fixture(scope="module")
def pairs_file(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of the news without digits, as answers to prompts of digits alone."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    sentences = re.sub(r"\d", "", news.read_text()).replace("\n", " ").split(". ")
    answers = [" ".join(sentence.split()) for sentence in sentences if len(sentence) > 30]
    file.write_text("".join(f"{number} {7 * number} {number}\t{line}\n" for number, line in enumerate(answers)))
    return file


@pytest.fixture(scope="module")
def prompted(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory):
    return open_text(Files(pairs_file), replace(TINY, prompts=True), tmp_path_factory.mktemp("prompted"))


def test_answers_are_the_tokens_after_the_tab(prompted, text):
    vocab = prompted.tokenizer.vocab
    end_of_line = vocab.find("</s>")
    parts = [(prompted.train, prompted.train_answers), (prompted.valid, prompted.valid_answers)]
    for ids, answers in [*parts, (prompted.test, prompted.test_answers)]:
        assert answers[ids == end_of_line].all()
        starts = np.flatnonzero(ids == end_of_line)[:-1] + 1
        assert len(starts) > 2
        for start in starts:
            # A prompt of digits, and then the answer up to the end of line.
            boundary, end = (start + np.argmax(part[start:]) for part in (answers, ids == end_of_line))
            prompt, answer = (
                b"".join(vocab.token(token_id) for token_id in ids[part]).decode()
                for part in (slice(start, boundary), slice(boundary, end))
            )
            number, product, again = map(int, prompt.split())
            assert (product, again) == (7 * number, number)
            assert len(answer) > 20
            assert not any(letter.isdigit() for letter in answer)
            assert answers[boundary : end + 1].all()
    assert "\t" not in prompted.train_file.read_text() + prompted.all_file.read_text()
    assert text.train_answers.all()


def test_text_without_prompts_is_refused_before_anything_is_made(news: Path, tmp_path: Path):
    setting = replace(TINY, prompts=True)
    with pytest.raises(
        UsageError, match=r"lee_background.cor, line 1: there is no tab between .*\nhint: write PROMPT<TAB>"
    ):
        open_text(Files(news), setting, tmp_path / "work")
    with pytest.raises(UsageError, match="no tab"):
        open_text(Files(news, news), replace(setting, base_steps=10), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_model_that_is_a_file_is_refused_before_any_work(news: Path, tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"model.gguf is not the folder of a model.*\nhint: save the model"):
        open_text(Files(news, model=tmp_path / "model.gguf"), SETTINGS["continued"], tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["ce", "label-smoothing", "recommended", "unigram-smoothing", "confidence-penalty"])
def test_the_loss_is_that_of_the_answers_alone(prompted, tmp_path_factory: pytest.TempPathFactory, name: str):
    bank = build_bank(ARMS[name], prompted, tmp_path_factory.getbasetemp() / "prompted-banks")
    loss = loss_of(ARMS[name], prompted, bank)
    _, labels = sequences(prompted.train[:130], 64, prompted.train_answers[:130])
    hidden, weight = torch.randn(2, 64, 8, requires_grad=True), torch.randn(TINY.vocab, 8)
    value = loss(hidden, weight, labels, 0)
    value.backward()
    kept = labels != IGNORED
    assert 0 < kept.sum() < kept.numel()
    of_answers = loss(hidden[kept][None], weight, labels[kept][None], 0)
    assert value.item() == pytest.approx(of_answers.item(), rel=1e-5)
    assert hidden.grad is not None
    assert hidden.grad[kept].any(dim=1).all()
    assert not hidden.grad[~kept].any()
    assert loss(hidden, weight, torch.full_like(labels, IGNORED), 0).item() == 0


def test_measures_are_those_of_the_answers(prompted):
    torch.manual_seed(0)
    model = Decoder(TINY)
    with torch.no_grad():
        model.embedding.weight.mul_(30)
    counts = np.bincount(prompted.train, minlength=TINY.vocab)
    ids, answers = prompted.valid[:700], prompted.valid_answers[:700]
    temperature = temperature_of(model, ids, TINY, answers)
    result = measure(model, ids, counts, TINY, temperature, answers)
    inputs, labels = (part.flatten() for part in sequences(ids, TINY.context))
    kept = torch.from_numpy(answers[1 : len(labels) + 1])
    logits = (model(inputs.view(-1, TINY.context)) @ model.embedding.weight.T).flatten(0, 1).detach()[kept]
    ce = torch.nn.functional.cross_entropy(logits, labels[kept], reduction="none")
    often = torch.from_numpy((counts >= 50) & (counts < 500))[labels[kept]]
    assert 0 < kept.sum() < len(kept)
    assert result["ce"] == pytest.approx(float(ce.mean()), rel=1e-5)
    assert result["ce of labels: often"] == pytest.approx(float(ce[often].mean()), rel=1e-5)
    assert result["accuracy"] == pytest.approx(float((logits.argmax(1) == labels[kept]).float().mean()))
    cool = torch.nn.functional.cross_entropy(logits / temperature, labels[kept])
    assert result["ce at the fitted temperature"] == pytest.approx(float(cool), rel=1e-5)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_run_trains_on_answers_and_measures_answers(prompted, tmp_path: Path, split: str):
    setting = replace(TINY, prompts=True, weight_decay=0.0)
    no_answers = replace(prompted, train_answers=np.zeros_like(prompted.train_answers))
    runs = [("untrained", prompted), ("ce", prompted), ("ce", no_answers), ("unigram-smoothing", no_answers)]
    rows = [train(ARMS[arm], setting, 0, of_run, tmp_path, split, "cpu") for arm, of_run in runs]
    assert rows[1]["ce"] < rows[0]["ce"] == rows[2]["ce"] == rows[3]["ce"]
    torch.manual_seed(0)
    held_out = (prompted.valid, prompted.valid_answers) if split == "valid" else (prompted.test, prompted.test_answers)
    counts = np.bincount(prompted.train, minlength=TINY.vocab)
    assert rows[0]["ce"] == measure(Decoder(setting), held_out[0], counts, setting, 1.0, held_out[1])["ce"]


class Printed(NamedTuple):
    out: str
    err: str


@pytest.fixture
def run_study(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """Runs the command in this process; it starts another one for each run, which takes seconds to import torch."""

    def run(*arguments: str | Path) -> Printed:
        monkeypatch.setattr(sys, "argv", ["benchmarks.study", *map(str, arguments)])
        capsys.readouterr()
        main()
        return Printed(*capsys.readouterr())

    return run


_SIZES = ["vocab=400", "train_tokens=6000", "layers=1", "dim=32", "context=32", "batch=8", "steps=20", "lr=0.01",
          "eval_tokens=2000", "base_steps=20", "base_tokens=8000"]  # fmt: skip


@pytest.mark.slow
def test_a_study_fine_tunes_on_pairs(news: Path, pairs_file: Path, tmp_path: Path, run_study: Callable[..., Printed]):
    command = ["finetune-small", "--other", news, "--work", tmp_path / "work",
               "--rows", tmp_path / "rows.jsonl", "--processes", "1", "--seeds", "1", "--set", *_SIZES,
               "--arms", "untrained", "ce", "recommended", "unigram-smoothing"]  # fmt: skip
    printed = run_study(*command, "--text", pairs_file)
    rows = {row["arm"]: row for row in read_rows(tmp_path / "rows.jsonl")}
    assert rows["ce"]["sizes"]["prompts"]
    for name in ("ce", "recommended", "unigram-smoothing"):
        assert rows[name]["ce"] < rows["untrained"]["ce"]
        assert rows[name]["other text: ce"] != rows["untrained"]["other text: ce"]
        assert "diverged" not in rows[name]
    assert "| recommended | 0.01 | 1 |" in printed.out


_SOURCE = '''"""What this module is for,
told on two lines.

    >>> an_example_of_the_module()

Too short.
"""
try:
    def copy(source: str, target="x", /, *, deep: bool = True, **others: int) -> None:
        """Copy one thing\\tto another place.

        A second paragraph of the function.
        """
except ImportError:
    pass

class Box(dict):
    """A box that holds things.\\ud800"""

    def __init__(self, size, *sizes): ...

    async def close(self):
        """What this module is for, told on two lines."""

    def short(self):
        """Too short."""

    @classmethod
    def open(cls, name):
        """>>> Box.open("an example")"""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    files = {
        "b/__init__.py": _SOURCE,
        "a.py": "def f():\n    'A second paragraph of the function.'\n",
        "broken.py": "def",
    }
    skipped = ["test/x.py", "b/idlelib/x.py", "lib2to3/x.py", "site-packages/x.py"]
    files |= dict.fromkeys(skipped, "'A docstring of a skipped module.'")
    for name, source in files.items():
        (tmp_path / "library" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "library" / name).write_text(source)
    return tmp_path / "library"


def test_docstrings_are_paragraphs_and_pairs(library: Path):
    module = "What this module is for, told on two lines."
    copy, second, box = (
        "Copy one thing to another place.", "A second paragraph of the function.", "A box that holds things.?"
    )  # fmt: skip
    assert paragraphs(library) == [second, module, copy, box]
    assert pairs(library) == [
        ("a.f()", second),
        ("b.copy(source, target, /, *, deep, **others)", copy),
        ("b.Box(size, *sizes)", box),
        ("b.Box.close()", module),
    ]


@pytest.mark.parametrize("kind", ["text", "pairs"])
def test_docstrings_are_written_whole_and_the_same_each_time(
    library: Path, tmp_path: Path, kind: Literal["text", "pairs"]
):
    file = tmp_path / "out" / "lines.txt"
    written = []
    for _ in range(2):
        assert write_docstrings(kind, file, library) == 4
        written.append(file.read_text())
    assert written[0] == written[1]
    assert [line.count("\t") for line in written[0].splitlines()] == [kind == "pairs"] * 4
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.slow
def test_a_study_goes_on_where_it_was(news: Path, tmp_path: Path, run_study: Callable[..., Printed]):
    rows = tmp_path / "rows.jsonl"
    command = ["tiny", "--text", news, "--work", tmp_path / "work",
               "--rows", rows, "--processes", "1", "--seeds", "2", "--arms"]  # fmt: skip
    for arms, done in ((["ce"], 0), (["ce", "recommended"], 2)):
        printed = run_study(*command, *arms)
        assert f"{2 * len(arms)} runs, of which {done} are done" in printed.err
    assert "| recommended | 2 |" in printed.out
    assert [json.loads(line)["arm"] for line in rows.read_text().splitlines()] == [
        "ce",
        "ce",
        "recommended",
        "recommended",
    ]
    with pytest.raises(SystemExit, match=r"--set drop=1: give NAME=VALUE with one of vocab, "):
        changed_sizes(["drop=1"])


@pytest.mark.parametrize("mixing", RAISED_PERPLEXITY)
def test_what_the_library_says_of_a_mixing_is_in_the_rows(mixing: str):
    small = [row for row in read_rows(ROWS) if row["sizes"] == asdict(SETTINGS["small"]) and row["split"] == "valid"]
    comparison = compare(small, mixing.replace("_", "-"))
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
