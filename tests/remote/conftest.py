import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from costbank_service import Settings, serving

from costbank.bank import Bank, Store, verify_bank
from costbank.remote import Patience
from tests.remote.relay import Relay, relay
from tests.service.banks import write_bank

QUICK = Patience(attempts=3, first_pause=0.01, longest_pause=0.02, timeout=5)


@pytest.fixture(scope="session")
def big_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank with 8 MB of vectors, so that a download has a middle."""
    tokens = [b" token%d" % i for i in range(2_000)]
    return write_bank(tmp_path_factory.mktemp("big") / "store" / "big", tokens, dim=1_024, k=2, index=False)


@pytest.fixture
def store(big_bank: Bank, tmp_path: Path) -> Path:
    """A store with only that bank, which a test may change."""
    shutil.copytree(big_bank.path.parents[1], tmp_path / "served")
    return tmp_path / "served"


@pytest.fixture
def server(store: Path) -> Iterator[Relay]:
    """A costbank service for that store, behind a relay."""
    with serving(Settings(store=store, port=0)) as url, relay(url) as relayed:
        yield relayed


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which `open_bank` uses."""
    monkeypatch.setenv("COSTBANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COSTBANK_API_KEY", raising=False)
    monkeypatch.delenv("COSTBANK_OFFLINE", raising=False)
    return tmp_path / "cache" / "banks"


def listed(root: Path) -> list[str]:
    """The banks of a store or a cache, each checked byte for byte."""
    names = []
    for bank in Store(root).banks():
        assert [check for check in verify_bank(bank.path) if not check.ok] == []
        names.append(f"{bank.name}@{bank.id}")
    return names
