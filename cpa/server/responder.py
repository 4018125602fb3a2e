"""One client's answer on its way out: the head once, then bytes, with signs of life while there are none.

All deadlines are the connection's (listener.py); a write here blocks as long as its client reads, which is what keeps a
fast provider from filling memory for a slow client.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

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


class Direct(Protocol):
    """What an answer is written to without messages (http1.Exchange)."""

    def begin(self, status: int, headers: RawHeaders, fixed: RawHeaders = ()) -> None:
        """Give the head, which leaves with the first bytes. *fixed*: headers that are the same for many answers."""
        ...

    async def write(self, data: bytes, *, more: bool) -> None:
        """Give bytes of the body, the last ones unless there are *more*."""
        ...


@attrs.define(kw_only=True, eq=False)
class Responder:
    """Writes one answer.

    Attributes:
      status: of the head that was sent, 0 before.
      told: what logs say instead of *status*; 0 = the same.
      body_bytes: written so far.
      hold: tells the connection that the next bytes may wait for those that follow them at once.
      complete: the last byte was handed over; a client that hangs up now has all it asked for.
      cors: what the head says to pages of other sites.
      direct: where to write instead of *send*; None = there is only that.
    """

    send: Send
    hold: Callable[[], None] = lambda: None
    status: int = 0
    told: int = 0
    body_bytes: int = 0
    complete: bool = False
    cors: RawHeaders = CORS
    direct: Direct | None = None
    _last_write: float = 0.0
    _lock: trio.Lock | None = None
    """Since there are signs of life: two tasks write then."""

    @property
    def committed(self) -> bool:
        """The head is out: from here on errors are told inside the answer."""
        return self.status != 0

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head, unless a sign of life was there first. The caller writes at once: both leave together."""
        if self._lock is None:
            await self._start(status, headers)
            return
        async with self._lock:
            if not self.committed:
                await self._start(status, headers)

    async def _start(self, status: int, headers: RawHeaders) -> None:
        self.status = int(status)
        if self.direct is not None:
            self.direct.begin(self.status, headers, self.cors)
            return
        self.hold()
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *self.cors]})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body, which leaves at once."""
        if self._lock is None:
            self.body_bytes += len(data)
            if self.direct is not None:
                await self.direct.write(data, more=True)
            else:
                await self._write(data, more=True)
            return
        async with self._lock:
            self.body_bytes += len(data)
            await self._write(data, more=True)
            self._last_write = trio.current_time()

    async def _write(self, data: bytes, *, more: bool) -> None:
        if self.direct is not None:
            await self.direct.write(data, more=more)
        else:
            await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def end(self) -> None:
        """Complete the answer."""
        if self._lock is not None:
            await self._lock.acquire()  # never given back: nothing may follow the end
        self.complete = True
        await self._write(b"", more=False)

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a complete answer; after a sign of life only its body can still be said."""
        if self._lock is not None:
            await self._lock.acquire()  # never given back: nothing may follow
        self.body_bytes += len(body)
        if not self.committed:
            await self._start(status, (*headers, (b"content-length", b"%d" % len(body))))
        self.complete = True
        await self._write(body, more=False)

    async def keep_alive(self, frame: bytes, interval_s: float, *, head: tuple[int, RawHeaders] | None) -> None:
        """Write *frame* whenever nothing was written for *interval_s*; runs until cancelled.

        *head* is sent first if nothing was sent yet; with None the sign of life waits for the answer's own head.
        """
        lock = self._lock = trio.Lock()
        self._last_write = trio.current_time()
        while True:
            await trio.sleep_until(self._last_write + interval_s)
            async with lock:
                if trio.current_time() - self._last_write < interval_s:
                    continue
                self._last_write = trio.current_time()
                if not self.committed:
                    if head is None:
                        continue
                    await self._start(*head)
                self.body_bytes += len(frame)
                await self._write(frame, more=True)
                self._last_write = trio.current_time()
