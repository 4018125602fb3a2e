"""7.4: schemas, sampling, reasoning, rows 76 to 105."""

import base64
import json
from typing import Any

import trio

from cpa.translation.profile import SchemaTier
from cpa.translation.schema import clean_gemini
from tests.e2e.corpus.rig import Rig, frames
from tests.e2e.corpus.table import a, a_tool, call, chat_tool, contents, g, items, row, said, told, u

FERNET = base64.urlsafe_b64encode(b"\x80" + b"\x00" * 72).decode()
"""What OpenAI's encrypted reasoning looks like."""
BYPASS = "skip_thought_signature_validator"


def enveloped(provenance: int, kind: int, payload: bytes, flags: int = 0) -> str:
    """Our own envelope (2.10)."""
    return base64.b64encode(b"\x00TSP1\x00" + bytes((provenance, kind, flags)) + payload).decode()


def claude_signature() -> str:
    """Of the form that Claude's have: a container, and other members behind it."""
    channel = b"\x08\x01" + b"\x32\x0aclaude-x-1" + b"\x12\x20" + b"s" * 32
    inner = b"\x0a" + bytes((len(channel),)) + channel
    return base64.b64encode(b"\x12" + bytes((len(inner),)) + inner + b"\x18\x01").decode()


def gemini_signature() -> str:
    """Of the form that Gemini's have: exactly one member in exactly one."""
    value = b"\x01" + b"v" * 40
    inner = b"\x0a" + bytes((len(value),)) + value
    return base64.b64encode(b"\x12" + bytes((len(inner),)) + inner).decode()


def declared(rig: Rig, schema: Any, model: str = "gemini") -> Any:
    """What a provider is told of a tool that takes *schema*."""
    [tool] = rig.sent("chat", model, said(u(), tools=[chat_tool("f", schema)]))["tools"]
    return tool["functionDeclarations"][0]["parametersJsonSchema"] if model == "gemini" else tool["input_schema"]


def openapi(schema: Any) -> Any:
    """The same at an older endpoint, which no model of ours has."""
    return json.loads(clean_gemini(json.dumps(schema).encode(), SchemaTier.OPENAPI))


@row(76)
def properties_with_names_of_keywords(rig: Rig) -> None:
    """They are data."""
    properties = {
        name: {"type": "string", "minLength": 1}
        for name in ("type", "format", "default", "properties", "title", "$ref")
    }
    found = declared(rig, {"type": "object", "properties": properties})
    assert set(found["properties"]) == set(properties)
    assert all(one["type"] == "string" for one in found["properties"].values())


@row(77)
def numeric_enums(rig: Rig) -> None:
    """The model must not answer "1" where 1 is wanted."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "enum": [1, 2]}}}
    found = openapi(schema)["properties"]["n"]
    assert (found["type"], found["description"]) == ("INTEGER", "(Allowed: 1, 2)")
    assert "enum" not in found
    assert declared(rig, schema)["properties"]["n"] == {"type": "integer", "enum": [1, 2]}


@row(78)
def nullable(rig: Rig) -> None:
    """Proto knows no lists of types."""
    schema = {"type": "object", "properties": {"s": {"type": ["string", "null"]}}}
    assert declared(rig, schema)["properties"]["s"] == {"type": ["string", "null"]}
    assert openapi(schema)["properties"]["s"] == {"type": "STRING", "nullable": True}


@row(79)
def trees(rig: Rig) -> None:
    """Cut where they begin again."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    found = openapi({"$ref": "#/$defs/tree", "$defs": {"tree": tree}})
    assert "$ref" not in json.dumps(found)
    assert "See: tree" in json.dumps(found)
    sent = declared(rig, {**tree, "$defs": {"tree": tree}})
    assert sent["properties"]["children"]["items"] == {"$ref": "#/$defs/tree"}


@row(80)
def bare_properties(rig: Rig) -> None:
    """Wrapped."""
    for model in ("gemini", "claude"):
        found = declared(rig, {"city": {"type": "string"}}, model)
        assert (found["type"], found["properties"]) == ("object", {"city": {"type": "string"}})


@row(81)
def required_in_draft_3(rig: Rig) -> None:
    """The parent says so now."""
    for model in ("gemini", "claude"):
        found = declared(rig, {"type": "object", "properties": {"a": {"type": "string", "required": True}}}, model)
        assert (found["properties"]["a"], found["required"]) == ({"type": "string"}, ["a"])


@row(82)
def unions_at_the_root(rig: Rig) -> None:
    """Claude rejects them."""
    one = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a", "b"]}
    other = {"type": "object", "properties": {"a": {"type": "string"}, "c": {"type": "string"}}, "required": ["a", "c"]}
    found = declared(rig, {"anyOf": [one, other]}, "claude")
    assert (found["type"], set(found["properties"]), found["required"]) == ("object", {"a", "b", "c"}, ["a"])
    assert "anyOf" not in found


@row(83)
def cleaned_twice(rig: Rig) -> None:
    """Nothing is added: schemas come by again with every turn."""
    schema = {"type": "object", "properties": {"s": {"type": "string", "minLength": 1, "pattern": "^a", "title": "T"}}}
    once = declared(rig, schema)
    assert once["properties"]["s"]["description"] == "(minLength: 1; pattern: ^a)"
    assert declared(rig, once) == once
    assert openapi(openapi(schema)) == openapi(schema)


@row(84)
def temperature_to_new_claudes(rig: Rig) -> None:
    """A 400."""
    sent = rig.sent("chat", "claude-opus-4-7", said(u(), temperature=0.7, top_p=0.5))
    assert not {"temperature", "top_p"} & sent.keys()
    assert "temperature" in rig.losses


@row(85)
def temperature_and_top_p(rig: Rig) -> None:
    """One of them."""
    sent = rig.sent("chat", "claude-sonnet-4-5", said(u(), temperature=1.5, top_p=0.5))
    assert sent["temperature"] == 1
    assert "top_p" not in sent
    assert rig.sent("chat", "claude-sonnet-4-5", said(u(), top_p=0.5))["top_p"] == 0.5


@row(86)
def stops_to_claude(rig: Rig) -> None:
    """None of white space."""
    assert rig.sent("chat", "claude", said(u(), stop=["\n", "END"]))["stop_sequences"] == ["END"]
    assert "stop" in rig.losses
    assert "stop_sequences" not in rig.sent("chat", "claude", said(u(), stop="\n"))
    assert rig.sent(
        "gemini", "gpt", contents(g("user", {"text": "x"}), generationConfig={"stopSequences": list("12345")})
    )["stop"] == list("1234")


@row(87)
def stops_that_the_provider_has_not(rig: Rig) -> None:
    """Found across the borders of chunks; the provider is sent home."""
    pieces = [
        {"type": "response.created", "response": {"id": "resp_1", "model": "m", "created_at": 5}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"id": "m1", "type": "message"}},
        *(
            {
                "type": "response.output_text.delta",
                "item_id": "m1",
                "output_index": 0,
                "content_index": 0,
                "delta": delta,
            }
            for delta in ("fo", "o E", "ND b")
        ),
    ]
    rig.provider.left = rig.run(_event)
    rig.provider.says(*(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces), held=True)
    answer = rig.ask("chat", "responses", said(u(), stop="END"), stream=True)
    found = frames(answer.text)
    choices = [frame["choices"][0] for frame in found if frame.get("choices")]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "foo "
    assert choices[-1]["finish_reason"] == "stop"
    assert found[-1] == {"done": True}
    rig.run(rig.provider.left.wait)


async def _event() -> Any:
    return trio.Event()


@row(88)
def no_limit(rig: Rig) -> None:
    """Claude wants one."""
    assert rig.sent("chat", "claude", said(u()))["max_tokens"] == 32000
    assert rig.sent("chat", "claude-opus-4-7", said(u()))["max_tokens"] == 64000


@row(89)
def budget_beyond_the_limit(rig: Rig) -> None:
    """Which the client has set."""
    sent = rig.sent("chat", "claude-sonnet-4-5", said(u(), reasoning_effort="high", max_tokens=8000))
    assert (sent["thinking"], sent["max_tokens"]) == ({"type": "enabled", "budget_tokens": 7999}, 8000)


@row(90)
def suffix_beats_body(rig: Rig) -> None:
    """Precedence."""
    sent = rig.sent("chat", "claude-opus-4-7(low)", said(u(), reasoning_effort="high"))
    assert (sent["model"], sent["output_config"]["effort"]) == ("claude-opus-4-7", "low")


@row(91)
def unknown_suffix(rig: Rig) -> None:
    """Never sent to a provider."""
    sent = rig.sent("chat", "claude-opus-4-7(32k)", said(u()))
    assert sent["model"] == "claude-opus-4-7"
    assert not {"thinking", "output_config"} & sent.keys()


@row(92)
def adaptive_to_gemini(rig: Rig) -> None:
    """The model decides; that is not the maximum."""
    sent = rig.sent("claude", "gemini-2.5-pro", said(u(), thinking={"type": "adaptive"}))
    assert sent["generationConfig"]["thinkingConfig"]["thinkingBudget"] == -1


@row(93)
def xhigh_of_those_that_have_max(rig: Rig) -> None:
    """The intent's order."""
    sent = rig.sent("chat", "claude-opus-4-6", said(u(), reasoning_effort="xhigh"))
    assert (sent["thinking"]["type"], sent["output_config"]["effort"]) == ("adaptive", "max")


@row(94)
def nothing_is_invented_at_home(rig: Rig) -> None:
    """Byte for byte."""
    body = b'{"model":"responses", "input" : "hi","reasoning":{"effort":"low"}}'
    rig.answer_anything("responses", home=True)
    assert rig.ask("responses", "responses", body).status_code == 200
    assert rig.provider.requests[-1].body == body.replace(b'"responses"', b'"mock-responses"')


def _signed(detail: dict[str, Any], **more: Any) -> dict[str, Any]:
    details = [{"type": "reasoning.text", "index": 0, "text": "hm", **detail}]
    return said(
        u(), a(None, tool_calls=[call("c1")], reasoning_details=details), told("c1"), tools=[chat_tool()], **more
    )


@row(95)
def claudes_signature_through_chat(rig: Rig) -> None:
    """The tool loop goes on thinking."""
    sent = rig.sent("chat", "claude-opus-4-6", _signed({"signature": claude_signature()}))
    thinking, made = sent["messages"][1]["content"]
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": claude_signature()}
    assert made["type"] == "tool_use"


def _thought(signature: str) -> dict[str, Any]:
    block = {"type": "thinking", "thinking": "hm", "signature": signature}
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "done"}
    return said(u(), {"role": "assistant", "content": [block, use]}, u([result]), tools=[a_tool()])


@row(96)
def geminis_signature_to_claude(rig: Rig) -> None:
    """Dropped: foreign signatures are a 400. And it goes back to Gemini as it was."""
    wrapped = enveloped(2, 1, gemini_signature().encode())
    details = _signed({"signature": wrapped})
    sent = rig.sent("chat", "claude", details)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["tool_use"]
    body = _thought(enveloped(2, 5, gemini_signature().encode()))
    body["messages"][1]["content"][0]["thinking"] = ""
    sent = rig.sent("claude", "gemini", body)
    [part] = [part for part in sent["contents"][1]["parts"] if "functionCall" in part]
    assert part["thoughtSignature"] == gemini_signature()
    assert "AFRTUDEA" not in json.dumps(sent)


@row(97)
def claudes_signature_to_gemini(rig: Rig) -> None:
    """Gemini 3 wants one on the first call of the loop that runs."""
    use = [{"type": "tool_use", "id": f"t{n}", "name": "f", "input": {}} for n in range(4)]
    results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "done"} for n in range(4)]
    block = {"type": "thinking", "thinking": "hm", "signature": claude_signature()}
    body = said(
        u("1"),
        {"role": "assistant", "content": [block, use[0]]},
        u([results[0]]),
        a("done"),
        u("2"),
        {"role": "assistant", "content": [block, *use[1:3]]},
        u(results[1:3]),
        {"role": "assistant", "content": use[3:]},
        u(results[3:]),
        tools=[a_tool()],
    )
    sent = rig.sent("claude", "gemini-3-flash", body)["contents"]
    signed = [
        [part.get("thoughtSignature") for part in turn["parts"] if "functionCall" in part]
        for turn in sent
        if turn["role"] == "model"
    ]
    assert signed == [[None], [], [BYPASS, None], [BYPASS]]
    assert "hm" not in json.dumps(sent)


@row(98)
def forged_envelopes(rig: Rig) -> None:
    """Input is hostile."""
    for forged in (
        "AFRTUDEA",
        "AFRTUDEA!!!!",
        enveloped(9, 1, b"x"),
        enveloped(1, 99, b"x"),
        enveloped(3, 3, b"\xff\xfe", 255),
        enveloped(1, 1, b"\x00" * 100, 1),
        enveloped(2, 5, b"#"),
        "A" * 100_000,
    ):
        for model in ("claude", "gpt", "responses", "gemini"):
            for client, body in (
                ("claude", _thought(forged)),
                ("responses", items(u(), {"type": "reasoning", "summary": [], "encrypted_content": forged}, u())),
                ("chat", _signed({"signature": forged})),
            ):
                assert "AFRTUDEA" not in json.dumps(rig.sent(client, model, body))


@row(99)
def encrypted_reasoning_to_claude(rig: Rig) -> None:
    """Dropped."""
    body = items(u(), {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": FERNET}, a("ok"), u())
    sent = rig.sent("responses", "claude", body)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["text"]


@row(100)
def thinking_on_an_unsigned_history(rig: Rig) -> None:
    """The API would refuse it."""
    body = said(u(), a(None, tool_calls=[call("c1")]), told("c1"), tools=[chat_tool()], reasoning_effort="high")
    assert rig.sent("chat", "claude-sonnet-4-5", body)["thinking"] == {"type": "disabled"}
    assert rig.losses
    assert rig.sent("chat", "claude-opus-4-7", body)["thinking"]["type"] == "adaptive"


@row(101)
def reasoning_of_what_was_repaired_away(rig: Rig) -> None:
    """A reasoning item wants the item that it led to."""
    details = [{"type": "reasoning.encrypted", "index": 0, "data": FERNET, "format": "openai-responses-v1"}]
    kept = said(u(), a(None, tool_calls=[call("c1")], reasoning_details=details), told("c1"))
    sent = rig.sent("chat", "responses", kept)["input"]
    assert [item["type"] for item in sent] == ["message", "reasoning", "function_call", "function_call_output"]
    alone = said(u(), a("", reasoning_details=details), u("?"))
    sent = rig.sent("chat", "responses", alone)["input"]
    assert "reasoning" not in [item["type"] for item in sent]


@row(102)
def empty_summaries(rig: Rig) -> None:
    """Present all the same."""
    details = [{"type": "reasoning.encrypted", "index": 0, "data": FERNET}]
    body = said(u(), a("ok", reasoning_details=details), u("?"))
    [item] = [item for item in rig.sent("chat", "responses", body)["input"] if item["type"] == "reasoning"]
    assert (item["summary"], item["encrypted_content"]) == ([], FERNET)
    assert "id" not in item


@row(103)
def two_answers_of_claude(rig: Rig) -> None:
    """There is only one."""
    error = rig.refused("chat", "claude", said(u(), n=2))
    assert (error["param"], error["code"], error["type"]) == ("n", "unsupported_parameter", "invalid_request_error")
    body = contents(g("user", {"text": "hi"}), generationConfig={"candidateCount": 2})
    assert rig.refused("gemini", "claude", body)["status"] == "INVALID_ARGUMENT"
    assert rig.sent("gemini", "gpt", body)["n"] == 2


@row(104)
def structured_output_of_claude(rig: Rig) -> None:
    """As the vendor's own SDK writes it."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 2}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    found = rig.sent("chat", "claude", said(u(), response_format=wanted))["output_config"]["format"]
    assert (found["type"], found["schema"]["additionalProperties"]) == ("json_schema", False)
    assert found["schema"]["properties"]["a"]["type"] == "string"
    assert "minLength" in found["schema"]["properties"]["a"]["description"]
    assert "minLength" not in found["schema"]["properties"]["a"]
    sent = rig.sent("chat", "gemini", said(u(), response_format=wanted))["generationConfig"]
    assert sent["responseMimeType"] == "application/json"
    assert rig.sent("chat", "responses", said(u(), response_format=wanted))["text"]["format"]["name"] == "x"


@row(105)
def unknown_answers(rig: Rig) -> None:
    """A history is never lost in silence."""
    for model in ("claude", "gpt", "gemini"):
        error = rig.refused("responses", model, items(u(), previous_response_id="resp_nobody"))
        assert error["code"] == "previous_response_not_found"
