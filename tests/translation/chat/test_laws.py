"""Laws L1 to L5 inside the Chat protocol, and what garbage may do (translation 0.4)."""

import json
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.names import Format
from cpa.formats.sse import split_events
from cpa.translation.chat import SPOKE, wire
from cpa.translation.context import Context, Names
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Call,
    Channel,
    Close,
    Delta,
    End,
    IREvent,
    Meta,
    Open,
    PartBreak,
    Provenance,
    Reasoning,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.registry import StreamSession, translate_full
from tests.translation.chat.support import (
    CHAT,
    CLAUDE,
    GEMINI,
    GPT,
    PARAMS,
    PNG,
    RESPONSES,
    VENDOR,
    accumulated,
    chunk,
    chunks,
    context,
    parse,
    parse_with,
    read,
    read_full,
    through,
    tool,
    vendor_client,
    write,
    write_full,
)

MODERATE = settings(max_examples=60, deadline=None)
COMPLETION: TypeAdapter[Any] = TypeAdapter(ChatCompletion)
CHUNK: TypeAdapter[Any] = TypeAdapter(ChatCompletionChunk)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
objects = st.dictionaries(texts, values, max_size=3)

# --- L1: requests ----------------------------------------------------------------------------------------------------

text_parts = texts.map(lambda text: {"type": "text", "text": text})
media_parts = st.sampled_from(
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "original"}},
        {"type": "image_url", "image_url": {"url": "https://x/a.gif"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]
)
contents = texts | st.tuples(text_parts | media_parts, media_parts).map(list)


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


users = st.tuples(contents, optional(name=names)).map(lambda t: [{"role": "user", "content": t[0]} | t[1]])
later_systems = st.tuples(st.sampled_from(["system", "developer"]), texts).map(
    lambda t: [{"role": t[0], "content": t[1]}]
)


@st.composite
def assistants(draw: Any) -> list[dict[str, Any]]:
    """A turn of the model, with the results of its calls."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(texts)} | draw(optional(name=names))
    kind = draw(st.sampled_from(["text", "refusal", "calls", "audio"]))
    if kind == "refusal":
        message |= {"content": None, "refusal": draw(texts)}
    if kind == "audio":
        message |= {"content": None, "audio": {"id": "audio_1"}}
    if kind != "calls":
        return [message]
    message["content"] = draw(st.none() | texts)
    message["tool_calls"] = []
    results = []
    for _ in range(draw(st.integers(1, 3))):
        call_id = f"call_{draw(st.uuids()).hex}"
        if draw(st.booleans()):
            inner = {"type": "function", "function": {"name": "f", "arguments": draw(texts | st.just("{}"))}}
        else:
            inner = {"type": "custom", "custom": {"name": "edit", "input": draw(texts)}}
        message["tool_calls"].append({"id": call_id, **inner})
        answer = draw(texts | st.tuples(text_parts, text_parts).map(list))
        results.append({"role": "tool", "tool_call_id": call_id, "content": answer})
    return [message, *results]


schemas = objects.map(lambda more: {"type": "object", "properties": {}} | more)
functions = st.fixed_dictionaries(
    {"name": st.just("f"), "parameters": schemas}, optional={"description": texts, "strict": st.just(False)}
)
tools = st.tuples(
    functions.map(lambda body: {"type": "function", "function": body}),
    st.sampled_from(
        [
            {"type": "custom", "custom": {"name": "edit"}},
            {
                "type": "custom",
                "custom": {
                    "name": "edit",
                    "description": "d",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}},
                },
            },
            {"type": "custom", "custom": {"name": "edit", "format": {"type": "text"}}},
        ]
    ),
).map(list)
choices = st.sampled_from(
    [
        "auto",
        "none",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "edit"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [
                    {"type": "function", "function": {"name": "f"}},
                    {"type": "custom", "custom": {"name": "edit"}},
                ],
            },
        },
    ]
)
with_tools = st.fixed_dictionaries(
    {"tools": tools}, optional={"tool_choice": choices, "parallel_tool_calls": st.booleans()}
)
floats = st.floats(0, 2).map(lambda number: round(number, 3))
members = optional(
    max_completion_tokens=st.integers(1, 9999),
    temperature=floats,
    top_p=floats,
    seed=st.integers(),
    presence_penalty=floats,
    frequency_penalty=floats,
    logit_bias=st.dictionaries(names, st.integers(-100, 100), max_size=2),
    stop=st.lists(texts, min_size=1, max_size=4),
    n=st.integers(1, 4),
    response_format=st.sampled_from(
        [
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": False},
            },
        ]
    ),
    verbosity=st.sampled_from(["low", "medium", "high"]),
    modalities=st.just(["text", "audio"]),
    audio=st.just({"voice": "alloy", "format": "wav"}),
    reasoning_effort=st.sampled_from(["minimal", "low", "high"]),
    service_tier=st.sampled_from(["auto", "default", "flex", "priority", "fast"]),
    safety_identifier=texts,
    user=texts,
    prompt_cache_key=texts,
    prompt_cache_retention=st.just("24h"),
    prediction=st.just({"type": "content", "content": "x"}),
    metadata=st.dictionaries(texts, texts, max_size=3),
    store=st.booleans(),
    web_search_options=st.just({"search_context_size": "low"}),
    moderation=st.just({"model": "m"}),
)
logprobs: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.integers(0, 5).map(
    lambda k: {"logprobs": True, "top_logprobs": k}
)


@st.composite
def bodies(draw: Any) -> dict[str, Any]:
    """Requests in the form in which this spoke writes them."""
    system = draw(st.lists(texts | st.tuples(text_parts, text_parts).map(list), max_size=1))
    developer = draw(st.lists(texts, max_size=1))
    rest = draw(st.lists(users | later_systems | assistants(), max_size=5))
    messages = [
        *({"role": "system", "content": content} for content in system),
        *({"role": "developer", "content": content} for content in developer),
        *draw(users),
        *(message for group in rest for message in group),
    ]
    body: dict[str, Any] = {"model": "provider-name", "messages": messages}
    for more in (with_tools, members, logprobs):
        body |= draw(more)
    return body


@MODERATE
@given(bodies())
def test_requests_come_out_as_they_went_in(body: dict[str, Any]) -> None:
    """L1 and L5; bodies are valid by the vendor's types, before and after."""
    PARAMS.validate_python(body)

    def ctx() -> Context:
        return context(CHAT, CHAT, profile=attrs.evolve(VENDOR, system_role="developer"))

    used = ctx()
    found = through(body, used)
    # Streams always ask for usage; these contexts stream.
    assert found.pop("stream") is True
    assert found.pop("stream_options") == {"include_usage": True}
    assert found == body
    assert used.losses == []
    PARAMS.validate_python(found)
    assert SPOKE.emit_request(parse(body, ctx()), ctx()) == SPOKE.emit_request(parse(body, ctx()), ctx())


@MODERATE
@given(bodies())
def test_requests_for_compatible_hosts_mean_the_same(body: dict[str, Any]) -> None:
    """L1 for other hosts: what is read of what was written is what was read first."""
    first = parse(through(body, context(CHAT, CHAT)), context(CHAT, CHAT))
    second = parse(through(through(body, context(CHAT, CHAT)), context(CHAT, CHAT)), context(CHAT, CHAT))
    assert first == second


# --- answers of any provider, as events ------------------------------------------------------------------------------


@st.composite
def lanes(draw: Any, b: int) -> list[IREvent]:
    """The events of one block, or of a signature that belongs to none."""
    kind = draw(
        st.sampled_from(["text", "refusal", "reasoning", "redacted", "tool", "wrapped", "image", "server", "sig"])
    )
    pieces = draw(st.lists(texts, max_size=3))
    claude = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EsClaude")
    openai = Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data=GPT)
    part = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==")
    signed = draw(st.booleans())
    said: list[IREvent] = [Delta(b=b, s=piece) for piece in pieces]
    match kind:
        case "text":
            cite = Annotation(kind="url", url="https://x", title="X", start=0, end=1)
            cited: list[IREvent] = [Ann(b=b, annotation=cite)] if pieces and draw(st.booleans()) else []
            sigs: list[IREvent] = [SigEvent(b=b, sig=part)] if signed else []
            return [Open(b=b, kind=BlockKind.TEXT), *said, *cited, *sigs, Close(b=b)]
        case "refusal":
            return [Open(b=b, kind=BlockKind.REFUSAL), *said, Close(b=b)]
        case "reasoning":
            inner: list[IREvent] = []
            for event in said:
                inner += [PartBreak(b=b), event] if inner and draw(st.booleans()) else [event]
            if signed:
                inner.append(SigEvent(b=b, sig=draw(st.sampled_from([claude, openai]))))
            meta = Meta(channel=draw(st.sampled_from(list(Channel))))
            return [Open(b=b, kind=BlockKind.REASONING, meta=meta), *inner, Close(b=b)]
        case "redacted":
            sig = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="EsRedacted")
            opened = Open(b=b, kind=BlockKind.REASONING, meta=Meta(redacted=True))
            return [opened, SigEvent(b=b, sig=sig), Close(b=b)]
        case "tool":
            meta = Meta(call_id=f"call_{b}", name=draw(st.sampled_from(["f", "a_b"])))
            begun: list[IREvent] = [Open(b=b, kind=BlockKind.TOOL, meta=meta)]
            begun += [SigEvent(b=b, sig=part)] if signed else []
            return [*begun, *said, Close(b=b)]
        case "wrapped":
            meta = Meta(call_id=f"call_{b}", name="edit")
            text = json.dumps({"input": "".join(pieces)})
            return [Open(b=b, kind=BlockKind.TOOL, meta=meta), Delta(b=b, s=text), Close(b=b)]
        case "image":
            return [Open(b=b, kind=BlockKind.IMAGE, meta=Meta(mime="image/png")), Delta(b=b, s=f"{b}AA"), Close(b=b)]
        case "server":
            return [Open(b=b, kind=BlockKind.SERVER_CALL), Close(b=b)]
        case _:
            return [SigEvent(b=-1, sig=part)]


@st.composite
def answers(draw: Any, kinds: Any = None) -> list[IREvent]:
    """Blocks that overlap in any way, with the invariants of emitters kept."""
    rows = [draw(lanes(b)) for b in range(draw(st.integers(0, 5)))]
    overlap = draw(st.booleans())
    order: list[IREvent] = []
    while any(rows):
        place = draw(st.integers(0, len(rows) - 1)) if overlap else next(n for n, row in enumerate(rows) if row)
        if rows[place]:
            order.append(rows[place].pop(0))
    reason = draw(st.sampled_from([StopReason.STOP, StopReason.TOOL_USE, StopReason.PAUSE]))
    return [
        Start(id="msg_1", created_unix=17),
        *order,
        Usage(tokens=Tokens(input=3, output=4, cached=1)),
        Stop(reason=reason),
        End(),
    ]


def reading(provider: Format, tool_kind: str = "function") -> Context:
    """A client that asked for usage; its tool ``a.b`` has another name at the provider, ``edit`` is wrapped."""
    ctx = context(CHAT, provider)
    declared = [{"type": tool_kind, tool_kind: {"name": "edit"}}]
    ctx.request = parse_with(ctx, stream_options={"include_usage": True}, tools=declared)
    ctx.names = Names(client={"a_b": ("", "a.b"), "edit": ("", "edit")})
    if tool_kind == "custom":
        ctx.names.custom.add("edit")
    return ctx


def known(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what the helper adds, and with absent text as the stream has it: empty."""
    found = {name: value for name, value in message.items() if value is not None and name != "parsed"}
    found["content"] = found.get("content") or ""
    for entry in found.get("tool_calls", ()):
        entry.get("function", {}).pop("parsed_arguments", None)
        entry.pop("index", None)
    return found


@MODERATE
@given(answers(), st.sampled_from([CLAUDE, GEMINI, RESPONSES]))
def test_what_the_vendors_helper_accumulates_is_the_whole_answer(events: list[IREvent], provider: Format) -> None:
    """L2 and L4: any blocks, overlapping in any way."""
    whole = write_full(events, reading(provider))
    COMPLETION.validate_python(whole)
    stream = write(events, reading(provider))
    for payload in chunks(stream)[:-1]:
        CHUNK.validate_python(payload)
    found = accumulated(stream)
    for name in ("id", "created", "model", "usage"):
        assert found[name] == whole[name]
    [left], [right] = found["choices"], whole["choices"]
    assert left["finish_reason"] == right["finish_reason"]
    assert known(left["message"]) == known(right["message"])


@MODERATE
@given(answers(), st.sampled_from([CLAUDE, GEMINI]))
def test_raw_iteration_takes_custom_calls(events: list[IREvent], provider: Format) -> None:
    """The vendor's helper cannot accumulate these, its iteration can (4.7)."""
    with vendor_client(write(events, reading(provider, "custom"))) as client:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        calls: dict[int, list[str]] = {}
        for event in stream:
            for choice in event.choices:
                for entry in choice.delta.tool_calls or ():
                    found = entry.to_dict()
                    inner: Any = found.get("custom") or found.get("function") or {}
                    calls.setdefault(entry.index, []).append(inner.get("input") or inner.get("arguments") or "")
    whole = write_full(events, reading(provider, "custom"))["choices"][0]["message"].get("tool_calls", [])
    assert ["".join(calls[index]) for index in sorted(calls)] == [
        (entry.get("custom") or {}).get("input", (entry.get("function") or {}).get("arguments")) for entry in whole
    ]


@MODERATE
@given(answers())
def test_whole_answers_come_out_as_they_went_in(events: list[IREvent]) -> None:
    """What was read of a whole answer is written as it was, by a proxy behind this one as well."""
    first = write_full(events)
    again = write_full(read_full(first, context(CHAT, CHAT)), context(CHAT, CHAT))
    assert said(again) == said(first)


def said(body: dict[str, Any]) -> dict[str, Any]:
    """All but what is joined differently once the order of blocks is lost."""
    [choice] = body["choices"]
    message = dict(choice["message"])
    message.pop("reasoning_details", None)
    message["reasoning_content"] = message.get("reasoning_content", "").strip("\n")
    # Which of these two it is follows from whether there are calls (E8).
    finish = choice["finish_reason"].replace("tool_calls", "stop")
    return {"message": message, "finish_reason": finish, "usage": body["usage"]}


# --- L2 and L3: one meaning, however it comes ------------------------------------------------------------------------


@st.composite
def provider_answers(draw: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(a whole answer, the same as chunks)."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]

    def cut(text: str, name: str) -> None:
        at = draw(st.integers(0, len(text)))
        deltas.extend({name: piece} for piece in (text[:at], text[at:]))

    if draw(st.booleans()):
        message["reasoning_content"] = draw(texts)
        cut(message["reasoning_content"], "reasoning_content")
    if draw(st.booleans()):
        message["content"] = draw(texts)
        cut(message["content"], "content")
    if draw(st.booleans()):
        cite = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
        if message["content"]:
            message["annotations"] = [cite]
            deltas.append({"annotations": [cite]})
    calls = []
    for index in range(draw(st.integers(0, 3))):
        arguments = draw(texts | st.just(""))
        calls.append({"id": f"c{index}", "type": "function", "function": {"name": "f", "arguments": arguments}})
        deltas.append(tool(index, id=f"c{index}", type="function", name="f", arguments=""))
        deltas.append(tool(index, arguments=arguments))
    if calls:
        message["tool_calls"] = calls
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    stream = [chunk(delta) for delta in deltas] + [chunk(finish=reason), {"id": "x", "choices": [], "usage": usage}]
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"id": "chatcmpl-x1", "created": 7, "model": "m", "choices": [choice], "usage": usage}, stream


@MODERATE
@given(provider_answers())
def test_streams_and_whole_answers_mean_the_same(found: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """L2, the parser's half."""
    whole, stream = found
    assert write_full(read(*stream)) == write_full(read_full(whole))
    body = json.dumps(whole).encode()
    assert json.loads(translate_full(body, context(CHAT, CHAT))) == write_full(read(*stream))


@MODERATE
@given(provider_answers(), st.data())
def test_how_frames_are_grouped_makes_no_difference(found: Any, data: Any) -> None:
    """L3 and case 157: groups of frames, comments and payloads in several lines."""
    frames = [b"data: " + json.dumps(part, indent=data.draw(st.sampled_from([None, 1]))).encode() for part in found[1]]
    frames = [frame.replace(b"\n", b"\ndata: ") + b"\n\n" for frame in frames] + [b"data: [DONE]\n\n"]
    singly, grouped = StreamSession(context(CHAT, CHAT)), StreamSession(context(CHAT, CHAT))
    expected = b"".join(singly.feed(frame) for frame in frames) + singly.finish()
    out = b""
    while frames:
        size = data.draw(st.integers(1, len(frames)))
        out += grouped.feed(b": life\n\n" + b"".join(frames[:size]))
        frames = frames[size:]
    assert out + grouped.finish() == expected
    assert split_events(expected)[-1] == b"data: [DONE]\n\n"


@MODERATE
@given(provider_answers(), st.data())
def test_a_stream_that_lacks_anything_ends_well_or_in_an_error(found: Any, data: Any) -> None:
    """Part 9 (f): never a success that was none."""
    frames = [json.dumps(part).encode() for part in found[1]]
    gone = data.draw(st.integers(0, len(frames) - 1))
    events = read(*frames[:gone], *frames[gone + 1 :], done=False)
    has_reason = any(isinstance(event, Stop) for event in events)
    assert isinstance(events[-1], End) == has_reason
    cut = read(*frames[: min(gone, len(frames) - 2)], done=False)
    assert not isinstance(cut[-1], End)


# --- garbage ---------------------------------------------------------------------------------------------------------

MEMBERS = sorted(
    {name for struct in (wire.Chunk, wire.AnswerChoice, wire.Delta, wire.Part) for name in struct.__struct_fields__}
    | {name for struct in (wire.Body, wire.Message, wire.ToolCall, wire.Detail) for name in struct.__struct_fields__}
)
json_values = st.recursive(
    scalars | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
roles = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])


@settings(max_examples=150, deadline=None)
@given(json_values, st.lists(st.tuples(roles, json_values), min_size=1, max_size=3))
def test_garbage_in_requests(body: Any, messages: list[Any]) -> None:
    """Refused as the client's fault, or carried over; nothing else."""
    if isinstance(body, dict):
        body["messages"] = [
            ({**value, "role": role} if isinstance(value, dict) else {"role": role, "content": value})
            for role, value in messages
        ]
    with suppress(MalformedRequest, Untranslatable):
        ctx = context(CHAT, CHAT)
        sent = parse(body, ctx)
        assert isinstance(json.loads(SPOKE.emit_request(sent, ctx)), dict)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_as_requests(body: bytes) -> None:
    with suppress(MalformedRequest, Untranslatable):
        parse(body)


@settings(max_examples=150, deadline=None)
@given(st.lists(json_values | st.binary(max_size=20), max_size=4), st.lists(json_values, max_size=3))
def test_garbage_in_answers(frames: list[Any], deltas: list[Any]) -> None:
    """A well-formed answer, or an error; for whole answers as well."""
    stream = [*(chunk(delta) for delta in deltas), *frames]
    events = read(*stream)
    written = write(events)
    assert written
    if isinstance(events[-1], End):
        assert chunks(written)[-1] == "[DONE]"
        assert write_full(events)["choices"]
    for frame in stream:
        with suppress(UpstreamProtocolError):
            write_full(read_full(frame))


@pytest.mark.parametrize("depth", [100, 5000, 200_000])
def test_deep_nesting(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    with suppress(MalformedRequest):
        parse(b'{"messages":[{"role":"user","content":' + deep + b"}]}")
    with suppress(MalformedRequest):
        parse(b'{"messages":[{"role":"user","content":"a"}],"x":' + deep + b"}")
    frame = b'{"choices":[{"delta":{"content":"a","x":' + deep + b'},"finish_reason":"stop"}]}'
    assert read(frame)
    with suppress(UpstreamProtocolError):
        write_full(read_full(frame))


# --- carriers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sig", "said"),
    [
        (Sig(Provenance.CLAUDE, SigKind.THINKING, "EsSig"), ["r"]),
        (Sig(Provenance.CLAUDE, SigKind.THINKING, "EsSig"), []),
        (Sig(Provenance.GEMINI, SigKind.THINKING, "Q0FGRQ=="), ["r"]),
        (Sig(Provenance.UNKNOWN, SigKind.THINKING, "whatever"), ["r"]),
        (Sig(Provenance.OPENAI, SigKind.ENCRYPTED, GPT), ["r", "s"]),
        (Sig(Provenance.OPENAI, SigKind.ENCRYPTED, GPT), []),
        (Sig(Provenance.CLAUDE, SigKind.REDACTED, "EsRedacted"), []),
    ],
)
def test_what_a_client_sends_back_is_what_it_got(sig: Sig, said: list[str]) -> None:
    """Cases 95, 128 and 143: reasoning survives a client that keeps its messages as they are."""
    redacted = sig.kind is SigKind.REDACTED
    pieces: list[IREvent] = []
    for text in said:
        pieces += [PartBreak(b=0), Delta(b=0, s=text)] if pieces else [Delta(b=0, s=text)]
    call_sig = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==", of_call=True)
    events: list[IREvent] = [
        Start(id="x"),
        Open(b=0, kind=BlockKind.REASONING, meta=Meta(redacted=redacted)),
        *pieces,
        SigEvent(b=0, sig=sig),
        Close(b=0),
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")),
        SigEvent(b=1, sig=call_sig),
        Delta(b=1, s="{}"),
        Close(b=1),
        Stop(reason=StopReason.TOOL_USE),
        End(),
    ]
    for message in (
        write_full(events)["choices"][0]["message"],
        accumulated(write(events))["choices"][0]["message"],
    ):
        message.pop("parsed", None)
        [reasoning, called] = parse({"messages": [message]}).turns[0].parts
        assert isinstance(reasoning, Reasoning)
        assert isinstance(called, Call)
        assert (reasoning.sigs, reasoning.redacted) == ([sig], redacted)
        assert "\n\n".join(reasoning.texts) == "\n\n".join(said)
        assert (called.call_id, called.args, called.sigs) == ("c", b"{}", [call_sig])
