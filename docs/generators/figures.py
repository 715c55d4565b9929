"""The page of measured figures, and the README's table of some of them, made from `data/bench/results.csv`."""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from docs.generators.tables import table

__all__ = ["fill", "page", "readme"]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "data" / "bench" / "results.csv"
README = ROOT / "README.md"
SENTENCES = Path(__file__).with_name("figures.txt")

_BEGIN, _END = "<!-- python -m docs.generators: begin -->\n", "<!-- python -m docs.generators: end -->\n"

_NUMBER = re.compile(r"\{(?P<benchmark>\w+): (?P<measure>[^}]+?)(?: @ (?P<note>[^}]+?))?(?: \* (?P<scale>[^} ]+))?\}")

_ABOVE = """# Measured figures

Measured on two CPU cores, without a GPU, by the scripts in `benchmarks/` (`make bench`). Every number is from the
newest row of its measurement in [data/bench/results.csv](../data/bench/results.csv).
[Training results so far](training-results.md) has the results of training, and the speed on a GPU.
[Choose a source](choosing.md) compares the sources of a bank.

## In short

"""

_ALL = """
## Every measurement

Medians, with the range of all runs. Targets are our own, and not all of them are met. Both sides of a ratio were
measured in the same run.

"""


@dataclass(frozen=True)
class _Row:
    benchmark: str
    measure: str
    note: str
    unit: str
    median: str
    least: str
    most: str
    runs: str
    target: str
    date: str


@cache
def _newest() -> Mapping[tuple[str, str, str], _Row]:
    """The newest row of each benchmark, measure and note. The file's rows are in the order of measurement."""
    with RESULTS.open(newline="") as file:
        rows = [
            _Row(**{name: row[{"least": "min", "most": "max"}.get(name, name)] for name in _Row.__dataclass_fields__})
            for row in csv.DictReader(file)
        ]
    return {(row.benchmark, row.measure, row.note): row for row in rows}


def fill(text: str) -> str:
    """A text with each {benchmark: measure} replaced by its median, in four digits.

    Raises:
        LookupError: no row, or more than one, has this benchmark, measure and note.
    """
    return _NUMBER.sub(_median, text)


def _median(match: re.Match[str]) -> str:
    rows = [
        row
        for row in _newest().values()
        if (row.benchmark, row.measure) == (match["benchmark"], match["measure"])
        and row.note.startswith(match["note"] or "")
    ]
    if len(rows) != 1:
        raise LookupError(f"{match[0]} matches {len(rows)} rows of {RESULTS.name}, and should match 1")
    return f"{float(rows[0].median) * float(match['scale'] or 1):.4g}"


def _sentences(is_included: Callable[[str], bool]) -> str:
    lines = [line for line in SENTENCES.read_text("utf-8").splitlines() if line and not line.startswith("# ")]
    cells = [fill(line.removeprefix("* ")).split(" | ") for line in lines if is_included(line)]
    return table(("measurement", "result"), cells)


def page() -> str:
    """The figures in sentences, then every measurement."""
    benchmarks = dict.fromkeys(row.benchmark for row in _newest().values())
    return _ABOVE + _sentences(lambda _: True) + _ALL + "\n".join(map(_benchmark, benchmarks))


def _benchmark(name: str) -> str:
    cells = [
        (
            row.measure,
            f"{row.median} {row.unit}",
            f"{row.least} to {row.most}",
            row.runs,
            row.target,
            row.date,
            row.note,
        )
        for row in _newest().values()
        if row.benchmark == name
    ]
    return f"### {name}\n\n{table(('measure', 'median', 'range', 'runs', 'target', 'date', 'conditions'), cells)}"


def readme() -> str:
    """The README, with its table of figures replaced."""
    generated = f"{_BEGIN}\n{_sentences(lambda line: line.startswith('* '))}\n{_END}"
    return re.sub(f"{_BEGIN}.*{_END}", lambda _: generated, README.read_text("utf-8"), count=1, flags=re.DOTALL)
