"""If one byte in any file of a bank is flipped, the error names the file, with exit status 4."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import costbank as library
from costbank.bank import Bank, verify_bank
from costbank.config import BuildConfig
from costbank.errors import CorruptBankError

FILES = [
    "manifest.json",
    "vectors.safetensors",
    "tokens.safetensors",
    "neighbors.safetensors",
    "index.faiss",
    "README.md",
    "latest",
]


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_reported_by_name(news_bank: Bank, tmp_path: Path, costbank, name: str):
    shutil.copytree(news_bank.path.parent, tmp_path / "news")
    path = tmp_path / "news" / name if name == "latest" else tmp_path / "news" / news_bank.id / name
    _flip(path, path.stat().st_size // 2)
    result = costbank("verify", "news", "--store", tmp_path)
    assert result.returncode == 4
    assert name in result.stderr
    assert result.stderr.startswith("error: ")
    assert "\nhint: " in result.stderr


def test_an_untouched_bank_verifies(news_bank: Bank, costbank):
    result = costbank("verify", news_bank.path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(" ok") == 7


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_flip_anywhere_is_found(news_bank: Bank, tmp_path: Path, random: np.random.Generator, name: str):
    path = tmp_path / "bank"
    shutil.copytree(news_bank.path, path)
    size = (path / name).stat().st_size
    for offset in {0, 7, size - 1, *random.integers(0, size, 12).tolist()}:
        _flip(path / name, offset)
        assert [check.name for check in verify_bank(path) if not check.ok] == [name]
        _flip(path / name, offset)
    assert all(check.ok for check in verify_bank(path))


def test_a_build_finds_that_the_same_bank_is_there_and_damaged(
    news_config: BuildConfig, news_bank: Bank, tmp_path: Path
):
    shutil.copytree(news_bank.path.parent, tmp_path / "news")
    config = news_config.model_copy(update={"store": tmp_path})
    assert library.build(config).id == news_bank.id
    _flip(tmp_path / "news" / news_bank.id / "index.faiss", 400)
    with pytest.raises(CorruptBankError, match=r"exists already and is damaged: index\.faiss"):
        library.build(config)
    assert [path.name for path in (tmp_path / "news").iterdir() if path.name.startswith(".staging")] == []
