"""Compare, in one run, the time of the losses in this checkout and in another one, such as before a change.

    python -m benchmarks.loss_against ../before --shapes 32k,128k --rounds 9

Each checkout has its own process. The two processes run each variant in turns, one step at a time, so both run under
the same conditions.
A ratio is the median over rounds of this checkout's time divided by the other's in the same round.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.loss_variants import SHAPES
from benchmarks.record import record

__all__ = ["main"]

_HERE = Path(__file__).parents[1]
_OURS = ("cross-entropy", "neighbors 64", "low-rank 64", "low-rank 256", "dense", "dense, full logits")

# Runs in both checkouts: reads the name of a variant from each line, and prints the milliseconds of a step.
_WORKER = """
import sys, time
from benchmarks.loss_variants import SHAPES, Inputs, variants_for
shape = SHAPES[sys.argv[1]]
inputs, variants = Inputs(shape, "cpu"), variants_for(shape, "cpu")
costs = {name: variants[name].costs(inputs) for name in sys.argv[2].split(";")}
for line in sys.stdin:
    name = line.strip()
    began = time.perf_counter()
    variants[name].loss(inputs, costs[name]).backward()
    print((time.perf_counter() - began) * 1e3, flush=True)
    inputs.hidden.grad = inputs.weight.grad = None
"""


class _Checkout:
    """A process that runs steps of the losses of a checkout."""

    def __init__(self, root: Path, shape: str) -> None:
        paths = os.pathsep.join(map(str, (root, root / "service", root / "cli")))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, shape, ";".join(_OURS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    def step_ms(self, variant: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(variant, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss_against", description="Losses of two checkouts.")
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=["32k", "128k"], help=", ".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-record", action="store_true", help="only print the ratios")
    options = parser.parse_args()
    for shape in options.shapes:
        ratios = _ratios(options.other.resolve(), shape, options.rounds)
        for variant, values in ratios.items():
            median, least, most = statistics.median(values), min(values), max(values)
            print(f"{shape:>6}  {variant:<20} {median:.3f}  ({least:.2f} to {most:.2f})")
            if not options.no_record:
                measure = f"{shape}: {variant}, time over that of another checkout"
                record("loss_against", measure, "ratio", values, "<= 1.03", ("torch",), SHAPES[shape].description)


def _ratios(other: Path, shape: str, rounds: int) -> dict[str, list[float]]:
    here, there = _Checkout(_HERE, shape), _Checkout(other, shape)
    ratios: dict[str, list[float]] = {variant: [] for variant in _OURS}
    for number in range(rounds + 1):  # the first is not counted
        for variant in _OURS:
            first, second = (here, there) if number % 2 else (there, here)
            times = {checkout: checkout.step_ms(variant) for checkout in (first, second)}
            if number:
                ratios[variant].append(times[here] / times[there])
    here.close()
    there.close()
    return ratios


if __name__ == "__main__":
    main()
