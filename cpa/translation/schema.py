"""JSON Schema between the dialects of the protocols (2.5a).

Agents send the same hundred schemas with each turn: what was cleaned is kept, beside the schema as it came. A schema
beyond the limits of `schema_walk` passes as it is; it is the provider's to judge.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

from cpa.formats.json import encode
from cpa.translation.context import Context
from cpa.translation.profile import SchemaTier
from cpa.translation.schema_claude import ClaudeOutput
from cpa.translation.schema_json_tier import JsonTier
from cpa.translation.schema_openapi_tier import OpenApiTier
from cpa.translation.schema_roots import as_json_schema, as_schema, is_sound, repaired, satisfies_strict
from cpa.translation.schema_walk import Schema, SchemaTooBig, measure, read, read_measured

__all__ = ["clean_claude_output", "clean_gemini", "from_openapi", "is_strict", "repair_root"]

_NOT_AT_ROOT: Final = ("enum", "const", "nullable")
MAX_CACHED: Final = 2048
"""Schemas; an agent has about a hundred."""
MAX_CACHED_SCHEMA_BYTES: Final = 32 * 1024
"""Of one that is kept, so that strangers fill 64 MB at most."""


@attrs.frozen(kw_only=True)
class _Cleaned:
    schema: bytes
    lost: tuple[str, ...] = ()


class _Cache:
    """Least recently used goes first.

    Large bodies are translated on worker threads. Each step here is one atomic operation of the dict, and what two
    threads can do to each other in between is to clean a schema twice.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, bytes], _Cleaned] = OrderedDict()

    def get(self, kind: str, schema: bytes, make: Callable[[bytes], _Cleaned]) -> _Cleaned:
        """What *make* makes of *schema*, which depends on nothing else."""
        key = (kind, schema)  # not its digest: that alone would take longer than all the rest
        found = self._entries.pop(key, None)
        if found is None:
            found = make(schema)
        if len(schema) + len(found.schema) <= MAX_CACHED_SCHEMA_BYTES:
            self._entries[key] = found  # its last place
            if len(self._entries) > MAX_CACHED:
                self._entries.popitem(last=False)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


_cache = _Cache()


def forget() -> None:
    """Drop what was kept of schemas; for measurements of what the first request costs."""
    _cache.clear()


def clean_gemini(
    schema: bytes, tier: SchemaTier, ctx: Context | None = None, path: str = "tools", *, root_object: bool = True
) -> bytes:
    """*schema* in the dialect of a Gemini tier; for tools, and for structured output with ``root_object=False``.

    Args:
      ctx, path: where losses are noted: constraints that became text or went.
      root_object: an object must be at the root, and is put there.
    """
    cleaner = JsonTier if tier is SchemaTier.JSON else OpenApiTier

    def make(raw: bytes) -> _Cleaned:
        try:
            value, size = read_measured(raw)
            if not root_object:
                root = as_schema(value)
                size = measure(root)
            elif isinstance(value, dict) and is_sound(raw):
                root = _without_literals(value)
            else:
                root = _without_literals(repaired(value))
                size = measure(root)
            # A reference is spelled out, or its first letters are escaped.
            work = cleaner(root, size, linked=b"$ref" in raw or b"\\u" in raw)
            return _Cleaned(schema=encode(work.clean()), lost=tuple(sorted(work.lost)))
        except SchemaTooBig:
            return _TOO_BIG

    kind = f"gemini-{tier}-{'tool' if root_object else 'output'}"
    return _noted(_cache.get(kind, schema, make), schema, ctx, path)


def _without_literals(root: Schema) -> Schema:
    """Arguments cannot be null, and literals of all of them say nothing, but would make them nullable."""
    if any(key in root for key in _NOT_AT_ROOT):
        return {key: member for key, member in root.items() if key not in _NOT_AT_ROOT}
    return root


def clean_claude_output(schema: bytes, ctx: Context | None = None, path: str = "response_format") -> bytes:
    """*schema* as ``output_config.format.schema``, by the rules of the vendor's own transformer."""

    def make(raw: bytes) -> _Cleaned:
        try:
            work = ClaudeOutput(as_schema(read(raw)))
            return _Cleaned(schema=encode(work.clean()), lost=tuple(sorted(work.lost)))
        except SchemaTooBig:
            return _TOO_BIG

    return _noted(_cache.get("claude-output", schema, make), schema, ctx, path)


def repair_root(schema: bytes) -> bytes:
    """*schema* with an object at its root, for tools of Claude, Gemini and strict Chat; a sound one is not touched."""
    if is_sound(schema):
        return schema

    def make(raw: bytes) -> _Cleaned:
        try:
            return _Cleaned(schema=encode(repaired(read(raw))))
        except SchemaTooBig:
            return _TOO_BIG

    return _cache.get("root", schema, make).schema or schema


def from_openapi(schema: bytes) -> bytes:
    """A schema in Gemini's dialect (upper-case types, ``nullable``) as JSON Schema, for everybody else."""

    def make(raw: bytes) -> _Cleaned:
        try:
            value = read(raw)
            return _Cleaned(schema=encode(as_json_schema(value if isinstance(value, dict) else repaired(value))))
        except SchemaTooBig:
            return _TOO_BIG

    return _cache.get("from-openapi", schema, make).schema or schema


def is_strict(schema: bytes) -> bool:
    """Whether *schema* satisfies OpenAI's strict rules, so that ``strict: true`` can be said of it."""

    def make(raw: bytes) -> _Cleaned:
        try:
            return _Cleaned(schema=b"true" if satisfies_strict(read(raw)) else b"")
        except SchemaTooBig:
            return _TOO_BIG

    return bool(_cache.get("strict", schema, make).schema)


_TOO_BIG: Final = _Cleaned(schema=b"", lost=("schema too large or too deep to be adapted",))


def _noted(cleaned: _Cleaned, schema: bytes, ctx: Context | None, path: str) -> bytes:
    if ctx is not None and cleaned.lost:
        ctx.lose(path, "schema: " + ", ".join(cleaned.lost))
    return cleaned.schema or schema
