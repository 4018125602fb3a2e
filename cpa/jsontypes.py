"""What JSON can say, as types; a module of its own because everything else may build on it."""

from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""Anything that JSON can say."""
JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object."""
