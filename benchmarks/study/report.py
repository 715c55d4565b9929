"""The comparison of arms with cross-entropy: paired differences over seeds, with their 95 % intervals."""

import math
import statistics
from collections import defaultdict
from typing import Any

from scipy.stats import t as student

__all__ = ["Comparison", "compare", "report"]

Row = dict[str, Any]


class Comparison:
    """An arm against another over the seeds that both have.

    Attributes:
        differences: of the cross-entropy in nats, for each seed.
    """

    def __init__(self, arm: list[Row], other: list[Row]) -> None:
        base = {row["seed"]: row["ce"] for row in other}
        self.differences = [row["ce"] - base[row["seed"]] for row in arm if row["seed"] in base]

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
    comparison = Comparison(*([row for row in rows if row["arm"] == name and "ce" in row] for name in (arm, other)))
    return comparison if comparison.differences else None


def report(rows: list[Row], heading: str = "") -> str:
    """A table for each setting, text and split: every arm that was run, best first."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["setting"], str(sorted(row["sizes"].items())), row["text"], row["split"]].append(row)
    return "\n\n".join(heading + _table(group) for group in groups.values())


def _table(rows: list[Row]) -> str:
    sizes, first = rows[0]["sizes"], rows[0]
    lines = [
        f"{first['setting']}, {first['split']} text: {sizes['layers']} layers × {sizes['dim']}, {sizes['vocab']:,} "
        f"pieces, {sizes['train_tokens']:,} tokens, {sizes['steps']} steps of {sizes['batch'] * sizes['context']:,}",
        "",
        "| arm | seeds | perplexity | relative to cross-entropy | 95 % interval | accuracy | calibration error | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    arms = defaultdict(list)
    for row in rows:
        arms[row["arm"]].append(row)
    ranked = sorted(arms.items(), key=lambda item: _mean(item[1], "ce"))
    for name, runs in ranked:
        if any("diverged" in row for row in runs):
            lines.append(f"| {name} | {len(runs)} | diverged | | | | | |")
            continue
        comparison = None if name == "ce" else compare(rows, name)
        interval = None if comparison is None else comparison.interval
        lines.append(
            f"| {name} | {len(runs)} | {math.exp(_mean(runs, 'ce')):.1f} | "
            + (f"{comparison.percent:+.1f} %" if comparison else "")
            + " | "
            + (f"{interval[0]:+.1f} to {interval[1]:+.1f} %" if interval else "")
            + f" | {_mean(runs, 'accuracy'):.2%} | {_mean(runs, 'calibration error'):.3f} "
            + f"| {_mean(runs, 'seconds'):.0f} |"
        )
    return "\n".join(lines)


def _mean(runs: list[Row], name: str) -> float:
    return statistics.fmean(row.get(name, math.inf) for row in runs)
