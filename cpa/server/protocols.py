"""Hypercorn's protocols over a connection of ours: whatever http1.py does not serve (upgrades, HTTP/2, odd heads).

Imported with the first such connection: Hypercorn, h11, h2 and wsproto take a fifth of a start and 10 MB, and most
proxies see plain HTTP/1.1 only. The parsers are used as they are, but for what exchanges.py mends.
"""

import logging
from contextlib import suppress
from typing import Any, Protocol

import attrs
import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState, LifespanState

from cpa.server.exchanges import Buffers, ExchangeTasks, Pause, Streams
from cpa.server.http1 import AHEAD_BYTES, MAX_HEAD_BYTES
from cpa.server.resp_codec import MARKS

RECV_BYTES = 64 << 10

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Address = tuple[str, int] | None


class Carrier(Protocol):
    """What a connection of listener.py is to its protocols; see `cpa.server.listener.Connection`."""

    stream: Stream
    idle_since: float | None
    head_since: float | None
    waiting_since: dict[object, float]
    closing: bool

    @property
    def draining(self) -> bool:
        """The server ends: no further request."""

    async def write(self, data: bytes) -> bool:
        """Send *data*. Returns: False when the client is gone."""

    async def end_writing(self) -> None:
        """Tell the client that nothing follows, when nobody writes any more."""

    async def drop_rest(self) -> None:
        """Read and forget what the client still sends, within limits."""

    async def serve_foreign(self, data: bytes) -> None:
        """Hand the connection over, which began with *data*."""


class _Told(EventWrapper):
    """Hypercorn's event over one of ours."""

    def __init__(self, event: trio.Event) -> None:
        super().__init__()
        self._event = event


@attrs.define(eq=False)
class Protocols:
    """The protocols of one connection, one after another: an upgrade changes them.

    Attributes:
      ahead: what was read and not used; it comes first.
      protocol: the present one, in Hypercorn's wrapper.
    """

    connection: Carrier
    ahead: bytearray
    protocol: ProtocolWrapper = attrs.field(init=False)
    _begun: bool = False
    _holding: bool = False
    _held: bytes = b""

    async def serve(self, parts: "Parts", *, alpn: str, tls: bool, client: Address, server: Address) -> None:
        """Serve until either side ends the connection. Raises: OSError, trio's errors of broken streams, grouped."""
        connection = self.connection
        async with ExchangeTasks(connection.waiting_since) as tasks:
            state = ConnectionState(LifespanState({"connection": connection}))
            self.protocol = ProtocolWrapper(
                parts.app, parts.config, parts.context, tasks, state, tls, client, server, self._on_event, alpn
            )
            self._adapt()
            await self.protocol.initiate()
            await self._read()

    def hold(self) -> None:
        """The next bytes wait for those that follow them at once: a head and its body leave in one system call."""
        self._holding = isinstance(self.protocol.protocol, H11Protocol)

    def _adapt(self) -> None:
        """Mend what Hypercorn's protocol does not do, after it was made and after it was changed for another."""
        inner = self.protocol.protocol
        if isinstance(inner, H11Protocol):
            inner.can_read = Pause(self._read_ahead)
        elif not isinstance(inner.streams, Streams):
            inner.streams, inner.stream_buffers = Streams(inner), Buffers(inner)
            # Prior knowledge of HTTP/2 came as the head of a request that is none.
            self.connection.idle_since = trio.current_time() if inner.idle else None

    async def _read(self) -> None:
        connection, protocol = self.connection, self.protocol
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not connection.closing and (data := await self._receive()):
                inner = protocol.protocol
                if not self._begun:
                    self._begun = True
                    if isinstance(inner, H11Protocol) and data[0] in MARKS:
                        await connection.serve_foreign(data)
                        break
                begins = connection.idle_since is not None and connection.head_since is None
                if begins and isinstance(inner, H11Protocol):
                    connection.head_since = trio.current_time()
                await protocol.handle(RawData(data))
                if protocol.protocol is not inner:
                    self._adapt()
                elif isinstance(inner, H11Protocol) and is_refused(inner):
                    await self._hang_up()
        if connection.closing:
            await connection.drop_rest()
        await protocol.handle(Closed())

    async def _receive(self) -> bytes:
        """The next bytes, empty at the end. Raises: trio.BrokenResourceError, trio.ClosedResourceError."""
        if self.ahead:
            data = bytes(self.ahead)
            self.ahead.clear()
            return data
        return bytes(await self.connection.stream.receive_some(RECV_BYTES))

    async def _read_ahead(self) -> None:
        """Keep what the client sends before its answer is complete; returns when it has left."""
        stream, ahead = self.connection.stream, self.ahead
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while len(ahead) < AHEAD_BYTES and (data := await stream.receive_some(RECV_BYTES)):
                ahead += data

    async def _on_event(self, event: Event) -> None:
        """What Hypercorn's protocol wants done."""
        connection = self.connection
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            connection.head_since = None
            connection.idle_since = trio.current_time() if event.idle else None
            if event.idle and connection.draining:
                await self._hang_up()
        elif isinstance(event, Closed):
            await self._hang_up()

    async def _send(self, data: bytes) -> None:
        if self._holding:
            self._holding, self._held = False, data
            return
        if self._held:
            data, self._held = self._held + data, b""
        if data and not await self.connection.write(data):
            await self.protocol.handle(Closed())

    async def _hang_up(self) -> None:
        """Close in order: what was sent is delivered, then the reader sees the end and the connection ends."""
        connection = self.connection
        connection.closing = True
        await connection.end_writing()
        if not self._unread:
            await connection.stream.aclose()
        await self.protocol.handle(Closed())

    @property
    def _unread(self) -> bool:
        """The client may still be writing a request whose answer it has; the reader will drop that."""
        inner = self.protocol.protocol
        if not isinstance(inner, H11Protocol):
            return False
        if isinstance(inner.connection, H11WSConnection):  # frames may stand behind a handshake that was refused
            return inner.connection.h11_connection.our_state is not h11.SWITCHED_PROTOCOL
        return inner.connection.their_state in (h11.SEND_BODY, h11.ERROR)


@attrs.frozen
class Parts:
    """What all connections of a server share."""

    app: ASGIWrapper
    config: HypercornConfig
    context: WorkerContext

    @classmethod
    def of(cls, app: Any, terminated: trio.Event) -> "Parts":
        """For an ASGI *app*; *terminated*: set when the server ends."""
        context = WorkerContext(None)
        context.terminated = _Told(terminated)
        return cls(ASGIWrapper(app), hypercorn_config(), context)

    def protocols(self, connection: Carrier, ahead: bytearray) -> Protocols:
        """Those of *connection*, of which *ahead* was read already."""
        return Protocols(connection, ahead)


def is_refused(protocol: H11Protocol) -> bool:
    """Hypercorn has refused a WebSocket's handshake, and would keep the connection for nobody."""
    stream = protocol.stream
    return isinstance(stream, WSStream) and stream.closed


def hypercorn_config() -> HypercornConfig:
    """Hypercorn's settings; TLS, times and connection counts are ours, not its."""
    made = HypercornConfig()
    made.include_server_header = False
    made.h11_max_incomplete_size = MAX_HEAD_BYTES
    made.h2_max_header_list_size = MAX_HEAD_BYTES
    made.keep_alive_max_requests = 2**62  # the default closes a connection after 1,000 requests
    made.accesslog = None
    made.errorlog = logging.getLogger("hypercorn.error")  # given one, it installs no handlers of its own
    return made
