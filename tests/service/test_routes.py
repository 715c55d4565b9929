import shutil
from pathlib import Path

import pytest
from costbank_service import Settings, create_app
from costbank_service.dependencies import banks_of
from fastapi.testclient import TestClient

from costbank.bank import Bank
from tests.service.banks import write_bank

PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "hint", "instance", "request_id"}


def _problem(response, status: int, code: str) -> dict:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == PROBLEM_KEYS
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["detail"]
    return body


def test_the_service_is_alive_and_ready_and_names_the_damaged_bank(client: TestClient, news_bank: Bank):
    assert client.get("/livez").json() == {"status": "ok"}
    quarantined = [{"name": "broken", "id": news_bank.id, "problem": "A bank's file is damaged"}]
    assert client.get("/readyz").json() == {"status": "ok", "quarantined": quarantined}


def test_without_a_store_the_service_is_alive_but_not_ready(tmp_path: Path):
    with TestClient(create_app(Settings(store=tmp_path / "missing"))) as client:
        assert client.get("/livez").status_code == 200
        response = client.get("/readyz")
        assert "does not exist" in _problem(response, 503, "store-unavailable")["detail"]
        assert response.headers["retry-after"] == "1"
        assert client.get("/v1/banks").json() == []


def test_banks_are_listed_the_damaged_one_with_its_problem(client: TestClient, news_bank: Bank):
    broken, news = client.get("/v1/banks").json()
    assert broken == {"name": "broken", "id": news_bank.id, "latest": True, "problem": "A bank's file is damaged"}
    assert news == {
        "name": "news", "id": news_bank.id, "latest": True, "problem": None, "source": "word2vec", "vocab": 2_000,
        "dim": 24, "created": news_bank.manifest.created,
    }  # fmt: skip


def test_a_bank_says_what_it_is_but_not_where_it_was_built(client: TestClient, news_bank: Bank):
    for ref in ("news", f"news@{news_bank.id}", f"news@{news_bank.id[:5]}"):
        body = client.get(f"/v1/banks/{ref}").json()
        assert (body["name"], body["id"]) == ("news", news_bank.id)
        assert body["tokenizer"]["fingerprint"] == news_bank.manifest.tokenizer.fingerprint
        assert body["files"]["vectors.safetensors"]["sha256"]
        assert "run" not in body
        assert str(news_bank.path.parents[2]) not in client.get(f"/v1/banks/{ref}").text


@pytest.mark.parametrize("token", ["▁the", "the", "id:{id}", "hex:20746865", "Ġthe", " the"])
def test_nearest_is_what_the_library_says(client: TestClient, news_bank: Bank, token: str):
    token = token.format(id=news_bank.vocab.find("▁the"))
    token_id = news_bank.vocab.find(token)
    body = client.get("/v1/banks/news/nearest", params={"token": token, "k": 5}).json()
    assert (body["bank"], body["id"]) == ("news", news_bank.id)
    assert body["token"]["id"] == token_id
    assert body["token"]["count"] == int(news_bank.vocab.counts[token_id])
    assert body["neighbors"] == [vars(neighbor) for neighbor in news_bank.nearest(token_id, 5)]


def test_a_token_can_be_named_by_its_id_zero_included(client: TestClient, news_bank: Bank):
    the = news_bank.vocab.find("▁the")
    by_id = client.get("/v1/banks/news/nearest", params={"token_id": the}).json()
    assert by_id == client.get("/v1/banks/news/nearest", params={"token": "▁the"}).json()
    assert len(by_id["neighbors"]) == 10
    unknown = client.get("/v1/banks/news/nearest", params={"token_id": 0}).json()
    assert unknown["token"] == {"id": 0, "text": "<unk>", "status": "special", "count": 0, "other": None}
    assert unknown["neighbors"] == []


def test_the_other_token_that_a_text_may_mean_is_in_the_answer(tmp_path: Path):
    tokens = [b" king", b"king", b" queen", b" crown"]
    write_bank(tmp_path / "store" / "live", tokens, k=2)
    with TestClient(create_app(Settings(store=tmp_path / "store"))) as client:
        word = client.get("/v1/banks/live/nearest?token=king&k=1").json()["token"]
        piece = client.get("/v1/banks/live/nearest?token=piece:king&k=1").json()["token"]
    assert (word["text"], word["other"]["text"], word["other"]["id"]) == ("▁king", "king", 1)
    assert (piece["id"], piece["other"]) == (1, None)


def test_costs_are_printed_as_the_float32_that_they_are(client: TestClient):
    text = client.get("/v1/banks/news/nearest", params={"token": "▁the", "k": 50}).text
    costs = [part.split("}")[0] for part in text.split('"cost":')[1:]]
    assert len(costs) == 50
    assert max(map(len, costs)) <= 13


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("/v1/banks/missing", 404, "bank-not-found"),
        ("/v1/banks/news@ffffffff", 404, "bank-not-found"),
        ("/v1/banks/No%20Bank", 404, "bank-not-found"),
        ("/v1/banks/broken", 500, "corrupt-bank"),
        ("/v1/banks/news/nearest", 400, "usage"),
        ("/v1/banks/news/nearest?token=a&token_id=1", 400, "usage"),
        ("/v1/banks/news/nearest?token=", 400, "usage"),
        ("/v1/banks/news/nearest?token=zzyzzx", 404, "token-not-found"),
        ("/v1/banks/news/nearest?token_id=2000", 404, "token-not-found"),
        ("/v1/banks/news/nearest?token_id=-1", 404, "token-not-found"),
        ("/v1/banks/news/nearest?token_id=one", 400, "usage"),
        ("/v1/banks/news/nearest?token=id:99999999999999999999", 404, "token-not-found"),
        ("/v1/banks/news/nearest?token_id=5&k=0", 400, "usage"),
        ("/v1/banks/news/nearest?token_id=5&k=101", 400, "usage"),
        ("/v1/banks/news/nearest?token_id=5&k=x", 400, "usage"),
        ("/v1/nothing", 404, "not-found"),
        ("/web/nothing.js", 404, "not-found"),
    ],
)
def test_every_mistake_is_a_problem(client: TestClient, url: str, status: int, code: str):
    body = _problem(client.get(url), status, code)
    assert body["instance"] == url.split("?")[0]


@pytest.mark.parametrize(
    "ref",
    ["..", ".", "%2e%2e", "..%2f..%2fetc", "%2fetc", "news%2f..", "{path}", "news%2f{id}", "news%00", "-", "@", "%ff"],
)
def test_a_path_is_no_reference(client: TestClient, news_bank: Bank, ref: str):
    ref = ref.format(path=str(news_bank.path).replace("/", "%2f"), id=news_bank.id)
    for url in (f"/v1/banks/{ref}", f"/v1/banks/{ref}/nearest?token_id=5"):
        # The client itself drops "/.", so this requests the list, or a bank called "nearest".
        assert client.get(url).status_code in ((200, 400) if ref == "." else (404,))


def test_methods_are_get_and_head(client: TestClient):
    for url in ("/livez", "/readyz", "/v1/banks", "/v1/banks/news", "/v1/banks/news/nearest?token_id=300"):
        head = client.head(url)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == client.get(url).headers["content-length"]
        for method in ("PUT", "DELETE", "PATCH"):
            response = client.request(method, url)
            _problem(response, 405, "method-not-allowed")
            assert {"GET", "HEAD"} <= {name.strip() for name in response.headers["allow"].split(",")}


def test_a_bank_that_is_built_meanwhile_is_found(client: TestClient, store: Path, news_bank: Bank, news_config):
    import costbank

    assert client.get("/v1/banks/news").json()["id"] == news_bank.id
    newer = costbank.build(
        news_config.model_copy(update={"store": store, "word2vec": news_config.word2vec.model_copy(update={"seed": 9})})
    )
    assert client.get("/v1/banks/news").json()["id"] == newer.id != news_bank.id
    assert client.get(f"/v1/banks/news@{news_bank.id}").json()["id"] == news_bank.id
    shutil.rmtree(store / "broken")
    assert [bank["latest"] for bank in client.get("/v1/banks").json()].count(True) == 1


def test_a_bug_is_a_problem_without_its_details(client: TestClient, caplog):
    client.app.dependency_overrides[banks_of] = lambda: 1 / 0
    body = _problem(client.get("/v1/banks"), 500, "internal")
    assert "ZeroDivision" not in str(body)
    assert "ZeroDivisionError" in caplog.text


def test_the_documentation_describes_every_route(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    page = (Path(__file__).parents[2] / "docs" / "howto" / "serve.md").read_text("utf-8")
    for path, operations in paths.items():
        assert all(operation["description"] for operation in operations.values())
        assert path.removeprefix("/v1/banks/{ref}") in page
