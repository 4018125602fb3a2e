"""What a request asks for beside its answer: the members of plugin-abi 6.11 that are read out of its body."""

import re
from typing import Final

import attrs
import msgspec

from cpa.formats.json import repair
from cpa.formats.members import NONE, Members
from cpa.formats.names import Format
from cpa.formats.thinking import DYNAMIC, OFF, Thinking, of_budget, of_word

DEFAULT_TIER: Final = "auto"
MAX_WORD_BYTES: Final = 64
"""Of an effort or a tier, as JSON; longer ones are no names."""

_HINTS: Final = (b'"service_tier', b'"generat', b'"reasoning', b'"thinking', b'"output_config')
"""How the names of all members begin that matter at the top of a body."""

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


_decode = msgspec.json.Decoder(Members).decode
_decode_text = msgspec.json.Decoder(str).decode
_NOTHING: Final = Members()


def request_facts(fmt: Format, body: bytes, read: Members | None = None) -> RequestFacts:
    """Read a client's *body* in the protocol *fmt*. Never raises: what cannot be read asks for nothing.

    *read*: its members, if somebody has read them already.
    """
    if read is not None:
        return NO_FACTS if _says_nothing(read) else _facts(fmt, read)
    for hint in _HINTS:
        if hint in body:
            break
    else:
        return NO_FACTS  # most requests; a search costs a tenth of reading them
    body_members = _members(body)
    return NO_FACTS if body_members is _NOTHING else _facts(fmt, body_members)


def _says_nothing(body: Members) -> bool:
    """None of the members that matter at the top of a body is there: most requests."""
    return (
        body.service_tier is NONE
        and body.generate is NONE
        and body.reasoning_effort is NONE
        and body.reasoning is NONE
        and body.thinking is NONE
        and body.output_config is NONE
        and body.generationConfig is NONE
        and body.generation_config is NONE
    )


def _facts(fmt: Format, body: Members) -> RequestFacts:
    return RequestFacts(
        thinking=_thinking(fmt, body),
        service_tier=_word(body.service_tier) or DEFAULT_TIER,
        generate=bytes(body.generate) != b"false",
    )


def _thinking(fmt: Format, body: Members) -> Thinking | None:
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


def _claude_thinking(thinking: Members, effort: str) -> Thinking | None:
    kind = _word(thinking.type)
    if kind == "disabled":
        return OFF
    if effort:
        return of_word(effort)
    if kind == "enabled":
        budget = _integer(thinking.budget_tokens)
        return DYNAMIC if budget is None else of_budget(budget)
    return DYNAMIC if kind == "adaptive" else None


def _gemini_thinking(thinking: Members) -> Thinking | None:
    level = _word(thinking.thinkingLevel) or _word(thinking.thinking_level)
    if level:
        return of_word(level)
    budget = _integer(thinking.thinkingBudget)
    if budget is None:
        budget = _integer(thinking.thinking_budget)
    return None if budget is None else of_budget(budget)


def _members(*values: bytes | msgspec.Raw) -> Members:
    """The members of the first of *values* that is an object; `_NOTHING` when none is."""
    for value in values:
        if value is NONE:
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
