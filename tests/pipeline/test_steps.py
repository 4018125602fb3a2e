"""Built-in steps: what each of them does in every protocol that it knows, and that none of them ever fails."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.config.schema import freeze
from cpa.formats.names import Format
from cpa.pipeline.steps.catalogue import STEPS
from cpa.pipeline.steps.fields import KNOWN
from cpa.pipeline.steps.messages import IMAGE_NOTE
from cpa.pipeline.steps.values import BuiltIn, Side, StepContext, WrongSetting

C, R, X, A, G = Format.OPENAI, Format.OPENAI_RESPONSE, Format.CODEX, Format.CLAUDE, Format.GEMINI
PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def made(name: str, setting: Any = None) -> BuiltIn:
    """The step *name* with a setting as YAML gives it."""
    return STEPS[name].make(freeze(setting))


def context(fmt: str, *, side: Side = Side.REQUEST, stream: bool = False) -> StepContext:
    """For bodies in *fmt*."""
    return StepContext(
        format=fmt, side=side, client=fmt, provider=fmt, model="m", requested_model="m", stream=stream, execution=None
    )


def applied(fmt: str, name: str, setting: Any, body: Any, *, side: Side = Side.REQUEST) -> Any:
    """What the step makes of *body*, decoded."""
    result = made(name, setting)(json.dumps(body).encode(), context(fmt, side=side))
    return json.loads(result)


def fn(name: str) -> dict[str, Any]:
    """A tool of Chat."""
    return {"type": "function", "function": {"name": name}}


CASES: list[tuple[str, Any, str, Any, Any]] = [
    # strip-cache-control
    (
        "strip-cache-control",
        None,
        A,
        {
            "cache_control": {},
            "system": [{"type": "text", "text": "s", "cache_control": {}}],
            "tools": [{"name": "t", "cache_control": {}}],
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": [{"text": "x", "cache_control": 1}]}]},
                {"role": "user", "content": "plain"},
            ],
        },
        {
            "system": [{"type": "text", "text": "s"}],
            "tools": [{"name": "t"}],
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "content": [{"text": "x"}]}]},
                {"role": "user", "content": "plain"},
            ],
        },
    ),
    (
        "strip-cache-control",
        None,
        C,
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}],
            "tools": [{"type": "function", "function": {"name": "t", "cache_control": {}}}],
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "tools": [fn("t")]},
    ),
    # cap-output-tokens
    ("cap-output-tokens", 100, C, {"max_tokens": 500}, {"max_tokens": 100}),
    ("cap-output-tokens", 100, C, {"max_completion_tokens": 500, "max_tokens": 50}, None),
    ("cap-output-tokens", 100, C, {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 100}),
    ("cap-output-tokens", 100, R, {}, {"max_output_tokens": 100}),
    ("cap-output-tokens", 100, R, {"max_output_tokens": 101}, {"max_output_tokens": 100}),
    ("cap-output-tokens", 100, X, {}, {}),
    ("cap-output-tokens", 100, X, {"max_output_tokens": 101}, {"max_output_tokens": 100}),
    ("cap-output-tokens", 100, A, {"max_tokens": 500}, {"max_tokens": 100}),
    (
        "cap-output-tokens",
        5000,
        A,
        {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}},
        {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4999}},
    ),
    (
        "cap-output-tokens",
        1000,
        A,
        {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}},
        {"max_tokens": 1000, "thinking": {"type": "disabled"}},
    ),
    ("cap-output-tokens", 100, G, {}, {"generationConfig": {"maxOutputTokens": 100}}),
    (
        "cap-output-tokens",
        100,
        G,
        {"generation_config": {"max_output_tokens": 500, "topP": 1}},
        {"generation_config": {"max_output_tokens": 100, "topP": 1}},
    ),
    (
        "cap-output-tokens",
        100,
        G,
        {"generationConfig": {"maxOutputTokens": 99}},
        {"generationConfig": {"maxOutputTokens": 99}},
    ),
    # set, default, strip: any protocol, also a plugin's own
    ("set", {"a.b": 1, "c": [1]}, C, {"a": {"x": 2}}, {"a": {"x": 2, "b": 1}, "c": [1]}),
    ("set", {"a": None}, "klingon", {"a": 1}, {"a": None}),
    ("default", {"a": 1, "b.c": 2}, G, {"a": 0}, {"a": 0, "b": {"c": 2}}),
    ("default", {"a": 1}, A, {"a": None}, {"a": None}),
    (
        "strip",
        ["a", 'm.#(role=="x")#.y'],
        R,
        {"a": 1, "m": [{"role": "x", "y": 1}, {"role": "z", "y": 1}]},
        {"m": [{"role": "x"}, {"role": "z", "y": 1}]},
    ),
    # map-roles
    (
        "map-roles",
        {"developer": "system"},
        C,
        {"messages": [{"role": "developer"}, {"role": "user"}]},
        {"messages": [{"role": "system"}, {"role": "user"}]},
    ),
    (
        "map-roles",
        {"system": "developer"},
        R,
        {"input": [{"role": "system"}, "odd"]},
        {"input": [{"role": "developer"}, "odd"]},
    ),
    ("map-roles", {"system": "developer"}, X, {"input": "text"}, {"input": "text"}),
    ("map-roles", {"system": "user"}, A, {"messages": [{"role": "system"}]}, {"messages": [{"role": "user"}]}),
    ("map-roles", {"assistant": "model"}, G, {"contents": [{"role": "assistant"}]}, {"contents": [{"role": "model"}]}),
    # drop-parameters
    ("drop-parameters", ["seed", "user"], C, {"seed": 1, "user": "u", "n": 1}, {"n": 1}),
    ("drop-parameters", ["seed"], R, {"seed": 1}, {}),
    ("drop-parameters", ["seed"], X, {"seed": 1}, {}),
    ("drop-parameters", ["top_k"], A, {"top_k": 1, "top_p": 1}, {"top_p": 1}),
    (
        "drop-parameters",
        ["topK", "labels"],
        G,
        {"labels": {}, "generationConfig": {"topK": 1, "topP": 1}},
        {"generationConfig": {"topP": 1}},
    ),
    # keep-known-parameters
    *(
        ("keep-known-parameters", None, fmt, {"model": "m", "tools": [], "zzz": 1}, {"model": "m", "tools": []})
        for fmt in (C, R, X, A, G)
    ),
    ("keep-known-parameters", None, "klingon", {"zzz": 1}, {"zzz": 1}),
    # system-prompt
    (
        "system-prompt",
        {"append": "B"},
        C,
        {"messages": [{"role": "system", "content": "A"}, {"role": "user"}]},
        {"messages": [{"role": "system", "content": "A\n\nB"}, {"role": "user"}]},
    ),
    (
        "system-prompt",
        {"prepend": "B"},
        C,
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "A"}]}]},
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "B"}, {"type": "text", "text": "A"}]}
            ]
        },
    ),
    (
        "system-prompt",
        {"append": "B"},
        C,
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "system", "content": "B"}, {"role": "user"}]},
    ),
    (
        "system-prompt",
        {"replace": "B"},
        C,
        {"messages": [{"role": "system", "content": "A"}, {"role": "user"}, {"role": "developer"}]},
        {"messages": [{"role": "system", "content": "B"}, {"role": "user"}]},
    ),
    (
        "system-prompt",
        {"append": "B"},
        R,
        {"instructions": "A", "input": "x"},
        {"instructions": "A\n\nB", "input": "x"},
    ),
    (
        "system-prompt",
        {"replace": "B"},
        R,
        {"instructions": "A", "input": [{"role": "developer"}, {"role": "user"}]},
        {"instructions": "B", "input": [{"role": "user"}]},
    ),
    ("system-prompt", {"prepend": "B"}, X, {"instructions": ""}, {"instructions": "B"}),
    ("system-prompt", {"prepend": "B"}, A, {"system": "A"}, {"system": "B\n\nA"}),
    (
        "system-prompt",
        {"append": "B"},
        A,
        {"system": [{"type": "text", "text": "A"}]},
        {"system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
    ),
    (
        "system-prompt",
        {"replace": "B"},
        A,
        {"system": [{"type": "text", "text": "A"}], "messages": [{"role": "system"}]},
        {"system": "B", "messages": []},
    ),
    ("system-prompt", {"append": "B"}, G, {}, {"systemInstruction": {"parts": [{"text": "B"}]}}),
    (
        "system-prompt",
        {"prepend": "B"},
        G,
        {"system_instruction": {"role": "user", "parts": [{"text": "A"}]}},
        {"system_instruction": {"role": "user", "parts": [{"text": "B"}, {"text": "A"}]}},
    ),
    (
        "system-prompt",
        {"append": "B"},
        G,
        {"systemInstruction": "A"},
        {"systemInstruction": {"parts": [{"text": "A"}, {"text": "B"}]}},
    ),
    # force-tool-choice
    ("force-tool-choice", "required", C, {"tools": [fn("t")]}, {"tools": [fn("t")], "tool_choice": "required"}),
    (
        "force-tool-choice",
        {"name": "t"},
        C,
        {"tools": [fn("t")]},
        {"tools": [fn("t")], "tool_choice": {"type": "function", "function": {"name": "t"}}},
    ),
    ("force-tool-choice", {"name": "other"}, C, {"tools": [fn("t")]}, {"tools": [fn("t")]}),
    ("force-tool-choice", "required", C, {"messages": []}, {"messages": []}),
    (
        "force-tool-choice",
        "none",
        R,
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "web_search"}], "tool_choice": "none"},
    ),
    (
        "force-tool-choice",
        {"name": "t"},
        R,
        {"tools": [{"type": "custom", "name": "t"}]},
        {"tools": [{"type": "custom", "name": "t"}], "tool_choice": {"type": "custom", "name": "t"}},
    ),
    (
        "force-tool-choice",
        {"name": "web_search"},
        X,
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
    ),
    (
        "force-tool-choice",
        "required",
        A,
        {"tools": [{"name": "t"}], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"tools": [{"name": "t"}], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    ),
    (
        "force-tool-choice",
        {"name": "t"},
        A,
        {"tools": [{"name": "t"}]},
        {"tools": [{"name": "t"}], "tool_choice": {"type": "tool", "name": "t"}},
    ),
    (
        "force-tool-choice",
        "required",
        G,
        {"tools": [{"functionDeclarations": [{"name": "t"}]}]},
        {
            "tools": [{"functionDeclarations": [{"name": "t"}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        },
    ),
    (
        "force-tool-choice",
        {"name": "t"},
        G,
        {"tools": [{"functionDeclarations": [{"name": "t"}]}], "tool_config": {"x": 1}},
        {
            "tools": [{"functionDeclarations": [{"name": "t"}]}],
            "tool_config": {"x": 1, "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["t"]}},
        },
    ),
    # only-tools
    (
        "only-tools",
        ["read_*"],
        C,
        {"tools": [fn("read_file"), fn("rm")], "tool_choice": "auto"},
        {"tools": [fn("read_file")], "tool_choice": "auto"},
    ),
    (
        "only-tools",
        ["read_*"],
        C,
        {"tools": [fn("read_file"), fn("rm")], "tool_choice": fn("rm")},
        {"tools": [fn("read_file")]},
    ),
    (
        "only-tools",
        ["x"],
        C,
        {"tools": [fn("rm")], "tool_choice": "auto", "parallel_tool_calls": True, "n": 1},
        {"n": 1},
    ),
    (
        "only-tools",
        ["web_search*", "a"],
        R,
        {
            "tools": [
                {"type": "web_search_preview"},
                {"type": "function", "name": "a"},
                {"type": "function", "name": "b"},
            ]
        },
        {"tools": [{"type": "web_search_preview"}, {"type": "function", "name": "a"}]},
    ),
    ("only-tools", ["a"], X, {"tools": [{"type": "function", "name": "b"}], "tool_choice": "auto"}, {}),
    (
        "only-tools",
        ["a"],
        A,
        {"tools": [{"name": "a"}, {"name": "b"}], "tool_choice": {"type": "tool", "name": "a"}},
        {"tools": [{"name": "a"}], "tool_choice": {"type": "tool", "name": "a"}},
    ),
    (
        "only-tools",
        ["a"],
        A,
        {"tools": [{"name": "a"}, {"name": "b"}], "tool_choice": {"type": "tool", "name": "b"}},
        {"tools": [{"name": "a"}]},
    ),
    (
        "only-tools",
        ["a"],
        G,
        {
            "tools": [{"functionDeclarations": [{"name": "a"}, {"name": "b"}]}, {"googleSearch": {}}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["a", "b"]}},
        },
        {
            "tools": [{"functionDeclarations": [{"name": "a"}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["a"]}},
        },
    ),
    ("only-tools", ["zz"], G, {"tools": [{"googleSearch": {}}], "toolConfig": {}}, {}),
    # strip-images
    (
        "strip-images",
        None,
        C,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "x"}],
                }
            ]
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": IMAGE_NOTE}, {"type": "text", "text": "x"}]}
            ]
        },
    ),
    *(
        (
            "strip-images",
            None,
            fmt,
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image"}]},
                    {"type": "function_call_output", "output": [{"type": "input_image"}]},
                ]
            },
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": IMAGE_NOTE}]},
                    {"type": "function_call_output", "output": [{"type": "input_text", "text": IMAGE_NOTE}]},
                ]
            },
        )
        for fmt in (R, X)
    ),
    (
        "strip-images",
        None,
        A,
        {
            "messages": [
                {
                    "content": [
                        {"type": "image", "source": PNG},
                        {"type": "tool_result", "content": [{"type": "image", "source": PNG}]},
                    ]
                }
            ]
        },
        {
            "messages": [
                {
                    "content": [
                        {"type": "text", "text": IMAGE_NOTE},
                        {"type": "tool_result", "content": [{"type": "text", "text": IMAGE_NOTE}]},
                    ]
                }
            ]
        },
    ),
    (
        "strip-images",
        None,
        G,
        {
            "contents": [
                {
                    "parts": [
                        {"inlineData": {"mimeType": "image/png"}},
                        {"file_data": {"mime_type": "IMAGE/JPEG"}},
                        {"inlineData": {"mimeType": "audio/wav"}},
                    ]
                }
            ]
        },
        {
            "contents": [
                {"parts": [{"text": IMAGE_NOTE}, {"text": IMAGE_NOTE}, {"inlineData": {"mimeType": "audio/wav"}}]}
            ]
        },
    ),
    # strip-reasoning, requests
    (
        "strip-reasoning",
        None,
        C,
        {
            "reasoning_effort": "high",
            "messages": [{"role": "assistant", "content": "x", "reasoning_content": "t", "reasoning_details": []}],
        },
        {"messages": [{"role": "assistant", "content": "x"}]},
    ),
    *(
        (
            "strip-reasoning",
            None,
            fmt,
            {
                "reasoning": {"effort": "low"},
                "include": ["reasoning.encrypted_content"],
                "input": [{"type": "reasoning"}, {"type": "message"}],
            },
            {"input": [{"type": "message"}]},
        )
        for fmt in (R, X)
    ),
    (
        "strip-reasoning",
        None,
        A,
        {
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "high"},
            "messages": [
                {"role": "assistant", "content": [{"type": "thinking"}, {"type": "text", "text": "x"}]},
                {"role": "assistant", "content": [{"type": "redacted_thinking"}]},
            ],
        },
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]},
    ),
    (
        "strip-reasoning",
        None,
        G,
        {
            "generationConfig": {"topP": 1, "thinkingConfig": {}},
            "contents": [
                {
                    "role": "model",
                    "parts": [{"thought": True, "text": "t"}, {"functionCall": {}, "thoughtSignature": "s"}],
                },
                {"role": "model", "parts": [{"thought": True}]},
            ],
        },
        {
            "generationConfig": {"topP": 1},
            "contents": [{"role": "model", "parts": [{"functionCall": {}, "thoughtSignature": "s"}]}],
        },
    ),
    # strip-identity
    *(
        (
            "strip-identity",
            None,
            fmt,
            {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "metadata": {}, "n": 1},
            {"n": 1},
        )
        for fmt in (C, R, X)
    ),
    ("strip-identity", None, A, {"metadata": {"user_id": "u"}, "max_tokens": 1}, {"max_tokens": 1}),
    ("strip-identity", None, G, {"labels": {"a": "b"}, "contents": []}, {"contents": []}),
    # reasoning
    ("reasoning", "off", C, {"reasoning_effort": "high", "reasoning": {}}, {"reasoning_effort": "none"}),
    ("reasoning", False, C, {}, {"reasoning_effort": "none"}),
    ("reasoning", "high", C, {}, {"reasoning_effort": "high"}),
    ("reasoning", 8192, C, {}, {"reasoning_effort": "medium"}),
    ("reasoning", "low", R, {"reasoning": {"summary": "auto"}}, {"reasoning": {"summary": "auto", "effort": "low"}}),
    ("reasoning", 0, X, {}, {"reasoning": {"effort": "none"}}),
    (
        "reasoning",
        "off",
        A,
        {"thinking": {"type": "enabled"}, "output_config": {"effort": "high"}},
        {"thinking": {"type": "disabled"}},
    ),
    (
        "reasoning",
        "minimal",
        A,
        {"output_config": {"format": 1}},
        {"output_config": {"format": 1, "effort": "low"}, "thinking": {"type": "adaptive"}},
    ),
    (
        "reasoning",
        4000,
        A,
        {"max_tokens": 9000},
        {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 4000}},
    ),
    (
        "reasoning",
        4000,
        A,
        {"max_tokens": 2000},
        {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}},
    ),
    ("reasoning", 4000, A, {"max_tokens": 900}, {"max_tokens": 900, "thinking": {"type": "disabled"}}),
    (
        "reasoning",
        "off",
        G,
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True}}},
        {"generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 0}}},
    ),
    ("reasoning", "xhigh", G, {}, {"generationConfig": {"thinkingConfig": {"thinkingLevel": "HIGH"}}}),
    ("reasoning", 77, G, {"generation_config": {}}, {"generation_config": {"thinkingConfig": {"thinkingBudget": 77}}}),
]
CASES = [
    (name, setting, fmt, before, {**before, "max_completion_tokens": 100} if after is None else after)
    for name, setting, fmt, before, after in CASES
]


@pytest.mark.parametrize(
    ("name", "setting", "fmt", "before", "after"), CASES, ids=[f"{i}-{c[0]}-{c[2]}" for i, c in enumerate(CASES)]
)
def test_requests(name: str, setting: Any, fmt: str, before: Any, after: Any) -> None:
    """The table: one row for every protocol that a step knows."""
    assert applied(fmt, name, setting, before) == after


@pytest.mark.parametrize(("name", "setting", "fmt"), [(c[0], c[1], c[2]) for c in CASES])
def test_a_second_time_changes_nothing_or_is_said_to(name: str, setting: Any, fmt: str) -> None:
    """What is already as it should be keeps its very object; adding to a prompt adds each time."""
    step = made(name, setting)
    for case in CASES:
        if case[:3] == (name, setting, fmt) and name != "system-prompt":
            once = step(json.dumps(case[3]).encode(), context(fmt))
            assert step(once, context(fmt)) is once


def test_every_step_has_a_case_in_every_protocol_that_it_knows() -> None:
    """Also the list of what is known, which nothing else would notice to be short."""
    shown = {(name, fmt) for name, _, fmt, _, _ in CASES}
    for name, definition in STEPS.items():
        if Side.REQUEST in definition.sides and name not in ("set", "default", "strip"):
            assert {(name, fmt) for fmt in definition.formats} <= shown, name
    assert set(KNOWN) == set(Format)


# --- answers ---------------------------------------------------------------------------------------------------------

WHOLE: list[tuple[str, Any, str, Any, Any]] = [
    (
        "strip-reasoning",
        None,
        C,
        {"choices": [{"message": {"content": "x", "reasoning_content": "t"}}]},
        {"choices": [{"message": {"content": "x"}}]},
    ),
    *(
        (
            "strip-reasoning",
            None,
            fmt,
            {"object": "response", "output": [{"type": "reasoning"}, {"type": "message"}]},
            {"object": "response", "output": [{"type": "message"}]},
        )
        for fmt in (R, X)
    ),
    (
        "strip-reasoning",
        None,
        A,
        {"type": "message", "content": [{"type": "thinking"}, {"type": "text", "text": "x"}]},
        {"type": "message", "content": [{"type": "text", "text": "x"}]},
    ),
    (
        "strip-reasoning",
        None,
        G,
        {"candidates": [{"content": {"parts": [{"thought": True, "text": "t"}]}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        C,
        {"choices": [{"message": {"content": "a foo"}}, {"delta": {"content": "foo"}}]},
        {"choices": [{"message": {"content": "a bar"}}, {"delta": {"content": "bar"}}]},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        R,
        {
            "output_text": "foo",
            "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "foo"}]},
                {"type": "function_call", "arguments": "foo"},
            ],
        },
        {
            "output_text": "bar",
            "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "bar"}]},
                {"type": "function_call", "arguments": "foo"},
            ],
        },
    ),
    (
        "replace-text",
        {"foo": "bar"},
        X,
        {"type": "response.output_text.delta", "delta": "foo"},
        {"type": "response.output_text.delta", "delta": "bar"},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        X,
        {"type": "response.output_text.done", "text": "foo"},
        {"type": "response.output_text.done", "text": "bar"},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        R,
        {"type": "response.function_call_arguments.delta", "delta": "foo"},
        {"type": "response.function_call_arguments.delta", "delta": "foo"},
    ),
    (
        "replace-text",
        {"foo": "bar", "bar": "baz"},
        A,
        {"content": [{"type": "text", "text": "foo"}, {"type": "tool_use", "input": {"x": "foo"}}]},
        {"content": [{"type": "text", "text": "baz"}, {"type": "tool_use", "input": {"x": "foo"}}]},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        A,
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "foo"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "bar"}},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        A,
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "text": "foo"}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "text": "foo"}},
    ),
    (
        "replace-text",
        {"foo": "bar"},
        G,
        {"candidates": [{"content": {"parts": [{"text": "foo"}, {"text": "foo", "thought": True}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "bar"}, {"text": "foo", "thought": True}]}}]},
    ),
    ("set", {"a.b": 1}, A, {"type": "message"}, {"type": "message", "a": {"b": 1}}),
    ("strip", ["usage"], C, {"usage": {}, "id": 1}, {"id": 1}),
]


@pytest.mark.parametrize(("name", "setting", "fmt", "before", "after"), WHOLE, ids=lambda value: str(value)[:24])
def test_answers(name: str, setting: Any, fmt: str, before: Any, after: Any) -> None:
    """Whole bodies, and events that stand for themselves."""
    assert applied(fmt, name, setting, before, side=Side.RESPONSE) == after


def streamed(fmt: str, name: str, setting: Any, events: list[Any]) -> list[Any]:
    """The events that are left of a stream."""
    step, told = made(name, setting), context(fmt, side=Side.RESPONSE, stream=True)
    results = [step(json.dumps(event).encode(), told) for event in events]
    return [json.loads(result) for result in results if result]


def test_blocks_of_claude_are_numbered_anew_without_thoughts() -> None:
    """Clients put blocks where their number says, and fail for a number that is missing."""
    thought = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}}
    later = {"type": "content_block_start", "index": 2, "content_block": {"type": "redacted_thinking"}}
    left = streamed(
        A,
        "strip-reasoning",
        None,
        [
            {"type": "message_start", "message": {"content": []}},
            thought,
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "t"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_stop", "index": 1},
            later,
            {"type": "content_block_stop", "index": 2},
            {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use"}},
            {"type": "message_stop"},
        ],
    )
    assert [(event["type"], event.get("index")) for event in left] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("message_stop", None),
    ]


@pytest.mark.parametrize("fmt", [R, X])
def test_items_of_responses_are_numbered_anew_without_thoughts(fmt: Format) -> None:
    """Also in the answer that the last event repeats."""
    left = streamed(
        fmt,
        "strip-reasoning",
        None,
        [
            {"type": "response.created", "response": {"output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "t"},
            {"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning"}},
            {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message"}},
            {"type": "response.output_text.delta", "output_index": 1, "delta": "x"},
            {"type": "response.completed", "response": {"output": [{"type": "reasoning"}, {"type": "message"}]}},
        ],
    )
    assert [(event["type"], event.get("output_index")) for event in left] == [
        ("response.created", None),
        ("response.output_item.added", 0),
        ("response.output_text.delta", 0),
        ("response.completed", None),
    ]
    assert left[-1]["response"]["output"] == [{"type": "message"}]


def test_chunks_that_held_nothing_but_thoughts_vanish() -> None:
    """Those with an end or with usage stay, whatever else they hold."""
    chunk = {"choices": [{"index": 0, "delta": {"reasoning_content": "t"}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {"reasoning_content": "t"}, "finish_reason": "stop"}]}
    counted = {**chunk, "usage": {"total_tokens": 1}}
    left = streamed(C, "strip-reasoning", None, [chunk, end, counted])
    assert [event["choices"][0]["delta"] for event in left] == [{}, {}]
    thought = {"candidates": [{"content": {"parts": [{"thought": True, "text": "t"}]}}]}
    done = {"candidates": [{"content": {"parts": [{"thought": True}]}, "finishReason": "STOP"}]}
    assert streamed(G, "strip-reasoning", None, [thought, done]) == [
        {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}
    ]


def test_a_text_that_two_deltas_share_is_not_found() -> None:
    """The documented limit."""
    deltas = [{"choices": [{"delta": {"content": part}}]} for part in ("f", "oo", "foo")]
    left = streamed(C, "replace-text", {"foo": "bar"}, deltas)
    assert [event["choices"][0]["delta"]["content"] for event in left] == ["f", "oo", "bar"]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "setting", "text"),
    [
        ("cap-output-tokens", 0, "expected a number of tokens of at least 1, got 0 (int)"),
        ("cap-output-tokens", True, "expected a number of tokens of at least 1, got true (bool)"),
        ("cap-output-tokens", "many", "expected a number of tokens of at least 1, got 'many' (str)"),
        ("set", ["a"], "expected a mapping of paths to values, got a list of 1"),
        ("set", {"a..b": 1}, "expected a path (a name is missing at 3), got 'a..b' (str)"),
        ("strip", {}, "expected a list of paths, got an empty mapping"),
        ("strip", ["a", 3], "expected a string, got 3 (int)"),
        ("map-roles", {"a": ""}, "expected a role, got '' (str)"),
        ("map-roles", {"a": 1}, "expected a string, got 1 (int)"),
        ("system-prompt", "x", "expected a mapping with one of prepend, append, replace to a text, got 'x' (str)"),
        (
            "system-prompt",
            {"insert": "x"},
            "expected a mapping with one of prepend, append, replace to a text, got 'insert' (str)",
        ),
        ("system-prompt", {"append": " "}, "expected a text, got ' ' (str)"),
        ("force-tool-choice", "any", "expected auto, none, required or {name: TOOL}, got 'any' (str)"),
        ("force-tool-choice", {"name": 3}, "expected the name of a tool, got 3 (int)"),
        ("only-tools", "x", "expected a list of patterns for tool names, got 'x' (str)"),
        ("reasoning", -1, "got -1 (int)"),
        ("reasoning", "huge", "got 'huge' (str)"),
        ("replace-text", {"": "x"}, "expected a text that is not empty, got '' (str)"),
        ("replace-text", "k" * 99, "expected a mapping of texts to their replacements, got a string of 99 characters"),
    ],
)
def test_wrong_settings_are_said(name: str, setting: Any, text: str) -> None:
    """What was expected and what came, long texts not repeated."""
    with pytest.raises(WrongSetting) as caught:
        made(name, setting)
    assert caught.value.text.endswith(text)


# --- garbage ---------------------------------------------------------------------------------------------------------

READY = [
    made("strip-cache-control"),
    made("cap-output-tokens", 5),
    made("set", {"a.0.b": 1, "messages.0.content": "x"}),
    made("default", {"a.b": 1}),
    made("strip", ["messages.#(role)#.content", "a"]),
    made("map-roles", {"user": "x"}),
    made("drop-parameters", ["a"]),
    made("keep-known-parameters"),
    *(made("system-prompt", {word: "x"}) for word in ("append", "prepend", "replace")),
    made("force-tool-choice", {"name": "x"}),
    made("only-tools", ["x"]),
    made("strip-images"),
    made("strip-reasoning"),
    made("strip-identity"),
    *(made("reasoning", effort) for effort in ("off", "high", 4000)),
    made("replace-text", {"a": "b"}),
]
NAMES = st.sampled_from(
    [
        *("a", "messages", "input", "contents", "content", "parts", "role", "tools", "functionDeclarations", "name"),
        *("type", "function", "thinking", "delta", "choices", "output", "item", "response", "candidates", "system"),
        *("instructions", "systemInstruction", "generationConfig", "thinkingConfig", "tool_choice", "max_tokens"),
        *("budget_tokens", "index", "content_block", "cache_control", "output_config", "output_index", "thought"),
        *("include", "text"),
    ]
)
LEAVES = st.sampled_from(
    [None, True, False, 0, -1, 1e400, 12345678901234567890, "", "user", "system", "thinking", "reasoning", "image", "x"]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@settings(max_examples=120, deadline=None)
@given(value=st.dictionaries(NAMES, VALUES, max_size=5), fmt=st.sampled_from([*Format, "klingon"]))
def test_no_step_fails_for_odd_json(value: Any, fmt: str) -> None:
    """Members of all kinds in all places: bodies come from strangers."""
    body = json.dumps(value).encode()
    for side in Side:
        for step in READY:
            assert isinstance(step(body, context(fmt, side=side, stream=True)), bytes)


@settings(max_examples=80, deadline=None)
@given(
    body=st.binary(max_size=40)
    | st.sampled_from(
        [
            b"",
            b"null",
            b"[1]",
            b'"x"',
            b'{"messages":',
            b'{"messages":[{]}',
            b"\xff{}",
            b'{"a":' * 3000,
            b'{"messages":["\\ud800"]',
        ],
    ),
    fmt=st.sampled_from(list(Format)),
)
def test_what_is_no_json_object_passes_as_it_is(body: bytes, fmt: Format) -> None:
    """The same object; judging it is somebody else's business."""
    try:
        readable = isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        readable = False
    for step in READY:
        result = step(body, context(fmt))
        assert readable or result is body


def test_what_is_not_touched_keeps_its_bytes() -> None:
    """Numbers of any size, odd escapes and order: only the member in question is written anew."""
    body = (
        b'{"big":123456789012345678901234567890,"f":1.0,"e":"\\u00e9","messages":[{"role":"user","x":1.50}],"user":"u"}'
    )
    assert made("strip-identity")(body, context(C)) == body.replace(b',"user":"u"', b"")
    assert made("map-roles", {"user": "x"})(body, context(C)) == body.replace(b'"role":"user"', b'"role":"x"')
