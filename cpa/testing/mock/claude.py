"""Answers in the shape of the Messages API."""

from collections.abc import Iterator, Mapping

import msgspec
from msgspec.json import encode

from cpa.testing.mock.asks import Ask
from cpa.testing.mock.script import Call, Script
from cpa.testing.mock.signatures import claude_signature
from cpa.testing.mock.text import in_pieces

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def _usage(script: Script, output: int) -> dict[str, object]:
    usage = script.usage
    return {
        "input_tokens": usage.input - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _message(
    script: Script, content: list[object], stop_reason: str | None, usage: Mapping[str, object]
) -> dict[str, object]:
    return {
        "id": f"msg_{script.key}",
        "type": "message",
        "role": "assistant",
        "model": script.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _tool_use(call: Call, arguments: object) -> dict[str, object]:
    return {"type": "tool_use", "id": f"toolu_{call.key}", "name": call.tool.name, "input": arguments}


def _frame(name: bytes, members: bytes) -> bytes:
    return b"event: " + name + b'\ndata: {"type":"' + name + b'"' + members + b"}\n\n"


def _start(index: int, block: bytes) -> bytes:
    return _frame(b"content_block_start", b',"index":%d,"content_block":%b' % (index, block))


def _stop(index: int) -> bytes:
    return _frame(b"content_block_stop", b',"index":%d' % index)


class _Stream:
    """Blocks as a list of writes: what opens a block goes out with its first delta, what closes it with the next."""

    def __init__(self, opening: bytes) -> None:
        self.waiting = opening
        self.index = -1

    def block(self, block: bytes, kind: bytes, member: bytes, pieces: Iterator[str]) -> Iterator[bytes]:
        """A block with one delta of *kind* per piece; the text stands in *member*."""
        self.index += 1
        self.waiting += _start(self.index, block)
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
        head %= (self.index, kind, member)
        for piece in pieces:
            yield self.flush(head + encode(piece) + b"}}\n\n")

    def flush(self, data: bytes) -> bytes:
        """*data* behind what waits."""
        out, self.waiting = self.waiting + data, b""
        return out


def _blocks(script: Script, stream: _Stream) -> Iterator[bytes]:
    if script.reasoning:
        empty = b'{"type":"thinking","thinking":"","signature":""}'
        yield from stream.block(empty, b"thinking_delta", b"thinking", iter(script.reasoning))
        signature = encode({"type": "signature_delta", "signature": claude_signature(script.key)})
        stream.waiting += _frame(b"content_block_delta", b',"index":%d,"delta":%b' % (stream.index, signature))
        stream.waiting += _stop(stream.index)
    for call in script.calls:
        block = encode(_tool_use(call, {}))
        yield from stream.block(block, b"input_json_delta", b"partial_json", iter(in_pieces(call.arguments)))
        stream.waiting += _stop(stream.index)
    if not script.calls:
        yield from stream.block(b'{"type":"text","text":""}', b"text_delta", b"text", script.pieces())
        stream.waiting += _stop(stream.index)


def claude_stream(script: Script, ask: Ask, *, done: bool = True) -> Iterator[bytes]:
    """SSE bytes: ``message_start`` and a ping, a delta each, the end (without ``message_stop`` unless *done*)."""
    message = _message(script, [], None, _usage(script, 1))
    yield _frame(b"message_start", b',"message":' + encode(message)) + _PING
    stream = _Stream(b"")
    yield from _blocks(script, stream)
    usage = _usage(script, script.usage.output)
    for name in ("cache_creation", "service_tier"):
        del usage[name]
    usage["output_tokens_details"] = {"thinking_tokens": script.usage.reasoning}
    delta = {"stop_reason": "tool_use" if script.calls else "end_turn", "stop_sequence": None}
    last = stream.flush(_frame(b"message_delta", b',"delta":%b,"usage":%b' % (encode(delta), encode(usage))))
    yield last + (_frame(b"message_stop", b"") if done else b"")


def claude_full(script: Script, ask: Ask) -> bytes:
    """The JSON body of a non-streamed answer."""
    content: list[object] = []
    if script.reasoning:
        thinking = "".join(script.reasoning)
        content.append({"type": "thinking", "thinking": thinking, "signature": claude_signature(script.key)})
    content += [_tool_use(call, msgspec.Raw(call.arguments.encode())) for call in script.calls]
    if not script.calls:
        content.append({"type": "text", "text": script.text})
    usage = _usage(script, script.usage.output)
    usage["output_tokens_details"] = {"thinking_tokens": script.usage.reasoning}
    return encode(_message(script, content, "tool_use" if script.calls else "end_turn", usage))
