"""Numbers in the answers of plugins' executors, whose words nobody prescribes."""

import pytest

from cpa.translation.counting import find_count


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
