"""Banks of a costbank service: opened by URL, from the cache, offline, and copied into a store."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from costbank_service import Settings, serving

import costbank
from costbank.bank import Bank, Store, verify_bank
from costbank.errors import BankNotFoundError, CorruptBankError, RemoteError, UnreachableError, UsageError
from costbank.files import locked
from costbank.remote import OfflineWarning, open_url, pull_bank
from tests.remote.conftest import QUICK, listed
from tests.remote.relay import Relay
from tests.service.banks import write_bank


def test_a_bank_is_opened_by_url_and_kept(server: Relay, cache: Path, big_bank: Bank):
    url = f"{server.url}/v1/banks/big"
    bank = costbank.open_bank(url)
    assert (bank.name, bank.id, bank.path) == ("big", big_bank.id, cache / "big" / big_bank.id)
    assert np.array_equal(bank.vectors(), big_bank.vectors())
    assert (bank.path / "manifest.json").read_bytes() == (big_bank.path / "manifest.json").read_bytes()
    assert listed(cache) == [f"big@{big_bank.id}"]
    assert {path.name for path in (cache / "big").iterdir() if not path.name.startswith(".resolved")} == {
        big_bank.id, "latest",
    }  # fmt: skip
    server.requests.clear()
    assert costbank.open_bank(url).id == big_bank.id
    assert costbank.open_bank(f"{url}@{big_bank.id[:4]}").id == big_bank.id
    assert [request.split("/")[-1] for request in server.requests] == ["manifest.json", "manifest.json"]


def test_a_full_id_in_the_cache_needs_no_request(server: Relay, cache: Path, big_bank: Bank):
    url = f"{server.url}/v1/banks/big@{big_bank.id}"
    costbank.open_bank(url)
    assert server.count("manifest.json") == 1
    server.requests.clear()
    assert costbank.open_bank(url).id == big_bank.id
    assert server.requests == []


def test_without_the_server_the_last_bank_is_used_with_a_warning(store: Path, cache: Path, big_bank: Bank):
    with serving(Settings(store=store, port=0)) as base:
        open_url(f"{base}/v1/banks/big")
    url = f"{base}/v1/banks/big"
    with pytest.warns(OfflineWarning, match=f"using big@{big_bank.id}"):
        assert open_url(url, patience=QUICK).id == big_bank.id
    with pytest.raises(UnreachableError, match="connection failed"):
        open_url(url, patience=QUICK, offline="refuse")
    assert open_url(url, offline="only").id == big_bank.id
    assert open_url(f"{url}@{big_bank.id}", offline="refuse").id == big_bank.id
    for other in (f"{base}/v1/banks/other", f"{url}@{big_bank.id[:6]}"):
        with pytest.raises(UnreachableError):
            open_url(other, patience=QUICK)
        with pytest.raises(UnreachableError, match="not in the cache"):
            open_url(other, offline="only")


def test_the_setting_for_offline_use_is_checked(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COSTBANK_OFFLINE", "yes")
    with pytest.raises(UsageError, match="offline is 'yes'"):
        costbank.open_bank("http://127.0.0.1:9/v1/banks/big")


def test_a_bare_name_follows_the_server(server: Relay, store: Path, cache: Path, big_bank: Bank):
    url = f"{server.url}/v1/banks/big"
    assert costbank.open_bank(url).id == big_bank.id
    second = write_bank(store / "big", [b" a", b" b", b" c", b" d", b" e"], index=False)
    assert costbank.open_bank(url).id == second.id
    assert listed(cache) == sorted([f"big@{big_bank.id}", f"big@{second.id}"])
    assert (cache / "big" / "latest").read_text() == f"{second.id}\n"


def test_a_service_with_a_key_names_its_variable(store: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(Settings(store=store, port=0, api_key="s3cret ü")) as base:
        with pytest.raises(RemoteError, match=r"requires a key in \$COSTBANK_API_KEY") as caught:
            costbank.open_bank(f"{base}/v1/banks/big")
        assert "export COSTBANK_API_KEY" in caught.value.hint
        monkeypatch.setenv("COSTBANK_API_KEY", "wrong")
        with pytest.raises(RemoteError, match=r"refuses the key in \$COSTBANK_API_KEY"):
            costbank.open_bank(f"{base}/v1/banks/big")
        assert listed(cache) == []
        monkeypatch.setenv("COSTBANK_API_KEY", "s3cret ü")
        costbank.open_bank(f"{base}/v1/banks/big")
    assert not (cache / "big" / ".pull").exists()


def test_what_does_not_exist_is_said(server: Relay, cache: Path):
    for name in ("nothing", "big@0000", f"big@{'0' * 16}"):
        with pytest.raises(BankNotFoundError, match="there is no bank"):
            costbank.open_bank(f"{server.url}/v1/banks/{name}")
    assert not cache.exists()


def test_a_pulled_bank_becomes_visible_under_the_lock_of_its_name(server: Relay, tmp_path: Path, big_bank: Bank):
    """So that no removal comes between the bank and `latest`, which names it."""
    directory, url = tmp_path / "target" / "big", f"{server.url}/v1/banks/big"
    directory.mkdir(parents=True)
    pulled = threading.Thread(target=pull_bank, args=(url,), kwargs={"store": directory.parent})
    with locked(directory):
        pulled.start()
        while not list(directory.glob(".pull-*/manifest.json")):
            assert pulled.is_alive()
            time.sleep(0.01)
        pulled.join(0.3)
        assert not list(Store(directory.parent).banks())
    pulled.join(30)
    assert [(bank.id, bank.latest) for bank in Store(directory.parent).banks()] == [(big_bank.id, True)]


def test_pulling_copies_into_a_store_and_moves_latest(server: Relay, cache: Path, tmp_path: Path, big_bank: Bank):
    url, target = f"{server.url}/v1/banks/big", tmp_path / "target"
    other = write_bank(target / "mine", [b" a", b" b", b" c", b" d", b" e"], index=False)
    pulled = pull_bank(url, "mine", target)
    assert pulled.path == target / "mine" / big_bank.id
    assert (target / "mine" / "latest").read_text() == f"{big_bank.id}\n"
    (target / "mine" / "latest").write_text(f"{other.id}\n")
    server.requests.clear()
    pull_bank(url, "mine", target)
    assert server.count("vectors.safetensors") == 0
    assert (target / "mine" / "latest").read_text() == f"{big_bank.id}\n"
    assert listed(target) == sorted([f"mine@{big_bank.id}", f"mine@{other.id}"])
    assert not cache.exists()
    with pytest.raises(UsageError, match="not a bank name"):
        pull_bank(url, "../up", target)


def test_pulling_does_not_trust_a_damaged_copy(server: Relay, tmp_path: Path, big_bank: Bank):
    target = tmp_path / "target"
    shutil.copytree(big_bank.path.parent, target / "big")
    (target / "big" / big_bank.id / "README.md").write_text("x")
    with pytest.raises(CorruptBankError, match="exists already and is damaged"):
        pull_bank(f"{server.url}/v1/banks/big", store=target)


def test_a_cache_that_cannot_be_written_is_still_read(
    server: Relay, cache: Path, big_bank: Bank, monkeypatch: pytest.MonkeyPatch
):
    from costbank.remote import opening

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    url = f"{server.url}/v1/banks/big"
    costbank.open_bank(f"{url}@{big_bank.id}")
    monkeypatch.setattr(opening, "write_atomically", refuse)
    assert costbank.open_bank(url).id == big_bank.id
    assert verify_bank(cache / "big" / big_bank.id)[0].ok


def test_commands_take_urls(server: Relay, cache: Path, tmp_path: Path, big_bank: Bank, capsys):
    from costbank_cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        return (int(caught.value.code or 0), *capsys.readouterr())

    url = f"{server.url}/v1/banks/big"
    assert big_bank.id in run("show", url)[1]
    assert f"big@{big_bank.id}, big@{big_bank.id}" in run("compare", url, url)[1]
    status, out, err = run("pull", url, "--name", "mine", "--store", str(tmp_path / "target"))
    assert (status, out) == (0, f"mine@{big_bank.id}  {tmp_path / 'target' / 'mine' / big_bank.id}\n")
    assert "download big@" in err
    assert run("verify", "mine", "--store", str(tmp_path / "target"))[0] == 0
    status, _, err = run("push", "mine", url, "--store", str(tmp_path / "target"))
    assert (status, "read-only" in err) == (2, True)
    status, _, err = run("verify", url)
    assert (status, f"costbank pull {url}" in err) == (2, True)
    assert run("pull", f"{server.url}/v1/banks/nothing")[0] == 3
