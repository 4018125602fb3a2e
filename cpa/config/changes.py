"""What differs between two configurations, in words that may be logged: no secret is ever in them.

Fields that are kept out of a class's repr are the secret ones; of these only "changed" is said, or how many.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import attrs

from cpa.config.schema import Config, OpenAICompatibility, PluginEntry, ProviderKeyEntry

RESTART_KEYS = ("host", "port", "tls", "commercial-mode", "workers")
"""Keys that a running server cannot take up."""

_YAML_NAMES = {"session_affinity_ttl_s": "session-affinity-ttl", "source": "from", "target": "to"}


def yaml_key(attribute: str) -> str:
    """The YAML key of a schema class's *attribute*."""
    return _YAML_NAMES.get(attribute, attribute.replace("_", "-"))


def restart_keys_changed(old: Config, new: Config) -> tuple[str, ...]:
    """Those of `RESTART_KEYS` whose values differ: what is used stays the old one until a restart."""
    return tuple(key for key in RESTART_KEYS if _value(old, key) != _value(new, key))


def restart_needed(old: Config, new: Config) -> tuple[str, ...]:
    """All keys whose new values are not in force before a restart: what depends on them was built once."""
    pairs = {
        "limits.connect-seconds": (old.limits.connect_seconds, new.limits.connect_seconds),
        "metrics.enabled": (old.metrics.enabled, new.metrics.enabled),
        "usage.ledger.enabled": (old.usage.ledger.enabled, new.usage.ledger.enabled),
        "state": (old.state, new.state),
        "usage.ledger.path": (old.usage.ledger.path, new.usage.ledger.path),
    }
    return (*restart_keys_changed(old, new), *(key for key, (before, after) in pairs.items() if before != after))


def _value(config: Config, key: str) -> object:
    return getattr(config, key.replace("-", "_"))


def describe_changes(old: Config, new: Config) -> list[str]:
    """One line per difference, in the order of the schema; empty when both are equal."""
    return list(_section(old, new, path=""))


def _section(old: Any, new: Any, *, path: str) -> Iterator[str]:
    for field in attrs.fields(type(new)):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        key = yaml_key(field.name)
        name = f"{path}.{key}" if path else key
        if attrs.has(type(after)) and not isinstance(after, Enum):
            yield from _section(before, after, path=name)
        elif isinstance(after, Mapping) and field.repr is not False:
            yield from (f"{name}: {line}" for line in _named(before, after))
        elif _is_entries(before) or _is_entries(after):
            yield from (f"{name}: {line}" for line in _entries(before, after))
        else:
            yield f"{name}: {_change(before, after, secret=field.repr is False, counted=False)}"


def _is_entries(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], OpenAICompatibility | ProviderKeyEntry)


def _change(before: object, after: object, *, secret: bool, counted: bool) -> str:
    if isinstance(before, tuple) and isinstance(after, tuple):
        if counted and len(before) != len(after):
            return f"{len(before)} -> {len(after)}"
        added = sum(item not in before for item in after)
        removed = sum(item not in after for item in before)
        parts = [f"{count} {word}" for count, word in ((added, "added"), (removed, "removed")) if count]
        return ", ".join(parts) or "order changed"
    if secret or isinstance(before, Mapping):
        return "changed" if before and after else "set" if after else "removed"
    return f"{_shown(before)} -> {_shown(after)}"


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "unset"
        case float():
            return f"{value:g}"
        case "":
            return '""'
        case _:
            return str(value)


def _named(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Differences of mappings with free keys: plugins, OAuth tables."""
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            yield f"{name}: removed"
        elif name not in before:
            yield f"{name}: added"
        elif before[name] != after[name]:
            yield from _entry(name, before[name], after[name])


def _entries(before: tuple[Any, ...], after: tuple[Any, ...]) -> Iterator[str]:
    """Differences of a provider list. Entries are matched by what they are, not by their place in the list."""
    old, new = _by_label(before), _by_label(after)
    labels = list(dict.fromkeys((*old, *new)))
    for label in labels:
        if label in old and label in new and old[label] != new[label]:
            yield from _entry(label[1], old[label], new[label])
    added = [label for label in labels if label not in old]
    removed = [label for label in labels if label not in new]
    yield from (f"{label[1]}: added" for label in added)
    yield from (f"{label[1]}: removed" for label in removed)
    if not added and not removed and list(old) != list(new):
        yield "order changed"


def _by_label(entries: tuple[Any, ...]) -> dict[tuple[str, str, int], Any]:
    """Entries by (identity, name for messages, how many of this identity came before). The identity may be secret."""
    found: dict[tuple[str, str, int], Any] = {}
    seen: dict[str, int] = {}
    for entry in entries:
        identity, shown = _identity(entry)
        count = seen.get(identity, 0)
        seen[identity] = count + 1
        found[(identity, shown, count)] = entry
    return found


def _identity(entry: OpenAICompatibility | ProviderKeyEntry) -> tuple[str, str]:
    if isinstance(entry, OpenAICompatibility):
        return entry.name, entry.name or "(no name)"
    shown = entry.base_url or "key of the vendor"
    return "\0".join((entry.api_key, entry.base_url)), f"{shown} (prefix {entry.prefix})" if entry.prefix else shown


def _entry(name: str, before: object, after: object) -> Iterator[str]:
    if type(before) is not type(after) or not attrs.has(type(after)):
        yield f"{name}: {_change(before, after, secret=True, counted=False)}"
        return
    changes = []
    kind: Any = type(after)
    for field in attrs.fields(kind):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new or (isinstance(after, PluginEntry) and field.name in ("raw", "config_yaml")):
            continue
        changes.append(f"{yaml_key(field.name)} {_change(old, new, secret=field.repr is False, counted=True)}")
    yield f"{name}: {', '.join(changes) or 'own settings changed'}"
