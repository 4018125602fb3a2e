"""Schemas whose root has to be an object, Gemini's dialect as JSON Schema, and OpenAI's strict rules (2.5a, 2.6)."""

import re
from typing import Final

import msgspec

from cpa.translation.schema_walk import (
    LISTS,
    MAPS,
    ONES,
    Budget,
    Merge,
    Schema,
    fill,
    hint,
    measure,
    required_names,
    resolve,
    strings,
    type_names,
    with_hints,
)
from cpa.types import JsonValue

_EMPTY: Final[Schema] = {"type": "object", "properties": {}}
_DRAFT_3 = re.compile(rb'"required"\s*:\s*(?:true|false)')
MAX_UNION_DEPTH: Final = 4
"""Unions inside the branches of a root union; deeper ones are given up."""
_UNIONS: Final = ("allOf", "anyOf", "oneOf")
_KEYWORDS: Final = (
    MAPS
    | ONES
    | LISTS
    | {"type", "enum", "const", "description", "title", "required", "format", "default", "examples", "nullable"}
)


class _Root(msgspec.Struct, gc=False):
    """Of a sound root: enough to see that nothing needs to be done."""

    type: str
    properties: dict[str, msgspec.Raw]
    required: list[str] = []
    anyOf: msgspec.UnsetType = msgspec.UNSET
    oneOf: msgspec.UnsetType = msgspec.UNSET
    allOf: msgspec.UnsetType = msgspec.UNSET
    ref: msgspec.UnsetType = msgspec.field(name="$ref", default=msgspec.UNSET)


_decode_root = msgspec.json.Decoder(_Root).decode


def is_sound(schema: bytes) -> bool:
    """Whether `repaired` would change nothing; cheap, and says so of all but odd schemas."""
    try:
        return _decode_root(schema).type == "object" and _DRAFT_3.search(schema) is None
    except (ValueError, RecursionError):
        return False


def repaired(schema: JsonValue) -> Schema:
    """*schema* with an object at its root, properties and a sound ``required``."""
    if not isinstance(schema, dict):
        return dict(_EMPTY)
    if _is_property_map(schema):
        schema = {"type": "object", "properties": schema}
    schema = _without_root_ref(schema)
    if any(key in schema for key in _UNIONS):
        schema = _without_unions(schema, schema, Budget(measure(schema)), 0)
    names = type_names(schema.get("type"))
    if names and "object" not in names:
        return without_draft_3({"type": "object", "properties": {"value": schema}, "required": ["value"]})
    result: Schema = {**schema, "type": "object"} if "type" in schema else {"type": "object", **schema}
    result.pop("nullable", None)  # arguments cannot be null
    if not isinstance(result.get("properties"), dict):
        result["properties"] = {}
    return without_draft_3(result)


def as_schema(value: JsonValue) -> Schema:
    """*value* as the root of structured output, which need not be an object."""
    if not isinstance(value, dict):
        return dict(_EMPTY)
    return _without_root_ref({"type": "object", "properties": value} if _is_property_map(value) else value)


def without_draft_3(schema: Schema) -> Schema:
    """*schema* in which ``required`` is a list of names everywhere, and absent where it would be empty by repair."""
    result: Schema = {}
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            result[key] = {name: _without_flags(child) for name, child in value.items()}
        elif key in LISTS and isinstance(value, list):
            result[key] = [_without_flags(child) for child in value]
        elif key in ONES:
            result[key] = _without_flags(value)
        else:
            result[key] = value
    names = required_names(schema)
    if names != schema.get("required"):
        if names:
            result["required"] = [*names]
        else:
            result.pop("required", None)
    return result


def _without_flags(node: JsonValue) -> JsonValue:
    return without_draft_3(node) if isinstance(node, dict) else node


def _is_property_map(schema: Schema) -> bool:
    """``{"city": {"type": "string"}}``: no keyword among the keys, a schema under each."""
    return (
        bool(schema)
        and not any(key in _KEYWORDS or key.startswith("$") for key in schema)
        and all(isinstance(value, dict) and any(key in _KEYWORDS for key in value) for value in schema.values())
    )


def _without_root_ref(schema: Schema) -> Schema:
    """One level of reference at the root, inlined; its definitions stay."""
    if not isinstance(schema.get("$ref"), str):
        return schema
    inlined = _followed(schema, schema)
    return {key: value for key, value in inlined.items() if key != "$ref"}


def _without_unions(schema: Schema, root: Schema, budget: Budget, depth: int) -> Schema:
    """Branches of root unions merged: everything may be there, only what all demand is required (2.5a)."""
    if not any(key in schema for key in _UNIONS):
        return schema
    merge = Merge({key: value for key, value in schema.items() if key not in _UNIONS})
    if depth == MAX_UNION_DEPTH:
        return merge.result()
    hints: list[str] = []
    for key in _UNIONS:
        branches = []
        listed = schema.get(key)
        for branch in listed if isinstance(listed, list) else []:
            budget.spend()
            if isinstance(branch, dict):
                branches.append(_without_unions(_followed(root, branch), root, budget, depth + 1))
        if key == "allOf":
            for branch in branches:
                merge.take(branch)
        elif branches:
            for branch in branches:
                merge.take({"properties": branch.get("properties", {})})
            common = required_names(branches[0])
            for branch in branches[1:]:
                demanded = set(required_names(branch))
                common = [name for name in common if name in demanded]
            if common:
                merge.take({"required": [*common]})
            hints.append(_alternatives(key, branches))
    result = merge.result()
    result.setdefault("type", "object")
    description = with_hints(result.get("description"), hints)
    if description:
        result["description"] = description
    return result


def _followed(root: Schema, branch: Schema) -> Schema:
    """*branch* with one level of reference inlined."""
    ref = branch.get("$ref")
    if not isinstance(ref, str):
        return branch
    rest = {key: value for key, value in branch.items() if key != "$ref"}
    target = resolve(root, ref)
    if target is None:
        return rest
    return fill(rest, {key: value for key, value in target.items() if key not in ("$ref", "$defs", "definitions")})


def _alternatives(key: str, branches: list[Schema]) -> str:
    """What tells the alternatives apart: their titles, or what each of them requires or has."""
    told: list[str] = []
    for branch in branches:
        title = branch.get("title")
        properties = branch.get("properties")
        names = required_names(branch) or (list(properties) if isinstance(properties, dict) else [])
        told.append(title if isinstance(title, str) and title else ", ".join(names) or "anything")
    return hint("Any of" if key == "anyOf" else "One of", " | ".join(dict.fromkeys(told)))


# --- Gemini's dialect ------------------------------------------------------------------------------------------------

_COUNTS: Final = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})


def as_json_schema(node: JsonValue) -> JsonValue:
    """A schema of Gemini's ``Schema`` type as JSON Schema: types in lower case, ``nullable`` in the type."""
    if not isinstance(node, dict):
        return node
    result: Schema = {}
    for key, value in node.items():
        if key in MAPS and isinstance(value, dict):
            result[key] = {name: as_json_schema(child) for name, child in value.items()}
        elif key in LISTS and isinstance(value, list):
            result[key] = [as_json_schema(child) for child in value]
        elif key in ONES:
            result[key] = as_json_schema(value)
        elif key == "type":
            names = type_names(value)
            if names:
                result[key] = [*names] if isinstance(value, list) else names[0]
        elif key == "example":
            result.setdefault("examples", [value])
        elif key in _COUNTS and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
            result[key] = int(value)  # 64-bit integers are strings in proto3's JSON
        elif key not in ("nullable", "propertyOrdering") and not (key == "format" and value == "enum"):
            result[key] = value
    if node.get("nullable") is True:
        _take_null(result)
    return result


def _take_null(schema: Schema) -> None:
    names = schema.get("type")
    branches = schema.get("anyOf")
    values = schema.get("enum")
    if isinstance(names, str) and names != "null":
        schema["type"] = [names, "null"]
    elif isinstance(names, list) and "null" not in names:
        schema["type"] = [*names, "null"]
    elif names is None and isinstance(branches, list) and {"type": "null"} not in branches:
        schema["anyOf"] = [*branches, {"type": "null"}]
    if isinstance(values, list) and None not in values:
        schema["enum"] = [*values, None]


# --- OpenAI's strict rules -------------------------------------------------------------------------------------------

_NOT_STRICT: Final = frozenset(
    {
        "allOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "propertyNames",
        "prefixItems",
        "contains",
        "unevaluatedProperties",
        "unevaluatedItems",
    }
)


def satisfies_strict(root: JsonValue) -> bool:
    """Every object closed, every property required, everything typed, an object at the root."""
    if not isinstance(root, dict) or root.get("type") != "object":
        return False
    stack: list[JsonValue] = [root]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict) or _NOT_STRICT & node.keys():
            return False
        if not any(key in node for key in ("type", "$ref", "anyOf", "enum", "const")):
            return False
        properties = node.get("properties", {})
        if "object" in type_names(node.get("type")) or "properties" in node:
            if node.get("additionalProperties") is not False or not isinstance(properties, dict):
                return False
            if set(strings(node.get("required"))) != set(properties):
                return False
            stack.extend(properties.values())
        for key in ("$defs", "definitions"):
            definitions = node.get(key)
            if isinstance(definitions, dict):
                stack.extend(definitions.values())
        if "items" in node:
            stack.append(node["items"])
        branches = node.get("anyOf", [])
        if not isinstance(branches, list):
            return False
        stack.extend(branches)
    return True
