"""Idle connections per origin, the last used first.

No background task, and no scan but one whenever the oldest connection may have been idle too long, which is noticed
when another one is given back, or when its origin is used again. The total is bounded in any case.
"""

import math
from collections import OrderedDict, deque

import trio

from cpa.upstream.connection import Connection, Origin

MAX_IDLE_PER_ORIGIN = 128
"""As many as the concurrency that one process is measured at; a larger burst reconnects rather than hoards."""

MAX_IDLE_TOTAL = 256
"""A quarter of the usual limit of 1024 file descriptors."""


class ConnectionPool:
    """Keeps open connections; every method but the constructor is one step without an await.

    Attributes:
      keepalive_idle_seconds: how long an unused connection is kept; below what servers use (60 s and more), so that
        their close seldom races with our request.
    """

    def __init__(self, *, keepalive_idle_seconds: float) -> None:
        self.keepalive_idle_seconds = keepalive_idle_seconds
        self._open: set[Connection] = set()
        # In the order of the last release: the first key is the origin that has been left alone longest.
        self._idle: OrderedDict[Origin, deque[Connection]] = OrderedDict()
        self._idle_count = 0
        # No idle connection is older. Exact after each look; those that are used meanwhile only get younger.
        self._oldest = -math.inf
        self._keeping = True

    @property
    def open_connections(self) -> int:
        """Connections that exist, used or idle."""
        return len(self._open)

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return self._idle_count

    def adopt(self, connection: Connection) -> None:
        """Count a new connection; its holder uses it first. Its `on_close` must be `forget`."""
        self._open.add(connection)

    def forget(self, connection: Connection) -> None:
        """A connection was closed."""
        self._open.discard(connection)

    def acquire(self, origin: Origin) -> Connection | None:
        """The connection used last, if one is still good."""
        stack = self._idle.get(origin)
        if stack is None:
            return None
        now = trio.current_time()
        oldest_good = now - self.keepalive_idle_seconds
        found: Connection | None = None
        while stack and found is None:
            connection = stack.pop()
            self._idle_count -= 1
            if connection.idle_since >= oldest_good and connection.is_alive():
                connection.used_since = now
                found = connection
            else:
                connection.close()
        if not stack:
            del self._idle[origin]
        return found

    def release(self, connection: Connection) -> None:
        """Take back a connection whose exchange is over and that can carry another one."""
        if not self._keeping:
            connection.close()
            return
        connection.idle_since = now = trio.current_time()
        origin = connection.origin
        stack = self._idle.get(origin)
        if stack is None:
            stack = self._idle[origin] = deque()
        else:
            self._idle.move_to_end(origin)
        stack.append(connection)
        self._idle_count += 1
        oldest_good = now - self.keepalive_idle_seconds
        if self._oldest < oldest_good:
            self._expire(oldest_good)
        if len(stack) > MAX_IDLE_PER_ORIGIN:
            self._drop_oldest(origin)
        elif self._idle_count > MAX_IDLE_TOTAL:
            self._drop_oldest(next(iter(self._idle)))

    def stop_keeping(self) -> None:
        """Close what is idle, and from now on everything that is given back."""
        self._keeping = False
        for stack in self._idle.values():
            for connection in stack:
                connection.close()
        self._idle.clear()
        self._idle_count = 0

    def close_all(self) -> None:
        """Close everything, also what is in use."""
        self.stop_keeping()
        for connection in tuple(self._open):
            connection.close()

    def _expire(self, oldest_good: float) -> None:
        for origin in tuple(self._idle):
            while origin in self._idle and self._idle[origin][0].idle_since < oldest_good:
                self._drop_oldest(origin)
        self._oldest = min(stack[0].idle_since for stack in self._idle.values())

    def _drop_oldest(self, origin: Origin) -> None:
        stack = self._idle[origin]
        stack.popleft().close()
        self._idle_count -= 1
        if not stack:
            del self._idle[origin]
