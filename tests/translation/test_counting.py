"""Numbers in the answers of plugins' executors, whose words nobody prescribes; and what estimates are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.formats.scan import count_chars
from cpa.translation.counting import count_texts, find_count


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"total_tokens":7}', 7),
        (b'{"input_tokens":0,"total_tokens":9}', 0),
        (b'{"totalTokens":12,"promptTokensDetails":[]}', 12),
        (b'{"total_tokens":"7"}', None),
        (b'{"total_tokens":-1}', None),
        (b'{"total_tokens":1.5}', None),
        (b'{"total_tokens":1234567890123456}', None),
        (b'{"total_tokens":null,"totalTokens":3}', 3),
        (b'{"usage":{"total_tokens":7}}', None),
        (b"{}", None),
        (b"[7]", None),
        (b"7", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_a_count_is_found_in_whichever_words(body: bytes, expected: int | None) -> None:
    """Everything else is no count, and is left to whoever translates answers."""
    assert find_count(body) == expected


@given(st.lists(st.text(max_size=20), max_size=6))
def test_texts_are_counted_as_if_they_were_one(texts: list[str]) -> None:
    """Of most it is enough to know how long they are."""
    assert count_texts(texts) == count_chars("\n".join(texts).encode("utf-8", "replace"))
