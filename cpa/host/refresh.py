"""Keeping plugins' credentials fresh: who is due, and that each is refreshed by one at a time (plugin-abi 4.3.4).

Waiting is by the Trio clock, times of credentials are wall clock; as the two may part (a machine that slept), nothing
is waited for longer than `MAX_SLEEP_S` at a time.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import trio

from cpa.credentials.model import Credential
from cpa.credentials.refresh_times import NEVER_REFRESHED, RefreshRecord, due_at
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
    record: RefreshRecord = NEVER_REFRESHED
    problem: str = ""
    failed_with: bytes = b""  # what it held when it failed
    attempt: _Attempt | None = None


@attrs.define(eq=False, kw_only=True)
class Refresher:
    """Refreshes credentials when they are due, as tasks of *nursery*.

    Args:
      credentials: those that somebody can refresh.
      refresh: does it and puts the result in force; returns the plugin's wish for the next time. Raises: CpaError.
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
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)

    def wake(self) -> None:
        """The credentials may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            self._wake = trio.Event()
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
            self._start(credential, account)
        attempt = account.attempt
        assert attempt is not None
        await attempt.done.wait()
        return attempt.ok

    def last(self, credential_id: str) -> tuple[datetime | None, datetime | None, str]:
        """When it was refreshed last, when it is tried again after a failure, and what failed (empty = nothing)."""
        account = self._accounts.get(credential_id) or _Account()
        return account.record.succeeded, account.record.not_before, account.problem

    def _account(self, credential: Credential) -> _Account:
        account = self._accounts.setdefault(credential.id, _Account())
        if account.problem and account.failed_with != credential.storage_json:
            account.problem = ""
            account.record = attrs.evolve(account.record, not_before=None, stopped=False)
        return account

    def _start_due(self) -> float:
        """Begin what is due; seconds until the next one is."""
        credentials = self._credentials()
        present = {credential.id for credential in credentials}
        for gone in self._accounts.keys() - present:
            if self._accounts[gone].attempt is None:
                del self._accounts[gone]
        self._limiter.total_tokens = max(1, self._workers())
        now, delay_s = self._clock(), math.inf
        for credential in credentials:
            account = self._account(credential)
            due = due_at(credential, account.record, read_at=min(self._read_at(credential), now))
            if due is None or account.attempt is not None:
                continue
            if due <= now:
                self._start(credential, account)
            else:
                delay_s = min(delay_s, (due - now).total_seconds())
        return delay_s

    def _start(self, credential: Credential, account: _Account) -> None:
        account.attempt = _Attempt()
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
            account.attempt = None
            attempt.done.set()
            self._wake.set()

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
