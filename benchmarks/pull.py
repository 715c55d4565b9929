"""Pulling a bank of 128,000 tokens × 1,024 over loopback, against plain downloads of its largest file.

Both static servers send the file as it is, and a plain client writes it to disk and syncs it. The pull also computes
the sha256 of every file, so the plain client is measured with a sha256 of what it receives, too. All take turns.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.record import record
from costbank.bank import BankWriter
from costbank.bank.manifest import BankFacts
from costbank.neighbors import NeighborTable
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["run"]

_TURNS = 5
_VOCAB, _DIM, _BLOCK = 128_000, 1_024, 16_000
_VECTORS = "vectors.safetensors"

_PEAK = 'int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))'
_PULL = f"""
import sys, time
from costbank.progress import QuietProgress
from costbank.remote import pull_bank
import costbank.remote.over_http, urllib3
began = time.perf_counter()
pull_bank(sys.argv[1], store=sys.argv[2], progress=QuietProgress())
print(time.perf_counter() - began, {_PEAK})
"""
_DOWNLOAD = f"""
import os, sys, time
import urllib3
import hashlib
digest = hashlib.sha256() if sys.argv[3] else None
began = time.perf_counter()
response = urllib3.PoolManager().request("GET", sys.argv[1], preload_content=False)
with open(sys.argv[2], "wb") as out:
    while block := response.read(1 << 20):
        out.write(block)
        digest and digest.update(block)
    out.flush()
    os.fsync(out.fileno())
print(time.perf_counter() - began, {_PEAK})
"""
_STARLETTE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles
app = Starlette()
app.mount("/", StaticFiles(directory=sys.argv[2]))
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bank = _write_bank(root / "store")
        (root / "out").mkdir()
        commands = {
            "http.server": ["-m", "http.server", "{port}", "--bind", "127.0.0.1", "-d", str(bank)],
            "starlette": ["-c", _STARLETTE, "{port}", str(bank)],
            "costbank": ["-m", "costbank_cli", "serve", "--store", str(root / "store"), "--port", "{port}"],
        }
        speeds: dict[str, list[float]] = {}
        peaks: dict[str, float] = {}
        size = sum(file.stat().st_size for file in bank.iterdir()) / 1e6
        for turn in range(_TURNS + 1):  # the first turn fills the page cache
            for name, command in commands.items():
                with _server(command) as (url, server):
                    speed, peak = _pull(url, root / "out", size) if name == "costbank" else _download(url, root / "out")
                    if name == "http.server":
                        checked = _download(url, root / "out", "sha256")[0]
                        if turn:
                            speeds.setdefault("http.server, with sha256", []).append(checked)
                    if turn:
                        speeds.setdefault(name, []).append(speed)
                        peaks[name] = max(peaks.get(name, 0.0), peak)
                        peaks["service"] = max(peaks.get("service", 0.0), _peak(server) if name == "costbank" else 0.0)
    _record(speeds, peaks)


def _record(speeds: dict[str, list[float]], peaks: dict[str, float]) -> None:
    note = f"{_VOCAB:,} tokens × {_DIM:,}, F32, loopback, synced to disk"
    libraries = ("urllib3", "uvicorn", "starlette")
    record("pull", "pull", "MB/s", speeds["costbank"], "", libraries, note)
    for name in ("http.server", "http.server, with sha256", "starlette"):
        record("pull", f"plain download from {name}", "MB/s", speeds[name], "", libraries, note)
        ratios = [ours / plain for ours, plain in zip(speeds["costbank"], speeds[name], strict=True)]
        record("pull", f"pull / plain download from {name}", "ratio", ratios, ">= 0.6", libraries, note)
    record("pull", "peak memory of the pull", "MB", [peaks["costbank"]], "< 200", libraries, note)
    record("pull", "peak memory of the service", "MB", [peaks["service"]], "< 200", libraries, note)


def _pull(url: str, out: Path, size: float) -> tuple[float, float]:
    shutil.rmtree(out / "store", ignore_errors=True)
    seconds, peak = _measure(_PULL, f"{url}/v1/banks/random", str(out / "store"))
    return size / seconds, peak


def _download(url: str, out: Path, check: str = "") -> tuple[float, float]:
    target = out / "file"
    target.unlink(missing_ok=True)
    seconds, peak = _measure(_DOWNLOAD, f"{url}/{_VECTORS}", str(target), check)
    return target.stat().st_size / 1e6 / seconds, peak


def _measure(code: str, *arguments: str) -> tuple[float, float]:
    output = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout
    seconds, kilobytes = output.split()
    return float(seconds), float(kilobytes) / 1e3


def _peak(process: subprocess.Popen[bytes]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1e3


@contextmanager
def _server(command: list[str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    process, port = _started(command)
    try:
        time.sleep(1.0)  # uvicorn listens before it answers
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def _started(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """A server that listens. The port that was free may be taken when the server starts; then another one is tried."""
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, *(part.replace("{port}", str(port)) for part in command)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process, port
            except OSError:
                time.sleep(0.1)
    raise SystemExit(f"the server does not start: {' '.join(command)}")


def _write_bank(store: Path) -> Path:
    """A bank of random rows, as `costbank build --for-training` writes it: without a table and an index."""
    random = np.random.default_rng(0)
    vocab = Vocab.from_tokens([f" token{i}".encode() for i in range(_VOCAB)], [TokenStatus.OK] * _VOCAB)
    blocks = (normalize(random.standard_normal((_BLOCK, _DIM), np.float32))[0] for _ in range(_VOCAB // _BLOCK))
    with BankWriter(store / "random") as writer:
        writer.write_vectors((_VOCAB, _DIM), "F32", blocks)
        writer.write_tokens(vocab)
        writer.write_neighbors(NeighborTable(np.zeros((_VOCAB, 0), np.int32), np.zeros((_VOCAB, 0), np.float32)))
        facts = {
            "costbank": "0", "created": "", "reproducible": True, "source": "random", "config": {}, "run": {},
            "facts": {}, "inputs": [], "libraries": {}, "seconds": {}, "status": vocab.status_counts(),
            "tokenizer": {"kind": "none", "file": "none", "sha256": "", "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": _VOCAB, "dim": _DIM, "dtype": "F32"},
            "neighbors": {"k": 0, "exact": True, "recall": 1.0}, "index": {"kind": "none", "rows": 0},
        }  # fmt: skip
        return writer.publish(BankFacts.model_validate(facts), lambda manifest: f"random bank {manifest.id}\n")


if __name__ == "__main__":
    run()
