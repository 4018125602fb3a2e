"""HTTP/1.1 of a client connection by llhttp, for the plain requests that nearly all traffic consists of.

Theory of operation. The application runs in the connection's own task: no task, channel or event per request, and a
body's bytes go to it as they were read. Only what can be said in two sentences is served here: a well-formed HTTP/1.1
head with one Host, a body with a Content-Length or none. Anything else (an upgrade, HTTP/2, HTTP/1.0, a chunked body,
an expectation, a wrong head) is handed back unread, and the connection is Hypercorn's from then on, whose answers
to such heads are the reference. So two parsers never disagree about where a request ends: this one only takes what
neither could read in another way.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any, Final
from urllib.parse import unquote
from wsgiref.handlers import format_date_time

import attrs
import httptools
import trio

from cpa.errors import RawHeaders
from cpa.observability.log import get_logger
from cpa.server.body import LINGER_S

log = get_logger()

MAX_HEAD_BYTES: Final = 64 << 10
"""Agents send about 2 KiB; proxies in between add some. More than nginx's 32 KiB, less than an attack needs."""
AHEAD_BYTES: Final = 256 << 10
"""What a client may send ahead of the answer that it waits for; one that sends more is treated as gone."""
SEND_PIECE_BYTES: Final = 256 << 10
"""A larger write goes out in pieces, so that a slow client that does read shows progress to the sweep."""
SKIP_BYTES: Final = 64 << 10
"""A body that the application did not read is read and forgotten up to this size; beyond, the connection ends."""

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
"""Of ASGI."""

_HARMLESS: Final = bytes(code for code in range(256) if code in b"\t\r\n" or (code >= 0x20 and code != 0x7F))
"""All but control characters."""
_TARGET: Final = re.compile(rb"/[\x21-\x7e]*")
_ELSEWHERE: Final = frozenset({b"transfer-encoding", b"upgrade", b"expect", b"http2-settings"})
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODILESS: Final = frozenset({204, 304})
_GONE: Final[Message] = {"type": "http.disconnect"}
_ASGI: Final[Message] = {"spec_version": "2.1", "version": "3.0"}
EXTENSION: Final = "cpa.exchange"
"""Of the ASGI scope: the `Exchange`, for who would rather talk to it than by messages."""


@attrs.define(kw_only=True, eq=False)
class Request:
    """The head of a request. *headers* have lower-case names. *length*: of the body. *keep*: the connection stays."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    length: int
    keep: bool


class _Head:
    """What llhttp calls back. It judges the head; what the lines are is plain to see then."""

    __slots__ = ("complete", "target")

    def __init__(self) -> None:
        self.target = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_headers_complete(self) -> None:
        self.complete = True


def read_head(head: bytes) -> Request | None:
    """*head* with the blank line at its end, or None when it is not for here."""
    lines = head.count(b"\r\n")
    if (
        head.translate(None, _HARMLESS)
        or not (head.count(b"\n") == lines == head.count(b"\r"))  # bare line feeds or carriage returns
        or b"\n " in head  # folded lines
        or b"\n\t" in head
    ):
        return None
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if not found.complete or parser.get_http_version() != "1.1" or not _TARGET.fullmatch(found.target):
        return None
    headers = [
        (name.lower(), value.strip(b" \t"))
        for name, value in [line.split(b":", 1) for line in head[:-4].split(b"\r\n")[1:]]
    ]
    names = [name for name, _ in headers]
    method = parser.get_method()
    if names.count(b"host") != 1 or not _ELSEWHERE.isdisjoint(names) or not method.isalpha() or method == b"CONNECT":
        return None
    length, keep = 0, True
    if b"content-length" in names:
        text = headers[names.index(b"content-length")][1]
        if names.count(b"content-length") != 1 or not _LENGTH.fullmatch(text):
            return None
        length = int(text)
    if b"connection" in names:
        for name, value in headers:
            if name == b"connection" and value != b"keep-alive":
                told = value.strip().lower()
                if told not in (b"keep-alive", b"close"):
                    return None
                keep = keep and told == b"keep-alive"
    return Request(method=method.decode().upper(), target=found.target, headers=headers, length=length, keep=keep)


@attrs.define(kw_only=True, eq=False)
class Exchange:
    """One request and its answer, as ASGI has them.

    Attributes:
      read: the next bytes of the connection, empty at its end; _write: writes, False when the client is gone.
      ahead: bytes that were read and not used; after the exchange those of the next request.
      unread: bytes of the request's body that the application has not taken.
      started, complete: the answer's head, and all of it, was given.
      gone: the client left.
      keep: the connection stays; false as soon as either side wants it to end.
    """

    request: Request
    read: Callable[[], Awaitable[bytes]]
    _write: Callable[[bytes], Awaitable[bool]]
    ahead: bytearray
    unread: int = attrs.field(init=False)
    started: bool = False
    complete: bool = False
    gone: bool = False
    keep: bool = attrs.field(init=False)
    _asked: bool = False
    _head: bytes = b""
    _chunked: bool = False
    _silent: bool = False
    _left: int | None = None

    def __attrs_post_init__(self) -> None:
        self.unread = self.request.length
        self.keep = self.request.keep

    def body(self) -> bytes | None:
        """The request's whole body if all of it has come with its head, and nobody asked for it yet; else None."""
        length, ahead = self.unread, self.ahead
        if self._asked or len(ahead) < length or length < self.request.length:
            return None
        self._asked, self.unread = True, 0
        body = bytes(ahead) if len(ahead) == length else bytes(ahead[:length])
        del ahead[:length]
        return body

    async def receive(self) -> Message:
        """ASGI's receive. Cancellation: nothing is lost, the call may be repeated."""
        if self.unread:
            if self.ahead:
                piece = bytes(self.ahead[: self.unread])
                del self.ahead[: len(piece)]
            else:
                piece = await self.read()
                if not piece:
                    self.gone = True
                    return _GONE
                if len(piece) > self.unread:
                    self.ahead += piece[self.unread :]
                    piece = piece[: self.unread]
            self.unread -= len(piece)
            self._asked = True
            return {"type": "http.request", "body": piece, "more_body": self.unread > 0}
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while not (self.complete or self.gone or len(self.ahead) >= AHEAD_BYTES):
            data = await self.read()
            self.ahead += data
            self.gone = not data
        self.gone = self.gone or not self.complete
        return _GONE

    async def send(self, message: Message) -> None:
        """ASGI's send. What is sent to a client that left, or after the end, is dropped. Raises: ValueError."""
        if message["type"] == "http.response.start":
            self.begin(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            if not self.started:
                raise ValueError("an answer begins with its head")
            await self.write(message.get("body", b""), more=message.get("more_body", False))

    def begin(self, status: int, headers: RawHeaders, fixed: RawHeaders = ()) -> None:
        """Begin the answer. Nothing is written yet: head and first bytes leave together. Raises: ValueError.

        *fixed*: more headers, of a few sets that do not change and say nothing of the connection or the body.
        """
        if self.started:
            raise ValueError("the answer has begun already")
        lines, names, length, dated = [], [], None, False
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self.keep = self.keep and value.strip().lower() != b"close"
                continue
            elif name == b"transfer-encoding":
                continue
            elif name == b"date":
                dated = True
            names.append(name)
            lines.append(b"%b: %b\r\n" % (name, value))
        if not dated:
            lines.append(_date_line(int(time())))
        silent = status in _BODILESS or self.request.method == "HEAD"
        chunked = length is None and not silent
        if chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"connection: keep-alive\r\n" if self.keep else b"connection: close\r\n")
        self._head = b"%b%b%b\r\n" % (_status_line(status), checked(lines, names), _rendered(fixed) if fixed else b"")
        self.started, self._silent, self._chunked, self._left = True, silent, chunked, length

    async def write(self, data: bytes, *, more: bool) -> None:
        """The next bytes of the answer's body, its last ones unless there are *more*. Raises: ValueError."""
        if self.complete or self.gone:
            return
        if self._silent:
            data = b""
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise ValueError("the answer's body has another length than its head says")
        if self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            data = b"%b%x\r\n%b\r\n%b" % (self._head, len(data), data, end) if data else self._head + end
        elif self._head:
            data = self._head + data
        self._head = b""
        if data and not await self._write(data):
            self.gone = True
        self.complete = not more

    async def refuse(self) -> None:
        """Answer for an application that failed, while that can still be said."""
        if not self.started:
            self.keep = False
            self.begin(HTTPStatus.INTERNAL_SERVER_ERROR, ((b"content-length", b"0"),))
            await self.write(b"", more=False)


async def exchange(app: App, one: Exchange, scope: Message) -> bool:
    """Run *app* for one exchange. Returns: the connection can go on with the next request."""
    try:
        await app(scope, one.receive, one.send)
        if not one.complete:
            await one.refuse()
    except Exception:
        log.exception("request.crashed")
        await one.refuse()
    if one.complete and one.keep and 0 < one.unread <= SKIP_BYTES:
        with trio.move_on_after(LINGER_S):  # nobody wanted it; what follows is the next request
            while one.unread and not one.gone:
                await one.receive()
    return one.complete and one.keep and not one.gone and not one.unread


def scope_of(
    one: Exchange, *, tls: bool, client: tuple[str, int] | None, server: tuple[str, int] | None, state: Message
) -> Message:
    """The ASGI scope of *one*, which the application finds among the extensions."""
    request = one.request
    path, _, query = request.target.partition(b"?")
    text = path.decode("ascii")
    return {
        "type": "http",
        "http_version": "1.1",
        "asgi": _ASGI,
        "method": request.method,
        "scheme": "https" if tls else "http",
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": request.headers,
        "client": client,
        "server": server,
        "state": dict(state),
        "extensions": {EXTENSION: one},
    }


def head_end(data: bytearray) -> int:
    """Where the head at the start of *data* ends.

    Returns: 0 while it is not complete; -1 when it will never be one for here.
    """
    if data and not 0x41 <= data[0] <= 0x5A:  # methods are in capitals; a TLS greeting or an empty line is none
        return -1
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        return end + 4 if end + 4 <= MAX_HEAD_BYTES else -1
    return -1 if len(data) >= MAX_HEAD_BYTES or b"\n\n" in data or b"\n\r\n" in data else 0


def checked(lines: list[bytes], names: list[bytes]) -> bytes:
    """*lines* of headers as one; *names* are theirs. A value from elsewhere can end neither its line nor the head.

    Raises: ValueError.
    """
    fields = b"".join(lines)
    ends = len(lines)
    if (
        not (fields.count(b"\r\n") == fields.count(b"\n") == fields.count(b"\r") == ends)
        or fields.translate(None, _HARMLESS)
        or not all(names)
        or b"".join(names).translate(None, _TOKEN)
    ):
        raise ValueError("a header of the answer holds what no header may")
    return fields


@lru_cache(maxsize=16)
def _rendered(headers: RawHeaders) -> bytes:
    """The lines of *headers*. Raises: ValueError."""
    return checked([b"%b: %b\r\n" % pair for pair in headers], [name for name, _ in headers])


@lru_cache(maxsize=1)
def _date_line(now_s: int) -> bytes:
    return b"date: %s\r\n" % format_date_time(now_s).encode()


@lru_cache(maxsize=256)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode())
