"""Record a measured number as a row of data/bench/results.csv, with the machine and the versions."""

import csv
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import costbank

__all__ = ["RESULTS", "record"]

RESULTS = Path(__file__).parents[1] / "data" / "bench" / "results.csv"

COLUMNS = ("date", "benchmark", "measure", "unit", "median", "min", "max", "runs", "target", "cores", "cpu", "python",
           "costbank", "libraries", "note")  # fmt: skip


def record(
    benchmark: str,
    measure: str,
    unit: str,
    values: Sequence[float],
    target: str = "",
    libraries: Sequence[str] = (),
    note: str = "",
) -> None:
    """Append a row and print it. Both sides of a ratio must be measured in the same run."""
    versions = " ".join(f"{name}={_version(name)}" for name in libraries)
    row = (
        datetime.now(UTC).date().isoformat(), benchmark, measure, unit, *(f"{value:.4g}" for value in
        (statistics.median(values), min(values), max(values))), len(values), target, os.cpu_count(), _cpu(),
        platform.python_version(), costbank.__version__, versions, note,
    )  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        writer.writerow(row)
    print(f"{benchmark}: {measure} = {row[4]} {unit}{f' (target {target})' if target else ''}", file=sys.stderr)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
