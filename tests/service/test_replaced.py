"""Banks that are overwritten, truncated or removed while a real server process serves them."""

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from costbank_service import Settings, create_app
from costbank_service import bank_cache as bank_cache_module
from fastapi.testclient import TestClient

from costbank.bank import Bank, LoadedBank, Store
from costbank.errors import CorruptBankError
from tests.service.banks import write_bank

TOKENS = [b" token%d" % i for i in range(4_000)]
COPIES = 12


@contextmanager
def _server(store: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    command = [sys.executable, "-u", "-m", "costbank_cli", "serve", "--store", str(store), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               env={**os.environ, "COSTBANK_REFRESH_MS": "0"})  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split(" on ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def _get(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
@pytest.mark.parametrize("index", [True, False])
def test_a_bank_that_is_overwritten_under_load_stays_right_and_the_server_up(tmp_path: Path, index: bool):
    bank = write_bank(tmp_path / "source" / "big", TOKENS, dim=64, k=16, index=index)
    store = tmp_path / "store"
    shutil.copytree(tmp_path / "source", store)
    bank_path = store / "big" / bank.id
    expected = {
        (token, k): [(n.id, n.cost) for n in bank.nearest(token, k)] for token in range(0, 4_000, 97) for k in (10, 40)
    }
    statuses: Counter[tuple[int, int]] = Counter()
    wrong: list = []
    ended = threading.Event()

    def load(url: str, seed: int) -> None:
        wanted = list(expected)[seed::3]
        while not ended.is_set():
            for token, k in wanted:
                status, body = _get(f"{url}/v1/banks/big@{bank.id}/nearest?token_id={token}&k={k}")
                statuses[k, status] += 1
                if status == 200:
                    if [(n["id"], n["cost"]) for n in body["neighbors"]] != expected[token, k]:
                        wrong.append((token, k))
                elif body["code"] not in ("corrupt-bank", "bank-not-found"):
                    wrong.append(body)

    with _server(store) as (process, url):
        for k in (10, 40):  # the loaded table and index stay in memory
            assert _get(f"{url}/v1/banks/big/nearest?token_id=0&k={k}")[0] == 200
        threads = [threading.Thread(target=load, args=(url, seed)) for seed in range(3)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(COPIES):
                subprocess.run(["cp", "-r", f"{tmp_path / 'source' / 'big'}/.", str(store / "big")], check=True)
                if turn % 3 == 1:
                    for name in ("vectors.safetensors", "neighbors.safetensors", "tokens.safetensors"):
                        os.truncate(bank_path / name, 100)
                if turn % 3 == 2:
                    (bank_path / "tokens.safetensors").unlink()
        finally:
            subprocess.run(["cp", "-r", f"{tmp_path / 'source' / 'big'}/.", str(store / "big")], check=True)
            ended.set()
            for thread in threads:
                thread.join()
        assert process.poll() is None
        assert not wrong
        assert statuses[10, 200] > 20
        assert {status for k, status in statuses if k == 10} == {200}, "what the table holds is answered throughout"
        assert {status for k, status in statuses if k == 40} <= ({200} if index else {200, 503})


@pytest.mark.slow
def test_other_content_is_served_once_it_is_complete(tmp_path: Path):
    store = tmp_path / "store"
    first = write_bank(store / "big", TOKENS[:100], seed=1)
    second = write_bank(tmp_path / "other" / "big", TOKENS[:100], seed=2)
    expected = [n.id for n in second.nearest(5, 4)]
    directory = store / "big" / first.id
    with _server(store) as (process, url):
        assert _get(f"{url}/v1/banks/big/nearest?token_id=5&k=4")[1]["id"] == first.id
        shutil.copytree(second.path, directory, dirs_exist_ok=True)
        status, body = _get(f"{url}/v1/banks/big/nearest?token_id=5&k=4")
        assert (status, body["id"], [n["id"] for n in body["neighbors"]]) == (200, second.id, expected)
        shutil.rmtree(directory)
        assert _get(f"{url}/v1/banks/big/nearest?token_id=5&k=4")[0] == 404
        assert process.poll() is None


def test_the_memory_of_banks_is_bounded(tmp_path: Path, byte_bank: Bank):
    from costbank_service.bank_cache import BankCache, BankTooLargeError

    banks = [write_bank(tmp_path / f"b{seed}", TOKENS[:2_000], dim=64, k=16, seed=seed) for seed in range(3)]
    table = sum((banks[0].path / name).stat().st_size for name in ("tokens.safetensors", "neighbors.safetensors"))
    cache = BankCache(tmp_path, 2 * table + 1_000)
    for name in ("b0", "b1", "b2"):
        cache.bank(name)
    kept = [path.parent.name for path in cache._entries]
    assert kept == ["b1", "b2"]
    bank = cache.bank("b2")
    answer = cache.search(bank, 3, 50)
    assert (answer.exact, bank.index_bytes > 0) == (True, True), "an index that does not fit is not loaded"
    assert answer.neighbors == banks[2].nearest(3, 50)
    with pytest.raises(BankTooLargeError, match="may use 0 MB"):
        BankCache(tmp_path, table - 1).bank("b0")


def test_a_removed_bank_is_searched_beyond_its_table_while_its_name_is_resolved(tmp_path: Path):
    """For the time of a refresh, its name still leads to the bank that was removed. Its index was not loaded yet."""
    bank = write_bank(tmp_path / "store" / "one", TOKENS[:300], k=4)
    expected = [(neighbor.id, neighbor.cost) for neighbor in bank.nearest(7, 20)]
    settings = Settings(store=tmp_path / "store", refresh_ms=60_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        vector = client.get("/v1/banks/one/vectors?ids=7").json()["vectors"][0]
        shutil.rmtree(bank.path)
        answer = client.get("/v1/banks/one/nearest?token_id=7&k=20")
        assert answer.status_code == 200, answer.text
        assert [(one["id"], one["cost"]) for one in answer.json()["neighbors"]] == expected
        found = client.post("/v1/banks/one/nearest", json={"vectors": [vector], "k": 20})
        assert found.status_code == 200, found.text


@pytest.mark.parametrize("at", ["resolved", "sizes checked", "tables read", "file opened"])
@pytest.mark.parametrize("route", ["", "/nearest?token_id=7", "/files/tokens.safetensors"])
def test_a_bank_that_is_removed_while_a_request_opens_it_is_resolved_again(
    tmp_path: Path, route: str, at: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The name then leads to a newer bank, or to none. No answer contains a path, and no log calls a bank damaged."""
    store = tmp_path / "store"
    newer, older = (write_bank(store / "one", TOKENS[:300], seed=seed) for seed in (1, 0))
    client = TestClient(create_app(Settings(store=store, refresh_ms=0)), raise_server_exceptions=False)
    goes = older.path

    def vanish(path: Path) -> None:
        if path.is_relative_to(goes) and goes.exists():
            if newer.path.exists():
                (store / "one" / "latest").write_text(newer.id)
            shutil.rmtree(goes)

    def before(owner: object, name: str, path_of: Callable[..., Path]) -> None:
        original = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            vanish(path_of(*arguments))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, called)

    if at == "resolved":
        resolve = Store.resolve_name

        def resolved(self: Store, reference: str) -> Path:
            path = resolve(self, reference)
            vanish(path)
            return path

        monkeypatch.setattr(Store, "resolve_name", resolved)
    elif at == "sizes checked":
        before(bank_cache_module, "check_sizes", lambda path, _: path)
    elif at == "tables read":
        before(LoadedBank, "_checked", lambda bank, _: bank.path)
    else:
        before(Path, "open", lambda path, *_: path)
    with client:
        answer = client.get(f"/v1/banks/one{route}")
        assert answer.status_code == 200, answer.text
        goes = newer.path
        answer = client.get(f"/v1/banks/one{route}")
        # A copy in memory is still the bank of that id.
        assert answer.status_code in (200, 404), answer.text
        if answer.status_code == 404:
            assert "there is no bank one" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
    assert "quarantined" not in caplog.text


@pytest.mark.parametrize("failures", [1, 9])
def test_a_bank_that_is_removed_and_there_again_is_read_again(tmp_path: Path, failures: int):
    """Only a bank that stays damaged is reported."""
    bank = write_bank(tmp_path / "a", TOKENS[:50])
    cache, looks = bank_cache_module.BankCache(tmp_path, 1 << 20), []

    def use(path: Path) -> Path:
        looks.append(path)
        if len(looks) <= failures:
            raise CorruptBankError(f"{path} lacks a file", "copy it again")
        return path

    if failures == 1:
        assert cache.using("a", use) == bank.path
    else:
        with pytest.raises(CorruptBankError, match="lacks a file"):
            cache.using("a", use)
