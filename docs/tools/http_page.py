"""docs/reference/http-api.md: endpoints, bodies, answers and errors, from the OpenAPI document."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from bankintent.api_key import KEY_VARIABLE
from bankintent.config import CompatName, ServeConfig
from bankintent.serving.app import FRAMEWORK_ERRORS, create_app
from bankintent.serving.error_bodies import DOCUMENTED
from docs.tools import wording
from docs.tools.schemas import unwrap

PAGE = Path("docs/reference/http-api.md")

HERE = Path(__file__).parent

TITLES = {
    "predict": "Predictions",
    "models": "Several models",
    "operations": "Operations",
    "rasa": "Rasa",
    "clu": "Azure CLU",
    "luis": "Azure LUIS",
}
"""Tag -> the heading of its endpoints."""

REFERENCE = "#/components/schemas/"

ANY_JSON = "JsonValue"
"""The component of a value of any kind."""

NOT_BLANK = "[^"
"""Begins the pattern of a text that shows something."""

Node = dict[str, Any]


def page(generated: str) -> str:
    """The page's text, with `generated` as its last line."""
    api = document()
    text = (HERE / "http_overview.txt").read_text(encoding="utf-8")
    text = text.replace("<ENDPOINTS>", "\n".join(_endpoint_rows(api)))
    text = text.replace("<ERRORS>", "\n".join(_error_rows()))
    blocks = [text.strip()]

    examples = read_examples()
    everything = list(_operations(api))
    told: set[str] = set()
    sent = set(
        _components(api, [operation.get("requestBody", {}) for _, _, operation in everything])
    )
    for tag, title in TITLES.items():
        blocks.append(f"## {title}")
        operations = [one for one in everything if tag in one[2]["tags"]]
        for method, path, operation in operations:
            name = f"{method} {path}"
            blocks += _operation_blocks(api, name, operation, examples.get(name, []))
        for component in _components(api, [operation for _, _, operation in operations]):
            if component not in told:
                told.add(component)
                blocks += _component_blocks(api, component, component in sent)
    blocks.append(generated)
    return "\n\n".join(blocks) + "\n"


def document() -> Node:
    """The OpenAPI document of an API that answers the clients of every service."""
    with _no_key():
        app = create_app(ServeConfig(compat=list(get_args(CompatName))))
        return app.openapi()


def read_examples() -> dict[str, list[Node]]:
    """For `POST /predict/` and so on: what is sent, and what is answered."""
    return json.loads((HERE / "http_examples.json").read_text(encoding="utf-8"))


@contextlib.contextmanager
def _no_key() -> Iterator[None]:
    """The environment without a key, with which the document would differ."""
    key = os.environ.pop(KEY_VARIABLE, None)
    try:
        yield
    finally:
        if key is not None:
            os.environ[KEY_VARIABLE] = key


def _operations(api: Node) -> Iterator[tuple[str, str, Node]]:
    """(method, path, operation) of each endpoint."""
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _endpoint_rows(api: Node) -> Iterator[str]:
    yield "| endpoint | group | what it answers |"
    yield "| --- | --- | --- |"
    for method, path, operation in _operations(api):
        name = f"{method} {path}"
        summary = unwrap(operation["description"]).partition("\n\n")[0]
        yield f"| [`{name}`](#{anchor(name)}) | {operation['tags'][0]} | {summary} |"


def anchor(name: str) -> str:
    """The name by which an endpoint can be linked to: `post-predict` has no slash at its end."""
    words = "".join(character if character.isalnum() else " " for character in name.lower())
    slash = " slash" if name.endswith("/") else ""
    return "-".join((words + slash).split())


def _error_rows() -> Iterator[str]:
    yield "| status | `error_type` | when | headers |"
    yield "| --- | --- | --- | --- |"
    rows = []
    for status, (kind, message) in FRAMEWORK_ERRORS.items():
        rows.append((status, kind, f"{message[0].upper()}{message[1:]}.", ""))
    for refusal in DOCUMENTED:
        headers = ", ".join(f"`{name}: {value}`" for name, value in refusal.headers.items())
        rows.append((refusal.status, refusal.kind, unwrap(refusal.__doc__ or ""), headers))
    rows.append((500, "internal", "A fault of the server; its log has the request's id.", ""))

    # 400 stands in both lists.
    for row in sorted({row[:2]: row for row in rows}.values()):
        status, kind, when, headers = row
        yield f"| {status} | `{kind}` | {when} | {headers} |"


def _operation_blocks(api: Node, name: str, operation: Node, examples: list[Node]) -> Iterator[str]:
    yield f'<a id="{anchor(name)}"></a>'
    yield f"### `{name}`"
    yield unwrap(operation["description"])
    yield "\n".join(_facts(api, operation))
    if operation.get("parameters"):
        yield "\n".join(_parameter_rows(api, operation["parameters"]))
    for example in examples:
        yield from _example_blocks(example)


def _facts(api: Node, operation: Node) -> Iterator[str]:
    """A line each for the body, the answer and the refusals."""
    body = operation.get("requestBody")
    if body:
        yield f"- Body: {_types(api, body['content'])}"
    yield f"- Answer: {_types(api, operation['responses']['200']['content'])}"
    refusals = [status for status in operation["responses"] if status != "200"]
    if refusals:
        own = operation["responses"][refusals[0]]["content"]
        yield f"- [Refusals](#errors): {', '.join(refusals)}, as {_types(api, own)}"


def _types(api: Node, content: Node) -> str:
    """What each media type of a body or an answer holds."""
    words = []
    for media, node in content.items():
        words.append(
            type_words(api, node["schema"]) if media == "application/json" else f"`{media}`"
        )
    return " or ".join(words)


def _parameter_rows(api: Node, parameters: list[Node]) -> Iterator[str]:
    yield "| parameter | in | type | meaning |"
    yield "| --- | --- | --- | --- |"
    for parameter in parameters:
        schema = parameter["schema"]
        needed = "**Required.**"
        if not parameter.get("required"):
            has_default = "default" in schema
            needed = f"Default: {wording.code(schema['default'])}." if has_default else "Optional."
        kind = type_words(api, schema)
        yield f"| `{parameter['name']}` | {parameter['in']} | {kind} | {needed} |"


def _example_blocks(example: Node) -> Iterator[str]:
    if "note" in example:
        yield example["note"]
    if "address" in example:
        yield f"```text\nGET {example['address']}\n```"
    if "body" in example:
        yield f"```json\n{_layout(example['body'])}\n```"
    yield f"Answer:\n\n```json\n{_layout(example['answer'])}\n```"


def _layout(value: Any, depth: int = 0) -> str:
    """JSON that is broken only where a line would be too long."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + 2 * depth <= 100 or not isinstance(value, (dict, list)):
        return line

    indent = "  " * (depth + 1)
    if isinstance(value, list):
        items = [_layout(item, depth + 1) for item in value]
    else:
        items = [f'"{key}": {_layout(item, depth + 1)}' for key, item in value.items()]
    inside = ",\n".join(indent + item for item in items)
    brackets = "[]" if isinstance(value, list) else "{}"
    return f"{brackets[0]}\n{inside}\n{'  ' * depth}{brackets[1]}"


def _components(api: Node, nodes: list[Node]) -> list[str]:
    """The objects that some operations name, and those that these name, in order."""
    found: list[str] = []
    for name in _references(nodes):
        if name not in found:
            found.append(name)
            inner = _components(api, [api["components"]["schemas"][name]])
            found += [other for other in inner if other not in found]
    objects = api["components"]["schemas"]
    return [name for name in found if "properties" in objects[name]]


def _references(node: Any) -> Iterator[str]:
    """The names of the components that a part of the document refers to."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].removeprefix(REFERENCE)
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def _component_blocks(api: Node, name: str, is_sent: bool) -> Iterator[str]:
    """An object and its keys; of what is sent also which of them are needed."""
    component = api["components"]["schemas"][name]
    yield f"### {name}"
    yield unwrap(component["description"])
    rows = ["| key | type | meaning |", "| --- | --- | --- |"]
    for key, node in component["properties"].items():
        words = [_needed(key, node, component)] if is_sent else []
        words.append(" ".join(node.get("description", "").split()))
        rows.append(f"| `{key}` | {type_words(api, node)} | {' '.join(words).strip()} |")
    yield "\n".join(rows)


def _needed(key: str, node: Node, component: Node) -> str:
    if key in component.get("required", []):
        return "**Required.**"
    return f"Default: {wording.code(node['default'])}." if "default" in node else "Optional."


def type_words(api: Node, node: Node) -> str:
    """What a value is, with a link to each object."""
    for union in ("anyOf", "oneOf"):
        if union in node:
            return " or ".join(type_words(api, child) for child in node[union])
    if "$ref" in node:
        return _reference_words(api, node["$ref"].removeprefix(REFERENCE))
    if node.get("type") == "array":
        if node.get("maxItems") == 0:
            return "empty list"
        item = type_words(api, node["items"])
        return (
            f"list of lists {item.removeprefix('list ')}"
            if item[:5] == "list "
            else f"list of {item}"
        )
    if node.get("type") == "object":
        return f"object, each value: {type_words(api, node['additionalProperties'])}"
    if node.get("pattern", "").startswith(NOT_BLANK):
        return "text (not blank)"
    return wording.type_words(node)


def _reference_words(api: Node, name: str) -> str:
    if name == ANY_JSON:
        return "any JSON"
    component = api["components"]["schemas"][name]
    # A word of a few is said at once.
    return wording.type_words(component) if "enum" in component else f"[{name}](#{name.lower()})"
