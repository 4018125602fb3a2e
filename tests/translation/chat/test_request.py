"""A Chat client's request as it is read (translation Part 2)."""

import json
from typing import Any

import pytest

from cpa.errors import MalformedRequest
from cpa.translation.ir import (
    Authority,
    Call,
    Channel,
    ChoiceMode,
    IRRequest,
    Media,
    MediaKind,
    Native,
    OutputKind,
    Provenance,
    Reasoning,
    ReasoningMode,
    Refusal,
    Result,
    Role,
    Shape,
    Sig,
    SigKind,
    SysBlock,
    Text,
    ToolKind,
    Turn,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.signatures import wrap
from tests.translation.chat.support import (
    CHAT,
    GPT,
    PNG,
    context,
    lost,
    parse,
    parse_messages,
    parse_parts,
    parse_with,
)

USER = {"role": "user", "content": "hi"}


# --- messages and system text ---


def test_leading_system_text_is_the_requests_and_later_text_a_turn() -> None:
    """Cases 1, 2, 5: the operator's authority is kept, in either spelling."""
    found = parse_messages(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
        USER,
        {"role": "developer", "content": "d"},
    )
    assert found.system == [
        SysBlock(text="a"),
        SysBlock(text="b", authority=Authority.DEVELOPER),
        SysBlock(text="c", authority=Authority.DEVELOPER),
    ]
    assert found.turns == [
        Turn(role=Role.USER, parts=[Text(text="hi")]),
        Turn(role=Role.SYSTEM, parts=[Text(text="d")], authority=Authority.DEVELOPER),
    ]


def test_parsers_do_not_merge_and_keep_names() -> None:
    found = parse_messages({"role": "user", "content": "a", "name": "ann"}, {"role": "user", "content": "b"})
    assert [(turn.name, turn.parts) for turn in found.turns] == [("ann", [Text(text="a")]), ("", [Text(text="b")])]


def test_an_assistants_turn_holds_reasoning_text_and_calls_without_an_order() -> None:
    found = parse_messages(
        USER,
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hmm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "free"}},
            ],
        },
    )
    turn = found.turns[1]
    assert not turn.ordered
    assert turn.parts == [
        Reasoning(texts=["hmm"], channel=Channel.RAW),
        Text(text="I look."),
        Call(call_id="c1", name="f", args=b'{"a": 1}', args_text=True),
        Call(call_id="c2", name="g", args=b"free", args_text=True, shape=Shape.TEXT),
    ]


@pytest.mark.parametrize("content", [None, ""])
def test_no_text_beside_calls_is_no_part(content: str | None) -> None:
    """Case 17."""
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]
    found = parse_messages(USER, {"role": "assistant", "content": content, "tool_calls": calls})
    assert found.turns[1].parts == [Call(call_id="c1", name="f", args_text=True)]


@pytest.mark.parametrize(
    ("arguments", "args"),
    [
        ('"{bad"', b"{bad"),
        ('""', b""),
        ("null", b""),
        ('{"id":12345678901234567890123}', b'{"id":12345678901234567890123}'),
        ('"{\\"id\\":12345678901234567890123}"', b'{"id":12345678901234567890123}'),
    ],
)
def test_arguments_are_kept_as_they_were_written(arguments: str, args: bytes) -> None:
    """Cases 54 to 57: nothing is decoded, digits stay."""
    body = (
        '{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function",'
        f'"function":{{"name":"f","arguments":{arguments}}}}}]}}]}}'
    )
    [part] = parse(body.encode()).turns[0].parts
    assert part == Call(call_id="c", name="f", args=args, args_text=True)


def test_results_in_both_spellings() -> None:
    found = parse_messages(
        USER,
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "old"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "new"}]},
    )
    assert found.turns[1].parts == [Call(call_id="", name="f", args=b"{}", args_text=True)]
    assert found.turns[2].parts == [
        Result(call_id="", name="f", parts=[Text(text="old")]),
        Result(call_id="c1", parts=[Text(text="new")]),
    ]


def test_refusal_audio_and_images_of_the_assistant() -> None:
    found = parse_messages(
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "audio": {"id": "audio_1"},
            "images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}],
        }
    )
    assert found.turns[0].parts == [
        Refusal(text="no"),
        Media(media=MediaKind.IMAGE, mime="image/png", b64=PNG),
        Media(media=MediaKind.AUDIO, file_id="audio_1", issuer="openai"),
    ]


# --- cache markers ---


def test_a_messages_marker_goes_to_its_last_part_unless_that_has_one() -> None:
    """Cases 7 and 8."""
    short, long = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    [turn] = parse_messages({"role": "user", "content": parts, "cache_control": short}).turns
    assert [json.loads(part.cache or b"null") for part in turn.parts if isinstance(part, Text)] == [None, short]
    parts[1]["cache_control"] = long  # type: ignore[assignment]
    [turn] = parse_messages({"role": "user", "content": parts, "cache_control": short}).turns
    assert [json.loads(part.cache or b"null") for part in turn.parts if isinstance(part, Text)] == [None, long]


# --- content parts ---


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}", "detail": "high"}},
            Media(media=MediaKind.IMAGE, mime="image/jpeg", b64=PNG, detail="high"),
        ),
        (
            {"type": "image_url", "image_url": {"url": f"data:;base64,{PNG}"}},
            Media(media=MediaKind.IMAGE, mime="image/png", b64=PNG),
        ),
        (
            {"type": "image_url", "image_url": "https://x/a.webp?v=1"},
            Media(media=MediaKind.IMAGE, mime="image/webp", url="https://x/a.webp?v=1"),
        ),
        (
            {"type": "input_image", "image_url": "https://x/a.png", "detail": "low"},
            Media(media=MediaKind.IMAGE, mime="image/png", url="https://x/a.png", detail="low"),
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0="}},
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBERi0=", name="a.pdf"),
        ),
        (
            {"type": "file", "file": {"filename": "a", "file_data": "data:application/pdf;base64,JVBERi0="}},
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBERi0=", name="a"),
        ),
        (
            {"type": "file", "file": {"file_id": "file-1"}},
            Media(media=MediaKind.FILE, file_id="file-1", issuer="openai"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}},
            Media(media=MediaKind.AUDIO, mime="audio/mpeg", b64="UklG"),
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://x/a.mp4"}},
            Media(media=MediaKind.VIDEO, mime="video/mp4", url="https://x/a.mp4"),
        ),
        ({"type": "input_text", "text": "a"}, Text(text="a")),
        ({"text": "a"}, Text(text="a")),
        ({"type": "refusal", "refusal": "no"}, Refusal(text="no")),
    ],
)
def test_content_parts(part: Any, expected: Any) -> None:
    """Cases 23 and 25, and what clients mix up."""
    assert parse_parts(part) == [expected]


def test_an_unknown_part_goes_to_the_same_protocol_only() -> None:
    """Case 18: never an error."""
    part = {"type": "future_thing", "x": [1, 2]}
    ctx = context()
    assert parse_parts({"type": "text", "text": "a"}, part, ctx=ctx) == [Text(text="a")]
    assert lost(ctx) == ["messages[0].content[1]"]
    [found] = parse_parts(part, ctx=context(CHAT, CHAT))
    assert isinstance(found, Native)
    assert (found.origin, found.inner, json.loads(found.raw)) == ("openai", True, part)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "wizard", "content": "a"}], "messages[0].role"),
        ([{"content": "a"}], "messages[0].role"),
        ([5], "messages[0]"),
        ([{"role": "user", "content": 5}, 5], "messages[1]"),
        ([{"role": "user", "content": {"a": 1}}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].input_audio.data"),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], "messages[0].content[0].file"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages[0].tool_calls[0].function.name"),
        ([{"role": "assistant", "tool_calls": [{"type": "custom"}]}], "messages[0].tool_calls[0].custom.name"),
        ([{"role": "assistant", "function_call": {}}], "messages[0].function_call.name"),
    ],
)
def test_messages_that_say_nothing_are_the_clients_fault(messages: Any, param: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        parse({"messages": messages})
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b"\xff\xfe", b'{"messages"', b'"x"', b"null"])
def test_what_is_no_object_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse(body)


@pytest.mark.parametrize("messages", [None, {}, "a", 5, []])
def test_messages_have_to_be_a_list(messages: Any) -> None:
    with pytest.raises(MalformedRequest) as caught:
        parse({"messages": messages})
    assert caught.value.param == "messages"


def test_a_byte_order_mark_and_half_an_emoji_are_repaired() -> None:
    """Case 20: clients of JavaScript cut emoji in two."""
    body = b'\xef\xbb\xbf{"messages":[{"role":"user","content":"a\\ud83d"}],"x":1}'
    found = parse(body, context(CHAT, CHAT))
    assert found.turns[0].parts == [Text(text="a\ufffd")]
    assert found.extras == {"openai": {"x": b"1"}}


def test_one_odd_member_costs_no_other() -> None:
    found = parse({"messages": [{"role": "user", "content": "a", "name": 5, "tool_calls": "x"}], "foo": 1})
    assert found.turns == [Turn(role=Role.USER, parts=[Text(text="a")])]


# --- reasoning that comes back ---


def test_signed_reasoning_of_claude() -> None:
    """Case 95: bare data with its format, or an envelope."""
    wrapped = wrap(Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EsSig"))
    for detail in (
        {"type": "reasoning.text", "text": "t", "signature": "EsSig", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": "t", "signature": wrapped, "index": 0},
    ):
        found = parse_messages(USER, {"role": "assistant", "content": "a", "reasoning_details": [detail]})
        sig = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EsSig")
        assert found.turns[1].parts == [Reasoning(texts=["t"], sigs=[sig]), Text(text="a")]


def test_encrypted_reasoning_belongs_to_the_summary_before_it() -> None:
    details = [
        {"type": "reasoning.summary", "summary": "s1", "index": 0},
        {"type": "reasoning.summary", "summary": "s2", "index": 1},
        {"type": "reasoning.encrypted", "data": GPT, "format": "openai-responses-v1", "index": 2},
        {"type": "reasoning.encrypted", "data": "EsRedacted", "format": "anthropic-claude-v1", "index": 3},
    ]
    found = parse_messages({"role": "assistant", "content": "a", "reasoning_details": details})
    encrypted = Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data=GPT)
    redacted = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="EsRedacted")
    assert found.turns[0].parts == [
        Reasoning(texts=["s1", "s2"], sigs=[encrypted]),
        Reasoning(sigs=[redacted], redacted=True),
        Text(text="a"),
    ]


def test_details_say_what_the_plain_member_repeats() -> None:
    details = [{"type": "reasoning.text", "text": "t", "signature": "EsSig", "format": "anthropic-claude-v1"}]
    message = {"role": "assistant", "content": "a", "reasoning_content": "t", "reasoning_details": details}
    [reasoning, _] = parse_messages(message).turns[0].parts
    assert isinstance(reasoning, Reasoning)
    assert reasoning.texts == ["t"]


def test_signatures_of_calls_and_text() -> None:
    text_sig = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", preceding=True)
    found = parse_messages(
        {
            "role": "assistant",
            "content": "a",
            "reasoning_details": [{"type": "reasoning.encrypted", "data": wrap(text_sig), "index": 0}],
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "Q0FGRQ=="}},
                }
            ],
        }
    )
    text, called = found.turns[0].parts
    assert isinstance(text, Text)
    assert isinstance(called, Call)
    assert text.sigs == [text_sig]
    assert called.sigs == [Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", of_call=True)]


@pytest.mark.parametrize("data", ["AFRTUDEA", "AFRTUDEA????", wrap(Sig(Provenance.GEMINI, SigKind.PART, "x"))[:-3]])
def test_forged_envelopes_do_no_harm(data: str) -> None:
    """Case 98."""
    details = [{"type": "reasoning.encrypted", "data": data, "index": 0}]
    found = parse_messages({"role": "assistant", "content": "a", "reasoning_details": details})
    assert found.turns[0].parts == [Text(text="a")]


# --- tools ---


def test_tools_of_all_kinds() -> None:
    found = parse_with(
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}, "strict": True}},
            {
                "type": "custom",
                "custom": {
                    "name": "g",
                    "description": "e",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}},
                },
            },
            {"type": "function", "name": "flat", "parameters": None},
        ],
        functions=[{"name": "old", "parameters": {}}],
        web_search_options={"search_context_size": "low"},
    )
    assert [(tool.kind, tool.name, tool.description, tool.strict) for tool in found.tools] == [
        (ToolKind.FUNCTION, "f", "d", True),
        (ToolKind.CUSTOM, "g", "e", None),
        (ToolKind.FUNCTION, "flat", "", None),
        (ToolKind.FUNCTION, "old", "", None),
        (ToolKind.SERVER, "web_search", "", None),
    ]
    assert json.loads(found.tools[0].schema) == {"a": 1}
    assert json.loads(found.tools[1].grammar) == {"type": "grammar", "syntax": "lark", "definition": "x"}
    assert found.tools[2].schema == b""
    assert found.tools[4].server == "web_search"
    assert not found.legacy_functions


def test_only_legacy_functions_make_a_legacy_client() -> None:
    found = parse_with(functions=[{"name": "old"}], function_call={"name": "old"})
    assert found.legacy_functions
    assert found.tool_choice is not None
    assert (found.tool_choice.mode, found.tool_choice.names) == (ChoiceMode.NAMED, [("", "old")])


@pytest.mark.parametrize(
    ("choice", "mode", "names", "required", "custom"),
    [
        ("auto", ChoiceMode.AUTO, [], False, False),
        ("none", ChoiceMode.NONE, [], False, False),
        ("required", ChoiceMode.REQUIRED, [], False, False),
        ({"type": "function", "function": {"name": "f"}}, ChoiceMode.NAMED, [("", "f")], False, False),
        ({"type": "function", "name": "f"}, ChoiceMode.NAMED, [("", "f")], False, False),
        ({"type": "custom", "custom": {"name": "f"}}, ChoiceMode.NAMED, [("", "f")], False, True),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            ChoiceMode.SUBSET,
            [("", "f")],
            True,
            False,
        ),
    ],
)
def test_tool_choice(choice: Any, mode: ChoiceMode, names: Any, required: bool, custom: bool) -> None:
    """2.7, and a choice in the shape of Responses."""
    found = parse_with(tool_choice=choice).tool_choice
    assert found is not None
    assert (found.mode, found.names, found.required, found.custom) == (mode, names, required, custom)


def test_an_unknown_tool_goes_to_the_same_protocol_only() -> None:
    ctx = context()
    assert parse_with(ctx, tools=[{"type": "magic", "x": 1}]).tools == []
    assert lost(ctx) == ["tools[0]"]
    [kept] = parse_with(context(CHAT, CHAT), tools=[{"type": "magic", "x": 1}]).tools
    assert (kept.kind, json.loads(kept.config)) == (ToolKind.SERVER, {"type": "magic", "x": 1})


# --- members ---


def test_sampling_and_limits() -> None:
    found = parse_with(
        max_tokens=5,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=1,
        top_k=40,
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        logit_bias={"1": 2},
        stop="END",
        n=2,
        logprobs=True,
        top_logprobs=4,
    ).sampling
    assert (found.max_out, found.temperature, found.top_p, found.top_k, found.seed) == (7, 0.5, 1, 40, 3)
    assert (found.presence, found.frequency, found.logit_bias) == (0.1, -0.1, b'{"1": 2}')
    assert (found.stop, found.n, found.logprobs, found.top_logprobs) == (["END"], 2, True, 4)


def test_empty_stop_sequences_are_none() -> None:
    assert parse_with(stop=["", "a", ""]).sampling.stop == ["a"]
    assert parse_with(stop="").sampling.stop == []
    assert parse_with(stop=None).sampling.stop == []


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ({"type": "text"}, OutputKind.TEXT),
        ({"type": "json_object"}, OutputKind.JSON_OBJECT),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}, OutputKind.JSON_SCHEMA),
        ({"type": "json_schema"}, OutputKind.JSON_OBJECT),
    ],
)
def test_response_format(form: Any, kind: OutputKind) -> None:
    assert parse_with(response_format=form).output.kind is kind


def test_a_schema_is_kept_as_text() -> None:
    spec = {"name": "n", "description": "d", "schema": {"a": 1}, "strict": False}
    found = parse_with(response_format={"type": "json_schema", "json_schema": spec}).output
    assert (found.name, found.description, found.schema, found.strict) == ("n", "d", b'{"a": 1}', False)


def test_identity_tier_and_state() -> None:
    found = parse_with(
        user="u", safety_identifier="s", prompt_cache_key="k", metadata={"a": "b"}, service_tier="scale", store=True
    )
    assert (found.identity.end_user, found.identity.cache_key) == ("s", "k")
    assert json.loads(found.identity.metadata) == {"a": "b"}
    assert (found.tier, found.state.store) == ("priority", True)
    assert parse_with(user="u").identity.end_user == "u"


def test_an_unknown_tier_is_lost() -> None:
    ctx = context()
    assert parse_with(ctx, service_tier="gold").tier == ""
    assert lost(ctx) == ["service_tier"]


@pytest.mark.parametrize(("options", "expected"), [(None, None), ({"include_usage": True}, True), ({}, None)])
def test_whether_usage_is_wanted(options: Any, expected: bool | None) -> None:
    assert parse_with(stream_options=options).include_usage is expected


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("temperature", "hot"),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("n", 0),
        ("stop", {"a": 1}),
        ("stop", [1]),
        ("tools", {}),
        ("tool_choice", "maybe"),
        ("tool_choice", 5),
        ("tool_choice", {"type": "function"}),
        ("response_format", "json"),
        ("parallel_tool_calls", "yes"),
        ("metadata", []),
        ("user", 5),
        ("modalities", "text"),
        ("reasoning_effort", "huge"),
        ("reasoning_effort", 5),
    ],
)
def test_members_of_the_wrong_type_are_named(member: str, value: Any) -> None:
    with pytest.raises(MalformedRequest) as caught:
        parse_with(**{member: value})
    assert (caught.value.param or "").startswith(member)


# --- reasoning intent ---


def mode_of(request: IRRequest) -> tuple[ReasoningMode, str, int, bool | None]:
    intent = request.reasoning
    return intent.mode, intent.level, intent.budget, intent.visible


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, (ReasoningMode.UNSET, "", 0, None)),
        ({"reasoning_effort": "none"}, (ReasoningMode.OFF, "", 0, None)),
        ({"reasoning_effort": "XHigh"}, (ReasoningMode.LEVEL, "xhigh", 0, None)),
        ({"reasoning_effort": "auto"}, (ReasoningMode.AUTO, "", 0, None)),
        ({"reasoning": {"effort": "low", "exclude": True}}, (ReasoningMode.LEVEL, "low", 0, False)),
        ({"reasoning": {"max_tokens": 2000}}, (ReasoningMode.BUDGET, "", 2000, None)),
        ({"reasoning": {"effort": "low", "max_tokens": 2000}}, (ReasoningMode.LEVEL, "low", 2000, None)),
        ({"reasoning": {"enabled": False}}, (ReasoningMode.OFF, "", 0, None)),
        ({"reasoning": {"enabled": True}}, (ReasoningMode.AUTO, "", 0, None)),
        ({"thinking": {"type": "enabled", "budget_tokens": 500}}, (ReasoningMode.BUDGET, "", 500, None)),
        ({"thinking": {"type": "disabled"}}, (ReasoningMode.OFF, "", 0, None)),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, (ReasoningMode.AUTO, "", 0, False)),
        ({"include_reasoning": False}, (ReasoningMode.UNSET, "", 0, False)),
        (
            {"extra_body": {"google": {"thinking_config": {"thinking_budget": -1, "include_thoughts": True}}}},
            (ReasoningMode.AUTO, "", 0, True),
        ),
        ({"google": {"thinking_config": {"thinking_level": "HIGH"}}}, (ReasoningMode.LEVEL, "high", 0, None)),
        ({"thinking_config": {"thinking_budget": 0}}, (ReasoningMode.OFF, "", 0, None)),
    ],
)
def test_reasoning(members: Any, expected: Any) -> None:
    """2.9, the vendor's member and those of compatible hosts."""
    assert mode_of(parse_with(**members)) == expected


def test_a_budget_below_minus_one_is_refused() -> None:
    with pytest.raises(Untranslatable):
        parse_with(reasoning={"max_tokens": -2})


# --- extras ---


def test_unknown_members_are_kept_as_they_came() -> None:
    found = parse_with(foo={"b": [1]}, prediction={"type": "content", "content": "x"})
    assert {name: json.loads(raw) for name, raw in found.extras["openai"].items()} == {
        "foo": {"b": [1]},
        "prediction": {"type": "content", "content": "x"},
    }
    assert parse_with().extras == {}
