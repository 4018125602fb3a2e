"""Takes records of attempts in and hands them on, apart from the requests that made them.

One worker, so that every sink hears of records in order; it belongs to the collector, not to any request, and survives
the cancellation of what is around it until the queue is empty or the time for that is over. Taps (ledger, queue and
limits) neither wait nor fail and hear of a record at once: no stuck plugin stands in front of them. While nobody
listens the collector costs a look at two empty lists.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import structlog
import trio
from msgspec import structs

from cpa.credentials.model import Credential
from cpa.errors import CpaError
from cpa.formats.members import Members
from cpa.formats.names import Format
from cpa.types import Execution
from cpa.usage.attempt import AttemptUsage
from cpa.usage.record import NO_CLIENT, UsageRecord

log = structlog.get_logger(__name__)

Sink: TypeAlias = Callable[[UsageRecord], Awaitable[None]]
"""Hears of one attempt. May raise CpaError; the record is not offered again."""
Tap: TypeAlias = Callable[[UsageRecord], None]
"""Hears of one attempt at the moment that it ends. Never waits, never raises."""

MAX_QUEUED: Final = 10_000
"""Records that wait; at 3 KB each 30 MB. A stuck plugin is found out long before that."""
FLUSH_S: Final = 5.0
"""How long the delivery of what waits may take when the program ends."""


class UsageCollector:
    """See the module; made by `open_collector`.

    Attributes:
      dropped: records that no sink was offered: the queue was full, or the program ended before their turn.
    """

    def __init__(
        self,
        current_sinks: Callable[[], Sequence[Sink]],
        *,
        current_taps: Callable[[], Sequence[Tap]] = tuple,
        max_queued: int = MAX_QUEUED,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """*clock*: Trio's."""
        self.dropped = 0
        self._clock = clock
        self._current_sinks = current_sinks
        self._current_taps = current_taps
        self._queue: deque[UsageRecord] = deque()
        self._max_queued = max_queued
        self._dropping = False
        self._delivering = 0
        self._closing = False
        self._scope = trio.CancelScope(shield=True)
        self._wake = trio.Event()
        self._ended = trio.Event()

    @property
    def wanted(self) -> bool:
        """Somebody listens: records are worth making."""
        return bool(self._current_taps() or self._current_sinks())

    def __len__(self) -> int:
        """Records that wait or are being delivered."""
        return len(self._queue) + self._delivering

    def attempt(
        self,
        *,
        credential: Credential,
        model: str,
        alias: str,
        principal: str,
        request_format: Format,
        provider_format: str,
        request_body: bytes,
        request_id: str,
        trace_id: str,
        execution: Execution | None = None,
        members: Members | None = None,
        executor_type: str = "",
    ) -> AttemptUsage:
        """Begin the account of an attempt that starts now; ask `wanted` before.

        Args:
          model, alias: the provider's name of the model, and the client's.
          principal: the client.
          request_format, request_body: as the client sent it; the body is read when the attempt ends.
          provider_format: protocol of the answer.
          execution: for what records tell of the client; None = nobody knows.
          members: of *request_body*, if somebody has read them; None = they are read in the end.
          executor_type: empty = that of the credential's provider.
        """
        return AttemptUsage(
            submit=self.submit,
            credential=credential,
            model=model,
            alias=alias,
            principal=principal,
            request_format=request_format,
            provider_format=provider_format,
            request_body=request_body,
            request_id=request_id,
            trace_id=trace_id,
            execution=execution,
            members=members,
            executor_type=executor_type,
            clock=self._clock,
        )

    def submit(self, record: UsageRecord) -> None:
        """Take *record*; when too many wait, the oldest is dropped. Never blocks; without listeners it does nothing."""
        for tap in self._current_taps():
            try:
                tap(record)
            except Exception as exc:  # a supervisor's edge: a bug in one listener costs it one record
                log.error("usage.not_delivered", request_id=record.request_id, exc_info=exc)
        if not self._current_sinks():
            return
        if record.client is not NO_CLIENT:
            # Sinks do not ask for it, and its headers may be large.
            record = structs.replace(record, client=NO_CLIENT)
        if self._ended.is_set():
            self.dropped += 1
            return
        if len(self._queue) >= self._max_queued:
            self._queue.popleft()
            self.dropped += 1
            if not self._dropping:
                self._dropping = True  # one line each time that it begins, not one per record
                log.error(
                    "usage.dropped",
                    waiting=len(self._queue) + 1,
                    hint="a listener is too slow or stuck; the oldest records are lost until it has caught up",
                )
        self._queue.append(record)
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `aclose`; cancelled by nothing else."""
        try:
            with self._scope:
                while self._queue or not self._closing:
                    await self._next()
        finally:
            self._ended.set()

    async def _next(self) -> None:
        if not self._queue:
            self._dropping = False
            self._wake = trio.Event()
            await self._wake.wait()
            return
        self._delivering = 1
        await self._deliver(self._queue.popleft())
        self._delivering = 0

    async def _deliver(self, record: UsageRecord) -> None:
        # Sinks may return at once, and thousands of records may wait: others get their turn.
        await trio.lowlevel.checkpoint()
        for sink in self._current_sinks():
            try:
                await sink(record)
            except CpaError as exc:
                log.warning("usage.not_delivered", request_id=record.request_id, error=str(exc))
            except Exception as exc:  # a supervisor's edge: a bug in one sink costs it one record
                log.error("usage.not_delivered", request_id=record.request_id, exc_info=exc)

    async def aclose(self, flush_s: float = FLUSH_S) -> None:
        """Deliver what waits, for at most *flush_s* seconds, and end. Shielded from cancellation."""
        self._closing = True
        self._wake.set()
        with trio.move_on_after(flush_s, shield=True):
            await self._ended.wait()
        self._scope.cancel()
        lost = len(self)
        if lost:
            self.dropped += lost
            log.error("usage.lost", records=lost, waited_s=flush_s, hint="the program ends; a listener is too slow")


@asynccontextmanager
async def open_collector(
    current_sinks: Callable[[], Sequence[Sink]],
    *,
    current_taps: Callable[[], Sequence[Tap]] = tuple,
    max_queued: int = MAX_QUEUED,
    flush_s: float = FLUSH_S,
) -> AsyncIterator[UsageCollector]:
    """A collector while the block runs; at its end what waits is delivered, for at most *flush_s* seconds.

    Args:
      current_sinks, current_taps: who listens now; asked for every record, so they have to be quick.
    """
    async with trio.open_nursery() as nursery:
        # The clock itself: three attempts' times a request, and Trio looks for its clock each time.
        clock = trio.lowlevel.current_clock().current_time
        collector = UsageCollector(current_sinks, current_taps=current_taps, max_queued=max_queued, clock=clock)
        nursery.start_soon(collector.run, name="usage")
        try:
            yield collector
        finally:
            await collector.aclose(flush_s)
