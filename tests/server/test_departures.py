"""Who has left, told by the kernel."""

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trio
import trio.testing

from cpa.server.departures import Departures

FAIL_S = 60.0


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, ours first."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=FAIL_S)
        ours, _ = listener.accept()
    ours.setblocking(False)
    with closing(theirs), closing(ours):
        yield ours, theirs


def close(sock: socket.socket) -> None:
    sock.close()


def shut(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("leave", [close, shut, reset])
@pytest.mark.parametrize("late", [False, True])
async def test_each_way_to_leave_is_told_once(leave: object, late: bool) -> None:
    """Also when the peer had left before anybody asked, and with unread bytes before the end."""
    assert callable(leave)
    departures, told = Departures(), trio.Event()
    count = 0

    def left() -> None:
        nonlocal count
        count += 1
        told.set()

    with trio.fail_after(FAIL_S), connected() as (ours, theirs):
        theirs.sendall(b"the next request")
        async with trio.open_nursery() as nursery:
            if late:
                leave(theirs)
            departures.watch(ours.fileno(), left)
            nursery.start_soon(departures.run)
            await trio.testing.wait_all_tasks_blocked()
            assert late or count == 0
            if not late:
                leave(theirs)
            await told.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert count == 1
            nursery.cancel_scope.cancel()


async def test_what_was_forgotten_is_not_told() -> None:
    """A number that is closed may be another connection's next."""
    departures, told = Departures(), trio.Event()
    with trio.fail_after(FAIL_S), connected() as (ours, theirs), connected() as (mine, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(departures.run)
            departures.watch(ours.fileno(), lambda: pytest.fail("told of one that was forgotten"))
            departures.watch(mine.fileno(), told.set)
            departures.forget(ours.fileno())
            departures.forget(ours.fileno())
            theirs.close()
            other.close()
            await told.wait()
            nursery.cancel_scope.cancel()


async def test_the_set_is_closed_with_its_task_and_forgetting_stays_harmless() -> None:
    """Connections end after the server has stopped watching them."""
    departures = Departures()
    with trio.fail_after(FAIL_S), connected() as (ours, _):
        departures.watch(ours.fileno(), lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(departures.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        departures.forget(ours.fileno())
        with pytest.raises(ValueError, match="closed"):
            departures.watch(ours.fileno(), lambda: None)
