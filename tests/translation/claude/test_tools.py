"""Tools, tool choice and cache markers for providers that speak Claude."""

import json
from typing import Any

import pytest

from cpa.formats.names import Format
from cpa.translation.context import TranslationSettings
from cpa.translation.ir import (
    Call,
    ChoiceMode,
    IRRequest,
    Result,
    Shape,
    StateSpec,
    SysBlock,
    Text,
    Tool,
    ToolChoice,
    ToolKind,
)
from cpa.translation.loss import Untranslatable
from tests.translation.claude.support import assistant, context, emit, lost, parse, request, user

FUNCTION, CUSTOM, SERVER = ToolKind.FUNCTION, ToolKind.CUSTOM, ToolKind.SERVER
A = Tool(kind=FUNCTION, name="a", description="does a", schema=b'{"type":"object","properties":{"format":{}}}')
B = Tool(kind=FUNCTION, name="b")
OPENAI_SEARCH = Tool(
    kind=SERVER,
    name="web_search",
    server="web_search",
    origin="openai-response",
    config=b'{"type":"web_search","filters":{"allowed_domains":["e.com"]},'
    b'"user_location":{"type":"approximate","city":"Bern","country":null}}',
)


def asked(*tools: Tool, choice: ToolChoice | None = None, **members: Any) -> IRRequest:
    return request(user("x"), tools=list(tools), tool_choice=choice, **members)


def test_functions() -> None:
    """Schemas are not touched but for their root."""
    assert emit(asked(A, B))["tools"] == [
        {
            "name": "a",
            "description": "does a",
            "input_schema": {"type": "object", "properties": {"format": {}}},
        },
        {"name": "b", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_root_unions_are_merged() -> None:
    """Corpus 82."""
    schema = (
        b'{"anyOf":[{"type":"object","properties":{"x":{"type":"string"},"z":{}},"required":["x","z"]},'
        b'{"type":"object","properties":{"y":{},"z":{}},"required":["y","z"]}]}'
    )
    (tool,) = emit(asked(Tool(kind=FUNCTION, name="a", schema=schema)))["tools"]
    assert tool["input_schema"]["type"] == "object"
    assert set(tool["input_schema"]["properties"]) == {"x", "y", "z"}
    assert tool["input_schema"]["required"] == ["z"]


def test_types_of_gemini_become_json_schema() -> None:
    tool = Tool(
        kind=FUNCTION, name="a", schema=b'{"type":"OBJECT","properties":{"n":{"type":"INTEGER"}}}', schema_openapi=True
    )
    (written,) = emit(asked(tool), context(Format.GEMINI))["tools"]
    assert written["input_schema"]["properties"]["n"]["type"] == "integer"


def test_custom_tools_are_wrapped() -> None:
    """Corpus 49 and 51."""
    patch = Tool(
        kind=CUSTOM,
        name="apply_patch",
        description="Edit files",
        grammar=b'{"type":"grammar","syntax":"lark","definition":"start: x"}',
    )
    ctx = context(Format.OPENAI_RESPONSE)
    history = [
        assistant(Call(call_id="c", name="apply_patch", args=b"*** x", args_text=True, shape=Shape.TEXT)),
        user(Result(call_id="c", parts=[Text(text="done")], shape=Shape.TEXT)),
    ]
    found = emit(request(user("x"), *history, tools=[patch]), ctx)
    (written,) = found["tools"]
    assert written["description"] == "Edit files\n\nThe `input` string must follow this lark grammar:\nstart: x"
    assert written["input_schema"]["required"] == ["input"]
    assert found["messages"][1]["content"][0]["input"] == {"input": "*** x"}
    assert ctx.names.custom == {"apply_patch"}


def test_namespaces_are_flattened() -> None:
    """Corpus 46 and 47."""
    ctx = context(Format.OPENAI_RESPONSE)
    tools = [
        Tool(kind=FUNCTION, name="log", namespace="git", namespace_description="Git.", description="Shows."),
        Tool(kind=FUNCTION, name="mcp__y", namespace="x"),
    ]
    found = emit(asked(*tools), ctx)["tools"]
    assert [tool["name"] for tool in found] == ["git__log", "mcp__y"]
    assert found[0]["description"] == "Git.\n\nShows."
    assert ctx.names.to_client("git__log") == ("git", "log")


def test_long_names_come_back() -> None:
    """Corpus 43."""
    ctx = context(Format.OPENAI)
    (tool,) = emit(asked(Tool(kind=FUNCTION, name="m" * 80)), ctx)["tools"]
    assert len(tool["name"]) == 64
    assert ctx.names.to_client(tool["name"]) == ("", "m" * 80)


def test_strict_is_for_the_own_family() -> None:
    ctx = context(Format.OPENAI)
    (tool,) = emit(asked(Tool(kind=FUNCTION, name="a", strict=True)), ctx)["tools"]
    assert "strict" not in tool
    assert lost(ctx) == ["tools[0].strict"]
    (own,) = emit(asked(Tool(kind=FUNCTION, name="a", strict=True, origin="claude"), client=Format.CLAUDE))["tools"]
    assert own["strict"] is True


# --- server tools ---


def test_search_of_others() -> None:
    """2.15."""
    assert emit(asked(OPENAI_SEARCH))["tools"] == [
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "allowed_domains": ["e.com"],
            "user_location": {"type": "approximate", "city": "Bern"},
        }
    ]


@pytest.mark.parametrize(
    ("config", "members"),
    [
        (b'{"search_context_size":"low","user_location":{"type":"approximate","approximate":{"city":"Bern"}}}',
         {"user_location": {"type": "approximate", "city": "Bern"}}),
        (b'{"googleSearch":{"excludeDomains":["x.com"]}}', {"blocked_domains": ["x.com"]}),
        (b'{"excludeDomains":["x.com"]}', {"blocked_domains": ["x.com"]}),
        (b"{}", {}),
        (b"[", {}),
        (b"", {}),
    ],
)  # fmt: skip
def test_configurations_of_search(config: bytes, members: Any) -> None:
    tool = Tool(kind=SERVER, name="s", server="web_search", origin="openai", config=config)
    assert emit(asked(tool))["tools"] == [{"type": "web_search_20250305", "name": "web_search", **members}]


def test_search_without_the_outside_is_dropped() -> None:
    """Corpus 53."""
    ctx = context(Format.OPENAI_RESPONSE)
    config = b'{"type":"web_search","external_web_access":false}'
    tool = Tool(kind=SERVER, name="web_search", server="web_search", origin="openai-response", config=config)
    assert "tools" not in emit(asked(tool), ctx)
    assert lost(ctx) == ["tools[0]"]


def test_limit_of_calls_is_that_of_the_only_server_tool() -> None:
    found = emit(asked(OPENAI_SEARCH, state=StateSpec(max_tool_calls=3)))
    assert found["tools"][0]["max_uses"] == 3


def test_code() -> None:
    tool = Tool(kind=SERVER, name="code_interpreter", server="code", origin="openai-response", config=b"{}")
    assert emit(asked(tool))["tools"] == [{"type": "code_execution_20250825", "name": "code_execution"}]


def test_other_server_tools_are_lost() -> None:
    ctx = context(Format.OPENAI_RESPONSE)
    tool = Tool(kind=SERVER, name="file_search", server="file_search", origin="openai-response", config=b"{}")
    assert [tool["name"] for tool in emit(asked(tool, A), ctx)["tools"]] == ["a"]
    assert lost(ctx) == ["tools[0]"]


def test_a_clients_tool_of_the_same_name_comes_first() -> None:
    ctx = context(Format.OPENAI_RESPONSE)
    mine = Tool(kind=FUNCTION, name="web_search")
    assert emit(asked(OPENAI_SEARCH, mine), ctx)["tools"] == [
        {"name": "web_search", "input_schema": {"type": "object", "properties": {}}}
    ]
    assert lost(ctx) == ["tools[0]"]


def test_own_server_tools_keep_their_configuration() -> None:
    tools = [
        {"type": "web_search_20260209", "name": "web_search", "max_uses": 2, "cache_control": {"type": "ephemeral"}},
        {"type": "bash_20250124", "name": "bash"},
    ]
    ctx = context()
    found = emit(parse({"messages": [{"role": "user", "content": "x"}], "tools": tools}, ctx), ctx)
    assert found["tools"] == tools


# --- choice ---


def named(name: str, namespace: str = "") -> ToolChoice:
    return ToolChoice(mode=ChoiceMode.NAMED, names=[(namespace, name)])


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),  # corpus 39
        (ToolChoice(mode=ChoiceMode.AUTO), None, {"type": "auto"}),
        (ToolChoice(mode=ChoiceMode.NONE), False, {"type": "none"}),  # corpus 36
        (ToolChoice(mode=ChoiceMode.REQUIRED), False, {"type": "any", "disable_parallel_tool_use": True}),
        (named("a"), None, {"type": "tool", "name": "a"}),
    ],
)
def test_choice(choice: ToolChoice | None, parallel: bool | None, sent: Any) -> None:
    """2.7."""
    found = emit(asked(A, B, choice=choice, parallel=parallel))
    assert found.get("tool_choice") == sent
    assert len(found["tools"]) == 2


@pytest.mark.parametrize(("required", "kind"), [(False, "auto"), (True, "any")])
def test_subset(required: bool, kind: str) -> None:
    """Corpus 42: the others are not sent."""
    ctx = context(Format.OPENAI)
    choice = ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "a")], required=required)
    found = emit(asked(A, B, choice=choice), ctx)
    assert [tool["name"] for tool in found["tools"]] == ["a"]
    assert found["tool_choice"] == {"type": kind}
    assert lost(ctx) == ["tool_choice"]


def test_choice_without_tools_is_left_out() -> None:
    """Corpus 41."""
    found = emit(asked(choice=ToolChoice(mode=ChoiceMode.AUTO), parallel=False))
    assert "tool_choice" not in found


def test_chosen_tool_must_exist() -> None:
    with pytest.raises(Untranslatable) as caught:
        emit(asked(A, choice=named("nobody")))
    assert caught.value.param == "tool_choice"


def test_chosen_child_of_a_namespace() -> None:
    tool = Tool(kind=FUNCTION, name="log", namespace="git")
    assert emit(asked(tool, choice=named("log", "git")))["tool_choice"] == {"type": "tool", "name": "git__log"}


def test_chosen_search() -> None:
    choice = ToolChoice(mode=ChoiceMode.SERVER, names=[("", "web_search")])
    assert emit(asked(OPENAI_SEARCH, A, choice=choice))["tool_choice"] == {"type": "tool", "name": "web_search"}


@pytest.mark.parametrize("others", [[], [A]])
def test_chosen_tool_that_claude_lacks_is_refused(others: list[Tool]) -> None:
    """2.15."""
    tool = Tool(kind=SERVER, name="file_search", server="file_search", origin="openai-response", config=b"{}")
    choice = ToolChoice(mode=ChoiceMode.SERVER, names=[("", "file_search")])
    with pytest.raises(Untranslatable) as caught:
        emit(asked(tool, *others, choice=choice))
    assert caught.value.param == "tool_choice"


# --- cache markers ---

FIVE, HOUR = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}


def mark(control: Any) -> bytes:
    return json.dumps(control).encode()


def markers(found: Any) -> list[Any]:
    """All markers in wire order: tools, system, messages, request."""
    items = [*found.get("tools", []), *found.get("system", [])]
    for message in found["messages"]:
        for block in message["content"]:
            inner = block.get("content")
            items += inner if isinstance(inner, list) else []
            items.append(block)
    return [item.get("cache_control") for item in [*items, found] if item.get("cache_control")]


def test_last_four_markers_are_kept() -> None:
    """Corpus 9."""
    ctx = context(Format.OPENAI)
    tool = Tool(kind=FUNCTION, name="a", cache=mark(FIVE))
    texts = [Text(text=str(number), cache=mark(FIVE)) for number in range(3)]
    found = emit(request(user(*texts), tools=[tool], system=[SysBlock(text="s", cache=mark(FIVE))]), ctx)
    assert len(markers(found)) == 4
    assert "cache_control" not in found["tools"][0]
    assert lost(ctx) == ["cache_control"]


def test_marker_of_the_request_takes_a_place() -> None:
    texts = [Text(text=str(number), cache=mark(FIVE)) for number in range(4)]
    found = emit(request(user(*texts), cache_hint=mark(FIVE)))
    assert len(markers(found)) == 4
    assert "cache_control" not in found["messages"][0]["content"][0]
    assert found["cache_control"] == FIVE


def test_no_hour_behind_five_minutes() -> None:
    """Corpus 10."""
    ctx = context(Format.OPENAI)
    texts = [Text(text="b", cache=mark(FIVE)), Text(text="c", cache=mark(HOUR))]
    found = emit(request(user(*texts), system=[SysBlock(text="s", cache=mark(HOUR))], cache_hint=mark(HOUR)), ctx)
    short = {"type": "ephemeral", "ttl": "5m"}
    assert markers(found) == [HOUR, FIVE, short, short]
    assert lost(ctx) == ["cache_control.ttl"]


@pytest.mark.parametrize("control", [b"5", b"{}", b'{"type":"persistent"}', b"{"])
def test_what_is_no_marker_is_left_out(control: bytes) -> None:
    found = emit(request(user(Text(text="a", cache=control)), cache_hint=control))
    assert markers(found) == []


def test_markers_in_results_count() -> None:
    inner: list[Any] = [Text(text="r", cache=mark(FIVE))]
    turns = [
        user("a"),
        assistant(Call(call_id="t", name="a", args=b"{}")),
        user(Result(call_id="t", parts=inner, cache=mark(FIVE))),
    ]
    assert markers(emit(request(*turns, tools=[B, A]))) == [FIVE, FIVE]


@pytest.mark.parametrize(
    ("client", "tools", "settings", "control"),
    [
        (Format.OPENAI, [A], TranslationSettings(), FIVE),
        (Format.OPENAI, [], TranslationSettings(), None),
        (Format.OPENAI, [A], TranslationSettings(claude_auto_cache=False), None),
        (Format.CLAUDE, [A], TranslationSettings(), None),
    ],
)
def test_agents_of_other_protocols_are_cached(
    client: Format, tools: list[Tool], settings: TranslationSettings, control: Any
) -> None:
    """2.13."""
    found = emit(request(user("x"), client=client, tools=tools), context(client, settings=settings))
    assert found.get("cache_control") == control


def test_whoever_sets_markers_gets_no_more() -> None:
    found = emit(request(user(Text(text="a", cache=mark(FIVE))), tools=[A]))
    assert markers(found) == [FIVE]
