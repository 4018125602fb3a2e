"""7.3: tools, calls and results, rows 36 to 75."""

import hashlib
import json
from typing import Any

from tests.e2e.corpus.rig import Rig, sse
from tests.e2e.corpus.table import (
    a,
    a_tool,
    call,
    chat_tool,
    contents,
    g,
    g_tool,
    items,
    r_tool,
    row,
    said,
    text,
    told,
    tool_result,
    tool_use,
    u,
)

NO_RESULT = "No result was recorded for this tool call."
BIG = "12345678901234567890123"
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edit files"}


def hashed(value: str, prefix: str) -> str:
    """What becomes of an id that the provider cannot take."""
    return prefix + hashlib.sha256(value.encode()).hexdigest()[:24]


def turns(*messages: Any) -> list[tuple[str, list[str]]]:
    """Roles, and the types of their blocks."""
    return [(turn["role"], [block["type"] for block in turn["content"]]) for turn in messages]


def names(sent: Any) -> list[str]:
    """Of the tools that a provider is told."""
    found = [tool.get("function", tool) for tool in sent["tools"]]
    return [one["name"] for one in found]


@row(36)
def choice_of_none(rig: Rig) -> None:
    """It is not auto, and the tools stay."""
    sent = rig.sent("claude", "gpt", said(u(), tools=[a_tool()], tool_choice={"type": "none"}))
    assert (sent["tool_choice"], names(sent)) == ("none", ["f"])


@row(37)
def responses_named_choice(rig: Rig) -> None:
    """Copied as it is, it would be a 400."""
    sent = rig.sent("responses", "gpt", items(u(), tools=[r_tool()], tool_choice={"type": "function", "name": "f"}))
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}


@row(38)
def named_choice_to_gemini(rig: Rig) -> None:
    """A list of one."""
    choice = {"type": "function", "function": {"name": "f"}}
    sent = rig.sent("chat", "gemini", said(u(), tools=[chat_tool(), chat_tool("g")], tool_choice=choice))
    assert sent["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["f"]}


@row(39)
def one_call_at_a_time(rig: Rig) -> None:
    """The flag lives in the choice."""
    sent = rig.sent("chat", "claude", said(u(), tools=[chat_tool()], parallel_tool_calls=False))
    assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    back = said(u(), tools=[a_tool()], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert rig.sent("claude", "gpt", back)["parallel_tool_calls"] is False
    assert "parallel" not in json.dumps(rig.sent("claude", "gemini", back))
    assert "parallel" in rig.losses


@row(40)
def forced_call_while_thinking(rig: Rig) -> None:
    """The API takes one of them."""
    body = said(u(), tools=[chat_tool()], tool_choice="required", reasoning_effort="high")
    sent = rig.sent("chat", "claude-sonnet-4-5", body)
    assert (sent["tool_choice"], sent["thinking"]) == ({"type": "any"}, {"type": "disabled"})
    assert rig.losses


@row(41)
def choice_without_tools(rig: Rig) -> None:
    """A 400 everywhere."""
    for model, member in (("claude", "tool_choice"), ("gemini", "toolConfig"), ("responses", "tool_choice")):
        assert member not in rig.sent("chat", model, said(u(), tool_choice="auto", parallel_tool_calls=True))
    sent = rig.sent("claude", "gpt", said(u(), tool_choice={"type": "auto", "disable_parallel_tool_use": True}))
    assert not {"tool_choice", "parallel_tool_calls"} & sent.keys()


@row(42)
def subset(rig: Rig) -> None:
    """Claude has none: the others are not shown."""
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "a"}}]},
    }
    body = said(u(), tools=[chat_tool("a"), chat_tool("b")], tool_choice=allowed)
    sent = rig.sent("chat", "claude", body)
    assert (names(sent), sent["tool_choice"]) == (["a"], {"type": "auto"})
    sent = rig.sent("chat", "gemini", body)
    assert [one["name"] for one in sent["tools"][0]["functionDeclarations"]] == ["a"]
    assert sent["toolConfig"]["functionCallingConfig"] == {"mode": "AUTO"}
    sent = rig.sent("chat", "responses", body)
    assert sent["tool_choice"] == {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "a"}],
    }
    allowed["allowed_tools"]["mode"] = "required"  # type: ignore[index]
    sent = rig.sent("chat", "gemini", body)
    assert sent["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["a"]}


def _call_of(name: str) -> bytes:
    """Chat's whole answer that calls *name*."""
    message = {"role": "assistant", "content": None, "tool_calls": [call("c1", name)]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


@row(43)
def long_names(rig: Rig) -> None:
    """Cut and hashed on their way, whole again in the answer."""
    name = "mcp__server__" + "x" * 67
    wire = name[:51] + "_" + hashlib.sha256(name.encode()).hexdigest()[:12]
    assert names(rig.sent("claude", "gpt", said(u(), tools=[a_tool(name)]))) == [wire]
    answer = rig.whole("claude", "gpt", _call_of(wire), tools=[a_tool(name)])
    assert [block["name"] for block in answer["content"] if block["type"] == "tool_use"] == [name]


@row(44)
def colliding_names(rig: Rig) -> None:
    """What needs no change gets none."""
    tools = [g_tool("a.b"), g_tool("a_b")]
    first, second = names(rig.sent("gemini", "gpt", contents(g("user", {"text": "hi"}), tools=tools)))
    assert second == "a_b"
    assert first == "a_b_" + hashlib.sha256(b"a.b").hexdigest()[:12]
    for wire, name in ((first, "a.b"), (second, "a_b")):
        answer = rig.whole("gemini", "gpt", _call_of(wire), tools=tools)
        [part] = [part for part in answer["candidates"][0]["content"]["parts"] if "functionCall" in part]
        assert part["functionCall"]["name"] == name


@row(45)
def digit_first(rig: Rig) -> None:
    """Gemini's names begin with a letter."""
    sent = rig.sent("chat", "gemini", said(u(), tools=[chat_tool("3d_view")]))
    assert sent["tools"][0]["functionDeclarations"][0]["name"] == "_3d_view"
    parts = [{"functionCall": {"name": "_3d_view", "args": {}}}]
    frame = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    answer = rig.whole("chat", "gemini", json.dumps(frame).encode(), tools=[chat_tool("3d_view")])
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "3d_view"


def claude_call(name: str, *pieces: str) -> bytes:
    """Claude's stream of one call."""
    return sse(
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1, "output_tokens": 0}}},
        {"type": "content_block_start", "index": 0, "content_block": tool_use("t1", name)},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )


GIT = {"type": "namespace", "name": "git", "description": "Versions", "tools": [r_tool("log", description="Shows")]}


@row(46)
def namespaces(rig: Rig) -> None:
    """Flat on the way there, themselves on the way back."""
    sent = rig.sent("responses", "claude", items(u(), tools=[GIT]))
    assert names(sent) == ["git__log"]
    assert sent["tools"][0]["description"].startswith("Versions")
    frames = rig.streamed("responses", "claude", claude_call("git__log"), tools=[GIT])
    done = [frame["item"] for frame in frames if frame["type"] == "response.output_item.done"]
    assert [(item["type"], item["name"], item["namespace"]) for item in done] == [("function_call", "log", "git")]


@row(47)
def no_second_prefix(rig: Rig) -> None:
    """What has one keeps it."""
    tool = {"type": "namespace", "name": "x", "description": "", "tools": [r_tool("mcp__y"), r_tool("x__z")]}
    assert names(rig.sent("responses", "claude", items(u(), tools=[tool]))) == ["mcp__y", "x__z"]


@row(48)
def function_and_custom(rig: Rig) -> None:
    """Of one name, the function."""
    custom = {"type": "custom", "name": "edit"}
    for tools in ([custom, r_tool("edit")], [r_tool("edit"), custom]):
        sent = rig.sent("responses", "claude", items(u(), tools=tools))
        assert [(tool["name"], tool["input_schema"]["properties"]) for tool in sent["tools"]] == [("edit", {})]


@row(49)
def custom_calls_in_the_history(rig: Rig) -> None:
    """Wrapped."""
    body = items(
        u(),
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": 'a "b"\n'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        tools=[PATCH],
    )
    sent = rig.sent("responses", "claude", body)["messages"]
    assert sent[1]["content"] == [tool_use("c1", "apply_patch", {"input": 'a "b"\n'})]
    assert sent[2]["content"][0]["tool_use_id"] == "c1"
    [made] = rig.sent("responses", "gpt", body)["messages"][1]["tool_calls"]
    assert made in (
        {"id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": 'a "b"\n'}},
        {"id": "c1", "type": "function", "function": {"name": "apply_patch", "arguments": '{"input":"a \\"b\\"\\n"}'}},
    )


@row(50)
def custom_calls_in_an_answer(rig: Rig) -> None:
    """Unwrapped while they come."""
    stream = claude_call("apply_patch", '{"in', 'put": "x\\', "n\\u00", "e9", 'y"', "}")
    frames = rig.streamed("responses", "claude", stream, tools=[PATCH])
    deltas = [frame["delta"] for frame in frames if frame["type"] == "response.custom_tool_call_input.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == "x\néy"
    [item] = frames[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", "x\néy")


@row(51)
def apply_patch_is_there(rig: Rig) -> None:
    """With the one argument that it takes."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
    sent = rig.sent("responses", "claude", items(u(), tools=[{**PATCH, "format": grammar}]))
    [tool] = sent["tools"]
    assert tool["description"] == "Edit files\n\nThe `input` string must follow this lark grammar:\nstart: x"
    assert tool["input_schema"]["required"] == ["input"]
    assert tool["input_schema"]["additionalProperties"] is False


@row(52)
def typed_server_tools(rig: Rig) -> None:
    """No client could answer a call of them."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    sent = rig.sent("claude", "gpt", said(u(), tools=[search, a_tool()]))
    assert names(sent) == ["f"]
    assert "web_search_options" in sent or rig.losses
    sent = rig.sent("claude", "responses", said(u(), tools=[search]))
    assert [tool["type"] for tool in sent["tools"]] == ["web_search"]
    assert rig.sent("claude", "gemini", said(u(), tools=[search]))["tools"] == [{"googleSearch": {}}]


@row(53)
def cached_search(rig: Rig) -> None:
    """It means something else."""
    tools = [{"type": "web_search", "external_web_access": False}, r_tool()]
    assert names(rig.sent("responses", "claude", items(u(), tools=tools))) == ["f"]
    assert rig.losses


def _history(arguments: str) -> dict[str, Any]:
    return said(u(), a(None, tool_calls=[call("c1", "f", arguments)]), told("c1"))


def _arguments(rig: Rig, model: str, arguments: str) -> Any:
    sent = rig.sent("chat", model, _history(arguments))
    if model == "claude":
        return sent["messages"][1]["content"][0]["input"]
    return sent["contents"][1]["parts"][0]["functionCall"]["args"]


@row(54)
def empty_arguments(rig: Rig) -> None:
    """Objects are wanted."""
    for model in ("claude", "gemini"):
        for arguments in ("", "  ", "null"):
            assert _arguments(rig, model, arguments) == {}


@row(55)
def broken_arguments(rig: Rig) -> None:
    """The model may see what it had called."""
    for model in ("claude", "gemini"):
        assert _arguments(rig, model, "{bad") == {"_raw_arguments": "{bad"}


@row(56)
def arguments_that_are_no_object(rig: Rig) -> None:
    """Under a name."""
    for model in ("claude", "gemini"):
        assert _arguments(rig, model, "[1]") == {"value": [1]}


@row(57)
def big_numbers(rig: Rig) -> None:
    """Not a digit is lost."""
    for model in ("claude", "gemini"):
        rig.sent("chat", model, _history(f'{{"id":{BIG}}}'))
        assert BIG.encode() in rig.asked().body


@row(58)
def bad_ids(rig: Rig) -> None:
    """Hashed, on both sides."""
    body = said(u(), a(None, tool_calls=[call("call:1/2")]), told("call:1/2"))
    [_, made, result] = rig.sent("chat", "claude", body)["messages"]
    wanted = hashed("call:1/2", "toolu_")
    assert made["content"][0]["id"] == wanted
    assert result["content"][0]["tool_use_id"] == wanted


@row(59)
def long_ids(rig: Rig) -> None:
    """Forty characters fit."""
    for long, fits in (("t" * 41, False), ("t" * 40, True)):
        body = said(u(), {"role": "assistant", "content": [tool_use(long)]}, u([tool_result(long)]))
        [_, made, result] = rig.sent("claude", "gpt", body)["messages"]
        wanted = long if fits else hashed(long, "call_")
        assert (made["tool_calls"][0]["id"], result["tool_call_id"]) == (wanted, wanted)


@row(60)
def an_id_used_twice(rig: Rig) -> None:
    """The later one gets another, and its result with it."""
    one = a(None, tool_calls=[call("c1")])
    sent = rig.sent("chat", "claude", said(u(), one, told("c1", "1"), one, told("c1", "2")))["messages"]
    ids = [sent[at]["content"][0]["id"] for at in (1, 3)]
    assert ids[0] == "c1"
    assert ids[1].startswith("c1_")
    assert len(ids[1]) == len("c1_") + 8
    assert [sent[at]["content"][0]["tool_use_id"] for at in (2, 4)] == ids


@row(61)
def a_result_told_twice(rig: Rig) -> None:
    """Once, as it was last told."""
    body = said(u(), a(None, tool_calls=[call("c1")]), told("c1", "1"), told("c1", "2"))
    sent = rig.sent("chat", "claude", body)["messages"]
    [block] = sent[2]["content"]
    assert block["content"] in ("2", [text("2")])


TWO = a(None, tool_calls=[call("a", "fa"), call("b", "fb")])


@row(62)
def results_out_of_order(rig: Rig) -> None:
    """Gemini pairs them by position."""
    sent = rig.sent("chat", "gemini", said(u(), TWO, told("b", "2"), told("a", "1")))["contents"]
    found = [part["functionResponse"] for part in sent[2]["parts"]]
    assert [(one["id"], one["name"], one["response"]["output"]) for one in found] == [
        ("a", "fa", "1"),
        ("b", "fb", "2"),
    ]


@row(63)
def the_user_in_between(rig: Rig) -> None:
    """Results first."""
    body = items(
        u("1"),
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        u("2"),
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
    )
    sent = rig.sent("responses", "claude", body)["messages"]
    assert turns(*sent) == [("user", ["text"]), ("assistant", ["tool_use"]), ("user", ["tool_result", "text"])]


@row(64)
def missing_results(rig: Rig) -> None:
    """Said to be missing."""
    body = said(u("1"), a(None, tool_calls=[call("c1")]), u("2"))
    [result, follows] = rig.sent("chat", "claude", body)["messages"][2]["content"]
    assert (result["tool_use_id"], result["is_error"]) == ("c1", True)
    assert NO_RESULT in json.dumps(result["content"])
    assert follows == text("2")
    parts = rig.sent("chat", "gemini", body)["contents"][2]["parts"]
    assert parts[0]["functionResponse"]["response"] == {"error": NO_RESULT}
    sent = rig.sent("chat", "responses", body)["input"]
    assert NO_RESULT in json.dumps([item for item in sent if item["type"] == "function_call_output"])


@row(65)
def results_of_nothing(rig: Rig) -> None:
    """A note."""
    for model in ("claude", "gemini", "responses"):
        sent = json.dumps(rig.sent("chat", model, said(u(), told("c9", "42"))))
        assert "[result of an earlier tool call" in sent
        assert "42" in sent
        assert "c9" not in sent


@row(66)
def results_of_what_the_server_has(rig: Rig) -> None:
    """With the answer's id, at home, nothing is repaired."""
    output = {"type": "function_call_output", "call_id": "c1", "output": "done"}
    sent = rig.sent("responses", "responses", items(output, previous_response_id="resp_1"))
    assert (sent["input"], sent["previous_response_id"]) == ([output], "resp_1")


@row(67)
def results_without_an_id(rig: Rig) -> None:
    """By name, the oldest first."""
    calls = [
        {"type": "function_call", "call_id": f"c{n}", "name": name, "arguments": "{}"}
        for n, name in enumerate(("g", "f", "f"))
    ]
    outputs = [
        {"type": "function_call_output", "call_id": None, "name": name, "output": out}
        for name, out in (("f", "1"), ("f", "2"), ("g", "3"))
    ]
    sent = rig.sent("responses", "gemini", items(u(), *calls, *outputs))["contents"]
    found = [part["functionResponse"] for part in sent[2]["parts"]]
    assert [(one["id"], one["response"]["output"]) for one in found] == [("c0", "3"), ("c1", "1"), ("c2", "2")]


TWICE = contents(
    g("user", {"text": "hi"}),
    g("model", {"functionCall": {"name": "a", "args": {}}}, {"functionCall": {"name": "a", "args": {"x": 1}}}),
    g(
        "user",
        {"functionResponse": {"name": "a", "response": {"output": "one"}}},
        {"functionResponse": {"name": "a", "response": {"output": "two"}}},
    ),
)


@row(68)
def gemini_without_ids(rig: Rig) -> None:
    """The same ones every time: prompt caches live on it."""
    sent = rig.sent("gemini", "gpt", TWICE)
    _, made, first, second = sent["messages"]
    ids = [one["id"] for one in made["tool_calls"]]
    assert made["content"] is None
    assert [one["function"]["arguments"] for one in made["tool_calls"]] in (["{}", '{"x":1}'], ["{}", '{"x": 1}'])
    assert [(first["tool_call_id"], first["content"]), (second["tool_call_id"], second["content"])] == [
        (ids[0], "one"),
        (ids[1], "two"),
    ]
    assert len(set(ids)) == 2
    assert all(one.startswith("call_") and len(one) == 29 for one in ids)
    assert rig.sent("gemini", "gpt", TWICE) == sent


@row(69)
def gemini_with_ids(rig: Rig) -> None:
    """They beat the order."""
    body = contents(
        g("user", {"text": "hi"}),
        g(
            "model",
            {"functionCall": {"id": "i1", "name": "a", "args": {}}},
            {"functionCall": {"id": "i2", "name": "a", "args": {}}},
        ),
        g(
            "user",
            {"functionResponse": {"id": "i2", "name": "a", "response": {"output": "2"}}},
            {"functionResponse": {"id": "i1", "name": "a", "response": {"output": "1"}}},
        ),
    )
    sent = rig.sent("gemini", "claude", body)["messages"][2]["content"]
    assert [(one["tool_use_id"], json.dumps(one["content"])) for one in sent] == [
        ("i1", json.dumps(sent[0]["content"])),
        ("i2", json.dumps(sent[1]["content"])),
    ]
    assert '"1"' in json.dumps(sent[0]["content"])


@row(70)
def more_results_than_calls(rig: Rig) -> None:
    """The rest is text."""
    body = contents(
        g("user", {"text": "hi"}),
        g("model", {"functionCall": {"name": "a", "args": {}}}),
        g(
            "user",
            {"functionResponse": {"name": "a", "response": {"output": "1"}}},
            {"functionResponse": {"name": "a", "response": {"output": "2"}}},
        ),
    )
    sent = rig.sent("gemini", "claude", body)["messages"]
    assert turns(*sent)[2] == ("user", ["tool_result", "text"])
    assert "[result of an earlier tool call a]: 2" in sent[2]["content"][1]["text"]


@row(71)
def errors_of_tools(rig: Rig) -> None:
    """Where each protocol has them."""
    body = said(u(), {"role": "assistant", "content": [tool_use("t1")]}, u([tool_result("t1", "no", is_error=True)]))
    response = rig.sent("claude", "gemini", body)["contents"][2]["parts"][0]["functionResponse"]["response"]
    assert response == {"error": "no"}
    assert rig.sent("claude", "gpt", body)["messages"][2]["content"] == "Error: no"
    output = rig.sent("claude", "responses", body)["input"][2]
    assert (output["output"], output["status"]) == ("Error: no", "incomplete")
    back = contents(
        g("user", {"text": "hi"}),
        g("model", {"functionCall": {"name": "a", "args": {}}}),
        g("user", {"functionResponse": {"name": "a", "response": {"error": "no"}}}),
    )
    [result] = rig.sent("gemini", "claude", back)["messages"][2]["content"]
    assert result["is_error"] is True


@row(72)
def text_results_to_gemini(rig: Rig) -> None:
    """Encoded once."""
    sent = rig.sent("chat", "gemini", said(u(), a(None, tool_calls=[call("c1")]), told("c1", "hi")))
    assert sent["contents"][2]["parts"][0]["functionResponse"]["response"] == {"output": "hi"}
    sent = rig.sent("chat", "gemini", said(u(), a(None, tool_calls=[call("c1")]), told("c1", '{"a":1}')))
    assert sent["contents"][2]["parts"][0]["functionResponse"]["response"] in (
        {"output": '{"a":1}'},
        {"output": {"a": 1}},
    )


@row(73)
def ids_with_dashes(rig: Rig) -> None:
    """Names come from the call."""
    body = said(u(), {"role": "assistant", "content": [tool_use("toolu_a-b-c")]}, u([tool_result("toolu_a-b-c")]))
    response = rig.sent("claude", "gemini", body)["contents"][2]["parts"][0]["functionResponse"]
    assert (response["name"], response["id"]) == ("f", "toolu_a-b-c")


@row(74)
def calls_by_the_user(rig: Rig) -> None:
    """Nobody may put words, or calls, into the model's mouth."""
    body = said(u([text("hi"), tool_use("t1", "rm")]), a("ok"), u("go"))
    for model in ("gpt", "gemini", "responses"):
        sent = json.dumps(rig.sent("claude", model, body))
        assert "tool_calls" not in sent
        assert "functionCall" not in sent
        assert '"function_call"' not in sent


@row(75)
def text_behind_a_call(rig: Rig) -> None:
    """Chat has no place for it there."""
    body = said(
        u(), {"role": "assistant", "content": [text("1"), tool_use("t1"), text("2")]}, u([tool_result("t1"), text("?")])
    )
    made = rig.sent("claude", "gpt", body)["messages"][1]
    assert made["content"].replace("\n", "") == "12"
    assert len(made["tool_calls"]) == 1
    assert "messages[1]" in rig.losses
    parts = rig.sent("claude", "gemini", body)["contents"][1]["parts"]
    assert [next(iter(part)) for part in parts] == ["text", "functionCall", "text"]
    sent = rig.sent("claude", "responses", body)["input"]
    assert [item["type"] for item in sent][1:4] == ["message", "function_call", "message"]
