"""Items of a changed list find their old selves."""

import pytest

from cpa.config.matching import matched
from cpa.jsontypes import JsonValue


@pytest.mark.parametrize(
    ("old", "new", "pairs"),
    [
        (["a", "b", "c"], ["c", "a"], {0: 2, 1: 0}),
        (["a", "a"], ["a", "a", "a"], {0: 0, 1: 1}),
        (["a", "b"], ["x", "b"], {1: 1, 0: 0}),
        (["a", "b"], ["b", "x"], {0: 1}),
        (["a"], [{"b": 1}], {}),
        ([1, True], [True], {0: 1}),
        (
            [{"api-key": "a", "base-url": "u"}, {"api-key": "a", "base-url": "v"}],
            [{"api-key": "a", "base-url": "v", "weight": 1}],
            {0: 1},
        ),
        ([{"name": "a", "x": 1}, {"name": "b"}], [{"name": "b", "y": 1}, {"name": "a"}], {0: 1, 1: 0}),
        ([{"name": "old", "base-url": "u"}], [{"name": "new", "base-url": "u"}], {0: 0}),
    ],
)
def test_who_is_who(old: list[JsonValue], new: list[JsonValue], pairs: dict[int, int]) -> None:
    """Equal ones first, then those of the same name or key, then the rest in order."""
    assert matched(old, new) == pairs
