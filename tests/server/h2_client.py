"""A small HTTP/2 client on the library that Hypercorn brings: enough to be honest with, and enough to be rude."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import h2.config
import h2.connection
import h2.events
import trio

from tests.proxy import CLIENT_KEY

READ_BYTES = 64 << 10


@attrs.define(kw_only=True)
class Exchange:
    """What came back on one stream so far."""

    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytearray = attrs.field(factory=bytearray)
    ended: bool = False
    reset: int | None = None


class H2Client:
    """One connection.

    Attributes:
      exchanges: by stream id.
      grants: whether the client gives the server room for more data as it reads.
      closed: the server has closed the connection.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._send_lock = trio.Lock()
        self._changes = trio.lowlevel.ParkingLot()
        self.connection = h2.connection.H2Connection(config=h2.config.H2Configuration(header_encoding="utf-8"))
        self.exchanges: dict[int, Exchange] = {}
        self.grants = True
        self.closed = False

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None, end: bool = True
    ) -> int:
        """Send a request; with *end* False its body may go on. Returns: the stream id."""
        stream_id = self.connection.get_next_available_stream_id()
        self.exchanges[stream_id] = Exchange()
        fields = {":method": method, ":path": path, ":scheme": "http", ":authority": "proxy"}
        fields |= {"authorization": f"Bearer {CLIENT_KEY}", **(headers or {})}
        self.connection.send_headers(stream_id, list(fields.items()), end_stream=end and not body)
        if body:
            await self.data(stream_id, body, end=end)
        await self.flush()
        return stream_id

    async def data(self, stream_id: int, body: bytes, *, end: bool = False) -> None:
        """Send a piece of a body as the server's windows allow."""
        while body:
            room = min(
                self.connection.local_flow_control_window(stream_id), self.connection.max_outbound_frame_size, len(body)
            )
            if not room:
                await self._changes.park()
                continue
            self.connection.send_data(stream_id, body[:room], end_stream=end and room == len(body))
            body = body[room:]
            await self.flush()

    async def reset(self, stream_id: int) -> None:
        """Give up one exchange."""
        self.connection.reset_stream(stream_id)
        await self.flush()

    async def flush(self) -> None:
        """Send what h2 has to say."""
        async with self._send_lock:
            data = self.connection.data_to_send()
            if data:
                await self._stream.send_all(data)

    async def answer(self, stream_id: int) -> Exchange:
        """The whole exchange, once it ended or the connection closed."""
        exchange = self.exchanges[stream_id]
        while not (exchange.ended or exchange.reset is not None or self.closed):
            await self._changes.park()
        return exchange

    async def some(self, stream_id: int, size_bytes: int) -> Exchange:
        """The exchange once so much of its body has come."""
        exchange = self.exchanges[stream_id]
        while len(exchange.body) < size_bytes and not self.closed:
            await self._changes.park()
        return exchange

    async def wait_closed(self) -> None:
        """Until the server closes the connection."""
        while not self.closed:
            await self._changes.park()

    async def run(self) -> None:
        """Read until the server closes."""
        while True:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self.closed = True
                self._changes.unpark_all()
                return
            for event in self.connection.receive_data(data):
                self._take(event)
            try:
                await self.flush()
            except trio.BrokenResourceError:
                continue  # the reader sees the end
            self._changes.unpark_all()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            exchange = self.exchanges[event.stream_id]
            exchange.headers = {str(name): str(value) for name, value in event.headers}
            exchange.status = int(exchange.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.exchanges[event.stream_id].body += event.data
            if self.grants:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.exchanges[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.exchanges[event.stream_id].reset = event.error_code


@asynccontextmanager
async def h2_client(stream: trio.abc.Stream) -> AsyncIterator[H2Client]:
    """A client on *stream*, with prior knowledge; closes it at once at the end."""
    client = H2Client(stream)
    client.connection.initiate_connection()
    await client.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        try:
            yield client
        finally:
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(stream)
