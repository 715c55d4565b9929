"""Kill clients and servers at random moments of a download: `python -m tests.remote.killing 100`.

Processes are forked from one that has already imported the library, so that each takes a fraction of a second.
"""

import multiprocessing
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from costbank.bank import Bank, Store, verify_bank
from costbank.progress import QuietProgress
from costbank.remote import Patience, open_url, pull_bank
from tests.remote.relay import Damage, Relay, relay
from tests.service.banks import write_bank

__all__ = ["kill_clients", "kill_servers", "started", "write_big_bank"]

_PATIENT = Patience(attempts=1_000, first_pause=0.01, longest_pause=0.05, timeout=5)
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "costbank.bank.verify",
        "costbank.remote.opening",
        "costbank.remote.over_http",
        "urllib3",
        "costbank_service.server",
    ]
)


def write_big_bank(directory: Path) -> Bank:
    """A bank with 8 MB of vectors, so that a download has a middle."""
    return write_bank(directory, [b" token%d" % i for i in range(2_000)], dim=1_024, k=2, index=False)


def started(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    process = _processes.Process(target=target, args=arguments)
    process.start()
    return process


def pull(url: str, store: Path) -> None:
    pull_bank(url, store=store, progress=QuietProgress(), patience=_PATIENT)


def open_in(url: str, cache: Path, barrier: Any) -> None:
    barrier.wait(60)
    assert open_url(url, cache=cache, progress=QuietProgress()).has_vector(3)


def _serve(store: Path, port: int, ready: Any) -> None:
    from costbank_service import Settings
    from costbank_service.server import run

    run(Settings(store=store, port=port), ready.send)


@contextmanager
def serving_process(store: Path, port: int = 0) -> Iterator[tuple[BaseProcess, str]]:
    """A server in another process, which is killed at the end of the block."""
    here, there = _processes.Pipe()
    process = started(_serve, store, port, there)
    try:
        assert here.poll(60)
        yield process, here.recv()
    finally:
        process.kill()
        process.join()


def _slow(seconds: float) -> Damage:
    """Sends each 64 kB or less of the vectors after a pause."""

    def damage(path: str, offset: int, data: bytes) -> bytes:
        time.sleep(seconds if path.endswith("vectors.safetensors") else 0)
        return data

    return damage


def _problems(root: Path) -> list[str]:
    """The problems of listed banks."""
    checks = [check for bank in Store(root).banks() for check in verify_bank(bank.path)]
    return [f"{check.name}: {check.problem}" for check in checks if not check.ok]


def kill_clients(url: str, relayed: Relay, target: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Kill clients that pull, up to 0.6 seconds after their first requests; then every listed bank must verify.

    Returns how the store looked after each kill.
    """
    moments, outcomes = random.Random(seed), Counter()
    relayed.damage = _slow(0.002)
    for _ in range(kills):
        relayed.requests.clear()
        process = started(pull, url, target)
        until = time.monotonic() + 30
        while process.is_alive() and not relayed.requests and time.monotonic() < until:
            time.sleep(0.005)
        process.join(moments.uniform(0.0, 0.6))
        was_running = process.is_alive()
        process.kill()
        process.join()
        assert (problems := _problems(target)) == [], problems
        is_listed = any(Store(target).banks())
        outcomes["killed" if was_running else "had ended", "complete" if is_listed else "nothing listed"] += 1
        outcomes["continued"] += any(" range" in request for request in relayed.requests)
        if is_listed:
            shutil.rmtree(target / "big")
    relayed.damage = lambda _path, _offset, data: data
    pull(url, target)
    assert _problems(target) == []
    assert not list((target / "big").glob(".pull-*"))
    return outcomes


def kill_servers(store: Path, target: Path, kills: int, seed: int = 0) -> Counter[str]:
    """Kill and restart the server while a client pulls, until there were enough kills; pulls again when it is done."""
    moments, outcomes, port = random.Random(seed), Counter(), 0
    ended = threading.Event()
    # A bank that the test itself is removing is not checked.
    removing = threading.Lock()

    def client(url: str) -> None:
        while not ended.is_set():
            try:
                pull(f"{url}/v1/banks/big", target)
            except Exception as error:
                outcomes[f"refused: {type(error).__name__}"] += 1
                continue
            outcomes["pulled"] += 1
            with removing:
                assert _problems(target) == []
                if not ended.is_set():
                    shutil.rmtree(target / "big")

    with serving_process(store) as (_, url):
        port = int(url.rpartition(":")[2])
    with relay(url) as relayed:
        relayed.damage = _slow(0.006)
        thread = threading.Thread(target=client, args=(relayed.url,))
        thread.start()
        for _ in range(kills):
            with serving_process(store, port):
                time.sleep(moments.uniform(0.5, 1.8))  # it listens before it can answer
            outcomes["killed"] += 1
            with removing:
                assert (problems := _problems(target)) == [], problems
        ended.set()
        relayed.damage = lambda _path, _offset, data: data
        with serving_process(store, port):
            thread.join(60)
        assert not thread.is_alive()
    outcomes["continued"] = sum(" range" in request for request in relayed.requests)
    assert any(Store(target).banks())
    assert _problems(target) == []
    return outcomes


def main(kills: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bank = write_big_bank(root / "store" / "big")
        with serving_process(root / "store") as (_, url), relay(url) as relayed:
            print("clients:", dict(kill_clients(f"{relayed.url}/v1/banks/big", relayed, root / "one", kills)))
        print("servers:", dict(kill_servers(root / "store", root / "two", kills)))
        print(f"bank {bank.id}: no listed bank failed its verification")


if __name__ == "__main__":
    main(int(sys.argv[1]))
