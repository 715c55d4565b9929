"""No answer contains a path of the machine, whatever is wrong with the store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient

from costbank.bank import Bank

TENSORS = ("tokens.safetensors", "neighbors.safetensors", "vectors.safetensors")


def _cut(name: str) -> Callable[[Path], object]:
    return lambda bank: (bank / name).write_bytes((bank / name).read_bytes()[:100])


def _spoil(name: str) -> Callable[[Path], object]:
    """Overwrite a file with other bytes, as many as before."""
    return lambda bank: (bank / name).write_bytes(b"\xff" * (bank / name).stat().st_size)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda bank: (bank / name).unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    **{f"cut {name}": _cut(name) for name in (*TENSORS, "index.faiss", "manifest.json", "README.md")},
    **{f"spoiled {name}": _spoil(name) for name in (*TENSORS, "index.faiss", "manifest.json")},
    **{f"no {name}": _remove(name) for name in (*TENSORS, "index.faiss", "manifest.json", "README.md")},
    "deep manifest": lambda bank: (bank / "manifest.json").write_text("[" * 100_000),
    "empty manifest": lambda bank: (bank / "manifest.json").write_text("{}"),
    "manifest is a directory": lambda bank: [_remove("manifest.json")(bank), (bank / "manifest.json").mkdir()],
    "latest names nothing": lambda bank: (bank.parent / "latest").write_text("0123456789abcdef\n"),
    "latest is bytes": lambda bank: (bank.parent / "latest").write_bytes(b"\xff\0\n"),
    "latest is a directory": lambda bank: [(bank.parent / "latest").unlink(), (bank.parent / "latest").mkdir()],
    "bank is a file": lambda bank: [shutil.rmtree(bank), bank.write_text("no bank")],
    "bank is a loop": lambda bank: [shutil.rmtree(bank), bank.symlink_to(bank)],
    "bank is empty": lambda bank: [shutil.rmtree(bank), bank.mkdir()],
    "name is a file": lambda bank: [shutil.rmtree(bank.parent), bank.parent.write_text("no name")],
    "store is a file": lambda bank: [shutil.rmtree(bank.parents[1]), bank.parents[1].write_text("no store")],
    "no store": lambda bank: shutil.rmtree(bank.parents[1]),
    "store is a loop": lambda bank: [shutil.rmtree(bank.parents[1]), bank.parents[1].symlink_to(bank.parents[1])],
}


@pytest.mark.slow
@pytest.mark.parametrize("opened_before", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_answer_names_a_path(tmp_path: Path, byte_bank: Bank, damage: str, opened_before: bool):
    root = tmp_path / "a-secret-place" / "store"
    shutil.copytree(byte_bank.path.parent, root / "bytes")
    bank = root / "bytes" / byte_bank.id
    urls = [
        "/livez", "/readyz", "/v1/banks", "/v1/banks/nothing",
        *(f"/v1/banks/{ref}{rest}" for ref in ("bytes", f"bytes@{byte_bank.id}", "bytes@0000")
          for rest in ("", "/nearest?token_id=5", "/nearest?token=nothing", "/nearest?token_id=5&k=100")),
    ]  # fmt: skip
    with TestClient(create_app(Settings(store=root)), raise_server_exceptions=False) as client:
        if opened_before:
            assert client.get("/v1/banks/bytes/nearest?token_id=5").status_code == 200
        DAMAGES[damage](bank)
        for url in urls:
            response = client.get(url)
            text = f"{response.text} {dict(response.headers)}"
            for word in ("a-secret-place", str(tmp_path), '.safetensors" ', "Traceback", "site-packages"):
                assert word not in text, (url, text)
            assert response.status_code in (200, 400, 404, 500, 503), (url, text)
            if response.status_code >= 400:
                body = response.json()
                assert response.headers["content-type"] == "application/problem+json"
                assert body["code"] != "internal", (url, text)
                assert body["detail"]
                assert body["hint"]


def test_the_openapi_document_names_no_path(tmp_path: Path):
    """It does not depend on the banks."""
    with TestClient(create_app(Settings(store=tmp_path / "a-secret-place"))) as client:
        response = client.get("/openapi.json")
    assert response.status_code == 200
    assert "a-secret-place" not in response.text
    assert str(tmp_path) not in response.text


def test_the_log_has_the_details_of_an_error(tmp_path: Path, byte_bank: Bank, caplog: pytest.LogCaptureFixture):
    shutil.copytree(byte_bank.path.parent, tmp_path / "bytes")
    _remove("tokens.safetensors")(tmp_path / "bytes" / byte_bank.id)
    with TestClient(create_app(Settings(store=tmp_path))) as client:
        assert client.get("/v1/banks/bytes").status_code == 500
    assert f"{tmp_path / 'bytes' / byte_bank.id / 'tokens.safetensors'} is missing" in caplog.text
