"""Answers of each provider with a little of everything, as the frames of a stream, and what clients make of theirs."""

import json
from typing import Any

ENCRYPTED = "gAAAAA" + "A" * 92 + "=="
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def _chunk(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def _item(place: int, item: dict[str, Any], **started: Any) -> list[dict[str, Any]]:
    added = {"type": "response.output_item.added", "output_index": place, "item": {**item, **started}}
    return [added, {"type": "response.output_item.done", "output_index": place, "item": item}]


_REASONING = {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
_TEXT = {"type": "output_text", "text": "Hello", "annotations": []}
_MESSAGE = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [_TEXT]}
_CALL = {
    "id": "f1",
    "type": "function_call",
    "call_id": "c1",
    "name": "f",
    "arguments": '{"a":1}',
    "status": "completed",
}
_AT = {"item_id": "m1", "output_index": 1, "content_index": 0}
_CITE = {"type": "url_citation", "url": "https://x.test", "title": "X", "start_index": 0, "end_index": 2}


def _block(index: int, opened: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


STREAMS: dict[str, list[Any]] = {
    "openai": [
        _chunk({"role": "assistant", "content": None, "reasoning_content": "hm"}),
        _chunk({"content": "Hel"}),
        _chunk({"content": "lo"}),
        _chunk(
            {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        _chunk(
            {"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "f", "arguments": "{"}}]}
        ),
        _chunk(
            {
                "tool_calls": [
                    {"index": 0, "function": {"arguments": '{"a":1}'}},
                    {"index": 1, "function": {"arguments": "}"}},
                ]
            }
        ),
        _chunk({}, "tool_calls"),
        {**_chunk({}), "choices": [], "usage": USAGE},
    ],
    "codex": [
        {"type": "response.created", "response": {"id": "resp_1", "model": "m", "created_at": 5, "output": []}},
        *_item(0, _REASONING, summary=[]),
        _item(1, _MESSAGE, content=[], status="in_progress")[0],
        {"type": "response.content_part.added", **_AT, "part": {**_TEXT, "text": ""}},
        {"type": "response.output_text.delta", **_AT, "delta": "Hel"},
        {"type": "response.output_text.delta", **_AT, "delta": "lo"},
        {"type": "response.output_text.annotation.added", **_AT, "annotation_index": 0, "annotation": _CITE},
        {"type": "response.output_text.done", **_AT, "text": "Hello"},
        {"type": "response.content_part.done", **_AT, "part": _TEXT},
        _item(1, _MESSAGE)[1],
        _item(2, _CALL, arguments="", status="in_progress")[0],
        {"type": "response.function_call_arguments.delta", "item_id": "f1", "output_index": 2, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", "item_id": "f1", "output_index": 2, "delta": ":1}"},
        {"type": "response.function_call_arguments.done", "item_id": "f1", "output_index": 2, "arguments": '{"a":1}'},
        _item(2, _CALL)[1],
        {
            "type": "response.completed",
            "response": {
                "id": "resp_1",
                "status": "completed",
                "output": [_REASONING, _MESSAGE, _CALL],
                "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
            },
        },
    ],
    "claude": [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [],
                "usage": {"input_tokens": 5},
            },
        },
        *_block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "hm"},
            {"type": "signature_delta", "signature": "EsSig="},
        ),
        *_block(1, {"type": "redacted_thinking", "data": "EsRed"}),
        {"type": "ping"},
        *_block(
            2,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Hel"},
            {"type": "text_delta", "text": "lo"},
            {
                "type": "citations_delta",
                "citation": {
                    "type": "web_search_result_location",
                    "url": "https://x.test",
                    "title": "X",
                    "cited_text": "y",
                    "encrypted_index": "z",
                },
            },
        ),
        *_block(
            3,
            {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"a"'},
            {"type": "input_json_delta", "partial_json": ":1}"},
        ),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 7},
        },
        {"type": "message_stop"},
    ],
    "gemini": [
        {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True}]}, "index": 0}],
            "responseId": "g1",
            "modelVersion": "gm",
        },
        {"candidates": [{"content": {"parts": [{"text": "Hel"}, {"text": "lo", "thoughtSignature": "Q0FGRQ=="}]}}]},
        {
            "candidates": [
                {
                    "content": {
                        "parts": [
                            {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "Q0FGRQ=="},
                            {"functionCall": {"id": "i2", "name": "f"}},
                            {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
                        ]
                    },
                    "finishReason": "STOP",
                    "groundingMetadata": {
                        "groundingChunks": [{"web": {"uri": "https://x.test", "title": "X"}}],
                        "groundingSupports": [
                            {"segment": {"startIndex": 0, "endIndex": 2, "text": "He"}, "groundingChunkIndices": [0]}
                        ],
                    },
                }
            ]
        },
        {
            "usageMetadata": {
                "promptTokenCount": 5,
                "candidatesTokenCount": 4,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 12,
            }
        },
    ],
}
"""By provider; `done` marks are added by `sse`."""


def sse(provider: str, events: list[Any]) -> bytes:
    """*events* as the provider would send them."""
    out = b""
    for event in events:
        if provider in ("claude", "codex") and isinstance(event, dict) and isinstance(event.get("type"), str):
            out += b"event: " + event["type"].encode("utf-8", "replace").replace(b"\n", b"") + b"\n"
        out += b"data: " + json.dumps(event).encode() + b"\n\n"
    return out + (b"data: [DONE]\n\n" if provider == "openai" else b"")


def events_of(stream: bytes) -> list[tuple[str, Any]]:
    """Names and JSON of a client's stream, every byte of which has to be of some event."""
    assert stream == b"" or stream.endswith(b"\n\n")
    found = []
    for block in stream.decode().split("\n\n")[:-1]:
        lines = block.split("\n")
        name = lines[0].removeprefix("event: ") if lines[0].startswith("event: ") else ""
        [data] = lines[1:] if name else lines
        assert data.startswith("data: ")
        body = data.removeprefix("data: ")
        found.append((name, {"done": True} if body == "[DONE]" else json.loads(body)))
    return found


def check_claude(found: list[tuple[str, Any]], *, ended: bool) -> None:
    """One start, blocks one at a time from 0, one delta and one stop at the end."""
    assert all(name == event["type"] for name, event in found)
    events = [event for _, event in found if event["type"] != "ping"]
    if not events:
        assert not ended
        return
    assert events[0]["type"] == "message_start"
    count, kind, arguments = 0, "", ""
    for event in events[1:]:
        match event["type"]:
            case "content_block_start":
                assert (event["index"], kind) == (count, "")
                kind, arguments = event["content_block"].get("type", "untyped"), ""
            case "content_block_delta":
                assert event["index"] == count
                assert kind
                arguments += event["delta"].get("partial_json", "")
            case "content_block_stop":
                assert event["index"] == count
                kind, count = "", count + 1
            case other:
                assert other in ("message_delta", "message_stop")
    ends = [event["type"] for event in events if event["type"] in ("message_delta", "message_stop")]
    assert ends == (["message_delta", "message_stop"] if ended else [])
    assert not (ended and kind)


def check_chat(found: list[tuple[str, Any]], *, ended: bool) -> None:
    """The role once, calls from 0, one finish, and the mark behind all."""
    chunks = [event for _, event in found if "done" not in event]
    assert [event for _, event in found[:-1] if "done" in event] == []
    assert bool(found and "done" in found[-1][1]) == ended
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == 0]
    assert ["role" in choice["delta"] for choice in choices] == [at == 0 for at in range(len(choices))]
    seen = 0
    for choice in choices:
        for call in choice["delta"].get("tool_calls", ()):
            assert call["index"] <= seen
            if call["index"] == seen:
                assert call["id"]
                assert call["function"]["name"] if call["type"] == "function" else call["custom"]
                seen += 1
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(finishes) == ended
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) <= 1


def check_responses(found: list[tuple[str, Any]], *, ended: bool) -> None:
    """Numbers without a gap, items that begin and end under one id, all of them in the last event."""
    assert all(name == event["type"] for name, event in found)
    events = [event for _, event in found]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    if not events:
        assert not ended
        return
    assert events[0]["type"] == "response.created"
    open_items: dict[int, str] = {}
    done = []
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] not in open_items
            open_items[event["output_index"]] = event["item"]["id"]
        elif event["type"] == "response.output_item.done":
            assert open_items[event["output_index"]] == event["item"]["id"]
            done.append((event["output_index"], event["item"]))
        elif "item_id" in event:
            assert open_items[event["output_index"]] == event["item_id"]
    terminal = events[-1]["type"] in ("response.completed", "response.incomplete")
    assert terminal == ended
    if ended:
        assert events[-1]["response"]["output"] == [item for _, item in sorted(done, key=lambda each: each[0])]
        assert len(done) == len(open_items)


def check_gemini(found: list[tuple[str, Any]], *, ended: bool) -> None:
    """Data only, objects for arguments, one reason, at the end."""
    events = [event for _, event in found]
    assert not any(name for name, _ in found)
    assert not any("done" in event for event in events)
    for event in events:
        for candidate in event.get("candidates", ()):
            for part in candidate["content"]["parts"]:
                assert isinstance(part.get("functionCall", {}).get("args", {}), dict)
    reasons = [
        "promptFeedback" in event or any(each.get("finishReason") for each in event.get("candidates", ()))
        for event in events
    ]
    assert reasons == [ended and at == len(events) - 1 for at in range(len(events))]


CHECKS = {"openai": check_chat, "openai-response": check_responses, "claude": check_claude, "gemini": check_gemini}
"""Whether a stream is well-formed, by the client that reads it; *ended*: it says that it is complete."""
