"""Reading a Responses client's request."""

import json
from typing import Any

import pytest

from cpa.errors import MalformedRequest
from cpa.translation.ir import (
    Authority,
    Call,
    Channel,
    ChoiceMode,
    Compaction,
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
    ServerCall,
    ServerResult,
    Shape,
    Sig,
    SigKind,
    Text,
    ToolKind,
    Turn,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.responses import SPOKE
from cpa.translation.signatures import wrap, wrap_compaction
from tests.translation.responses.support import CHAT, CLAUDE, CODEX, GEMINI, GPT, RESPONSES, make_ctx, parse


def turns_of(*items: Any) -> list[Turn]:
    return parse({"input": list(items)}).turns


def only_part(item: Any) -> Any:
    (turn,) = turns_of(item)
    (part,) = turn.parts
    return part


def test_string_input_is_one_user_message() -> None:
    """Case 4: the reference drops it."""
    request = parse({"model": "m", "input": "hi"})
    assert request.turns == [Turn(role=Role.USER, parts=[Text(text="hi")])]
    assert (request.client_model, request.model) == ("client-name", "gpt-x")


def test_leading_operator_text_is_system_text_in_order() -> None:
    """Instructions first; developer stays an authority (cases 1 and 2)."""
    request = parse(
        {
            "instructions": "I",
            "input": [
                {"role": "developer", "content": "D"},
                {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "S"}]},
                {"role": "user", "content": "hi"},
                {"role": "developer", "content": "later"},
            ],
        }
    )
    assert [(block.text, block.authority, block.instructions) for block in request.system] == [
        ("I", Authority.SYSTEM, True),
        ("D", Authority.DEVELOPER, False),
        ("S", Authority.SYSTEM, False),
    ]
    assert [turn.role for turn in request.turns] == [Role.USER, Role.SYSTEM]
    assert request.turns[1].authority is Authority.DEVELOPER


def test_instructions_may_be_items() -> None:
    """The vendor's type has both forms."""
    request = parse(
        {"instructions": [{"role": "system", "content": [{"type": "input_text", "text": "a"}]}], "input": ""}
    )
    assert [block.text for block in request.system] == ["a"]


def test_media_in_leading_system_text_stay_in_a_turn() -> None:
    """2.2: the text is system text, the rest a turn of the system."""
    image = {"type": "input_image", "image_url": "https://x/a.png"}
    request = parse({"input": [{"role": "system", "content": [{"type": "input_text", "text": "S"}, image]}]})
    assert [block.text for block in request.system] == ["S"]
    (turn,) = request.turns
    assert turn.role is Role.SYSTEM
    assert isinstance(turn.parts[0], Media)


def test_items_of_one_model_turn_are_one_turn() -> None:
    """2.3: closed by anybody else's message or by an output."""
    turns = turns_of(
        {"role": "user", "content": "go"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "why"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}], "phase": "commentary"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}', "id": "fc_1"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "raw"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        {"role": "assistant", "content": "done"},
    )
    assert [turn.role for turn in turns] == [Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT]
    reasoning, text, call, custom = turns[1].parts
    assert reasoning == Reasoning(texts=["why"], item_id="rs_1")
    assert text == Text(text="a", phase="commentary")
    assert call == Call(call_id="c1", name="f", args=b'{"x":1}', args_text=True, item_id="fc_1")
    assert custom == Call(call_id="c2", name="p", args=b"raw", args_text=True, shape=Shape.TEXT)
    assert turns[1].phase == "commentary"
    assert turns[2].parts == [
        Result(call_id="c1", parts=[Text(text="one")]),
        Result(call_id="c2", parts=[Text(text="two")], shape=Shape.TEXT),
    ]


def test_output_without_call_id_keeps_its_name() -> None:
    """Case 67: the vendor's type allows it; pairing is for `tools.repair`."""
    result = only_part({"type": "function_call_output", "call_id": None, "name": "f", "output": "x"})
    assert (result.call_id, result.name) == ("", "f")


def test_incomplete_output_is_an_error() -> None:
    """The only flag that this protocol has (0.2)."""
    result = only_part({"type": "function_call_output", "call_id": "c", "output": "bad", "status": "incomplete"})
    assert result.is_error


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"type": "input_image", "image_url": "data:image/jpg;base64,/9j/", "detail": "original"},
            Media(media=MediaKind.IMAGE, mime="image/jpeg", b64="/9j/", detail="original"),
        ),
        (
            {"type": "input_image", "image_url": "https://x/a.png", "detail": "low"},
            Media(media=MediaKind.IMAGE, mime="image/png", url="https://x/a.png", detail="low"),
        ),
        (
            {"type": "input_image", "file_id": "file-1"},
            Media(media=MediaKind.IMAGE, file_id="file-1", issuer="openai-response"),
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "JVBERi0"},
            Media(media=MediaKind.FILE, mime="application/pdf", b64="JVBERi0", name="a.pdf"),
        ),
        (
            {"type": "input_file", "file_data": "data:text/plain;base64,aGk="},
            Media(media=MediaKind.FILE, mime="text/plain", b64="aGk="),
        ),
        (
            {"type": "input_file", "file_url": "https://x/b.pdf"},
            Media(media=MediaKind.FILE, mime="application/pdf", url="https://x/b.pdf"),
        ),
        ({"type": "input_file", "file_id": "f"}, Media(media=MediaKind.FILE, file_id="f", issuer="openai-response")),
        ({"type": "refusal", "refusal": "no"}, Refusal(text="no")),
        ({"type": "text", "text": "t"}, Text(text="t")),
        (
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}},
            Media(media=MediaKind.AUDIO, mime="audio/mpeg", b64="UklG"),
        ),
    ],
)
def test_content_parts(item: dict[str, Any], expected: Any) -> None:
    """Table 2.5, row by row."""
    assert only_part({"role": "user", "content": [item]}) == expected


@pytest.mark.parametrize("part", [{"type": "input_image"}, {"type": "input_file", "filename": "x"}])
def test_media_without_content_are_the_clients_mistake(part: dict[str, Any]) -> None:
    """A part that must be read to mean anything (0.3)."""
    with pytest.raises(MalformedRequest) as caught:
        turns_of({"role": "user", "content": [{"type": "input_text", "text": "a"}, part]})
    assert caught.value.param == "input[0].content[1]"


def test_cache_control_of_a_message_is_for_its_last_part() -> None:
    """Cases 7 and 8: a part's own stays."""
    mark, own = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    (turn,) = turns_of({"role": "user", "content": parts, "cache_control": mark})
    assert [json.loads(part.cache or b"null") for part in turn.parts if isinstance(part, Text)] == [None, mark]
    parts[1]["cache_control"] = own  # type: ignore[assignment]
    (turn,) = turns_of({"role": "user", "content": parts, "cache_control": mark})
    assert [json.loads(part.cache or b"null") for part in turn.parts if isinstance(part, Text)] == [None, own]


def test_unknown_items_and_parts_are_lost_aloud() -> None:
    """Case 18: not an error, not silent."""
    ctx = make_ctx(provider=GEMINI)
    request = parse(
        {
            "input": [
                {"type": "future_thing", "x": 1},
                {"role": "user", "content": [{"type": "future_part"}, {"type": "input_text", "text": "hi"}]},
            ]
        },
        ctx,
    )
    assert request.turns == [Turn(role=Role.USER, parts=[Text(text="hi")])]
    assert [loss.path for loss in ctx.losses] == ["input[0]", "input[1].content[0]"]


def test_unknown_items_and_parts_stay_for_the_own_family() -> None:
    """0.3: kept with their origin."""
    request = parse(
        {"input": [{"role": "user", "content": [{"type": "future_part", "n": 1}]}, {"type": "future_thing", "x": 1}]},
        make_ctx(),
    )
    (turn,) = request.turns
    part, item = turn.parts
    assert isinstance(part, Native)
    assert isinstance(item, Native)
    assert (json.loads(part.raw), part.inner) == ({"type": "future_part", "n": 1}, True)
    assert (json.loads(item.raw), item.inner) == ({"type": "future_thing", "x": 1}, False)


def test_steps_of_server_tools() -> None:
    """2.8 and 2.16: calls in the model's turn, what the client reports in a user's."""
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "q"},
    }
    shell = {"type": "shell_call", "call_id": "s1", "action": {"commands": ["ls"]}}
    output = {"type": "shell_call_output", "call_id": "s1", "output": []}
    turns = turns_of(search, shell, output)
    assert [turn.role for turn in turns] == [Role.ASSISTANT, Role.USER]
    first, second = turns[0].parts
    assert isinstance(first, ServerCall)
    assert (first.kind, json.loads(first.raw)) == ("web_search", search)
    assert isinstance(second, ServerCall)
    assert (second.kind, second.call_id) == ("other", "s1")
    (result,) = turns[1].parts
    assert isinstance(result, ServerResult)


def test_generated_image_is_shown_by_the_user_to_models_of_others() -> None:
    """2.16; to its own family it stays an item."""
    item = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": "iVBOR",
        "output_format": "webp",
    }
    (turn,) = turns_of(item)
    assert turn.role is Role.USER
    assert turn.parts[-1] == Media(media=MediaKind.IMAGE, mime="image/webp", b64="iVBOR")
    (native,) = parse({"input": [item]}, make_ctx()).turns
    assert isinstance(native.parts[0], ServerCall)


# --- reasoning and state ---------------------------------------------------------------------------------------------


def test_reasoning_texts_and_channels() -> None:
    """2.10: the summary is shown; raw text only where there is none."""
    summary = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
    raw = [{"type": "reasoning_text", "text": "r"}]
    both = only_part({"type": "reasoning", "summary": summary, "content": raw, "encrypted_content": GPT})
    assert (both.texts, both.channel, both.hidden) == (["a", "b"], Channel.SUMMARY, ["r"])
    (sig,) = both.sigs
    assert (sig.provenance, sig.kind, sig.data) == (Provenance.OPENAI, SigKind.ENCRYPTED, GPT)
    only_raw = only_part({"type": "reasoning", "summary": [], "content": raw})
    assert (only_raw.texts, only_raw.channel) == (["r"], Channel.RAW)


def test_envelopes_are_opened() -> None:
    """Case 143, on the way back: Claude's redacted thinking."""
    redacted = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="EmwKAhgBEgy")
    part = only_part({"type": "reasoning", "summary": [], "encrypted_content": wrap(redacted)})
    assert isinstance(part, Reasoning)
    assert part.redacted
    assert [(sig.kind, sig.data) for sig in part.sigs] == [(SigKind.REDACTED, "EmwKAhgBEgy")]


def test_carriers_give_their_signature_to_the_neighbour() -> None:
    """2.10: before a call, before a text, or behind the text that had been streamed."""
    of_call = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==", of_call=True)
    before = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="QUFBQQ==")
    behind = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="QkJCQg==", preceding=True)

    def carrier(sig: Sig) -> dict[str, Any]:
        return {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": wrap(sig)}

    (turn,) = turns_of(
        carrier(of_call),
        carrier(before),
        {"role": "assistant", "content": "t"},
        {"role": "assistant", "content": "u"},
        carrier(behind),
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    )
    first, second, call = turn.parts
    assert isinstance(first, Text)
    assert isinstance(second, Text)
    assert isinstance(call, Call)
    assert [sig.data for sig in first.sigs] == ["QUFBQQ=="]
    assert [sig.data for sig in second.sigs] == ["QkJCQg=="]
    assert [sig.data for sig in call.sigs] == ["Q0FGRQ=="]


def test_compacted_history() -> None:
    """2.16: ours is text, OpenAI's is for OpenAI only."""
    ours = only_part({"type": "compaction", "encrypted_content": wrap_compaction("what happened")})
    assert ours == Text(text="Summary of earlier conversation: what happened")
    theirs = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAAsecret"}
    with pytest.raises(Untranslatable):
        turns_of(theirs)
    (turn,) = parse({"input": [theirs]}, make_ctx()).turns
    assert turn.parts == [Compaction(origin="openai-response", data="gAAAAsecret")]


class Store:
    """Remembers one answer."""

    def items(self, response_id: str) -> list[bytes] | None:
        if response_id != "resp_1":
            return None
        return [
            b'{"role":"user","content":"first"}',
            b'{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}',
        ]

    def item(self, item_id: str) -> bytes | None:
        return b'{"role":"assistant","content":"kept"}' if item_id == "msg_1" else None


@pytest.mark.parametrize("provider", [CHAT, CLAUDE, GEMINI, CODEX])
def test_previous_response_is_found_or_refused(provider: Any) -> None:
    """Case 105: history is never lost in silence; the codex dialect has no such member either."""
    body = {
        "previous_response_id": "resp_1",
        "input": [{"type": "function_call_output", "call_id": "c", "output": "x"}],
    }
    ctx = make_ctx(provider=provider, responses=Store())
    request = parse(body, ctx)
    assert [turn.role for turn in request.turns] == [Role.USER, Role.ASSISTANT, Role.USER]
    assert request.state.previous_id == ""
    assert ctx.echo["previous_response_id"] == b'"resp_1"'
    for unknown in (make_ctx(provider=provider), make_ctx(provider=provider, responses=Store())):
        with pytest.raises(Untranslatable) as caught:
            parse({"previous_response_id": "resp_2", "input": "hi"}, unknown)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_previous_response_is_the_own_providers_business() -> None:
    """It has the history."""
    request = parse({"previous_response_id": "resp_9", "input": "hi"}, make_ctx())
    assert request.state.previous_id == "resp_9"


def test_item_reference() -> None:
    """2.16: from the store, else refused; the vendor knows its items itself. The type may be left out."""
    reference = {"type": "item_reference", "id": "msg_1"}
    (turn,) = parse({"input": [{"id": "msg_1"}]}, make_ctx(provider=CLAUDE, responses=Store())).turns
    assert turn.parts == [Text(text="kept")]
    with pytest.raises(Untranslatable) as caught:
        turns_of(reference)
    assert (caught.value.param, caught.value.http_status) == ("input[0].id", 400)
    (native,) = parse({"input": [reference]}, make_ctx()).turns
    assert isinstance(native.parts[0], Native)


@pytest.mark.parametrize(
    "member",
    [{"conversation": "conv_1"}, {"prompt": {"id": "p"}}, {"background": True}],
)
def test_state_that_others_do_not_have_is_refused(member: dict[str, Any]) -> None:
    """2.16: dropping it would change what was asked."""
    with pytest.raises(Untranslatable) as caught:
        parse({"input": "hi", **member})
    assert caught.value.param == next(iter(member))
    assert caught.value.code == "unsupported_parameter"
    parse({"input": "hi", **member}, make_ctx())


def test_compaction_trigger_is_native() -> None:
    """2.16."""
    with pytest.raises(Untranslatable):
        turns_of({"type": "compaction_trigger"})
    (turn,) = parse({"input": [{"type": "compaction_trigger"}]}, make_ctx()).turns
    assert isinstance(turn.parts[0], Native)


# --- members ---------------------------------------------------------------------------------------------------------


def test_scalars() -> None:
    """Table 2.1."""
    ctx = make_ctx(provider=CHAT)
    request = parse(
        {
            "input": "hi",
            "temperature": 0.5,
            "top_p": 1,
            "max_output_tokens": 100,
            "top_logprobs": 2,
            "parallel_tool_calls": False,
            "service_tier": "default",
            "safety_identifier": "s",
            "user": "u",
            "prompt_cache_key": "k",
            "metadata": {"a": "b"},
            "store": False,
            "truncation": "auto",
            "max_tool_calls": 3,
            "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
            "text": {"verbosity": "low", "format": {"type": "json_object"}},
        },
        ctx,
    )
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_out) == (0.5, 1, 100)
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 2)
    assert request.parallel is False
    assert request.tier == "standard"
    assert (request.identity.end_user, request.identity.cache_key) == ("s", "k")
    assert json.loads(request.identity.metadata) == {"a": "b"}
    assert request.state.store is False
    assert request.state.max_tool_calls == 3
    assert request.reasoning.carry
    assert (request.output.kind, request.output.verbosity) == (OutputKind.JSON_OBJECT, "low")
    assert [loss.path for loss in ctx.losses] == ["truncation"]


def test_json_schema_output() -> None:
    """2.11."""
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "name": "n", "description": "d", "schema": schema, "strict": True}
    output = parse({"input": "hi", "text": {"format": form}}).output
    assert (output.kind, output.name, output.description, output.strict) == (OutputKind.JSON_SCHEMA, "n", "d", True)
    assert json.loads(output.schema) == schema


@pytest.mark.parametrize(
    ("reasoning", "mode", "level", "visible", "detail"),
    [
        ({"effort": "none"}, ReasoningMode.OFF, "", None, ""),
        ({"effort": "xhigh", "summary": "detailed"}, ReasoningMode.LEVEL, "xhigh", True, "detailed"),
        ({"generate_summary": "concise"}, ReasoningMode.UNSET, "", True, "concise"),
        ({"effort": "auto"}, ReasoningMode.AUTO, "", None, ""),
        ({"summary": "none"}, ReasoningMode.UNSET, "", False, ""),
        ({"effort": None, "summary": None}, ReasoningMode.UNSET, "", None, ""),
    ],
)
def test_reasoning_intent(
    reasoning: dict[str, Any], mode: ReasoningMode, level: str, visible: bool | None, detail: str
) -> None:
    """2.9."""
    intent = parse({"input": "hi", "reasoning": reasoning}).reasoning
    assert (intent.mode, intent.level, intent.visible, intent.detail) == (mode, level, visible, detail)


def test_tools_of_all_places() -> None:
    """Cases 22, 46 to 48, 51: top level first, then items; a function beats a custom tool of its name."""
    request = parse(
        {
            "input": [
                {
                    "type": "additional_tools",
                    "role": "developer",
                    "tools": [{"type": "function", "name": "a", "description": "2"}],
                },
                {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "late"}]},
                {"role": "user", "content": "hi"},
            ],
            "tools": [
                {"type": "function", "name": "a", "description": "1", "parameters": {"type": "object"}, "strict": True},
                {"type": "custom", "name": "edit", "format": {"type": "text"}},
                {"type": "function", "name": "edit"},
                {
                    "type": "custom",
                    "name": "apply_patch",
                    "format": {"type": "grammar", "syntax": "lark", "definition": "s"},
                },
                {
                    "type": "namespace",
                    "name": "git",
                    "description": "G",
                    "tools": [
                        {"type": "function", "name": "log", "parameters": None},
                        {"type": "custom", "name": "raw"},
                    ],
                },
                {"type": "web_search_preview"},
            ],
        }
    )
    assert [(tool.kind, tool.namespace, tool.name) for tool in request.tools] == [
        (ToolKind.FUNCTION, "", "a"),
        (ToolKind.FUNCTION, "", "edit"),
        (ToolKind.CUSTOM, "", "apply_patch"),
        (ToolKind.FUNCTION, "git", "log"),
        (ToolKind.CUSTOM, "git", "raw"),
        (ToolKind.SERVER, "", "web_search_preview"),
        (ToolKind.FUNCTION, "", "late"),
    ]
    first = request.tools[0]
    assert (first.description, json.loads(first.schema), first.strict) == ("1", {"type": "object"}, True)
    assert json.loads(request.tools[2].grammar)["syntax"] == "lark"
    assert request.tools[3].namespace_description == "G"
    assert request.tools[5].server == "web_search"


def test_search_without_external_access_is_for_openai_only() -> None:
    """Case 53."""
    tool = {"type": "web_search", "external_web_access": False}
    ctx = make_ctx(provider=CLAUDE)
    assert parse({"input": "hi", "tools": [tool]}, ctx).tools == []
    assert [loss.path for loss in ctx.losses] == ["tools[0]"]
    assert len(parse({"input": "hi", "tools": [tool]}, make_ctx()).tools) == 1


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        ("auto", ChoiceMode.AUTO, []),
        ("none", ChoiceMode.NONE, []),
        ("required", ChoiceMode.REQUIRED, []),
        ({"type": "function", "name": "f"}, ChoiceMode.NAMED, [("", "f")]),
        ({"type": "custom", "name": "p"}, ChoiceMode.NAMED, [("", "p")]),
        ({"type": "web_search_preview"}, ChoiceMode.SERVER, [("", "web_search")]),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            ChoiceMode.SUBSET,
            [("", "f")],
        ),
    ],
)
def test_tool_choice(choice: Any, mode: ChoiceMode, names: list[tuple[str, str]]) -> None:
    """Table 2.7 (cases 36 to 42, on this side)."""
    found = parse({"input": "hi", "tool_choice": choice}).tool_choice
    assert found is not None
    assert (found.mode, found.names) == (mode, names)
    assert found.required is (mode is ChoiceMode.SUBSET)
    assert found.custom is (choice == {"type": "custom", "name": "p"})


def test_what_answers_repeat() -> None:
    """3.1: verbatim."""
    ctx = make_ctx(provider=CLAUDE)
    parse({"input": "hi", "tools": [], "temperature": 1.0, "metadata": None, "user": "u", "instructions": "i"}, ctx)
    assert ctx.echo == {"tools": b"[]", "temperature": b"1.0", "user": b'"u"', "instructions": b'"i"'}


def test_unknown_members_are_kept_for_the_own_family() -> None:
    """Case 19, where a request has to be rebuilt."""
    body = {"input": "hi", "foo": {"x": 12345678901234567890123}, "stream_options": {"include_obfuscation": True}}
    assert parse(body, make_ctx()).extras == {"openai-response": {"foo": b'{"x": 12345678901234567890123}'}}
    assert parse(body).extras == {}


# --- hostile input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "hi", "temperature": "hot"}, "temperature"),
        ({"input": "hi", "max_output_tokens": 1.5}, "max_output_tokens"),
        ({"input": "hi", "store": "yes"}, "store"),
        ({"input": "hi", "include": [1]}, "include"),
        ({"input": "hi", "text": 3}, "text"),
        ({"input": "hi", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "hi", "reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"input": "hi", "tools": {"a": 1}}, "tools"),
        ({"input": "hi", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "hi", "tool_choice": "maybe"}, "tool_choice"),
        ({"input": "hi", "tool_choice": {"name": "f"}}, "tool_choice"),
        ({"input": "hi", "previous_response_id": 7}, "previous_response_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}, "input[0].name"),
        ({"input": 7}, "input"),
        ({"input": {"role": "user"}}, "input"),
    ],
)
def test_wrong_types_name_the_member(body: dict[str, Any], param: str) -> None:
    """The client is told what it did."""
    with pytest.raises(MalformedRequest) as caught:
        parse(body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000, b'{"input":' + b"[" * 5000]
)
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    """Never any other error."""
    with pytest.raises(MalformedRequest):
        SPOKE.parse_request(body, make_ctx(provider=CLAUDE))


def test_bom_and_lone_surrogates_are_repaired() -> None:
    """Case 20."""
    request = SPOKE.parse_request(b'\xef\xbb\xbf{"input":"a\\ud83d"}', make_ctx(provider=CLAUDE))
    assert request.turns[0].parts == [Text(text="a\ufffd")]


def test_members_of_unexpected_types_do_not_lose_content() -> None:
    """One odd item is read member by member, without harm to the others."""
    turns = turns_of(
        {"type": "function_call", "call_id": 7, "name": "f", "arguments": {"a": 1}},
        {"type": "function_call_output", "call_id": "c", "output": {"rows": [1, 2]}},
        {"role": "user", "content": ["plain", {"type": "input_text", "text": "part"}, 5]},
        {"role": "user", "content": {"odd": True}},
        "just text",
        17,
    )
    call = turns[0].parts[0]
    assert isinstance(call, Call)
    assert (call.call_id, json.loads(call.args)) == ("", {"a": 1})
    result = turns[1].parts[0]
    assert isinstance(result, Result)
    assert isinstance(result.parts[0], Text)
    assert json.loads(result.parts[0].text) == {"rows": [1, 2]}
    assert [part.text for part in turns[2].parts if isinstance(part, Text)] == ["plain", "part", "5"]
    assert isinstance(turns[3].parts[0], Text)
    assert json.loads(turns[3].parts[0].text) == {"odd": True}


def test_item_with_content_of_another_request_is_read_raw_only_once() -> None:
    """Many unknown items cost one more pass over the body, not one each."""
    items: list[dict[str, Any]] = [{"type": "future", "n": number} for number in range(500)]
    request = parse({"input": items}, make_ctx())
    raws = [json.loads(part.raw)["n"] for turn in request.turns for part in turn.parts if isinstance(part, Native)]
    assert raws == list(range(500))


def test_codex_is_of_the_family() -> None:
    """Own items and extras stay."""
    request = parse({"input": [{"type": "future"}], "foo": 1}, make_ctx(RESPONSES, CODEX))
    assert isinstance(request.turns[0].parts[0], Native)
    assert request.extras == {"openai-response": {"foo": b"1"}}


def test_output_behind_a_message_without_content() -> None:
    """The user's message says nothing, which is no place where a result could be looked for."""
    output = {"type": "function_call_output", "call_id": "c1", "output": "1"}
    request = parse({"input": [{"type": "message", "role": "user", "content": []}, output]})
    assert [[type(part) for part in turn.parts] for turn in request.turns] == [[Result]]
