"""Opening a bank of 128,000 tokens × 512: the time, and the memory that it takes before it is used.

Each measurement is a new process that has already imported the library, and opens the bank once.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import record
from costbank.bank import BankWriter
from costbank.bank.manifest import BankFacts
from costbank.neighbors import NeighborTable
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["run"]

_RUNS = 7
_VOCAB, _DIM, _K = 128_000, 512, 64

_OPEN = """
import sys, time
from costbank.bank import open_bank

def resident_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

before, began = resident_kb(), time.perf_counter()
bank = open_bank(sys.argv[1])
seconds = time.perf_counter() - began
after = resident_kb()
began = time.perf_counter()
bank.nearest(bank.vocab.find("id:70000"), 10)
print(seconds * 1e3, (after - before) / 1e3, (time.perf_counter() - began) * 1e3)
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = _write_bank(Path(name))
        runs = [_measure(path) for _ in range(_RUNS)]
    opening, memory, first = zip(*runs, strict=True)
    note = f"{_VOCAB:,} tokens × {_DIM}, F32, 64 neighbors"
    record("open_bank", "open", "ms", opening, "< 50", ("numpy", "pydantic"), note)
    record("open_bank", "extra resident memory", "MB", memory, "< 60", ("numpy", "pydantic"), note)
    record("open_bank", "first nearest", "ms", first, "", ("numpy", "pydantic"), note)


def _measure(path: Path) -> tuple[float, float, float]:
    command = [sys.executable, "-c", _OPEN, str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(output[0]), float(output[1]), float(output[2])


def _write_bank(directory: Path) -> Path:
    """Write a bank of random rows with a table of random neighbors, which opening and reading do not check."""
    random = np.random.default_rng(0)
    vocab = Vocab.from_tokens([f" token{i}".encode() for i in range(_VOCAB)], [TokenStatus.OK] * _VOCAB)
    ids = random.integers(0, _VOCAB, (_VOCAB, _K)).astype(np.int32)
    costs = np.sort(random.random((_VOCAB, _K), np.float32), axis=1)
    blocks = (normalize(random.standard_normal((16_000, _DIM), np.float32))[0] for _ in range(_VOCAB // 16_000))
    with BankWriter(directory / "random") as writer:
        writer.write_vectors((_VOCAB, _DIM), "F32", blocks)
        writer.write_tokens(vocab)
        writer.write_neighbors(NeighborTable(ids, costs))
        return writer.publish(BankFacts.model_validate(_facts(vocab)), lambda manifest: f"random bank {manifest.id}\n")


def _facts(vocab: Vocab) -> dict:
    tokenizer = {"kind": "none", "file": "none", "sha256": "", "fingerprint": vocab.fingerprint}
    return {
        "costbank": "0", "created": "", "reproducible": True, "source": "random", "config": {}, "run": {}, "facts": {},
        "inputs": [], "libraries": {}, "seconds": {}, "tokenizer": tokenizer, "status": vocab.status_counts(),
        "vectors": {"vocab": _VOCAB, "dim": _DIM, "dtype": "F32"},
        "neighbors": {"k": _K, "exact": False, "recall": 0.0}, "index": {"kind": "none", "rows": 0},
    }  # fmt: skip


if __name__ == "__main__":
    run()
