"""Answers in the shape of the Responses API."""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec.json import encode

from cpa.testing.mock.asks import Ask
from cpa.testing.mock.script import CREATED_UNIX, Call, Script
from cpa.testing.mock.signatures import openai_encrypted
from cpa.testing.mock.text import in_pieces

_DEFAULTS: Mapping[str, bytes] = {
    "background": b"false",
    "frequency_penalty": b"0.0",
    "instructions": b"null",
    "max_output_tokens": b"null",
    "max_tool_calls": b"null",
    "metadata": b"{}",
    "parallel_tool_calls": b"true",
    "presence_penalty": b"0.0",
    "previous_response_id": b"null",
    "prompt_cache_key": b"null",
    "reasoning": b'{"effort":null,"summary":null}',
    "safety_identifier": b"null",
    "store": b"true",
    "temperature": b"1.0",
    "text": b'{"format":{"type":"text"}}',
    "tool_choice": b'"auto"',
    "tools": b"[]",
    "top_logprobs": b"0",
    "top_p": b"1.0",
    "truncation": b'"disabled"',
    "user": b"null",
}
"""What the vendor answers for members that the request left out; typed clients want them all."""


def _full_tools(raw: bytes) -> bytes:
    """Echoed functions have every required member, also those that requests may omit."""
    tools = msgspec.json.decode(raw)
    if not isinstance(tools, list):
        return b"[]"
    for tool in tools:
        if isinstance(tool, dict) and tool.get("type") == "function":
            tool["parameters"] = tool.get("parameters")
            tool["strict"] = tool.get("strict") is True
    return encode(tools)


def _echo(ask: Ask) -> dict[str, msgspec.Raw]:
    members = dict(_DEFAULTS)
    for name, raw in ask.echo.items():
        if raw != b"null":
            members[name] = _full_tools(raw) if name == "tools" else raw
    return {name: msgspec.Raw(raw) for name, raw in members.items()}


def usage_of(script: Script) -> dict[str, object]:
    """The ``usage`` object with both details."""
    usage = script.usage
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def _response(
    script: Script,
    ask: Ask,
    *,
    status: str,
    output: list[object],
    error: Mapping[str, str] | None = None,
) -> dict[str, object]:
    complete = status == "completed"
    return {
        "id": f"resp_{script.key}",
        "object": "response",
        "created_at": CREATED_UNIX,
        "status": status,
        "completed_at": CREATED_UNIX if complete else None,
        "error": error,
        "incomplete_details": None,
        "model": script.model,
        "output": output,
        "service_tier": "default",
        "usage": usage_of(script) if complete else None,
        **_echo(ask),
    }


def _reasoning_item(script: Script, ask: Ask, text: str | None) -> dict[str, object]:
    item: dict[str, object] = {"id": f"rs_{script.key}_0", "type": "reasoning"}
    item["summary"] = [] if text is None else [{"type": "summary_text", "text": text}]
    if ask.encrypted and text is not None:  # never null: some clients refuse that
        item["encrypted_content"] = openai_encrypted(script.key)
    return item


def _message_item(script: Script, index: int, status: str, text: str | None) -> dict[str, object]:
    content = [] if text is None else [_text_part(text)]
    return {
        "id": f"msg_{script.key}_{index}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def _text_part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(call: Call, status: str, arguments: str) -> dict[str, object]:
    custom = call.tool.kind == "custom"
    item: dict[str, object] = {
        "id": f"{'ctc' if custom else 'fc'}_{call.key}",
        "type": "custom_tool_call" if custom else "function_call",
        "status": status,
        "call_id": f"call_{call.key}",
        "name": call.tool.name,
        "input" if custom else "arguments": arguments,
    }
    if call.tool.namespace:
        item["namespace"] = call.tool.namespace
    return item


class _Stream:
    """Numbers the events, collects the output, and writes what opens or closes an item with the next delta."""

    def __init__(self, script: Script, ask: Ask) -> None:
        self.script = script
        self.ask = ask
        self.sequence = 0
        self.output: list[object] = []
        self.waiting: list[bytes] = []

    def event(self, kind: str, /, **members: object) -> bytes:
        body = encode({"type": kind, "sequence_number": self.sequence, **members})
        self.sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)

    def wait(self, kind: str, /, **members: object) -> None:
        self.waiting.append(self.event(kind, **members))

    def flush(self, data: bytes) -> bytes:
        out = b"".join(self.waiting) + data
        self.waiting.clear()
        return out

    def deltas(self, name: str, members: bytes, pieces: Iterator[str]) -> Iterator[bytes]:
        """An event per piece; *members* are JSON members of all of them. The hot loop: no dictionaries."""
        head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name.encode(), name.encode())
        for piece in pieces:
            data = b'%b%d,%b,"delta":%b}\n\n' % (head, self.sequence, members, encode(piece))
            self.sequence += 1
            yield self.flush(data) if self.waiting else data

    def reasoning(self) -> Iterator[bytes]:
        empty = _reasoning_item(self.script, self.ask, None)
        place = {"item_id": empty["id"], "output_index": 0, "summary_index": 0}
        self.wait("response.output_item.added", output_index=0, item=empty)
        part = {"type": "summary_text", "text": ""}
        self.wait("response.reasoning_summary_part.added", **place, part=part)
        members = encode(place)[1:-1]
        yield from self.deltas("response.reasoning_summary_text.delta", members, iter(self.script.reasoning))
        text = "".join(self.script.reasoning)
        self.wait("response.reasoning_summary_text.done", **place, text=text)
        self.wait("response.reasoning_summary_part.done", **place, part={**part, "text": text})
        self.finish(_reasoning_item(self.script, self.ask, text))

    def message(self) -> Iterator[bytes]:
        index = len(self.output)
        empty = _message_item(self.script, index, "in_progress", None)
        place = {"item_id": empty["id"], "output_index": index, "content_index": 0}
        self.wait("response.output_item.added", output_index=index, item=empty)
        self.wait("response.content_part.added", **place, part=_text_part(""))
        members = encode({**place, "logprobs": []})[1:-1]
        yield from self.deltas("response.output_text.delta", members, self.script.pieces())
        text = self.script.text
        self.wait("response.output_text.done", **place, text=text, logprobs=[])
        self.wait("response.content_part.done", **place, part=_text_part(text))
        self.finish(_message_item(self.script, index, "completed", text))

    def call(self, call: Call) -> Iterator[bytes]:
        index = len(self.output)
        name = "custom_tool_call_input" if call.tool.kind == "custom" else "function_call_arguments"
        member = "input" if call.tool.kind == "custom" else "arguments"
        item = _call_item(call, "in_progress", "")
        place = {"item_id": item["id"], "output_index": index}
        self.wait("response.output_item.added", output_index=index, item=item)
        yield from self.deltas(f"response.{name}.delta", encode(place)[1:-1], iter(in_pieces(call.arguments)))
        named = {} if call.tool.kind == "custom" else {"name": call.tool.name}
        self.wait(f"response.{name}.done", **place, **named, **{member: call.arguments})
        self.finish(_call_item(call, "completed", call.arguments))

    def finish(self, item: Mapping[str, object]) -> None:
        self.wait("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)


def responses_stream(script: Script, ask: Ask, *, done: bool = True) -> Iterator[bytes]:
    """SSE bytes: created and in_progress, a delta each, the end (without ``response.completed`` unless *done*)."""
    stream = _Stream(script, ask)
    started = _response(script, ask, status="in_progress", output=[])
    opening = stream.event("response.created", response=started)
    yield opening + stream.event("response.in_progress", response=started)
    if script.reasoning:
        yield from stream.reasoning()
    for call in script.calls:
        yield from stream.call(call)
    if not script.calls:
        yield from stream.message()
    last = b""
    if done:
        complete = _response(script, ask, status="completed", output=stream.output)
        last = stream.event("response.completed", response=complete)
    yield stream.flush(last)


def failed_event(script: Script, ask: Ask, *, sequence: int, message: str) -> bytes:
    """The event ``response.failed`` with the number *sequence*."""
    stream = _Stream(script, ask)
    stream.sequence = sequence
    error = {"code": "server_error", "message": message}
    return stream.event("response.failed", response=_response(script, ask, status="failed", output=[], error=error))


def responses_full(script: Script, ask: Ask) -> bytes:
    """The JSON body of a non-streamed answer."""
    output: list[object] = []
    if script.reasoning:
        output.append(_reasoning_item(script, ask, "".join(script.reasoning)))
    output += [_call_item(call, "completed", call.arguments) for call in script.calls]
    if not script.calls:
        output.append(_message_item(script, len(output), "completed", script.text))
    return encode(_response(script, ask, status="completed", output=output))


def compact_full(script: Script, ask: Ask) -> bytes:
    """The JSON body of ``/responses/compact``."""
    item = {
        "id": f"cmp_{script.key}",
        "type": "compaction",
        "encrypted_content": openai_encrypted(script.key),
    }
    return encode(
        {
            "id": f"resp_{script.key}",
            "object": "response.compaction",
            "created_at": CREATED_UNIX,
            "output": [item],
            "usage": usage_of(script),
        }
    )
