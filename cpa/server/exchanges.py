"""How Hypercorn's protocols run exchanges, mended where one could harm others or outlive its client."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.events import Body
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BUFFER_LOW_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.worker_context import EventWrapper

from cpa.server.http1 import SEND_PIECE_BYTES, Message

Send = Callable[[Any], Awaitable[None]]


class Pause(EventWrapper):
    """HTTP/1.1's wait for the end of an exchange while bytes of the next one are there already.

    Hypercorn reads nothing meanwhile, so that the client's leaving would not be noticed. Here *read_ahead* runs; it
    returns when the client has left.
    """

    def __init__(self, read_ahead: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._read_ahead = read_ahead

    async def wait(self) -> None:
        """Raises: trio.BrokenResourceError when the client has left."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._read_ahead()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await super().wait()
            nursery.cancel_scope.cancel()
        if not self.is_set():
            raise trio.BrokenResourceError("the client left")


class Streams(dict[int, Any]):
    """HTTP/2 exchanges of a connection by id. One that is over takes data without harm to the others.

    Hypercorn fails on data for an exchange that was answered early, and all others of the connection with it.
    """

    def __init__(self, protocol: H2Protocol) -> None:
        super().__init__(protocol.streams)
        self._protocol = protocol

    def __missing__(self, stream_id: int) -> "Streams":
        return self

    async def handle(self, event: StreamEvent) -> None:
        """Stop a client that still sends (RFC 9113 8.1: an answer may be complete before its request)."""
        if isinstance(event, Body):
            with suppress(ProtocolError):
                self._protocol.connection.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)


class Buffer(StreamBuffer):
    """What an HTTP/2 exchange wrote and its client has not taken; full, it makes the exchange wait.

    Hypercorn's own one lets the exchange go on whenever nothing could be sent, and so grows without limit for a client
    that grants no window.
    """

    async def push(self, data: bytes) -> None:
        """See `StreamBuffer`."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """See `StreamBuffer`."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Buffers(dict[int, StreamBuffer]):
    """The buffers of a connection's exchanges, of our kind."""

    def __init__(self, protocol: H2Protocol) -> None:
        super().__init__()
        for stream_id, buffer in protocol.stream_buffers.items():
            self[stream_id] = buffer

    def __setitem__(self, stream_id: int, buffer: StreamBuffer) -> None:
        super().__setitem__(stream_id, Buffer(EventWrapper))


class ExchangeTasks(TaskGroup):
    """Runs the exchanges of one connection.

    Unlike in Hypercorn, an exchange that does not read its request's body blocks neither the connection nor itself.

    *waiting_since*: gets the Trio time of each message of an HTTP/2 exchange that waits for its client to take what
    came before; the socket does not show that.
    """

    def __init__(self, waiting_since: dict[object, float]) -> None:
        super().__init__()
        self._waiting_since = waiting_since

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        """Start an exchange. Returns: where its events go."""
        assert self._nursery is not None
        put, take = trio.open_memory_channel[Message](config.max_app_queue_size)
        last: Message = {"type": f"{scope['type']}.disconnect"}

        async def receive() -> Any:
            try:
                return await take.receive()
            except trio.EndOfChannel:
                return last

        async def give(message: Message) -> None:
            if message["type"] == last["type"]:
                last.update(message)
                put.close()
            else:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await put.send(message)

        async def run() -> None:
            with take:
                out = partial(self._in_pieces, send) if scope["http_version"] == "2" else send
                await _handle(app, config, scope, receive, out, trio.to_thread.run_sync, trio.from_thread.run)

        self._nursery.start_soon(run)
        return give

    async def _in_pieces(self, send: Send, message: Message | None) -> None:
        body = b"" if message is None else message.get("body", b"")
        token, waiting = object(), self._waiting_since
        try:
            while len(body) > SEND_PIECE_BYTES:
                waiting[token] = trio.current_time()
                await send({"type": "http.response.body", "body": body[:SEND_PIECE_BYTES], "more_body": True})
                body = body[SEND_PIECE_BYTES:]
                message = {**(message or {}), "body": body}
            waiting[token] = trio.current_time()
            await send(message)
        finally:
            waiting.pop(token, None)
