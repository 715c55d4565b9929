"""The search of tokens by their bytes, and its pages."""

from collections.abc import Iterator

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient

from costbank.bank import Bank


@pytest.fixture
def bytes_client(byte_bank: Bank) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(store=byte_bank.path.parents[1], max_ids=50))) as client:
        yield client


@pytest.mark.parametrize("match", ["prefix", "contains"])
@pytest.mark.parametrize("q", [b"the", b" the", b" ", b"e", b"THE", b"zzyzzx", "é".encode()])
def test_a_search_is_a_loop_over_all_tokens(client: TestClient, news_bank: Bank, q: bytes, match: str):
    tokens = [news_bank.vocab.token(i) for i in range(news_bank.size)]
    expected = [i for i, t in enumerate(tokens) if (t.startswith(q) if match == "prefix" else q in t)]
    body = client.get("/v1/banks/news/tokens", params={"q": q.decode(), "match": match, "limit": 1_000}).json()
    assert [entry["id"] for entry in body["tokens"]] == expected[:1_000]
    assert body["total"] == len(expected)
    for entry in body["tokens"][:20]:
        assert bytes.fromhex(entry["bytes"]) == tokens[entry["id"]]
        facts = news_bank.vocab.facts_of(entry["id"])
        assert (entry["text"], entry["status"], entry["count"]) == (facts.text, facts.status, facts.count)


def test_pages_are_the_whole_without_gaps_or_repetitions(client: TestClient):
    whole = client.get("/v1/banks/news/tokens?q=+a&limit=1000").json()
    assert whole["next"] is None
    ids, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/v1/banks/news/tokens?q=+a&limit=7{f'&cursor={cursor}' if cursor else ''}").json()
        assert page["total"] == whole["total"]
        ids += [entry["id"] for entry in page["tokens"]]
        cursor = page["next"]
    assert ids == [entry["id"] for entry in whole["tokens"]]


def test_a_cursor_fits_only_its_query_and_its_bank(client: TestClient, bytes_client: TestClient):
    cursor = client.get("/v1/banks/news/tokens?q=+a&limit=2").json()["next"]
    assert client.get(f"/v1/banks/news/tokens?q=+a&limit=5&cursor={cursor}").status_code == 200
    other = bytes_client.get("/v1/banks/bytes/tokens?q=+a&limit=2")
    assert other.status_code == 200
    wrong = [
        (client, f"news/tokens?q=+b&cursor={cursor}"), (client, f"news/tokens?q=+a&match=contains&cursor={cursor}"),
        (client, f"news/tokens?cursor={cursor}"), (client, f"news/tokens?q=+a&cursor={cursor[:-2]}"),
        (client, f"news/tokens?q=+a&cursor=B{cursor[1:]}A"), (client, "news/tokens?q=+a&cursor=%ff"),
        (client, f"news/tokens?q=+a&cursor={cursor}%0A"), (bytes_client, f"bytes/tokens?q=+a&cursor={cursor}"),
    ]  # fmt: skip
    for asked, url in wrong:
        response = asked.get(f"/v1/banks/{url}")
        assert (response.status_code, response.json()["code"]) == (400, "usage"), url
        assert "the cursor is not one of this query" in response.json()["detail"]


def test_bytes_that_are_not_utf_8_are_searched(bytes_client: TestClient):
    found = bytes_client.get("/v1/banks/bytes/tokens?q=%e4&match=contains").json()["tokens"]
    assert [entry["bytes"] for entry in found] == ["e4", "e4bd"]
    assert bytes_client.get("/v1/banks/bytes/tokens?q=king&match=contains").json()["total"] == 3
    assert bytes_client.get("/v1/banks/bytes/tokens?q=king").json()["total"] == 2


@pytest.mark.parametrize("limit", ["0", "51", "-1", "x"])
def test_a_limit_is_within_the_service_s(bytes_client: TestClient, limit: str):
    response = bytes_client.get(f"/v1/banks/bytes/tokens?limit={limit}")
    assert (response.status_code, response.json()["code"]) == (400, "usage")


def test_a_default_page_fits_a_small_limit(bytes_client: TestClient):
    assert len(bytes_client.get("/v1/banks/bytes/tokens").json()["tokens"]) == 50


def test_a_token_is_described(client: TestClient, news_bank: Bank):
    the = news_bank.vocab.find("▁the")
    body = client.get(f"/v1/banks/news/tokens/{the}").json()
    count = int(news_bank.vocab.counts[the])
    assert body["token"] == {
        "id": the, "text": "▁the", "status": "ok", "count": count, "bytes": "20746865", "has_vector": True,
    }  # fmt: skip
    assert not client.get("/v1/banks/news/tokens/0").json()["token"]["has_vector"]
