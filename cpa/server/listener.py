"""Client connections: whose they are, and how long they may take.

Plain HTTP/1.1 is served here (http1.py), the rest by Hypercorn's protocols (protocols.py). Hypercorn's own worker
shields every write, so that a client that stops reading can be neither cancelled nor drained, and it restarts a timer
task for every request. Here a connection only notes times; one sweep a second compares them with the limits, for all
connections: no timer, task or scope per request.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from cpa.config.schema import Config, LimitsConfig
from cpa.server.body import LINGER_BYTES, LINGER_S
from cpa.server.departures import Departures
from cpa.server.http1 import AHEAD_BYTES, SEND_PIECE_BYTES, App, Exchange, exchange, head_end, read_head, scope_of
from cpa.server.sockets import Listeners

if TYPE_CHECKING:
    from cpa.server.protocols import Parts, Protocols

log = structlog.get_logger(__name__)

RECV_BYTES = 64 << 10
SWEEP_S = 1.0
LAST_WORDS_S = 1.0
"""How long a refused client may take to receive the reason."""
TLS_HANDSHAKE_S = 30.0

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
      watched: `when_left` works: it is plain HTTP/1.1, and the kernel says when its client leaves.
    """

    server: "ClientServer"
    stream: Stream
    idle_since: float | None = None
    head_since: float | None = None
    sending_since: float | None = None
    waiting_since: dict[object, float] = attrs.field(factory=dict)
    closing: bool = False
    foreign: bool = False
    watched: bool = False
    protocols: "Protocols | None" = None
    _ahead: bytearray = attrs.field(factory=bytearray)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _send_lock: trio.Lock = attrs.field(factory=trio.Lock)
    _fd: int = -1
    _direct: bool = False
    _emptied: bool = True
    _left: bool = False
    _on_left: Callable[[], None] | None = None

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
            self._unwatch()
            server.connections.discard(self)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LAST_WORDS_S):
                await trio.aclose_forcefully(self.stream)

    @property
    def draining(self) -> bool:
        """The server ends: no further request."""
        return self.server.draining

    def abort(self) -> None:
        """End the connection at once, with all that runs on it."""
        self._scope.cancel()

    async def _serve(self) -> None:
        stream, alpn, tls = self.stream, "http/1.1", False
        if isinstance(stream, trio.SSLStream):
            with trio.fail_after(TLS_HANDSHAKE_S):
                await stream.do_handshake()
            alpn, tls = stream.selected_alpn_protocol() or "http/1.1", True
        socket = socket_of(stream)
        ends = address(socket.getpeername()), address(socket.getsockname())
        self.idle_since = trio.current_time()
        if alpn == "http/1.1" and self.server.fast:
            self._watch(socket.fileno(), tls=tls)
            if not await self._serve_plain(*ends, tls=tls):
                return
            self._unwatch()
        parts = await self.server.parts()
        self.protocols = parts.protocols(self, self._ahead)
        client, server = ends
        await self.protocols.serve(parts, alpn=alpn, tls=tls, client=client, server=server)

    async def _serve_plain(self, client: Address, server: Address, *, tls: bool) -> bool:
        """Serve requests of http1.py's kind. Returns: another one came; it is among `_ahead` and for Hypercorn."""
        ahead, state = self._ahead, {"connection": self}
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not self.closing:
                while not ahead or not (end := head_end(ahead)):
                    if not (data := await self._read_some()):
                        return False
                    ahead += data
                    if self.head_since is None:
                        self.head_since = trio.current_time()
                request = read_head(bytes(ahead[:end])) if end > 0 else None
                if request is None:
                    return not self.closing
                del ahead[:end]
                self.head_since = self.idle_since = None
                one = Exchange(request=request, read=self._read_some, write=self.write, ahead=ahead)
                scope = scope_of(one, tls=tls, client=client, server=server, state=state)
                if not await exchange(self.server.app, one, scope) or self.server.draining:
                    if one.complete and not one.gone:
                        await self._end(unread=one.unread > 0)
                    return False
                self.idle_since = trio.current_time()
        return False

    def _watch(self, fd: int, *, tls: bool) -> None:
        """Use the socket itself from here on: Trio's stream around it costs more than the system calls."""
        self._fd, self._direct = fd, not tls
        if self.server.departures is not None:
            self.watched = True
            self.server.departures.watch(fd, self._peer_left)

    def _unwatch(self) -> None:
        """The socket is about to be closed, or is Hypercorn's from here on."""
        if self.watched and self.server.departures is not None:
            self.server.departures.forget(self._fd)
        self.watched, self._direct, self._fd = False, False, -1

    def _peer_left(self) -> None:
        self._left = True
        if self._on_left is not None:
            self._on_left()

    def when_left(self, do: Callable[[], None] | None) -> None:
        """Call *do* when the client leaves, now if it has; None = nobody wants to know any more."""
        self._on_left = do
        if self._left and do is not None:
            do()

    def look_ahead(self) -> None:
        """Take what the client sends ahead of its answer: its end stands behind that. Who sends too much is gone."""
        if self._on_left is None or self._left or not self._direct:
            return
        try:
            while len(self._ahead) < AHEAD_BYTES:
                data = os.read(self._fd, RECV_BYTES)
                if not data:
                    break
                self._ahead += data
        except BlockingIOError:
            return
        except OSError as exc:  # a reset that nobody has heard of yet; the sweep, which asks, is all connections'
            log.debug("connection.lost", error=repr(exc))
        self._peer_left()

    async def _end(self, *, unread: bool) -> None:
        """Close in order: what was sent is delivered; who still writes is read, so that the answer is seen."""
        self.closing = True
        self._unwatch()  # a number that was closed may be another connection's next
        await self._send_eof()
        if unread:
            await self.drop_rest()
        else:
            await self.stream.aclose()

    async def serve_foreign(self, data: bytes) -> None:
        """Hand the connection over, which began with *data*; nobody there for it means its end."""
        self.foreign, self.idle_since = True, None
        if self.server.foreign is not None and not self.server.draining:
            peer = address(socket_of(self.stream).getpeername())
            await self.server.foreign(self.stream, "" if peer is None else peer[0], data)

    async def _read_some(self) -> bytes:
        """The next bytes, empty when there will be none. With at least one checkpoint, or what waits would starve."""
        if not self._direct:
            try:
                return bytes(await self.stream.receive_some(RECV_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return b""
        waited = self._emptied
        try:
            if waited:
                await trio.lowlevel.wait_readable(self._fd)
            while True:
                try:
                    data = os.read(self._fd, RECV_BYTES)
                    break
                except BlockingIOError:
                    waited = True
                    await trio.lowlevel.wait_readable(self._fd)
        except (OSError, trio.ClosedResourceError):
            return b""
        self._emptied = len(data) < RECV_BYTES
        if not waited:
            await trio.lowlevel.checkpoint()
        return data

    async def drop_rest(self) -> None:
        """Read and forget what the client still sends, for a while."""
        left = LINGER_BYTES
        with trio.move_on_after(LINGER_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while left > 0 and (data := await self.stream.receive_some(RECV_BYTES)):
                left -= len(data)

    def hold(self) -> None:
        """The next bytes wait for those that follow them at once: a head and its body leave in one system call."""
        if self.protocols is not None:
            self.protocols.hold()

    async def write(self, data: bytes) -> bool:
        """Send *data*. Returns: False when the client is gone. A checkpoint only where it does not take it at once."""
        if self._direct and not self._send_lock.locked():
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            if sent == len(data):
                return True
            data = data[sent:]
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

    async def end_writing(self) -> None:
        """Tell the client that nothing follows, after what is being written now."""
        async with self._send_lock:  # another task may be writing the last words
            await self._send_eof()

    async def _send_eof(self) -> None:
        if isinstance(self.stream, trio.SocketStream):
            # It may be gone, or somebody may be writing: either way the close that follows settles it.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                await self.stream.send_eof()

    async def refuse(self, words: bytes) -> None:
        """Say why and end the connection; the client's end is waited for, as in `end_writing`."""
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
      departures: tells who has left; None = nobody can.
      terminated: set when nobody is accepted any more.
      ended: set when `serve` is over.
      foreign: serves connections that begin like the Redis protocol: stream, peer's address, first bytes. None = they
        are closed.
    """

    app: App
    limits: LimitsConfig
    foreign: Callable[[Stream, str, bytes], Awaitable[None]] | None = None
    fast: bool = attrs.field(factory=lambda: os.environ.get(FAST_VARIABLE, "") != "hypercorn")
    draining: bool = False
    departures: Departures | None = None
    connections: set[Connection] = attrs.field(factory=set)
    terminated: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    _parts: "Parts | None" = None
    _drain: trio.Event = attrs.field(factory=trio.Event)

    async def parts(self) -> "Parts":
        """What Hypercorn needs, imported and made for the first connection that is Hypercorn's."""
        if self._parts is None:
            self._parts = await trio.to_thread.run_sync(hypercorn_parts, self.app, self.terminated)
        return self._parts

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
                if self.fast and Departures.available:
                    self.departures = Departures()
                    outer.start_soon(self.departures.run, name="departures")
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(
                        partial(trio.serve_listeners, self._handle, listeners, handler_nursery=handlers)
                    )
                    task_status.started()
                    await self._drain.wait()
                    accepting.cancel_scope.cancel()
                self.terminated.set()
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
                else:
                    connection.look_ahead()


def over(since: float | None, limit_s: float, now: float) -> bool:
    """It has been so for longer than *limit_s*; 0 = no limit."""
    return since is not None and limit_s > 0 and now - since > limit_s


def socket_of(stream: Stream) -> trio.socket.SocketType:
    """The socket below *stream*."""
    return stream.transport_stream.socket if isinstance(stream, trio.SSLStream) else stream.socket


def address(name: object) -> Address:
    """Host and port of a socket name of any family."""
    return (name[0], name[1]) if isinstance(name, tuple) else None


def hypercorn_parts(app: App, terminated: trio.Event) -> "Parts":
    """Hypercorn for *app*; takes a fifth of a start to import, and most proxies see plain HTTP/1.1 only."""
    from cpa.server.protocols import Parts

    return Parts.of(app, terminated)


def make_server(app: App, config: Config) -> ClientServer:
    """A server for *app* that accepts nobody yet."""
    return ClientServer(app=app, limits=config.limits)
