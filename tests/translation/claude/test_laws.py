"""Laws L1, L2, L4 and L5 inside Claude's protocol, and what garbage may do (translation 0.4)."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cpa.errors import MalformedRequest, UpstreamProtocolError
from cpa.formats.names import Format
from cpa.formats.sse import EventSplitter, split_events
from cpa.translation.claude import SPOKE
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Channel,
    Close,
    Delta,
    End,
    IREvent,
    Meta,
    Open,
    PartBreak,
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
from cpa.translation.loss import Untranslatable
from cpa.translation.normalizer import Normalizer
from tests.translation.claude.support import (
    context,
    frames,
    parse,
    read_full,
    read_stream,
    sdk_message,
    sse,
    write_full,
    write_stream,
)
from tests.translation.claude.test_emitter import assert_same

MODERATE = settings(max_examples=40, deadline=None)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda t: bool(t.strip()))
names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=3)
markers = st.sampled_from([{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "5m"}])

# --- L1: requests ---


def block(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


text_blocks = block("text", text=texts)
images = block(
    "image",
    source=st.one_of(
        block("base64", media_type=st.sampled_from(["image/png", "image/gif"]), data=st.just("iVBORw0KGgo=")),
        block("url", url=st.just("https://example.com/a.png")),
        block("file", file_id=names),
    ),
)
documents = st.fixed_dictionaries(
    {
        "type": st.just("document"),
        "source": st.one_of(
            block("base64", media_type=st.just("application/pdf"), data=st.just("JVBERi0=")),
            block("text", media_type=st.just("text/plain"), data=texts),
            block("url", url=st.just("https://example.com/a.pdf")),
            block("file", file_id=names),
        ),
    },
    optional={"title": texts, "context": texts, "citations": st.just({"enabled": True})},
)
opaque = block("container_upload", file_id=names)
thinking = st.one_of(
    block("thinking", thinking=texts, signature=st.just("EsClaudeSignature")),
    block("redacted_thinking", data=st.just("opaque")),
)
references = block("tool_reference", tool_name=names)
results = st.one_of(texts, st.lists(text_blocks | images | documents | references, min_size=1, max_size=3))
server_steps = st.just(
    [
        {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv", "content": []},
    ]
)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    pending: list[dict[str, Any]] = []
    count = 0
    for _ in range(draw(st.integers(0, 3))):
        said = draw(st.lists(text_blocks | images | documents | opaque, min_size=0 if pending else 1, max_size=3))
        content: Any = pending + said
        if len(content) == 1 and content[0]["type"] == "text" and draw(st.booleans()):
            content = content[0]["text"]
        messages.append({"role": "user", "content": content})
        pending = []
        answer = draw(st.lists(thinking, max_size=2)) + draw(st.lists(text_blocks, max_size=2))
        answer += draw(st.one_of(st.just([]), server_steps))
        for _ in range(draw(st.integers(0, 2))):
            count += 1
            answer.append({"type": "tool_use", "id": f"toolu_{count}", "name": draw(names), "input": draw(objects)})
            result = {"type": "tool_result", "tool_use_id": f"toolu_{count}", "content": draw(results)}
            pending.append(result | ({"is_error": True} if draw(st.booleans()) else {}))
        if not answer or answer[-1]["type"] not in ("text", "tool_use"):
            answer.append(draw(text_blocks))
        messages.append({"role": "assistant", "content": answer})
    messages.append({"role": "user", "content": [*pending, draw(text_blocks)]})
    return messages


tools = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"name": names, "input_schema": st.just({"type": "object", "properties": {"a": {"type": "string"}}})},
            optional={
                "description": texts,
                "strict": st.booleans(),
                "cache_control": markers,
                "defer_loading": st.just(True),
                "input_examples": st.just([{"a": "b"}]),
            },
        ),
        st.just({"type": "web_search_20250305", "name": "web_search", "max_uses": 3}),
        st.just({"type": "bash_20250124", "name": "bash"}),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda tool: tool["name"],
)
reasoning = st.sampled_from(
    [
        {},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"thinking": {"type": "between_tools"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {"output_config": {"effort": "low"}},
    ]
)
choices = st.sampled_from(
    [{"type": "auto"}, {"type": "none"}, {"type": "auto", "disable_parallel_tool_use": True}, {"type": "auto"}]
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {"model": st.just("provider-name"), "max_tokens": st.integers(1, 100_000), "messages": histories()},
            optional={
                "system": st.one_of(texts, st.lists(text_blocks, min_size=1, max_size=2)),
                "tools": tools,
                "stop_sequences": st.lists(texts, min_size=1, max_size=3),
                "metadata": st.fixed_dictionaries({"user_id": texts}),
                "service_tier": st.sampled_from(["auto", "standard_only"]),
                "cache_control": markers,
                "container": names,
                "inference_geo": st.just("eu"),
            },
        )
    )
    body["stream"] = True
    body |= draw(reasoning)
    if "thinking" not in body and draw(st.booleans()):
        body |= {"temperature": 0.5, "top_p": 0.5, "top_k": 3}
    if "tools" in body and draw(st.booleans()):
        body["tool_choice"] = draw(choices)
    if draw(st.booleans()):
        form = {"type": "json_schema", "schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    return body


def canonical(body: dict[str, Any]) -> dict[str, Any]:
    """One of the ways in which the protocol says the same."""

    def blocks(content: Any) -> list[Any]:
        found = [{"type": "text", "text": content}] if isinstance(content, str) else content
        return [
            {**item, "content": blocks(item["content"])} if item["type"] == "tool_result" else item for item in found
        ]

    out = {**body, "messages": [{**m, "content": blocks(m["content"])} for m in body["messages"]]}
    if "system" in body:
        out["system"] = blocks(body["system"])
    return out


@given(bodies())
@MODERATE
def test_requests_survive_the_round_trip(body: dict[str, Any]) -> None:
    """L1: nothing that the vendor documents is lost, and nothing is invented."""
    assume(json.dumps(body).count('"cache_control"') <= 4)  # which is all that the vendor takes
    ctx = context()
    emitted = json.loads(SPOKE.emit_request(parse(body, ctx), ctx))
    assert canonical(emitted) == canonical(body)
    assert not ctx.losses


@given(bodies(), st.sampled_from([Format.OPENAI, Format.GEMINI, Format.OPENAI_RESPONSE]))
@MODERATE
def test_requests_are_deterministic(body: dict[str, Any], client: Format) -> None:
    """L5: prompt caches depend on it."""
    data = json.dumps(body).encode()
    first, second = context(), context()
    assert SPOKE.emit_request(SPOKE.parse_request(data, first), first) == SPOKE.emit_request(
        SPOKE.parse_request(data, second), second
    )
    once = SPOKE.parse_request(data, context())
    again = SPOKE.parse_request(data, context())
    once.client_format = again.client_format = client.value
    foreign, same = context(client), context(client)
    assert SPOKE.emit_request(once, foreign) == SPOKE.emit_request(again, same)


# --- L2, L4: answers ---

content = st.lists(
    st.one_of(
        block("text", text=texts),
        block("thinking", thinking=texts, signature=texts),
        block("redacted_thinking", data=st.just("opaque")),
        block("tool_use", id=names, name=names, input=objects),
        st.just({"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "q"}}),
        st.just({"type": "web_search_tool_result", "tool_use_id": "srv", "content": []}),
    ),
    max_size=5,
)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    found = draw(content)
    seen: set[str] = set()
    for number, item in enumerate(found):
        if item["type"] == "tool_use":
            item["id"] = f"{item['id']}{number}"
            seen.add(item["id"])
    reason = "tool_use" if seen else draw(st.sampled_from(["end_turn", "max_tokens", "pause_turn", "refusal"]))
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "client-name",
        "content": found,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": draw(st.integers(0, 9)), "output_tokens": draw(st.integers(0, 9))},
    }


def as_stream(answer: dict[str, Any], cuts: int) -> bytes:
    """The answer as the vendor would stream it, each string in pieces of *cuts* characters."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**answer, "content": [], "stop_reason": None}},
        {"type": "ping"},
    ]

    def pieces(text: str) -> list[str]:
        return [text[at : at + cuts] for at in range(0, len(text), cuts)]

    for index, item in enumerate(answer["content"]):
        deltas: list[dict[str, Any]] = []
        begun = dict(item)
        if item["type"] == "text":
            begun["text"] = ""
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(item["text"])]
        elif item["type"] == "thinking":
            begun |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(item["thinking"])]
            deltas.append({"type": "signature_delta", "signature": item["signature"]})
        elif "input" in item:
            begun["input"] = {}
            found = pieces(json.dumps(item["input"])) if item["input"] else []
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in found]
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": delta, "usage": answer["usage"]}, {"type": "message_stop"}]
    return sse(*events)


@given(answers(), st.integers(1, 7))
@MODERATE
def test_whole_answers_and_streams_mean_the_same(answer: dict[str, Any], cuts: int) -> None:
    """L2 and L4; inside the protocol nothing changes at all."""
    full = write_full(read_full(answer))
    assert full == answer
    streamed = write_stream(read_stream(as_stream(answer, cuts)))
    assert_same(full, sdk_message(streamed))
    assert write_full(read_stream(as_stream(answer, cuts))) == full
    assert_same(full, sdk_message(write_stream(read_full(json.dumps(answer, indent=1).encode()))))


@given(answers(), st.lists(st.integers(0, 3000), max_size=6))
@MODERATE
def test_streams_are_the_same_however_they_are_cut(answer: dict[str, Any], places: list[int]) -> None:
    """L3."""
    data = as_stream(answer, 5)
    marks = sorted({min(place, len(data)) for place in places})
    chunks = [data[start:end] for start, end in zip([0, *marks], [*marks, len(data)], strict=True)]
    splitter = EventSplitter()
    seen = [event for chunk in chunks for event in split_events(splitter.feed(chunk))]
    assert write_stream(read_stream(b"".join(seen))) == write_stream(read_stream(data))


kinds = st.sampled_from(
    [
        BlockKind.TEXT,
        BlockKind.REASONING,
        BlockKind.TOOL,
        BlockKind.REFUSAL,
        BlockKind.IMAGE,
        BlockKind.CUSTOM_TOOL,
        BlockKind.OPAQUE,
        BlockKind.SERVER_CALL,
    ]
)
signatures = st.builds(
    Sig,
    provenance=st.sampled_from(Provenance),
    kind=st.sampled_from(SigKind),
    data=st.sampled_from(["QUJD", "Q0FGRQ=="]),
)
numbers = st.integers(0, 4)
ARGUMENTS = ['{"a', '":1}', "{}", "{'a'", ":1}", "nonsense", " "]
anything = st.one_of(
    st.builds(Open, b=numbers, kind=kinds, meta=st.builds(Meta, name=names, channel=st.sampled_from(Channel))),
    st.builds(Delta, b=numbers, s=st.sampled_from(["x", "hello", " "])),
    st.builds(Close, b=numbers, incomplete=st.just(False)),
    st.builds(SigEvent, b=st.integers(-1, 4), sig=signatures),
    st.builds(PartBreak, b=numbers),
    st.builds(Ann, b=numbers, annotation=st.just(Annotation(kind="url", url="u", title="t"))),
    st.builds(Usage, tokens=st.builds(Tokens, input=st.integers(0, 9), output=st.integers(0, 9))),
    st.just(Ping()),
)


@given(st.lists(anything, max_size=25), st.sampled_from([Format.OPENAI, Format.CLAUDE, Format.GEMINI]))
@MODERATE
def test_any_events_make_a_well_formed_message(events: list[IREvent], provider: Format) -> None:
    """4.6: dense numbers, one open block at a time, one end; the SDK takes it, and it is the whole answer (L2, L4)."""
    ctx = context(provider=provider)
    normalizer = Normalizer(ctx)
    normal = normalizer.feed([Start(id="x"), *events, Stop(reason=StopReason.STOP), End()]) + normalizer.finish()
    if not isinstance(normal[-1], End):
        return  # the normalizer saw nothing that could be an answer
    data = write_stream(normal, ctx)
    expected = -1
    is_open = False
    found = frames(data)
    assert [found[0]["type"], found[-2]["type"], found[-1]["type"]] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]
    for frame in found:
        match frame["type"]:
            case "content_block_start":
                expected += 1
                assert not is_open
                assert frame["index"] == expected
                is_open = True
            case "content_block_delta":
                assert is_open
                assert frame["index"] == expected
            case "content_block_stop":
                assert is_open
                assert frame["index"] == expected
                is_open = False
    assert not is_open
    full = write_full(normal, ctx)
    streamed = sdk_message(data)
    for message in (full["content"], streamed.content):
        for item in message:
            if isinstance(item, dict) and item["type"] == "tool_use":
                item["id"] = "t"
            elif not isinstance(item, dict) and item.type == "tool_use":
                item.id = "t"
    assert_same(full, streamed)


@given(st.lists(st.sampled_from(ARGUMENTS), max_size=4), st.booleans())
@MODERATE
def test_any_arguments_that_are_held_back_make_an_object(pieces: list[str], waits: bool) -> None:
    """L4: text that begins unlike JSON never reaches the SDK as it is."""
    first: list[IREvent] = [Open(b=0, kind=BlockKind.REASONING), Delta(b=0, s="x")] if waits else []
    deltas: list[IREvent] = [Delta(b=1, s=piece) for piece in pieces]
    call: list[IREvent] = [Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")), *deltas, Close(b=1)]
    closing: list[IREvent] = [Close(b=0)] if waits else []
    events = [Start(id="x"), *first, *call, *closing, Stop(reason=StopReason.TOOL_USE), End()]
    full = write_full(events)
    assert isinstance(full["content"][-1]["input"], dict)
    text = "".join(pieces).strip()
    if waits or not text.startswith('{"'):
        assert sdk_message(write_stream(events)).content[-1].to_dict()["input"] == full["content"][-1]["input"]


# --- garbage ---

members = st.sampled_from(
    [
        "messages", "system", "tools", "tool_choice", "max_tokens", "thinking", "output_config", "metadata",
        "stop_sequences", "role", "content", "type", "text", "source", "input", "id", "name", "signature", "data",
        "cache_control", "citations", "tool_use_id", "is_error", "media_type", "url", "index", "delta", "message",
        "usage", "error", "content_block", "stop_reason", "stop_details", "partial_json",
    ]
)  # fmt: skip
words = st.sampled_from(
    [
        "user", "assistant", "system", "text", "image", "document", "thinking", "redacted_thinking", "tool_use",
        "tool_result", "base64", "url", "content", "server_tool_use", "AFRTUDEA", "auto", "tool", "enabled",
        "json_schema", "message_start", "content_block_start", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop", "error", "text_delta", "input_json_delta", "ephemeral",
    ]
)  # fmt: skip
junk = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=5),
    max_leaves=20,
)


@given(junk)
@MODERATE
def test_no_request_does_anything_but_fail(value: Any) -> None:
    ctx = context()
    with suppress(MalformedRequest, Untranslatable):
        SPOKE.emit_request(parse(value, ctx), ctx)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A request with one value replaced."""
    body = json.loads(json.dumps(draw(bodies())))
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return body
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            place[key] = draw(junk)
            return body
        place = inner


@given(damaged())
@MODERATE
def test_damaged_requests_become_requests_or_errors(body: Any) -> None:
    ctx = context(Format.CLAUDE)
    try:
        emitted = SPOKE.emit_request(parse(body, ctx), ctx)
    except (MalformedRequest, Untranslatable):
        return
    found = json.loads(emitted)
    assert found["messages"][0]["role"] == "user"
    roles = [message["role"] for message in found["messages"]]
    assert all(first != second for first, second in pairwise(roles))
    assert all(message["content"] for message in found["messages"])


@given(st.binary(max_size=40))
@MODERATE
def test_no_bytes_do_anything_but_fail(data: bytes) -> None:
    with pytest.raises((MalformedRequest, Untranslatable)):
        SPOKE.parse_request(data, context())
    with suppress(UpstreamProtocolError):
        SPOKE.open_parser(context()).feed("", data)
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(data, context())


@given(st.lists(junk, max_size=6))
@MODERATE
def test_no_stream_does_anything_but_fail(values: list[Any]) -> None:
    ctx = context()
    parser, normalizer, emitter = SPOKE.open_parser(ctx), Normalizer(ctx), SPOKE.open_emitter(ctx)
    for value in values:
        try:
            events = normalizer.feed(parser.feed("", json.dumps(value).encode()))
        except UpstreamProtocolError:
            assert not isinstance(value, dict)
            continue
        frames(b"".join(emitter.feed(event) for event in events))


@given(junk)
@MODERATE
def test_no_answer_does_anything_but_fail(value: Any) -> None:
    with suppress(UpstreamProtocolError):
        SPOKE.emit_full(read_full(value), context())
