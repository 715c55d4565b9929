"""Costs, vectors, maps, batches and comparisons are those of the library."""

import asyncio
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from costbank_service import Settings, create_app
from costbank_service.bank_cache import BankTooLargeError
from costbank_service.content import JSON, NPY, preferred
from costbank_service.label_targets import LabelTargets, TargetCache, longest_matches
from fastapi.testclient import TestClient

from costbank.bank import Bank, LoadedBank
from costbank.errors import UsageError
from costbank.loss import EMOLoss
from tests.service.banks import write_bank, write_mapped_bank

AS_ARRAY = {"Accept": NPY}


def _array(response) -> np.ndarray:
    assert response.headers["content-type"] == NPY
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def test_costs_are_those_of_the_library(client: TestClient, news_bank: Bank):
    rows, columns = [300, 0, 5], [5, 300]
    expected = news_bank.cost_matrix(rows, columns)
    url = f"/v1/banks/news/costs?rows={','.join(map(str, rows))}&cols=5,300"
    body = client.get(url).json()
    assert np.array_equal(np.float32(body["costs"]), expected)
    assert (body["rows"], body["cols"], body["costs"][2][0]) == (rows, columns, 0.0)
    assert np.array_equal(_array(client.get(url, headers=AS_ARRAY)), expected)
    posted = client.post("/v1/banks/news/costs", json={"rows": rows, "cols": columns})
    assert posted.json() == body
    posted = client.post("/v1/banks/news/costs", json={"rows": rows, "cols": columns}, headers=AS_ARRAY)
    assert np.array_equal(_array(posted), expected)


def test_costs_to_all_tokens_are_a_whole_row(client: TestClient, news_bank: Bank):
    everything = np.arange(news_bank.size)
    array = _array(client.get("/v1/banks/news/costs?rows=300,7", headers=AS_ARRAY))
    assert np.array_equal(array, news_bank.cost_matrix([300, 7], everything))
    assert client.get("/v1/banks/news/costs?rows=300").json()["cols"] == everything.tolist()
    assert client.get("/v1/banks/news/costs").json()["detail"] == "rows is missing"


def test_a_wide_cost_matrix_is_made_by_blocks_of_columns(news_bank: Bank, monkeypatch: pytest.MonkeyPatch):
    columns = np.random.default_rng(0).permutation(news_bank.size)
    whole = news_bank.cost_matrix([300, 7], columns)
    monkeypatch.setattr("costbank.bank.reader._BLOCK_BYTES", 8 * news_bank.dim * 100)
    by_blocks = news_bank.cost_matrix([300, 7], columns)
    assert np.abs(by_blocks - whole).max() <= 1.2e-7
    assert by_blocks[0, columns.tolist().index(300)] == 0.0


def test_examples_are_those_of_the_card(client: TestClient, news_bank: Bank):
    examples = client.get("/v1/banks/news/examples").json()["examples"]
    card = (news_bank.path / "README.md").read_text()
    assert len(examples) == 12
    for example in examples:
        nearest = news_bank.nearest(example["token"]["id"], 5)
        assert example["neighbors"] == [{"id": n.id, "text": n.text, "cost": n.cost} for n in nearest]
        assert f"| `{example['token']['text']}` | {' '.join(f'`{n.text}`' for n in nearest)} |" in card


def test_targets_are_those_of_the_loss(client: TestClient, news_bank: Bank):
    labels = [300, 0, 700]
    body = client.get("/v1/banks/news/targets?token_ids=300,0,700&k=99").json()
    logits = torch.randn(3, news_bank.size, dtype=torch.float64, requires_grad=True)
    EMOLoss(news_bank, reduction="sum")(logits, torch.tensor(labels)).backward()
    assert logits.grad is not None
    targets = (torch.softmax(logits, dim=1) - logits.grad).detach().numpy()  # ∂/∂z of −Σ q log p is p − q
    for label, expected, entry in zip(labels, targets, body["targets"], strict=True):
        assert entry["token"]["id"] == label
        assert entry["label_share"] == pytest.approx(expected[label], abs=1e-6)
        for other in entry["others"]:
            assert other["share"] == pytest.approx(expected[other["id"]], rel=1e-3)
            assert other["cost"] == news_bank.cost(other["id"], label)
        shares = [other["share"] for other in entry["others"]]
        assert shares == sorted(shares, reverse=True)
        assert entry["label_share"] + sum(shares) + entry["rest"] == pytest.approx(1)
        assert entry["softened"] == (expected[label] < 0.999)
    assert [entry["softened"] for entry in body["targets"]] == [True, False, True]
    q = np.clip(np.delete(targets[0], 300) / 0.1, 1e-300, None)
    assert body["targets"][0]["perplexity"] == pytest.approx(np.exp(-(q * np.log(q)).sum()), rel=1e-2)


def test_a_text_is_split_into_its_longest_tokens(tmp_path: Path):
    tokens = [b" new", b" news", b"s", b"p", b"paper", b" ", b"\xe2\x82", b"new"]
    write_bank(tmp_path / "words", tokens, k=3)
    with TestClient(create_app(Settings(store=tmp_path))) as client:

        def split(text: str) -> tuple[list[str], str]:
            body = client.get("/v1/banks/words/targets", params={"text": text}).json()
            assert body["split"] == "longest-match"
            return [entry["token"]["text"] for entry in body["targets"]], body["unmatched"]

        assert split("newspaper new") == (["▁news", "paper", "▁new"], "")
        assert split("new€s") == (["▁new", "\\xe2\\x82", "s"], "ac")
        assert split(" new")[0] == ["▁new"]


def test_vectors_are_those_of_the_library(client: TestClient, news_bank: Bank):
    expected = news_bank.vectors(np.array([300, 0, 300]))
    body = client.get("/v1/banks/news/vectors?ids=300,0,300").json()
    assert np.array_equal(np.float32(body["vectors"]), expected)
    array = _array(client.get("/v1/banks/news/vectors?ids=300,0,300", headers=AS_ARRAY))
    assert array.dtype == np.float32
    assert np.array_equal(array, expected)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON), ("*/*", JSON), ("application/*", JSON), (NPY, NPY), (NPY.upper(), NPY),
        (f"{JSON};q=0.5, {NPY}", NPY), (f"{JSON};q=0.5, {NPY};q=0.4", JSON), (f"*/*;q=0.1, {NPY};q=0.2", NPY),
        (f"*/*, {JSON};q=0", NPY), (f"{JSON};q=0, */*;q=0.1", NPY), (f"{NPY};q=0, application/*", JSON),
        ("text/html, */*;q=0.8", JSON), ("text/html", None), ("*/*;q=0", None), (f"{NPY};q=x", None), ("", JSON),
        (f"{NPY} ; q=1.0 , text/html", NPY), (f"{NPY};q=nan", None),
    ],
)  # fmt: skip
def test_the_accept_header_chooses(accept: str | None, kind: str | None):
    assert preferred(accept, (JSON, NPY)) == kind


def test_an_answer_varies_with_the_accept_header(client: TestClient):
    response = client.get("/v1/banks/news/vectors?ids=1", headers={"Accept": "text/html"})
    assert (response.status_code, response.json()["code"]) == (406, "not-acceptable")
    assert response.headers["vary"] == client.get("/v1/banks/news/vectors?ids=1").headers["vary"] == "Accept"
    assert client.get("/v1/banks/news/vectors?ids=1&k=2", headers={"Accept": "text/html"}).status_code == 406


def test_a_batch_is_what_single_requests_answer(client: TestClient, news_bank: Bank):
    for k in (3, 100):
        results = client.post("/v1/banks/news/nearest", json={"token_ids": [300, 0, 301], "k": k}).json()["results"]
        for token, result in zip((300, 0, 301), results, strict=True):
            single = client.get(f"/v1/banks/news/nearest?token_id={token}&k={k}").json()
            assert result["neighbors"] == single["neighbors"]
            assert (result["token"]["id"], result["exact"]) == (token, single["exact"])


def test_vectors_find_what_the_library_finds(client: TestClient, news_bank: Bank):
    vectors = np.random.default_rng(0).standard_normal((3, news_bank.dim), np.float32)
    results = client.post("/v1/banks/news/nearest", json={"vectors": vectors.tolist(), "k": 7}).json()["results"]
    expected = [[vars(neighbor) for neighbor in found] for found in news_bank.search(vectors, 7)]
    assert [result["neighbors"] for result in results] == expected
    assert all(result["exact"] and result["token"] is None for result in results)
    own = news_bank.vectors(np.array([300]))
    found = client.post("/v1/banks/news/nearest", json={"vectors": own.tolist(), "k": 1}).json()["results"][0]
    assert found["neighbors"][0]["id"] == 300


def test_without_an_index_all_rows_are_searched(tmp_path):
    bank = write_bank(tmp_path / "plain", [b" token%d" % i for i in range(50)], index=False)
    with TestClient(create_app(Settings(store=tmp_path))) as client:
        vectors = bank.vectors(np.array([7]))
        body = client.post("/v1/banks/plain/nearest", json={"vectors": vectors.tolist(), "k": 50}).json()
    assert [n["id"] for n in body["results"][0]["neighbors"]] == [7, *(n.id for n in bank.nearest(7, 49))]


@pytest.mark.parametrize(
    ("route", "body", "status", "words"),
    [
        ("nearest", {"token_ids": [1], "vectors": [[1.0]]}, 422, "give either token_ids or vectors"),
        ("nearest", {}, 422, "give either token_ids or vectors"),
        ("nearest", {"token_ids": []}, 422, "token_ids"),
        ("nearest", {"token_ids": ["1"]}, 422, "token_ids.0"),
        ("nearest", {"token_ids": [1.5]}, 422, "token_ids.0"),
        ("nearest", {"token_ids": [True]}, 422, "token_ids.0"),
        ("nearest", {"token_ids": [-1]}, 422, "token_ids.0"),
        ("nearest", {"token_ids": [1], "q": 1}, 422, "q"),
        ("nearest", [1], 422, ""),
        ("nearest", {"token_ids": [1], "k": 101}, 400, "k is 101"),
        ("nearest", {"token_ids": [5] * 1_001}, 400, "1,001 tokens or vectors"),
        ("nearest", {"token_ids": [5] * 101, "k": 100}, 400, "101 × 100 neighbors"),
        ("nearest", {"token_ids": [5], "k": 2_000}, 400, "k is 2000"),
        ("nearest", {"vectors": [[1.0]]}, 400, "a vector has 1 elements, but this bank has dim 24"),
        ("nearest", {"vectors": [[]]}, 400, "a vector has 0 elements"),
        ("nearest", {"vectors": [[1e300] * 24]}, 400, "beyond the range of float32"),
        ("costs", {"rows": [1], "cols": []}, 422, "cols"),
        ("costs", {"rows": [1]}, 422, "cols"),
        ("costs", {"rows": [1] * 101, "cols": [1] * 100}, 400, "101 × 100 numbers"),
        ("costs", {"rows": [1] * 1_001, "cols": [1]}, 400, "rows has 1,001 ids"),
        ("costs", {"rows": [2_000], "cols": [1]}, 404, "outside the vocabulary"),
    ],
)  # fmt: skip
def test_mistakes_in_a_body_are_errors(store, route: str, body: object, status: int, words: str):
    with TestClient(create_app(Settings(store=store, max_k=100, max_cells=10_000))) as client:
        response = client.post(f"/v1/banks/news/{route}", json=body)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]
    assert response.json()["hint"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"rows": [1', b"nonsense"])
def test_a_body_that_is_not_json_is_an_error(client: TestClient, body: bytes):
    response = client.post("/v1/banks/news/costs", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "usage")
    assert "not JSON" in response.json()["detail"]


def test_a_map_has_a_place_for_each_token_or_null(tmp_path):
    write_mapped_bank(tmp_path / "mapped", 6)
    with TestClient(create_app(Settings(store=tmp_path))) as client:
        places = client.get("/v1/banks/mapped/map").json()["xy"]
        assert places == [[0.0, 0.25], [0.5, 0.75], [1.0, 1.25], [1.5, 1.75], [2.0, 2.25], None]
        array = _array(client.get("/v1/banks/mapped/map", headers=AS_ARRAY))
        assert array.shape == (6, 2)
        assert np.isnan(array[-1]).all()


def test_a_bank_without_a_map_says_so(client: TestClient):
    assert client.get("/v1/banks/news/map").json()["code"] == "no-map"


def test_banks_are_compared_by_ids_or_by_bytes(tmp_path):
    tokens = [b" token%d" % i for i in range(40)]
    one = write_bank(tmp_path / "one", tokens, k=8)
    write_bank(tmp_path / "two", tokens, k=8, seed=1)
    write_bank(tmp_path / "moved", [b"new", *tokens], k=8)  # other ids, other rows
    with TestClient(create_app(Settings(store=tmp_path))) as client:
        same = client.get("/v1/compare?a=one&b=one&token_id=5&k=8").json()
        assert (same["overlap"], same["rank_biased_overlap"], same["same_tokenizer"]) == (1.0, pytest.approx(1.0), True)
        assert [n["id"] for n in same["a"]["neighbors"]] == [n.id for n in one.nearest(5, 8)]
        other = client.get("/v1/compare?a=one&b=two&token=token5&k=8").json()
        ids = [{n["id"] for n in other[side]["neighbors"]} for side in "ab"]
        assert other["overlap"] == len(ids[0] & ids[1]) / 8
        moved = client.get("/v1/compare?a=one&b=moved&token_id=5&k=8").json()
        assert (moved["same_tokenizer"], moved["a"]["token"]["id"], moved["b"]["token"]["id"]) == (False, 5, 6)
        texts = [{n["text"] for n in moved[side]["neighbors"]} for side in "ab"]
        assert moved["overlap"] == len(texts[0] & texts[1]) / 8
        response = client.get("/v1/compare?a=moved&b=one&token_id=0")
        assert (response.status_code, response.json()["code"]) == (404, "token-not-found")
        assert "one has no token with the bytes of new" in json.dumps(response.json())


def test_a_text_without_tokens_is_refused_soon(tmp_path: Path):
    bank = write_bank(tmp_path / "words", [b" new", b"x" * 128, b" old"], k=1)
    loaded = LoadedBank(bank.path)
    looked_up = []
    loaded.vocab.ids_of = lambda token: looked_up.append(token) or []  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="more than 32 bytes of the text are in no token"):
        longest_matches(loaded, "z" * 60_000, 64)
    assert len(looked_up) <= 2 * 33 * 128


def test_targets_are_made_once_per_bank_and_again_after_an_error(news_bank: Bank):
    bank, made = LoadedBank(news_bank.path), []

    def make(asked: LoadedBank) -> LabelTargets:
        made.append(asked.id)
        if len(made) == 1:
            raise UsageError("the first time fails", "ask again")
        return LabelTargets.of(asked)

    async def ask() -> None:
        cache = TargetCache(1 << 30, make)
        with pytest.raises(UsageError, match="the first time"):
            await cache.of(bank)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await cache.of(bank)
        first, second = await asyncio.gather(cache.of(bank), cache.of(bank))
        assert first is second
        assert len(made) == 2  # the request that ended left the work to the next ones
        with pytest.raises(BankTooLargeError, match="may use 0 MB"):
            await TargetCache(1000, make).of(bank)
        cache.close()

    asyncio.run(ask())
