"""The page of the study and its picture, from the rows in data/study/rows.jsonl."""

from html import escape
from typing import Any

from benchmarks.study.design import SETTINGS
from benchmarks.study.report import ROWS, compare, read_rows, report

__all__ = ["chart", "page"]

_INTRO = """# The study

*This page is generated from `data/study/rows.jsonl` (`python -m docs.generators`).*

A small decoder is trained from scratch with one loss after another, from the same weights and on the same batches, and
its perplexity on held-out text is compared with that of cross-entropy. `benchmarks/study/README.md` says how. This
command repeats it:

    make study-small TEXT=english.txt

The bank of an arm is counted from the training tokens alone, except in arms with `all-text` in their name. `shuffled`
is the same bank with its rows in the places of other tokens. Arms are chosen on validation text; the test text is read
once.

![Held-out perplexity relative to cross-entropy](assets/study.svg)
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
_WIDTH, _TOP, _ROW, _LEFT, _PLOT = 760, 70, 26, 260, 400
"""In pixels: where the plot begins, and its width."""


def page() -> str:
    """The page: every arm that was run, in each setting and on each text."""
    rows = read_rows(ROWS)
    order = sorted(rows, key=lambda row: (row["split"] != "test", list(SETTINGS).index(row["setting"])))
    return f"{_INTRO}\n## All runs\n\n{report(order, heading='### ')}\n"


def chart() -> str:
    """Points for the perplexity of each arm relative to cross-entropy, with 95 % intervals where there are seeds."""
    rows = [row for row in read_rows(ROWS) if row["setting"] == "small"]
    bars: list[tuple[str, float, tuple[float, float] | None]] = []
    for split in ("valid", "test"):
        of_split = [row for row in rows if row["split"] == split]
        arms = _arms(rows, split) - {"ce"} - (_arms(rows, "test") if split == "valid" else set())
        comparisons = {arm: compare(of_split, arm) for arm in sorted(arms)}
        bars += [(arm, c.percent, c.interval) for arm, c in comparisons.items() if c]
    bars.sort(key=lambda bar: bar[1])
    ends = [end for _, percent, interval in bars for end in (percent, *(interval or ()))]
    low, high = min([0.0, *ends]), max([0.0, *ends])

    def x(percent: float) -> float:
        return _LEFT + _PLOT * (percent - low) / max(high - low, 1e-9)

    height = _TOP + _ROW * len(bars) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        f"<style>{_STYLE}</style>",
        '<text class="title" x="16" y="28">Held-out perplexity relative to cross-entropy, trained from scratch</text>',
        '<text class="quiet" x="16" y="50">Lines are 95 % intervals over seeds, on test text; the other arms have one '
        "seed, on validation text.</text>",
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP - 8}" y2="{height - 12}"/>',
    ]
    for number, (arm, percent, interval) in enumerate(bars):
        y, kind = _TOP + _ROW * number + 10, "better" if percent < 0 else "worse"
        lines.append(f'<text class="name" x="{_LEFT - 16}" y="{y + 5}">{escape(arm)}</text>')
        if interval:
            ends_x = f'x1="{x(interval[0]):.1f}" x2="{x(interval[1]):.1f}"'
            lines.append(f'<line class="{kind}" stroke-width="2" {ends_x} y1="{y}" y2="{y}"/>')
        lines.append(f'<circle class="{kind}" cx="{x(percent):.1f}" cy="{y}" r="5"/>')
        lines.append(f'<text class="quiet" x="{_LEFT + _PLOT + 24}" y="{y + 5}">{percent:+.1f} %</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _arms(rows: list[dict[str, Any]], split: str) -> set[str]:
    return {row["arm"] for row in rows if row["split"] == split}
