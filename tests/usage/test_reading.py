"""Questions to the ledger: sums by whatever one may ask for, in any range, by pages."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cpa.usage.database import open_database
from cpa.usage.identity import client_id
from cpa.usage.reading import DAY_MS, GROUPS, Selection, attempts, groups, totals
from cpa.usage.record import Tokens
from cpa.usage.writing import entry_of, write_batch
from tests.usage.support import record

START = datetime(2026, 11, 20, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Ten attempts in two days: of clients a and b, models m0 to m2, each of as many tokens as its number."""
    found = open_database(tmp_path / "l").database
    made = [
        record(
            number,
            principal="ab"[number % 2] * 9,
            model=f"m{number % 3}",
            requested_at=START + timedelta(hours=5 * number),
            failed=number == 9,
            complete=number != 8,
            tokens=Tokens(input_tokens=number, total_tokens=number),
            estimated=Tokens(output_tokens=1, total_tokens=1) if number == 8 else Tokens(),
        )
        for number in range(10)
    ]
    write_batch(found, list(map(entry_of, made[:4])), ())
    write_batch(found, list(map(entry_of, made[4:])), ())
    yield found
    found.close()


def test_totals_of_everything(database: sqlite3.Connection) -> None:
    """Attempts, how they ended, and tokens; estimates are in the sums and told apart."""
    found = totals(database, Selection())
    assert (found["attempts"], found["failed"], found["incomplete"], found["estimated"]) == (10, 1, 1, 1)
    assert (found["total_tokens"], found["input_tokens"], found["estimated_tokens"]) == (46, 45, 1)


def test_days_and_records_give_the_same_sums(database: sqlite3.Connection) -> None:
    """A range of whole days is answered from the sums per day, another one from the records."""
    days = Selection(since_ms=START_MS, until_ms=START_MS + DAY_MS)
    hours = Selection(since_ms=START_MS - 1, until_ms=START_MS + DAY_MS)
    assert days.whole_days
    assert not hours.whole_days
    assert totals(database, days) == totals(database, hours)
    for by in GROUPS:
        assert groups(database, days, by, limit=9) == groups(database, hours, by, limit=9)
    database.execute("DELETE FROM attempts")
    assert totals(database, days)["attempts"] == 5
    assert totals(database, hours)["attempts"] == 0


def test_ranges_include_their_beginning_and_not_their_end(database: sqlite3.Connection) -> None:
    """To the millisecond."""
    five_hours = 5 * 3600 * 1000
    assert (
        totals(database, Selection(since_ms=START_MS + five_hours, until_ms=START_MS + 2 * five_hours))["attempts"] == 1
    )
    assert totals(database, Selection(since_ms=START_MS + five_hours + 1))["attempts"] == 8
    assert totals(database, Selection(since_ms=START_MS + 9 * DAY_MS))["attempts"] == 0


def test_groups_by_the_largest_with_labels(database: sqlite3.Connection) -> None:
    """Clients under their digests; days in order, the newest first."""
    found, more = groups(database, Selection(), "client", limit=9)
    assert [(row["client"], row["label"], row["total_tokens"]) for row in found] == [
        (client_id("b" * 9).id, "bbbb...bbbb", 25),
        (client_id("a" * 9).id, "aaaa...aaaa", 21),
    ]
    assert not more
    found, _ = groups(database, Selection(), "day", limit=9)
    assert [(row["day"], row["attempts"]) for row in found] == [("2026-11-21", 5), ("2026-11-20", 5)]
    found, _ = groups(database, Selection(), "credential", limit=9)
    assert found[0]["label"] == "gemini-apikey[9f86d081]"


def test_filters_combine(database: sqlite3.Connection) -> None:
    """All that is given must hold; values are values, never SQL."""
    both = Selection(equals={"client": client_id("a" * 9).id, "model": "m0"})
    assert totals(database, both)["attempts"] == 2
    assert totals(database, Selection(equals={"model": "m0' OR '1'='1"}))["attempts"] == 0


def test_pages_follow_one_another(database: sqlite3.Connection) -> None:
    """Groups by offset, records by the id of the last one."""
    pages = [groups(database, Selection(), "model", limit=1, offset=offset) for offset in range(3)]
    assert [more for _, more in pages] == [True, True, False]
    assert len({rows[0]["model"] for rows, _ in pages}) == 3
    seen: list[object] = []
    before: int | None = None
    while True:
        rows, more = attempts(database, Selection(), limit=4, before=before)
        seen += [row["request_id"] for row in rows]
        if not more:
            break
        last = rows[-1]["id"]
        assert isinstance(last, int)
        before = last
    assert seen == [f"r{number}" for number in range(9, -1, -1)]
