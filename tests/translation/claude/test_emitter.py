"""Streams and whole answers for Claude clients, and what the vendor's SDK makes of them."""

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from cpa.errors import UpstreamProtocolError
from cpa.formats.names import Format
from cpa.translation.claude import SPOKE, compose
from cpa.translation.context import Context, TranslationSettings
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
from cpa.translation.signatures import unwrap, wrap
from tests.translation.claude.support import (
    context,
    frames,
    lost,
    parse_messages,
    request,
    sdk_message,
    user,
    write_full,
    write_stream,
)

START = Start(id="x1", model="upstream-name", created_unix=1)
STOP, END = Stop(reason=StopReason.STOP), End()
TOOL_STOP = Stop(reason=StopReason.TOOL_USE)
GEMINI_SIG = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==")
OPENAI_SIG = Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data="gAAAAencrypted")


def block(b: int, kind: BlockKind, *pieces: str, meta: Meta | None = None) -> list[IREvent]:
    deltas: list[IREvent] = [Delta(b=b, s=piece) for piece in pieces]
    return [Open(b=b, kind=kind, meta=meta or Meta()), *deltas, Close(b=b)]


def text(b: int, *pieces: str) -> list[IREvent]:
    return block(b, BlockKind.TEXT, *pieces)


def tool(b: int, *pieces: str, name: str = "f") -> list[IREvent]:
    return block(b, BlockKind.TOOL, *pieces, meta=Meta(call_id=f"c{b}", name=name))


def both(*events: IREvent, ctx: Context | None = None) -> Any:
    """The whole message; the stream adds up to the same in the SDK (L2, L4)."""
    ctx = ctx or context(provider=Format.OPENAI)
    full = write_full(list(events), ctx)
    data = write_stream(events, ctx)
    frames(data)
    streamed = sdk_message(data)
    assert_same(full, streamed)
    return full


def assert_same(full: Any, streamed: Message) -> None:
    Message.model_validate(full)
    found = Message.model_validate(full).to_dict()
    made = streamed.to_dict()
    for message in (found, made):
        for item in message["content"]:  # type: ignore[attr-defined]
            item.pop("citations", None) if not item.get("citations") else None
            item.pop("parsed_output", None)
            if str(item.get("id", "")).startswith("srvtoolu_"):
                item["id"] = "srvtoolu"
            if str(item.get("tool_use_id", "")).startswith("srvtoolu_"):
                item["tool_use_id"] = "srvtoolu"
        message.pop("stop_details", None) if message.get("stop_details") is None else None
    assert made == found


def test_worked_example() -> None:
    """4.11: interleaved calls of a Chat provider (corpus 120, 147)."""
    events: list[IREvent] = [
        START,
        Open(b=0, kind=BlockKind.REASONING),
        Delta(b=0, s="plan"),
        Close(b=0),
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="read")),
        Open(b=2, kind=BlockKind.TOOL, meta=Meta(call_id="c1", name="list")),
        Delta(b=2, s='{"d"'),
        Delta(b=1, s='{"p":"a"}'),
        Delta(b=2, s=":1}"),
        Close(b=1),
        Close(b=2),
        Usage(tokens=Tokens(input=50, cached=30, output=20)),
        TOOL_STOP,
        END,
    ]
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    assert frames(write_stream(events, context(provider=Format.OPENAI))) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_x1",
                "type": "message",
                "role": "assistant",
                "model": "client-name",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": thinking},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "plan"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "c0", "name": "read", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"p":"a"}'},
        },
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "c1", "name": "list", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"d":1}'},
        },
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 20},
        },
        {"type": "message_stop"},
    ]
    full = both(*events)
    assert [item.get("input") for item in full["content"]] == [None, {"p": "a"}, {"d": 1}]
    assert full["usage"] == {"input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 20}


def test_everything_in_its_order() -> None:
    full = both(
        START,
        *block(0, BlockKind.REASONING, "a", "b"),
        *text(1, "c", "d"),
        *tool(2, '{"x":1}'),
        *text(3, "e"),
        TOOL_STOP,
        END,
    )
    assert [item["type"] for item in full["content"]] == ["thinking", "text", "tool_use", "text"]
    assert full["content"][1]["text"] == "cd"


def test_empty_answer() -> None:
    """4.6: legal."""
    full = both(START, STOP, END)
    assert (full["content"], full["stop_reason"]) == ([], "end_turn")
    assert [frame["type"] for frame in frames(write_stream([START, STOP, END]))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


# --- order ---


def test_text_while_a_call_is_open_follows_it() -> None:
    """Corpus 121."""
    events: list[IREvent] = [
        START,
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")),
        Open(b=1, kind=BlockKind.TEXT),
        Delta(b=1, s="later"),
        Delta(b=0, s='{"a":'),
        Delta(b=0, s="1}"),
        Close(b=1),
        Close(b=0),
        TOOL_STOP,
        END,
    ]
    full = both(*events)
    assert [item["type"] for item in full["content"]] == ["tool_use", "text"]
    assert full["content"][0]["input"] == {"a": 1}


def test_first_open_block_of_those_that_waited_goes_live() -> None:
    emitter = SPOKE.open_emitter(context(provider=Format.OPENAI_RESPONSE))
    for event in (
        START,
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f")),
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c1", name="f")),
        Delta(b=1, s='{"a":'),
    ):
        emitter.feed(event)
    kinds = [frame["type"] for frame in frames(emitter.feed(Close(b=0)))]
    assert kinds == ["content_block_stop", "content_block_start", "content_block_delta"]
    assert frames(emitter.feed(Delta(b=1, s="1}")))[0]["delta"]["partial_json"] == "1}"


def test_text_opens_with_its_first_word() -> None:
    emitter = SPOKE.open_emitter(context())
    emitter.feed(START)
    assert [f["type"] for f in frames(emitter.feed(Open(b=0, kind=BlockKind.TEXT)))] == ["message_start"]
    assert [f["type"] for f in frames(emitter.feed(Delta(b=0, s="a")))] == [
        "content_block_start",
        "content_block_delta",
    ]


def test_texts_and_reasoning_without_a_word_leave_nothing() -> None:
    assert both(START, *text(0), *block(1, BlockKind.REASONING), *text(2, "a"), STOP, END)["content"] == [
        {"type": "text", "text": "a"}
    ]


def test_opened_text_keeps_nobody_waiting() -> None:
    emitter = SPOKE.open_emitter(context(provider=Format.OPENAI_RESPONSE))
    for event in (START, Open(b=0, kind=BlockKind.TEXT)):
        emitter.feed(event)
    opened = emitter.feed(Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")))
    assert frames(opened)[0]["content_block"]["name"] == "f"


def test_too_much_waiting_is_the_upstreams_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """4.6: memory is bounded."""
    monkeypatch.setattr(compose, "MAX_WAITING_CHARS", 1000)
    emitter = SPOKE.open_emitter(context())
    for event in (START, Open(b=0, kind=BlockKind.REASONING), Delta(b=0, s="a"), Open(b=1, kind=BlockKind.TEXT)):
        emitter.feed(event)
    emitter.feed(Delta(b=1, s="x" * 900))
    with pytest.raises(UpstreamProtocolError):
        emitter.feed(Delta(b=1, s="x" * 100))


def test_what_was_written_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "MAX_WAITING_CHARS", 1000)
    emitter = SPOKE.open_emitter(context())
    emitter.feed(START)
    for number in range(0, 20, 2):
        for event in (
            Open(b=number, kind=BlockKind.REASONING),
            Delta(b=number, s="a"),
            Open(b=number + 1, kind=BlockKind.TEXT),
            Delta(b=number + 1, s="x" * 900),
            Close(b=number),
            Close(b=number + 1),
        ):
            emitter.feed(event)
    assert emitter.feed(END)


# --- tools ---


def test_tool_is_shown_before_its_arguments() -> None:
    emitter = SPOKE.open_emitter(context(provider=Format.OPENAI_RESPONSE))
    emitter.feed(START)
    opened = emitter.feed(Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")))
    assert [frame["type"] for frame in frames(opened)] == ["message_start", "content_block_start"]


def test_arguments_are_streamed() -> None:
    data = write_stream([START, *tool(0, ' {"a', '":[1', ",2]}"), TOOL_STOP, END])
    pieces = [f["delta"]["partial_json"] for f in frames(data) if f["type"] == "content_block_delta"]
    assert pieces == [' {"a', '":[1', ",2]}"]


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([], {}),  # corpus 123
        (["  "], {}),
        (["{", "}"], {}),
        (["{'a'", ": 1}"], {"a": 1}),  # corpus 124
        (["```json\n", '{"a":1}\n```'], {"a": 1}),
        (["[1]"], {"value": [1]}),
        (["nonsense"], {"_raw_arguments": "nonsense"}),
        (["null"], {}),
        (['{"id":12345678901234567890123}'], {"id": 12345678901234567890123}),
    ],
)
def test_arguments_become_objects(pieces: list[str], found: Any) -> None:
    assert both(START, *tool(0, *pieces), TOOL_STOP, END)["content"][0]["input"] == found


def test_waiting_arguments_are_mended_as_well() -> None:
    full = both(
        START,
        Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f")),
        *tool(1, '{"a": None}'),
        Close(b=0),
        TOOL_STOP,
        END,
    )
    assert full["content"][1]["input"] == {"a": None}


@pytest.mark.parametrize("waits", [False, True])
def test_arguments_that_the_limit_cut_show_it(waits: bool) -> None:
    """Corpus 125, 133: the client must see how far they came."""
    cut: list[IREvent] = [
        Open(b=1, kind=BlockKind.TOOL, meta=Meta(call_id="c", name="f")),
        Delta(b=1, s='{"path":"a'),
        Close(b=1, incomplete=True),
    ]
    before: list[IREvent] = [Open(b=0, kind=BlockKind.TOOL, meta=Meta(call_id="c0", name="f"))] if waits else []
    after: list[IREvent] = [Close(b=0)] if waits else []
    stop = Stop(reason=StopReason.MAX_TOKENS)
    message = sdk_message(write_stream([START, *before, *cut, *after, stop, END]))
    assert message.stop_reason == "max_tokens"
    assert message.content[-1].input == {"path": "a"} or message.content[-1].input == {}
    full = write_full([START, *before, *cut, *after, stop, END])
    assert full["content"][-1]["input"] == {"_raw_arguments": '{"path":"a'}
    assert full["stop_reason"] == "max_tokens"


def test_names_are_the_clients() -> None:
    ctx = context(provider=Format.GEMINI)
    ctx.names.client = {"_3d_view": ("", "3d_view")}
    full = both(START, *tool(0, "{}", name="_3d_view"), *tool(1, "{}", name="other"), TOOL_STOP, END, ctx=ctx)
    assert [item["name"] for item in full["content"]] == ["3d_view", "other"]


def test_free_text_calls_are_wrapped() -> None:
    events = block(0, BlockKind.CUSTOM_TOOL, '{"a', '"', meta=Meta(call_id="c", name="f"))
    assert both(START, *events, TOOL_STOP, END)["content"][0]["input"] == {"input": '{"a"'}


# --- reasoning and signatures ---


def test_parts_of_reasoning_are_parted_by_a_blank_line() -> None:
    """Corpus 126: none at the end."""
    full = both(
        START,
        Open(b=0, kind=BlockKind.REASONING),
        PartBreak(b=0),
        Delta(b=0, s="a"),
        PartBreak(b=0),
        Delta(b=0, s="b"),
        PartBreak(b=0),
        Close(b=0),
        *text(1, "c"),
        STOP,
        END,
    )
    assert full["content"][0]["thinking"] == "a\n\nb"


def signed(b: int, sig: Sig, *pieces: str, **meta: Any) -> list[IREvent]:
    opened, *rest = block(b, BlockKind.REASONING, *pieces, meta=Meta(**meta))
    return [opened, *rest[:-1], SigEvent(b=b, sig=sig), rest[-1]]


def test_foreign_reasoning_travels_in_an_envelope() -> None:
    """Corpus 128: also without text."""
    full = both(START, *signed(0, OPENAI_SIG, "hm"), *signed(1, OPENAI_SIG), *text(2, "a"), STOP, END)
    assert full["content"][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": wrap(OPENAI_SIG)},
        {"type": "thinking", "thinking": "", "signature": wrap(OPENAI_SIG)},
    ]


def test_own_signatures_are_bare() -> None:
    sig = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="Es1")
    later = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="Es2")
    opened, delta, close = block(0, BlockKind.REASONING, "hm")
    full = both(START, opened, delta, SigEvent(b=0, sig=sig), SigEvent(b=0, sig=later), close, STOP, END)
    assert full["content"] == [{"type": "thinking", "thinking": "hm", "signature": "Es2"}]


def test_redacted_reasoning() -> None:
    """Corpus 143."""
    sig = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="opaque")
    full = both(START, *signed(0, sig, redacted=True), *text(1, "a"), STOP, END)
    assert full["content"][0] == {"type": "redacted_thinking", "data": "opaque"}


def test_hidden_reasoning_leaves_its_signature() -> None:
    """3.2."""
    ctx = context(provider=Format.OPENAI_RESPONSE)
    ctx.request = request(user("x"))
    ctx.request.reasoning.visible = False
    full = both(START, *signed(0, OPENAI_SIG, "secret"), *block(1, BlockKind.REASONING, "x"), STOP, END, ctx=ctx)
    assert full["content"] == [{"type": "thinking", "thinking": "", "signature": wrap(OPENAI_SIG)}]


def test_signature_of_a_call_stands_before_it_and_comes_back() -> None:
    """2.10, 4.6."""
    opened, delta, close = tool(0, "{}")
    sig = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", of_call=True)
    full = both(START, opened, SigEvent(b=0, sig=sig), delta, close, *tool(1, "{}"), TOOL_STOP, END)
    assert [item["type"] for item in full["content"]] == ["thinking", "tool_use", "tool_use"]
    (turn,) = parse_messages({"role": "assistant", "content": full["content"]})
    first, second = turn.parts
    assert (first.sigs, second.sigs) == ([sig], ())  # type: ignore[union-attr]


def test_signature_of_a_waiting_call() -> None:
    opened, delta, close = tool(1, "{}")
    full = both(
        START,
        Open(b=0, kind=BlockKind.REASONING),
        Delta(b=0, s="hm"),
        opened,
        SigEvent(b=1, sig=GEMINI_SIG),
        delta,
        Close(b=0),
        close,
        TOOL_STOP,
        END,
    )
    assert [item["type"] for item in full["content"]] == ["thinking", "thinking", "tool_use"]


@pytest.mark.parametrize("provider", [Format.GEMINI, Format.OPENAI, Format.CLAUDE])
def test_signature_of_a_call_that_comes_late(provider: Format) -> None:
    opened, delta, close = tool(0, "{}")
    full = both(
        START, opened, delta, SigEvent(b=0, sig=GEMINI_SIG), close, TOOL_STOP, END, ctx=context(provider=provider)
    )
    assert [item["type"] for item in full["content"]] == ["tool_use", "thinking"]
    found = unwrap(full["content"][1]["signature"], bare=Provenance.CLAUDE, kind=SigKind.THINKING)
    assert found is not None
    assert found.preceding is True


def test_text_with_a_signature_stays_text() -> None:
    """Corpus 136."""
    opened, delta, close = text(0, "answer")
    full = both(START, opened, delta, SigEvent(b=0, sig=GEMINI_SIG), close, STOP, END)
    assert [item["type"] for item in full["content"]] == ["text", "thinking"]
    (turn,) = parse_messages({"role": "assistant", "content": full["content"]})
    assert [(part.text, [sig.data for sig in part.sigs]) for part in turn.parts] == [  # type: ignore[union-attr]
        ("answer", ["Q0FGRQ=="])
    ]


def test_signature_before_the_text() -> None:
    opened, delta, close = text(0, "answer")
    full = both(START, opened, SigEvent(b=0, sig=GEMINI_SIG), delta, close, STOP, END)
    assert [item["type"] for item in full["content"]] == ["thinking", "text"]


def test_signature_of_nothing() -> None:
    full = both(START, *text(0, "a"), SigEvent(b=-1, sig=GEMINI_SIG), *text(1, "b"), STOP, END)
    assert [item["type"] for item in full["content"]] == ["text", "thinking", "text"]


def test_signature_of_a_thought_is_no_carrier() -> None:
    full = both(START, *signed(0, GEMINI_SIG), *text(1, "a"), STOP, END)
    (turn,) = parse_messages({"role": "assistant", "content": full["content"]})
    assert len(turn.parts) == 2
    assert turn.parts[0].sigs[0].kind is SigKind.THINKING  # type: ignore[union-attr]


# --- other blocks ---


def test_refusal() -> None:
    """3.2, 3.3."""
    stop = Stop(reason=StopReason.REFUSAL, detail="SAFETY")
    full = both(START, *block(0, BlockKind.REFUSAL, "No."), stop, END)
    assert full["content"] == [{"type": "text", "text": "No."}]
    assert full["stop_reason"] == "refusal"
    assert full["stop_details"] == {"type": "refusal", "category": None, "explanation": "SAFETY"}


def test_images_become_placeholders() -> None:
    ctx = context(provider=Format.GEMINI)
    full = both(START, *block(0, BlockKind.IMAGE, "A" * 65536, meta=Meta(mime="image/png")), STOP, END, ctx=ctx)
    assert full["content"] == [{"type": "text", "text": "[image generated: image/png, 48 KB]"}]
    assert lost(ctx) == ["output"]


def test_citations() -> None:
    """3.5."""
    cited = Annotation(kind="url", url="https://e", title="E", start=0, end=1, origin="openai")
    opened, delta, close = text(0, "a")
    full = both(START, opened, delta, Ann(b=0, annotation=cited), Ann(b=0, annotation=cited), close, STOP, END)
    citation = {
        "type": "web_search_result_location",
        "url": "https://e",
        "title": "E",
        "cited_text": "",
        "encrypted_index": "",
    }
    assert full["content"] == [{"type": "text", "text": "a", "citations": [citation, citation]}]


def test_search_of_another_provider() -> None:
    raw = (
        b'{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"q",'
        b'"sources":[{"type":"url","url":"https://e","title":"E"}]}}'
    )
    meta = Meta(server="web_search", origin="openai-response", raw=raw)
    full = both(START, *block(0, BlockKind.SERVER_CALL, meta=meta), *text(1, "a"), STOP, END)
    use, result, _ = full["content"]
    assert (use["type"], use["name"], use["input"]) == ("server_tool_use", "web_search", {"query": "q"})
    assert use["id"].startswith("srvtoolu_")
    assert result["tool_use_id"] == use["id"]
    assert result["content"][0]["url"] == "https://e"


def test_own_steps_pass_as_they_came() -> None:
    raw = b'{"type":"server_tool_use",\n"id":"s1","name":"web_search","input":{"query":"q"}}'
    meta = Meta(server="web_search", origin="claude", raw=raw)
    assert both(START, *block(0, BlockKind.SERVER_CALL, meta=meta), STOP, END)["content"] == [json.loads(raw)]


def test_steps_without_counterpart_are_told() -> None:
    raw = b'{"executableCode":{"language":"PYTHON","code":"print(1)"}}'
    meta = Meta(server="code", origin="gemini", raw=raw)
    full = both(START, *block(0, BlockKind.SERVER_CALL, meta=meta), STOP, END)
    assert "print(1)" in full["content"][0]["text"]


def test_opaque_blocks_of_others_are_lost() -> None:
    ctx = context(provider=Format.OPENAI_RESPONSE)
    meta = Meta(origin="openai-response", raw=b'{"type":"new"}')
    assert both(START, *block(0, BlockKind.OPAQUE, meta=meta), STOP, END, ctx=ctx)["content"] == []
    assert lost(ctx) == ["output"]


# --- the message ---


@pytest.mark.parametrize(
    ("stop", "reason", "sequence"),
    [
        (Stop(reason=StopReason.STOP), "end_turn", None),
        (Stop(reason=StopReason.STOP_SEQUENCE, sequence="END"), "stop_sequence", "END"),
        (Stop(reason=StopReason.STOP_SEQUENCE), "stop_sequence", None),
        (Stop(reason=StopReason.MAX_TOKENS), "max_tokens", None),
        (Stop(reason=StopReason.CONTEXT_FULL), "model_context_window_exceeded", None),
        (Stop(reason=StopReason.PAUSE), "pause_turn", None),
        (Stop(reason=StopReason.REFUSAL), "refusal", None),
        (Stop(reason=StopReason.OTHER), "end_turn", None),
    ],
)
def test_stop_reasons(stop: Stop, reason: str, sequence: str | None) -> None:
    """3.3."""
    full = both(START, *text(0, "a"), stop, END)
    assert (full["stop_reason"], full["stop_sequence"]) == (reason, sequence)


def test_call_that_could_not_be_read_is_said() -> None:
    full = both(START, *text(0, "a"), Stop(reason=StopReason.MALFORMED_CALL), END)
    assert full["stop_reason"] == "end_turn"
    assert "could not be read" in full["content"][1]["text"]


def test_usage_after_the_stop_counts() -> None:
    """Corpus 113."""
    usage = Usage(tokens=Tokens(input=5, output=7, reasoning=3))
    full = both(START, *text(0, "a"), STOP, usage, END)
    assert full["usage"] == {"input_tokens": 5, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3}}


def test_usage_that_is_known_at_the_start_stands_there() -> None:
    data = write_stream([START, Usage(tokens=Tokens(input=5, output=1)), *text(0, "a"), STOP, END])
    assert frames(data)[0]["message"]["usage"] == {"input_tokens": 5, "output_tokens": 1}


def test_estimate_stands_in_for_unknown_input() -> None:
    ctx = context(provider=Format.OPENAI)
    ctx.estimated_input = 77
    found = frames(write_stream([START, *text(0, "a"), Usage(tokens=Tokens(input=80, output=2)), STOP, END], ctx))
    assert found[0]["message"]["usage"]["input_tokens"] == 77
    assert found[-2]["usage"] == {"input_tokens": 80, "output_tokens": 2}
    assert write_full([START, STOP, END], ctx)["usage"] == {"input_tokens": 77, "output_tokens": 0}


@pytest.mark.parametrize(
    ("given", "found"), [("msg_9", "msg_9"), ("chatcmpl-9", "msg_9"), ("resp_9", "msg_9"), ("a.b/c", "msg_abc")]
)
def test_prefix_of_the_id_is_claudes(given: str, found: str) -> None:
    """3.1."""
    assert both(Start(id=given), STOP, END)["id"] == found


def test_model_is_the_clients_word_for_it() -> None:
    """Corpus 163."""
    assert both(START, STOP, END)["model"] == "client-name"
    settings = TranslationSettings(report_provider_model=True)
    assert write_full([START, STOP, END], context(settings=settings))["model"] == "upstream-name"


def test_pings_pass_once_the_message_has_begun() -> None:
    emitter = SPOKE.open_emitter(context())
    assert emitter.feed(START) == emitter.feed(Ping()) == b""
    emitter.feed(Open(b=0, kind=BlockKind.TEXT))
    assert emitter.feed(Ping()) == b'event: ping\ndata: {"type":"ping"}\n\n'


def test_other_choices_are_not_read() -> None:
    emitter = SPOKE.open_emitter(context())
    assert emitter.feed(Open(b=0, kind=BlockKind.TEXT, choice=1)) == b""


def test_nothing_follows_the_end() -> None:
    emitter = SPOKE.open_emitter(context())
    for event in (START, STOP, END):
        emitter.feed(event)
    assert emitter.feed(Delta(b=0, s="a")) == emitter.feed(Err(status=500, message="x")) == b""


def test_errors_inside_a_stream_raise_in_the_sdk() -> None:
    """4.9a."""
    data = write_stream([START, *text(0, "a")[:2], Err(status=503, message="busy")])
    last = frames(data)[-1]
    assert last == {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    with pytest.raises(anthropic.APIStatusError):
        sdk_message(data)


def test_failed_answer_is_no_message() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        write_full([START, Err(status=529, message="busy")])
    assert caught.value.http_status == 529
    with pytest.raises(UpstreamProtocolError):
        write_full([START])


def test_lone_surrogates_never_break_a_stream() -> None:
    assert frames(write_stream([START, *text(0, "a\ud83d"), STOP, END]))[2]["delta"]["text"] == "a\ufffd"
