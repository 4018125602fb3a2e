"""One call to a provider over HTTP: the request out, the head of the answer in, its body on demand."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache

import attrs
import httpx
import trio

from cpa.config.schema import Config
from cpa.errors import RawHeaders, UpstreamError, UpstreamProtocolError, UpstreamStatusError, UpstreamTimeout
from cpa.formats.coding import CodingError, DecodedTooLarge, Decoder, codings
from cpa.formats.names import Format
from cpa.types import Executor, UpstreamCall, WireLog
from cpa.upstream.client import UpstreamClients, map_errors
from cpa.upstream.dialects import DIALECTS, USER_AGENT, Dialect, OpenAIDialect, configured_headers
from cpa.upstream.transport import BufferStream

DRAIN_S = 1.0
"""How long the end of an answered stream may take before its connection is given up (translation 4.1)."""
DRAIN_BYTES = 64 << 10
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


class HttpAnswer:
    """A provider's successful answer; see `cpa.types.UpstreamAnswer`.

    It iterates the transport's stream itself: httpx's own iterators are async generators, which would have to be run to
    their end or closed with care.
    """

    def __init__(self, response: httpx.Response, settings: UpstreamSettings, log: WireLog | None) -> None:
        self._settings = settings
        self._log = log
        self._pieces = response.stream.__aiter__()  # type: ignore[union-attr]  # an async client's is an async stream
        self._decoder = decoder_of(response, settings.response_bytes)
        self.status = response.status_code
        self.headers: RawHeaders = lower_headers(response)

    async def read(self) -> bytes:
        """The whole body. Raises: UpstreamError; UpstreamProtocolError past ``limits.response-bytes``."""
        pieces: list[bytes] = []
        size_bytes = 0
        with deadline(self._settings.request_s, "did not finish its answer"):
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
            with FOREIGN:
                if self._settings.stream_idle_s:
                    with deadline(self._settings.stream_idle_s, "stopped in the middle of its answer"):
                        piece = await self._pieces.__anext__()
                else:
                    piece = await self._pieces.__anext__()
            if self._decoder is not None:
                piece = self._decode(piece)
        if self._log is not None:
            self._log.attempt_body(piece)
        return piece

    def _decode(self, piece: bytes) -> bytes:
        assert self._decoder is not None
        try:
            return self._decoder.feed(piece)
        except (CodingError, DecodedTooLarge) as exc:
            raise UpstreamProtocolError(f"provider's answer cannot be decoded: {exc}") from exc

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
        self.format: Format = dialect.format

    @asynccontextmanager
    async def open(self, call: UpstreamCall) -> AsyncIterator[HttpAnswer]:
        """Send *call*. Raises: UpstreamError; UpstreamStatusError for every status from 300 on (no redirects)."""
        request = self._request(call)
        client = self._clients.client_for(call.credential.proxy_url, self._settings.proxy_url)
        if call.log is not None:
            call.log.attempt(
                url=str(request.url),
                method=request.method,
                headers=tuple(request.headers.raw),
                body=call.body,
                auth=f"{call.credential.label} {call.credential.index}",
            )
        with FOREIGN, deadline(self._settings.first_byte_s or self._settings.request_s, "did not answer"):
            response = await client.send(request, stream=True)
        try:
            if call.log is not None:
                call.log.attempt_response(response.status_code, lower_headers(response))
            if response.status_code >= 300:
                raise await self._status_error(response, call.log)
            yield HttpAnswer(response, self._settings, call.log)
        finally:
            # Closing is a matter of one system call here, but a checkpoint would lose it to a cancelled caller.
            with trio.CancelScope(shield=True):
                await response.aclose()

    def _request(self, call: UpstreamCall) -> httpx.Request:
        headers = {
            b"user-agent": USER_AGENT,
            b"content-type": b"application/json",
            b"accept": b"text/event-stream" if call.stream else b"application/json",
            b"accept-encoding": b"identity",
        }
        headers |= self._dialect.headers(call)
        body = self._dialect.body(call, headers)
        headers |= configured_headers(call)
        url = parsed(self._dialect.url(call))
        headers.setdefault(b"host", url.netloc)
        headers[b"content-length"] = b"%d" % sum(map(len, body))
        return httpx.Request("POST", url, headers=list(headers.items()), stream=BufferStream(body))

    async def _status_error(self, response: httpx.Response, log: WireLog | None) -> UpstreamStatusError:
        """The error that *response* is, with as much of its body as is kept."""
        body = bytearray()
        with deadline(self._settings.request_s, "did not finish its error"):
            async for piece in HttpAnswer(response, self._settings, log):
                body += piece
                if len(body) >= self._settings.error_body_bytes:
                    break
        kept = bytes(body[: self._settings.error_body_bytes])
        return UpstreamStatusError(
            status=response.status_code, headers=lower_headers(response), body=kept, provider_format=self.format
        )


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Raises: UpstreamTimeout when the block takes longer than *seconds*; 0 = no limit."""
    if not seconds:
        yield
        return
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise UpstreamTimeout(f"provider {what} within {seconds:g} s")


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
    """One executor per provider key of *providers* that has a dialect."""
    made = {name: HttpExecutor(dialect, clients, settings) for name, dialect in DIALECTS.items()}
    compatible = HttpExecutor(OpenAIDialect(), clients, settings)
    made |= {name: compatible for name in providers if name.startswith("openai-compat")}
    return made
