"""The rows of `tests.sweep.losses` as a page of the documentation."""

from collections import Counter
from importlib.metadata import version
from typing import Any

__all__ = ["table"]

_VERDICTS = {
    "right": "both forms train, and all numbers agree",
    "refused": "the linear form is refused, `emo=EMOLoss(bank)` trains, and its numbers agree",
    "refused whole": "both forms are refused",
    "wrong": "numbers differ",
    "random": "the model's own loss of one batch differs from call to call",
    "not called": "the tiny model does not run on token ids alone",
    "not built": "the class cannot be built tiny from its default config",
    "ended": "out of time or memory",
}


def table(rows: list[Any]) -> str:
    """A page: counts, the largest differences, and every class that is not right, by name.

    Args:
        rows: of the sweep; the last of a name counts.
    """
    rows = sorted({row.name: row for row in rows}.values(), key=lambda row: row.name)
    counts = Counter(row.verdict for row in rows)
    right = [row for row in rows if row.verdict == "right"]
    versions = f"transformers {version('transformers')} and torch {version('torch')}"
    lines = [
        "# The trainer's loss on every model class",
        "",
        f"Printed by `python -m tests.sweep.losses` with {versions}, in float32 on a CPU.",
        "Each class is built tiny from its config and trained for one batch, at its first, small logits and with the",
        "head enlarged until it gives 100, where softcaps bite. The linear form of `EMOTrainerMixin` is held against",
        "full logits, and cross-entropy against the model's own loss: the value, and the gradients of all parameters.",
        "",
        "| verdict | classes | |",
        "|---|---|---|",
        *(f"| {verdict} | {counts[verdict]} | {words} |" for verdict, words in _VERDICTS.items() if counts[verdict]),
        "",
        f"The largest differences of the {len(right)} that are right, a value as a part of the loss, a gradient as a",
        "part of its own norm, of the parameter where it is largest:",
        "",
        "| | value | gradient |",
        "|---|---|---|",
        _largest("linear form and full logits", right, "value", "gradient"),
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
        ("refused whole", "Refused by both forms"),
        ("refused", "Refused by the linear form"),
        ("random", "Random"),
    ):
        some = [row for row in rows if row.verdict == verdict]
        if some:
            lines += ["", f"## {title}", "", "| class | words |", "|---|---|"]
            lines += [f"| {row.name} | {_cell(row.detail)} |" for row in some]
    lines += ["", "## Not tried", "", "| class | why |", "|---|---|"]
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
    """What models apply to their logits, and which do not shift labels."""
    applied = [f"{row.name} ({row.applies})" for row in rows if row.applies not in ("", "nothing")]
    aligned = [row.name for row in rows if row.shift is False]
    unmeasured = [row.name for row in rows if not row.measured]
    unsaid = [row.name for row in rows if row.own_value is None]
    return [
        "## Between head and logits",
        "",
        f"{len(applied)} of them apply something there: {', '.join(applied)}.",
        "",
        "## Labels that are not shifted",
        "",
        f"{len(aligned)} of them do not shift labels: {', '.join(aligned)}.",
        "",
        f"`compute_loss_func` as a callback measures this of {len(rows) - len(unmeasured)} before any batch, and",
        f"takes the model's word of {len(unmeasured)}: {', '.join(unmeasured)}.",
        *(["", f"No loss of their own: {', '.join(unsaid)}."] if unsaid else []),
    ]


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")
    return text if len(text) <= 160 else text[:157] + "…"
