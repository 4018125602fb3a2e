"""Messages as tables: what both directions of every message of the contract run on.

A message class is a `Message` whose fields are made by the functions below. Each names its member and says of which
kind it is; the order of the fields is the order on the wire. A `Codec`, made once per class, is the table made of them.
There is no other code per message::

    class StreamCloseRequest(Message):
        stream_id: str = text("stream_id")
        error: str = text("error", omit=True)

*Reading* follows Go's encoding/json: names match exactly or else ignoring ASCII case, unknown members are ignored, a
wrong type is an error, ``null`` is the zero value, a member met again is decoded over what the first left (one
exception: objects in a repeated list of objects start from zero, where Go reuses the first list's).

*Writing* always emits all members, except those declared with ``omit=True`` when they are empty.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar, dataclass_transform

import attrs
import msgspec

from cpa.abi import kinds
from cpa.abi.gojson import GoJsonError, Members, Tree, mismatch, parse, parse_members

T = TypeVar("T")

Encode = Callable[[Any], bytes]
Decode = Callable[[Any, Any], Any]
"""(tree, what an earlier occurrence of the member left, else the zero value or None) → value. Raises: GoJsonError."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What a field function says of its member.

    Attributes:
      name: on the wire.
      default: the zero value; None where *factory* makes a new one each time.
      omit: left out when empty. *raw*: JSON within JSON. *secret*: kept out of `repr`.
    """

    name: str
    encode: Encode
    decode: Decode
    default: Any = None
    factory: Callable[[], Any] | None = None
    omit: bool = False
    raw: bool = False
    secret: bool = False


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _MessageType(msgspec.StructMeta):
    """Makes message classes: the fields get their zero values, the table of what was declared stands beside them."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> "_MessageType":
        declared = {key: value for key, value in namespace.items() if isinstance(value, Member)}
        for key, member in declared.items():
            made = msgspec.field(default_factory=member.factory) if member.factory is not None else member.default
            namespace[key] = made
        namespace["declared_members"] = declared
        return super().__new__(mcls, name, bases, namespace, frozen=True, kw_only=True)


class Message(msgspec.Struct, metaclass=_MessageType):
    """One message of the contract: an immutable value with members by keyword.

    Structs of msgspec, not attrs classes: there are a hundred of them, and these take a fiftieth of the time to make.

    Attributes:
      declared_members: what stands on the wire, by attribute, in wire order.
    """

    declared_members: ClassVar[Mapping[str, Member]]

    def __repr__(self) -> str:
        shown = (f"{key}={value!r}" for key, value in self.__rich_repr__())
        return f"{type(self).__name__}({', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What may be shown. Secrets stay where they are."""
        return [(key, getattr(self, key)) for key, member in self.declared_members.items() if not member.secret]


class _New(msgspec.Struct, frozen=True):
    """A zero value that is made anew each time."""

    factory: Callable[[], Any]


def _member(
    name: str,
    encode: Encode,
    decode: Decode,
    default: Any,
    *,
    omit: bool = False,
    secret: bool = False,
    raw: bool = False,
) -> Any:
    if isinstance(default, _New):
        return Member(
            name=name, encode=encode, decode=decode, factory=default.factory, omit=omit, raw=raw, secret=secret
        )
    return Member(name=name, encode=encode, decode=decode, default=default, omit=omit, raw=raw, secret=secret)


def text(name: str, *, omit: bool = False, secret: bool = False) -> Any:
    """A string. *omit*: left out when empty; *secret*: kept out of `repr`. So for all kinds."""
    return _member(name, kinds.encode_text, kinds.decode_text, "", omit=omit, secret=secret)


def error_text(name: str) -> Any:
    """A string where Go's contract has an error, which cannot travel: ``null`` when empty, as without an error."""
    return _member(name, lambda value: kinds.encode_text(value) if value else b"null", kinds.decode_text, "")


def flag(name: str, *, omit: bool = False) -> Any:
    """A bool."""
    return _member(name, kinds.encode_flag, kinds.decode_flag, False, omit=omit)


def number(name: str, *, omit: bool = False) -> Any:
    """An integer of 64 bits."""
    return _member(name, kinds.encode_number, kinds.decode_number, 0, omit=omit)


def blob(name: str, *, secret: bool = False) -> Any:
    """Bytes of a request, as `B64`: the text is shared by all calls that send them."""
    return _member(name, kinds.encode_blob, kinds.decode_blob, kinds.NO_BYTES, secret=secret)


def blobs(name: str) -> Any:
    """A tuple of `B64`."""
    return _member(name, kinds.encode_blobs, kinds.decode_blobs, ())


def data(name: str, *, omit: bool = False, secret: bool = False) -> Any:
    """Bytes of a result, as `bytes`."""
    return _member(name, kinds.encode_base64, kinds.decode_bytes, b"", omit=omit, secret=secret)


def moment(name: str) -> Any:
    """A `datetime` with zone; `ZERO_TIME` when not set. Never left out, as in Go."""
    return _member(name, kinds.encode_time, kinds.decode_time, kinds.ZERO_TIME)


def nothing(name: str) -> Any:
    """A member that only ``null`` fits: a Go interface that cannot travel."""
    return _member(name, lambda _: b"null", kinds.decode_nothing, None)


def strings(name: str, *, omit: bool = False) -> Any:
    """A tuple of strings."""
    return _member(name, kinds.encode_strings, kinds.decode_strings, (), omit=omit)


def string_map(name: str, *, secret: bool = False) -> Any:
    """``dict[str, str]``."""
    return _member(name, kinds.encode_plain_map, kinds.decode_string_map, _New(dict), secret=secret)


def list_map(name: str, *, omit: bool = False, secret: bool = False) -> Any:
    """``dict[str, list[str]]``: headers, query."""
    return _member(name, kinds.encode_plain_map, kinds.decode_list_map, _New(dict), omit=omit, secret=secret)


def nullable_list_map(name: str) -> Any:
    """``dict[str, list[str]] | None``: for results of the host that tell ``{}`` from ``null``."""
    return _member(name, kinds.encode_nullable_list_map, kinds.decode_nullable_list_map, None)


def any_map(name: str, *, omit: bool = False, secret: bool = False) -> Any:
    """A `JsonObject` of free-form values."""
    return _member(name, kinds.encode_any_map, kinds.decode_any_map, _New(dict), omit=omit, secret=secret)


def embedded(name: str, *, secret: bool = False) -> Any:
    """JSON within JSON, as its text (`bytes`): read as it stands, written without white space; empty = absent."""
    return _member(name, kinds.compact, kinds.decode_nothing, b"", secret=secret, raw=True)


def undecoded(name: str) -> Any:
    """What `parse` gave, to be judged later."""
    return _member(name, kinds.encode_any, lambda value, _: value, None)


def struct(name: str, cls: type[Any]) -> Any:
    """A nested message."""
    inner = codec(cls)
    return _member(name, inner.encode, inner.decode, _New(cls))


def optional(name: str, cls: type[Any], *, omit: bool = False) -> Any:
    """A nested message or None (``null``)."""
    inner = codec(cls)

    def encode(value: Any) -> bytes:
        return b"null" if value is None else inner.encode(value)

    def decode(value: Tree, old: Any) -> Any:
        return None if value is None else inner.decode(value, old)

    return _member(name, encode, decode, None, omit=omit)


def structs(name: str, cls: type[Any], *, omit: bool = False, empty: bytes = b"null") -> Any:
    """A tuple of nested messages. *empty* is the text of an empty one."""
    encode, decode = _list_of(cls, empty)
    return _member(name, encode, decode, (), omit=omit)


def struct_map(name: str, cls: type[Any]) -> Any:
    """A map of names to nested messages."""
    inner = codec(cls)
    return _map_of(name, inner.encode, inner.decode, None)


def structs_map(name: str, cls: type[Any]) -> Any:
    """A map of names to tuples of nested messages."""
    encode, decode = _list_of(cls, b"null")
    return _map_of(name, encode, decode, ())


def _list_of(cls: type[Any], empty: bytes) -> tuple[Encode, Decode]:
    inner = codec(cls)

    def encode(value: Iterable[Any]) -> bytes:
        items = [inner.encode(item) for item in value]
        return b"[%b]" % b",".join(items) if items else empty

    def decode(value: Tree, _: Any) -> tuple[Any, ...]:
        if value is None:
            return ()
        if type(value) is not list:
            raise mismatch(value, "list of objects")
        return tuple(inner.decode(item) for item in value)

    return encode, decode


def _map_of(name: str, encode_item: Encode, decode_item: Decode, zero: Any) -> Any:
    def encode(value: Mapping[str, Any]) -> bytes:
        items = [b"%b:%b" % (kinds.encode_text(key), encode_item(value[key])) for key in sorted(value)]
        return b"{%b}" % b",".join(items) if items else b"null"

    def decode(value: Tree, old: dict[str, Any] | None) -> dict[str, Any]:
        new = {key: decode_item(item, zero) for key, item in kinds.map_items(value, "map of objects")}
        return kinds.over(old, value, new)

    return _member(name, encode, decode, _New(dict))


@attrs.frozen(kw_only=True)
class _Row:
    """One member of a message in its codec. *zero* is None where the decoder makes a new one."""

    attribute: str
    name: str
    encode: Encode
    decode: Decode
    zero: Any
    omit: bool
    raw: bool


@attrs.frozen(kw_only=True)
class Codec(Generic[T]):
    """Both directions of one message class."""

    cls: type[T]
    _rows: tuple[_Row, ...]
    _by_name: Mapping[str, _Row]
    _by_folded_name: Mapping[str, _Row]
    _template: tuple[bytes, ...]  # at odd places the columns and a tail; empty when members may be left out
    _columns: Callable[[T], tuple[Any, ...]]
    _encoders: tuple[Encode | None, ...]  # of the columns; None where a column is text already
    has_embedded: bool

    def encode(self, value: T, tail: bytes = b"") -> bytes:
        """JSON text of *value*. *tail*: further members ``,"name":value…`` to put at the end."""
        if self._template:
            columns = zip(self._encoders, self._columns(value), strict=True)
            pieces = list(self._template)
            pieces[1::2] = [*[item if encode is None else encode(item) for encode, item in columns], tail]
            # Bodies are large: join makes one block of the right size, where formatting would grow and shrink one.
            return b"".join(pieces)
        members = [
            b'"%b":%b' % (row.name.encode(), row.encode(item))
            for row in self._rows
            if (item := getattr(value, row.attribute)) or not row.omit
        ]
        return b"{%b}" % (b",".join(members) + (tail if members else tail[1:]))

    def prepare(self, value: T, varying: Iterable[str]) -> "Prepared":
        """The text of *value* with places for the attributes *varying*.

        Raises: ValueError for messages that leave members out, and for attributes that are none.
        """
        names = set(varying)
        if not self._template or not names <= {row.attribute for row in self._rows}:
            raise ValueError(f"{self.cls.__name__} cannot be prepared with {sorted(names)} left open")
        pieces: list[bytes] = []
        places: list[tuple[str, int, Encode | None]] = []
        fixed = b"{"
        for index, row in enumerate(self._rows):
            fixed += b'%b"%b":' % (b"," if index else b"", row.name.encode())
            if row.attribute not in names:
                fixed += row.encode(getattr(value, row.attribute))
                continue
            is_blob = row.encode is kinds.encode_blob
            pieces.append(fixed)
            places.append((row.attribute, len(pieces), None if is_blob else row.encode))
            pieces += [b"", b"", b""] if is_blob else [b""]
            fixed = b""
        return Prepared(pieces=(*pieces, fixed, b"", b"}"), places=tuple(places))

    def decode(self, tree: Tree, old: T | None = None) -> T:
        """The value that *tree* describes, over *old* where given; ``null`` changes nothing.

        Members of kind `embedded` must be absent: only `read` has their text.
        Raises: GoJsonError naming the member.
        """
        if tree is None:
            return old if old is not None else self.cls()
        if not isinstance(tree, dict | Members):
            raise mismatch(tree, "object")
        found: dict[str, Any] = {}
        for name, item in tree.items():
            row = self._row(name)
            if row is None:
                continue
            attribute = row.attribute
            if attribute in found:
                before = found[attribute]
            elif old is not None:
                before = getattr(old, attribute)
            elif item is None:
                continue  # the zero value, which the class supplies; Go's plugins send many of these
            else:
                before = row.zero
            try:
                found[attribute] = row.decode(item, before)
            except GoJsonError as exc:
                raise GoJsonError(f"{row.name}: {exc}") from None
        return self.cls(**found) if old is None else _evolve(old, found)

    def read(self, data: bytes) -> T:
        """The value in the JSON text *data*. Raises: GoJsonError."""
        if not self.has_embedded:
            return self.decode(parse(data))
        plain, texts = Members(), {}
        for name, span in parse_members(data):
            row = self._row(name)
            if row is not None and row.raw:
                texts[row.attribute] = span.encode()
            else:
                plain.append((name, parse(span.encode())))
        return _evolve(self.decode(plain), texts)

    def first_bytes(self) -> tuple[str, str] | None:
        """Attribute and member name of the first `data` member: in results with one, the body."""
        for row in self._rows:
            if row.decode is kinds.decode_bytes:
                return row.attribute, row.name
        return None

    def _row(self, name: str) -> _Row | None:
        return self._by_name.get(name) or self._by_folded_name.get(fold(name))


@attrs.frozen(kw_only=True)
class Prepared:
    """A message that is sent many times with few differences, such as one per chunk: the rest is encoded once."""

    _pieces: tuple[bytes, ...]
    _places: tuple[tuple[str, int, Encode | None], ...]  # attribute, index in the pieces, None for a blob

    def encode(self, values: Mapping[str, Any], tail: bytes = b"") -> bytes:
        """As `Codec.encode`, with *values* for all attributes left open. Raises: KeyError when one is missing."""
        pieces = list(self._pieces)
        for attribute, index, encode in self._places:
            value = values[attribute]
            if encode is None:
                pieces[index : index + 3] = (value.quote, value.text, value.quote)
            else:
                pieces[index] = encode(value)
        pieces[-2] = tail
        return b"".join(pieces)


def _evolve(value: T, changes: Mapping[str, Any]) -> T:
    return msgspec.structs.replace(value, **changes)  # type: ignore[type-var]  # every T is a message


def fold(name: str) -> str:
    """*name* as Go compares names that are not equal: ASCII case, and the two letters that fold to ASCII ones."""
    return name.lower().replace("\u017f", "s")  # the other is U+212A, the Kelvin sign, which lower() makes a k


_codecs: dict[type[Any], Codec[Any]] = {}


def codec(cls: type[T]) -> Codec[T]:
    """The codec of a message class; made once."""
    known = _codecs.get(cls)
    if known is None:
        known = _codecs[cls] = _make(cls)
    return known


def _make(cls: type[T]) -> Codec[T]:
    members: Mapping[str, Member] = cls.declared_members  # type: ignore[attr-defined]  # every T is a message
    rows = tuple(_row_of(attribute, member) for attribute, member in members.items())
    columns: list[tuple[str, Encode | None]] = []
    template: list[bytes] = []
    for index, row in enumerate(rows):
        template += [b'%b"%b":' % (b"," if index else b"{", row.name.encode()), b""]
        if row.encode is kinds.encode_blob:
            columns += [(f"{row.attribute}.{part}", None) for part in ("quote", "text", "quote")]
            template += [b""] * 4
        else:
            columns.append((row.attribute, row.encode))
    template += [b"", b"", b"}"]
    fixed = rows and not any(row.omit for row in rows)
    return Codec(
        cls=cls,
        rows=rows,
        by_name={row.name: row for row in rows},
        by_folded_name={fold(row.name): row for row in rows},
        template=tuple(template) if fixed else (),
        columns=_getter([name for name, _ in columns]),
        encoders=tuple(encode for _, encode in columns),
        has_embedded=any(row.raw for row in rows),
    )


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """All *names* of a value in one call; dots reach into attributes."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(attrgetter(name)(value) for name in names)


def _row_of(attribute: str, member: Member) -> _Row:
    return _Row(
        attribute=attribute,
        name=member.name,
        encode=member.encode,
        decode=member.decode,
        zero=member.default,
        omit=member.omit,
        raw=member.raw,
    )
