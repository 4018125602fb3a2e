"""The mock provider on Trio: listening, owning the connections, showing tests what happened."""

import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from socket import IPPROTO_TCP, TCP_NODELAY

import attrs
import trio

from cpa.testing.mock.connection import Connection
from cpa.testing.mock.record import RecordedRequest, Recorder
from cpa.testing.mock.state import MockState


def base_url(host: str, port: int) -> str:
    """``http://HOST:PORT``, IPv6 addresses in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve_stream(state: MockState, stream: trio.SocketStream) -> None:
    state.total_connections += 1
    state.open_connections += 1
    state.changes.notify()
    try:
        with socket.socket(fileno=stream.socket.detach()) as sock:
            sock.setblocking(False)
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            await Connection(state, sock, state.total_connections).serve()
    finally:
        state.open_connections -= 1
        state.changes.notify()


async def _serve_state(
    state: MockState, *, host: str, port: int, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await _serve_stream(state, stream)

        await nursery.start(trio.serve_listeners, handle, listeners)
        bound: int = listeners[0].socket.getsockname()[1]
        task_status.started(bound)


async def serve_mock(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    record: Recorder | None = None,
    require_key: str | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled.

    Args:
      host: address or name to bind to.
      port: 0 = any free one.
      record: keeps the requests; None = they are not kept.
      require_key: requests without it (Bearer, ``x-api-key``, ``x-goog-api-key``) get the protocol's 401.
      task_status: started with the bound port once connections are accepted.

    Raises: OSError: the address cannot be bound.
    """
    state = MockState(recorder=record, require_key=require_key)
    await _serve_state(state, host=host, port=port, task_status=task_status)


@attrs.frozen(kw_only=True, eq=False)
class MockProvider:
    """A running mock provider, owned by `open_mock`."""

    host: str
    port: int
    recorder: Recorder
    _state: MockState = attrs.field(repr=False)

    @property
    def url(self) -> str:
        """``http://HOST:PORT``; any path prefix may follow."""
        return base_url(self.host, self.port)

    @property
    def requests(self) -> deque[RecordedRequest]:
        """The latest requests, oldest first."""
        return self.recorder.requests

    @property
    def open_connections(self) -> int:
        """Accepted and not yet closed."""
        return self._state.open_connections

    @property
    def active_responses(self) -> int:
        """Requests read whose answers are not finished."""
        return self._state.active_responses

    @property
    def total_requests(self) -> int:
        """Complete requests so far, forgotten ones included."""
        return self._state.total_requests

    @property
    def total_connections(self) -> int:
        """Connections accepted so far."""
        return self._state.total_connections

    async def wait_for(self, predicate: Callable[["MockProvider"], bool]) -> None:
        """Return once *predicate* holds; it is asked after every change of counters and records. Cancellable."""
        await self._state.changes.wait_for(lambda: predicate(self))

    async def wait_requests(self, total: int) -> None:
        """Until `total_requests` is at least *total*."""
        await self.wait_for(lambda mock: mock.total_requests >= total)

    async def wait_idle(self) -> None:
        """Until no connection is open."""
        await self.wait_for(lambda mock: mock.open_connections == 0)

    def forget(self) -> None:
        """Drop the records and what ``times`` has counted."""
        self.recorder.clear()
        self._state.forget_failures()


@asynccontextmanager
async def open_mock(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    require_key: str | None = None,
    recorder: Recorder | None = None,
) -> AsyncIterator[MockProvider]:
    """A mock provider for the time of the block; leaving it closes all connections at once."""
    kept = Recorder() if recorder is None else recorder
    state = MockState(recorder=kept, require_key=require_key)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
            await _serve_state(state, host=host, port=port, task_status=task_status)

        bound = await nursery.start(serve)
        try:
            yield MockProvider(host=host, port=bound, recorder=kept, state=state)
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def refusing_port(host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A port where nothing listens: connections are refused. Reserved for the time of the block."""
    with trio.socket.socket() as sock:
        await sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        yield port
