"""The bytes of answers: shapes, the agreement of stream and whole, and the faults inside bodies."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.names import Format
from cpa.testing.mock import Ask, Fault, Scenario, Tool, expected_body, parse_model, render_full, render_stream
from cpa.testing.mock.render import GARBAGE_FRAME, merge_frames, single_bytes, split_frames, split_utf8
from cpa.testing.mock.scenario import BadDirective
from cpa.testing.mock.script import write_script

FORMATS = [Format.OPENAI, Format.OPENAI_RESPONSE, Format.CLAUDE, Format.GEMINI]
SCHEMA = b'{"type":"object","properties":{"city":{},"days":{"type":"integer"}},"required":["city","days"]}'
TOOLS = (Tool(name="weather", schema=SCHEMA), Tool(name="other", schema=b""))
ARGUMENTS = {"city": "Paris", "days": 1}
Event = Mapping[str, Any]


def make_ask(model: str = "mock", **changes: Any) -> Ask:
    return Ask(model=model, text="grüß dich", turns=1, stream=True, include_usage=True, **changes)


def stream(fmt: Format, model: str, **changes: Any) -> list[bytes]:
    return render_stream(fmt, parse_model(model), make_ask(model, **changes))


def events_of(body: bytes) -> list[Event]:
    """The decoded ``data`` of each event; the event's name must agree with its type."""
    events = []
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        if lines["data"] == "[DONE]":
            continue
        event = json.loads(lines["data"])
        assert lines.get("event") in (None, event.get("type"))
        events.append(event)
    return events


def chat_fold(events: Sequence[Event]) -> tuple[str, str, list[Any], Any, Any]:
    """(text, reasoning, [(name, arguments)], finish, usage) of a Chat stream."""
    text, reasoning, finish = "", "", None
    calls: dict[int, list[str]] = {}
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            reasoning += delta.get("reasoning_content") or ""
            finish = choice["finish_reason"] or finish
            for entry in delta.get("tool_calls", ()):
                call = calls.setdefault(entry["index"], ["", ""])
                call[0] += entry["function"].get("name", "")
                call[1] += entry["function"]["arguments"]
    return text, reasoning, [tuple(call) for call in calls.values()], finish, events[-1]["usage"]


def claude_fold(events: Sequence[Event]) -> tuple[str, str, list[Any], Any, Any]:
    blocks: list[dict[str, Any]] = []
    open_index = None
    stop, usage = None, {}
    assert events[0]["type"] == "message_start"
    for event in events[1:]:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                assert event["index"] == len(blocks)
                open_index = event["index"]
                blocks.append({**event["content_block"], "json": ""})
            case "content_block_delta":
                assert event["index"] == open_index
                for key, value in event["delta"].items():
                    target = "json" if key == "partial_json" else key
                    if key != "type":
                        blocks[-1][target] += value
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
            case "message_delta":
                stop, usage = event["delta"]["stop_reason"], event["usage"]
    assert open_index is None
    assert all(block["signature"] for block in blocks if block["type"] == "thinking")
    text = "".join(block.get("text", "") for block in blocks)
    reasoning = "".join(block.get("thinking", "") for block in blocks)
    calls = [(block["name"], block["json"]) for block in blocks if block["type"] == "tool_use"]
    return text, reasoning, calls, stop, usage


def responses_fold(events: Sequence[Event]) -> tuple[str, str, list[Any], Any, Any]:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    last = events[-1]["response"]
    assert last["id"] == events[0]["response"]["id"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert done == last["output"]
    assert added == [item["id"] for item in done]
    deltas: dict[str, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            deltas[event["type"]] = deltas.get(event["type"], "") + event["delta"]
    text = deltas.get("response.output_text.delta", "")
    reasoning = deltas.get("response.reasoning_summary_text.delta", "")
    calls = [(item["name"], item["arguments"]) for item in done if item["type"] == "function_call"]
    assert "".join(call[1] for call in calls) == deltas.get("response.function_call_arguments.delta", "")
    return text, reasoning, calls, last["status"], last["usage"]


def gemini_fold(events: Sequence[Event]) -> tuple[str, str, list[Any], Any, Any]:
    text, reasoning, calls = "", "", []
    for event in events:
        for part in event["candidates"][0]["content"]["parts"]:
            if call := part.get("functionCall"):
                calls.append((call["name"], json.dumps(call["args"], separators=(",", ":"))))
            elif part.get("thought"):
                reasoning += part["text"]
            else:
                text += part["text"]
    assert [("finishReason" in event["candidates"][0]) for event in events].index(True) == len(events) - 1
    return text, reasoning, calls, events[-1]["candidates"][0]["finishReason"], events[-1]["usageMetadata"]


FOLDS = {
    Format.OPENAI: chat_fold,
    Format.OPENAI_RESPONSE: responses_fold,
    Format.CLAUDE: claude_fold,
    Format.GEMINI: gemini_fold,
}
FINISHED = {
    Format.OPENAI: ("stop", "tool_calls"),
    Format.OPENAI_RESPONSE: ("completed", "completed"),
    Format.CLAUDE: ("end_turn", "tool_use"),
    Format.GEMINI: ("STOP", "STOP"),
}


def whole_text(fmt: Format, body: bytes) -> str:
    """The text of an answer that was not streamed."""
    answer = json.loads(body)
    match fmt:
        case Format.OPENAI:
            text = answer["choices"][0]["message"]["content"]
        case Format.OPENAI_RESPONSE:
            text = answer["output"][-1]["content"][0]["text"]
        case Format.CLAUDE:
            text = answer["content"][-1]["text"]
        case _:
            text = answer["candidates"][0]["content"]["parts"][-1]["text"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("model", ["mock", "mock-think", "mock-chunks-20-chunk-bytes-50"])
def test_stream_and_whole_say_the_same(fmt: Format, model: str) -> None:
    text, reasoning, calls, finish, _ = FOLDS[fmt](events_of(b"".join(stream(fmt, model))))
    script = write_script(parse_model(model), make_ask(model))
    assert text == script.text == whole_text(fmt, render_full(fmt, parse_model(model), make_ask(model)))
    assert reasoning == "".join(script.reasoning)
    assert bool(reasoning) == ("think" in model)
    assert (calls, finish) == ([], FINISHED[fmt][0])


@pytest.mark.parametrize("fmt", FORMATS)
def test_tool_calls(fmt: Format) -> None:
    """Two calls, in the order of the request's tools; a second tool without schema takes no arguments."""
    model = "mock-tool-think-calls-2"
    events = events_of(b"".join(stream(fmt, model, tools=TOOLS)))
    text, reasoning, calls, finish, _ = FOLDS[fmt](events)
    assert text == ""
    assert reasoning.startswith("Thinking about")
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("weather", ARGUMENTS), ("other", {})]
    assert finish == FINISHED[fmt][1]


@pytest.mark.parametrize("fmt", FORMATS)
def test_tool_result_is_answered_by_text(fmt: Format) -> None:
    events = events_of(b"".join(stream(fmt, "mock-tool", tools=TOOLS, tool_result="rain ☔")))
    text, _, calls, finish, _ = FOLDS[fmt](events)
    assert "rain ☔" in text
    assert (calls, finish) == ([], FINISHED[fmt][0])


def test_chosen_tool_is_called() -> None:
    calls = chat_fold(events_of(b"".join(stream(Format.OPENAI, "mock-tool", tools=TOOLS, chosen_tool="other"))))[2]
    assert calls == [("other", "{}")]


def test_usage_is_the_same_in_four_dialects() -> None:
    usage = write_script(parse_model("mock-think"), make_ask("mock-think")).usage
    assert usage.reasoning > 0
    assert usage.cached > 0
    got = {fmt: FOLDS[fmt](events_of(b"".join(stream(fmt, "mock-think"))))[4] for fmt in FORMATS}
    chat, claude = got[Format.OPENAI], got[Format.CLAUDE]
    responses, gemini = got[Format.OPENAI_RESPONSE], got[Format.GEMINI]
    assert (chat["prompt_tokens"], chat["completion_tokens"]) == (usage.input, usage.output)
    assert chat["prompt_tokens_details"]["cached_tokens"] == usage.cached
    assert (responses["input_tokens"], responses["total_tokens"]) == (usage.input, usage.total)
    assert claude["input_tokens"] + claude["cache_read_input_tokens"] == usage.input
    assert gemini["candidatesTokenCount"] + gemini["thoughtsTokenCount"] == usage.output


def test_chat_stream_tells_usage_only_when_asked() -> None:
    ask = Ask(model="mock", stream=True)
    events = events_of(b"".join(render_stream(Format.OPENAI, Scenario(), ask)))
    assert all("usage" not in event for event in events)
    assert all(len(event["choices"]) == 1 for event in events)


def test_whole_chat_answer_with_reasoning_and_calls() -> None:
    tools = (*TOOLS[:1], Tool(name="patch", kind="custom"))
    scenario = parse_model("mock-tool-think-calls-2")
    message = json.loads(render_full(Format.OPENAI, scenario, make_ask(tools=tools)))["choices"][0]["message"]
    assert message["reasoning_content"].startswith("Thinking about")
    assert message["content"] is None
    weather, patch = message["tool_calls"]
    assert json.loads(weather["function"]["arguments"]) == ARGUMENTS
    assert patch["custom"] == {"name": "patch", "input": "mock input for patch ✓"}
    deltas = events_of(b"".join(stream(Format.OPENAI, "mock-tool-calls-2", tools=tools)))
    pieces = [
        entry for event in deltas for choice in event["choices"] for entry in choice["delta"].get("tool_calls", ())
    ]
    assert "".join(entry["custom"]["input"] for entry in pieces if entry["index"] == 1) == patch["custom"]["input"]


def test_responses_echo_the_request() -> None:
    echo = {"tools": b'[{"type":"function","name":"f"}]', "store": b"false", "metadata": b"null"}
    answer = json.loads(render_full(Format.OPENAI_RESPONSE, Scenario(), make_ask(echo=echo)))
    assert answer["tools"] == [{"type": "function", "name": "f", "parameters": None, "strict": False}]
    assert (answer["store"], answer["metadata"], answer["tool_choice"]) == (False, {}, "auto")


def test_responses_reasoning_is_encrypted_only_when_asked() -> None:
    plain = json.loads(render_full(Format.OPENAI_RESPONSE, Scenario(think=True), make_ask()))
    assert "encrypted_content" not in plain["output"][0]
    sealed = json.loads(render_full(Format.OPENAI_RESPONSE, Scenario(think=True), make_ask(encrypted=True)))
    assert sealed["output"][0]["encrypted_content"].startswith("gAAAA")


def test_custom_and_namespaced_tools_of_responses() -> None:
    tools = (Tool(name="patch", kind="custom"), Tool(name="inner", namespace="ns"))
    events = events_of(b"".join(stream(Format.OPENAI_RESPONSE, "mock-tool-calls-2", tools=tools)))
    custom, inner = events[-1]["response"]["output"]
    assert (custom["type"], custom["input"]) == ("custom_tool_call", "mock input for patch ✓")
    assert (inner["type"], inner["namespace"], inner["arguments"]) == ("function_call", "ns", "{}")
    assert "response.custom_tool_call_input.delta" in [event["type"] for event in events]


def test_gemini_array_is_one_json_document() -> None:
    body = b"".join(stream(Format.GEMINI, "mock-think", sse=False))
    assert gemini_fold(json.loads(body)) == gemini_fold(events_of(b"".join(stream(Format.GEMINI, "mock-think"))))


@pytest.mark.parametrize("fmt", FORMATS)
def test_one_write_per_piece(fmt: Format) -> None:
    """`fault_at` and delays count writes: opening (not Gemini's), one per piece, the end."""
    writes = stream(fmt, "mock-chunks-30")
    assert len(writes) == 31 + (fmt is not Format.GEMINI)
    assert all(writes)


@pytest.mark.parametrize("fmt", FORMATS)
def test_answers_are_functions_of_requests(fmt: Format) -> None:
    assert stream(fmt, "mock-think") == stream(fmt, "mock-think")
    other = render_stream(fmt, parse_model("mock-think"), Ask(model="mock-think", text="other", stream=True))
    assert other != stream(fmt, "mock-think")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("fault", [Fault.RESET, Fault.CUT])
def test_broken_off_in_the_middle_of_a_write(fmt: Format, fault: Fault) -> None:
    good = stream(fmt, "mock-chunks-9")
    bad = render_stream(fmt, Scenario(chunks=9, fault=fault, fault_at=4), make_ask("mock-chunks-9"))
    assert bad == [*good[:4], good[4][: len(good[4]) // 2]]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.EOF])
def test_ended_between_writes(fmt: Format, fault: Fault) -> None:
    good = stream(fmt, "mock-chunks-9")
    bad = render_stream(fmt, Scenario(chunks=9, fault=fault, fault_at=4), make_ask("mock-chunks-9"))
    assert bad == good[:4]


def test_fault_beyond_the_end_hits_the_last_write() -> None:
    """A fault that was ordered must happen."""
    good = stream(Format.CLAUDE, "mock")
    assert render_stream(Format.CLAUDE, Scenario(fault=Fault.EOF, fault_at=999), make_ask()) == good[:-1]
    assert render_stream(Format.CLAUDE, Scenario(fault=Fault.EOF, fault_at=0), make_ask()) == []


ERRORS: dict[Format, dict[str, object]] = {
    Format.OPENAI: {"message": "mock in-band error", "type": "server_error"},
    Format.CLAUDE: {"type": "api_error", "message": "mock in-band error"},
    Format.GEMINI: {"code": 500, "message": "mock in-band error", "status": "INTERNAL"},
}


@pytest.mark.parametrize("fmt", FORMATS)
def test_inband_error_ends_the_stream(fmt: Format) -> None:
    good = stream(fmt, "mock")
    bad = render_stream(fmt, Scenario(fault=Fault.INBAND_ERROR, fault_at=3), make_ask())
    assert bad[:3] == good[:3]
    assert len(bad) == 4
    [event] = events_of(bad[3])
    if fmt is Format.OPENAI_RESPONSE:
        assert event["type"] == "response.failed"
        assert event["response"]["error"]["message"] == "mock in-band error"
        assert event["sequence_number"] == len(events_of(b"".join(good[:3])))
        assert event["response"]["status"] == "failed"
    else:
        assert event.get("type") == ("error" if fmt is Format.CLAUDE else None)
        assert ERRORS[fmt].items() <= event["error"].items()


def test_inband_error_in_a_gemini_array_keeps_it_json() -> None:
    for at in (0, 2):
        scenario = Scenario(fault=Fault.INBAND_ERROR, fault_at=at)
        entries = json.loads(b"".join(render_stream(Format.GEMINI, scenario, make_ask(sse=False))))
        assert len(entries) == at + 1
        assert entries[-1]["error"]["code"] == 500


TERMINALS = {
    Format.OPENAI: b"data: [DONE]\n\n",
    Format.CLAUDE: b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


@pytest.mark.parametrize("fmt", FORMATS)
def test_no_done_leaves_only_the_terminal_out(fmt: Format) -> None:
    good, bad = stream(fmt, "mock"), render_stream(fmt, Scenario(fault=Fault.NO_DONE), make_ask())
    assert bad[:-1] == good[:-1]
    if fmt in TERMINALS:
        assert bad[-1] + TERMINALS[fmt] == good[-1]
    elif fmt is Format.OPENAI_RESPONSE:
        assert good[-1].startswith(bad[-1])
        assert good[-1][len(bad[-1]) :].startswith(b"event: response.completed\n")
    else:
        assert bad[-1] == good[-1].replace(b',"finishReason":"STOP"', b"")


@pytest.mark.parametrize("fmt", FORMATS)
def test_garbage_stands_before_the_chosen_write(fmt: Format) -> None:
    good = stream(fmt, "mock")
    assert render_stream(fmt, Scenario(fault=Fault.GARBAGE, fault_at=1), make_ask()) == [
        good[0],
        GARBAGE_FRAME,
        *good[1:],
    ]


@pytest.mark.parametrize("fmt", FORMATS)
def test_crlf_changes_only_line_ends(fmt: Format) -> None:
    body = b"".join(render_stream(fmt, Scenario(fault=Fault.CRLF), make_ask()))
    assert body.replace(b"\r\n", b"\n") == b"".join(stream(fmt, "mock"))
    assert body.count(b"\n") == body.count(b"\r\n")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("fault", [Fault.SPLIT_UTF8, Fault.SPLIT_FRAMES, Fault.MERGE_FRAMES, Fault.SLOW_BYTES])
def test_recut_streams_have_the_same_bytes(fmt: Format, fault: Fault) -> None:
    good = stream(fmt, "mock")
    recut = render_stream(fmt, Scenario(fault=fault), make_ask())
    assert b"".join(recut) == b"".join(good)
    assert recut != good


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=20).map(str.encode), max_size=12))
def test_recuts_lose_nothing(chunks: list[bytes]) -> None:
    body = b"".join(chunks)
    for recut in (split_utf8, split_frames, merge_frames, single_bytes):
        pieces = list(recut(chunks))
        assert b"".join(pieces) == body
        assert all(pieces)


def test_split_utf8_breaks_every_character() -> None:
    pieces = list(split_utf8(["aé🙂z".encode()]))
    assert pieces == [b"a\xc3", b"\xa9\xf0", b"\x9f\x99\x82z"]


def test_merged_writes_have_a_bound() -> None:
    sizes = [len(piece) for piece in merge_frames([b"x" * 1000] * 200)]
    assert sizes == [66_000, 66_000, 66_000, 2_000]


def test_expected_body_is_what_a_post_gets() -> None:
    body = b'{"model":"mock","stream":true,"messages":[{"role":"user","content":"x"}]}'
    headers = [(b"x-mock-chunks", b"3"), (b"accept", b"*/*")]
    answer = expected_body("/v1/chat/completions", body, headers)
    ask = Ask(model="mock", stream=True, text="x", turns=1)
    assert answer == b"".join(render_stream(Format.OPENAI, Scenario(chunks=3), ask))
    with pytest.raises(ValueError, match="no /nowhere"):
        expected_body("/nowhere", body)
    with pytest.raises(BadDirective):
        expected_body("/v1/chat/completions", body, [(b"x-mock-chunks", b"many")])
