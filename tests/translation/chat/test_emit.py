"""Requests for Chat providers (translation Part 2, 2.18)."""

import json
from typing import Any

import attrs
import pytest

from cpa.translation.chat import SPOKE
from cpa.translation.context import TranslationSettings
from cpa.translation.ir import (
    Authority,
    ChoiceMode,
    Compaction,
    Identity,
    Media,
    MediaKind,
    Native,
    OutputKind,
    OutputSpec,
    Provenance,
    Reasoning,
    ReasoningIntent,
    ReasoningMode,
    Refusal,
    Sampling,
    ServerCall,
    Sig,
    SigKind,
    StateSpec,
    SysBlock,
    Text,
    Tool,
    ToolChoice,
    ToolKind,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile, SamplingRule
from tests.translation.chat.support import (
    CHAT,
    CLAUDE,
    GEMINI,
    GPT,
    PNG,
    RESPONSES,
    VENDOR,
    assistant,
    call,
    context,
    custom_call,
    emit,
    emit_messages,
    lost,
    parse_with,
    request,
    result,
    system,
    through,
    user,
)

IMAGE = Media(media=MediaKind.IMAGE, mime="image/png", b64=PNG)
PNG_URL = f"data:image/png;base64,{PNG}"
SCHEMA = b'{"type":"object","properties":{"path":{"type":"string","minLength":1}},"required":["path"],"additionalProperties":false}'  # noqa: E501
LEVELS = Capability(kind=CapabilityKind.LEVEL, levels=("low", "medium", "high", "xhigh"))


def function(name: str = "f", **members: Any) -> Tool:
    return Tool(kind=ToolKind.FUNCTION, name=name, **{"origin": "claude", "schema": SCHEMA, **members})


def custom(name: str = "edit", **members: Any) -> Tool:
    return Tool(kind=ToolKind.CUSTOM, name=name, origin="openai-response", **members)


def test_the_worked_agent_request() -> None:
    """Appendix B, Claude Messages to Chat Completions."""
    sent = request(
        user("fix it"),
        assistant(
            Reasoning(texts=["look first"], sigs=[Sig(Provenance.CLAUDE, SigKind.THINKING, "EsClaudeSignature")]),
            Text(text="Reading."),
            call("toolu_01", "read", b'{"path":"a.py"}'),
        ),
        user(result("toolu_01", "no such file", is_error=True), "try b.py"),
        system=[SysBlock(text="You are a coder.", cache=b'{"type":"ephemeral"}')],
        tools=[function("read", description="Read a file")],
        tool_choice=ToolChoice(mode=ChoiceMode.AUTO),
        parallel=False,
        sampling=Sampling(max_out=4096),
        reasoning=ReasoningIntent(mode=ReasoningMode.LEVEL, level="high"),
        identity=Identity(end_user="u-1"),
    )
    ctx = context(CLAUDE, CHAT, profile=attrs.evolve(VENDOR, reasoning=LEVELS))
    assert emit(sent, ctx) == {
        "model": "provider-name",
        "max_completion_tokens": 4096,
        "reasoning_effort": "high",
        "safety_identifier": "u-1",
        "messages": [
            {"role": "system", "content": "You are a coder."},
            {"role": "user", "content": "fix it"},
            {
                "role": "assistant",
                "content": "Reading.",
                "tool_calls": [
                    {"id": "toolu_01", "type": "function", "function": {"name": "read", "arguments": '{"path":"a.py"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_01", "content": "Error: no such file"},
            {"role": "user", "content": "try b.py"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "read", "description": "Read a file", "parameters": json.loads(SCHEMA)},
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }
    assert lost(ctx) == ["system.cache_control", "messages[1]"]


# --- system text ---


def test_one_message_for_each_run_of_equal_authority() -> None:
    blocks = [
        SysBlock(text="a"),
        SysBlock(text="b"),
        SysBlock(text="c", authority=Authority.DEVELOPER),
        SysBlock(text=""),
    ]
    ctx = context(CLAUDE, CHAT, profile=attrs.evolve(VENDOR, system_role="developer"))
    assert emit_messages(user("hi"), ctx=ctx, system=blocks)[:2] == [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "developer", "content": "c"},
    ]


def test_developer_text_is_never_the_users() -> None:
    """Case 2."""
    found = emit_messages(user("hi"), system=[SysBlock(text="c", authority=Authority.DEVELOPER)])
    assert found[0] == {"role": "system", "content": "c"}


def test_system_text_in_mid_conversation_stays_in_place() -> None:
    """Cases 5 and 6."""
    found = emit_messages(user("a"), assistant("b"), system("c", IMAGE), user("d"))
    assert [message["role"] for message in found] == ["user", "assistant", "system", "user"]
    assert found[2]["content"] == [
        {"type": "text", "text": "c"},
        {"type": "text", "text": "[attachment not available to this model: image/png]"},
    ]


def test_system_text_alone_is_enough_and_nothing_is_not() -> None:
    assert emit(request(system=[SysBlock(text="a")], client=RESPONSES))["messages"][0]["content"] == "a"
    sent = request(client=RESPONSES)
    sent.turns = []
    with pytest.raises(Untranslatable):
        emit(sent)


# --- turns ---


def test_user_turns_are_not_merged() -> None:
    assert emit_messages(user("a"), user("b", "c")) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
    ]


def test_text_after_a_call_is_joined_before_it() -> None:
    """Case 75: blocks that follow each other are one text, others are apart."""
    ctx = context(CLAUDE, CHAT)
    found = emit_messages(assistant("a", "b", call("c1"), "c"), user(result("c1", "ok")), ctx=ctx)
    assert found[0]["content"] == "ab\n\nc"
    assert "messages[0]" in lost(ctx)


def test_results_follow_their_calls_in_their_order() -> None:
    """Cases 62 to 65."""
    found = emit_messages(
        assistant(call("a"), call("b"), call("x")),
        user("between"),
        user(result("b", "2"), result("a", "1"), result("zz", "orphan")),
    )
    assert [(m["role"], m.get("tool_call_id")) for m in found] == [
        ("assistant", None),
        ("tool", "a"),
        ("tool", "b"),
        ("tool", "x"),
        ("user", None),
        ("user", None),
    ]
    assert found[0]["content"] is None
    assert found[3]["content"] == "Error: No result was recorded for this tool call."
    assert "orphan" in found[5]["content"]


def test_media_of_results_become_the_users_after_the_group() -> None:
    """Case 28: a tool message holds text only."""
    found = emit_messages(
        assistant(call("a"), call("b")), user(result("a", "see", IMAGE), result("b", IMAGE), "and now?")
    )
    assert found[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "see"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "[media returned by tool call a]"},
                {"type": "image_url", "image_url": {"url": PNG_URL}},
                {"type": "text", "text": "[media returned by tool call b]"},
                {"type": "image_url", "image_url": {"url": PNG_URL}},
            ],
        },
        {"role": "user", "content": "and now?"},
    ]


def test_media_of_results_stay_where_the_host_takes_them() -> None:
    ctx = context(CLAUDE, CHAT, profile=ModelProfile(tool_result_media=True))
    sent = request(assistant(call("a")), user(result("a", "see", IMAGE)))
    assert emit(sent, ctx, valid=False)["messages"][1]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": PNG_URL}},
    ]


def test_a_stringified_list_of_images_is_media() -> None:
    """Case 31."""
    text = json.dumps([{"type": "input_image", "image_url": PNG_URL}])
    found = emit_messages(assistant(call("a")), user(result("a", text)), client=RESPONSES)
    assert found[1]["content"] == ""
    assert found[2]["content"][1]["image_url"] == {"url": PNG_URL}


def test_long_ids_are_mapped_on_both_sides() -> None:
    """Case 59."""
    found = emit_messages(assistant(call("x" * 41)), user(result("x" * 41, "ok")))
    call_id = found[0]["tool_calls"][0]["id"]
    assert call_id.startswith("call_")
    assert len(call_id) == 29
    assert found[1]["tool_call_id"] == call_id


def test_results_of_gemini_are_their_json() -> None:
    found = emit_messages(assistant(call("a")), user(result("a", json=b'{"x": [1]}')), client=GEMINI)
    assert found[1]["content"] == '{"x": [1]}'


def test_absent_arguments_are_an_empty_object() -> None:
    """Case 123, in the history."""
    found = emit_messages(assistant(call("a", args=b"")), user(result("a", "ok")))
    assert found[0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_images_of_the_assistant_are_shown_after_the_group() -> None:
    found = emit_messages(assistant(IMAGE, call("a")), user(result("a", "ok")), user("next"))
    assert [message["role"] for message in found] == ["assistant", "tool", "user", "user"]
    assert found[2]["content"][0]["text"] == "[shown earlier by the assistant]"


def test_refusals() -> None:
    vendor = context(RESPONSES, CHAT, profile=VENDOR)
    assert emit_messages(user("a"), assistant(Refusal(text="no")), ctx=vendor, client=RESPONSES)[1] == {
        "role": "assistant",
        "content": None,
        "refusal": "no",
    }
    assert emit_messages(user("a"), assistant(Refusal(text="no")), client=RESPONSES)[1] == {
        "role": "assistant",
        "content": "no",
    }


def test_steps_of_foreign_server_tools_become_text() -> None:
    raw = b'{"type":"web_search_call","action":{"type":"search","query":"cats"}}'
    step = ServerCall(kind="web_search", origin="openai-response", raw=raw)
    found = emit_messages(assistant(step, "Cats."), client=RESPONSES)
    assert found[0]["content"] == "[web search: cats]\n\nCats."


def test_what_nobody_understood_is_lost_unless_it_was_said_in_this_protocol() -> None:
    own = Native(origin="openai", raw=b'{"type":"future"}', inner=True)
    ctx = context(CHAT, CHAT)
    assert emit(request(user("a", own), client=CHAT), ctx, valid=False)["messages"][0]["content"][1] == {
        "type": "future"
    }
    ctx = context(CLAUDE, CHAT)
    foreign = Native(origin="claude", raw=b'{"type":"future"}')
    assert emit_messages(user("a", foreign), assistant(foreign), user("b"), ctx=ctx) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    assert lost(ctx) == ["messages[0]", "messages[1]"]


def test_compacted_history_is_read_or_refused() -> None:
    own = Compaction(origin="openai-response", data="x", text="we met")
    found = emit_messages(user(own, "go"), client=RESPONSES)
    assert found[0]["content"][0]["text"] == "Summary of earlier conversation: we met"
    with pytest.raises(Untranslatable):
        emit_messages(user(Compaction(origin="openai-response", data="x")), client=RESPONSES)


def test_reasoning_is_sent_where_the_host_wants_it_back() -> None:
    """2.10: for turns with calls, and nothing is made up."""
    turns = [
        user("q"),
        assistant(Reasoning(texts=["r1"]), "a"),
        user("q"),
        assistant(Reasoning(texts=["r2", "r3"]), call("a")),
        user(result("a", "ok")),
        assistant(call("b")),
        user(result("b", "ok")),
    ]
    echo = context(CLAUDE, CHAT, profile=ModelProfile(echo_reasoning=True, tool_result_media=False))
    found = emit(request(*turns), echo, valid=False)["messages"]
    assert [message.get("reasoning_content") for message in found if message["role"] == "assistant"] == [
        None,
        "r2\n\nr3",
        None,
    ]
    ctx = context(CLAUDE, CHAT)
    assert not any("reasoning_content" in message for message in emit_messages(*turns, ctx=ctx))
    assert lost(ctx) == ["messages[1]", "messages[3]"]


def test_reasoning_that_is_not_sent_still_parts_texts() -> None:
    """They were blocks of their own, not one text that was cut."""
    ctx = context(CLAUDE, CHAT)
    found = emit_messages(
        user("q"),
        assistant("a", Reasoning(texts=["r"]), "b"),
        user("q"),
        assistant(Reasoning(texts=["r"]), "a", Reasoning(), call("a")),
        user(result("a", "ok")),
        ctx=ctx,
    )
    assert [message["content"] for message in found if message["role"] == "assistant"] == ["a\n\nb", "a"]
    assert lost(ctx) == ["messages[1]", "messages[3]"]


def test_a_turn_of_nothing_but_reasoning_is_left_out() -> None:
    found = emit_messages(user("a"), assistant(Reasoning(sigs=[Sig(Provenance.OPENAI, SigKind.ENCRYPTED, GPT)])))
    assert found == [{"role": "user", "content": "a"}]


def test_a_prefill_is_dropped_where_the_model_takes_none() -> None:
    ctx = context(CLAUDE, CHAT, profile=ModelProfile(prefill=False))
    assert emit_messages(user("a"), assistant("b"), ctx=ctx) == [{"role": "user", "content": "a"}]
    assert emit_messages(user("a"), assistant("b"))[1]["content"] == "b"


def test_cache_markers_stay_with_hosts_of_clients_of_this_protocol() -> None:
    """2.13: other clients' markers are lost, and the vendor has none."""
    marker = {"type": "ephemeral"}
    part = {"type": "text", "text": "a", "cache_control": marker}
    body = {
        "messages": [
            {"role": "user", "content": [part]},
            {
                "role": "assistant",
                "content": [part],
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "b"}, part]},
        ]
    }
    assert through(body, context(CHAT, CHAT))["messages"] == body["messages"]
    ctx = context(CHAT, CHAT, profile=VENDOR)
    assert "cache_control" not in json.dumps(through(body, ctx))
    assert lost(ctx) == [f"messages[{place}].cache_control" for place in range(3)]


# --- media ---


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (IMAGE, {"type": "image_url", "image_url": {"url": PNG_URL}}),
        (
            Media(media=MediaKind.IMAGE, url="https://x/a.png", detail="original"),
            {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "original"}},
        ),
        (
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBERi0=", title="T.pdf"),
            {"type": "file", "file": {"filename": "T.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        ),
        (
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBERi0="),
            {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        ),
        (
            Media(media=MediaKind.FILE, file_id="file-1", issuer="openai-response"),
            {"type": "file", "file": {"file_id": "file-1"}},
        ),
        (
            Media(media=MediaKind.FILE, text="hello", name="notes.txt"),
            {"type": "text", "text": "[document: notes.txt]\nhello"},
        ),
        (
            Media(media=MediaKind.AUDIO, mime="audio/wav", b64="UklG"),
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        ),
    ],
)
def test_media(media: Media, expected: Any) -> None:
    ctx = context(GEMINI, CHAT, profile=VENDOR)
    [message] = emit_messages(user("see", media), ctx=ctx, client=GEMINI)
    assert message["content"][1] == expected
    assert lost(ctx) == []


@pytest.mark.parametrize(
    ("media", "what"),
    [
        (Media(media=MediaKind.FILE, url="https://x/a.pdf", mime="application/pdf"), "application/pdf"),
        (Media(media=MediaKind.FILE, file_id="file-1", issuer="claude"), "file"),
        (Media(media=MediaKind.IMAGE, file_id="file-1", issuer="openai-response"), "image"),
        (Media(media=MediaKind.AUDIO, mime="audio/flac", b64="AAAA"), "audio/flac"),
        (Media(media=MediaKind.VIDEO, mime="video/mp4", b64="AAAA"), "video/mp4"),
    ],
)
def test_media_that_cannot_be_sent_are_named(media: Media, what: str) -> None:
    """0.7 and case 33: never dropped in silence; refused when the operator wants that."""
    ctx = context(GEMINI, CHAT, profile=VENDOR)
    [message] = emit_messages(user("see", media), ctx=ctx, client=GEMINI)
    assert message["content"][1]["text"] == f"[attachment not available to this model: {what}]"
    assert lost(ctx) == ["messages[0]"]
    strict = context(GEMINI, CHAT, profile=VENDOR, settings=TranslationSettings(strict_content=True))
    with pytest.raises(Untranslatable):
        emit_messages(user("see", media), ctx=strict, client=GEMINI)


def test_what_compatible_hosts_take() -> None:
    """Case 32, and video."""
    [message] = emit(
        request(
            user(
                Media(media=MediaKind.IMAGE, url="https://x/a.png", detail="original"),
                Media(media=MediaKind.VIDEO, url="https://x/a.mp4"),
            )
        ),
        valid=False,
    )["messages"]
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "high"}},
        {"type": "video_url", "video_url": {"url": "https://x/a.mp4"}},
    ]


# --- tools ---


def test_schemas_are_copied_and_those_of_gemini_rewritten() -> None:
    openapi = b'{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true}}}'
    tools = [function("a"), function("b", schema=openapi, schema_openapi=True), function("c", schema=b"")]
    body = SPOKE.emit_request(request(tools=tools), context(CLAUDE, CHAT))
    assert SCHEMA in body
    found = [tool["function"]["parameters"] for tool in json.loads(body)["tools"]]
    assert found[1]["type"] == "object"
    assert found[1]["properties"]["type"]["type"] in (["string", "null"], "string")
    assert found[2] == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("tool", "strict"),
    [
        (function(strict=True), True),
        (function(strict=False), False),
        (function(), None),
        (function(origin="openai-response", schema=SCHEMA), True),
        (function(origin="openai-response", schema=b'{"type":"object","properties":{}}'), None),
    ],
)
def test_strict(tool: Tool, strict: bool | None) -> None:
    """2.6: absent means true in Responses and false here."""
    found = emit(request(tools=[tool]))["tools"][0]["function"]
    assert found.get("strict") is strict


def test_free_text_tools_are_the_vendors() -> None:
    grammar = b'{"type":"grammar","syntax":"lark","definition":"start: x"}'
    turns = [user("q"), assistant(custom_call("a", "edit", "free")), user(result("a", "ok"))]
    ctx = context(RESPONSES, CHAT, profile=VENDOR)
    tool = custom(description="d", grammar=grammar)
    found = emit(request(*turns, tools=[tool], client=RESPONSES), ctx)
    assert found["tools"] == [
        {
            "type": "custom",
            "custom": {
                "name": "edit",
                "description": "d",
                "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}},
            },
        }
    ]
    assert found["messages"][1]["tool_calls"] == [
        {"id": "a", "type": "custom", "custom": {"name": "edit", "input": "free"}}
    ]
    assert ctx.names.custom == set()


def test_free_text_tools_are_wrapped_for_compatible_hosts() -> None:
    turns = [user("q"), assistant(custom_call("a", "edit", "free")), user(result("a", "ok"))]
    ctx = context(RESPONSES, CHAT)
    found = emit(request(*turns, tools=[custom()], client=RESPONSES), ctx)
    assert found["tools"][0]["function"]["parameters"]["required"] == ["input"]
    assert found["messages"][1]["tool_calls"][0]["function"] == {"name": "edit", "arguments": '{"input":"free"}'}
    assert ctx.names.custom == {"edit"}


def test_names_are_mapped_everywhere() -> None:
    """Cases 43, 44 and 46."""
    long = "m" * 80
    tools = [function("a.b"), function("a_b"), function(long), function("log", namespace="git")]
    ctx = context(CLAUDE, CHAT)
    sent = request(
        user("q"),
        assistant(call("x", long)),
        user(result("x", "ok")),
        tools=tools,
        tool_choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", long)]),
    )
    found = emit(sent, ctx)
    names = [tool["function"]["name"] for tool in found["tools"]]
    assert names[1] == "a_b"
    assert len(names[2]) == 64
    assert names[3] == "git__log"
    assert len(set(names)) == 4
    assert found["tool_choice"]["function"]["name"] == names[2]
    assert found["messages"][1]["tool_calls"][0]["function"]["name"] == names[2]
    assert [ctx.names.to_client(name) for name in names] == [("", "a.b"), ("", "a_b"), ("", long), ("git", "log")]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(mode=ChoiceMode.NONE), "none"),
        (ToolChoice(mode=ChoiceMode.REQUIRED), "required"),
        (ToolChoice(mode=ChoiceMode.NAMED, names=[("", "f")]), {"type": "function", "function": {"name": "f"}}),
        (ToolChoice(mode=ChoiceMode.NAMED, names=[("", "edit")]), {"type": "custom", "custom": {"name": "edit"}}),
        (
            ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "f")]),
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        ),
    ],
)
def test_tool_choice(choice: ToolChoice, expected: Any) -> None:
    """Cases 36 and 37."""
    ctx = context(RESPONSES, CHAT, profile=VENDOR)
    tools = [function(), function("g"), custom()]
    assert emit(request(tools=tools, tool_choice=choice, client=RESPONSES), ctx)["tool_choice"] == expected


def test_a_subset_for_compatible_hosts_is_what_is_sent() -> None:
    choice = ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "g")], required=True)
    found = emit(request(tools=[function(), function("g")], tool_choice=choice, client=RESPONSES))
    assert [tool["function"]["name"] for tool in found["tools"]] == ["g"]
    assert found["tool_choice"] == "required"


def test_choice_and_parallel_calls_without_tools_are_left_out() -> None:
    """Case 41."""
    found = emit(request(tool_choice=ToolChoice(mode=ChoiceMode.AUTO), parallel=False))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & found.keys()


def test_a_choice_of_a_tool_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Untranslatable):
        emit(request(tools=[function()], tool_choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", "x")])))


def test_web_search_becomes_an_option_and_never_a_function() -> None:
    """Case 52."""
    config = b'{"type":"web_search_20250305","name":"web_search","max_uses":2,"user_location":{"type":"approximate","city":"Rome"}}'  # noqa: E501
    search = Tool(kind=ToolKind.SERVER, name="web_search", server="web_search", config=config, origin="claude")
    other = Tool(kind=ToolKind.SERVER, name="bash", server="other", config=b"{}", origin="claude")
    ctx = context(CLAUDE, CHAT, profile=VENDOR)
    found = emit(request(tools=[search, other]), ctx)
    assert "tools" not in found
    assert found["web_search_options"] == {"user_location": {"type": "approximate", "approximate": {"city": "Rome"}}}
    assert lost(ctx) == ["tools[0].max_uses", "tools[1]"]


def test_a_chosen_server_tool_without_counterpart_is_refused() -> None:
    tool = Tool(kind=ToolKind.SERVER, name="file_search", server="file_search", config=b"{}", origin="openai-response")
    choice = ToolChoice(mode=ChoiceMode.SERVER, names=[("", "file_search")])
    with pytest.raises(Untranslatable):
        emit(request(tools=[tool], tool_choice=choice, client=RESPONSES))


# --- members ---


def test_limits_are_spelled_for_the_host() -> None:
    sampling = Sampling(max_out=9, top_k=4)
    vendor = context(CLAUDE, CHAT, profile=VENDOR)
    assert emit(request(sampling=sampling), vendor)["max_completion_tokens"] == 9
    assert lost(vendor) == ["top_k"]
    found = emit(request(sampling=sampling), valid=False)
    assert (found["max_tokens"], found["top_k"]) == (9, 4)


@pytest.mark.parametrize(
    ("rule", "kept", "gone"),
    [
        (SamplingRule.ALL, {"temperature", "top_p"}, []),
        (SamplingRule.ONE_OF_TEMP_TOP_P, {"temperature"}, ["top_p"]),
        (SamplingRule.NONE, set(), ["temperature", "top_p"]),
    ],
)
def test_sampling_that_the_model_does_not_take(rule: SamplingRule, kept: set[str], gone: list[str]) -> None:
    ctx = context(CLAUDE, CHAT, profile=attrs.evolve(VENDOR, sampling=rule))
    found = emit(request(sampling=Sampling(temperature=0.5, top_p=0.9)), ctx)
    assert {"temperature", "top_p"} & found.keys() == kept
    assert lost(ctx) == gone


def test_sampling_of_gemini_and_responses() -> None:
    sampling = Sampling(seed=1, presence=0.5, frequency=0.25, n=2, logprobs=True, top_logprobs=3, stop=list("abcde"))
    ctx = context(GEMINI, CHAT, profile=VENDOR)
    found = emit(request(sampling=sampling, client=GEMINI), ctx)
    assert {name: found[name] for name in ("seed", "presence_penalty", "frequency_penalty", "n")} == {
        "seed": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "n": 2,
    }
    assert (found["logprobs"], found["top_logprobs"], found["stop"]) == (True, 3, list("abcd"))
    assert lost(ctx) == ["stop"]


def test_structured_output() -> None:
    """2.11: names are made, and strict is said of what can be."""
    spec = OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=b'{"title":"My Answer!","type":"object","properties":{}}')
    assert emit(request(output=spec))["response_format"] == {
        "type": "json_schema",
        "json_schema": {
            "name": "My_Answer_",
            "schema": {"title": "My Answer!", "type": "object", "properties": {}},
            "strict": False,
        },
    }
    spec = OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=SCHEMA)
    found = emit(request(output=spec))["response_format"]["json_schema"]
    assert (found["name"], found["strict"]) == ("response", True)
    found = emit(request(output=OutputSpec(kind=OutputKind.JSON_OBJECT, verbosity="low")))
    assert (found["response_format"], found["verbosity"]) == ({"type": "json_object"}, "low")


def test_a_list_of_values_becomes_a_hint() -> None:
    ctx = context(GEMINI, CHAT)
    spec = OutputSpec(kind=OutputKind.JSON_SCHEMA, enum_text=True, schema=b'{"type":"STRING","enum":["yes","no"]}')
    found = emit(request(output=spec, client=GEMINI), ctx)
    assert "response_format" not in found
    assert found["messages"][0]["role"] == "system"
    assert found["messages"][0]["content"].endswith("yes, no")
    assert lost(ctx) == ["generationConfig.responseMimeType"]


@pytest.mark.parametrize(
    ("mode", "level", "budget", "expected"),
    [
        (ReasoningMode.LEVEL, "high", 0, "high"),
        (ReasoningMode.LEVEL, "max", 0, "xhigh"),
        (ReasoningMode.BUDGET, "", 10_000, "high"),
        (ReasoningMode.OFF, "", 0, "none"),
        (ReasoningMode.AUTO, "", 0, None),
        (ReasoningMode.UNSET, "", 0, None),
    ],
)
def test_reasoning_effort(mode: ReasoningMode, level: str, budget: int, expected: str | None) -> None:
    ctx = context(CLAUDE, CHAT, profile=attrs.evolve(VENDOR, reasoning=LEVELS))
    sent = request(reasoning=ReasoningIntent(mode=mode, level=level, budget=budget))
    assert emit(sent, ctx).get("reasoning_effort") == expected


@pytest.mark.parametrize(
    ("tier", "vendor", "compatible"),
    [
        ("standard", "default", "default"),
        ("fast", "fast", "priority"),
        ("ultrafast", "fast", "priority"),
        ("flex", "flex", "flex"),
        ("", None, None),
    ],
)
def test_tier(tier: str, vendor: str | None, compatible: str | None) -> None:
    assert emit(request(tier=tier), context(RESPONSES, CHAT, profile=VENDOR)).get("service_tier") == vendor
    assert emit(request(tier=tier)).get("service_tier") == compatible


def test_identity() -> None:
    """2.14: long names are hashed; sessions go to the vendor."""
    identity = Identity(end_user="u" * 65, session="s", metadata=b'{"a":"b"}')
    found = emit(request(identity=identity), context(CLAUDE, CHAT, profile=VENDOR))
    assert len(found["safety_identifier"]) == 64
    assert found["safety_identifier"] != "u" * 64
    assert found["prompt_cache_key"] == "s"
    assert "metadata" not in found
    ctx = context(CLAUDE, CHAT)
    found = emit(request(identity=Identity(end_user="u", session="s")), ctx)
    assert found["user"] == "u"
    assert "prompt_cache_key" not in found
    assert lost(ctx) == ["metadata"]
    many = json.dumps({f"k{n}": "v" for n in range(17)}).encode()
    found = emit(request(identity=Identity(metadata=many), client=RESPONSES))
    assert len(found["metadata"]) == 16


def test_usage_is_always_asked_for_in_streams() -> None:
    """2.18: for the accounts."""
    sent = request()
    sent.stream = True
    found = emit(sent)
    assert (found["stream"], found["stream_options"]) == (True, {"include_usage": True})
    assert "stream_options" not in emit(request())


def test_members_of_other_protocols_are_lost_aloud() -> None:
    ctx = context(GEMINI, CHAT)
    sent = request(
        client=GEMINI,
        safety=b"[]",
        cache_hint=b"{}",
        output=OutputSpec(modalities=["TEXT", "AUDIO"], image=b"{}"),
        state=StateSpec(max_tool_calls=2),
        extras={"gemini": {"labels": b"{}"}},
    )
    emit(sent, ctx)
    assert sorted(lost(ctx)) == [
        "cache_control",
        "generationConfig.imageConfig",
        "labels",
        "max_tool_calls",
        "modalities",
        "safetySettings",
    ]


def test_cached_content_is_refused() -> None:
    with pytest.raises(Untranslatable) as caught:
        emit(request(client=GEMINI, extras={"gemini": {"cachedContent": b'"c"'}}))
    assert caught.value.param == "cachedContent"


def test_extras_of_the_own_protocol_go_where_they_are_taken() -> None:
    """Case 19, through the representation."""
    assert through({"messages": [{"role": "user", "content": "a"}], "foo": [1]})["foo"] == [1]
    ctx = context(CHAT, CHAT, profile=attrs.evolve(VENDOR, native_extras=False))
    assert "foo" not in through({"messages": [{"role": "user", "content": "a"}], "foo": [1]}, ctx)
    assert lost(ctx) == ["foo"]


def test_the_same_request_gives_the_same_bytes() -> None:
    """L5."""

    def once() -> bytes:
        ctx = context(CLAUDE, CHAT)
        sent = request(user("q"), assistant(call("", "a.b"), call("", "a.b")), user("x"), tools=[function("a.b")])
        return SPOKE.emit_request(sent, ctx)

    assert once() == once()


def test_parsed_requests_reach_the_vendor_as_they_were() -> None:
    ctx = context(CHAT, CHAT, profile=VENDOR)
    sent = parse_with(ctx, user="u", safety_identifier="s", stream_options={"include_obfuscation": False})
    found = emit(sent, ctx)
    assert (found["user"], found["safety_identifier"]) == ("u", "s")
    assert found["stream_options"] == {"include_obfuscation": False, "include_usage": True}
