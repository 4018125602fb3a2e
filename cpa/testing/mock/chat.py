"""Answers in the shape of Chat Completions and of the legacy completions."""

from collections.abc import Iterator

from msgspec.json import encode

from cpa.testing.mock.asks import Ask
from cpa.testing.mock.script import CREATED_UNIX, Call, Script
from cpa.testing.mock.text import in_pieces

DONE = b"data: [DONE]\n\n"


def _usage(script: Script) -> dict[str, object]:
    usage = script.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call_body(call: Call, arguments: str) -> dict[str, object]:
    inner = "input" if call.tool.kind == "custom" else "arguments"
    return {
        "id": f"call_{call.key}",
        "type": call.tool.kind,
        call.tool.kind: {"name": call.tool.name, inner: arguments},
    }


def _call_deltas(index: int, call: Call) -> Iterator[bytes]:
    yield encode({"tool_calls": [{"index": index, **_call_body(call, "")}]})
    inner = "input" if call.tool.kind == "custom" else "arguments"
    for piece in in_pieces(call.arguments):
        yield encode({"tool_calls": [{"index": index, call.tool.kind: {inner: piece}}]})


def _deltas(script: Script) -> Iterator[bytes]:
    for piece in script.reasoning:
        yield b'{"reasoning_content":' + encode(piece) + b"}"
    if script.calls:
        for index, call in enumerate(script.calls):
            yield from _call_deltas(index, call)
    else:
        for piece in script.pieces():
            yield b'{"content":' + encode(piece) + b"}"


def chat_stream(script: Script, ask: Ask, *, done: bool = True) -> Iterator[bytes]:
    """SSE bytes: the role chunk, a delta each, the end (finish, usage if asked, ``[DONE]`` if *done*)."""
    head = b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":%b,"choices":' % (
        script.key.encode(),
        CREATED_UNIX,
        encode(script.model),
    )
    usage = b',"usage":null' if ask.include_usage else b""
    start = head + b'[{"index":0,"delta":'
    end = b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"
    yield start + b'{"role":"assistant","content":""}' + end
    for delta in _deltas(script):
        yield start + delta + end
    reason = b"tool_calls" if script.calls else b"stop"
    last = start + b'{},"logprobs":null,"finish_reason":"' + reason + b'"}]' + usage + b"}\n\n"
    if ask.include_usage:
        last += head + b'[],"usage":' + encode(_usage(script)) + b"}\n\n"
    yield last + (DONE if done else b"")


def chat_full(script: Script, ask: Ask) -> bytes:
    """The JSON body of a non-streamed answer."""
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if script.calls else script.text,
        "refusal": None,
        "annotations": [],
    }
    if script.reasoning:
        message["reasoning_content"] = "".join(script.reasoning)
    if script.calls:
        message["tool_calls"] = [_call_body(call, call.arguments) for call in script.calls]
    reason = "tool_calls" if script.calls else "stop"
    return encode(
        {
            "id": f"chatcmpl-{script.key}",
            "object": "chat.completion",
            "created": CREATED_UNIX,
            "model": script.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            "usage": _usage(script),
            "service_tier": "default",
            "system_fingerprint": "fp_mock",
        }
    )


def completions_stream(script: Script, ask: Ask, *, done: bool = True) -> Iterator[bytes]:
    """SSE bytes of legacy completions; there is no opening."""
    head = b'data: {"id":"cmpl-%b","object":"text_completion","created":%d,"model":%b,"choices":' % (
        script.key.encode(),
        CREATED_UNIX,
        encode(script.model),
    )
    for piece in script.pieces():
        yield head + b'[{"index":0,"text":' + encode(piece) + b',"logprobs":null,"finish_reason":null}]}\n\n'
    last = head + b'[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}\n\n'
    if ask.include_usage:
        last += head + b'[],"usage":' + encode(_usage(script)) + b"}\n\n"
    yield last + (DONE if done else b"")


def completions_full(script: Script, ask: Ask) -> bytes:
    """The JSON body of legacy completions."""
    return encode(
        {
            "id": f"cmpl-{script.key}",
            "object": "text_completion",
            "created": CREATED_UNIX,
            "model": script.model,
            "choices": [{"index": 0, "text": script.text, "logprobs": None, "finish_reason": "stop"}],
            "usage": _usage(script),
        }
    )
