"""One call to a provider over HTTP: the request out, the head of the answer in, its body on demand."""

from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import attrs
import httpx
import trio

from cpa.config.schema import Config
from cpa.errors import RawHeaders, UpstreamError, UpstreamProtocolError, UpstreamStatusError, UpstreamTimeout
from cpa.formats.coding import CodingError, DecodedTooLarge, Decoder, codings
from cpa.formats.names import Format
from cpa.formats.redaction import hide
from cpa.types import Executor, UpstreamCall, Wire, WireLog
from cpa.upstream.client import CLOSE_GRACE_S, FOREIGN_ERRORS, UpstreamClients, raise_meaning
from cpa.upstream.dialects import COMPATIBLE, DIALECTS, Dialect, dialect_of
from cpa.upstream.heads import Head, Heads, body_bytes
from cpa.upstream.transport import ResponseStream

DRAIN_S = 1.0
"""How long the end of an answered stream may take before its connection is given up (translation 4.1)."""
DRAIN_BYTES = 64 << 10
ERROR_BODY_S = 10.0
"""How long the body of an error may take: its status, which is what counts, is known, and a client waits for it."""


@attrs.frozen(kw_only=True)
class UpstreamSettings:
    """What the configuration says about calls to providers. Seconds are 0 when off.

    Attributes:
      request_s: from sending to the end of the answer's body, for answers read whole.
      first_byte_s: from sending to the head of the answer.
      stream_idle_s: between two pieces of a streamed body.
      head_s, stream_head_s: from sending to the head, of answers read whole and of streams; follow from the others.
    """

    proxy_url: str = attrs.field(default="", repr=False)
    request_s: float = 0.0
    first_byte_s: float = 0.0
    stream_idle_s: float = 0.0
    response_bytes: int = 256 << 20
    error_body_bytes: int = 1 << 20
    head_s: float = attrs.field(init=False)
    stream_head_s: float = attrs.field(init=False)

    @head_s.default
    def _head_s(self) -> float:
        limits_s = [limit_s for limit_s in (self.first_byte_s, self.request_s) if limit_s]
        return min(limits_s, default=0.0)

    @stream_head_s.default
    def _stream_head_s(self) -> float:
        return self.first_byte_s or self.request_s

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

    Args:
      headers: lower-case names.
      pieces: the body, as the transport gives it.
      started: Trio time of the sending; counts where *settings* limit the whole.
      idle_s: longest wait for a piece, 0 = no limit.

    It iterates the transport's stream itself: httpx's own iterators are async generators, which would have to be run to
    their end or closed with care.
    """

    __slots__ = ("_decoder", "_encoded", "_idle_s", "_log", "_pieces", "_settings", "_started", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: RawHeaders,
        pieces: AsyncIterator[bytes],
        settings: UpstreamSettings,
        log: WireLog | None = None,
        *,
        started: float = 0.0,
        idle_s: float = 0.0,
    ) -> None:
        self.status = status
        self.headers = headers
        self._pieces = pieces
        self._settings = settings
        self._log = log
        self._started = started
        self._idle_s = idle_s
        self._decoder = decoder_of(headers, settings.response_bytes)
        self._encoded = False

    @classmethod
    def of(cls, response: httpx.Response, settings: UpstreamSettings) -> "HttpAnswer":
        """What httpx got. Raises: UpstreamProtocolError."""
        return cls(response.status_code, lower_headers(response), pieces_of(response), settings)

    async def read(self) -> bytes:
        """The whole body. Raises: UpstreamError; UpstreamProtocolError past ``limits.response-bytes``.

        No checkpoint where all of it came with the head, which had one.
        """
        body = self._arrived()
        if body is not None:
            if len(body) > self._settings.response_bytes:
                raise self._too_large()
            return body
        if not self._settings.request_s:
            return await self._collect()
        with deadline(self._settings.request_s, "did not finish its answer", since=self._started):
            return await self._collect()

    async def _collect(self) -> bytes:
        pieces: list[bytes] = []
        size_bytes = 0
        async for piece in self:
            size_bytes += len(piece)
            if size_bytes > self._settings.response_bytes:
                raise self._too_large()
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self) -> UpstreamProtocolError:
        return UpstreamProtocolError(f"answer larger than {self._settings.response_bytes} bytes")

    def _arrived(self) -> bytes | None:
        """What is left of the body, if all of it is here and nothing has to be decoded."""
        pieces = self._pieces
        if self._decoder is not None or type(pieces) is not ResponseStream:
            return None
        body = pieces.take_whole()
        if body and self._log is not None:
            self._log.attempt_body(body)
        return body

    def chunks(self) -> "HttpAnswer":
        """The body as it comes. Raises: UpstreamError."""
        return self

    def __aiter__(self) -> "HttpAnswer":
        return self

    async def __anext__(self) -> bytes:
        piece = b""
        while not piece:
            try:
                if self._idle_s:
                    with deadline(self._idle_s, "stopped in the middle of its answer"):
                        piece = await self._pieces.__anext__()
                else:
                    piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                piece = self._rest()
                if not piece:
                    raise
            except FOREIGN_ERRORS as exc:
                raise_meaning(exc)
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
        """Read what follows the last event, so that the connection can serve again; nothing where it does already."""
        if self._arrived() is not None:
            return
        left = DRAIN_BYTES
        with trio.move_on_after(DRAIN_S), suppress(UpstreamError):
            async for piece in self:
                left -= len(piece)
                if left < 0:
                    return


class HttpExecutor:
    """Talks to providers of one dialect; see `cpa.types.Executor`. What it knows is the same for all calls."""

    def __init__(self, dialect: Dialect, clients: UpstreamClients, settings: UpstreamSettings) -> None:
        self.clients = clients
        self.settings = settings
        self.heads = Heads(dialect, clients, settings.proxy_url)
        self.format: Format = dialect.format
        self._wire = Wire(input=dialect.format, output=dialect.format)

    def wire(self, client: Format) -> Wire:
        """Its dialect's protocol, whoever asks."""
        return self._wire

    def open(self, call: UpstreamCall) -> "HttpExchange":
        """Send *call*. Raises: UpstreamError; UpstreamStatusError for every status from 300 on (no redirects)."""
        return HttpExchange(self, call)


class HttpExchange:
    """One call, and the connection that it holds; the context that `HttpExecutor.open` promises, for one use."""

    __slots__ = ("_call", "_executor", "_opened")

    def __init__(self, executor: HttpExecutor, call: UpstreamCall) -> None:
        self._executor = executor
        self._call: UpstreamCall | None = call
        self._opened: ResponseStream | httpx.Response | None = None

    async def __aenter__(self) -> HttpAnswer:
        # Streams last long: what was sent must not stay in memory until their end.
        call, self._call = self._call, None
        assert call is not None, "an exchange is for one use"
        executor, log = self._executor, call.log
        settings = executor.settings
        head, body = executor.heads.of(call)
        started = trio.current_time() if settings.request_s else 0.0
        if log is not None:
            log.attempt(
                url=head.url_text,
                method="POST",
                headers=head.all_headers(body_bytes(body)),
                body=body,
                auth=f"{call.credential.label} {call.credential.index}",
            )
        limit_s = settings.stream_head_s if call.stream else settings.head_s
        try:
            if limit_s:
                with deadline(limit_s, "did not answer"):
                    opened = await self._send(call, head, body)
            else:
                opened = await self._send(call, head, body)
        except FOREIGN_ERRORS as exc:
            raise_meaning(exc)
        self._opened = opened
        try:
            pieces: AsyncIterator[bytes]
            if isinstance(opened, ResponseStream):
                status, headers, pieces = opened.reader.status, opened.reader.take_headers(), opened
            else:
                status, headers, pieces = opened.status_code, lower_headers(opened), pieces_of(opened)
            if log is not None:
                log.attempt_response(status, headers)
            if status >= 300:
                kept = await self._error_body(call, status, headers, pieces)
                raise UpstreamStatusError(status=status, headers=headers, body=kept, provider_format=executor.format)
            idle_s = settings.stream_idle_s if call.stream else 0.0
            return HttpAnswer(status, headers, pieces, settings, log, started=started, idle_s=idle_s)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened = self._opened
        if isinstance(opened, ResponseStream):
            opened.close()
        elif opened is not None:
            # Of a foreign transport. A checkpoint would lose the closing to a cancelled caller.
            with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                await opened.aclose()

    def _send(
        self, call: UpstreamCall, head: Head, body: tuple[bytes, ...]
    ) -> Coroutine[None, None, ResponseStream | httpx.Response]:
        if head.transport is not None:
            return head.transport.exchange(head.origin, head.outgoing(body))
        client = self._executor.clients.client_for(call.credential.proxy_url, self._executor.settings.proxy_url)
        return client.send(head.request(body), stream=True)

    async def _error_body(
        self, call: UpstreamCall, status: int, headers: RawHeaders, pieces: AsyncIterator[bytes]
    ) -> bytes:
        """As much of an error's body as is kept."""
        body = bytearray()
        settings = self._executor.settings
        limit = settings.error_body_bytes
        # Whatever is wrong with its body, it is still this error: cooldowns and clients go by the status.
        with trio.move_on_after(ERROR_BODY_S), suppress(UpstreamError):
            async for piece in HttpAnswer(status, headers, pieces, settings, call.log):
                body += piece
                if len(body) >= limit:
                    break
        # A provider that says which key it refuses must not say it to the client.
        return hide(bytes(body[:limit]), call.credential.secrets())


class deadline:
    """``with deadline(...)`` raises UpstreamTimeout when the block takes longer than *seconds*; 0 = no limit.

    *since*: Trio time from which they count, None = from now on.
    """

    __slots__ = ("_scope", "_seconds", "_what")

    def __init__(self, seconds: float, what: str, *, since: float | None = None) -> None:
        self._seconds = seconds
        self._what = what
        self._scope: trio.CancelScope | None = None
        if seconds:
            self._scope = trio.CancelScope(deadline=(trio.current_time() if since is None else since) + seconds)

    def __enter__(self) -> Self:
        if self._scope is not None:
            self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._scope is None:
            return
        # What the scope catches is not passed on but replaced; everything else rises as it is.
        self._scope.__exit__(kind, exc, traceback)
        if self._scope.cancelled_caught:
            raise UpstreamTimeout(f"provider {self._what} within {self._seconds:g} s")


def pieces_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as the transport gives it."""
    return response.stream.__aiter__()  # type: ignore[union-attr]  # an async client's is an async stream


def lower_headers(response: httpx.Response) -> RawHeaders:
    """The response's headers as they came, with lower-case names."""
    return tuple([(name.lower(), value) for name, value in response.headers.raw])


def decoder_of(headers: RawHeaders, max_bytes: int) -> Decoder | None:
    """A decoder for providers that compress although asked not to. Raises: UpstreamProtocolError.

    *headers*: lower-case names.
    """
    named = ""
    for name, value in headers:
        if name == b"content-encoding":
            named = f"{named}, {value.decode('latin-1')}" if named else value.decode("latin-1")
    names = codings(named) if named else ()
    if not names:
        return None
    try:
        return Decoder(names, max_bytes=max_bytes)
    except CodingError as exc:
        raise UpstreamProtocolError(f"provider's answer cannot be decoded: {exc}") from exc


def executors(clients: UpstreamClients, settings: UpstreamSettings, providers: Iterable[str]) -> Mapping[str, Executor]:
    """One executor per provider key: the fixed ones, and those of *providers* that have a dialect."""
    by_dialect = {dialect: HttpExecutor(dialect, clients, settings) for dialect in (*DIALECTS.values(), COMPATIBLE)}
    known = {provider: dialect_of(provider) for provider in (*DIALECTS, *providers)}
    return {provider: by_dialect[dialect] for provider, dialect in known.items() if dialect is not None}
