"""The heads of requests to providers, rendered once for all calls whose heads are the same.

All that a head holds, but for the length of the body, follows from values that do not change: the credential, the
dialect, the proxy settings, and what of the client's request the dialect names (`Dialect.distinct`). So it is rendered
and checked once, kept, and found again by exactly these values. What depends on the body is rendered anew each time.
"""

from functools import lru_cache
from typing import TypeAlias

import attrs
import httpx

from cpa.credentials.model import Credential
from cpa.errors import CpaError, RawHeaders
from cpa.types import Operation, UpstreamCall
from cpa.upstream.client import UpstreamClients, map_errors
from cpa.upstream.connection import Origin
from cpa.upstream.dialects import USER_AGENT, Dialect, HeaderDict, configured_headers, copied_headers
from cpa.upstream.http1 import BufferStream, OutgoingRequest, render_head
from cpa.upstream.transport import TrioTransport, origin_of

MAX_HEADS = 512
"""Kept per executor; a large installation's credentials, each with its operations and some clients' headers."""
MAX_KEPT_BYTES = 4 << 10
"""Of one head. Parts of it are clients' words: longer ones are rendered each time rather than kept."""

Key: TypeAlias = tuple[Credential, Operation, bool, tuple[object, ...], tuple[bytes, ...]]
"""Credentials are compared by identity: a changed one is another object."""


@attrs.frozen(kw_only=True, eq=False)
class Head:
    """The head of a request, all but the length of its body.

    Attributes:
      headers: lower-case names, without ``content-length``, which comes last.
      start: as on the wire, up to the value of ``content-length``.
      transport: what carries the request where no proxy does; None = httpx's way through `UpstreamClients.client_for`.
    """

    url: httpx.URL = attrs.field(repr=False)
    url_text: str = attrs.field(repr=False)
    origin: Origin
    headers: RawHeaders = attrs.field(repr=False)
    start: bytes = attrs.field(repr=False)
    transport: TrioTransport | None

    def outgoing(self, body: tuple[bytes, ...]) -> OutgoingRequest:
        """The request with *body*, for `transport`."""
        length = body_bytes(body)
        return OutgoingRequest(head=b"%b%d\r\n\r\n" % (self.start, length), buffers=body, length=length)

    def request(self, body: tuple[bytes, ...]) -> httpx.Request:
        """The same request for httpx."""
        headers = self.all_headers(body_bytes(body))
        return httpx.Request("POST", self.url, headers=list(headers), stream=BufferStream(body))

    def all_headers(self, length: int) -> RawHeaders:
        """The headers as they are sent with a body of *length* bytes."""
        return (*self.headers, (b"content-length", b"%d" % length))


class Heads:
    """Knows the heads of one dialect's calls.

    Args:
      proxy_url: the global setting.
    """

    def __init__(self, dialect: Dialect, clients: UpstreamClients, proxy_url: str) -> None:
        self._dialect = dialect
        self._clients = clients
        self._proxy_url = proxy_url
        self._kept: dict[Key, Head] = {}

    def of(self, call: UpstreamCall) -> tuple[Head, tuple[bytes, ...]]:
        """The head of *call*, and its body. Raises: CpaError when it cannot be sent."""
        distinct = self._dialect.distinct(call)
        if distinct is None:
            return self._rendered(call)
        credential = call.credential
        copied = copied_headers(call) if credential.headers else ()
        key = (credential, call.operation, call.stream, distinct, copied)
        head = self._kept.get(key)
        if head is None:
            head, _ = self._rendered(call)
            if len(head.start) <= MAX_KEPT_BYTES:
                if len(self._kept) >= MAX_HEADS:
                    self._kept.clear()  # so rare that it needs no order
                self._kept[key] = head
        return head, call.body

    def _rendered(self, call: UpstreamCall) -> tuple[Head, tuple[bytes, ...]]:
        headers = {
            b"user-agent": USER_AGENT,
            b"content-type": b"application/json",
            b"accept": b"text/event-stream" if call.stream else b"application/json",
            b"accept-encoding": b"identity",
        }
        headers |= self._dialect.headers(call)
        body = self._dialect.body(call, headers)
        headers |= configured_headers(call)
        with map_errors():
            url = parsed(self._dialect.url(call))
        # The framing is ours alone: two statements of it are how two servers come to see two different requests.
        headers.pop(b"transfer-encoding", None)
        headers.pop(b"content-length", None)
        headers.setdefault(b"host", url.netloc)
        refuse_line_breaks(headers)
        listed = list(headers.items())
        with map_errors():
            origin = origin_of(url)
            whole = render_head(b"POST", url.raw_path or b"/", [*listed, (b"content-length", b"")])
        head = Head(
            url=url,
            url_text=str(url),
            origin=origin,
            headers=tuple(listed),
            start=whole.removesuffix(b"\r\n\r\n"),
            transport=self._clients.direct_for(url, call.credential.proxy_url, self._proxy_url),
        )
        return head, body


def body_bytes(body: tuple[bytes, ...]) -> int:
    """The size of a body in pieces, which is mostly one."""
    return len(body[0]) if len(body) == 1 else sum(map(len, body))


def refuse_line_breaks(headers: HeaderDict) -> None:
    """Raises: CpaError, without the value, which may be a key; transports' own errors would quote it."""
    if _breaks(b"".join(headers.values())):
        names = ", ".join(name.decode() for name, value in headers.items() if _breaks(value))
        raise CpaError(f"line break or NUL in the request header {names}")


def _breaks(value: bytes) -> bool:
    return b"\r" in value or b"\n" in value or b"\0" in value


@lru_cache(maxsize=1024)
def parsed(url: str) -> httpx.URL:
    """Parsing costs more than a pooled connection; the URLs of a configuration are few."""
    return httpx.URL(url)
