"""Client connections: Hypercorn's protocols over a connection class of ours.

Hypercorn's own worker shields every write, so that a client that stops reading can be neither cancelled nor drained,
and it restarts a timer task for every request. Here a connection only notes times; one sweep a second compares them
with the limits, for all connections: no timer, task or scope per request. Hypercorn's parsers (HTTP/1.1, h2, h2c,
WebSocket) are used as they are, but for what exchanges.py mends.
"""

import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState

from cpa.config.schema import Config, LimitsConfig
from cpa.server.body import LINGER_BYTES, LINGER_S, Receive
from cpa.server.exchanges import SEND_PIECE_BYTES, Buffers, ExchangeTasks, Message, Pause, Send, Streams
from cpa.server.http1 import AHEAD_BYTES, MAX_HEAD_BYTES, Exchange, exchange, head_end, read_head, scope_of
from cpa.server.resp_codec import MARKS

log = structlog.get_logger(__name__)

RECV_BYTES = 64 << 10
SWEEP_S = 1.0
LAST_WORDS_S = 1.0
"""How long a refused client may take to receive the reason."""
BACKLOG = 1024
TLS_HANDSHAKE_S = 30.0

Listeners = list[Any]
"""Of `trio.SocketListener`, or with TLS of `trio.SSLListener`; trio's type variables cannot say either."""
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Address = tuple[str, int] | None
FAST_VARIABLE = "CPA_HTTP1"
"""``hypercorn`` in this environment variable sends every request through Hypercorn's parser."""


def last_words(status: str, code: str, message: str) -> bytes:
    """A whole HTTP/1.1 answer for clients whose request never became one."""
    body = b'{"error":{"message":"%s","type":"invalid_request_error","code":"%s"}}' % (message.encode(), code.encode())
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        status.encode(),
        len(body),
        body,
    )


REQUEST_TIMEOUT = last_words("408 Request Timeout", "request_timeout", "the request head did not arrive in time")
TOO_MANY = last_words("503 Service Unavailable", "too_many_connections", "too many connections")


@attrs.define(eq=False)
class Connection:
    """One client connection.

    Attributes:
      idle_since, head_since, sending_since: Trio clock, None while it is not so. *head_since* is when the first byte of
        a request's head came.
      waiting_since: of each message of an HTTP/2 exchange that waits for its client to take what came before.
      closing: the last word was said; what still comes is dropped.
      foreign: it speaks another protocol than HTTP; `ClientServer.foreign` serves it.
    """

    server: "ClientServer"
    stream: Stream
    idle_since: float | None = None
    head_since: float | None = None
    sending_since: float | None = None
    waiting_since: dict[object, float] = attrs.field(factory=dict)
    closing: bool = False
    foreign: bool = False
    protocol: ProtocolWrapper | None = None
    _begun: bool = False
    _ahead: bytearray = attrs.field(factory=bytearray)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _send_lock: trio.Lock = attrs.field(factory=trio.Lock)
    _holding: bool = False
    _held: bytes = b""

    async def run(self) -> None:
        """Serve the connection until either side ends it. A failure in here is this connection's alone."""
        server = self.server
        server.connections.add(self)
        try:
            with self._scope:
                await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as group:
            for error in group.exceptions:
                log.debug("connection.lost", error=repr(error))
        finally:
            server.connections.discard(self)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WORDS_S):
                await trio.aclose_forcefully(self.stream)

    def abort(self) -> None:
        """End the connection at once, with all that runs on it."""
        self._scope.cancel()

    async def _serve(self) -> None:
        stream, alpn, tls = self.stream, "http/1.1", False
        if isinstance(stream, trio.SSLStream):
            with trio.fail_after(TLS_HANDSHAKE_S):
                await stream.do_handshake()
            alpn, tls = stream.selected_alpn_protocol() or "http/1.1", True
            socket = stream.transport_stream.socket
        else:
            socket = stream.socket
        ends = address(socket.getpeername()), address(socket.getsockname())
        self.idle_since = trio.current_time()
        if alpn == "http/1.1" and self.server.fast and not await self._serve_plain(*ends, tls=tls):
            return
        async with ExchangeTasks(self.waiting_since) as tasks:
            self.protocol = ProtocolWrapper(
                self.server.app,
                self.server.hypercorn,
                self.server.context,
                tasks,
                ConnectionState(LifespanState({"connection": self})),
                tls,
                *ends,
                self._on_event,
                alpn,
            )
            self._adapt()
            await self.protocol.initiate()
            await self._read()

    async def _serve_plain(self, client: Address, server: Address, *, tls: bool) -> bool:
        """Serve requests of http1.py's kind. Returns: another one came; it is among `_ahead` and for Hypercorn."""
        ahead, state = self._ahead, {"connection": self}
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not self.closing:
                while not (end := head_end(ahead)):
                    if not (data := await self.stream.receive_some(RECV_BYTES)):
                        return False
                    ahead += data
                    if self.head_since is None:
                        self.head_since = trio.current_time()
                request = read_head(bytes(ahead[:end])) if end > 0 else None
                if request is None:
                    return not self.closing
                del ahead[:end]
                self.head_since = self.idle_since = None
                one = Exchange(request=request, read=self._read_some, write=self._write, ahead=ahead)
                scope = scope_of(request, tls=tls, client=client, server=server, state=state)
                if not await exchange(self._app, one, scope) or self.server.draining:
                    if one.complete and not one.gone:
                        await self._end(unread=one.unread > 0)
                    return False
                self.idle_since = trio.current_time()
        return False

    async def _app(self, scope: Message, receive: Receive, send: Send) -> None:
        """The application as it is, without what Hypercorn wraps around its own calls."""
        await self.server.app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)  # type: ignore[arg-type]

    async def _end(self, *, unread: bool) -> None:
        """Close in order: what was sent is delivered; who still writes is read, so that the answer is seen."""
        self.closing = True
        await self._send_eof()
        if unread:
            await self._drop_rest()
        else:
            await self.stream.aclose()

    def _adapt(self) -> None:
        """Mend what Hypercorn's protocol does not do, after it was made and after it was changed for another."""
        assert self.protocol is not None
        inner = self.protocol.protocol
        if isinstance(inner, H11Protocol):
            inner.can_read = Pause(self._read_ahead)
        elif not isinstance(inner.streams, Streams):
            inner.streams, inner.stream_buffers = Streams(inner), Buffers(inner)
            # Prior knowledge of HTTP/2 came as the head of a request that is none.
            self.idle_since = trio.current_time() if inner.idle else None

    async def _read(self) -> None:
        protocol = self.protocol
        assert protocol is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not self.closing and (data := await self._receive()):
                inner = protocol.protocol
                if not self._begun:
                    self._begun = True
                    if isinstance(inner, H11Protocol) and data[0] in MARKS:
                        await self._serve_foreign(data)
                        break
                if self.idle_since is not None and self.head_since is None and isinstance(inner, H11Protocol):
                    self.head_since = trio.current_time()
                await protocol.handle(RawData(data))
                if protocol.protocol is not inner:
                    self._adapt()
                elif isinstance(inner, H11Protocol) and is_refused(inner):
                    await self._hang_up()
        if self.closing:
            await self._drop_rest()
        await protocol.handle(Closed())

    async def _serve_foreign(self, data: bytes) -> None:
        """Hand the connection over, which began with *data*; nobody there for it means its end."""
        self.foreign, self.idle_since = True, None
        if self.server.foreign is not None and not self.server.draining:
            stream = self.stream
            sock = stream.transport_stream.socket if isinstance(stream, trio.SSLStream) else stream.socket
            peer = address(sock.getpeername())
            await self.server.foreign(self.stream, "" if peer is None else peer[0], data)

    async def _receive(self) -> bytes:
        """The next bytes, empty at the end. Raises: trio.BrokenResourceError, trio.ClosedResourceError."""
        if self._ahead:
            data = bytes(self._ahead)
            self._ahead.clear()
            return data
        return bytes(await self.stream.receive_some(RECV_BYTES))

    async def _read_some(self) -> bytes:
        """The next bytes, empty when there will be none."""
        try:
            return bytes(await self.stream.receive_some(RECV_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _read_ahead(self) -> None:
        """Keep what the client sends before its answer is complete; returns when it has left."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while len(self._ahead) < AHEAD_BYTES and (data := await self.stream.receive_some(RECV_BYTES)):
                self._ahead += data

    async def _drop_rest(self) -> None:
        left = LINGER_BYTES
        with trio.move_on_after(LINGER_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while left > 0 and (data := await self.stream.receive_some(RECV_BYTES)):
                left -= len(data)

    async def _on_event(self, event: Event) -> None:
        """What Hypercorn's protocol wants done."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self.head_since = None
            self.idle_since = trio.current_time() if event.idle else None
            if event.idle and self.server.draining:
                await self._hang_up()
        elif isinstance(event, Closed):
            await self._hang_up()

    def hold(self) -> None:
        """The next bytes wait for those that follow them at once: a head and its body leave in one system call."""
        self._holding = self.protocol is not None and isinstance(self.protocol.protocol, H11Protocol)

    async def _send(self, data: bytes) -> None:
        if self._holding:
            self._holding, self._held = False, data
            return
        if self._held:
            data, self._held = self._held + data, b""
        assert self.protocol is not None
        if data and not await self._write(data):
            await self.protocol.handle(Closed())

    async def _write(self, data: bytes) -> bool:
        """Send *data*. Returns: False when the client is gone."""
        async with self._send_lock:
            try:
                if len(data) <= SEND_PIECE_BYTES:
                    self.sending_since = trio.current_time()
                    await self.stream.send_all(data)
                else:
                    view = memoryview(data)
                    for start in range(0, len(data), SEND_PIECE_BYTES):
                        self.sending_since = trio.current_time()
                        await self.stream.send_all(view[start : start + SEND_PIECE_BYTES])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            finally:
                self.sending_since = None
        return True

    async def _hang_up(self) -> None:
        """Close in order: what was sent is delivered, then the reader sees the end and the connection ends."""
        assert self.protocol is not None
        self.closing = True
        async with self._send_lock:  # another task may be writing the last words
            await self._send_eof()
        if not self._unread:
            await self.stream.aclose()
        await self.protocol.handle(Closed())

    @property
    def _unread(self) -> bool:
        """The client may still be writing a request whose answer it has; the reader will drop that."""
        assert self.protocol is not None
        inner = self.protocol.protocol
        if not isinstance(inner, H11Protocol):
            return False
        if isinstance(inner.connection, H11WSConnection):  # frames may stand behind a handshake that was refused
            return inner.connection.h11_connection.our_state is not h11.SWITCHED_PROTOCOL
        return inner.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    async def _send_eof(self) -> None:
        if isinstance(self.stream, trio.SocketStream):
            # It may be gone, or somebody may be writing: either way the close that follows settles it.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await self.stream.send_eof()

    async def refuse(self, words: bytes) -> None:
        """Say why and end the connection; the client's end is waited for, as in `_hang_up`."""
        self.closing = True
        with trio.move_on_after(LAST_WORDS_S):
            try:
                await self.stream.send_all(words)
                await self._send_eof()
                await trio.sleep_forever()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                log.debug("refusal.unheard")
        self.abort()


@attrs.define(eq=False)
class ClientServer:
    """Accepts clients for one ASGI application.

    Attributes:
      limits: read anew by every sweep, so that a reload changes them for open connections too.
      fast: plain HTTP/1.1 is read by http1.py.
      ended: set when `serve` is over.
      foreign: serves connections that begin like the Redis protocol: stream, peer's address, first bytes. None = they
        are closed.
    """

    app: ASGIWrapper
    hypercorn: HypercornConfig
    context: WorkerContext
    limits: LimitsConfig
    foreign: Callable[[Stream, str, bytes], Awaitable[None]] | None = None
    fast: bool = attrs.field(factory=lambda: os.environ.get(FAST_VARIABLE, "") != "hypercorn")
    draining: bool = False
    connections: set[Connection] = attrs.field(factory=set)
    ended: trio.Event = attrs.field(factory=trio.Event)
    _drain: trio.Event = attrs.field(factory=trio.Event)

    def drain(self) -> None:
        """Accept nobody any more; running requests have ``limits.shutdown-grace-seconds`` to finish."""
        self.draining = True
        self._drain.set()

    async def serve(
        self,
        listeners: Listeners,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `drain` was called and the last connection ended or its grace was over."""
        async with trio.open_nursery() as outer:
            async with trio.open_nursery() as handlers:
                outer.start_soon(partial(self._sweep, handlers), name="connection sweep")
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(
                        partial(trio.serve_listeners, self._handle, listeners, handler_nursery=handlers)
                    )
                    task_status.started()
                    await self._drain.wait()
                    accepting.cancel_scope.cancel()
                await self.context.terminated.set()
                for connection in list(self.connections):
                    if connection.idle_since is not None or connection.foreign:
                        connection.abort()
                handlers.cancel_scope.deadline = trio.current_time() + self.limits.shutdown_grace_seconds
            outer.cancel_scope.cancel()
        self.ended.set()

    async def _handle(self, stream: Stream) -> None:
        connection = Connection(self, stream)
        if self.limits.connections and len(self.connections) >= self.limits.connections:
            await connection.refuse(TOO_MANY)
            await trio.aclose_forcefully(stream)
            return
        try:
            await connection.run()
        except Exception:
            log.exception("connection.failed")

    async def _sweep(self, handlers: trio.Nursery) -> None:
        """Compare every connection's times with the limits, once a second."""
        while True:
            await trio.sleep(SWEEP_S)
            now, limits = trio.current_time(), self.limits
            for connection in list(self.connections):
                waiting = min(connection.waiting_since.values(), default=None)
                if over(connection.sending_since, limits.send_idle_seconds, now) or over(
                    waiting, limits.send_idle_seconds, now
                ):
                    log.info("client.stalled", seconds=limits.send_idle_seconds)
                    connection.abort()
                elif over(connection.head_since, limits.header_seconds, now):
                    connection.head_since = connection.idle_since = None
                    handlers.start_soon(connection.refuse, REQUEST_TIMEOUT)
                elif connection.head_since is None and over(connection.idle_since, limits.keepalive_idle_seconds, now):
                    connection.abort()


def is_refused(protocol: H11Protocol) -> bool:
    """Hypercorn has refused a WebSocket's handshake, and would keep the connection for nobody."""
    stream = protocol.stream
    return isinstance(stream, WSStream) and stream.closed


def over(since: float | None, limit_s: float, now: float) -> bool:
    """It has been so for longer than *limit_s*; 0 = no limit."""
    return since is not None and limit_s > 0 and now - since > limit_s


def address(name: object) -> Address:
    """Host and port of a socket name of any family."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def hypercorn_config(config: Config) -> HypercornConfig:
    """Hypercorn's settings for *config*; times and connection counts are ours, not its."""
    made = HypercornConfig()
    made.include_server_header = False
    made.h11_max_incomplete_size = MAX_HEAD_BYTES
    made.h2_max_header_list_size = MAX_HEAD_BYTES
    made.keep_alive_max_requests = 2**62  # the default closes a connection after 1,000 requests
    made.accesslog = None
    made.errorlog = logging.getLogger("hypercorn.error")  # given one, it installs no handlers of its own
    if config.tls.enable:
        made.certfile, made.keyfile = str(config.tls.cert), str(config.tls.key)
    return made


def make_server(app: ASGIFramework, config: Config) -> ClientServer:
    """A server for *app* that accepts nobody yet."""
    return ClientServer(
        app=ASGIWrapper(app),
        hypercorn=hypercorn_config(config),
        context=WorkerContext(None),
        limits=config.limits,
    )


async def open_listeners(config: Config, *, host: str, port: int) -> Listeners:
    """Bound and listening sockets; several when *host* means several addresses. Raises: OSError, ssl.SSLError."""
    context = tls_context(config) if config.tls.enable else None
    return with_tls(await trio.open_tcp_listeners(port, host=host or None, backlog=BACKLOG), context)


def inherited_listeners(config: Config, descriptors: Iterable[int]) -> Listeners:
    """The same over sockets that a supervisor bound. Ownership: takes *descriptors*. Raises: OSError, ssl.SSLError."""
    context = tls_context(config) if config.tls.enable else None
    sockets = [trio.socket.from_stdlib_socket(socket.socket(fileno=fd)) for fd in descriptors]
    return with_tls(map(trio.SocketListener, sockets), context)


def with_tls(plain: Iterable[trio.SocketListener], context: ssl.SSLContext | None) -> Listeners:
    """*plain*, behind TLS if there is a *context*."""
    if context is None:
        return list(plain)
    return [trio.SSLListener(listener, context, https_compatible=True) for listener in plain]


def tls_context(config: Config) -> ssl.SSLContext:
    """Raises: OSError that names both files, which those of the ssl module do not."""
    try:
        context = hypercorn_config(config).create_ssl_context()
    except OSError as exc:  # ssl.SSLError is one
        raise OSError(f"tls.cert {config.tls.cert} and tls.key {config.tls.key} cannot be used: {exc}") from exc
    assert context is not None
    return context


def listen_addresses(listeners: Listeners, *, tls: bool) -> tuple[str, ...]:
    """Where *listeners* listen, as URLs."""
    found = []
    for listener in listeners:
        host, bound = address_of(listener)
        found.append(f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{bound}")
    return tuple(found)


def address_of(listener: Any) -> tuple[str, int]:
    """Host and port of a listener with or without TLS."""
    inner: Any = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    name = inner.socket.getsockname()
    return name[0], name[1]
