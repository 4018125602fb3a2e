"""JSON Schema for Gemini's ``parameters`` and ``responseSchema`` (2.5a, tier ``openapi``).

The dialect is that of the vendor's type ``Schema``: one upper-case type, no references, no additional properties.
"""

from collections.abc import Iterable

from cpa.formats.json import encode
from cpa.translation.schema_json_tier import DROPPED, HINTED, exclusive_bounds
from cpa.translation.schema_walk import (
    TYPES,
    Budget,
    Schema,
    canonical,
    fill,
    hint,
    hint_allowed,
    is_number,
    merge_all_of,
    ref_name,
    required_names,
    resolve,
    split_types,
    strings,
    type_names,
    type_of,
    with_hints,
)
from cpa.types import JsonValue

FORMATS = frozenset({"enum", "date-time", "int32", "int64", "float", "double"})
MAX_DESCRIBED_CHARS = 500
"""A longer description is not burdened with the remark that no further properties are allowed."""

_KEPT_NUMBERS = frozenset(
    {"minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength", "minimum", "maximum"}
)
_COMPOSED = frozenset({"allOf", "anyOf", "oneOf"})
_NULL: Schema = {"type": "null"}


class OpenApiTier:
    """Cleans one schema. Members keep their places, as in `schema_json_tier.JsonTier`."""

    def __init__(self, root: Schema, size: int, *, linked: bool = True) -> None:
        """*size*: what `schema_walk.measure` says of *root*. *linked*: there may be references in it."""
        self.lost: set[str] = set()
        """Constraints that the model is no longer held to."""
        self._root = root
        self._budget = Budget(size)
        self._linked = linked

    def clean(self) -> Schema:
        """The schema in the dialect. Raises: SchemaTooBig, also when its references unfold to too much."""
        return self._node(self._root, ("#",))

    def _node(self, node: JsonValue, path: tuple[str, ...]) -> Schema:
        """One schema; *path*: the references that are being unfolded around it."""
        if not isinstance(node, dict):
            return {}
        self._budget.enter()
        if not self._linked and not _COMPOSED & node.keys():  # as nearly all are
            cleaned = self._plain(self._with_one_type(node), path)
        else:
            cleaned = self._composed(node, path)
        self._budget.leave()
        return cleaned

    def _composed(self, node: Schema, path: tuple[str, ...]) -> Schema:
        """A schema that has something of others."""
        node, path = merge_all_of(self._root, node, self._budget, path)
        if not isinstance(node.get("$ref"), str):
            node, path = self._with_branches(node, path)
        ref = node.get("$ref")
        if isinstance(ref, str):
            return self._unfolded(node, ref, path)
        return self._plain(self._with_one_type(node), path)

    def _unfolded(self, node: Schema, ref: str, path: tuple[str, ...]) -> Schema:
        place = canonical(ref) or ref
        target = None if place in path else resolve(self._root, ref)
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        if target is None:
            self.lost.add("$ref")
            description = node.get("description")
            text = f"See: {ref_name(ref)}"
            if isinstance(description, str) and description:
                text = with_hints(description, [text])
            return {"type": "OBJECT", "description": text}
        return self._node(fill(siblings, target), (*path, place))

    def _with_branches(self, node: Schema, path: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """``oneOf`` as ``anyOf``, without a branch for null, and one branch alone in the schema itself."""
        if "anyOf" not in node and "oneOf" not in node:
            return node, path
        listed = [node.get(key) for key in ("anyOf", "oneOf")]
        branches = [branch for found in listed if isinstance(found, list) for branch in found]
        result: Schema = {("anyOf" if key == "oneOf" else key): value for key, value in node.items()}
        rest: list[JsonValue] = [branch for branch in branches if not _is_null(branch)]
        if len(rest) < len(branches):
            result["nullable"] = True
        result["anyOf"] = rest
        if len(rest) > 1:
            return result, path
        del result["anyOf"]
        only = rest[0] if rest else None
        if not isinstance(only, dict):
            return result, path
        # What the branch brought may need the same again; it is smaller each time.
        merged, path = merge_all_of(self._root, fill(result, only), self._budget, path)
        return (merged, path) if isinstance(merged.get("$ref"), str) else self._with_branches(merged, path)

    def _with_one_type(self, node: Schema) -> Schema:
        kind = node.get("type")
        if isinstance(kind, str) and kind in TYPES and kind != "null":
            return node
        names = type_names(kind)
        several = [name for name in names if name != "null"]
        if "null" in names:
            node = {**node, "nullable": True}
        if "type" in node and not several:
            return {key: value for key, value in node.items() if key != "type"}
        if len(several) > 1:
            if "anyOf" in node:
                return {key: value for key, value in node.items() if key != "type"}
            return split_types(node, several)
        return {**node, "type": several[0]} if several else node

    def _plain(self, node: Schema, path: tuple[str, ...]) -> Schema:
        cleaned: Schema = {}
        hints: list[str] = []
        for key, value in node.items():
            match key:
                case "title" | "description" if isinstance(value, str):
                    cleaned[key] = value
                case "pattern" if isinstance(value, str):
                    cleaned[key] = value
                case "format" if isinstance(value, str):
                    if value in FORMATS:
                        cleaned[key] = value
                    else:
                        hints.append(hint(key, value))
                        self.lost.add(key)
                case "nullable" if value is True:
                    cleaned[key] = True
                case "default" | "example" if value is not None:
                    cleaned[key] = value
                case _ if key in _KEPT_NUMBERS:
                    if is_number(value):
                        cleaned[key] = value
                case "type" if isinstance(value, str):
                    cleaned[key] = value.upper()
                case "properties" if isinstance(value, dict):
                    cleaned[key] = {name: self._node(child, path) for name, child in value.items()}
                case "required" | "enum":
                    cleaned[key] = None
                case "const":
                    cleaned["enum"] = None
                case "propertyOrdering" if isinstance(value, list):
                    cleaned[key] = [*strings(value)]
                case "items" | "prefixItems":
                    cleaned["items"] = None
                case "anyOf" if isinstance(value, list):
                    cleaned[key] = [self._node(branch, path) for branch in value]
                case "additionalProperties":
                    hints += self._additional(node, value)
                case _ if key in HINTED:
                    hints.append(hint(key, value))
                    self.lost.add(key)
                case _ if key in DROPPED:
                    self.lost.add(key)
        if "exclusiveMinimum" in node or "exclusiveMaximum" in node:
            hints += exclusive_bounds(cleaned, node)
        if "enum" in node or "const" in node:
            hints += self._literals(cleaned, node)
        self._items(cleaned, node, path)
        properties = cleaned.get("properties")
        if isinstance(properties, dict):
            required: list[JsonValue] = [name for name in required_names(node) if name in properties]
            cleaned["required"] = required or None
        if hints or ("description" in cleaned and not cleaned["description"]):
            cleaned["description"] = with_hints(cleaned.get("description"), hints) or None
        if None in cleaned.values():
            return {key: value for key, value in cleaned.items() if value is not None}
        return cleaned

    def _additional(self, node: Schema, value: JsonValue) -> Iterable[str]:
        if value is False:
            description = node.get("description")
            if not isinstance(description, str) or len(description) < MAX_DESCRIBED_CHARS:
                yield "No extra properties allowed"
        elif isinstance(value, dict) and value:
            self.lost.add("additionalProperties")
            names = type_names(value.get("type"))
            ref = value.get("$ref")
            if names:
                yield f"Values: {' or '.join(names)}"
            elif isinstance(ref, str):
                yield f"Values: {ref_name(ref)}"
            else:
                yield hint("Values", value)

    def _literals(self, cleaned: Schema, node: Schema) -> list[str]:
        cleaned["enum"] = None
        values = [node["const"]] if "const" in node else node.get("enum")
        if not isinstance(values, list) or not values:
            return []
        rest: list[JsonValue] = [value for value in values if value is not None]
        if len(rest) < len(values):
            cleaned["nullable"] = True
        if not rest:
            return []
        if all(isinstance(value, str) for value in rest):
            cleaned["enum"] = rest
            if "type" not in cleaned and "anyOf" not in cleaned:
                cleaned["type"] = "STRING"
            return []
        # As strings the model would send "1" where the tool wants 1 (case 77).
        self.lost.add("const" if "const" in node else "enum")
        kinds = {type_of(value) for value in rest}
        if "type" not in cleaned and "anyOf" not in cleaned and len(kinds) == 1:
            cleaned["type"] = kinds.pop().upper()
        return [hint("const", node["const"])] if "const" in node else [hint_allowed(rest)]

    def _items(self, cleaned: Schema, node: Schema, path: tuple[str, ...]) -> None:
        """Items; those of a tuple as any of its members, with its length."""
        items = node.get("items")
        prefix = node.get("prefixItems")
        if isinstance(items, list):  # a tuple as draft 4 has it
            prefix, items = items, node.get("additionalItems", True)
        cleaned["items"] = None
        if not isinstance(prefix, list) or not prefix:
            if items is not None and items is not False:
                cleaned["items"] = self._node(items, path)
            return
        members = [*prefix, items] if isinstance(items, dict) else prefix
        found = [self._node(member, path) for member in members]
        unique: list[JsonValue] = [*{encode(schema): schema for schema in found}.values()]
        cleaned["items"] = unique[0] if len(unique) == 1 else {"anyOf": unique}
        cleaned.setdefault("minItems", len(prefix))
        if not isinstance(items, dict):
            cleaned.setdefault("maxItems", len(prefix))


def _is_null(branch: JsonValue) -> bool:
    return isinstance(branch, dict) and (type_names(branch.get("type")) == ["null"] or branch == {"const": None})
