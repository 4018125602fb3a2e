"""What of an answer is counted where its provider did not say: its text, in every protocol, however it is cut up."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.estimate import estimate_text
from cpa.formats.names import Format
from cpa.usage.delivered import HELD_BYTES, MAX_PENDING_BYTES, TEXTS, DeliveredText
from cpa.usage.tokens import RULES

TEXT = "The quick brown fox jumps over the lazy dog, привет и 你好. "
EVENTS: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": TEXT}}]},
        {"choices": [{"index": 0, "delta": {"content": TEXT}}, {"index": 1, "delta": {"content": TEXT}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": TEXT}}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ],
    "openai-response": [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_text.delta", "delta": TEXT},
        {"type": "response.reasoning_summary_text.delta", "delta": TEXT},
        {"type": "response.function_call_arguments.delta", "delta": TEXT},
        {"type": "response.output_text.done", "text": TEXT},
    ],
    "claude": [
        {"type": "message_start", "message": {"id": "m", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": TEXT}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": TEXT}},
    ],
    "gemini": [
        {"candidates": [{"content": {"parts": [{"text": TEXT}, {"text": TEXT, "thought": True}]}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": "bc"}}}]}}]},
        {"candidates": [{"finishReason": "STOP"}]},
    ],
}
EVENTS["codex"] = EVENTS["openai-response"]
WRITTEN = {
    "openai": TEXT * 4 + "f",
    "openai-response": TEXT * 3,
    "codex": TEXT * 3,
    "claude": TEXT * 3 + "f",
    "gemini": TEXT * 2 + "f" + '{"a":"bc"}',
}
USAGE = {
    "openai": {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}},
    "openai-response": {"type": "x", "response": {"usage": {"input_tokens": 5, "output_tokens": 3}}},
    "claude": {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}},
    "gemini": {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3}},
}


def frame(event: object, end: str = "\n") -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(event)}{end}{end}".encode()


def delivered(fmt: str, blocks: list[bytes]) -> DeliveredText:
    """All of *blocks*, taken by the client one by one."""
    text = DeliveredText(fmt)
    for block in blocks:
        text.feed(block)
        text.deliver()
    return text


def test_every_protocol_that_states_usage_has_texts() -> None:
    """A new one must say where its texts are."""
    assert set(TEXTS) == set(RULES) == set(EVENTS)


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("fmt", EVENTS)
def test_all_that_a_model_wrote_counts_once(fmt: str, end: str) -> None:
    """Text, reasoning, names and arguments of calls, of all choices; snapshots that repeat it do not."""
    frames = [frame(event, end) for event in EVENTS[fmt]]
    for blocks in (frames, [b"".join(frames)], [b": comment\n\n", *frames, b"data: [DONE]\n\n"]):
        assert delivered(fmt, blocks).unstated(0) == estimate_text(WRITTEN[fmt])


@pytest.mark.parametrize("fmt", EVENTS)
def test_units_of_plugins_are_read_like_events(fmt: str) -> None:
    """They come without framing."""
    units = [json.dumps(event).encode() for event in EVENTS[fmt]]
    assert delivered(fmt, units).unstated(0) == estimate_text(WRITTEN[fmt])


def test_what_the_client_did_not_take_does_not_count() -> None:
    """A block that was read and never asked past is not delivered."""
    text = delivered("openai", [frame(EVENTS["openai"][1])])
    text.feed(frame(EVENTS["openai"][2]))
    assert text.unstated(0) == estimate_text(TEXT)


@pytest.mark.parametrize("fmt", USAGE)
def test_a_count_in_the_middle_covers_what_came_before_it(fmt: str) -> None:
    """Only what is behind it is estimated, whether it was delivered or not."""
    events = [frame(event) for event in EVENTS[fmt]]
    text = delivered(fmt, [*events, frame(USAGE[fmt])])
    assert text.unstated(3) == 0
    text = delivered(fmt, [*events, frame(USAGE[fmt]), *events])
    assert text.unstated(3) == estimate_text(WRITTEN[fmt])
    text = delivered(fmt, events)
    text.feed(frame(USAGE[fmt]))
    assert text.unstated(3) == 0


def test_a_count_before_any_text_covers_none() -> None:
    """Claude begins with one; what was written is at least that."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 2}}}
    events = [frame(event) for event in EVENTS["claude"]]
    assert delivered("claude", [frame(start), *events]).unstated(2) == estimate_text(WRITTEN["claude"]) - 2
    assert delivered("claude", [frame(start)]).unstated(2) == 0


def test_long_streams_are_read_on_the_way() -> None:
    """What is held is bounded; the sum is the same."""
    block = frame(EVENTS["openai"][1])
    count = 3 * HELD_BYTES // len(block)
    text = delivered("openai", [block] * count)
    assert sum(map(len, text._held)) <= HELD_BYTES
    assert text.unstated(0) == estimate_text(TEXT * count)


def test_what_steps_swallow_is_not_held() -> None:
    """A stream of which nothing reaches the client must not fill the memory."""
    block = frame(EVENTS["openai"][1])
    text = DeliveredText("openai")
    for _ in range(3 * MAX_PENDING_BYTES // len(block)):
        text.feed(block)
    assert sum(map(len, (*text._held, *text._pending))) <= MAX_PENDING_BYTES + HELD_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"delta":{"content":[{"type":"text","text":"abcdefgh"}]}}]}',
        b'{"choices":[{"delta":{"content":"abc\xff"}}]}',
        b'{"choices":7}',
        b'{"choices":[7]}',
        b"{" * 5000,
        b'{"choices":' + b"[" * 5000,
        b"[1]",
        b"nonsense",
    ],
    ids=["parts", "bytes", "number", "item", "open", "deep", "list", "text"],
)
def test_nonsense_is_no_text_and_harms_nobody(data: bytes) -> None:
    """Of usual events beside it all is counted."""
    usual = frame(EVENTS["openai"][1])
    text = delivered("openai", [usual, b"data: " + data + b"\n\n", usual])
    assert text.unstated(0) >= estimate_text(TEXT * 2)


def test_protocols_of_plugins_say_nothing() -> None:
    """Nobody here can read them."""
    text = delivered("acme", [frame(EVENTS["openai"][1])])
    text.read_whole(b'{"text":"abc"}')
    assert text.unstated(0) == 0


def test_whole_answers() -> None:
    """Where a provider gives no usage."""
    bodies: dict[str, Any] = {
        "openai": {"choices": [{"message": {"content": TEXT}}]},
        "openai-response": {"output": [{"content": [{"type": "output_text", "text": TEXT}]}]},
        "claude": {"content": [{"type": "text", "text": TEXT}]},
        "gemini": {"candidates": [{"content": {"parts": [{"text": TEXT}]}}]},
    }
    for fmt, body in bodies.items():
        text = DeliveredText(fmt)
        text.read_whole(json.dumps(body).encode())
        assert text.unstated(0) == estimate_text(TEXT), fmt


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from(sorted(Format)))
def test_any_bytes_are_survived(blocks: list[bytes], fmt: str) -> None:
    """Nothing in here raises."""
    assert delivered(fmt, blocks).unstated(0) >= 0
