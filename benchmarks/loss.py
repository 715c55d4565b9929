"""Compare the time and memory of losses of hidden states and a head's weight, forward and backward.

`python -m benchmarks loss` runs the shapes that fit the machine, or those in `$COSTBANK_BENCH_LOSS` (names with
commas); `python -m benchmarks.loss --shapes small,gpt2 --rounds 5` runs the given ones. Bank rows and tables are
random, because neither time nor memory depends on their values.

Time is measured in rounds: each variant runs once per round, and each round begins with another variant. Ratios compare
times of the same round. Memory is measured in a new process for each variant, which runs one step: the peak resident
memory, minus that before the step (libraries, hidden states, weight, costs) and minus the two gradients, which every
variant must return. The matrix library allocates its workspace for products of that size before the measurement.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.loss_variants import SHAPES, Inputs, Shape, Variant, variants_for
from benchmarks.record import record

__all__ = ["Times", "measure", "peak_mb", "run", "step_mb", "timed"]

_ROOT = Path(__file__).parents[1]
_DEFAULT_SHAPES = {
    "cpu": ("32k", "32k-ignored", "128k"),
    "cuda": ("llama3-8b", "gemma2", "qwen3", "gpt2", "32k-ignored"),
}
_ROUNDS = {"cpu": 7, "cuda": 20}
_MEMORY_RUNS = 3
_FIRST = "cross-entropy"

# Largest ratios to the time and memory of our own cross-entropy.
_TIME_TARGETS = {
    "cpu": {"neighbors 64": 1.05, "low-rank 64": 1.12, "low-rank 256": 1.25, "dense": 1.45},
    "cuda": {"neighbors 64": 1.02, "low-rank 64": 1.05, "dense": 1.20},
}
_MEMORY_TARGETS = {"neighbors 64": 1.15, "dense": 2.0}

_STEP = """
import sys
from benchmarks.loss import step_mb
print(step_mb(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class Comparison:
    """A variant, the one it is compared with, and the targets for the ratios of time and memory."""

    variant: str
    other: str
    time: str
    memory: str


_COMPARISONS = (
    Comparison(_FIRST, "F.cross_entropy", "<= 1", ""),
    Comparison(_FIRST, "F.linear_cross_entropy", "<= 1", ""),
    Comparison(_FIRST, "F.linear_cross_entropy, chunked", "<= 1", ""),
    Comparison(_FIRST, "products alone", "<= 1.2", ""),
    Comparison(_FIRST, "cross-entropy, PyTorch's operations", "<= 1", ""),
    Comparison(_FIRST, "Liger", "<= 1", ""),
    Comparison(_FIRST, "cut-cross-entropy", "<= 1", ""),
    Comparison(_FIRST, "quack", "", ""),
    Comparison("dense", "Liger", "<= 1", ""),
    Comparison("published EMOLoss", "dense", ">= 2", ">= 10"),
    Comparison("straightforward EMO", "dense", "", ""),
)


@dataclass(frozen=True)
class Times:
    """The milliseconds of each variant, by round."""

    by_variant: dict[str, list[float]]

    def ratios(self, variant: str, other: str) -> list[float]:
        pairs = zip(self.by_variant[variant], self.by_variant[other], strict=True)
        return [own_time / other_time for own_time, other_time in pairs]


def run() -> None:
    named = os.environ.get("COSTBANK_BENCH_LOSS")
    measure(named.split(",") if named else None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss", description="Time and memory of losses.")
    parser.add_argument("--shapes", type=lambda text: text.split(","), help=f"comma-separated: {', '.join(SHAPES)}")
    parser.add_argument("--variants", type=lambda text: text.split(";"), help=f"separated by ';'; {_FIRST!r} is added")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--memory-runs", type=int, default=_MEMORY_RUNS, help="memory runs per variant; 0 for none")
    parser.add_argument("--no-record", action="store_true", help="only print the tables")
    options = parser.parse_args(arguments)
    measure(options.shapes, options.variants, options.rounds, options.memory_runs, not options.no_record)


def measure(
    names: Sequence[str] | None,
    chosen: Sequence[str] | None = None,
    rounds: int | None = None,
    memory_runs: int = _MEMORY_RUNS,
    kept: bool = True,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Measure and print shapes, and record them, until `is_over`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in names or _DEFAULT_SHAPES[device]:
        if is_over():
            _say(f"no time is left for {name}")
            continue
        if name not in SHAPES:
            raise SystemExit(f"there is no shape {name!r}; choose from {', '.join(SHAPES)}")
        shape = SHAPES[name].on(device)
        variants = variants_for(shape, device)
        if chosen is not None:
            unknown = set(chosen) - set(variants)
            if unknown:
                raise SystemExit(f"unknown variants: {', '.join(unknown)}; choose from {'; '.join(variants)}")
            variants = {name: variant for name, variant in variants.items() if name in (_FIRST, *chosen)}
        times = timed(shape, variants, rounds or _ROUNDS[device], device)
        memory = {name: peak_mb(name, shape, memory_runs, device) for name in variants} if memory_runs else {}
        _print_table(shape, device, times, memory)
        if kept:
            _record(shape, device, times, memory)


def timed(shape: Shape, variants: dict[str, Variant], rounds: int, device: str) -> Times:
    """Run all variants in turns in this process. The first round is not counted."""
    inputs = Inputs(shape, device)
    costs = {name: variant.costs(inputs) for name, variant in variants.items()}
    times = Times({name: [] for name in variants})
    names = list(variants)
    for number in range(rounds + 1):
        gc.collect()
        for offset in range(len(names)):
            name = names[(number + offset) % len(names)]
            _say(f"{shape.name}: round {number} of {rounds}, {name}")
            _wait(device)
            began = time.perf_counter()
            variants[name].loss(inputs, costs[name]).backward()
            _wait(device)
            took_ms = (time.perf_counter() - began) * 1e3
            inputs.hidden.grad = inputs.weight.grad = None
            if number:
                times.by_variant[name].append(took_ms)
    return times


def peak_mb(variant: str, shape: Shape, runs: int, device: str) -> list[float]:
    """The peak memory of a step in each of several new processes, in millions of bytes, above inputs and gradients."""
    # malloc returns freed blocks of a megabyte or more at once, so resident memory is memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    command = [sys.executable, "-c", _STEP, variant, shape.name, device]
    peaks = []
    for number in range(runs):
        _say(f"{shape.name}: memory {number + 1} of {runs}, {variant}")
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT, env=environment)
        peaks.append(float(done.stdout))
    return peaks


def step_mb(name: str, shape_name: str, device: str) -> float:
    """The peak memory of one step of a variant. Runs in its own process."""
    shape = SHAPES[shape_name].on(device)
    variant = variants_for(shape, device)[name]
    # The first call loads libraries, compiles and starts threads.
    first = Inputs(replace(SHAPES["tiny"], softcap=shape.softcap), device)
    variant.loss(first, variant.costs(first)).backward()
    del first
    inputs = Inputs(shape, device)
    costs = variant.costs(inputs)
    _products_of_a_block(inputs)
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _resident_from_here()
    variant.loss(inputs, costs).backward()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _status_bytes("VmHWM")
    return (peak - before - inputs.gradient_bytes) / 1e6


def _products_of_a_block(inputs: Inputs) -> None:
    """Run the matrix products of a block, so that the library's workspace is allocated for every variant."""
    hidden, weight = inputs.hidden.detach()[:256], inputs.weight.detach()
    scores = hidden @ weight.T
    torch.zeros_like(weight).addmm_(scores.T, hidden)


def _resident_from_here() -> int:
    """The memory in use, from which the peak is counted."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def _print_table(shape: Shape, device: str, times: Times, memory: dict[str, list[float]]) -> None:
    print(f"\n{shape.name} on {device}: {shape.description}; {len(times.by_variant[_FIRST])} rounds\n")
    print("| variant | ms | min | max | × cross-entropy | MB | × cross-entropy |\n|---|---|---|---|---|---|---|")
    for name, values in times.by_variant.items():
        ratio = statistics.median(times.ratios(name, _FIRST))
        row = f"| {name} | {statistics.median(values):.4g} | {min(values):.4g} | {max(values):.4g} | {ratio:.3f}"
        if memory:
            mb = statistics.median(memory[name])
            row += f" | {mb:.4g} | {mb / statistics.median(memory[_FIRST]):.3g} |"
        else:
            row += " | – | – |"
        print(row)
    print(flush=True)


def _record(shape: Shape, device: str, times: Times, memory: dict[str, list[float]]) -> None:
    precision = "float32" if device == "cpu" else "bfloat16"
    machine = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    note = f"forward and backward, {shape.description}, {precision}, {machine}"
    memory_note = f"{note}; above inputs and gradients, in a process of its own"
    libraries = ("torch", "EMOLoss", *(("liger-kernel", "cut-cross-entropy") if device == "cuda" else ()))

    def keep(measure: str, unit: str, values: Sequence[float], target: str = "", of_memory: bool = False) -> None:
        record("loss", f"{shape.name}: {measure}", unit, values, target, libraries, memory_note if of_memory else note)

    middle = {name: statistics.median(values) for name, values in memory.items()}
    for name in times.by_variant:
        keep(name, "ms", times.by_variant[name])
        if name in memory:
            keep(f"{name}, memory", "MB", memory[name], "", True)
        if name == _FIRST:
            continue
        wanted = _TIME_TARGETS[device].get(name)
        keep(f"{name} / {_FIRST}", "ratio", times.ratios(name, _FIRST), f"<= {wanted:g}" if wanted else "")
        if name in memory:
            wanted = _MEMORY_TARGETS.get(name)
            ratio = middle[name] / middle[_FIRST]
            keep(f"{name} / {_FIRST}, memory", "ratio", [ratio], f"<= {wanted:g}" if wanted else "", True)
    for pair in _COMPARISONS:
        if pair.variant in times.by_variant and pair.other in times.by_variant:
            keep(f"{pair.variant} / {pair.other}", "ratio", times.ratios(pair.variant, pair.other), pair.time)
            if middle:
                ratio = middle[pair.variant] / middle[pair.other]
                keep(f"{pair.variant} / {pair.other}, memory", "ratio", [ratio], pair.memory, True)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
