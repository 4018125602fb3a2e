"""What a request asks for beside its answer: the members of plugin-abi 6.11 that are read out of its body."""

import re
from typing import Final

import attrs
import msgspec

from cpa.formats.json import repair
from cpa.formats.names import Format
from cpa.formats.thinking import DYNAMIC, OFF, Thinking, of_budget, of_word

DEFAULT_TIER: Final = "auto"
MAX_WORD_BYTES: Final = 64
"""Of an effort or a tier, as JSON; longer ones are no names."""

_HINTS: Final = (b'"service_tier', b'"generat', b'"reasoning', b'"thinking', b'"output_config')
"""How the names of all members begin that matter at the top of a body."""

_NONE = msgspec.Raw(b"")
_INTEGER = re.compile(rb"-?[0-9]{1,9}")


@attrs.frozen(kw_only=True)
class RequestFacts:
    """What records and the metadata of calls say of a request.

    Attributes:
      thinking: what the client asked for; None = nothing.
      service_tier: as the client wrote it, else ``auto``.
      generate: False for an explicit ``"generate": false`` only.
    """

    thinking: Thinking | None = None
    service_tier: str = DEFAULT_TIER
    generate: bool = True

    @property
    def reasoning_effort(self) -> str:
        """``none``, ``auto`` or a level, in lower case; a budget counts as its level. Empty = not asked."""
        return "" if self.thinking is None else self.thinking.effort


NO_FACTS: Final = RequestFacts()


class _Members(msgspec.Struct, gc=False):
    """All members that matter, of a body and of the objects in it; one class does for both."""

    service_tier: msgspec.Raw = _NONE
    generate: msgspec.Raw = _NONE
    reasoning_effort: msgspec.Raw = _NONE
    reasoning: msgspec.Raw = _NONE
    effort: msgspec.Raw = _NONE
    thinking: msgspec.Raw = _NONE
    type: msgspec.Raw = _NONE
    budget_tokens: msgspec.Raw = _NONE
    output_config: msgspec.Raw = _NONE
    generationConfig: msgspec.Raw = _NONE
    generation_config: msgspec.Raw = _NONE
    thinkingConfig: msgspec.Raw = _NONE
    thinking_config: msgspec.Raw = _NONE
    thinkingLevel: msgspec.Raw = _NONE
    thinking_level: msgspec.Raw = _NONE
    thinkingBudget: msgspec.Raw = _NONE
    thinking_budget: msgspec.Raw = _NONE


_decode = msgspec.json.Decoder(_Members).decode
_decode_text = msgspec.json.Decoder(str).decode
_NOTHING: Final = _Members()


def request_facts(fmt: Format, body: bytes) -> RequestFacts:
    """Read a client's *body* in the protocol *fmt*. Never raises: what cannot be read asks for nothing."""
    for hint in _HINTS:
        if hint in body:
            break
    else:
        return NO_FACTS  # most requests; a search costs a tenth of reading them
    body_members = _members(body)
    if body_members is _NOTHING:
        return NO_FACTS
    return RequestFacts(
        thinking=_thinking(fmt, body_members),
        service_tier=_word(body_members.service_tier) or DEFAULT_TIER,
        generate=bytes(body_members.generate) != b"false",
    )


def _thinking(fmt: Format, body: _Members) -> Thinking | None:
    match fmt:
        case Format.OPENAI:
            return of_word(_word(body.reasoning_effort))
        case Format.OPENAI_RESPONSE | Format.CODEX:
            return of_word(_word(_members(body.reasoning).effort))
        case Format.CLAUDE:
            return _claude_thinking(_members(body.thinking), _word(_members(body.output_config).effort))
        case Format.GEMINI:
            generation = _members(body.generationConfig, body.generation_config)
            return _gemini_thinking(_members(generation.thinkingConfig, generation.thinking_config))


def _claude_thinking(thinking: _Members, effort: str) -> Thinking | None:
    kind = _word(thinking.type)
    if kind == "disabled":
        return OFF
    if effort:
        return of_word(effort)
    if kind == "enabled":
        budget = _integer(thinking.budget_tokens)
        return DYNAMIC if budget is None else of_budget(budget)
    return DYNAMIC if kind == "adaptive" else None


def _gemini_thinking(thinking: _Members) -> Thinking | None:
    level = _word(thinking.thinkingLevel) or _word(thinking.thinking_level)
    if level:
        return of_word(level)
    budget = _integer(thinking.thinkingBudget)
    if budget is None:
        budget = _integer(thinking.thinking_budget)
    return None if budget is None else of_budget(budget)


def _members(*values: bytes | msgspec.Raw) -> _Members:
    """The members of the first of *values* that is an object; `_NOTHING` when none is."""
    for value in values:
        if value is _NONE:
            continue
        try:
            return _decode(value)
        except (ValueError, RecursionError):
            try:
                return _decode(repair(bytes(value)))
            except (ValueError, RecursionError):
                continue
    return _NOTHING


def _word(raw: msgspec.Raw) -> str:
    """The text of a short string without the blanks around it, else empty."""
    data = memoryview(raw)
    if not 2 < len(data) <= MAX_WORD_BYTES:
        return ""
    try:
        return _decode_text(data).strip()
    except ValueError:
        return ""


def _integer(raw: msgspec.Raw) -> int | None:
    data = memoryview(raw)
    return int(bytes(data)) if _INTEGER.fullmatch(data) else None
