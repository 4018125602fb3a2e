"""What a stage changed, in words: enough to see what happened, nothing of what was said."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.observability.live_changes import MAX_LINES, describe, lines_of
from cpa.pipeline.trace import Kept

SECRET = "sk-proj-0123456789abcdefghijABCDEFGHIJ"
TEXT = "the cat sat on the mat"


def lines(before: Any, after: Any) -> list[str]:
    """Of two JSON bodies."""
    return describe(Kept(json.dumps(before).encode(), json.dumps(after).encode()))


def message(text: str, role: str = "user") -> dict[str, Any]:
    """One of a conversation."""
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"model": "a"}, {"model": "b"}, ["body.model: a -> b"]),
        ({"max_tokens": 5}, {"max_tokens": 9}, ["body.max_tokens: 5 -> 9"]),
        ({"a": True, "b": 1}, {"a": 1, "b": 2}, ["body.a: true -> 1", "body.b: 1 -> 2"]),
        ({"a": None}, {"a": 0.5}, ["body.a: null -> 0.5"]),
        ({"a": 1}, {}, ["- body.a"]),
        ({}, {"a": 1, "b": "x" * 30}, ["+ body.a: 1", "+ body.b: 30 characters"]),
        ({}, {"a": [1, 2], "b": {"c": 1}}, ["+ body.a: 2 items", "+ body.b: 1 members"]),
        ({"a": {"type": "x"}}, {"a": {"type": "y"}}, ["body.a.type: x -> y"]),
        ({"a": "12"}, {"a": [1]}, ["body.a: 2 characters -> 1 items"]),
        ([1, 2, 3], [1, 3], ["- body[1]"]),
        ([1], [1, 2, 3], ["+ body[1] to [2]"]),
        ([1, 2, 3], [1, 9, 9, 3], ["body: 3 -> 4 items"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ["body: written otherwise, the same content"]),
    ],
)
def test_lines(before: Any, after: Any, expected: list[str]) -> None:
    assert lines(before, after) == expected


def test_what_is_put_in_front_of_a_conversation_does_not_change_all_of_it() -> None:
    talk = [message(f"{TEXT} {number}") for number in range(50)]
    assert lines({"messages": talk}, {"messages": [message("x", "system"), *talk]}) == ["+ body.messages[0]"]
    edited = [*talk[:20], message("other"), *talk[21:]]
    assert lines({"messages": talk}, {"messages": edited}) == ["body.messages[20].content: 25 -> 5 characters"]


@pytest.mark.parametrize(
    "place",
    [
        lambda value: {"messages": [{"role": "user", "content": value}]},
        lambda value: {"input": {"model": value, "type": value}},
        lambda value: {"metadata": {"role": value}},
        lambda value: {"contents": [{"parts": [{"functionCall": {"args": {"status": value}}}]}]},
        lambda value: {"messages": [{"tool_calls": [{"function": {"arguments": value}}]}]},
        lambda value: {"model": value + "\n"},
        lambda value: value,
    ],
)
def test_content_is_never_shown(place: Any) -> None:
    """Under whatever name a tool or a user puts it."""
    for before, after in (("x", TEXT), (TEXT, "x"), (TEXT, TEXT + "!"), ("", SECRET)):
        told = "\n".join(lines(place(before), place(after)))
        assert told
        assert TEXT not in told
        assert SECRET not in told


def test_numbers_of_tools_and_users_are_not_shown_either() -> None:
    card = 4_111_111_111_111_111
    assert lines({"input": {"card": 1}}, {"input": {"card": card}}) == ["body.input.card: a number -> a number"]
    assert lines({}, {"metadata": {"n": card}}) == ["+ body.metadata: 1 members"]


def test_secrets_in_names_and_settings_are_masked() -> None:
    told = "\n".join(lines({"model": "a"}, {"model": SECRET, SECRET: 1, "x" * 5000: 1, "a\nb": 2}))
    assert SECRET not in told
    assert "x" * 100 not in told
    assert len(told.splitlines()) == 4
    assert lines_of([Kept(b'{"model":"a"}', b'{"model":"known"}')], redact=lambda text: text.replace("known", "*")) == [
        "body.model: a -> *"
    ]


def test_headers_are_named_without_their_values() -> None:
    before = {"X-Old": ["secret"], "X-Same": ["1"], "X-Team": ["a"]}
    after = {"X-Same": ["1"], "X-Team": ["b"], "X-New": ["secret"]}
    assert describe(Kept(before, after)) == ["+ header x-new", "- header x-old", "~ header x-team"]


def test_what_cannot_be_compared_is_told_by_its_size() -> None:
    assert describe(Kept(b"not json", b"still not")) == ["body: 8 -> 9 bytes"]
    assert describe(Kept(b'{"a":1}', b"")) == ["body: 7 bytes dropped"]
    assert describe(Kept(2_000_000, 7)) == ["body: 2000000 -> 7 bytes (too large to compare)"]
    two = b'data: {"a":1}\n\ndata: {"a":2}\n\n'
    assert describe(Kept(two, two + b"\n")) == [f"body: {len(two)} -> {len(two) + 1} bytes"]


def test_one_event_of_a_stream_is_compared_by_its_data() -> None:
    event = b'event: x\ndata: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
    assert describe(Kept(event % b"hello", event % b"hi")) == ["body.choices[0].delta.content: 5 -> 2 characters"]


def test_work_and_lines_are_bounded() -> None:
    many = {f"m{number}": number for number in range(5000)}
    told = lines(many, {name: value + 1 for name, value in many.items()})
    assert (len(told), told[-1]) == (MAX_LINES + 1, "… and more")
    assert len(lines_of([Kept(b"{}", json.dumps(many).encode())] * 9, redact=str)) == MAX_LINES + 1
    deep_old, deep_new = b"[" * 400 + b"1" + b"]" * 400, b"[" * 400 + b"2" + b"]" * 400
    assert describe(Kept(deep_old, deep_new))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES)
def test_any_two_bodies_can_be_told_apart(before: Any, after: Any) -> None:
    told = lines(before, after)
    assert told
    assert all(line.isprintable() for line in told)
