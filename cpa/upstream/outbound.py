"""Single calls to any URL on behalf of an operator (proxy 6.8, ``/api-call``): no executor, no cooldown, no account."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import httpx
import trio

from cpa.errors import CpaError, RawHeaders, UpstreamConnectError
from cpa.upstream.client import CLOSE_GRACE_S, UpstreamClients, map_errors
from cpa.upstream.dialects import USER_AGENT
from cpa.upstream.executor import HttpAnswer, UpstreamSettings, deadline, lower_headers
from cpa.upstream.heads import refuse_line_breaks
from cpa.upstream.transport import BufferStream

TIMEOUT_S: Final = 60.0
"""Contract: from sending to the end of the answer."""
ANSWER_BYTES: Final = 8 << 20
"""Of a body; what is longer is cut. Operators ask for balances and lists of models."""
PORTS: Final = {"http": 80, "https": 443}
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_FRAMING: Final = frozenset(
    {b"connection", b"content-length", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


class InvalidUrl(CpaError):
    """It names nothing that could be called. The text does not repeat what may hold a key."""

    http_status = 400
    default_message = "invalid url"


class InvalidProxy(CpaError):
    """The proxy that was asked for is none. Passwords are masked."""

    http_status = 400
    default_message = "invalid proxy_url"


class InvalidHeader(CpaError):
    """A name or a value that cannot be a header's; neither is repeated."""

    http_status = 400
    default_message = "invalid header"


@attrs.frozen(kw_only=True)
class OutboundCall:
    """What to send.

    Attributes:
      headers: names in any case; framing is ours.
      proxy_url: of this call alone: URL, ``direct``, ``none``; empty = *credential_proxy*, else *global_proxy*, else
        what the environment says.
    """

    method: str
    url: str = attrs.field(repr=False)
    headers: RawHeaders = attrs.field(default=(), repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    proxy_url: str = attrs.field(default="", repr=False)
    credential_proxy: str = attrs.field(default="", repr=False)
    global_proxy: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class OutboundReply:
    """What came back, content codings undone.

    Attributes:
      cut: *body* is only the first `ANSWER_BYTES` of it.
    """

    status: int
    headers: RawHeaders
    body: bytes = attrs.field(repr=False)
    cut: bool = False


@attrs.frozen(kw_only=True)
class OutboundCalls:
    """Makes them, through the connections that *clients* owns; redirects are answers."""

    clients: UpstreamClients
    timeout_s: float = TIMEOUT_S

    async def send(self, call: OutboundCall) -> OutboundReply:
        """Send *call*, wait for the whole answer.

        Raises: InvalidUrl, InvalidProxy, InvalidHeader; UpstreamError, UpstreamTimeout after `timeout_s`.
        Cancellation: closes the connection.
        """
        request = _request(call)
        started = trio.current_time()
        async with self._client(call) as client:
            with map_errors(), deadline(self.timeout_s, "did not answer", since=started):
                response = await client.send(request, stream=True)
            try:
                with map_errors(), deadline(self.timeout_s, "did not finish its answer", since=started):
                    body, cut = await _body(response)
            finally:
                with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                    await response.aclose()
        return OutboundReply(status=response.status_code, headers=lower_headers(response), body=body, cut=cut)

    @asynccontextmanager
    async def _client(self, call: OutboundCall) -> AsyncIterator[httpx.AsyncClient]:
        """The client for the proxy of *call*; one that nobody else uses is closed behind it.

        Raises: InvalidProxy; UpstreamConnectError for an unusable proxy of the configuration.
        """
        wanted = call.proxy_url.strip()
        if not wanted or wanted in (call.credential_proxy.strip(), call.global_proxy.strip()):
            yield self.clients.client_for(wanted or call.credential_proxy, call.global_proxy)
            return
        try:
            opened = self.clients.open_single(wanted)
        except UpstreamConnectError as exc:
            raise InvalidProxy from exc
        async with opened as client:
            yield client


async def _body(response: httpx.Response) -> tuple[bytes, bool]:
    """Raises: UpstreamError."""
    pieces: list[bytes] = []
    size = 0
    settings = UpstreamSettings(response_bytes=2 * ANSWER_BYTES)
    async for piece in HttpAnswer.of(response, settings):
        pieces.append(piece)
        size += len(piece)
        if size > ANSWER_BYTES:
            break
    return b"".join(pieces)[:ANSWER_BYTES], size > ANSWER_BYTES


def _request(call: OutboundCall) -> httpx.Request:
    """Raises: InvalidUrl, InvalidHeader."""
    try:
        url = httpx.URL(call.url)
        port = url.port
    except (httpx.InvalidURL, ValueError) as exc:
        raise InvalidUrl from exc
    if url.scheme not in PORTS or not url.host or (port is not None and not 0 < port < 65536):
        raise InvalidUrl
    if url.userinfo:
        # It would become a header that nobody asked for, or be lost.
        raise InvalidUrl("invalid url: user and password belong into a header")
    headers: list[tuple[bytes, bytes]] = []
    names: set[bytes] = set()
    for name, value in call.headers:
        low = name.lower()
        if not _TOKEN.fullmatch(low):
            raise InvalidHeader
        if low not in _FRAMING:
            headers.append((low, value))
            names.add(low)
    for name, value in ((b"user-agent", USER_AGENT), (b"accept-encoding", b"identity"), (b"host", url.netloc)):
        if name not in names:
            headers.append((name, value))
    if call.body or call.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        headers.append((b"content-length", b"%d" % len(call.body)))
    try:
        refuse_line_breaks(dict(headers))
        return httpx.Request(call.method, url, headers=headers, stream=BufferStream((call.body,)))
    except (CpaError, ValueError, TypeError) as exc:
        raise InvalidHeader from exc
