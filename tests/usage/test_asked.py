"""What a request will cost, read out of its body."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.estimate import estimate_text
from cpa.usage.asked import MEDIA_TOKENS, TOKENS_PER_MESSAGE, Asked, read_asked

PROMPT = "Say hello to everybody in the room, please."


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [{"role": "user", "content": PROMPT}]},
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]},
        {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}]},
    ],
    ids=["chat", "parts", "gemini", "responses"],
)
def test_the_prompt_counts_as_text_and_message(body: object) -> None:
    """Roles and types are no text."""
    expected = estimate_text(PROMPT) + TOKENS_PER_MESSAGE
    assert read_asked(json.dumps(body).encode()) == Asked(input_tokens=expected)


def test_system_tools_and_plain_input_count_too() -> None:
    """Whatever a model reads."""
    body = {"instructions": "abcd" * 10, "input": PROMPT, "tools": [{"type": "function", "description": "efgh" * 10}]}
    assert read_asked(json.dumps(body).encode()).input_tokens == estimate_text(PROMPT + "x" * 80)


def test_media_count_by_the_piece() -> None:
    """A photo is not a million tokens because it is encoded as text."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}}
    body = {"messages": [{"role": "user", "content": [image]}]}
    assert read_asked(json.dumps(body).encode()).input_tokens == MEDIA_TOKENS + TOKENS_PER_MESSAGE


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 2}, 6),
        ({"max_output_tokens": 7}, 7),
        ({"generationConfig": {"maxOutputTokens": 8}}, 8),
        ({"generation_config": {"max_output_tokens": 9}}, 9),
        ({"max_tokens": "10"}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 1 << 40}, None),
        ({"generationConfig": [1]}, None),
        ({}, None),
    ],
    ids=["max", "completion", "output", "gemini", "snake", "text", "bool", "negative", "huge", "list", "none"],
)
def test_the_bound_of_the_answer(body: object, expected: int | None) -> None:
    """The largest that is stated; nonsense states nothing."""
    assert read_asked(json.dumps(body).encode()).output_tokens == expected


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_body_is_survived(body: bytes) -> None:
    """What cannot be read asks for nothing."""
    assert read_asked(body).input_tokens >= 0


def test_depth_is_survived() -> None:
    """Neither recursion nor time."""
    assert read_asked(b'{"messages":' + b"[" * 100_000) == Asked()
    assert read_asked(b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}").input_tokens >= 0
