"""Scans in C and in Python say what `bytes.decode` says, wherever the bytes are cut."""

import os
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpa.formats import scan

try:
    from cpa.formats import _scan
except ImportError:  # nobody has compiled it; continuous integration has
    if os.environ.get("CI") == "true":
        raise
    IS_UTF8: list[Callable[[bytes], bool]] = [scan.is_utf8_in_python]
    COUNT_CHARS: list[Callable[[bytes], tuple[int, int]]] = [scan.count_chars_in_python]
    TEXT_START: list[Callable[[bytes], int]] = [scan.text_start_in_python]
    CONTAINS: list[Callable[[bytes, bytes], bool]] = [scan.contains_in_python]
else:
    IS_UTF8 = [scan.is_utf8_in_python, _scan.is_utf8]
    COUNT_CHARS = [scan.count_chars_in_python, _scan.count_chars]
    TEXT_START = [scan.text_start_in_python, _scan.text_start]
    CONTAINS = [scan.contains_in_python, _scan.contains]

PROSE = {chr(code) for code in range(0x21, 0x7F)} - {"["}
FORMS = {
    "every length": "aé€😀".encode(),
    "the first and the last of each length": "\x00\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff".encode(),
    "next to the surrogates": "\ud7ff\ue000".encode(),
    "a continuation alone": b"\x80",
    "overlong of two": b"\xc1\xbf",
    "overlong of three": b"\xe0\x9f\xbf",
    "overlong of four": b"\xf0\x8f\xbf\xbf",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "above the last": b"\xf4\x90\x80\x80",
    "a lead that is none": b"\xf5\x80\x80\x80",
    "a lead of older times": b"\xf8\x88\x80\x80\x80",
    "a wrong second": b"\xe2\x28\xa1",
    "a wrong third": b"\xe2\x82\x28",
    "a wrong fourth": b"\xf0\x9f\x98\x28",
    "a lead before a lead": b"\xc3\xc3\xa9",
    "never a byte": b"\xfe\xff",
}


def decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_judged_right_at_each_place_and_cut_anywhere(name: str) -> None:
    """Words of eight bytes, blocks of thirty-two, and the end of the data: each may lie inside a character."""
    form = FORMS[name]
    for before in range(42):
        for size in range(len(form) + 1):
            for after in (b"", b"a", b"b" * 40, "ü".encode()):
                data = b"a" * before + form[:size] + after
                expected = decodes(data)
                assert [judge(data) for judge in IS_UTF8] == [expected] * len(IS_UTF8), (before, size, after)


pieces = st.one_of(st.text(max_size=9).map(str.encode), st.binary(max_size=9), st.sampled_from([*FORMS.values()]))


@given(st.lists(pieces, max_size=12), st.integers(0, 40), st.binary(max_size=3))
@example([b"\xe2\x82", b"\xac"], 16383, b"")
@settings(max_examples=400, deadline=None)
def test_anything_is_judged_as_python_does(found: list[bytes], before: int, end: bytes) -> None:
    """Strangers write bodies."""
    data = b"a" * before + b"".join(found) + end

    assert [judge(data) for judge in IS_UTF8] == [decodes(data)] * len(IS_UTF8)
    assert scan.is_utf8(data) is decodes(data)


@given(st.binary(max_size=400) | st.text(max_size=300).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_characters_are_counted_alike(data: bytes) -> None:
    """An estimate must not depend on whether there was a compiler."""
    expected = sum(byte < 0x80 for byte in data), sum(byte >= 0xC0 for byte in data)

    assert [count(data) for count in COUNT_CHARS] == [expected] * len(COUNT_CHARS)
    assert scan.count_chars(data) == expected


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 4096, 100_001])
def test_blocks_are_counted_whole(size: int) -> None:
    """Sums of a block stay in one byte, so that they must not grow beyond it."""
    for data in (b"a" * size, b"\xc3" * size, "ä€a".encode() * size):
        expected = len(data.decode(errors="ignore").encode("ascii", "ignore")), sum(byte >= 0xC0 for byte in data)
        assert [count(data) for count in COUNT_CHARS] == [expected] * len(COUNT_CHARS)


@given(st.binary(max_size=6) | st.text(max_size=6).map(msgspec.json.encode) | st.sampled_from([b"null", b"[]", b"{"]))
@example(b'"')
@example(b'"\\')
@example(b'"\\n')
@example(b'" \\t\\r\\n\\/')
@example(b'"\\u005b')
@example(b'"\xc3\xa4"')
@settings(max_examples=400, deadline=None)
def test_starts_of_texts_are_told_alike(data: bytes) -> None:
    """`PROSE` is a promise: no media in disguise, and not blank."""
    found = [start(data) for start in TEXT_START]

    assert found == [found[0]] * len(found)
    assert (found[0] != scan.NO_TEXT) is data.startswith(b'"')
    try:
        text = msgspec.json.decode(data, type=str)
    except ValueError:
        return
    visible = text.lstrip(" \t\r\n")[:1]
    if found[0] == scan.PROSE:
        assert "!" <= visible <= "~"
        assert visible != "["
    elif "\\u" not in data.decode() and "\\b" not in data.decode() and "\\f" not in data.decode():
        assert not "!" <= visible <= "~" or visible == "["


@pytest.mark.parametrize("code", range(0x80))
def test_each_first_character_is_told_alike(code: int) -> None:
    """Also escaped, and as a view of a body."""
    for before in ("", " ", "\n\t "):
        literal = msgspec.json.encode(f"{before}{chr(code)}x" + "y" * 200)
        for data in (literal, msgspec.json.decode(b"[%b]" % literal, type=list[msgspec.Raw])[0]):
            expected = scan.PROSE if chr(code) in PROSE or (code in b" \t\r\n") else scan.TEXT
            assert [start(data) for start in TEXT_START] == [expected] * len(TEXT_START)  # type: ignore[arg-type]


def test_long_bodies_have_no_seams() -> None:
    """The check in Python takes pieces of 16 KB."""
    body = ("a" * 16_382 + "€" + "ü" * 40_000).encode()

    assert all(judge(body) for judge in IS_UTF8)
    assert not any(judge(body[:-1]) for judge in IS_UTF8)
    assert not any(judge(body + b"\xff") for judge in IS_UTF8)


@pytest.mark.parametrize("wrong", ["text", None, 7, [b"a"]])
def test_only_bytes_can_be_scanned(wrong: object) -> None:
    """The compiled part sees what Python gives it."""
    for judge in IS_UTF8[1:]:
        with pytest.raises(TypeError):
            judge(wrong)  # type: ignore[arg-type]
    for count in COUNT_CHARS[1:]:
        with pytest.raises(TypeError):
            count(wrong)  # type: ignore[arg-type]


@given(data=st.binary(max_size=200), part=st.binary(max_size=12), at=st.integers(0, 200))
@example(data=b"", part=b"", at=0)
def test_what_is_in_a_body_is_found_wherever_it_is(data: bytes, part: bytes, at: int) -> None:
    """The C library's search and Python's agree."""
    for contains in CONTAINS:
        assert contains(data, part) == (part in data)
        assert contains(data[:at] + part + data[at:], part)
