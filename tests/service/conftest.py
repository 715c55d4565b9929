import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient

from costbank.bank import Bank


@pytest.fixture
def store(news_bank: Bank, tmp_path: Path) -> Path:
    """A store of its own: the news bank, and a damaged copy of it."""
    root = tmp_path / "store"
    for name in ("news", "broken"):
        shutil.copytree(news_bank.path.parent, root / name)
    (root / "broken" / news_bank.id / "index.faiss").unlink()
    return root


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(store=store, max_k=100)), raise_server_exceptions=False) as client:
        yield client
