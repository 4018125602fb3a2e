"""One client's answer on its way out: the head once, then bytes, with signs of life while there are none.

All deadlines are the connection's (listener.py); a write here blocks as long as its client reads, which is what keeps a
fast provider from filling memory for a slow client.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs
import trio

from cpa.errors import RawHeaders

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""ASGI's send."""

CORS: RawHeaders = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (
        b"access-control-expose-headers",
        b"X-CPA-TRACE-ID, X-CPA-VERSION, X-CPA-COMMIT, X-CPA-BUILD-DATE, X-CPA-SUPPORT-PLUGIN, X-CPA-HOME-VERSION, "
        b"X-CPA-HOME-BUILD-DATE, X-SERVER-VERSION, X-SERVER-BUILD-DATE, Location, Retry-After, Request-Id, "
        b"X-Request-Id, OpenAI-Request-Id, X-CPA-Loss",
    ),
)
STREAM_HEADERS: RawHeaders = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


@attrs.define(kw_only=True, eq=False)
class Responder:
    """Writes one answer.

    Attributes:
      status: of the head that was sent, 0 before.
      body_bytes: written so far.
      last_write: Trio clock of the last write's end.
      hold: tells the connection that the next bytes may wait for those that follow them at once.
      complete: the last byte was handed over; a client that hangs up now has all it asked for.
      cors: what the head says to pages of other sites.
    """

    send: Send
    hold: Callable[[], None] = lambda: None
    status: int = 0
    body_bytes: int = 0
    complete: bool = False
    cors: RawHeaders = CORS
    last_write: float = attrs.field(factory=trio.current_time)
    _lock: trio.Lock = attrs.field(factory=trio.Lock)
    _guarded: bool = False

    @property
    def committed(self) -> bool:
        """The head is out: from here on errors are told inside the answer."""
        return self.status != 0

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head, unless a sign of life was there first. The caller writes at once: both leave together."""
        if self._guarded:
            async with self._lock:
                if not self.committed:
                    await self._start(status, headers)
        else:
            await self._start(status, headers)

    async def _start(self, status: int, headers: RawHeaders) -> None:
        self.status = int(status)
        self.hold()
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *self.cors]})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, which leaves at once."""
        if self._guarded:
            async with self._lock:
                await self._write(data)
        else:
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        self.body_bytes += len(data)
        await self.send({"type": "http.response.body", "body": data, "more_body": True})
        self.last_write = trio.current_time()

    async def end(self) -> None:
        """Complete the answer."""
        if self._guarded:
            await self._lock.acquire()  # never given back: nothing may follow the end
        self.complete = True
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a complete answer; after a sign of life only its body can still be said."""
        if self._guarded:
            await self._lock.acquire()  # never given back: nothing may follow
        self.body_bytes += len(body)
        if not self.committed:
            await self._start(status, (*headers, (b"content-length", b"%d" % len(body))))
        self.complete = True
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def keep_alive(self, frame: bytes, interval_s: float, *, head: tuple[int, RawHeaders] | None) -> None:
        """Write *frame* whenever nothing was written for *interval_s*; runs until cancelled.

        *head* is sent first if nothing was sent yet; with None the sign of life waits for the answer's own head.
        """
        self._guarded = True
        while True:
            await trio.sleep_until(self.last_write + interval_s)
            async with self._lock:
                if trio.current_time() - self.last_write < interval_s:
                    continue
                if not self.committed:
                    if head is None:
                        self.last_write = trio.current_time()
                        continue
                    await self._start(*head)
                await self._write(frame)
