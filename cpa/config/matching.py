"""Which items of a changed list are those of the old one, so that each keeps its text and its comments."""

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Final

from cpa.config.tree import text_of
from cpa.jsontypes import JsonValue

_IDENTITIES: Final = (("name", "alias", "api-key", "base-url"), ("name",), ("api-key",), ("alias",), ("base-url",))
"""Keys that tell what an entry is, the surest first."""


def matched(old: Sequence[JsonValue], new: Sequence[JsonValue]) -> dict[int, int]:
    """Index in *new* to index in *old*: equal items, then entries of the same name or key, then what is left in order.

    What is left is matched only where that moves nothing.
    """
    pairs: dict[int, int] = {}
    _pair(pairs, map(_spelling, old), map(_spelling, new))
    for keys in _IDENTITIES:
        _pair(pairs, (_identity(item, keys) for item in old), (_identity(item, keys) for item in new))
    _pair_rest(pairs, old, new)
    return pairs


def _spelling(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True)


def _identity(value: JsonValue, keys: Iterable[str]) -> str:
    if not isinstance(value, dict):
        return ""
    texts = [text_of(value.get(key)) for key in keys]
    return json.dumps(texts) if any(texts) else ""


def _pair(pairs: dict[int, int], old: Iterable[str], new: Iterable[str]) -> None:
    """Add those that are called the same; nameless ones are left alone."""
    taken = set(pairs.values())
    free: defaultdict[str, deque[int]] = defaultdict(deque)
    for index, name in enumerate(old):
        if name and index not in taken:
            free[name].append(index)
    for index, name in enumerate(new):
        if name and index not in pairs and free[name]:
            pairs[index] = free[name].popleft()


def _pair_rest(pairs: dict[int, int], old: Sequence[JsonValue], new: Sequence[JsonValue]) -> None:
    """Match what is left between the same neighbours."""
    taken = set(pairs.values())
    before = -1
    for index, item in enumerate(new):
        if index in pairs:
            before = max(before, pairs[index])
            continue
        after = min((pairs[later] for later in pairs if later > index), default=len(old))
        for candidate in range(before + 1, after):
            if candidate not in taken and type(old[candidate]) is type(item):
                pairs[index] = candidate
                taken.add(candidate)
                before = candidate
                break
