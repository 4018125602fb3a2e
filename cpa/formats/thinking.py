"""What a request asks for in the way of reasoning, whatever protocol says it (proxy 2.5 and 2.6)."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs


class Mode(StrEnum):
    """The four ways to ask, by their names in the contract of plugins."""

    NONE = "none"
    AUTO = "auto"
    LEVEL = "level"
    BUDGET = "budget"


@attrs.frozen(kw_only=True)
class Thinking:
    """A wish. *budget* in tokens, > 0 with `Mode.BUDGET` only; *level* in lower case, with `Mode.LEVEL` only."""

    mode: Mode
    budget: int = 0
    level: str = ""

    @property
    def effort(self) -> str:
        """The level that it counts as."""
        return {Mode.LEVEL: self.level, Mode.BUDGET: effort_of_budget(self.budget)}.get(self.mode, self.mode.value)


OFF: Final = Thinking(mode=Mode.NONE)
DYNAMIC: Final = Thinking(mode=Mode.AUTO)
LEVELS: Final = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})
BUDGET_LEVELS: Final = ((512, "minimal"), (1024, "low"), (8192, "medium"), (24576, "high"))
"""Largest budget in tokens of each level; above them all is ``xhigh`` (proxy 2.6)."""
MAX_BUDGET_DIGITS: Final = 9
_WORDS: Final[Mapping[str, Thinking]] = {"none": OFF, "auto": DYNAMIC, "-1": DYNAMIC}
_SUFFIX = re.compile(r"(.+)\(([^()]*)\)", re.DOTALL)


def of_word(word: str) -> Thinking | None:
    """What an effort written as *word* means; None for an empty one."""
    word = word.strip().lower()
    return _WORDS.get(word) or Thinking(mode=Mode.LEVEL, level=word) if word else None


def of_budget(budget: int) -> Thinking | None:
    """What a budget in tokens means; None for one that means nothing."""
    if budget > 0:
        return Thinking(mode=Mode.BUDGET, budget=budget)
    return {0: OFF, -1: DYNAMIC}.get(budget)


def effort_of_budget(budget: int) -> str:
    """The level that a thinking *budget* in tokens counts as; empty for one that means nothing."""
    if budget <= 0:
        return {0: "none", -1: "auto"}.get(budget, "")
    return next((level for limit, level in BUDGET_LEVELS if budget <= limit), "xhigh")


def split_suffix(model: str) -> tuple[str, Thinking | None] | None:
    """The name before a suffix ``(…)`` and the wish in it, None when it says nothing; None for a name without one."""
    if not model.endswith(")"):  # of every request's
        return None
    found = _SUFFIX.fullmatch(model)
    if found is None:
        return None
    base, word = found[1], found[2].strip().lower()
    if word.isascii() and word.isdigit() and len(word.lstrip("0")) <= MAX_BUDGET_DIGITS:
        return base, of_budget(int(word))
    return base, _WORDS.get(word) or (Thinking(mode=Mode.LEVEL, level=word) if word in LEVELS else None)
