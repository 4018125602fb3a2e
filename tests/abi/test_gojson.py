"""Texts to trees: both parsers, what they refuse, and hostile input."""

import pytest
from hypothesis import given, settings

from cpa.abi import gojson
from cpa.abi.gojson import (
    MAX_DEPTH,
    OUT_OF_RANGE,
    GoJsonError,
    Members,
    declined,
    parse,
    parse_members,
    parse_quick,
    parse_strict,
)
from tests.abi.strategies import TEXTS

ACCEPTED = [
    (b' {"a" : 1 }\r\n\t', {"a": 1}),
    (b"[]", []),
    (b"null", None),
    (b'"\\/\\u00e9\xc3\xa9"', "/éé"),
    (b"-0", 0),
    (b"12345678901234567890123", 12345678901234567890123),
    (b"1e400", OUT_OF_RANGE),
    (b"-1e400", OUT_OF_RANGE),
    (b"1" + b"0" * 309, OUT_OF_RANGE),
    (b"1" + b"0" * 100_000, OUT_OF_RANGE),
    (b'"\xff"', "\ufffd"),
    (b'"\xe2\x82"', "\ufffd\ufffd"),
    (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
    (b'"\\ud800"', "\ufffd"),
    (b'"\\ud800\\ud83d\\ude00\\udc00"', "\ufffd😀\ufffd"),
    (b'"\\\\ud800"', "\\ud800"),
    (b'{"a":1,"a":2}', Members([("a", 1), ("a", 2)])),
    (b'[{"a":1,"b":0,"a":2}]', [Members([("a", 1), ("b", 0), ("a", 2)])]),
]

REFUSED = [
    *(b"", b" ", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,}', b"[1,]", b'{"a":1}x', b'{"a":1}\x00', b"{}{}"),
    *(
        b"\xef\xbb\xbf{}",
        b"\xff{}",
        b"nul",
        b"True",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"-",
    ),
    *(b'"a', b'"\n"', b'"\x1f"', b'"\\x"', b'"\\u12"', b"'a'", b"{a:1}", b'{"a" 1}', b"\x0b1", b"// c\n1"),
]


@pytest.mark.parametrize(("text", "tree"), ACCEPTED)
def test_reads_what_go_reads(text: bytes, tree: object) -> None:
    """Types are compared, too: True is not 1."""
    assert repr(parse(text)) == repr(tree)


@pytest.mark.parametrize("text", REFUSED)
def test_refuses_what_go_refuses(text: bytes) -> None:
    """Go checks the whole text before it decodes anything."""
    with pytest.raises(GoJsonError):
        parse(text)


@pytest.mark.parametrize("text", [b"", b" \n\t\r"])
def test_names_missing_input_as_go_does(text: bytes) -> None:
    """The one text that Appendix B has in full."""
    with pytest.raises(GoJsonError, match=r"^unexpected end of JSON input$"):
        parse(text)


@settings(max_examples=300)
@given(TEXTS)
def test_quick_and_strict_parsers_agree(text: bytes) -> None:
    """The quick one may decline, never differ."""
    tree = parse_quick(text)
    if not declined(tree):
        assert repr(tree) == repr(parse_strict(text))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a" :2}',
        b'{"a" :1,"a"\n:2}',
        b'{"a":1,"a"' + b" " * 100 + b":2}",
        b'{"a":{"b":1},"a":{"b":2}}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"a":":","\\u0061":1}',
        b'{"a":"\\":","b":1}',
        b'{"a":"' + b":" * 5000 + b'","a":1}',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":18446744073709551616}',
    ],
)
def test_quick_parser_declines_what_it_cannot_judge(text: bytes) -> None:
    """Repeated keys in every disguise, depth, ranges."""
    assert declined(parse_quick(text))


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"http://x:1/","b":["c:d"]}',
        b'{"a" : "' + b"x" * 5000 + b'" , "b" : 1}',
        b'{"a":"x' + b":" * 5000 + b'"}',
        b'{"ok":true,"result":{"Headers":{"A":["b"]},"Body":"' + b"QUJD" * 1000 + b'","ClearHeaders":null}}',
    ],
)
def test_quick_parser_takes_ordinary_texts(text: bytes) -> None:
    """Colons in strings and white space do not send a text to the slow parser."""
    assert not declined(parse_quick(text))


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_limits_nesting(opening: bytes, closing: bytes) -> None:
    """To the limit and no further, whatever the stack has left."""
    times = MAX_DEPTH // len(closing)
    assert parse(opening * times + b"1" + closing * times) is not None
    with pytest.raises(GoJsonError, match="exceeded max depth"):
        parse(opening * (times + 1) + b"1" + closing * (times + 1))


@pytest.mark.parametrize(
    "text", [b"[" * 5_000_000, b'{"a":' * 500_000, b'{"a":"' + b"[{" * 100_000, b'"' + b'\\"[' * 100_000]
)
def test_survives_deep_and_endless_input(text: bytes) -> None:
    """No RecursionError, no quadratic time."""
    with pytest.raises(GoJsonError):
        parse(text)


def test_brackets_in_strings_are_not_nesting() -> None:
    """Bodies of JSON within strings have many."""
    text = b'{"a":"' + b'[{\\"' * 1000 + b'","a":1}'
    assert parse(text) == [("a", '[{"' * 1000), ("a", 1)]


def test_survives_many_members() -> None:
    """100,000 members, all different and all alike."""
    different = b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(100_000)) + b"}"
    alike = b"{" + b",".join(b'"k":%d' % i for i in range(100_000)) + b"}"
    assert len(parse(different)) == 100_000
    assert parse(alike)[-1] == ("k", 99_999)


def test_refuses_oversized_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built."""
    monkeypatch.setattr(gojson, "MAX_MESSAGE_BYTES", 10)
    assert parse(b'["234567"]') == ["234567"]
    with pytest.raises(GoJsonError, match="11 bytes exceeds 10"):
        parse(b'["2345678"]')


def test_members_keep_the_text_of_values() -> None:
    """Order, repeats, numbers and white space as written."""
    text = b' { "a" : [1.50, 1e999] , "b":{} ,"a":"\\u0041\xff" } '
    assert parse_members(text) == [("a", "[1.50, 1e999]"), ("b", "{}"), ("a", '"\\u0041\ufffd"')]
    assert parse_members(b"null") == parse_members(b"{}") == []


@pytest.mark.parametrize("text", [b"[]", b"1", b'"a"', b"{", b'{"a":1}}'])
def test_members_need_an_object(text: bytes) -> None:
    """Anything else is an error, not an empty object."""
    with pytest.raises(GoJsonError):
        parse_members(text)


def test_errors_do_not_quote_contents() -> None:
    """They go to logs; a credential file must not."""
    with pytest.raises(GoJsonError) as caught:
        parse(b'{"token":"sk-secret" oops}')
    assert "sk-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
