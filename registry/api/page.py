"""An OpenAPI description as one HTML page, without a script and without anything from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

_METHODS = ("get", "put", "post", "patch", "delete")
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 small { font-weight: normal; opacity: .7; }
code, pre { font: .9em ui-monospace, monospace; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; }
details { border: 1px solid var(--line); border-radius: .3rem; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
summary b { display: inline-block; width: 4.5rem; }
summary span { opacity: .8; margin-left: .6rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-top: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top; }
"""


def page(schema: Mapping[str, Any]) -> str:
    """Returns the page for a description as FastAPI generates it."""
    info = schema["info"]
    title = f"{escape(info['title'])} <small>{escape(info['version'])}</small>"
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f"<title>{escape(info['title'])}</title>",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>",
            f'<p>{escape(info["description"])} For tools: <a href="openapi.json">openapi.json</a>.</p>',
            *_groups(schema),
            *_models(schema.get("components", {}).get("schemas", {})),
            "</body>\n</html>\n",
        )
    )


def _groups(schema: Mapping[str, Any]) -> Iterator[str]:
    server = schema["servers"][0]["url"].rstrip("/")
    for group in schema["tags"]:
        yield f"<h2>{escape(group['name'])}</h2>\n<p>{_prose(group['description'])}</p>"
        for path, operations in schema["paths"].items():
            for method in _METHODS:
                if group["name"] in operations.get(method, {}).get("tags", ()):
                    yield _operation(server + path, method, operations[method])


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    told = operation.get("description", "").split("\n\n")
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> <span>{_prose(told[0])}</span>"
    parts = [f"<details>\n<summary>{head}</summary>", *(f"<p>{_prose(each)}</p>" for each in told[1:])]
    if operation.get("parameters"):
        parts.append(_table(("parameter", "in", ""), map(_parameter, operation["parameters"])))
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_content(operation['requestBody'])}</p>")
    parts.append(_table(("status", "answer", ""), map(_answer, sorted(operation["responses"].items()))))
    return "\n".join((*parts, "</details>"))


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str]:
    needed = ", required" if parameter.get("required") and parameter["in"] != "path" else ""
    examples = [str(each) for each in parameter["schema"].get("examples", ())[:1]]
    told = [_prose(parameter.get("description", "")), *(f"like <code>{escape(each)}</code>" for each in examples)]
    return f"<code>{escape(parameter['name'])}</code>", parameter["in"] + needed, " ".join(filter(None, told))


def _answer(answer: tuple[str, Mapping[str, Any]]) -> tuple[str, str, str]:
    status, told = answer
    headers = ", ".join(f"<code>{escape(name)}</code>" for name in told.get("headers", ()))
    content = [_content(told), f"with {headers}" if headers else ""]
    return escape(status), _prose(told["description"]), " ".join(filter(None, content))


def _content(body: Mapping[str, Any]) -> str:
    return ", ".join(
        f"<code>{escape(media_type)}</code>{_reference(each.get('schema', {}))}"
        for media_type, each in body.get("content", {}).items()
    )


def _reference(schema: Mapping[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f': <a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _models(models: Mapping[str, Any]) -> Iterator[str]:
    if models:
        yield "<h2>What answers hold</h2>"
    for name, model in models.items():
        rows = [_member(member, each) for member, each in model.get("properties", {}).items()]
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3>\n<p>{_prose(model.get("description", ""))}</p>'
        yield _table(("member", "type", ""), rows)


def _member(name: str, schema: Mapping[str, Any]) -> tuple[str, str, str]:
    examples = [json.dumps(each) for each in schema.get("examples", ())[:1]]
    told = [_prose(schema.get("description", "")), *(f"like <code>{escape(each)}</code>" for each in examples)]
    return f"<code>{escape(name)}</code>", _kind(schema), " ".join(filter(None, told))


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _reference(schema).removeprefix(": ")
    if "anyOf" in schema:
        kinds = [_kind(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return f"{' or '.join(kinds)}, may be absent"
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return escape(schema.get("format") or schema.get("type", "anything"))


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{cell}</th>" for cell in head)
    return "\n".join((f"<table>\n<tr>{top}</tr>", *(f"<tr>{line}</tr>" for line in lines), "</table>"))


def _prose(text: str) -> str:
    """Returns text with what stands between backquotes as code."""
    parts = escape(" ".join(text.split()), quote=False).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
