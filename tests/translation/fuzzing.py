"""Valid bodies and streams, and ways to break them."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Json = Any
WEIRD: tuple[Json, ...] = (
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1e300,
    0.5,
    "",
    "x",
    "\ud83d",
    "\x00",
    [],
    {},
    [None],
    [[]],
    {"type": None},
    {"type": 5},
    {"": {}},
    ["x", 1, {}],
    {"type": "text", "text": None},
)
"""What stands where something else is expected."""

TOOL = {"type": "object", "properties": {"a": {"type": ["string", "null"], "minLength": 1}}, "required": ["a"]}
PNG = "iVBORw0KGgo="

REQUESTS: dict[str, Json] = {
    "openai": {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0="}},
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "hm", "signature": "EsSig="}],
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":"1"}'}},
                    {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
            {"role": "user", "content": "and?"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": TOOL, "strict": False}},
            {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "stop": ["END"],
        "temperature": 0.5,
        "max_tokens": 100,
        "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": TOOL}},
        "metadata": {"a": "b"},
        "user": "u",
        "logprobs": True,
        "top_logprobs": 2,
        "stream_options": {"include_usage": True},
    },
    "openai-response": {
        "model": "m",
        "instructions": "be",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yo"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "1"}]},
            {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "2"},
            {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}},
            {"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}]},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": TOOL},
            {"type": "custom", "name": "g"},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "h", "parameters": TOOL}]},
            {"type": "web_search", "filters": {"allowed_domains": ["x.test"]}},
        ],
        "tool_choice": "auto",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": TOOL}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 100,
        "store": False,
    },
    "claude": {
        "model": "m",
        "max_tokens": 3000,
        "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "EsSig="},
                    {"type": "text", "text": "yo"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "1"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "is_error": True,
                        "content": [
                            {"type": "text", "text": "1"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                        ],
                    },
                    {"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}, "title": "t"},
                    {"type": "text", "text": "and?"},
                ],
            },
        ],
        "tools": [
            {"name": "f", "input_schema": TOOL},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "u"},
        "stop_sequences": ["END"],
        "temperature": 1,
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "be"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]},
            {
                "role": "model",
                "parts": [
                    {"text": "hm", "thought": True, "thoughtSignature": "Q0FGRQ=="},
                    {"functionCall": {"name": "f", "args": {"a": "1"}}},
                    {"functionCall": {"id": "i2", "name": "f", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"output": "1"}}},
                    {"functionResponse": {"id": "i2", "name": "f", "response": {"x": 1}}},
                    {"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}},
                ],
            },
        ],
        "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": TOOL}]}, {"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "maxOutputTokens": 100,
            "stopSequences": ["END"],
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
            "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True},
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    },
}
"""A request of each client that has a little of everything."""


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in *value*."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from places(inner, (*path, at))


@st.composite
def broken(draw: st.DrawFn, whole: Json) -> Json:
    """*whole* with one to three things dropped, repeated, or replaced by something else."""
    made = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        found = [path for path in places(made) if path]
        if not found:
            break
        path = draw(st.sampled_from(found))
        holder = made
        for step in path[:-1]:
            holder = holder[step]
        how = draw(st.sampled_from(("drop", "repeat", "weird", "weird", "nest", "long")))
        last = path[-1]
        if how == "drop":
            del holder[last]
        elif how == "repeat" and isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        elif how == "nest":
            deep = draw(st.integers(1, 80))
            for _ in range(deep):
                holder[last] = [holder[last]] if deep % 2 else {"properties": holder[last]}
        elif how == "long":
            holder[last] = "x" * 300
        else:
            holder[last] = copy.deepcopy(draw(st.sampled_from(WEIRD)))
    return made


@st.composite
def broken_bytes(draw: st.DrawFn, whole: Json) -> bytes:
    """A body of the like, now and then cut, with a member twice, or with bytes that are no UTF-8."""
    body = json.dumps(draw(broken(whole)), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 9)):
        case 0:
            return body[: draw(st.integers(0, len(body)))]
        case 1:
            at = draw(st.integers(0, len(body)))
            return (
                body[:at] + draw(st.sampled_from((b"\xff", b"\xc3", b"\x00", b"}", b",", b"\xef\xbb\xbf"))) + body[at:]
            )
        case 2:
            name = draw(st.sampled_from((b"model", b"messages", b"input", b"contents", b"tools", b"system", b"type")))
            return body[:1] + b'"' + name + b'":[],' + body[1:]
        case _:
            return body
