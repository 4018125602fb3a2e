"""Writing requests for a provider that speaks Responses, codex included."""

import json
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter, ValidationError

from cpa.translation.context import TranslationSettings
from cpa.translation.ir import (
    Authority,
    Call,
    ChoiceMode,
    Compaction,
    Identity,
    Media,
    MediaKind,
    Native,
    OutputKind,
    OutputSpec,
    Part,
    Provenance,
    Reasoning,
    ReasoningIntent,
    ReasoningMode,
    Refusal,
    Result,
    Role,
    Sampling,
    ServerCall,
    Shape,
    Sig,
    SigKind,
    StateSpec,
    SysBlock,
    Text,
    Tool,
    ToolChoice,
    ToolKind,
    Turn,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile
from tests.translation.responses.support import (
    CHAT,
    CLAUDE,
    CODEX,
    GEMINI,
    GPT,
    LEVELS,
    RESPONSES,
    emit,
    make_ctx,
    new_request,
    parse,
    through,
)

_TYPE = TypeAdapter(ResponseCreateParamsNonStreaming)
USER = Turn(role=Role.USER, parts=[Text(text="hi")])
SAID_HI = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
OWN = Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data=GPT)
FOREIGN = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EsClaude")


def assert_valid(body: dict[str, Any]) -> None:
    """*body* is of the SDK's type, but for ids: that demands them where the vendor's own agent sends none (2.16)."""
    items = [
        {"id": "x_1", "status": "completed", **item}
        if item["type"] == "reasoning" or (item.get("role") == "assistant" and isinstance(item["content"], list))
        else item
        for item in body["input"]
    ]
    for item in items:
        for part in item["content"] if item.get("role") == "assistant" and isinstance(item["content"], list) else ():
            if part["type"] == "output_text":
                part.setdefault("annotations", [])
    try:
        _TYPE.validate_python({**body, "input": items})
    except ValidationError as exc:
        places = sorted({str(error["loc"][:2]) for error in exc.errors()})
        raise AssertionError(f"not of the SDK's type at {places}: {json.dumps(body)[:2000]}") from None


def codex_ctx(client: Any = CLAUDE) -> Any:
    return make_ctx(client, CODEX, profile=ModelProfile(codex=True, vendor_host=True, reasoning=LEVELS))


def vendor_ctx(client: Any = CLAUDE) -> Any:
    return make_ctx(client, profile=ModelProfile(vendor_host=True, reasoning=LEVELS))


def items_of(*turns: Turn, ctx: Any = None, client: Any = CLAUDE, **members: Any) -> Any:
    body = emit(new_request(client, turns=list(turns), **members), ctx or make_ctx(client))
    assert_valid(body)
    return body["input"]


def assistant(*parts: Part, **members: Any) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=list(parts), **members)


def call(call_id: str = "c1", name: str = "f", args: bytes = b"{}") -> Call:
    return Call(call_id=call_id, name=name, args=args)


def result(call_id: str = "c1", *parts: Text | Media, **members: Any) -> Turn:
    return Turn(role=Role.USER, parts=[Result(call_id=call_id, parts=list(parts), **members)])


def test_the_agent_request_of_appendix_b() -> None:
    """What Claude Code's request becomes, member by member."""
    schema = (
        b'{"type":"object","properties":{"path":{"type":"string","minLength":1}},'
        b'"required":["path"],"additionalProperties":false}'
    )
    request = new_request(
        system=[SysBlock(text="You are a coder.", cache=b'{"type":"ephemeral"}')],
        turns=[
            Turn(role=Role.USER, parts=[Text(text="fix it")]),
            assistant(
                Reasoning(texts=["look first"], sigs=[FOREIGN]),
                Text(text="Reading."),
                Call(call_id="toolu_01", name="read", args=b'{"path":"a.py"}'),
            ),
            Turn(
                role=Role.USER,
                parts=[
                    Result(call_id="toolu_01", parts=[Text(text="no such file")], is_error=True),
                    Text(text="try b.py"),
                ],
            ),
        ],
        tools=[Tool(kind=ToolKind.FUNCTION, name="read", description="Read a file", schema=schema, origin="claude")],
        tool_choice=ToolChoice(mode=ChoiceMode.AUTO),
        parallel=False,
        sampling=Sampling(max_out=4096),
        reasoning=ReasoningIntent(mode=ReasoningMode.LEVEL, level="high"),
        identity=Identity(end_user="u-1"),
    )
    ctx = vendor_ctx()
    body = emit(request, ctx)
    assert_valid(body)
    assert body == {
        "model": "gpt-x",
        "max_output_tokens": 4096,
        "reasoning": {"effort": "high"},
        "safety_identifier": "u-1",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "instructions": "You are a coder.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
            {"type": "message", "role": "assistant", "content": "Reading."},
            {"type": "function_call", "call_id": "toolu_01", "name": "read", "arguments": '{"path":"a.py"}'},
            {
                "type": "function_call_output",
                "call_id": "toolu_01",
                "output": "Error: no such file",
                "status": "incomplete",
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "try b.py"}]},
        ],
        "tools": [
            {
                "type": "function",
                "name": "read",
                "description": "Read a file",
                "strict": False,
                "parameters": json.loads(schema),
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }
    assert {loss.path for loss in ctx.losses} == {"system.cache_control", "messages[1]"}


# --- system text -----------------------------------------------------------------------------------------------------


def test_system_text_of_chat_clients_stays_in_items() -> None:
    """2.2: in place, with its role."""
    blocks = [SysBlock(text="a"), SysBlock(text="b", authority=Authority.DEVELOPER)]
    later = Turn(role=Role.SYSTEM, parts=[Text(text="c")], authority=Authority.DEVELOPER)
    body = emit(new_request(CHAT, system=blocks, turns=[USER, later]), make_ctx(CHAT))
    assert "instructions" not in body
    assert [(item["role"], item["content"][0]["text"]) for item in body["input"]] == [
        ("system", "a"),
        ("developer", "b"),
        ("user", "hi"),
        ("developer", "c"),
    ]


@pytest.mark.parametrize("client", [CLAUDE, GEMINI])
def test_system_text_of_others_is_instructions(client: Any) -> None:
    """2.2: joined by a blank line."""
    body = emit(new_request(client, system=[SysBlock(text="a"), SysBlock(text="b")], turns=[USER]), make_ctx(client))
    assert body["instructions"] == "a\n\nb"


def test_billing_header_is_for_claude_only() -> None:
    """Case 11."""
    system = [SysBlock(text="x-anthropic-billing-header: v=1"), SysBlock(text="real")]
    assert emit(new_request(system=system, turns=[USER]))["instructions"] == "real"


# --- items -----------------------------------------------------------------------------------------------------------


def test_order_of_an_assistants_parts_is_kept() -> None:
    """2.3: text after a call is legal here."""
    items = items_of(USER, assistant(Text(text="a"), call(), Text(text="b")), result("c1", Text(text="r")))
    assert [item["type"] for item in items] == [
        "message",
        "message",
        "function_call",
        "message",
        "function_call_output",
    ]


def test_own_reasoning_goes_back_and_foreign_does_not() -> None:
    """2.10, cases 99 and 102: summary present even when empty, no id unless the client sent one."""
    ctx = make_ctx()
    items = items_of(
        USER, assistant(Reasoning(sigs=[OWN]), Reasoning(texts=["x"], sigs=[FOREIGN]), Text(text="a")), ctx=ctx
    )
    assert items[1:] == [
        {"type": "reasoning", "summary": [], "encrypted_content": GPT},
        {"type": "message", "role": "assistant", "content": "a"},
    ]
    assert [loss.note for loss in ctx.losses] == ["reasoning of another provider"]


def test_reasoning_without_what_it_led_to_is_removed() -> None:
    """Case 101: the vendor demands the following item."""
    items = items_of(USER, assistant(Reasoning(sigs=[OWN])), Turn(role=Role.USER, parts=[Text(text="go on")]))
    assert [item["type"] for item in items] == ["message", "message"]


def test_results_with_media_are_lists() -> None:
    """Case 29: detail is required by the type."""
    image = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
    items = items_of(USER, assistant(call()), result("c1", Text(text="see"), image))
    assert items[-1]["output"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBOR", "detail": "auto"},
    ]


def test_stringified_list_of_images_is_unpacked() -> None:
    """Case 31: megabytes of base64 as text otherwise."""
    text = json.dumps([{"type": "input_image", "image_url": "data:image/png;base64,iVBOR"}])
    body = {
        "input": [
            {"role": "user", "content": "hi"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": text},
        ]
    }
    assert through(body)["input"][-1]["output"][0]["type"] == "input_image"


def test_error_results_of_parts_are_marked_once() -> None:
    """2.8: status and text; a text that says so already is left alone."""
    image = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
    items = items_of(
        USER,
        assistant(call("c1"), call("c2"), call("c3")),
        result("c1", Text(text="Error: bad"), is_error=True),
        result("c2", image, Text(text="boom"), is_error=True),
        result("c3", is_error=True),
    )
    outputs = items[-3:]
    assert [item["status"] for item in outputs] == ["incomplete"] * 3
    assert outputs[0]["output"] == "Error: bad"
    assert outputs[1]["output"][1]["text"] == "Error: boom"
    assert outputs[2]["output"] == "Error: "


def test_json_result_of_gemini_is_its_text() -> None:
    """2.8."""
    turn = Turn(role=Role.USER, parts=[Result(call_id="c1", json=b'{"a":12345678901234567890123}')])
    assert items_of(USER, assistant(call()), turn)[-1]["output"] == '{"a":12345678901234567890123}'


def test_orphan_results_stay_with_a_previous_response() -> None:
    """Cases 65 and 66."""
    output = {"type": "function_call_output", "call_id": "c9", "output": "x"}
    assert through({"previous_response_id": "resp_1", "input": [output]})["input"] == [output]
    (item,) = through({"input": [output]})["input"]
    assert item["role"] == "user"
    assert item["content"][0]["text"].endswith(": x")


def test_custom_calls_are_native() -> None:
    """2.6: free text stays free text."""
    custom = Call(call_id="c1", name="p", args=b"*** raw", args_text=True, shape=Shape.TEXT)
    turn = Turn(role=Role.USER, parts=[Result(call_id="c1", parts=[Text(text="ok")], shape=Shape.TEXT)])
    assert items_of(USER, assistant(custom), turn, client=CHAT)[1:] == [
        {"type": "custom_tool_call", "call_id": "c1", "name": "p", "input": "*** raw"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"},
    ]


def test_long_call_ids_are_hashed_on_both_sides() -> None:
    """2.8: 64 characters."""
    items = items_of(USER, assistant(call("x" * 65)), result("x" * 65, Text(text="r")))
    assert items[1]["call_id"] == items[2]["call_id"]
    assert items[1]["call_id"].startswith("call_")


def test_refusals_and_phases() -> None:
    """2.5: their own part; 2.3: the phase stays with its message."""
    items = items_of(USER, assistant(Refusal(text="no"), Text(text="a", phase="commentary")))
    assert items[1:] == [
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "message", "role": "assistant", "content": "a", "phase": "commentary"},
    ]


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (
            Media(media=MediaKind.IMAGE, url="https://x/a.png", detail="low"),
            {"type": "input_image", "image_url": "https://x/a.png", "detail": "low"},
        ),
        (
            Media(media=MediaKind.IMAGE, file_id="file-1", issuer="openai"),
            {"type": "input_image", "file_id": "file-1", "detail": "auto"},
        ),
        (
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBER", title="report.pdf"),
            {"type": "input_file", "filename": "report.pdf", "file_data": "data:application/pdf;base64,JVBER"},
        ),
        (
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBER"),
            {"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBER"},
        ),
        (
            Media(media=MediaKind.FILE, url="https://x/a.pdf", mime="application/pdf"),
            {"type": "input_file", "file_url": "https://x/a.pdf"},
        ),
        (
            Media(media=MediaKind.FILE, text="line", name="n.txt"),
            {"type": "input_text", "text": "[document: n.txt]\nline"},
        ),
        (
            Media(media=MediaKind.AUDIO, mime="audio/wav", b64="UklG"),
            {"type": "input_text", "text": "[attachment not available to this model: audio/wav]"},
        ),
        (
            Media(media=MediaKind.IMAGE, mime="image/png", file_id="file_a", issuer="claude"),
            {"type": "input_text", "text": "[attachment not available to this model: image/png]"},
        ),
    ],
)
def test_media(media: Media, expected: dict[str, Any]) -> None:
    """Table 2.5; cases 27 and 33."""
    ctx = make_ctx(CLAUDE)
    (item,) = items_of(Turn(role=Role.USER, parts=[media]), ctx=ctx)
    assert item["content"] == [expected]
    assert bool(ctx.losses) is ("not available" in expected.get("text", ""))


def test_unavailable_media_are_refused_under_strict_content() -> None:
    """0.7."""
    ctx = make_ctx(CLAUDE, settings=TranslationSettings(strict_content=True))
    with pytest.raises(Untranslatable) as caught:
        items_of(Turn(role=Role.USER, parts=[Media(media=MediaKind.VIDEO, mime="video/mp4", b64="AAAA")]), ctx=ctx)
    assert caught.value.param == "messages[0]"


def test_media_of_the_assistant_are_shown_by_the_user() -> None:
    """An assistant's message cannot hold them."""
    image = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
    items = items_of(USER, assistant(Text(text="here"), image), client=GEMINI, ctx=make_ctx(GEMINI))
    assert [item["role"] for item in items] == ["user", "assistant", "user"]
    assert items[-1]["content"][1]["type"] == "input_image"


def test_steps_of_foreign_servers_become_text() -> None:
    """2.15: never in the foreign spelling."""
    raw = b'{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"cats"}}'
    step = ServerCall(kind="web_search", origin="claude", raw=raw)
    ctx = make_ctx(CLAUDE)
    items = items_of(USER, assistant(step, Text(text="a")), ctx=ctx)
    assert "srvtoolu" not in json.dumps(items)
    assert any("cats" in str(item["content"]) for item in items[1:])
    assert ctx.losses


def test_compacted_history_of_others() -> None:
    """2.16: ours as text, anybody else's cannot be read."""
    ours = Turn(role=Role.USER, parts=[Compaction(origin="claude", data="", text="before")])
    assert items_of(ours)[0]["content"][0]["text"] == "Summary of earlier conversation: before"
    with pytest.raises(Untranslatable):
        items_of(Turn(role=Role.USER, parts=[Compaction(origin="claude", data="x")]))


def test_unknown_parts_of_others_are_lost_aloud() -> None:
    """0.3."""
    ctx = make_ctx(CLAUDE)
    items = items_of(
        Turn(role=Role.USER, parts=[Text(text="hi"), Native(origin="claude", raw=b'{"type":"x"}')]), ctx=ctx
    )
    assert items == [SAID_HI]
    assert [loss.path for loss in ctx.losses] == ["messages[0]"]


# --- members ---------------------------------------------------------------------------------------------------------


def test_parameters_without_counterpart_are_lost_aloud() -> None:
    """2.4."""
    sampling = Sampling(top_k=5, seed=1, presence=0.5, frequency=0.5, logit_bias=b'{"1":2}', temperature=0.3, top_p=0.9)
    ctx = make_ctx(CHAT)
    body = emit(new_request(CHAT, turns=[USER], sampling=sampling), ctx)
    assert (body["temperature"], body["top_p"]) == (0.3, 0.9)
    assert not {"top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias"} & set(body)
    assert len(ctx.losses) == 5


def test_several_answers_are_refused() -> None:
    """2.4: `n` above 1."""
    with pytest.raises(Untranslatable) as caught:
        emit(new_request(CHAT, turns=[USER], sampling=Sampling(n=2)))
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_parameter")
    emit(new_request(CHAT, turns=[USER], sampling=Sampling(n=1)))


def test_small_output_limits_are_raised() -> None:
    """2.4: the vendor rejects less than 16."""
    ctx = make_ctx(CHAT)
    assert emit(new_request(CHAT, turns=[USER], sampling=Sampling(max_out=5)), ctx)["max_output_tokens"] == 16
    assert [loss.path for loss in ctx.losses] == ["max_output_tokens"]


def test_logprobs() -> None:
    """2.4: an `include` and the number."""
    body = emit(new_request(CHAT, turns=[USER], sampling=Sampling(logprobs=True, top_logprobs=3)))
    assert body["include"] == ["message.output_text.logprobs"]
    assert body["top_logprobs"] == 3


@pytest.mark.parametrize(
    ("cap", "intent", "included"),
    [
        (Capability(), ReasoningIntent(), False),
        (Capability(), ReasoningIntent(mode=ReasoningMode.LEVEL, level="low"), True),
        (Capability(), ReasoningIntent(mode=ReasoningMode.OFF), False),
        (LEVELS, ReasoningIntent(), True),
        (Capability(kind=CapabilityKind.NONE), ReasoningIntent(mode=ReasoningMode.LEVEL, level="low"), False),
    ],
)
def test_state_is_asked_for_when_the_model_reasons(cap: Capability, intent: ReasoningIntent, included: bool) -> None:
    """2.16: models that do not reason reject the member."""
    ctx = make_ctx(CHAT, profile=ModelProfile(reasoning=cap))
    body = emit(new_request(CHAT, turns=[USER], reasoning=intent), ctx)
    assert body.get("include", []) == (["reasoning.encrypted_content"] if included else [])
    assert body["store"] is False


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OutputSpec(), None),
        (
            OutputSpec(kind=OutputKind.JSON_OBJECT, verbosity="low"),
            {"format": {"type": "json_object"}, "verbosity": "low"},
        ),
        (
            OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=b'{"title":"My Answer!","type":"object"}'),
            {
                "format": {
                    "type": "json_schema",
                    "name": "My_Answer_",
                    "schema": {"title": "My Answer!", "type": "object"},
                    "strict": False,
                }
            },
        ),
        (
            OutputSpec(
                kind=OutputKind.JSON_SCHEMA, name="n", description="d", schema=b'{"type":"object"}', strict=True
            ),
            {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "description": "d",
                    "schema": {"type": "object"},
                    "strict": True,
                }
            },
        ),
    ],
)
def test_output_formats(output: OutputSpec, expected: Any) -> None:
    """2.11, from Claude, whose formats are meant to be enforced."""
    body = emit(new_request(turns=[USER], output=output))
    assert_valid(body)
    assert body.get("text") == expected


def test_image_output_is_a_tool() -> None:
    """2.1: modalities."""
    body = emit(new_request(GEMINI, turns=[USER], output=OutputSpec(modalities=["TEXT", "IMAGE"])), make_ctx(GEMINI))
    assert body["tools"] == [{"type": "image_generation"}]


def test_identity() -> None:
    """2.14: hashed beyond 64 characters; the old spelling for hosts that know no other."""
    identity = Identity(end_user="u" * 65, session="s" * 65)
    body = emit(new_request(turns=[USER], identity=identity), vendor_ctx())
    assert len(body["safety_identifier"]) == len(body["prompt_cache_key"]) == 64
    compatible = make_ctx(CLAUDE, profile=ModelProfile())
    assert emit(new_request(turns=[USER], identity=Identity(end_user="u")), compatible)["user"] == "u"


def test_metadata_of_openais_clients_only() -> None:
    """2.14: at most 16 pairs."""
    pairs = json.dumps({f"k{number}": "v" for number in range(20)}).encode()
    ctx = make_ctx(CHAT)
    assert len(emit(new_request(CHAT, turns=[USER], identity=Identity(metadata=pairs)), ctx)["metadata"]) == 16
    assert [loss.path for loss in ctx.losses] == ["metadata"]
    assert "metadata" not in emit(new_request(turns=[USER], identity=Identity(metadata=pairs)))


@pytest.mark.parametrize(
    ("tier", "plain", "codex"),
    [
        ("", None, None),
        ("auto", "auto", None),
        ("standard", "default", None),
        ("flex", "flex", None),
        ("priority", "priority", "priority"),
        ("fast", "fast", "priority"),
        ("ultrafast", "ultrafast", None),
    ],
)
def test_tiers(tier: str, plain: str | None, codex: str | None) -> None:
    """2.12."""
    assert emit(new_request(turns=[USER], tier=tier)).get("service_tier") == plain
    assert emit(new_request(turns=[USER], tier=tier), codex_ctx()).get("service_tier") == codex


def test_members_of_other_protocols_are_lost_aloud() -> None:
    """2.1, and what Chat shares."""
    extras = {"openai": {"prediction": b"{}", "prompt_cache_retention": b'"24h"'}}
    ctx = make_ctx(CHAT)
    body = emit(new_request(CHAT, turns=[USER], extras=extras), ctx)
    assert "prediction" not in body
    assert body["prompt_cache_retention"] == "24h"
    assert [loss.path for loss in ctx.losses] == ["prediction"]


def test_cached_content_is_refused() -> None:
    """2.13: it is a part of the prompt."""
    with pytest.raises(Untranslatable) as caught:
        emit(new_request(GEMINI, turns=[USER], extras={"gemini": {"cachedContent": b'"c/1"'}}), make_ctx(GEMINI))
    assert caught.value.param == "cachedContent"


# --- tools -----------------------------------------------------------------------------------------------------------


def tools_of(*tools: Tool, choice: ToolChoice | None = None, client: Any = CLAUDE, ctx: Any = None) -> dict[str, Any]:
    body = emit(new_request(client, turns=[USER], tools=list(tools), tool_choice=choice), ctx or make_ctx(client))
    assert_valid(body)
    return body


def test_gemini_schemas_become_json_schema() -> None:
    """2.5a: only upper-case types are touched."""
    schema = b'{"type":"OBJECT","properties":{"type":{"type":"STRING"}}}'
    tool = Tool(kind=ToolKind.FUNCTION, name="f", schema=schema, schema_openapi=True, origin="gemini")
    (written,) = tools_of(tool, client=GEMINI, ctx=make_ctx(GEMINI))["tools"]
    assert written["parameters"] == {"type": "object", "properties": {"type": {"type": "string"}}}
    assert written["strict"] is False


def test_missing_schema_is_an_empty_object() -> None:
    """2.6."""
    (written,) = tools_of(Tool(kind=ToolKind.FUNCTION, name="f", origin="claude"))["tools"]
    assert written["parameters"] == {"type": "object", "properties": {}}


def test_names_are_made_acceptable_and_come_back() -> None:
    """2.6, case 44."""
    request = new_request(
        turns=[USER, assistant(call("c1", "a.b")), result("c1", Text(text="r"))],
        tools=[Tool(kind=ToolKind.FUNCTION, name="a.b"), Tool(kind=ToolKind.FUNCTION, name="a_b")],
        tool_choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", "a.b")]),
    )
    ctx = make_ctx(CLAUDE)
    body = emit(request, ctx)
    first, second = (tool["name"] for tool in body["tools"])
    assert second == "a_b"
    assert first.startswith("a_b_")
    assert body["tool_choice"]["name"] == body["input"][1]["name"] == first
    assert ctx.names.to_client(first) == ("", "a.b")


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (
            Tool(
                kind=ToolKind.SERVER,
                name="web_search",
                server="web_search",
                origin="claude",
                config=b'{"type":"web_search_20250305","name":"web_search","allowed_domains":["a.b"],'
                b'"user_location":{"type":"approximate","city":"Bonn"}}',
            ),
            {
                "type": "web_search",
                "filters": {"allowed_domains": ["a.b"]},
                "user_location": {"type": "approximate", "city": "Bonn"},
            },
        ),
        (
            Tool(
                kind=ToolKind.SERVER,
                name="web_search",
                server="web_search",
                origin="openai",
                config=b'{"search_context_size":"low","user_location":{"type":"approximate","approximate":{"country":"DE"}}}',
            ),
            {
                "type": "web_search",
                "user_location": {"type": "approximate", "country": "DE"},
                "search_context_size": "low",
            },
        ),
        (
            Tool(kind=ToolKind.SERVER, name="googleSearch", server="web_search", origin="gemini", config=b"{}"),
            {"type": "web_search"},
        ),
        (
            Tool(kind=ToolKind.SERVER, name="codeExecution", server="code", origin="gemini", config=b"{}"),
            {"type": "code_interpreter", "container": {"type": "auto"}},
        ),
    ],
)
def test_server_tools_of_others(tool: Tool, expected: dict[str, Any]) -> None:
    """2.15: only search and code mean the same."""
    assert tools_of(tool)["tools"] == [expected]


def test_other_server_tools_are_lost_or_refused() -> None:
    """Case 52: never a function; refused when the choice names one."""
    tool = Tool(kind=ToolKind.SERVER, name="computer", server="other", origin="claude", config=b"{}")
    ctx = make_ctx(CLAUDE)
    assert "tools" not in tools_of(tool, ctx=ctx)
    assert [loss.path for loss in ctx.losses] == ["tools[0]"]
    with pytest.raises(Untranslatable) as caught:
        tools_of(tool, choice=ToolChoice(mode=ChoiceMode.SERVER, names=[("", "computer")]))
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice(mode=ChoiceMode.NONE), "none"),
        (ToolChoice(mode=ChoiceMode.REQUIRED), "required"),
        (ToolChoice(mode=ChoiceMode.NAMED, names=[("", "f")]), {"type": "function", "name": "f"}),
        (ToolChoice(mode=ChoiceMode.NAMED, names=[("", "p")]), {"type": "custom", "name": "p"}),
        (
            ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "f"), ("", "p")]),
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "p"}],
            },
        ),
        (ToolChoice(mode=ChoiceMode.SERVER, names=[("", "web_search")]), {"type": "web_search_preview"}),
    ],
)
def test_choices(choice: ToolChoice, expected: Any) -> None:
    """Table 2.7."""
    tools = (
        Tool(kind=ToolKind.FUNCTION, name="f"),
        Tool(kind=ToolKind.CUSTOM, name="p", grammar=b'{"type":"text"}'),
        Tool(kind=ToolKind.SERVER, name="web_search", server="web_search", origin="claude", config=b"{}"),
    )
    assert tools_of(*tools, choice=choice)["tool_choice"] == expected


def test_choice_without_tools_and_of_unknown_tools() -> None:
    """Case 41, and 2.7: not forwarded."""
    assert "tool_choice" not in tools_of(choice=ToolChoice(mode=ChoiceMode.AUTO))
    with pytest.raises(Untranslatable):
        tools_of(Tool(kind=ToolKind.FUNCTION, name="f"), choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", "g")]))


# --- codex -----------------------------------------------------------------------------------------------------------


def test_codex_profile() -> None:
    """2.19, row by row."""
    request = new_request(
        system=[SysBlock(text="S")],
        turns=[USER, assistant(Text(text="a")), Turn(role=Role.SYSTEM, parts=[Text(text="L")]), USER],
        tools=[Tool(kind=ToolKind.FUNCTION, name="f")],
        sampling=Sampling(max_out=100, temperature=0.5, top_p=0.5),
        identity=Identity(end_user="u", cache_key="k"),
        state=StateSpec(previous_id="", truncation="auto", context_management=b"[]"),
    )
    body = emit(request, codex_ctx())
    assert body["stream"] is True
    assert body["store"] is False
    assert body["instructions"] == ""
    assert body["include"] == ["reasoning.encrypted_content"]
    assert body["parallel_tool_calls"] is True
    assert body["reasoning"] == {"effort": "medium"}
    assert body["prompt_cache_key"] == "k"
    assert [item["role"] for item in body["input"]] == ["developer", "user", "assistant", "developer", "user"]
    assert body["input"][2]["content"] == [{"type": "output_text", "text": "a"}]
    removed = {"max_output_tokens", "temperature", "top_p", "user", "safety_identifier", "truncation"}
    assert not (removed | {"context_management", "previous_response_id"}) & set(body)


def test_codex_without_tools_and_with_its_own_clients_members() -> None:
    """2.19: no parallel flag, no choice; what the dialect does not know goes."""
    body = {
        "input": "hi",
        "user": "u",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "prompt_cache_retention": "24h",
        "instructions": "I",
        "max_output_tokens": 9,
    }
    found = through(body, codex_ctx(RESPONSES))
    assert not {"user", "parallel_tool_calls", "tool_choice", "prompt_cache_retention", "max_output_tokens"} & set(
        found
    )
    assert found["input"] == [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "I"}]},
        SAID_HI,
    ]


def test_codex_spells_its_search_one_way_and_keeps_json_mode() -> None:
    """2.19."""
    body = {"input": "hi", "tools": [{"type": "web_search_preview"}], "text": {"format": {"type": "json_object"}}}
    found = through(body, codex_ctx(RESPONSES))
    assert found["tools"] == [{"type": "web_search"}]
    assert found["text"] == {"format": {"type": "json_object"}}


def test_codex_summary_only_if_the_client_wants_to_see_it() -> None:
    """2.19."""
    wanted = ReasoningIntent(mode=ReasoningMode.LEVEL, level="high", visible=True)
    assert emit(new_request(turns=[USER], reasoning=wanted), codex_ctx())["reasoning"] == {
        "effort": "high",
        "summary": "auto",
    }


def test_namespaces_come_back_together() -> None:
    """2.6: native here; children keep their names."""
    tools = [
        {
            "type": "namespace",
            "name": "git",
            "description": "G",
            "tools": [
                {
                    "type": "function",
                    "name": "log",
                    "description": "l",
                    "parameters": {"type": "object"},
                    "strict": False,
                },
                {"type": "custom", "name": "raw"},
            ],
        },
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "output_schema": {"x": 1}},
    ]
    history = {"type": "function_call", "call_id": "c", "namespace": "git", "name": "log", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "ok"}
    found = through({"input": [{"role": "user", "content": "x"}, history, output], "tools": tools})
    assert found["tools"] == tools
    assert found["input"][1] == history


def test_stored_reasoning_needs_no_state_of_its_own() -> None:
    """2.10: an id without encrypted content is known to a provider that stores, and a 404 for one that does not."""
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    after = {"type": "message", "role": "assistant", "content": "x"}
    assert through({"input": [{"role": "user", "content": "hi"}, item, after]})["input"][1] == item
    stateless = through({"input": [{"role": "user", "content": "hi"}, item, after], "store": False})
    assert [found["type"] for found in stateless["input"]] == ["message", "message"]


def test_cache_breakpoints_stay_with_their_part() -> None:
    """2.13: for OpenAI only, and not for codex."""
    part = {"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}
    body = {"input": [{"type": "message", "role": "user", "content": [part]}]}
    assert through(body)["input"] == body["input"]
    ctx = codex_ctx(RESPONSES)
    assert through(body, ctx)["input"] == [SAID_HI]
    assert [loss.path for loss in ctx.losses] == ["input[0].content[0].prompt_cache_breakpoint"]


def test_choices_that_only_the_vendor_knows_pass() -> None:
    """Its own affair."""
    choice = {"type": "programmatic_tool_calling"}
    tools = [{"type": "programmatic_tool_calling"}]
    assert through({"input": "hi", "tools": tools, "tool_choice": choice})["tool_choice"] == choice


def test_the_parsers_losses_stay_with_the_exchange() -> None:
    """One list for the way in and out."""
    ctx = make_ctx(provider=CLAUDE)
    parse({"input": "hi", "truncation": "auto"}, ctx)
    assert len(ctx.losses) == 1
