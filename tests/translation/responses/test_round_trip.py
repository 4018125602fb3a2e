"""L1 and L5: a request that passes the representation inside its own protocol says the same, every time."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.errors import RequestError
from cpa.translation.profile import ModelProfile
from cpa.translation.responses import SPOKE
from tests.translation.responses.support import CHAT, CLAUDE, CODEX, GEMINI, GPT, LEVELS, make_ctx, through

TEXT = st.text(max_size=20)
WORDS = st.text(min_size=1, max_size=12).filter(str.strip)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def members(required: dict[str, Any], optional: dict[str, Any]) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


def typed(kind: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> Any:
    return members({"type": st.just(kind), **required}, optional or {})


INPUT_PARTS = (
    typed("input_text", {"text": TEXT})
    | typed(
        "input_image",
        {"image_url": st.sampled_from(["https://x/a.png", "data:image/png;base64,iVBOR"])},
        {"detail": st.sampled_from(["auto", "low", "high", "original"])},
    )
    | typed("input_image", {"file_id": NAMES, "detail": st.just("auto")})
    | typed("input_file", {"file_url": st.just("https://x/a.pdf")})
    | typed("input_file", {"filename": st.just("a.pdf"), "file_data": st.just("data:application/pdf;base64,JVBER")})
    | typed("future_part", {"value": JSON})
)
CITATION = typed(
    "url_citation", {"url": st.just("https://x"), "title": TEXT, "start_index": st.just(0), "end_index": st.just(1)}
)
OUTPUT_PARTS = typed("output_text", {"text": WORDS}, {"annotations": st.lists(CITATION, max_size=2)}) | typed(
    "refusal", {"refusal": WORDS}
)
USER_ITEM = typed(
    "message", {"role": st.just("user"), "content": WORDS | st.lists(INPUT_PARTS, min_size=1, max_size=3)}
)
LATER_SYSTEM = typed("message", {"role": st.sampled_from(["system", "developer"]), "content": WORDS})
ASSISTANT = typed(
    "message",
    {"role": st.just("assistant"), "content": WORDS | st.lists(OUTPUT_PARTS, min_size=1, max_size=2)},
    {"phase": st.sampled_from(["commentary", "final_answer"])},
)
REASONING = typed(
    "reasoning",
    {
        "summary": st.lists(typed("summary_text", {"text": WORDS}), max_size=2),
        "encrypted_content": st.just(GPT),
    },
    {
        "id": st.from_regex(r"rs_[a-z0-9]{1,8}", fullmatch=True),
        "content": st.lists(typed("reasoning_text", {"text": WORDS}), min_size=1, max_size=2),
    },
)
SEARCH = typed(
    "web_search_call",
    {"id": NAMES, "status": st.just("completed"), "action": st.just({"type": "search", "query": "q"})},
)
FUTURE = typed("future_item", {"value": JSON})
OUTPUTS = TEXT | st.lists(typed("input_text", {"text": WORDS}), min_size=2, max_size=3)


@st.composite
def model_turns(draw: Any) -> list[dict[str, Any]]:
    """What a model said in one turn, and what its calls gave, as agents send it back."""
    items: list[dict[str, Any]] = []
    outputs: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            items.append(draw(REASONING))
        kind = draw(st.sampled_from(["message", "call", "custom", "search", "future"]))
        if kind in ("call", "custom"):
            call_id = f"call_{draw(st.uuids()).hex}"
            custom = kind == "custom"
            item = {"type": "custom_tool_call" if custom else "function_call", "call_id": call_id, "name": draw(NAMES)}
            item["input" if custom else "arguments"] = draw(TEXT) if custom else json.dumps(draw(JSON))
            if draw(st.booleans()):
                item["namespace"] = draw(NAMES)
            items.append(item)
            outputs.append({"type": item["type"] + "_output", "call_id": call_id, "output": draw(OUTPUTS)})
        else:
            items.append(draw({"message": ASSISTANT, "search": SEARCH, "future": FUTURE}[kind]))
    return items + outputs


@st.composite
def inputs(draw: Any) -> list[dict[str, Any]]:
    system = draw(st.lists(LATER_SYSTEM, max_size=2))
    turns = draw(st.lists(st.lists(USER_ITEM, min_size=1, max_size=2) | model_turns(), max_size=4))
    later = draw(st.lists(USER_ITEM | LATER_SYSTEM, max_size=1))
    first = draw(USER_ITEM)
    return [*system, first, *(item for turn in turns for item in turn), *later]


FUNCTIONS = typed(
    "function",
    {"name": NAMES, "parameters": st.dictionaries(NAMES, JSON, max_size=3)},
    {"description": WORDS, "strict": st.booleans(), "output_schema": st.just({"type": "object"})},
)
CUSTOMS = typed("custom", {"name": NAMES}, {"description": WORDS, "format": st.just({"type": "text"})})


@st.composite
def tool_lists(draw: Any) -> list[dict[str, Any]]:
    """Tools of different names; merging is for tests of its own."""
    found = draw(st.lists(FUNCTIONS | CUSTOMS, max_size=4, unique_by=lambda tool: tool["name"]))
    for tool in found:
        tool["name"] = "t_" + tool["name"]
    children = draw(st.lists(FUNCTIONS | CUSTOMS, max_size=3, unique_by=lambda tool: tool["name"]))
    if children:
        found.append({"type": "namespace", "name": "space", "description": draw(TEXT), "tools": children})
    return found + draw(st.lists(st.just({"type": "web_search", "search_context_size": "low"}), max_size=1))


BODIES = members(
    {"model": st.just("gpt-x"), "input": inputs()},
    {
        "instructions": WORDS,
        "tools": tool_lists(),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_output_tokens": st.integers(16, 10**9),
        "max_tool_calls": st.integers(1, 9),
        "top_logprobs": st.integers(0, 20),
        "parallel_tool_calls": st.booleans(),
        "reasoning": members(
            {},
            {
                "effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
                "summary": st.sampled_from(["auto", "concise", "detailed"]),
                "context": st.sampled_from(["auto", "all_turns"]),
                "mode": st.just("pro"),
            },
        ),
        "text": members(
            {},
            {
                "verbosity": st.sampled_from(["low", "high"]),
                "format": st.just({"type": "json_object"})
                | typed("json_schema", {"name": NAMES, "schema": st.dictionaries(NAMES, JSON, max_size=2)}),
            },
        ),
        "tool_choice": st.sampled_from(["auto", "none", "required"]),
        "service_tier": st.sampled_from(["auto", "default", "flex", "priority", "fast", "ultrafast"]),
        "metadata": st.dictionaries(NAMES, WORDS, min_size=1, max_size=3),
        "store": st.booleans(),
        "include": st.lists(
            st.sampled_from(["reasoning.encrypted_content", "file_search_call.results"]), min_size=1, max_size=2
        ),
        "safety_identifier": NAMES,
        "user": NAMES,
        "prompt_cache_key": NAMES,
        "prompt_cache_retention": st.just("24h"),
        "previous_response_id": st.just("resp_0"),
        "conversation": st.just({"id": "conv_1"}),
        "truncation": st.sampled_from(["auto", "disabled"]),
        "background": st.just(True),
        "prompt": st.just({"id": "pmpt_1"}),
        "context_management": st.just([{"type": "compaction"}]),
        "future_member": JSON,
    },
)


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """*body* in one of the spellings that mean the same: messages of one part each, contents as lists."""
    items: list[Any] = []
    for item in body["input"]:
        item = dict(item)
        if item["type"] == "message":
            assistant = item["role"] == "assistant"
            content = item["content"]
            if isinstance(content, str):
                content = [{"type": "output_text" if assistant else "input_text", "text": content}]
            parts = [_plain_part(part) for part in content]
            if assistant:  # each part is a message of its own
                for part in parts:
                    phase = {} if part["type"] == "refusal" else {"phase": item.get("phase")}
                    items.append({**item, "phase": None, **phase, "content": [part]})
                continue
            item["content"] = parts
        items.append(item)
    out = {**body, "input": items}
    # Nothing said is nothing meant.
    for name in ("text", "reasoning", "tools", "metadata"):
        if not out.get(name):
            out.pop(name, None)
    return out


def _plain_part(part: dict[str, Any]) -> dict[str, Any]:
    part = dict(part)
    if part["type"] == "output_text":
        part["annotations"] = part.get("annotations") or []
    if part["type"] == "input_image":
        part.setdefault("detail", "auto")
    return part


@settings(max_examples=50, deadline=None)
@given(BODIES)
def test_nothing_that_the_protocol_documents_is_changed(body: dict[str, Any]) -> None:
    """L1."""
    ctx = make_ctx(profile=ModelProfile(vendor_host=True, reasoning=LEVELS))
    assert plain(through(body, ctx)) == plain(body)
    assert ctx.losses == []


@settings(max_examples=15, deadline=None)
@given(BODIES)
def test_a_second_passage_changes_nothing(body: dict[str, Any]) -> None:
    """Caches of the provider live from that."""
    once = through(body)
    assert through(once) == once


@settings(max_examples=15, deadline=None)
@given(BODIES, st.sampled_from(["plain", "codex"]))
def test_requests_are_deterministic(body: dict[str, Any], dialect: str) -> None:
    """L5: no random ids, no clocks."""
    body.pop("previous_response_id", None)
    data = json.dumps(body).encode()
    outputs = set()
    for number in (1, 2):
        ctx = make_ctx(provider=CODEX) if dialect == "codex" else make_ctx()
        ctx.new_id = lambda number=number: f"random{number}"  # type: ignore[misc]
        ctx.now_unix = lambda number=number: float(number)  # type: ignore[misc]
        outputs.add(SPOKE.emit_request(SPOKE.parse_request(data, ctx), ctx))
    assert len(outputs) == 1


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["message", "reasoning", "function_call", "function_call_output", "user", "assistant", "c1", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "image_url", "id",
             "tools", "encrypted_content", "input", "annotations", "namespace", "cache_control", "status", "result"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip
TOP = st.sampled_from(
    [
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "text",
        "reasoning",
        "include",
        "metadata",
        "store",
        "stream",
        "x",
    ]
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(TOP, ODD, max_size=4), st.sampled_from([CHAT, CLAUDE, GEMINI, CODEX, None]))
def test_garbage_is_read_or_refused(body: dict[str, Any], provider: Any) -> None:
    """Nothing else than `RequestError`, for any provider; what is read can be written."""
    ctx = make_ctx() if provider is None else make_ctx(provider=provider)
    with suppress(RequestError):
        request = SPOKE.parse_request(json.dumps(body).encode(), ctx)
        if provider in (None, CODEX):
            json.loads(SPOKE.emit_request(request, ctx))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_are_read_or_refused(body: bytes) -> None:
    """The same for what may not even be JSON."""
    for data in (
        body,
        b'{"input":' + body + b"}",
        b'{"input":[{"type":"message","role":"user","content":' + body + b"}]}",
    ):
        with suppress(RequestError):
            SPOKE.parse_request(data, make_ctx(provider=CLAUDE))


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_numbers_keep_their_digits(name: str) -> None:
    """What is sent is what was written."""
    assert through({"input": "x", name: 0.1})[name] == 0.1
