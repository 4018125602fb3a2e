"""How a Chat request asks for reasoning: the vendor's member, and those of compatible hosts (translation 2.9)."""

from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.translation.chat import wire
from cpa.translation.chat.wire import Body, given, text_of
from cpa.translation.ir import ReasoningIntent, ReasoningMode
from cpa.translation.reasoning import intent_from_budget, intent_from_effort

_EFFORTS: Final = "none, minimal, low, medium, high, xhigh, max or auto"
_TYPES: Final = {
    "disabled": ReasoningMode.OFF,
    "adaptive": ReasoningMode.AUTO,
    "auto": ReasoningMode.AUTO,
    "between_tools": ReasoningMode.BETWEEN_TOOLS,
}


def read_reasoning(body: Body) -> ReasoningIntent:
    """What is asked for; what is said first in this order counts: the vendor's member, ``reasoning``, ``thinking``,
    Google's ``thinking_config``. A budget beside a level is kept. Raises: MalformedRequest, Untranslatable."""
    intent = ReasoningIntent()
    if given(body.reasoning_effort):
        word = text_of(body.reasoning_effort)
        found = intent_from_effort(word) if word is not None else None
        if found is None:
            raise MalformedRequest(f"reasoning_effort: expected {_EFFORTS}", param="reasoning_effort")
        _merge(intent, found)
    _of_object(intent, body.reasoning)
    _of_claude(intent, body.thinking)
    for raw in _google(body):
        _of_google(intent, raw)
    if intent.visible is None and given(body.include_reasoning):
        intent.visible = {b"true": True, b"false": False}.get(bytes(body.include_reasoning))
    return intent


def _merge(intent: ReasoningIntent, found: ReasoningIntent) -> None:
    if intent.mode is ReasoningMode.UNSET:
        intent.mode, intent.level, intent.budget = found.mode, found.level, found.budget
    elif intent.mode is ReasoningMode.LEVEL and found.mode is ReasoningMode.BUDGET and not intent.budget:
        intent.budget = found.budget


def _of_object(intent: ReasoningIntent, raw: msgspec.Raw) -> None:
    config = wire.read(wire.ReasoningConfig, raw) if given(raw) else None
    if config is None:
        return
    if config.effort is not None:
        found = intent_from_effort(config.effort)
        if found is None:
            raise MalformedRequest(f"reasoning.effort: expected {_EFFORTS}", param="reasoning.effort")
        _merge(intent, found)
    if config.max_tokens is not None:
        _merge(intent, intent_from_budget(config.max_tokens, param="reasoning.max_tokens"))
    if config.enabled is False:
        intent.mode, intent.level, intent.budget = ReasoningMode.OFF, "", 0
    elif config.enabled:
        _merge(intent, ReasoningIntent(mode=ReasoningMode.AUTO))
    if config.exclude:
        intent.visible = False


def _of_claude(intent: ReasoningIntent, raw: msgspec.Raw) -> None:
    config = wire.read(wire.Thinking, raw) if given(raw) else None
    if config is None:
        return
    mode = _TYPES.get(config.type or "")
    if mode is not None:
        _merge(intent, ReasoningIntent(mode=mode))
    elif config.budget_tokens is not None:
        _merge(intent, intent_from_budget(config.budget_tokens, param="thinking.budget_tokens"))
    elif config.type == "enabled":  # without a budget, of hosts that know none
        _merge(intent, ReasoningIntent(mode=ReasoningMode.AUTO))
    if config.display in ("summarized", "omitted"):
        intent.visible, intent.detail = config.display == "summarized", config.display


def _google(body: Body) -> list[wire.ThinkingConfig]:
    """Google's member in the three places where clients put it."""
    found: list[wire.ThinkingConfig | None] = []
    if given(body.extra_body):
        extra = wire.read(wire.ExtraBody, body.extra_body)
        found.append(extra.google.thinking_config if extra is not None and extra.google is not None else None)
    if given(body.google):
        google = wire.read(wire.Google, body.google)
        found.append(google.thinking_config if google is not None else None)
    if given(body.thinking_config):
        found.append(wire.read(wire.ThinkingConfig, body.thinking_config))
    return [config for config in found if config is not None]


def _of_google(intent: ReasoningIntent, config: wire.ThinkingConfig) -> None:
    level = intent_from_effort(config.thinking_level) if config.thinking_level is not None else None
    if level is not None:
        _merge(intent, level)
    if config.thinking_budget is not None:
        param = "extra_body.google.thinking_config.thinking_budget"
        _merge(intent, intent_from_budget(config.thinking_budget, param=param))
    if config.include_thoughts is not None:
        intent.visible = config.include_thoughts
