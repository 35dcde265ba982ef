"""The page at /docs: the OpenAPI document as plain HTML, without scripts and without a CDN."""

import json
from html import escape
from typing import Any


def reference(document: dict[str, Any], base: str, look: str = "/page") -> str:
    """One HTML page with every operation, its fields, examples and errors; `base` is the address for curl.

    `look`: where the style sheet and the icon lie. All values are escaped.
    """
    schemas = document.get("components", {}).get("schemas", {})
    parts = [
        operation(base, path, method, body, schemas)
        for path, methods in document["paths"].items()
        for method, body in methods.items()
    ]
    title = escape(document["info"]["title"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: reference</title>
<link rel="icon" href="{look}/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{look}/style.css">
</head>
<body>
<header class="top narrow"><a class="brand" href="/"><img src="{look}/icon.svg" alt="" width="28" height="28">
<span>edgewise</span></a>
<nav><a href="/">Page</a> <a href="/openapi.json">openapi.json</a></nav></header>
<main class="reference">
<h1>{title}</h1>
<p>{escape(document["info"].get("description", ""))}</p>
{"".join(parts)}
</main>
</body>
</html>
"""


def operation(base: str, path: str, method: str, body: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The section of one method on one path."""
    content = body.get("requestBody", {}).get("content", {}).get("application/json", {})
    with_key = "security" in body
    examples = "".join(
        f"<h3>{escape(example['summary'])}</h3>{code(curl(base + path, example['value'], with_key))}"
        for example in content.get("examples", {}).values()
    )
    about = body.get("description", "")
    return (
        f'<section class="card"><h2><span class="method">{escape(method.upper())}</span> '
        f"<code>{escape(path)}</code></h2><p>{escape(body.get('summary', ''))}</p>"
        f"{f'<p>{escape(about)}</p>' if about else ''}"
        f"{parameters(body)}{fields(content.get('schema', {}), schemas)}{examples}{replies(body)}</section>"
    )


def parameters(body: dict[str, Any]) -> str:
    """A table of what stands in the path, the query and the headers."""
    return table(
        "Parameter",
        [
            (f"{one['name']} ({one['in']})", kind(one.get("schema", {})), one.get("description", ""))
            for one in body.get("parameters", [])
        ],
    )


def resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema that a $ref names, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return schemas.get(name, schema)


def fields(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A table of a request's fields; nothing where there are none."""
    properties = resolve(schema, schemas).get("properties", {})
    rows = [(name, kind(field), field.get("description", "")) for name, field in properties.items()]
    return table("Field", rows)


def table(what: str, rows: list[tuple[str, str, str]]) -> str:
    """Name, type and meaning, one a row; nothing where there are none."""
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(of)}</td><td>{escape(meaning)}</td></tr>"
        for name, of, meaning in rows
    )
    if not body:
        return ""
    head = f"<thead><tr><th>{what}</th><th>Type</th><th>Meaning</th></tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def kind(field: dict[str, Any]) -> str:
    """The type of a field in words."""
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    first = options[0] if options else {}
    if first.get("type") == "array":
        return f"list of {first.get('items', {}).get('type', 'values')}s"
    return str(first.get("type", "object"))


def replies(body: dict[str, Any]) -> str:
    """The answer's example and the list of errors."""
    shown, errors = "", []
    for status, reply in body.get("responses", {}).items():
        if status.startswith("2"):
            shown = answer(reply)
        else:
            errors.append(f"<li><b>{escape(status)}</b> {escape(reply.get('description', ''))}</li>")
    listed = (
        f'<h3>Errors, each as <code>{{"error": "…"}}</code></h3><ul class="errors">{"".join(errors)}</ul>'
        if errors
        else ""
    )
    return f"<h3>Answer</h3>{shown}{listed}"


def answer(reply: dict[str, Any]) -> str:
    """The example of an answer, or in words what comes where there is none."""
    for content in reply.get("content", {}).values():
        example = content.get("example")
        if example is not None:
            text = isinstance(example, str)
            return code(example if text else json.dumps(example, indent=1, ensure_ascii=False))
    return f"<p>{escape(reply.get('description', ''))}</p>"


def curl(url: str, value: object, with_key: bool) -> str:
    """A command line that sends the example to this service."""
    key = "  -H 'Authorization: Bearer KEY' \\\n" if with_key else ""
    data = json.dumps(value, ensure_ascii=False).replace("'", "'\\''")
    return f"curl {url} \\\n{key}  -H 'Content-Type: application/json' \\\n  -d '{data}'"


def code(text: str) -> str:
    """A block of code."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
