"""A scripted raw server: each test says byte for byte what it answers, and sees byte for byte what it got."""

import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import trio
import trustme

FAIL_S = 120
"""A hanging test fails; nothing here waits for time to pass."""


@attrs.frozen
class RawRequest:
    """A request as it came: head up to the empty line, and the body with its framing undone."""

    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The value of the header of that lower-case name."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b": ")
            if key.lower() == name:
                return value
        return None


class Peer:
    """The server's side of one connection."""

    def __init__(self, stream: trio.abc.Stream, raw: trio.SocketStream, number: int) -> None:
        self.stream = stream
        self.raw = raw
        self.number = number
        self._buffer = bytearray()

    async def request(self) -> RawRequest | None:
        """The next request, or None when the client has closed."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not await self._more():
                return None
        head = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        request = RawRequest(head, b"")
        if request.header(b"transfer-encoding") == b"chunked":
            return RawRequest(head, await self._chunked())
        return RawRequest(head, await self._exactly(int(request.header(b"content-length") or 0)))

    async def _chunked(self) -> bytes:
        body = bytearray()
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                await self._must_have_more()
            size = int(bytes(self._buffer[:end]), 16)
            del self._buffer[: end + 2]
            body += (await self._exactly(size + 2))[:size]
            if not size:
                return bytes(body)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._must_have_more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _more(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._buffer += data
        return bool(data)

    async def _must_have_more(self) -> None:
        if not await self._more():
            raise trio.BrokenResourceError("the client left within a request")

    async def send(self, *pieces: bytes) -> None:
        """Send each piece by a call of its own."""
        for piece in pieces:
            await self.stream.send_all(piece)

    def reset(self) -> None:
        """Close with RST."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.socket.close()


Handler: TypeAlias = Callable[[Peer], Awaitable[None]]


@attrs.define(eq=False)
class ScriptedServer:
    """A running server; `connections` counts all that were accepted."""

    port: int
    scheme: str
    connections: int = 0

    def url(self, path: str = "/v1/x") -> str:
        """An address of this server."""
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def open_server(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Serve each connection by *handler* until the block ends."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    server = ScriptedServer(port, "https" if tls else "http")

    async def serve(raw: trio.SocketStream) -> None:
        server.connections += 1
        stream: trio.abc.Stream = raw
        if tls is not None:
            stream = trio.SSLStream(raw, tls, server_side=True, https_compatible=True)
        try:
            await handler(Peer(stream, raw, server.connections))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client left: that is what many of these tests are about
        finally:
            await trio.aclose_forcefully(stream)

    with trio.fail_after(FAIL_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, listeners)
            yield server
            nursery.cancel_scope.cancel()


def answering(*pieces: bytes) -> Handler:
    """A handler that answers every request of a connection with *pieces*."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(*pieces)

    return handle


def response(body: bytes = b"ok", *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    """A response with Content-Length."""
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


@attrs.frozen
class TestTls:
    """Contexts of a private certificate authority for 127.0.0.1 and provider.test."""

    __test__ = False
    server: ssl.SSLContext
    client: ssl.SSLContext


_AUTHORITY = trustme.CA()
_CERTIFICATE = _AUTHORITY.issue_cert("127.0.0.1", "provider.test")


def make_tls() -> TestTls:
    """New contexts; the key pair is made once per process."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _CERTIFICATE.configure_cert(server)
    client = ssl.create_default_context()
    _AUTHORITY.configure_trust(client)
    return TestTls(server, client)


def open_fds() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
