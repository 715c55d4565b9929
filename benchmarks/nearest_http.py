"""Requests per second of `GET …/nearest` from the neighbor table, against an empty FastAPI route.

The empty route returns constant JSON of the same size. Each server is a process of its own with one worker on
127.0.0.1, and they take turns; 32 clients in another process keep one connection each. The clients share the machine
with the servers, so the CPU time of the server per answer is measured too.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from benchmarks.deep_search import write_bank
from benchmarks.record import record

__all__ = ["run"]

_VOCAB, _DIM, _TABLE_K, _K = 32_000, 64, 16, 10
_CLIENTS, _SECONDS, _RUNS = 32, 3.0, 5

_SERVICE = """
import sys
from pathlib import Path
from costbank_service import Settings
from costbank_service.server import run
run(Settings(store=Path(sys.argv[1]), port=0), on_ready=lambda url: print(url, flush=True))
"""
_EMPTY = """
import socket, sys
import uvicorn
from fastapi import FastAPI, Response
app, body = FastAPI(), b'"' + b"x" * (int(sys.argv[1]) - 2) + b'"'

@app.get("/v1/banks/random/nearest")
async def nearest():
    return Response(body, media_type="application/json")

listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as a server that uvicorn itself binds
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listener])
"""
_LOAD = """
import asyncio, sys, time

async def client(port, number, clients, end, query, vocab):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while time.monotonic() < end:
        token = (number + answers * clients) * 7919 % vocab
        target = f"/v1/banks/random/nearest?{query.format(token)}"
        writer.write(f"GET {target} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        size = head.lower().partition(b"content-length:")[2].partition(b"\\r")[0]
        await reader.readexactly(int(size))
        answers += 1
    writer.close()
    return answers

async def main(port, clients, seconds, query, vocab):
    began = time.monotonic()
    counts = await asyncio.gather(
        *(client(port, number, clients, began + seconds, query, vocab) for number in range(clients))
    )
    print(sum(counts), time.monotonic() - began)

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
"""


def run() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_bank(Path(name), _VOCAB, _DIM, _TABLE_K)
        with _server(_SERVICE, name) as service:
            size = _check(service[0])
            with _server(_EMPTY, str(size)) as empty:
                by_id, by_text = f"token_id={{}}&k={_K}", f"token=token{{}}&k={_K}"
                arms = {"by id": (service, by_id), "by text": (service, by_text), "empty route": (empty, by_id)}
                for server, query in arms.values():
                    _load(server, query, 1.0)
                runs = [{arm: _load(*request) for arm, request in arms.items()} for _ in range(_RUNS)]
    note = f"{_CLIENTS} clients for {_SECONDS:g} s, k={_K} of a table of {_TABLE_K}, answers of {size} bytes, 1 worker"
    libraries = ("fastapi", "starlette", "uvicorn", "orjson")
    for arm in runs[0]:
        record("nearest_http", f"{arm}: answers", "1/s", [run[arm][0] for run in runs], "", libraries, note)
        cpu = [run[arm][1] * 1e6 for run in runs]
        record("nearest_http", f"{arm}: CPU time of an answer", "us", cpu, "", libraries, note)
    for arm in ("by id", "by text"):
        for column, measure, sign in ((0, "answers", 1), (1, "answers per CPU time", -1)):
            ratios = [(run[arm][column] / run["empty route"][column]) ** sign for run in runs]
            name = f"{arm} / empty FastAPI route: {measure}"
            record("nearest_http", name, "ratio", ratios, ">= 0.8", libraries, note)


def _check(url: str) -> int:
    """The size of an answer, after a check that it has the neighbors."""
    with urlopen(f"{url}/v1/banks/random/nearest?token_id=12345&k={_K}", timeout=60) as response:
        body = response.read()
    if len(json.loads(body)["neighbors"]) != _K:
        raise RuntimeError(f"the answer does not have {_K} neighbors")
    return len(body)


def _load(server: tuple[str, int], query: str, seconds: float = _SECONDS) -> tuple[float, float]:
    """Answers per second, and the CPU time of the server per answer in seconds."""
    url, pid = server
    arguments = [url.rpartition(":")[2], str(_CLIENTS), str(seconds), query, str(_VOCAB)]
    before = _cpu_seconds(pid)
    command = [sys.executable, "-c", _LOAD, *arguments]
    answers, elapsed = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    return answers / elapsed, (_cpu_seconds(pid) - before) / answers


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(program: str, argument: str) -> Iterator[tuple[str, int]]:
    process = subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


if __name__ == "__main__":
    run()
