"""WebSocket clients for tests: a real one, and one that says byte for byte what the test wants."""

import json
import os
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import ClientConnection
from websockets.trio.client import connect as connect_websocket

from tests.proxy import CLIENT_KEY
from tests.server.wire import Reply, Serving, Wire, connect, head

PATH = "/v1/responses"
UPGRADE = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
DEFLATE = "sec-websocket-extensions: permessage-deflate; client_max_window_bits"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})

Event = dict[str, Any]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, mask: bool = True) -> bytes:
    """One frame as a client sends it."""
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    flag = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        start = bytes([first, flag | size])
    elif size < 1 << 16:
        start = bytes([first, flag | 126]) + struct.pack("!H", size)
    else:
        start = bytes([first, flag | 127]) + struct.pack("!Q", size)
    if not mask:
        return start + payload
    return start + b"\0\0\0\0" + payload  # a mask of zeros is one


@attrs.define
class RawSocket:
    """A WebSocket whose frames the test writes and reads itself."""

    wire: Wire
    reply: Reply

    async def send(self, *frames: bytes) -> None:
        """In one go."""
        await self.wire.send(b"".join(frames))

    async def next(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame. Raises: Hangup."""
        first, second = await self.wire.exactly(2)
        size = second & 0x7F
        assert not second & 0x80, "a server's frames are not masked"
        assert not first & 0x70, "no extension was agreed upon for answers"
        if size == 126:
            [size] = struct.unpack("!H", await self.wire.exactly(2))
        elif size == 127:
            [size] = struct.unpack("!Q", await self.wire.exactly(8))
        return first & 0x0F, await self.wire.exactly(size)

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close frame that comes next, or after events."""
        while True:
            opcode, payload = await self.next()
            if opcode == CLOSE:
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


@asynccontextmanager
async def raw_socket(proxy: Serving, *headers: str, path: str = PATH, behind: bytes = b"") -> AsyncIterator[RawSocket]:
    """A connection after its handshake. *behind*: sent together with that."""
    async with connect(proxy.url) as wire:
        await wire.send(head("GET", path, headers=(*UPGRADE, *headers)) + behind)
        yield RawSocket(wire, await wire.head())


@asynccontextmanager
async def real_socket(
    proxy_url: str,
    *,
    headers: Mapping[str, str] | None = None,
    path: str = PATH,
    key: str | None = CLIENT_KEY,
    **options: Any,
) -> AsyncIterator[ClientConnection]:
    """A connection of a published client."""
    sent = {} if key is None else {"authorization": f"Bearer {key}"}
    url = proxy_url.replace("http", "ws", 1) + path
    options.setdefault("max_size", None)
    async with connect_websocket(url, additional_headers={**sent, **(headers or {})}, proxy=None, **options) as socket:
        yield socket


async def events_of(socket: ClientConnection) -> list[Event]:
    """The events of one answer, to its end."""
    events: list[Event] = []
    while not events or events[-1]["type"] not in ENDS:
        message = await socket.recv()
        assert isinstance(message, str)
        events.append(json.loads(message))
    return events


async def ask(socket: ClientConnection, *items: object, **members: object) -> list[Event]:
    """Send a `response.create` and take its answer."""
    await socket.send(json.dumps({"type": "response.create", "input": items, **members}))
    return await events_of(socket)


def user(text: str) -> Event:
    """A message of the user."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def text_of(events: Iterable[Event]) -> str:
    """What an answer says."""
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def noise(size_bytes: int) -> bytes:
    """What does not compress."""
    return os.urandom(size_bytes // 2).hex().encode()


def create(**members: object) -> bytes:
    """A message as JSON."""
    return json.dumps({"type": "response.create", "model": "responses", "input": [user("hi")], **members}).encode()


async def settled(proxy: Serving) -> None:
    """Until no connection is left; asserts that nothing else kept it."""
    await proxy.quiet()
    assert not proxy.connections
    await trio.lowlevel.checkpoint()


async def close_code(socket: ClientConnection) -> int:
    """Of the close that ends *socket*; whatever comes before is dropped."""
    with suppress(ConnectionClosed):
        while True:
            await socket.recv()
    assert socket.close_code is not None
    return int(socket.close_code)
