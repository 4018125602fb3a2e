"""HTTP/1.1 in bytes: requests out of what a socket gives, responses into what it takes. No sockets here."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus

import attrs
import httptools

MAX_HEAD_BYTES = 128 << 10
"""Request line and headers. Twice what one read gives, so that bytes of a former body are never counted as a head."""
MAX_BODY_BYTES = 64 << 20
MAX_RAW_BODY_BYTES = MAX_BODY_BYTES * 2
"""The body with its chunk framing and trailers: tiny chunks and endless extensions end here."""
MAX_HEADERS = 200
READ_BYTES = 64 << 10

RawHeader = tuple[bytes, bytes]


@attrs.frozen(kw_only=True)
class Request:
    """One complete request.

    Attributes:
      headers: lower-case names.
      keep_alive: the client may send another one on this connection.
      chunked_ok: HTTP/1.1, so that the answer may be chunked.
      websocket: asks for an upgrade to WebSocket.
    """

    method: str
    target: str
    headers: list[RawHeader]
    body: bytes
    keep_alive: bool
    chunked_ok: bool
    websocket: bool


class RequestReader:
    """Incremental parser: feed bytes, take complete requests from `ready`.

    Attributes:
      ready: complete requests in order; at most those of one read are in it.
      refusal: status with which the connection must end once `ready` is empty, 0 = none.
      wants_continue: the client waits for ``100 Continue``; the caller resets it.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_expect",
        "_head_bytes",
        "_head_done",
        "_headers",
        "_parser",
        "_raw_bytes",
        "_target",
        "ready",
        "refusal",
        "wants_continue",
    )

    def __init__(self) -> None:
        self.ready: deque[Request] = deque()
        self.refusal = 0
        self.wants_continue = False
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._expect = False
        self._head_done = False
        self.on_message_begin()

    def feed(self, data: bytes) -> None:
        """Take *data*, at most `READ_BYTES`. After a refusal everything is ignored."""
        if self.refusal:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(self.ready.pop(), data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.refusal = self.refusal or 400
            return
        self._check_sizes(len(data))

    def _decline(self, request: Request, rest: bytes) -> None:
        """Nobody is upgraded. The parser has given up at the end of the head, with *rest* unread."""
        self._parser = httptools.HttpRequestParser(self)
        if request.websocket:
            self.ready.append(request)
            if rest:
                self.feed(rest)
        elif request.method == "CONNECT":
            self.refusal = 400
        else:  # h2c, which some clients offer with every request: read it again without the offer, body and all
            lines = [f"{request.method} {request.target} HTTP/1.1".encode("latin-1")]
            lines += [name + b": " + value for name, value in request.headers if name != b"upgrade"]
            self.feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _check_sizes(self, fed_bytes: int) -> None:
        if self._head_done:
            self._raw_bytes += fed_bytes
            if self._body_bytes > MAX_BODY_BYTES or self._raw_bytes > MAX_RAW_BODY_BYTES:
                self.refusal = 413
            elif self._expect:
                self._expect, self.wants_continue = False, True
        else:
            self._head_bytes += fed_bytes
            if self._head_bytes > MAX_HEAD_BYTES:
                self.refusal = 431
        if len(self._headers) > MAX_HEADERS:
            self.refusal = 431

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: list[RawHeader] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._raw_bytes = 0
        self._head_done = False
        self._expect = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) <= MAX_HEADERS and not self._head_done:  # trailers are read and dropped
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._head_done = True
        self._head_bytes = 0
        self._expect = any(name == b"expect" and value.lower() == b"100-continue" for name, value in self._headers)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        headers = self._headers
        websocket = parser.should_upgrade() and any(
            name == b"upgrade" and value.lower() == b"websocket" for name, value in headers
        )
        self.ready.append(
            Request(
                method=parser.get_method().decode("ascii"),
                target=self._target.decode("latin-1"),
                headers=headers,
                body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
                keep_alive=parser.should_keep_alive(),
                chunked_ok=parser.get_http_version() == "1.1",
                websocket=websocket,
            )
        )
        self.on_message_begin()


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Mock"


def response_head(
    status: int,
    content_type: bytes,
    headers: Sequence[RawHeader],
    *,
    length: int | None,
    chunked: bool,
    connection: bytes = b"",
) -> bytes:
    """Status line and headers with the empty line.

    Args:
      length: bytes of the body, None = unknown.
      chunked: send it chunked if the length is unknown; else it ends with the connection.
      connection: value of that header, empty = none.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, _reason(status)), b"server: cpa-mock"]
    if status not in (204, 304):
        lines.append(b"content-type: " + content_type)
        if length is not None:
            lines.append(b"content-length: %d" % length)
        elif chunked:
            lines.append(b"transfer-encoding: chunked")
    lines += [name + b": " + value for name, value in headers]
    if connection:
        lines.append(b"connection: " + connection)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def in_http_chunks(writes: Iterable[bytes], *, complete: bool) -> Iterator[bytes]:
    """Each write as one HTTP chunk; the last one carries the end of the body if *complete*."""
    held = b""
    for write in writes:
        if held:
            yield held
        held = b"%x\r\n%b\r\n" % (len(write), write)
    if complete:
        held += LAST_CHUNK
    if held:
        yield held
