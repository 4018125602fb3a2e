"""What all schema rules share: where schemas stand inside a schema, references, hints, limits (2.5a).

Only schema positions are walked: a property that is *named* ``type`` or ``default`` is the user's. What stands under
``enum``, ``const``, ``default`` and ``examples`` is data.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeAlias
from urllib.parse import unquote

from cpa.formats.json import JsonError, decode, encode
from cpa.types import JsonValue

Schema: TypeAlias = dict[str, JsonValue]
"""A schema that is an object; only nested ones may be booleans."""

MAX_DEPTH: Final = 64
MAX_NODES: Final = 20_000
"""Schemas in one schema, as it comes and as it goes (references are copied). Real tools have hundreds."""
UNFOLDED_NODES: Final = 500
UNFOLDED_FACTOR: Final = 8
"""What copies of references may add: that many schemas, and so many times those that there are."""
MAX_HINT_CHARS: Final = 300
"""Of one constraint told as text; a longer one would tell the model little."""

MAPS: Final = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
ONES: Final = frozenset(
    {
        "items",
        "additionalItems",
        "additionalProperties",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_HOLDERS: Final = MAPS | ONES | LISTS
TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


class SchemaTooBig(Exception):
    """Deeper or larger than the limits: the schema is to be passed as it is."""


class Budget(AbstractContextManager[None]):
    """How many more schemas may be written, and how deep.

    A schema may unfold to some times its size, so that a body of many small ones cannot keep us busy for minutes.
    """

    def __init__(self, size: int) -> None:
        """*size*: number of schemas in the one that is to be written, from `measure`."""
        self._left = min(MAX_NODES, UNFOLDED_NODES + UNFOLDED_FACTOR * size)
        self._depth = 0

    def spend(self) -> None:
        """One more. Raises: SchemaTooBig."""
        self._left -= 1
        if self._left < 0:
            raise SchemaTooBig

    def level(self) -> AbstractContextManager[None]:
        """One more, inside the present one. Raises: SchemaTooBig."""
        self.enter()
        return self

    def enter(self) -> None:
        """The same without a block, for whoever says `leave`; not needed behind SchemaTooBig, which ends everything."""
        self._left -= 1
        if self._left < 0 or self._depth == MAX_DEPTH:
            raise SchemaTooBig
        self._depth += 1

    def leave(self) -> None:
        """Out of the present one."""
        self._depth -= 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1


def read(schema: bytes) -> JsonValue:
    """*schema* decoded; nothing = None. Big integers keep their digits.

    Raises: SchemaTooBig, also for what is no JSON: neither can be cleaned.
    """
    return read_measured(schema)[0]


def read_measured(schema: bytes) -> tuple[JsonValue, int]:
    """The same, and what `measure` says of it."""
    if not schema.strip():
        return None, 1
    try:
        value = decode(schema)
    except JsonError as exc:
        raise SchemaTooBig from exc
    return value, measure(value)


def measure(value: JsonValue) -> int:
    """The number of schemas in *value*. Raises: SchemaTooBig when it is beyond the limits."""
    count = depth = 0
    level = [value]
    while level:
        count += len(level)
        depth += 1
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise SchemaTooBig
        level = [child for node in level if isinstance(node, dict) for child in inner(node)]
    return count


def inner(node: Schema) -> list[JsonValue]:
    """The schemas directly in *node*, well-formed or not: `children` without their paths, in less time."""
    found: list[JsonValue] = []
    for key, value in node.items():
        if key not in _HOLDERS:
            continue
        if key in MAPS:
            if isinstance(value, dict):
                found += value.values()
        elif key in LISTS or (key == "items" and isinstance(value, list)):
            if isinstance(value, list):
                found += value
        else:
            found.append(value)
    return found


def children(node: Schema) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    """(path, schema) of the schemas directly in *node*, well-formed or not."""
    for key, value in node.items():
        if key in MAPS:
            if isinstance(value, dict):
                for name, child in value.items():
                    yield (key, name), child
        elif key in LISTS or (key == "items" and isinstance(value, list)):
            if isinstance(value, list):
                for place, child in enumerate(value):
                    yield (key, str(place)), child
        elif key in ONES:
            yield (key,), value


def segments(ref: str) -> list[str] | None:
    """The unescaped segments of a local JSON pointer, None for any other reference."""
    if ref == "#":
        return []
    if not ref.startswith("#/"):
        return None
    return [unquote(part).replace("~1", "/").replace("~0", "~") for part in ref[2:].split("/")]


def resolve(root: JsonValue, ref: str) -> Schema | None:
    """The schema that a local pointer means, None if it means none."""
    parts = segments(ref)
    if parts is None:
        return None
    found: JsonValue = root
    place = 0
    while place < len(parts):
        if not isinstance(found, dict):
            return None
        key = parts[place]
        inner = found.get(key)
        if key in MAPS or key in LISTS or (key == "items" and isinstance(inner, list)):
            place += 1
            if place == len(parts):
                return None
            inner = _member(inner, parts[place])
        elif key not in ONES:
            return None
        found = inner
        place += 1
    return found if isinstance(found, dict) else None


def _member(inner: JsonValue, key: str) -> JsonValue:
    if isinstance(inner, dict):
        return inner.get(key)
    if isinstance(inner, list) and key.isascii() and key.isdigit() and len(key) < 6 and int(key) < len(inner):
        return inner[int(key)]
    return None


def escape(name: str) -> str:
    """*name* as a segment of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def canonical(ref: str) -> str | None:
    """A local JSON pointer in its one spelling, None for any other reference."""
    parts = segments(ref)
    return None if parts is None else "#" + "".join(f"/{escape(part)}" for part in parts)


def renamed(ref: str) -> str:
    """*ref* after ``definitions`` has become ``$defs``."""
    return "#/$defs/" + ref.removeprefix("#/definitions/") if ref.startswith("#/definitions/") else ref


def ref_name(ref: str) -> str:
    """What a reference is called."""
    return ref.rstrip("/#").rpartition("/")[2] or "root"


def merge_all_of(
    root: JsonValue, node: Schema, budget: Budget, around: tuple[str, ...] = ()
) -> tuple[Schema, tuple[str, ...]]:
    """*node* with the branches of its ``allOf`` in it: properties united (the first wins), ``required`` united, other
    keywords fill gaps. References of branches are followed.

    Args:
      around: pointers that were followed so around this place; to follow one of them again would have no end.

    Returns: the schema, and *around* with what was followed for it.
    """
    if "allOf" not in node:
        return node, around
    listed = node["allOf"]
    branches = [branch for branch in listed if isinstance(branch, dict)] if isinstance(listed, list) else []
    merged = {key: value for key, value in node.items() if key != "allOf"}
    if len(branches) == 1 and "$ref" in branches[0] and merged.keys() <= _ANNOTATIONS:
        return {**branches[0], **merged}, around  # how some generators describe what a reference is for
    merge = Merge(merged)
    followed = dict.fromkeys(around)
    for branch in branches:
        budget.spend()
        inner, trail = _followed_branch(root, branch, budget, around)
        merge.take(inner)
        followed.update(dict.fromkeys(trail))
    return merge.result(), tuple(followed)


def _followed_branch(
    root: JsonValue, branch: Schema, budget: Budget, around: tuple[str, ...]
) -> tuple[Schema, tuple[str, ...]]:
    """A branch without references and unions of its own at its root."""
    trail = around
    while True:
        ref = branch.get("$ref")
        if isinstance(ref, str):
            budget.spend()
            rest = {key: value for key, value in branch.items() if key != "$ref"}
            place = canonical(ref) or ref
            target = None if place in trail else resolve(root, ref)
            trail = (*trail, place)
            branch = fill(rest, target or {"description": f"See: {ref_name(ref)}"})
        elif "allOf" in branch:
            with budget.level():
                branch, trail = merge_all_of(root, branch, budget, trail)
        else:
            return branch, trail


_ANNOTATIONS: Final = frozenset({"description", "title", "default", "examples", "deprecated", "readOnly", "writeOnly"})


class Merge:
    """A schema with what others have and it has not: properties and ``required`` united, the first wins otherwise."""

    def __init__(self, node: Schema) -> None:
        self._node: Schema = {}
        self._properties: Schema | None = None
        self._required: dict[str, None] | None = None
        self.take(node)

    def take(self, other: Schema) -> None:
        """Add *other*; it is not changed."""
        for key, value in other.items():
            if (
                key == "properties"
                and isinstance(value, dict)
                and (self._properties is not None or key not in self._node)
            ):
                if self._properties is None:
                    self._node[key] = self._properties = {}
                for name, child in value.items():
                    self._properties.setdefault(name, child)
            elif (
                key == "required" and isinstance(value, list) and (self._required is not None or key not in self._node)
            ):
                if self._required is None:
                    self._required = {}
                    self._node[key] = None  # keeps the place
                self._required.update(dict.fromkeys(strings(value)))
            elif key not in self._node:
                self._node[key] = value

    def result(self) -> Schema:
        """The merged schema."""
        if self._required is not None:
            self._node["required"] = [*self._required]
        return self._node


def fill(node: Schema, other: Schema) -> Schema:
    """*node* with what *other* has and it has not."""
    merge = Merge(node)
    merge.take(other)
    return merge.result()


def type_names(value: JsonValue) -> list[str]:
    """The known types in a ``type``, in lower case."""
    listed = value if isinstance(value, list) else [value]
    lowered = [name.lower() for name in listed if isinstance(name, str)]
    return list(dict.fromkeys(name for name in lowered if name in TYPES))


def is_number(value: JsonValue) -> bool:
    """A JSON number; no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def strings(value: JsonValue) -> list[str]:
    """The strings of a list, each once; none of anything else."""
    return list(dict.fromkeys(name for name in value if isinstance(name, str))) if isinstance(value, list) else []


def required_names(node: Schema) -> list[str]:
    """What *node* requires: its list, and properties that say so themselves (draft 3)."""
    names = dict.fromkeys(strings(node.get("required")))
    properties = node.get("properties")
    if isinstance(properties, dict):
        flagged = (
            name for name, child in properties.items() if isinstance(child, dict) and child.get("required") is True
        )
        names.update(dict.fromkeys(flagged))
    return list(names)


# Which keywords say something of values of one type only.
_OF_TYPE: Final = {
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "propertyOrdering",
        "minProperties",
        "maxProperties",
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"),
}


def split_types(node: Schema, names: Sequence[str]) -> Schema:
    """*node*, which takes several types, as ``anyOf`` of schemas that take one each."""
    moved = {key for name in names for key in _OF_TYPE.get(name, ())}
    rest = {key: value for key, value in node.items() if key not in moved and key not in ("type", "enum")}
    values = node.get("enum")
    listed = values if isinstance(values, list) else []
    branches: list[JsonValue] = []
    for name in names:
        fitting = [value for value in listed if type_of(value) == name or (name == "number" and is_number(value))]
        if fitting or not listed or name == "null":
            branch: Schema = {"type": name}
            branch.update({key: node[key] for key in _OF_TYPE.get(name, ()) if key in node})
            if fitting and name != "null":
                branch["enum"] = fitting
            branches.append(branch)
    if not branches:  # literals of other types: nothing is valid, which no dialect can say
        branches = [{"type": name} for name in names]
    return {**rest, "anyOf": branches}


def type_of(value: JsonValue) -> str:
    """The narrowest type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


# --- hints -----------------------------------------------------------------------------------------------------------


def hint(name: str, value: JsonValue) -> str:
    """A constraint as text: ``minLength: 1``."""
    return f"{name}: {_shown(value)}"


def hint_allowed(values: Sequence[JsonValue]) -> str:
    """An enumeration as text."""
    return _cut("Allowed: " + ", ".join(_shown(value) for value in values[:MAX_HINT_CHARS]))


def _shown(value: JsonValue) -> str:
    return _cut(value if isinstance(value, str) else encode(value).decode())


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_HINT_CHARS else line[: MAX_HINT_CHARS - 1] + "…"


def with_hints(description: JsonValue, hints: Sequence[str]) -> str:
    """*description* with *hints* in one parenthesis at its end; those that it has already are not repeated."""
    text = description if isinstance(description, str) else ""
    fresh = [each for each in dict.fromkeys(hints) if not _has(text, each)] if hints else None
    if not fresh:
        return text
    return f"{text} ({'; '.join(fresh)})" if text else f"({'; '.join(fresh)})"


def _has(text: str, each: str) -> bool:
    return any(f"{before}{each}{after}" in text for before in ("(", "; ") for after in (")", "; "))
