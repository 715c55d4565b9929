"""The page of the study and its picture, from the rows in data/study/rows.jsonl."""

from html import escape
from typing import Any, NamedTuple

from benchmarks.study.design import SETTINGS
from benchmarks.study.report import OTHER, ROWS, best_rate, compare, read_rows, report

__all__ = ["chart", "forgetting_chart", "page"]

_INTRO = """# The study

*This page is generated from `data/study/rows.jsonl` (`python -m docs.generators`).*

A small decoder is trained with one loss after another, from the same weights and on the same batches, and its
perplexity on held-out text is compared with that of cross-entropy. `benchmarks/study/README.md` says how. Arms are
chosen on validation text; the test text is read once.

## From scratch

The text is repeated for several epochs. The bank of an arm is counted from the training tokens alone, except in arms
with `all-text` in their name: their banks are counted from all text but that of validation and test. `shuffled` is the
same bank with its rows in the places of other tokens. This command repeats the headline:

    make study-small TEXT=english.txt

![Held-out perplexity relative to cross-entropy](assets/study.svg)

## Continued training

The decoder is first trained on one text by cross-entropy, and then on a new text with each loss. The first text is
measured again afterwards: how much of it was forgotten? The bank of `base-text` arms is counted from the first text,
and that of `head` arms is made from the decoder's own head. This command repeats it:

    python -m benchmarks.study continued-small --text new.txt --other first.txt --split test --set lr=1e-3 \\
        --arms ce base-text base-text-64-0.05 head-64-0.05 head-all unigram-smoothing label-smoothing

![Perplexity of other text relative to cross-entropy](assets/forgetting.svg)
"""

_STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.title { font-size: 17px; font-weight: 600; }
.quiet { fill: #57606a; font-size: 13px; }
.name { text-anchor: end; }
.better { fill: #0f766e; stroke: #0f766e; }
.worse { fill: #b35900; stroke: #b35900; }
.zero { stroke: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .better { fill: #2dd4bf; stroke: #2dd4bf; }
  .worse { fill: #f0883e; stroke: #f0883e; }
}
"""
_WIDTH, _TOP, _ROW, _LEFT, _PLOT = 860, 70, 26, 360, 400
"""In pixels: where the plot begins, and its width."""


def page() -> str:
    """The page: every arm that was run, in each setting and on each text."""
    rows = read_rows(ROWS)
    order = sorted(rows, key=lambda row: (row["split"] != "test", list(SETTINGS).index(row["setting"])))
    return f"{_INTRO}\n## All runs\n\n{report(order, heading='### ')}\n"


def chart() -> str:
    """The perplexity of each arm relative to cross-entropy, trained from scratch."""
    rows = [row for row in read_rows(ROWS) if row["setting"] == "small"]
    bars: list[_Bar] = []
    for split in ("valid", "test"):
        of_split = [row for row in rows if row["split"] == split]
        arms = _arms(rows, split) - {"ce"} - (_arms(rows, "test") if split == "valid" else set())
        comparisons = {arm: compare(of_split, arm) for arm in sorted(arms)}
        bars += [_Bar(arm, c.percent, c.interval) for arm, c in comparisons.items() if c]
    note = "Lines are 95 % intervals over seeds, on test text; the other arms have one seed, on validation text."
    return _draw(bars, "Held-out perplexity relative to cross-entropy, trained from scratch", note)


def forgetting_chart() -> str:
    """The perplexity of other text relative to cross-entropy, after continued training at the same learning rate."""
    rows = [row for row in read_rows(ROWS) if row["setting"] == "continued-small" and row["split"] == "test"]
    rate = best_rate(rows)
    of_rate = [row for row in rows if row["sizes"]["lr"] == rate]
    bars: list[_Bar] = []
    for arm in sorted(_arms(of_rate, "test") - {"ce"}):
        own, other = compare(of_rate, arm), compare(of_rate, arm, measure=OTHER)
        if own and other:
            bars.append(_Bar(f"{arm} ({own.percent:+.1f} % on new text)", other.percent, other.interval))
    note = f"Test text; learning rate {rate:g}, the best for cross-entropy on new text. Lines are 95 % intervals."
    return _draw(bars, "Perplexity of other text relative to cross-entropy, after continued training", note)


class _Bar(NamedTuple):
    """A name, a percentage and its interval."""

    name: str
    percent: float
    interval: tuple[float, float] | None


def _draw(bars: list[_Bar], title: str, note: str) -> str:
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
        f'<text class="quiet" x="16" y="50">{note}</text>',
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
