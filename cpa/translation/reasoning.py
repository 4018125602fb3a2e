"""How much a model is to reason (translation 2.9): what was asked, what the model takes, what it is told.

Theory of operation. Parsers make a `ReasoningIntent` of what a client wrote. `resolve` fits it to the model's
`Capability`. Then one function per target protocol writes its member; Claude has the most rules.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs
import msgspec

from cpa.formats.names import Format
from cpa.formats.thinking import MAX_BUDGET_DIGITS, effort_of_budget
from cpa.jsontypes import JsonObject
from cpa.translation.context import Context
from cpa.translation.ir import (
    Call,
    ChoiceMode,
    IRRequest,
    Part,
    Provenance,
    Reasoning,
    ReasoningIntent,
    ReasoningMode,
    Result,
    Role,
    Text,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.profile import Capability, CapabilityKind
from cpa.translation.signatures import for_family

LEVELS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")
"""In ascending order."""
BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 128000,
    "auto": -1,
}
DEFAULT_LEVEL: Final = "medium"
"""Of models that cannot choose themselves, and of codex."""
VALUE_CODE: Final = "unsupported_value"
SUMMARY_DETAILS: Final = frozenset({"auto", "concise", "detailed"})
_PREFERENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "xhigh": ("xhigh", "max", "high"),
    "max": ("max", "xhigh", "high"),
}
"""Whoever asks for most wants most; all other levels go to their neighbours."""
_WITH_LEVELS: Final = frozenset({CapabilityKind.LEVEL, CapabilityKind.HYBRID})
_PARAMS: Final[Mapping[Format, tuple[str, str]]] = {
    Format.OPENAI: ("reasoning_effort", "reasoning.max_tokens"),
    Format.OPENAI_RESPONSE: ("reasoning.effort", "reasoning.effort"),
    Format.CODEX: ("reasoning.effort", "reasoning.effort"),
    Format.CLAUDE: ("output_config.effort", "thinking.budget_tokens"),
    Format.GEMINI: (
        "generationConfig.thinkingConfig.thinkingLevel",
        "generationConfig.thinkingConfig.thinkingBudget",
    ),
}
"""Where each protocol says a level, and a budget."""


class ResolvedMode(StrEnum):
    """What a provider is to be told."""

    OFF = "off"
    AUTO = "auto"
    LEVEL = "level"
    BUDGET = "budget"
    NOTHING = "nothing"


@attrs.frozen(kw_only=True)
class Resolved:
    """What a model gets. With `LEVEL` and `BUDGET` both *level* and *budget* are set, one made of the other."""

    mode: ResolvedMode
    level: str = ""
    budget: int = 0


NOTHING: Final = Resolved(mode=ResolvedMode.NOTHING)
OFF: Final = Resolved(mode=ResolvedMode.OFF, level="none")
AUTO: Final = Resolved(mode=ResolvedMode.AUTO, level="auto", budget=-1)


# --- reading ---------------------------------------------------------------------------------------------------------


def level_of(budget: int) -> str:
    """The level of a budget in tokens: ``none`` for 0, ``auto`` for -1."""
    return effort_of_budget(budget)


def budget_of(level: str) -> int:
    """The budget of a level: 0 for ``none``, -1 for ``auto``; that of the default level for an unknown one."""
    return BUDGETS.get(level, BUDGETS[DEFAULT_LEVEL])


def intent_from_suffix(word: str) -> ReasoningIntent | None:
    """Of the word in a model's suffix ``(…)``; None = it says nothing, though the suffix goes."""
    word = word.strip().lower()
    intent = ReasoningIntent(mode=ReasoningMode.AUTO) if word == "-1" else intent_from_effort(word)
    if intent is None and word.isascii() and word.isdigit() and len(word.lstrip("0")) <= MAX_BUDGET_DIGITS:
        intent = _of_budget(int(word))
    if intent is not None:
        intent.suffix = True
    return intent


def intent_from_effort(word: str) -> ReasoningIntent | None:
    """Of an effort or level in a body, in any case; None = no word that is known."""
    word = word.strip().lower()
    if word in LEVELS:
        return ReasoningIntent(mode=ReasoningMode.LEVEL, level=word)
    mode = {"none": ReasoningMode.OFF, "auto": ReasoningMode.AUTO}.get(word)
    return None if mode is None else ReasoningIntent(mode=mode)


def intent_from_budget(budget: int, *, param: str) -> ReasoningIntent:
    """Of a budget in a body: 0 is off, -1 the model's choice. Raises: Untranslatable for a smaller one."""
    if budget < -1:
        raise Untranslatable(param, f"{param}: a budget is -1, 0 or a number of tokens, got {budget}", code=VALUE_CODE)
    return _of_budget(budget)


def with_suffix(intent: ReasoningIntent, suffix: ReasoningIntent) -> ReasoningIntent:
    """*suffix* of the model's name beats the body in how much is reasoned, not in what is shown."""
    return msgspec.structs.replace(
        intent, mode=suffix.mode, level=suffix.level, budget=suffix.budget, suffix=True, effort_only=False
    )


def _of_budget(budget: int) -> ReasoningIntent:
    if budget <= 0:
        return ReasoningIntent(mode=ReasoningMode.OFF if budget == 0 else ReasoningMode.AUTO)
    return ReasoningIntent(mode=ReasoningMode.BUDGET, budget=budget)


# --- what the model takes --------------------------------------------------------------------------------------------


def resolve(intent: ReasoningIntent, cap: Capability, *, same_family: bool, ctx: Context) -> Resolved:
    """What a model of capability *cap* gets.

    Args:
      same_family: the client speaks the protocol of this model's vendor, and should know its limits.

    Raises: Untranslatable for what a client of the same family wrote into its body and the model lacks.
    """
    level_param, budget_param = _PARAMS[ctx.client]
    if intent.suffix:
        level_param = budget_param = "model"
    mode = intent.mode
    if mode is ReasoningMode.UNSET:
        return NOTHING
    if cap.kind is CapabilityKind.NONE:
        if mode is not ReasoningMode.OFF:  # which it gets
            ctx.lose(level_param, "the model does not reason", dropped=True)
        return NOTHING
    strictly = same_family and not intent.suffix
    match mode:
        case ReasoningMode.OFF:
            return _off(cap, level_param, ctx)
        case ReasoningMode.AUTO | ReasoningMode.BETWEEN_TOOLS:
            return _auto(cap)
        case ReasoningMode.LEVEL:
            by_level = cap.kind is not CapabilityKind.BUDGET or not intent.budget
        case ReasoningMode.BUDGET:
            by_level = bool(intent.level) and cap.kind in _WITH_LEVELS
    if cap.kind is CapabilityKind.UNKNOWN:
        return _level(intent.level) if mode is ReasoningMode.LEVEL else _budget(intent.budget)
    if by_level:
        if cap.kind is CapabilityKind.BUDGET:
            return _clamped_budget(budget_of(intent.level), cap)
        return _fitted_level(intent.level, cap, level_param, ctx, strictly=strictly)
    if cap.kind is CapabilityKind.LEVEL:
        return _level(clamp_level(level_of(intent.budget), cap.levels))
    return _fitted_budget(intent.budget, cap, budget_param, ctx, strictly=strictly)


def clamp_level(level: str, levels: tuple[str, ...]) -> str:
    """The one of *levels* that comes closest; *level* itself if the model lists none."""
    known = [name for name in LEVELS if name in levels]
    if level in known or not known:
        return level
    for name in _PREFERENCES.get(level, ()):
        if name in known:
            return name
    place = LEVELS.index(level) if level in LEVELS else LEVELS.index(DEFAULT_LEVEL)
    return min(known, key=lambda name: abs(LEVELS.index(name) - place))  # the lower of two: it comes first


def _off(cap: Capability, param: str, ctx: Context) -> Resolved:
    if cap.zero_ok:
        return OFF
    ctx.lose(param, "the model always reasons")
    if cap.kind in _WITH_LEVELS and cap.levels:
        return _level(next((name for name in LEVELS if name in cap.levels), "low"))
    return _budget(cap.min) if cap.min else _level("low")


def _auto(cap: Capability) -> Resolved:
    if cap.dynamic_ok or cap.kind is CapabilityKind.UNKNOWN:
        return AUTO
    return middle(cap)


def middle(cap: Capability) -> Resolved:
    """What a model gets that is to choose itself and cannot."""
    if cap.kind in _WITH_LEVELS:
        return _level(clamp_level(DEFAULT_LEVEL, cap.levels))
    return _budget((cap.min + cap.max) // 2 if cap.max else BUDGETS[DEFAULT_LEVEL])


def _fitted_level(level: str, cap: Capability, param: str, ctx: Context, *, strictly: bool) -> Resolved:
    fitting = clamp_level(level, cap.levels)
    if fitting != level:
        if strictly:
            known = ", ".join(cap.levels)
            raise Untranslatable(param, f"{param}: the model takes {known}; got {level}", code=VALUE_CODE)
        ctx.lose(param, f"{level} became {fitting}")
    return _level(fitting)


def _fitted_budget(budget: int, cap: Capability, param: str, ctx: Context, *, strictly: bool) -> Resolved:
    fitting = _clamped_budget(budget, cap)
    if fitting.budget != budget:
        if strictly:
            raise Untranslatable(
                param, f"{param}: the model takes {cap.min} to {cap.max} tokens; got {budget}", code=VALUE_CODE
            )
        ctx.lose(param, f"{budget} became {fitting.budget}")
    return fitting


def _clamped_budget(budget: int, cap: Capability) -> Resolved:
    return _budget(max(cap.min, min(budget, cap.max) if cap.max else budget))


def _level(level: str) -> Resolved:
    return Resolved(mode=ResolvedMode.LEVEL, level=level, budget=budget_of(level))


def _budget(budget: int) -> Resolved:
    return Resolved(mode=ResolvedMode.BUDGET, level=level_of(budget), budget=budget)


# --- writing ---------------------------------------------------------------------------------------------------------


def openai_effort(request: IRRequest, ctx: Context) -> str:
    """``reasoning_effort`` of Chat, ``reasoning.effort`` of Responses; empty = leave it out.

    Codex is told ``medium`` where the others are left to themselves (2.19).
    """
    cap = ctx.profile.reasoning
    resolved = resolve(request.reasoning, cap, same_family=ctx.same_family, ctx=ctx)
    if cap.kind is CapabilityKind.NONE:
        return ""
    asked_auto = request.reasoning.mode in (ReasoningMode.AUTO, ReasoningMode.BETWEEN_TOOLS)
    if asked_auto or resolved.mode in (ResolvedMode.AUTO, ResolvedMode.NOTHING):
        # Without a word these models choose themselves, also those that have no word for it.
        return clamp_level(DEFAULT_LEVEL, cap.levels) if ctx.profile.codex else ""
    if resolved.mode is ResolvedMode.BUDGET:
        return clamp_level(resolved.level, cap.levels)
    return resolved.level


def responses_reasoning(request: IRRequest, ctx: Context) -> dict[str, str | msgspec.Raw] | None:
    """``reasoning`` of Responses, codex included, its raw members for `msgspec.json.encode`; None = leave it out.

    A summary is asked for only when the client wants to see reasoning, or the operator does: vendor hosts refuse it to
    organisations that are not verified.
    """
    intent = request.reasoning
    if ctx.profile.reasoning.kind is CapabilityKind.NONE:
        openai_effort(request, ctx)  # for its loss
        return None
    members: dict[str, str | msgspec.Raw] = {}
    if effort := openai_effort(request, ctx):
        members["effort"] = effort
    if intent.visible:
        members["summary"] = intent.detail if intent.detail in SUMMARY_DETAILS else "auto"
    elif intent.visible is None and ctx.settings.responses_default_summary not in ("", "none"):
        members["summary"] = ctx.settings.responses_default_summary
    if ctx.same_family:
        members |= {name: msgspec.Raw(raw) for name, raw in intent.extra.items()}
    return members or None


def gemini_thinking(request: IRRequest, ctx: Context) -> JsonObject | None:
    """``generationConfig.thinkingConfig``; None = leave it out.

    Whoever did not say whether thoughts are to be seen gets them when the model thinks: a Chat client has no way to
    ask, and would never see any.
    """
    intent, cap = request.reasoning, ctx.profile.reasoning
    resolved = resolve(intent, cap, same_family=ctx.same_family, ctx=ctx)
    if cap.kind is CapabilityKind.NONE:
        return None
    config: JsonObject = {}
    visible = intent.visible
    by_level = cap.kind in _WITH_LEVELS or (cap.kind is CapabilityKind.UNKNOWN and ctx.same_family)
    match resolved.mode:
        case ResolvedMode.OFF:
            if cap.kind is CapabilityKind.LEVEL:  # which has no word for it; without one it does as it likes
                return None
            config["thinkingBudget"] = 0
            visible = visible if ctx.same_family else None
        case ResolvedMode.AUTO:
            if cap.kind not in _WITH_LEVELS:
                config["thinkingBudget"] = -1
        case ResolvedMode.LEVEL if by_level:
            config["thinkingLevel"] = resolved.level.upper()
        case ResolvedMode.LEVEL | ResolvedMode.BUDGET:
            config["thinkingBudget"] = resolved.budget
        case ResolvedMode.NOTHING:
            pass
    if visible is None and intent.mode not in (ReasoningMode.UNSET, ReasoningMode.OFF) and not ctx.same_family:
        visible = True
    if visible is not None:
        config["includeThoughts"] = visible
    return config or None


# --- Claude ----------------------------------------------------------------------------------------------------------

MIN_CLAUDE_BUDGET: Final = 1024
ROOM_AFTER_THINKING: Final = 1024
"""Tokens for the answer itself when ``max_tokens`` is raised for a budget."""


@attrs.frozen(kw_only=True)
class ClaudeThinking:
    """*thinking*: the member, None = leave it out. *effort*: for ``output_config``, or empty. *max_tokens*: to send."""

    thinking: JsonObject | None
    effort: str
    max_tokens: int

    @property
    def active(self) -> bool:
        """It thinks: sampling is limited (2.4)."""
        return self.thinking is not None and self.thinking["type"] != "disabled"


def claude_thinking(request: IRRequest, ctx: Context, *, max_tokens: int) -> ClaudeThinking:
    """``thinking`` and effort for Claude, with all its constraints. To be called on turns as they will be sent.

    Args:
      max_tokens: as 2.4 has it; a larger one may come back.

    Raises: Untranslatable, as `resolve`.
    """
    config, effort = _claude_wish(request.reasoning, ctx)
    cap = ctx.profile.reasoning
    if config is None or config["type"] == "disabled":
        return ClaudeThinking(thinking=config, effort=effort, max_tokens=max_tokens)
    if _forces_tool(request):
        ctx.lose("tool_choice", "a forced tool excludes thinking")
        return ClaudeThinking(thinking={"type": "disabled"}, effort=effort, max_tokens=max_tokens)
    if config["type"] == "enabled" and _loop_is_unsigned(request):
        # The API demands that the turn with the calls begins with a block that Claude signed; adaptive does not.
        ctx.lose("thinking", "the running tool loop has no thinking of Claude's")
        if cap.kind is not CapabilityKind.HYBRID:
            return ClaudeThinking(thinking={"type": "disabled"}, effort=effort, max_tokens=max_tokens)
        budget = config.pop("budget_tokens")
        config["type"] = "adaptive"
        effort = effort or _claude_effort(clamp_level(level_of(budget if isinstance(budget, int) else -1), cap.levels))
    if config["type"] == "enabled":
        may_raise = request.sampling.max_out is None
        config, max_tokens = _budget_below(config, max_tokens, ctx, may_raise=may_raise)
    return ClaudeThinking(thinking=config, effort=effort, max_tokens=max_tokens)


def _claude_wish(intent: ReasoningIntent, ctx: Context) -> tuple[JsonObject | None, str]:
    """The member and the effort before constraints."""
    cap, same = ctx.profile.reasoning, ctx.same_family
    # What Claude's own client said beside its mode.
    effort = intent.level if same and not intent.suffix and cap.kind is not CapabilityKind.NONE else ""
    config: JsonObject | None
    match intent.mode:
        case ReasoningMode.UNSET:
            # Shown reasoning is asked for, but not more of it: only where that costs nothing by itself.
            config = {"type": "adaptive"} if intent.visible and cap.kind in _WITH_LEVELS else None
        case ReasoningMode.OFF:
            config = {"type": "disabled"} if cap.kind is not CapabilityKind.NONE else None
        case ReasoningMode.BETWEEN_TOOLS if same and cap.kind is not CapabilityKind.NONE:
            config = {"type": "between_tools"}
        case ReasoningMode.BUDGET if effort and cap.kind is not CapabilityKind.LEVEL:
            alone = msgspec.structs.replace(intent, level="")
            config, _ = _claude_config(resolve(alone, cap, same_family=same, ctx=ctx), cap)
        case _:
            config, effort = _claude_config(resolve(intent, cap, same_family=same, ctx=ctx), cap)
            if same and intent.effort_only and effort:
                config = None
    if config is not None and config["type"] in ("adaptive", "enabled"):
        visible = intent.visible
        if visible is None and not same and cap.kind is CapabilityKind.LEVEL:
            visible = True  # these models omit it unless told, and foreign clients cannot ask
        if visible is not None:
            config["display"] = "summarized" if visible else "omitted"
    return config, effort


def _claude_config(resolved: Resolved, cap: Capability) -> tuple[JsonObject | None, str]:
    if resolved.mode is ResolvedMode.AUTO and cap.kind is CapabilityKind.BUDGET:
        resolved = middle(cap)  # these models reject "adaptive"
    match resolved.mode:
        case ResolvedMode.NOTHING:
            return None, ""
        case ResolvedMode.OFF:
            return {"type": "disabled"}, ""
        case ResolvedMode.AUTO:
            return {"type": "adaptive"}, ""
        case ResolvedMode.LEVEL:
            return {"type": "adaptive"}, _claude_effort(resolved.level)
        case ResolvedMode.BUDGET:
            return {"type": "enabled", "budget_tokens": max(MIN_CLAUDE_BUDGET, resolved.budget)}, ""


def _claude_effort(level: str) -> str:
    return "low" if level == "minimal" else level


def _budget_below(config: JsonObject, max_tokens: int, ctx: Context, *, may_raise: bool) -> tuple[JsonObject, int]:
    """*config* with a budget below *max_tokens*, which is raised for it if it may be."""
    budget = config["budget_tokens"]
    assert isinstance(budget, int)
    if budget < max_tokens:
        return config, max_tokens
    raised, limit = budget + ROOM_AFTER_THINKING, ctx.profile.max_output
    if may_raise and (not limit or raised <= limit):
        return config, raised
    if max_tokens - 1 < MIN_CLAUDE_BUDGET:
        ctx.lose("thinking", "too few output tokens to think")
        return {"type": "disabled"}, max_tokens
    ctx.lose("thinking", f"the budget became {max_tokens - 1}")
    return config | {"budget_tokens": max_tokens - 1}, max_tokens


def _forces_tool(request: IRRequest) -> bool:
    choice = request.tool_choice
    if choice is None or not request.tools:  # without tools the choice is not sent (2.7)
        return False
    if choice.mode is ChoiceMode.SUBSET:
        return choice.required
    return choice.mode in (ChoiceMode.REQUIRED, ChoiceMode.NAMED, ChoiceMode.SERVER)


def _loop_is_unsigned(request: IRRequest) -> bool:
    """Tool results end the history, and the assistant's turn that they answer begins with no thinking of Claude's."""
    rest = list(request.turns)
    answered = False
    while rest and rest[-1].role is not Role.ASSISTANT:
        answered = answered or any(isinstance(part, Result) for part in rest.pop().parts)
    adjacent: list[list[Part]] = []  # which become one turn (2.3)
    while rest and rest[-1].role is Role.ASSISTANT:
        adjacent.append(rest.pop().parts)
    run = [part for parts in reversed(adjacent) for part in parts]
    if not answered or not any(isinstance(part, Call) for part in run):
        return False
    for part in run:
        if isinstance(part, Reasoning):
            if for_family(part.sigs, Provenance.CLAUDE):
                return False  # foreign reasoning before it is not sent
        elif not (isinstance(part, Text) and not part.text):
            return True
    return True
