"""How much a model is to reason (translation 2.9)."""

import msgspec
import pytest

from cpa.formats.names import Format
from cpa.jsontypes import JsonObject
from cpa.translation.context import Context, TranslationSettings
from cpa.translation.ir import (
    Call,
    ChoiceMode,
    IRRequest,
    Media,
    MediaKind,
    Part,
    Provenance,
    Reasoning,
    ReasoningIntent,
    ReasoningMode,
    Result,
    Role,
    Sig,
    SigKind,
    Text,
    Tool,
    ToolChoice,
    ToolKind,
    Turn,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import Capability, CapabilityKind, ModelProfile
from cpa.translation.reasoning import (
    Resolved,
    ResolvedMode,
    budget_of,
    clamp_level,
    claude_thinking,
    gemini_thinking,
    intent_from_budget,
    intent_from_effort,
    intent_from_suffix,
    level_of,
    openai_effort,
    resolve,
    responses_reasoning,
    with_suffix,
)

from .support import make_context, make_request

M = ReasoningMode
NONE = Capability(kind=CapabilityKind.NONE)
UNKNOWN = Capability()
# The samples of 2.9.
CLAUDE_45 = Capability(kind=CapabilityKind.BUDGET, min=1024, max=128_000, dynamic_ok=False)
CLAUDE_46 = Capability(kind=CapabilityKind.HYBRID, min=1024, max=128_000, levels=("low", "medium", "high", "max"))
OPUS_47 = Capability(kind=CapabilityKind.LEVEL, levels=("low", "medium", "high", "xhigh", "max"))
GEMINI_25_PRO = Capability(kind=CapabilityKind.BUDGET, min=128, max=32_768, zero_ok=False)
GEMINI_25_FLASH = Capability(kind=CapabilityKind.BUDGET, min=0, max=24_576)
GEMINI_3_PRO = Capability(kind=CapabilityKind.HYBRID, min=128, max=32_768, zero_ok=False, levels=("low", "high"))
GEMINI_3_FLASH = Capability(kind=CapabilityKind.LEVEL, levels=("minimal", "low", "medium", "high"), dynamic_ok=True)
GPT_55 = Capability(kind=CapabilityKind.LEVEL, levels=("low", "medium", "high", "xhigh"), dynamic_ok=False)
GPT_OLD = Capability(kind=CapabilityKind.LEVEL, levels=("low", "medium", "high"), zero_ok=False, dynamic_ok=False)


def level(name: str, *, suffix: bool = False) -> ReasoningIntent:
    return ReasoningIntent(mode=M.LEVEL, level=name, suffix=suffix)


def budget(tokens: int, *, suffix: bool = False) -> ReasoningIntent:
    return ReasoningIntent(mode=M.BUDGET, budget=tokens, suffix=suffix)


OFF, AUTO, UNSET = ReasoningIntent(mode=M.OFF), ReasoningIntent(mode=M.AUTO), ReasoningIntent()


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("none", 0),
        ("minimal", 512),
        ("low", 1024),
        ("medium", 8192),
        ("high", 24_576),
        ("xhigh", 32_768),
        ("max", 128_000),
        ("auto", -1),
    ],
)
def test_budgets_of_levels(name: str, tokens: int) -> None:
    """The table, read from the left."""
    assert budget_of(name) == tokens


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (-1, "auto"),
        (0, "none"),
        (1, "minimal"),
        (512, "minimal"),
        (513, "low"),
        (1024, "low"),
        (1025, "medium"),
        (8192, "medium"),
        (8193, "high"),
        (24_576, "high"),
        (24_577, "xhigh"),
        (10**9, "xhigh"),
    ],
)
def test_levels_of_budgets(tokens: int, name: str) -> None:
    """The table, read from the right: bounds are inclusive."""
    assert level_of(tokens) == name


@pytest.mark.parametrize(
    ("word", "intent"),
    [
        ("none", ReasoningIntent(mode=M.OFF, suffix=True)),
        ("auto", ReasoningIntent(mode=M.AUTO, suffix=True)),
        ("-1", ReasoningIntent(mode=M.AUTO, suffix=True)),
        ("HIGH", level("high", suffix=True)),
        (" xhigh ", level("xhigh", suffix=True)),
        ("max", level("max", suffix=True)),
        ("8192", budget(8192, suffix=True)),
        ("0008192", budget(8192, suffix=True)),
        ("0", ReasoningIntent(mode=M.OFF, suffix=True)),
        ("000", ReasoningIntent(mode=M.OFF, suffix=True)),
        ("32k", None),
        ("-2", None),
        ("", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_suffixes(word: str, intent: ReasoningIntent | None) -> None:
    """Corpus 91: what means nothing configures nothing."""
    assert intent_from_suffix(word) == intent


@pytest.mark.parametrize(
    ("word", "intent"),
    [
        ("none", OFF),
        ("auto", AUTO),
        ("Minimal", level("minimal")),
        ("MAX", level("max")),
        ("HIGH", level("high")),
        ("8192", None),
        ("-1", None),
        ("turbo", None),
        ("", None),
    ],
)
def test_efforts(word: str, intent: ReasoningIntent | None) -> None:
    """Words of bodies are no numbers."""
    assert intent_from_effort(word) == intent


@pytest.mark.parametrize(("tokens", "intent"), [(-1, AUTO), (0, OFF), (1, budget(1)), (10_000, budget(10_000))])
def test_budgets(tokens: int, intent: ReasoningIntent) -> None:
    """0 and -1 are words."""
    assert intent_from_budget(tokens, param="p") == intent


def test_budgets_below_minus_one_are_wrong() -> None:
    """400 naming the member."""
    with pytest.raises(Untranslatable) as caught:
        intent_from_budget(-2, param="thinking.budget_tokens")
    assert caught.value.param == "thinking.budget_tokens"


def test_the_suffix_beats_the_body() -> None:
    """Corpus 90; what is to be seen stays the body's choice."""
    body = ReasoningIntent(mode=M.LEVEL, level="high", visible=True, detail="concise", carry=True)
    suffix = intent_from_suffix("low")
    assert suffix is not None
    assert with_suffix(body, suffix) == ReasoningIntent(
        mode=M.LEVEL, level="low", suffix=True, visible=True, detail="concise", carry=True
    )


# --- resolution ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "levels", "fitting"),
    [
        ("high", ("low", "high"), "high"),
        ("xhigh", ("low", "medium", "high", "max"), "max"),
        ("xhigh", ("low", "high"), "high"),
        ("xhigh", ("low", "medium"), "medium"),
        ("max", ("low", "high", "xhigh"), "xhigh"),
        ("max", ("low", "high"), "high"),
        ("minimal", ("low", "high"), "low"),
        ("medium", ("low", "high"), "low"),
        ("low", ("medium", "high"), "medium"),
        ("high", ("low", "medium", "xhigh"), "medium"),
        ("high", ("minimal", "xhigh", "none"), "xhigh"),
        ("high", (), "high"),
    ],
)
def test_levels_are_clamped(name: str, levels: tuple[str, ...], fitting: str) -> None:
    """The two highest look upwards first; others go to the nearest, of two to the lower."""
    assert clamp_level(name, levels) == fitting


OFF_R = (ResolvedMode.OFF, 0)
AUTO_R = (ResolvedMode.AUTO, -1)
NOTHING_R = (ResolvedMode.NOTHING, 0)


@pytest.mark.parametrize(
    ("intent", "cap", "resolved"),
    [
        (UNSET, GPT_55, NOTHING_R),
        (UNSET, NONE, NOTHING_R),
        (level("high"), NONE, NOTHING_R),
        (OFF, NONE, NOTHING_R),
        (level("max"), UNKNOWN, (ResolvedMode.LEVEL, "max")),
        (budget(3), UNKNOWN, (ResolvedMode.BUDGET, 3)),
        (OFF, UNKNOWN, OFF_R),
        (AUTO, UNKNOWN, AUTO_R),
        (OFF, GPT_55, OFF_R),
        (OFF, GPT_OLD, (ResolvedMode.LEVEL, "low")),
        (OFF, GEMINI_25_PRO, (ResolvedMode.BUDGET, 128)),
        (OFF, GEMINI_3_PRO, (ResolvedMode.LEVEL, "low")),
        (AUTO, GEMINI_25_PRO, AUTO_R),
        (AUTO, GPT_OLD, (ResolvedMode.LEVEL, "medium")),
        (AUTO, CLAUDE_45, (ResolvedMode.BUDGET, 64_512)),
        (ReasoningIntent(mode=M.BETWEEN_TOOLS), GEMINI_25_PRO, AUTO_R),
        (level("high"), GPT_55, (ResolvedMode.LEVEL, "high")),
        (level("xhigh"), CLAUDE_46, (ResolvedMode.LEVEL, "max")),
        (level("max"), GPT_55, (ResolvedMode.LEVEL, "xhigh")),
        (level("minimal"), GPT_55, (ResolvedMode.LEVEL, "low")),
        (level("high"), CLAUDE_45, (ResolvedMode.BUDGET, 24_576)),
        (level("minimal"), CLAUDE_45, (ResolvedMode.BUDGET, 1024)),
        (level("max"), GEMINI_25_PRO, (ResolvedMode.BUDGET, 32_768)),
        (budget(10_000), GPT_55, (ResolvedMode.LEVEL, "high")),
        (budget(100_000), GPT_OLD, (ResolvedMode.LEVEL, "high")),
        (budget(10_000), CLAUDE_45, (ResolvedMode.BUDGET, 10_000)),
        (budget(10_000), CLAUDE_46, (ResolvedMode.BUDGET, 10_000)),
        (budget(10), CLAUDE_45, (ResolvedMode.BUDGET, 1024)),
        (budget(200_000), GEMINI_25_FLASH, (ResolvedMode.BUDGET, 24_576)),
        # Both given: the level for models of levels, the budget for models of budgets, whatever came first.
        (ReasoningIntent(mode=M.BUDGET, budget=2000, level="high"), CLAUDE_46, (ResolvedMode.LEVEL, "high")),
        (ReasoningIntent(mode=M.BUDGET, budget=2000, level="high"), GPT_55, (ResolvedMode.LEVEL, "high")),
        (ReasoningIntent(mode=M.LEVEL, budget=2000, level="high"), CLAUDE_45, (ResolvedMode.BUDGET, 2000)),
        (ReasoningIntent(mode=M.LEVEL, budget=2000, level="high"), GPT_55, (ResolvedMode.LEVEL, "high")),
    ],
)
def test_resolution(intent: ReasoningIntent, cap: Capability, resolved: tuple[ResolvedMode, str | int]) -> None:
    """Across families everything is clamped."""
    found = resolve(intent, cap, same_family=False, ctx=make_context())
    mode, value = resolved
    assert (found.mode, found.level if isinstance(value, str) else found.budget) == (mode, value)


def test_level_and_budget_are_made_of_each_other() -> None:
    """Emitters take the one that they need."""
    ctx = make_context()
    assert resolve(level("high"), GPT_55, same_family=False, ctx=ctx) == Resolved(
        mode=ResolvedMode.LEVEL, level="high", budget=24_576
    )
    assert resolve(budget(10_000), CLAUDE_45, same_family=False, ctx=ctx) == Resolved(
        mode=ResolvedMode.BUDGET, level="high", budget=10_000
    )


@pytest.mark.parametrize(
    ("client", "intent", "cap", "param"),
    [
        (Format.OPENAI, level("max"), GPT_55, "reasoning_effort"),
        (Format.OPENAI_RESPONSE, level("minimal"), GPT_55, "reasoning.effort"),
        (Format.CLAUDE, level("xhigh"), CLAUDE_46, "output_config.effort"),
        (Format.CLAUDE, budget(10), CLAUDE_45, "thinking.budget_tokens"),
        (Format.GEMINI, budget(1), GEMINI_25_PRO, "generationConfig.thinkingConfig.thinkingBudget"),
        (Format.GEMINI, level("medium"), GEMINI_3_PRO, "generationConfig.thinkingConfig.thinkingLevel"),
    ],
)
def test_clients_of_the_family_are_told(client: Format, intent: ReasoningIntent, cap: Capability, param: str) -> None:
    """They speak the model's protocol: a value that it lacks is theirs to correct."""
    with pytest.raises(Untranslatable) as caught:
        resolve(intent, cap, same_family=True, ctx=make_context(client=client))
    assert (caught.value.param, caught.value.http_status) == (param, 400)


def test_suffixes_are_clamped_and_never_refused() -> None:
    """Users write them once for many models."""
    ctx = make_context(client=Format.CLAUDE)
    assert resolve(budget(1000, suffix=True), CLAUDE_45, same_family=True, ctx=ctx).budget == 1024
    assert resolve(level("xhigh", suffix=True), CLAUDE_46, same_family=True, ctx=ctx).level == "max"
    assert [loss.path for loss in ctx.losses] == ["model", "model"]


@pytest.mark.parametrize(
    ("intent", "cap", "lost"),
    [
        (level("high"), NONE, 1),
        (OFF, NONE, 0),  # just what the model does
        (UNSET, NONE, 0),
        (OFF, GPT_OLD, 1),
        (level("max"), GPT_55, 1),
        (level("high"), GPT_55, 0),
        (budget(10), GEMINI_25_PRO, 1),
        (level("high"), CLAUDE_45, 0),  # the table's way, nothing is lost
        (budget(10_000), GPT_55, 0),
    ],
)
def test_losses(intent: ReasoningIntent, cap: Capability, lost: int) -> None:
    """What the model cannot do is said."""
    ctx = make_context()
    resolve(intent, cap, same_family=False, ctx=ctx)
    assert len(ctx.losses) == lost


# --- Chat and Responses ----------------------------------------------------------------------------------------------


def request_of(intent: ReasoningIntent) -> IRRequest:
    request = make_request()
    request.reasoning = msgspec.structs.replace(intent)
    return request


@pytest.mark.parametrize(
    ("intent", "cap", "effort"),
    [
        (budget(10_000), GPT_55, "high"),
        (OFF, GPT_55, "none"),
        (OFF, GPT_OLD, "low"),
        (OFF, UNKNOWN, "none"),
        (AUTO, GPT_55, ""),
        (AUTO, UNKNOWN, ""),
        (UNSET, GPT_55, ""),
        (level("high"), GPT_55, "high"),
        (level("max"), UNKNOWN, "max"),
        (budget(10_000), UNKNOWN, "high"),
        (budget(100), CLAUDE_45, "low"),  # a compatible host
        (level("high"), NONE, ""),
    ],
)
def test_effort(intent: ReasoningIntent, cap: Capability, effort: str) -> None:
    """The rows of the emission table for Chat, and its examples."""
    ctx = make_context(client=Format.CLAUDE, provider=Format.OPENAI, cap=cap)
    assert openai_effort(request_of(intent), ctx) == effort


@pytest.mark.parametrize(
    ("intent", "effort"), [(UNSET, "medium"), (AUTO, "medium"), (level("high"), "high"), (OFF, "none")]
)
def test_codex_has_a_default(intent: ReasoningIntent, effort: str) -> None:
    """2.19."""
    profile = ModelProfile(codex=True, reasoning=GPT_55)
    ctx = make_context(client=Format.CLAUDE, provider=Format.CODEX, profile=profile)
    assert responses_reasoning(request_of(intent), ctx) == {"effort": effort}


@pytest.mark.parametrize(
    ("intent", "default", "expected"),
    [
        (UNSET, "", None),
        (level("high"), "", {"effort": "high"}),
        (ReasoningIntent(mode=M.LEVEL, level="high", visible=True), "", {"effort": "high", "summary": "auto"}),
        (ReasoningIntent(visible=True, detail="concise"), "", {"summary": "concise"}),
        (ReasoningIntent(visible=True, detail="summarized"), "", {"summary": "auto"}),
        (ReasoningIntent(mode=M.LEVEL, level="high", visible=False), "auto", {"effort": "high"}),
        (level("high"), "auto", {"effort": "high", "summary": "auto"}),
        (level("high"), "none", {"effort": "high"}),
        (ReasoningIntent(mode=M.LEVEL, level="high", extra={"mode": b'"pro"'}), "", {"effort": "high"}),
    ],
)
def test_summaries(intent: ReasoningIntent, default: str, expected: JsonObject | None) -> None:
    """Asked for only by the client, or by the operator: vendor hosts refuse it to some. Extras are the family's."""
    settings = TranslationSettings(responses_default_summary=default)
    ctx = make_context(client=Format.CLAUDE, provider=Format.OPENAI_RESPONSE, cap=GPT_55, settings=settings)
    assert responses_reasoning(request_of(intent), ctx) == expected


def test_members_of_responses_stay_in_the_family() -> None:
    """``context`` and ``mode`` are sent as they came."""
    ctx = make_context(client=Format.OPENAI_RESPONSE, provider=Format.OPENAI_RESPONSE, cap=GPT_55)
    intent = ReasoningIntent(mode=M.LEVEL, level="high", extra={"mode": b'"pro"'})
    found = responses_reasoning(request_of(intent), ctx)
    assert msgspec.json.encode(found) == b'{"effort":"high","mode":"pro"}'


def test_models_that_do_not_reason_get_nothing() -> None:
    """No summary either; said once."""
    ctx = make_context(client=Format.CLAUDE, provider=Format.OPENAI_RESPONSE, cap=NONE)
    intent = ReasoningIntent(mode=M.LEVEL, level="high", visible=True)
    assert responses_reasoning(request_of(intent), ctx) is None
    assert len(ctx.losses) == 1


# --- Gemini ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "cap", "config"),
    [
        (AUTO, GEMINI_25_PRO, {"thinkingBudget": -1, "includeThoughts": True}),  # corpus 92
        (OFF, GEMINI_25_FLASH, {"thinkingBudget": 0}),
        (OFF, GEMINI_25_PRO, {"thinkingBudget": 128}),
        (OFF, GEMINI_3_FLASH, None),
        (OFF, GEMINI_3_PRO, {"thinkingLevel": "LOW"}),
        (level("high"), GEMINI_3_PRO, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        (level("high"), GEMINI_25_PRO, {"thinkingBudget": 24_576, "includeThoughts": True}),
        (level("medium"), UNKNOWN, {"thinkingBudget": 8192, "includeThoughts": True}),
        (budget(2000), GEMINI_3_FLASH, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        (budget(2000), GEMINI_3_PRO, {"thinkingBudget": 2000, "includeThoughts": True}),
        (budget(2000), GEMINI_25_PRO, {"thinkingBudget": 2000, "includeThoughts": True}),
        (AUTO, GEMINI_3_FLASH, {"includeThoughts": True}),
        (AUTO, UNKNOWN, {"thinkingBudget": -1, "includeThoughts": True}),
        (UNSET, GEMINI_25_PRO, None),
        (ReasoningIntent(visible=True), GEMINI_25_PRO, {"includeThoughts": True}),
        (
            ReasoningIntent(mode=M.LEVEL, level="high", visible=False),
            GEMINI_3_PRO,
            {"thinkingLevel": "HIGH", "includeThoughts": False},
        ),
        (ReasoningIntent(mode=M.LEVEL, level="high", visible=True), NONE, None),
    ],
)
def test_thinking_of_gemini(intent: ReasoningIntent, cap: Capability, config: JsonObject | None) -> None:
    """The rows of the emission table; foreign clients get to see thoughts unless they said no."""
    ctx = make_context(provider=Format.GEMINI, cap=cap)
    assert gemini_thinking(request_of(intent), ctx) == config


def test_a_suffix_that_turns_off_what_cannot_be() -> None:
    """The example of 2.9: 128 is the least."""
    suffix = intent_from_suffix("0")
    assert suffix is not None
    ctx = make_context(client=Format.GEMINI, provider=Format.GEMINI, cap=GEMINI_25_PRO)
    assert gemini_thinking(request_of(suffix), ctx) == {"thinkingBudget": 128}


@pytest.mark.parametrize(
    ("intent", "config"),
    [
        (level("low"), {"thinkingLevel": "LOW"}),
        (budget(77), {"thinkingBudget": 77}),
        (AUTO, {"thinkingBudget": -1}),
        (ReasoningIntent(mode=M.OFF, visible=False), {"thinkingBudget": 0, "includeThoughts": False}),
        (ReasoningIntent(mode=M.BUDGET, budget=5, visible=True), {"thinkingBudget": 5, "includeThoughts": True}),
    ],
)
def test_geminis_own_clients_get_what_they_said(intent: ReasoningIntent, config: JsonObject) -> None:
    """L1, of a model that is not known."""
    ctx = make_context(client=Format.GEMINI, provider=Format.GEMINI)
    assert gemini_thinking(request_of(intent), ctx) == config


# --- Claude ----------------------------------------------------------------------------------------------------------


def thinking(
    request: IRRequest,
    cap: Capability,
    *,
    client: Format = Format.OPENAI,
    max_tokens: int = 64_000,
    max_output: int = 0,
) -> tuple[JsonObject | None, str, int, Context]:
    ctx = make_context(client=client, profile=ModelProfile(reasoning=cap, max_output=max_output))
    found = claude_thinking(request, ctx, max_tokens=max_tokens)
    assert found.active is (found.thinking is not None and found.thinking["type"] != "disabled")
    return found.thinking, found.effort, found.max_tokens, ctx


@pytest.mark.parametrize(
    ("intent", "cap", "config", "effort"),
    [
        (level("high"), CLAUDE_45, {"type": "enabled", "budget_tokens": 24_576}, ""),
        (level("xhigh"), CLAUDE_46, {"type": "adaptive"}, "max"),
        (level("minimal"), CLAUDE_46, {"type": "adaptive"}, "low"),
        (level("minimal"), UNKNOWN, {"type": "adaptive"}, "low"),
        (level("high"), UNKNOWN, {"type": "adaptive"}, "high"),
        (budget(10_000), UNKNOWN, {"type": "enabled", "budget_tokens": 10_000}, ""),
        (budget(5), UNKNOWN, {"type": "enabled", "budget_tokens": 1024}, ""),
        (budget(10_000), CLAUDE_46, {"type": "enabled", "budget_tokens": 10_000}, ""),
        (budget(10_000), OPUS_47, {"type": "adaptive", "display": "summarized"}, "high"),
        (level("high"), OPUS_47, {"type": "adaptive", "display": "summarized"}, "high"),
        (AUTO, OPUS_47, {"type": "adaptive", "display": "summarized"}, ""),
        (AUTO, CLAUDE_46, {"type": "adaptive"}, ""),
        (AUTO, UNKNOWN, {"type": "adaptive"}, ""),
        (AUTO, GEMINI_25_FLASH, {"type": "enabled", "budget_tokens": 12_288}, ""),
        (OFF, CLAUDE_45, {"type": "disabled"}, ""),
        (OFF, OPUS_47, {"type": "disabled"}, ""),
        (OFF, GPT_OLD, {"type": "disabled"}, ""),
        (UNSET, OPUS_47, None, ""),
        (level("high"), NONE, None, ""),
        (OFF, NONE, None, ""),
        (ReasoningIntent(visible=True), OPUS_47, {"type": "adaptive", "display": "summarized"}, ""),
        (ReasoningIntent(visible=True), CLAUDE_45, None, ""),
        (
            ReasoningIntent(mode=M.LEVEL, level="high", visible=False),
            CLAUDE_46,
            {"type": "adaptive", "display": "omitted"},
            "high",
        ),
        (
            ReasoningIntent(mode=M.LEVEL, level="high", visible=True),
            CLAUDE_45,
            {"type": "enabled", "budget_tokens": 24_576, "display": "summarized"},
            "",
        ),
    ],
)
def test_thinking_of_claude(intent: ReasoningIntent, cap: Capability, config: JsonObject | None, effort: str) -> None:
    """The rows of the emission table: models of levels reject budgets, and the other way round."""
    assert thinking(request_of(intent), cap)[:3] == (config, effort, 64_000)


@pytest.mark.parametrize(
    ("intent", "config", "effort"),
    [
        (ReasoningIntent(mode=M.LEVEL, level="low"), {"type": "adaptive"}, "low"),
        (ReasoningIntent(mode=M.LEVEL, level="low", effort_only=True), None, "low"),
        (ReasoningIntent(mode=M.OFF, level="high"), {"type": "disabled"}, "high"),
        (ReasoningIntent(mode=M.BETWEEN_TOOLS, level="max"), {"type": "between_tools"}, "max"),
        (
            ReasoningIntent(mode=M.BUDGET, budget=9000, level="high", visible=False),
            {"type": "enabled", "budget_tokens": 9000, "display": "omitted"},
            "high",
        ),
        (ReasoningIntent(mode=M.BUDGET, budget=9000), {"type": "enabled", "budget_tokens": 9000}, ""),
        (AUTO, {"type": "adaptive"}, ""),
        (UNSET, None, ""),
    ],
)
@pytest.mark.parametrize("cap", [UNKNOWN, CLAUDE_46])
def test_claudes_own_clients_get_what_they_said(
    intent: ReasoningIntent, config: JsonObject | None, effort: str, cap: Capability
) -> None:
    """L1."""
    found = thinking(request_of(intent), cap, client=Format.CLAUDE)
    assert found[:3] == (config, effort, 64_000)
    assert found[3].losses == []


def test_a_suffix_is_clamped_for_claude() -> None:
    """The example of 2.9: ``claude-sonnet-4-5(1000)``."""
    suffix = intent_from_suffix("1000")
    assert suffix is not None
    request = request_of(with_suffix(ReasoningIntent(mode=M.LEVEL, level="high"), suffix))
    config, effort, *_ = thinking(request, CLAUDE_45, client=Format.CLAUDE)
    assert (config, effort) == ({"type": "enabled", "budget_tokens": 1024}, "")


@pytest.mark.parametrize(
    ("said", "max_tokens", "max_output", "expected"),
    [
        (8000, 8000, 0, ({"type": "enabled", "budget_tokens": 7999}, 8000)),  # corpus 89
        (None, 8000, 0, ({"type": "enabled", "budget_tokens": 24_576}, 25_600)),
        (None, 8000, 25_600, ({"type": "enabled", "budget_tokens": 24_576}, 25_600)),
        (None, 8000, 25_599, ({"type": "enabled", "budget_tokens": 7999}, 8000)),
        (24_577, 24_577, 0, ({"type": "enabled", "budget_tokens": 24_576}, 24_577)),
        (24_576, 24_576, 0, ({"type": "enabled", "budget_tokens": 24_575}, 24_576)),
        (1025, 1025, 0, ({"type": "enabled", "budget_tokens": 1024}, 1025)),
        (1024, 1024, 0, ({"type": "disabled"}, 1024)),
        (10, 10, 0, ({"type": "disabled"}, 10)),
    ],
)
def test_the_budget_is_below_the_limit(
    said: int | None, max_tokens: int, max_output: int, expected: tuple[JsonObject, int]
) -> None:
    """Constraint 1: a limit of ours is raised, one of the client's is kept."""
    request = request_of(level("high"))
    request.sampling.max_out = said
    config, _, limit, ctx = thinking(request, CLAUDE_45, max_tokens=max_tokens, max_output=max_output)
    assert (config, limit) == expected
    assert bool(ctx.losses) is (config != {"type": "enabled", "budget_tokens": 24_576})


TOOL = Tool(kind=ToolKind.FUNCTION, name="f")


@pytest.mark.parametrize(
    ("choice", "tools", "forced"),
    [
        (ToolChoice(mode=ChoiceMode.REQUIRED), [TOOL], True),  # corpus 40
        (ToolChoice(mode=ChoiceMode.NAMED, names=[("", "f")]), [TOOL], True),
        (ToolChoice(mode=ChoiceMode.SERVER, names=[("", "web_search")]), [TOOL], True),
        (ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "f")], required=True), [TOOL], True),
        (ToolChoice(mode=ChoiceMode.SUBSET, names=[("", "f")]), [TOOL], False),
        (ToolChoice(mode=ChoiceMode.AUTO), [TOOL], False),
        (ToolChoice(mode=ChoiceMode.NONE), [TOOL], False),
        (ToolChoice(mode=ChoiceMode.REQUIRED), [], False),
        (None, [TOOL], False),
    ],
)
@pytest.mark.parametrize("cap", [CLAUDE_45, CLAUDE_46, OPUS_47])
def test_a_forced_tool_excludes_thinking(
    choice: ToolChoice | None, tools: list[Tool], forced: bool, cap: Capability
) -> None:
    """Constraint 2; a choice without tools is not sent at all."""
    request = request_of(level("high"))
    request.tool_choice, request.tools = choice, list(tools)
    config, _, _, ctx = thinking(request, cap)
    assert config is not None
    assert (config["type"] == "disabled") is forced
    assert [loss.path for loss in ctx.losses] == (["tool_choice"] if forced else [])


def claude_sig(data: str = "EsSigned") -> Sig:
    return Sig(provenance=Provenance.CLAUDE, kind=SigKind.THINKING, data=data)


SIGNED = Reasoning(texts=["a"], sigs=[claude_sig()])
FOREIGN = Reasoning(texts=["a"], sigs=[Sig(provenance=Provenance.OPENAI, kind=SigKind.ENCRYPTED, data="gAAAA")])
CALL = Call(call_id="c", name="f")
RESULT = Result(call_id="c", parts=[Text(text="ok")])
USER = Turn(Role.USER, [Text(text="go")])
IMAGE = Media(media=MediaKind.IMAGE, mime="image/png", b64="iVBOR")


def assistant(*parts: Part) -> Turn:
    return Turn(Role.ASSISTANT, list(parts))


@pytest.mark.parametrize(
    ("turns", "thinks"),
    [
        ([USER], True),
        ([USER, assistant(SIGNED, CALL), Turn(Role.USER, [RESULT])], True),
        ([USER, assistant(CALL), Turn(Role.USER, [RESULT])], False),  # corpus 100
        ([USER, assistant(FOREIGN, CALL), Turn(Role.USER, [RESULT])], False),
        ([USER, assistant(FOREIGN, SIGNED, CALL), Turn(Role.USER, [RESULT])], True),
        ([USER, assistant(Text(text=""), SIGNED, CALL), Turn(Role.USER, [RESULT])], True),
        ([USER, assistant(Text(text="x"), SIGNED, CALL), Turn(Role.USER, [RESULT])], False),
        ([USER, assistant(Reasoning(sigs=[claude_sig("")]), CALL), Turn(Role.USER, [RESULT])], False),
        ([USER, assistant(SIGNED), assistant(CALL), Turn(Role.USER, [RESULT])], True),
        ([USER, assistant(CALL), Turn(Role.USER, [RESULT]), assistant(SIGNED, CALL), Turn(Role.USER, [RESULT])], True),
        ([USER, assistant(SIGNED, CALL), Turn(Role.USER, [RESULT]), assistant(CALL), Turn(Role.USER, [RESULT])], False),
        ([USER, assistant(CALL), Turn(Role.USER, [RESULT]), Turn(Role.SYSTEM, [Text(text="s")]), USER], False),
        ([USER, assistant(CALL), Turn(Role.USER, [RESULT, Text(text="and"), IMAGE])], False),
        ([USER, assistant(CALL), Turn(Role.USER, [RESULT]), assistant(Text(text="done")), USER], True),
        ([USER, assistant(Text(text="no call")), Turn(Role.USER, [RESULT])], True),
        ([], True),
    ],
)
def test_an_unsigned_loop_excludes_budgets(turns: list[Turn], thinks: bool) -> None:
    """Constraint 3: the API demands that the running loop's last turn begins with thinking that Claude signed."""
    request = request_of(level("high"))
    request.turns = turns
    config, _, _, ctx = thinking(request, CLAUDE_45)
    assert config is not None
    assert config["type"] == ("enabled" if thinks else "disabled")
    assert [loss.path for loss in ctx.losses] == ([] if thinks else ["thinking"])


def test_adaptive_thinking_stays_in_an_unsigned_loop() -> None:
    """It does not demand a signed block; a model that takes both gets it instead of a budget."""
    request = request_of(level("high"))
    request.turns = [USER, assistant(CALL), Turn(Role.USER, [RESULT])]
    assert thinking(request, OPUS_47)[:2] == ({"type": "adaptive", "display": "summarized"}, "high")
    request.reasoning = budget(10_000)
    config, effort, _, ctx = thinking(request, CLAUDE_46)
    assert (config, effort) == ({"type": "adaptive"}, "high")
    assert [loss.path for loss in ctx.losses] == ["thinking"]


def test_the_same_request_is_resolved_the_same_way() -> None:
    """L5: resolution changes nothing in the request."""
    request = request_of(level("high"))
    request.turns = [USER, assistant(CALL), Turn(Role.USER, [RESULT])]
    before = msgspec.json.encode(request)
    first = thinking(request, CLAUDE_46)[:3]
    assert thinking(request, CLAUDE_46)[:3] == first
    assert msgspec.json.encode(request) == before
