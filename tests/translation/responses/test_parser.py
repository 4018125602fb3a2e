"""Reading answers of providers that speak Responses (translation 4.4)."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import UpstreamProtocolError
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Channel,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Open,
    PartBreak,
    SigEvent,
    Start,
    Stop,
    StopReason,
    Usage,
)
from cpa.translation.profile import ModelProfile
from cpa.translation.responses import SPOKE
from tests.translation.responses.support import CHAT, CODEX, GPT, RESPONSES, frames, make_ctx, normal, read

CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-x", "created_at": 17, "output": []}}


def added(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, **item: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def ended(*output: dict[str, Any], kind: str = "completed", **members: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "status": kind, "output": list(output), **members}
    return {"type": f"response.{kind}", "response": response}


def text_delta(index: int, item_id: str, delta: str, place: int = 0) -> dict[str, Any]:
    where = {"output_index": index, "item_id": item_id, "content_index": place}
    return {"type": "response.output_text.delta", **where, "delta": delta, "logprobs": []}


def arguments(index: int, item_id: str, delta: str) -> dict[str, Any]:
    return {
        "type": "response.function_call_arguments.delta",
        "output_index": index,
        "item_id": item_id,
        "delta": delta,
    }


def message(item_id: str, *texts: str, **members: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": content, **members}


def function(item_id: str, args: str, **members: Any) -> dict[str, Any]:
    call = {"type": "function_call", "id": item_id, "call_id": "c_" + item_id, "name": "f", "arguments": args}
    return {**call, "status": "completed", **members}


def brief(events: list[IREvent]) -> list[Any]:
    """Events as short tuples."""
    out: list[Any] = []
    for event in events:
        match event:
            case Open():
                out.append(("open", event.b, event.kind.value))
            case Delta():
                out.append((event.b, event.s))
            case Close():
                out.append(("close", event.b))
            case Stop():
                out.append(event.reason.value)
            case PartBreak():
                out.append("break")
            case SigEvent():
                out.append(("sig", event.b, event.sig.data))
            case _:
                out.append(type(event).__name__)
    return out


def story(*events: dict[str, Any]) -> list[Any]:
    """What a client's emitter would get."""
    ctx = make_ctx(CHAT)
    return brief(normal(read(frames(*events), ctx), ctx))


def test_text_stream() -> None:
    """The vendor's usual order."""
    events = read(
        frames(
            CREATED,
            {**CREATED, "type": "response.in_progress"},
            added(0, type="message", id="msg_1", role="assistant", content=[], phase="commentary"),
            {
                "type": "response.content_part.added",
                "output_index": 0,
                "item_id": "msg_1",
                "content_index": 0,
                "part": {"type": "output_text", "text": "", "annotations": []},
            },
            text_delta(0, "msg_1", "Hel"),
            text_delta(0, "msg_1", "lo"),
            done(0, **message("msg_1", "Hello")),
            ended(message("msg_1", "Hello"), usage={"input_tokens": 3, "output_tokens": 2}, service_tier="default"),
        )
    )
    start, opened, *rest = events
    assert start == Start(id="resp_1", model="gpt-x", created_unix=17)
    assert isinstance(opened, Open)
    assert (opened.kind, opened.meta.item_id, opened.meta.phase) == (BlockKind.TEXT, "msg_1", "commentary")
    assert rest[:3] == [Delta(b=0, s="Hel"), Delta(b=0, s="lo"), Close(b=0, final="Hello")]
    usage, stop, end = rest[3:]
    assert isinstance(usage, Usage)
    assert (usage.tokens.input, usage.tokens.output, usage.tokens.tier) == (3, 2, "standard")
    assert stop == Stop(reason=StopReason.STOP)
    assert end == End()


def test_event_name_is_redundant() -> None:
    """4.4: the type in the data counts; the line only where that is missing."""
    data = json.dumps(CREATED).encode()
    assert SPOKE.open_parser(make_ctx(CHAT)).feed("wrong", data) == SPOKE.open_parser(make_ctx(CHAT)).feed("", data)
    (start,) = SPOKE.open_parser(make_ctx(CHAT)).feed("response.created", b'{"response":{"id":"resp_1"}}')
    assert start == Start(id="resp_1")


def test_calls_open_when_their_name_is_known() -> None:
    """Interleaved, keyed by place and id; arguments that come early wait (case 122)."""
    events = read(
        frames(
            CREATED,
            added(0, type="function_call", id="fc_0", call_id="c_fc_0", name="f", arguments=""),
            added(1, type="function_call", id="fc_1", arguments=""),
            arguments(0, "fc_0", '{"a"'),
            arguments(1, "fc_1", '{"b":'),
            arguments(0, "fc_0", ":1}"),
            done(1, **function("fc_1", '{"b":2}', name="g", namespace="ns")),
            done(0, **function("fc_0", '{"a":1}')),
            ended(),
        )
    )
    assert brief(events) == [
        "Start",
        ("open", 0, "tool"),
        (0, '{"a"'),
        (0, ":1}"),
        ("open", 1, "tool"),
        (1, '{"b":'),
        ("close", 1),
        ("close", 0),
        "tool_use",
        "End",
    ]
    second = events[4]
    assert isinstance(second, Open)
    assert (second.meta.call_id, second.meta.name, second.meta.namespace) == ("c_fc_1", "g", "ns")
    finals = [event.final for event in events if isinstance(event, Close)]
    assert finals == ['{"b":2}', '{"a":1}']


def test_custom_calls() -> None:
    """Free text."""
    call = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "p"}
    events = story(
        CREATED,
        added(0, **call, input=""),
        {"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "ctc_1", "delta": "*** "},
        {"type": "response.custom_tool_call_input.done", "output_index": 0, "item_id": "ctc_1", "input": "*** x"},
        done(0, **call, input="*** x"),
        ended(),
    )
    assert events[1:5] == [("open", 0, "custom_tool"), (0, "*** "), (0, "x"), ("close", 0)]


def test_summary_parts_are_parted_lazily() -> None:
    """Case 126: one block, a boundary between, none at the end."""

    def summary(place: int, delta: str) -> dict[str, Any]:
        where = {"output_index": 0, "item_id": "rs_1", "summary_index": place}
        return {"type": "response.reasoning_summary_text.delta", **where, "delta": delta}

    def part(place: int) -> dict[str, Any]:
        return {
            "type": "response.reasoning_summary_part.added",
            "output_index": 0,
            "item_id": "rs_1",
            "summary_index": place,
            "part": {"type": "summary_text", "text": ""},
        }

    texts = [{"type": "summary_text", "text": text} for text in ("one", "two", "three")]
    events = read(
        frames(
            CREATED,
            added(0, type="reasoning", id="rs_1", summary=[], encrypted_content="provisional"),
            part(0),
            summary(0, "one"),
            part(1),
            summary(1, "tw"),
            part(2),
            done(0, type="reasoning", id="rs_1", summary=texts, encrypted_content=GPT),
            ended(),
        )
    )
    assert brief(events)[1:-2] == [
        ("open", 0, "reasoning"),
        (0, "one"),
        "break",
        (0, "tw"),
        (0, "o"),
        "break",
        (0, "three"),
        ("sig", 0, GPT),
        ("close", 0),
    ]


def test_raw_reasoning_is_a_channel_of_its_own() -> None:
    """2.10: the channel that came first is shown."""
    where = {"output_index": 0, "item_id": "rs_1"}
    events = read(
        frames(
            CREATED,
            added(0, type="reasoning", id="rs_1", summary=[]),
            {"type": "response.reasoning_text.delta", **where, "content_index": 0, "delta": "raw"},
            {"type": "response.reasoning_summary_text.delta", **where, "summary_index": 0, "delta": "sum"},
            done(0, type="reasoning", id="rs_1", summary=[{"type": "summary_text", "text": "sum"}]),
            ended(),
        )
    )
    opened = events[1]
    assert isinstance(opened, Open)
    assert opened.meta.channel is Channel.RAW
    assert [event.s for event in events if isinstance(event, Delta)] == ["raw"]


def test_encrypted_content_only_of_finished_items() -> None:
    """Cases 127 and 128."""
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert story(
        CREATED, added(0, **item, encrypted_content=GPT), done(0, **item), done(1, **message("m", "x")), ended()
    ) == [
        "Start",
        ("open", 0, "text"),
        (0, "x"),
        ("close", 0),
        "stop",
        "End",
    ]
    assert story(CREATED, added(0, **item), done(0, **item, encrypted_content=GPT), ended())[1:4] == [
        ("open", 0, "reasoning"),
        ("sig", 0, GPT),
        ("close", 0),
    ]


@pytest.mark.parametrize(
    "events",
    [
        [done(0, **message("msg_1", "Hi")), ended()],
        [ended(message("msg_1", "Hi"))],
        [done(0, **message("msg_1", "Hi")), ended(message("msg_1", "Hi"))],
        [text_delta(0, "msg_1", "H"), done(0, **message("msg_1", "Hi")), ended(message("msg_1", "Hi"))],
        [text_delta(0, "msg_1", "H"), ended(message("msg_1", "Hi"))],
        [text_delta(0, "msg_1", "Hi"), ended(message("other", "Hi"))],
        [text_delta(0, "msg_1", "Hi"), ended()],
        [
            {**text_delta(0, "msg_1", ""), "type": "response.output_text.done", "text": "Hi"},
            ended(),
        ],
    ],
    ids=["done-only", "completed-only", "both", "delta-done", "delta-completed", "ids-differ", "deltas", "text-done"],
)
def test_what_comes_twice_counts_once(events: list[dict[str, Any]]) -> None:
    """Cases 129 to 131."""
    found = story(CREATED, *events)
    assert [entry for entry in found if isinstance(entry, tuple) and entry[0] == "open"] == [("open", 0, "text")]
    assert "".join(entry[1] for entry in found if isinstance(entry, tuple) and entry[0] == 0) == "Hi"
    assert found[-2:] == ["stop", "End"]


@pytest.mark.parametrize(
    "events",
    [
        [done(0, **function("fc_1", '{"a":1}')), ended()],
        [ended(function("fc_1", '{"a":1}'))],
        [
            added(0, **function("fc_1", "")),
            arguments(0, "fc_1", '{"a":1}'),
            ended(function("new", '{"a":1}', call_id="c_fc_1")),
        ],
        [added(0, **function("fc_1", "")), arguments(0, "fc_1", '{"a":1}'), ended()],
        [
            added(0, **function("fc_1", "")),
            {
                "type": "response.function_call_arguments.done",
                "output_index": 0,
                "item_id": "fc_1",
                "arguments": '{"a":1}',
            },
            ended(),
        ],
        [added(0, **function("fc_1", "")), done(0, **function("fc_2", '{"a":1}', call_id="c_fc_1")), ended()],
    ],
    ids=["done-only", "completed-only", "by-call-id", "deltas", "arguments-done", "id-changes"],
)
def test_calls_are_complete_whoever_tells_of_them(events: list[dict[str, Any]]) -> None:
    """Hosts leave out one or the other."""
    found = story(CREATED, *events)
    assert [entry for entry in found if isinstance(entry, tuple) and entry[0] == "open"] == [("open", 0, "tool")]
    assert "".join(entry[1] for entry in found if isinstance(entry, tuple) and entry[0] == 0) == '{"a":1}'
    assert found[-2:] == ["tool_use", "End"]


def test_nameless_calls() -> None:
    """4.3, which holds here too: kept if they say something."""
    assert story(CREATED, done(0, type="function_call", arguments="{}"), ended())[1] == ("open", 0, "tool")
    assert "tool_use" not in story(CREATED, done(0, type="function_call"), done(1, **message("m", "x")), ended())


def test_refusals() -> None:
    """Case 134: a block of its own; alone it is the reason."""
    where = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
    refusal = {"type": "refusal", "refusal": "I cannot"}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [refusal]}
    found = story(
        CREATED,
        {"type": "response.refusal.delta", **where, "delta": "I "},
        {"type": "response.refusal.delta", **where, "delta": "cannot"},
        {"type": "response.refusal.done", **where, "refusal": "I cannot"},
        done(0, **item),
        ended(item),
    )
    assert found[1:4] == [("open", 0, "refusal"), (0, "I "), (0, "cannot")]
    assert found[-2:] == ["refusal", "End"]


def test_citations_once() -> None:
    """By their own events, or else of the finished part."""
    citation = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 2}
    item = message("msg_1", "Hi")
    item["content"][0]["annotations"] = [citation]
    event = {
        "type": "response.output_text.annotation.added",
        "output_index": 0,
        "item_id": "msg_1",
        "content_index": 0,
        "annotation_index": 0,
        "annotation": citation,
    }
    for events in ([event, done(0, **item)], [done(0, **item)]):
        found = [e for e in read(frames(CREATED, text_delta(0, "msg_1", "Hi"), *events, ended())) if isinstance(e, Ann)]
        assert [(ann.annotation.url, ann.annotation.start, ann.annotation.end) for ann in found] == [
            ("https://x", 0, 2)
        ]


def test_server_tools_and_unknown_items() -> None:
    """Whole, with their JSON text."""
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    future = {"type": "future", "id": "x_1"}
    events = read(frames(CREATED, added(0, **search), done(0, **search), done(1, **future), ended(search, future)))
    opened = [event for event in events if isinstance(event, Open)]
    assert [(event.kind, event.meta.server) for event in opened] == [
        (BlockKind.SERVER_CALL, "web_search"),
        (BlockKind.OPAQUE, ""),
    ]
    assert [json.loads(event.meta.raw) for event in opened] == [search, future]


def test_images_once() -> None:
    """4.4: the final one only, identical repeats dropped."""
    image = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": "iVBOR",
        "output_format": "webp",
    }
    partial = {"type": "response.image_generation_call.partial_image", "output_index": 0, "item_id": "ig_1"}
    events = read(
        frames(CREATED, added(0, **image), partial, done(0, **image), done(1, **{**image, "id": "ig_2"}), ended())
    )
    assert brief(events)[1:4] == [("open", 0, "image"), (0, "iVBOR"), ("close", 0)]
    opened = events[1]
    assert isinstance(opened, Open)
    assert opened.meta.mime == "image/webp"
    assert len([event for event in events if isinstance(event, Open)]) == 1


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, StopReason.MAX_TOKENS),
        ({"reason": "content_filter"}, StopReason.REFUSAL),
        (None, StopReason.OTHER),
    ],
)
def test_incomplete(details: Any, reason: StopReason) -> None:
    """Case 133: the limit beats the call."""
    call = function("fc_1", '{"a"', status="incomplete")
    events = read(frames(CREATED, done(0, **call), ended(call, kind="incomplete", incomplete_details=details)))
    assert [event.reason for event in events if isinstance(event, Stop)] == [reason]
    assert [event.incomplete for event in events if isinstance(event, Close)] == [True]


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (ended(kind="failed", error={"code": "rate_limit_exceeded", "message": "slow"}), 429, "rate_limit_exceeded"),
        (ended(kind="failed", error={"code": "server_error", "message": "x"}), 502, "server_error"),
        (ended(kind="failed", error=None), 502, ""),
        ({"type": "error", "code": "invalid_prompt", "message": "bad", "param": None}, 400, "invalid_prompt"),
        ({"error": {"message": "m", "type": "overloaded_error"}}, 529, "overloaded_error"),
        (ended(kind="failed", error={"code": "usage_limit_reached", "message": "x"}), 429, "usage_limit_reached"),
        (ended(kind="failed", error={"code": "x", "message": "Selected model is at capacity."}), 429, "x"),
        (
            ended(kind="failed", error={"code": "context_length_exceeded", "message": "x"}),
            400,
            "context_length_exceeded",
        ),
    ],
)
def test_errors(event: dict[str, Any], status: int, code: str) -> None:
    """Cases 132; table 5.4."""
    data = json.dumps(event).encode()
    parser = SPOKE.open_parser(make_ctx(CHAT))
    parser.feed("", json.dumps(CREATED).encode())
    (error,) = parser.feed("", data)
    assert isinstance(error, Err)
    assert (error.status, error.code) == (status, code)
    assert error.message
    assert parser.feed("", json.dumps(text_delta(0, "m", "late")).encode()) == []


def test_cancelled() -> None:
    """3.3: an error."""
    assert isinstance(read(frames(CREATED, ended(kind="cancelled")))[-1], Err)


def test_eof_without_terminal() -> None:
    """Case 117: the normalizer's business, but for codex, where the credential may be changed."""
    assert brief(read(frames(CREATED, text_delta(0, "m", "x")))) == ["Start", ("open", 0, "text"), (0, "x")]
    codex = make_ctx(CHAT, CODEX, profile=ModelProfile(codex=True))
    error = read(frames(CREATED), codex)[-1]
    assert isinstance(error, Err)
    assert error.status == 408
    assert read([], codex) == []


def test_end_marks_and_late_events_are_ignored() -> None:
    """4.1 and 4.4."""
    parser = SPOKE.open_parser(make_ctx(CHAT))
    assert parser.feed("", b"[DONE]") == []
    parser.feed("", json.dumps(ended(message("m", "x"))).encode())
    assert parser.feed("", b"[DONE]") == []
    assert parser.feed("", b"not json, but too late") == []
    assert parser.finish() == []


def test_unknown_events_are_ignored() -> None:
    """Forward compatibility."""
    assert (
        story(CREATED, {"type": "response.future.delta", "delta": "x"}, done(0, **message("m", "x")), ended())[-1]
        == "End"
    )


# --- whole answers ---------------------------------------------------------------------------------------------------


def test_whole_answer_is_the_terminal_event_alone() -> None:
    """Part 3: one meaning."""
    response = ended(
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}]},
        message("msg_1", "Hi"),
        function("fc_1", "{}"),
        usage={"input_tokens": 1, "output_tokens": 2},
    )["response"]
    body = json.dumps({**response, "model": "gpt-x", "created_at": 17}).encode()
    events = SPOKE.parse_full(body, make_ctx(CHAT))
    assert events[0] == Start(id="resp_1", model="gpt-x", created_unix=17)
    assert brief(events)[1:] == [
        ("open", 0, "reasoning"),
        (0, "s"),
        ("close", 0),
        ("open", 1, "text"),
        ("close", 1),
        ("open", 2, "tool"),
        ("close", 2),
        "Usage",
        "tool_use",
        "End",
    ]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b"{}", b'{"object":"chat.completion","choices":[]}', b'{"output":3}']
)
def test_what_is_no_response_is_the_providers_fault(body: bytes) -> None:
    """Nor are answers that are not finished of use to anybody."""
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(body, make_ctx(CHAT))


@pytest.mark.parametrize("status", ["queued", "in_progress", "new"])
def test_unfinished_answers_are_of_no_use(status: str) -> None:
    """A background response, say."""
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(json.dumps({"status": status, "output": []}).encode(), make_ctx(CHAT))


def test_failed_and_error_bodies() -> None:
    """3.3."""
    failed = {"status": "failed", "output": [], "error": {"code": "rate_limit_exceeded", "message": "m"}}
    for body in (failed, {"error": {"code": "rate_limit_exceeded", "message": "m"}}):
        (error,) = SPOKE.parse_full(json.dumps(body).encode(), make_ctx(CHAT))
        assert isinstance(error, Err)
        assert error.status == 429


# --- hostile ---------------------------------------------------------------------------------------------------------

VALUES = (
    st.none()
    | st.integers(-1, 2)
    | st.sampled_from(["", "x", "msg_1", "fc_1", "message", "reasoning", "function_call"])
)
ITEMS = st.dictionaries(
    st.sampled_from(
        ["type", "id", "call_id", "name", "arguments", "content", "summary", "status", "encrypted_content", "result"]
    ),
    VALUES | st.lists(st.dictionaries(st.sampled_from(["type", "text", "refusal"]), VALUES, max_size=3), max_size=2),
    max_size=6,
)
KINDS = st.sampled_from(
    [
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.done",
        "response.output_text.annotation.added",
        "response.completed",
        "response.failed",
        "error",
    ]
)
EVENTS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "output_index": VALUES,
        "content_index": VALUES,
        "summary_index": VALUES,
        "item_id": VALUES,
        "delta": VALUES,
        "text": VALUES,
        "arguments": VALUES,
        "item": ITEMS | VALUES,
        "part": ITEMS | VALUES,
        "response": st.fixed_dictionaries(
            {}, optional={"id": VALUES, "output": st.lists(ITEMS, max_size=3), "status": VALUES}
        ),
    },
)


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_any_events_give_a_well_formed_story(events: list[dict[str, Any]]) -> None:
    """Whatever a provider sends, emitters get one start, one end, and nothing outside its block."""
    ctx = make_ctx(CHAT)
    found = normal(read(frames(*events), ctx), ctx)
    assert isinstance(found[-1], End | Err)
    open_blocks: set[int] = set()
    for event in found:
        if isinstance(event, Open):
            open_blocks.add(event.b)
        elif isinstance(event, Delta):
            assert event.b in open_blocks
            assert event.s
        elif isinstance(event, Close):
            open_blocks.remove(event.b)
    assert not open_blocks


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_give_events_or_a_protocol_error(data: bytes) -> None:
    """Nothing else."""
    for frame in (data, b'{"type":"response.completed","response":' + data + b"}"):
        try:
            SPOKE.open_parser(make_ctx(CHAT)).feed("", frame)
            SPOKE.parse_full(frame, make_ctx(RESPONSES))
        except UpstreamProtocolError:
            continue
