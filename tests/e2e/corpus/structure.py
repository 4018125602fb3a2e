"""7.1: structure and system text, rows 1 to 22."""

import json

from tests.e2e.corpus.rig import WHOLE, Rig
from tests.e2e.corpus.table import a, call, contents, g, items, r_tool, row, said, text, told, u

EPHEMERAL = {"type": "ephemeral"}
WEEK = {"type": "ephemeral", "ttl": "1h"}


@row(1)
def developer_role_to_claude(rig: Rig) -> None:
    """Lost, or the user's, it would be a hole for injections."""
    sent = rig.sent("chat", "claude", said({"role": "developer", "content": "x"}, u()))
    assert sent["system"] == [text("x")]
    assert sent["messages"] == [u([text("hi")])]


@row(2)
def developer_to_chat(rig: Rig) -> None:
    """Never the user's."""
    sent = rig.sent("responses", "gpt", items({"role": "developer", "content": "x"}, u()))
    assert sent["messages"] == [{"role": "system", "content": "x"}, u()]


@row(3)
def system_only(rig: Rig) -> None:
    """The API needs a user's turn, with text in it."""
    sent = rig.sent("chat", "claude", said({"role": "system", "content": "be"}))
    assert sent["system"] == [text("be")]
    assert sent["messages"] == [u([text("Continue.")])]
    assert "messages" in rig.losses
    sent = rig.sent("chat", "gemini", said({"role": "system", "content": "be"}))
    assert sent["systemInstruction"]["parts"] == [{"text": "be"}]
    assert sent["contents"] == [g("user", {"text": "Continue."})]


@row(4)
def string_input(rig: Rig) -> None:
    """It is the request's only message."""
    assert rig.sent("responses", "claude", {"input": "hi"})["messages"] == [u([text("hi")])]
    assert rig.sent("responses", "gpt", {"input": "hi"})["messages"] == [u()]
    assert rig.sent("responses", "gemini", {"input": "hi"})["contents"] == [g("user", {"text": "hi"})]


@row(5)
def system_in_the_middle(rig: Rig) -> None:
    """Its authority is kept as far as that goes."""
    body = said({"role": "system", "content": "1"}, u("2"), a("3"), {"role": "system", "content": "4"}, u("5"))
    sent = rig.sent("chat", "claude", body)
    assert sent["system"] == [text("1")]
    reminder = text("<system-reminder>\n4\n</system-reminder>")
    assert sent["messages"] == [u([text("2")]), a([text("3")]), u([reminder, text("5")])]
    sent = rig.sent("chat", "claude-opus-5", body)
    assert {"role": "system", "content": [text("4")]} in sent["messages"]


@row(6)
def claudes_own_system_messages(rig: Rig) -> None:
    """In place; where that does not exist, wrapped."""
    body = said(u("1"), a("2"), {"role": "system", "content": "3"}, u("4"))
    sent = rig.sent("claude", "gpt", body)
    assert sent["messages"] == [u("1"), a("2"), {"role": "system", "content": "3"}, u("4")]
    sent = rig.sent("claude", "gemini", body)
    assert sent["contents"][2] == g("user", {"text": "<system-reminder>\n3\n</system-reminder>"}, {"text": "4"})


@row(7)
def cache_control_of_a_message(rig: Rig) -> None:
    """The API wants it on blocks: the last one."""
    message = {**u([{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]), "cache_control": EPHEMERAL}
    [turn] = rig.sent("chat", "claude", said(message))["messages"]
    assert turn["content"] == [text("1"), {**text("2"), "cache_control": EPHEMERAL}]


@row(8)
def a_part_with_its_own(rig: Rig) -> None:
    """It wins."""
    message = {**u([{"type": "text", "text": "1", "cache_control": WEEK}]), "cache_control": EPHEMERAL}
    [turn] = rig.sent("chat", "claude", said(message))["messages"]
    assert turn["content"] == [{**text("1"), "cache_control": WEEK}]


@row(9)
def five_breakpoints(rig: Rig) -> None:
    """The last four."""
    parts = [{"type": "text", "text": str(n), "cache_control": EPHEMERAL} for n in range(5)]
    [turn] = rig.sent("chat", "claude", said(u(parts)))["messages"]
    assert ["cache_control" in part for part in turn["content"]] == [False, True, True, True, True]


@row(10)
def long_after_short(rig: Rig) -> None:
    """A later 1h is none."""
    parts = [
        {"type": "text", "text": "1", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
        {"type": "text", "text": "2", "cache_control": WEEK},
    ]
    [turn] = rig.sent("chat", "claude", said(u(parts)))["messages"]
    assert turn["content"][1]["cache_control"].get("ttl", "5m") == "5m"


@row(11)
def billing_header(rig: Rig) -> None:
    """It leaks, and breaks prompt caches."""
    system = [text("x-anthropic-billing-header: cc_version=2"), text("be")]
    body = said(u(), system=system)
    for model in ("gpt", "responses", "gemini"):
        sent = json.dumps(rig.sent("claude", model, body))
        assert "billing" not in sent
        assert "be" in sent


@row(12)
def camel_and_snake(rig: Rig) -> None:
    """Both are proto JSON."""
    turn = g("user", {"text": "hi"})
    for body in (
        contents(turn, system_instruction={"parts": [{"text": "be"}]}, generation_config={"max_output_tokens": 77}),
        contents(turn, systemInstruction={"parts": [{"text": "be"}]}, generationConfig={"maxOutputTokens": 77}),
    ):
        sent = rig.sent("gemini", "claude", body)
        assert (sent["system"], sent["max_tokens"]) == ([text("be")], 77)


@row(13)
def gemini_leading_model_turn(rig: Rig) -> None:
    """Turns alternate, from the user on."""
    body = contents(g("model", {"text": "yo"}), g("user", {"text": "hi"}))
    sent = rig.sent("gemini", "claude", body)
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    assert all(part["text"].strip() for turn in sent["messages"] for part in turn["content"])
    sent = rig.sent("chat", "gemini", said(a("yo"), u()))
    assert [turn["role"] for turn in sent["contents"]] == ["user", "model", "user"]
    assert sent["contents"][0]["parts"] == [{"text": "…"}]


@row(14)
def trailing_prefill(rig: Rig) -> None:
    """Gemini and newer Claudes reject it; older ones take it."""
    body = said(u(), a("Sure"))
    assert rig.sent("chat", "gemini", body)["contents"] == [g("user", {"text": "hi"})]
    assert rig.losses
    assert rig.sent("chat", "claude-opus-4-6", body)["messages"] == [u([text("hi")])]
    assert rig.losses
    assert rig.sent("chat", "claude-sonnet-4-5", body)["messages"] == [u([text("hi")]), a([text("Sure")])]


@row(15)
def adjacent_users(rig: Rig) -> None:
    """One turn."""
    sent = rig.sent("chat", "claude", said(u("1"), u("2")))
    assert sent["messages"] == [u([text("1"), text("2")])]


@row(16)
def empty_text(rig: Rig) -> None:
    """The API rejects it."""
    sent = rig.sent("chat", "claude", said(u("1"), a("2"), u(""), u("3")))
    assert sent["messages"] == [u([text("1")]), a([text("2")]), u([text("3")])]
    sent = rig.sent("chat", "gemini", said(u("1"), a("2"), u(""), u("3")))
    assert sent["contents"][2] == g("user", {"text": "3"})


@row(17)
def no_content_but_calls(rig: Rig) -> None:
    """No empty text."""
    body = said(u(), a(None, tool_calls=[call("c1")]), told("c1"))
    [_, turn, _] = rig.sent("chat", "claude", body)["messages"]
    assert turn["content"] == [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]


@row(18)
def unknown_item(rig: Rig) -> None:
    """Tomorrow's clients are no bad requests."""
    for model in ("claude", "gpt", "gemini"):
        sent = rig.sent("responses", model, items({"type": "future_thing", "x": 1}, u()))
        assert "future" not in json.dumps(sent)
        assert "input[0]" in rig.losses


@row(19)
def unknown_member_at_home(rig: Rig) -> None:
    """Nothing is written anew."""
    body = b'{ "foo":1,\t"messages":[{"role":"user","content":"hi"}], "model":"mock-gpt" }'
    rig.provider.says(WHOLE["/chat/completions"], content_type="application/json")
    assert rig.ask("chat", "mock-gpt", body).status_code in (200, 400)
    aliased = body.replace(b"mock-gpt", b"gpt")
    assert rig.ask("chat", "gpt", aliased).status_code == 200
    assert rig.provider.requests[-1].body == body


@row(20)
def marks_and_halves(rig: Rig) -> None:
    """JavaScript cuts emoji in half."""
    body = b'\xef\xbb\xbf{"model":"%s","max_tokens":9,"messages":[{"role":"user","content":"a\\ud83d b"}]}'
    rig.answer_anything("claude")
    assert rig.ask("chat", "claude", body % b"claude").status_code == 200
    assert rig.asked().json["messages"] == [u([text("a\ufffd b")])]
    rig.answer_anything("gpt")
    assert rig.ask("chat", "gpt", body % b"gpt").status_code == 200
    assert rig.provider.requests[-1].body == body % b"mock-gpt"


@row(21)
def responses_body_at_the_chat_endpoint(rig: Rig) -> None:
    """Clients mix them up; who asked there is answered from there (proxy 1.6)."""
    rig.answer_anything("claude")
    answer = rig.ask("chat", "claude", {"model": "claude", "input": "hi", "instructions": "be"})
    assert answer.status_code == 200
    assert answer.json()["object"] == "chat.completion"
    sent = rig.asked().json
    assert (sent["system"], sent["messages"]) == ([text("be")], [u([text("hi")])])


@row(22)
def additional_tools(rig: Rig) -> None:
    """Behind the others, of which the first of a name counts."""
    more = {
        "type": "additional_tools",
        "role": "developer",
        "tools": [r_tool("f", {"type": "object", "properties": {"no": {}}}), r_tool("g")],
    }
    sent = rig.sent("responses", "claude", items(more, u(), tools=[r_tool("f")]))
    assert [tool["name"] for tool in sent["tools"]] == ["f", "g"]
    assert sent["tools"][0]["input_schema"]["properties"] == {}
