"""The ledger's file: its tables, how it is opened, and what is done with one that cannot be read.

SQLite in WAL mode: a commit is an append, whose frames carry checksums, so that a process killed at any moment leaves a
file that opens with all that was committed. ``synchronous=NORMAL`` syncs at checkpoints only: a power cut may cost the
last seconds, nothing else. Several processes may have the same file open.
"""

import os
import sqlite3
from pathlib import Path
from time import gmtime, strftime, time
from typing import Final

import attrs

APPLICATION_ID: Final = 0x43504155
"""In the file's header: it is one of ours."""
VERSION: Final = 1
"""Of the tables; raised with every change of them."""
BUSY_S: Final = 5.0
"""How long another process may write before ours gives up and tries again later."""
SUFFIXES: Final = ("", "-wal", "-shm")
"""The files of one database."""

_TABLES: Final = """
CREATE TABLE attempts(
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    executor TEXT NOT NULL,
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    client TEXT NOT NULL,
    credential TEXT NOT NULL,
    auth_type TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    effort TEXT NOT NULL,
    tier TEXT NOT NULL,
    latency_ms INTEGER NOT NULL,
    ttft_ms INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    status INTEGER NOT NULL,
    error TEXT NOT NULL,
    incomplete INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    estimated_tokens INTEGER NOT NULL
) STRICT;
CREATE INDEX attempts_at ON attempts(at_ms);
CREATE TABLE days(
    day TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    credential TEXT NOT NULL,
    client TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    incomplete INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    estimated_tokens INTEGER NOT NULL,
    PRIMARY KEY(day, provider, model, credential, client)
) STRICT, WITHOUT ROWID;
CREATE TABLE labels(
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    label TEXT NOT NULL,
    PRIMARY KEY(kind, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE counters(
    client TEXT NOT NULL,
    span TEXT NOT NULL,
    start_s INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY(client, span)
) STRICT, WITHOUT ROWID;
"""


class UnusableLedger(Exception):
    """The file is not ours to write: somebody else's database, or one of a later version."""


@attrs.frozen(kw_only=True)
class Opened:
    """Attributes:
    moved_aside: where a file went that could not be read; None = there was none.
    """

    database: sqlite3.Connection = attrs.field(eq=False)
    moved_aside: Path | None = None


def open_database(path: Path) -> Opened:
    """The ledger at *path*, made when it is missing; what is there but broken is moved aside first. Blocks.

    Raises: UnusableLedger; OSError, sqlite3.Error when nothing can be done there at all.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return Opened(database=_open(path))
    except sqlite3.DatabaseError as exc:
        if not is_corrupt(exc):
            raise
    moved = move_aside(path)
    return Opened(database=_open(path), moved_aside=moved)


def is_corrupt(exc: sqlite3.Error) -> bool:
    """Whether *exc* says that the file itself is broken, where others say that the moment is."""
    return exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) if _coded(exc) else False


def _coded(exc: sqlite3.Error) -> bool:
    # Errors of the module itself, such as a closed connection, carry no code.
    return getattr(exc, "sqlite_errorcode", None) is not None


def move_aside(path: Path) -> Path:
    """Rename *path* and what belongs to it to ``NAME.corrupt-TIME``. Nothing is deleted. Raises: OSError."""
    stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(time()))
    number = 0
    while (target := path.with_name(f"{path.name}.corrupt-{stamp}{f'-{number}' if number else ''}")).exists():
        number += 1
    for suffix in SUFFIXES:
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(target.with_name(target.name + suffix))
    return target


def _open(path: Path) -> sqlite3.Connection:
    # Made with its mode, so that it is never readable by others, not even for a moment.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts for a new file only
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("PRAGMA journal_size_limit=16777216")
    database.execute("BEGIN IMMEDIATE")  # of several processes that start at once, one makes the tables
    try:
        _check_tables(database, path)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _check_tables(database: sqlite3.Connection, path: Path) -> None:
    [owner] = database.execute("PRAGMA application_id").fetchone()
    [version] = database.execute("PRAGMA user_version").fetchone()
    [tables] = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables and not owner:
        for statement in filter(str.strip, _TABLES.split(";\n")):
            database.execute(statement)
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={VERSION}")
    elif owner != APPLICATION_ID:
        raise UnusableLedger(f"{path} is the database of another program")
    elif version != VERSION:
        raise UnusableLedger(f"{path}: expected version {VERSION} of the ledger, got {version}")
