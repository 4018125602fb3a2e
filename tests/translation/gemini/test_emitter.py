"""What Gemini clients get (4.9)."""

import json
from typing import Any

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import WireError
from cpa.translation.context import TranslationSettings
from cpa.translation.gemini import ARRAY_END, END_MARK, SPOKE, array_error, array_frames
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
    Ping,
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
from cpa.translation.signatures import unwrap
from tests.translation.gemini.support import CHAT, CLAUDE, GEM, GEMINI, fold, frames_of, ir, make_ctx, written

START = Start(id="msg_9", model="provider", created_unix=1)
CLAUDE_SIG = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EqQBCkYIBhgCKkCsig")


def block(b: int, kind: BlockKind, *said: str | IREvent, meta: Meta | None = None) -> list[IREvent]:
    inner = [Delta(b=b, s=one) if isinstance(one, str) else one for one in said]
    return [Open(b=b, kind=kind, meta=meta or Meta()), *inner, Close(b=b)]


def text(b: int, *said: str | IREvent) -> list[IREvent]:
    return block(b, BlockKind.TEXT, *said)


def tool(b: int, name: str, *said: str | IREvent) -> list[IREvent]:
    return block(b, BlockKind.TOOL, *said, meta=Meta(call_id=f"c{b}", name=name))


def answer(*events: IREvent, reason: StopReason = StopReason.STOP, detail: str = "") -> list[IREvent]:
    return [START, *events, Stop(reason=reason, detail=detail), End()]


def parts_of(events: list[IREvent], ctx: Any = None) -> list[dict[str, Any]]:
    """The parts of all frames but the last, in order."""
    frames = frames_of(written(events, ctx))
    return [part for one in frames[:-1] for part in one["candidates"][0]["content"]["parts"]]


def whole(events: list[IREvent], ctx: Any = None) -> dict[str, Any]:
    return json.loads(SPOKE.emit_full(events, ctx or make_ctx(provider=CLAUDE)))


def call(b: int, name: str, args: Any) -> dict[str, Any]:
    return {"functionCall": {"id": f"c{b}", "name": name, "args": args}}


def test_the_frames_of_4_9() -> None:
    """Byte by byte: SDKs want the space after the colon, and nothing but data lines."""
    events = answer(
        *block(0, BlockKind.REASONING, "hm"),
        *text(1, "Hi ", "you"),
        *tool(2, "f", '{"a"', ":1}"),
        Usage(tokens=Tokens(input=9, output=10, reasoning=6)),
        reason=StopReason.TOOL_USE,
    )
    envelope = b'"modelVersion":"client-name","responseId":"9"}\n\n'
    assert written(events) == (
        b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"hm","thought":true}]},"index":0}],'
        + envelope
        + b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Hi "}]},"index":0}],'
        + envelope
        + b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"you"}]},"index":0}],'
        + envelope
        + b'data: {"candidates":[{"content":{"role":"model",'
        b'"parts":[{"functionCall":{"id":"c2","name":"f","args":{"a":1}}}]},'
        b'"index":0}],'
        + envelope
        + b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP","index":0}],'
        b'"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"thoughtsTokenCount":6,"totalTokenCount":19},'
        + envelope
    )
    assert END_MARK == b""


def test_a_whole_answer_is_the_fold_of_the_stream() -> None:
    """L2 by example; Hypothesis does the rest."""
    events = answer(*text(0, "a", "b"), *tool(1, "f"), *text(2, "c"), reason=StopReason.TOOL_USE)
    assert whole(events) == {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": "ab"}, call(1, "f", {}), {"text": "c"}]},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "modelVersion": "client-name",
        "responseId": "9",
    }
    assert whole(events) == fold(frames_of(written(events)))


def test_an_empty_answer() -> None:
    """Legal, with a part that simple clients may look at."""
    frames = frames_of(written(answer()))
    assert [one["candidates"][0] for one in frames] == [
        {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}
    ]
    assert whole(answer()) == frames[0]


def test_cases_162_and_163_the_model_is_the_clients() -> None:
    """Unless the operator wants to see the provider's."""
    assert whole(answer())["modelVersion"] == "client-name"
    ctx = make_ctx(provider=CLAUDE, settings=TranslationSettings(report_provider_model=True))
    assert whole(answer(), ctx)["modelVersion"] == "provider"


def test_ids_are_one_for_the_whole_stream() -> None:
    """Made up if the provider has none."""
    events = [Start(), *text(0, "a"), Stop(reason=StopReason.STOP), End()]
    ids = {one["responseId"] for one in frames_of(written(events))}
    assert ids == {f"{1:024d}"}


# --- calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "args"),
    [
        ([], {}),
        (["", "{}"], {}),
        (["{'a': 1}"], {"a": 1}),
        (["[1]"], {"value": [1]}),
        (['{"cut'], {"_raw_arguments": '{"cut'}),
    ],
)
def test_arguments_are_always_an_object(said: list[str], args: Any) -> None:
    """A string is a validation error in the SDK; row 123's and 124's way."""
    assert parts_of(answer(*tool(0, "f", *said))) == [call(0, "f", args)]


def test_big_integers_keep_their_digits() -> None:
    """Copied, not decoded."""
    assert b'"args":{"n":12345678901234567890123}' in written(answer(*tool(0, "f", '{"n":12345678901234567890123}')))


def test_interleaved_calls_come_in_the_order_of_their_beginning() -> None:
    """Also when the second is complete first; nothing of them is lost."""
    events = answer(
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f")),
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c1", name="g")),
        Delta(b=1, s='{"b":1}'),
        Close(b=1),
        Delta(b=0, s='{"a":1}'),
        Close(b=0),
    )
    assert parts_of(events) == [call(0, "f", {"a": 1}), call(1, "g", {"b": 1})]


def test_what_begins_behind_an_open_call_waits_for_it() -> None:
    """The order of an answer is kept; afterwards text streams again."""
    events = [
        START,
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f")),
        Open(b=1, kind=BlockKind.REASONING),
        Delta(b=1, s="x"),
        PartBreak(b=1),
        Delta(b=1, s="y"),
        SigEvent(b=1, sig=CLAUDE_SIG),
        Close(b=1),
        Open(b=2, kind=BlockKind.TEXT),
        Delta(b=2, s="a"),
    ]
    emitter = SPOKE.open_emitter(make_ctx(provider=CLAUDE))
    assert b"".join(emitter.feed(event) for event in events) == b""
    frames = frames_of(emitter.feed(Close(b=0)))
    parts = [one["candidates"][0]["content"]["parts"][0] for one in frames]
    assert parts[:2] == [call(0, "f", {}), {"text": "x\n\ny", "thought": True}]
    assert parts[2]["thought"]
    assert "thoughtSignature" in parts[2]
    assert parts[3] == {"text": "a"}
    assert frames_of(emitter.feed(Delta(b=2, s="b")))[0]["candidates"][0]["content"]["parts"] == [{"text": "b"}]


def test_waiting_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather the order is given up than the answer."""
    monkeypatch.setattr("cpa.translation.gemini.emitter.MAX_HELD_CHARS", 10)
    events = answer(
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f")),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="12345678"),
        Delta(b=1, s="9abc"),
        Delta(b=1, s="d"),
        Close(b=1),
        Close(b=0),
    )
    assert parts_of(events) == [{"text": "123456789abc"}, {"text": "d"}, call(0, "f", {})]


def test_half_a_call_is_not_told() -> None:
    """An error follows, and a whole call would be made."""
    events = [
        START,
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f")),
        Delta(b=0, s='{"a":'),
        Close(b=0, incomplete=True, failed=True),
        Err(status=502, message="cut"),
    ]
    assert frames_of(written(events)) == [{"error": {"code": 502, "message": "cut", "status": "UNAVAILABLE"}}]


def test_names_are_the_clients() -> None:
    """Case 45, on the way back."""
    ctx = make_ctx(provider=CLAUDE)
    ctx.names.client = {"_3d_view": ("", "3d_view")}
    assert parts_of(answer(*tool(0, "_3d_view"), *tool(1, "other")), ctx) == [
        call(0, "3d_view", {}),
        call(1, "other", {}),
    ]


def test_free_text_of_a_custom_tool() -> None:
    """A Gemini client cannot have declared one; if it comes all the same, it is an object."""
    events = answer(*block(0, BlockKind.CUSTOM_TOOL, '{"x', meta=Meta(call_id="c0", name="p")))
    assert parts_of(events) == [call(0, "p", {"input": '{"x'})]


# --- reasoning and signatures ----------------------------------------------------------------------------------------


def test_parts_of_reasoning_are_separated() -> None:
    """By a blank line, when there is something behind it."""
    events = answer(*block(0, BlockKind.REASONING, "a", PartBreak(b=0), "b", PartBreak(b=0)))
    assert parts_of(events) == [{"text": "a", "thought": True}, {"text": "\n\nb", "thought": True}]


def test_signatures_are_carried() -> None:
    """Google's bare, others' in an envelope; on thoughts and text at their end, on calls with them."""
    own = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data=GEM)
    parts = parts_of(
        answer(
            *block(0, BlockKind.REASONING, "a", SigEvent(b=0, sig=CLAUDE_SIG)),
            *text(1, "b", SigEvent(b=1, sig=own)),
            *tool(2, "f", SigEvent(b=2, sig=own)),
            SigEvent(b=-1, sig=own),
        )
    )
    assert parts[0] == {"text": "a", "thought": True}
    assert {k: v for k, v in parts[1].items() if k != "thoughtSignature"} == {"text": "", "thought": True}
    assert unwrap(parts[1]["thoughtSignature"], bare=Provenance.GEMINI, kind=SigKind.THINKING) == CLAUDE_SIG
    assert parts[2:] == [
        {"text": "b"},
        {"text": "", "thoughtSignature": GEM},
        {**call(2, "f", {}), "thoughtSignature": GEM},
        {"text": "", "thoughtSignature": GEM},
    ]


def test_case_143_redacted_thinking_is_carried() -> None:
    """An empty thought with the envelope."""
    sig = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="EqQBdata")
    (part,) = parts_of(answer(*block(0, BlockKind.REASONING, SigEvent(b=0, sig=sig), meta=Meta(redacted=True))))
    assert (part["text"], part["thought"]) == ("", True)
    assert unwrap(part["thoughtSignature"], bare=Provenance.GEMINI, kind=SigKind.THINKING) == sig


@pytest.mark.parametrize("data", ["not base64!", "abcde", "a"])
def test_signatures_that_are_no_base64_are_wrapped(data: str) -> None:
    """Google's SDK fails on anything else."""
    sig = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data=data)
    (part,) = parts_of(answer(SigEvent(b=-1, sig=sig)))
    assert part["thoughtSignature"].startswith("AFRTUDEA")


def test_hidden_reasoning() -> None:
    """Clients that do not want to see it still carry its state."""
    ctx = make_ctx(provider=CLAUDE, request=ir(GEMINI, reasoning=ReasoningIntent(visible=False)))
    parts = parts_of(
        answer(*block(0, BlockKind.REASONING, "secret", SigEvent(b=0, sig=CLAUDE_SIG)), *text(1, "a")), ctx
    )
    assert [part["text"] for part in parts] == ["", "a"]
    assert "thoughtSignature" in parts[0]


def test_raw_reasoning_is_a_thought_like_any() -> None:
    """Of open models."""
    assert parts_of(answer(*block(0, BlockKind.REASONING, "r", meta=Meta(channel=Channel.RAW)))) == [
        {"text": "r", "thought": True}
    ]


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (StopReason.STOP, "STOP"),
        (StopReason.STOP_SEQUENCE, "STOP"),
        (StopReason.TOOL_USE, "STOP"),
        (StopReason.MAX_TOKENS, "MAX_TOKENS"),
        (StopReason.CONTEXT_FULL, "MAX_TOKENS"),
        (StopReason.REFUSAL, "SAFETY"),
        (StopReason.PAUSE, "STOP"),
        (StopReason.MALFORMED_CALL, "MALFORMED_FUNCTION_CALL"),
        (StopReason.OTHER, "OTHER"),
    ],
)
def test_stop_reasons(reason: StopReason, word: str) -> None:
    """Table 3.3; only in the last frame."""
    frames = frames_of(written(answer(*text(0, "a"), *tool(1, "f"), reason=reason)))
    assert [one["candidates"][0].get("finishReason") for one in frames] == [None, None, word]


def test_a_refusal_before_content() -> None:
    """Is the prompt's."""
    events = answer(Usage(tokens=Tokens(input=3)), reason=StopReason.REFUSAL, detail="not this")
    (only,) = frames_of(written(events))
    assert only["promptFeedback"] == {"blockReason": "OTHER", "blockReasonMessage": "not this"}
    assert "candidates" not in only
    assert only["usageMetadata"]["promptTokenCount"] == 3
    assert whole(events) == only


def test_a_refusal_with_content() -> None:
    """Is text, and the candidate's."""
    events = answer(*block(0, BlockKind.REFUSAL, "I ", "won't"), reason=StopReason.REFUSAL, detail="why")
    candidate = whole(events)["candidates"][0]
    assert candidate["content"]["parts"] == [{"text": "I won't"}]
    assert (candidate["finishReason"], candidate["finishMessage"]) == ("SAFETY", "why")


def test_no_usage_is_no_member() -> None:
    """Nothing is required, so nothing is invented."""
    assert "usageMetadata" not in whole(answer(*text(0, "a")))


def test_case_144_pings_are_nothing() -> None:
    """Comments crash the SDK; what keeps idle streams open is the driver's."""
    assert SPOKE.open_emitter(make_ctx(provider=CLAUDE)).feed(Ping()) == b""


# --- media, steps, citations -----------------------------------------------------------------------------------------


def test_media() -> None:
    """Whole."""
    parts = parts_of(
        answer(
            *block(0, BlockKind.IMAGE, "iV", "BOR", meta=Meta(mime="image/webp")),
            *block(1, BlockKind.IMAGE, "AAAA"),
            *block(2, BlockKind.AUDIO, "BBBB"),
            *block(3, BlockKind.IMAGE),
        )
    )
    assert [part["inlineData"] for part in parts] == [
        {"mimeType": "image/webp", "data": "iVBOR"},
        {"mimeType": "image/png", "data": "AAAA"},
        {"mimeType": "audio/wav", "data": "BBBB"},
    ]


def test_steps_of_its_own_family_pass_and_those_of_others_are_lost_aloud() -> None:
    """Search has a member of its own."""
    ctx = make_ctx(provider=CLAUDE)
    code = Meta(server="code", origin="gemini", raw=b'{"executableCode":{"code":"1"}}')
    query = Meta(server="web_search", origin="claude", raw=b'{"type":"server_tool_use","input":{"query":"cats"}}')
    foreign = Meta(server="code", origin="claude", raw=b'{"type":"server_tool_use"}')
    events = answer(
        *block(0, BlockKind.SERVER_CALL, meta=code),
        *block(1, BlockKind.SERVER_CALL, meta=query),
        *block(2, BlockKind.SERVER_RESULT, meta=Meta(server="web_search", origin="claude", raw=b"{}")),
        *block(3, BlockKind.SERVER_CALL, meta=foreign),
        *block(4, BlockKind.OPAQUE, meta=Meta(origin="claude", raw=b"{}")),
        *text(5, "a"),
    )
    body = whole(events, ctx)
    assert body["candidates"][0]["content"]["parts"] == [{"executableCode": {"code": "1"}}, {"text": "a"}]
    assert body["candidates"][0]["groundingMetadata"] == {"webSearchQueries": ["cats"]}
    assert [loss.path for loss in ctx.losses] == ["answer.code", "answer.opaque"]


def test_citations_count_bytes_of_the_part_that_a_client_has() -> None:
    """Adjacent blocks of text are one part there."""

    def cited(b: int, start: int, end: int) -> Ann:
        return Ann(b=b, annotation=Annotation(kind="url", url="https://a.b", title="A", start=start, end=end))

    events = answer(
        *block(0, BlockKind.REASONING, "hm"),
        *text(1, "Hä", cited(1, 0, 2)),
        *text(2, "llo", cited(2, 1, 3)),
        *tool(3, "f"),
        *text(4, "end", cited(4, 0, 3)),
    )
    candidate = whole(events)["candidates"][0]
    assert [entry["segment"] for entry in candidate["groundingMetadata"]["groundingSupports"]] == [
        {"startIndex": 0, "endIndex": 3, "partIndex": 1, "text": "Hä"},
        {"startIndex": 4, "endIndex": 6, "partIndex": 1, "text": "lo"},
        {"startIndex": 0, "endIndex": 3, "partIndex": 3, "text": "end"},
    ]
    parts = candidate["content"]["parts"]
    assert [parts[1]["text"], parts[3]["text"]] == ["Hällo", "end"]
    last = frames_of(written(events))[-1]["candidates"][0]
    assert last["groundingMetadata"] == candidate["groundingMetadata"]


def test_several_choices() -> None:
    """Interleaved frames, one last frame."""
    events = [
        START,
        Open(b=0, kind=BlockKind.TEXT),
        Open(b=1, kind=BlockKind.TEXT, choice=1),
        Delta(b=0, s="a"),
        Delta(b=1, s="b", choice=1),
        Close(b=0),
        Close(b=1, choice=1),
        Stop(reason=StopReason.STOP),
        Stop(reason=StopReason.MAX_TOKENS, choice=1),
        End(),
    ]
    frames = frames_of(written(events))
    assert [[one["index"] for one in entry["candidates"]] for entry in frames] == [[0], [1], [0, 1]]
    assert whole(events) == fold(frames)
    assert [one["finishReason"] for one in whole(events)["candidates"]] == ["STOP", "MAX_TOKENS"]


# --- errors and arrays -----------------------------------------------------------------------------------------------


def test_case_164_errors_have_googles_shape() -> None:
    """The SDK reads code and status."""
    error = Err(status=529, message="overloaded", retry_after_s=3)
    frames = frames_of(written([START, *text(0, "a"), error]))
    assert frames[-1]["error"]["code"] == 503
    assert frames[-1]["error"]["status"] == "UNAVAILABLE"
    assert frames[-1]["error"]["details"][0]["retryDelay"] == "3s"
    with pytest.raises(UpstreamProtocolError) as caught:
        SPOKE.emit_full([START, error], make_ctx(provider=CLAUDE))
    assert caught.value.http_status == 529


@pytest.mark.parametrize("said", [[], ["a"], ["a", "b"]])
def test_streams_as_an_array(said: list[str]) -> None:
    """For clients without ``alt=sse``: the same frames, as one JSON value."""
    events = answer(*text(0, *said), *tool(1, "f"))
    emitter = array_frames(make_ctx(provider=CLAUDE))
    pieces = [emitter.feed(event) for event in events]
    assert json.loads(b"".join(pieces)) == frames_of(written(events))
    assert pieces[-1].endswith(ARRAY_END)


@pytest.mark.parametrize("said", [[], text(0, "a")])
def test_errors_in_an_array(said: list[IREvent]) -> None:
    """It is closed all the same, by the emitter or, when the driver writes the error, by `array_error`."""
    emitter = array_frames(make_ctx(provider=CLAUDE))
    events = [START, *said]
    before = b"".join(emitter.feed(event) for event in events)
    after = emitter.feed(Err(status=429, message="slow"))
    body = json.loads(before + after)
    assert body[-1] == {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}
    assert len(body) == 1 + bool(said)
    assert array_error(WireError(status=429, message="slow"), started=bool(said)) == after


def test_events_of_unknown_blocks_are_ignored() -> None:
    """Emitters may rely on E1 to E9, and survive all the same."""
    events = [START, Delta(b=7, s="x"), Close(b=7), PartBreak(b=7), Ann(b=7, annotation=Annotation(kind="url"))]
    assert written(events, make_ctx(client=GEMINI, provider=CHAT)) == b""
