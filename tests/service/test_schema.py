"""Real answers match the schemas that the OpenAPI document declares for them."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from pydantic import SecretStr

from tests.service.banks import write_mapped_bank

ROOT = Path(__file__).parents[2]

BANK, NEAREST = "/v1/banks/{ref}", "/v1/banks/{ref}/nearest"
TOKENS, TOKEN, COSTS = f"{BANK}/tokens", f"{BANK}/tokens/{{token_id}}", f"{BANK}/costs"
VECTORS, MAP, COMPARE = f"{BANK}/vectors", f"{BANK}/map", "/v1/compare"
EXAMPLES, TARGETS = f"{BANK}/examples", f"{BANK}/targets"
NEWS = "/v1/banks/news"
FILE = "/v1/banks/{ref}/files/{file}"
ANSWERS = [
    ("/livez", "/livez", 200, ""),
    ("/readyz", "/readyz", 200, ""),
    ("/readyz", "/readyz", 503, "no store"),
    ("/v1/banks", "/v1/banks", 200, ""),
    ("/v1/banks", "/v1/banks", 200, "no store"),
    ("/v1/banks", "/v1/banks?page=2", 400, ""),
    ("/v1/banks", "/v1/banks", 401, "key"),
    ("/v1/banks", "/v1/banks", 500, "bug"),
    (BANK, "/v1/banks/news", 200, ""),
    (BANK, "/v1/banks/news?page=2", 400, ""),
    (BANK, "/v1/banks/news", 401, "key"),
    (BANK, "/v1/banks/nothing", 404, ""),
    (BANK, "/v1/banks/news@ffffffff", 404, ""),
    (BANK, "/v1/banks/broken", 500, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=300", 200, ""),
    (NEAREST, "/v1/banks/news/nearest?token=the&k=3", 200, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=0", 200, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=300&k=90", 200, ""),
    (NEAREST, "/v1/banks/news/nearest", 400, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=x", 400, ""),
    (NEAREST, "/v1/banks/news/nearest?token=%zz", 400, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=300&k=101", 400, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=300", 401, "key"),
    (NEAREST, "/v1/banks/news/nearest?token=zzyzzx", 404, ""),
    (NEAREST, "/v1/banks/news/nearest?token=%ff%0a", 404, ""),
    (NEAREST, "/v1/banks/nothing/nearest?token=the", 404, ""),
    (NEAREST, "/v1/banks/broken/nearest?token=the", 500, ""),
    (NEAREST, "/v1/banks/news/nearest?token_id=300&k=90", 503, "busy"),
    ("/metrics", "/metrics", 200, ""),
    (TOKENS, f"{NEWS}/tokens", 200, ""),
    (TOKENS, f"{NEWS}/tokens?q=+th&limit=2", 200, ""),
    (TOKENS, f"{NEWS}/tokens?q=%ff", 200, ""),
    (TOKENS, f"{NEWS}/tokens?match=suffix", 400, ""),
    (TOKENS, f"{NEWS}/tokens?q=a&cursor=x", 400, ""),
    (TOKENS, f"{NEWS}/tokens", 401, "key"),
    (TOKENS, "/v1/banks/nothing/tokens", 404, ""),
    (TOKENS, "/v1/banks/broken/tokens", 500, ""),
    (TOKEN, f"{NEWS}/tokens/300", 200, ""),
    (TOKEN, f"{NEWS}/tokens/0", 200, ""),
    (TOKEN, f"{NEWS}/tokens/x", 400, ""),
    (TOKEN, f"{NEWS}/tokens/1", 401, "key"),
    (TOKEN, f"{NEWS}/tokens/2000", 404, ""),
    (TOKEN, "/v1/banks/broken/tokens/1", 500, ""),
    (COSTS, f"{NEWS}/costs?rows=300,301&cols=300", 200, ""),
    (COSTS, f"{NEWS}/costs?rows=300", 200, ""),
    (COSTS, f"{NEWS}/costs?cols=300", 400, ""),
    (COSTS, f"{NEWS}/costs?rows=300&cols=1", 401, "key"),
    (COSTS, f"{NEWS}/costs?rows=300&cols=2000", 404, ""),
    (COSTS, f"{NEWS}/costs?rows=300&cols=1", 406, "html"),
    (COSTS, "/v1/banks/broken/costs?rows=300&cols=1", 500, ""),
    (COSTS, f"{NEWS}/costs?rows=300&cols=1", 503, "busy"),
    (VECTORS, f"{NEWS}/vectors?ids=300,0", 200, ""),
    (VECTORS, f"{NEWS}/vectors?ids=a", 400, ""),
    (VECTORS, f"{NEWS}/vectors?ids=1", 401, "key"),
    (VECTORS, f"{NEWS}/vectors?ids=2000", 404, ""),
    (VECTORS, f"{NEWS}/vectors?ids=1", 406, "html"),
    (VECTORS, "/v1/banks/broken/vectors?ids=1", 500, ""),
    (VECTORS, f"{NEWS}/vectors?ids=1", 503, "busy"),
    (MAP, "/v1/banks/mapped/map", 200, "map"),
    (MAP, "/v1/banks/mapped/map?x=1", 400, "map"),
    (MAP, f"{NEWS}/map", 401, "key"),
    (MAP, f"{NEWS}/map", 404, ""),
    (MAP, "/v1/banks/mapped/map", 406, "html map"),
    (MAP, "/v1/banks/broken/map", 500, ""),
    (MAP, "/v1/banks/mapped/map", 503, "busy map"),
    (EXAMPLES, f"{NEWS}/examples", 200, ""),
    (EXAMPLES, f"{NEWS}/examples?k=1", 400, ""),
    (EXAMPLES, f"{NEWS}/examples", 401, "key"),
    (EXAMPLES, "/v1/banks/nothing/examples", 404, ""),
    (EXAMPLES, "/v1/banks/broken/examples", 500, ""),
    (TARGETS, f"{NEWS}/targets?token_ids=300,0&k=3", 200, ""),
    (TARGETS, f"{NEWS}/targets?text=the+fire%ff", 200, ""),
    (TARGETS, f"{NEWS}/targets", 400, ""),
    (TARGETS, f"{NEWS}/targets?text={'a+' * 70}", 400, ""),
    (TARGETS, f"{NEWS}/targets?token_ids={','.join(map(str, range(65)))}", 400, ""),
    (TARGETS, f"{NEWS}/targets?token_ids=1", 401, "key"),
    (TARGETS, f"{NEWS}/targets?token_ids=2000", 404, ""),
    (TARGETS, "/v1/banks/broken/targets?token_ids=1", 500, ""),
    (TARGETS, f"{NEWS}/targets?token_ids=300", 501, "no torch"),
    (TARGETS, f"{NEWS}/targets?token_ids=300", 503, "busy"),
    (COMPARE, "/v1/compare?a=news&b=news&token_id=300", 200, ""),
    (COMPARE, "/v1/compare?a=news&b=news", 400, ""),
    (COMPARE, "/v1/compare?a=news&b=news&token_id=300", 401, "key"),
    (COMPARE, "/v1/compare?a=news&b=nothing&token_id=300", 404, ""),
    (COMPARE, "/v1/compare?a=news&b=broken&token_id=300", 500, ""),
    (COMPARE, "/v1/compare?a=news&b=news&token_id=300&k=90", 503, "busy"),
]
"""Route, URL, status, and the state of the service when it gets the request."""

POSTS = [
    (NEAREST, "news", {"token_ids": [300, 0], "k": 3}, 200, ""),
    (NEAREST, "news", {"token_ids": [300], "k": 90}, 200, ""),
    (NEAREST, "news", {"vectors": [[0.5] * 24]}, 200, ""),
    (NEAREST, "news", {"vectors": [[0.5] * 23]}, 400, ""),
    (NEAREST, "news", b"{", 400, ""),
    (NEAREST, "news", {"token_ids": [1]}, 401, "key"),
    (NEAREST, "news", {"token_ids": [2000]}, 404, ""),
    (NEAREST, "news", b" " * 3_000, 413, "small"),
    (NEAREST, "news", None, 415, ""),
    (NEAREST, "news", {"token_ids": [1], "vectors": [[0.5]]}, 422, ""),
    (NEAREST, "broken", {"token_ids": [1]}, 500, ""),
    (NEAREST, "news", {"vectors": [[0.5] * 24]}, 503, "busy"),
    (COSTS, "news", {"rows": [300], "cols": [300, 0]}, 200, ""),
    (COSTS, "news", {"rows": [300] * 101, "cols": [1]}, 400, ""),
    (COSTS, "news", {"rows": [1], "cols": [1]}, 401, "key"),
    (COSTS, "news", {"rows": [1], "cols": [2000]}, 404, ""),
    (COSTS, "news", {"rows": [1], "cols": [2]}, 406, "html"),
    (COSTS, "news", b" " * 3_000, 413, "small"),
    (COSTS, "news", None, 415, ""),
    (COSTS, "news", {"rows": [True], "cols": [1]}, 422, ""),
    (COSTS, "broken", {"rows": [1], "cols": [1]}, 500, ""),
    (COSTS, "news", {"rows": [1], "cols": [1]}, 503, "busy"),
]
"""Route, bank, body (raw bytes, or none at all), status, and the state of the service."""
FILE_ANSWERS = [
    ("news/files/manifest.json", {}, 200, ""),
    ("news/files/README.md", {}, 200, ""),
    ("news/files/vectors.safetensors", {}, 200, ""),
    ("news/files/vectors.safetensors", {"Range": "bytes=5-9"}, 206, ""),
    ("news/files/vectors.safetensors", {"If-None-Match": "*"}, 304, ""),
    ("news/files/vectors.safetensors?part=1", {}, 400, ""),
    ("news/files/vectors.safetensors", {}, 401, "key"),
    ("news/files/secrets", {}, 404, ""),
    ("broken/files/index.faiss", {}, 500, ""),
]
"""Path after `/v1/banks`, headers, status and state, for the route of files, whose answers are not JSON."""


@contextmanager
def _service(store: Path, situation: str) -> Iterator[TestClient]:
    settings = Settings(
        store=store / "missing" if situation == "no store" else store,
        api_key="s3cret" if situation == "key" else None,
        max_k=100, max_ids=100, max_body_kb=2 if situation == "small" else 8_192, search_threads=1, search_queue=0,
        refresh_ms=0,
    )  # fmt: skip
    if "map" in situation:
        write_mapped_bank(store / "mapped")
    hidden = {"torch": None} if situation == "no torch" else {}
    with patch.dict(sys.modules, hidden), TestClient(create_app(settings), raise_server_exceptions=False) as client:
        if situation == "bug":
            client.app.state.banks = None
        if "html" in situation:
            client.headers["Accept"] = "text/html"
        if "busy" in situation:
            assert client.app.state.searches._slots.acquire(blocking=False)
        yield client


_DOCUMENTS: dict[str, dict] = {}


def _document(client: TestClient, situation: str) -> dict:
    """The OpenAPI document, which depends on the settings alone, so it is made once."""
    if situation not in _DOCUMENTS:
        _DOCUMENTS[situation] = client.get("/openapi.json").json()
    return _DOCUMENTS[situation]


@pytest.mark.parametrize(("route", "url", "status", "situation"), ANSWERS)
def test_an_answer_is_what_the_document_declares(store: Path, route: str, url: str, status: int, situation: str):
    with _service(store, situation) as client:
        document, response = _document(client, situation), client.get(url)
    _check_answer(document, document["paths"][route]["get"], response, status)


@pytest.mark.parametrize(("route", "bank", "body", "status", "situation"), POSTS)
def test_an_answer_to_a_body_is_what_the_document_declares(
    store: Path, route: str, bank: str, body: object, status: int, situation: str
):
    sent = {"content": body, "headers": {"Content-Type": "application/json"}} if isinstance(body, bytes) else {}
    with _service(store, situation) as client:
        document = _document(client, situation)
        response = client.post(route.replace("{ref}", bank), **(sent or ({"json": body} if body else {})))
    _check_answer(document, document["paths"][route]["post"], response, status)


def _check_answer(document: dict, operation: dict, response, status: int) -> None:
    assert response.status_code == status, response.text
    declared = operation["responses"]
    content = declared.get(str(status), declared["default"])["content"]
    kind = response.headers["content-type"]
    assert kind in content
    assert response.headers["x-request-id"]
    if kind.startswith("text/plain"):
        return
    assert kind == ("application/json" if status == 200 else "application/problem+json")
    _check(response.json(), content[kind]["schema"], document)


@pytest.mark.parametrize(("path", "headers", "status", "situation"), FILE_ANSWERS)
def test_an_answer_with_a_file_is_what_the_document_declares(
    store: Path, path: str, headers: dict[str, str], status: int, situation: str
):
    with _service(store, situation) as client:
        document, response = _document(client, situation), client.get(f"/v1/banks/{path}", headers=headers)
    assert response.status_code == status
    content = document["paths"][FILE]["get"]["responses"][str(status)].get("content", {})
    if status == 304:
        assert (response.content, content) == (b"", {})
        return
    assert response.headers["content-type"] in content
    if status >= 400:
        _check(response.json(), content["application/problem+json"]["schema"], document)


def test_every_route_and_every_status_that_is_declared_is_asked_for(store: Path):
    with _service(store, "key") as client:
        paths = client.get("/openapi.json").json()["paths"]
    declared = {(method, route, int(status)) for route, operations in paths.items()
                for method, operation in operations.items()
                for status in operation["responses"] if status != "default"}  # fmt: skip
    tested = {("get", route, status) for route, _, status, _ in ANSWERS}
    tested |= {("post", route, status) for route, _, _, status, _ in POSTS}
    tested |= {("get", FILE, status) for _, _, status, _ in FILE_ANSWERS}
    assert declared - tested == set()
    assert {method for operations in paths.values() for method in operations} == {"get", "post"}


def _examples(document: dict) -> Iterator[tuple[str, dict, object]]:
    """The schema and the value of every example in the document."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = f"{method} {path}"
            for parameter in operation.get("parameters", ()):
                if "example" in parameter:
                    yield name, parameter["schema"], parameter["example"]
            for holder in (operation.get("requestBody", {}), *operation["responses"].values()):
                for content in holder.get("content", {}).values():
                    values = [content["example"]] if "example" in content else []
                    values += [example["value"] for example in content.get("examples", {}).values()]
                    yield from ((name, content["schema"], value) for value in values)


def test_every_example_fits_its_schema(client: TestClient):
    document = client.get("/openapi.json").json()
    examples = list(_examples(document))
    for name, schema, value in examples:
        try:
            _check(value, schema, document)
        except AssertionError as error:
            raise AssertionError(f"{name}: {value}") from error
    named = {name for name, schema, _ in examples if "$ref" in schema}
    routes = {f"{method} {path}" for path, operations in document["paths"].items() for method in operations}
    with_examples = {name for name in routes if name.startswith(("get /v1/banks/{ref}/", "post ", "get /v1/compare"))}
    assert with_examples - {f"get {FILE}"} <= named


def test_the_committed_document_is_that_of_the_service():
    document = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text("utf-8"))
    assert document == create_app(Settings(store=Path("store"), api_key=SecretStr("key"))).openapi()


def test_the_check_can_fail(client: TestClient):
    document = client.get("/openapi.json").json()
    schema = document["paths"]["/v1/banks/{ref}/nearest"]["get"]["responses"]["200"]["content"]["application/json"][
        "schema"
    ]
    body = client.get("/v1/banks/news/nearest?token_id=300").json()
    _check(body, schema, document)
    for spoiled in ({**body, "new": 1}, {**body, "token": {}}, {**body, "neighbors": [{"id": "5"}]}):
        with pytest.raises(AssertionError):
            _check(spoiled, schema, document)


@pytest.mark.parametrize("key", [None, "s3cret"])
def test_every_error_is_documented_as_a_problem(store: Path, key: str | None):
    with TestClient(create_app(Settings(store=store, api_key=key))) as client:
        document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
    for path, operation in operations:
        responses = operation["responses"]
        assert "default" in responses
        for status, response in responses.items():
            if status not in ("200", "206", "304"):
                assert response["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }, (path, status)
    problem = document["components"]["schemas"]["Problem"]
    assert {"title", "status", "detail", "code", "hint", "instance", "request_id"} == set(problem["required"])
    assert "ValidationError" not in str(document)


def test_the_parameters_of_nearest_are_documented_once_each(client: TestClient):
    parameters = client.get("/openapi.json").json()["paths"]["/v1/banks/{ref}/nearest"]["get"]["parameters"]
    assert [(p["name"], p["in"], p["required"]) for p in parameters] == [
        ("ref", "path", True), ("token", "query", False), ("token_id", "query", False), ("k", "query", False),
    ]  # fmt: skip
    assert parameters[3]["schema"] == {
        "type": "integer", "title": "k", "minimum": 1, "maximum": 10**18 - 1, "default": 10,
    }  # fmt: skip


def _check(body, schema: dict, document: dict) -> None:
    """The body fits the schema, and all its keys are in the schema."""
    closed = _closed({**schema, "components": document["components"]})
    errors = [error.message for error in Draft202012Validator(closed).iter_errors(body)]
    assert not errors, errors


def _closed(node):
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed
