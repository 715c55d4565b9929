"""Many processes that open one bank, and processes that are killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from costbank.bank import Bank, Store
from tests.remote.conftest import listed
from tests.remote.killing import _processes, kill_clients, kill_servers, open_in, started
from tests.remote.relay import Relay


@pytest.mark.parametrize("with_id", [False, True])
def test_eight_processes_on_each_of_two_caches_make_one_download_each(
    server: Relay, tmp_path: Path, big_bank: Bank, with_id: bool
):
    url = f"{server.url}/v1/banks/big" + (f"@{big_bank.id}" if with_id else "")
    barrier = _processes.Barrier(16)
    processes = [started(open_in, url, tmp_path / f"cache{number % 2}", barrier) for number in range(16)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 16
    assert {name: server.count(name) for name in big_bank.manifest.files} == dict.fromkeys(big_bank.manifest.files, 2)
    assert server.count("manifest.json") == (2 if with_id else 16)
    for cache in (tmp_path / "cache0", tmp_path / "cache1"):
        assert listed(cache) == [f"big@{big_bank.id}"]
        assert not list((cache / "big").glob(".pull-*"))


def test_a_client_that_is_killed_at_any_moment_leaves_nothing_or_a_whole_bank(server: Relay, tmp_path: Path):
    outcomes = kill_clients(f"{server.url}/v1/banks/big", server, tmp_path / "target", 20)
    assert outcomes["killed", "nothing listed"] > 3
    assert outcomes["continued"] > 3


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_keeps_what_was_downloaded_and_says_so(server: Relay, tmp_path: Path, big_bank: Bank, times: int):
    target = tmp_path / "target"
    command = [sys.executable, "-m", "costbank_cli", "pull", f"{server.url}/v1/banks/big", "--store", str(target)]

    def slow(path: str, offset: int, data: bytes) -> bytes:
        time.sleep(0.02 if path.endswith("vectors.safetensors") else 0)
        return data

    server.damage = slow
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not any(file.stat().st_size for file in target.glob("big/.pull-*/vectors.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    for _ in range(times):  # the second one ends the process at once
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, errors = process.communicate(timeout=20)
    # A second signal that comes while Python itself ends has its default effect.
    assert process.returncode in ((130,) if times == 1 else (130, -signal.SIGINT))
    assert "error: interrupted; the same command continues the download" in errors
    assert "no partial output" not in errors
    assert listed(target) == []
    server.requests.clear()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert any("vectors.safetensors range" in request for request in server.requests)
    assert listed(target) == [f"big@{big_bank.id}"]


@pytest.mark.slow
def test_a_server_that_is_killed_at_any_moment_is_waited_for(store: Path, tmp_path: Path):
    outcomes = kill_servers(store, tmp_path / "target", 8)
    assert (outcomes["killed"], outcomes["continued"] > 0) == (8, True)
    assert [bank.name for bank in Store(tmp_path / "target").banks()] == ["big"]
