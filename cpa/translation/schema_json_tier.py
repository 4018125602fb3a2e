"""JSON Schema for Gemini's ``parametersJsonSchema`` and ``responseJsonSchema`` (2.5a, tier ``json``).

The vendor documents a subset of JSON Schema; what is outside of it becomes text in the description, or goes.
"""

import re
from collections import Counter

from cpa.translation.schema_cycles import cycle_ids, has_refs
from cpa.translation.schema_walk import (
    TYPES,
    Budget,
    Schema,
    canonical,
    escape,
    hint,
    hint_allowed,
    inner,
    is_number,
    merge_all_of,
    ref_name,
    renamed,
    required_names,
    resolve,
    strings,
    type_names,
    type_of,
    with_hints,
)
from cpa.types import JsonValue

HINTED = frozenset(
    {
        "minLength",
        "maxLength",
        "pattern",
        "multipleOf",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "contains",
        "minContains",
        "maxContains",
        "dependentRequired",
        "examples",
        "example",
        "default",
        "if",
        "then",
        "else",
    }
)
"""Constraints that become text; of ``if`` and its branches nothing is merged, that would change the meaning."""

_TEXTS = frozenset({"$id", "$anchor", "format", "title", "description"})
_NUMBERS = frozenset({"minItems", "maxItems", "minimum", "maximum"})
_PLACES = {"required": "required", "enum": "enum", "const": "enum", "$defs": "$defs", "definitions": "$defs"}
"""What is written when all else is known keeps the place that it had."""


DROPPED = frozenset(
    {
        "not",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "unevaluatedItems",
        "additionalItems",
        "dependentSchemas",
        "dependencies",
    }
)
"""Constraints that go without a word: as text they would confuse more than help. Annotations go as well."""


class JsonTier:
    """Cleans one schema.

    Members keep their places, those that only appear by cleaning come last, so that cleaning twice changes nothing.
    """

    def __init__(self, root: Schema, size: int, *, linked: bool = True) -> None:
        """*size*: what `schema_walk.measure` says of *root*. *linked*: there may be references in it."""
        self.lost: set[str] = set()
        """Constraints that the model is no longer held to."""
        self._root = root
        self._budget = Budget(size)
        self._linked = linked and has_refs(root)
        self._cycles = cycle_ids(root) if self._linked else {}
        self._around: Counter[int] = Counter()  # components of the referenced schemas around the present place
        self._merged: tuple[str, ...] = ()  # pointers that an ``allOf`` around the present place has brought in
        self._cyclic = False  # a cyclic reference was met since this was last cleared
        self._lifted = ""  # description that stood beside the reference that the last schema was

    def clean(self) -> Schema:
        """The schema in the subset. Raises: SchemaTooBig."""
        hints: list[str] = []
        cleaned = self._child(self._root, "#", "root", hints)
        if self._linked:
            self._settle_refs(cleaned)
        return cleaned

    def _node(self, node: JsonValue, path: str) -> Schema:
        """One schema; *path* is its pointer in the root as it came."""
        self._lifted = ""
        if not isinstance(node, dict):
            return {}  # true; Gemini has no false
        self._budget.enter()
        entangled = self._linked or "allOf" in node  # as few are
        cleaned = self._entangled(node, path) if entangled else self._plain(node, path)
        self._budget.leave()
        return cleaned

    def _entangled(self, node: Schema, path: str) -> Schema:
        """A schema that others may lead to, or that leads to others."""
        component = self._cycles.get(path, -1)
        merged = self._merged
        self._around[component] += 1
        try:
            node, self._merged = merge_all_of(self._root, node, self._budget, merged)
            ref = node.get("$ref")
            return self._reference(node, ref, path) if isinstance(ref, str) else self._plain(node, path)
        finally:
            self._around[component] -= 1
            self._merged = merged

    def _below(self, path: str, *names: str) -> str:
        """The pointer of what stands under *names* in the schema at *path*, if anybody will ask for it."""
        return "/".join((path, *map(escape, names))) if self._cycles else path

    def _reference(self, node: Schema, ref: str, path: str) -> Schema:
        description = node.get("description")
        cleaned: Schema = {key: node[key] for key in ("$id", "$anchor") if isinstance(node.get(key), str)}
        cleaned.update(self._definitions(node, path))
        place = canonical(ref)
        reachable = _ANCHOR.fullmatch(ref) if place is None else resolve(self._root, ref)
        if reachable is None:
            return self._see(cleaned, ref, description)
        component = self._cycles.get(place or "")
        if component is not None and self._around[component]:
            self._cyclic = True
        self._lifted = description if isinstance(description, str) else ""
        return {"$ref": renamed(ref), **cleaned}

    def _see(self, cleaned: Schema, ref: str, description: JsonValue) -> Schema:
        self.lost.add("$ref")
        self._lifted = ""
        text = f"See: {ref_name(ref)}"
        if isinstance(description, str) and description:
            text = with_hints(description, [text])
        return {"type": "object", "description": text, **cleaned}

    def _plain(self, node: Schema, path: str) -> Schema:
        cleaned: Schema = {}
        hints: list[str] = []
        demanded: list[str] = []
        optional: set[str] = set()
        for key, value in node.items():
            if key in _TEXTS:  # the most frequent first
                if isinstance(value, str):
                    cleaned[key] = value
            elif key == "type":
                if isinstance(value, str) and value in TYPES:
                    cleaned["type"] = value
                elif names := type_names(value):
                    cleaned["type"] = [*names] if isinstance(value, list) else names[0]
            elif key in _NUMBERS:
                if is_number(value):
                    cleaned[key] = value
            elif key in _PLACES:
                cleaned[_PLACES[key]] = None
            elif key == "additionalProperties" and isinstance(value, bool):
                cleaned[key] = value
            elif key == "properties":
                if isinstance(value, dict):
                    demanded = required_names(node)
                    cleaned["properties"], optional = self._properties(value, demanded, path, hints)
            elif key in HINTED:
                hints.append(hint(key, value))
                self.lost.add(key)
            elif key in DROPPED:
                self.lost.add(key)
            else:
                self._inner(cleaned, key, value, path, hints)
        if "exclusiveMinimum" in node or "exclusiveMaximum" in node:
            hints += exclusive_bounds(cleaned, node)
        if "enum" in node or "const" in node:
            hints += self._literals(cleaned, node)
        if "$defs" in node or "definitions" in node:
            cleaned.update(self._definitions(node, path))
        properties = cleaned.get("properties")
        if isinstance(properties, dict):
            required: list[JsonValue] = [name for name in demanded if name in properties and name not in optional]
            cleaned["required"] = required or None
        if node.get("nullable") is True:
            add_null(cleaned)
        if hints or ("description" in cleaned and not cleaned["description"]):
            cleaned["description"] = with_hints(cleaned.get("description"), hints) or None
        self._lifted = ""
        if None in cleaned.values():
            return {key: value for key, value in cleaned.items() if value is not None}
        return cleaned

    def _inner(self, cleaned: Schema, key: str, value: JsonValue, path: str, hints: list[str]) -> None:
        """A keyword that holds schemas; others that are left say nothing here."""
        match key:
            case "propertyOrdering" if isinstance(value, list):
                cleaned[key] = [*strings(value)]
            case "items" if isinstance(value, list) and value:
                cleaned["prefixItems"] = self._list(value, self._below(path, key), key, hints)
            case "items" if isinstance(value, dict) or value is True:
                cleaned["items"] = self._child(value, self._below(path, key), key, hints)
            case "additionalProperties" if isinstance(value, dict):
                cleaned[key] = self._child(value, self._below(path, key), key, hints)
            case "anyOf" | "oneOf" | "prefixItems" if isinstance(value, list) and value:
                cleaned[key] = self._list(value, self._below(path, key), key, hints)
            case _:
                pass

    def _child(self, node: JsonValue, path: str, label: str, hints: list[str]) -> Schema:
        """A schema inside another, whose *hints* get what may not stand beside a reference."""
        cleaned = self._node(node, path)
        if self._lifted:
            hints.append(hint(label, self._lifted))
        return cleaned

    def _list(self, nodes: list[JsonValue], path: str, label: str, hints: list[str]) -> list[JsonValue]:
        return [self._child(node, self._below(path, str(place)), label, hints) for place, node in enumerate(nodes)]

    def _definitions(self, node: Schema, path: str) -> Schema:
        found: Schema = {}
        cyclic = self._cyclic
        for key in ("$defs", "definitions"):
            definitions = node.get(key)
            if isinstance(definitions, dict):
                for name, child in definitions.items():
                    if name not in found:
                        found[name] = self._node(child, self._below(path, key, name))
        self._cyclic = cyclic  # what a definition holds is not at this place
        return {"$defs": found} if found else {}

    def _properties(
        self, properties: Schema, required: list[str], path: str, hints: list[str]
    ) -> tuple[Schema, set[str]]:
        """(cleaned properties, names that cannot be required, because they recur)."""
        cleaned: Schema = {}
        optional: set[str] = set()
        if not self._linked:
            return {name: self._node(child, path) for name, child in properties.items()}, optional
        outside = self._cyclic
        for name, child in properties.items():
            self._cyclic = False
            cleaned[name] = self._child(child, self._below(path, "properties", name), name, hints)
            if self._cyclic and name in required:
                optional.add(name)
                self.lost.add("required")
        self._cyclic = outside
        return cleaned, optional

    def _literals(self, cleaned: Schema, node: Schema) -> list[str]:
        """``enum`` and ``const`` for strings and numbers; the hints for anything else."""
        cleaned["enum"] = None
        values = [node["const"]] if "const" in node else node.get("enum")
        if not isinstance(values, list) or not values:
            return []
        rest: list[JsonValue] = [value for value in values if value is not None]
        if not all(isinstance(value, str) or is_number(value) for value in rest):
            self.lost.add("const" if "const" in node else "enum")
            return [hint("const", node["const"]) if "const" in node else hint_allowed(values)]
        if "type" not in cleaned and len(rest) < len(values):
            cleaned["type"] = [*dict.fromkeys(type_of(value) for value in rest)]
        if len(rest) < len(values):
            add_null(cleaned)
        cleaned["enum"] = rest or None
        return []

    def _settle_refs(self, cleaned: Schema) -> None:
        """References to what cleaning has removed, or to anchors that there are not, become plain objects."""
        nodes: list[Schema] = []
        stack: list[JsonValue] = [cleaned]
        while stack:
            node = stack.pop()
            if isinstance(node, dict):
                nodes.append(node)
                stack += inner(node)
        anchors = {f"#{node['$anchor']}" for node in nodes if "$anchor" in node}
        for node in nodes:
            ref = node.get("$ref")
            if isinstance(ref, str) and ref not in anchors and resolve(cleaned, ref) is None:
                rest = {key: value for key, value in node.items() if key != "$ref"}
                node.clear()
                node.update(self._see(rest, ref, None))


_ANCHOR = re.compile(r"#[A-Za-z_][-A-Za-z0-9._]*")


def add_null(cleaned: Schema) -> None:
    """Let the schema take null as well."""
    names = cleaned.get("type")
    branches = cleaned.get("anyOf")
    if isinstance(names, str):
        names = [names]
    if isinstance(names, list):
        cleaned["type"] = names if "null" in names else [*names, "null"]
    elif isinstance(branches, list) and {"type": "null"} not in branches:
        cleaned["anyOf"] = [*branches, {"type": "null"}]


def exclusive_bounds(cleaned: Schema, node: Schema) -> list[str]:
    """Exclusive bounds of integers as inclusive ones in *cleaned*; hints for those of other numbers."""
    hints = []
    whole = set(type_names(node.get("type"))) - {"null"} == {"integer"}
    for key, plain, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
        value = node.get(key)
        limit = node.get(plain)
        if value is True and is_number(limit):  # draft 4: a flag beside the limit
            bound = limit
        elif is_number(value):
            bound = value
        else:
            continue
        if not whole or not isinstance(bound, int):
            hints.append(hint(key, value))
            continue
        found = bound + step
        if value is not True and isinstance(limit, int | float) and is_number(limit):
            stricter = max(found, limit) if step > 0 else min(found, limit)
            cleaned[plain] = stricter
        else:
            cleaned[plain] = found
    return hints
