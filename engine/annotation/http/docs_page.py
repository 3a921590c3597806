"""The API's documentation as one plain page: no scripts, nothing from elsewhere.

    html = docs_page(app.openapi())

The usual viewers come from a CDN or bring megabytes of JavaScript along, and the page's security
policy allows neither. Whoever wants one gives it ``/api/openapi.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["docs_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color-scheme: light dark }
code, .type { font-family: ui-monospace, monospace; font-size: .92em }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886 }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700 }
details { margin: .4rem 0 } summary { cursor: pointer } table { border-collapse: collapse }
td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
"""
_Schema = Mapping[str, Any]


def docs_page(document: _Schema) -> str:
    """Return an OpenAPI document as HTML."""
    title = escape(document["info"]["title"])
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
            f"<p>{escape(document['info'].get('description', ''))}</p>",
            '<p>For machines: <a href="/api/openapi.json">openapi.json</a></p>',
            *_operations(document["paths"]),
            "<h2>Values</h2>",
            *_schemas(document.get("components", {}).get("schemas", {})),
            "</body></html>",
        ]
    )


def _operations(paths: _Schema) -> Iterator[str]:
    by_tag: dict[str, list[tuple[str, str, _Schema]]] = {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).append((method.upper(), path, operation))
    for tag, entries in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>"
        for method, path, operation in entries:
            yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: _Schema) -> Iterator[str]:
    yield (
        f'<details><summary><span class="method">{method}</span><code>{escape(path)}</code> '
        f"{escape(operation.get('summary', ''))}</summary>"
    )
    for paragraph in operation.get("description", "").split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    for parameter in operation.get("parameters", ()):
        need = "" if parameter.get("required") else ", optional"
        yield (
            f"<div><code>{escape(parameter['name'])}</code> in {escape(parameter['in'])}{need}: "
            f"{_type(parameter['schema'])}</div>"
        )
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<div>body, {escape(media_type)}: {_type(body.get('schema', {}))}</div>"
    for status, response in operation["responses"].items():
        contents = response.get("content", {}).items()
        said = ", ".join(
            f"{escape(kind)} {_type(body.get('schema', {}))}" for kind, body in contents
        )
        yield f"<div>{escape(status)}: {escape(response['description'])} {said}</div>"
    yield "</details>"


def _schemas(schemas: _Schema) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>'
        yield f"<p>{escape(schema.get('description', ''))}</p><table>"
        required = schema.get("required", ())
        for field, inner in schema.get("properties", {}).items():
            need = "" if field in required else "optional"
            yield f"<tr><td><code>{escape(field)}</code><td>{_type(inner)}<td>{need}</tr>"
        yield "</table>"


def _type(schema: _Schema) -> str:
    """Return a schema in a few words, with links to the values that it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a class="type" href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(_type(inner) for inner in schema[key])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(f'<span class="type">{escape(repr(value))}</span>' for value in values)
    if schema.get("type") == "array":
        parts = schema.get("prefixItems") or [schema.get("items", {})]
        return f"[{', '.join(_type(part) for part in parts)}]"
    limits = ", ".join(
        f"{word} {schema[key]}" for key, word in _LIMITS.items() if schema.get(key) is not None
    )
    said = escape(f"{schema.get('type', 'any')}{f' ({limits})' if limits else ''}")
    return f'<span class="type">{said}</span>'


_LIMITS = {
    "minimum": "from",
    "maximum": "to",
    "exclusiveMinimum": "above",
    "minLength": "characters from",
    "maxLength": "characters to",
    "pattern": "like",
}
