"""Where the counters of clients' limits are kept.

Reading is synchronous and from a local view, so that a request is judged and counted in one step in which nothing else
happens; writing adds and never waits. A store that shares counters with other processes replicates behind this: what it
adds is a sum, and sums do not care for order.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, Protocol

import attrs

from cpa.usage.writing import DAY_S, Charge

MINUTE_S: Final = 60
MAX_CLIENTS: Final = 100_000
"""At 600 bytes each 60 MB; those who did nothing for longest are forgotten."""


class Span(StrEnum):
    """How long a limit counts before it begins anew."""

    MINUTE = "minute"
    DAY = "day"
    TOTAL = "total"


def span_start(span: Span, now: float) -> int:
    """When a span begins that is opened at *now* (Unix time): minutes with their first request, days at 0:00 UTC."""
    if span is Span.TOTAL:
        return 0
    return int(now) if span is Span.MINUTE else int(now) // DAY_S * DAY_S


def span_end(span: Span, start_s: int) -> float:
    """When a span that began at *start_s* is over."""
    if span is Span.TOTAL:
        return float("inf")
    return start_s + (MINUTE_S if span is Span.MINUTE else DAY_S)


@attrs.frozen(kw_only=True)
class Count:
    """What was used up in a span since *start_s* (Unix time)."""

    start_s: int
    requests: int = 0
    tokens: int = 0


@attrs.frozen(kw_only=True)
class Held:
    """What running requests hold: how many they are, and the tokens that were reserved for them."""

    running: int = 0
    tokens: int = 0


class LimitStore(Protocol):
    """Counters by client id. *now* is Unix time in seconds."""

    def count(self, client: str, span: Span, now: float) -> Count:
        """What *client* used up in the present span."""
        ...

    def add(self, client: str, *, requests: int = 0, tokens: int = 0, now: float) -> None:
        """*client* used up that much; counts in every span."""
        ...

    def held(self, client: str) -> Held:
        """What running requests of *client* hold."""
        ...

    def hold(self, client: str, *, running: int, tokens: int) -> None:
        """Change that by *running* and *tokens*; negative ones give back."""
        ...


@attrs.define(eq=False)
class _Client:
    counts: dict[Span, Count] = attrs.field(factory=dict)
    held: Held = Held()


class MemoryLimitStore:
    """Counters of this process.

    *on_charge*: told of everything that is added, for whoever keeps it over restarts.
    """

    def __init__(self, on_charge: Callable[[Sequence[Charge]], None] | None = None) -> None:
        self._on_charge = on_charge
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)

    def tell(self, listener: Callable[[Sequence[Charge]], None]) -> None:
        """Tell *listener*, too, of everything that is added."""
        before = self._on_charge

        def both(charges: Sequence[Charge]) -> None:
            if before is not None:
                before(charges)
            listener(charges)

        self._on_charge = both

    def restore(self, charges: Iterable[Charge]) -> None:
        """Begin where an earlier process ended. Clients that were counted here meanwhile are left alone."""
        known = set(self._clients)
        for charge in charges:
            if charge.client not in known and charge.span in list(Span):
                count = Count(start_s=charge.start_s, requests=charge.requests, tokens=charge.tokens)
                self._client(charge.client).counts[Span(charge.span)] = count

    def count(self, client: str, span: Span, now: float) -> Count:
        """See `LimitStore`."""
        found = self._clients.get(client)
        return self._present(found, span, now) if found is not None else Count(start_s=span_start(span, now))

    def add(self, client: str, *, requests: int = 0, tokens: int = 0, now: float) -> None:
        """See `LimitStore`."""
        entry = self._client(client)
        charges = []
        for span in Span:
            old = self._present(entry, span, now)
            entry.counts[span] = attrs.evolve(old, requests=old.requests + requests, tokens=old.tokens + tokens)
            charges.append(
                Charge(client=client, span=span.value, start_s=old.start_s, requests=requests, tokens=tokens)
            )
        if self._on_charge is not None:
            self._on_charge(charges)

    def adopt(self, client: str, span: Span, count: Count) -> None:
        """Take over *count* from somebody who knows more."""
        self._client(client).counts[span] = count

    def counts(self, now: float) -> Iterator[tuple[str, Span, Count]]:
        """All that count at *now*. A snapshot."""
        for client, entry in list(self._clients.items()):
            for span, count in list(entry.counts.items()):
                if now < span_end(span, count.start_s):
                    yield client, span, count

    def held(self, client: str) -> Held:
        """See `LimitStore`."""
        found = self._clients.get(client)
        return found.held if found is not None else Held()

    def hold(self, client: str, *, running: int, tokens: int) -> None:
        """See `LimitStore`."""
        entry = self._client(client)
        entry.held = Held(running=entry.held.running + running, tokens=entry.held.tokens + tokens)

    def _client(self, client: str) -> _Client:
        entry = self._clients.get(client)
        if entry is None:
            if len(self._clients) >= MAX_CLIENTS:
                self._forget()
            entry = self._clients[client] = _Client()
        self._clients.move_to_end(client)
        return entry

    def _forget(self) -> None:
        """The one that did nothing for longest, unless it is doing something now."""
        for client, entry in self._clients.items():
            if not entry.held.running:
                del self._clients[client]
                return

    @staticmethod
    def _present(entry: _Client, span: Span, now: float) -> Count:
        found = entry.counts.get(span)
        # A span from the future was begun by a clock that has been set back: without this it would never end.
        if found is None or now >= span_end(span, found.start_s) or now < found.start_s - 1:
            return Count(start_s=span_start(span, now))
        return found
