"""Edits of members: what they change, what stays as it was written, what is refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.credentials.patching import MAX_PARTS, patched_text
from cpa.credentials.writing import CredentialFileError, UnfinishedText

PRETTY = b"""{
    "type": "claude",
    "serial": 123456789012345678901234567890,
    "ratio": 1.50,
    "text": "\\u00e9",
    "api_key": "sk-1",
    "headers": {"X-Team": "blue", "X.Dotted": "a"},
    "proxy-url": "direct"
}
"""


def edited(text: bytes, **fields: Any) -> dict[str, Any]:
    """What *text* says after an edit."""
    found = json.loads(patched_text(text, fields))
    assert isinstance(found, dict)
    return found


def test_what_is_not_named_keeps_its_bytes_its_place_and_its_layout() -> None:
    """A number with thirty digits would not survive a round trip through floating point."""
    text = patched_text(PRETTY, {"priority": 5})
    lines = text.decode().splitlines()
    assert lines[0] == "{"
    assert lines[1:5] == PRETTY.decode().splitlines()[1:5]
    assert lines[-2:] == ['    "priority": 5', "}"]
    assert text.endswith(b"}\n")
    assert patched_text(b'{"a": 1, "b": 2}', {"b": 3}) == b'{"a": 1, "b": 3}'
    assert patched_text(b'{"a":1,"b":2}', {"b": 3}) == b'{"a":1,"b":3}'
    assert patched_text(b'{\n\t"a": 1\n}', {"b": 3}) == b'{\n  "a": 1,\n  "b": 3\n}'


def test_an_edit_that_says_nothing_new_is_none() -> None:
    """The file is not written, its layout stays odd."""
    odd = b'{ "priority":5 ,"a":1}'
    assert patched_text(odd, {"priority": 5, "note": None}) is odd


@pytest.mark.parametrize(
    ("fields", "member", "value"),
    [
        ({"note": "ends in March"}, "note", "ends in March"),
        ({"note": None}, "note", None),
        ({"headers": {"X-Team": "red"}}, "headers", {"X-Team": "red", "X.Dotted": "a"}),
        ({"headers": {"x-team": "red"}}, "headers", {"x-team": "red", "X.Dotted": "a"}),
        ({"headers": {"X-TEAM": ""}}, "headers", {"X.Dotted": "a"}),
        ({"headers.X.Dotted": "b"}, "headers", {"X-Team": "blue", "X.Dotted": "b"}),
        ({"headers.X-Team": "", "headers.x.dotted": None}, "headers", None),
        ({"headers": None}, "headers", None),
        ({"weight": 3}, "weight", 3),
        ({"weight": -3}, "weight", 0),
        ({"weight": None}, "weight", None),
        ({"request_retry": 0}, "request_retry", 0),
        ({"request-retry": 2}, "request_retry", 2),
        ({"request_retry": None}, "request_retry", None),
        ({"proxy_url": "none"}, "proxy_url", "none"),
        ({"proxy-url": None}, "proxy_url", None),
        ({"excluded-models": ["*-preview"]}, "excluded_models", ["*-preview"]),
        ({"own.deep.er": 1}, "own", {"deep": {"er": 1}}),
        ({"own": {"deep": [1, {"a": None}]}}, "own", {"deep": [1, {"a": None}]}),
        ({"own.gone": None}, "own", None),
        ({"disabled": True}, "disabled", True),
        ({"weiß": "ü😀"}, "weiß", "ü😀"),
    ],
)
def test_fields(fields: dict[str, Any], member: str, value: object) -> None:
    """Dotted names, headers, removal, old spellings."""
    found = edited(PRETTY, **fields)
    assert found.get(member) == value
    assert found["serial"] == 123456789012345678901234567890
    if member == "proxy_url":
        assert "proxy-url" not in found


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"weight": "3"}, "weight: expected an integer or null"),
        ({"weight": True}, "weight: expected an integer or null"),
        ({"weight": 1_000_001}, "at most 1000000"),
        ({"request_retry": 1.5}, "request_retry: expected an integer or null"),
        ({"request_retry": True}, "request_retry: expected an integer or null"),
        ({"request_retry": 10**6}, "request_retry: expected"),
        ({"priority": "high"}, "priority: expected"),
        ({"disabled": "yes"}, "disabled: expected"),
        ({"proxy_url": "ftp://x"}, "proxy_url: expected"),
        ({"headers": "x"}, "headers: expected an object"),
        ({"headers": {"X": 1}}, "headers.X: expected a text"),
        ({"headers": {"X\nY": "1"}}, "headers"),
        ({"type.inner": 1}, "type: expected an object"),
        ({"a..b": 1}, "invalid field name"),
        ({"": 1}, "invalid field name"),
        ({"a\x00": 1}, "invalid field name"),
        ({"x" * 300: 1}, "invalid field name"),
        ({".".join("a" * (MAX_PARTS + 1)): 1}, "invalid field name"),
        ({"note": "x" * (1 << 20)}, "at most"),
        ({"note": "\ud800"}, "expected values that a JSON file can hold"),
    ],
)
def test_refused(fields: dict[str, Any], told: str) -> None:
    """Nobody could use the file then; the message says why and shows no secret."""
    with pytest.raises(CredentialFileError) as refused:
        patched_text(PRETTY, fields)
    assert told in refused.value.message
    assert refused.value.http_status == 400
    assert "sk-1" not in refused.value.message


def test_what_was_wrong_before_is_not_this_edits_fault() -> None:
    """Or nobody could mend a file member by member."""
    assert edited(b'{"priority": "high", "note": "a"}', note="b")["note"] == "b"


@pytest.mark.parametrize("text", [b"", b"[]", b'{"a":', b"null", b"[" * 5000])
def test_a_text_that_is_no_object_is_somebodys_half_written_one(text: bytes) -> None:
    """It is waited for, then the edit is refused."""
    with pytest.raises(UnfinishedText) as refused:
        patched_text(text, {"note": "a"})
    assert refused.value.http_status == 409


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from("abcdef"), JSON), st.dictionaries(st.sampled_from("bcdx"), JSON))
def test_any_edit_changes_what_it_names_and_nothing_else(before: dict[str, Any], fields: dict[str, Any]) -> None:
    """Null takes away, everything else is what it says; order stays."""
    text = json.dumps(before).encode()
    try:
        found = json.loads(patched_text(text, fields))
    except CredentialFileError as refused:  # numbers that no encoder of ours takes
        assert "can hold" in refused.message  # noqa: PT017 - the other way is the usual one
        return
    expected = {**before, **fields}
    assert found == {name: value for name, value in expected.items() if name not in fields or value is not None}
    assert [name for name in found if name in before] == [name for name in before if name in found]
