"""The ledger: nobody waits for it, what it took is in its file, and no trouble with that is the proxy's."""

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import trio
from msgspec import structs
from structlog.testing import capture_logs

from cpa.usage.database import APPLICATION_ID, VERSION, open_database
from cpa.usage.identity import client_id
from cpa.usage.ledger import MAX_BATCH, MAX_WHOLE, Database, Ledger, LedgerError, LedgerSettings, open_ledger
from cpa.usage.reading import Selection, attempts, groups, totals
from cpa.usage.record import ClientFacts, Failure, Tokens, UsageRecord
from cpa.usage.writing import MAX_TOKENS, Charge, entry_of, expire, shrink, used_bytes, write_batch
from tests.usage.support import RECORD, record

FAIL_S = 60
TOKENS = Tokens(input_tokens=10, output_tokens=5, reasoning_tokens=2, cache_read_tokens=4, total_tokens=17)
ALL = Selection()


def settings(folder: Path, **more: Any) -> LedgerSettings:
    """Of a ledger in *folder*, without retention: the records of the tests are of a fixed day."""
    return LedgerSettings(**{"path": folder / "usage" / "ledger.sqlite3", "retention_days": 0, **more})


def rows(database: Database, sql: str = "SELECT * FROM attempts") -> list[Any]:
    """All rows."""
    return database.execute(sql).fetchall()


async def test_a_record_is_in_the_file_with_everything_but_keys(tmp_path: Path) -> None:
    """The client by digest and label, the credential by its index; tokens in common terms."""
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path)) as ledger:
            failure = Failure(status=429, body="slow down")
            ledger.append(record(1, tokens=TOKENS, failed=True, failure=failure, complete=False))
            [row], more = await ledger.query(lambda database: attempts(database, ALL, limit=5))
            labels = await ledger.query(lambda database: rows(database, "SELECT * FROM labels"))
    assert not more
    assert row == {
        "id": 1,
        "at_ms": 1787392800000,
        "request_id": "r1",
        "trace_id": "a1b2c3d4",
        "provider": "gemini",
        "executor": "GeminiExecutor",
        "model": "gemini-2.5-pro",
        "alias": "pro",
        "client": client_id("client-key-of-the-tests").id,
        "credential": "9f86d081884c7d65",
        "auth_type": "apikey",
        "endpoint": "",
        "effort": "",
        "tier": "auto",
        "latency_ms": 1900,
        "ttft_ms": 400,
        "failed": 1,
        "status": 429,
        "error": "slow down",
        "incomplete": 1,
        "input_tokens": 10,
        "cache_read_tokens": 4,
        "cache_creation_tokens": 0,
        "output_tokens": 7,  # Gemini counts reasoning beside the rest
        "reasoning_tokens": 2,
        "total_tokens": 17,
        "estimated_tokens": 0,
    }
    assert sorted(labels) == [
        ("client", client_id("client-key-of-the-tests").id, "clie...ests"),
        ("credential", "9f86d081884c7d65", "gemini-apikey[9f86d081]"),
    ]
    assert b"client-key-of-the-tests" not in ledger.settings.path.read_bytes()


async def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Directory and file, whatever the umask is."""
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path)) as ledger:
            ledger.append(RECORD)
            await ledger.flush()
            path = ledger.settings.path
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700
            assert path.with_name(path.name + "-wal").stat().st_mode & 0o777 == 0o600


async def test_without_records_there_is_no_file(tmp_path: Path) -> None:
    """A proxy that serves nobody writes nothing."""
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path)) as ledger:
            await ledger.flush()
    assert os.listdir(tmp_path) == []


async def test_everything_is_written_at_the_end_and_there_after_a_restart(tmp_path: Path) -> None:
    """Also what came a moment before; sums go on."""
    with trio.fail_after(FAIL_S):
        for run in range(2):
            async with open_ledger(settings(tmp_path)) as ledger:
                for number in range(3 * MAX_BATCH // 2):
                    ledger.append(record(number, tokens=TOKENS))
            assert (ledger.written, ledger.lost, len(ledger)) == (3 * MAX_BATCH // 2, 0, 0)
            found = open_database(ledger.settings.path).database
            sums = totals(found, ALL)
            assert (sums["attempts"], sums["total_tokens"]) == (1500 * (run + 1), 25500 * (run + 1))
            assert len(rows(found)) == sums["attempts"]
            found.close()


async def test_a_full_queue_loses_records_and_makes_nobody_wait(tmp_path: Path) -> None:
    """They are counted, and one line says so."""
    with trio.fail_after(FAIL_S):
        with capture_logs() as lines:
            async with open_ledger(settings(tmp_path), max_queued=10) as ledger:
                for number in range(25):
                    ledger.append(record(number))
                assert (len(ledger), ledger.lost) == (10, 15)
                await ledger.flush()
                ledger.append(record(99))
    assert (ledger.written, ledger.lost) == (11, 15)
    assert [line["event"] for line in lines] == ["ledger.losing"]


async def test_reading_sees_what_was_appended_before(tmp_path: Path) -> None:
    """However long the writer would have waited for company."""
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path), gather_s=3600) as ledger:
            for number in range(1, 4):
                ledger.append(record(number))
                sums = await ledger.query(lambda database: totals(database, ALL))
                assert sums["attempts"] == number


@pytest.mark.parametrize(
    "content", [b"this is no database" * 300, b"SQLite format 3\0" + b"\xff" * 8000], ids=["text", "torn"]
)
async def test_a_file_that_cannot_be_read_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    """Nothing of it is deleted, and the log says where it is."""
    path = settings(tmp_path).path
    path.parent.mkdir()
    path.write_bytes(content)
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_ledger(settings(tmp_path)) as ledger:
            ledger.append(RECORD)
    assert ledger.written == 1
    [line] = [line for line in lines if line["event"] == "ledger.corrupt"]
    moved = Path(line["moved_to"])
    assert await trio.Path(moved).read_bytes() == content
    assert moved.name.startswith("ledger.sqlite3.corrupt-")


async def test_a_file_that_breaks_while_it_is_used_is_replaced(tmp_path: Path) -> None:
    """The batch that found out is not lost."""
    path = settings(tmp_path).path
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_ledger(settings(tmp_path)) as ledger:
            for number in range(500):
                ledger.append(record(number))
            await ledger.flush()
            database = ledger._database
            assert database is not None
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(os.urandom(size - 4096))
            database.execute("PRAGMA shrink_memory").fetchall()
            database.execute("PRAGMA cache_size=0").fetchall()
            ledger.append(record(501))
            await ledger.flush()
            assert (await ledger.query(lambda found: totals(found, ALL)))["attempts"] == 1
    assert "ledger.corrupt" in [line["event"] for line in lines]


@pytest.mark.parametrize("version", [None, VERSION + 1], ids=["foreign", "newer"])
async def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, version: int | None) -> None:
    """Another program's, or one that a later version made: losing records is better than harming it."""
    path = settings(tmp_path).path
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE precious(thing TEXT)")
    if version is not None:
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={version}")
    database.close()
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_ledger(settings(tmp_path)) as ledger:
            ledger.append(RECORD)
            await ledger.flush()
            with pytest.raises(LedgerError):
                await ledger.counters()
            ledger.append(RECORD)
    assert (ledger.written, ledger.lost) == (0, 2)
    assert [line["event"] for line in lines] == ["ledger.losing"]
    assert "of another program" in lines[0]["hint"] or "expected version" in lines[0]["hint"]
    database = sqlite3.connect(path)
    assert [name for (name,) in rows(database, "SELECT name FROM sqlite_schema")] == ["precious"]
    database.close()


async def test_a_place_that_cannot_be_written_costs_records_only(tmp_path: Path) -> None:
    """The proxy goes on, questions are answered with an error, and the end does not wait for long."""
    (tmp_path / "usage").write_text("a file where the directory should be")
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_ledger(settings(tmp_path), gather_s=0) as ledger:
            ledger.append(RECORD)
            await ledger.flush()
            with pytest.raises(LedgerError, match="cannot be read"):
                await ledger.counters()
    assert (ledger.written, ledger.lost) == (0, 1)
    assert lines[0]["event"] == "ledger.not_written"
    assert "usage.ledger.path" in lines[0]["hint"]


async def test_a_bug_costs_one_batch(tmp_path: Path) -> None:
    """Not the proxy."""
    with trio.fail_after(FAIL_S), capture_logs() as lines:
        async with open_ledger(settings(tmp_path)) as ledger:
            ledger.append(structs.replace(RECORD, trace_id=10**30))
            await ledger.flush()
            ledger.append(RECORD)
            await ledger.flush()
            assert (ledger.written, ledger.lost) == (1, 1)
    assert [line["event"] for line in lines] == ["ledger.not_written", "ledger.losing"]


async def test_hostile_names_and_numbers_are_kept(tmp_path: Path) -> None:
    """Lone surrogates, control characters, counts that no sum could hold."""
    huge = Tokens(input_tokens=1 << 53, output_tokens=1 << 53, total_tokens=1 << 53)
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path)) as ledger:
            for number in range(300):
                ledger.append(record(number, alias="a\udcff\0'); DROP TABLE days;--", principal="k\udc80", tokens=huge))
            rows_, _ = await ledger.query(lambda database: attempts(database, ALL, limit=1))
            sums = await ledger.query(lambda database: totals(database, ALL))
    assert rows_[0]["alias"] == "a?\0'); DROP TABLE days;--"
    assert rows_[0]["total_tokens"] == MAX_TOKENS
    assert sums["total_tokens"] == 300 * MAX_TOKENS


async def test_cancellation_around_it_loses_nothing(tmp_path: Path) -> None:
    """The end of the program is a cancellation."""
    ledger: Ledger | None = None
    with trio.fail_after(FAIL_S):
        with trio.CancelScope() as scope:
            async with open_ledger(settings(tmp_path)) as ledger:
                for number in range(100):
                    ledger.append(record(number))
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert ledger is not None
    assert (ledger.written, ledger.lost) == (100, 0)
    ledger.append(RECORD)
    assert ledger.lost == 1


async def test_a_question_may_be_cancelled(tmp_path: Path) -> None:
    """The ledger works on."""
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path)) as ledger:
            ledger.append(RECORD)
            with trio.CancelScope() as scope:
                scope.cancel()
                await ledger.query(rows)
            assert scope.cancelled_caught
            assert len(await ledger.query(rows)) == 1


KILLED = dedent("""
    import sys, trio
    from pathlib import Path
    from cpa.usage.ledger import LedgerSettings, open_ledger
    from tests.usage.support import record
    from cpa.usage.record import Tokens

    async def main():
        async with open_ledger(LedgerSettings(path=Path(sys.argv[1]), retention_days=0), gather_s=0.001) as ledger:
            number = 0
            while True:
                for _ in range(50):
                    ledger.append(record(number, tokens=Tokens(input_tokens=1, total_tokens=1)))
                    number += 1
                await ledger.flush()
                print(number, flush=True)

    trio.run(main)
""")


async def test_a_killed_process_leaves_all_that_was_committed(tmp_path: Path) -> None:
    """kill -9 in the middle of writing; records and sums agree, and the file goes on."""
    path = settings(tmp_path).path
    with trio.fail_after(FAIL_S):
        for _ in range(2):
            argv = [sys.executable, "-c", KILLED, str(path)]
            process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
            assert process.stdout is not None
            seen = b""
            while seen.count(b"\n") < 5:
                seen += await process.stdout.receive_some()
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await process.stdout.aclose()
            told = int(seen.split()[-1])
        opened = open_database(path)
        assert opened.moved_aside is None
        sums, count = totals(opened.database, ALL), len(rows(opened.database))
        [(check,)] = rows(opened.database, "PRAGMA integrity_check")
        opened.database.close()
    assert check == "ok"
    assert sums["attempts"] == sums["total_tokens"] == count >= told + 250


def test_old_records_go_and_sums_stay(tmp_path: Path) -> None:
    """By age: records after the retention, sums per day after ten times as long."""
    database = open_database(tmp_path / "l").database
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    ages = (0, 1, 29, 31, 299, 301)
    made = [record(age, requested_at=now - timedelta(days=age), tokens=TOKENS) for age in ages]
    write_batch(database, list(map(entry_of, made)), ())
    assert expire(database, retention_days=0, now=now.timestamp()) == 0
    assert expire(database, retention_days=30, now=now.timestamp()) == 3
    assert [row[2] for row in rows(database)] == ["r0", "r1", "r29"]
    found, more = groups(database, ALL, "day", limit=10)
    assert [row["day"] for row in found] == ["2026-11-21", "2026-11-20", "2026-10-23", "2026-10-21", "2026-01-26"]
    assert not more
    assert totals(database, ALL)["total_tokens"] == 5 * 17
    database.close()


def test_the_oldest_records_make_room(tmp_path: Path) -> None:
    """By size: the file stays below its bound, and shrinks on disk."""
    path = tmp_path / "l"
    database = open_database(path).database
    for start in range(0, 12_000, 1000):
        write_batch(database, [entry_of(record(number)) for number in range(start, start + 1000)], ())
        shrink(database, max_megabytes=1)
        assert used_bytes(database) <= 1 << 20
    kept = [row[2] for row in rows(database)]
    assert kept == [f"r{number}" for number in range(12_000 - len(kept), 12_000)]
    assert len(kept) > 1000
    assert totals(database, ALL)["attempts"] == 12_000
    assert shrink(database, max_megabytes=0) == 0
    database.close()
    assert path.stat().st_size <= 1 << 20


async def test_the_ledger_keeps_itself_small(tmp_path: Path) -> None:
    """Without being asked."""
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path, max_megabytes=1, retention_days=1)) as ledger:
            for start in range(0, 8_000, 1000):
                for number in range(start, start + 1000):
                    ledger.append(record(number, requested_at=datetime.now(UTC)))
                await ledger.flush()
            assert await ledger.query(used_bytes) <= 1 << 20
            assert (await ledger.query(lambda database: totals(database, ALL)))["attempts"] == 8_000


def charge(requests: int, tokens: int, start_s: int = 0, client: str = "c", span: str = "total") -> Charge:
    """What a limit's counter grows by."""
    return Charge(client=client, span=span, start_s=start_s, requests=requests, tokens=tokens)


async def test_counters_of_limits_add_up_and_begin_anew(tmp_path: Path) -> None:
    """Within a span, over restarts; a later span replaces the one before."""
    with trio.fail_after(FAIL_S):
        for _ in range(2):
            async with open_ledger(settings(tmp_path)) as ledger:
                ledger.charge([charge(1, 10), charge(1, 10, 60, span="minute")])
                ledger.charge([charge(1, 5), charge(2, 5, 60, span="minute")])
        async with open_ledger(settings(tmp_path)) as ledger:
            ledger.charge([charge(1, 1, 120, span="minute")])
            found = await ledger.counters()
    assert sorted(found, key=lambda item: item.span) == [charge(1, 1, 120, span="minute"), charge(4, 30)]


async def test_records_wait_without_their_headers_when_many_wait(tmp_path: Path) -> None:
    """The first ones as they are, which costs their requests nothing; whatever a stuck file keeps stays small."""
    client = ClientFacts(path="/v1/messages", headers=((b"x", b"v" * 1000),))
    with trio.fail_after(FAIL_S):
        async with open_ledger(settings(tmp_path), gather_s=3600) as ledger:
            for number in range(MAX_WHOLE + 5):
                ledger.append(record(number, client=client, tokens=TOKENS))
            assert [isinstance(entry, UsageRecord) for entry in ledger._entries] == [True] * MAX_WHOLE + [False] * 5
            found = await ledger.query(rows)
    assert [row[2] for row in found] == [f"r{number}" for number in range(MAX_WHOLE + 5)]
    assert len({row[3:] for row in found}) == 1
