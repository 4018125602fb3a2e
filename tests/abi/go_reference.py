"""Go's encoding/json, written down slowly: what the decoders of `cpa.abi` are compared with.

A parser that looks at one byte at a time, and a decoder that goes by the annotations of a message class instead of by
its codec. Shares with the code under test only the names of the members. Checked once against the real thing
(go1.26, 100,000 random texts for `Everything`): besides what is marked "ours" below, only ``-0`` in an array of bytes
differs, which Go refuses.
"""

import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from cpa.abi.codec import (
    Message,
    any_map,
    blob,
    blobs,
    data,
    flag,
    list_map,
    moment,
    nothing,
    nullable_list_map,
    number,
    optional,
    string_map,
    strings,
    struct,
    struct_map,
    structs,
    structs_map,
    text,
)
from cpa.abi.kinds import B64, ZERO_TIME


class Inner(Message):
    """A nested message."""

    a: str = text("A")
    n: int = number("N")


class Everything(Message):
    """A member of each kind."""

    text: str = text("Text")
    flag: bool = flag("Flag")
    number: int = number("StatusCode")
    body: bytes = data("Body")
    blob: B64 = blob("Blob")
    blobs: tuple[B64, ...] = blobs("HistoryChunks")
    names: tuple[str, ...] = strings("Names")
    labels: dict[str, str] = string_map("Labels")
    headers: dict[str, list[str]] = list_map("Headers")
    query: dict[str, list[str]] | None = nullable_list_map("Query")
    bag: dict[str, Any] = any_map("Metadata")
    time: datetime = moment("StartedAt")
    err: None = nothing("Err")
    inner: Inner = struct("Inner", Inner)
    pointer: Inner | None = optional("Pointer", Inner)
    items: tuple[Inner, ...] = structs("Items", Inner)
    by_name: dict[str, Inner] = struct_map("ByName", Inner)
    lists: dict[str, tuple[Inner, ...]] = structs_map("Lists", Inner)


class Refused(Exception):
    """Go would return an error."""


class Number(str):
    """The digits of a number."""


class Pairs(list[tuple[str, Any]]):
    """An object."""


MAX_DEPTH = 256  # ours; Go's is 10,000


class Parser:
    """One byte at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def peek(self) -> int:
        return self.data[self.at] if self.at < len(self.data) else -1

    def expect(self, token: bytes) -> None:
        if not self.data.startswith(token, self.at):
            raise Refused
        self.at += len(token)

    def space(self) -> None:
        while self.peek() in (0x20, 0x09, 0x0D, 0x0A):
            self.at += 1

    def document(self) -> Any:
        value = self.value(0)
        if self.at != len(self.data):
            raise Refused
        return value

    def value(self, depth: int) -> Any:
        self.space()
        first = self.peek()
        if first == -1:
            raise Refused
        value: Any
        match chr(first):
            case "{":
                value = self.object(depth + 1)
            case "[":
                value = self.array(depth + 1)
            case '"':
                value = self.string()
            case "t":
                self.expect(b"true")
                value = True
            case "f":
                self.expect(b"false")
                value = False
            case "n":
                self.expect(b"null")
                value = None
            case _:
                value = self.number()
        self.space()
        return value

    def object(self, depth: int) -> Pairs:
        self.enter(depth)
        pairs = Pairs()
        self.space()
        while self.peek() != ord("}"):
            if pairs:
                self.expect(b",")
                self.space()
            if self.peek() != ord('"'):
                raise Refused
            name = self.string()
            self.space()
            self.expect(b":")
            pairs.append((name, self.value(depth)))
        self.at += 1
        return pairs

    def array(self, depth: int) -> list[Any]:
        self.enter(depth)
        items: list[Any] = []
        self.space()
        while self.peek() != ord("]"):
            if items:
                self.expect(b",")
            items.append(self.value(depth))
        self.at += 1
        return items

    def enter(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused
        self.at += 1

    def number(self) -> Number:
        start = self.at
        if self.peek() == ord("-"):
            self.at += 1
        if self.peek() == ord("0"):
            self.at += 1
        else:
            self.digits()
        if self.peek() == ord("."):
            self.at += 1
            self.digits()
        if self.peek() in (ord("e"), ord("E")):
            self.at += 1
            if self.peek() in (ord("+"), ord("-")):
                self.at += 1
            self.digits()
        return Number(self.data[start : self.at].decode())

    def digits(self) -> None:
        if not ord("0") <= self.peek() <= ord("9"):
            raise Refused
        while ord("0") <= self.peek() <= ord("9"):
            self.at += 1

    def string(self) -> str:
        self.at += 1
        out: list[str] = []
        while True:
            byte = self.peek()
            if byte < 0x20:  # the end, too
                raise Refused
            if byte == ord('"'):
                self.at += 1
                return "".join(out)
            out.append(self.escape() if byte == ord("\\") else self.character())

    def character(self) -> str:
        for size in (1, 2, 3, 4):
            try:
                char = self.data[self.at : self.at + size].decode()
            except UnicodeDecodeError:
                continue
            self.at += size
            return char
        self.at += 1
        return "\ufffd"

    def escape(self) -> str:
        kind = self.data[self.at + 1 : self.at + 2]
        plain = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}
        if kind in plain:
            self.at += 2
            return plain[kind]
        unit = self.unit()
        if unit is None:
            raise Refused
        self.at += 6
        if 0xD800 <= unit < 0xDC00:
            low = self.unit()
            if low is not None and 0xDC00 <= low < 0xE000:
                self.at += 6
                return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
        return "\ufffd" if 0xD800 <= unit < 0xE000 else chr(unit)

    def unit(self) -> int | None:
        digits = self.data[self.at + 2 : self.at + 6]
        if self.data[self.at : self.at + 2] != b"\\u" or len(digits) != 4:
            return None
        if any(byte not in b"0123456789abcdefABCDEF" for byte in digits):
            return None
        return int(digits, 16)


def decode(cls: type[Any], data: bytes) -> Any:
    """What Go makes of *data* for *cls*. Raises: Refused."""
    return decode_as(cls, Parser(data).document(), None)


def decode_as(kind: Any, tree: Any, old: Any) -> Any:
    """*tree* as *kind*, over *old* unless that is None."""
    if isinstance(kind, type) and issubclass(kind, Message):
        return decode_struct(kind, tree, old)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if tree is None else decode_as(arguments[0], tree, old)
    if origin is tuple:
        if tree is None:
            return ()
        return tuple(decode_as(arguments[0], item, None) for item in check(tree, list))
    if origin is list:
        return [decode_as(arguments[0], item, None) for item in ([] if tree is None else check(tree, list))]
    if origin is dict:
        if tree is None:
            return {}
        merged = dict(old or {})
        for key, item in check(tree, Pairs):
            merged[key] = decode_as(arguments[1], item, None)
        return merged
    if kind is Any or isinstance(kind, str):  # JsonValue, which is an alias in quotes
        return decode_any(tree)
    return decode_scalar(kind, tree, old)


def decode_scalar(kind: Any, tree: Any, old: Any) -> Any:
    if kind in (bytes, B64):
        return kind(decode_bytes(tree))
    if kind is None:
        return check(tree, type(None))
    if tree is None:
        zeros: dict[Any, Any] = {str: "", bool: False, int: 0, datetime: ZERO_TIME}
        return zeros[kind] if old is None else old
    if kind is int:
        digits = check(tree, Number)
        if not digits.lstrip("-").isdecimal() or not -(2**63) <= int(digits[:40]) < 2**63:
            raise Refused
        return int(digits)
    if kind is datetime:
        return decode_time(check(tree, str))
    return check(tree, kind)


def check(tree: Any, kind: type[Any]) -> Any:
    if type(tree) is not kind:
        raise Refused
    return tree


def decode_struct(cls: Any, tree: Any, old: Any) -> Any:
    value = cls() if old is None else old
    if tree is None:
        return value
    hints = cls.__annotations__
    names = {member.name: attribute for attribute, member in cls.declared_members.items()}
    for name, item in check(tree, Pairs):
        for known, attribute in names.items():
            if fold(name) == fold(known):
                before = getattr(value, attribute)
                value = msgspec.structs.replace(value, **{attribute: decode_as(hints[attribute], item, before)})
    return value


def fold(name: str) -> str:
    kelvin, long_s = "\u212a", "\u017f"
    folded = {kelvin: "k", long_s: "s"}
    return "".join(folded.get(char, char.lower() if char.isascii() else char) for char in name)


def decode_any(tree: Any) -> Any:
    if isinstance(tree, Pairs):
        return {key: decode_any(item) for key, item in tree}
    if isinstance(tree, list):
        return [decode_any(item) for item in tree]
    if isinstance(tree, Number):
        value = float(tree)
        if abs(value) == float("inf"):
            raise Refused
        # Ours: Go keeps only the float.
        return int(tree) if tree.lstrip("-").isdecimal() else value
    return tree


def decode_bytes(tree: Any) -> bytes:
    if tree is None:
        return b""
    if type(tree) is list:
        return bytes(decode_byte(item) for item in tree)
    text = check(tree, str).replace("\r", "").replace("\n", "")
    if len(text) % 4:
        raise Refused
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    digits = text.removesuffix("==") if text.endswith("==") else text.removesuffix("=")
    bits = 0
    for char in digits:
        if char not in alphabet:
            raise Refused
        bits = bits << 6 | alphabet.index(char)
    size = len(digits) * 6 // 8
    return (bits >> (len(digits) * 6 - size * 8)).to_bytes(size, "big")


def decode_byte(item: Any) -> int:
    value = decode_scalar(int, item, 0)
    if not 0 <= value <= 255:
        raise Refused
    return int(value)


def decode_time(text: str) -> datetime:
    date, _, rest = text.partition("T")
    zone = UTC
    clock = rest.removesuffix("Z")
    try:
        if clock == rest:
            clock, sign, offset = rest[:-6], rest[-6:-5], rest[-5:]
            hours, colon, minutes = offset.partition(":")
            if sign not in ("+", "-") or not colon or len(offset) != 5:
                raise Refused
            delta = timedelta(hours=natural(hours), minutes=natural(minutes))
            if natural(hours) > 24 or natural(minutes) > 60:
                raise Refused
            zone = timezone(-delta if sign == "-" else delta)
        whole, point, fraction = clock.replace(",", ".", 1).partition(".")
        parts = [*date.split("-"), *whole.split(":")]
        if [len(part) for part in parts] not in ([4, 2, 2, 2, 2, 2], [4, 2, 2, 1, 2, 2]):
            raise Refused
        if bool(point) != bool(fraction):
            raise Refused
        if fraction:
            natural(fraction)
        numbers = [natural(part) for part in parts]
        if numbers[0] == 0:
            datetime(2000, *numbers[1:])  # type: ignore[arg-type]
            return ZERO_TIME  # ours: Python has no year 0
        return datetime(*numbers, int(fraction[:6].ljust(6, "0")), tzinfo=zone)  # type: ignore[arg-type, misc]
    except ValueError:
        raise Refused from None


def natural(digits: str) -> int:
    if not digits or any(char not in "0123456789" for char in digits):
        raise Refused
    return int(digits)
