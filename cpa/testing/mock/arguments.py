"""Plausible arguments for a tool, from its JSON Schema.

Only what a mock needs: required properties (all of them, no others), local references, first alternative of a union.
Anything odd becomes a text; never an error, for schemas are the client's.
"""

from collections.abc import Mapping

_MAX_DEPTH = 6
"""Schemas refer to themselves."""
_MAX_ITEMS = 8
"""Of an array with ``minItems``."""
_MAX_TEXT = 256
"""For ``minLength``."""

_BY_NAME = {
    "city": "Paris",
    "code": "print('hi')",
    "command": "echo mock",
    "content": "Hello, Wörld\n",
    "date": "2026-01-31",
    "email": "mock@example.com",
    "file_path": "src/mock.txt",
    "location": "Paris, France",
    "name": "mock",
    "path": "README.md",
    "pattern": "TODO",
    "query": "structured concurrency",
    "timezone": "Europe/Paris",
    "unit": "celsius",
    "url": "https://example.com/",
}
_BY_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "mock@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _resolve(schema: Mapping[str, object], root: Mapping[str, object]) -> Mapping[str, object]:
    """Follow local references and the first alternatives that are not null, a few steps far."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref")
        union = next((key for key in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(key), list)), None)
        if isinstance(reference, str) and reference.startswith("#"):
            target: object = root
            for step in reference.split("/")[1:]:
                target = _mapping(target).get(step.replace("~1", "/").replace("~0", "~"))
            schema = _mapping(target)
        elif union is not None:
            options = [_mapping(option) for option in _list(schema[union])]
            chosen = next((option for option in options if option.get("type") != "null"), {})
            schema = {**{key: value for key, value in schema.items() if key != union}, **chosen}
        else:
            break
    return schema


def _type_of(schema: Mapping[str, object]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((entry for entry in kind if entry != "null"), "null")
    if isinstance(kind, str):
        return kind.lower()  # Gemini writes OBJECT, STRING
    return "object" if "properties" in schema else "string"


def _number(schema: Mapping[str, object], plain: float) -> int | float:
    for key, step in (("minimum", 0), ("exclusiveMinimum", 1)):
        bound = schema.get(key)
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            return bound + step
    top = schema.get("maximum")
    if isinstance(top, int | float) and not isinstance(top, bool) and top < plain:
        return top
    return plain


def _text(schema: Mapping[str, object], name: str) -> str:
    form = schema.get("format")
    text = _BY_FORMAT.get(form, "") if isinstance(form, str) else ""
    text = text or _BY_NAME.get(name.lower(), f"mock {name}".strip() if name else "mock")
    shortest, longest = schema.get("minLength"), schema.get("maxLength")
    if isinstance(shortest, int) and len(text) < shortest:
        text = text.ljust(min(shortest, _MAX_TEXT), "x")
    if isinstance(longest, int) and longest >= 0:
        text = text[:longest]
    return text


def _value(schema: Mapping[str, object], root: Mapping[str, object], name: str, depth: int) -> object:
    schema = _resolve(schema, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            return options[0]
    match _type_of(schema):
        case "object":
            return _object(schema, root, depth)
        case "array":
            least = schema.get("minItems")
            count = min(least, _MAX_ITEMS) if isinstance(least, int) else 1
            if depth >= _MAX_DEPTH:
                return []
            item = _value(_mapping(schema.get("items")), root, name.removesuffix("s"), depth + 1)
            return [item] * max(count, 0)
        case "integer":
            return int(_number(schema, 1))
        case "number":
            return _number(schema, 1.5)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _text(schema, name)


def _object(schema: Mapping[str, object], root: Mapping[str, object], depth: int) -> dict[str, object]:
    if depth >= _MAX_DEPTH:
        return {}
    properties = _mapping(schema.get("properties"))
    required = schema.get("required")
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return {name: _value(_mapping(properties.get(name)), root, name, depth + 1) for name in names}


def plausible_arguments(schema: object) -> Mapping[str, object]:
    """Arguments that fit *schema*, a decoded JSON Schema of an object; anything else gives an empty object."""
    root = _mapping(schema)
    return _object(_resolve(root, root), root, 0)
