"""Does the score of a bank's neighbors in held-out text predict what the bank does to a model that is trained with it?

    python -m benchmarks.substitution --text english.txt docstrings.txt
    python -m benchmarks substitution

Takes the study's runs (`data/study/rows.jsonl`) on these texts, builds their banks again, and correlates scores of the
banks with the measured change of perplexity. Scores are computed on the held-out part that the run was not measured
on. Only arms that differ in the bank, or in how it softens labels, are compared with each other: those with the
recommended objective and weight, in one setting, on one text and part. Four scores are compared:

- *distribution*: `costbank.analysis.substitution` of the labels' distributions that the arm was trained with;
- *ten nearest*: the same for the bank's ten nearest, as `costbank eval --text` prints it;
- *WordSim*, *SimLex*: Spearman's ρ of the bank with human judgments, also for words of several pieces; 0 for shuffled
  banks, as expected.

`run` appends to data/bench/results.csv, writes the tables of docs/howto/inspect.md, and also measures the time and
memory of the score for 128,000 tokens and a text of a million.
"""

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.corpora import english
from benchmarks.processes import watched
from benchmarks.record import record
from benchmarks.study.design import Arm, Setting
from benchmarks.study.docstrings import write_docstrings
from benchmarks.study.losses import build_bank, costs_of, permutation
from benchmarks.study.report import ROWS, Row, compare, read_rows
from benchmarks.study.text import Files, StudyText, open_text
from costbank.analysis.evaluation import word_similarity
from costbank.analysis.substitution import Substitutes, Substitution, neighbor_targets, substitution
from costbank.analysis.wordlists import english_judgments
from costbank.loss import DenseSmoothing
from costbank.loss.costs.smoothing import draw_neighbors

__all__ = ["ScoredArm", "agreement", "is_comparable", "run", "scored_arms"]

_COMPARED = Arm({"objective": "neighbor_smoothing", "mixing": "interpolate", "weight": 0.1})
_DRAWS, _NEAREST = 512, 10
_PAGE = Path(__file__).parents[1] / "docs" / "howto" / "inspect.md"
_BEGIN, _END = (
    "<!-- python -m benchmarks substitution: begin -->\n",
    "<!-- python -m benchmarks substitution: end -->\n",
)
_VOCAB, _TOKENS = 128_000, 1_000_000
_LIBRARIES = ("numpy", "scipy", "torch", "sentencepiece")


@dataclass(frozen=True)
class ScoredArm:
    """An arm of the study, the change of perplexity that it made, and the scores of its bank.

    Attributes:
        group: the setting, text and part.
        percent: the change of perplexity relative to cross-entropy over `seeds` seeds.
        distribution, nearest: in nats per token.
        wordsim, simlex: Spearman's ρ.
        shuffled: whether the bank's rows were permuted.
    """

    group: str
    arm: str
    percent: float
    seeds: int
    distribution: float
    nearest: float
    wordsim: float
    simlex: float
    shuffled: bool = False


SCORES: Mapping[str, Callable[[ScoredArm], float]] = {
    "distribution": lambda arm: arm.distribution,
    "ten nearest": lambda arm: arm.nearest,
    "WordSim": lambda arm: arm.wordsim,
    "SimLex": lambda arm: arm.simlex,
}


@dataclass(frozen=True)
class Agreement:
    """How a score goes with the change of perplexity among arms of one group; −1 is best for the correlations.

    Attributes:
        pearson, spearman: of deviations from the means of the groups.
        ordered: the pairs of arms in which the higher score has the lower perplexity, of `pairs` with other scores.
    """

    pearson: float
    spearman: float
    ordered: int
    pairs: int


def run() -> None:
    """Compare and record, on the docstrings of Python's standard library and on the text of the benchmarks."""
    with tempfile.TemporaryDirectory() as folder:
        docstrings = Path(folder) / "docstrings.txt"
        write_docstrings("text", docstrings, Path(sysconfig.get_path("stdlib")))
        _compare([english(), docstrings], Path(folder), recorded=True)
    _measure_speed()


def is_comparable(arm: Arm) -> bool:
    """Whether the arm differs from others only in its bank, or in how the bank softens labels."""
    return (
        arm.bank is not None and replace(arm, bank=None, smoothing={}, bank_text="train", shuffled=False) == _COMPARED
    )


def scored_arms(rows: Sequence[Row], texts: Sequence[Path], work: Path) -> list[ScoredArm]:
    """The arms of all groups on these texts in which at least two can be compared; banks are built in `work`."""
    files = {sha256(path.read_bytes()).hexdigest()[:16]: path for path in texts}
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["text"] in files and not (row["sizes"]["base_steps"] or row["sizes"]["pretrained"]):
            groups[json.dumps([row["setting"], row["sizes"], row["text"], row["split"]])].append(row)
    scored = []
    for of_group in groups.values():
        arms = {row["arm"]: arm for row in of_group if is_comparable(arm := Arm(**row["design"]))}
        if len(arms) < 2:
            continue
        setting, first = Setting(**of_group[0]["sizes"]), of_group[0]
        folder = work / sha256(json.dumps([first["text"], asdict(setting)]).encode()).hexdigest()[:8]
        text = open_text(Files(files[first["text"]]), setting, folder)
        group = f"{first['setting']}, {first['split']} text of {files[first['text']].stem}"
        for name, arm in arms.items():
            if (measured := compare(of_group, name)) is not None:
                scores = _scores(arm, text, folder, first["split"])
                scored.append(
                    ScoredArm(group, name, measured.percent, len(measured.differences), *scores, arm.shuffled)
                )
                print(scored[-1], file=sys.stderr, flush=True)
    return scored


def agreement(arms: Sequence[ScoredArm], score: Callable[[ScoredArm], float]) -> Agreement:
    """How a score goes with the change of perplexity, within groups."""
    groups: dict[str, list[ScoredArm]] = defaultdict(list)
    for arm in arms:
        groups[arm.group].append(arm)
    values = [np.array([[score(arm), arm.percent] for arm in group]) for group in groups.values()]
    x, y = np.concatenate([own - own.mean(axis=0) for own in values]).T
    pairs = [(a, b) for group in groups.values() for a, b in combinations(group, 2) if score(a) != score(b)]
    ordered = sum((score(a) > score(b)) == (a.percent < b.percent) for a, b in pairs)
    ranks = stats.rankdata(x), stats.rankdata(y)
    return Agreement(float(np.corrcoef(x, y)[0, 1]), float(np.corrcoef(*ranks)[0, 1]), ordered, len(pairs))


def _scores(arm: Arm, text: StudyText, folder: Path, split: str) -> tuple[float, float, float, float]:
    bank = build_bank(arm, text, folder)
    costs = costs_of(arm, bank)
    assert bank is not None
    assert isinstance(costs, DenseSmoothing)
    drawn = draw_neighbors(costs, _DRAWS, seed=0)
    distribution = Substitutes(drawn.ids.numpy(), drawn.weights.numpy(), costs.softened.numpy())
    nearest = neighbor_targets(bank, _NEAREST)
    if arm.shuffled:
        nearest = _shuffled(nearest, permutation(costs.softened).numpy())
    held_out = text.test if split == "valid" else text.valid
    judged = [0.0, 0.0] if arm.shuffled else [
        word_similarity(bank, pairs, with_pieces=True).rho for pairs in english_judgments().values()
    ]  # fmt: skip
    end = text.tokenizer.vocab.find("</s>")
    wordsim, simlex = judged
    return _score(distribution, held_out, end).score, _score(nearest, held_out, end).score, wordsim, simlex


def _score(targets: Substitutes, ids: np.ndarray, end_of_line: int) -> Substitution:
    """The score on lines that are each followed by an end of line."""
    is_end = ids == end_of_line
    ends = np.flatnonzero(is_end) - np.arange(is_end.sum())
    return substitution(targets, ids[~is_end].astype(np.int32), ends)


def _shuffled(targets: Substitutes, order: np.ndarray) -> Substitutes:
    new_id = order.argsort().astype(np.int32)
    return replace(targets, ids=new_id[targets.ids][order], weights=targets.weights[order])


def _compare(texts: Sequence[Path], work: Path, recorded: bool) -> None:
    arms = scored_arms(read_rows(ROWS), texts, work)
    found = {
        note: {name: agreement(own, score) for name, score in SCORES.items()} for note, own in _parts(arms).items()
    }
    report = [*_table(arms), *(line for note, scores in found.items() for line in _agreements(note, scores))]
    print("\n".join(report))
    if recorded:
        page = _PAGE.read_text("utf-8")
        before, remainder = page.split(_BEGIN)
        _, after = remainder.split(_END)
        _PAGE.write_text(before + _BEGIN + "\n" + "\n".join(report) + "\n\n" + _END + after, "utf-8")
        for note, scores in found.items():
            _record(note, scores)


def _parts(arms: Sequence[ScoredArm]) -> dict[str, list[ScoredArm]]:
    """All arms, those of the largest group, and those without shuffled banks, which are far from all others."""
    groups = Counter(arm.group for arm in arms)
    largest = [arm for arm in arms if arm.group == max(groups, key=lambda name: groups[name])]
    real = Counter(arm.group for arm in arms if not arm.shuffled)
    unshuffled = [arm for arm in arms if not arm.shuffled and real[arm.group] > 1]
    return {
        f"{len(arms)} arms in {len(groups)} groups": list(arms),
        f"{len(largest)} arms: {largest[0].group}": largest,
        f"{len(unshuffled)} arms without shuffled banks": unshuffled,
    }


def _agreements(note: str, scores: Mapping[str, Agreement]) -> list[str]:
    head = ["", f"| {note} | Pearson | Spearman | pairs in the right order |", "|---|---|---|---|"]
    return head + [
        f"| {name} | {_signed(a.pearson)} | {_signed(a.spearman)} | {a.ordered} of {a.pairs} |"
        for name, a in scores.items()
    ]


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "−")


def _record(note: str, scores: Mapping[str, Agreement]) -> None:
    for name, a in scores.items():
        ordered = a.ordered / a.pairs
        for measure, unit, value in (("Pearson", "r", a.pearson), ("Spearman", "rho", a.spearman)):
            record("substitution", f"{measure}, {name}", unit, [value], "", _LIBRARIES, note)
        record("substitution", f"pairs in order, {name}", "share", [ordered], "", _LIBRARIES, note)


def _table(arms: Sequence[ScoredArm]) -> list[str]:
    head = ["| group | arm | seeds | perplexity | distribution | ten nearest | WordSim | SimLex |", "|" + "---|" * 8]
    return head + [
        f"| {arm.group} | {arm.arm} | {arm.seeds} | {arm.percent:+.1f} % | "
        f"{arm.distribution:.3f} | {arm.nearest:.3f} | {arm.wordsim:.2f} | {arm.simlex:.2f} |"
        for arm in sorted(arms, key=lambda arm: (arm.group, arm.percent))
    ]


def _measure_speed() -> None:
    note = f"{_VOCAB:,} tokens, a text of {_TOKENS:,}, drawn by Zipf's law"
    usages = [watched([sys.executable, "-m", "benchmarks.substitution", "--speed"]) for _ in range(3)]
    seconds = [float(usage.output) for usage in usages]
    record("substitution", "score", "s", seconds, "< 60", ("numpy",), note)
    record("substitution", "peak memory", "MB", [usage.memory_mb for usage in usages], "", ("numpy",), note)


def _time_score() -> None:
    """Print the seconds of one score: neighbors are random, and no two tokens are more likely together."""
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, _VOCAB + 1)
    tokens = random.choice(_VOCAB, _TOKENS, p=shares / shares.sum()).astype(np.int32)
    ids = random.integers(_VOCAB, size=(_VOCAB, _NEAREST), dtype=np.int32)
    targets = Substitutes(ids, np.full(ids.shape, 1 / _NEAREST, np.float32), np.ones(_VOCAB, bool))
    began = time.perf_counter()
    substitution(targets, tokens, np.arange(20, _TOKENS + 1, 20))
    print(time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.substitution", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="texts of the study")
    parser.add_argument("--work", type=Path, default=Path(".study/substitution"), help="folder for the banks")
    parser.add_argument("--record", action="store_true", help="also write what `run` writes")
    parser.add_argument("--speed", action="store_true", help="only print the seconds of one score")
    options = parser.parse_args()
    if options.speed:
        _time_score()
    else:
        _compare(options.text or parser.error("give --text FILE"), options.work, options.record)


if __name__ == "__main__":
    main()
