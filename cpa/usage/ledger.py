"""The ledger: what every attempt cost, appended to a file that survives restarts.

Theory of operation. `append` puts a record into a bounded queue and returns; one task takes what has gathered, a few
times a second, and writes it on one thread, all of a batch in one transaction. Who reads does so on the same thread,
after what was appended before. Requests wait for nothing: when the queue is full, records are counted as lost. The
first records of a queue wait as they are, and the thread makes rows of them; those behind them are stripped to their
rows at once, because a record may hold large headers and nobody knows how long a stuck file stays stuck.

The file is opened with the first record or the first question. One that cannot be read is moved aside; when nothing can
be written, batches are tried again until the queue is full, and the log says so once.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias, TypeVar

import attrs
import structlog
import trio

from cpa.errors import CpaError
from cpa.usage.database import UnusableLedger, is_corrupt, move_aside, open_database
from cpa.usage.record import UsageRecord
from cpa.usage.writing import Charge, Entry, entry_of, expire, read_counters, shrink, write_batch

log = structlog.get_logger(__name__)

T = TypeVar("T")
Database: TypeAlias = sqlite3.Connection
"""What questions are put to, on the ledger's thread."""

MAX_QUEUED: Final = 10_000
"""Records that wait for the writer; at 1 KB each 10 MB, and several seconds of the fastest proxy."""
MAX_WHOLE: Final = 256
"""Of these, how many may wait with their headers: what comes within `GATHER_S` on a busy day."""
MAX_BATCH: Final = 1_000
"""Records of one transaction: some ten milliseconds on the thread."""
GATHER_S: Final = 0.1
"""How long the writer waits for company of the first record: a commit costs as much as a hundred rows."""
RETRY_S: Final = 1.0
"""After a failure to write, the first time; it doubles up to `MAX_RETRY_S`."""
MAX_RETRY_S: Final = 60.0
HOUSEKEEPING_S: Final = 3600.0
"""How often old records are looked for; the size is looked at after every batch."""
CLOSE_S: Final = 5.0
"""How long the program's end waits for the last batches."""


_FAULTS: Final = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)
"""What no other try would change."""


@attrs.frozen(kw_only=True)
class LedgerSettings:
    """Attributes:
    path: of the file; directories on the way are made.
    retention_days, max_megabytes: 0 = no bound.
    """

    path: Path
    retention_days: int = 90
    max_megabytes: int = 1024


class LedgerError(CpaError):
    """The ledger cannot be read now."""

    http_status = 503
    code = "ledger_unavailable"


class Ledger:
    """See the module; made by `open_ledger`.

    Attributes:
      settings: may be changed at any time, except for the path.
      lost: records that were not written: the queue was full, or the file never took them.
      written: records that are in the file.
    """

    def __init__(self, settings: LedgerSettings, *, max_queued: int = MAX_QUEUED, gather_s: float = GATHER_S) -> None:
        self.settings = settings
        self.lost = 0
        self.written = 0
        self._max_queued = max_queued
        self._gather_s = gather_s
        self._entries: list[UsageRecord | Entry] = []
        self._charges: dict[tuple[str, str, int], Charge] = {}
        self._losing = False
        self._closing = False
        self._wake: trio.Event | None = None  # the writer waits for something to write
        self._hurry = trio.Event()
        self._progress = trio.Event()
        self._taken = self._settled = 0  # what was appended or charged, and how much of that is decided on
        self._ended = trio.Event()
        self._over = False
        self._scope = trio.CancelScope(shield=True)
        self._thread = trio.CapacityLimiter(1)
        self._database: sqlite3.Connection | None = None
        self._unusable = ""
        self._housekept = -HOUSEKEEPING_S

    def __len__(self) -> int:
        """Records that wait."""
        return len(self._entries)

    def append(self, record: UsageRecord) -> None:
        """Take *record*. Never waits, never raises."""
        entries = self._entries
        waiting = len(entries)
        if self._over or self._unusable or waiting >= self._max_queued:
            self._lose(1)
            return
        entries.append(record if waiting < MAX_WHOLE else entry_of(record))
        self._taken += 1
        if self._wake is not None:
            self._wake_up()

    def charge(self, charges: Iterable[Charge]) -> None:
        """Add to the counters of limits. Never waits; charges of one span add up, so that they cannot be too many."""
        if self._over or self._unusable:
            return
        for new in charges:
            key = (new.client, new.span, new.start_s)
            old = self._charges.get(key)
            if old is None and len(self._charges) >= self._max_queued:
                self._lose(1)
                continue
            self._charges[key] = (
                new
                if old is None
                else attrs.evolve(old, requests=old.requests + new.requests, tokens=old.tokens + new.tokens)
            )
        self._taken += 1
        self._wake_up()

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.set()

    def _lose(self, count: int) -> None:
        self.lost += count
        if not self._losing:
            self._losing = True  # one line each time that it begins, not one per record
            log.error(
                "ledger.losing",
                waiting=len(self._entries),
                hint=self._unusable or "the ledger's file takes no records; more are lost until it does",
            )

    async def flush(self) -> None:
        """Return once all that was appended before is in the file, or cannot be written now."""
        target = self._taken
        while self._settled < target and not self._over:
            self._hurry.set()
            await self._progress.wait()

    async def query(self, question: Callable[[Database], T]) -> T:
        """The answer to *question*, asked on the ledger's thread after what was appended before.

        Raises: LedgerError when the file cannot be read. Cancellation: the question ends in its own time.
        """
        await self.flush()
        try:
            return await trio.to_thread.run_sync(
                lambda: question(self._opened()), limiter=self._thread, abandon_on_cancel=True
            )
        except (sqlite3.Error, OSError, UnusableLedger) as exc:
            raise LedgerError(f"the usage ledger cannot be read: {exc}") from exc

    async def counters(self) -> tuple[Charge, ...]:
        """Where the limits of all clients stand. Raises: LedgerError."""
        return await self.query(read_counters)

    async def run(self) -> None:
        """Write until `aclose`; cancelled by nothing else."""
        try:
            with self._scope:
                while await self._wanted():
                    await self._write()
        finally:
            self._over = True
            self._ended.set()
            self._advance(self._taken)

    def _advance(self, settled: int) -> None:
        """Tell those who wait that all up to number *settled* is written, or will not be soon."""
        self._settled = settled
        self._progress.set()
        self._progress = trio.Event()

    async def _wanted(self) -> bool:
        """Wait for something to write, and a moment for company. Returns: there is something."""
        if not (self._entries or self._charges):
            if self._closing:
                return False
            wake = self._wake = trio.Event()
            await wake.wait()
        if not self._closing and len(self._entries) < MAX_BATCH:
            with trio.move_on_after(self._gather_s):
                await self._hurry.wait()
        self._hurry = trio.Event()
        return True

    async def _write(self) -> None:
        entries, charges = self._entries[:MAX_BATCH], tuple(self._charges.values())
        del self._entries[:MAX_BATCH]
        self._charges.clear()
        settled = self._taken - len(self._entries)
        if await self._written_at_last(entries, charges):
            self.written += len(entries)
            self._losing = False
        else:
            self._lose(len(entries))
        self._advance(settled)

    async def _written_at_last(self, entries: list[UsageRecord | Entry], charges: tuple[Charge, ...]) -> bool:
        """Try until it works, there is no more room for what comes meanwhile, or the program ends."""
        delay_s = RETRY_S
        while True:
            try:
                await trio.to_thread.run_sync(self._write_blocking, entries, charges, limiter=self._thread)
                return True
            except UnusableLedger as exc:
                self._unusable = str(exc)
                return False
            except _FAULTS as exc:
                log.error("ledger.not_written", records=len(entries), exc_info=exc)
                return False
            except (sqlite3.Error, OSError) as exc:
                log.error(
                    "ledger.not_written",
                    path=str(self.settings.path),
                    error=str(exc),
                    records=len(entries),
                    hint="usage.ledger.path says where it is, usage.ledger.enabled: false does without",
                )
            except Exception as exc:  # a supervisor's edge: a bug costs one batch, not the proxy
                log.error("ledger.not_written", records=len(entries), exc_info=exc)
                return False
            if len(self._entries) + len(entries) >= self._max_queued:
                return False
            self._advance(self._taken)  # whoever waits for the file would wait long
            with trio.move_on_after(delay_s):
                await self._hurry.wait()
            if self._closing and delay_s > RETRY_S:
                return False
            self._hurry = trio.Event()
            delay_s = min(2 * delay_s, MAX_RETRY_S)

    def _write_blocking(self, entries: list[UsageRecord | Entry], charges: tuple[Charge, ...]) -> None:
        """On the thread. A file that turns out to be broken is replaced, once per batch."""
        try:
            write_batch(self._opened(), entries, charges)
        except sqlite3.DatabaseError as exc:
            if not is_corrupt(exc):
                raise
            self._replace()
            write_batch(self._opened(), entries, charges)
        self._keep_house()

    def _keep_house(self) -> None:
        try:
            self._make_room()
        except sqlite3.Error as exc:  # the batch is written: it must not be again
            log.error("ledger.not_cleaned", path=str(self.settings.path), error=str(exc))

    def _make_room(self) -> None:
        settings, database = self.settings, self._opened()
        if (now := monotonic()) - self._housekept >= HOUSEKEEPING_S:
            self._housekept = now
            expire(database, retention_days=settings.retention_days)
        shrink(database, max_megabytes=settings.max_megabytes)

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            opened = open_database(self.settings.path)
            self._database = opened.database
            if opened.moved_aside is not None:
                log.error("ledger.corrupt", path=str(self.settings.path), moved_to=str(opened.moved_aside))
        return self._database

    def _replace(self) -> None:
        assert self._database is not None
        self._database.close()
        self._database = None
        log.error("ledger.corrupt", path=str(self.settings.path), moved_to=str(move_aside(self.settings.path)))

    async def aclose(self, close_s: float = CLOSE_S) -> None:
        """Write what waits, for at most *close_s* seconds, and close the file. Shielded from cancellation."""
        self._closing = True
        self._wake_up()
        self._hurry.set()
        with trio.move_on_after(close_s, shield=True):
            await self._ended.wait()
        self._scope.cancel()
        if self._entries:
            self._lose(len(self._entries))
            self._entries.clear()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close_blocking, limiter=self._thread)

    def _close_blocking(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


@asynccontextmanager
async def open_ledger(
    settings: LedgerSettings, *, max_queued: int = MAX_QUEUED, gather_s: float = GATHER_S, close_s: float = CLOSE_S
) -> AsyncIterator[Ledger]:
    """A ledger while the block runs; at its end what waits is written, for at most *close_s* seconds."""
    async with trio.open_nursery() as nursery:
        ledger = Ledger(settings, max_queued=max_queued, gather_s=gather_s)
        nursery.start_soon(ledger.run, name="ledger")
        try:
            yield ledger
        finally:
            await ledger.aclose(close_s)
