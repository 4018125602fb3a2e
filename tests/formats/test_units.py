"""Chunks as plugins see them, and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import UpstreamProtocolError
from cpa.formats.names import Format
from cpa.formats.units import (
    end_frame,
    ends_stream,
    frame_unit,
    from_provider_units,
    provider_end_unit,
    provider_units,
    to_units,
)

CHAT = b'data: {"a":1}\n\ndata: {"b":2}\n\n'
CLAUDE = b'event: ping\ndata: {"type":"ping"}\n\nevent: x\ndata: {"type":"x"}\n\n'
RESPONSES = b'event: response.created\ndata: {"type":"response.created"}\n\n'
BARE = (Format.OPENAI, Format.GEMINI)
SSE = (Format.CLAUDE, Format.OPENAI_RESPONSE, Format.CODEX)


@pytest.mark.parametrize("fmt", BARE)
def test_chat_and_gemini_units_are_bare_json(fmt: Format) -> None:
    assert to_units(fmt, CHAT) == [b'{"a":1}', b'{"b":2}']
    assert to_units(fmt, b": c\n\n\ndata:\n\n" + CHAT + b"data: [DONE]\n\n") == [b'{"a":1}', b'{"b":2}']
    assert b"".join(frame_unit(fmt, unit) for unit in to_units(fmt, CHAT)) == CHAT


@pytest.mark.parametrize("fmt", SSE)
def test_the_others_are_whole_events(fmt: Format) -> None:
    first, second = CLAUDE[: CLAUDE.index(b"\n\n") + 2], CLAUDE[CLAUDE.index(b"\n\n") + 2 :]
    assert to_units(fmt, CLAUDE) == [first, second]
    assert to_units(fmt, b": keep-alive\n\n") == []
    assert b"".join(frame_unit(fmt, unit) for unit in to_units(fmt, CLAUDE)) == CLAUDE


@pytest.mark.parametrize("fmt", list(Format))
def test_an_empty_unit_is_nothing(fmt: Format) -> None:
    assert frame_unit(fmt, b"") == b""
    assert to_units(fmt, b"") == []


@pytest.mark.parametrize(
    ("unit", "framed"),
    [
        (b'{"a":1}', b'data: {"a":1}\n\n'),
        (b'{\r\n "a": 1\n}\n', b'data: {  "a": 1 } \n\n'),
        (b'{"a":1}\n\ndata: {"b":2}', b'data: {"a":1}\n\ndata: {"b":2}\n\n'),
        (b'data: {"a":1}', b'data: {"a":1}\n\n'),
        (b'data: {"a":1}\n\n', b'data: {"a":1}\n\n'),
    ],
)
@pytest.mark.parametrize("fmt", BARE)
def test_what_plugins_return_becomes_events(fmt: Format, unit: bytes, framed: bytes) -> None:
    assert frame_unit(fmt, unit) == framed


@pytest.mark.parametrize(
    ("unit", "framed"),
    [
        (b'event: x\ndata: {"a":1}', b'event: x\ndata: {"a":1}\n\n'),
        (b'data: {"a":1}\ndata: {"b":2}\n', b'data: {"a":1}\n\ndata: {"b":2}\n\n'),
        (b'{"a":1}', b'data: {"a":1}\n\n'),
        (b": c\n\n", b": c\n\n"),
    ],
)
def test_responses_units_are_completed_and_checked(unit: bytes, framed: bytes) -> None:
    assert frame_unit(Format.OPENAI_RESPONSE, unit) == framed
    with pytest.raises(UpstreamProtocolError, match="not valid JSON"):
        frame_unit(Format.OPENAI_RESPONSE, unit + b"\n\ndata: {oops}\n\n")


def test_claude_units_pass_unchanged() -> None:
    assert frame_unit(Format.CLAUDE, b"data: {oops") == b"data: {oops"


def test_only_some_streams_have_an_end() -> None:
    assert end_frame(Format.OPENAI) == b"data: [DONE]\n\n"
    assert end_frame(Format.OPENAI_RESPONSE) == end_frame(Format.CODEX) == b"\n"
    assert end_frame(Format.CLAUDE) == end_frame(Format.GEMINI) == b""


def test_provider_units_have_the_framing_that_normalizers_expect() -> None:
    assert provider_units(Format.OPENAI, b": c\n\n" + CHAT + b"data: [DONE]\n\n") == [
        b'data: {"a":1}',
        b'data: {"b":2}',
        b"data: [DONE]",
    ]
    assert provider_units(Format.CODEX, RESPONSES) == [b'data: {"type":"response.created"}']
    assert provider_units(Format.GEMINI, CHAT + b"data: [DONE]\n\n") == [b'{"a":1}', b'{"b":2}']
    assert provider_units(Format.CLAUDE, b"event: ping\r\ndata: {}\r\n\r\n") == [b"event: ping", b"data: {}", b""]
    assert provider_units(Format.OPENAI, b'data: {"a":\ndata: 1}\n\n') == [b'data: {"a": 1}']
    assert [provider_end_unit(fmt) for fmt in (Format.OPENAI, Format.GEMINI, Format.CLAUDE)] == [None, b"[DONE]", None]


@pytest.mark.parametrize(
    ("fmt", "block"),
    [
        (Format.OPENAI, CHAT + b"data: [DONE]\n\n"),
        (Format.GEMINI, CHAT),
        (Format.CLAUDE, CLAUDE),
        (Format.CODEX, RESPONSES),
        (Format.OPENAI_RESPONSE, RESPONSES),
    ],
)
def test_provider_units_go_back_to_the_wire(fmt: Format, block: bytes) -> None:
    assert from_provider_units(fmt, provider_units(fmt, block)) == block


def test_normalizers_may_return_either_framing() -> None:
    units = [b'{"a":1}', b'data:{"b":2}\n\n', b"", b"[DONE]"]
    assert from_provider_units(Format.GEMINI, units) == CHAT
    assert from_provider_units(Format.OPENAI, units) == CHAT + b"data: [DONE]\n\n"


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(Format)), st.binary(max_size=60))
def test_any_bytes_give_units_or_a_protocol_error(fmt: Format, block: bytes) -> None:
    assert all(to_units(fmt, block))
    assert isinstance(from_provider_units(fmt, provider_units(fmt, block)), bytes)
    try:
        assert bool(frame_unit(fmt, block)) <= bool(block)
    except UpstreamProtocolError:
        assert fmt in (Format.OPENAI_RESPONSE, Format.CODEX)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_end_mark_is_found_whatever_lines_end_with(end: bytes) -> None:
    """Text completions are framed anew and must not lose it."""
    chunk = b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n'.replace(b"\n", end)
    for mark in (b"data: [DONE]", b"data:[DONE]", b"data: [DONE] "):
        assert ends_stream(Format.OPENAI, chunk + mark + end * 2)
        assert ends_stream(Format.OPENAI, mark + end * 2)
    assert not ends_stream(Format.OPENAI, chunk)
    assert not ends_stream(Format.OPENAI, b"")
    assert not ends_stream(Format.GEMINI, b"data: [DONE]\n\n")
