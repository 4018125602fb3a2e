"""One TCP or TLS connection to a provider: plain non-blocking sockets on Trio's readiness calls.

A write tries the system call first and waits only when it would block. A read does so too unless the last one emptied
the socket: tokens arrive one by one, and the call that finds nothing is the dearest part of such a read.

TLS is `ssl.SSLSocket` in non-blocking mode rather than `trio.SSLStream`: its records are handled inside the same call,
so that TLS costs what the encryption costs. The price is that either direction may have to wait for the other one,
which the loops below do.
"""

import contextlib
import itertools
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import NamedTuple

import attrs
import httpx
import trio

from cpa.upstream.http1 import OutgoingRequest, ResponseReader

RECEIVE_BYTES = 64 * 1024
"""One receive call; enough for four TLS records, and larger ones measured no better."""

MAX_IOVECS = min(64, os.sysconf("SC_IOV_MAX"))
"""Buffers of one scatter write; Linux allows 1024, but a write never takes more than the socket buffer holds."""

JOINED_BYTES = 16 * 1024
"""A request up to this size is one piece of memory and one plain send; beyond, copying costs more than it saves."""

TLS_RECORD_BYTES = 16 * 1024
"""Largest TLS record; smaller buffers are joined up to it, so that a head and a small body are one packet."""

TLS_WRITE_BYTES = 64 * 1024
"""One TLS write of a large body. A write that would block must be repeated with the same bytes, so it is bounded."""

BODY_CLOSE_GRACE_S = 1.0
"""For the clean-up of a streamed request body that was left early."""

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 15
KEEPALIVE_PROBES = 4
"""TCP keep-alive: a provider that vanished while we wait for its next token is noticed within 90 s."""


class Origin(NamedTuple):
    """Where connections may be shared: scheme (``http`` or ``https``), ASCII host without brackets, port.

    A tuple, not attrs: it is a dictionary key several times per request.
    """

    scheme: str
    host: str
    port: int
    tls_name: str = ""
    """What the server's certificate is for, when that is not *host*."""


@attrs.define(eq=False, slots=True, kw_only=True)
class Connection:
    """An open connection; whoever holds it closes it or gives it back to the pool.

    Attributes:
      sock: non-blocking; an `ssl.SSLSocket` after its handshake for ``https``.
      idle_since: Trio time at which it was put into the pool.
      used_since: Trio time at which it was taken out again.
      on_close: told once, synchronously, when the connection is closed.
    """

    sock: socket.socket
    origin: Origin
    on_close: Callable[["Connection"], None]
    idle_since: float = 0.0
    closed: bool = False
    used_since: float = 0.0
    _tls: bool = attrs.field(init=False)
    _emptied: bool = attrs.field(init=False)
    _poll: Callable[[int], list[tuple[int, int]]] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._tls = isinstance(self.sock, ssl.SSLSocket)
        self._emptied = not self._tls
        if not self._tls:
            # A third of the price of a receive call that finds nothing. Not for TLS, where what has come may be a
            # session ticket, and what was decrypted the system does not know of.
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            self._poll = poll.poll

    def close(self) -> None:
        """Close at once; may be called again. A task that waits on the socket gets trio.ClosedResourceError."""
        if self.closed:
            return
        self.closed = True
        close_socket(self.sock)
        self.on_close(self)

    def is_alive(self) -> bool:
        """False when the server closed the idle connection, or sent what nobody asked for; never blocks.

        Asked at every reuse, however short the pause was: bytes that came meanwhile would be read as the answer to the
        next request, and no parser can tell them from it.
        """
        if self._poll is not None:
            return not self._poll(0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    async def receive_into(self, reader: ResponseReader, buffer: memoryview) -> None:
        """Receive once and feed *reader*, with at least one checkpoint; *buffer* may be shared, it is used up at once.

        Raises: httpx.ReadError, httpx.RemoteProtocolError.
        Cancellation: nothing is lost, the call may be repeated.
        """
        waited = False
        try:
            if self._emptied:
                waited = True
                await trio.lowlevel.wait_readable(self.sock)
            while True:
                try:
                    received = self.sock.recv_into(buffer)
                except (BlockingIOError, ssl.SSLWantReadError):
                    waited = True
                    await trio.lowlevel.wait_readable(self.sock)
                except ssl.SSLWantWriteError:
                    waited = True
                    await trio.lowlevel.wait_writable(self.sock)
                else:
                    break
        except ssl.SSLEOFError:
            reader.feed_eof(clean=False)
            return
        except OSError as exc:
            raise httpx.ReadError(f"reading from {self.origin.host} failed: {exc}") from exc
        except trio.ClosedResourceError as exc:
            raise httpx.ReadError("the connection was closed on our side") from exc
        if received:
            # TLS keeps decrypted bytes that the system does not know of: there the call itself must be tried.
            self._emptied = received < len(buffer) and not self._tls
            reader.feed(buffer[:received])
        else:
            reader.feed_eof(clean=True)
        if not waited:
            await trio.lowlevel.checkpoint()

    def send_request(
        self, request: OutgoingRequest, reader: ResponseReader, buffer: memoryview
    ) -> Coroutine[None, None, bool]:
        """Write *request*; *reader* gets what the server says meanwhile.

        Returns: False when the server ended the request early, by an error status or by closing; the connection can
          then only be read. A checkpoint is made only where the socket is full.
        Raises: httpx.LocalProtocolError when a streamed body breaks its declared length; what that stream raises.
        """
        buffers, length = request.buffers, request.length
        if buffers is None:
            return self._send_stream(request, reader, buffer)
        if length is not None and length <= JOINED_BYTES:
            return self._send((b"".join((request.head, *buffers)),), reader, buffer)
        return self._send((request.head, *buffers), reader, buffer)

    async def _send_stream(self, request: OutgoingRequest, reader: ResponseReader, buffer: memoryview) -> bool:
        assert request.stream is not None
        if not await self._send((request.head,), reader, buffer):
            return False
        pieces = request.stream.__aiter__()
        try:
            return await self._send_pieces(pieces, request.length, reader, buffer)
        finally:
            # A generator that was left early must not wait for the garbage collector with what it holds.
            if isinstance(pieces, AsyncGenerator):
                with trio.move_on_after(BODY_CLOSE_GRACE_S, shield=True):
                    await pieces.aclose()

    async def _send_pieces(
        self, pieces: AsyncIterator[bytes], length: int | None, reader: ResponseReader, buffer: memoryview
    ) -> bool:
        left = length
        async for piece in pieces:
            if not piece:
                continue
            framed: tuple[bytes, ...] = (b"%x\r\n" % len(piece), piece, b"\r\n")
            if left is not None:
                framed = (piece,)
                left -= len(piece)
                if left < 0:
                    raise httpx.LocalProtocolError("the request body is longer than its Content-Length")
            if not await self._send(framed, reader, buffer):
                return False
        if left:
            raise httpx.LocalProtocolError("the request body is shorter than its Content-Length")
        return left is not None or await self._send((b"0\r\n\r\n",), reader, buffer)

    async def _send(self, buffers: Sequence[bytes], reader: ResponseReader, buffer: memoryview) -> bool:
        try:
            if self._tls:
                return await self._send_tls(buffers, reader, buffer)
            try:
                if len(buffers) == 1:
                    sent = self.sock.send(buffers[0])
                    if sent == len(buffers[0]):
                        return True
                else:
                    sent = self.sock.sendmsg(buffers[:MAX_IOVECS])
            except BlockingIOError:
                sent = 0
            return await self._send_rest(buffers, sent, reader, buffer)
        except OSError as exc:
            # The server may have answered (413, 401) and closed before it read all: the answer is still in our
            # receive queue and worth more than this error. The caller reads; without an answer, reading fails.
            raise_if_not_hangup(exc)
            return False
        except trio.ClosedResourceError as exc:
            raise httpx.WriteError("the connection was closed on our side") from exc

    async def _send_rest(self, buffers: Sequence[bytes], sent: int, reader: ResponseReader, buffer: memoryview) -> bool:
        views = deque(memoryview(piece) for piece in buffers if piece)
        _advance(views, sent)
        while views:
            try:
                sent = self.sock.sendmsg(list(itertools.islice(views, MAX_IOVECS)))
            except BlockingIOError:
                if not await self._wait_writable(reader, buffer):
                    return False
            else:
                _advance(views, sent)
        return True

    async def _send_tls(self, buffers: Sequence[bytes], reader: ResponseReader, buffer: memoryview) -> bool:
        for piece in tls_pieces(buffers):
            left = memoryview(piece)
            while len(left):
                try:
                    sent = self.sock.send(left)
                except ssl.SSLWantReadError:  # a handshake within the connection
                    await trio.lowlevel.wait_readable(self.sock)
                except ssl.SSLWantWriteError:
                    if not await self._wait_writable(reader, buffer):
                        return False
                else:
                    left = left[sent:]
        return True

    async def _wait_writable(self, reader: ResponseReader, buffer: memoryview) -> bool:
        """Wait for room, and listen while waiting: a server that refuses need not read on, nor hang up.

        Returns: False when the request need not go on: the server refused it by a status >= 400, or hung up.
        """
        if reader.status:
            await trio.lowlevel.wait_writable(self.sock)
            return True
        await wait_readable_or_writable(self.sock)
        while not reader.head_complete:
            try:
                received = self.sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            if not received:
                return False
            reader.feed(buffer[:received])
        # RFC 9112 9.5: cease on an error; a server that answers 2xx this early still wants the rest.
        return reader.status < 400


def raise_if_not_hangup(exc: OSError) -> None:
    """Let pass what says that the peer is gone. Raises: httpx.WriteError for anything else."""
    if not isinstance(exc, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
        raise httpx.WriteError(f"sending failed: {exc}") from exc


def close_socket(sock: socket.socket) -> None:
    """Close *sock* and wake whoever waits on it."""
    trio.lowlevel.notify_closing(sock)
    with contextlib.suppress(OSError):  # ECONNRESET on close is no news
        sock.close()


def tls_pieces(buffers: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    """Cut *buffers* for TLS writes: small ones joined into records, large ones in views that are not copied."""
    small: list[memoryview] = []
    room = TLS_RECORD_BYTES
    for piece in buffers:
        view = memoryview(piece)
        while len(view):
            if not small and len(view) >= TLS_RECORD_BYTES:
                yield view[:TLS_WRITE_BYTES]
                view = view[TLS_WRITE_BYTES:]
                continue
            part = view[:room]
            view = view[room:]
            small.append(part)
            room -= len(part)
            if not room:
                yield b"".join(small)
                small.clear()
                room = TLS_RECORD_BYTES
    if small:
        yield b"".join(small)


def _advance(views: deque[memoryview], sent: int) -> None:
    while sent:
        first = views[0]
        if sent < len(first):
            views[0] = first[sent:]
            return
        sent -= len(first)
        views.popleft()


async def wait_readable_or_writable(sock: socket.socket) -> None:
    """Return when *sock* is one of the two. Its two tasks are worth it: this happens per full socket buffer only."""
    async with trio.open_nursery() as nursery:

        async def until(wait: Callable[[socket.socket], Awaitable[None]]) -> None:
            # A socket closed meanwhile would be an error in both tasks; the next system call says it once.
            with contextlib.suppress(trio.ClosedResourceError):
                await wait(sock)
            nursery.cancel_scope.cancel()

        nursery.start_soon(until, trio.lowlevel.wait_readable, name="upstream:early-answer")
        await until(trio.lowlevel.wait_writable)


async def open_socket(origin: Origin, *, tls: ssl.SSLContext | None, connect_seconds: float) -> socket.socket:
    """Resolve, connect (happy eyeballs) and, if *tls* is given, shake hands.

    Returns: a non-blocking socket that belongs to the caller.
    Raises: httpx.ConnectError, httpx.ConnectTimeout after *connect_seconds* for all of it.
    Cancellation: nothing stays open.
    """
    where = f"{origin.host}:{origin.port}"
    try:
        with trio.fail_after(connect_seconds):
            stream = await trio.open_tcp_stream(origin.host, origin.port)
            sock = _adopt(stream)
            if tls is not None:
                sock = await _handshake(sock, origin.tls_name or origin.host, tls)
            return sock
    except trio.TooSlowError as exc:
        raise httpx.ConnectTimeout(f"no connection to {where} within {connect_seconds:g} s") from exc
    except ssl.SSLError as exc:
        raise httpx.ConnectError(f"TLS with {where} failed: {exc.reason or exc}") from exc
    except OSError as exc:
        raise httpx.ConnectError(f"cannot connect to {where}: {_reason(exc)}") from exc
    except UnicodeError as exc:  # a host name that cannot be a DNS name, e.g. a label of 64 characters
        raise httpx.ConnectError(f"cannot connect to {where}: not a host name") from exc


def _reason(exc: OSError) -> str:
    """Trio hides the interesting part of a failed connect in the group that caused it."""
    if isinstance(exc.__cause__, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(str(cause) for cause in exc.__cause__.exceptions))
    return str(exc)


def _adopt(stream: trio.SocketStream) -> socket.socket:
    """Take the plain socket out of *stream*; one step without an await, so that it cannot be lost."""
    sock = socket.socket(fileno=stream.socket.detach())
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        # Trio's stream asks for a small send queue, which would cut a large body into many wake-ups; 0 = system's own.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
    except BaseException:
        sock.close()
        raise
    return sock


async def _handshake(sock: socket.socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Shake hands; *sock* is used up, also on failure."""
    try:
        # Without suppression a cut connection is told from one that the server ended (RFC 9112 9.8).
        tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise
    try:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)
            else:
                return tls
    except BaseException:
        close_socket(tls)
        raise
