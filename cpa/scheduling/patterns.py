"""Operators' regular expressions on providers' text, without a way to stall the proxy.

The expressions are RE2's (proxy 4.7), which take time linear in the text. Python's engine backtracks: a nested
repetition can take years on thirty characters that a hostile provider chooses. So an expression is judged once: one
that repeats inside a repetition, or looks around or back (which RE2 does not know either), is not run at all; of the
others, each unbounded repetition multiplies the worst case by the length of the text, so the more there are of them,
the less of the text is looked at.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from re import _constants, _parser  # type: ignore[attr-defined]  # the only parser of exactly this syntax
from typing import Any, Final

MAX_CHARS: Final = 16 << 10
STEPS: Final = 4_000_000
"""Worst case of one search, some 50 ms. A search may begin anywhere, which is one factor more."""
MIN_CHARS: Final = 48
"""Of a text are always looked at, if an expression is run at all."""
SMALL_REPEAT: Final = 16
"""Repetitions up to this many times count as written out."""

_REPEATS: Final = {_constants.MAX_REPEAT, _constants.MIN_REPEAT}
_FOREIGN: Final = {_constants.ASSERT, _constants.ASSERT_NOT, _constants.GROUPREF, _constants.GROUPREF_EXISTS}


def found(pattern: re.Pattern[str], text: str) -> bool:
    """Whether *pattern* is found anywhere in as much of *text* as can be searched safely.

    Never true for a pattern that nests repetitions, looks around or refers back.
    """
    limit = searchable_chars(pattern)
    return limit > 0 and pattern.search(text, 0, limit) is not None


@lru_cache(maxsize=512)
def searchable_chars(pattern: re.Pattern[str]) -> int:
    """How much of a text *pattern* is searched in; 0 = it is not run."""
    try:
        repeats = _repeats(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE & ~re.DEBUG), inside=False)
    except (re.error, RecursionError, ValueError, OverflowError):
        return 0
    if repeats is None:
        return 0
    chars = int(STEPS ** (1 / (repeats + 1)))
    return min(MAX_CHARS, chars) if chars >= MIN_CHARS else 0


def _repeats(parsed: Iterable[Any], *, inside: bool) -> int | None:
    """Repetitions of many times in *parsed*; None when some are nested, or it cannot be run."""
    total = 0
    for op, argument in parsed:
        found_here: int | None = 0
        if op in _FOREIGN:
            return None
        if op in _REPEATS:
            _, most, inner = argument
            many = most is _constants.MAXREPEAT or most > SMALL_REPEAT
            if inside and most != 1:
                return None
            found_here = _repeats(inner, inside=inside or most != 1)
            if found_here is not None and most != 1 and _ambiguous(inner):
                return None
            if found_here is not None and many:
                found_here += 1
        elif op is _constants.SUBPATTERN:
            found_here = _repeats(argument[-1], inside=inside)
        elif op is _constants.BRANCH:
            found_here = _sum(_repeats(branch, inside=inside) for branch in argument[1])
        elif op in (getattr(_constants, "ATOMIC_GROUP", None), getattr(_constants, "POSSESSIVE_REPEAT", None)):
            return None
        if found_here is None:
            return None
        total += found_here
    return total


def _ambiguous(parsed: Iterable[Any]) -> bool:
    """Whether what is repeated may match one text in two ways: alternatives, or something optional."""
    for op, argument in parsed:
        if op is _constants.BRANCH or op in _REPEATS:
            return True
        if op is _constants.SUBPATTERN and _ambiguous(argument[-1]):
            return True
    return False


def _sum(parts: Iterable[int | None]) -> int | None:
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total
