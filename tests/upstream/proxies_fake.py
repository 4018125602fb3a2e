"""A tiny HTTP proxy (CONNECT and absolute form) and a tiny SOCKS5 server; both send everything to one port."""

import base64
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from tests.upstream.scripted import Peer, open_server


@attrs.define(eq=False)
class FakeProxy:
    """A running proxy.

    Attributes:
      targets: where clients wanted to go, one per connection or absolute-form request.
      refuse: answers 403 (HTTP) or "not allowed" (SOCKS).
      garbage: answers in another protocol.
      stall: never answers.
    """

    target_port: int
    port: int = 0
    targets: list[str] = attrs.field(factory=list)
    credentials: list[str] = attrs.field(factory=list)
    refuse: bool = False
    garbage: bool = False
    stall: bool = False


@asynccontextmanager
async def open_http_proxy(target_port: int) -> AsyncIterator[FakeProxy]:
    """CONNECT tunnels; absolute-form requests are forwarded one per connection."""
    proxy = FakeProxy(target_port)

    async def handle(peer: Peer) -> None:
        request = await peer.request()
        if request is None:
            return
        verb, target, _ = request.head.split(b"\r\n")[0].split(b" ")
        proxy.targets.append(target.decode())
        given = request.header(b"proxy-authorization")
        if given:
            proxy.credentials.append(base64.b64decode(given.removeprefix(b"Basic ")).decode())
        if proxy.stall:
            await trio.sleep_forever()
        if proxy.garbage:
            await peer.send(b"\0\1\2\3\r\n\r\n")
        elif proxy.refuse:
            await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            upstream = await trio.open_tcp_stream("127.0.0.1", proxy.target_port)
            if verb == b"CONNECT":
                await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                await upstream.send_all(request.head + request.body)
            await splice(peer.stream, upstream)

    async with open_server(handle) as server:
        proxy.port = server.port
        yield proxy


@asynccontextmanager
async def open_socks_proxy(target_port: int, *, login: tuple[str, str] | None = None) -> AsyncIterator[FakeProxy]:
    """SOCKS5 with domain names and IPv4, with or without user name and password."""
    proxy = FakeProxy(target_port)

    async def handle(peer: Peer) -> None:
        stream = peer.stream
        _, count = await exactly(stream, 2)
        await exactly(stream, count)
        if proxy.stall:
            await trio.sleep_forever()
        if proxy.garbage:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        if login is not None:
            await peer.send(b"\x05\x02")
            _, size = await exactly(stream, 2)
            user = (await exactly(stream, size)).decode()
            (size,) = await exactly(stream, 1)
            password = (await exactly(stream, size)).decode()
            proxy.credentials.append(f"{user}:{password}")
            await peer.send(b"\x01" + (b"\x00" if (user, password) == login else b"\x01"))
        else:
            await peer.send(b"\x05\x00")
        _, _, _, kind = await exactly(stream, 4)
        if kind == 3:
            (size,) = await exactly(stream, 1)
            host = (await exactly(stream, size)).decode()
        else:
            host = ".".join(str(part) for part in await exactly(stream, 4))
        (port,) = struct.unpack("!H", await exactly(stream, 2))
        proxy.targets.append(f"{host}:{port}")
        await peer.send(b"\x05" + (b"\x02" if proxy.refuse else b"\x00") + b"\x00\x01\0\0\0\0\0\0")
        if not proxy.refuse:
            await splice(stream, await trio.open_tcp_stream("127.0.0.1", proxy.target_port))

    async with open_server(handle) as server:
        proxy.port = server.port
        yield proxy


async def exactly(stream: trio.abc.Stream, size: int) -> bytes:
    """That many bytes."""
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise trio.BrokenResourceError("the client left")
        data += more
    return data


async def splice(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Copy both ways until either side ends; closes *other*."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, one, other, nursery.cancel_scope)
            nursery.start_soon(copy, other, one, nursery.cancel_scope)
    finally:
        await trio.aclose_forcefully(other)


async def copy(source: trio.abc.Stream, target: trio.abc.Stream, scope: trio.CancelScope) -> None:
    """Copy until *source* ends, then cancel *scope*."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await target.send_all(data)
    scope.cancel()
