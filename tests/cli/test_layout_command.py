"""`costbank layout`, and what other commands say about a bank with a map."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from costbank.bank import Bank, verify_bank
from tests.cli.conftest import Run
from tests.unit.small_bank import small_bank


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a bank of 30 tokens, one of them without a vector."""
    rows = {f"t{i}": [1.0, i / 10, (i % 5) / 5] for i in range(30)}
    small_bank(tmp_path / "store", rows, k=6, unseen=("t4",))
    return tmp_path / "store"


def _bank(store: Path) -> Bank:
    (path,) = (path for path in (store / "bank").iterdir() if path.is_dir())
    return Bank(path)


def test_a_map_is_added_shown_and_verified(run: Run, store: Path):
    before = _bank(store)
    assert "map           no\n" in run("show", "bank", "--store", store).out
    made = run("layout", "bank", "--store", store)
    assert made.status == 0
    assert made.out.startswith(f"bank@{before.id}  map of 29 tokens, seed 0: ")
    bank = _bank(store)
    assert (bank.id, bank.has_map) == (before.id, True)
    assert "map           yes, seed 0; " in run("show", "bank", "--store", store).out
    verified = run("verify", "bank", "--store", store)
    assert (verified.status, "map.safetensors" in verified.out) == (0, True)
    assert run("health", "bank", "--store", store).status == 0


def test_the_same_map_is_not_made_again_and_another_seed_replaces_it(run: Run, store: Path):
    first = json.loads(run("layout", "bank", "--store", store, "--json").out)
    data = (_bank(store).path / "map.safetensors").read_bytes()
    again = run("layout", "bank", "--store", store)
    assert "has this map already" in again.err
    assert (_bank(store).path / "map.safetensors").read_bytes() == data
    other = json.loads(run("layout", "bank", "--store", store, "--seed", "1", "--json").out)
    assert (first["map"]["seed"], other["map"]["seed"], first["id"]) == (0, 1, other["id"])
    assert (_bank(store).path / "map.safetensors").read_bytes() != data
    run("layout", "bank", "--store", store)
    assert (_bank(store).path / "map.safetensors").read_bytes() == data


def test_an_unknown_bank_and_a_bank_without_neighbors_are_refused(run: Run, tmp_path: Path, store: Path):
    unknown = run("layout", "bnak", "--store", store)
    assert (unknown.status, unknown.err.count("did you mean bank?")) == (3, 1)
    small_bank(tmp_path / "flat", {"a": [1.0, 0.0], "b": [0.0, 1.0]}, k=0)
    refused = run("layout", "bank", "--store", tmp_path / "flat")
    assert (refused.status, "this bank has none" in refused.err) == (2, True)


def test_a_read_only_store_is_refused_before_any_work(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch):
    bank = _bank(store)
    monkeypatch.setattr("os.access", lambda path, _: Path(path) != bank.path)  # root may write everywhere
    monkeypatch.setattr("costbank.analysis.layout.map_bank", lambda *_: pytest.fail("the map was computed"))
    refused = run("layout", "bank", "--store", store)
    assert (refused.status, f"cannot write to {bank.path}" in refused.err) == (5, True)


def test_a_missing_library_is_named_with_its_extra(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    refused = run("layout", "bank", "--store", store)
    assert (refused.status, "costbank[map]" in refused.err) == (2, True)


@pytest.mark.slow
def test_an_interrupt_leaves_the_bank_as_it_was(news_bank: Bank, tmp_path: Path):
    copy = tmp_path / "news" / news_bank.id
    shutil.copytree(news_bank.path, copy)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    command = [sys.executable, "-m", "costbank_cli", "layout", str(copy)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        time.sleep(0.5)
        deadline = time.monotonic() + 60
        while b"openTSNE" not in Path(f"/proc/{process.pid}/maps").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)  # until the compiled library of the layout is loaded
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "interrupted; no partial output was left behind" in errors
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == [news_bank.id]
    assert all(check.ok for check in verify_bank(copy))
