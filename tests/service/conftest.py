import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient

from costbank.bank import Bank
from tests.service.banks import write_bank


@pytest.fixture
def store(news_bank: Bank, tmp_path: Path) -> Path:
    """A new store with the news bank and a damaged copy of it."""
    root = tmp_path / "store"
    for name in ("news", "broken"):
        shutil.copytree(news_bank.path.parent, root / name)
    (root / "broken" / news_bank.id / "index.faiss").unlink()
    return root


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(store=store, max_k=100, refresh_ms=0)), raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="session")
def byte_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank with a token for each byte, one for the first two bytes of a three-byte character, and one for a word."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"\xe4\xbd", b" king", b"king", b"king"]
    return write_bank(tmp_path_factory.mktemp("bytes") / "store" / "bytes", tokens)
