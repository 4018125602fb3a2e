"""The pool's order, ages and bounds, on socket pairs and a clock that the test moves."""

import socket
from collections.abc import Iterator

import pytest
import trio.testing

from cpa.upstream import pool as pool_module
from cpa.upstream.connection import Connection, Origin
from cpa.upstream.pool import ConnectionPool

HERE = Origin("http", "here", 80)
THERE = Origin("http", "there", 80)


class Rig:
    """A pool with connections whose other ends the test holds."""

    def __init__(self) -> None:
        self.pool = ConnectionPool(keepalive_idle_seconds=30)
        self.ends: list[socket.socket] = []

    def connect(self, origin: Origin = HERE) -> Connection:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends.append(theirs)
        connection = Connection(sock=ours, origin=origin, on_close=self.pool.forget)
        self.pool.adopt(connection)
        return connection

    def counts(self) -> tuple[int, int]:
        return self.pool.open_connections, self.pool.idle_connections


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for end in made.ends:
        end.close()


async def test_last_used_comes_first_and_only_for_its_origin(rig: Rig) -> None:
    first, second, other = rig.connect(), rig.connect(), rig.connect(THERE)
    for connection in (first, second, other):
        rig.pool.release(connection)
    assert rig.counts() == (3, 3)
    assert rig.pool.acquire(HERE) is second
    assert rig.pool.acquire(HERE) is first
    assert rig.pool.acquire(HERE) is None
    assert rig.pool.acquire(Origin("https", "there", 80)) is None
    assert rig.counts() == (3, 1)
    rig.pool.close_all()
    assert rig.counts() == (0, 0)
    assert first.closed


async def test_too_old_connections_go_when_their_origin_is_used(rig: Rig, mock_clock: trio.testing.MockClock) -> None:
    old, young = rig.connect(), rig.connect()
    rig.pool.release(old)
    mock_clock.jump(20)
    rig.pool.release(young)
    mock_clock.jump(20)
    assert rig.pool.acquire(HERE) is young
    assert rig.counts() == (2, 1)
    assert rig.pool.acquire(HERE) is None
    assert old.closed
    rig.pool.release(young)
    mock_clock.jump(29)
    late = rig.connect()
    rig.pool.release(late)
    mock_clock.jump(2)
    last = rig.connect()
    rig.pool.release(last)
    assert (young.closed, late.closed) == (True, False)
    rig.pool.close_all()


async def test_forgotten_origins_go_when_another_is_used(rig: Rig, mock_clock: trio.testing.MockClock) -> None:
    forgotten = [rig.connect(THERE) for _ in range(3)]
    for connection in forgotten:
        rig.pool.release(connection)
    mock_clock.jump(31)
    rig.pool.release(rig.connect(HERE))
    assert all(connection.closed for connection in forgotten)
    assert rig.counts() == (1, 1)
    rig.pool.close_all()


async def test_only_what_is_too_old_goes(rig: Rig, mock_clock: trio.testing.MockClock) -> None:
    """Of every origin, whichever is used; and what has been used again meanwhile is young."""
    old, middle, busy = rig.connect(THERE), rig.connect(THERE), rig.connect(HERE)
    rig.pool.release(busy)
    rig.pool.release(old)
    mock_clock.jump(20)
    rig.pool.release(middle)
    assert rig.pool.acquire(HERE) is busy
    mock_clock.jump(11)
    rig.pool.release(busy)
    assert [connection.closed for connection in (old, middle, busy)] == [True, False, False]
    mock_clock.jump(25)
    assert rig.pool.acquire(HERE) is busy
    rig.pool.release(busy)
    assert [connection.closed for connection in (middle, busy)] == [True, False]
    assert rig.counts() == (1, 1)
    rig.pool.close_all()


async def test_dead_connections_are_not_given_out(rig: Rig) -> None:
    closed, spoken, good = rig.connect(), rig.connect(), rig.connect()
    for connection in (good, spoken, closed):
        rig.pool.release(connection)
    rig.ends[0].close()
    rig.ends[1].send(b"H")
    assert rig.pool.acquire(HERE) is good
    assert (closed.closed, spoken.closed) == (True, True)
    assert rig.counts() == (1, 0)
    good.close()
    good.close()
    assert rig.counts() == (0, 0)


async def test_bounds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_IDLE_PER_ORIGIN", 2)
    monkeypatch.setattr(pool_module, "MAX_IDLE_TOTAL", 3)
    here = [rig.connect() for _ in range(3)]
    for connection in here:
        rig.pool.release(connection)
    assert [connection.closed for connection in here] == [True, False, False]
    there = [rig.connect(THERE) for _ in range(2)]
    for connection in there:
        rig.pool.release(connection)
    assert [connection.closed for connection in here] == [True, True, False]
    assert rig.counts() == (3, 3)
    rig.pool.stop_keeping()
    assert rig.counts() == (0, 0)
    late = rig.connect()
    rig.pool.release(late)
    assert late.closed
