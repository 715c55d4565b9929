"""Many processes that open one bank, and processes that are killed."""

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


@pytest.mark.slow
def test_a_server_that_is_killed_at_any_moment_is_waited_for(store: Path, tmp_path: Path):
    outcomes = kill_servers(store, tmp_path / "target", 8)
    assert (outcomes["killed"], outcomes["continued"] > 0) == (8, True)
    assert [bank.name for bank in Store(tmp_path / "target").banks()] == ["big"]
