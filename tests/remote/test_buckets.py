"""Banks in a bucket: a real server of the S3 protocol in another process, and filesystems of fsspec."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import costbank
from costbank.bank import Bank
from costbank.errors import BankNotFoundError, CorruptBankError, RemoteError, UnreachableError, UsageError
from costbank.remote import Patience, open_url, pull_bank, push_bank
from tests.remote.conftest import QUICK, listed
from tests.service.banks import write_bank

VECTORS = "vectors.safetensors"


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A server of the S3 protocol with one bucket, `bucket`."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT"), timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield endpoint
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[str]:
    """The URL of a directory in the bucket, empty for each test."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    filesystem = _new_filesystem()
    url = f"s3://bucket/{time.time_ns()}/banks"
    yield url
    if filesystem.exists(url):
        filesystem.rm(url, recursive=True)


def _new_filesystem() -> Any:
    """A client that reads the variables; fsspec would return one that has read others."""
    s3fs = pytest.importorskip("s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    return fsspec.filesystem("s3")


def test_a_bank_is_pushed_and_opened_by_any_reference(bucket: str, cache: Path, big_bank: Bank):
    assert push_bank(big_bank.path, f"{bucket}/big") == f"{bucket}/big@{big_bank.id}"
    for reference in ("big", f"big@{big_bank.id[:5]}", f"big@{big_bank.id}"):
        assert costbank.open_bank(f"{bucket}/{reference}").id == big_bank.id
    assert listed(cache) == [f"big@{big_bank.id}"]
    with pytest.raises(BankNotFoundError, match="there is no bank at"):
        open_url(f"{bucket}/other", patience=QUICK)
    for prefix in ("0000", "0" * 16):
        with pytest.raises(BankNotFoundError, match="there is no bank at"):
            open_url(f"{bucket}/big@{prefix}", patience=QUICK)


def test_latest_follows_the_last_push(bucket: str, cache: Path, tmp_path: Path, big_bank: Bank):
    second = write_bank(tmp_path / "big", [b" a", b" b", b" c", b" d", b" e"], index=False)
    push_bank(big_bank.path, f"{bucket}/big")
    push_bank(second.path, f"{bucket}/big")
    assert open_url(f"{bucket}/big", patience=QUICK).id == second.id
    push_bank(big_bank.path, f"{bucket}/big")
    assert open_url(f"{bucket}/big", patience=QUICK).id == big_bank.id
    assert pull_bank(f"{bucket}/big@{second.id[:6]}", "mine", tmp_path / "store").id == second.id


def test_the_manifest_is_pushed_last(cache: Path, tmp_path: Path, big_bank: Bank, monkeypatch: pytest.MonkeyPatch):
    """After each upload, a reader finds no bank, until all of it is there."""
    from fsspec.implementations.local import LocalFileSystem

    url, put, order = f"file://{tmp_path}/shared/big", LocalFileSystem.put_file, []

    def watched(self: LocalFileSystem, source: str, target: str, **options: object) -> None:
        put(self, source, target, **options)
        order.append(target.rpartition("/")[2])
        for reference in (url, f"{url}@{big_bank.id}"):
            with pytest.raises(BankNotFoundError):
                open_url(reference, patience=QUICK)

    monkeypatch.setattr(LocalFileSystem, "put_file", watched)
    push_bank(big_bank.path, url)
    assert order == sorted(big_bank.manifest.files)
    assert open_url(url, patience=QUICK).id == big_bank.id


def test_an_interrupted_download_is_continued(bucket: str, cache: Path, big_bank: Bank):
    push_bank(big_bank.path, f"{bucket}/big")
    left = cache / "big" / f".pull-{big_bank.id}-0123"
    left.mkdir(parents=True)
    (left / VECTORS).write_bytes((big_bank.path / VECTORS).read_bytes()[:5_000_000])
    open_url(f"{bucket}/big", patience=QUICK)
    assert listed(cache) == [f"big@{big_bank.id}"]
    assert not list((cache / "big").glob(".pull-*"))


@pytest.mark.parametrize("change", ["other bytes", "shorter"])
def test_a_damaged_object_is_refused(bucket: str, cache: Path, big_bank: Bank, change: str):
    push_bank(big_bank.path, f"{bucket}/big")
    data = bytearray((big_bank.path / VECTORS).read_bytes())
    data[4_000_000] ^= 1
    fsspec.filesystem("s3").pipe_file(
        f"{bucket}/big/{big_bank.id}/{VECTORS}", bytes(data if change == "other bytes" else data[:-1])
    )
    with pytest.raises(CorruptBankError, match="sha256" if change == "other bytes" else "bytes instead of"):
        open_url(f"{bucket}/big", patience=QUICK)
    assert listed(cache) == []


def test_wrong_places_are_refused_in_words(bucket: str, cache: Path, big_bank: Bank, tmp_path: Path):
    with pytest.raises(RemoteError, match="does not exist"):
        push_bank(big_bank.path, "s3://no-such-bucket/banks/big")
    with pytest.raises(UsageError, match="has an id"):
        push_bank(big_bank.path, f"{bucket}/big@{big_bank.id}")
    with pytest.raises(UsageError, match="read-only"):
        push_bank(big_bank.path, "http://127.0.0.1:8137/v1/banks/big")
    shutil.copytree(big_bank.path, tmp_path / "damaged" / big_bank.id)
    (tmp_path / "damaged" / big_bank.id / "README.md").write_text("x")
    with pytest.raises(CorruptBankError, match="is damaged"):
        push_bank(tmp_path / "damaged" / big_bank.id, f"{bucket}/damaged")
    assert not fsspec.filesystem("s3").exists(f"{bucket}/damaged")


def test_a_directory_of_another_machine_is_a_bucket_too(cache: Path, tmp_path: Path, big_bank: Bank):
    """A file URL, and a store that was copied to a filesystem of fsspec by other means."""
    assert push_bank(big_bank.path, f"file://{tmp_path}/shared/banks/big").startswith("file://")
    assert listed(tmp_path / "shared" / "banks") == [f"big@{big_bank.id}"]
    assert open_url(f"file://{tmp_path}/shared/banks/big", patience=QUICK).id == big_bank.id
    memory = fsspec.filesystem("memory")
    memory.put(str(big_bank.path.parents[1]), "/stores/banks", recursive=True)
    assert open_url("memory://stores/banks/big", cache=tmp_path / "other", patience=QUICK).id == big_bank.id
    memory.pipe_file("/stores/banks/big/latest", b"../../up\n")
    with pytest.raises(CorruptBankError, match="does not hold an id"):
        open_url("memory://stores/banks/big", cache=tmp_path / "third", patience=QUICK)


def test_a_bucket_without_a_server_is_unreachable(cache: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k", "AWS_MAX_ATTEMPTS": "1",
                        "AWS_SECRET_ACCESS_KEY": "s"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    _new_filesystem()
    with pytest.raises(UnreachableError, match="s3://bucket/banks/elsewhere"):
        open_url("s3://bucket/banks/elsewhere", patience=Patience(attempts=1))
    assert not cache.exists()
