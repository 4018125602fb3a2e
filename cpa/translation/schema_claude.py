"""JSON Schema for Claude's structured output (2.5a), as the vendor's SDK transforms it.

One difference is meant: ``allOf`` is merged. The SDK leaves it, but closes each branch to further properties, and then
no object with properties of two branches is valid.
"""

from cpa.translation.schema_walk import (
    Budget,
    Schema,
    canonical,
    fill,
    hint,
    hint_allowed,
    measure,
    merge_all_of,
    ref_name,
    renamed,
    required_names,
    resolve,
    split_types,
    type_names,
    with_hints,
)
from cpa.types import JsonValue

STRING_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
MAX_ROUNDS = 4
"""Of looking for references that lead nowhere: each round may take away what others mean."""
_SILENT = frozenset(
    {"$schema", "$comment", "$id", "$anchor", "deprecated", "readOnly", "writeOnly", "nullable", "propertyOrdering"}
)
"""Annotations that are no use to the model."""
_HANDLED = frozenset(
    {
        "type",
        "anyOf",
        "oneOf",
        "enum",
        "const",
        "description",
        "title",
        "$defs",
        "definitions",
        "properties",
        "required",
    }
)


_ORDER = (
    "type",
    "anyOf",
    "enum",
    "const",
    "title",
    "description",
    "format",
    "items",
    "minItems",
    "properties",
    "required",
    "additionalProperties",
    "$defs",
)


class ClaudeOutput:
    """Cleans one schema."""

    def __init__(self, root: Schema) -> None:
        self.lost: set[str] = set()
        """Constraints that the model is no longer held to."""
        self._root = root
        self._budget = Budget(measure(root))
        self._merged: tuple[str, ...] = ()  # pointers that an ``allOf`` around the present place has brought in
        self._lifted = ""  # description that stood beside the reference that the last schema was

    def clean(self) -> Schema:
        """The schema in the subset. Raises: SchemaTooBig."""
        cleaned = self._node(self._root)
        # What a reference means may have become a mere description: such references are judged by what is left.
        for _ in range(MAX_ROUNDS):
            if not _dangles(cleaned):
                break
            self._root = cleaned
            cleaned = self._node(cleaned)
        return cleaned

    def _node(self, node: JsonValue) -> Schema:
        self._lifted = ""
        if not isinstance(node, dict):
            return {}
        merged = self._merged
        try:
            with self._budget.level():
                node, self._merged = merge_all_of(self._root, node, self._budget, merged)
                if isinstance(node.get("$ref"), str):
                    return self._reference(node)
                if node.get("nullable") is True:
                    node = self._nullable(node)
                names = type_names(node.get("type"))
                if len(names) > 1 and "anyOf" not in node and "oneOf" not in node and not _literals(node):
                    node = split_types(node, names)
                return self._plain(node)
        finally:
            self._merged = merged

    def _nullable(self, node: Schema) -> Schema:
        names = type_names(node.get("type"))
        rest = {key: value for key, value in node.items() if key != "nullable"}
        return {**rest, "type": [*dict.fromkeys([*names, "null"])]} if names else rest

    def _reference(self, node: Schema) -> Schema:
        ref = str(node["$ref"])
        description = node.get("description")
        cleaned = self._definitions(node)
        if canonical(ref) is None or resolve(self._root, ref) is None:
            self.lost.add("$ref")
            self._lifted = ""
            text = f"See: {ref_name(ref)}"
            told = with_hints(description, [text]) if isinstance(description, str) and description else text
            closed: Schema = {"type": "object", "description": told, "properties": {}, "additionalProperties": False}
            return {**closed, **cleaned}
        self._lifted = description if isinstance(description, str) else ""
        return {"$ref": renamed(ref), **cleaned}

    def _plain(self, node: Schema) -> Schema:
        hints: list[str] = []
        cleaned: Schema = {}
        names = type_names(node.get("type"))
        kind = names[0] if names else ("object" if isinstance(node.get("properties"), dict) else "")
        literal = _literals(node)
        branches = node.get("anyOf", node.get("oneOf"))
        if literal:
            cleaned.update(literal)
            kind = ""
        if isinstance(branches, list) and branches:
            cleaned["anyOf"] = [self._child(branch, "anyOf", hints) for branch in branches]
            kind = ""
        elif kind:
            cleaned["type"] = kind
        for key in ("description", "title"):
            if isinstance(node.get(key), str):
                cleaned[key] = node[key]
        handled = set(_HANDLED)
        if kind == "object":
            handled.add("additionalProperties")
            self._object(cleaned, node, hints)
        elif isinstance(node.get("properties"), dict):
            handled -= {"properties", "required"}
        form = node.get("format")
        if kind == "string" and isinstance(form, str) and form in STRING_FORMATS:
            handled.add("format")
            cleaned["format"] = form
        if kind == "array":
            if isinstance(node.get("items"), dict | bool):
                handled.add("items")
                cleaned["items"] = self._child(node["items"], "items", hints)
            if node.get("minItems") in (0, 1):
                handled.add("minItems")
                cleaned["minItems"] = node["minItems"]
        if "enum" in node and "enum" not in cleaned and isinstance(node["enum"], list):
            hints.append(hint_allowed(node["enum"]))
            self.lost.add("enum")
        if "const" in node and "const" not in cleaned:
            hints.append(hint("const", node["const"]))
            self.lost.add("const")
        for key, value in node.items():
            if key not in handled and key not in _SILENT and not key.startswith("x-"):
                hints.append(hint(key, value))
                self.lost.add(key)
        cleaned.update(self._definitions(node))
        cleaned["description"] = with_hints(cleaned.get("description"), hints)
        self._lifted = ""
        # In a fixed order, so that cleaning twice changes nothing.
        return {key: cleaned[key] for key in _ORDER if key in cleaned and cleaned[key] != ""}

    def _object(self, cleaned: Schema, node: Schema, hints: list[str]) -> None:
        properties = node.get("properties")
        found: Schema = {}
        if isinstance(properties, dict):
            found = {name: self._child(child, name, hints) for name, child in properties.items()}
        cleaned["properties"] = found
        cleaned["additionalProperties"] = False
        names: list[JsonValue] = [name for name in required_names(node) if name in found]
        if names:
            cleaned["required"] = names
        if isinstance(extra := node.get("additionalProperties"), dict) and extra:
            hints.append(hint("additionalProperties", extra))
            self.lost.add("additionalProperties")

    def _child(self, node: JsonValue, label: str, hints: list[str]) -> Schema:
        cleaned = self._node(node)
        if self._lifted:
            hints.append(hint(label, self._lifted))
        return cleaned

    def _definitions(self, node: Schema) -> Schema:
        found: Schema = {}
        for key in ("$defs", "definitions"):
            definitions = node.get(key)
            if isinstance(definitions, dict):
                found = fill(found, {name: self._node(child) for name, child in definitions.items()})
        return {"$defs": found} if found else {}


def _dangles(root: Schema) -> bool:
    """Whether a reference in *root*, which is clean, leads nowhere."""
    stack: list[JsonValue] = [root]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict):
            continue
        ref = node.get("$ref")
        if isinstance(ref, str) and resolve(root, ref) is None:
            return True
        for key in ("properties", "$defs"):
            children = node.get(key)
            if isinstance(children, dict):
                stack.extend(children.values())
        branches = node.get("anyOf")
        stack.extend(branches if isinstance(branches, list) else ())
        stack.append(node.get("items"))
    return False


def _literals(node: Schema) -> Schema:
    """``enum`` and ``const`` of primitive values, beside which no type may stand."""
    found: Schema = {}
    values = node.get("enum")
    if isinstance(values, list) and values and all(_is_primitive(value) for value in values):
        found["enum"] = values
    if "const" in node and _is_primitive(node["const"]):
        found["const"] = node["const"]
    return found


def _is_primitive(value: JsonValue) -> bool:
    return not isinstance(value, dict | list)
