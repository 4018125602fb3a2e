"""All that counts and limits, as one thing that is opened with the program and reconfigured with it."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import structlog

from cpa.config.schema import Config
from cpa.usage.collector import Tap
from cpa.usage.ledger import Ledger, LedgerError, LedgerSettings, open_ledger
from cpa.usage.limit_store import MemoryLimitStore
from cpa.usage.limits import Limiter
from cpa.usage.queue import UsageQueue

log = structlog.get_logger(__name__)

FILE: Final = Path("usage") / "ledger.sqlite3"
"""Below the directory of what CPA writes."""


@attrs.define(kw_only=True, eq=False)
class UsageServices:
    """Made by `open_usage`.

    Attributes:
      ledger: None where the configuration does without at the start.
      taps: who hears of attempts now.
    """

    queue: UsageQueue = attrs.field(factory=UsageQueue)
    limiter: Limiter = attrs.field(factory=Limiter)
    ledger: Ledger | None = None
    taps: tuple[Tap, ...] = ()
    _restored: bool = False

    def current_taps(self) -> tuple[Tap, ...]:
        """Who hears of attempts now."""
        return self.taps

    async def configure(self, config: Config, *, managed: bool) -> None:
        """Take up what a reload can change. *managed*: there is a management API, without which nobody could ask."""
        self.queue.configure(
            enabled=config.usage_statistics_enabled and managed,
            retention_s=config.redis_usage_queue_retention_seconds,
        )
        if config.limits.clients:
            await self._restore()  # before anybody is judged by them
        self.limiter.configure(config.limits.clients)
        if self.ledger is not None:
            self.ledger.settings = attrs.evolve(
                self.ledger.settings,
                retention_days=config.usage.ledger.retention_days,
                max_megabytes=config.usage.ledger.max_megabytes,
            )
        taps: list[Tap] = []
        if self.limiter.active:
            taps.append(self.limiter.record)  # first: who is told of an attempt's end finds it counted
        if self.ledger is not None:
            taps.append(self.ledger.append)
        if self.queue.enabled:
            taps.append(self.queue.append)
        self.taps = tuple(taps)
        self.queue.refreshed()

    async def _restore(self) -> None:
        """Once: where limits stood when the program ended."""
        if self._restored:
            return
        self._restored = True
        store = self.limiter.store
        if self.ledger is None or not isinstance(store, MemoryLimitStore):
            return
        try:
            store.restore(await self.ledger.counters())
        except LedgerError as exc:
            log.error("limits.not_restored", error=str(exc), hint="limits of clients begin anew")


def ledger_settings(config: Config, env: Mapping[str, str]) -> LedgerSettings:
    """What *config* says of the ledger, and where it is if it does not say."""
    ledger = config.usage.ledger
    writable = env.get("WRITABLE_PATH") or env.get("writable_path")
    path = ledger.path or (Path(writable) if writable else config.auth_dir) / FILE
    return LedgerSettings(path=path, retention_days=ledger.retention_days, max_megabytes=ledger.max_megabytes)


@asynccontextmanager
async def open_usage(
    config: Config, *, managed: bool, env: Mapping[str, str] = os.environ
) -> AsyncIterator[UsageServices]:
    """The services that *config* wants, while the block runs; then the ledger is written to its end and closed."""
    async with AsyncExitStack() as stack:
        services = UsageServices()
        if config.usage.ledger.enabled:
            ledger = await stack.enter_async_context(open_ledger(ledger_settings(config, env)))
            services.ledger = ledger
            services.limiter.store = MemoryLimitStore(ledger.charge)
        await services.configure(config, managed=managed)
        yield services
