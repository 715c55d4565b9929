"""The files of a bank over HTTP: whole, in part and under conditions."""

import http.client
import json
import os
import shutil
import socket
import urllib.request
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from costbank_service import Settings, create_app, serving
from costbank_service.routes.files import byte_range
from fastapi.testclient import TestClient

from costbank.bank import Bank
from tests.service.banks import write_bank

VECTORS = "vectors.safetensors"


def _etag(path: Path) -> str:
    return f'"{sha256(path.read_bytes()).hexdigest()}"'


def test_every_file_of_a_bank_is_served_with_its_digest(client: TestClient, news_bank: Bank):
    for name in ("manifest.json", *news_bank.manifest.files):
        data = (news_bank.path / name).read_bytes()
        for reference in ("news", f"news@{news_bank.id[:6]}", f"news@{news_bank.id}"):
            response = client.get(f"/v1/banks/{reference}/files/{name}")
            assert (response.status_code, response.content) == (200, data)
            assert response.headers["etag"] == f'"{sha256(data).hexdigest()}"'
            assert response.headers["repr-digest"] == f"sha-256=:{b64encode(sha256(data).digest()).decode()}:"
            assert response.headers["content-length"] == str(len(data))
            forever = reference.endswith(news_bank.id) and name != "manifest.json"  # which changes with a new map
            assert ("immutable" in response.headers["cache-control"]) == forever
            assert ("no-cache" in response.headers["cache-control"]) != forever


def test_a_head_request_has_the_headers_and_reads_nothing(client: TestClient, news_bank: Bank):
    url = f"/v1/banks/news/files/{VECTORS}"
    head, get = client.head(url), client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    own = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }
    assert client.head(url, headers={"Range": "bytes=2-5"}).headers["content-length"] == "4"


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=5-", 5, None), ("bytes=-7", -7, None), ("Bytes=3-999999999", 3, None),
     ("bytes=-999999999", 0, None), ("bytes=0-", 0, None)],
)  # fmt: skip
def test_one_range_gives_its_bytes(client: TestClient, news_bank: Bank, header: str, start: int, end: int | None):
    data = (news_bank.path / VECTORS).read_bytes()
    response = client.get(f"/v1/banks/news/files/{VECTORS}", headers={"Range": header})
    assert (response.status_code, response.content) == (206, data[start:end])
    first = start % len(data)
    assert response.headers["content-range"] == f"bytes {first}-{first + len(response.content) - 1}/{len(data)}"


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=-", "bytes=7-3", "lines=0-4", "bytes=a-b", "bytes"])
def test_other_ranges_give_the_whole_file(client: TestClient, news_bank: Bank, header: str):
    response = client.get(f"/v1/banks/news/files/{VECTORS}", headers={"Range": header})
    assert (response.status_code, response.content) == (200, (news_bank.path / VECTORS).read_bytes())
    assert "content-range" not in response.headers


@pytest.mark.parametrize("header", ["bytes={size}-", "bytes=999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(client: TestClient, news_bank: Bank, header: str):
    size = (news_bank.path / VECTORS).stat().st_size
    response = client.get(f"/v1/banks/news/files/{VECTORS}", headers={"Range": header.format(size=size)})
    assert (response.status_code, response.json()["code"]) == (416, "range-not-satisfiable")
    assert response.headers["content-range"] == f"bytes */{size}"


def test_conditions_compare_the_digest(client: TestClient, news_bank: Bank):
    url, etag = f"/v1/banks/news/files/{VECTORS}", _etag(news_bank.path / VECTORS)

    def status(**headers: str) -> int:
        return client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}).status_code

    assert [status(If_None_Match=value) for value in (etag, f'"x", W/{etag}', "*", '"x"')] == [304, 304, 304, 200]
    assert [status(If_Match=value) for value in (etag, f'"x", {etag}', "*", '"x"', f"W/{etag}")] == [
        200, 200, 200, 412, 412,
    ]  # fmt: skip
    assert [status(Range="bytes=0-4", If_Range=value) for value in (etag, '"x"', f"W/{etag}")] == [206, 200, 200]
    assert status(Range="bytes=0-4", If_None_Match=etag) == 304


@pytest.mark.parametrize(
    "file",
    ["secret", "..", ".", "../latest", "..%2flatest", "%2e%2e/latest", "..%5clatest", "/etc/passwd", "%2fetc%2fpasswd",
     "vectors.safetensors/x", "%00", "manifest.json%00", "Manifest.json", ""],
)  # fmt: skip
def test_no_other_file_is_served(store: Path, news_bank: Bank, file: str):
    (store / "news" / news_bank.id / "secret").write_text("s3cret")
    with serving(Settings(store=store, port=0)) as url, socket.create_connection(("127.0.0.1", _port(url))) as raw:
        raw.sendall(f"GET /v1/banks/news/files/{file} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65_536), b""))
    assert int(answer.split()[1]) == 404
    assert b"s3cret" not in answer


def test_a_name_in_a_manifest_cannot_leave_the_bank(tmp_path: Path, news_bank: Bank):
    """A manifest from elsewhere that lists `..` or a hidden file, with a digest that fits it."""
    from costbank.bank.manifest import write_manifest

    bank = tmp_path / "store" / "news" / news_bank.id
    shutil.copytree(news_bank.path, bank)
    (bank / ".hidden").write_text("s3cret")
    facts = json.loads((bank / "manifest.json").read_text())
    facts.pop("digest")
    facts["files"][".hidden"] = {"size": 6, "sha256": sha256(b"s3cret").hexdigest()}
    (bank / "manifest.json").write_bytes(write_manifest(facts))
    with TestClient(create_app(Settings(store=tmp_path / "store"))) as client:
        assert client.get("/v1/banks/news/files/README.md").status_code == 200
        assert client.get("/v1/banks/news/files/.hidden").status_code == 404


def test_files_need_the_key(store: Path):
    with TestClient(create_app(Settings(store=store, api_key="s3cret"))) as client:
        url = f"/v1/banks/news/files/{VECTORS}"
        assert client.get(url).status_code == 401
        assert client.get(url, headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_file_that_is_replaced_midway_is_sent_as_it_was(tmp_path: Path):
    bank = write_bank(tmp_path / "store" / "big", [b" t%d" % i for i in range(3_000)], dim=1_024, k=1, index=False)
    path = bank.path / VECTORS
    data = path.read_bytes()
    with serving(Settings(store=tmp_path / "store", port=0)) as url:
        with urllib.request.urlopen(f"{url}/v1/banks/big/files/{VECTORS}", timeout=20) as response:
            first = response.read(1_000)
            (tmp_path / "other").write_bytes(bytes(len(data)))
            (tmp_path / "other").replace(path)
            assert first + response.read() == data
        with urllib.request.urlopen(f"{url}/v1/banks/big/files/{VECTORS}", timeout=20) as response:
            response.read(1_000)
            os.truncate(path, 2_000)
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                response.read()
        with urllib.request.urlopen(f"{url}/livez", timeout=20) as response:
            assert response.status == 200


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def test_ranges_are_read_as_rfc_9110_says():
    assert byte_range("bytes=0-499", 10_000) == (0, 500)
    assert byte_range("bytes=500-999", 10_000) == (500, 1_000)
    assert byte_range("bytes=-500", 10_000) == (9_500, 10_000)
    assert byte_range("bytes=9500-", 10_000) == (9_500, 10_000)
    assert byte_range("bytes=500-600,601-999", 10_000) is None
