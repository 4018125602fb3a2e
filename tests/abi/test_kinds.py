"""Single values: what is written and what is accepted."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.abi import kinds
from cpa.abi.gojson import GoJsonError
from cpa.abi.kinds import B64, NO_BYTES, ZERO_TIME, compact, decode_base64, encode_any, encode_time, parse_time

PLUS_8 = timezone(timedelta(hours=8))

TIMES = [
    (ZERO_TIME, b'"0001-01-01T00:00:00Z"'),
    (datetime(2026, 8, 22, 10, 0, 0, 250_000, tzinfo=UTC), b'"2026-08-22T10:00:00.25Z"'),
    (datetime(2026, 8, 22, 10, 0, 0, 1, tzinfo=UTC), b'"2026-08-22T10:00:00.000001Z"'),
    (datetime(2026, 8, 22, 10, 0, tzinfo=PLUS_8), b'"2026-08-22T10:00:00+08:00"'),
    (datetime(1, 1, 1, tzinfo=timezone(timedelta(minutes=-30))), b'"0001-01-01T00:00:00-00:30"'),
    (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), b'"9999-12-31T23:59:59.999999Z"'),
]


@pytest.mark.parametrize(("value", "text"), TIMES)
def test_times_both_ways(value: datetime, text: bytes) -> None:
    """RFC 3339, zeros cut."""
    assert encode_time(value) == text
    assert parse_time(json.loads(text)) == value


def test_offsets_with_seconds_become_utc() -> None:
    """RFC 3339 cannot say them."""
    odd = datetime(2026, 8, 22, 10, 0, 30, tzinfo=timezone(timedelta(hours=1, seconds=30)))
    assert encode_time(odd) == b'"2026-08-22T09:00:00Z"'


def test_times_need_a_zone() -> None:
    """A naive time would be somebody's local one."""
    with pytest.raises(ValueError, match="zone"):
        encode_time(datetime(2026, 8, 22))


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-08-22", "2026-08-22T10:00:00", "2026-08-22 10:00:00Z", "2026-08-22t10:00:00z"),
        *("2026-02-29T10:00:00Z", "2026-08-22T24:00:00Z", "2026-08-22T10:00:60Z", "2026-08-22T10:00:00.Z"),
        *("2026-08-22T10:00:00+24:00", "2026-08-22T10:00:00Z ", "٢٠٢٦-08-22T10:00:00Z", "20260822T100000Z"),
        *("0000-02-30T00:00:00Z", "0000-00-00T00:00:00Z"),
    ],
)
def test_refused_times(text: str) -> None:
    """The empty string above all: Go's plugins must omit a time or send null."""
    with pytest.raises(GoJsonError):
        parse_time(text)


def test_year_zero_is_the_zero_time() -> None:
    """Go has it, Python does not."""
    assert parse_time("0000-02-29T10:00:00Z") == ZERO_TIME


def test_digits_beyond_microseconds_are_cut() -> None:
    """Go writes nanoseconds."""
    assert parse_time("2026-08-22T10:00:00.123456789Z").microsecond == 123_456


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("YQ==", b"a"), ("YR==", b"a"), ("YWI=", b"ab"), ("YW\r\nJj\n", b"abc"), ("YQ=\n=", b"a"), ("\n", b"")],
)
def test_base64_accepted(text: str, data: bytes) -> None:
    """Line breaks anywhere, unused bits not looked at."""
    assert decode_base64(text) == data


@pytest.mark.parametrize(
    "text",
    ["YQ", "YQ=", "YQ==YQ==", "=", "====", "Y-Q=", "Y_Q=", " YQ==", "YQ\t==", "Y===", "YQ= =", "é===", "\ufffdQ=="],
)
def test_base64_refused(text: str) -> None:
    """URL-safe letters, missing padding, other white space."""
    with pytest.raises(GoJsonError):
        decode_base64(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"d": [], "c": {}}}, b'{"a":{"c":{},"d":[]},"b":1}'),
        ([200.0, -1.5, 0.1, -0.0, 0.0], b"[200,-1.5,0.1,-0,0]"),
        ([1e20, 1e21, 1.5e300, 1e-6, 1e-7, 5e-324], b"[100000000000000000000,1e+21,1.5e+300,0.000001,1e-7,5e-324]"),
        ({"a": "x:1.5", "b": 0.5}, b'{"a":"x:1.5","b":0.5}'),
        ([float("nan"), float("inf"), 1.5], b"[null,null,1.5]"),
        (2**70, b"1180591620717411303424"),
        ("é<>&\u2028\n\x01", '"é<>&\u2028\\n\\u0001"'.encode()),
        ({"\ud800": "\udfff"}, '{"\ufffd":"\ufffd"}'.encode()),
        ({"\U0001f600": 1, "\uffff": 2.0}, '{"\uffff":2,"\U0001f600":1}'.encode()),
        ([True, None, 1.0, (2,)], b"[true,null,1,[2]]"),
    ],
)
def test_free_form_values(value: object, text: bytes) -> None:
    """Numbers as Go prints them, keys sorted by bytes, text raw."""
    assert encode_any(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive(value: float) -> None:
    """Shortest digits, whichever notation."""
    text = encode_any([value])
    assert float(json.loads(text, parse_int=float)[0]) == value


@given(st.dictionaries(st.text(), st.integers(0, 9)))
def test_keys_are_in_byte_order(value: dict[str, int]) -> None:
    """Also where the quick encoder does it."""
    keys = list(json.loads(encode_any(value)))
    assert keys == sorted(keys, key=str.encode)


def test_b64_remembers_its_text() -> None:
    """Made once, handed out as the same object."""
    value = B64(b"abc" * 100)
    assert value.text is value.text
    assert value == B64(b"abc" * 100)
    assert hash(value) == hash(B64(b"abc" * 100))
    assert value != B64(b"")
    assert value != b"abc" * 100
    assert "YWJj" not in repr(value)
    assert "abc" not in repr(value)


def test_no_bytes_are_null() -> None:
    """Never an empty string: both mean the same to plugins, and one is enough."""
    assert kinds.encode_blob(NO_BYTES) == kinds.encode_base64(b"") == b"null"
    assert not NO_BYTES


def test_empty_bytes_that_are_there_are_an_empty_string() -> None:
    """A line between events has no bytes, but there is a line: plugins may refuse a body that is missing."""
    empty = B64(present=True)
    assert (kinds.encode_blob(empty), empty.quote, empty.text) == (b'""', b'"', b"")
    assert not empty
    assert kinds.encode_blob(B64(b"a", present=True)) == b'"YQ=="'


def test_compact_keeps_what_the_text_says() -> None:
    """Only white space goes; invalid bytes are replaced."""
    assert (
        compact(b' {"a" : [1.50, 1e999],\n"b":"x  \\u0041\xff"} ')
        == '{"a":[1.50,1e999],"b":"x  \\u0041\ufffd"}'.encode()
    )
    assert compact(b"") == b"null"
    with pytest.raises(GoJsonError):
        compact(b"{")
