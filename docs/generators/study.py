"""The page of the study and its picture, from the rows in data/study/rows.jsonl."""

import math
from collections import Counter
from dataclasses import asdict
from html import escape
from typing import Any, NamedTuple

from benchmarks.study.design import SETTINGS
from benchmarks.study.report import OTHER, ROWS, SAMPLES, compare, data_report, frequency_report, read_rows, report

__all__ = ["chart", "forgetting_chart", "page"]

_INTRO = """# The study

*This page is generated from the rows in `data/study` (`python -m docs.generators`).*

A small decoder is trained with one loss after another, from the same weights and on the same batches, and its
perplexity on held-out text is compared with that of cross-entropy. `benchmarks/study/README.md` says how. Arms are
chosen on validation text; the test text is read once.

## From scratch

The text is repeated for several epochs. The bank of an arm is counted from the training tokens alone, except in arms
with `all-text` in their name: their banks are counted from all text but that of validation and test. `shuffled` is the
same bank with its rows in the places of other tokens. In arms whose names begin with `start-from`, the embedding, and
with it the tied head, starts from the bank's vectors (as by `start_from_bank`, but with new random rows for tokens
without a vector). This command compares cross-entropy, label smoothing, a start from the bank with `EMOLoss(bank)`, and
the same with shuffled banks, on the docstrings of Python's standard library, which everybody has. It takes 20 to 30
minutes on two idle cores; `TEXT=FILE` gives another text:

    make study-small

![Held-out perplexity relative to cross-entropy](assets/study.svg)

## Continued training

The decoder is first trained on one text by cross-entropy, and then on a new text with each loss. The first text is
measured again afterwards: how much of it was forgotten? The bank of `base-text` arms is counted from the first text,
and that of `head` arms is made from the decoder's own head. This command repeats it:

    python -m benchmarks.study continued-small --text new.txt --other first.txt --split test \\
        --arms ce base-text base-text-64-0.05 head-64-0.05 head-all unigram-smoothing label-smoothing

![Perplexity of the new and of the earlier text](assets/forgetting.svg)

A pretrained model starts from its folder, and its head is the bank of `head` arms:

    python -m benchmarks.study continued --text new.txt --other earlier.txt --model FOLDER --split test \\
        --arms untrained ce head-64-0.05 --set eval_tokens=8000 lr=1e-4

## Fine-tuning

The decoder is first trained on news, and then on pairs: the name and arguments of a Python function as the prompt, and
the first paragraph of its docstring as the answer. The loss and the perplexity are those of the answers alone. The
bank of `recommended` is counted from the pairs, that of `base-text` from the news. These commands repeat it:

    python -m benchmarks.study.docstrings pairs pairs.tsv
    python -m benchmarks.study finetune-small --text pairs.tsv --other news.txt --split test \\
        --arms ce recommended base-text base-text-shuffled base-text-64-0.05 head-all label-smoothing unigram-smoothing
"""

_DATA = """## How much text a bank is worth

Cross-entropy was also trained on other amounts of text, with the tokenizer of the 200,000 tokens and in as many steps.
The text that it needs for the perplexity of another loss tells what that loss is worth. Between two amounts, the
cross-entropy in nats is taken to fall evenly with the logarithm of the text. In fact it falls faster at first, so these
multiples are upper limits. This command adds an amount of text to the table:

    python -m benchmarks.study small --text FILE --split test --arms ce \\
        --set train_tokens=400000 tokenizer_tokens=200000
"""

_FREQUENCY = """## Gains by the frequency of the label

The perplexity relative to cross-entropy of the test runs of the small setting on English, by how often the label occurs
in the training text; means over the seeds of each arm. The column of the fitted temperature shows what is
left when a loss can no longer gain by sharper or flatter predictions.
"""

_SAMPLES = """## Samples

Runs with `--encoder` are also measured by samples, which follow 32 tokens of held-out text and are as long. MAUVE
compares them with the text that follows there, and is 1 if nothing tells them apart. A loss that makes predictions
sharper or flatter changes samples as another temperature would, so they are also compared at the temperature
that fits each model best on validation text. MAUVE depends on the number and length of the samples and on the encoder:
compare values of one table only.

    python -m benchmarks.study small --text FILE --split test --encoder FOLDER --rows data/study/samples.jsonl \\
        --seeds 1 --arms ce start-from-bank-recommended
"""

_STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.title { font-size: 17px; font-weight: 600; }
.quiet { fill: #57606a; font-size: 13px; }
.name { text-anchor: end; }
.better { fill: #0f766e; stroke: #0f766e; }
.worse { fill: #b35900; stroke: #b35900; }
.zero { stroke: #8c959f; }
.first { stroke: #57606a; fill: #57606a; }
.second { stroke: #b35900; fill: #b35900; }
.third { stroke: #bf3989; fill: #bf3989; }
.fourth { stroke: #54aeff; fill: #54aeff; }
.fifth { stroke: #0969da; fill: #0969da; }
.sixth { stroke: #0f766e; fill: #0f766e; }
polyline { fill: none !important; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .better { fill: #2dd4bf; stroke: #2dd4bf; }
  .worse { fill: #f0883e; stroke: #f0883e; }
}
"""
_WIDTH, _TOP, _ROW, _LEFT, _PLOT = 760, 90, 26, 260, 400
"""In pixels: where the plot begins, and its width."""
_MOST_SHOWN = 20
"""In percent: arms that raise the perplexity by more would make the rest of the picture small."""
_LINES = {"ce": "first", "label-smoothing": "second", "unigram-smoothing": "third", "head-64-0.05": "fourth",
          "head-all": "fifth", "base-text": "sixth"}  # fmt: skip
"""The arms of the picture of continued training, and their colors."""


def page() -> str:
    """The page: every arm that was run, in each setting and on each text."""
    rows = read_rows(ROWS)
    order = sorted(rows, key=lambda row: (row["split"] != "test", list(SETTINGS).index(row["setting"])))
    amounts = _by_amount(rows)
    small = [row for row in amounts if row["sizes"] == asdict(SETTINGS["small"])]
    parts = [_INTRO, _DATA, data_report(amounts), _FREQUENCY, frequency_report(small), _SAMPLES,
             report(read_rows(SAMPLES), "### "), "## All runs", report(order, "### ")]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _by_amount(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The test runs of the small setting on English that differ only in the amount of text."""
    small = asdict(SETTINGS["small"])
    amounts = {"train_tokens": small["train_tokens"], "tokenizer_tokens": 0}
    return [
        row for row in rows
        if row["text name"] == "english" and row["split"] == "test" and row["sizes"] | amounts == small
        and (row["sizes"]["tokenizer_tokens"] or row["sizes"]["train_tokens"]) == small["train_tokens"]
    ]  # fmt: skip


def chart() -> str:
    """The perplexity of each arm relative to cross-entropy, trained from scratch."""
    rows = [row for row in read_rows(ROWS)
            if row["text name"] == "english" and row["sizes"] == asdict(SETTINGS["small"])]  # fmt: skip
    bars: list[_Bar] = []
    for split in ("valid", "test"):
        of_split = [row for row in rows if row["split"] == split]
        arms = _arms(rows, split) - {"ce"} - (_arms(rows, "test") if split == "valid" else set())
        comparisons = {arm: compare(of_split, arm) for arm in sorted(arms)}
        bars += [_Bar(arm, c.percent, c.interval) for arm, c in comparisons.items() if c]
    shown = [bar for bar in bars if bar.percent < _MOST_SHOWN]
    outside = [f"{bar.name} ({bar.percent:+.0f} %)" for bar in bars if bar not in shown]
    notes = ["Lines: 95 % intervals over seeds, on test text. Other arms: one seed, on validation text."]
    notes += [f"Not shown: {', '.join(outside)}."] if outside else []
    return _draw(shown, "Held-out perplexity relative to cross-entropy, trained from scratch", notes)


def forgetting_chart() -> str:
    """Perplexity of the new and of the other text: a line for each arm, a point for each learning rate.

    The texts are those with the most runs.
    """
    rows = [row for row in read_rows(ROWS) if row["setting"] == "continued-small" and row["split"] == "valid"]
    texts = Counter((row["text"], row["other text"]) for row in rows).most_common(1)[0][0]
    rows = [row for row in rows if (row["text"], row["other text"]) == texts]
    points: dict[str, list[tuple[float, float, float]]] = {}
    for arm in _LINES:
        of_arm = {row["sizes"]["lr"]: row for row in rows if row["arm"] == arm and row["seed"] == 0}
        points[arm] = [(lr, row["perplexity"], math.exp(row[OTHER])) for lr, row in sorted(of_arm.items())]
    every = [point for of_arm in points.values() for point in of_arm]
    width, height, left, right, top, bottom = 860, 460, 80, 660, 80, 400
    xs, ys = ([math.log(point[i]) for point in every] for i in (1, 2))

    def place(new: float, other: float) -> tuple[float, float]:
        x = (math.log(new) - min(xs)) / (max(xs) - min(xs))
        y = (math.log(other) - min(ys)) / (max(ys) - min(ys))
        return left + (right - left) * x, bottom - (bottom - top) * y

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        '<text class="title" x="16" y="28">Continued training: perplexity of the new and of the earlier text</text>',
        '<text class="quiet" x="16" y="50">Nearer to the lower left is better. Points are learning rates, 2e-4 at the '
        "right, to 2e-3. Validation text, one seed.</text>",
    ]
    for new in (120, 130, 140):
        x, y = place(new, 300)[0], bottom + 24
        lines.append(f'<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom + 6}" stroke-width="0.5"/>')
        lines.append(f'<text class="quiet" x="{x - 10:.1f}" y="{y}">{new}</text>')
    for other in (300, 400, 500, 600, 800):
        y = place(120, other)[1]
        lines.append(f'<line class="zero" x1="{left - 6}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="0.5"/>')
        lines.append(f'<text class="quiet name" x="{left - 12}" y="{y + 5:.1f}">{other}</text>')
    lines.append(f'<text class="quiet" x="{left}" y="{bottom + 46}">new text; both axes are logarithmic</text>')
    lines.append(f'<text class="quiet" x="16" y="{top - 6}">earlier text</text>')
    for number, (arm, of_arm) in enumerate(points.items()):
        kind, places = _LINES[arm], [place(new, other) for _, new, other in of_arm]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(f'<polyline class="{kind}" fill="none" stroke-width="2" points="{path}"/>')
        lines += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places]
        y = top + 20 + 28 * number
        lines.append(f'<line class="{kind}" stroke-width="3" x1="{right + 16}" x2="{right + 44}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text x="{right + 52}" y="{y + 5}">{arm}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Bar(NamedTuple):
    """A name, a percentage and its interval."""

    name: str
    percent: float
    interval: tuple[float, float] | None


def _draw(bars: list[_Bar], title: str, notes: list[str]) -> str:
    """Points with their intervals as lines, the least first."""
    bars = sorted(bars, key=lambda bar: bar.percent)
    ends = [end for bar in bars for end in (bar.percent, *(bar.interval or ()))]
    low, high = min([0.0, *ends]), max([0.0, *ends])

    def x(percent: float) -> float:
        return _LEFT + _PLOT * (percent - low) / max(high - low, 1e-9)

    height = _TOP + _ROW * len(bars) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="16" y="28">{title}</text>',
        *(f'<text class="quiet" x="16" y="{50 + 18 * number}">{note}</text>' for number, note in enumerate(notes)),
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP - 8}" y2="{height - 12}"/>',
    ]
    for number, (name, percent, interval) in enumerate(bars):
        y, kind = _TOP + _ROW * number + 10, "better" if percent < 0 else "worse"
        lines.append(f'<text class="name" x="{_LEFT - 16}" y="{y + 5}">{escape(name)}</text>')
        if interval:
            ends_x = f'x1="{x(interval[0]):.1f}" x2="{x(interval[1]):.1f}"'
            lines.append(f'<line class="{kind}" stroke-width="2" {ends_x} y1="{y}" y2="{y}"/>')
        lines.append(f'<circle class="{kind}" cx="{x(percent):.1f}" cy="{y}" r="5"/>')
        lines.append(f'<text class="quiet" x="{_LEFT + _PLOT + 24}" y="{y + 5}">{percent:+.1f} %</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _arms(rows: list[dict[str, Any]], split: str) -> set[str]:
    return {row["arm"] for row in rows if row["split"] == split}
