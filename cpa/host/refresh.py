"""Keeping credentials fresh: who is due, and that each is refreshed by one at a time (plugin-abi 4.3.4, proxy 3.7).

Theory of operation. The next time of every credential stands in a heap; who changes is put in again, and what the heap
still says of it is skipped when its turn comes. Waiting is by the Trio clock, times of credentials are wall clock; as
the two may part (a machine that slept), nothing is waited for longer than `MAX_SLEEP_S` at a time. Of what is due, as
many run as there are workers; the others stay in the heap.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.credentials.refresh_times import EARLIEST, NEVER_REFRESHED, RefreshRecord, due_at
from cpa.errors import CpaError
from cpa.observability.log import get_logger

log = get_logger()

BACK_OFF_S: Final = 300.0
"""After a failure (contract)."""
FORCED_SPACING_S: Final = 30.0
"""Between attempts that failing requests ask for: one answers for all of them."""
MAX_SLEEP_S: Final = 60.0
UNAUTHORIZED: Final = 401
HOPELESS: Final = "invalid_grant"
"""In a failure's text: whoever issued the credential has withdrawn it."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@attrs.define(eq=False)
class _Attempt:
    done: trio.Event = attrs.field(factory=trio.Event)
    ok: bool = False


@attrs.define(eq=False)
class _Account:
    credential: Credential
    record: RefreshRecord = NEVER_REFRESHED
    problem: str = ""
    failed_with: bytes = b""  # what it held when it failed
    attempt: _Attempt | None = None
    due: float = math.inf  # Unix time; what the heap says of another one is out of date


@attrs.frozen(kw_only=True)
class RefreshState:
    """What is known of a credential's refreshes. Times have zones.

    Attributes:
      succeeded: the last time; None = not since the start.
      again: when it is tried again after a failure; None = as usual.
      problem: what failed; empty = nothing.
      stopped: it is not tried again until the credential changes.
      running: an attempt is under way.
    """

    succeeded: datetime | None = None
    again: datetime | None = None
    problem: str = ""
    stopped: bool = False
    running: bool = False


@attrs.define(eq=False, kw_only=True)
class Refresher:
    """Refreshes credentials when they are due, as tasks of *nursery*.

    Args:
      credentials: those that somebody can refresh; one object per state, so that a change can be seen.
      refresh: does it and puts the result in force; returns the wish for the next time. Raises: CpaError.
      read_at: when the file of a credential was written.
      workers: attempts at the same time.
    """

    _nursery: trio.Nursery
    _credentials: Callable[[], Sequence[Credential]]
    _refresh: Callable[[Credential], Awaitable[datetime | None]]
    _read_at: Callable[[Credential], datetime]
    _workers: Callable[[], int]
    _clock: Callable[[], datetime] = utc_now
    _accounts: dict[str, _Account] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, str]] = attrs.field(factory=list, init=False)
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stale: bool = attrs.field(default=True, init=False)
    _running: int = attrs.field(default=0, init=False)

    def wake(self) -> None:
        """The credentials may have changed."""
        self._stale = True
        self._wake.set()

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            self._wake = trio.Event()
            if self._stale:
                self._stale = False
                self._take_in()
            delay_s = self._start_due()
            with trio.move_on_after(min(delay_s, MAX_SLEEP_S)):
                await self._wake.wait()

    async def refresh_now(self, credential: Credential) -> bool:
        """Refresh *credential* because a provider refused it; joins an attempt that runs.

        Returns: whether it is fresh now, also if that was done a moment ago.
        Cancellation: the attempt goes on.
        """
        account = self._account(credential)
        if account.attempt is None:
            tried, now = account.record.tried, self._clock()
            if tried is not None and timedelta() <= now - tried < timedelta(seconds=FORCED_SPACING_S):
                await trio.lowlevel.checkpoint()
                return account.record.succeeded is not None and account.record.succeeded >= tried
            if account.record.stopped:
                await trio.lowlevel.checkpoint()
                return False
            self._start(credential, account)
        attempt = account.attempt
        assert attempt is not None
        await attempt.done.wait()
        return attempt.ok

    def state(self, credential_id: str) -> RefreshState:
        """How the refreshes of that credential are."""
        account = self._accounts.get(credential_id)
        if account is None:
            return RefreshState()
        record = account.record
        return RefreshState(
            succeeded=record.succeeded,
            again=None if record.stopped else record.not_before,
            problem=account.problem,
            stopped=record.stopped,
            running=account.attempt is not None,
        )

    def _account(self, credential: Credential) -> _Account:
        account = self._accounts.get(credential.id)
        if account is None:
            account = self._accounts[credential.id] = _Account(credential)
        elif account.credential is not credential:
            account.credential = credential
            if credential.next_refresh_after == EARLIEST:  # it has nothing yet; what was known is of another one
                account.record, account.problem = NEVER_REFRESHED, ""
            if account.problem and account.failed_with != credential.storage_json:
                account.problem = ""
                account.record = attrs.evolve(account.record, not_before=None, stopped=False)
        return account

    def _take_in(self) -> None:
        """Learn what changed since the last time."""
        credentials = self._credentials()
        present = {credential.id for credential in credentials}
        for gone in self._accounts.keys() - present:
            if self._accounts[gone].attempt is None:
                del self._accounts[gone]
        for credential in credentials:
            known = self._accounts.get(credential.id)
            if known is None or known.credential is not credential:
                self._plan(self._account(credential))

    def _plan(self, account: _Account) -> None:
        """Put the next time of *account* into the heap."""
        read_at = min(self._read_at(account.credential), self._clock())
        due = due_at(account.credential, account.record, read_at=read_at)
        account.due = math.inf if due is None else due.timestamp()
        if due is not None:
            heapq.heappush(self._heap, (account.due, account.credential.id))

    def _start_due(self) -> float:
        """Begin what is due, as far as there are workers; seconds until the next one is."""
        workers = max(1, self._workers())
        self._limiter.total_tokens = workers
        now = self._clock().timestamp()
        while self._heap:
            due, name = self._heap[0]
            account = self._accounts.get(name)
            if account is None or account.due != due or account.attempt is not None:
                heapq.heappop(self._heap)
                continue
            if due > now:
                return due - now
            if self._running >= workers:
                return math.inf  # the end of an attempt wakes this up
            heapq.heappop(self._heap)
            self._start(account.credential, account)
        return math.inf

    def _start(self, credential: Credential, account: _Account) -> None:
        account.attempt = _Attempt()
        self._running += 1
        self._nursery.start_soon(self._try, credential, account, account.attempt, name=f"refresh {credential.id}")

    async def _try(self, credential: Credential, account: _Account, attempt: _Attempt) -> None:
        try:
            async with self._limiter:
                account.record = attrs.evolve(account.record, tried=self._clock())
                try:
                    wanted = await self._refresh(credential)
                except CpaError as exc:
                    self._failed(credential, account, exc)
                else:
                    attempt.ok, account.problem = True, ""
                    now = self._clock()
                    account.record = RefreshRecord(succeeded=now, tried=account.record.tried, wanted=wanted)
                    log.info("credential refreshed", auth_id=credential.id, provider=credential.provider)
        finally:
            self._running -= 1
            account.attempt = None
            if self._accounts.get(credential.id) is account:
                self._plan(account)
            attempt.done.set()
            self.wake()

    def _failed(self, credential: Credential, account: _Account, error: CpaError) -> None:
        hopeless = error.http_status == UNAUTHORIZED or HOPELESS in error.message
        account.problem, account.failed_with = error.message or "refresh failed", credential.storage_json
        not_before = self._clock() + timedelta(seconds=BACK_OFF_S)
        account.record = attrs.evolve(account.record, not_before=not_before, stopped=hopeless)
        log.warning(
            "credential cannot be refreshed",
            auth_id=credential.id,
            provider=credential.provider,
            reason=error.message,
            again="when it changes" if hopeless else f"in {BACK_OFF_S:g} s",
        )
