"""`host.http.*`: HTTP requests of plugins, through the proxy's own clients (plugin-abi 5.3 and 5.4).

Requests go out with the plugin's header spelling and through the global proxy. Redirects are followed here, as Go's
client does it, except that a plugin's credentials never travel to another origin.
"""

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import httpx
import trio

from cpa.abi.envelope import HostCallError
from cpa.abi.wire import Empty
from cpa.abi.wire_host import (
    HostHttpReply,
    HostHttpRequest,
    HostHttpStreamReply,
    HttpStreamReadReply,
    StreamRef,
)
from cpa.config.schema import Config
from cpa.errors import CpaError, UpstreamProtocolError
from cpa.formats.coding import CodingError, DecodedTooLarge, Decoder
from cpa.formats.headers import HeaderMap, to_map
from cpa.host.scopes import Caller, ScopeRegistry
from cpa.host.streams import SHOWN_ID_CHARS, Opened, ReadStreams
from cpa.upstream.client import CLOSE_GRACE_S, UpstreamClients, map_errors
from cpa.upstream.dialects import USER_AGENT
from cpa.upstream.http1 import BufferStream

BLOCK_BYTES: Final = 32 << 10
"""Largest block of a streamed body (plugin-abi appendix A)."""
INFLATE_BYTES: Final = 4 << 10
"""Compressed bytes decoded at a time: they become 4 MiB at most, so that no answer can fill memory by surprise."""
MAX_DECODED_BYTES: Final = 1 << 62
"""Streams have no limit: their reader sets the pace."""
MAX_REDIRECTS: Final = 10

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(r"[\r\n\0]")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEPING_METHOD = frozenset({307, 308})
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "trailer"})
"""Made anew for every request, as Go's client does: two statements of the framing are a way to smuggle requests."""
_OF_BODY = frozenset({"content-type", "content-encoding", "content-language"})
_SECRETS = frozenset({"authorization", "proxy-authorization", "cookie", "cookie2", "x-api-key", "x-goog-api-key"})
"""Not for the origin that a redirect names."""
_FOREIGN = map_errors()
_PORTS = {"http": 80, "https": 443}


@attrs.frozen(kw_only=True)
class Outgoing:
    """One request. *decode*: gzip was our wish, so the plugin does not see it."""

    method: str
    url: httpx.URL
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    decode: bool

    def request(self) -> httpx.Request:
        """As httpx wants it; the transport adds host and framing."""
        raw = [(name.encode("ascii"), value.encode("utf-8", "replace")) for name, value in self.headers]
        return httpx.Request(self.method, self.url, headers=raw, stream=BufferStream((self.body,)))


class Incoming:
    """A response whose body comes in blocks of 1 to `BLOCK_BYTES` bytes; iterate it once.

    Raises while iterating: CpaError.
    """

    def __init__(self, response: httpx.Response, *, decode: bool) -> None:
        self._pieces = response.stream.__aiter__()  # type: ignore[union-attr]  # an async client's is an async stream
        self._raw = b""
        self._raw_offset = 0
        self._block = b""
        self._offset = 0
        self._decoder: Decoder | None = None
        self._fed = False
        self.status = response.status_code
        self.headers = to_map(response.headers.raw)
        if decode and [value.lower() for value in self.headers.get("Content-Encoding", ())] == ["gzip"]:
            self._decoder = Decoder(("gzip",), max_bytes=MAX_DECODED_BYTES)
            # They speak of bytes that the plugin does not get.
            self.headers = {
                name: values
                for name, values in self.headers.items()
                if name not in ("Content-Encoding", "Content-Length")
            }

    def __aiter__(self) -> "Incoming":
        return self

    async def __anext__(self) -> bytes:
        while self._offset >= len(self._block):
            self._block, self._offset = await self._next(), 0
        block = self._block[self._offset : self._offset + BLOCK_BYTES]
        self._offset += len(block)
        return block

    async def _next(self) -> bytes:
        """What comes next, possibly nothing yet. Raises: StopAsyncIteration at the end; CpaError."""
        if self._raw_offset >= len(self._raw):
            try:
                with _FOREIGN:
                    self._raw, self._raw_offset = await self._pieces.__anext__(), 0
            except StopAsyncIteration:
                decoder, self._decoder = self._decoder, None
                rest = self._decoded(decoder, None) if decoder is not None and self._fed else b""
                if not rest:
                    raise
                return rest
        if self._decoder is None:
            piece, self._raw = self._raw, b""
            return piece
        piece = self._raw[self._raw_offset : self._raw_offset + INFLATE_BYTES]
        self._raw_offset += len(piece)
        self._fed = True
        return self._decoded(self._decoder, piece)

    def _decoded(self, decoder: Decoder, piece: bytes | None) -> bytes:
        try:
            return decoder.finish() if piece is None else decoder.feed(piece)
        except (CodingError, DecodedTooLarge) as exc:
            raise UpstreamProtocolError(f"gzip: {exc}") from exc


@attrs.frozen(kw_only=True, eq=False)
class HttpService:
    """Answers `host.http.*`."""

    clients: UpstreamClients
    config: Callable[[], Config]
    scopes: ScopeRegistry
    streams: ReadStreams

    async def do(self, caller: Caller, ask: HostHttpRequest) -> HostHttpReply:
        """`host.http.do`. Raises: HostCallError."""
        outgoing = parse(ask)
        limit = self.config().limits.response_bytes
        with self.scopes.working(caller, self.scopes.find(ask.scope_id, caller.plugin_id)):
            async with self._exchange(outgoing) as incoming:
                blocks: list[bytes] = []
                size_bytes = 0
                try:
                    async for block in incoming:
                        size_bytes += len(block)
                        if size_bytes > limit:
                            raise UpstreamProtocolError(f"larger than {limit} bytes")
                        blocks.append(block)
                except CpaError as exc:
                    raise because("read host http response", exc) from exc
                return HostHttpReply(status_code=incoming.status, headers=incoming.headers, body=b"".join(blocks))

    async def do_stream(self, caller: Caller, ask: HostHttpRequest) -> HostHttpStreamReply:
        """`host.http.do_stream`: returns after the head. Raises: HostCallError."""
        outgoing = parse(ask)
        scope = self.scopes.find(ask.scope_id, caller.plugin_id)

        @asynccontextmanager
        async def source() -> AsyncIterator[Opened[tuple[int, HeaderMap]]]:
            async with self._exchange(outgoing) as incoming:
                yield Opened((incoming.status, incoming.headers), incoming)

        with self.scopes.working(caller, scope):
            stream_id, (status, headers) = await self.streams.open(caller, scope, source)
        return HostHttpStreamReply(status_code=status, headers=headers, stream_id=stream_id)

    async def stream_read(self, caller: Caller, ask: StreamRef) -> HttpStreamReadReply:
        """`host.http.stream_read`. Raises: HostCallError, also for ids that are not open."""
        if not ask.stream_id:
            raise HostCallError("http stream id is required")
        try:
            block = await self.streams.read(ask.stream_id, caller.plugin_id)
        except KeyError:
            shown = ask.stream_id[:SHOWN_ID_CHARS]
            raise HostCallError(f"http stream {shown} is not open", http_status=404) from None
        except HostCallError:
            raise
        except CpaError as exc:
            return HttpStreamReadReply(error=exc.message, done=True)
        return HttpStreamReadReply(done=True) if block is None else HttpStreamReadReply(payload=block)

    def stream_close(self, caller: Caller, ask: StreamRef) -> Empty:
        """`host.http.stream_close`. Raises: HostCallError for another plugin's stream."""
        self.streams.close(ask.stream_id, caller.plugin_id)
        return Empty()

    @asynccontextmanager
    async def _exchange(self, outgoing: Outgoing) -> AsyncIterator[Incoming]:
        """The answer to *outgoing*, after redirects; its connection is closed when the block is left."""
        client = self.clients.client_for("", self.config().proxy_url)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                with _FOREIGN:
                    response = await client.send(outgoing.request(), stream=True)
            except CpaError as exc:
                raise because("execute host http request", exc) from exc
            try:
                target = redirect(outgoing, response)
                if target is None:
                    yield Incoming(response, decode=outgoing.decode)
                    return
                outgoing = target
            finally:
                with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                    await response.aclose()
        raise HostCallError(f"execute host http request: stopped after {MAX_REDIRECTS} redirects", http_status=502)


def because(what: str, exc: CpaError) -> HostCallError:
    """*exc* as the contract tells it. *what* names the step that failed."""
    error = HostCallError(f"{what}: {exc.message}", http_status=exc.http_status)
    error.retryable = exc.retryable
    return error


def parse(ask: HostHttpRequest) -> Outgoing:
    """What a plugin wants to send. Raises: HostCallError."""
    ask = ask.effective()
    if not _TOKEN.fullmatch(ask.method):
        raise HostCallError("create host http request: invalid method")
    url = parse_url(ask.url)
    headers: list[tuple[str, str]] = []
    for name, values in ask.headers.items():
        if not _TOKEN.fullmatch(name) or any(_BAD_VALUE.search(value) for value in values):
            # Neither name nor value: a broken header is often a key with a line break in the wrong place.
            raise HostCallError("create host http request: invalid header")
        if name.lower() not in _FRAMING:
            headers.extend((name, value) for value in values)
    names = {name.lower() for name, _ in headers}
    if "user-agent" not in names:
        headers.append(("User-Agent", USER_AGENT.decode("ascii")))
    if url.userinfo and "authorization" not in names:
        login = f"{url.username}:{url.password}".encode()
        headers.append(("Authorization", f"Basic {b64encode(login).decode('ascii')}"))
    decode = "accept-encoding" not in names and "range" not in names and ask.method != "HEAD"
    if decode:
        headers.append(("Accept-Encoding", "gzip"))
    return Outgoing(method=ask.method, url=url, headers=tuple(headers), body=ask.body, decode=decode)


def parse_url(text: str) -> httpx.URL:
    """An absolute HTTP URL. Raises: HostCallError, whose text does not repeat what may hold a key."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as exc:
        raise HostCallError("create host http request: invalid url") from exc
    if url.scheme not in _PORTS:
        raise HostCallError(f"create host http request: unsupported protocol scheme {url.scheme[:16]!r}")
    if not url.host:
        raise HostCallError("create host http request: no host in url")
    return url


def redirect(outgoing: Outgoing, response: httpx.Response) -> Outgoing | None:
    """The request that *response* asks for, or None when it is an answer.

    301, 302 and 303 turn everything but GET and HEAD into a GET without body; 307 and 308 repeat the request.
    Raises: HostCallError when it leads to no HTTP URL.
    """
    location = response.headers.get("location", "")
    if response.status_code not in _REDIRECTS or not location:
        return None
    try:
        url = parse_url(str(outgoing.url.join(location)))
    except (HostCallError, httpx.InvalidURL, ValueError) as exc:
        raise HostCallError("execute host http request: invalid redirect location", http_status=502) from exc
    headers, method, body = outgoing.headers, outgoing.method, outgoing.body
    if response.status_code not in _KEEPING_METHOD:
        body = b""
        if method not in ("GET", "HEAD"):
            method = "GET"
            headers = tuple(pair for pair in headers if pair[0].lower() not in _OF_BODY)
    if origin(url) != origin(outgoing.url):
        headers = tuple(pair for pair in headers if pair[0].lower() not in _SECRETS)
    return attrs.evolve(outgoing, method=method, url=url, headers=headers, body=body)


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Scheme, host and port."""
    return url.scheme, url.host.lower(), url.port or _PORTS[url.scheme]
