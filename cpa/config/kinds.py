"""Kinds of values that only this configuration has: URLs, durations, weights, patterns, headers, addresses.

Messages of this module never repeat what may hold a secret: URLs (user info, query), headers, keys.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import SplitResult, urlsplit

from cpa.config.fields import At, Kind, UnusableValue, list_of, map_of, text
from cpa.config.nodes import Entry, ScalarNode, shown_key

MAX_WEIGHT = 1_000_000
"""Largest weight of the contract; a larger one fails the whole file."""
MAX_REGEX_CHARS = 4096
"""Longest expression; error bodies are searched with it on the request's path."""

_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_SECONDS = {
    **{"ns": Decimal("1e-9"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"), "μs": Decimal("1e-6")},
    **{"ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)},
}
_MAX_DURATION_S = 2**63 / 1e9
"""Go counts durations in 64-bit nanoseconds."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PLUGIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_MIDDLE_FLAGS = re.compile(r"(?<!^)\(\?[imsU]+(-[imsU]+)?\)")
_POSIX_CLASS = re.compile(r"\[\[:\^?[a-z]+:\]")

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
"""What ``proxy-url`` may begin with."""


def duration_seconds(value: str) -> float | None:
    """Seconds of a Go duration (``90s``, ``1h30m``, ``1.5h``, ``0``); None when it is none."""
    sign, rest = (-1, value[1:]) if value.startswith("-") else (1, value.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, position = Decimal(0), 0
    while position < len(rest):
        part = _DURATION_PART.match(rest, position)
        if part is None:
            return None
        total += Decimal(part[1]) * _UNIT_SECONDS[part[2]]
        position = part.end()
    return sign * float(total) if rest and total < _MAX_DURATION_S else None


def positive_duration(at: At) -> float:
    """A Go duration above zero, in seconds."""
    seconds = duration_seconds(at.node.text.strip()) if isinstance(at.node, ScalarNode) else None
    if seconds is None or seconds <= 0:
        raise at.reject("a duration above zero such as 90s, 30m or 1h30m")
    return seconds


def timeout_seconds(at: At) -> float:
    """A plugin's ``timeout``: seconds, 0 = none. Go durations are taken too: plugins have keys of that name."""
    if isinstance(at.node, ScalarNode) and not isinstance(at.node.value, bool | None):
        value = at.node.value
        seconds = duration_seconds(value.strip()) if isinstance(value, str) else float(value)
        if seconds is not None and 0 <= seconds <= _MAX_DURATION_S:
            return seconds
    raise at.reject("a number of seconds of at least 0, or a duration such as 90s")


def _split(at: At, expected: str) -> SplitResult:
    value = text(expected, secret=True)(at)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise at.reject(expected, got="a string that is not a URL") from None
    if port == 0 or any(character.isspace() for character in value):
        raise at.reject(expected, got="a string that is not a URL")
    return parts


def base_url(at: At) -> str:
    """An http or https URL with a host, returned without trailing slashes; empty stays empty."""
    expected = "an http or https URL with a host"
    parts = _split(at, expected)
    value = text(expected, secret=True)(at)
    if not value:
        return ""
    if parts.scheme not in ("http", "https"):
        raise at.reject(expected, got=_scheme(parts))
    if not parts.hostname:
        raise at.reject(expected, got="a URL without a host")
    if parts.username is not None or parts.password is not None:
        raise at.reject(expected, got="a URL with a user name; use api-key or headers")
    if parts.query or parts.fragment:
        raise at.reject(expected, got="a URL with a query or fragment, to which no path can be added")
    return value.rstrip("/")


def proxy_url(at: At) -> str:
    """``direct`` (also for ``none``), a proxy's URL, or empty."""
    expected = f"direct, none or a URL with one of {', '.join(PROXY_SCHEMES)} and a host"
    value = text(expected, secret=True)(at)
    if not value or value.lower() in ("direct", "none"):
        return "direct" if value else ""
    parts = _split(at, expected)
    if parts.scheme not in PROXY_SCHEMES:
        raise at.reject(expected, got=_scheme(parts))
    if not parts.hostname:
        raise at.reject(expected, got="a URL without a host")
    return value


def state_url(at: At) -> str:
    """Address of a Redis or Valkey server; empty stays empty."""
    expected = "a URL with one of redis, rediss, unix"
    parts = _split(at, expected)
    value = text(expected, secret=True)(at)
    if value and parts.scheme not in ("redis", "rediss", "unix"):
        raise at.reject(expected, got=_scheme(parts))
    if value and not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise at.reject(expected, got="a URL that names no server")
    return value


def _scheme(parts: SplitResult) -> str:
    # "user:password@host" parses as scheme "user": name a scheme only where "//" shows that it is one.
    return (
        f"a URL with the scheme {parts.scheme[:16]!r}" if parts.scheme and parts.netloc else "a string without scheme"
    )


def bind_host(at: At) -> str:
    """An address or host name to bind; empty = all interfaces."""
    value = text("an address or host name")(at)
    if not value or _HOST_NAME.fullmatch(value):
        return value
    try:
        ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        # A URL with a password may stand here by mistake.
        expected = "an address or host name without scheme, port or brackets"
        raise at.reject(expected, secret="@" in value) from None
    return value


def network(at: At) -> str:
    """An IP address or network in CIDR form, normalised."""
    value = text("an address or network")(at)
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise at.reject("an IP address or a network such as 10.0.0.0/8") from None


def weight(at: At) -> int:
    """0..`MAX_WEIGHT`; negative numbers mean 0 = never chosen by weighted round-robin."""
    value = at.node.value if isinstance(at.node, ScalarNode) else None
    if not isinstance(value, int) or isinstance(value, bool) or value > MAX_WEIGHT:
        raise at.reject(f"an integer of at most {MAX_WEIGHT}")
    return max(value, 0)


def prefix(at: At) -> str:
    """A model prefix without blanks and slashes around it; one with a slash inside is ignored, with a warning."""
    value = text("a model prefix")(at).strip("/ \t")
    if "/" in value:
        at.warn("a prefix cannot contain '/'; ignored")
        return ""
    return value


def excluded_models(at: At) -> tuple[str, ...]:
    """Patterns with ``*``: trimmed, lower case, none empty, none twice."""
    return unique(item.lower() for item in list_of(optional_text("a model pattern"), "model patterns")(at))


def client_keys(at: At) -> tuple[str, ...]:
    """Keys: trimmed, none empty, none twice."""
    return unique(list_of(optional_text("a key", secret=True), "keys")(at))


def optional_text(what: str, *, secret: bool = False) -> Kind[str]:
    """Text; nothing at all counts as empty (for items of lists, which are then left out)."""
    read = text(what, secret=secret)

    def kind(at: At) -> str:
        if isinstance(at.node, ScalarNode) and at.node.value is None:
            return ""
        return read(at)

    return kind


def unique(items: Iterable[str]) -> tuple[str, ...]:
    """*items* in order, without empty ones and repeats."""
    return tuple(dict.fromkeys(item for item in items if item))


def texts(what: str, *, secret: bool = False) -> Kind[tuple[str, ...]]:
    """A list of texts: trimmed, none empty, none twice."""

    def kind(at: At) -> tuple[str, ...]:
        return unique(list_of(optional_text(what, secret=secret), "strings")(at))

    return kind


def regular_expression(at: At) -> re.Pattern[str]:
    """A regular expression, RE2 as far as Python's engine has it.

    What Python would read otherwise than RE2 without saying so is refused.
    """
    expected = "a regular expression"
    if not isinstance(at.node, ScalarNode) or at.node.value is None:
        raise at.reject(expected)
    source = at.node.text
    if len(source) > MAX_REGEX_CHARS:
        raise at.reject(f"{expected} of at most {MAX_REGEX_CHARS} characters")
    if _POSIX_CLASS.search(source):
        raise at.reject(expected, got="one with a POSIX class such as [[:alpha:]], which is not supported")
    if _MIDDLE_FLAGS.search(source):
        raise at.reject(expected, got="one with flags that are not at its beginning; write (?i:…)")
    try:
        return re.compile(re.sub(r"(?<!\\)((?:\\\\)*)\\z", r"\1\\Z", source))
    except (re.error, OverflowError, RecursionError) as exc:
        raise at.reject(expected, got=f"an invalid one: {exc}") from None


def headers(at: At) -> Mapping[str, str]:
    """HTTP headers: valid names, values without line breaks. Values may be secrets."""
    return map_of(_header_value, "header names to values", key=header_name)(at)


def header_name(at: At, entry: Entry) -> str:
    """An HTTP header name, trimmed."""
    name = entry.key.strip()
    if not _HEADER_NAME.fullmatch(name):
        at.findings.problem(entry.line, at.path, f"expected a header name, got {shown_key(entry.key)}")
        raise UnusableValue
    return name


def _header_value(at: At) -> str:
    if not isinstance(at.node, ScalarNode) or at.node.value is None:
        raise at.reject("a header value", secret=True)
    value = at.node.text.strip()
    if _HEADER_VALUE_FORBIDDEN.search(value):
        raise at.reject("a header value", got="a string with control characters")
    return value


def lower_headers(at: At) -> Mapping[str, str]:
    """As `headers`, names in lower case: for comparing."""
    return MappingProxyType({name.lower(): value for name, value in headers(at).items()})


def plugin_id(at: At, entry: Entry) -> str:
    """The key of a plugin's settings."""
    if not _PLUGIN_ID.fullmatch(entry.key):
        expected = "a plugin id (1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit)"
        at.findings.problem(entry.line, at.path, f"expected {expected}, got {shown_key(entry.key)}")
        raise UnusableValue
    return entry.key


def channel(at: At, entry: Entry) -> str:
    """A provider or channel name, in lower case."""
    name = entry.key.strip().lower()
    if not name:
        at.findings.problem(entry.line, at.path, "expected a provider name, got an empty string")
        raise UnusableValue
    return name
