"""Real answers match the schemas that the OpenAPI document declares for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

BANK, NEAREST = "/v1/banks/{ref}", "/v1/banks/{ref}/nearest"
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
]
"""Route, URL, status, and the state of the service when it gets the request."""

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
        max_k=100, search_threads=1, search_queue=0,
    )  # fmt: skip
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        if situation == "bug":
            client.app.state.banks = None
        if situation == "busy":
            assert client.app.state.searches._slots.acquire(blocking=False)
        yield client


@pytest.mark.parametrize(("route", "url", "status", "situation"), ANSWERS)
def test_an_answer_is_what_the_document_declares(store: Path, route: str, url: str, status: int, situation: str):
    with _service(store, situation) as client:
        document, response = client.get("/openapi.json").json(), client.get(url)
    assert response.status_code == status
    declared = document["paths"][route]["get"]["responses"]
    content = declared.get(str(status), declared["default"])["content"]
    kind = response.headers["content-type"]
    assert list(content) == [kind] == ["application/json" if status == 200 else "application/problem+json"]
    _check(response.json(), content[kind]["schema"], document)


@pytest.mark.parametrize(("path", "headers", "status", "situation"), FILE_ANSWERS)
def test_an_answer_with_a_file_is_what_the_document_declares(
    store: Path, path: str, headers: dict[str, str], status: int, situation: str
):
    with _service(store, situation) as client:
        document, response = client.get("/openapi.json").json(), client.get(f"/v1/banks/{path}", headers=headers)
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
    declared = {(route, int(status)) for route, operations in paths.items()
                for status in operations["get"]["responses"] if status != "default"}  # fmt: skip
    tested = {(route, status) for route, _, status, _ in ANSWERS} | {(FILE, status) for _, _, status, _ in FILE_ANSWERS}
    assert declared - tested == set()
    assert {tuple(operations) for operations in paths.values()} == {("get",)}


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
    for path, operations in document["paths"].items():
        responses = operations["get"]["responses"]
        assert "422" not in responses
        assert "default" in responses
        for status, response in responses.items():
            if status not in ("200", "206", "304"):
                assert response["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }, (path, status)
    problem = document["components"]["schemas"]["Problem"]
    assert {"title", "status", "detail", "code", "hint", "instance"} == set(problem["required"])
    assert "ValidationError" not in str(document)


def test_the_parameters_of_nearest_are_documented_once_each(client: TestClient):
    parameters = client.get("/openapi.json").json()["paths"]["/v1/banks/{ref}/nearest"]["get"]["parameters"]
    assert [(p["name"], p["in"], p["required"]) for p in parameters] == [
        ("ref", "path", True), ("token", "query", False), ("token_id", "query", False), ("k", "query", False),
    ]  # fmt: skip
    assert parameters[3]["schema"] == {"type": "integer", "title": "k", "minimum": 1, "default": 10}


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
