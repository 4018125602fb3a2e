"""Every row of the corpus of tricky cases (translation, Part 7), by its number, through a running proxy."""

from collections.abc import Iterator

import pytest

from tests.e2e.corpus import answers, content, gemini_answers, responses_answers, settings, structure, tools
from tests.e2e.corpus.rig import Rig, open_rig
from tests.e2e.corpus.table import ROWS

TABLES = (structure, content, tools, settings, answers, responses_answers, gemini_answers)
LAST = 165


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """One proxy for all rows: it takes longer to start than they take."""
    with open_rig() as found:
        yield found


def test_the_table_is_whole() -> None:
    """No row is left out, none is there twice."""
    assert sorted(ROWS) == list(range(1, LAST + 1))
    assert all(table.__doc__ for table in TABLES)


@pytest.mark.parametrize("number", sorted(ROWS))
def test_row(rig: Rig, number: int) -> None:
    """As the table says."""
    ROWS[number](rig)
