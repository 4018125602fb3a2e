"""Requests for providers that speak Claude: turns, sampling, and everything but tools."""

import json
from typing import Any

import pytest

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.translation.claude import emit as emit_module
from cpa.translation.context import TranslationSettings
from cpa.translation.ir import (
    Annotation,
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
from tests.translation.claude.support import (
    CLAUDE_SIGNATURE,
    assistant,
    context,
    emit,
    lost,
    parse,
    request,
    system,
    user,
)

SIGNED = Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data=CLAUDE_SIGNATURE)
GEMINI_SIGNED = Sig(provenance=Provenance.GEMINI, kind=SigKind.PART, data="Q0FGRQ==")
F = Tool(kind=ToolKind.FUNCTION, name="f")
PNG = "iVBORw0KGgo="


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def call(call_id: str = "t1", args: bytes = b"{}", **members: Any) -> Call:
    return Call(call_id=call_id, name="f", args=args, args_text=True, **members)


def result(call_id: str = "t1", value: str = "ok", **members: Any) -> Result:
    return Result(call_id=call_id, parts=[Text(text=value)], **members)


# --- system text ---


def test_leading_operator_text_is_system_text() -> None:
    """Corpus 1: never the user's."""
    found = emit(
        request(
            user("hi"),
            system=[SysBlock(text="a", authority=Authority.DEVELOPER), SysBlock(text=""), SysBlock(text="b")],
        )
    )
    assert found["system"] == [text("a"), text("b")]
    assert found["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_system_text_alone_needs_a_user_turn() -> None:
    """Corpus 3."""
    ctx = context(Format.OPENAI)
    found = emit(request(system=[SysBlock(text="a")]), ctx)
    assert found["messages"] == [{"role": "user", "content": [text("Continue.")]}]
    assert found["system"] == [text("a")]
    assert [loss.note for loss in ctx.losses] == ["synthetic_user_turn"]


def test_system_text_in_the_middle_is_a_reminder() -> None:
    """Corpus 5, and the example of 2.2."""
    found = emit(
        request(
            user("hi"),
            system("Answer in French from now on."),
            user("who?"),
            system=[SysBlock(text="Be brief.")],
        )
    )
    assert found["system"] == [text("Be brief.")]
    assert found["messages"] == [
        {
            "role": "user",
            "content": [
                text("hi"),
                text("<system-reminder>\nAnswer in French from now on.\n</system-reminder>"),
                text("who?"),
            ],
        }
    ]


def test_models_that_know_the_role_get_system_messages() -> None:
    ctx = context(Format.OPENAI, profile=ModelProfile(mid_system=True))
    found = emit(request(user("a"), assistant("b"), system("c"), user("d")), ctx)
    assert [message["role"] for message in found["messages"]] == ["user", "assistant", "system", "user"]
    assert found["messages"][2]["content"] == [text("c")]
    assert not ctx.losses


# --- turns ---


def test_adjacent_turns_of_one_role_merge() -> None:
    """Corpus 15."""
    found = emit(request(user("a"), user("b"), assistant("c"), assistant("d"), user("e")))
    assert [(message["role"], len(message["content"])) for message in found["messages"]] == [
        ("user", 2),
        ("assistant", 2),
        ("user", 1),
    ]


def test_empty_texts_and_turns_are_left_out() -> None:
    """Corpus 16: the API rejects them."""
    found = emit(request(user("a"), assistant(" \n"), user(""), user("b")))
    assert found["messages"] == [{"role": "user", "content": [text("a"), text("b")]}]


def test_leading_assistant_turn_gets_a_user_before_it() -> None:
    """Corpus 13."""
    found = emit(request(assistant("a"), user("b")))
    assert found["messages"][0] == {"role": "user", "content": [text("…")]}


def test_prefill_goes_where_the_model_takes_none() -> None:
    """Corpus 14."""
    ctx = context(Format.OPENAI, profile=ModelProfile(prefill=False))
    found = emit(request(user("a"), assistant("So")), ctx)
    assert [message["role"] for message in found["messages"]] == ["user"]
    assert ctx.losses


def test_prefill_ends_without_white_space() -> None:
    found = emit(request(user("a"), assistant("So ", " \n")))
    assert found["messages"][1] == {"role": "assistant", "content": [text("So")]}


def test_calls_of_a_chat_turn_come_last() -> None:
    """2.3: Chat defines no order."""
    found = emit(
        request(user("a"), assistant(call(), "text", ordered=False), user(result()), tools=[F]), context(Format.OPENAI)
    )
    assert [block["type"] for block in found["messages"][1]["content"]] == ["text", "tool_use"]


def test_order_of_other_protocols_is_kept() -> None:
    found = emit(request(user("a"), assistant("x", call(), "y"), user(result()), tools=[F]))
    assert [block["type"] for block in found["messages"][1]["content"]] == ["text", "tool_use", "text"]


def test_call_without_text() -> None:
    """Corpus 17."""
    found = emit(request(user("a"), assistant(call(), ordered=False), user(result()), tools=[F]))
    assert found["messages"][1]["content"] == [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]


# --- results ---


def test_results_stand_first_after_their_calls() -> None:
    """Corpus 63."""
    found = emit(
        request(user("a"), assistant(call("t1"), call("t2")), user("wait"), user(result("t2", "two")), tools=[F])
    )
    blocks = found["messages"][2]["content"]
    assert [block["type"] for block in blocks] == ["tool_result", "tool_result", "text"]
    assert [block.get("tool_use_id") for block in blocks] == ["t1", "t2", None]
    assert blocks[0]["is_error"] is True  # corpus 64
    assert blocks[1] == {"type": "tool_result", "tool_use_id": "t2", "content": "two"}
    assert blocks[2] == text("wait")


def test_bad_ids_are_hashed_on_both_sides() -> None:
    """Corpus 58."""
    found = emit(request(user("a"), assistant(call("call:1/2")), user(result("call:1/2")), tools=[F]))
    made = found["messages"][1]["content"][0]["id"]
    assert made == found["messages"][2]["content"][0]["tool_use_id"]
    assert made.startswith("toolu_")
    assert len(made) == 30


def test_reused_ids_become_unique() -> None:
    """Corpus 60."""
    found = emit(
        request(
            user("a"), assistant(call("c1")), user(result("c1")), assistant(call("c1")), user(result("c1")), tools=[F]
        )
    )
    calls = [message["content"][0]["id"] for message in found["messages"][1::2]]
    results = [message["content"][0]["tool_use_id"] for message in found["messages"][2::2]]
    assert calls == results
    assert len(set(calls)) == 2


def test_orphan_result_is_told_as_text() -> None:
    """Corpus 65."""
    found = emit(request(user("a"), assistant("b"), user(result("nobody"))))
    assert found["messages"][2]["content"] == [text("[result of an earlier tool call]: ok")]


def test_media_in_results_stay_there() -> None:
    image = Media(media=MediaKind.IMAGE, mime="image/png", b64=PNG)
    parts: list[Text | Media] = [Text(text="see"), Text(text=""), image]
    found = emit(request(user("a"), assistant(call()), user(Result(call_id="t1", parts=parts)), tools=[F]))
    assert found["messages"][2]["content"][0]["content"] == [
        text("see"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ]


def test_media_follow_the_result_where_none_may_stand_in_it() -> None:
    image = Media(media=MediaKind.IMAGE, mime="image/png", b64=PNG)
    found = emit(
        request(user("a"), assistant(call()), user(Result(call_id="t1", parts=[Text(text="see"), image])), tools=[F]),
        context(Format.OPENAI, profile=ModelProfile(tool_result_media=False)),
    )
    assert [block["type"] for block in found["messages"][2]["content"]] == ["tool_result", "image"]


def test_json_results_of_gemini_are_text() -> None:
    found = emit(
        request(user("a"), assistant(call()), user(Result(call_id="t1", json=b'{"a": 1}')), tools=[F]),
        context(Format.GEMINI),
    )
    assert found["messages"][2]["content"][0]["content"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (b"", {}),  # corpus 54
        (b"{bad", {"_raw_arguments": "{bad"}),  # corpus 55
        (b"[1]", {"value": [1]}),  # corpus 56
        (b'{"id":12345678901234567890123}', {"id": 12345678901234567890123}),  # corpus 57
    ],
)
def test_arguments_are_objects(args: bytes, expected: Any) -> None:
    found = emit(request(user("a"), assistant(call(args=args)), user(result()), tools=[F]))
    assert found["messages"][1]["content"][0]["input"] == expected


# --- media ---


def written(part: Part, settings: TranslationSettings | None = None) -> tuple[Any, list[str]]:
    ctx = context(Format.OPENAI, settings=settings)
    return emit(request(user("x", part)), ctx)["messages"][0]["content"][1], lost(ctx)


IMAGE, FILE = MediaKind.IMAGE, MediaKind.FILE


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (
            Media(media=IMAGE, mime="image/jpg", b64="/9j/"),  # corpus 23
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}},
        ),
        (
            Media(media=IMAGE, url="https://e/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://e/a.png"}},
        ),
        (
            Media(media=IMAGE, url="https://e/picture"),
            {"type": "image", "source": {"type": "url", "url": "https://e/picture"}},
        ),
        (
            Media(media=IMAGE, file_id="file_1", issuer="claude"),
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            Media(media=FILE, mime="application/pdf", b64="JVBERg==", name="a.pdf"),  # corpus 25
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
            },
        ),
        (
            Media(media=FILE, b64="JVBERg=="),
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}},
        ),
        (
            Media(media=FILE, url="https://e/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://e/a.pdf"}},
        ),
        (
            Media(media=FILE, mime="text/csv", b64="YSxi", name="t.csv"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "a,b"},
                "title": "t.csv",
            },
        ),
        (
            Media(media=FILE, text="abc", title="T", context="C", citations_on=True),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "abc"},
                "title": "T",
                "context": "C",
                "citations": {"enabled": True},
            },
        ),
        (
            Media(media=FILE, mime="image/png", b64=PNG),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
    ],
)
def test_media(media: Media, block: Any) -> None:
    """2.5."""
    assert written(media) == (block, [])


UNREADABLE = [
    (Media(media=MediaKind.AUDIO, mime="audio/wav", b64="UklGRg=="), "audio/wav"),  # corpus 27
    (Media(media=MediaKind.VIDEO, url="https://e/a.mp4"), "video"),
    (Media(media=IMAGE, mime="image/svg+xml", b64="PHN2Zz4="), "image/svg+xml"),
    (Media(media=IMAGE, url="gs://bucket/a.png"), "image"),
    (Media(media=FILE, mime="application/msword", b64="0M8R"), "application/msword"),  # corpus 26
    (Media(media=FILE, mime="text/plain", b64="/w=="), "text/plain"),
    (Media(media=FILE, file_id="file-1", issuer="openai-response"), "file"),  # corpus 33
]


@pytest.mark.parametrize(("media", "what"), UNREADABLE)
def test_content_that_claude_cannot_read_is_never_dropped_silently(media: Media, what: str) -> None:
    assert written(media) == (
        text(f"[attachment not available to this model: {what}]"),
        ["messages[0].content[1]"],
    )


@pytest.mark.parametrize(("media", "what"), UNREADABLE)
def test_or_refused(media: Media, what: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        written(media, TranslationSettings(strict_content=True))
    assert caught.value.param == "messages[0].content[1]"


def test_a_foreign_file_as_all_that_is_said_is_refused() -> None:
    """0.7."""
    with pytest.raises(Untranslatable) as caught:
        emit(request(user("a"), assistant("b"), user(Media(media=FILE, file_id="f", issuer="gemini"))))
    assert caught.value.param == "messages[2]"


def test_images_of_the_assistant_become_placeholders() -> None:
    found = emit(request(user("a"), assistant(Media(media=IMAGE, mime="image/png", b64=PNG)), user("b")))
    assert found["messages"][1]["content"] == [text("[attachment not available to this model: image/png]")]


# --- reasoning and other parts ---


def test_own_reasoning_goes_back_as_it_was() -> None:
    """Corpus 95."""
    redacted = Sig(provenance=Provenance.CLAUDE, kind=SigKind.REDACTED, data="opaque")
    found = emit(
        request(
            user("a"),
            assistant(Reasoning(texts=["hm"], sigs=[SIGNED]), Reasoning(sigs=[redacted], redacted=True), "b"),
            user("c"),
        )
    )
    assert found["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": CLAUDE_SIGNATURE},
        {"type": "redacted_thinking", "data": "opaque"},
        text("b"),
    ]


@pytest.mark.parametrize(
    "sigs",
    [
        [],
        [GEMINI_SIGNED],  # corpus 96
        [Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data="gAAAA")],  # corpus 99
        [Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data="AFRTUDEAAQEA")],  # an envelope
    ],
)
def test_foreign_reasoning_is_dropped(sigs: list[Sig]) -> None:
    ctx = context(Format.OPENAI)
    found = emit(request(user("a"), assistant(Reasoning(texts=["hm"], sigs=sigs), "b"), user("c")), ctx)
    assert found["messages"][1]["content"] == [text("b")]
    assert lost(ctx) == ["messages[1].content[0]"]


def test_foreign_reasoning_as_text_is_the_operators_choice() -> None:
    ctx = context(Format.OPENAI, settings=TranslationSettings(foreign_reasoning_as_text=True))
    found = emit(request(user("a"), assistant(Reasoning(texts=["hm", "so"]), "b"), user("c")), ctx)
    assert found["messages"][1]["content"][0] == text("<previous_reasoning>\nhm\n\nso\n</previous_reasoning>")


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (Refusal(text="No."), text("No.")),
        (
            Compaction(origin="openai-response", data="x", text="we met"),
            text("Summary of earlier conversation: we met"),
        ),
        (
            Native(origin="claude", raw=b'{"type":"container_upload","file_id":"f"}'),
            {"type": "container_upload", "file_id": "f"},
        ),
    ],
)
def test_other_parts(part: Part, block: Any) -> None:
    assert emit(request(user("a"), assistant("b"), user(part)))["messages"][2]["content"] == [block]


def test_unknown_parts_of_others_are_lost() -> None:
    """Corpus 18."""
    ctx = context(Format.OPENAI_RESPONSE)
    found = emit(request(user("a", Native(origin="openai-response", raw=b'{"type":"future_thing"}'))), ctx)
    assert found["messages"][0]["content"] == [text("a")]
    assert lost(ctx) == ["messages[0].content[1]"]


def test_foreign_searches_are_told() -> None:
    raw = b'{"type":"web_search_call","action":{"type":"search","query":"cats"}}'
    step = ServerCall(kind="web_search", origin="openai-response", raw=raw)
    found = emit(request(user("a"), assistant(step), user("b")), context(Format.OPENAI_RESPONSE))
    assert "cats" in found["messages"][1]["content"][0]["text"]


def test_secret_compaction_is_refused() -> None:
    with pytest.raises(Untranslatable):
        emit(request(user(Compaction(origin="openai-response", data="secret"))))


def test_citations_go_back_only_if_they_are_claudes() -> None:
    """3.5: an empty index is one of ours."""
    real = b'{"type":"web_search_result_location","url":"u","title":"t","cited_text":"c","encrypted_index":"E"}'
    ours = b'{"type":"web_search_result_location","url":"u","title":"t","cited_text":"c","encrypted_index":""}'
    cited = Text(
        text="b",
        annotations=[Annotation(kind="url", origin="claude", raw=raw) for raw in (real, ours)]
        + [Annotation(kind="url", url="u", origin="openai", raw=b"{}")],
    )
    found = emit(request(user("a"), assistant(cited), user("c")))
    assert found["messages"][1]["content"] == [{**text("b"), "citations": [json.loads(real)]}]


# --- limits and sampling ---


@pytest.mark.parametrize(
    ("asked", "limit", "sent"),
    [(None, 0, 32000), (None, 8000, 8000), (None, 128000, 32000), (5, 0, 5), (9000, 8000, 8000), (5, 8000, 5)],
)
def test_max_tokens(asked: int | None, limit: int, sent: int) -> None:
    """2.4, corpus 88."""
    ctx = context(Format.OPENAI, profile=ModelProfile(max_output=limit))
    found = emit(request(user("a"), sampling=Sampling(max_out=asked)), ctx)
    assert found["max_tokens"] == sent
    assert lost(ctx) == (["max_tokens"] if asked and sent != asked else [])


@pytest.mark.parametrize(
    ("rule", "sent", "losses"),
    [
        (SamplingRule.ALL, {"temperature": 0.7, "top_p": 0.9, "top_k": 5}, []),
        (SamplingRule.NONE, {}, ["temperature", "top_p", "top_k"]),  # corpus 84
        (SamplingRule.ONE_OF_TEMP_TOP_P, {"temperature": 0.7, "top_k": 5}, ["top_p"]),  # corpus 85
    ],
)
def test_sampling_as_the_model_takes_it(rule: SamplingRule, sent: Any, losses: list[str]) -> None:
    ctx = context(Format.OPENAI, profile=ModelProfile(sampling=rule))
    found = emit(request(user("a"), sampling=Sampling(temperature=0.7, top_p=0.9, top_k=5)), ctx, valid=False)
    assert {name: found[name] for name in ("temperature", "top_p", "top_k") if name in found} == sent
    assert lost(ctx) == losses


def test_top_p_alone_is_kept() -> None:
    ctx = context(Format.OPENAI, profile=ModelProfile(sampling=SamplingRule.ONE_OF_TEMP_TOP_P))
    assert emit(request(user("a"), sampling=Sampling(top_p=0.9)), ctx, valid=False)["top_p"] == 0.9


def test_temperature_is_clamped() -> None:
    ctx = context(Format.OPENAI)
    assert emit(request(user("a"), sampling=Sampling(temperature=1.7)), ctx, valid=False)["temperature"] == 1
    assert lost(ctx) == ["temperature"]


BUDGETS = Capability(kind=CapabilityKind.BUDGET, min=1024, max=128000)


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        (Sampling(temperature=0.7, top_p=0.9, top_k=5), {}),
        (Sampling(temperature=1, top_p=0.97), {"temperature": 1, "top_p": 0.97}),
    ],
)
def test_sampling_while_thinking(sampling: Sampling, sent: Any) -> None:
    """2.4."""
    ctx = context(Format.OPENAI, profile=ModelProfile(reasoning=BUDGETS))
    intent = ReasoningIntent(mode=ReasoningMode.LEVEL, level="high")
    found = emit(request(user("a"), sampling=sampling, reasoning=intent), ctx, valid=False)
    assert found["thinking"] == {"type": "enabled", "budget_tokens": 24576}
    assert {name: found[name] for name in ("temperature", "top_p", "top_k") if name in found} == sent


def test_budget_stays_below_max_tokens() -> None:
    """Corpus 89."""
    ctx = context(Format.OPENAI, profile=ModelProfile(reasoning=BUDGETS))
    intent = ReasoningIntent(mode=ReasoningMode.LEVEL, level="high")
    found = emit(request(user("a"), sampling=Sampling(max_out=8000), reasoning=intent), ctx)
    assert (found["thinking"]["budget_tokens"], found["max_tokens"]) == (7999, 8000)


def test_forced_tool_turns_thinking_off() -> None:
    """Corpus 40."""
    ctx = context(Format.OPENAI, profile=ModelProfile(reasoning=BUDGETS))
    intent = ReasoningIntent(mode=ReasoningMode.LEVEL, level="high")
    choice = ToolChoice(mode=ChoiceMode.REQUIRED)
    found = emit(request(user("a"), tools=[F], tool_choice=choice, reasoning=intent), ctx)
    assert (found["tool_choice"], found["thinking"]) == ({"type": "any"}, {"type": "disabled"})
    assert "tool_choice" in lost(ctx)


@pytest.mark.parametrize(("sigs", "kind"), [([], "disabled"), ([GEMINI_SIGNED], "disabled"), ([SIGNED], "enabled")])
def test_unsigned_loop_turns_thinking_off(sigs: list[Sig], kind: str) -> None:
    """Corpus 100."""
    ctx = context(Format.OPENAI, profile=ModelProfile(reasoning=BUDGETS))
    intent = ReasoningIntent(mode=ReasoningMode.LEVEL, level="high")
    turns = [user("a"), assistant(Reasoning(texts=["hm"], sigs=sigs), call()), user(result())]
    assert emit(request(*turns, tools=[F], reasoning=intent), ctx)["thinking"]["type"] == kind


def test_effort_of_level_models() -> None:
    levels = Capability(kind=CapabilityKind.LEVEL, levels=("low", "medium", "high", "max"))
    ctx = context(Format.OPENAI, profile=ModelProfile(reasoning=levels))
    found = emit(request(user("a"), reasoning=ReasoningIntent(mode=ReasoningMode.LEVEL, level="xhigh")), ctx)
    assert (found["thinking"]["type"], found["output_config"]) == ("adaptive", {"effort": "max"})


def test_stop_sequences_of_white_space_are_lost() -> None:
    """Corpus 86."""
    ctx = context(Format.OPENAI)
    found = emit(request(user("a"), sampling=Sampling(stop=["\n\n", "", "END"])), ctx)
    assert found["stop_sequences"] == ["END"]
    assert lost(ctx) == ["stop"]


def test_what_only_tunes_is_lost() -> None:
    ctx = context(Format.OPENAI)
    sampling = Sampling(seed=1, presence=0.1, frequency=0.1, logit_bias=b"{}", logprobs=True, n=1)
    found = emit(request(user("a"), sampling=sampling, tier="flex"), ctx)
    assert set(found) == {"model", "max_tokens", "messages"}
    assert lost(ctx) == ["seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "service_tier"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"sampling": Sampling(n=2)}, "n"),  # corpus 103
        ({"state": StateSpec(previous_id="resp_1")}, "previous_response_id"),
        ({"state": StateSpec(conversation=b'"c"')}, "conversation"),
        ({"state": StateSpec(prompt=b"{}")}, "prompt"),
        ({"state": StateSpec(background=True)}, "background"),
        ({"extras": {"gemini": {"cachedContent": b'"c"'}}}, "cachedContent"),
    ],
)
def test_what_would_change_the_question_is_refused(members: Any, param: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        emit(request(user("a"), **members))
    assert caught.value.param == param


def test_large_bodies_are_refused_before_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.18."""
    monkeypatch.setattr(emit_module, "MAX_BODY_BYTES", 200)
    with pytest.raises(MalformedRequest) as caught:
        emit(request(user("a" * 200)))
    assert (caught.value.http_status, caught.value.code) == (413, "request_too_large")


# --- output, identity, tier, extras ---


def test_json_schema() -> None:
    """Corpus 104."""
    schema = b'{"type":"object","properties":{"a":{"type":"string","minLength":2}}}'
    found = emit(request(user("a"), output=OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=schema)))
    form = found["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["additionalProperties"] is False
    assert "minLength" not in form["schema"]["properties"]["a"]
    assert "minLength" in form["schema"]["properties"]["a"]["description"]


def test_json_mode_is_asked_for_in_words() -> None:
    ctx = context(Format.OPENAI)
    found = emit(request(user("a"), output=OutputSpec(kind=OutputKind.JSON_OBJECT), system=[SysBlock(text="s")]), ctx)
    assert found["system"] == [text("s"), text("Reply with one JSON object and nothing else.")]
    assert lost(ctx) == ["response_format"]


def test_enumerated_text_is_asked_for_in_words() -> None:
    output = OutputSpec(kind=OutputKind.JSON_SCHEMA, schema=b'{"type":"STRING","enum":["yes","no"]}', enum_text=True)
    found = emit(request(user("a"), output=output), context(Format.GEMINI))
    assert found["system"] == [text("Reply with exactly one of these values and nothing else: yes, no")]
    assert "output_config" not in found


@pytest.mark.parametrize(
    ("identity", "user_id", "losses"),
    [
        (Identity(end_user="u"), "u", []),
        (Identity(metadata=b'{"user_id":"u"}'), "u", []),
        (Identity(end_user="u", metadata=b'{"user_id":"v","team":"x"}'), "u", ["metadata"]),
        (Identity(cache_key="k"), None, ["prompt_cache_key"]),
        (Identity(), None, []),
    ],
)
def test_user(identity: Identity, user_id: str | None, losses: list[str]) -> None:
    """2.14."""
    ctx = context(Format.OPENAI)
    found = emit(request(user("a"), identity=identity), ctx)
    assert found.get("metadata") == (None if user_id is None else {"user_id": user_id})
    assert lost(ctx) == losses


@pytest.mark.parametrize(
    ("tier", "member"),
    [
        ("auto", {"service_tier": "auto"}),
        ("priority", {"service_tier": "auto"}),
        ("standard", {"service_tier": "standard_only"}),
        ("", {}),
    ],
)
def test_tier(tier: str, member: Any) -> None:
    """2.12."""
    found = emit(request(user("a"), tier=tier))
    assert {name: found[name] for name in ("service_tier", "speed") if name in found} == member


def test_extras_are_for_the_own_family() -> None:
    ctx = context(Format.OPENAI)
    found = emit(request(user("a"), extras={"openai": {"prediction": b"{}"}}), ctx)
    assert "prediction" not in found
    assert lost(ctx) == ["prediction"]
    own = emit(request(user("a"), client=Format.CLAUDE, extras={"claude": {"container": b'"c"'}}), context())
    assert own["container"] == "c"


def test_stream_is_said_only_when_asked_for() -> None:
    streamed = request(user("a"))
    streamed.stream = True
    assert emit(streamed)["stream"] is True
    assert "stream" not in emit(request(user("a")))


def test_billing_header_stays_within_the_family() -> None:
    """0.8: it is removed for all other providers."""
    body = {
        "system": [text("x-anthropic-billing-header: 1"), text("s")],
        "messages": [{"role": "user", "content": "a"}],
    }
    ctx = context()
    assert len(emit(parse(body, ctx), ctx)["system"]) == 2
