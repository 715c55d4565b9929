"""The page of the HTTP service, from its OpenAPI document and its settings."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from costbank_service.app import create_app
from costbank_service.settings import Settings
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from costbank.bank import default_store
from costbank.config.descriptions import accepted_values, value_text
from costbank.machine import usable_cores
from docs.generators.tables import table

__all__ = ["openapi", "page"]

_ABOVE = """# HTTP service

The routes, settings and schemas of the service that [`costbank serve`](../howto/serve.md) runs. The service itself has
the same reference as a page at `/docs`, and as OpenAPI at `/openapi.json` ([the document](openapi.json)).

"""

_COMPUTED: Mapping[Callable[[], Any], str] = {
    default_store: "the platform's data directory",
    usable_cores: "number of cores",
}
"""Defaults that depend on the machine, as text."""

_Schema = Mapping[str, Any]


def _document() -> dict[str, Any]:
    """The OpenAPI document of a service with a key, so that 401 is in it."""
    return create_app(Settings(store=Path("store"), api_key=SecretStr("key"))).openapi()


def openapi() -> str:
    """The OpenAPI document."""
    return json.dumps(_document(), indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """Every route with its parameters and answers, the settings, and the schemas."""
    document = _document()
    routes = [
        _route(f"{method.upper()} {path}", route)
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return _ABOVE + "\n".join(
        (
            document["info"]["description"],
            "\n## Routes\n",
            *routes,
            "## Settings\n",
            _settings(),
            "## Schemas\n",
            *schemas,
        )
    )


def _route(title: str, route: _Schema) -> str:
    parts = [f"### {title}\n", f"{route['description']}\n"]
    parameters = [_parameter(parameter) for parameter in route.get("parameters", ())]
    if parameters:
        parts.append(table(("parameter", "in", "type", "default", "meaning"), parameters))
    if "requestBody" in route:
        body = route["requestBody"]["content"]["application/json"]
        parts.append(f"The body is a {_type(body['schema'])}, such as:\n")
        parts += [f"    {json.dumps(example['value'])}\n" for example in body["examples"].values()]
    answers = [(status, answer["description"], _body(answer)) for status, answer in sorted(route["responses"].items())]
    parts.append(table(("status", "when", "body"), answers))
    return "\n".join(parts)


def _parameter(parameter: _Schema) -> tuple[str, ...]:
    schema = parameter["schema"]
    default = "required" if parameter["required"] else _spoken(schema.get("default"))
    meaning = parameter.get("description", "the bank: `name`, or `name@idprefix`" if parameter["name"] == "ref" else "")
    return (f"`{parameter['name']}`", parameter["in"], _type(schema), default, meaning)


def _body(answer: _Schema) -> str:
    bodies = answer.get("content", {}).items()
    return ", ".join(
        _type(content["schema"]) if kind.endswith("json") else f"`{kind.partition(';')[0]}`" for kind, content in bodies
    )


def _schema(name: str, schema: _Schema) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"`{key}`",
            _type(field),
            "always present" if key in required else _spoken(field.get("default")),
            field.get("description", ""),
        )
        for key, field in schema.get("properties", {}).items()
    ]
    about = f"{schema['description']}\n\n" if "description" in schema else ""
    return f"### {name}\n\n{about}{table(('key', 'type', 'default', 'meaning'), rows)}"


def _type(schema: _Schema) -> str:
    return " or ".join(_types(schema)) or "anything"


def _types(schema: _Schema) -> Iterator[str]:
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _types(option)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield f"[{name}](#{name.lower()})"
    elif "enum" in schema:
        yield from map(value_text, schema["enum"])
    elif schema.get("type") == "array":
        yield f"list of {_type(schema.get('items') or schema['prefixItems'][0])}"
    elif schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        yield f"object of {_type(schema['additionalProperties'])}"
    elif "type" in schema:
        yield "bytes" if schema.get("format") == "binary" else schema["type"]


def _settings() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        rows.append((f"`COSTBANK_{name.upper()}`", _default_of(field), accepted_values(field), field.description or ""))
    return table(("variable", "default", "values", "meaning"), rows)


def _default_of(field: FieldInfo) -> str:
    computed: Any = field.default_factory
    return _COMPUTED[computed] if computed else _spoken(field.default)


def _spoken(value: Any) -> str:
    return "–" if value is None else f"`{value}`" if isinstance(value, str) else value_text(value)
