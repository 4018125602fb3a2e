"""HTTP/1.1 without I/O: a request to bytes, bytes to a response.

Theory of operation. `encode_request` renders the head in one piece and leaves the body in the buffers it came in, so
that the connection can send all of them by one scatter write. `ResponseReader` is fed whatever a receive call returned
and keeps the head and the body bytes that are not taken yet. One reader reads one response: it has a parser of its
own, and both are dropped with the response, so nothing of one exchange can reach the next one.
"""

import re
from collections.abc import AsyncIterator
from typing import TypeAlias

import httptools
import httpx
import msgspec

from cpa.errors import RawHeaders

HeaderList: TypeAlias = list[tuple[bytes, bytes]]
"""Response headers as on the wire, in order, repeats kept, outer blanks of values removed."""

MAX_IDLE_BYTES = 64 * 1024
"""Received in a row without one byte of body. All interim and final heads together: servers allow 8 to 32 KiB, large
cookies and policies fit in 64. Framing (chunk extensions, trailers): honest servers send some dozen bytes."""

HEAD_TOO_LARGE = f"response head larger than {MAX_IDLE_BYTES} bytes"

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_UNSAFE_TARGET = re.compile(rb"[\x00-\x20\x7f]")


class BufferStream(httpx.AsyncByteStream):
    """A request body that is in memory already, in pieces that are sent without being joined.

    Attributes:
      buffers: the body; joined they are what the provider receives. Empty pieces are allowed.
    """

    def __init__(self, buffers: tuple[bytes, ...]) -> None:
        self.buffers = buffers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Only foreign transports come here (those to HTTP and SOCKS proxies); ours sends `buffers` itself.
        for buffer in self.buffers:
            if buffer:
                yield buffer


class OutgoingRequest(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A request ready to be written. A msgspec struct, because there is one per request.

    Attributes:
      head: request line and headers up to the empty line.
      buffers: the whole body, or None when it comes from *stream*.
      length: bytes of the body, or None: it is sent chunked.
      stream: a body that is not in memory; it can be sent once only.
      head_only: the answer has no body, whatever its headers say (HEAD).
    """

    head: bytes
    buffers: tuple[bytes, ...] | None
    length: int | None
    stream: httpx.AsyncByteStream | None = None
    head_only: bool = False


def encode_request(request: httpx.Request) -> OutgoingRequest:
    """Render *request*.

    The headers go out as given; ``Host`` and the framing of the body are added where they are missing.
    Raises: httpx.LocalProtocolError for what would break the framing (line breaks or NUL anywhere, a name that is no
      token, a length that contradicts the body).
    """
    url = request.url
    method = request.method.encode("latin-1", "replace")
    buffers = _buffers_of(request)
    extra, length = _framing(request, buffers)
    return OutgoingRequest(
        head=render_head(method, url.raw_path or b"/", [*extra, *request.headers.raw]),
        buffers=buffers,
        length=length,
        stream=request.stream if buffers is None and isinstance(request.stream, httpx.AsyncByteStream) else None,
        head_only=method == b"HEAD",
    )


def add_framing(request: httpx.Request) -> None:
    """Add to the headers of *request* what `encode_request` would add, for transports that do not.

    Raises: httpx.LocalProtocolError as `encode_request` does for contradicting headers.
    """
    extra, _ = _framing(request, _buffers_of(request))
    for name, value in extra:
        request.headers[name.decode("ascii")] = value.decode("ascii")


def _buffers_of(request: httpx.Request) -> tuple[bytes, ...] | None:
    body = request.stream
    if isinstance(body, BufferStream):
        return body.buffers
    if isinstance(body, httpx.ByteStream):
        return tuple(body)
    if isinstance(body, httpx.AsyncByteStream):
        return None
    raise httpx.LocalProtocolError("the request body is not an asynchronous stream")


def _framing(request: httpx.Request, buffers: tuple[bytes, ...] | None) -> tuple[HeaderList, int | None]:
    """Headers that *request* lacks, and the length that its body must have (None: chunked, or no length given)."""
    host: bytes | None = None
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in request.headers.raw:
        lowered = name.lower()
        if lowered == b"host":
            host = _once(host, value, lowered)
        elif lowered == b"content-length":
            length = _once(length, value, lowered)
        elif lowered == b"transfer-encoding":
            coding = _once(coding, value, lowered)
    extra: HeaderList = []
    if host is None:
        extra.append((b"Host", request.url.netloc))
    declared = _declared_length(length, coding)
    if buffers is None:
        if declared is None and coding is None:
            extra.append((b"Transfer-Encoding", b"chunked"))
        return extra, declared
    total = sum(map(len, buffers))
    if coding is not None:
        raise httpx.LocalProtocolError("Transfer-Encoding given for a body of known length")
    if declared is None:
        if total or request.method not in ("GET", "HEAD", "OPTIONS"):
            extra.append((b"Content-Length", b"%d" % total))
    elif declared != total:
        raise httpx.LocalProtocolError(f"Content-Length is {declared}, but the body has {total} bytes")
    return extra, total


def _once(seen: bytes | None, value: bytes, name: bytes) -> bytes:
    """Two of these headers are the classic way to make two servers see two different requests."""
    if seen is not None:
        raise httpx.LocalProtocolError(f"header {name.decode('ascii')} is given twice")
    return value


def _declared_length(length: bytes | None, coding: bytes | None) -> int | None:
    if coding is not None:
        if length is not None:
            raise httpx.LocalProtocolError("both Content-Length and Transfer-Encoding are given")
        if coding.strip().lower() != b"chunked":
            raise httpx.LocalProtocolError("a Transfer-Encoding other than chunked is not supported")
    if length is None:
        return None
    if not length.isdigit():
        raise httpx.LocalProtocolError("Content-Length is not a number")
    return int(length)


def render_head(method: bytes, target: bytes, headers: HeaderList) -> bytes:
    """Request line, *headers* and the empty line. Raises: httpx.LocalProtocolError as `encode_request` does."""
    # The checks work on joined bytes, a few C calls for all headers instead of some per header.
    names = [name for name, _ in headers]
    if not method or method.translate(None, _TOKEN):
        raise httpx.LocalProtocolError("the request method is not a token")
    if not all(names) or b"".join(names).translate(None, _TOKEN):
        raise httpx.LocalProtocolError("a request header has a name that is not a token")
    if _UNSAFE_TARGET.search(target):
        raise httpx.LocalProtocolError("the request target has blanks or control characters")
    lines = [b"%b: %b" % header for header in headers]
    head = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), *lines, b"", b""))
    breaks = len(lines) + 2
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise httpx.LocalProtocolError("a request header has a line break or NUL in its value")
    return head


class ResponseReader:
    """Reads one response.

    Attributes:
      started: a byte of the response has come.
      status: of the final (not 1xx) response, 0 as long as its head is not complete.
      headers, reason, http_version: of that response, as on the wire; only if the constructor was told *detailed*, for
        httpx's responses have them, and nobody else wants them.
      complete: the body is there to its end.
      pieces: body bytes that `take` has not given yet.
    """

    __slots__ = (
        "_detailed",
        "_fault",
        "_finished",
        "_framed",
        "_head_only",
        "_idle_bytes",
        "_keep_alive",
        "_lowered",
        "_parser",
        "_past_bytes",
        "complete",
        "headers",
        "http_version",
        "pieces",
        "reason",
        "started",
        "status",
    )

    def __init__(self, *, head_only: bool, detailed: bool = True) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._head_only = head_only
        self._fault = ""
        # Received without a piece of body among it since the last one: heads, and later framing.
        self._idle_bytes = 0
        # Of heads: all interim ones, and the final one's reason.
        self._past_bytes = 0
        # What the response says; False as well from the first byte on that nobody asked for.
        self._keep_alive = False
        self._finished = False
        # The end of the body is told by its framing, not by the end of the connection.
        self._framed = False
        self._detailed = detailed
        self._lowered: HeaderList = []
        self.started = False
        self.complete = False
        self.status = 0
        self.reason = b""
        self.http_version = b"HTTP/1.1"
        self.headers: HeaderList = []
        self.pieces: list[bytes] = []

    # -- what the connection does --

    def feed(self, data: bytes | memoryview) -> None:
        """Take what a receive call returned (1..n bytes; not kept). Raises: httpx.RemoteProtocolError."""
        parser = self._parser
        if parser is None:
            self._keep_alive = False
            return
        self.started = True
        self._idle_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = self._fault or "the server switched protocols unasked"
        except httptools.HttpParserError as exc:
            # After the end of the response it is not part of it: the response stands, the connection does not.
            self._keep_alive = False
            if not self.complete and not self._fault:
                self.discard()
                raise httpx.RemoteProtocolError(f"malformed response: {exc}") from exc
        if self._idle_bytes > MAX_IDLE_BYTES and not self.complete:
            what = "endless chunk extensions or trailers" if self.status else HEAD_TOO_LARGE
            self._fault = self._fault or what
        if self._fault:
            self.discard()
            raise httpx.RemoteProtocolError(self._fault)
        if self.complete:
            self._parser = None

    def feed_eof(self, *, clean: bool) -> None:
        """The server closed its side; *clean* is False when TLS was cut without its closing alert.

        Raises: httpx.RemoteProtocolError when the response is not complete by that.
        """
        self.discard()
        self._keep_alive = False
        if self.complete:
            return
        if not self.started:
            raise httpx.RemoteProtocolError("the server closed the connection without an answer")
        if not self.status:
            raise httpx.RemoteProtocolError("the server closed the connection within the response head")
        # RFC 9112 9.8: what ends by closing is only complete when TLS says that nobody cut it.
        if not clean or self._framed:
            raise httpx.RemoteProtocolError("the server closed the connection within the response body")
        self.complete = True

    def discard(self) -> None:
        """Drop the parser: it refers to this reader, and the cycle would wait for the garbage collector."""
        self._parser = None

    @property
    def head_complete(self) -> bool:
        """Status, reason and headers of the final response are there."""
        return self.status != 0

    @property
    def reusable(self) -> bool:
        """The connection may carry another exchange, as far as this response is concerned."""
        return self._finished and self._keep_alive

    def take(self) -> bytes:
        """Body bytes that came since the last call, in one piece."""
        pieces = self.pieces
        if len(pieces) == 1:
            return pieces.pop()
        data = b"".join(pieces)
        pieces.clear()
        return data

    def take_headers(self) -> RawHeaders:
        """The headers with lower-case names, once; a stream may last long, and the reader keeps no copy of them."""
        lowered, self._lowered = self._lowered, []
        return tuple(lowered)

    def _field_bytes(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self._lowered)

    # -- callbacks of the parser; they must not raise --

    def on_message_begin(self) -> None:
        if self.complete:
            self._keep_alive = False

    def on_status(self, reason: bytes) -> None:
        if not self.status:
            self._past_bytes += len(reason)
            if self._detailed:
                self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        # Later ones are trailers: nobody downstream can take them.
        if not self.status:
            value = value.rstrip(b" \t")
            self._lowered.append((name.lower(), value))
            if self._detailed:
                self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self.status or parser is None:
            return
        status: int = parser.get_status_code()
        if status == 101 or status < 100:
            self._fault = self._fault or f"unexpected status {status}"
            return
        if status < 200:
            self._past_bytes += self._field_bytes()
            self._lowered.clear()
            self.headers.clear()
            self.reason = b""
            return
        # The end of the head may have come together with much body: then the size of the fields is what counts.
        if self._idle_bytes > MAX_IDLE_BYTES and self._past_bytes + self._field_bytes() > MAX_IDLE_BYTES:
            self._fault = self._fault or HEAD_TOO_LARGE
        self._idle_bytes = 0
        self.status = status
        if self._detailed:
            self.http_version = b"HTTP/" + parser.get_http_version().encode("ascii")
        self._keep_alive = parser.should_keep_alive()
        chunked = has_length = False
        for name, value in self._lowered:
            if name == b"content-length":
                has_length = True
            elif name == b"transfer-encoding":
                if chunked or value.lower() != b"chunked":
                    self._fault = "a Transfer-Encoding other than chunked"
                chunked = True
        self._framed = chunked or has_length
        if self._head_only or status in (204, 304):
            # The parser does not know of HEAD. If it waits for a body, `_finished` stays False and the connection is
            # not used again; else it says so at once.
            self.complete = True

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        if self.complete:
            self._keep_alive = False
        else:
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self._finished = True
