"""Requests per second and latency of `GET …/nearest`, against Chroma's server with the same vectors.

Chroma is no dependency: install chromadb and run `python -m benchmarks.nearest_chroma --chroma COMMAND`. It has
no query by id, so it gets the token's vector, as its users do. Each server is a process of its own on 127.0.0.1, and
they take turns; the clients in another process keep a connection each.
"""

import argparse
import json
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.deep_search import write_bank
from benchmarks.record import record
from costbank import open_bank

__all__ = ["main"]

_VOCAB, _DIM, _TABLE_K, _K = 32_000, 256, 16, 10
_CLIENTS, _SECONDS, _RUNS, _TOKENS = 32, 4.0, 5, 1_000
_BATCH = 2_000
_DATABASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"

_LOAD = """
import asyncio, pickle, sys, time
from statistics import quantiles

async def client(port, number, clients, end, requests, seconds):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = number
    while time.monotonic() < end:
        began = time.monotonic()
        writer.write(requests[at % len(requests)])
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\\r")[0]))
        seconds.append(time.monotonic() - began)
        at += clients
    writer.close()

async def main(port, clients, length, file):
    with open(file, "rb") as opened:
        requests = pickle.load(opened)
    seconds, began = [], time.monotonic()
    await asyncio.gather(*(client(port, i, clients, began + length, requests, seconds) for i in range(clients)))
    print(len(seconds) / (time.monotonic() - began), quantiles(seconds, n=100)[98])

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chroma", default="chroma", help="the command of chromadb")
    command = parser.parse_args().chroma
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bank(folder / "store", _VOCAB, _DIM, _TABLE_K)
        bank = open_bank("random", folder / "store")
        vectors, tokens = bank.matrix(), [i * 7919 % _VOCAB for i in range(_TOKENS)]
        ours = [sys.executable, "-u", "-m", "costbank_cli", "serve", "--store", str(folder / "store"), "--port"]
        theirs = [command, "run", "--path", str(folder / "chroma"), "--host", "127.0.0.1", "--port"]
        with _server(ours, "/livez") as our_port, _server(theirs, "/api/v2/heartbeat") as their_port:
            query = f"{_DATABASE}/{_fill(their_port, vectors)}/query"
            bodies = [_body(vectors[token : token + 1]) for token in tokens]
            shared = _shared(their_port, query, bodies[:100], [bank.nearest(token, k=_K) for token in tokens[:100]])
            arms = {
                "costbank": (our_port, [_get(f"/v1/banks/random/nearest?token_id={i}&k={_K}") for i in tokens]),
                "Chroma": (their_port, [_post(query, body) for body in bodies]),
            }
            runs = [{arm: _load(folder, port, sent) for arm, (port, sent) in arms.items()} for _ in range(_RUNS + 1)][
                1:
            ]
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    note = f"{_VOCAB} x {_DIM}, k={_K}, {_CLIENTS} clients; {version}, {shared:.1%} of its neighbors are the nearest"
    for arm in ("costbank", "Chroma"):
        record("nearest_chroma", f"{arm}: answers", "1/s", [run[arm][0] for run in runs], "", (), note)
        record("nearest_chroma", f"{arm}: p99", "ms", [run[arm][1] * 1e3 for run in runs], "", (), note)
    for column, measure, target in ((0, "answers", ">= 5"), (1, "p99", "< 1")):
        ratios = [run["costbank"][column] / run["Chroma"][column] for run in runs]
        record("nearest_chroma", f"costbank / Chroma: {measure}", "ratio", ratios, target, (), note)


def _fill(port: int, vectors: np.ndarray) -> str:
    """Write the vectors into a new collection; its id."""
    settings = {"name": "random", "configuration": {"hnsw": {"space": "cosine"}}}
    collection = _json(port, _DATABASE, settings)["id"]
    for first in range(0, len(vectors), _BATCH):
        rows = vectors[first : first + _BATCH]
        content = {"ids": [str(first + i) for i in range(len(rows))], "embeddings": rows.tolist()}
        _json(port, f"{_DATABASE}/{collection}/add", content)
    return collection


def _shared(port: int, query: str, bodies: Sequence[bytes], expected: Sequence[Any]) -> float:
    """The share of the exact nearest tokens that Chroma finds; it counts the token itself as one of its k."""
    found = 0
    for body, exact in zip(bodies, expected, strict=True):
        ids = {int(i) for i in _json(port, query, json.loads(body))["ids"][0]}
        found += len(ids & {neighbor.id for neighbor in exact[: _K - 1]})
    return found / (len(bodies) * (_K - 1))


def _body(vector: np.ndarray) -> bytes:
    return json.dumps({"query_embeddings": vector.tolist(), "n_results": _K, "include": ["distances"]}).encode()


def _get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _post(target: str, body: bytes) -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(port: int, path: str, content: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(content).encode(), headers)
    with urlopen(request, timeout=300) as answer:
        return json.loads(answer.read() or b"null")


def _load(folder: Path, port: int, requests: list[bytes]) -> tuple[float, float]:
    """Answers per second, and the 99th percentile of their seconds."""
    file = folder / "requests.pickle"
    file.write_bytes(pickle.dumps(requests))
    command = [sys.executable, "-c", _LOAD, str(port), str(_CLIENTS), str(_SECONDS), str(file)]
    rate, p99 = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return rate, p99


@contextmanager
def _server(command: list[str], path: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                    break
                except (URLError, OSError):
                    time.sleep(0.1)
            else:
                raise RuntimeError(f"{command[0]} does not answer")
            yield port
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
