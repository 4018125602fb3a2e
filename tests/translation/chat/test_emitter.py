"""Streams and whole answers for Chat clients (translation 3.1, 3.2, 4.7, 4.9a)."""

import json
from typing import Any

import openai
import pytest

from cpa.errors import UpstreamProtocolError
from cpa.formats.names import Format
from cpa.translation.chat import END_MARK
from cpa.translation.context import Context, Names, TranslationSettings
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    IRRequest,
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
    Tool,
    ToolKind,
    Usage,
)
from cpa.translation.signatures import SignatureCache, wrap
from tests.translation.chat.support import (
    CHAT,
    CLAUDE,
    GEMINI,
    GPT,
    RESPONSES,
    accumulated,
    answer,
    block,
    chunks,
    context,
    deltas,
    parse_with,
    vendor_client,
    write,
    write_full,
)

CLAUDE_SIG = Sig(Provenance.CLAUDE, SigKind.THINKING, "EsSig")
GEMINI_SIG = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==", of_call=True)


def client(provider: Format = CLAUDE, **members: Any) -> Context:
    """A context whose request had these members."""
    ctx = context(CHAT, provider)
    ctx.request = parse_with(ctx, **members)
    return ctx


def message(events: list[IREvent], ctx: Context | None = None) -> dict[str, Any]:
    """The first choice's message of a whole answer."""
    found: dict[str, Any] = write_full(events, ctx)["choices"][0]["message"]
    return found


def both(events: list[IREvent], make: Any = context) -> tuple[list[Any], dict[str, Any]]:
    """(deltas of the stream, message of the whole answer)."""
    return deltas(write(events, make())), message(events, make())


# --- the frame ---


def test_the_wire_order() -> None:
    events = answer(*block(0, BlockKind.TEXT, "a", "b"))
    shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "client-name"}
    said: list[Any] = [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}]
    assert chunks(write(events)) == [
        *(shared | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in said),
        shared | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        "[DONE]",
    ]
    assert write(events).endswith(END_MARK)


def test_usage_only_for_clients_that_asked() -> None:
    """Other chunks carry null, and the last one counts."""
    usage = Usage(tokens=Tokens(input=1000, cached=800, cache_write=80, output=60, reasoning=25))
    events = answer(*block(0, BlockKind.TEXT, "a"), usage)
    asked = chunks(write(events, client(stream_options={"include_usage": True})))
    assert [payload["usage"] for payload in asked[:-2]] == [None] * 3
    assert asked[-2]["choices"] == []
    assert asked[-2]["usage"] == {
        "prompt_tokens": 1000,
        "completion_tokens": 60,
        "total_tokens": 1060,
        "prompt_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 80},
        "completion_tokens_details": {"reasoning_tokens": 25},
    }
    assert not any("usage" in payload for payload in chunks(write(events, client()))[:-1])
    assert write_full(events, client())["usage"] == asked[-2]["usage"]


def test_unknown_usage_is_zero() -> None:
    """Case 159, for this protocol."""
    events = answer(*block(0, BlockKind.TEXT, "a"))
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert chunks(write(events, client(stream_options={"include_usage": True})))[-2]["usage"] == zero
    assert write_full(events)["usage"] == zero


def test_the_whole_answer() -> None:
    assert write_full(answer(*block(0, BlockKind.TEXT, "a", "b"))) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "client-name",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def test_created_is_never_zero_and_the_model_is_the_clients() -> None:
    """Cases 162 and 163."""
    events: list[IREvent] = [Start(id="", model="real"), *answer(*block(0, BlockKind.TEXT, "a"))[1:]]
    found = write_full(events)
    assert found["created"] == 1_790_000_000
    assert (found["id"], found["model"]) == ("chatcmpl-" + f"{1:024d}", "client-name")
    ctx = context(settings=TranslationSettings(report_provider_model=True))
    assert write_full(events, ctx)["model"] == "real"
    assert len({payload["id"] for payload in chunks(write(events))[:-1]}) == 1


def test_an_empty_answer() -> None:
    assert message(answer())["content"] == ""
    assert accumulated(write(answer()))["choices"][0]["finish_reason"] == "stop"


def test_the_tier_that_was_used() -> None:
    events = answer(*block(0, BlockKind.TEXT, "a"), Usage(tokens=Tokens(input=1, output=1, tier="standard")))
    assert write_full(events)["service_tier"] == "default"


# --- reasons ---


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (StopReason.STOP, "stop"),
        (StopReason.STOP_SEQUENCE, "stop"),
        (StopReason.TOOL_USE, "tool_calls"),
        (StopReason.MAX_TOKENS, "length"),
        (StopReason.CONTEXT_FULL, "length"),
        (StopReason.REFUSAL, "content_filter"),
        (StopReason.PAUSE, "stop"),
        (StopReason.MALFORMED_CALL, "stop"),
        (StopReason.OTHER, "stop"),
    ],
)
def test_finish_reasons(reason: StopReason, expected: str) -> None:
    """3.3 and case 158."""
    events = answer(*block(0, BlockKind.TEXT, "a"), why=reason)
    assert write_full(events)["choices"][0]["finish_reason"] == expected
    assert chunks(write(events))[-2]["choices"][0]["finish_reason"] == expected


def test_refusal_content_ends_with_stop() -> None:
    """Case 134."""
    events = answer(*block(0, BlockKind.REFUSAL, "no"), why=StopReason.REFUSAL)
    stream, whole = both(events)
    assert stream == [{"refusal": "no"}]
    assert (whole["content"], whole["refusal"]) == (None, "no")
    assert write_full(events)["choices"][0]["finish_reason"] == "stop"


# --- calls ---


def test_tool_index_counts_calls_and_each_member_is_told_once() -> None:
    """Cases 106 and 107."""
    events = answer(
        *block(0, BlockKind.TEXT, "a"),
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c1", name="f")),
        Open(b=2, kind=BlockKind.TOOL, meta=Meta(call_id="c2", name="g")),
        Delta(b=2, s="[1"),
        Delta(b=1, s="{}"),
        Delta(b=2, s="]"),
        Close(b=1),
        Close(b=2),
        why=StopReason.TOOL_USE,
    )
    stream, whole = both(events)
    assert stream == [
        {"content": "a"},
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "[1"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "]"}}]},
    ]
    assert whole["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "[1]"}},
    ]


@pytest.mark.parametrize(("incomplete", "arguments"), [(False, "{}"), (True, "")])
def test_a_call_without_arguments(incomplete: bool, arguments: str) -> None:
    """Case 123; what the limit cut off is not completed."""
    opened = Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c1", name="f"))
    events = answer(opened, Close(b=0, incomplete=incomplete), why=StopReason.TOOL_USE)
    assert message(events)["tool_calls"][0]["function"]["arguments"] == arguments
    assert message(events)["content"] is None


def test_names_come_back_as_the_client_wrote_them() -> None:
    """Case 43."""

    def ctx() -> Context:
        made = context()
        made.names = Names(client={"a_b_1": ("", "a.b")})
        return made

    events = answer(*block(0, BlockKind.TOOL, "{}", call_id="c", name="a_b_1"))
    stream, whole = both(events, ctx)
    assert stream[0]["tool_calls"][0]["function"]["name"] == "a.b"
    assert whole["tool_calls"][0]["function"]["name"] == "a.b"


def test_wrapped_tools_are_unwrapped() -> None:
    def ctx() -> Context:
        made = client(tools=[{"type": "custom", "custom": {"name": "edit"}}])
        made.names = Names(client={"edit": ("", "edit")}, custom={"edit"})
        return made

    events = answer(*block(0, BlockKind.TOOL, '{"inp', 'ut":"free"}', call_id="c", name="edit"))
    stream, whole = both(events, ctx)
    assert stream == [
        {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "edit", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "free"}}]},
    ]
    assert whole["tool_calls"] == [{"id": "c", "type": "custom", "custom": {"name": "edit", "input": "free"}}]


def test_free_text_calls_are_told_to_whoever_declared_them() -> None:
    events = answer(*block(0, BlockKind.CUSTOM_TOOL, "fr", "ee", call_id="c", name="edit"))

    def declared() -> Context:
        return client(RESPONSES, tools=[{"type": "custom", "custom": {"name": "edit"}}])

    stream, whole = both(events, declared)
    assert [delta["tool_calls"][0].get("custom", {}).get("input") for delta in stream] == ["", "fr", "ee"]
    assert whole["tool_calls"][0]["custom"] == {"name": "edit", "input": "free"}
    assert message(events)["tool_calls"][0]["function"] == {"name": "edit", "arguments": '{"input":"free"}'}


def test_legacy_clients_get_a_function_call() -> None:
    def legacy() -> Context:
        return client(functions=[{"name": "f"}])

    events = answer(
        *block(0, BlockKind.TOOL, '{"a":', "1}", call_id="c", name="f"),
        *block(1, BlockKind.TOOL, "{}", call_id="d", name="f"),
        why=StopReason.TOOL_USE,
    )
    stream, whole = both(events, legacy)
    assert stream == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"a":'}},
        {"function_call": {"arguments": "1}"}},
    ]
    assert whole["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert write_full(events, legacy())["choices"][0]["finish_reason"] == "function_call"


# --- signatures ---


def test_the_worked_stream_of_a_signed_call() -> None:
    """4.13: the signature stands in the call's first delta."""
    events = answer(
        *block(0, BlockKind.REASONING, "look"),
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="call_1", name="ls")),
        SigEvent(b=1, sig=GEMINI_SIG),
        Delta(b=1, s='{"d":"/"}'),
        Close(b=1),
        why=StopReason.TOOL_USE,
    )
    extra = {"google": {"thought_signature": "Q0FGRQ=="}}
    stream, whole = both(events, lambda: context(CHAT, GEMINI))
    assert stream == [
        {"reasoning_content": "look"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "ls", "arguments": ""},
                    "extra_content": extra,
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"d":"/"}'}}]},
    ]
    assert whole["tool_calls"][0]["extra_content"] == extra
    # Where it comes later, the call is not kept waiting for it.
    late = deltas(write(events))
    assert late[2] == {"tool_calls": [{"index": 0, "extra_content": extra, "function": {"arguments": ""}}]}
    assert message(events) == whole


def signed(sig: Sig, *pieces: IREvent, redacted: bool = False) -> list[IREvent]:
    """Reasoning with a signature."""
    opened = Open(b=0, kind=BlockKind.REASONING, meta=Meta(redacted=redacted))
    return answer(opened, *pieces, SigEvent(b=0, sig=sig), Close(b=0), *block(1, BlockKind.TEXT, "a"))


@pytest.mark.parametrize(
    ("sig", "details"),
    [
        (
            CLAUDE_SIG,
            [{"type": "reasoning.text", "index": 0, "text": "r\n\ns", "signature": "EsSig"}],
        ),
        (
            Sig(Provenance.OPENAI, SigKind.ENCRYPTED, GPT),
            [
                {"type": "reasoning.summary", "index": 0, "summary": "r"},
                {"type": "reasoning.summary", "index": 1, "summary": "s"},
                {"type": "reasoning.encrypted", "index": 2, "data": GPT},
            ],
        ),
    ],
)
def test_signed_reasoning(sig: Sig, details: list[Any]) -> None:
    """Cases 95, 126 and 153: parts stand apart, entries are counted."""
    stream, whole = both(signed(sig, Delta(b=0, s="r"), PartBreak(b=0), Delta(b=0, s="s")))
    assert stream[:2] == [{"reasoning_content": "r"}, {"reasoning_content": "\n\ns"}]
    found = [{k: v for k, v in entry.items() if k != "format"} for entry in stream[2]["reasoning_details"]]
    assert found == details
    assert whole["reasoning_content"] == "r\n\ns"
    assert whole["reasoning_details"] == stream[2]["reasoning_details"]


def test_a_signature_without_text_survives() -> None:
    """Cases 128 and 143."""
    redacted = Sig(Provenance.CLAUDE, SigKind.REDACTED, "EsRedacted")
    for sig in (Sig(Provenance.OPENAI, SigKind.ENCRYPTED, GPT), redacted):
        _, whole = both(signed(sig, redacted=sig is redacted))
        [entry] = whole["reasoning_details"]
        assert (entry["type"], entry["index"], entry["data"]) == ("reasoning.encrypted", 0, sig.data)
        assert "reasoning_content" not in whole


def test_details_can_be_switched_off() -> None:
    ctx = context(settings=TranslationSettings(chat_reasoning_details=False))
    assert "reasoning_details" not in message(signed(CLAUDE_SIG, Delta(b=0, s="r")), ctx)


def test_hidden_reasoning_keeps_its_signature() -> None:
    """3.2."""
    ctx = client(reasoning={"exclude": True})
    found = message(signed(CLAUDE_SIG, Delta(b=0, s="r")), ctx)
    assert "reasoning_content" not in found
    assert (found["reasoning_details"][0]["text"], found["reasoning_details"][0]["signature"]) == ("", "EsSig")


def test_a_signature_of_text_travels_behind_it() -> None:
    """Case 136: the text stays visible."""
    sig = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==")
    opened = Open(b=0, kind=BlockKind.TEXT)
    stream, whole = both(answer(opened, Delta(b=0, s="a"), SigEvent(b=0, sig=sig), Close(b=0)))
    carrier = wrap(Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==", preceding=True))
    assert stream == [
        {"content": "a"},
        {"reasoning_details": [{"type": "reasoning.encrypted", "index": 0, "data": carrier}]},
    ]
    assert whole["content"] == "a"


def test_a_signature_of_nothing() -> None:
    sig = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==")
    stream, _ = both(answer(SigEvent(b=-1, sig=sig), *block(0, BlockKind.TEXT, "a")))
    assert stream[0]["reasoning_details"][0]["data"] == wrap(sig)


def test_what_clients_lose_is_remembered() -> None:
    """2.10: by the call's id, and by all of the text."""
    kept = SignatureCache().of_tenant("t")
    ctx = context(CHAT, GEMINI)
    ctx.signatures = kept
    text_sig = Sig(Provenance.GEMINI, SigKind.PART, "Q0FGRQ==")
    events = answer(
        *block(0, BlockKind.TEXT, "a"),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="b"),
        SigEvent(b=1, sig=text_sig),
        Close(b=1),
        Open(b=2, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")),
        SigEvent(b=2, sig=GEMINI_SIG),
        Close(b=2),
    )
    write(events, ctx)
    assert kept.of_call("c") == (GEMINI_SIG,)
    assert kept.of_text("ab") == (text_sig,)


def test_reasoning_blocks_stand_apart() -> None:
    events = answer(*block(0, BlockKind.REASONING, "r"), *block(1, BlockKind.TEXT, "a"), *block(2, BlockKind.REASONING))
    assert message(events)["reasoning_content"] == "r"
    events = answer(*block(0, BlockKind.REASONING, "r"), *block(1, BlockKind.REASONING, "s", "t"))
    stream, whole = both(events)
    assert [delta["reasoning_content"] for delta in stream] == ["r", "\n\ns", "t"]
    assert whole["reasoning_content"] == "r\n\nst"


# --- the rest of content ---


def test_citations_come_once_with_offsets_in_the_message() -> None:
    """Case 152."""
    cite = Annotation(kind="url", url="https://x", title="X", start=0, end=2)
    other = Annotation(kind="doc", title="no url")
    events = answer(
        Open(b=0, kind=BlockKind.TEXT),
        Delta(b=0, s="abc"),
        Ann(b=0, annotation=cite),
        Ann(b=0, annotation=other),
        Close(b=0),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="def"),
        Ann(b=1, annotation=cite),
        Close(b=1),
    )
    stream, whole = both(events)
    spans = [
        (entry["url_citation"]["start_index"], entry["url_citation"]["end_index"]) for entry in whole["annotations"]
    ]
    assert spans == [(0, 2), (3, 5)]
    assert stream[-1] == {"annotations": whole["annotations"]}
    assert accumulated(write(events))["choices"][0]["message"]["annotations"] == whole["annotations"]


def test_images_and_audio() -> None:
    events = answer(
        *block(0, BlockKind.IMAGE, "iVB", "OR", mime="image/png"),
        *block(1, BlockKind.IMAGE, "iVBOR2", mime="image/png"),
        *block(2, BlockKind.AUDIO, "AA", "BB", mime="audio/wav"),
        *block(3, BlockKind.AUDIO, "CC", mime="audio/wav"),
    )
    stream, whole = both(events)
    assert [image["image_url"]["url"] for image in whole["images"]] == [
        "data:image/png;base64,iVBOR",
        "data:image/png;base64,iVBOR2",
    ]
    assert [image["index"] for image in whole["images"]] == [0, 1]
    assert whole["audio"]["data"] == "AABB"
    assert accumulated(write(events))["choices"][0]["message"]["images"] == whole["images"]
    assert len(stream) == 3


def test_server_steps_and_pings_say_nothing() -> None:
    """Case 144, for this protocol."""
    events = answer(*block(0, BlockKind.SERVER_CALL), *block(1, BlockKind.SERVER_RESULT), Ping())
    assert deltas(write(events)) == []


def test_several_choices_begin_in_order() -> None:
    """The vendor's client counts choices as they come."""
    events: list[IREvent] = [
        Start(id="x"),
        Open(b=0, kind=BlockKind.TEXT, choice=2),
        Delta(b=0, s="c", choice=2),
        Close(b=0, choice=2),
        Stop(reason=StopReason.STOP, choice=0),
        Stop(reason=StopReason.OTHER, choice=1),
        Stop(reason=StopReason.STOP, choice=2),
        End(),
    ]
    assert [choice["message"]["content"] for choice in write_full(events)["choices"]] == ["", "", "c"]
    found = accumulated(write(events))
    assert [(choice["index"], choice["message"]["content"]) for choice in found["choices"]] == [
        (0, ""),
        (1, ""),
        (2, "c"),
    ]


def test_an_end_without_reasons_is_a_stop() -> None:
    events: list[IREvent] = [Start(id="x"), *block(0, BlockKind.TEXT, "a"), End()]
    assert chunks(write(events))[-2]["choices"][0]["finish_reason"] == "stop"
    assert write_full(events)["choices"][0]["finish_reason"] == "stop"


# --- errors ---


def test_an_error_inside_the_stream() -> None:
    """4.9a: no finish, no end mark; what was open is not closed."""
    events: list[IREvent] = [
        Start(id="x"),
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")),
        Close(b=0, incomplete=True, failed=True),
        Err(status=429, message="slow down, sk-abcdefghijkl", code="rate_limit_exceeded"),
    ]
    found = chunks(write(events))
    assert found[-1] == {
        "error": {
            "message": "slow down, [redacted]",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }
    assert json.dumps(found).count("arguments") == 1
    with vendor_client(write(events)) as vendor, pytest.raises(openai.APIError):
        list(vendor.chat.completions.create(model="m", messages=[], stream=True))


def test_an_error_instead_of_a_whole_answer() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        write_full([Start(id="x"), Err(status=503, message="busy", code="overloaded")])
    assert (caught.value.http_status, caught.value.code) == (503, "overloaded")


def test_requests_without_a_context_work() -> None:
    """Whole answers of tests and plugins have no request."""
    ctx = context()
    ctx.request = IRRequest(client_format="openai", client_model="a", model="b", stream=True)
    ctx.request.tools = [Tool(kind=ToolKind.CUSTOM, name="x")]
    assert message(answer(*block(0, BlockKind.TEXT, "a")), ctx)["content"] == "a"
