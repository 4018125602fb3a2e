"""A plugin's output to lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.abi.lines import MAX_LINE_BYTES, LineSplitter


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\n", b"\n"], ["ab", ""]),
        ([b"a\r\nb"], ["a", "b"]),
        ([b"\xc3", b"\xa4\n\xff\n"], ["ä", "\ufffd"]),
        ([b""], []),
        ([b"x" * MAX_LINE_BYTES + b"y\n"], ["x" * MAX_LINE_BYTES, "y"]),
        ([b"x" * (2 * MAX_LINE_BYTES), b"\n"], ["x" * MAX_LINE_BYTES] * 2),
    ],
)
def test_lines(pieces: list[bytes], expected: list[str]) -> None:
    """Complete ones as they come, the rest at the end."""
    splitter = LineSplitter()
    got = [line for piece in pieces for line in splitter.feed(piece)]
    assert [*got, *splitter.end()] == expected
    assert list(splitter.end()) == []


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_split_gives_the_same_lines(pieces: list[bytes]) -> None:
    """Nothing is lost or doubled."""
    whole, split = LineSplitter(), LineSplitter()
    expected = [*whole.feed(b"".join(pieces)), *whole.end()]
    got = [line for piece in pieces for line in split.feed(piece)]
    assert [*got, *split.end()] == expected


def test_a_line_without_end_costs_bounded_memory() -> None:
    """It is given out in pieces while it comes."""
    splitter = LineSplitter()
    given_out = sum(len(line) for _ in range(100) for line in splitter.feed(b"x" * 10_000))
    assert given_out > 1_000_000 - 2 * MAX_LINE_BYTES
