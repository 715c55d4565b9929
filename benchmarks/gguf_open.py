"""Compare how costbank and the library gguf open a GGUF file with 262,144 tokens: time and memory.

The benchmark writes the file: tokens, scores and types as converters write them, and a small embedding. The two run in
turns, each in a new process that has imported both libraries.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import record

__all__ = ["run"]

_RUNS, _VOCAB, _DIM = 3, 262_144, 32

_OPEN = """
import sys, time
from pathlib import Path
import gguf
from costbank.checkpoints import open_checkpoint

def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before, began = peak_kb(), time.perf_counter()
model = open_checkpoint(Path(sys.argv[2])) if sys.argv[1] == "ours" else gguf.GGUFReader(sys.argv[2])
print(time.perf_counter() - began, (peak_kb() - before) / 1e3)
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = _write(Path(name) / "model.gguf")
        runs = [(_measure("ours", path), _measure("library", path)) for _ in range(_RUNS)]
    note = f"{_VOCAB:,} tokens with scores and types"
    for index, (unit, ours_target) in enumerate((("s", "< 0.5"), ("MB", "< 32"))):
        what = "open" if unit == "s" else "extra peak memory"
        ours, library = ([pair[who][index] for pair in runs] for who in (0, 1))
        record("gguf_open", what, unit, ours, ours_target, ("numpy", "gguf"), note)
        record("gguf_open", f"{what}, GGUFReader", unit, library, "", ("numpy", "gguf"), note)


def _measure(who: str, path: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", _OPEN, who, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(output[0]), float(output[1])


def _write(path: Path) -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"▁token{i}" for i in range(_VOCAB)])
    writer.add_token_scores([-float(i) for i in range(_VOCAB)])
    writer.add_token_types([gguf.TokenType.NORMAL] * _VOCAB)
    writer.add_tensor("token_embd.weight", np.zeros((_VOCAB, _DIM), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


if __name__ == "__main__":
    run()
