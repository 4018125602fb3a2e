"""The floor: the least that a forwarder on Trio, httptools and ASGI can do (design.md section 9). No limits, no checks.

Both sides are non-blocking sockets with Trio's readiness calls and httptools' parsers. It is a yardstick, not a server:
a client that breaks off, pipelines or sends nonsense ends its connection, and that is all. What costs nothing but has
to be known it does as well: the allocator keeps freed memory, without which large bodies take page faults.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import trio

from cpa.abi.memory import keep_freed_memory
from tests.bench import serving
from tests.bench.payloads import PATH, PROVIDER_KEY

RECEIVE_BYTES = 256 << 10
"""A body of 300 KB in few reads: 12 % less than with 64 KB, and no different for small ones."""
Message = dict[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


async def receive(sock: socket.socket) -> bytes:
    """The next bytes, empty at the end."""
    await trio.lowlevel.wait_readable(sock)
    return sock.recv(RECEIVE_BYTES)


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Send *data*; waits only when the socket is full."""
    sent = 0
    while True:
        try:
            sent += sock.send(memoryview(data)[sent:] if sent else data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        if sent == len(data):
            return


class Reader:
    """What both parsers call back: collects one message at a time."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the message."""
        self.path = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.head_complete = self.complete = False

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        """The body bytes that came since the last call."""
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        self.body.clear()
        return body


async def serve_connection(stream: trio.SocketStream, app: AsgiApp) -> None:
    """Answer requests until the client leaves."""
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    reader = Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        while True:
            while not reader.complete:
                data = await receive(sock)
                if not data:
                    return
                parser.feed_data(data)
            await respond(sock, reader, app)
            reader.clear()
    except OSError:
        return
    finally:
        sock.close()


async def respond(sock: socket.socket, reader: Reader, app: AsgiApp) -> None:
    """One ASGI cycle; the head leaves with the first piece of the body."""
    head = b""
    chunked = False

    async def asgi_receive() -> Message:
        return {"type": "http.request", "body": reader.take(), "more_body": False}

    async def asgi_send(message: Message) -> None:
        nonlocal head, chunked
        if message["type"] == "http.response.start":
            headers = message["headers"]
            chunked = not any(name == b"content-length" for name, _ in headers)
            lines = [b"%b: %b\r\n" % pair for pair in headers]
            head = b"HTTP/1.1 %d OK\r\n%b%b\r\n" % (
                message["status"],
                b"".join(lines),
                b"transfer-encoding: chunked\r\n" if chunked else b"",
            )
            return
        data = message["body"]
        if chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not message["more_body"]:
                data += b"0\r\n\r\n"
        await send_all(sock, head + data)
        head = b""

    scope = {"type": "http", "method": "POST", "path": reader.path.decode("ascii"), "headers": reader.headers}
    await app(scope, asgi_receive, asgi_send)


class Forwarder:
    """The ASGI application: sends the body on, relays what comes back. Connections are kept, last used first."""

    def __init__(self, provider_port: int) -> None:
        self._port = provider_port
        self._idle: list[socket.socket] = []
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {PROVIDER_KEY}\r\ncontent-length: "
        ).encode()

    async def __call__(
        self, scope: Message, asgi_receive: Callable[[], Awaitable[Message]], asgi_send: Callable[..., Awaitable[None]]
    ) -> None:
        """Serve one request."""
        body = (await asgi_receive())["body"]
        sock = self._idle.pop() if self._idle else await self._connect()
        try:
            await send_all(sock, b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            await self._relay(sock, asgi_send)
        except BaseException:
            sock.close()
            raise
        self._idle.append(sock)

    async def _connect(self) -> socket.socket:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        return sock

    async def _relay(self, sock: socket.socket, asgi_send: Callable[..., Awaitable[None]]) -> None:
        reader = Reader()
        parser = httptools.HttpResponseParser(reader)
        while not reader.head_complete:
            await self._feed(sock, parser)
        kept = [pair for pair in reader.headers if pair[0] in (b"content-type", b"content-length")]
        await asgi_send({"type": "http.response.start", "status": parser.get_status_code(), "headers": kept})
        while not reader.complete:
            if reader.body:
                await asgi_send({"type": "http.response.body", "body": reader.take(), "more_body": True})
            await self._feed(sock, parser)
        await asgi_send({"type": "http.response.body", "body": reader.take(), "more_body": False})

    async def _feed(self, sock: socket.socket, parser: httptools.HttpResponseParser) -> None:
        data = await receive(sock)
        if not data:
            raise ConnectionError("the provider hung up")
        parser.feed_data(data)


async def main(provider_port: int) -> None:
    """Serve on a free port until killed."""
    keep_freed_memory()
    forwarder = Forwarder(provider_port)

    async def handle(stream: trio.SocketStream) -> None:
        await serve_connection(stream, forwarder)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    serving.announce(*listeners[0].socket.getsockname())
    await trio.serve_listeners(handle, listeners)


if __name__ == "__main__":
    trio.run(main, serving.provider_port())
