"""A configuration file as plain dicts and lists that may be changed: what an edit works on.

Values are what the loader reads, YAML's core schema: ``yes`` and ``1:30`` are text. Merge keys and aliases are written
out, so every mapping and list in a tree stands for itself. Numbers remember how they were written, because many keys of
the file are texts that people write without quotes (``api-key: 0123``); `text_of` gives that spelling.
"""

import math
from collections.abc import Mapping
from typing import TypeAlias

from cpa.config.document import MAX_DEPTH, MAX_NODES
from cpa.config.nodes import MappingNode, Node, ScalarNode, SequenceNode
from cpa.errors import EditError
from cpa.jsontypes import JsonValue

ConfigTree: TypeAlias = dict[str, JsonValue]
"""The whole file by its top-level keys."""

MAX_KEY_CHARS = 512
"""YAML ends keys of one line after 1024 characters, escapes included."""


class WrittenInt(int):
    """An integer whose spelling is not the usual one, such as ``0123``."""

    text: str


class WrittenFloat(float):
    """As `WrittenInt`, such as ``1.50``."""

    text: str


def tree_of(node: Node | None) -> JsonValue:
    """The value of *node*, fresh; None for nothing."""
    match node:
        case None:
            return None
        case ScalarNode():
            return _scalar(node)
        case SequenceNode():
            return [tree_of(item) for item in node.items]
        case MappingNode():
            return {entry.key: tree_of(entry.node) for entry in node.entries}


def _scalar(node: ScalarNode) -> bool | int | float | str | None:
    value = node.value
    if isinstance(value, bool | str) or value is None or str(value) == node.text:
        return value
    written = WrittenInt(value) if isinstance(value, int) else WrittenFloat(value)
    written.text = node.text
    return written


def text_of(value: JsonValue) -> str:
    """A scalar of a tree as the loader reads it where it wants text: trimmed. Empty for null, lists and mappings."""
    match value:
        case WrittenInt() | WrittenFloat():
            return value.text.strip()
        case None | list() | dict():
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value).strip()


def same(one: JsonValue, other: JsonValue) -> bool:
    """Deep equality in which ``1``, ``1.0`` and ``true`` differ and NaN equals itself. Order of keys does not count."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if _kind(one) is not _kind(other):
        return False
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return one == other


def _kind(value: JsonValue) -> object:
    for kind in (bool, int, float, str, list, dict):
        if isinstance(value, kind):
            return kind
    return None


def checked(tree: object) -> ConfigTree:
    """*tree* if a YAML file can say it: text keys, JSON's values, bounded, valid Unicode; tuples become lists.

    Raises: EditError, 400.
    """
    left = [MAX_NODES]
    value = _checked(tree, 0, left)
    if not isinstance(value, dict):
        raise EditError("expected a mapping of keys to values", http_status=400)
    return value


def _checked(value: object, depth: int, left: list[int]) -> JsonValue:
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise EditError("expected fewer values, or fewer levels of nesting", http_status=400)
    match value:
        case str():
            return _text(value)
        case None | bool() | int() | float():
            return value
        case list() | tuple():
            return [_checked(item, depth + 1, left) for item in value]
        case Mapping():
            return {_key(key): _checked(item, depth + 1, left) for key, item in value.items()}
    raise EditError(f"expected JSON's values, got {type(value).__name__}", http_status=400)


def _key(key: object) -> str:
    if not isinstance(key, str) or len(key) > MAX_KEY_CHARS:
        raise EditError(f"expected keys of at most {MAX_KEY_CHARS} characters", http_status=400)
    return _text(key)


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EditError("expected text of whole characters, got half of a surrogate pair", http_status=400) from None
    return text
