"""HTTP headers as plugins see them (canonical names, lists of values), and which of them may reach a client."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from cpa.errors import RawHeaders

HeaderMap: TypeAlias = dict[str, list[str]]
"""Canonical name to its values, in order of arrival."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BREAKS = re.compile(r"[\r\n\0]")

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_OURS = frozenset({"set-cookie", "content-length", "content-encoding", "x-cpa-trace-id", "date", "x-accel-buffering"})
_REMOVED = _HOP_BY_HOP | _OURS
_REMOVED_PREFIXES = (
    "proxy-",
    "access-control-",
    # Other gateways in the chain; their bookkeeping is not for our clients.
    "x-litellm-",
    "helicone-",
    "x-portkey-",
    "cf-aig-",
    "x-kong-",
    "x-bt-",
)


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """`content-TYPE` → `Content-Type`; a name that is no HTTP token stays as it is, as in Go's textproto."""
    if _TOKEN.fullmatch(name) is None:
        return name
    # Not str.title(): it would also raise letters after digits and dots.
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def to_map(raw: RawHeaders) -> HeaderMap:
    """Wire headers by canonical name; values are UTF-8, else Latin-1."""
    headers: HeaderMap = {}
    for name, value in raw:
        headers.setdefault(canonical(name.decode("latin-1")), []).append(_text(value))
    return headers


def to_raw(headers: Mapping[str, Sequence[str]]) -> tuple[tuple[bytes, bytes], ...]:
    """Wire headers of a map, names in lower case.

    Plugins write these: names that are no tokens are left out, line breaks in values become spaces, or a value could
    add headers of its own.
    """
    return tuple(
        (name.lower().encode(), _LINE_BREAKS.sub(" ", value).strip().encode("utf-8", "replace"))
        for name, values in headers.items()
        if _TOKEN.fullmatch(name)
        for value in values
    )


def merge(
    current: Mapping[str, Sequence[str]], *, clear: Iterable[str] = (), replace: Mapping[str, Sequence[str] | None]
) -> HeaderMap:
    """What *current* is after an interceptor: *clear* goes first, then each name of *replace* gets exactly its values.

    An empty list removes the header. Names are canonicalised; *current* is not changed.
    """
    headers: HeaderMap = {}
    for name, values in current.items():
        headers.setdefault(canonical(name), []).extend(values)
    for name in clear:
        headers.pop(canonical(name), None)
    for name, new in replace.items():
        headers.pop(canonical(name), None)
        if new:
            headers[canonical(name)] = list(new)
    return headers


def filter_response(raw: RawHeaders) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of *raw* that may reach a client, order and repeats kept."""
    listed = _listed(_text(value) for name, value in raw if name.lower() == b"connection")
    return tuple((name, value) for name, value in raw if not _removed(name.decode("latin-1").lower(), listed))


def _listed(values: Iterable[str]) -> frozenset[str]:
    """Names that a Connection header declares to be hop-by-hop."""
    return frozenset(name.strip().lower() for value in values for name in value.split(","))


def _removed(name: str, listed: frozenset[str]) -> bool:
    return name in _REMOVED or name in listed or name.startswith(_REMOVED_PREFIXES)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
