"""Writing answers for Responses clients (translation 4.8, A.1, A.2)."""

import json
from typing import Any

import pytest

from cpa.errors import UpstreamProtocolError
from cpa.translation.context import Names, TranslationSettings
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
from cpa.translation.responses import END_MARK, SPOKE
from cpa.translation.responses.emitter import Emitter
from cpa.translation.signatures import unwrap
from tests.translation.responses.support import (
    CLAUDE,
    GEMINI,
    GPT,
    RESPONSES,
    decoded,
    make_ctx,
    new_request,
    parse,
    response_of,
    write,
)

START = Start(id="msg_9", created_unix=1)
TEXT, TOOL, REASONING = BlockKind.TEXT, BlockKind.TOOL, BlockKind.REASONING


def carrying(provider: Any = CLAUDE, **intent: Any) -> Any:
    """A client that sends reasoning back."""
    request = new_request(RESPONSES, reasoning=ReasoningIntent(carry=True, **intent))
    return make_ctx(provider=provider, request=request)


def text(b: int, *pieces: str, **meta: Any) -> list[IREvent]:
    return [Open(b=b, kind=TEXT, meta=Meta(**meta)), *(Delta(b=b, s=piece) for piece in pieces), Close(b=b)]


def tool(b: int, *pieces: str, name: str = "f", call_id: str = "") -> list[IREvent]:
    meta = Meta(call_id=call_id or f"c{b}", name=name)
    return [Open(b=b, kind=TOOL, meta=meta), *(Delta(b=b, s=piece) for piece in pieces), Close(b=b)]


def thinking(b: int, *pieces: str, channel: Channel = Channel.SUMMARY, sig: Sig | None = None) -> list[IREvent]:
    signed: list[IREvent] = [SigEvent(b=b, sig=sig)] if sig else []
    deltas = [Delta(b=b, s=piece) for piece in pieces]
    return [Open(b=b, kind=REASONING, meta=Meta(channel=channel)), *deltas, *signed, Close(b=b)]


def answer(*parts: list[IREvent], reason: StopReason = StopReason.STOP, ctx: Any = None) -> list[dict[str, Any]]:
    events = [START, *(event for part in parts for event in part), Stop(reason=reason), End()]
    return decoded(write(events, ctx))


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def output(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = events[-1]["response"]["output"]
    return found


def check(events: list[dict[str, Any]]) -> None:
    """What holds for every stream: order, places and ids as the vendor's clients demand them."""
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert {event["response"]["id"] for event in events if "response" in event} == {events[0]["response"]["id"]}
    items: dict[int, dict[str, Any]] = {}
    finished: dict[int, dict[str, Any]] = {}
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items[event["output_index"]] = event["item"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == items[event["output_index"]]["id"]
            finished[event["output_index"]] = event["item"]
        elif "output_index" in event:
            assert event["item_id"] == items[event["output_index"]]["id"]
            assert event["output_index"] not in finished
    assert [finished[place] for place in sorted(items)] == output(events)
    assert len({item["id"] for item in items.values()}) == len(items)


def test_worked_example_of_an_answer_cut_by_the_limit() -> None:
    """4.12, word by word."""
    events = answer(text(0, "Hel", "lo"), reason=StopReason.MAX_TOKENS)
    check(events)
    where = {"item_id": "msg_9_0", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "Hello", "annotations": []}
    item = {"id": "msg_9_0", "type": "message", "status": "incomplete", "role": "assistant", "content": [part]}
    assert events[2:-1] == [
        {
            "type": "response.output_item.added",
            "sequence_number": 2,
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", "sequence_number": 3, **where, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", "sequence_number": 4, **where, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", "sequence_number": 5, **where, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", "sequence_number": 6, **where, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", "sequence_number": 7, **where, "part": part},
        {"type": "response.output_item.done", "sequence_number": 8, "output_index": 0, "item": item},
    ]
    first = events[0]["response"]
    assert first == {
        "id": "resp_9",
        "object": "response",
        "created_at": 1,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": "client-name",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [],
    }
    last = events[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"] == [item]


def test_the_full_order_of_events() -> None:
    """4.8: reasoning, text with a citation, a call."""
    cited = [
        Open(b=1, kind=TEXT),
        Delta(b=1, s="see x"),
        Ann(b=1, annotation=Annotation(kind="url", url="https://x", title="X", start=4, end=5)),
        Close(b=1),
    ]
    events = answer(thinking(0, "why"), cited, tool(2, '{"a"', ":1}"), reason=StopReason.TOOL_USE)
    check(events)
    assert kinds(events)[2:] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    reasoning, message, call = output(events)
    assert reasoning == {"id": "rs_9_0", "type": "reasoning", "summary": [{"type": "summary_text", "text": "why"}]}
    citation = {"type": "url_citation", "start_index": 4, "end_index": 5, "url": "https://x", "title": "X"}
    assert message["content"] == [{"type": "output_text", "text": "see x", "annotations": [citation]}]
    assert call == {
        "id": "fc_9_2",
        "type": "function_call",
        "status": "completed",
        "call_id": "c2",
        "name": "f",
        "arguments": '{"a":1}',
    }
    (arguments_done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert (arguments_done["arguments"], arguments_done["name"]) == ('{"a":1}', "f")
    (added,) = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert (added["annotation_index"], added["annotation"]) == (0, citation)


def test_no_end_mark() -> None:
    """4.8: send no ``[DONE]``."""
    assert END_MARK == b""
    assert b"[DONE]" not in write([START, *text(0, "x"), Stop(reason=StopReason.STOP), End()])


def test_empty_answer() -> None:
    """Legal: no items."""
    events = decoded(write([START, End()]))
    check(events)
    assert kinds(events) == ["created", "in_progress", "completed"]
    assert output(events) == []


def test_adjacent_texts_are_parts_of_one_message_and_a_call_ends_it() -> None:
    """3.2; case 150: a new run is a new item with a new id."""
    events = answer(text(0, "a"), text(1, "b"), tool(2, "{}"), text(3, "c"), reason=StopReason.TOOL_USE)
    check(events)
    first, call, second = output(events)
    assert [part["text"] for part in first["content"]] == ["a", "b"]
    assert call["type"] == "function_call"
    assert [part["text"] for part in second["content"]] == ["c"]
    assert first["id"] != second["id"]
    assert [item["status"] for item in output(events)] == ["completed"] * 3


def test_texts_are_serialised() -> None:
    """4.8: items may interleave, texts do not (case 121)."""
    events = answer(
        [
            Open(b=0, kind=TEXT),
            Delta(b=0, s="a"),
            Open(b=1, kind=TEXT),
            Delta(b=1, s="b"),
            Open(b=2, kind=TOOL, meta=Meta(call_id="c", name="f")),
            Delta(b=2, s="{"),
            Open(b=3, kind=TEXT),
            Delta(b=3, s="c"),
            Close(b=3),
            Delta(b=0, s="A"),
            Delta(b=1, s="B"),
            Close(b=0),
            Delta(b=1, s="!"),
            Delta(b=2, s="}"),
            Close(b=1),
            Close(b=2),
        ],
        reason=StopReason.TOOL_USE,
    )
    check(events)
    assert [
        [part["text"] for part in item["content"]] if item["type"] == "message" else item["arguments"]
        for item in output(events)
    ] == [["aA"], "{}", ["bB!", "c"]]


def test_interleaved_calls_stream_live() -> None:
    """Case 120, on this side: items may interleave."""
    opened = [Open(b=b, kind=TOOL, meta=Meta(call_id=f"c{b}", name="f")) for b in (0, 1)]
    deltas = [Delta(b=0, s="{"), Delta(b=1, s='{"x"'), Delta(b=0, s="}"), Delta(b=1, s=":1}")]
    events = answer([*opened, *deltas, Close(b=1), Close(b=0)], reason=StopReason.TOOL_USE)
    check(events)
    assert [event["delta"] for event in events if "delta" in event] == ["{", '{"x"', "}", ":1}"]
    assert [item["arguments"] for item in output(events)] == ["{}", '{"x":1}']


def test_call_without_arguments_is_an_empty_object() -> None:
    """Case 123."""
    (call,) = output(answer(tool(0), reason=StopReason.TOOL_USE))
    assert call["arguments"] == "{}"


def test_missing_and_repeated_call_ids() -> None:
    """2.8: made up at random; the client's accumulator knows calls by their id alone."""
    events = answer([Open(b=0, kind=TOOL, meta=Meta(name="f")), Close(b=0)], tool(1, call_id="c"), tool(2, call_id="c"))
    check(events)
    ids = [item["call_id"] for item in output(events)]
    assert ids[0] == "call_made"
    assert len(set(ids)) == 3


def test_call_cut_by_the_limit_is_incomplete() -> None:
    """3.3: the limit beats the call, whether or not its block was closed before."""
    events = answer(tool(0, '{"a'), reason=StopReason.MAX_TOKENS)
    check(events)
    assert output(events)[0]["status"] == "incomplete"
    before, last = output(answer(tool(0, "{}"), tool(1, '{"a'), reason=StopReason.MAX_TOKENS))
    assert (before["status"], last["status"]) == ("completed", "incomplete")
    both = [Open(b=0, kind=TOOL, meta=Meta(call_id="c", name="f")), Delta(b=0, s="{"), Close(b=0, incomplete=True)]
    assert output(answer(both, tool(1, "{}"), reason=StopReason.TOOL_USE))[0]["status"] == "incomplete"


# --- names and custom tools ------------------------------------------------------------------------------------------


def test_names_come_back() -> None:
    """2.6, case 46: name and namespace restored."""
    ctx = make_ctx(provider=CLAUDE)
    ctx.names = Names(client={"git__log": ("git", "log"), "a_b_1": ("", "a.b")})
    events = answer(tool(0, "{}", name="git__log"), tool(1, "{}", name="a_b_1"), tool(2, "{}", name="other"), ctx=ctx)
    assert [(item["name"], item.get("namespace")) for item in output(events)] == [
        ("log", "git"),
        ("a.b", None),
        ("other", None),
    ]


def test_names_within_a_stated_namespace() -> None:
    """A provider of the same protocol says it."""
    ctx = make_ctx()
    ctx.names = Names(wire={("git", "l.og"): "l_og_1"})
    meta = Meta(call_id="c", name="l_og_1", namespace="git")
    (item,) = output(answer([Open(b=0, kind=TOOL, meta=meta), Close(b=0)], ctx=ctx))
    assert (item["name"], item["namespace"]) == ("l.og", "git")


def test_wrapped_custom_tools_are_unwrapped_as_they_come() -> None:
    """Case 50: with delta events."""
    ctx = make_ctx(provider=CLAUDE)
    ctx.names = Names(custom={"edit"})
    events = answer(tool(0, '{"input"', ': "a\\n', 'b"}', name="edit"), reason=StopReason.TOOL_USE, ctx=ctx)
    check(events)
    assert kinds(events)[2:] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events if "delta" in event] == ["a\n", "b"]
    assert output(events) == [
        {"id": "ctc_9_0", "type": "custom_tool_call", "call_id": "c0", "name": "edit", "input": "a\nb"}
    ]


def test_what_is_not_wrapped_is_held_back_and_read_whole() -> None:
    """2.6."""
    ctx = make_ctx(provider=CLAUDE)
    ctx.names = Names(custom={"edit"})
    events = answer(tool(0, '"just ', 'text"', name="edit"), ctx=ctx)
    check(events)
    assert output(events)[0]["input"] == "just text"
    assert [event["delta"] for event in events if "delta" in event] == ["just text"]


def test_native_custom_calls() -> None:
    """Free text is free text."""
    meta = Meta(call_id="c", name="p")
    events = answer([Open(b=0, kind=BlockKind.CUSTOM_TOOL, meta=meta), Delta(b=0, s='{"input":'), Close(b=0)])
    assert output(events)[0]["input"] == '{"input":'


# --- reasoning -------------------------------------------------------------------------------------------------------


def test_summary_parts() -> None:
    """4.8: a boundary closes the part, the next text opens another."""
    block = [
        Open(b=0, kind=REASONING),
        Delta(b=0, s="one"),
        PartBreak(b=0),
        Delta(b=0, s="two"),
        PartBreak(b=0),
        Close(b=0),
    ]
    events = answer(block)
    check(events)
    assert output(events)[0]["summary"] == [
        {"type": "summary_text", "text": "one"},
        {"type": "summary_text", "text": "two"},
    ]
    assert [event["summary_index"] for event in events if "delta" in event] == [0, 1]


def test_raw_reasoning() -> None:
    """2.10: into `content`, nothing in the summary."""
    events = answer(thinking(0, "raw", channel=Channel.RAW))
    check(events)
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    (item,) = output(events)
    assert (item["summary"], item["content"]) == ([], [{"type": "reasoning_text", "text": "raw"}])


def test_second_reasoning_has_an_id_of_its_own() -> None:
    """Cases 149 and 151."""
    events = answer(thinking(0, "a"), thinking(1, "b"))
    check(events)
    assert kinds(events)[-1] == "completed"


def test_signatures_for_clients_that_send_them_back() -> None:
    """4.8 and 4.10: bare from OpenAI, an envelope of all others; never empty."""
    claude = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EsClaude")
    own = Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data=GPT)
    foreign, bare = output(answer(thinking(0, "x", sig=claude), thinking(1, "y", sig=own), ctx=carrying()))
    assert bare["encrypted_content"] == GPT
    sig = unwrap(foreign["encrypted_content"], bare=Provenance.OPENAI, kind=SigKind.ENCRYPTED)
    assert sig is not None
    assert (sig.provenance, sig.data) == (Provenance.CLAUDE, "EsClaude")
    (unasked,) = output(answer(thinking(0, "x", sig=claude)))
    assert "encrypted_content" not in unasked


def test_redacted_thinking_survives_the_client() -> None:
    """Case 143: Claude, through the client, back to Claude."""
    redacted = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="EmwKAhgBEgy")
    block = [Open(b=0, kind=REASONING, meta=Meta(redacted=True)), SigEvent(b=0, sig=redacted), Close(b=0)]
    (item,) = output(answer(block, ctx=carrying()))
    assert item["summary"] == []
    part: Any = parse({"input": [item, {"role": "assistant", "content": "x"}]}).turns[0].parts[0]
    assert part.redacted
    assert part.sigs[0].data == "EmwKAhgBEgy"
    assert output(answer(block)) == []


def test_signature_of_a_call_stands_before_it() -> None:
    """2.10: an item that shows nothing, which on the way back gives it to the call."""
    sig = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==")
    block = [
        Open(b=0, kind=TOOL, meta=Meta(call_id="c", name="f")),
        SigEvent(b=0, sig=sig),
        Delta(b=0, s="{}"),
        Close(b=0),
    ]
    events = answer(block, ctx=carrying(GEMINI), reason=StopReason.TOOL_USE)
    check(events)
    carrier, call = output(events)
    assert (carrier["type"], call["type"]) == ("reasoning", "function_call")
    back: Any = parse({"input": output(events)}).turns[0].parts
    assert [[sig.data for sig in part.sigs] for part in back] == [["Q0FGRQ=="]]
    (alone,) = output(answer(block, ctx=make_ctx(provider=GEMINI)))
    assert alone["type"] == "function_call"


@pytest.mark.parametrize("late", [True, False])
def test_signature_of_a_text(late: bool) -> None:
    """Case 136: the text stays visible; a signature that came late stands behind it."""
    sig = SigEvent(b=0, sig=Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ=="))
    opened: list[IREvent] = [Open(b=0, kind=TEXT)]
    block = [*opened, Delta(b=0, s="x"), sig] if late else [*opened, sig, Delta(b=0, s="x")]
    events = answer([*block, Close(b=0)], text(1, "y"), ctx=carrying(GEMINI))
    check(events)
    types = [item["type"] for item in output(events)]
    assert types == (["message", "reasoning", "message"] if late else ["reasoning", "message"])
    back: Any = parse({"input": output(events)}).turns[0].parts
    assert [(part.text, [sig.data for sig in part.sigs]) for part in back] == [("x", ["Q0FGRQ=="]), ("y", [])]


def test_signature_of_no_block_belongs_to_what_came_before() -> None:
    """Gemini ends answers so."""
    sig = SigEvent(b=-1, sig=Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ=="))
    events = answer(text(0, "x"), [sig], ctx=carrying(GEMINI))
    check(events)
    back: Any = parse({"input": output(events)}).turns[0].parts
    assert [(part.text, [sig.data for sig in part.sigs]) for part in back] == [("x", ["Q0FGRQ=="])]


def test_hidden_reasoning_keeps_its_state() -> None:
    """3.2: the signature still travels."""
    own = Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data=GPT)
    (item,) = output(answer(thinking(0, "secret", sig=own), ctx=carrying(visible=False)))
    assert (item["summary"], item["encrypted_content"]) == ([], GPT)


# --- other blocks ----------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    """A part of its own; refused in words is completed (3.3 rule 3)."""
    block = [Open(b=0, kind=BlockKind.REFUSAL), Delta(b=0, s="no"), Close(b=0)]
    events = answer(block, reason=StopReason.REFUSAL)
    check(events)
    assert kinds(events)[2:] == [
        "output_item.added",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert output(events)[0]["content"] == [{"type": "refusal", "refusal": "no"}]


def test_filter_stop_is_incomplete() -> None:
    """Case 135."""
    events = answer(text(0, "x"), reason=StopReason.REFUSAL)
    assert kinds(events)[-1] == "incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("reason", [StopReason.STOP, StopReason.STOP_SEQUENCE, StopReason.PAUSE, StopReason.OTHER])
def test_other_reasons_are_completed(reason: StopReason) -> None:
    """Table 3.3."""
    ctx = make_ctx(provider=CLAUDE)
    events = answer(text(0, "x"), reason=reason, ctx=ctx)
    assert kinds(events)[-1] == "completed"
    assert bool(ctx.losses) is (reason is StopReason.PAUSE)


def test_images() -> None:
    """Case 154."""
    block = [Open(b=0, kind=BlockKind.IMAGE, meta=Meta(mime="image/webp")), Delta(b=0, s="UklG"), Close(b=0)]
    events = answer(text(1, "see"), block)
    check(events)
    assert output(events)[1] == {
        "id": "ig_9_1",
        "type": "image_generation_call",
        "status": "completed",
        "result": "UklG",
        "output_format": "webp",
    }


def test_audio_cannot_be_shown() -> None:
    """3.2: a placeholder, and said aloud."""
    ctx = make_ctx(provider=GEMINI)
    block = [Open(b=0, kind=BlockKind.AUDIO, meta=Meta(mime="audio/wav")), Delta(b=0, s="UklG"), Close(b=0)]
    events = answer(block, ctx=ctx)
    check(events)
    assert "audio/wav" in output(events)[0]["content"][0]["text"]
    assert len(ctx.losses) == 1


def claude_search(*, result: bool = True) -> list[IREvent]:
    use = b'{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}'
    found = (
        b'{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1",'
        b'"content":[{"type":"web_search_result","url":"https://x","title":"X","encrypted_content":"e"}]}'
    )
    events: list[IREvent] = [
        Open(b=0, kind=BlockKind.SERVER_CALL, meta=Meta(server="web_search", origin="claude", raw=use)),
        Delta(b=0, s='{"query":'),
        Delta(b=0, s='"cats"}'),
        Close(b=0),
    ]
    if result:
        meta = Meta(server="web_search", origin="claude", raw=found)
        events += [Open(b=1, kind=BlockKind.SERVER_RESULT, meta=meta), Close(b=1)]
    return events


@pytest.mark.parametrize("result", [True, False])
def test_web_search_of_claude(result: bool) -> None:
    """3.5: call and findings are one item."""
    events = answer(claude_search(result=result), text(2, "found"))
    check(events)
    first = [kind for kind in kinds(events) if "search" in kind]
    assert first == ["web_search_call.in_progress", "web_search_call.searching", "web_search_call.completed"]
    search = next(item for item in output(events) if item["type"] == "web_search_call")
    assert (search["status"], search["action"]["query"]) == ("completed", "cats")
    assert search["action"].get("sources", []) == ([{"type": "url", "url": "https://x"}] if result else [])


def test_own_items_pass_under_an_id_that_is_unique_here() -> None:
    """Through the representation, from a provider of the same protocol."""
    raw = json.dumps({"type": "code_interpreter_call", "id": "ci_x", "status": "completed", "code": "1"}).encode()
    meta = Meta(server="code", origin="openai-response", raw=raw)
    events = answer([Open(b=0, kind=BlockKind.SERVER_CALL, meta=meta), Close(b=0)], ctx=make_ctx())
    check(events)
    assert output(events) == [{"type": "code_interpreter_call", "id": "ci_9_0", "status": "completed", "code": "1"}]


def test_blocks_that_nobody_knows_are_lost_aloud() -> None:
    """Claude's container_upload, say."""
    ctx = make_ctx(provider=CLAUDE)
    meta = Meta(origin="claude", raw=b'{"type":"container_upload"}')
    assert output(answer([Open(b=0, kind=BlockKind.OPAQUE, meta=meta), Close(b=0)], ctx=ctx)) == []
    assert len(ctx.losses) == 1


def test_phases_part_messages() -> None:
    """2.3."""
    events = answer(text(0, "a", phase="commentary"), text(1, "b", phase="final_answer"))
    check(events)
    assert [item["phase"] for item in output(events)] == ["commentary", "final_answer"]


# --- envelope --------------------------------------------------------------------------------------------------------


def test_usage_and_tier() -> None:
    """3.4: details always; later ones win, unstated ones do not erase (cases 139, 146, 159)."""
    events = [
        START,
        Usage(tokens=Tokens(input=1000, cached=800, cache_write=80)),
        *text(0, "x"),
        Stop(reason=StopReason.STOP),
        Usage(tokens=Tokens(output=60, reasoning=25, tier="standard")),
        End(),
    ]
    response = response_of(write(events))
    assert response["usage"] == {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 80},
        "output_tokens": 60,
        "output_tokens_details": {"reasoning_tokens": 25},
        "total_tokens": 1060,
    }
    assert response["service_tier"] == "default"
    nothing = response_of(write([START, End()]))["usage"]
    assert nothing["input_tokens"] == nothing["output_tokens_details"]["reasoning_tokens"] == 0


def test_ids_times_and_names() -> None:
    """3.1: cases 162 and 163."""
    response = response_of(write([Start(id="chatcmpl-a/b", model="provider-model"), End()]))
    assert (response["id"], response["created_at"], response["model"]) == ("resp_ab", 1_700_000_000, "client-name")
    assert response_of(write([Start(), End()]))["id"] == "resp_made"
    told = make_ctx(provider=CLAUDE, settings=TranslationSettings(report_provider_model=True))
    assert response_of(write([Start(model="provider-model"), End()], told))["model"] == "provider-model"


def test_the_request_is_repeated() -> None:
    """3.1: in all three objects, verbatim."""
    ctx = make_ctx(provider=CLAUDE)
    tools = [{"type": "function", "name": "f", "parameters": {"n": 12345678901234567890123}}]
    parse({"input": "x", "tools": tools, "tool_choice": "none", "temperature": 0.5, "store": False}, ctx)
    events = answer(ctx=ctx)
    for event in (events[0], events[1], events[-1]):
        response = event["response"]
        assert (response["tools"], response["tool_choice"]) == (tools, "none")
        assert (response["temperature"], response["store"], response["parallel_tool_calls"]) == (0.5, False, True)


def test_pings_and_other_choices_say_nothing() -> None:
    """Keep-alives are the server's; `n` was refused."""
    emitter = SPOKE.open_emitter(make_ctx(provider=CLAUDE))
    assert emitter.feed(Ping()) == b""
    emitter.feed(START)
    assert emitter.feed(Open(b=0, kind=TEXT, choice=1)) == b""


# --- errors ----------------------------------------------------------------------------------------------------------


def test_error_after_the_start_fails_the_response() -> None:
    """4.9a: what was open is shown incomplete, without events that would end it."""
    events = decoded(
        write(
            [
                START,
                *thinking(0, "done"),
                *tool(1, "{}"),
                Open(b=2, kind=TEXT),
                Delta(b=2, s="hal"),
                Open(b=3, kind=TOOL, meta=Meta(call_id="c3", name="g")),
                Delta(b=3, s='{"a'),
                Open(b=4, kind=REASONING),
                Delta(b=4, s="hm"),
                Err(status=429, message="slow down sk-abcdefghijklmnopqrstuvwxyz0123456789", code="rate_limit_error"),
            ]
        )
    )
    last = events[-1]
    assert last["type"] == "response.failed"
    response = last["response"]
    assert response["status"] == "failed"
    assert response["error"]["code"] == "rate_limit_exceeded"
    assert "slow down" in response["error"]["message"]
    assert "abcdefghijklmnop" not in response["error"]["message"]
    assert [(item["type"], item.get("status")) for item in response["output"]] == [
        ("reasoning", None),
        ("function_call", "completed"),
        ("message", "incomplete"),
        ("function_call", "incomplete"),
        ("reasoning", "incomplete"),
    ]
    assert response["output"][2]["content"][0]["text"] == "hal"
    assert kinds(events).count("output_item.done") == 2


def test_blocks_that_failed_are_not_closed_on_the_wire() -> None:
    """The normalizer closes them for those who need it."""
    events = [START, Open(b=0, kind=TEXT), Delta(b=0, s="hal"), Close(b=0, incomplete=True, failed=True)]
    found = decoded(write([*events, Err(status=502, message="cut")]))
    assert kinds(found)[-2:] == ["output_text.delta", "failed"]
    assert output(found)[0]["status"] == "incomplete"


def test_number_of_an_error_that_others_write() -> None:
    """One stream, one count."""
    emitter = SPOKE.open_emitter(make_ctx(provider=CLAUDE))
    assert isinstance(emitter, Emitter)
    assert emitter.next_sequence == 0
    emitter.feed(START)
    assert emitter.next_sequence == 2


@pytest.mark.parametrize("events", [[START], [START, Err(status=529, message="busy", code="overloaded")]])
def test_whole_answers_end_well_or_are_the_providers_fault(events: list[IREvent]) -> None:
    """Never half an answer that looks whole."""
    with pytest.raises(UpstreamProtocolError) as caught:
        SPOKE.emit_full(events, make_ctx(provider=CLAUDE))
    assert caught.value.http_status == (529 if len(events) > 1 else 502)


def test_error_before_the_start() -> None:
    """4.9a: an error event, number 0."""
    (event,) = decoded(write([Err(status=503, message="busy")]))
    assert event == {
        "type": "error",
        "sequence_number": 0,
        "code": "internal_server_error",
        "message": "busy",
        "param": None,
    }


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (429, "", "rate_limit_exceeded"),
        (500, "", "server_error"),
        (529, "overloaded_error", "server_error"),
        (400, "invalid_prompt", "invalid_prompt"),
        (400, "content_policy_violation", "invalid_prompt"),
        (400, "image_too_large", "image_too_large"),
        (400, "context_length_exceeded", "context_length_exceeded"),
        (401, "", "server_error"),
    ],
)
def test_error_codes_are_those_of_the_vendor(status: int, code: str, expected: str) -> None:
    """5.3."""
    events = decoded(write([START, Err(status=status, message="m", code=code)]))
    assert events[-1]["response"]["error"]["code"] == expected
