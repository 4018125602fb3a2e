"""Hypothesis strategies for JSON texts and for messages."""

import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from cpa.abi.codec import Message
from cpa.abi.kinds import B64, ZERO_TIME
from tests.abi.go_reference import Everything

TOKENS = [
    *(b"null", b"true", b"false", b"0", b"-0", b"1", b"200", b"200.0", b"2e2", b"-1", b"255", b"256", b"0.1", b"1e400"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"18446744073709551616", b"1e-400"),
    *(b"1" + b"0" * 308, b"2" + b"0" * 308, b"1" + b"0" * 5000, b"01", b"1.", b".5", b"-", b"1e", b"NaN", b"Infinity"),
    *(b'""', b'"a"', b'"a:b"', b'"\\":"', b'" :"', b'"x\\/y"', b'"\\u0041"', b'"\\x"', b'"\x01"', b'"\x7f"', b'"'),
    *(b'"\xc3\xa9"', b'"\xff"', b'"\xe2\x82"', b'"\xed\xa0\x80"', b'"\xf0\x9f\x98\x80"', b'"\xf4\x90\x80\x80"'),
    *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\udc00x"', b'"\\\\ud800"', b'"\\uD800\\ud83d\\uDE00"', b'"\\ud8zz"'),
    *(
        b'"YQ=="',
        b'"YWI="',
        b'"YWJj"',
        b'"YR=="',
        b'"YQ"',
        b'"YQ="',
        b'"Y-Q="',
        b'"YQ==YQ=="',
        b'"YQ\\r\\n=="',
        b'"\\n"',
    ),
    *(
        b'"2026-08-22T10:00:00Z"',
        b'"2026-08-22T10:00:00.25+08:00"',
        b'"0001-01-01T00:00:00Z"',
        b'"0000-01-01T00:00:00Z"',
    ),
    *(
        b'"2026-02-29T10:00:00Z"',
        b'"2026-08-22T1:00:00,5-00:30"',
        b'"2026-08-22T24:00:00Z"',
        b'"2026-08-22T10:00:00.Z"',
    ),
    *(b'"2026-08-22T10:00:00+08:60"', b'"2026-08-22t10:00:00z"', b'"2026-08-22T10:00:00+24:00"', b'"2026-08-22"'),
    *(b"[]", b"{}", b"[1,2,null]", b'["a",null]', b'["YQ==",null,[1]]', b'{"a":["b"],"c":null}', b'{"a":"b","c":null}'),
    *(
        b'{"a":"x","N":1}',
        b'[{"a":"x"},{"N":5},null]',
        b'{"k":{"n":2}}',
        b'{"k":[{"n":2}]}',
        b'{"a":{"b":1},"a":{"c":2}}',
    ),
]
NAMES = [member.name.encode() for member in Everything.declared_members.values()]
ODD_NAMES = [b"A", b"n", b"k", b"unknown", b"status_code", b"\xff", b"", b"Bod\\u0079", b"Statu\xc5\xbfCode", b'a\\":']
SPACES = st.sampled_from([b"", b"", b"", b"", b" ", b"\n", b"\t\r ", b"\x0b", b" " * 40])


def _names(names: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(lambda name, case: case(name), names, st.sampled_from([bytes, bytes, bytes.lower, bytes.upper]))


def _objects(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    name = _names(st.sampled_from(NAMES) | st.sampled_from(ODD_NAMES))
    member = st.builds(
        lambda a, n, b, c, v, d: a + b'"' + n + b'"' + b + b":" + c + v + d,
        SPACES,
        name,
        SPACES,
        SPACES,
        values,
        SPACES,
    )
    return st.lists(member, max_size=6).map(lambda members: b"{" + b",".join(members) + b"}")


VALUES = st.recursive(
    st.sampled_from(TOKENS),
    lambda inner: _objects(inner) | st.lists(inner, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]"),
    max_leaves=6,
)


def _damaged(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    def damage(text: bytes, at: int, length: int, insert: bytes) -> bytes:
        at %= len(text) + 1
        return text[:at] + insert + text[at + length :]

    inserts = st.sampled_from([b"", b'"', b"\\", b",", b":", b"}", b" ", b"\x00", b"\xff", b"\xef\xbb\xbf"])
    return st.builds(damage, texts, st.integers(0, 1000), st.integers(0, 2), inserts)


TEXTS = _objects(VALUES) | _objects(VALUES) | VALUES | _damaged(_objects(VALUES))
"""JSON objects, mostly with members of `Everything`, some of them broken."""

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=6,
)
_ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def messages(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Values of a message class, made by the annotations of its fields."""
    fields = {}
    for name, member in cls.declared_members.items():
        fields[name] = _values(types.EllipsisType if member.raw else cls.__annotations__[name])
    return st.fixed_dictionaries(fields).map(lambda found: cls(**found))


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, type) and issubclass(kind, Message):
        return messages(kind)
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case types.UnionType:
            return st.none() | _values(arguments[0])
        case origin if origin in (tuple, list):
            return st.lists(_values(arguments[0]), max_size=3).map(origin)
        case origin if origin is dict:
            # JsonValue is an alias in quotes.
            is_free = arguments[1] is Any or isinstance(arguments[1], str)
            return st.dictionaries(STRINGS, _PLAIN if is_free else _values(arguments[1]), max_size=3)
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        str: STRINGS,
        bool: st.booleans(),
        int: st.integers(-(2**63), 2**63 - 1),
        bytes: st.binary(max_size=40),
        B64: st.binary(max_size=40).map(B64),
        datetime: st.just(ZERO_TIME) | st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=_ZONES),
        None: st.none(),
        types.EllipsisType: st.sampled_from([b"", b"null", b'{"a":[1.50,1e999]}', b'"x"']),
    }
    return scalars[kind]
