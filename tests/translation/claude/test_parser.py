"""Answers of providers that speak Claude, as events."""

import json
from typing import Any

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.translation.claude import SPOKE
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    Ping,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from tests.translation.claude.support import context, read_full, read_stream, sse

USAGE = {"input_tokens": 10, "output_tokens": 1}


def start(**members: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    return {"type": "message_start", "message": {**message, "usage": USAGE, **members}}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **members: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: str | None = "end_turn", usage: Any = None, **members: Any) -> list[dict[str, Any]]:
    found = {"stop_reason": reason, "stop_sequence": None, **members}
    return [{"type": "message_delta", "delta": found, "usage": usage or {"output_tokens": 5}}, {"type": "message_stop"}]


def feed(*events: dict[str, Any]) -> list[IREvent]:
    """What the parser itself says, without the start."""
    parser = SPOKE.open_parser(context())
    out = [event for frame in (start(), *events) for event in parser.feed("", json.dumps(frame).encode())]
    assert isinstance(out[0], Start)
    assert isinstance(out[1], Usage)
    return out[2:] + parser.finish()


def sig(data: str, kind: SigKind = SigKind.THINKING) -> Sig:
    return Sig(provenance=Provenance.CLAUDE, kind=kind, data=data, model="provider-name")


def test_beginning_and_end() -> None:
    events = read_stream(sse(start(), *ending()))
    assert events[0] == Start(id="msg_1", model="claude-x", created_unix=1_790_000_000)
    assert events[1] == Usage(tokens=Tokens(input=10, output=1))
    assert events[-2:] == [Stop(reason=StopReason.STOP), End()]


def test_text() -> None:
    assert feed(
        begin(0, type="text", text="a"),
        delta(0, "text_delta", text="b"),
        delta(0, "text_delta", text=""),
        stop(0),
    ) == [Open(b=0, kind=BlockKind.TEXT), Delta(b=0, s="a"), Delta(b=0, s="b"), Close(b=0)]


def test_thinking_with_the_last_signature() -> None:
    assert feed(
        begin(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="hm"),
        delta(0, "signature_delta", signature="s1"),
        delta(0, "signature_delta", signature="s2"),
        stop(0),
    ) == [
        Open(b=0, kind=BlockKind.REASONING),
        Delta(b=0, s="hm"),
        SigEvent(b=0, sig=sig("s1")),
        SigEvent(b=0, sig=sig("s2")),
        Close(b=0),
    ]


def test_redacted_thinking() -> None:
    """Corpus 143."""
    assert feed(begin(0, type="redacted_thinking", data="x"), stop(0)) == [
        Open(b=0, kind=BlockKind.REASONING, meta=Meta(redacted=True)),
        SigEvent(b=0, sig=sig("x", SigKind.REDACTED)),
        Close(b=0),
    ]


TOOL = Meta(call_id="toolu_1", name="f")


@pytest.mark.parametrize(
    ("given", "deltas", "said"),
    [
        ({}, ['{"a"', ":1}"], ['{"a"', ":1}"]),
        ({"a": 1}, [], ['{"a": 1}']),
        ({"a": 1}, ['{"b":2}'], ['{"b":2}']),
        ({}, [], []),
        ({}, [""], []),
    ],
)
def test_input_of_the_beginning_counts_only_without_deltas(given: Any, deltas: list[str], said: list[str]) -> None:
    events = feed(
        begin(3, type="tool_use", id="toolu_1", name="f", input=given),
        *(delta(3, "input_json_delta", partial_json=text) for text in deltas),
        stop(3),
    )
    assert events == [Open(b=0, kind=BlockKind.TOOL, meta=TOOL), *(Delta(b=0, s=text) for text in said), Close(b=0)]


def test_server_tools_are_given_out_with_all_their_input() -> None:
    use = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    events = feed(
        begin(0, **use),
        delta(0, "input_json_delta", partial_json='{"query":'),
        delta(0, "input_json_delta", partial_json='"q"}'),
        stop(0),
        begin(1, **result),
        stop(1),
    )
    assert [type(event) for event in events] == [Open, Close, Open, Close]
    assert isinstance(events[0], Open)
    assert isinstance(events[2], Open)
    assert json.loads(events[0].meta.raw) == {**use, "input": {"query": "q"}}
    call, found = events[0], events[2]
    assert (call.kind, call.meta.server, call.meta.call_id) == (BlockKind.SERVER_CALL, "web_search", "s1")
    assert (found.kind, found.meta.server, found.meta.call_id) == (BlockKind.SERVER_RESULT, "web_search", "s1")
    assert json.loads(found.meta.raw) == result


def test_unknown_blocks_are_opaque() -> None:
    events = feed(begin(0, type="container_upload", file_id="f"), stop(0))
    assert isinstance(events[0], Open)
    assert (events[0].kind, events[0].meta.origin) == (BlockKind.OPAQUE, "claude")
    assert json.loads(events[0].meta.raw) == {"type": "container_upload", "file_id": "f"}


def test_citations() -> None:
    cited = {"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "c", "encrypted_index": "E"}
    events = feed(begin(0, type="text", text="", citations=None), delta(0, "citations_delta", citation=cited))
    assert len(events) == 2
    assert isinstance(events[1], Ann)
    found: Annotation = events[1].annotation
    assert (found.kind, found.url, found.title, found.cited_text, found.origin) == ("url", "u", "t", "c", "claude")
    assert json.loads(found.raw) == cited


def test_usage_is_cumulative_and_null_erases_nothing() -> None:
    """Corpus 146."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 5, "output_tokens": 1}
    events = read_stream(
        sse(
            start(usage=usage),
            *ending(usage={"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 9}),
        )
    )
    tokens = [event.tokens for event in events if isinstance(event, Usage)][-1]
    assert (tokens.input, tokens.cached, tokens.cache_write, tokens.output) == (45, 30, 5, 9)


def test_delta_without_a_reason_is_no_stop() -> None:
    """Corpus 145."""
    events = feed(*ending(None)[:1])
    assert [type(event) for event in events] == [Usage]


@pytest.mark.parametrize(
    ("reason", "members", "expected"),
    [
        ("end_turn", {}, Stop(reason=StopReason.STOP)),
        ("max_tokens", {}, Stop(reason=StopReason.MAX_TOKENS)),
        ("stop_sequence", {"stop_sequence": "END"}, Stop(reason=StopReason.STOP_SEQUENCE, sequence="END")),
        ("tool_use", {}, Stop(reason=StopReason.TOOL_USE)),
        ("pause_turn", {}, Stop(reason=StopReason.PAUSE)),
        ("model_context_window_exceeded", {}, Stop(reason=StopReason.CONTEXT_FULL)),
        (
            "refusal",
            {"stop_details": {"type": "refusal", "category": "bio", "explanation": "no"}},
            Stop(reason=StopReason.REFUSAL, detail="no"),
        ),
        ("refusal", {"stop_details": 5}, Stop(reason=StopReason.REFUSAL)),
        ("compaction", {}, Stop(reason=StopReason.OTHER)),
    ],
)
def test_stop_reasons(reason: str, members: Any, expected: Stop) -> None:
    """3.3."""
    assert feed(*ending(reason, **members))[1] == expected


@pytest.mark.parametrize(
    ("kind", "member", "opened"),
    [
        ("text_delta", {"text": "a"}, Open(b=0, kind=BlockKind.TEXT)),
        ("thinking_delta", {"thinking": "a"}, Open(b=0, kind=BlockKind.REASONING)),
        ("input_json_delta", {"partial_json": "a"}, Open(b=0, kind=BlockKind.TOOL, meta=Meta(name="unknown_tool"))),
    ],
)
def test_delta_of_a_block_that_never_began_begins_it(kind: str, member: Any, opened: Open) -> None:
    """4.2."""
    assert feed(delta(7, kind, **member), stop(7)) == [opened, Delta(b=0, s="a"), Close(b=0)]


def test_odd_events_are_ignored() -> None:
    assert (
        feed(
            stop(9),
            {"type": "future_event", "data": 1},
            delta(0, "future_delta", x=1),
            {"type": "content_block_delta", "index": 0},
            {"type": "content_block_start", "index": 1},
            begin(1, type="text", text="")["content_block"],
        )
        == []
    )


def test_index_that_is_used_again_ends_the_block_before() -> None:
    assert feed(begin(0, type="text", text="a"), begin(0, type="text", text="b"), stop(0)) == [
        Open(b=0, kind=BlockKind.TEXT),
        Delta(b=0, s="a"),
        Close(b=0),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="b"),
        Close(b=1),
    ]


def test_members_of_odd_types_hide_nothing_else() -> None:
    frame = delta(0, "text_delta", text="a", signature=5)
    frame["usage"] = 7
    frame["message"] = []
    assert feed(begin(0, type="text", text="", id=9), frame)[1:] == [Delta(b=0, s="a")]


def test_pings() -> None:
    assert feed({"type": "ping"}) == [Ping()]


def test_name_of_the_event_stands_in_for_a_missing_type() -> None:
    parser = SPOKE.open_parser(context())
    assert parser.feed("message_stop", b"{}") == [End()]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"type": "overloaded_error", "message": "busy"}, 529),
        ({"type": "rate_limit_error", "message": "busy"}, 429),
        ({"type": "api_error", "message": "busy"}, 502),
        ({"type": "invalid_request_error", "message": "busy"}, 400),
    ],
)
def test_errors_inside_the_stream(error: Any, status: int) -> None:
    events = read_stream(sse(start(), {"type": "error", "error": error}))
    assert events[-1] == Err(status=status, message="busy")


def test_bare_error_object() -> None:
    assert SPOKE.open_parser(context()).feed("", b'{"error":{"message":"x"}}') == [Err(status=502, message="x")]


def test_nothing_after_the_end() -> None:
    parser = SPOKE.open_parser(context())
    parser.feed("", b'{"type":"message_stop"}')
    assert parser.feed("", json.dumps(begin(0, type="text", text="a")).encode()) == []


def test_truncated_stream_is_an_error() -> None:
    """Corpus 117."""
    events = read_stream(sse(start(), begin(0, type="text", text="a")))
    assert isinstance(events[-1], Err)
    assert events[-1].status == 502


def test_empty_stream_is_an_error() -> None:
    assert [type(event) for event in read_stream(b"")] == [Err]


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b"5", b'{"type":', b'"x"', b'{"type":"\xff"}'])
def test_garbage_is_the_upstreams_error(data: bytes) -> None:
    parser = SPOKE.open_parser(context())
    if data == b'{"type":"\xff"}':
        assert parser.feed("", data) == []
        return
    with pytest.raises(UpstreamProtocolError):
        parser.feed("", data)


def test_done_marks_of_others_are_ignored() -> None:
    assert SPOKE.open_parser(context()).feed("", b"[DONE]") == []


# --- whole answers ---

FULL: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 4},
}


def test_whole_answer() -> None:
    assert read_full(FULL) == [
        Start(id="msg_1", model="claude-x", created_unix=1_790_000_000),
        Usage(tokens=Tokens(input=3, output=4)),
        Open(b=0, kind=BlockKind.REASONING),
        Delta(b=0, s="hm"),
        SigEvent(b=0, sig=sig("s")),
        Close(b=0),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="a"),
        Close(b=1),
        Open(b=2, kind=BlockKind.TOOL, meta=TOOL),
        Delta(b=2, s='{"a": 1}'),
        Close(b=2),
        Stop(reason=StopReason.TOOL_USE),
        End(),
    ]


def test_text_instead_of_blocks() -> None:
    events = read_full({**FULL, "content": "hello", "stop_reason": "end_turn"})
    assert Delta(b=0, s="hello") in events


def test_error_in_place_of_an_answer() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert SPOKE.parse_full(json.dumps(body).encode(), context()) == [Err(status=529, message="busy")]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content":5}', b'{"content":null}'])
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(body, context())
