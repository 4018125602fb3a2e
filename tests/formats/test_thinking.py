"""Thinking settings: suffixes of model names, budgets, words."""

import pytest

from cpa.formats.thinking import DYNAMIC, OFF, Mode, Thinking, of_budget, of_word, split_suffix


def level(name: str) -> Thinking:
    return Thinking(mode=Mode.LEVEL, level=name)


def budget(tokens: int) -> Thinking:
    return Thinking(mode=Mode.BUDGET, budget=tokens)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m", None),
        ("m(high", None),
        ("(high)", None),
        ("m(high)", ("m", level("high"))),
        ("m(XHigh)", ("m", level("xhigh"))),
        ("team/m(a)(low)", ("team/m(a)", level("low"))),
        ("m(0016384)", ("m", budget(16384))),
        ("m(0)", ("m", OFF)),
        ("m(none)", ("m", OFF)),
        ("m(auto)", ("m", DYNAMIC)),
        ("m(-1)", ("m", DYNAMIC)),
        ("m(-2)", ("m", None)),
        ("m(some)", ("m", None)),
        ("m()", ("m", None)),
        ("m(99999999999999999999)", ("m", None)),
        ("m(٣)", ("m", None)),
    ],
)
def test_suffixes_are_read_as_the_grammar_says(name: str, expected: tuple[str, Thinking | None] | None) -> None:
    """One that means nothing is removed all the same."""
    assert split_suffix(name) == expected


@pytest.mark.parametrize(
    ("wish", "effort"),
    [(OFF, "none"), (DYNAMIC, "auto"), (level("max"), "max"), (budget(1), "minimal"), (budget(99999), "xhigh")],
)
def test_every_wish_counts_as_an_effort(wish: Thinking, effort: str) -> None:
    """Records name one."""
    assert wish.effort == effort


def test_words_and_budgets_that_mean_nothing_are_no_wish() -> None:
    """As if the client had not asked."""
    assert of_word(" ") is None
    assert of_budget(-2) is None
    assert of_word(" None ") is OFF
    assert of_budget(-1) is DYNAMIC
