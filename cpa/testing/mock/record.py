"""What reached the mock provider, and what became of it, for those who wait for it."""

from collections import deque
from collections.abc import Callable, Sequence

import attrs
import trio

MAX_REQUESTS = 1_000
"""Requests that a recorder keeps unless told otherwise."""
MAX_KEPT_BYTES = 64 << 20
"""Bodies that a recorder keeps in all; beyond it the oldest requests go."""


@attrs.define(eq=False, slots=True)
class Changes:
    """Wakes those who wait for a condition on the mock's state. Nothing is polled."""

    _lot: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def notify(self) -> None:
        """Let all waiters look again."""
        if self._lot:
            self._lot.unpark_all()

    async def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Return once *predicate* holds; it is asked after each change. Always a checkpoint; cancellable."""
        await trio.lowlevel.checkpoint()
        while not predicate():
            await self._lot.park()


@attrs.define(eq=False, kw_only=True, slots=True)
class RecordedRequest:
    """One request, complete with its body.

    Attributes:
      target: as in the request line, query included.
      headers: lower-case names, in order, repeats kept.
      connection_id: counts accepted connections from 1.
      received_at: Trio clock.
      answered: the whole answer, or what its fault allows, was handed to the kernel.
      answered_at: Trio clock, None before.
      closed_by_client: the client went away before that. Seen while the mock waits (delays, stalls) and by failing
        sends; an answer without pauses may be complete before the client's leaving can be seen.
      closed_at: Trio clock, None before.
    """

    method: str
    target: str
    headers: Sequence[tuple[bytes, bytes]] = attrs.field(repr=False)  # keys are in them
    body: bytes = attrs.field(repr=False)
    connection_id: int
    received_at: float
    answered: bool = False
    answered_at: float | None = None
    closed_by_client: bool = False
    closed_at: float | None = None
    _changes: Changes = attrs.field(repr=False)

    def header(self, name: bytes) -> bytes | None:
        """Value of the first header of that lower-case *name*."""
        return next((value for key, value in self.headers if key == name), None)

    def mark_answered(self) -> None:
        """The last byte was sent."""
        self.answered, self.answered_at = True, trio.current_time()
        self._changes.notify()

    def mark_closed(self) -> None:
        """The client went away before that."""
        self.closed_by_client, self.closed_at = True, trio.current_time()
        self._changes.notify()

    async def wait_answered(self) -> None:
        """Until `answered`."""
        await self._changes.wait_for(lambda: self.answered)

    async def wait_closed_by_client(self) -> None:
        """Until `closed_by_client`."""
        await self._changes.wait_for(lambda: self.closed_by_client)


@attrs.define(eq=False, kw_only=True, slots=True)
class Recorder:
    """Keeps the latest requests: at most `max_requests`, and `max_kept_bytes` of bodies (always the latest one)."""

    max_requests: int = MAX_REQUESTS
    max_kept_bytes: int = MAX_KEPT_BYTES
    requests: deque[RecordedRequest] = attrs.field(factory=deque, init=False)
    kept_bytes: int = attrs.field(default=0, init=False)

    def add(self, request: RecordedRequest) -> None:
        """Append *request*, dropping the oldest beyond the limits."""
        self.requests.append(request)
        self.kept_bytes += len(request.body)
        while len(self.requests) > self.max_requests or (
            self.kept_bytes > self.max_kept_bytes and len(self.requests) > 1
        ):
            self.kept_bytes -= len(self.requests.popleft().body)

    def clear(self) -> None:
        """Forget all requests."""
        self.requests.clear()
        self.kept_bytes = 0
