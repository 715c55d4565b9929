"""The OpenAPI document as one HTML page, without scripts and without anything from other hosts."""

from collections.abc import Iterator, Mapping
from html import escape
from json import dumps
from typing import Any

__all__ = ["html_page"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
color-scheme: light dark; }
table { border-collapse: collapse; margin: .5rem 0; } th, td { text-align: left; padding: .2rem .8rem .2rem 0;
vertical-align: top; border-bottom: 1px solid #8884; } code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .5rem; background: #8881; } h2 { margin-top: 2.5rem; border-bottom: 2px solid #8884; }
""".strip()

_Object = Mapping[str, Any]


def html_page(document: _Object) -> str:
    """Every route with its parameters, its body and its answers, then every schema."""
    info = document["info"]
    parts = [
        "<!doctype html>", '<html lang="en">', '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">', f"<title>{escape(info['title'])}</title>",
        f"<style>{_STYLE}</style>", f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{_text(info['description'])}</p>", '<p><a href="openapi.json">openapi.json</a></p>',
    ]  # fmt: skip
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += _schema(name, schema)
    return "\n".join(parts) + "\n"


def _operation(title: str, operation: _Object) -> Iterator[str]:
    yield f"<h2><code>{escape(title)}</code></h2>"
    yield f"<p>{_text(operation.get('description', ''))}</p>"
    rows = [
        (f"<code>{escape(one['name'])}</code>", _type(one["schema"]), "required" if one["required"] else "",
         _text(one.get("description", "")))
        for one in operation.get("parameters", ())
    ]  # fmt: skip
    if rows:
        yield _table(("parameter", "type", "", "meaning"), rows)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"<p>Body: {_type(content['schema'])}</p>"
        yield from (_example(example["value"]) for example in content.get("examples", {}).values())
    answers = []
    for status, answer in sorted(operation["responses"].items()):
        kinds = [f"{escape(kind)}: {_type(content['schema'])}" for kind, content in answer.get("content", {}).items()]
        answers.append((escape(status), _text(answer["description"]), "<br>".join(kinds)))
    yield _table(("status", "when", "body"), answers)
    for content in operation["responses"].get("200", {}).get("content", {}).values():
        if "example" in content:
            yield _example(content["example"])


def _schema(name: str, schema: _Object) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3>'
    if "description" in schema:
        yield f"<p>{_text(schema['description'])}</p>"
    rows = [
        (f"<code>{escape(key)}</code>", _type(field), _text(field.get("description", "")))
        for key, field in schema.get("properties", {}).items()
    ]
    yield _table(("key", "type", "meaning"), rows)


def _type(schema: _Object) -> str:
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if options and "properties" not in schema:
        return " or ".join(map(_type, options))
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or schema['prefixItems'][0])}"
    return escape(schema.get("type", "anything"))


def _example(value: Any) -> str:
    return f"<pre>{escape(dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(lines)}</table>"


def _text(text: str) -> str:
    """Escaped, with code between backticks."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
