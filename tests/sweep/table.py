"""Print the rows of `tests.sweep.losses` as docs/sweep.md."""

from collections import Counter
from importlib.metadata import version
from typing import Any

__all__ = ["table"]

_VERDICTS = {
    "right": "both losses train, and all numbers agree",
    "refused": "the linear loss is refused; `emo=EMOLoss(bank)` trains, and its numbers agree",
    "refused whole": "both losses are refused",
    "wrong": "numbers differ",
    "random": "the model's own loss of one batch differs from call to call",
    "not called": "the tiny model does not run on token ids alone",
    "not built": "no tiny model of the class can be built from its default config",
    "ended": "out of time or memory",
}


def table(rows: list[Any]) -> str:
    """The page: counts, the largest differences, and the classes by verdict.

    Args:
        rows: the rows of the sweep; the last row of a name counts.
    """
    rows = sorted({row.name: row for row in rows}.values(), key=lambda row: row.name)
    counts = Counter(row.verdict for row in rows)
    right = [row for row in rows if row.verdict == "right"]
    versions = f"transformers {version('transformers')} and torch {version('torch')}"
    lines = [
        "# Model classes that the trainer supports",
        "",
        "[`EMOTrainerMixin`](howto/trainers.md#with-the-mixin) was tested with every language model class of",
        f"transformers. `python -m tests.sweep.losses` printed this page with {versions}, in float32",
        "on a CPU. It builds a tiny model of each class from its config and trains it for one batch, with its",
        "initial logits, and with the head scaled until logits reach 100, where softcaps take effect. It compares the",
        "linear loss with full logits, and cross-entropy with the model's own loss: the values, and the gradients of",
        "all parameters.",
        "",
        "| verdict | classes | |",
        "|---|---|---|",
        *(f"| {verdict} | {counts[verdict]} | {words} |" for verdict, words in _VERDICTS.items() if counts[verdict]),
        "",
        f"The largest differences of the {len(right)} classes that are right, relative to the loss, and to the norm",
        "of a parameter's gradient:",
        "",
        "| | value | gradient |",
        "|---|---|---|",
        _largest("linear loss and full logits", right, "value", "gradient"),
        _largest("cross-entropy and the model's own loss", right, "own_value", "own_gradient"),
        "",
        *_applied(right),
        "",
        "## Right",
        "",
        f"{', '.join(row.name for row in right)}.",
    ]
    for verdict, title in (
        ("wrong", "Wrong"),
        ("refused whole", "Refused by both losses"),
        ("refused", "Refused by the linear loss"),
        ("random", "Random"),
    ):
        some = [row for row in rows if row.verdict == verdict]
        if some:
            lines += ["", f"## {title}", "", "| class | error |", "|---|---|"]
            lines += [f"| {row.name} | {_cell(row.detail)} |" for row in some]
    lines += ["", "## Not tried", "", "| class | reason |", "|---|---|"]
    lines += [
        f"| {row.name} | {_cell(row.detail)} |" for row in rows if row.verdict in ("not built", "not called", "ended")
    ]
    return "\n".join(lines)


def _largest(what: str, rows: list[Any], value: str, gradient: str) -> str:
    cells = []
    for name in (value, gradient):
        worst = max((row for row in rows if getattr(row, name) is not None), key=lambda row: getattr(row, name))
        cells.append(f"{getattr(worst, name):.1e} ({worst.name})")
    return f"| {what} | {cells[0]} | {cells[1]} |"


def _applied(rows: list[Any]) -> list[str]:
    """The classes that change logits after the head, and those that do not shift labels."""
    applied = [f"{row.name} ({row.applies})" for row in rows if row.applies not in ("", "nothing")]
    aligned = [row.name for row in rows if row.shift is False]
    unmeasured = [row.name for row in rows if not row.measured]
    unsaid = [row.name for row in rows if row.own_value is None]
    return [
        "## Classes that change logits after the head",
        "",
        f"{len(applied)} classes: {', '.join(applied)}.",
        "",
        "## Classes that do not shift labels",
        "",
        f"{len(aligned)} classes: {', '.join(aligned)}.",
        "",
        "As a callback, `compute_loss_func` measures this before the first batch.",
        f"For {len(unmeasured)} classes that is impossible; it follows from the kind of model:",
        f"{', '.join(unmeasured)}.",
        *(["", f"No loss of their own: {', '.join(unsaid)}."] if unsaid else []),
    ]


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")
    return text if len(text) <= 160 else text[:157] + "…"
