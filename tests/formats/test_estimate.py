"""The one estimate of tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.formats.estimate import count_chars, estimate_chars, estimate_text


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("a" * 39, 10), ("ж" * 20, 17), ("你好", 2)], ids=range(5)
)
def test_letters_of_other_scripts_cost_more(text: str, tokens: int) -> None:
    """By a rule of thumb."""
    assert estimate_text(text) == tokens


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_characters_add_up_over_pieces(pieces: list[str]) -> None:
    """Where tokens of pieces would not."""
    counts = [count_chars(piece) for piece in pieces]
    assert estimate_chars(sum(c[0] for c in counts), sum(c[1] for c in counts)) == estimate_text("".join(pieces))
