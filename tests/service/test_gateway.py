"""Limits, request ids, metrics, logs, origins and keys: what happens to every request around its route."""

import asyncio
import json
import logging
import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from costbank_service import Settings, create_app, serving
from costbank_service.bank_cache import BankCache
from costbank_service.keys import KeyRing, read_keys
from costbank_service.logs import JSONFormatter
from fastapi.testclient import TestClient

from costbank.bank import Store
from costbank.errors import UsageError
from tests.service.banks import write_bank

WITHIN, BEYOND = "/v1/banks/news/nearest?token_id=300&k=10", "/v1/banks/news/nearest?token_id=300&k=90"


@contextmanager
def _blocked(client: TestClient):
    """Searches wait until the block ends."""
    banks, search, free = client.app.state.banks, client.app.state.banks.search, threading.Event()
    banks.search = lambda *arguments: free.wait(20) and search(*arguments)
    try:
        yield free
    finally:
        free.set()
        banks.search = search


def _wait_for(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_answer_from_the_table_reads_no_file_and_takes_no_thread(store: Path, monkeypatch: pytest.MonkeyPatch):
    with TestClient(create_app(Settings(store=store, refresh_ms=600_000))) as client:
        expected = [client.get(url).json() for url in (WITHIN, "/v1/banks/news/nearest?token=the")]

        def forbidden(*arguments, **options):
            raise AssertionError("the store was read, or a thread was used")

        for place, name in ((BankCache, "bank"), (Store, "resolve_name"), (os, "scandir"), (os, "stat"), (Path, "stat"),
                            (os, "lstat"), (Path, "resolve")):  # fmt: skip
            monkeypatch.setattr(place, name, forbidden)
        monkeypatch.setattr("costbank_service.routes.nearest.run_in_threadpool", forbidden)
        answers = [client.get(url).json() for url in (WITHIN, "/v1/banks/news/nearest?token=the")]
        monkeypatch.undo()
    assert answers == expected


def test_a_new_latest_bank_is_served_within_the_interval(tmp_path: Path):
    first = write_bank(tmp_path / "live", [b" a", b" b", b" c"], k=1, seed=1)
    with TestClient(create_app(Settings(store=tmp_path, refresh_ms=300))) as client:
        assert client.get("/v1/banks/live/nearest?token_id=0&k=1").json()["id"] == first.id
        second = write_bank(tmp_path / "live", [b" a", b" b", b" c"], k=1, seed=2)
        time.sleep(0.35)
        assert client.get("/v1/banks/live/nearest?token_id=0&k=1").json()["id"] == second.id != first.id


def test_concurrent_requests_share_one_load(store: Path, monkeypatch: pytest.MonkeyPatch):
    loads: list[str] = []
    cache = BankCache(store, 1 << 30, 60.0)
    load = cache.bank
    monkeypatch.setattr(cache, "bank", lambda reference: (loads.append(reference), time.sleep(0.1), load(reference))[2])

    async def ask() -> list:
        return await asyncio.gather(*(cache.opened("news") for _ in range(20)), return_exceptions=True)

    assert len({id(bank) for bank in asyncio.run(ask())}) == 1
    assert loads == ["news"]


def test_requests_beyond_the_limit_get_503(store: Path):
    with (
        TestClient(create_app(Settings(store=store, max_requests=1))) as client, _blocked(client) as free,
    ):  # fmt: skip
        thread = threading.Thread(target=client.get, args=(BEYOND,))
        thread.start()
        try:
            _wait_for(lambda: client.app.gateway.running == 1)
            response, alive = client.get(WITHIN), client.get("/livez")
        finally:
            # A client that closes waits for the request that still runs.
            free.set()
            thread.join()
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert alive.status_code == 200
        assert client.get(WITHIN).status_code == 200
        assert 'costbank_refusals_total{reason="overloaded"} 1.0' in client.get("/metrics").text


def test_a_request_that_takes_too_long_gets_503(store: Path):
    with TestClient(create_app(Settings(store=store, timeout_s=0.2))) as client, _blocked(client):
        response = client.get(BEYOND)
        assert (response.status_code, response.json()["code"]) == (503, "timeout")
        assert "0.2 s" in response.json()["hint"]
        assert client.get(WITHIN).status_code == 200


def test_a_body_that_does_not_arrive_gets_408(store: Path):
    with serving(Settings(store=store, port=0, timeout_s=0.3)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /v1/banks/news/costs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               b"Content-Length: 100\r\n\r\n{")  # fmt: skip
            answer = b""
            while data := connection.recv(65_536):
                answer += data
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request-timeout"' in answer


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_gets_413(store: Path, announced: bool):
    body = b" " * 5_000
    with serving(Settings(store=store, port=0, max_body_kb=4)) as url:
        content = body if announced else iter([body[:2_500], body[2_500:]])
        response = httpx.post(
            f"{url}/v1/banks/news/costs", content=content, headers={"Content-Type": "application/json"}
        )
        assert (response.status_code, response.json()["code"]) == (413, "content-too-large")
        fine = httpx.post(f"{url}/v1/banks/news/costs", json={"rows": [1], "cols": [1]})
        assert fine.status_code == 200
        assert 'reason="content-too-large"} 1.0' in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [("abc-123", True), ("4bf92f35:7/x=", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("<x>", False),
     ("", False), (None, False), ("ä".encode(), False)],
)  # fmt: skip
def test_every_answer_has_a_request_id(client: TestClient, sent, is_kept: bool):
    headers = {} if sent is None else {"X-Request-Id": sent}
    for url in ("/livez", WITHIN, "/v1/banks/nothing", "/nothing"):
        response = client.get(url, headers=headers)
        request_id = response.headers["x-request-id"]
        assert (request_id == sent) == is_kept
        assert is_kept or len(request_id) == 16
        if response.status_code == 404:
            assert response.json()["request_id"] == request_id
    assert client.get("/livez").headers["x-request-id"] != client.get("/livez").headers["x-request-id"]


def test_an_unexpected_error_has_its_request_id_in_the_answer_and_the_log(client: TestClient, caplog):
    banks, client.app.state.banks = client.app.state.banks, None
    response = client.get(WITHIN, headers={"X-Request-Id": "find-me"})
    client.app.state.banks = banks
    assert (response.status_code, response.headers["x-request-id"]) == (500, "find-me")
    assert response.json()["request_id"] == "find-me"
    assert any(getattr(record, "request_id", "") == "find-me" for record in caplog.records)
    assert 'status="500"} 1.0' in client.get("/metrics").text


def test_metrics_count_by_the_template_of_the_route(client: TestClient):
    for url in (WITHIN, WITHIN, "/v1/banks/news", "/v1/banks/nothing", "/random/1", "/random/2"):
        client.get(url)
    client.head("/livez")
    text = client.get("/metrics").text
    for line in (
        'costbank_requests_total{method="GET",route="/v1/banks/{ref}/nearest",status="200"} 2.0',
        'costbank_requests_total{method="GET",route="/v1/banks/{ref}",status="404"} 1.0',
        'costbank_requests_total{method="GET",route="none",status="404"} 2.0',
        'costbank_requests_total{method="HEAD",route="/livez",status="200"} 1.0',
        'costbank_request_seconds_count{route="/v1/banks/{ref}/nearest"} 2.0',
    ):
        assert line in text
    _wait_for(lambda: "costbank_resident_banks 1.0" in client.get("/metrics").text)


def test_metrics_show_waiting_searches(store: Path):
    settings = Settings(store=store, search_threads=1, refresh_ms=0)
    with TestClient(create_app(settings)) as client, _blocked(client) as free:
        threads = [threading.Thread(target=client.get, args=(BEYOND,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        _wait_for(lambda: "costbank_searches_waiting 2.0" in client.get("/metrics").text)
        assert "costbank_searches_running 1.0" in client.get("/metrics").text
        free.set()
        for thread in threads:
            thread.join()
        _wait_for(lambda: "costbank_searches_running 0.0" in client.get("/metrics").text)


def test_the_access_log_has_a_line_for_each_request(store: Path, caplog: pytest.LogCaptureFixture):
    with (
        caplog.at_level(logging.INFO, "costbank.access"),
        TestClient(create_app(Settings(store=store, access_log=True, api_key="s3cret"))) as client,
    ):
        client.get(WITHIN, headers={"Authorization": "Bearer s3cret", "X-Request-Id": "one"})
        client.get("/v1/banks", headers={"Authorization": "Bearer wrong-key", "X-Request-Id": "two"})
    records = [record for record in caplog.records if record.name == "costbank.access"]
    lines = [json.loads(JSONFormatter().format(record)) for record in records]
    assert [(line["request_id"], line["status"], line["route"]) for line in lines] == [
        ("one", 200, "/v1/banks/{ref}/nearest"), ("two", 401, None),
    ]  # fmt: skip
    assert all(line["ms"] > 0 and line["method"] == "GET" and line["time"] for line in lines)
    assert "s3cret" not in str(lines)
    assert "wrong-key" not in str(lines)


def test_a_log_line_is_json_whatever_it_contains():
    record = logging.makeLogRecord({"name": "x", "levelname": "ERROR", "msg": 'a "quote"\n\udcff %s', "args": ("b",)})
    try:
        raise ValueError("wrong")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = JSONFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == 'a "quote"\n\\udcff b'
    assert "ValueError: wrong" in json.loads(line)["exception"]


def test_other_origins_may_read_answers_only_if_they_are_listed(store: Path):
    page = {"Origin": "https://page.example"}
    with TestClient(create_app(Settings(store=store))) as client:
        assert "access-control-allow-origin" not in client.get("/livez", headers=page).headers
    settings = Settings(store=store, allowed_origins="https://page.example, https://b.example", api_key="s3cret")
    with TestClient(create_app(settings)) as client:
        assert client.get("/livez", headers=page).headers["access-control-allow-origin"] == "https://page.example"
        other = client.get("/livez", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        asking = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert client.options("/v1/banks/news/costs", headers=asking).status_code == 200, "without a key"


def test_a_problem_names_its_page_if_there_is_a_base(store: Path):
    with TestClient(create_app(Settings(store=store, problem_base="https://docs.example/errors"))) as client:
        assert client.get("/v1/banks/no").json()["type"] == "https://docs.example/errors/bank-not-found.html"


def test_the_page_of_the_service_loads_nothing_from_elsewhere(client: TestClient):
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in response.text
    assert "//" not in response.text.replace("http://127.0.0.1", "")
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in response.text


def _status(client: TestClient, key: str) -> int:
    return client.get("/v1/banks", headers={"Authorization": f"Bearer {key}"}).status_code


def test_keys_of_a_file_are_read_again_when_it_changes(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "keys"
    file.write_text("# of the team\nfirst-key\n\n  second-key  \n")
    settings = Settings(store=store, api_keys_file=file, api_key="own-key", refresh_ms=50)
    with TestClient(create_app(settings)) as client:
        assert [_status(client, key) for key in ("first-key", "second-key", "own-key", "# of the team", "x")] == [
            200, 200, 200, 401, 401,
        ]  # fmt: skip
        new = tmp_path / "new"
        new.write_text("third-key\n")
        new.replace(file)
        _wait_for(lambda: _status(client, "third-key") == 200)
        assert [_status(client, key) for key in ("first-key", "own-key")] == [401, 200]
        file.write_text("# nothing\n")
        _wait_for(lambda: "has no key" in caplog.text)
        assert _status(client, "third-key") == 200
        file.unlink()
        _wait_for(lambda: "cannot be read" in caplog.text)
        assert _status(client, "third-key") == 200
    assert "-key" not in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"# only a comment\n", b"good\nbad\x7fkey\n"])
def test_a_file_of_keys_that_cannot_be_used_is_an_error_at_the_start(store: Path, tmp_path: Path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as caught, serving(Settings(store=store, port=0, api_keys_file=file)):
        pass
    assert str(file) in str(caught.value)
    assert "bad" not in str(caught.value)
    with pytest.raises(UsageError):
        KeyRing(Settings(store=store, api_keys_file=file))
    with pytest.raises(UsageError):
        read_keys(file)
