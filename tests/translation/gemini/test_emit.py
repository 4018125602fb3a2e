"""What Gemini providers get."""

import json
from typing import Any

import pytest
from google.genai import types

from cpa.translation.context import TranslationSettings
from cpa.translation.gemini import SPOKE
from cpa.translation.ir import (
    Call,
    ChoiceMode,
    Compaction,
    Identity,
    IRRequest,
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
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile, SchemaTier
from cpa.translation.signatures import SignatureCache
from tests.translation.gemini.support import (
    BUDGET,
    BYPASS,
    CHAT,
    CLAUDE,
    GEM,
    GEMINI,
    LEVELS,
    RESPONSES,
    emit,
    ir,
    lost,
    make_ctx,
    parse,
    round_trip,
)

OWN = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data=GEM, of_call=True)
FOREIGN = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="EqQBCkYIBhgCKkCsig")
F = Tool(kind=ToolKind.FUNCTION, name="f", schema=b'{"type":"object","properties":{"a":{"type":"string"}}}')


def user(*parts: Any) -> Turn:
    return Turn(role=Role.USER, parts=[Text(text=part) if isinstance(part, str) else part for part in parts])


def model(*parts: Any) -> Turn:
    return Turn(role=Role.ASSISTANT, parts=[Text(text=part) if isinstance(part, str) else part for part in parts])


def call(call_id: str, name: str = "f", args: bytes = b"{}", sigs: list[Sig] | None = None) -> Call:
    return Call(call_id=call_id, name=name, args=args, args_text=True, sigs=sigs or [])


def result(call_id: str, text: str = "ok", **more: Any) -> Result:
    return Result(call_id=call_id, parts=[Text(text=text)], **more)


def contents(*turns: Turn, ctx: Any = None, **members: Any) -> list[dict[str, Any]]:
    return emit(ir(turns=list(turns), **members), ctx)["contents"]


# --- the worked example ----------------------------------------------------------------------------------------------


def test_appendix_b() -> None:
    """One agent's request of a Claude client; also valid by the vendor's types."""
    schema = (
        b'{"type":"object","properties":{"path":{"type":"string","minLength":1}},"required":["path"],'
        b'"additionalProperties":false}'
    )
    request = ir(
        CLAUDE,
        system=[SysBlock(text="You are a coder.", cache=b'{"type":"ephemeral"}')],
        turns=[
            user("fix it"),
            model(
                Reasoning(texts=["look first"], sigs=[FOREIGN]),
                "Reading.",
                Call(call_id="toolu_01", name="read", args=b'{"path":"a.py"}'),
            ),
            user(Result(call_id="toolu_01", parts=[Text(text="no such file")], is_error=True), "try b.py"),
        ],
        tools=[Tool(kind=ToolKind.FUNCTION, name="read", description="Read a file", schema=schema, origin="claude")],
        tool_choice=ToolChoice(mode=ChoiceMode.AUTO),
        parallel=False,
        sampling=Sampling(max_out=4096),
        reasoning=ReasoningIntent(mode=ReasoningMode.LEVEL, level="high"),
        identity=Identity(end_user="u-1"),
    )
    ctx = make_ctx(
        client=CLAUDE,
        profile=ModelProfile(reasoning=LEVELS, prefill=False),
        settings=TranslationSettings(gemini_default_safety=False),
    )
    assert emit(request, ctx) == {
        "systemInstruction": {"parts": [{"text": "You are a coder."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "fix it"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Reading."},
                    {
                        "functionCall": {"id": "toolu_01", "name": "read", "args": {"path": "a.py"}},
                        "thoughtSignature": BYPASS,
                    },
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "toolu_01", "name": "read", "response": {"error": "no such file"}}},
                    {"text": "try b.py"},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "read",
                        "description": "Read a file",
                        "parametersJsonSchema": {
                            "type": "object",
                            "properties": {"path": {"type": "string", "description": "(minLength: 1)"}},
                            "required": ["path"],
                            "additionalProperties": False,
                        },
                    }
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        "generationConfig": {
            "maxOutputTokens": 4096,
            "thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True},
        },
    }
    paths = lost(ctx)
    assert "parallel_tool_calls" in paths
    assert "metadata.user_id" in paths
    assert "system.cache_control" in paths
    assert "messages[1].content[0]" in paths


def test_model_and_stream_stand_in_the_path() -> None:
    """The body has neither."""
    request = ir(turns=[user("hi")])
    request.stream = True
    assert emit(request).keys() == {"contents", "safetySettings"}


# --- system text and turns -------------------------------------------------------------------------------------------


def test_case_3_system_text_alone_gets_a_turn_of_the_user() -> None:
    """The API needs one."""
    ctx = make_ctx(client=CHAT)
    body = emit(ir(system=[SysBlock(text="s"), SysBlock(text="")]), ctx)
    assert body["systemInstruction"] == {"parts": [{"text": "s"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Continue."}]}]
    assert [loss.note for loss in ctx.losses] == ["synthetic_user_turn"]


def test_case_6_system_text_in_mid_conversation_is_wrapped() -> None:
    """And merges with the turns of the user around it."""
    found = contents(user("a"), Turn(role=Role.SYSTEM, parts=[Text(text="s")]), user("b"))
    wrapped = {"text": "<system-reminder>\ns\n</system-reminder>"}
    assert found == [{"role": "user", "parts": [{"text": "a"}, wrapped, {"text": "b"}]}]


def test_case_11_billing_header() -> None:
    """It would change with each request."""
    request = ir(CLAUDE, system=[SysBlock(text="x-anthropic-billing-header: 1"), SysBlock(text="s")], turns=[user("a")])
    assert emit(request, make_ctx(client=CLAUDE))["systemInstruction"] == {"parts": [{"text": "s"}]}


def test_case_13_a_leading_turn_of_the_model() -> None:
    """A turn of the user precedes."""
    assert contents(model("a"), user("b"))[0] == {"role": "user", "parts": [{"text": "…"}]}


def test_case_14_a_trailing_prefill_is_dropped() -> None:
    """Aloud."""
    ctx = make_ctx(client=CHAT)
    assert len(contents(user("a"), model("Sure,"), ctx=ctx)) == 1
    assert [loss.note for loss in ctx.losses] == ["assistant prefill dropped"]


def test_turns_alternate_and_empty_ones_vanish() -> None:
    """A turn of nothing but foreign reasoning is empty, and those around it become one."""
    found = contents(
        user("a"), model(Reasoning(texts=["x"], sigs=[FOREIGN])), user("b"), model(""), user(""), user("c")
    )
    assert found == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}]


def test_refusals_and_foreign_steps_are_text() -> None:
    """History of other vendors."""
    step = ServerCall(
        kind="web_search",
        origin="openai-response",
        raw=b'{"type":"web_search_call","action":{"type":"search","query":"cats"}}',
    )
    unknown = Native(origin="claude", raw=b'{"type":"future"}')
    ctx = make_ctx(client=RESPONSES)
    found = contents(user("a"), model(Refusal(text="no"), step, unknown), user("b"), ctx=ctx)
    assert found[1]["parts"] == [{"text": "no"}, {"text": "[web search: cats]"}]
    assert lost(ctx) == ["messages[1].content[1]", "messages[1].content[2]"]


def test_compacted_history() -> None:
    """Ours is text; another vendor's cannot be read, and must not be left out."""
    found = contents(user(Compaction(origin="openai-response", data="", text="we talked")), user("b"))
    assert found[0]["parts"][0] == {"text": "Summary of earlier conversation: we talked"}
    with pytest.raises(Untranslatable):
        contents(user(Compaction(origin="openai-response", data="secret")), user("b"))


# --- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media", "part"),
    [
        (
            Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR"),
            {"inlineData": {"mimeType": "image/png", "data": "iVBOR"}},
        ),
        (
            Media(media=MediaKind.FILE, b64="JVBERi0", name="a.pdf"),
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0"}},
        ),
        (
            Media(media=MediaKind.AUDIO, mime="audio/wav", b64="UklG"),
            {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}},
        ),
        (
            Media(media=MediaKind.IMAGE, url="https://x.y/a.png"),
            {"fileData": {"fileUri": "https://x.y/a.png", "mimeType": "image/png"}},
        ),
        (
            Media(media=MediaKind.IMAGE, url="https://x.y/a?b=c"),
            {"fileData": {"fileUri": "https://x.y/a?b=c", "mimeType": "image/jpeg"}},
        ),
        (
            Media(media=MediaKind.FILE, url="https://x.y/a"),
            {"fileData": {"fileUri": "https://x.y/a", "mimeType": "application/pdf"}},
        ),
        (
            Media(media=MediaKind.VIDEO, url="https://youtu.be/x"),
            {"fileData": {"fileUri": "https://youtu.be/x"}},
        ),
        (
            Media(media=MediaKind.FILE, file_id="files/1", issuer="gemini", mime="text/plain"),
            {"fileData": {"fileUri": "files/1", "mimeType": "text/plain"}},
        ),
        (
            Media(media=MediaKind.FILE, text="body", name="n.txt"),
            {"text": "[document: n.txt]\nbody"},
        ),
    ],
)
def test_media_in_table_2_5(media: Media, part: dict[str, Any]) -> None:
    """Row 24 among them: addresses are not dropped."""
    assert contents(user("see", media))[0]["parts"] == [{"text": "see"}, part]


def test_case_33_foreign_files_become_placeholders() -> None:
    """Their ids mean nothing here; as all that is asked about they are refused, under strict-content always."""
    media = Media(media=MediaKind.IMAGE, file_id="file-1", issuer="openai", mime="image/png")
    ctx = make_ctx(client=CHAT)
    assert contents(user("see", media), ctx=ctx)[0]["parts"][1] == {
        "text": "[attachment not available to this model: image/png]"
    }
    assert lost(ctx) == ["messages[0].content[1]"]
    with pytest.raises(Untranslatable):
        contents(user(media))
    strict = make_ctx(client=CHAT, settings=TranslationSettings(strict_content=True))
    with pytest.raises(Untranslatable) as caught:
        contents(user("see", media), ctx=strict)
    assert caught.value.param == "messages[0].content[1]"


def test_addresses_by_policy() -> None:
    """``gemini-url-media: placeholder``."""
    ctx = make_ctx(client=CHAT, settings=TranslationSettings(gemini_url_media="placeholder"))
    found = contents(user("see", Media(media=MediaKind.IMAGE, url="https://x.y/a.png", mime="image/png")), ctx=ctx)
    assert found[0]["parts"][1] == {"text": "[attachment not available to this model: image/png]"}


def test_what_a_client_says_of_its_document() -> None:
    """Claude's title and context."""
    media = Media(media=MediaKind.FILE, b64="JVBERi0", title="T", context="C")
    assert contents(user(media))[0]["parts"][0] == {"text": "[document: T]\nC"}


# --- calls and results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (b"", {}),
        (b'{"a":1}', {"a": 1}),
        (b"[1]", {"value": [1]}),
        (b"{bad", {"_raw_arguments": "{bad"}),
    ],
)
def test_cases_54_to_56_arguments(args: bytes, found: object) -> None:
    """Always an object, and nothing of it lost."""
    parts = contents(user("a"), model(call("1", args=args)), user(result("1")))[1]["parts"]
    assert parts[0]["functionCall"]["args"] == found


def test_case_57_big_integers_keep_their_digits() -> None:
    """Copied, not decoded."""
    turns = [user("a"), model(call("1", args=b'{"id":12345678901234567890123}')), user(result("1"))]
    raw = SPOKE.emit_request(ir(turns=turns), make_ctx(client=CHAT))
    assert b'"args":{"id":12345678901234567890123}' in raw


def test_cases_62_and_64_results_in_order_and_complete() -> None:
    """Gemini pairs by position, and rejects unequal counts."""
    found = contents(
        user("a"), model(call("1"), call("2"), call("3")), user(result("3", "c"), result("1", "x")), user("b")
    )
    responses = [part["functionResponse"] for part in found[2]["parts"][:3]]
    assert [(entry["id"], entry["name"]) for entry in responses] == [("1", "f"), ("2", "f"), ("3", "f")]
    assert responses[0]["response"] == {"output": "x"}
    assert responses[1]["response"] == {"error": "No result was recorded for this tool call."}
    assert found[2]["parts"][3] == {"text": "b"}


def test_case_70_more_responses_than_calls() -> None:
    """The others are text."""
    found = contents(user("a"), model(call("1")), user(result("1"), result("9", "extra", name="g")))
    assert found[2]["parts"][1] == {"text": "[result of an earlier tool call g]: extra"}


def test_cases_71_to_73_results() -> None:
    """The vendor's two keys, text not encoded twice, and the name of the call."""
    found = contents(
        user("a"),
        model(call("toolu_a-b-c"), call("2")),
        user(result("toolu_a-b-c", "hi"), result("2", "bad", is_error=True)),
    )
    assert [part["functionResponse"] for part in found[2]["parts"]] == [
        {"id": "toolu_a-b-c", "name": "f", "response": {"output": "hi"}},
        {"id": "2", "name": "f", "response": {"error": "bad"}},
    ]


def test_case_30_media_in_results() -> None:
    """Inside, where the model takes them; else behind all responses, so that counts stay equal."""
    image = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")
    inline = {"inlineData": {"mimeType": "image/png", "data": "iVBOR"}}

    def turns() -> list[Turn]:
        seen = Result(call_id="1", parts=[Text(text="see"), image])
        return [user("a"), model(call("1"), call("2")), user(seen, result("2"), "b")]

    inside = contents(*turns())[2]["parts"]
    assert inside[0]["functionResponse"] == {"id": "1", "name": "f", "response": {"output": "see"}, "parts": [inline]}
    assert len(inside) == 3
    ctx = make_ctx(client=CHAT, profile=ModelProfile(tool_result_media=False, prefill=False))
    after = contents(*turns(), ctx=ctx)[2]["parts"]
    assert [*map(list, after)] == [["functionResponse"], ["functionResponse"], ["text"], ["inlineData"], ["text"]]
    assert "parts" not in after[0]["functionResponse"]
    assert after[2] == {"text": "[media returned by tool call 1]"}


def test_case_68_missing_ids_are_made_up_deterministically() -> None:
    """L5: prompt caches depend on it."""
    body = {
        "contents": [
            {"role": "user", "parts": [{"text": "go"}]},
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "a", "args": {}}},
                    {"functionCall": {"name": "a", "args": {"x": 1}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "a", "response": {"output": "one"}}},
                    {"functionResponse": {"name": "a", "response": {"output": "two"}}},
                ],
            },
        ]
    }
    first, second = round_trip(body), round_trip(body)
    assert first == second
    calls = [part["functionCall"]["id"] for part in first["contents"][1]["parts"]]
    responses = [part["functionResponse"] for part in first["contents"][2]["parts"]]
    assert len({*calls}) == 2
    assert [entry["id"] for entry in responses] == calls
    assert [entry["response"] for entry in responses] == [{"output": "one"}, {"output": "two"}]


def test_case_69_explicit_ids_beat_the_order() -> None:
    """Responses are matched by id."""
    body = {
        "contents": [
            {"parts": [{"text": "go"}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"id": "1", "name": "a"}}, {"functionCall": {"id": "2", "name": "a"}}],
            },
            {
                "parts": [
                    {"functionResponse": {"id": "2", "name": "a", "response": {"output": "two"}}},
                    {"functionResponse": {"id": "1", "name": "a", "response": {"output": "one"}}},
                ]
            },
        ]
    }
    responses = [part["functionResponse"]["response"] for part in round_trip(body)["contents"][2]["parts"]]
    assert responses == [{"output": "one"}, {"output": "two"}]


def test_custom_calls_are_wrapped() -> None:
    """Row 49's way: the text under `input`."""
    custom = Tool(kind=ToolKind.CUSTOM, name="patch", description="Edit", grammar=b'{"type":"text"}')
    turn = model(Call(call_id="1", name="patch", args=b"*** Begin", args_text=True, shape=Shape.TEXT))
    ctx = make_ctx(client=RESPONSES)
    body = emit(ir(RESPONSES, turns=[user("a"), turn, user(result("1"))], tools=[custom]), ctx)
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"input": "*** Begin"}
    assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]["required"] == ["input"]
    assert ctx.names.custom == {"patch"}


def test_a_call_of_the_users_is_text() -> None:
    """Whatever parser let it pass."""
    assert contents(user("a", call("1", args=b'{"a":1}')))[0]["parts"][1] == {"text": 'f({"a":1})'}


# --- signatures ------------------------------------------------------------------------------------------------------


def signatures(*turns: Turn, ctx: Any = None) -> list[list[str | None]]:
    """Of the calls of each turn of the model."""
    return [
        [part.get("thoughtSignature") for part in content["parts"] if "functionCall" in part]
        for content in contents(*turns, ctx=ctx)
        if content["role"] == "model"
    ]


def test_case_97_the_bypass_stands_on_the_first_unsigned_call_of_each_turn_of_the_running_loop() -> None:
    """Siblings and earlier loops stay unsigned; texts that agents add to results do not end the loop."""
    found = signatures(
        user("one"),
        model(call("1")),
        user(result("1")),
        model("done"),
        user("two"),
        model(call("2"), call("3")),
        user(result("2"), result("3"), "reminder"),
        model(call("4", sigs=[FOREIGN])),
        user(result("4")),
    )
    assert found == [[None], [], [BYPASS, None], [BYPASS]]


def test_signatures_of_its_own_family_come_back() -> None:
    """On their calls, wherever these stand, and on reasoning and text."""
    assert signatures(
        user("a"), model(call("1", sigs=[OWN]), call("2")), user(result("1"), result("2")), user("b")
    ) == [[GEM, None]]
    thought = Reasoning(texts=["a", "b"], sigs=[Sig(provenance=Provenance.GEMINI, kind=SigKind.THINKING, data=GEM)])
    empty = Text(text="", sigs=[Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data=GEM)])
    parts = contents(user("a"), model(thought, "said", empty, Text(text="", sigs=[FOREIGN])), user("b"))[1]["parts"]
    assert parts == [
        {"text": "a\n\nb", "thought": True, "thoughtSignature": GEM},
        {"text": "said"},
        {"text": "", "thoughtSignature": GEM},
    ]


def test_unsigned_and_foreign_reasoning_is_dropped_aloud() -> None:
    """Row 97: foreign data is a 400, and unsigned thoughts mean nothing to the API."""
    ctx = make_ctx(client=CLAUDE)
    found = contents(
        user("a"), model(Reasoning(texts=["x"]), Reasoning(sigs=[FOREIGN], redacted=True), "y"), user("b"), ctx=ctx
    )
    assert found[1]["parts"] == [{"text": "y"}]
    assert lost(ctx) == ["messages[1].content[0]", "messages[1].content[1]"]


def test_lost_signatures_are_remembered() -> None:
    """Chat clients drop them; the cache knows them by call id and by text."""
    cache = SignatureCache().of_tenant("t")
    cache.keep_call("1", OWN)
    cache.keep_text("said", Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data=GEM))
    ctx = make_ctx(client=CHAT, signatures=cache)
    parts = contents(user("a"), model("said", call("1"), call("2")), user(result("1"), result("2")), ctx=ctx)[1][
        "parts"
    ]
    assert [part.get("thoughtSignature") for part in parts] == [GEM, GEM, None]


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "config", "sent"),
    [
        (None, None, ["f", "g"]),
        (ToolChoice(mode=ChoiceMode.AUTO), {"mode": "AUTO"}, ["f", "g"]),
        (ToolChoice(mode=ChoiceMode.NONE), {"mode": "NONE"}, ["f", "g"]),
        (ToolChoice(mode=ChoiceMode.REQUIRED), {"mode": "ANY"}, ["f", "g"]),
        (
            ToolChoice(mode=ChoiceMode.NAMED, names=[("", "f")]),
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
            ["f", "g"],
        ),
        (ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "g")]), {"mode": "AUTO"}, ["g"]),
        (
            ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "g")], required=True),
            {"mode": "ANY", "allowedFunctionNames": ["g"]},
            ["f", "g"],
        ),
    ],
)
def test_tool_choice_in_table_2_7(choice: ToolChoice | None, config: object, sent: list[str]) -> None:
    """Row 38 among them."""
    tools = [F, Tool(kind=ToolKind.FUNCTION, name="g")]
    body = emit(ir(turns=[user("a")], tools=tools, tool_choice=choice))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == config
    assert [entry["name"] for entry in body["tools"][0]["functionDeclarations"]] == sent


def test_case_41_a_choice_without_tools_is_left_out() -> None:
    """A 400 otherwise."""
    assert "toolConfig" not in emit(ir(turns=[user("a")], tool_choice=ToolChoice(mode=ChoiceMode.AUTO)))


def test_a_named_tool_must_exist() -> None:
    """400."""
    with pytest.raises(Untranslatable) as caught:
        emit(ir(turns=[user("a")], tools=[F], tool_choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", "x")])))
    assert caught.value.param == "tool_choice"


def test_case_45_names_are_made_acceptable_everywhere() -> None:
    """In declarations, choice, calls and responses alike."""
    tools = [Tool(kind=ToolKind.FUNCTION, name="3d_view"), Tool(kind=ToolKind.FUNCTION, name="log", namespace="git")]
    ctx = make_ctx(client=RESPONSES)
    body = emit(
        ir(
            RESPONSES,
            turns=[user("a"), model(call("1", "3d_view")), user(result("1"))],
            tools=tools,
            tool_choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", "3d_view")]),
        ),
        ctx,
    )
    assert [entry["name"] for entry in body["tools"][0]["functionDeclarations"]] == ["_3d_view", "git__log"]
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["_3d_view"]
    assert body["contents"][1]["parts"][0]["functionCall"]["name"] == "_3d_view"
    assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == "_3d_view"
    assert ctx.names.to_client("_3d_view") == ("", "3d_view")


def test_schema_tiers() -> None:
    """One of the two members, by profile; the older one knows no empty object."""
    tools = [F, Tool(kind=ToolKind.FUNCTION, name="g", description="G")]
    declared = emit(ir(turns=[user("a")], tools=tools))["tools"][0]["functionDeclarations"]
    assert declared[0] == {
        "name": "f",
        "parametersJsonSchema": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
    assert declared[1]["parametersJsonSchema"] == {"type": "object", "properties": {}}
    ctx = make_ctx(client=CHAT, profile=ModelProfile(schema_tier=SchemaTier.OPENAPI))
    declared = emit(ir(turns=[user("a")], tools=tools), ctx)["tools"][0]["functionDeclarations"]
    assert declared[0]["parameters"]["properties"] == {"a": {"type": "STRING"}}
    assert declared[1] == {"name": "g", "description": "G"}


def server(kind: str, config: str = "{}", origin: str = "claude", name: str = "") -> Tool:
    return Tool(kind=ToolKind.SERVER, name=name or kind, server=kind, config=config.encode(), origin=origin)


def test_server_tools() -> None:
    """Search and code have counterparts; all else is lost aloud, and never becomes a function."""
    search = server("web_search", '{"type":"web_search_20250305","blocked_domains":["x.y"],"max_uses":3}')
    ctx = make_ctx(client=CLAUDE)
    body = emit(ir(CLAUDE, turns=[user("a")], tools=[search, server("code"), server("web_fetch")]), ctx)
    assert body["tools"] == [{"googleSearch": {"excludeDomains": ["x.y"]}}, {"codeExecution": {}}]
    assert lost(ctx) == ["tools[0].max_uses", "tools[2]"]


def test_search_beside_functions() -> None:
    """Older models refuse it: the functions stay."""
    request = [server("web_search"), F]
    ctx = make_ctx(client=CHAT)
    assert [*map(list, emit(ir(turns=[user("a")], tools=list(request)), ctx)["tools"])] == [["functionDeclarations"]]
    assert lost(ctx) == ["tools[0]"]
    newer = make_ctx(client=CHAT, profile=ModelProfile(search_with_functions=True))
    assert [*map(list, emit(ir(turns=[user("a")], tools=list(request)), newer)["tools"])] == [
        ["functionDeclarations"],
        ["googleSearch"],
    ]


def test_a_choice_of_a_server_tool() -> None:
    """Dropped where there is one, refused where there is none."""
    choice = ToolChoice(mode=ChoiceMode.SERVER, names=[("", "web_search")])
    ctx = make_ctx(client=CHAT)
    body = emit(ir(turns=[user("a")], tools=[server("web_search")], tool_choice=choice), ctx)
    assert "toolConfig" not in body
    assert lost(ctx) == ["tool_choice"]
    choice = ToolChoice(mode=ChoiceMode.SERVER, names=[("", "mcp")])
    with pytest.raises(Untranslatable):
        emit(ir(turns=[user("a")], tools=[server("mcp")], tool_choice=choice))


def test_image_generation_is_a_modality() -> None:
    """2.15."""
    body = emit(ir(RESPONSES, turns=[user("a")], tools=[server("image_gen")]), make_ctx(client=RESPONSES))
    assert body["generationConfig"]["responseModalities"] == ["TEXT", "IMAGE"]
    assert "tools" not in body


# --- members ---------------------------------------------------------------------------------------------------------


def test_sampling() -> None:
    """All that Gemini knows; zeros of penalties stay at home, because many models reject the member."""
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=7,
        presence=0.0,
        frequency=0.5,
        stop=["a", "", "b", "c", "d", "e", "f"],
        max_out=100_000,
        n=2,
        logprobs=True,
        top_logprobs=4,
        logit_bias=b'{"1":2}',
    )
    ctx = make_ctx(client=CHAT, profile=ModelProfile(max_output=65_536))
    assert emit(ir(turns=[user("a")], sampling=sampling), ctx)["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 5,
        "candidateCount": 2,
        "frequencyPenalty": 0.5,
        "seed": 7,
        "maxOutputTokens": 65_536,
        "stopSequences": ["a", "b", "c", "d", "e"],
        "responseLogprobs": True,
        "logprobs": 4,
    }
    assert lost(ctx) == ["max_tokens", "stop", "logit_bias"]


def test_a_seed_that_is_no_32_bit_integer_is_lost() -> None:
    """It would be a 400."""
    ctx = make_ctx(client=CHAT)
    assert "generationConfig" not in emit(ir(turns=[user("a")], sampling=Sampling(seed=2**40)), ctx)
    assert lost(ctx) == ["seed"]


@pytest.mark.parametrize(
    ("intent", "cap", "config"),
    [
        (ReasoningIntent(mode=ReasoningMode.AUTO), BUDGET, {"thinkingBudget": -1, "includeThoughts": True}),
        (
            ReasoningIntent(mode=ReasoningMode.LEVEL, level="high"),
            BUDGET,
            {"thinkingBudget": 24576, "includeThoughts": True},
        ),
        (
            ReasoningIntent(mode=ReasoningMode.OFF, suffix=True),
            BUDGET,
            {"thinkingBudget": 128},
        ),
        (
            ReasoningIntent(mode=ReasoningMode.BUDGET, budget=1000),
            LEVELS,
            {"thinkingLevel": "LOW", "includeThoughts": True},
        ),
        (ReasoningIntent(mode=ReasoningMode.OFF), LEVELS, None),
        (ReasoningIntent(), BUDGET, None),
        (ReasoningIntent(visible=True), BUDGET, {"includeThoughts": True}),
        (ReasoningIntent(mode=ReasoningMode.LEVEL, level="low"), Capability(kind=CapabilityKind.NONE), None),
    ],
)
def test_thinking_config(intent: ReasoningIntent, cap: Capability, config: object) -> None:
    """Row 92 among them: adaptive means that the model decides."""
    body = emit(ir(turns=[user("a")], reasoning=intent), make_ctx(client=CHAT, profile=ModelProfile(reasoning=cap)))
    assert body.get("generationConfig", {}).get("thinkingConfig") == config


SCHEMA = b'{"type":"object","properties":{"a":{"type":"string","maxLength":3}}}'


def test_structured_output() -> None:
    """By tier."""
    output = OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=SCHEMA)
    assert emit(ir(turns=[user("a")], output=output))["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {
            "type": "object",
            "properties": {"a": {"type": "string", "description": "(maxLength: 3)"}},
        },
    }
    ctx = make_ctx(client=CHAT, profile=ModelProfile(schema_tier=SchemaTier.OPENAPI))
    config = emit(ir(turns=[user("a")], output=output), ctx)["generationConfig"]
    assert config["responseSchema"]["properties"]["a"]["type"] == "STRING"
    plain = emit(ir(turns=[user("a")], output=OutputSpec(kind=OutputKind.JSON_OBJECT)))["generationConfig"]
    assert plain == {"responseMimeType": "application/json"}


def test_structured_output_beside_functions() -> None:
    """Older models refuse it: they are told in words."""
    ctx = make_ctx(client=CHAT)
    output = OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=SCHEMA)
    body = emit(ir(turns=[user("a")], tools=[F], output=output, system=[SysBlock(text="s")]), ctx)
    assert "generationConfig" not in body
    texts = [part["text"] for part in body["systemInstruction"]["parts"]]
    assert texts[0] == "s"
    assert texts[1].endswith(SCHEMA.decode())
    assert "response_format" in lost(ctx)
    newer = make_ctx(client=CHAT, profile=ModelProfile(json_with_functions=True))
    assert "responseJsonSchema" in emit(ir(turns=[user("a")], tools=[F], output=output), newer)["generationConfig"]


@pytest.mark.parametrize(
    ("tier", "word"),
    [("auto", None), ("standard", "standard"), ("flex", "flex"), ("priority", "priority"), ("fast", "priority")],
)
def test_service_tiers(tier: str, word: str | None) -> None:
    """Table 2.12."""
    assert emit(ir(turns=[user("a")], tier=tier)).get("serviceTier") == word


def test_safety_settings() -> None:
    """Of other clients the operator's default, which can be switched off; of Gemini's clients their own."""
    settings = emit(ir(turns=[user("a")]))["safetySettings"]
    assert {entry["category"].removeprefix("HARM_CATEGORY_"): entry["threshold"] for entry in settings} == {
        "HARASSMENT": "OFF",
        "HATE_SPEECH": "OFF",
        "SEXUALLY_EXPLICIT": "OFF",
        "DANGEROUS_CONTENT": "OFF",
        "CIVIC_INTEGRITY": "BLOCK_NONE",
    }
    off = make_ctx(client=CHAT, settings=TranslationSettings(gemini_default_safety=False))
    assert "safetySettings" not in emit(ir(turns=[user("a")]), off)
    assert "safetySettings" not in round_trip({"contents": [{"parts": [{"text": "a"}]}]})


def test_what_gemini_has_no_word_for_is_lost_aloud() -> None:
    """It only tunes."""
    ctx = make_ctx(client=CHAT)
    emit(
        ir(
            turns=[user("a")],
            identity=Identity(end_user="u", cache_key="k", metadata=b'{"a":"b"}'),
            parallel=False,
            cache_hint=b'{"type":"ephemeral"}',
            output=OutputSpec(verbosity="low", audio=b'{"voice":"alloy"}'),
            extras={"openai": {"prediction": b"{}"}},
        ),
        ctx,
    )
    assert sorted(lost(ctx)) == [
        "audio",
        "cache_control",
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "user",
        "verbosity",
    ]


@pytest.mark.parametrize(
    "state", [StateSpec(previous_id="resp_1"), StateSpec(conversation=b'"c"'), StateSpec(background=True)]
)
def test_foreign_state_is_refused(state: StateSpec) -> None:
    """Without it the model would answer without its history."""
    with pytest.raises(Untranslatable):
        emit(ir(RESPONSES, turns=[user("a")], state=state), make_ctx(client=RESPONSES))


@pytest.mark.parametrize(("client", "sent"), [(CHAT, True), (GEMINI, True), (RESPONSES, False)])
def test_store_is_sent_for_who_means_it(client: Any, sent: bool) -> None:
    """Agents on Responses say it in each request, to their own provider."""
    body = emit(ir(client, turns=[user("a")], state=StateSpec(store=False)), make_ctx(client=client))
    assert (body.get("store") is False) is sent


def test_row_a_request_is_the_same_each_time() -> None:
    """L5."""

    def request() -> IRRequest:
        return ir(turns=[user("a"), model(call("")), user(result(""))], tools=[F, server("code")])

    assert SPOKE.emit_request(request(), make_ctx(client=CHAT)) == SPOKE.emit_request(request(), make_ctx(client=CHAT))


def test_the_vendors_types_take_what_is_written() -> None:
    """Validated member by member."""
    body = emit(
        ir(
            turns=[
                user("a", Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBORw0KGgo=")),
                model("x", call("1", sigs=[OWN])),
                user(result("1")),
            ],
            tools=[F],
            tool_choice=ToolChoice(mode=ChoiceMode.NAMED, names=[("", "f")]),
            system=[SysBlock(text="s")],
            sampling=Sampling(max_out=9, stop=["x"], seed=1, top_k=3),
            reasoning=ReasoningIntent(mode=ReasoningMode.LEVEL, level="high"),
        ),
        make_ctx(client=CHAT, profile=ModelProfile(reasoning=LEVELS)),
    )
    for content in body["contents"]:
        types.Content.model_validate(content)
    types.Content.model_validate(body["systemInstruction"])
    types.GenerateContentConfig.model_validate(
        {
            **body["generationConfig"],
            "tools": body["tools"],
            "toolConfig": body["toolConfig"],
            "safetySettings": body["safetySettings"],
        }
    )


# --- its own clients -------------------------------------------------------------------------------------------------


def test_schemas_and_responses_of_its_own_clients_stay_as_they_are() -> None:
    """They know what their model takes."""
    body = {
        "contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"id": "1", "name": "f", "args": {}}, "thoughtSignature": GEM}],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "1", "name": "f", "response": {"result": {"x": 1}, "more": True}}},
                    {"futureThing": {}},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "parameters": {"type": "OBJECT", "minProperties": 1}, "behavior": "BLOCKING"},
                    {"name": "g", "parametersJsonSchema": {"type": "object", "x-y": 1}},
                ]
            },
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT"},
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 5},
        },
        "cachedContent": "cachedContents/1",
    }
    ctx = make_ctx()
    assert round_trip(body, ctx) == body
    assert ctx.losses == []


def test_cached_content_belongs_to_its_family() -> None:
    """To others the emitters refuse it: it holds a part of the prompt."""
    request = parse({"contents": [{"parts": [{"text": "a"}]}], "cachedContent": "c/1"})
    assert request.extras["gemini"] == {"cachedContent": b'"c/1"'}


def test_emitted_json_is_one_line_of_utf8() -> None:
    """Nothing is escaped that need not be."""
    raw = SPOKE.emit_request(ir(turns=[user("Wörld 🙂")]), make_ctx(client=CHAT))
    assert "Wörld 🙂".encode() in raw
    assert json.loads(raw)["contents"][0]["parts"] == [{"text": "Wörld 🙂"}]
