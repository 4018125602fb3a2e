"""One client's WebSocket: its connection's bytes in, whole messages out, and back.

Theory of operation. Hypercorn shakes hands; from the first moment on its stream's events come here instead, because its
own handling has no answer to a compressed bomb, blocks the reader of the connection when ten messages wait (so that
nobody notices the client's leaving), forgets an application whose client sends too early, and resets connections whose
clients still write when the last word is said. The reader of the connection calls `ClientSocket.handle`, which never
waits for whoever takes the messages: what nobody has taken yet is bounded in number and bytes, and a client that goes
beyond is sent away. Frames are wsproto's.
"""

import zlib
from collections import deque
from contextlib import suppress
from typing import Final

import trio
from hypercorn.protocol.events import Body, Data, EndData, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.handshake import server_extensions_handshake
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from cpa.config.schema import LimitsConfig
from cpa.errors import RawHeaders
from cpa.observability.log import get_logger
from cpa.server.body import LINGER_BYTES, LINGER_S
from cpa.server.http1 import SEND_PIECE_BYTES
from cpa.server.listener import Connection

log = get_logger()

MAX_WAITING: Final = 16
"""Messages that a client may send ahead of their answers; agents send none, and each waits for all before it."""
MAX_PONGS: Final = 16
"""Pings that wait for their answer; of more, the latest count (RFC 6455 5.5.3)."""
CLOSE_S: Final = 2.0
"""How long a client may take to take our close, and to answer it."""
RATIO_FROM_BYTES: Final = 1 << 20
"""Below, whatever compresses well is no bomb; as for the bodies of requests."""
YIELD_AFTER: Final = 64
"""Frames of one read that are handled before others get their turn: a read may hold thousands of empty ones."""
MAX_REASON_BYTES: Final = 120
"""Of a close frame's 125."""


class Inflate(PerMessageDeflate):
    """permessage-deflate for what clients send, in bounds; answers are not compressed.

    Their events are small and wanted at once, so that compressing each would cost more than it saves.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        super().__init__()
        self._max_bytes = limits.body_bytes
        self._max_ratio = limits.decompression_ratio
        self._taken = 0
        self._made = 0

    def accept(self, offer: str) -> bool | str | None:
        """See `Extension`. Parameters that are no numbers decline the offer, as RFC 7692 wants."""
        try:
            return super().accept(offer)
        except ValueError:
            return None

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """See `Extension`; too much output is MESSAGE_TOO_BIG, before it is made."""
        inflater = self._decompressor
        if not self._inbound_compressed or not self._inbound_is_compressible or inflater is None:
            return data
        self._taken += len(data)
        left = min(self._max_bytes, max(RATIO_FROM_BYTES, self._max_ratio * self._taken)) - self._made
        made = b""
        try:
            if left > 0:
                made = inflater.decompress(data, left)
                data = inflater.unconsumed_tail
            # The output may have ended just at the limit: one byte more decides.
            if data and (inflater.decompress(data, 1) or inflater.unconsumed_tail):
                return CloseReason.MESSAGE_TOO_BIG
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._made += len(made)
        return made

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """See `Extension`. A ping amid the frames of a message does not change how the message goes on."""
        if not opcode.iscontrol():
            return super().frame_inbound_header(proto, opcode, rsv, payload_length)
        self._inbound_is_compressible = False
        return CloseReason.PROTOCOL_ERROR if rsv.rsv1 else RsvBits(True, False, False)

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """See `Extension`. What the end mark, which senders leave out, brings forth is less than a kilobyte."""
        if not self._inbound_is_compressible:
            return None
        if fin:
            self._taken = self._made = 0
        return super().frame_inbound_complete(proto, fin)

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        """See `Extension`."""
        return rsv, data


class ClientSocket:
    """Messages of one WebSocket; made by `take_over`.

    Attributes:
      left: the client has gone, asked to go, or was sent away: nobody waits for answers any more.
      heard_at: Trio clock of the last piece of a message; pings do not count.
    """

    def __init__(self, stream: WSStream, connection: Connection) -> None:
        self.left = trio.Event()
        self.heard_at = trio.current_time()
        self._stream = stream
        self._connection = connection
        self._frames: Frames | None = None
        self._limits = connection.server.limits
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._partial = bytearray()
        self._arrived = trio.Event()
        self._gone = trio.Event()
        self._pongs: deque[Pong] = deque(maxlen=MAX_PONGS)
        self._pinged = trio.Event()
        self._goodbye: CloseConnection | None = None
        self._broken = False
        self._torn = False
        self._dropped_bytes = 0
        self._writing = trio.Lock()

    # --- the handshake ---

    def accept(self, headers: RawHeaders) -> dict[str, object]:
        """The message that shakes hands, with *headers*, for ASGI's send; from here on frames are read."""
        inflate = Inflate(self._limits)
        offers = self._stream.handshake.extensions or []
        agreed = server_extensions_handshake(offers, [inflate])
        self._stream.handshake.extensions = None  # or Hypercorn would agree to its own
        self._frames = Frames(ConnectionType.SERVER, [inflate] if agreed else [])
        extension = ((b"sec-websocket-extensions", agreed),) if agreed else ()
        return {"type": "websocket.accept", "headers": [*extension, *headers]}

    @property
    def early(self) -> bool:
        """The client has sent before it knew that it may; that is lost."""
        return self._dropped_bytes > 0

    # --- what the client sends: called by the reader of the connection ---

    async def handle(self, event: StreamEvent) -> None:
        """Take what the connection's reader has. Waits for nothing: over HTTP/2 the reader makes room for writers."""
        if isinstance(event, Body | Data):
            if self._broken or self._frames is None:
                self._drop(len(event.data))
            else:
                await self._feed(self._frames, event.data)
        else:  # the end of the connection, or of an HTTP/2 client's side
            self._leave()
            self._gone.set()
            if isinstance(event, StreamClosed):
                self._stream.closed = True

    async def _feed(self, frames: Frames, data: bytes) -> None:
        with suppress(LocalProtocolError, RemoteProtocolError):  # more bytes after the last frame
            frames.receive_data(data)
            for number, event in enumerate(frames.events()):
                if number % YIELD_AFTER == YIELD_AFTER - 1:
                    await trio.lowlevel.checkpoint()
                if isinstance(event, TextMessage):
                    self._piece(event)
                elif isinstance(event, BytesMessage):
                    self.fail(CloseReason.UNSUPPORTED_DATA, "expected text messages, got a binary one")
                elif isinstance(event, Ping):
                    self._pongs.append(event.response())
                    self._pinged.set()
                elif isinstance(event, CloseConnection):
                    self._closed(frames, event)
                if self._broken:
                    return

    def _piece(self, event: TextMessage) -> None:
        self.heard_at = trio.current_time()
        self._partial += event.data.encode()
        limit = self._limits.body_bytes
        if len(self._partial) > limit:
            reason = f"a message is larger than {limit} bytes (limits.body-bytes)"
            self.fail(CloseReason.MESSAGE_TOO_BIG, reason)
        elif self.left.is_set():
            self._partial.clear()
        elif self._waiting_bytes + len(self._partial) > limit or len(self._waiting) >= MAX_WAITING:
            reason = f"too many messages are waiting: expected at most {MAX_WAITING}, and {limit} bytes of them"
            self.fail(CloseReason.POLICY_VIOLATION, reason)
        elif event.message_finished:
            self._waiting.append(bytes(self._partial))
            self._waiting_bytes += len(self._partial)
            self._partial = bytearray()
            self._arrived.set()

    def _closed(self, frames: Frames, event: CloseConnection) -> None:
        if frames.state is ConnectionState.OPEN:  # it broke the protocol
            code = CloseReason(event.code)
            if code is CloseReason.MESSAGE_TOO_BIG:
                limits = self._limits
                reason = (
                    f"a message is larger than {limits.body_bytes} bytes, or {limits.decompression_ratio} times as "
                    "large as it was sent"
                )
                self.fail(code, reason)
            else:
                self.fail(code, event.reason or "")
            return
        if frames.state is ConnectionState.REMOTE_CLOSING:
            self._goodbye = event.response()
        self._leave()
        self._gone.set()

    def _leave(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self._partial.clear()
        self.left.set()
        self._arrived.set()

    def _drop(self, size_bytes: int) -> None:
        """What comes after the last word is read, so that the client gets to see that word, within bounds."""
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > LINGER_BYTES:
            self._gone.set()

    # --- for the session ---

    async def receive(self) -> bytes | None:
        """The next message, as UTF-8; None when the client has left. Cancellation loses nothing."""
        while not self._waiting:
            if self.left.is_set():
                return None
            self._arrived = trio.Event()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message)
        return message

    async def send(self, *messages: bytes) -> None:
        """Send *messages*, UTF-8 texts, in one go; waits while the client does not read. Nothing once it has left."""
        await self._send_frames(*(TextMessage(data=message.decode("utf-8", "replace")) for message in messages))

    async def ping(self) -> None:
        """A sign of life."""
        await self._send_frames(Ping())

    async def answer_pings(self) -> None:
        """Runs beside the session: a pong may have to wait for the client, and the reader must not."""
        while True:
            await self._pinged.wait()
            self._pinged = trio.Event()
            while self._pongs:
                await self._send_frames(self._pongs.popleft())

    def fail(self, code: CloseReason, reason: str) -> None:
        """The client is to be sent away; what it still sends is dropped. Whatever runs for it ends, then `close`."""
        log.info("websocket.refused", code=int(code), reason=reason)
        self._broken = True
        self._goodbye = goodbye(code, reason)
        self._leave()

    async def close(self, code: CloseReason, reason: str = "") -> None:
        """End the session: answer the client's close, or say why, and wait a moment for the client to have read it.

        *code*, *reason*: unless the client is being sent away for another one.
        """
        with trio.move_on_after(CLOSE_S):
            await self._send_frames(self._goodbye or goodbye(code, reason))
        self._leave()
        with trio.move_on_after(LINGER_S if self._broken else CLOSE_S):
            await self._gone.wait()
        with trio.move_on_after(CLOSE_S):  # ends the stream over HTTP/2
            await self._stream.send(EndData(stream_id=self._stream.stream_id))

    def over(self) -> None:
        """Nothing follows; the connection is Hypercorn's to close, without words of its own."""
        if self._frames is not None:
            self._stream.state = ASGIWebsocketState.CLOSED

    async def _send_frames(self, *events: Event) -> None:
        frames = self._frames
        assert frames is not None
        async with self._writing:
            if self._torn:
                return
            with suppress(LocalProtocolError):  # after a close nothing can be said
                await self._write(b"".join([frames.send(event) for event in events]))

    async def _write(self, data: bytes) -> None:
        """In pieces, so that a slow client that does read shows progress to the connection's sweep."""
        stream, waiting, token = self._stream, self._connection.waiting_since, object()
        self._torn = True  # if this is cancelled: what followed would be read as the rest of a frame
        try:
            for start in range(0, len(data), SEND_PIECE_BYTES):
                waiting[token] = trio.current_time()
                await stream.send(Data(stream_id=stream.stream_id, data=data[start : start + SEND_PIECE_BYTES]))
            self._torn = False
        finally:
            waiting.pop(token, None)


def goodbye(code: CloseReason, reason: str) -> CloseConnection:
    """A close frame; the reason is cut to what fits."""
    return CloseConnection(code=int(code), reason=reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore") or None)


def take_over(scope_object: object, connection: Connection) -> ClientSocket | None:
    """Whose messages an ASGI *scope* is about; None when its client is gone or was sent away already."""
    assert connection.protocols is not None
    inner = connection.protocols.protocol.protocol
    streams = inner.streams.values() if hasattr(inner, "streams") else (inner.stream,)
    for stream in streams:
        if isinstance(stream, WSStream) and not stream.closed and stream.scope is scope_object:
            socket = ClientSocket(stream, connection)
            stream.handle = socket.handle  # type: ignore[method-assign]  # see the module
            return socket
    return None
