"""Operators' expressions on hostile texts: what is safe is found, what is not is not run."""

import re
from time import perf_counter

import pytest

from cpa.scheduling.patterns import MAX_CHARS, found, searchable_chars


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(?i)overloaded_.*", "error: OVERLOADED_now"),
        (r"quota (exceeded|reached)", "the quota reached"),
        (r"\d+ of \d+ used", "now 100 of 100 used"),
        (r"^\s*\{", '  {"error":1}'),
        (r"a{1,3}b", "xxaab"),
        (r"(?:ab)+c", "ababc"),
        (r"(?m)^line two$", "line one\nline two"),
    ],
)
def test_usual_expressions_are_found(pattern: str, text: str) -> None:
    """Unanchored, as the contract has them."""
    assert found(re.compile(pattern), text)
    assert not found(re.compile(pattern), "nothing of that kind")


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a|aa)+$",
        r"(a?){30}a{30}",
        r"(.*)*x",
        r"(x+x+)+y",
        r".*.*.*=",
        r"(?=a)a",
        r"(a)\1",
        r"((a)|(b)*)*c",
    ],
)
def test_expressions_that_could_stall_are_not_run(pattern: str) -> None:
    """A provider chooses the text."""
    assert searchable_chars(re.compile(pattern)) == 0
    assert not found(re.compile(pattern), "a" * 5000 + "=")


@pytest.mark.parametrize("pattern", [r"(?i)overloaded_.*", r"\d+ of \d+ used", r"a.*b", r"[ax]+$", r".*x"])
def test_no_text_takes_long(pattern: str) -> None:
    """The worst case is bounded by the length that is looked at."""
    begun = perf_counter()
    for text in ("a" * 100_000, "9 of " * 20_000, "overloaded_" * 9000):
        found(re.compile(pattern), text)
    assert perf_counter() - begun < 5


def test_plain_expressions_see_all_that_is_ever_looked_at() -> None:
    """No repetition, no limit but the common one."""
    assert searchable_chars(re.compile("maintenance")) == MAX_CHARS
