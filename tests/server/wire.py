"""A client that says what the test tells it, byte by byte, and reads what comes back."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio

from cpa.app import App
from cpa.pipeline.stage import Registration
from cpa.server.listener import Connection
from cpa.testing.mock import MockProvider
from tests.proxy import CLIENT_KEY, running_proxy

FAIL_S = 120
"""A hanging test fails; nothing waits for that."""
READ_BYTES = 64 << 10
CHAT = b'{"model":"gpt","messages":[{"role":"user","content":"hello"}]}'
CHAT_STREAM = b'{"model":"gpt","stream":true,"messages":[{"role":"user","content":"hello"}]}'
KEY_HEADER = f"authorization: Bearer {CLIENT_KEY}"


@attrs.frozen(kw_only=True)
class Reply:
    """An answer as it came; *headers* have lower-case names, chunked bodies are put together."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Hangup(Exception):
    """The server closed in the middle of an answer, or before one."""


@attrs.define
class Wire:
    """One connection."""

    stream: trio.abc.Stream
    buffer: bytearray = attrs.field(factory=bytearray)

    async def send(self, data: bytes) -> None:
        """All of *data*. Raises: trio.BrokenResourceError."""
        await self.stream.send_all(data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """The next whole answer. Raises: Hangup, trio.BrokenResourceError."""
        reply = await self.head()
        if head_only or reply.status in (204, 304) or reply.status < 200:
            return reply
        if "content-length" in reply.headers:
            body = await self.exactly(int(reply.headers["content-length"]))
        elif reply.headers.get("transfer-encoding") == "chunked":
            body = b"".join([piece async for piece in self.chunks()])
        else:
            body = await self.rest()
        return attrs.evolve(reply, body=body)

    async def head(self) -> Reply:
        """Status and headers of the next answer."""
        head = await self.until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return Reply(status=int(lines[0].split()[1]), headers={name.lower(): value.strip() for name, _, value in pairs})

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of a chunked body to its end."""
        while piece := await self.chunk():
            yield piece

    async def chunk(self) -> bytes:
        """The next piece of a chunked body; empty at its end."""
        size = int((await self.until(b"\r\n")).strip(), 16)
        return (await self.exactly(size + 2))[:-2]

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and with *mark*."""
        while mark not in self.buffer:
            await self._more()
        end = self.buffer.index(mark) + len(mark)
        taken = bytes(self.buffer[:end])
        del self.buffer[:end]
        return taken

    async def exactly(self, size_bytes: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < size_bytes:
            await self._more()
        taken = bytes(self.buffer[:size_bytes])
        del self.buffer[:size_bytes]
        return taken

    async def rest(self) -> bytes:
        """All until the server closes; a reset counts as that."""
        while True:
            try:
                data = await self.stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                taken = bytes(self.buffer)
                self.buffer.clear()
                return taken
            self.buffer += data

    async def _more(self) -> None:
        data = await self.stream.receive_some(READ_BYTES)
        if not data:
            raise Hangup(bytes(self.buffer))
        self.buffer += data


@asynccontextmanager
async def connect(url: str, *, receive_buffer_bytes: int = 0) -> AsyncIterator[Wire]:
    """A connection to the server behind *url*; closed at once at the end.

    *receive_buffer_bytes*: of the kernel, for clients that are to be full soon; 0 = as usual.
    """
    where = urlsplit(url)
    assert where.hostname is not None
    sock = trio.socket.socket()
    if receive_buffer_bytes:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await sock.connect((where.hostname, where.port))
    except BaseException:
        sock.close()
        raise
    stream = trio.SocketStream(sock)
    try:
        yield Wire(stream)
    finally:
        await trio.aclose_forcefully(stream)


def head(
    method: str = "POST",
    path: str = "/v1/chat/completions",
    *,
    headers: Iterable[str] = (),
    length: int | None = None,
    key: bool = True,
) -> bytes:
    """The head of a request, with the tests' key."""
    lines = [f"{method} {path} HTTP/1.1", "host: proxy"]
    lines += [KEY_HEADER] if key else []
    lines += [f"content-length: {length}"] if length is not None else []
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def post(
    body: bytes = CHAT, path: str = "/v1/chat/completions", *, headers: Iterable[str] = (), key: bool = True
) -> bytes:
    """A whole request."""
    return head(path=path, headers=headers, length=len(body), key=key) + body


class Connections(set[Connection]):
    """The server's set of connections, for those who wait for it to change."""

    def __init__(self) -> None:
        super().__init__()
        self._lot = trio.lowlevel.ParkingLot()

    def add(self, connection: Connection) -> None:
        """See `set`."""
        super().add(connection)
        self._lot.unpark_all()

    def discard(self, connection: object) -> None:
        """See `set`."""
        super().discard(connection)
        self._lot.unpark_all()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once *predicate* holds; it is asked after each change."""
        while not predicate():
            await self._lot.park()


@attrs.frozen(kw_only=True)
class Serving:
    """A running proxy whose connections can be waited for; made by `serving`."""

    app: App
    mock: MockProvider
    url: str
    connections: Connections

    async def quiet(self) -> None:
        """Until no client is connected and the provider has nothing to do."""
        await self.connections.until(lambda: not self.connections)
        await self.mock.wait_for(lambda mock: mock.active_responses == 0)


@asynccontextmanager
async def serving(*, extra: str = "", registrations: Iterable[Registration] = ()) -> AsyncIterator[Serving]:
    """`tests.proxy.running_proxy` with an eye on its connections."""
    async with running_proxy(extra=extra, registrations=registrations) as proxy:
        connections = Connections()
        proxy.app.server.connections = connections
        yield Serving(app=proxy.app, mock=proxy.mock, url=proxy.url, connections=connections)
