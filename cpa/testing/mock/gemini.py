"""Answers in the shape of the Gemini API."""

from collections.abc import Iterator

import msgspec
from msgspec.json import encode

from cpa.testing.mock.asks import Ask
from cpa.testing.mock.script import CREATED_ISO, Call, Script
from cpa.testing.mock.signatures import gemini_signature


def _usage(script: Script) -> dict[str, object]:
    usage = script.usage
    return {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.total,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input}],
    }


def _call_part(script: Script, call: Call, first: bool) -> dict[str, object]:
    arguments = msgspec.Raw(call.arguments.encode())
    part: dict[str, object] = {"functionCall": {"id": call.key, "name": call.tool.name, "args": arguments}}
    if first and script.reasoning:  # the vendor signs the first call of a step, and demands the value back
        part["thoughtSignature"] = gemini_signature(script.key)
    return part


def _thought(script: Script, text: str, last: bool) -> dict[str, object]:
    part: dict[str, object] = {"text": text, "thought": True}
    if last:
        part["thoughtSignature"] = gemini_signature(script.key)
    return part


def _parts(script: Script) -> Iterator[bytes]:
    for at, piece in enumerate(script.reasoning, 1):
        yield encode(_thought(script, piece, at == len(script.reasoning)))
    for index, call in enumerate(script.calls):
        yield encode(_call_part(script, call, index == 0))
    if not script.calls:
        for piece in script.pieces():
            yield b'{"text":' + encode(piece) + b"}"


def _tail(script: Script) -> bytes:
    return b',"modelVersion":%b,"responseId":"%b","createTime":"%b"}' % (
        encode(script.model),
        script.key.encode(),
        CREATED_ISO.encode(),
    )


def _objects(script: Script, *, done: bool) -> Iterator[bytes]:
    head = b'{"candidates":[{"content":{"role":"model","parts":['
    tail = _tail(script)
    for part in _parts(script):
        yield head + part + b']},"index":0}]' + tail
    reason = b',"finishReason":"STOP"' if done else b""
    usage = b',"usageMetadata":' + encode(_usage(script))
    yield head + b'{"text":""}]}' + reason + b',"index":0}]' + usage + tail


def gemini_stream(script: Script, ask: Ask, *, done: bool = True) -> Iterator[bytes]:
    """SSE bytes, or one JSON array for an ask without ``sse``; the last object has no finish reason unless *done*."""
    if ask.sse:
        for entry in _objects(script, done=done):
            yield b"data: " + entry + b"\n\n"
        return
    before = b"["
    for entry in _objects(script, done=done):
        yield before + entry
        before = b",\n"
    yield b"]"


def gemini_full(script: Script, ask: Ask) -> bytes:
    """The JSON body of ``generateContent``."""
    parts: list[object] = []
    if script.reasoning:
        parts.append(_thought(script, "".join(script.reasoning), True))
    parts += [_call_part(script, call, index == 0) for index, call in enumerate(script.calls)]
    if not script.calls:
        parts.append({"text": script.text})
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    return encode(
        {
            "candidates": [candidate],
            "usageMetadata": _usage(script),
            "modelVersion": script.model,
            "responseId": script.key,
            "createTime": CREATED_ISO,
        }
    )
