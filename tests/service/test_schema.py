"""Real answers against the schemas that the OpenAPI document declares for them."""

from pathlib import Path

import pytest
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

ANSWERS = [
    ("/livez", "/livez"),
    ("/readyz", "/readyz"),
    ("/v1/banks", "/v1/banks"),
    ("/v1/banks/{ref}", "/v1/banks/news"),
    ("/v1/banks/{ref}", "/v1/banks/nothing"),
    ("/v1/banks/{ref}", "/v1/banks/broken"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest?token_id=300"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest?token=the&k=3"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest?token_id=0"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest?token_id=300&k=90"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest?token=zzyzzx"),
    ("/v1/banks/{ref}/nearest", "/v1/banks/news/nearest?token_id=x"),
]


@pytest.mark.parametrize(("route", "url"), ANSWERS)
def test_an_answer_is_what_the_document_declares(client: TestClient, route: str, url: str):
    document = client.get("/openapi.json").json()
    response = client.get(url)
    declared = document["paths"][route]["get"]["responses"]
    content = declared.get(str(response.status_code), declared["default"])["content"]
    kind = response.headers["content-type"]
    assert list(content) == [kind]
    _check(response.json(), content[kind]["schema"], document)


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
            if status != "200":
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
    """The body fits the schema, and has no key that the schema does not name."""
    closed = _closed({**schema, "components": document["components"]})
    errors = [error.message for error in Draft202012Validator(closed).iter_errors(body)]
    assert not errors, errors


def _closed(node):
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        made["additionalProperties"] = False
    return made
