"""Everything that needs a GPU, in one command: are the losses right, how fast are they, and where does the time go?

`python -m benchmarks.on_gpu` takes at most six minutes. It runs the tests that need a device, then the loss benchmark
for one shape after another (rows with the card's name in `data/bench/results.csv`), then a profile. On a machine
without a GPU, the same steps run on a tiny shape, in Triton's interpreter, and nothing is recorded.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.loss import measure
from benchmarks.loss_variants import SHAPES, Inputs, variants_for

_ROOT = Path(__file__).parents[1]
_TESTS = ("tests/loss/test_kernels.py", "tests/trainers/test_cuda.py")
_PROFILED = ("cross-entropy", "dense")
_SHARES = {"tests": 0.35, "timings": 0.85}
"""The part of the time after which a step ends."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=360.0, help="the time that all steps take together")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="the shapes of the benchmark")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.monotonic()

    def passed(share: float) -> float:
        """The seconds that are left of a share of the time; below 0 if it is over."""
        return share * options.seconds - (time.monotonic() - began)

    print(f"on {torch.cuda.get_device_name() if device == 'cuda' else 'a CPU'}, torch {torch.__version__}", flush=True)
    failed = _test(max(1.0, passed(_SHARES["tests"])), tiny=device == "cpu")
    shapes = options.shapes or (None if device == "cuda" else ["tiny"])
    measure(
        shapes, rounds=5, memory_runs=int(device == "cuda"), kept=device == "cuda",
        is_over=lambda: passed(_SHARES["timings"]) < 0,
    )  # fmt: skip
    for name in _PROFILED if passed(1.0) > 0 else ():
        _profile(name, "llama3-8b" if device == "cuda" else "tiny", device)
    sys.exit(failed)


def _test(seconds: float, tiny: bool) -> int:
    """Run the tests in a process of their own; 1 if one failed, or if they took too long."""
    some = ["-k", "two_runs or hidden_states"] if tiny else []
    # The slow ones train, and compile for a GPU that need not be there.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", *_TESTS, *some]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    try:
        return int(subprocess.run(command, cwd=_ROOT, env=environment, timeout=seconds, check=False).returncode != 0)
    except subprocess.TimeoutExpired:
        print(f"the tests were stopped after {seconds:.0f} s", flush=True)
        return 1


def _profile(name: str, shape_name: str, device: str) -> None:
    """Print the operations of one step of a variant, those that take longest first."""
    shape = SHAPES[shape_name].on(device)
    variant, inputs = variants_for(shape, device)[name], Inputs(shape, device)
    costs = variant.costs(inputs)
    variant.loss(inputs, costs).backward()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        variant.loss(inputs, costs).backward()
        if device == "cuda":
            torch.cuda.synchronize()
    print(f"\n{name}, {shape.description}")
    print(profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=12), flush=True)


if __name__ == "__main__":
    main()
