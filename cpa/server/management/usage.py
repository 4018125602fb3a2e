"""What was used: sums and records out of the ledger, and the queue for collectors (proxy 6.8, 7.4)."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cpa.jsontypes import JsonObject, JsonValue
from cpa.server.management.calls import JSON_TYPE, Answer, ManagementCall, error_answer, json_answer
from cpa.usage.identity import client_id
from cpa.usage.ledger import Database, Ledger, LedgerError
from cpa.usage.reading import FILTERS, GROUPS, MAX_ROWS, Selection, attempts, groups, totals

DEFAULT_ROWS: Final = 100
MAX_POPPED: Final = 10_000
"""Records of one answer; whoever asks for more gets these and asks again."""
DISABLED: Final = error_answer(400, "usage ledger disabled")

_NAMES: Final = {"key": "client", "day": "day", "model": "model", "provider": "provider", "credential": "credential"}
"""Of groups and filters in queries; in answers clients are called keys, too."""
_COUNT: Final = re.compile(r"[0-9]{1,15}")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_YEARS: Final = range(1970, 9999)


class _Wrong(Exception):
    """The query cannot be understood; the text says why."""


async def usage(call: ManagementCall) -> Answer:
    """``GET /usage``: sums of what is selected, and by key, model, provider, credential and day.

    Query: ``from``, ``to`` (a date, RFC 3339 or Unix seconds; a date as ``to`` is included), ``by`` (names with commas,
    default all), ``key``, ``model``, ``provider``, ``credential``, ``limit`` (1 to 1000 rows of a group), ``offset``.
    """
    ledger = call.usage.ledger
    if ledger is None:
        return DISABLED
    try:
        selection = _selection(call)
        limit, offset = _limit(call), _count(call, "offset", 0)
        by = [_group(name) for name in (call.query("by") or ",".join(_NAMES)).split(",")]
    except _Wrong as exc:
        return error_answer(400, str(exc))

    def ask(database: Database) -> JsonObject:
        answer: JsonObject = {**_range(selection), "totals": totals(database, selection)}
        for name in dict.fromkeys(by):
            rows, more = groups(database, selection, _NAMES[name], limit=limit, offset=offset)
            answer[f"by_{name}"] = [_named(row) for row in rows]
            if more:
                answer[f"by_{name}_next_offset"] = offset + limit
        return answer

    try:
        answer = await ledger.query(ask)
    except LedgerError as exc:
        return error_answer(exc.http_status, exc.message)
    return json_answer({**answer, "ledger": _state(ledger)})


async def limits(call: ManagementCall) -> Answer:
    """``GET /limits``: what is used up of the limits of every client key of the configuration.

    ``clients``: ``client`` (its digest, as in `usage`), ``label``, ``limits``: ``limit``, ``used``, ``allowed``,
    ``resets-at`` (Unix seconds; null = it does not reset). Clients that plugins let in are not listed.
    """
    limiter = call.usage.limiter
    clients: list[JsonValue] = []
    for principal in dict.fromkeys(call.runtime.config.api_keys or ("",)):
        if uses := limiter.uses(principal):
            told = client_id(principal)
            rows: list[JsonValue] = [
                {"limit": use.limit, "used": use.used, "allowed": use.allowed, "resets-at": use.until} for use in uses
            ]
            clients.append({"client": told.id, "label": told.label, "limits": rows})
    return json_answer({"clients": clients})


async def records(call: ManagementCall) -> Answer:
    """``GET /usage/attempts``: one row per attempt, newest first.

    Query: as `usage` without ``by`` and ``offset``; ``cursor``: ``next-cursor`` of the page before.
    """
    ledger = call.usage.ledger
    if ledger is None:
        return DISABLED
    try:
        selection, limit = _selection(call), _limit(call)
        before = _count(call, "cursor", 0) or None
    except _Wrong as exc:
        return error_answer(400, str(exc))
    try:
        rows, more = await ledger.query(lambda database: attempts(database, selection, limit=limit, before=before))
    except LedgerError as exc:
        return error_answer(exc.http_status, exc.message)
    answer: JsonObject = {**_range(selection), "attempts": [_attempt(row) for row in rows]}
    if more:
        answer["next-cursor"] = str(rows[-1]["id"])
    return json_answer(answer)


async def pop_queue(call: ManagementCall) -> Answer:
    """``GET /usage-queue?count=``: the oldest records of the queue, which are gone then; default 1."""
    asked = call.query("count") or "1"
    if not _COUNT.fullmatch(asked) or int(asked) < 1:
        return error_answer(400, "count must be a positive integer")
    popped = call.usage.queue.pop(min(int(asked), MAX_POPPED))
    return Answer(headers=(JSON_TYPE,), body=b"[" + b",".join(popped) + b"]")


def _selection(call: ManagementCall) -> Selection:
    equals = {}
    for name, column in _NAMES.items():
        value = call.query(name)
        if value and column in FILTERS:
            # Whoever has a key may name it; rows know its digest only.
            named = column == "client" and not re.fullmatch(r"[0-9a-f]{16}|anonymous", value)
            equals[column] = client_id(value).id if named else value
    return Selection(
        since_ms=_time(call, "from", days=0),
        until_ms=_time(call, "to", days=1),
        equals=equals,
    )


def _time(call: ManagementCall, name: str, *, days: int) -> int | None:
    """Unix milliseconds; a date stands for its beginning plus *days*. Raises: _Wrong."""
    text = call.query(name)
    if not text:
        return None
    try:
        if _COUNT.fullmatch(text):
            at = datetime.fromtimestamp(int(text), UTC)
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        if at.year not in _YEARS:
            raise ValueError
        if _DATE.fullmatch(text):
            at += timedelta(days=days)
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise _Wrong(f"{name} must be a date, an RFC 3339 time or Unix seconds") from None


def _count(call: ManagementCall, name: str, default: int) -> int:
    text = call.query(name)
    if not text:
        return default
    if not _COUNT.fullmatch(text):
        raise _Wrong(f"{name} must be a whole number of at least 0")
    return int(text)


def _limit(call: ManagementCall) -> int:
    limit = _count(call, "limit", DEFAULT_ROWS)
    if not 1 <= limit <= MAX_ROWS:
        raise _Wrong(f"limit must be from 1 to {MAX_ROWS}")
    return limit


def _group(name: str) -> str:
    name = name.strip()
    if name not in _NAMES:
        raise _Wrong(f"by must be some of {', '.join(_NAMES)}")
    assert _NAMES[name] in GROUPS
    return name


def _named(row: JsonObject) -> JsonObject:
    """A row as answers have it: clients are keys to those who read them."""
    return {("key" if name == "client" else name): value for name, value in row.items()}


def _attempt(row: JsonObject) -> JsonObject:
    at_ms = row["at_ms"]
    assert isinstance(at_ms, int)
    named = {name: value for name, value in _named(row).items() if name != "at_ms"}
    for name in ("failed", "incomplete"):
        named[name] = bool(named[name])
    return {"timestamp": _rfc3339(at_ms), **named}


def _range(selection: Selection) -> JsonObject:
    return {
        "from": None if selection.since_ms is None else _rfc3339(selection.since_ms),
        "to": None if selection.until_ms is None else _rfc3339(selection.until_ms),
    }


def _rfc3339(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"


def _state(ledger: Ledger) -> JsonObject:
    return {"written": ledger.written, "waiting": len(ledger), "lost": ledger.lost}
