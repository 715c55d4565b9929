"""A disk that fills up gives an error that says so, and no partial output is left behind."""

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from costbank.bank import Bank


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB, less than the bank takes."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system may not be mounted here; a limit on file sizes stands in below")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _arguments(news: Path, news_model: Path, store: Path, cache: Path) -> list[str | Path]:
    return ["build", "--source", "word2vec", "--corpus", news, "--tokenizer", news_model, "--store", store,
            "--cache", cache, "--set", "word2vec.dim=16", "--set", "word2vec.epochs=1"]  # fmt: skip


def test_too_little_space_is_seen_before_any_work(news, news_model, small_disk: Path, tmp_path: Path, costbank):
    result = costbank(*_arguments(news, news_model, small_disk / "store", tmp_path / "cache"))
    assert result.returncode == 5
    assert "GB free" in result.stderr
    assert "train Word2Vec" not in result.stderr
    assert _files(tmp_path / "cache") == _files(small_disk) == []


def test_a_full_disk_under_the_cache_leaves_nothing(news, news_model, small_disk: Path, tmp_path: Path, costbank):
    (small_disk / "other").write_bytes(b"x" * 250_000)
    result = costbank(*_arguments(news, news_model, tmp_path / "store", small_disk / "cache"))
    assert result.returncode == 5
    assert "no space left" in result.stderr
    assert "--cache" in result.stderr
    left = [path for path in _files(small_disk) if "digests" not in path.parts]
    assert left == [small_disk / "other"]
    assert _files(tmp_path / "store") == []


@pytest.fixture(scope="module")
def filled_cache(news: Path, news_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache after a build."""
    folder = tmp_path_factory.mktemp("filled")
    command = [sys.executable, "-m", "costbank_cli", *_arguments(news, news_model, folder / "store", folder / "cache")]
    subprocess.run(command, check=True)
    return folder / "cache"


@pytest.mark.parametrize("most_bytes", [1_000, 150_000, 300_000])
def test_a_write_that_fails_midway_leaves_nothing(
    news, news_model, filled_cache: Path, tmp_path: Path, costbank, most_bytes: int
):
    """The kernel refuses to let a file grow past a limit, at whatever stage of the build that happens."""
    cache = shutil.copytree(filled_cache, tmp_path / "cache")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    result = costbank(*_arguments(news, news_model, tmp_path / "store", cache), preexec_fn=limit)
    assert result.returncode == 5
    assert "no space left" in result.stderr
    assert _files(tmp_path / "store") == []


def test_a_store_that_cannot_be_made_is_an_error(news, news_model, tmp_path: Path, costbank):
    (tmp_path / "file").write_text("x")
    result = costbank(*_arguments(news, news_model, tmp_path / "file" / "store", tmp_path / "cache"))
    assert result.returncode == 5
    assert "--store" in result.stderr


def test_the_bank_would_be_larger_than_the_small_disk(news_bank: Bank):
    """If the bank fit, the tests above could not fail."""
    assert sum(file.size for file in news_bank.manifest.files.values()) > 300_000
