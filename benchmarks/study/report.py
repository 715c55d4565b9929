"""The comparison of arms with cross-entropy: paired differences over seeds, with their 95 % intervals."""

import json
import math
import statistics
from collections import defaultdict
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from benchmarks.study.design import LABEL_GROUPS, Arm, Setting

__all__ = [
    "OTHER",
    "ROWS",
    "SAMPLES",
    "Comparison",
    "best_rate",
    "compare",
    "data_report",
    "frequency_report",
    "read_rows",
    "report",
]

Row = dict[str, Any]


ROWS = Path(__file__).parents[2] / "data" / "study" / "rows.jsonl"
SAMPLES = ROWS.with_name("samples.jsonl")
OTHER = "other text: ce"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if it does not exist. Settings that are newer than a row get their defaults."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row | {"sizes": asdict(Setting(**row["sizes"])), "design": asdict(Arm(**row["design"]))} for row in rows]


class Comparison:
    """An arm against another over the seeds that both have.

    Attributes:
        differences: of a cross-entropy in nats, for each seed.
    """

    def __init__(self, arm: list[Row], other: list[Row], measure: str = "ce") -> None:
        base = {row["seed"]: row[measure] for row in other if measure in row}
        self.differences = [row[measure] - base[row["seed"]] for row in arm if measure in row and row["seed"] in base]

    @property
    def percent(self) -> float:
        """The difference of the perplexity, in percent of the other's."""
        return 100 * math.expm1(statistics.fmean(self.differences))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of `percent`, by Student's t over the seeds; None for one seed."""
        n = len(self.differences)
        if n < 2:
            return None
        half = float(student.ppf(0.975, n - 1)) * statistics.stdev(self.differences) / math.sqrt(n)
        mean = statistics.fmean(self.differences)
        return 100 * math.expm1(mean - half), 100 * math.expm1(mean + half)


def compare(rows: list[Row], arm: str, other: str = "ce") -> Comparison | None:
    """An arm against another in one setting; None if they have no seed in common."""
    mine, others = ([row for row in rows if row["arm"] == name] for name in (arm, other))
    comparison = Comparison(mine, others)
    return comparison if comparison.differences else None


def report(rows: list[Row], heading: str = "") -> str:
    """A table for each setting, text and split: every arm that was run, best first.

    Where a model is trained further, an arm has a line for each learning rate, and all are compared with cross-entropy
    at its best rate.
    """
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        sizes = row["sizes"] | ({"lr": 0.0} if _is_continued(row) else {})
        files = [str(row.get(name)) for name in ("text", "other text", "model", "encoder")]
        groups[row["setting"], str(sorted(sizes.items())), *files, row["split"]].append(row)
    tables = []
    for group in groups.values():
        tables.append(heading + _table(group))
        sampled = [row for row in group if "encoder" in row and "diverged" not in row]
        tables += [_samples_table(sampled)] if sampled else []
    return "\n\n".join(tables)


def data_report(rows: list[Row]) -> str:
    """How much text each arm is worth: the text that cross-entropy needs for the same perplexity, in the same steps.

    A table of cross-entropy by amounts of text, and one of the arms that were run with one of these amounts. Between
    amounts, the cross-entropy in nats is taken as linear in the logarithm of the amount, on the seeds that all
    amounts have. Arms without one of these seeds are left out.

    Args:
        rows: of one setting, text and split, with one tokenizer, and nothing else changed than the amount of text.
    """
    by_amount: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row["arm"] == "ce":
            by_amount[row["sizes"]["train_tokens"]].append(row)
    seeds = set.intersection(*({row["seed"] for row in runs} for runs in by_amount.values()))
    curve = {
        amount: _mean([row for row in runs if row["seed"] in seeds], "ce") for amount, runs in sorted(by_amount.items())
    }
    lines = ["| tokens of text | perplexity of cross-entropy |", "|---|---|"]
    lines += [f"| {amount:,} | {math.exp(value):.1f} |" for amount, value in curve.items()]
    lines += ["", "| arm | tokens of text | perplexity | worth, in text for cross-entropy |", "|---|---|---|---|"]
    arms: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row["arm"] != "ce" and row["seed"] in seeds:
            arms[row["arm"], row["sizes"]["train_tokens"]].append(row)
    whole = {arm: runs for arm, runs in arms.items() if {row["seed"] for row in runs} == seeds}
    for (arm, amount), runs in sorted(whole.items(), key=lambda item: _mean(item[1], "ce")):
        value = _mean(runs, "ce")
        lines.append(f"| {arm} | {amount:,} | {math.exp(value):.1f} | {_worth(curve, amount, value)} |")
    return "\n".join(["One seed." if len(seeds) == 1 else f"Means of {len(seeds)} seeds.", "", *lines])


def frequency_report(rows: list[Row]) -> str:
    """Perplexity relative to cross-entropy by how often the label occurs in the training text, for each arm.

    The table also shows the perplexity at the temperature that was fitted for each model, and the share of labels among
    the five likeliest tokens.

    Args:
        rows: of one setting, text and split. Arms without a seed of cross-entropy are left out.
    """
    arms: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "diverged" not in row:
            arms[row["arm"]].append(row)
    arms = {name: runs for name, runs in arms.items() if name == "ce" or compare(rows, name)}
    ranked = sorted(arms.items(), key=lambda item: _mean(item[1], "ce"))
    heads = [f"{name}, {low:,} times or more" if low else name for name, (low, _) in LABEL_GROUPS.items()]
    lines = [_line(["arm", "all labels", *heads, "all, at the fitted temperature", "accuracy@5"]), "|" + "---|" * 8]
    measures = ["ce", *(f"ce of labels: {name}" for name in LABEL_GROUPS), "ce at the fitted temperature"]
    for name, runs in ranked:
        cells = [
            f"{Comparison(runs, arms['ce'], measure).percent:+.1f} %" if name != "ce" else "" for measure in measures
        ]
        lines.append(_line([name, *cells, f"{_mean(runs, 'accuracy@5'):.2%}"]))
    return "\n".join(lines)


def _worth(curve: dict[int, float], amount: int, value: float) -> str:
    """The text with which cross-entropy reaches a value, as a multiple of an amount."""
    points = list(curve.items())
    for (less, higher), (more, lower) in pairwise(points):
        if lower <= value <= higher:
            share = (higher - value) / (higher - lower)
            return f"{less / amount * (more / less) ** share:.2f} ×"
    (least, worst), (most, _) = points[0], points[-1]
    return f"less than {least / amount:g} ×" if value > worst else f"more than {most / amount:g} ×"


def best_rate(rows: list[Row]) -> float:
    """The learning rate at which cross-entropy is best; 0 if it was not run."""
    runs: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        if row["arm"] == "ce":
            runs[row["sizes"]["lr"]].append(row)
    return min(runs, key=lambda rate: _mean(runs[rate], "ce"), default=0.0)


def _is_continued(row: Row) -> bool:
    return bool(row["sizes"].get("pretrained") or row["sizes"].get("base_steps"))


def _table(rows: list[Row]) -> str:
    is_continued = _is_continued(rows[0])
    columns = ["perplexity", "relative to cross-entropy", "95 % interval"]
    columns += ["other text", "relative to cross-entropy", "95 % interval"] if is_continued else []
    columns = ["arm", *(["learning rate"] if is_continued else []), "seeds", *columns, "accuracy", "calibration error"]
    lines = [_title(rows[0]), "", _line([*columns, "s"]), "|" + "---|" * (len(columns) + 1)]
    arms: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        arms[row["arm"], row["sizes"]["lr"]].append(row)
    ranked = sorted(arms.items(), key=lambda item: _mean(item[1], "ce"))
    baseline = arms.get(("ce", best_rate(rows)), [])
    for (name, rate), runs in ranked:
        start = [name, *([f"{rate:g}"] if is_continued else []), str(len(runs))]
        if any("diverged" in row for row in runs):
            lines.append(_line([*start, "diverged", *[""] * (len(columns) - len(start))]))
            continue
        cells = [
            cell for measure in ("ce", *([OTHER] if is_continued else [])) for cell in _cells(runs, baseline, measure)
        ]
        cells += [f"{_mean(runs, 'accuracy'):.2%}", f"{_mean(runs, 'calibration error'):.3f}"]
        lines.append(_line([*start, *cells, f"{_mean(runs, 'seconds'):.0f}"]))
    return "\n".join(lines)


def _samples_table(rows: list[Row]) -> str:
    """What the samples of each arm are like, at a temperature of 1 and at the fitted one, and what the text is like."""
    arms: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rate = f", learning rate {row['sizes']['lr']:g}" if _is_continued(row) else ""
        arms[f"{row['arm']}{rate}"].append(row)
    lines = ["| arm | temperature | MAUVE | least and most over seeds | distinct-2 | repetition |", "|" + "---|" * 6]
    for place in ("", " at the fitted temperature"):
        ranked = sorted(arms.items(), key=lambda item: -_mean(item[1], f"MAUVE{place}"))
        for name, runs in ranked:
            scores = [row[f"MAUVE{place}"] for row in runs]
            temperature = f"{_mean(runs, 'fitted temperature'):.2f}, fitted" if place else "1"
            spread = f"{min(scores):.3f} to {max(scores):.3f}" if len(runs) > 1 else ""
            repetitive = [
                f"{_mean(runs, f'samples: {measure}{place}'):.3f}" for measure in ("distinct-2", "repetition")
            ]
            lines.append(_line([name, temperature, f"{statistics.fmean(scores):.3f}", spread, *repetitive]))
    of_text = [f"{_mean(rows, f'text: {measure}'):.3f}" for measure in ("distinct-2", "repetition")]
    return "\n".join([*lines, _line(["the text", "", "", "", *of_text])])


def _title(row: Row) -> str:
    sizes = row["sizes"]
    model = row.get("model") or f"{sizes['layers']} layers × {sizes['dim']}, {sizes['vocab']:,} pieces"
    of_text = f" of {row['text name']}" if "text name" in row else ""
    samples = f", samples encoded by {row['encoder']}" if "encoder" in row else ""
    tuned = "".join(f", {name.replace('_', ' ')} {sizes[name]:g}" for name in ("dropout", "weight_decay")
                    if sizes[name] != getattr(Setting(), name))  # fmt: skip
    base = f", trained before on {sizes['base_tokens']:,} tokens" if sizes.get("base_steps") else ""
    return (
        f"{row['setting']}, {row['split']} text{of_text}: {model}{base}, {sizes['train_tokens']:,} tokens, "
        f"{sizes['steps']} steps of {sizes['batch'] * sizes['context']:,}{tuned}{samples}"
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _cells(runs: list[Row], baseline: list[Row], measure: str) -> list[str]:
    """The perplexity, its difference to the baseline, and the interval of that."""
    comparison = Comparison(runs, baseline, measure)
    is_compared = runs is not baseline and comparison.differences
    interval = comparison.interval if is_compared else None
    return [
        f"{math.exp(_mean(runs, measure)):.1f}",
        f"{comparison.percent:+.1f} %" if is_compared else "",
        f"{interval[0]:+.1f} to {interval[1]:+.1f} %" if interval else "",
    ]


def _mean(runs: list[Row], name: str) -> float:
    return statistics.fmean(row.get(name, math.inf) for row in runs)
