"""Which clients have left, told by the kernel for all connections at once.

A request's client may leave while its provider thinks; everything done for it then has to stop. A task per request that
reads only to see the end costs as much as forwarding the request, and several KB for as long as its stream lasts. One
epoll set that waits for nothing but hang-ups costs one system call per connection.
"""

import select
from collections.abc import Callable
from contextlib import suppress

import trio

EVENTS_AT_ONCE = 256


class Departures:
    """Tells of each watched socket, once, that its other end will send nothing any more. Linux only."""

    available = hasattr(select, "epoll")
    """Elsewhere somebody has to read until the end."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._left: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, left: Callable[[], None]) -> None:
        """Call *left* once the peer of the socket *fd* has hung up, or shut its side; must not raise."""
        self._left[fd] = left
        self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLET)

    def forget(self, fd: int) -> None:
        """*fd* is about to be closed, or is somebody else's from here on."""
        if self._left.pop(fd, None) is not None and not self._epoll.closed:
            with suppress(OSError):
                self._epoll.unregister(fd)

    async def run(self) -> None:
        """Watch until cancelled, which closes the set."""
        with self._epoll as epoll:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                for fd, _ in epoll.poll(0, EVENTS_AT_ONCE):
                    left = self._left.get(fd)
                    if left is not None:
                        left()
