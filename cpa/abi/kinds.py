"""Kinds of values on the wire: how Go's encoding/json writes each, and what it accepts for it.

A ``decode_…`` function takes a tree of `gojson.parse` and what an earlier occurrence of the member left, or the zero
value. As in Go, ``null`` leaves scalars as they are and empties everything else, repeated maps are merged, and of
repeated lists the last counts. It raises `GoJsonError` on a wrong type; no type is converted into another.

An ``encode_…`` function gives JSON text without white space, non-ASCII raw; empty lists, maps and bytes are ``null``.

Not as Go, on purpose: times keep microseconds, their text may contain escapes, and ``-0`` is a byte.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
import pybase64

from cpa.abi.gojson import OUT_OF_RANGE, GoJsonError, Members, Tree, mismatch, parse, to_text, without_surrogates
from cpa.types import JsonObject

T = TypeVar("T")

ZERO_TIME: Final = datetime(1, 1, 1, tzinfo=UTC)
"""Go's zero `time.Time`: "not set"."""

# --- scalars ---------------------------------------------------------------------------------------------------------

_encode_json = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def encode_text(value: str) -> bytes:
    """A JSON string; lone surrogates, which UTF-8 cannot carry, become U+FFFD."""
    try:
        return _encode_json(value)
    except UnicodeEncodeError:
        return _encode_json(without_surrogates(value))


def decode_text(tree: Tree, old: str) -> str:
    if type(tree) is str:
        return tree
    if tree is None:
        return old
    raise mismatch(tree, "string")


def encode_flag(value: bool) -> bytes:
    return b"true" if value else b"false"


def decode_flag(tree: Tree, old: bool) -> bool:
    if type(tree) is bool:
        return tree
    if tree is None:
        return old
    raise mismatch(tree, "bool")


def encode_number(value: int) -> bytes:
    return b"%d" % value


def decode_number(tree: Tree, old: int) -> int:
    if type(tree) is int and -(2**63) <= tree < 2**63:
        return tree
    if tree is None:
        return old
    raise mismatch(tree, "int")


_LINE_BREAKS = {0x0A: None, 0x0D: None}
_MAX_BYTE = 255


def decode_base64(text: str) -> bytes:
    """Standard alphabet with padding; CR and LF are skipped. Raises: GoJsonError."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        # Rare, so only now: a pass over every body would cost as much as decoding it.
        try:
            return pybase64.b64decode(text.translate(_LINE_BREAKS), validate=True)
        except ValueError:
            raise GoJsonError("illegal base64 data") from None


def decode_bytes(tree: Tree, old: bytes) -> bytes:
    if type(tree) is str:
        return decode_base64(tree)
    if tree is None:
        return b""
    if type(tree) is not list:
        raise mismatch(tree, "bytes")
    octets = [0 if item is None else item for item in tree]
    if any(type(item) is not int or not 0 <= item <= _MAX_BYTE for item in octets):
        raise GoJsonError("cannot unmarshal array with other items than 0..255 into bytes")
    return bytes(octets)


def encode_base64(value: bytes) -> bytes:
    """A JSON string; ``null`` for no bytes."""
    return b'"%b"' % pybase64.b64encode(value) if value else b"null"


class B64:
    """Bytes that travel as base64 and remember their text: one value serves all plugin calls of an exchange.

    Immutable. An empty one is ``null`` on the wire, which every plugin reads as "none", unless it is *present*: then
    it is the empty string, as an empty but existing slice of Go's (plugin-abi 2.4).
    """

    __slots__ = ("_data", "_present", "_text")

    def __init__(self, data: bytes = b"", *, present: bool = False) -> None:
        self._data = data
        self._present = present or bool(data)
        self._text: bytes | None = None

    @property
    def data(self) -> bytes:
        """The bytes themselves."""
        return self._data

    @property
    def quote(self) -> bytes:
        """What stands on both sides of `text` in JSON. Apart, so that a large text is not copied for two characters."""
        return b'"' if self._present else b""

    @property
    def text(self) -> bytes:
        """The base64 text, made at the first use; ``null`` for no bytes."""
        if self._text is None:
            self._text = pybase64.b64encode(self._data) if self._present else b"null"
        return self._text

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return self._data == other._data if isinstance(other, B64) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._data)

    def __repr__(self) -> str:
        return f"B64(<{len(self._data)} bytes>)"  # bodies and credentials stay out of logs


NO_BYTES: Final = B64()
"""The empty value, shared."""


def encode_blob(value: B64) -> bytes:
    """`encode_base64` with a memory. Whoever joins pieces anyway takes `B64.quote` and `B64.text` instead."""
    return value.quote + value.text + value.quote


def decode_blob(tree: Tree, old: B64) -> B64:
    return B64(decode_bytes(tree, b""))


def encode_time(value: datetime) -> bytes:
    """RFC 3339 with the zeros at the end of the fraction cut. Raises: ValueError for a time without zone."""
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("a time on the wire needs a zone")
    if offset.seconds % 60 or offset.microseconds:
        value = value.astimezone(UTC)  # RFC 3339 has no seconds in offsets
        offset = timedelta()
    fraction = f".{value.microsecond:06}".rstrip("0") if value.microsecond else ""
    if offset:
        sign, minutes = ("-", -offset) if offset < timedelta() else ("+", offset)
        hours, rest = divmod(int(minutes.total_seconds()) // 60, 60)
        zone = f"{sign}{hours:02}:{rest:02}"
    else:
        zone = "Z"
    seconds = value.replace(microsecond=0, tzinfo=None).isoformat()
    return f'"{seconds}{fraction}{zone}"'.encode()


# One digit of hour and a comma are accepted by Go's decoder, RFC 3339 knows neither.
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d?):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


def parse_time(text: str) -> datetime:
    """RFC 3339; digits beyond microseconds are cut. Year 0, which Python does not have, is `ZERO_TIME`.

    Raises: GoJsonError.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise GoJsonError("cannot parse time")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    microsecond = int((match[7] or "")[:6].ljust(6, "0"))
    try:
        zone = UTC
        if match[8] is not None:
            offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
            zone = timezone(-offset if match[8] == "-" else offset)
        # Year 0 is a leap year, like 2000.
        value = datetime(year or 2000, month, day, hour, minute, second, microsecond, tzinfo=zone)
    except ValueError as exc:
        raise GoJsonError(f"cannot parse time: {exc}") from None
    return value if year else ZERO_TIME


def decode_time(tree: Tree, old: datetime) -> datetime:
    if type(tree) is str:
        return parse_time(tree)
    if tree is None:
        return old
    raise mismatch(tree, "time")


def decode_nothing(tree: Tree, old: None) -> None:
    if tree is not None:
        raise mismatch(tree, "an interface, which only null fits")


# --- lists, maps and free-form values --------------------------------------------------------------------------------


def encode_strings(value: Iterable[str]) -> bytes:
    texts = [encode_text(item) for item in value]
    return b"[%b]" % b",".join(texts) if texts else b"null"


def decode_strings(tree: Tree, old: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_string_list(tree))


def _string_list(tree: Tree) -> list[str]:
    if tree is None:
        return []
    if type(tree) is not list:
        raise mismatch(tree, "list of strings")
    return [decode_text(item, "") for item in tree]


class Blobs(tuple[B64, ...]):
    """A list of bytes that remembers its JSON: one value serves all plugins that get it."""

    _json: bytes = b""

    @property
    def json(self) -> bytes:
        """The list on the wire, made at the first use."""
        if not self._json:
            self._json = _encode_blobs(self)
        return self._json


def encode_blobs(value: Iterable[B64]) -> bytes:
    return value.json if isinstance(value, Blobs) else _encode_blobs(value)


def _encode_blobs(value: Iterable[B64]) -> bytes:
    texts = [b'"%b"' % item.text if item else b'""' for item in value]
    return b"[%b]" % b",".join(texts) if texts else b"null"


def decode_blobs(tree: Tree, old: tuple[B64, ...]) -> tuple[B64, ...]:
    if tree is None:
        return ()
    if type(tree) is not list:
        raise mismatch(tree, "list of bytes")
    return tuple(B64(decode_bytes(item, b"")) for item in tree)


def encode_plain_map(value: Mapping[str, Any]) -> bytes:
    """A map of strings or of lists of strings: keys in ascending byte order."""
    if not value:
        return b"null"
    try:
        return _encode_sorted(value)
    except UnicodeEncodeError:
        return encode_any(value)


def map_items(tree: Tree, expected: str) -> Iterable[tuple[str, Tree]]:
    if tree is None:
        return ()
    if isinstance(tree, dict | Members):
        return tree.items()
    raise mismatch(tree, expected)


def over(old: dict[str, T] | None, tree: Tree, new: dict[str, T]) -> dict[str, T]:
    """Go decodes a repeated map into the first; ``null`` empties it."""
    return {**old, **new} if old and tree is not None else new


def decode_string_map(tree: Tree, old: dict[str, str]) -> dict[str, str]:
    return over(old, tree, {key: decode_text(item, "") for key, item in map_items(tree, "map of strings")})


def decode_list_map(tree: Tree, old: dict[str, list[str]] | None) -> dict[str, list[str]]:
    return over(old, tree, {key: _string_list(item) for key, item in map_items(tree, "map of lists of strings")})


def encode_nullable_list_map(value: Mapping[str, list[str]] | None) -> bytes:
    return encode_plain_map(value) if value else (b"null" if value is None else b"{}")


def decode_nullable_list_map(tree: Tree, old: dict[str, list[str]] | None) -> dict[str, list[str]] | None:
    return None if tree is None else decode_list_map(tree, old)


def encode_any(value: Any) -> bytes:
    """Plain values as Go writes them: keys sorted, floats without needless fraction or exponent, NaN as ``null``."""
    try:
        encoded = _encode_sorted(value)
    except (UnicodeEncodeError, OverflowError):
        return _encode_slowly(value)
    # False hits in strings cost time only. `200.0` must be `200`: Go's integers do not read a fraction.
    return _encode_slowly(value) if _FLOAT.search(encoded) else encoded


_FLOAT = re.compile(rb"(?:^|[:\[,])-?[0-9]+[.eE]")
_EXPONENT = re.compile(r"e([+-])0*(?=\d)")
_SMALLEST_PLAIN = 1e-6
_FIRST_EXPONENTIAL = 1e21


def _encode_slowly(value: Any) -> bytes:
    if isinstance(value, str):
        return encode_text(value)
    if isinstance(value, float):
        return _encode_float(value)
    if isinstance(value, Mapping):
        # By code point, which is also the order of the UTF-8 bytes.
        items = (b"%b:%b" % (encode_text(key), _encode_slowly(value[key])) for key in sorted(value))
        return b"{%b}" % b",".join(items)
    if isinstance(value, list | tuple):
        return b"[%b]" % b",".join(_encode_slowly(item) for item in value)
    return _encode_json(value)


def _encode_float(value: float) -> bytes:
    if value != value or value in (float("inf"), float("-inf")):
        return b"null"
    if value and not _SMALLEST_PLAIN <= abs(value) < _FIRST_EXPONENTIAL:
        return _EXPONENT.sub(r"e\1", repr(value)).encode()
    plain = format(Decimal(repr(value)), "f")
    return (plain.rstrip("0").rstrip(".") if "." in plain else plain).encode()


def encode_any_map(value: Mapping[str, Any]) -> bytes:
    return encode_any(value) if value else b"null"


def decode_any_map(tree: Tree, old: JsonObject) -> JsonObject:
    return over(old, tree, {key: _plain(item) for key, item in map_items(tree, "map")})


def _plain(tree: Tree) -> Any:
    """A free-form value: repeated keys collapsed, numbers beyond float64 refused."""
    if isinstance(tree, dict | Members):
        return {key: _plain(item) for key, item in tree.items()}
    if type(tree) is list:
        return [_plain(item) for item in tree]
    if tree is OUT_OF_RANGE:
        raise mismatch(tree, "float64")
    return tree


def compact(data: bytes) -> bytes:
    """One JSON text without white space, numbers as written; no bytes are ``null``. Raises: GoJsonError."""
    if not data:
        return b"null"
    parse(data)
    return msgspec.json.format(to_text(data).encode(), indent=-1)
