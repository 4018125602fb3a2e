"""A trap for whatever an agent sends beyond loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

MAX_HEAD_BYTES = 16 << 10


@attrs.define(kw_only=True, eq=False)
class Outside:
    """An HTTP proxy that lets nothing through; made by `open_outside`.

    Attributes:
      url: for ``HTTPS_PROXY`` and the like.
      wanted: the first line of each request that it got, such as ``CONNECT telemetry.example:443 HTTP/1.1``.
    """

    url: str = ""
    wanted: list[str] = attrs.field(factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Leads every connection but those to loopback here."""
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        found = {spelled: self.url for name in names for spelled in (name, name.lower())}
        return {**found, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}

    async def refuse(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        async with stream:
            head = b""
            try:
                while b"\r\n" not in head and len(head) < MAX_HEAD_BYTES:
                    if not (data := await stream.receive_some()):
                        return
                    head += data
                self.wanted.append(head.split(b"\r\n", 1)[0].decode("latin-1"))
                await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except trio.BrokenResourceError:
                return


@asynccontextmanager
async def open_outside() -> AsyncIterator[Outside]:
    """A trap while the block runs."""
    outside = Outside()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        outside.url = f"http://127.0.0.1:{port}"
        nursery.start_soon(trio.serve_listeners, outside.refuse, listeners)
        try:
            yield outside
        finally:
            nursery.cancel_scope.cancel()
