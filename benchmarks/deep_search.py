"""64 clients request 100 neighbors from a bank with a table of 16: answers, refusals and memory of the service.

The service runs in turns with an application that computes each answer from all rows in Starlette's thread pool. Each
is its own process on a new port of 127.0.0.1, and gets requests for a fixed time.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from benchmarks.record import record
from costbank.bank import BankWriter
from costbank.bank.manifest import BankFacts
from costbank.neighbors import build_index, exact_neighbors
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["run", "write_bank"]

_VOCAB, _DIM, _TABLE_K, _ANSWER_K = 32_000, 256, 16, 100
_CLIENTS, _SECONDS, _RUNS, _TIMEOUT_S = 64, 8.0, 3, 60.0

_SERVICE = """
import sys
from pathlib import Path
from costbank_service import Settings
from costbank_service.server import run
run(Settings(store=Path(sys.argv[1]), port=0), on_ready=lambda url: print(url, flush=True))
"""
_FROM_ALL_ROWS = """
import socket, sys
from pathlib import Path
import uvicorn
from fastapi import FastAPI
from costbank.bank import Bank, Store
bank = Bank(Store(Path(sys.argv[1])).resolve("random"))
app = FastAPI()

@app.get("/v1/banks/random/nearest")
def nearest(token_id: int, k: int):
    return [vars(neighbor) for neighbor in bank.nearest(token_id, k)]

listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listener])
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_bank(Path(name), _VOCAB, _DIM, _TABLE_K)
        runs = [[_measure(program, Path(name)) for program in (_SERVICE, _FROM_ALL_ROWS)] for _ in range(_RUNS)]
    ours, theirs = zip(*runs, strict=True)
    note = f"{_CLIENTS} clients for {_SECONDS:g} s, k={_ANSWER_K}, {_VOCAB:,} × {_DIM}, table of {_TABLE_K}, flat index"
    libraries = ("faiss-cpu", "fastapi", "uvicorn")
    for label, results in (("service", ours), ("all rows in a thread pool", theirs)):
        record("deep_search", f"{label}: answers", "1/s", [r["answers"] for r in results], "", libraries, note)
        record(
            "deep_search", f"{label}: answered with 503", "share", [r["refused"] for r in results], "", libraries, note
        )
        record("deep_search", f"{label}: slowest answer", "s", [r["slowest"] for r in results], "", libraries, note)
        record("deep_search", f"{label}: peak memory", "MB", [r["memory"] for r in results], "", libraries, note)
    ratios = [one["answers"] / max(other["answers"], 1e-9) for one, other in runs]
    record("deep_search", "answers of the service / all rows in a thread pool", "ratio", ratios, "> 1", libraries, note)


def _measure(program: str, store: Path) -> dict[str, float]:
    with _server(program, store) as (port, pid):
        _ask(port, 0)
        began = time.monotonic()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            answered = list(clients.map(lambda client: _client(port, client, began + _SECONDS), range(_CLIENTS)))
        seconds = time.monotonic() - began
        status = Path(f"/proc/{pid}/status").read_text()
    counts = sum((counted for counted, _ in answered), Counter[int]())
    if set(counts) - {200, 503}:
        raise RuntimeError(f"answers other than 200 and 503: {counts}")
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "answers": counts[200] / seconds,
        "refused": counts[503] / counts.total(),
        "slowest": max(slowest for _, slowest in answered),
        "memory": peak_kb / 1e3,
    }


def _client(port: int, client: int, end: float) -> tuple[Counter[int], float]:
    """Request one token after another until the time is over. After a 503, wait as long as the answer says."""
    counts, slowest, requests = Counter[int](), 0.0, 0
    while time.monotonic() < end:
        began = time.monotonic()
        status, wait = _ask(port, (client * 499 + requests * 31) % _VOCAB)
        counts[status] += 1
        requests += 1
        if status == 200:
            slowest = max(slowest, time.monotonic() - began)
        else:
            time.sleep(max(0.0, min(wait, end - time.monotonic())))
    return counts, slowest


def _ask(port: int, token_id: int) -> tuple[int, float]:
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/v1/banks/random/nearest?token_id={token_id}&k={_ANSWER_K}")
        response = connection.getresponse()
        body = response.read()
        if response.status == 200:
            answer = json.loads(body)
            neighbors = answer["neighbors"] if isinstance(answer, dict) else answer
            if len(neighbors) != _ANSWER_K:
                raise RuntimeError(f"{len(neighbors)} neighbors instead of {_ANSWER_K}")
        return response.status, float(response.headers.get("retry-after", 0))
    finally:
        connection.close()


@contextmanager
def _server(program: str, store: Path):
    process = subprocess.Popen([sys.executable, "-c", program, str(store)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)
        process.stdout.close()


def write_bank(store: Path, vocab_size: int, dim: int, table_k: int, name: str = "random", seed: int = 0) -> None:
    """Write a bank of random unit rows with an exact table and a flat index."""
    rows = normalize(np.random.default_rng(seed).standard_normal((vocab_size, dim), np.float32))[0]
    vocab = Vocab.from_tokens([f" token{i}".encode() for i in range(vocab_size)], [TokenStatus.OK] * vocab_size)
    usable = np.ones(vocab_size, bool)
    with BankWriter(store / name) as writer:
        writer.write_vectors(rows.shape, "F32", [rows])
        writer.write_tokens(vocab)
        writer.write_neighbors(exact_neighbors(rows.__getitem__, usable, table_k))
        kind, index = build_index(rows.__getitem__, usable)
        writer.write_index(index)
        facts = {
            "costbank": "0", "created": "", "reproducible": True, "source": "random", "config": {"seed": seed},
            "run": {}, "facts": {}, "inputs": [], "libraries": {}, "seconds": {}, "status": vocab.status_counts(),
            "tokenizer": {"kind": "none", "file": "none", "sha256": "", "fingerprint": vocab.fingerprint},
            "vectors": {"vocab": vocab_size, "dim": dim, "dtype": "F32"},
            "neighbors": {"k": table_k, "exact": True, "recall": 1.0}, "index": {"kind": kind, "rows": vocab_size},
        }  # fmt: skip
        writer.publish(BankFacts.model_validate(facts), lambda manifest: f"random bank {manifest.id}\n")


if __name__ == "__main__":
    run()
