"""JSON whose strings are safe in HTML."""

import html
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.server.management.escaping import escape_json, escaped_values


@pytest.mark.parametrize(
    ("given_body", "expected"),
    [
        (b'{"b": "<x>", "a": 1}', '{"a":1,"b":"&lt;x&gt;"}'),
        (b'["&", "\\"", "\'"]', '["&amp;","&#34;","&#39;"]'),
        (b' {"<k>" : {"z":[true,false,null]}} \n', '{"<k>":{"z":[true,false,null]}}'),
        (b"[1.0, 1e5, -0, 12345678901234567890123, 1.10]", "[1.0,1e5,-0,12345678901234567890123,1.10]"),
        ('"ü\u2028"'.encode(), '"ü\u2028"'),
        (b'"\\ud83d\\ude00 \\u003cb\\u003e"', '"😀 &lt;b&gt;"'),
        (b'{"a":"x","a":"<"}', '{"a":"&lt;"}'),
        (b'"\\ud800"', '"?"'),
        (b"\xef\xbb\xbf{}", "{}"),
    ],
)
def test_strings_are_escaped_and_the_rest_is_kept(given_body: bytes, expected: str) -> None:
    """Keys sorted, white space gone, numbers as they were."""
    assert escape_json(given_body).decode() == expected


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"<p>", b'{"a":1} x', b"[NaN]", b"[Infinity]", b'["\x01"]', b"[" * 300 + b"]" * 300, b"[" * 90_000],
)
def test_what_does_not_parse_stays_as_it_is(body: bytes) -> None:
    """Broken, of another language, or nested without end."""
    assert escape_json(body) == body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_unescaping_gives_the_value_back(value: Any) -> None:
    """Nothing is lost, and no string value has anything left that HTML minds."""
    escaped = json.loads(escape_json(json.dumps(value).encode()))
    assert escaped == escaped_values(value)
    assert unescaped(escaped) == value


def unescaped(value: Any) -> Any:
    """The way back."""
    if isinstance(value, str):
        assert not set(value) & set("<>\"'")
        return html.unescape(value)
    if isinstance(value, dict):
        return {name: unescaped(item) for name, item in value.items()}
    return [unescaped(item) for item in value] if isinstance(value, list) else value
