"""Limits of clients over Redis: everybody's sum, also after it was away or forgot."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from coredis import Redis

from cpa.state.limits import SharedLimits
from cpa.state.link import RedisLink
from cpa.usage.limit_store import MemoryLimitStore, Span
from tests.state.redis import RedisServer, redis_server

FAIL_S = 120
NOW = 1_800_000_000.0
"""Long before Redis's own clock lets keys of such spans expire."""


@attrs.define(eq=False)
class Replica:
    """One process's counters."""

    store: MemoryLimitStore
    link: RedisLink
    clock: list[float]
    _taken: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def add(self, requests: int = 0, tokens: int = 0, client: str = "someone") -> None:
        """Something was used up."""
        self.store.add(client, requests=requests, tokens=tokens, now=self.clock[0])

    def used(self, span: Span = Span.DAY, client: str = "someone") -> tuple[int, int]:
        """Requests and tokens as this process knows them."""
        count = self.store.count(client, span, self.clock[0])
        return count.requests, count.tokens

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was heard makes it so."""
        while not condition():
            await self._taken.park()


@asynccontextmanager
async def replica(server: RedisServer, clock: list[float] | None = None) -> AsyncIterator[Replica]:
    """A process that shares its counters."""
    times = [NOW] if clock is None else clock
    link = RedisLink(server.url, prefix="test")
    store = MemoryLimitStore(lambda charges: shared.charged(charges))
    shared = SharedLimits(store, clock=lambda: times[0], prefix="test", changed=link.changed)
    view = Replica(store, link, times)
    link.parts.append(shared)
    adopt = store.adopt

    def adopting(*arguments: object) -> None:
        adopt(*arguments)  # type: ignore[arg-type]
        view._taken.unpark_all()

    store.adopt = adopting  # type: ignore[method-assign,assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        yield view
        nursery.cancel_scope.cancel()


async def test_what_others_used_up_counts(tmp_path: Path) -> None:
    """In every span, for those who come later too, and not for other clients."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, replica(server) as first, replica(server) as second:
            for view in (first, second):
                await view.link.wait_connected()
            for _ in range(20):
                first.add(1, 10)
                second.add(1, 1)
                await trio.lowlevel.checkpoint()
            for view in (first, second):
                await view.until(lambda view=view: view.used(Span.TOTAL) == (40, 220))  # type: ignore[misc]
                assert view.used(Span.DAY) == (40, 220)
                assert view.used(Span.DAY, "somebody else") == (0, 0)
            async with replica(server) as third:
                await third.until(lambda: third.used(Span.DAY) == (40, 220))
                assert third.used(Span.TOTAL) == (40, 220)


async def test_nothing_is_lost_or_counted_twice_when_redis_forgets(tmp_path: Path) -> None:
    """Each counts on alone; what both knew before is known once after."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, replica(server) as first, replica(server) as second:
            first.add(5, 500)
            await second.until(lambda: second.used() == (5, 500))
            server.stop()
            first.add(1, 10)
            second.add(2, 20)
            assert first.used() == (6, 510)
            assert second.used() == (7, 520)
            await server.start()
            await first.until(lambda: first.used() == (8, 530))
            await second.until(lambda: second.used() == (8, 530))


async def test_a_new_span_begins_for_all(tmp_path: Path) -> None:
    """The minute is over for everybody at the same time, and the total goes on."""
    clock = [NOW]
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, replica(server, clock) as first, replica(server, clock) as second:
            first.add(3)
            await second.until(lambda: second.used(Span.MINUTE) == (3, 0))
            clock[0] += 61
            assert first.used(Span.MINUTE) == second.used(Span.MINUTE) == (0, 0)
            second.add(1)
            await first.until(lambda: first.used(Span.MINUTE) == (1, 0))
            await first.until(lambda: first.used(Span.TOTAL) == (4, 0))


async def test_what_others_may_have_put_there_is_not_believed(tmp_path: Path) -> None:
    """No nonsense ends the session or uses up anybody's limit."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, Redis.from_url(server.url) as hostile:
            await hostile.set("test:limits:day:text", "no hash")
            await hostile.hset("test:limits:day:", {"start": "1", "requests": "1", "tokens": "1"})
            await hostile.hset("test:limits:day:a", {"start": "x", "requests": "1", "tokens": "1"})
            await hostile.hset("test:limits:total:b", {"start": "0", "requests": "-1", "tokens": "1"})
            await hostile.hset("test:limits:total:c", {"start": "0", "requests": "1"})
            await hostile.hset("test:limits:age:d", {"start": "0", "requests": "1", "tokens": "1"})
            async with replica(server) as view:
                await view.link.wait_connected()
                for message in ("", "x", "o day:e 0 1 1 1", "o day:e 99999999999999999999 1 1", "o total:e 0 1e9 1"):
                    await hostile.publish("test:limits", message)
                await hostile.publish("test:limits", b"\xff\xff total:e 0 1 1")
                await hostile.publish("test:limits", "other total:good 0 7 8")
                await view.until(lambda: view.used(Span.TOTAL, "good") == (7, 8))
                for name in ("", "a", "b", "c", "d", "e", "text"):
                    assert {view.used(span, name) for span in Span} <= {(0, 0), (1, 1)}
                assert view.used(Span.TOTAL, "b") == view.used(Span.TOTAL, "c") == (0, 0)
