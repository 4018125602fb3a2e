"""Whether settings are what a plugin says it takes (plugin-abi 3.3, chapter 10 no. 36)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cpa.types import JsonObject, JsonValue

HOST_KEYS: Final = frozenset({"enabled", "priority", "isolation", "timeout", "on-error", "store"})
"""The proxy's own; the loader of the configuration judges them."""
MAX_SHOWN_CHARS: Final = 40
MAX_CHOICES_CHARS: Final = 200


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KINDS: Final[Mapping[str, tuple[str, Callable[[JsonValue], bool]]]] = {
    "string": ("a string", lambda value: isinstance(value, str)),
    "number": ("a number", _is_number),
    "integer": ("an integer", _is_integer),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, dict)),
}


def problems(settings: JsonObject, fields: Iterable[Any]) -> list[tuple[str, str]]:
    """What is wrong with *settings*: member, and what was expected and what came.

    Members that the plugin does not name are its own business, null means none. Values are not repeated, except those
    of an enumeration: settings hold keys.
    *fields*: of the plugin's metadata (`cpa.abi.wire.ConfigField`, which the server does not import).
    """
    found: list[tuple[str, str]] = []
    judged = set(HOST_KEYS)
    for field in fields:
        if field.name in judged or settings.get(field.name) is None:
            continue
        judged.add(field.name)
        value = settings[field.name]
        kind = field.type.strip().lower()
        if kind == "enum":
            if field.enum_values and _word(value) not in field.enum_values:
                choices = ", ".join(field.enum_values)[:MAX_CHOICES_CHARS]
                found.append((field.name, f"expected one of {choices}, got {_shown(value)}"))
        elif kind in _KINDS and not _KINDS[kind][1](value):
            found.append((field.name, f"expected {_KINDS[kind][0]}, got {kind_of(value)}"))
    return found


def _word(value: JsonValue) -> str | None:
    """A scalar as an enumeration lists it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _shown(value: JsonValue) -> str:
    word = _word(value)
    return kind_of(value) if word is None else f"{word[:MAX_SHOWN_CHARS]!r} ({kind_of(value)})"


def kind_of(value: JsonValue) -> str:
    """The type of *value* in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
