"""Servers and networks that fail or lie. Whatever happens, the cache lists only banks that verify."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from costbank.bank import Bank
from costbank.bank.manifest import write_manifest
from costbank.errors import (
    CorruptBankError,
    CostbankError,
    RemoteError,
    StorageError,
    UnreachableError,
)
from costbank.remote import Patience, open_url, pull_bank
from costbank.remote import copies as copies_module
from costbank.remote import downloads as downloads_module
from tests.remote.answers import Answer, answering
from tests.remote.conftest import QUICK, listed
from tests.remote.relay import Relay
from tests.service.banks import write_bank

VECTORS = "vectors.safetensors"


def _leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "big").glob(".pull-*"))


def test_a_connection_that_breaks_is_continued(server: Relay, cache: Path, big_bank: Bank):
    breaks = iter(range(4))

    def damage(path: str, offset: int, data: bytes) -> bytes | None:
        return None if path.endswith(VECTORS) and offset > 1_500_000 and next(breaks, None) is not None else data

    server.damage = damage
    bank = open_url(f"{server.url}/v1/banks/big", patience=QUICK)
    assert listed(cache) == [f"big@{big_bank.id}"]
    requests = [request for request in server.requests if VECTORS in request]
    assert [request.endswith(" range") for request in requests] == [False, True, True, True, True]
    assert bank.id == big_bank.id


def test_a_body_that_always_ends_early_is_given_up_and_kept(server: Relay, cache: Path, big_bank: Bank):
    url = f"{server.url}/v1/banks/big"
    server.damage = lambda path, offset, data: None if path.endswith(VECTORS) and offset > 400_000 else data
    with pytest.raises(UnreachableError, match="tried 3 times") as caught:
        open_url(url, patience=QUICK)
    assert "kept" in caught.value.hint
    assert listed(cache) == []
    (left,) = _leftovers(cache)
    size = (cache / "big" / left / VECTORS).stat().st_size
    assert 0 < size < big_bank.manifest.files[VECTORS].size
    sent = []

    def measure(path: str, offset: int, data: bytes) -> bytes:
        sent.append(len(data) if path.endswith(VECTORS) else 0)
        return data

    server.damage = measure
    server.requests.clear()
    open_url(url, patience=QUICK)
    assert [request.endswith(" range") for request in server.requests if VECTORS in request] == [True]
    assert sum(sent) < big_bank.manifest.files[VECTORS].size - size + 10_000
    assert listed(cache) == [f"big@{big_bank.id}"]
    assert _leftovers(cache) == []


@pytest.mark.parametrize("name", ["manifest.json", VECTORS, "tokens.safetensors", "README.md"])
def test_a_flipped_byte_is_refused(server: Relay, cache: Path, name: str):
    def damage(path: str, offset: int, data: bytes) -> bytes:
        is_head = data.endswith(b"\r\n\r\n")
        return data if is_head or not path.endswith(name) else data[:-1] + bytes([data[-1] ^ 1])

    server.damage = damage
    with pytest.raises(CorruptBankError) as caught:
        open_url(f"{server.url}/v1/banks/big", patience=QUICK)
    assert name.removesuffix(".json") in caught.value.message
    assert caught.value.hint
    assert listed(cache) == []
    assert not cache.exists() or _leftovers(cache) == []


def test_bytes_that_a_crash_lost_are_downloaded_again(server: Relay, cache: Path, big_bank: Bank):
    left = cache / "big" / f".pull-{big_bank.id}-0123"
    left.mkdir(parents=True)
    (left / VECTORS).write_bytes(bytes(100_000))
    (left / "README.md").write_bytes(bytes(1_000_000))
    open_url(f"{server.url}/v1/banks/big", patience=QUICK)
    assert listed(cache) == [f"big@{big_bank.id}"]
    assert server.count(VECTORS) == 2
    assert _leftovers(cache) == []


class Liar:
    """Answers like a service for one bank, except for what a test changes."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.requests: list[str] = []
        self.changes: dict[str, list[Answer] | Answer] = {}

    def __call__(self, path: str, headers: Mapping[str, str]) -> Answer:
        name = path.rpartition("/")[2]
        self.requests.append(name)
        change = self.changes.get(name)
        if isinstance(change, list):
            change = change.pop(0) if change else None
        return change or Answer(200, (self.bank.path / name).read_bytes())


@pytest.fixture
def liar(big_bank: Bank) -> Liar:
    return Liar(big_bank)


def _facts(bank: Bank) -> dict:
    facts = json.loads((bank.path / "manifest.json").read_text("utf-8"))
    del facts["digest"]
    return facts


def test_a_server_that_lies_is_refused(liar: Liar, cache: Path, big_bank: Bank):
    size = big_bank.manifest.files[VECTORS].size
    short, long = bytes(size - 1), bytes(size + 1)
    climbing = _facts(big_bank)
    climbing["files"]["../../up"] = {"size": 1, "sha256": "0" * 64}
    own = _facts(big_bank)
    own["files"]["manifest.json"] = {"size": 1, "sha256": "0" * 64}
    lies: list[tuple[str, Answer, str]] = [
        (VECTORS, Answer(200, short), "bytes instead of"),
        (VECTORS, Answer(200, long), "bytes instead of"),
        (VECTORS, Answer(200, b"", {"Connection": "close"}, endless=True), "has more than"),
        (VECTORS, Answer(200, bytes(size)), "sha256"),
        (VECTORS, Answer(206, bytes(size), {"Content-Range": f"bytes 5-{size + 4}/{size}"}), "another part"),
        ("manifest.json", Answer(200, b"<html>"), "not a bank manifest"),
        ("manifest.json", Answer(200, b"", {"Connection": "close"}, endless=True), "more than 16 MB"),
        ("manifest.json", Answer(200, write_manifest(climbing)), "lists a file '../../up'"),
        ("manifest.json", Answer(200, write_manifest(own)), "lists a file 'manifest.json'"),
    ]
    with answering(liar) as base:
        for name, lie, message in lies:
            liar.changes = {name: lie}
            with pytest.raises(CorruptBankError, match=message):
                open_url(f"{base}/v1/banks/big", patience=QUICK)
            assert listed(cache) == []
            assert not (cache.parent / "up").exists()
        liar.changes = {}
        with pytest.raises(CorruptBankError, match="answered with the bank"):
            open_url(f"{base}/v1/banks/big@{'0' * 16}", patience=QUICK)
        with pytest.raises(CorruptBankError, match="answered with the bank"):
            open_url(f"{base}/v1/banks/big@0000", patience=QUICK)
        open_url(f"{base}/v1/banks/big", patience=QUICK)
    assert listed(cache) == [f"big@{big_bank.id}"]


def test_a_server_that_ignores_ranges_still_serves(liar: Liar, cache: Path, big_bank: Bank):
    left = cache / "big" / f".pull-{big_bank.id}-0123"
    left.mkdir(parents=True)
    (left / VECTORS).write_bytes((big_bank.path / VECTORS).read_bytes()[:3_000_001])
    with answering(liar) as base:
        open_url(f"{base}/v1/banks/big", patience=QUICK)
    assert listed(cache) == [f"big@{big_bank.id}"]
    assert liar.requests.count(VECTORS) == 1


def test_a_busy_server_is_asked_again_when_it_says(liar: Liar, cache: Path, big_bank: Bank):
    busy = [Answer(503, b"", {"Retry-After": "1"}), Answer(429), Answer(500)]
    liar.changes = {VECTORS: busy[:1], "README.md": busy[1:2], "manifest.json": busy[2:]}
    began = time.monotonic()
    with answering(liar) as base:
        open_url(f"{base}/v1/banks/big", patience=QUICK)
    assert time.monotonic() - began >= 1
    assert listed(cache) == [f"big@{big_bank.id}"]


def test_a_server_that_stays_busy_is_given_up(liar: Liar, cache: Path):
    liar.changes = {"manifest.json": Answer(503)}
    with answering(liar) as base, pytest.raises(UnreachableError, match=r"answered 503 \(tried 3 times\)"):
        open_url(f"{base}/v1/banks/big", patience=QUICK)
    assert liar.requests == ["manifest.json"] * 3


def test_redirects_are_followed_without_the_key(
    liar: Liar, cache: Path, big_bank: Bank, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COSTBANK_API_KEY", "s3cret")
    keys: dict[str, set[str | None]] = {"first": set(), "second": set()}

    def second(path: str, headers: Mapping[str, str]) -> Answer:
        keys["second"].add(headers.get("Authorization"))
        return liar(path, headers)

    with answering(second) as target:

        def first(path: str, headers: Mapping[str, str]) -> Answer:
            keys["first"].add(headers.get("Authorization"))
            return Answer(302, b"", {"Location": f"{target}{path}"})

        with answering(first) as base:
            open_url(f"{base}/v1/banks/big", patience=QUICK)
    assert listed(cache) == [f"big@{big_bank.id}"]
    assert keys == {"first": {"Bearer s3cret"}, "second": {None}}


def test_a_loop_of_redirects_ends(cache: Path):
    def loop(path: str, headers: Mapping[str, str]) -> Answer:
        return Answer(302, b"", {"Location": path})

    with answering(loop) as base, pytest.raises(RemoteError, match="too many redirects"):
        open_url(f"{base}/v1/banks/big", patience=QUICK)


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(server: Relay, cache: Path, big_bank: Bank):
    def slow(path: str, offset: int, data: bytes) -> bytes:
        time.sleep(0.3 if path.endswith(VECTORS) and offset == 0 else 0)
        return data

    def silent(path: str, offset: int, data: bytes) -> bytes:
        time.sleep(1.5 if path.endswith(VECTORS) else 0)
        return data

    impatient = Patience(attempts=2, first_pause=0.01, timeout=0.6)
    server.damage = silent
    with pytest.raises(UnreachableError, match=VECTORS):
        open_url(f"{server.url}/v1/banks/big", patience=impatient)
    assert listed(cache) == []
    server.damage = slow
    open_url(f"{server.url}/v1/banks/big", patience=impatient)
    assert listed(cache) == [f"big@{big_bank.id}"]


def test_a_name_that_is_replaced_midway_is_started_again(server: Relay, store: Path, cache: Path, big_bank: Bank):
    """The old bank is removed, and the name refers to a new one, while the old one's files are downloaded."""
    new: list[str] = []
    lock = threading.Lock()

    def damage(path: str, offset: int, data: bytes) -> bytes | None:
        with lock:
            if path.endswith(VECTORS) and not new:
                new.append(write_bank(store / "big", [b" a", b" b", b" c", b" d", b" e"], index=False).id)
                shutil.rmtree(store / "big" / big_bank.id)
                return None
        return data

    server.damage = damage
    assert open_url(f"{server.url}/v1/banks/big", patience=QUICK).id == new[0]
    assert listed(cache) == [f"big@{new[0]}"]
    assert _leftovers(cache) == []


def test_a_bank_that_is_removed_midway_is_said_to_be_gone(server: Relay, store: Path, cache: Path, big_bank: Bank):
    def damage(path: str, offset: int, data: bytes) -> bytes | None:
        if path.endswith(VECTORS):
            with suppress(FileNotFoundError):  # at once, as `costbank rm` does
                (store / "big").rename(store.with_name("removed"))
            return None
        return data

    server.damage = damage
    with pytest.raises(CostbankError, match="no bank"):
        open_url(f"{server.url}/v1/banks/big@{big_bank.id}", patience=QUICK)
    assert listed(cache) == []


def test_another_file_under_the_same_id_is_noticed_by_its_tag(liar: Liar, cache: Path):
    liar.changes = {VECTORS: Answer(200, b"other", {"ETag": f'"{"0" * 64}"'})}
    with answering(liar) as base, pytest.raises(RemoteError, match="replaced or removed during the download"):
        open_url(f"{base}/v1/banks/big", patience=QUICK)
    assert listed(cache) == []
    assert _leftovers(cache) == []


def test_too_little_space_is_seen_before_any_download(
    server: Relay, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(copies_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"needs 0\.01 GB") as caught:
        open_url(f"{server.url}/v1/banks/big", patience=QUICK)
    assert "COSTBANK_CACHE" in caught.value.hint
    assert server.count(VECTORS) == 0
    assert not cache.exists()


@pytest.mark.parametrize("most_bytes", [2_000, 3_000_000])
def test_a_disk_that_fills_up_leaves_nothing(server: Relay, cache: Path, tmp_path: Path, most_bytes: int):
    """The kernel refuses to let a file grow past a limit, as if the disk were full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    command = [sys.executable, "-m", "costbank_cli", "pull", f"{server.url}/v1/banks/big", "--store"]
    result = subprocess.run(
        [*command, str(tmp_path / "target")], preexec_fn=limit, capture_output=True, text=True, env={**os.environ},
        check=False,
    )  # fmt: skip
    assert (result.returncode, "no space left" in result.stderr) == (5, True)
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []


def test_a_write_that_fails_later_is_an_error(server: Relay, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel reports a failed write to the first sync after it, which another thread calls during the download."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(downloads_module, "_SYNC_BYTES", 1 << 20)
    monkeypatch.setattr(downloads_module.os, "fdatasync", failing)
    with pytest.raises((OSError, StorageError), match="Input/output error"):
        open_url(f"{server.url}/v1/banks/big", patience=QUICK)
    assert listed(cache) == []
    monkeypatch.undo()
    assert open_url(f"{server.url}/v1/banks/big", cache=cache, patience=QUICK)


def test_pulling_twice_at_once_in_one_process_makes_one_download(server: Relay, tmp_path: Path, big_bank: Bank):
    results = []

    def pull() -> None:
        results.append(pull_bank(f"{server.url}/v1/banks/big", store=tmp_path / "target", patience=QUICK).id)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [big_bank.id] * 4
    assert server.count(VECTORS) == 1
