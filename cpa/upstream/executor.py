"""One call to a provider over HTTP: the request out, the head of the answer in, its body on demand."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache

import attrs
import httpx
import trio

from cpa.config.schema import Config
from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders, UpstreamError, UpstreamProtocolError, UpstreamStatusError, UpstreamTimeout
from cpa.formats.coding import CodingError, DecodedTooLarge, Decoder, codings
from cpa.formats.names import Format
from cpa.formats.redaction import hide
from cpa.types import Executor, UpstreamCall, Wire, WireLog
from cpa.upstream.client import CLOSE_GRACE_S, UpstreamClients, map_errors
from cpa.upstream.dialects import COMPATIBLE, DIALECTS, USER_AGENT, Dialect, HeaderDict, configured_headers, dialect_of
from cpa.upstream.transport import BufferStream

DRAIN_S = 1.0
"""How long the end of an answered stream may take before its connection is given up (translation 4.1)."""
DRAIN_BYTES = 64 << 10
ERROR_BODY_S = 10.0
"""How long the body of an error may take: its status, which is what counts, is known, and a client waits for it."""
FOREIGN = map_errors()
"""Stateless, so one serves all."""


@attrs.frozen(kw_only=True)
class UpstreamSettings:
    """What the configuration says about calls to providers. Seconds are 0 when off.

    Attributes:
      request_s: from sending to the end of the answer's body, for answers read whole.
      first_byte_s: from sending to the head of the answer.
      stream_idle_s: between two pieces of a streamed body.
    """

    proxy_url: str = attrs.field(default="", repr=False)
    request_s: float = 0.0
    first_byte_s: float = 0.0
    stream_idle_s: float = 0.0
    response_bytes: int = 256 << 20
    error_body_bytes: int = 1 << 20

    @classmethod
    def of(cls, config: Config) -> "UpstreamSettings":
        """The part of *config* that executors need."""
        return cls(
            proxy_url=config.proxy_url,
            request_s=config.request_timeout_seconds,
            first_byte_s=config.first_byte_timeout_seconds,
            stream_idle_s=config.stream_idle_timeout_seconds,
            response_bytes=config.limits.response_bytes,
            error_body_bytes=config.limits.error_body_bytes,
        )


_LINE_BREAKS = re.compile(rb"[\r\n\0]")


class HttpAnswer:
    """A provider's successful answer; see `cpa.types.UpstreamAnswer`.

    Args:
      started: Trio time of the sending.
      idle_s: longest wait for a piece, 0 = no limit.

    It iterates the transport's stream itself: httpx's own iterators are async generators, which would have to be run to
    their end or closed with care.
    """

    def __init__(
        self,
        response: httpx.Response,
        settings: UpstreamSettings,
        log: WireLog | None,
        *,
        started: float,
        idle_s: float = 0.0,
    ) -> None:
        self._settings = settings
        self._log = log
        self._started = started
        self._idle_s = idle_s
        self._pieces = response.stream.__aiter__()  # type: ignore[union-attr]  # an async client's is an async stream
        self._decoder = decoder_of(response, settings.response_bytes)
        self._encoded = False
        self.status = response.status_code
        self.headers: RawHeaders = lower_headers(response)

    async def read(self) -> bytes:
        """The whole body. Raises: UpstreamError; UpstreamProtocolError past ``limits.response-bytes``."""
        pieces: list[bytes] = []
        size_bytes = 0
        with deadline(self._settings.request_s, "did not finish its answer", since=self._started):
            async for piece in self:
                size_bytes += len(piece)
                if size_bytes > self._settings.response_bytes:
                    raise UpstreamProtocolError(f"answer larger than {self._settings.response_bytes} bytes")
                pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self) -> "HttpAnswer":
        """The body as it comes. Raises: UpstreamError."""
        return self

    def __aiter__(self) -> "HttpAnswer":
        return self

    async def __anext__(self) -> bytes:
        piece = b""
        while not piece:
            try:
                with FOREIGN:
                    if self._idle_s:
                        with deadline(self._idle_s, "stopped in the middle of its answer"):
                            piece = await self._pieces.__anext__()
                    else:
                        piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                piece = self._rest()
                if not piece:
                    raise
            else:
                if self._decoder is not None:
                    piece = self._decode(self._decoder, piece)
        if self._log is not None:
            self._log.attempt_body(piece)
        return piece

    def _decode(self, decoder: Decoder, piece: bytes | None) -> bytes:
        """What *piece*, or the end, adds to the body."""
        try:
            decoded = decoder.finish() if piece is None else decoder.feed(piece)
        except (CodingError, DecodedTooLarge) as exc:
            raise UpstreamProtocolError(f"provider's answer cannot be decoded: {exc}") from exc
        self._encoded = True
        return decoded

    def _rest(self) -> bytes:
        """What the end of a compressed body adds. Raises: UpstreamProtocolError when it came too early."""
        decoder, self._decoder = self._decoder, None
        # Some servers name a coding even for no body at all.
        return self._decode(decoder, None) if decoder is not None and self._encoded else b""

    async def drain(self) -> None:
        """Read what follows the last event, so that the connection can serve again."""
        left = DRAIN_BYTES
        with trio.move_on_after(DRAIN_S), suppress(UpstreamError):
            async for piece in self:
                left -= len(piece)
                if left < 0:
                    return


class HttpExecutor:
    """Talks to providers of one dialect; see `cpa.types.Executor`."""

    def __init__(self, dialect: Dialect, clients: UpstreamClients, settings: UpstreamSettings) -> None:
        self._dialect = dialect
        self._clients = clients
        self._settings = settings
        self._format: Format = dialect.format
        self._wire = Wire(input=dialect.format, output=dialect.format)

    def wire(self, client: Format) -> Wire:
        """Its dialect's protocol, whoever asks."""
        return self._wire

    @asynccontextmanager
    async def open(self, call: UpstreamCall) -> AsyncIterator[HttpAnswer]:
        """Send *call*. Raises: UpstreamError; UpstreamStatusError for every status from 300 on (no redirects)."""
        settings = self._settings
        request, body = self._request(call)
        client = self._clients.client_for(call.credential.proxy_url, settings.proxy_url)
        started = trio.current_time()
        if call.log is not None:
            call.log.attempt(
                url=str(request.url),
                method=request.method,
                headers=tuple(request.headers.raw),
                body=body,
                auth=f"{call.credential.label} {call.credential.index}",
            )
        with FOREIGN, deadline(self._head_s(call), "did not answer"):
            response = await client.send(request, stream=True)
        try:
            if call.log is not None:
                call.log.attempt_response(response.status_code, lower_headers(response))
            if response.status_code >= 300:
                raise await self._status_error(response, call.credential, call.log)
            idle_s = settings.stream_idle_s if call.stream else 0.0
            yield HttpAnswer(response, settings, call.log, started=started, idle_s=idle_s)
        finally:
            # Closing is a matter of one system call here, but a checkpoint would lose it to a cancelled caller.
            with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                await response.aclose()

    def _head_s(self, call: UpstreamCall) -> float:
        """How long the head of the answer to *call* may take, 0 = no limit."""
        first_s, whole_s = self._settings.first_byte_s, self._settings.request_s
        return min(first_s, whole_s) if first_s and whole_s and not call.stream else first_s or whole_s

    def _request(self, call: UpstreamCall) -> tuple[httpx.Request, tuple[bytes, ...]]:
        """The request and its body. Raises: CpaError when it cannot be sent."""
        headers = {
            b"user-agent": USER_AGENT,
            b"content-type": b"application/json",
            b"accept": b"text/event-stream" if call.stream else b"application/json",
            b"accept-encoding": b"identity",
        }
        headers |= self._dialect.headers(call)
        body = self._dialect.body(call, headers)
        headers |= configured_headers(call)
        with FOREIGN:
            url = parsed(self._dialect.url(call))
        # The framing is ours alone: two statements of it are how two servers come to see two different requests.
        headers.pop(b"transfer-encoding", None)
        headers.setdefault(b"host", url.netloc)
        headers[b"content-length"] = b"%d" % sum(map(len, body))
        refuse_line_breaks(headers)
        return httpx.Request("POST", url, headers=list(headers.items()), stream=BufferStream(body)), body

    async def _status_error(
        self, response: httpx.Response, credential: Credential, log: WireLog | None
    ) -> UpstreamStatusError:
        """The error that *response* is, with as much of its body as is kept."""
        body = bytearray()
        # Whatever is wrong with its body, it is still this error: cooldowns and clients go by the status.
        with trio.move_on_after(ERROR_BODY_S), suppress(UpstreamError):
            async for piece in HttpAnswer(response, self._settings, log, started=trio.current_time()):
                body += piece
                if len(body) >= self._settings.error_body_bytes:
                    break
        # A provider that says which key it refuses must not say it to the client.
        kept = hide(bytes(body[: self._settings.error_body_bytes]), credential.secrets())
        return UpstreamStatusError(
            status=response.status_code, headers=lower_headers(response), body=kept, provider_format=self._format
        )


@contextmanager
def deadline(seconds: float, what: str, *, since: float | None = None) -> Iterator[None]:
    """Raises: UpstreamTimeout when the block takes longer than *seconds* from *since* or now on; 0 = no limit."""
    if not seconds:
        yield
        return
    with trio.move_on_at((trio.current_time() if since is None else since) + seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise UpstreamTimeout(f"provider {what} within {seconds:g} s")


def refuse_line_breaks(headers: HeaderDict) -> None:
    """Raises: CpaError, without the value, which may be a key; transports' own errors would quote it."""
    if _LINE_BREAKS.search(b"".join(headers.values())):
        names = ", ".join(name.decode() for name, value in headers.items() if _LINE_BREAKS.search(value))
        raise CpaError(f"line break or NUL in the request header {names}")


def lower_headers(response: httpx.Response) -> RawHeaders:
    """The response's headers as they came, with lower-case names."""
    return tuple((name.lower(), value) for name, value in response.headers.raw)


def decoder_of(response: httpx.Response, max_bytes: int) -> Decoder | None:
    """A decoder for providers that compress although asked not to. Raises: UpstreamProtocolError."""
    names = codings(response.headers.get("content-encoding", ""))
    if not names:
        return None
    try:
        return Decoder(names, max_bytes=max_bytes)
    except CodingError as exc:
        raise UpstreamProtocolError(f"provider's answer cannot be decoded: {exc}") from exc


@lru_cache(maxsize=1024)
def parsed(url: str) -> httpx.URL:
    """Parsing costs more than a pooled connection; the URLs of a configuration are few."""
    return httpx.URL(url)


def executors(clients: UpstreamClients, settings: UpstreamSettings, providers: Iterable[str]) -> Mapping[str, Executor]:
    """One executor per provider key: the fixed ones, and those of *providers* that have a dialect."""
    by_dialect = {dialect: HttpExecutor(dialect, clients, settings) for dialect in (*DIALECTS.values(), COMPATIBLE)}
    known = {provider: dialect_of(provider) for provider in (*DIALECTS, *providers)}
    return {provider: by_dialect[dialect] for provider, dialect in known.items() if dialect is not None}
