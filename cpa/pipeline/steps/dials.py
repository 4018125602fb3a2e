"""Steps on how a model works: ``cap-output-tokens``, ``reasoning``, ``strip-reasoning`` of requests."""

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from cpa.config.schema import FrozenJson
from cpa.formats.names import Format
from cpa.formats.thinking import LEVELS, effort_of_budget
from cpa.pipeline.steps.tree import (
    Members,
    Tree,
    change,
    drop,
    edit_items,
    edit_member,
    edit_objects,
    given,
    items_of,
    keep_objects,
    members_of,
    number_of,
    put,
    scalar_of,
    text_of,
)
from cpa.pipeline.steps.values import BuiltIn, WrongSetting, for_formats, positive

LIMIT: Final = "a number of tokens of at least 1"
EFFORT: Final = "off, a level (minimal, low, medium, high, xhigh, max) or a budget in tokens"
MIN_CLAUDE_BUDGET: Final = 1024
"""Claude thinks with at least so many tokens, and with fewer than it may write (translation 2.9)."""
BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 128000,
}
"""Translation 2.9."""

# --- cap-output-tokens -----------------------------------------------------------------------------------------------


def make_cap(setting: FrozenJson) -> BuiltIn:
    """``cap-output-tokens: N``: larger limits become N, and a request without one gets it."""
    limit = positive(setting, LIMIT)

    def at_most(members: Members, names: tuple[str, ...], *, otherwise: str) -> bool:
        changed, found = False, False
        for name in names:
            if given(members, name):
                found = True
                value = number_of(members[name])
                if value is not None and value > limit:
                    changed |= put(members, name, limit)
        return changed if found or not otherwise else put(members, otherwise, limit)

    def claude(members: Members) -> bool:
        changed = at_most(members, ("max_tokens",), otherwise="max_tokens")
        return edit_member(members, "thinking", lambda inner: _thinking_below(inner, limit)) or changed

    def gemini(members: Members) -> bool:
        holder = "generation_config" if given(members, "generation_config") else "generationConfig"
        inner = members_of(members.get(holder)) or {}
        if not at_most(inner, ("maxOutputTokens", "max_output_tokens"), otherwise="maxOutputTokens"):
            return False
        members[holder] = inner
        return True

    chat = ("max_completion_tokens", "max_tokens")
    responses = ("max_output_tokens",)
    return for_formats(
        {
            Format.OPENAI: _of(lambda members: at_most(members, chat, otherwise=chat[0])),
            Format.OPENAI_RESPONSE: _of(lambda members: at_most(members, responses, otherwise=responses[0])),
            # Hosts of this dialect refuse the member (translation 2.19); one that is there is their client's risk.
            Format.CODEX: _of(lambda members: at_most(members, responses, otherwise="")),
            Format.CLAUDE: _of(claude),
            Format.GEMINI: _of(gemini),
        }
    )


def _thinking_below(thinking: Members, limit: int) -> bool:
    """Keep a budget below what may be written at all, which is what Claude asks for; else do without."""
    budget = number_of(thinking.get("budget_tokens"))
    if budget is None or budget < limit:
        return False
    if limit - 1 >= MIN_CLAUDE_BUDGET:
        return put(thinking, "budget_tokens", limit - 1)
    thinking.clear()
    return put(thinking, "type", "disabled")


# --- reasoning -------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Effort:
    """What the setting asks for: nothing at all, a level, or a budget with the level that it counts as."""

    level: str
    budget: int
    by_budget: bool = False

    @property
    def off(self) -> bool:
        """No reasoning."""
        return self.budget == 0


def make_reasoning(setting: FrozenJson) -> BuiltIn:
    """``reasoning: off|LEVEL|BUDGET``."""
    effort = _effort(setting)

    def of(write: Callable[[Members, Effort], bool]) -> BuiltIn:
        return _of(lambda members: write(members, effort))

    return for_formats(
        {
            Format.OPENAI: of(_chat_effort),
            Format.OPENAI_RESPONSE: of(_responses_effort),
            Format.CODEX: of(_responses_effort),
            Format.CLAUDE: of(_claude_effort),
            Format.GEMINI: of(_gemini_effort),
        }
    )


def _effort(setting: FrozenJson) -> Effort:
    # YAML 1.1 readers, and people who know them, take a bare off for false.
    if setting is False or setting in ("off", "none"):
        return Effort(level="none", budget=0)
    if isinstance(setting, str) and setting in LEVELS:
        return Effort(level=setting, budget=BUDGETS[setting])
    if isinstance(setting, bool) or not isinstance(setting, int) or setting < 0:
        raise WrongSetting(EFFORT, setting)
    return Effort(level=effort_of_budget(setting), budget=setting, by_budget=True)


def _chat_effort(members: Members, effort: Effort) -> bool:
    changed = drop(members, "reasoning", "include_reasoning", "thinking")  # other hosts' ways to say it
    return put(members, "reasoning_effort", effort.level) or changed


def _responses_effort(members: Members, effort: Effort) -> bool:
    reasoning = members_of(members.get("reasoning")) or {}
    if not put(reasoning, "effort", effort.level):
        return False
    members["reasoning"] = reasoning
    return True


def _claude_effort(members: Members, effort: Effort) -> bool:
    """A level goes to models that take levels, a budget to those that take budgets: names of models say neither."""
    if effort.off:
        changed = put(members, "thinking", {"type": "disabled"})
        return _without_effort(members) or changed
    if not effort.by_budget:
        changed = put(members, "thinking", {"type": "adaptive"})
        output = members_of(members.get("output_config")) or {}
        if put(output, "effort", "low" if effort.level == "minimal" else effort.level):
            members["output_config"] = output
            changed = True
        return changed
    budget = max(effort.budget, MIN_CLAUDE_BUDGET)
    limit = number_of(members.get("max_tokens"))
    if limit is not None and budget >= limit:
        budget = int(limit) - 1
    thinking: Tree = (
        {"type": "enabled", "budget_tokens": budget} if budget >= MIN_CLAUDE_BUDGET else {"type": "disabled"}
    )
    changed = put(members, "thinking", thinking)
    return _without_effort(members) or changed


def _without_effort(members: Members) -> bool:
    changed = edit_member(members, "output_config", lambda output: drop(output, "effort"))
    if changed and not members_of(members.get("output_config")):
        drop(members, "output_config")
    return changed


def _gemini_effort(members: Members, effort: Effort) -> bool:
    holder = "generation_config" if given(members, "generation_config") else "generationConfig"
    config = members_of(members.get(holder)) or {}
    name = "thinking_config" if given(config, "thinking_config") else "thinkingConfig"
    thinking = members_of(config.get(name)) or {}
    by_level = not effort.off and not effort.by_budget
    wrong = ("thinkingBudget", "thinking_budget", "thinking_level")
    changed = drop(thinking, *(wrong if by_level else ("thinkingLevel", "thinking_level", "thinking_budget")))
    if by_level:
        changed |= put(thinking, "thinkingLevel", _GEMINI_LEVELS.get(effort.level, effort.level.upper()))
    else:
        changed |= put(thinking, "thinkingBudget", effort.budget)
    if changed:
        config[name] = thinking
        members[holder] = config
    return changed


_GEMINI_LEVELS: Final[Mapping[str, str]] = {"xhigh": "HIGH", "max": "HIGH"}

# --- strip-reasoning -------------------------------------------------------------------------------------------------

ENCRYPTED: Final = "reasoning.encrypted_content"
_CHAT_SETTINGS: Final = ("reasoning_effort", "reasoning", "include_reasoning", "thinking")
CHAT_REASONING: Final = ("reasoning_content", "reasoning", "reasoning_details")
"""Members of messages and deltas in which Chat hosts tell a model's thoughts."""


def chat_request(members: Members) -> bool:
    """Settings, and thoughts in the history."""
    changed = drop(members, *_CHAT_SETTINGS)
    return edit_objects(members, "messages", lambda message: drop(message, *CHAT_REASONING)) or changed


def responses_request(members: Members) -> bool:
    """Settings, items of thoughts, and the wish to have them back."""
    changed = drop(members, "reasoning")
    changed |= keep_objects(members, "input", lambda item: text_of(item.get("type")) != "reasoning")
    changed |= edit_items(members, "include", lambda node: None if text_of(node) == ENCRYPTED else node)
    if changed and items_of(members.get("include")) == []:
        drop(members, "include")
    return changed


def claude_request(members: Members) -> bool:
    """Settings and blocks of thoughts; a message that held nothing else goes with them."""
    changed = drop(members, "thinking") | _without_effort(members)

    def one(node: Tree) -> Tree:
        message = members_of(node)
        if message is None or not keep_objects(message, "content", lambda block: not is_thought(block)):
            return node
        return message if items_of(message.get("content")) else None

    return edit_items(members, "messages", one) or changed


def is_thought(block: Members) -> bool:
    """A block of Claude's that holds thoughts, readable or not."""
    return text_of(block.get("type")) in ("thinking", "redacted_thinking")


def gemini_request(members: Members) -> bool:
    """Settings and parts of thoughts. Signatures of calls stay: models refuse their own calls without."""
    changed = False
    for holder in ("generationConfig", "generation_config"):
        changed |= edit_member(members, holder, lambda config: drop(config, "thinkingConfig", "thinking_config"))

    def one(node: Tree) -> Tree:
        content = members_of(node)
        if content is None or not keep_objects(content, "parts", lambda part: not is_thought_part(part)):
            return node
        return content if items_of(content.get("parts")) else None

    return edit_items(members, "contents", one) or changed


def is_thought_part(part: Members) -> bool:
    """A part of Gemini's that holds a thought."""
    return scalar_of(part.get("thought")) is True


def _of(edit: Callable[[Members], bool]) -> BuiltIn:
    return lambda body, context: change(body, edit)


strip_reasoning: Final[Mapping[str, BuiltIn]] = {
    Format.OPENAI: _of(chat_request),
    Format.OPENAI_RESPONSE: _of(responses_request),
    Format.CODEX: _of(responses_request),
    Format.CLAUDE: _of(claude_request),
    Format.GEMINI: _of(gemini_request),
}
"""``strip-reasoning`` of requests, by protocol."""
