"""Batches of records and counters into the ledger's tables. Everything here blocks and belongs to the writer's thread.

The rows of a batch go in with few statements of many rows: between two steps of a statement the interpreter's lock
changes hands, and each time the thread would wait for a busy event loop.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import Any, Final

import attrs
import msgspec

from cpa.usage.breakdown import common_counts
from cpa.usage.identity import client_id
from cpa.usage.record import UsageRecord

DAY_S: Final = 86_400
MB: Final = 1 << 20
DAYS_KEPT_FACTOR: Final = 10
"""Sums per day are kept that many times as long as records: a thousandth of their size."""
DELETED_AT_ONCE: Final = 5_000
"""Rows per transaction, so that readers and other writers get their turn."""
MAX_ROUNDS: Final = 200
"""Of deletions in one go; the next goes on."""
MAX_TOKENS: Final = 1 << 40
"""Of one attempt; whoever says more does not mean it, and sums have to fit into 64 bits."""
MAX_SUM: Final = 1 << 50
ERROR_CHARS: Final = 256
"""Of a failure's text: its first sentence."""
_ROWS_AT_ONCE: Final = (64, 8, 1)

ATTEMPT_COLUMNS: Final = (
    *("at_ms", "request_id", "trace_id", "provider", "executor", "model", "alias", "client", "credential"),
    *("auth_type", "endpoint", "effort", "tier", "latency_ms", "ttft_ms", "failed", "status", "error", "incomplete"),
    *("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens", "reasoning_tokens"),
    *("total_tokens", "estimated_tokens"),
)
SUM_COLUMNS: Final = (
    *("attempts", "failed", "incomplete", "estimated", "input_tokens", "cache_read_tokens", "cache_creation_tokens"),
    *("output_tokens", "reasoning_tokens", "total_tokens", "estimated_tokens"),
)
KEY_COLUMNS: Final = ("day", "provider", "model", "credential", "client")

_PROVIDER: Final = ATTEMPT_COLUMNS.index("provider")
_MODEL: Final = ATTEMPT_COLUMNS.index("model")
_CREDENTIAL: Final = ATTEMPT_COLUMNS.index("credential")
_CLIENT: Final = ATTEMPT_COLUMNS.index("client")
_FAILED: Final = ATTEMPT_COLUMNS.index("failed")
_INCOMPLETE: Final = ATTEMPT_COLUMNS.index("incomplete")
_TOKENS: Final = ATTEMPT_COLUMNS.index("input_tokens")

_Row = tuple[Any, ...]
"""Whole numbers and texts, one for each column."""


@attrs.frozen(kw_only=True)
class Charge:
    """What a span of a client's limits grows by. *start_s*: Unix time at which the span began, whole seconds."""

    client: str
    span: str
    start_s: int
    requests: int
    tokens: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a record until it is written: no headers, which may be large.

    Attributes:
      row: of attempts.
      client, source: labels of client and credential; may hold lone surrogates.
    """

    row: _Row
    client: str
    source: str


def entry_of(record: UsageRecord) -> Entry:
    """*record* as it will be written."""
    client = client_id(record.principal)
    return Entry(_row_of(record, client.id), client.label, record.source)


def write_batch(
    database: sqlite3.Connection, records: Sequence[UsageRecord | Entry], charges: Iterable[Charge]
) -> None:
    """All or nothing, in one transaction. Raises: sqlite3.Error."""
    entries = [entry_of(record) if isinstance(record, UsageRecord) else record for record in records]
    days: dict[_Row, list[int]] = {}
    labels: set[tuple[str, str, str]] = set()
    for entry in entries:
        row = entry.row
        key = (_day(row[0]), row[_PROVIDER], row[_MODEL], row[_CREDENTIAL], row[_CLIENT])
        day = days.get(key)
        if day is None:
            day = days[key] = [0] * len(SUM_COLUMNS)
            labels.add(("client", row[_CLIENT], _text(entry.client)))
            if row[_CREDENTIAL]:
                labels.add(("credential", row[_CREDENTIAL], _text(entry.source)))
        day[0] += 1
        day[1] += row[_FAILED]
        day[2] += row[_INCOMPLETE]
        day[3] += row[-1] > 0
        for index, count in enumerate(row[_TOKENS:], start=4):
            day[index] += count
    database.execute("BEGIN IMMEDIATE")
    try:
        _insert(database, [entry.row for entry in entries])
        database.executemany(_ADD_DAY, [(*key, *sums) for key, sums in days.items()])
        database.executemany(_SET_LABEL, sorted(labels))
        database.executemany(
            _ADD_CHARGE, [(each.client, each.span, each.start_s, each.requests, each.tokens) for each in charges]
        )
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _row_of(record: UsageRecord, client: str) -> _Row:
    """One row of attempts."""
    # In the order of the columns.
    tokens = (*common_counts(record.provider_format, record.counted), record.estimated.total_tokens)
    if max(tokens) > MAX_TOKENS:
        tokens = tuple(min(count, MAX_TOKENS) for count in tokens)  # type: ignore[assignment]  # as many as before
    at_ms = int(record.requested_at.timestamp() * 1000)
    names = (
        record.request_id,
        record.trace_id,
        record.provider,
        record.executor_type,
        record.model,
        record.alias,
        client,
        record.credential_index,
        record.auth_type,
        record.client.endpoint,
        record.reasoning_effort,
        record.service_tier,
    )
    error = record.failure.body[:ERROR_CHARS]
    # Names come from requests and files. Most are ASCII, and then this is one look at all of them.
    if not ("".join(names).isascii() and error.isascii()):
        names, error = tuple(map(_text, names)), _text(error)  # type: ignore[assignment]  # as many as before
    latency_ms, ttft_ms = round(record.latency_s * 1000), round(record.ttft_s * 1000)
    failed, incomplete = int(record.failed), int(not record.complete)
    return (at_ms, *names, latency_ms, ttft_ms, failed, record.failure.status, error, incomplete, *tokens)


def _text(value: str) -> str:
    """SQLite takes no lone surrogates, which names in requests may hold."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


@lru_cache(maxsize=4)
def _day_of(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_S, UTC).strftime("%Y-%m-%d")


def _day(at_ms: float | str) -> str:
    return _day_of(int(at_ms) // (DAY_S * 1000))


def _insert(database: sqlite3.Connection, rows: Sequence[_Row]) -> None:
    at = 0
    for size in _ROWS_AT_ONCE:
        statement = _insert_statement(size)
        while len(rows) - at >= size:
            database.execute(statement, [value for row in rows[at : at + size] for value in row])
            at += size


@lru_cache(maxsize=len(_ROWS_AT_ONCE))
def _insert_statement(rows: int) -> str:
    marks = f"({','.join('?' * len(ATTEMPT_COLUMNS))})"
    return f"INSERT INTO attempts({','.join(ATTEMPT_COLUMNS)}) VALUES {','.join([marks] * rows)}"


_ADD_DAY: Final = (
    f"INSERT INTO days({','.join((*KEY_COLUMNS, *SUM_COLUMNS))}) "
    f"VALUES ({','.join('?' * (len(KEY_COLUMNS) + len(SUM_COLUMNS)))}) "
    f"ON CONFLICT DO UPDATE SET {','.join(f'{name}=min({name}+excluded.{name},{MAX_SUM})' for name in SUM_COLUMNS)}"
)
_SET_LABEL: Final = (
    "INSERT INTO labels(kind,id,label) VALUES (?,?,?) "
    "ON CONFLICT DO UPDATE SET label=excluded.label WHERE label<>excluded.label"
)
# Another process may have begun the same span; one that began later replaces an earlier one.
_ADD_CHARGE: Final = (
    "INSERT INTO counters(client,span,start_s,requests,tokens) VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET "
    "requests=CASE WHEN excluded.start_s>start_s THEN excluded.requests "
    f"ELSE min(requests+excluded.requests,{MAX_SUM}) END,"
    "tokens=CASE WHEN excluded.start_s>start_s THEN excluded.tokens "
    f"ELSE min(tokens+excluded.tokens,{MAX_SUM}) END,"
    "start_s=max(start_s,excluded.start_s)"
)


def expire(database: sqlite3.Connection, *, retention_days: int, now: float | None = None) -> int:
    """Delete what is older than *retention_days* (0 = nothing is). Returns: attempts deleted. Raises: sqlite3.Error."""
    if not retention_days:
        return 0
    now = time() if now is None else now
    before_ms = int((now - retention_days * DAY_S) * 1000)
    database.execute("DELETE FROM days WHERE day<?", (_day((now - retention_days * DAYS_KEPT_FACTOR * DAY_S) * 1000),))
    deleted = 0
    for _ in range(MAX_ROUNDS):
        done = database.execute(
            "DELETE FROM attempts WHERE id IN (SELECT id FROM attempts WHERE at_ms<? ORDER BY at_ms LIMIT ?)",
            (before_ms, DELETED_AT_ONCE),
        ).rowcount
        deleted += done
        if done < DELETED_AT_ONCE:
            break
    if deleted:
        _give_back(database)
    return deleted


def shrink(database: sqlite3.Connection, *, max_megabytes: int) -> int:
    """Delete the oldest attempts until the file is no larger (0 = it may be). Returns: how many. Raises: sqlite3.Error.

    A twentieth more goes, so that this is not done again for the next record.
    """
    limit_bytes = max_megabytes * MB
    if not limit_bytes or used_bytes(database) <= limit_bytes:
        return 0
    deleted = 0
    while used_bytes(database) > limit_bytes * 19 // 20:
        [oldest, newest] = database.execute("SELECT min(id), max(id) FROM attempts").fetchone()
        if oldest is None:
            break
        at_once = min(DELETED_AT_ONCE, (newest - oldest) // 50 + 1)
        deleted += database.execute("DELETE FROM attempts WHERE id<?", (oldest + at_once,)).rowcount
    if deleted:
        _give_back(database)
    return deleted


def used_bytes(database: sqlite3.Connection) -> int:
    """Of the pages that hold something."""
    [pages] = database.execute("PRAGMA page_count").fetchone()
    [free] = database.execute("PRAGMA freelist_count").fetchone()
    [size] = database.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def _give_back(database: sqlite3.Connection) -> None:
    """Cut empty pages off the file."""
    # A script is run to its end; `execute` would stop after the first page.
    database.executescript("PRAGMA incremental_vacuum")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def read_counters(database: sqlite3.Connection) -> tuple[Charge, ...]:
    """Where every client's limits stand. Raises: sqlite3.Error."""
    rows = database.execute("SELECT client,span,start_s,requests,tokens FROM counters").fetchall()
    return tuple(
        Charge(client=client, span=span, start_s=start_s, requests=requests, tokens=tokens)
        for client, span, start_s, requests, tokens in rows
    )
