"""A bank from a large model's head, without a neighbor table: time compared with a bare NumPy loop, and peak memory.

The head is 151,936 × 4,096 in BF16, in four shards of 311 MB. The bare loop reads the same bytes, widens, normalizes
and writes them in blocks. A variant of the loop syncs at the end, so its output is on disk, like that of the build. All
run in turns, in changing order, each in its own process, after earlier writes are on disk.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.record import record
from costbank.element_types import from_float32
from costbank.tensorfile import TensorSpec, write_tensors

__all__ = ["build_command", "make_head", "run"]

_ROWS, _TOKENS, _DIM, _SHARDS, _RUNS = 151_936, 151_665, 4_096, 4, 6

_BARE = """
import os, sys
from collections.abc import Callable
from pathlib import Path
import numpy as np
shards, out, rows, dim = sorted(Path(sys.argv[1]).glob("*.safetensors")), open(sys.argv[2], "wb"), 512, 4096
for shard in shards:
    start = 8 + int.from_bytes(shard.open("rb").read(8), "little")
    stored = np.memmap(shard, np.uint16, "r", start).reshape(-1, dim)
    for i in range(0, len(stored), rows):
        block = (stored[i : i + rows].astype(np.uint32) << 16).view(np.float32)
        out.write(block / np.linalg.norm(block, axis=1, keepdims=True))
if len(sys.argv) > 3:
    out.flush()
    os.fsync(out.fileno())
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_head(folder / "model")
        loop = [sys.executable, "-c", _BARE, str(folder / "model"), str(folder / "out")]
        ways: list[tuple[list[float], Callable[[], tuple[float, float]]]] = [
            (ours := [], lambda: _build(folder, "out", "neighbors.k=0", store=folder)),
            (bare := [], lambda: _timed(loop)),
            (synced := [], lambda: _timed([*loop, "sync"])),
        ]
        peaks = []
        for number in range(_RUNS):
            for seconds, way in ways[number % 3 :] + ways[: number % 3]:
                _touch_memory(folder / "scratch")
                taken, peak = way()
                seconds.append(taken)
                peaks += [peak] if seconds is ours else []
                subprocess.run(["rm", "-r", str(folder / "out")], check=True)
        workload = f"{_ROWS} x {_DIM} BF16 in {_SHARDS} shards, F32 bank, no neighbors"
        record("lm_head", "build", "s", ours, "", ("numpy",), workload)
        record("lm_head", "bare loop", "s", bare, "", ("numpy",), workload)
        record("lm_head", "bare loop, synced", "s", synced, "", ("numpy",), workload)
        for name, seconds in (("bare loop", bare), ("bare loop, synced", synced)):
            ratios = [build / loop for build, loop in zip(ours, seconds, strict=True)]
            record("lm_head", f"build / {name}", "ratio", ratios, "<= 2", ("numpy",), workload)
        record("lm_head", "peak memory", "MB", peaks, "< 1500", ("numpy",), workload)


def _touch_memory(scratch: Path) -> None:
    """Write and remove a file of the bank's size, so no run waits for a virtual machine's host to provide memory."""
    block = bytes(8 << 20)
    with scratch.open("wb") as file:
        for _ in range(_ROWS * _DIM * 4 // len(block)):
            file.write(block)
    scratch.unlink()
    os.sync()


def make_head(folder: Path) -> None:
    """Random rows of different lengths with a common mean, as in real heads, and zeros after the last token."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    mean = 0.3 * random.standard_normal(_DIM, np.float32)
    rows_each = _ROWS // _SHARDS
    for shard in range(_SHARDS):

        def blocks(first: int = shard * rows_each):
            for start in range(first, first + rows_each, 1_024):
                count = min(1_024, first + rows_each - start)
                scale = np.exp(0.3 * random.standard_normal((count, 1), np.float32)) / 64
                rows = (random.standard_normal((count, _DIM), np.float32) + mean) * scale
                rows[np.arange(start, start + count) >= _TOKENS] *= 0.01
                yield from_float32(rows, "BF16")

        path = folder / f"model-{shard + 1:05d}-of-{_SHARDS:05d}.safetensors"
        write_tensors(path, {"lm_head.weight": (TensorSpec("BF16", (rows_each, _DIM)), blocks())})
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": False, "vocab_size": _ROWS}))
    (folder / "vocab.txt").write_text("\n".join(f"token{i}" for i in range(_TOKENS)) + "\n")


def _build(folder: Path, name: str, *settings: str, store: Path | None = None) -> tuple[float, float]:
    """The seconds and the peak memory in MB of a build from the model in `folder`."""
    return _timed(build_command(folder, name, *settings, store=store))


def build_command(folder: Path, name: str, *settings: str, store: Path | None = None) -> list[str]:
    """The command that builds a bank from the model in `folder`."""
    command = [sys.executable, "-m", "costbank_cli", "build", "--source", "lm-head", "--model", str(folder / "model"),
               "--name", name, "--store", str(store or folder / "store")]  # fmt: skip
    for setting in settings:
        command += ["--set", setting]
    return command


def _timed(command: list[str]) -> tuple[float, float]:
    """The seconds and the peak memory in MB of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[:6]} ended with {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


if __name__ == "__main__":
    run()
