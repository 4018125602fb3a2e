"""L2, L3 and L4: one meaning, whatever the form; and the vendor's own client accepts what we write."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import TypeAdapter

from cpa.formats.names import Format
from cpa.formats.sse import event_data, split_events
from cpa.translation.context import Context, Names
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Channel,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    PartBreak,
    Provenance,
    ReasoningIntent,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from cpa.translation.registry import StreamSession, translate_full
from cpa.translation.responses import SPOKE
from tests.translation.responses.support import (
    CHAT,
    CLAUDE,
    GEMINI,
    GPT,
    RESPONSES,
    decoded,
    make_ctx,
    new_request,
    normal,
    response_of,
    write,
)

RESPONSE = TypeAdapter(Response)
WORDS = st.text(min_size=1, max_size=8).filter(lambda text: text == text.encode("utf-8", "replace").decode())
NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


def reading_ctx(provider: Format = CLAUDE) -> Context:
    """A client that carries state; one tool of its is wrapped for others."""
    ctx = make_ctx(provider=provider, request=new_request(RESPONSES, reasoning=ReasoningIntent(carry=True)))
    ctx.names = Names(client={"git__log": ("git", "log")}, custom={"edit"})
    return ctx


# --- the vendor's client over our bytes ------------------------------------------------------------------------------


@contextmanager
def vendor_client(body: bytes, content_type: str) -> Iterator[openai.OpenAI]:
    """The official client; every request is answered with *body*."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type}, content=body)

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as http,
        openai.OpenAI(api_key="k", base_url="http://local/v1", http_client=http, max_retries=0) as client,
    ):
        yield client


def accumulated(stream: bytes) -> dict[str, Any]:
    """What the streaming helper makes of *stream*, which must end with ``response.completed``."""
    with (
        vendor_client(stream, "text/event-stream") as client,
        client.responses.stream(model="m", input="x") as events,
    ):
        final = events.get_final_response()
    found: dict[str, Any] = final.to_dict(mode="json")
    return found


def iterated(stream: bytes) -> list[str]:
    """The types of the events that raw iteration gives."""
    with vendor_client(stream, "text/event-stream") as client:
        return [event.type for event in client.responses.create(model="m", input="x", stream=True)]


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Equal but for when it was."""

    def timeless(value: dict[str, Any]) -> dict[str, Any]:
        return {name: item for name, item in value.items() if name not in ("created_at", "completed_at")}

    assert timeless(left) == timeless(right)


# --- answers of any provider, as events ------------------------------------------------------------------------------


@st.composite
def blocks(draw: Any, b: int) -> list[IREvent]:
    kind = draw(
        st.sampled_from(["text", "refusal", "summary", "raw", "tool", "custom", "image", "search", "standalone"])
    )
    pieces = draw(st.lists(WORDS, max_size=3))
    sig = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EsClaude")
    part_sig = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==")
    signed = draw(st.booleans())
    match kind:
        case "text":
            cite = Ann(b=b, annotation=Annotation(kind="url", url="https://x", title="X", start=0, end=1))
            extra: list[IREvent] = [SigEvent(b=b, sig=part_sig)] if signed else []
            extra += [cite] if draw(st.booleans()) and pieces else []
            return [Open(b=b, kind=BlockKind.TEXT), *(Delta(b=b, s=s) for s in pieces), *extra, Close(b=b)]
        case "refusal":
            return [Open(b=b, kind=BlockKind.REFUSAL), *(Delta(b=b, s=s) for s in pieces), Close(b=b)]
        case "summary" | "raw":
            inner: list[IREvent] = []
            for piece in pieces:
                inner += [*([PartBreak(b=b)] if inner and draw(st.booleans()) else []), Delta(b=b, s=piece)]
            inner += [SigEvent(b=b, sig=sig)] if signed else []
            channel = Channel.SUMMARY if kind == "summary" else Channel.RAW
            return [Open(b=b, kind=BlockKind.REASONING, meta=Meta(channel=channel)), *inner, Close(b=b)]
        case "tool":
            meta = Meta(call_id=f"call_{b}", name=draw(st.sampled_from(["f", "git__log", "edit"])))
            begun: list[IREvent] = [Open(b=b, kind=BlockKind.TOOL, meta=meta)]
            begun += [SigEvent(b=b, sig=part_sig)] if signed else []
            text = json.dumps({"input": "".join(pieces)})
            cut = draw(st.integers(0, len(text)))
            return [*begun, *(Delta(b=b, s=s) for s in (text[:cut], text[cut:]) if s), Close(b=b)]
        case "custom":
            meta = Meta(call_id=f"call_{b}", name="p")
            opened = Open(b=b, kind=BlockKind.CUSTOM_TOOL, meta=meta)
            return [opened, *(Delta(b=b, s=s) for s in pieces), Close(b=b)]
        case "image":
            return [Open(b=b, kind=BlockKind.IMAGE, meta=Meta(mime="image/png")), Delta(b=b, s="iVBOR"), Close(b=b)]
        case "search":
            raw = b'{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"q"}}'
            meta = Meta(server="web_search", origin="claude", raw=raw)
            return [Open(b=b, kind=BlockKind.SERVER_CALL, meta=meta), Close(b=b)]
        case _:
            return [SigEvent(b=-1, sig=part_sig)]


@st.composite
def answers(draw: Any, reasons: Any) -> list[IREvent]:
    """Blocks that overlap in any way, with the invariants of emitters kept."""
    lanes = [draw(blocks(b)) for b in range(draw(st.integers(0, 5)))]
    order: list[IREvent] = []
    overlap = draw(st.booleans())
    while any(lanes):
        place = draw(st.integers(0, len(lanes) - 1)) if overlap else next(n for n, lane in enumerate(lanes) if lane)
        if lanes[place]:
            order.append(lanes[place].pop(0))
    return [
        Start(id="msg_1", created_unix=17),
        *order,
        Usage(tokens=Tokens(input=3, output=4)),
        Stop(reason=draw(reasons)),
        End(),
    ]


GOOD = st.sampled_from([StopReason.STOP, StopReason.TOOL_USE, StopReason.STOP_SEQUENCE])


@settings(max_examples=35, deadline=None)
@given(answers(GOOD), st.sampled_from([CLAUDE, GEMINI, CHAT]))
def test_what_the_vendors_client_accumulates_is_the_whole_answer(events: list[IREvent], provider: Format) -> None:
    """L2 and L4: any blocks, overlapping in any way."""
    whole = json.loads(SPOKE.emit_full(events, reading_ctx(provider)))
    stream = write(events, reading_ctx(provider))
    assert_same(response_of(stream), whole)
    RESPONSE.validate_python(whole)
    found = accumulated(stream)
    assert_same({**found, "output": []}, {**whole, "output": []} | _echo(found))
    assert [_known(item) for item in found["output"]] == [_known(item) for item in whole["output"]]


def _echo(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("tools", "tool_choice", "parallel_tool_calls")}


def _known(item: dict[str, Any]) -> dict[str, Any]:
    """Without what the helper adds: parsed forms."""
    item = {name: value for name, value in item.items() if name not in ("parsed_arguments",)}
    if isinstance(item.get("content"), list):
        item["content"] = [
            {name: value for name, value in part.items() if name != "parsed"} for part in item["content"]
        ]
    return item


@settings(max_examples=15, deadline=None)
@given(answers(st.sampled_from([StopReason.MAX_TOKENS, StopReason.REFUSAL])))
def test_raw_iteration_takes_the_other_ends(events: list[IREvent]) -> None:
    """L4: the helper raises for these, also on the vendor's own streams; iteration does not."""
    stream = write(events, reading_ctx())
    kinds = iterated(stream)
    assert kinds == [event["type"] for event in decoded(stream)]
    assert kinds[-1] in ("response.incomplete", "response.completed")
    RESPONSE.validate_python(response_of(stream))


def test_failed_streams_raise_nothing_in_raw_iteration() -> None:
    """4.9a, after the start."""
    stream = write([Start(id="x"), Open(b=0, kind=BlockKind.TEXT), Delta(b=0, s="a"), Err(status=500, message="m")])
    assert iterated(stream)[-1] == "response.failed"


def test_whole_answers_parse() -> None:
    """The vendor's client over a plain body."""
    body = SPOKE.emit_full(
        [
            Start(id="x"),
            Open(b=0, kind=BlockKind.TEXT),
            Delta(b=0, s="Hi"),
            Close(b=0),
            Stop(reason=StopReason.STOP),
            End(),
        ],
        reading_ctx(),
    )
    with vendor_client(body, "application/json") as client:
        response = client.responses.create(model="m", input="x")
    assert (response.output_text, response.status, response.model) == ("Hi", "completed", "client-name")


# --- a provider's answer, whole and as a stream ----------------------------------------------------------------------


@st.composite
def responses(draw: Any) -> dict[str, Any]:
    """A response object as the vendor would give it."""
    output: list[dict[str, Any]] = []
    for place in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["message", "reasoning", "raw", "call", "custom", "search", "image"]))
        texts = draw(st.lists(WORDS, min_size=1, max_size=2))
        match kind:
            case "message":
                content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
                item = {"type": "message", "id": f"msg_{place}", "role": "assistant", "content": content}
            case "reasoning":
                summary = [{"type": "summary_text", "text": text} for text in texts]
                item = {"type": "reasoning", "id": f"rs_{place}", "summary": summary, "encrypted_content": GPT}
            case "raw":
                parts = [{"type": "reasoning_text", "text": text} for text in texts]
                item = {"type": "reasoning", "id": f"rs_{place}", "summary": [], "content": parts}
            case "call":
                item = {"type": "function_call", "id": f"fc_{place}", "call_id": f"c{place}", "name": draw(NAMES)}
                item["arguments"] = json.dumps({"a": texts})
            case "custom":
                item = {"type": "custom_tool_call", "id": f"ctc_{place}", "call_id": f"c{place}", "name": "p"}
                item["input"] = texts[0]
            case "search":
                action = {"type": "search", "query": texts[0], "queries": [texts[0]]}
                item = {"type": "web_search_call", "id": f"ws_{place}", "action": action}
            case _:
                item = {"type": "image_generation_call", "id": f"ig_{place}", "result": f"iVBOR{place}"}
                item["output_format"] = "png"
        output.append({**item, "status": "completed"})
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12, "input_tokens_details": {"cached_tokens": 1}}
    status = draw(st.sampled_from(["completed", "incomplete"]))
    details = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": "resp_7",
        "object": "response",
        "created_at": 17,
        "model": "gpt-x",
        "status": status,
        "incomplete_details": details,
        "output": output,
        "usage": usage,
    }


def streamed(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The stream that the vendor would send instead of *response*."""
    yield {"type": "response.created", "response": {**response, "status": "in_progress", "output": [], "usage": None}}
    for index, item in enumerate(response["output"]):
        where = {"output_index": index, "item_id": item["id"]}
        begun = {**item, "status": "in_progress"}
        begun.update({name: "" for name in ("arguments", "input") if name in item})
        begun.update({name: [] for name in ("content", "summary") if name in item})
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        for place, part in enumerate(item.get("summary", ())):
            at = {**where, "summary_index": place}
            yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
            yield from _halves("response.reasoning_summary_text.delta", at, part["text"])
            yield {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]}
            yield {"type": "response.reasoning_summary_part.done", **at, "part": part}
        for place, part in enumerate(item.get("content", ())):
            at = {**where, "content_index": place}
            name = "output_text" if part["type"] == "output_text" else "reasoning_text"
            yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
            yield from _halves(f"response.{name}.delta", at, part["text"])
            yield {"type": f"response.{name}.done", **at, "text": part["text"]}
            yield {"type": "response.content_part.done", **at, "part": part}
        for member, name in (("arguments", "function_call_arguments"), ("input", "custom_tool_call_input")):
            if member in item:
                yield from _halves(f"response.{name}.delta", where, item[member])
                yield {"type": f"response.{name}.done", **where, member: item[member]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _halves(kind: str, where: dict[str, Any], text: str) -> Iterator[dict[str, Any]]:
    middle = len(text) // 2
    for piece in (text[:middle], text[middle:]):
        if piece:
            yield {"type": kind, **where, "delta": piece}


def sse(events: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps({**event, "sequence_number": n}).encode())
        for n, event in enumerate(events)
    )


@settings(max_examples=35, deadline=None)
@given(responses())
def test_stream_and_body_of_a_provider_mean_the_same(response: dict[str, Any]) -> None:
    """L2, for this protocol on both sides: through parser, normalizer and emitter."""
    ctx = reading_ctx(RESPONSES)
    whole = json.loads(translate_full(json.dumps(response).encode(), ctx))
    session = StreamSession(reading_ctx(RESPONSES))
    stream = session.feed(sse(streamed(response))) + session.finish()
    assert session.error is None
    assert_same(response_of(stream), whole)
    assert _said(whole) == _said(response)


def _said(response: dict[str, Any]) -> Any:
    """What must survive a passage through the representation: all but ids; adjacent messages become one."""
    items: list[Any] = []
    for item in response["output"]:
        found = {
            name: value
            for name, value in item.items()
            if name not in ("id", "status") and not (name == "content" and not value)
        }
        if item["type"] == "message" and items and items[-1]["type"] == "message":
            items[-1]["content"] = items[-1]["content"] + found["content"]
        else:
            items.append(found)
    usage = response["usage"]
    return response["id"], response["status"], response["incomplete_details"], items, usage["total_tokens"]


@settings(max_examples=15, deadline=None)
@given(responses(), st.lists(st.integers(0, 200), max_size=8))
def test_grouping_of_events_means_nothing(response: dict[str, Any], cuts: list[int]) -> None:
    """L3: whole events, in any groups."""
    events = split_events(sse(streamed(response)))
    together = StreamSession(reading_ctx(RESPONSES))
    expected = together.feed(b"".join(events)) + together.finish()
    session = StreamSession(reading_ctx(RESPONSES))
    out = b""
    places = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for start, end in pairwise(places):
        out += session.feed(b"".join(events[start:end]))
    assert out + session.finish() == expected


@settings(max_examples=25, deadline=None)
@given(responses(), st.data())
def test_a_lost_event_never_looks_like_nonsense(response: dict[str, Any], data: Any) -> None:
    """Part 9 (f): remove any event, and the client's stream is well-formed and ended, or an error."""
    events = list(streamed(response))
    events.pop(data.draw(st.integers(0, len(events) - 1)))
    session = StreamSession(reading_ctx(RESPONSES))
    stream = session.feed(sse(iter(events))) + session.finish()
    if session.error is not None:
        return
    kinds = iterated(stream)
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    if kinds[-1] == "response.completed":
        accumulated(stream)


def test_our_own_stream_is_read_back_as_it_was_meant() -> None:
    """Emitter and parser are inverses."""
    events: list[IREvent] = [
        Start(id="msg_1", created_unix=17),
        Open(b=0, kind=BlockKind.REASONING),
        Delta(b=0, s="why"),
        Close(b=0),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="Hi"),
        Close(b=1),
        Open(b=2, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")),
        Delta(b=2, s='{"a":1}'),
        Close(b=2),
        Stop(reason=StopReason.TOOL_USE),
        End(),
    ]
    stream = write(events)
    parser = SPOKE.open_parser(make_ctx(CHAT))
    found = [event for frame in split_events(stream) for event in parser.feed("", event_data(frame) or b"")]
    texts: dict[int, str] = {}
    for event in normal(found, make_ctx(CHAT)):
        if isinstance(event, Delta):
            texts[event.b] = texts.get(event.b, "") + event.s
    assert texts == {0: "why", 1: "Hi", 2: '{"a":1}'}
    assert [event.kind for event in found if isinstance(event, Open)] == [
        BlockKind.REASONING,
        BlockKind.TEXT,
        BlockKind.TOOL,
    ]


@pytest.mark.parametrize("text", ["plain", 'quotes " and \\ and \u2028', "😀", "\x00\x1f"])
def test_any_text_passes_the_vendors_client(text: str) -> None:
    """Escapes."""
    events: list[IREvent] = [Start(id="x"), Open(b=0, kind=BlockKind.TEXT), Delta(b=0, s=text), Close(b=0)]
    found = accumulated(write([*events, Stop(reason=StopReason.STOP), End()]))
    assert found["output"][0]["content"][0]["text"] == text
