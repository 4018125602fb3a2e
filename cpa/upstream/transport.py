"""Our transport: HTTP/1.1 on plain sockets, for all traffic that no proxy carries, with `httpx.AsyncClient` or without.

It is there for speed (design.md section 9): httpx's own pool looks at every connection and polls every idle socket per
request. An exchange here is: take the connection used last, one write, wait, one read, one parser call. No
task and no timer per chunk: deadlines are the callers' cancel scopes. Only connecting has a deadline of its own.
"""

import ssl
from types import TracebackType
from typing import Self

import httpx
import trio

from cpa.upstream.connection import RECEIVE_BYTES, Connection, Origin, open_socket
from cpa.upstream.http1 import BufferStream, OutgoingRequest, ResponseReader, encode_request
from cpa.upstream.pool import ConnectionPool

__all__ = ["BufferStream", "ResponseStream", "TrioTransport", "make_tls_context", "origin_of"]

DEFAULT_CONNECT_SECONDS = 30.0
"""Resolving, connecting and the TLS handshake together (proxy.md 5.4)."""

DEFAULT_KEEPALIVE_IDLE_SECONDS = 30.0
"""Below the idle limits of the usual servers and load balancers (60 to 600 s)."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


def make_tls_context() -> ssl.SSLContext:
    """A verifying client context with the system's certificates (`SSL_CERT_FILE` is honoured), HTTP/1.1 only.

    Loading the certificates takes some 10 ms: make it once and share it.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


CLOSE_GRACE_S = 2.0
"""For the closing alerts of TLS connections to proxies."""

IDLE_CLOSE_RACE_S = 1.0
"""A server's closing of an idle connection crosses our request within a round trip; satellites take 0.6 s."""


class TrioTransport(httpx.AsyncBaseTransport):
    """Sends requests over pooled HTTP/1.1 connections.

    The constructor opens nothing; `aclose` closes everything. A response must be closed by whoever got it.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_seconds: float = DEFAULT_CONNECT_SECONDS,
        keepalive_idle_seconds: float = DEFAULT_KEEPALIVE_IDLE_SECONDS,
    ) -> None:
        self._ssl_context = ssl_context
        self._connect_seconds = connect_seconds
        self._pool = ConnectionPool(keepalive_idle_seconds=keepalive_idle_seconds)
        # One buffer for all connections: between a receive call and the parser no other task can run.
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Established connections, used or idle."""
        return self._pool.open_connections

    @property
    def idle_connections(self) -> int:
        """Connections that wait for a request."""
        return self._pool.idle_connections

    async def aclose(self) -> None:
        """Close all connections, also used ones; synchronous in effect, may be called again."""
        self._closed = True
        self._pool.close_all()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def tls(self) -> ssl.SSLContext:
        """What ``https`` is verified with; made when it is first asked for. See `make_tls_context`."""
        if self._ssl_context is None:
            self._ssl_context = make_tls_context()
        return self._ssl_context

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and wait for the head of the final response.

        Raises: httpx.TransportError subclasses: UnsupportedProtocol, LocalProtocolError (our request is malformed),
          ConnectError, ConnectTimeout, WriteError, ReadError, RemoteProtocolError.
        Cancellation: closes the connection at once.
        """
        origin = origin_of(request.url, request.extensions.get("sni_hostname", ""))
        stream = await self.exchange(origin, encode_request(request), detailed=True)
        reader = stream.reader
        return httpx.Response(
            reader.status,
            headers=reader.headers,
            stream=stream,
            extensions={"http_version": reader.http_version, "reason_phrase": reader.reason},
        )

    async def exchange(self, origin: Origin, outgoing: OutgoingRequest, *, detailed: bool = False) -> "ResponseStream":
        """The same without httpx's requests and responses, which cost as much as all the rest.

        Returns: the body; the head is in its `reader`, see there for *detailed*. Close it by `ResponseStream.close`.
        Raises, Cancellation: as `handle_async_request`.
        """
        if self._closed:
            raise RuntimeError("the transport is closed")
        connection = self._pool.acquire(origin)
        reused = connection is not None
        while True:
            if connection is None:
                connection = await self._connect(origin)
            reader = ResponseReader(head_only=outgoing.head_only, detailed=detailed)
            try:
                sent_all = await connection.send_request(outgoing, reader, self._buffer)
                while not reader.status:
                    await connection.receive_into(reader, self._buffer)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                connection.close()
                reader.discard()
                # The server closed the idle connection while our request was on its way: the one failure that says
                # nothing about the request. A fresh connection cannot fail for that reason, so one retry is all. A
                # server that hangs up later has worked on the request, and would be paid twice.
                late = trio.current_time() - connection.used_since > IDLE_CLOSE_RACE_S
                if reader.started or not reused or late or outgoing.buffers is None:
                    raise
                connection, reused = None, False
            except BaseException:
                connection.close()
                reader.discard()
                raise
            else:
                return ResponseStream(connection, reader, self._buffer, self._pool, reusable=sent_all)

    async def _connect(self, origin: Origin) -> Connection:
        tls: ssl.SSLContext | None = None
        if origin.scheme == "https":
            tls = self.tls()
        sock = await open_socket(origin, tls=tls, connect_seconds=self._connect_seconds)
        connection = Connection(sock=sock, origin=origin, on_close=self._pool.forget)
        self._pool.adopt(connection)
        if self._closed:
            connection.close()
            raise httpx.ConnectError("the transport was closed while connecting")
        return connection


class ResponseStream(httpx.AsyncByteStream):
    """The body of a response, read only as fast as it is iterated.

    The connection goes back to the pool as soon as the end of the body has arrived. Until then it belongs to this
    object; `close` closes it.

    Attributes:
      reader: has the head of the response.
    """

    __slots__ = ("_buffer", "_closed", "_connection", "_pool", "_reusable", "reader")

    def __init__(
        self,
        connection: Connection,
        reader: ResponseReader,
        buffer: memoryview,
        pool: ConnectionPool,
        *,
        reusable: bool,
    ) -> None:
        self._connection: Connection | None = connection
        self._buffer = buffer
        self._pool = pool
        self._reusable = reusable
        self._closed = False
        self.reader = reader
        if reader.complete:
            self._let_go(connection)

    def __aiter__(self) -> "ResponseStream":
        return self

    async def __anext__(self) -> bytes:
        """The next piece, as it came from the socket, never empty.

        Raises: httpx.ReadError, httpx.RemoteProtocolError; httpx.StreamClosed after `close`.
        Cancellation: nothing is lost; waiting for the same piece may be taken up again.
        """
        if self._closed:
            raise httpx.StreamClosed()
        reader = self.reader
        if reader.pieces:
            await trio.lowlevel.checkpoint()
            return reader.take()
        # No checkpoint at the end: it follows a piece, which had one, or the head, which had one as well.
        while not reader.complete:
            connection = self._connection
            if connection is None:  # an earlier call failed
                raise httpx.StreamClosed()
            try:
                await connection.receive_into(reader, self._buffer)
            except httpx.TransportError:
                self._drop()
                raise
            finally:
                # Also when the checkpoint after the last receive call was cancelled.
                if self.reader.complete:
                    self._let_go(connection)
            if reader.pieces:
                return reader.take()
        raise StopAsyncIteration

    def take_whole(self) -> bytes | None:
        """The rest of the body, if its end has come already, as that of a small answer does with its head; else None.

        Raises: httpx.StreamClosed after `close`.
        """
        if self._closed:
            raise httpx.StreamClosed()
        reader = self.reader
        return reader.take() if reader.complete else None

    def close(self) -> None:
        """Let the connection go; may be called again."""
        self._closed = True
        if self._connection is not None:
            self._drop()

    async def aclose(self) -> None:
        """The same for httpx; no checkpoint, so that it works in a cancelled scope."""
        self.close()

    def _let_go(self, connection: Connection) -> None:
        self._connection = None
        if self._reusable and self.reader.reusable and not connection.closed:
            self._pool.release(connection)
        else:
            connection.close()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self.reader.discard()
        if connection is not None:
            connection.close()


def origin_of(url: httpx.URL, tls_name: str = "") -> Origin:
    """Where requests to *url* go. Raises: httpx.UnsupportedProtocol."""
    default_port = _DEFAULT_PORTS.get(url.scheme)
    if default_port is None:
        raise httpx.UnsupportedProtocol(f"unsupported URL scheme {url.scheme!r}")
    host = url.raw_host.decode("ascii")
    if not host:
        raise httpx.UnsupportedProtocol("the URL has no host")
    return Origin(url.scheme, host, url.port or default_port, tls_name)
