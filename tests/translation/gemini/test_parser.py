"""Answers of Gemini providers as events (4.5)."""

import json
from typing import Any

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.translation.gemini import SPOKE
from cpa.translation.gemini.partial_args import PartialArgs, parse_path
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Open,
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
from cpa.translation.signatures import wrap
from tests.translation.gemini.support import CHAT, GEM, GEM2, frame, ir, make_ctx, read_full, read_stream


def blocks(events: list[IREvent]) -> list[tuple[str, str]]:
    """(kind, text) of each block."""
    kinds: dict[int, str] = {}
    texts: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, Open):
            kinds[event.b], texts[event.b] = event.kind.value, []
        elif isinstance(event, Delta):
            texts[event.b].append(event.s)
    return [(kinds[b], "".join(texts[b])) for b in kinds]


def opens(events: list[IREvent], kind: BlockKind) -> list[Open]:
    return [event for event in events if isinstance(event, Open) and event.kind is kind]


def stop_of(events: list[IREvent]) -> Stop:
    return next(event for event in events if isinstance(event, Stop))


def test_a_whole_answer() -> None:
    """The provider's frame of the worked example 4.13."""
    call = {"functionCall": {"name": "ls", "args": {"d": "/"}}, "thoughtSignature": "Q0FGRQ=="}
    body = frame(
        {"text": "look", "thought": True},
        call,
        finish="STOP",
        responseId="g1",
        modelVersion="gm",
        createTime="2026-01-01T00:00:00.123456789Z",
        usageMetadata={
            "promptTokenCount": 9,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 6,
            "totalTokenCount": 19,
        },
    )
    events = read_full(body)
    assert events[0] == Start(id="g1", model="gm", created_unix=1767225600)
    assert blocks(events) == [("reasoning", "look"), ("tool", '{"d": "/"}')]
    (tool,) = opens(events, BlockKind.TOOL)
    assert (tool.meta.name, tool.meta.call_id) == ("ls", f"call_{1:024d}")
    (signed,) = [event for event in events if isinstance(event, SigEvent)]
    assert signed.b == tool.b
    assert signed.sig == Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", of_call=True)
    assert [event.tokens for event in events if isinstance(event, Usage)] == [
        Tokens(input=9, output=10, reasoning=6, total=19)
    ]
    assert events[-2:] == [Stop(reason=StopReason.TOOL_USE), End()]


def test_case_137_several_text_parts_in_one_frame() -> None:
    """All of them are said."""
    events = read_stream([frame({"text": "a"}, {"text": "b"}), frame({"text": "c"}, {"text": ""}, finish="STOP")])
    assert blocks(events) == [("text", "abc")]


def test_case_138_each_call_is_a_block_across_frames() -> None:
    """One in the first frame, two in the second; ids that the provider gives are kept."""
    calls = [{"functionCall": {"id": f"i{n}", "name": f"f{n}", "args": {"n": n}}} for n in range(3)]
    events = read_stream([frame(calls[0]), frame(calls[1], calls[2], finish="STOP")])
    assert [(event.meta.call_id, event.meta.name) for event in opens(events, BlockKind.TOOL)] == [
        ("i0", "f0"),
        ("i1", "f1"),
        ("i2", "f2"),
    ]
    assert stop_of(events).reason is StopReason.TOOL_USE


@pytest.mark.parametrize("args", [{}, {"args": None}, {"args": {}}])
def test_case_123_no_arguments(args: dict[str, Any]) -> None:
    """An empty object."""
    assert blocks(read_full(frame({"functionCall": {"name": "f", **args}}, finish="STOP"))) == [("tool", "{}")]


def test_big_integers_in_arguments_keep_their_digits() -> None:
    """Copied, not decoded."""
    data = (
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"n":12345678901234567890123}}}]}}]}'
    )
    events = SPOKE.open_parser(make_ctx(client=CHAT)).feed("", data)
    assert Delta(b=0, s='{"n":12345678901234567890123}') in events


def test_text_and_a_call_in_one_part() -> None:
    """Against the vendor's rule, but nothing of it is lost."""
    events = read_full(frame({"text": "a", "functionCall": {"name": "f"}}, finish="STOP"))
    assert blocks(events) == [("text", "a"), ("tool", "{}")]


def test_case_136_text_with_a_signature_stays_text() -> None:
    """The signature ends its block, also an empty part's."""
    events = read_stream([frame({"text": "a", "thoughtSignature": GEM}), frame({"text": "b"}, finish="STOP")])
    assert blocks(events) == [("text", "a"), ("text", "b")]
    events = read_stream([frame({"text": "a"}), frame({"text": "", "thoughtSignature": GEM}, finish="STOP")])
    assert blocks(events) == [("text", "a")]
    (signed,) = [event for event in events if isinstance(event, SigEvent)]
    assert (signed.b, signed.sig.kind, signed.sig.of_call) == (0, SigKind.PART, False)


def test_a_signature_without_a_block() -> None:
    """Stands alone."""
    events = read_stream(
        [frame({"functionCall": {"name": "f"}}), frame({"text": "", "thoughtSignature": GEM}, finish="STOP")]
    )
    assert [event.b for event in events if isinstance(event, SigEvent)] == [-1]


def test_thoughts_with_signatures() -> None:
    """Each signature has its own block, an empty thought's too."""
    events = read_stream(
        [
            frame({"text": "a", "thought": True}),
            frame({"text": "b", "thought": True, "thoughtSignature": GEM}),
            frame({"text": "", "thought": True, "thoughtSignature": GEM2}),
            frame({"text": "said"}, finish="STOP"),
        ]
    )
    assert blocks(events) == [("reasoning", "ab"), ("reasoning", ""), ("text", "said")]
    assert [(e.b, e.sig.data) for e in events if isinstance(e, SigEvent)] == [(0, GEM), (1, GEM2)]


def test_envelopes_of_another_proxy_are_opened() -> None:
    """A provider may be one of ours."""
    redacted = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="EqQBdata")
    events = read_full(
        frame({"text": "", "thought": True, "thoughtSignature": wrap(redacted)}, {"text": "x"}, finish="STOP")
    )
    (opened,) = opens(events, BlockKind.REASONING)
    assert opened.meta.redacted
    assert [event.sig for event in events if isinstance(event, SigEvent)] == [redacted]


def test_case_139_usage_after_the_finish() -> None:
    """Frames are read until the end."""
    events = read_stream(
        [frame({"text": "a"}, finish="STOP"), {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1}}]
    )
    assert [event.tokens for event in events if isinstance(event, Usage)] == [Tokens(input=3, output=1)]
    assert isinstance(events[-1], End)


def test_case_148_thoughts_are_output() -> None:
    """Usage of each frame adds to what was said before."""
    events = read_stream(
        [
            frame({"text": "a"}, usageMetadata={"promptTokenCount": 3, "thoughtsTokenCount": 25}),
            frame({"text": "b"}, finish="STOP", usageMetadata={"candidatesTokenCount": 35}),
        ]
    )
    assert [event.tokens for event in events if isinstance(event, Usage)][-1] == Tokens(
        input=3, output=60, reasoning=25
    )


@pytest.mark.parametrize("message", ["", "no"])
def test_case_140_a_blocked_prompt_is_a_refusal(message: str) -> None:
    """Not a hang."""
    feedback = {"blockReason": "SAFETY", **({"blockReasonMessage": message} if message else {})}
    events = read_stream([{"promptFeedback": feedback}])
    assert events[1:] == [Stop(reason=StopReason.REFUSAL, detail="SAFETY: no" if message else "SAFETY"), End()]
    assert read_full({"promptFeedback": feedback})[1:] == events[1:]


def test_case_141_a_wrapped_root() -> None:
    """Of dialects."""
    bare = frame({"text": "a"}, finish="STOP", responseId="r")
    assert read_stream([{"response": bare, "traceId": "t"}]) == read_stream([bare])
    assert read_full({"response": bare}) == read_full(bare)


def test_case_142_a_call_that_could_not_be_made() -> None:
    """An error, not an empty success."""
    events = read_stream([frame(finish="MALFORMED_FUNCTION_CALL", finishMessage="bad")])
    assert isinstance(events[-1], Err)
    assert events[-1].status == 502
    assert "MALFORMED_FUNCTION_CALL: bad" in events[-1].message


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", StopReason.STOP),
        ("MAX_TOKENS", StopReason.MAX_TOKENS),
        *((word, StopReason.REFUSAL) for word in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")),
        *((word, StopReason.OTHER) for word in ("LANGUAGE", "OTHER", "SOMETHING_NEW")),
    ],
)
def test_finish_reasons(word: str, reason: StopReason) -> None:
    """Table 3.3; the vendor's word is kept."""
    stop = stop_of(read_full(frame({"text": "a"}, finish=word)))
    assert (stop.reason, stop.detail) == (reason, "" if word == "STOP" else word)


def test_max_tokens_beats_calls() -> None:
    """Rule 1 of 3.3."""
    events = read_full(frame({"functionCall": {"name": "f"}}, finish="MAX_TOKENS"))
    assert stop_of(events).reason is StopReason.MAX_TOKENS


def test_media() -> None:
    """Images and sound; what has no block of its own is kept raw."""
    events = read_full(
        frame(
            {"inlineData": {"mimeType": "image/png", "data": "iVBOR"}, "thoughtSignature": GEM},
            {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}},
            {"inlineData": {"mimeType": "video/mp4", "data": "BBBB"}},
            {"fileData": {"fileUri": "files/1"}},
            {},
            finish="STOP",
        )
    )
    assert blocks(events) == [("image", "iVBOR"), ("audio", "AAAA"), ("opaque", ""), ("opaque", "")]
    assert [event.meta.mime for event in events if isinstance(event, Open)][:2] == ["image/png", "audio/L16;rate=24000"]
    assert [json.loads(event.meta.raw) for event in opens(events, BlockKind.OPAQUE)] == [
        {"inlineData": {"mimeType": "video/mp4", "data": "BBBB"}},
        {"fileData": {"fileUri": "files/1"}},
    ]


def test_code() -> None:
    """Steps of the provider's own tool."""
    events = read_full(
        frame(
            {"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}, {"text": "so"}, finish="STOP"
        )
    )
    assert blocks(events) == [("server_call", ""), ("server_result", ""), ("text", "so")]
    (step,) = opens(events, BlockKind.SERVER_CALL)
    assert (step.meta.server, step.meta.origin) == ("code", "gemini")
    assert json.loads(step.meta.raw) == {"executableCode": {"code": "1"}}


GROUNDING = {
    "webSearchQueries": ["q"],
    "groundingChunks": [{"web": {"uri": "https://a.b", "title": "A"}}],
    "groundingSupports": [
        {"segment": {"startIndex": 7, "endIndex": 12, "text": "World"}, "groundingChunkIndices": [0]}
    ],
}


@pytest.mark.parametrize("later", [False, True])
def test_grounding(later: bool) -> None:
    """Bytes become code points; citations come before the text closes, also if they come in the very last frame."""
    last = (
        [frame(finish="STOP"), frame(groundingMetadata=GROUNDING)]
        if later
        else [frame(finish="STOP", groundingMetadata=GROUNDING)]
    )
    frames = [frame({"text": "Hällo"}), frame({"text": "World"}), *last]
    events = read_stream(frames)
    (cited,) = [event for event in events if isinstance(event, Ann)]
    assert (cited.annotation.url, cited.annotation.start, cited.annotation.end) == ("https://a.b", 6, 10)
    assert events.index(cited) < events.index(Close(b=0))
    (search,) = opens(events, BlockKind.SERVER_CALL)
    assert (search.meta.server, json.loads(search.meta.raw)) == ("web_search", GROUNDING)


def test_grounded_text_waits_for_its_citations() -> None:
    """Only if the request has the provider search: blocks then overlap."""
    request = ir(tools=[Tool(kind=ToolKind.SERVER, name="s", server="web_search")])
    first = {"segment": {"endIndex": 1}, "groundingChunkIndices": [0]}
    second = {"segment": {"partIndex": 2, "startIndex": 0, "endIndex": 1}, "groundingChunkIndices": [0]}
    metadata = {"groundingChunks": [{"web": {"uri": "https://a.b"}}], "groundingSupports": [first, second]}
    body = frame(
        {"text": "a"},
        {"functionCall": {"name": "f"}},
        {"text": "b"},
        {"text": "c"},
        finish="STOP",
        groundingMetadata=metadata,
    )
    events = read_full(body, make_ctx(client=CHAT, request=request))
    cited = [(event.b, event.annotation.start, event.annotation.end) for event in events if isinstance(event, Ann)]
    assert cited == [(0, 0, 1), (2, 1, 2)]
    assert [event.b for event in events if isinstance(event, Close)] == [1, 0, 2]


def test_several_candidates() -> None:
    """Each is a choice of its own."""
    body = {
        "candidates": [
            {"index": n, "content": {"parts": [{"text": f"t{n}"}]}, "finishReason": reason}
            for n, reason in enumerate(("STOP", "MAX_TOKENS"))
        ]
    }
    events = read_full(body)
    assert [(event.choice, event.s) for event in events if isinstance(event, Delta)] == [(0, "t0"), (1, "t1")]
    assert [(event.choice, event.reason) for event in events if isinstance(event, Stop)] == [
        (0, StopReason.STOP),
        (1, StopReason.MAX_TOKENS),
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}, 429),
        ({"code": 503, "message": "slow down", "status": "UNAVAILABLE"}, 503),
    ],
)
def test_errors(error: dict[str, Any], status: int) -> None:
    """Inside a stream, in a list of one, and with status 200."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]
    body = {"error": {**error, "details": details}}
    expected = Err(status=status, message="slow down", retry_after_s=17.0)
    assert read_stream([frame({"text": "a"}), body])[-1] == expected
    assert read_full(body) == [expected]
    parser = SPOKE.open_parser(make_ctx(client=CHAT))
    assert parser.feed("", json.dumps([body]).encode()) == [expected]
    assert parser.feed("", json.dumps(frame({"text": "late"})).encode()) == []


def test_cases_117_and_118_cut_and_empty_streams() -> None:
    """Truncated is not done; half a call is no call."""
    cut = read_stream([frame({"text": "half"})])
    assert cut[-1] == Err(status=502, message="upstream ended its answer before it was complete", code="upstream_error")
    assert read_stream([])[-1] == Err(status=502, message="upstream answered with nothing", code="empty_stream")


def test_a_whole_answer_without_a_finish_reason_is_whole() -> None:
    """It came in one piece."""
    assert read_full(frame({"text": "a"}))[-2:] == [Stop(reason=StopReason.STOP), End()]


def test_frames_as_an_array() -> None:
    """The driver hands single objects, a plugin perhaps the list."""
    frames = [frame({"text": "a"}), frame({"text": "b"}, finish="STOP")]
    parser = SPOKE.open_parser(make_ctx(client=CHAT))
    events = parser.feed("", json.dumps(frames).encode())
    single = SPOKE.open_parser(make_ctx(client=CHAT))
    assert events == [event for one in frames for event in single.feed("", json.dumps(one).encode())]


def test_done_and_blank_frames_are_nothing() -> None:
    """Some hosts send them."""
    parser = SPOKE.open_parser(make_ctx(client=CHAT))
    assert parser.feed("", b"[DONE]") == []
    assert parser.feed("", b"  ") == []


@pytest.mark.parametrize("data", [b"<html>", b"5", b'"x"', b"[1]", b'{"candidates":5}', b'{"candidates":[5]}', b"{"])
def test_what_is_no_answer(data: bytes) -> None:
    """The provider broke its protocol."""
    with pytest.raises(UpstreamProtocolError):
        SPOKE.open_parser(make_ctx(client=CHAT)).feed("", data)
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(data, make_ctx(client=CHAT))


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"usageMetadata":{}}', b'{"candidates":[]}'])
def test_an_answer_without_anything(data: bytes) -> None:
    """Looks never like success."""
    with pytest.raises(UpstreamProtocolError):
        SPOKE.parse_full(data, make_ctx(client=CHAT))


def test_odd_members_cost_nothing_else() -> None:
    """What cannot be used counts as absent."""
    body = {
        "candidates": [
            {
                "index": "0",
                "content": {"role": 5, "parts": [{"text": "a", "thought": "maybe"}, {"text": 7}]},
                "finishReason": "STOP",
                "finishMessage": {},
            }
        ],
        "responseId": 5,
        "promptFeedback": [],
        "usageMetadata": "many",
    }
    events = read_full(body)
    assert blocks(events) == [("text", "a7")]
    assert isinstance(events[-1], End)


# --- arguments in pieces ---------------------------------------------------------------------------------------------


def test_arguments_in_pieces() -> None:
    """As Vertex streams them; the call is told when it is complete."""
    frames = [
        frame({"functionCall": {"id": "1", "name": "f", "willContinue": True}, "thoughtSignature": GEM}),
        frame(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.city", "stringValue": "Pa", "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
        frame(
            {
                "functionCall": {
                    "partialArgs": [
                        {"jsonPath": "$.city", "stringValue": "ris"},
                        {"jsonPath": "$.days[0]", "numberValue": 12345678901234567890123},
                        {"jsonPath": "$.days[1]", "boolValue": True},
                        {"jsonPath": "$['a b'].c", "nullValue": "NULL_VALUE"},
                    ],
                    "willContinue": True,
                }
            }
        ),
        frame({"functionCall": {}}),
        frame({"functionCall": {"name": "g"}}, finish="STOP"),
    ]
    events = read_stream(frames)
    assert [event.meta.name for event in opens(events, BlockKind.TOOL)] == ["f", "g"]
    said = [event.s for event in events if isinstance(event, Delta)]
    assert said[0] == '{"city":"Paris","days":[12345678901234567890123,true],"a b":{"c":null}}'
    assert [event.sig.data for event in events if isinstance(event, SigEvent)] == [GEM]


def test_half_a_call_is_no_call() -> None:
    """The stream was cut in the middle of the arguments."""
    pieces = {"name": "f", "partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}
    events = read_stream([frame({"functionCall": pieces})])
    assert opens(events, BlockKind.TOOL) == []
    assert isinstance(events[-1], Err)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("$.a", ["a"]),
        ('$.a.b[3][\'c.d\']["e\\"f"]', ["a", "b", 3, "c.d", 'e"f']),
        ("$", []),
        ("$[0]", []),
        ("a.b", []),
        ("$..a", []),
        ("$.a[*]", []),
        ("$" + ".a" * 100, []),
    ],
)
def test_json_paths(path: str, steps: list[str | int]) -> None:
    """Names and indices only."""
    assert parse_path(path) == steps


def test_paths_that_lead_nowhere_are_left_out() -> None:
    """Contradicting and gigantic ones."""
    args = PartialArgs()
    for path, value in (("$.a", "x"), ("$.a.b", "y"), ("$.l[999999999]", "z"), ("$.l[0]", "0"), ("$.n[0][0]", "1")):
        args.feed(json.dumps([{"jsonPath": path, "stringValue": value}, 5, {"jsonPath": 5}]).encode())
    assert json.loads(args.json()) == {"a": "x", "l": ["0"], "n": [["1"]]}
