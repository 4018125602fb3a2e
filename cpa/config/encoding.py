"""A configuration as JSON with the keys of the file: what management tells of it (proxy 6.3, 6.5, 6.6)."""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

import attrs

from cpa.config.changes import yaml_key
from cpa.config.schema import (
    ApiKeyEntry,
    ChainConfig,
    ChainMatch,
    ClientLimits,
    Config,
    FrozenJson,
    ImageGeneration,
    ModelEntry,
    OAuthModelAlias,
    OpenAICompatibility,
    PayloadFilterRule,
    PayloadMatch,
    PayloadRawRule,
    PayloadRule,
    PluginEntry,
    ProviderKeyEntry,
    RequestScopedError,
    ThinkingSpec,
    thaw,
)
from cpa.jsontypes import JsonObject, JsonValue

REDACTED: Final = "***"
"""Stands for a secret that somebody did not want to see."""
PRIVATE: Final = ("host", "port", "auth-dir", "remote-management")
"""Top-level keys that the whole configuration is told without (contract)."""

_ALWAYS: Final[Mapping[type, tuple[str, ...]]] = {
    ProviderKeyEntry: ("api_key", "base_url", "proxy_url", "models"),
    OpenAICompatibility: ("name", "base_url", "models"),
    ApiKeyEntry: ("api_key",),
    ModelEntry: ("name", "alias"),
    OAuthModelAlias: ("name", "alias"),
    RequestScopedError: ("status", "action"),
    ThinkingSpec: (),
    ClientLimits: (),
    ChainConfig: ("name", "match", "request", "response"),
    ChainMatch: (),
    PayloadMatch: ("name",),
    PayloadRule: ("models", "params"),
    PayloadRawRule: ("models", "params"),
    PayloadFilterRule: ("models", "params"),
}
"""Classes of which members with defaults are left out, but for these."""
_HOST_KEYS: Final = frozenset({"enabled", "priority", "isolation", "timeout", "on-error"})
"""Keys of a plugin's entry that are ours, and no secrets."""


def config_json(config: Config, *, redact: bool = False) -> JsonObject:
    """All of *config* but `PRIVATE`. *redact*: secrets are `REDACTED`; else they are in clear."""
    whole = _section(config, redact)
    return {key: value for key, value in whole.items() if key not in PRIVATE}


def entry_json(entry: ProviderKeyEntry | OpenAICompatibility) -> JsonObject:
    """One entry of a provider list as it would stand in the file, secrets in clear."""
    return _section(entry, False)


def value_json(value: object) -> JsonValue:
    """Any value of the schema, secrets in clear."""
    return _value(value, False)


def _section(value: Any, redact: bool) -> JsonObject:
    kind = type(value)
    always = _ALWAYS.get(kind)
    told: JsonObject = {}
    for field in attrs.fields(kind):
        inner = getattr(value, field.name)
        if inner is None or (always is not None and field.name not in always and inner == _default(field)):
            continue
        if field.name == "session_affinity_ttl_s":
            told[yaml_key(field.name)] = f"{inner:g}s"
        elif field.name in ("match", "not_match") and kind is PayloadMatch:
            told[yaml_key(field.name)] = [{pair.path: thaw(pair.value)} for pair in inner]
        else:
            encoded = _value(inner, redact)
            told[yaml_key(field.name)] = _hidden(encoded) if redact and field.repr is False else encoded
    return told


def _default(field: Any) -> object:
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time, a function to mypy
        return default.factory()
    return default


def _value(value: Any, redact: bool) -> JsonValue:
    match value:
        case ImageGeneration.ALLOW | ImageGeneration.DISABLE:
            return value is ImageGeneration.DISABLE
        case Enum():
            return str(value.value)
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case re.Pattern():
            return str(value.pattern)
        case tuple():
            return [_value(item, redact) for item in value]
        case Mapping():
            return {str(key): _value(item, redact) for key, item in value.items()}
        case PluginEntry():
            return _plugin(value.raw, redact)
    return _section(value, redact)


def _plugin(raw: FrozenJson, redact: bool) -> JsonValue:
    value: JsonValue = thaw(raw)
    if redact and isinstance(value, dict):
        return {key: item if key in _HOST_KEYS else _hidden(item) for key, item in value.items()}
    return _hidden(value) if redact else value


def _hidden(value: JsonValue) -> JsonValue:
    """*value* without its texts, all of which may be secret."""
    match value:
        case str():
            return REDACTED if value else value
        case list():
            return [_hidden(item) for item in value]
        case dict():
            return {key: _hidden(item) for key, item in value.items()}
    return value
