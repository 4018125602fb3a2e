"""JSON Schema for Gemini's ``parametersJsonSchema`` and ``responseJsonSchema`` (2.5a, tier ``json``).

The vendor documents a subset of JSON Schema; what is outside of it becomes text in the description, or goes.
"""

from collections import Counter

from cpa.translation.schema_cycles import cycle_ids
from cpa.translation.schema_walk import (
    LISTS,
    MAPS,
    Budget,
    Schema,
    hint,
    hint_allowed,
    is_number,
    merge_all_of,
    ref_name,
    renamed,
    required_names,
    resolve,
    segments,
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


class JsonTier:
    """Cleans one schema."""

    def __init__(self, root: Schema) -> None:
        self.changed: set[str] = set()
        """Keywords that did not survive."""
        self._root = root
        self._budget = Budget()
        self._cycles = cycle_ids(root)
        self._around: Counter[int] = Counter()  # components of the referenced schemas around the present place
        self._cyclic = False  # a cyclic reference was met since this was last cleared
        self._lifted = ""  # description that stood beside the last reference

    def clean(self) -> Schema:
        """The schema in the subset. Raises: SchemaTooBig."""
        cleaned = self._node(self._root, "#")
        self._settle_refs(cleaned)
        return cleaned

    def _node(self, node: JsonValue, path: str) -> Schema:
        """One schema; *path* is its pointer in the root as it came."""
        self._budget.spend()
        self._lifted = ""
        if not isinstance(node, dict):
            return {}  # true; Gemini has no false
        component = self._cycles.get(path)
        if component is not None:
            self._around[component] += 1
        try:
            if "allOf" in node:
                node = merge_all_of(self._root, node, self._budget)
                self.changed.add("allOf")
            ref = node.get("$ref")
            return self._reference(node, ref, path) if isinstance(ref, str) else self._plain(node, path)
        finally:
            if component is not None:
                self._around[component] -= 1

    def _reference(self, node: Schema, ref: str, path: str) -> Schema:
        description = node.get("description")
        if segments(ref) is not None and resolve(self._root, ref) is None or segments(ref) is None and ref[:1] != "#":
            self.changed.add("$ref")
            return see(ref, description)
        component = self._cycles.get(ref)
        if component is not None and self._around[component]:
            self._cyclic = True
        cleaned: Schema = {"$ref": renamed(ref)}
        for key in ("$id", "$anchor"):
            if isinstance(node.get(key), str):
                cleaned[key] = node[key]
        cleaned.update(self._definitions(node, path))
        self.changed.update(node.keys() - cleaned.keys() - {"definitions"})
        self._lifted = description if isinstance(description, str) else ""  # set last: definitions have cleared it
        return cleaned

    def _plain(self, node: Schema, path: str) -> Schema:
        cleaned: Schema = {}
        hints: list[str] = []
        for key, value in node.items():
            match key:
                case _ if key in _TEXTS:
                    if isinstance(value, str):
                        cleaned[key] = value
                case _ if key in _NUMBERS:
                    if is_number(value):
                        cleaned[key] = value
                case "type":
                    names = type_names(value)
                    if names:
                        cleaned["type"] = [*names] if isinstance(value, list) else names[0]
                case "$defs" | "definitions":
                    cleaned.setdefault("$defs", {})
                case "properties":
                    cleaned["properties"] = self._properties(node, path, hints)
                case "required":
                    cleaned.setdefault("required", [])
                case "propertyOrdering":
                    cleaned[key] = [*strings(value)]
                case "items" if isinstance(value, list):
                    cleaned["prefixItems"] = self._list(value, f"{path}/items", "items", hints)
                case "items":
                    if value is not False:
                        cleaned["items"] = self._child(value, f"{path}/items", "items", hints)
                case "additionalProperties":
                    self._additional(cleaned, value, path, hints)
                case "anyOf" | "oneOf" | "prefixItems":
                    if isinstance(value, list) and value:
                        cleaned[key] = self._list(value, f"{path}/{key}", key, hints)
                case "enum":
                    self._enum(cleaned, value, hints)
                case "const":
                    self._const(cleaned, node, value, hints)
                case "exclusiveMinimum" | "exclusiveMaximum":
                    hints += exclusive(cleaned, node, key)
                case _ if key in HINTED:
                    hints.append(hint(key, value))
            if key not in cleaned:
                self.changed.add(key)
        cleaned.update(self._definitions(node, path))
        self._required(cleaned, node)
        if node.get("nullable") is True:
            self._nullable(cleaned)
        description = with_hints(cleaned.get("description"), hints)
        if description:
            cleaned["description"] = description
        self._lifted = ""
        return cleaned

    def _child(self, node: JsonValue, path: str, label: str, hints: list[str]) -> Schema:
        """A schema inside another, whose *hints* get what may not stand beside a reference."""
        cleaned = self._node(node, path)
        if self._lifted:
            hints.append(hint(label, self._lifted))
        return cleaned

    def _list(self, nodes: list[JsonValue], path: str, label: str, hints: list[str]) -> list[JsonValue]:
        return [self._child(node, f"{path}/{place}", label, hints) for place, node in enumerate(nodes)]

    def _definitions(self, node: Schema, path: str) -> Schema:
        found: Schema = {}
        cyclic = self._cyclic
        for key in ("$defs", "definitions"):
            definitions = node.get(key)
            if isinstance(definitions, dict):
                for name, child in definitions.items():
                    if name not in found:
                        found[name] = self._node(child, f"{path}/{key}/{escaped(name)}")
        self._cyclic = cyclic  # what a definition holds is not at this place
        return {"$defs": found} if found else {}

    def _properties(self, node: Schema, path: str, hints: list[str]) -> Schema:
        properties = node.get("properties")
        if not isinstance(properties, dict):
            return {}
        outside = self._cyclic
        self._recursive: set[int]
        cleaned: Schema = {}
        required = set(required_names(node))
        for name, child in properties.items():
            self._cyclic = False
            cleaned[name] = self._child(child, f"{path}/properties/{escaped(name)}", name, hints)
            if self._cyclic and name in required:
                self._optional.add((id(properties), name))
        self._cyclic = outside
        return cleaned
