"""What providers of the four protocols answer, in given pieces, and what clients of them read."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cpa.formats.names import Format

TOOL = "save"


def encoded(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def named(kind: str, **members: object) -> bytes:
    """An SSE event that says its type twice."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encoded({"type": kind, **members}))


def bare(value: object) -> bytes:
    """One that does not."""
    return b"data: %b\n\n" % encoded(value)


def _chat(pieces: Sequence[str], *, tool: bool) -> Iterator[bytes]:
    def chunk(delta: object, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "mock-gpt"}
        return bare({**head, "choices": [choice]})

    if tool:
        function = {"name": TOOL, "arguments": ""}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        yield chunk({"role": "assistant", "content": None, "tool_calls": [call]})
        for piece in pieces:
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        yield chunk({"role": "assistant", "content": ""})
        for piece in pieces:
            yield chunk({"content": piece})
    yield chunk({}, "tool_calls" if tool else "stop")
    yield b"data: [DONE]\n\n"


def _claude(pieces: Sequence[str], *, tool: bool) -> Iterator[bytes]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "mock-claude", "content": []}
    stop: dict[str, object] = {"stop_reason": None, "stop_sequence": None}
    yield named("message_start", message={**message, **stop, "usage": usage})
    block = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": {}} if tool else {"type": "text", "text": ""}
    yield named("content_block_start", index=0, content_block=block)
    for piece in pieces:
        delta = {"type": "input_json_delta", "partial_json": piece} if tool else {"type": "text_delta", "text": piece}
        yield named("content_block_delta", index=0, delta=delta)
    yield named("content_block_stop", index=0)
    yield named("message_delta", delta={**stop, "stop_reason": "tool_use" if tool else "end_turn"}, usage=usage)
    yield named("message_stop")


def _responses(pieces: Sequence[str], *, tool: bool) -> Iterator[bytes]:
    number = iter(range(10_000))

    def event(kind: str, **members: object) -> bytes:
        return named(kind, sequence_number=next(number), **members)

    whole = json.loads(_whole(Format.OPENAI_RESPONSE, "".join(pieces), tool=tool))
    [item] = whole["output"]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    empty = {**item, "status": "in_progress", **({"arguments": ""} if tool else {"content": []})}
    yield event("response.created", response=begun)
    yield event("response.output_item.added", output_index=0, item=empty)
    place = {"item_id": item["id"], "output_index": 0}
    text = "".join(pieces)
    if tool:
        for piece in pieces:
            yield event("response.function_call_arguments.delta", **place, delta=piece)
        yield event("response.function_call_arguments.done", **place, name=TOOL, arguments=text)
    else:
        [part] = item["content"]
        place["content_index"] = 0
        yield event("response.content_part.added", **place, part={**part, "text": ""})
        for piece in pieces:
            yield event("response.output_text.delta", **place, delta=piece, logprobs=[])
        yield event("response.output_text.done", **place, text=text, logprobs=[])
        yield event("response.content_part.done", **place, part=part)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=whole)


def _gemini(pieces: Sequence[str], *, tool: bool) -> Iterator[bytes]:
    parts: list[object] = [{"text": piece} for piece in pieces]
    if tool:  # arguments are an object, which comes whole
        parts = [{"functionCall": {"name": TOOL, "args": json.loads("".join(pieces))}}]
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    for part in parts:
        yield bare({"candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}]})
    yield bare({"candidates": [{"content": {}, "finishReason": "STOP", "index": 0}], "usageMetadata": usage})


_STREAMS = {
    Format.OPENAI: _chat,
    Format.CLAUDE: _claude,
    Format.OPENAI_RESPONSE: _responses,
    Format.GEMINI: _gemini,
}


def streamed(fmt: Format, pieces: Iterable[str], *, tool: bool = False) -> bytes:
    """A stream with a delta per piece: of a text, or of a tool's arguments."""
    return b"".join(_STREAMS[fmt](tuple(pieces), tool=tool))


def _whole(fmt: Format, text: str, *, tool: bool) -> bytes:
    value: dict[str, object]
    if fmt is Format.OPENAI:
        call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": text}}
        message = {"role": "assistant", "content": None if tool else text, **({"tool_calls": [call]} if tool else {})}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": "c1", "object": "chat.completion", "created": 1, "model": "mock-gpt"}
        value = {**head, "choices": [choice], "usage": usage}
    elif fmt is Format.CLAUDE:
        use = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": json.loads(text)} if tool else None
        content = [use or {"type": "text", "text": text}]
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "mock-claude"}
        end = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
        value = {**head, "content": content, **end, "usage": {"input_tokens": 1, "output_tokens": 1}}
    elif fmt is Format.OPENAI_RESPONSE:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item: dict[str, object] = {
            "id": "item_1",
            "type": "function_call" if tool else "message",
            "status": "completed",
        }
        item |= (
            {"call_id": "call_1", "name": TOOL, "arguments": text} if tool else {"role": "assistant", "content": [part]}
        )
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        head = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "error": None}
        value = {**head, "model": "mock-responses", "output": [item], "usage": usage}
    else:
        piece: object = {"functionCall": {"name": TOOL, "args": json.loads(text)}} if tool else {"text": text}
        candidate = {"content": {"role": "model", "parts": [piece]}, "finishReason": "STOP", "index": 0}
        value = {"candidates": [candidate], "modelVersion": "mock-gemini"}
    return encoded(value)


def whole(fmt: Format, text: str, *, tool: bool = False) -> bytes:
    """An answer that is not streamed, with a text or with a tool's arguments."""
    return _whole(fmt, text, tool=tool)


def events_of(stream: str) -> list[Any]:
    """The data of a stream's events; every line of it has to be one that SSE knows."""
    found = []
    for event in stream.split("\n\n"):
        lines = event.splitlines()
        assert all(line.startswith(("data: ", "event: ", ":")) or not line for line in lines), event
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        if data and data != ["[DONE]"]:
            found.append(json.loads("\n".join(data)))
    return found


def read_stream(fmt: Format, stream: str, *, tool: bool = False) -> str:
    """What a client reads, its deltas joined. Arguments that are no text are made one."""
    out = []
    for event in events_of(stream):
        if fmt is Format.OPENAI:
            for choice in event["choices"]:
                delta = choice["delta"]
                calls = delta.get("tool_calls") or ()
                out.append("".join(call["function"].get("arguments") or "" for call in calls) if tool else "")
                out.append("" if tool else delta.get("content") or "")
        elif fmt is Format.CLAUDE and event["type"] == "content_block_delta":
            out.append(event["delta"].get("partial_json" if tool else "text", ""))
        elif fmt is Format.OPENAI_RESPONSE:
            kind = "response.function_call_arguments.delta" if tool else "response.output_text.delta"
            out.append(event["delta"] if event["type"] == kind else "")
        elif fmt is Format.GEMINI:
            out.append(_gemini_text(event, tool=tool))
    return "".join(out)


def read_whole(fmt: Format, answer: Any, *, tool: bool = False) -> str:
    """Likewise, of an answer that is not streamed."""
    if fmt is Format.OPENAI:
        message = answer["choices"][0]["message"]
        return str(message["tool_calls"][0]["function"]["arguments"] if tool else message["content"])
    if fmt is Format.CLAUDE:
        block = answer["content"][0]
        return json.dumps(block["input"]) if tool else str(block["text"])
    if fmt is Format.OPENAI_RESPONSE:
        item = answer["output"][-1]
        return str(item["arguments"] if tool else item["content"][0]["text"])
    return _gemini_text(answer, tool=tool)


def _gemini_text(answer: Any, *, tool: bool) -> str:
    parts = [part for candidate in answer["candidates"] for part in candidate.get("content", {}).get("parts", ())]
    if tool:
        return "".join(json.dumps(part["functionCall"]["args"]) for part in parts if "functionCall" in part)
    return "".join(part.get("text", "") for part in parts)
