"""Several processes on one port: one that is killed is replaced, metrics are sums, and a signal ends all."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.banks import write_bank

pytestmark = pytest.mark.slow


@contextmanager
def _service(store: Path, *arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen, str]]:
    command = [sys.executable, "-u", "-m", "costbank_cli", "serve", "--store", str(store), "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split(" on ")[1].split()[0]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.read().decode()


def _workers(pid: int) -> set[int]:
    """The child processes that were spawned to serve."""
    children = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in command:
            children.add(int(entry.parent.name))
    return children


def _wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_killed_worker_is_replaced_and_metrics_are_sums(store: Path):
    url_of = "{}/v1/banks/news/nearest?token_id=300&k=4"
    with _service(store, "--workers", "2") as (process, url):
        _wait_for(lambda: len(_workers(process.pid)) == 2)
        for _ in range(10):
            assert len(json.loads(_get(url_of.format(url)))["neighbors"]) == 4
        killed = min(_workers(process.pid))
        os.kill(killed, signal.SIGKILL)
        _wait_for(lambda: len(_workers(process.pid) - {killed}) == 2)
        for _ in range(10):
            _get(url_of.format(url))
        count = re.search(r'costbank_requests_total{.*nearest",status="200"} ([0-9.]+)', _get(f"{url}/metrics"))
        assert count
        assert float(count[1]) == 20
        workers = _workers(process.pid)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 128 + signal.SIGTERM
        assert f"worker {killed} has died" in log
        assert "Traceback" not in log
        assert all(map(_is_gone, workers))


def test_workers_end_if_their_supervisor_is_killed(store: Path):
    with _service(store, "--workers", "2") as (process, url):
        _get(f"{url}/livez")
        _wait_for(lambda: len(_workers(process.pid)) == 2)
        workers = _workers(process.pid)
        process.kill()
        _wait_for(lambda: all(map(_is_gone, workers)))


def test_a_signal_lets_a_running_search_finish(tmp_path: Path):
    bank = write_bank(tmp_path / "big", [b" token%d" % i for i in range(20_000)], dim=64, k=4, index=False)
    answers: list[dict] = []
    with _service(tmp_path) as (process, url):
        _get(f"{url}/v1/banks/big/nearest?token_id=0&k=4")
        body = json.dumps({"token_ids": list(range(400)), "k": 40}).encode()
        request = urllib.request.Request(f"{url}/v1/banks/big/nearest", body, {"Content-Type": "application/json"})

        def search() -> None:
            with urllib.request.urlopen(request, timeout=60) as response:
                answers.append(json.load(response))

        thread = threading.Thread(target=search)
        thread.start()
        _wait_for(lambda: answers or "costbank_searches_running 1.0" in _get(f"{url}/metrics"))
        was_running = not answers
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert was_running, "the search was too short for this test"
        assert [n["id"] for n in answers[0]["results"][7]["neighbors"]] == [n.id for n in bank.nearest(7, 40)]
        assert process.wait(30) == 128 + signal.SIGTERM
