"""Limits of client keys: judged before a request is dispatched, settled with what it really cost.

Theory of operation. A request is admitted while something is left of every limit, and takes at that moment, in one
step, its place among the running ones, its count, and a reservation of the tokens that it will need: the prompt as
estimated, the answer as large as the client allows. What attempts really cost is counted when their records come
(`Limiter.record`), nested executions of plugins included, because these have the client's key too; with the end of the
request its reservation goes. So at no time is more admitted than the limit allows, but for the last request itself,
which may need more than was left.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import Final

import attrs

from cpa.config.schema import ClientLimits
from cpa.errors import LimitExceeded
from cpa.formats.thinking import split_suffix
from cpa.usage.asked import read_asked
from cpa.usage.breakdown import breakdown
from cpa.usage.identity import ClientId, client_id
from cpa.usage.limit_store import Count, LimitStore, MemoryLimitStore, Span, span_end
from cpa.usage.record import UsageRecord

OUTPUT_TOKENS: Final = 1024
"""Reserved for the answer to a request that names no bound: usual answers are shorter."""
HELD_RETRY_S: Final = 1.0
"""When to try again where running requests hold what is left: nobody knows when they will end."""
MAX_CLIENTS_KNOWN: Final = 4096
"""Clients whose limits are looked up at once, for the rest patterns are tried again."""

NOT_LIMITED: Final[AbstractContextManager[None]] = nullcontext()


@attrs.frozen(kw_only=True)
class Excess:
    """A limit that leaves no room. *until*: Unix time when it does again; None = nobody knows, inf = never."""

    limit: str
    used: int
    allowed: int
    until: float | None


@attrs.frozen(kw_only=True)
class LimitUse:
    """One limit of a client and what is used up of it. *until*: Unix time when it begins anew; None = never, or now."""

    limit: str
    used: int
    allowed: int
    until: float | None


@attrs.frozen
class _Bound:
    """One limit of a `ClientLimits`; `allowed` gives 0 for none."""

    name: str
    span: Span
    tokens: bool
    allowed: Callable[[ClientLimits], int]


_BOUNDS: Final = (
    _Bound("requests-per-minute", Span.MINUTE, False, lambda limits: limits.requests_per_minute),
    _Bound("requests-per-day", Span.DAY, False, lambda limits: limits.requests_per_day),
    _Bound("requests-total", Span.TOTAL, False, lambda limits: limits.requests_total),
    _Bound("tokens-per-minute", Span.MINUTE, True, lambda limits: limits.tokens_per_minute),
    _Bound("tokens-per-day", Span.DAY, True, lambda limits: limits.tokens_per_day),
    _Bound("tokens-total", Span.TOTAL, True, lambda limits: limits.tokens_total),
)


class Limiter:
    """The limits of all clients.

    Attributes:
      store: where the counters are.
    """

    def __init__(self, store: LimitStore | None = None, *, clock: Callable[[], float] = time) -> None:
        self.store: LimitStore = MemoryLimitStore() if store is None else store
        self._clock = clock
        self._limits: tuple[ClientLimits, ...] = ()
        self._limits_of = self._finder(())

    @property
    def active(self) -> bool:
        """Somebody is limited."""
        return bool(self._limits)

    def configure(self, limits: Sequence[ClientLimits]) -> None:
        """Take up new limits; what was used up counts on, and running requests go on."""
        if tuple(limits) != self._limits:
            self._limits = tuple(limits)
            self._limits_of = self._finder(self._limits)

    @staticmethod
    def _finder(limits: Sequence[ClientLimits]) -> Callable[[str], ClientLimits | None]:
        patterns = [(_pattern(item.keys), item) for item in limits]

        @lru_cache(maxsize=MAX_CLIENTS_KNOWN)
        def find(principal: str) -> ClientLimits | None:
            return next((item for pattern, item in patterns if pattern.fullmatch(principal)), None)

        return find

    def permits(self, principal: str, model: str) -> bool:
        """Whether *principal* may use *model*, as it is requested or listed; a thinking suffix is no part of a name."""
        limits = self._limits_of(principal) if self._limits else None
        if limits is None or not limits.allowed_models:
            return True
        split = split_suffix(model)
        name = (model if split is None else split[0]).lower()
        return _pattern(limits.allowed_models).fullmatch(name) is not None

    def admit(self, principal: str, body: bytes) -> AbstractContextManager[None]:
        """Count a request of *principal* and reserve what it needs, until the context is left.

        Args:
          body: the request, in any protocol; read only where tokens are limited.

        Raises: LimitExceeded, here and not by the context; nothing was counted then. Never waits.
        """
        limits = self._limits_of(principal) if self._limits else None
        if limits is None:
            return NOT_LIMITED
        client, now = client_id(principal), self._clock()
        found = list(self._excesses(client.id, limits, now))
        if found:
            raise _refusal(client, found, now)
        tokens = _needed(limits, body)
        self.store.add(client.id, requests=1, now=now)
        self.store.hold(client.id, running=1, tokens=tokens)
        return self._held(client.id, tokens)

    @contextmanager
    def _held(self, client: str, tokens: int) -> Iterator[None]:
        try:
            yield
        finally:
            self.store.hold(client, running=-1, tokens=-tokens)

    def uses(self, principal: str) -> tuple[LimitUse, ...]:
        """The limits of *principal*, as they stand; empty without any. Running requests' reservations are used, too."""
        limits = self._limits_of(principal) if self._limits else None
        if limits is None:
            return ()
        client, now = client_id(principal).id, self._clock()
        held = self.store.held(client)
        found = [
            LimitUse(
                limit=bound.name,
                used=count.tokens + held.tokens if bound.tokens else count.requests,
                allowed=allowed,
                until=None if (end := span_end(bound.span, count.start_s)) == float("inf") else end,
            )
            for bound in _BOUNDS
            if (allowed := bound.allowed(limits))
            for count in (self.store.count(client, bound.span, now),)
        ]
        if limits.max_concurrent:
            found.append(LimitUse(limit="max-concurrent", used=held.running, allowed=limits.max_concurrent, until=None))
        return tuple(found)

    def record(self, record: UsageRecord) -> None:
        """An attempt has ended: count what it cost."""
        if not self._limits or self._limits_of(record.principal) is None:
            return
        tokens = breakdown(record.provider_format, record.counted).total_tokens
        if tokens:
            self.store.add(client_id(record.principal).id, tokens=tokens, now=self._clock())

    def _excesses(self, client: str, limits: ClientLimits, now: float) -> Iterator[Excess]:
        held = self.store.held(client)
        if limits.max_concurrent and held.running >= limits.max_concurrent:
            yield Excess(limit="max-concurrent", used=held.running, allowed=limits.max_concurrent, until=None)
        counts: dict[Span, Count] = {}
        for bound in _BOUNDS:
            allowed = bound.allowed(limits)
            if not allowed:
                continue
            count = counts.get(bound.span) or self.store.count(client, bound.span, now)
            counts[bound.span] = count
            used = count.tokens if bound.tokens else count.requests
            promised = held.tokens if bound.tokens else 0
            if used + promised >= allowed:
                until = span_end(bound.span, count.start_s) if used >= allowed else None
                yield Excess(limit=bound.name, used=used + promised, allowed=allowed, until=until)


@lru_cache(maxsize=256)
def _pattern(keys: tuple[str, ...]) -> re.Pattern[str]:
    if not keys:
        return re.compile(".*", re.DOTALL)
    return re.compile("|".join(".*".join(map(re.escape, key.split("*"))) for key in keys), re.DOTALL)


def _needed(limits: ClientLimits, body: bytes) -> int:
    """Tokens to reserve; no single request reserves more than all of the smallest limit."""
    bounds = [allowed for bound in _BOUNDS if bound.tokens and (allowed := bound.allowed(limits))]
    if not bounds:
        return 0
    asked = read_asked(body)
    output = OUTPUT_TOKENS if asked.output_tokens is None else asked.output_tokens
    return min(asked.input_tokens + output, *bounds)


def _refusal(client: ClientId, excesses: Sequence[Excess], now: float) -> LimitExceeded:
    """The error of the limit that lasts longest: who comes back earlier is refused again."""
    worst = max(excesses, key=lambda excess: excess.until or 0.0)
    used = f"client key {client.label} has used up its limit {worst.limit}: {worst.used} of {worst.allowed}"
    if worst.until is None:
        return LimitExceeded(f"{used} are taken by running requests; try again", retry_after_s=HELD_RETRY_S)
    if worst.until == float("inf"):
        return LimitExceeded(f"{used}; it does not reset", code="insufficient_quota")
    wait_s = max(1, -int(-(worst.until - now) // 1))
    reset = datetime.fromtimestamp(worst.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return LimitExceeded(f"{used}; it resets at {reset}, in {wait_s} s", retry_after_s=float(wait_s))
