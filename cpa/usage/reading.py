"""Questions to the ledger. Everything here blocks and belongs to its thread.

Sums come from the sums per day where the range consists of whole days: those outlive the records. Other ranges are
summed from the records themselves.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from cpa.jsontypes import JsonObject
from cpa.usage.writing import ATTEMPT_COLUMNS, DAY_S, SUM_COLUMNS

MAX_ROWS: Final = 1_000
"""Of one page."""
FILTERS: Final = ("client", "model", "provider", "credential")
GROUPS: Final = ("day", *FILTERS)
"""Columns to sum by."""
DAY_MS: Final = DAY_S * 1000

_FROM_ATTEMPTS: Final = (
    "(SELECT strftime('%Y-%m-%d',at_ms/1000,'unixepoch') AS day,provider,model,credential,client,1 AS attempts,failed,"
    "incomplete,estimated_tokens>0 AS estimated,input_tokens,cache_read_tokens,cache_creation_tokens,output_tokens,"
    "reasoning_tokens,total_tokens,estimated_tokens FROM attempts WHERE {where})"
)
_SUMS: Final = ",".join(f"coalesce(sum({name}),0) AS {name}" for name in SUM_COLUMNS)


@attrs.frozen(kw_only=True)
class Selection:
    """Which attempts a question is about.

    Attributes:
      since_ms, until_ms: Unix time; from the first on, and before the second; None = no bound.
      equals: of `FILTERS` to the value that it must have.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    equals: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def whole_days(self) -> bool:
        """Both bounds are at 0:00 UTC."""
        return not any(bound is not None and bound % DAY_MS for bound in (self.since_ms, self.until_ms))

    def where(self, *, days: bool) -> tuple[str, list[int | str]]:
        """The condition, for rows of days or of attempts, and its values."""
        conditions, values = ["1"], list[int | str]()
        for bound, sign in ((self.since_ms, ">="), (self.until_ms, "<")):
            if bound is not None:
                conditions.append(f"{'day' if days else 'at_ms'}{sign}?")
                values.append(_day(bound) if days else bound)
        for name, value in self.equals.items():
            assert name in FILTERS
            conditions.append(f"{name}=?")
            values.append(value)
        return " AND ".join(conditions), values


def totals(database: sqlite3.Connection, selection: Selection) -> JsonObject:
    """The sums of all that is selected. Raises: sqlite3.Error."""
    source, values = _source(selection)
    row = database.execute(f"SELECT {_SUMS} FROM {source}", values).fetchone()
    return dict(zip(SUM_COLUMNS, row, strict=True))


def groups(
    database: sqlite3.Connection, selection: Selection, by: str, *, limit: int, offset: int = 0
) -> tuple[list[JsonObject], bool]:
    """The sums by one of `GROUPS`: days in order, others by their tokens. Returns: a page, and whether more follow.

    Raises: sqlite3.Error.
    """
    assert by in GROUPS
    source, values = _source(selection)
    order = "day DESC" if by == "day" else f"total_tokens DESC,attempts DESC,{by}"
    labelled = by in ("client", "credential")
    label = f",(SELECT label FROM labels WHERE kind='{by}' AND id={by}) AS label" if labelled else ""
    rows = database.execute(
        f"SELECT {by},{_SUMS}{label} FROM {source} GROUP BY {by} ORDER BY {order} LIMIT ? OFFSET ?",
        [*values, limit + 1, offset],
    ).fetchall()
    names = (by, *SUM_COLUMNS, *(("label",) if labelled else ()))
    return _page(names, rows, limit)


def attempts(
    database: sqlite3.Connection, selection: Selection, *, limit: int, before: int | None = None
) -> tuple[list[JsonObject], bool]:
    """Records, newest first, older than the one with the id *before*. Returns as `groups`. Raises: sqlite3.Error."""
    where, values = selection.where(days=False)
    if before is not None:
        where, values = f"{where} AND id<?", [*values, before]
    names = ("id", *ATTEMPT_COLUMNS)
    rows = database.execute(
        f"SELECT {','.join(names)} FROM attempts WHERE {where} ORDER BY id DESC LIMIT ?", [*values, limit + 1]
    ).fetchall()
    return _page(names, rows, limit)


def _page(names: Sequence[str], rows: Sequence[Sequence[int | str]], limit: int) -> tuple[list[JsonObject], bool]:
    return [dict(zip(names, row, strict=True)) for row in rows[:limit]], len(rows) > limit


def _source(selection: Selection) -> tuple[str, list[int | str]]:
    where, values = selection.where(days=selection.whole_days)
    template = "(SELECT * FROM days WHERE {where})" if selection.whole_days else _FROM_ATTEMPTS
    return template.format(where=where), values


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
