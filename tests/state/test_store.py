"""Two stores on one Redis: they agree, lose nothing when it goes away, and believe nobody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import time

import attrs
import msgspec
import pytest
import trio
from coredis import Redis

from cpa.scheduling.store import Space
from cpa.state.link import RedisLink
from cpa.state.store import SharedStore
from tests.state.redis import RedisServer, redis_server

FAIL_S = 120


def decode(data: bytes) -> str:
    """Texts only. Raises: ValueError."""
    return data.decode()


WORDS = Space(name="words", encode=str.encode, decode=decode, max_entries=100)
LOCAL = Space(name="local", encode=str.encode, decode=decode, max_entries=100)


@attrs.define(eq=False)
class Replica:
    """One process's view."""

    store: SharedStore
    link: RedisLink
    _changes: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def put(self, key: str, value: str, *, life_s: float = 600) -> None:
        """Write."""
        self.store.put(WORDS, (key,), value, expires_unix=time() + life_s)

    def get(self, key: str) -> str | None:
        """Read."""
        found: str | None = self.store.get(WORDS, (key,))
        return found

    async def sees(self, **expected: str | None) -> None:
        """Wait until it does."""
        while any(self.get(key) != value for key, value in expected.items()):
            await self._changes.park()

    @property
    def words(self) -> dict[str, str]:
        """All that it knows."""
        return {key[0]: value for key, value in self.store.items(WORDS)}


@asynccontextmanager
async def replica(server: RedisServer, *, skew_s: float = 0.0) -> AsyncIterator[Replica]:
    """A process that shares its words. *skew_s*: how much its clock is ahead."""
    link = RedisLink(server.url, prefix="test")
    store = SharedStore(clock=lambda: time() + skew_s, prefix="test", spaces=[WORDS], changed=link.changed)
    link.parts.append(store)
    view = Replica(store, link)
    store.subscribe(WORDS, lambda _key, _entry: view._changes.unpark_all())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        yield view
        nursery.cancel_scope.cancel()


async def test_each_sees_what_others_write_and_drop(tmp_path: Path) -> None:
    """Also who comes later, and nobody hears of what is not shared."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, replica(server) as first, replica(server) as second:
            await first.link.wait_connected()
            await second.link.wait_connected()
            first.put("a", "one")
            first.put("b", "grüße \0 \n")
            first.store.put(LOCAL, ("l",), "mine", expires_unix=time() + 600)
            await second.sees(a="one", b="grüße \0 \n")
            second.put("a", "two")
            await first.sees(a="two")
            first.store.drop(WORDS, ("b",))
            await second.sees(b=None)
            async with replica(server) as third:
                await third.sees(a="two")
                assert third.words == {"a": "two"}
                assert third.store.get(LOCAL, ("l",)) is None


async def test_changes_of_the_time_before_the_first_connection_are_shared(tmp_path: Path) -> None:
    """A process does not wait for Redis to start with its work."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server:
            server.stop()
            async with replica(server) as first, replica(server) as second:
                first.put("a", "early")
                assert first.get("a") == "early"
                await server.start()
                await second.sees(a="early")


async def test_a_server_that_goes_and_comes_back_empty_costs_nothing(tmp_path: Path) -> None:
    """Each goes on with what it knows; in the end both know everything, and the later write wins."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, replica(server) as first, replica(server) as second:
            first.put("before", "x")
            await second.sees(before="x")
            server.stop()
            first.put("mine", "1")
            second.put("yours", "2")
            first.put("both", "earlier")
            second.put("both", "later")
            second.store.drop(WORDS, ("before",))
            assert (first.get("mine"), first.get("before")) == ("1", "x")
            await server.start()
            await first.sees(yours="2", both="later", before=None)
            await second.sees(mine="1", both="later")
            assert first.words == second.words == {"mine": "1", "yours": "2", "both": "later"}


async def test_many_changes_at_once_arrive(tmp_path: Path) -> None:
    """More than one batch; of one key only the last matters."""
    many = Space(name="many", encode=str.encode, decode=decode, max_entries=5000)
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server:
            stores = []
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    link = RedisLink(server.url, prefix="test")
                    store = SharedStore(clock=time, prefix="test", spaces=[many], changed=link.changed)
                    link.parts.append(store)
                    stores.append(store)
                    nursery.start_soon(link.run)
                    await link.wait_connected()
                arrived = trio.Event()
                stores[1].subscribe(many, lambda key, _entry: arrived.set() if key == ("last",) else None)
                for number in range(2000):
                    stores[0].put(many, (str(number % 1500),), str(number), expires_unix=time() + 600)
                stores[0].put(many, ("last",), "", expires_unix=time() + 600)
                await arrived.wait()
                assert dict(stores[1].items(many)) == dict(stores[0].items(many))
                nursery.cancel_scope.cancel()


async def test_what_others_may_have_put_there_is_not_believed(tmp_path: Path) -> None:
    """Anybody may write to a Redis; nothing of it ends the session, fills the view or wins for ever."""
    now = time()
    good = ["other", "words", ["a"], now, now + 60, b"ok"]
    bad = [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"a": 1}),
        *(msgspec.msgpack.encode([*good[:at], wrong, *good[at + 1 :]]) for at, wrong in enumerate([1, "no", "x", "x"])),
        msgspec.msgpack.encode([*good[:3], now + 1e9, now + 2e9, b"x"]),
        msgspec.msgpack.encode([*good[:3], float("nan"), now + 60, b"x"]),
        msgspec.msgpack.encode([*good[:4], float("inf"), b"x"]),
        msgspec.msgpack.encode([*good[:4], now - 1, b"x"]),
        msgspec.msgpack.encode([*good[:5], b"\xff"]),
        msgspec.msgpack.encode([*good, "more"]) + b"x",
    ]
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server, Redis.from_url(server.url) as hostile:
            for number, message in enumerate(bad):
                await hostile.hset(f"test:state:words:{number}", {"message": message, "written": "x"})
            await hostile.set("test:state:words:text", "no hash")
            async with replica(server) as view:
                await view.link.wait_connected()
                for message in bad:
                    await hostile.publish("test:state", message)
                await hostile.publish("test:state", msgspec.msgpack.encode(good))
                await view.sees(a="ok")
                assert view.words == {"a": "ok"}


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 99, b"*-7\r\n", b"%1\r\n+a\r\n", b""]
)
async def test_what_is_no_redis_ends_sessions_only(tmp_path: Path, answer: bytes) -> None:
    """An operator's wrong port: tried again and again, and the view goes on."""
    tries = trio.Semaphore(0)

    async def serve(stream: trio.SocketStream) -> None:
        tries.release()
        await stream.receive_some(4096)
        await stream.send_all(answer)

    with trio.fail_after(FAIL_S):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            async with replica(RedisServer(tmp_path, listener.socket.getsockname()[1])) as view:
                for _ in range(3):
                    await tries.acquire()
                    view.put("a", "b")
                    assert view.get("a") == "b"
                assert not view.link.connected
            nursery.cancel_scope.cancel()


async def test_cancelling_leaves_nothing_open(tmp_path: Path) -> None:
    """Whether Redis is there, is silent, or is not."""
    with trio.fail_after(FAIL_S):
        async with redis_server(tmp_path) as server:
            async with replica(server) as view:
                await view.link.wait_connected()
            assert not view.link.connected
            [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with silent:
                deaf = RedisServer(tmp_path, silent.socket.getsockname()[1])
                async with replica(deaf) as view:
                    stream = await silent.accept()
                    assert not view.link.connected
                await stream.aclose()
        async with replica(server) as view:
            view.put("a", "b")
