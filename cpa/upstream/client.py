"""The httpx clients that executors use, one per proxy setting, and what their errors mean to us."""

import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, NoReturn

import attrs
import httpx
import trio

from cpa.errors import (
    CpaError,
    ErrorMap,
    UpstreamConnectError,
    UpstreamError,
    UpstreamHungUp,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from cpa.upstream.proxies import DIRECT_VALUES, EnvironmentProxies, parse_proxy, redact_urls
from cpa.upstream.transport import CLOSE_GRACE_S as CLOSE_GRACE_S
from cpa.upstream.transport import (
    DEFAULT_CONNECT_SECONDS,
    DEFAULT_KEEPALIVE_IDLE_SECONDS,
    TrioTransport,
    make_tls_context,
)

if TYPE_CHECKING:
    from cpa.upstream.proxied import ProxiedTransport

MAX_CLIENTS = 256
"""Distinct proxy settings at a time; far more than one per credential of a large installation."""

ENGINE_VARIABLE = "CPA_UPSTREAM"
"""``httpx`` in this environment variable sends every request through httpx's interface, also those without a proxy."""

HTTPX_ERRORS: ErrorMap = MappingProxyType(
    {
        # Bases first: a class that a later httpx adds falls back on its base.
        httpx.HTTPError: UpstreamError,
        httpx.RequestError: UpstreamError,
        httpx.TransportError: UpstreamError,
        httpx.HTTPStatusError: UpstreamError,
        httpx.TimeoutException: UpstreamTimeout,
        httpx.ConnectTimeout: UpstreamTimeout,
        httpx.ReadTimeout: UpstreamTimeout,
        httpx.WriteTimeout: UpstreamTimeout,
        httpx.PoolTimeout: UpstreamTimeout,
        # Hanging up early is a breach of protocol, whichever of the two sides notices it first.
        httpx.NetworkError: UpstreamHungUp,
        httpx.ReadError: UpstreamHungUp,
        httpx.WriteError: UpstreamHungUp,
        httpx.CloseError: UpstreamHungUp,
        httpx.ConnectError: UpstreamConnectError,
        httpx.ProxyError: UpstreamConnectError,
        # The operator's base-url; no connection was made.
        httpx.UnsupportedProtocol: UpstreamConnectError,
        httpx.InvalidURL: UpstreamConnectError,
        httpx.ProtocolError: UpstreamProtocolError,
        httpx.RemoteProtocolError: UpstreamHungUp,
        # Ours, not the provider's: must not look like an upstream failure, nor be retried.
        httpx.LocalProtocolError: CpaError,
        httpx.DecodingError: UpstreamProtocolError,
        httpx.TooManyRedirects: UpstreamProtocolError,
        trio.TooSlowError: UpstreamTimeout,
        trio.BrokenResourceError: UpstreamHungUp,
        ssl.SSLError: UpstreamConnectError,
    }
)
"""What each foreign error means; the most specific class counts."""


class map_errors:
    """``with map_errors():`` raises what a foreign error means, from that error; all others pass.

    Texts keep no user-info and no query of any URL.
    """

    __slots__ = ("_table",)

    def __init__(self, table: ErrorMap = HTTPX_ERRORS) -> None:
        self._table = table

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            _raise_meaning(exc, self._table)


FOREIGN_ERRORS = tuple(HTTPX_ERRORS)
"""For ``except FOREIGN_ERRORS as exc: raise_meaning(exc)``: `map_errors` that costs nothing where nothing is raised."""


def raise_meaning(exc: BaseException) -> NoReturn:
    """Raises: what *exc*, one of `FOREIGN_ERRORS`, means, from it."""
    _raise_meaning(exc, HTTPX_ERRORS)
    raise exc


def _raise_meaning(exc: BaseException, table: ErrorMap) -> None:
    for cls in type(exc).__mro__:
        target = table.get(cls)
        if target is not None:
            raise target(redact_urls(str(exc)) or target.default_message) from exc


@attrs.frozen(kw_only=True)
class ClientStats:
    """Counts for metrics.

    Attributes:
      clients: distinct proxy settings that are in use.
      open_connections: established direct connections, used or idle.
      idle_connections: those of them that wait for a request.
      proxied_requests: requests and unfinished responses that go through proxies.
    """

    clients: int
    open_connections: int
    idle_connections: int
    proxied_requests: int


@asynccontextmanager
async def open_clients(
    *,
    ssl_context: ssl.SSLContext | None = None,
    connect_seconds: float = DEFAULT_CONNECT_SECONDS,
    keepalive_idle_seconds: float = DEFAULT_KEEPALIVE_IDLE_SECONDS,
    tls_at_once: bool = True,
) -> AsyncIterator["UpstreamClients"]:
    """Own all connections to providers; the proxies of the environment are read now.

    Args:
      ssl_context: for providers and ``https`` proxies; None = verify against the system's certificates.
      tls_at_once: read those now, not with the first connection that needs them: that takes 10 to 40 ms.
    """
    # Both libraries log request URLs, whose query may hold a key, and headers.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    clients = UpstreamClients(
        ssl_context=ssl_context or (make_tls_context() if tls_at_once else None),
        connect_seconds=connect_seconds,
        keepalive_idle_seconds=keepalive_idle_seconds,
        environment=EnvironmentProxies.read(),
        straight=os.environ.get(ENGINE_VARIABLE) != "httpx",
    )
    try:
        yield clients
    finally:
        with trio.move_on_after(CLOSE_GRACE_S, shield=True):
            await clients.aclose()


class UpstreamClients:
    """One `httpx.AsyncClient` per distinct effective proxy setting; made by `open_clients`.

    The clients send requests as they are: no default headers, no cookies, no redirects, no environment. *straight*:
    `direct_for` may say how to do without them.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None,
        connect_seconds: float,
        keepalive_idle_seconds: float,
        environment: EnvironmentProxies,
        straight: bool = True,
    ) -> None:
        self._straight = straight
        self._connect_seconds = connect_seconds
        self._keepalive_idle_seconds = keepalive_idle_seconds
        self._environment = environment
        self._direct = TrioTransport(
            ssl_context=ssl_context, connect_seconds=connect_seconds, keepalive_idle_seconds=keepalive_idle_seconds
        )
        direct = self._new_client(self._direct)
        # Keyed by the setting as written; these live as long as this object, the others until they are retired.
        self._clients: dict[str, PlainClient] = dict.fromkeys(DIRECT_VALUES, direct)
        if not environment.urls:
            self._clients[""] = direct
        self._proxied: dict[str, tuple[ProxiedTransport, ...]] = {}
        self._retired: list[ProxiedTransport] = []

    def client_for(self, proxy_url: str, global_proxy: str) -> "PlainClient":
        """The client for a credential's *proxy_url*, else *global_proxy*, else the environment.

        ``direct`` and ``none`` mean no proxy at all. The client stays usable after `retire_unused`, it only keeps no
        connections then.
        Raises: UpstreamConnectError for an unusable setting; its text names the setting, passwords masked.
        """
        value = proxy_url.strip() or global_proxy.strip()
        client = self._clients.get(value)
        if client is not None:
            return client
        if value.lower() in DIRECT_VALUES:
            return self._clients[value.lower()]
        setting = "proxy-url of the credential" if proxy_url.strip() else "global proxy-url"
        if len(self._clients) >= MAX_CLIENTS:
            raise UpstreamConnectError(f"{setting}: more than {MAX_CLIENTS} distinct proxies", code="invalid_proxy")
        transport: httpx.AsyncBaseTransport
        if value:
            proxied = self._proxy_transport(value, setting)
            self._proxied[value] = (proxied,)
            transport = proxied
        else:
            by_scheme = {
                scheme: self._proxy_transport(url, f"environment variable {variable}")
                for scheme, (url, variable) in self._environment.urls.items()
            }
            self._proxied[value] = tuple(by_scheme.values())
            from cpa.upstream.proxied import EnvironmentTransport  # with it come httpcore and SOCKS: proxies only

            transport = EnvironmentTransport(direct=self._direct, by_scheme=by_scheme, environment=self._environment)
        client = self._clients[value] = self._new_client(transport)
        return client

    def direct_for(self, url: httpx.URL, proxy_url: str, global_proxy: str) -> TrioTransport | None:
        """What carries requests to *url* where `client_for` would go without a proxy; None where it would not.

        The answer holds as long as this object lives: direct clients are never retired, and the environment is read
        once. None also when `ENGINE_VARIABLE` wants everything done through httpx's interface.
        Raises: as `client_for`.
        """
        transport = self.client_for(proxy_url, global_proxy).straight
        if not self._straight:
            return None
        if isinstance(transport, TrioTransport):
            return transport
        from cpa.upstream.proxied import EnvironmentTransport  # it is loaded: there is a proxy

        if isinstance(transport, EnvironmentTransport):
            transport = transport.transport_for(url)
        return transport if isinstance(transport, TrioTransport) else None

    def open_single(self, proxy_url: str) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """A client for one call through *proxy_url*, which is not empty; its connections are closed with the block.

        Raises: UpstreamConnectError for an unusable setting, now.
        """
        value = proxy_url.strip()
        pooled = self._clients.get(value) or self._clients.get(value.lower())
        if pooled is not None:  # among them those that mean no proxy
            return nullcontext(pooled)
        return _single(self._proxy_transport(value, "proxy_url of the call"))

    async def retire_unused(self, in_use: Iterable[tuple[str, str]]) -> None:
        """After a reload: give up the clients of settings that no (credential, global) pair of *in_use* names.

        Running exchanges end undisturbed; the connections of a retired client close with the last of them.
        """
        kept = {proxy_url.strip() or global_proxy.strip() for proxy_url, global_proxy in in_use}
        retired = [value for value in self._proxied if value not in kept]
        for value in retired:
            del self._clients[value]
            self._retired.extend(self._proxied.pop(value))
        # One step for the tables, then the waiting. What is idle already is done with for good.
        closing = tuple(self._retired)
        self._retired = [transport for transport in closing if transport.active]
        for transport in closing:
            await transport.retire()

    def stats(self) -> ClientStats:
        """Counts of this moment."""
        proxied = [transport for transports in self._proxied.values() for transport in transports]
        return ClientStats(
            clients=len(set(map(id, self._clients.values()))),
            open_connections=self._direct.open_connections,
            idle_connections=self._direct.idle_connections,
            proxied_requests=sum(transport.active for transport in (*proxied, *self._retired)),
        )

    async def aclose(self) -> None:
        """Close all connections, used ones as well."""
        await self._direct.aclose()
        proxied = [transport for transports in self._proxied.values() for transport in transports]
        for transport in (*proxied, *self._retired):
            await transport.aclose()

    def _proxy_transport(self, url: str, setting: str) -> "ProxiedTransport":
        tls = self._direct.tls()
        from cpa.upstream.proxied import ProxiedTransport  # with it come httpcore and SOCKS: proxies only

        return ProxiedTransport(
            parse_proxy(url, setting=setting, tls=tls),
            ssl_context=tls,
            connect_seconds=self._connect_seconds,
            keepalive_idle_seconds=self._keepalive_idle_seconds,
        )

    def _new_client(self, transport: httpx.AsyncBaseTransport) -> "PlainClient":
        return PlainClient(transport)


@asynccontextmanager
async def _single(transport: "ProxiedTransport") -> AsyncIterator[httpx.AsyncClient]:
    try:
        yield PlainClient(transport)
    finally:
        with trio.move_on_after(CLOSE_GRACE_S, shield=True):
            await transport.aclose()


class _NoCookies(httpx.Cookies):
    """Keeps nothing: a cookie that one provider sets for one credential is nobody else's business."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep nothing."""


_NO_COOKIES = _NoCookies()


class PlainClient(httpx.AsyncClient):
    """A client that hands requests to its transport as they are, and responses back.

    `httpx.AsyncClient.send` keeps cookies, parses redirects even if it does not follow them (and fails on a bad
    ``Location``), makes an Authorization header of a URL's user-info, logs the URL with its query, and costs about as
    much as the exchange itself.

    Attributes:
      straight: its transport.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, trust_env=False, follow_redirects=False)
        self.straight = transport

    async def send(
        self, request: httpx.Request, *, stream: bool = False, auth: object = None, follow_redirects: object = False
    ) -> httpx.Response:
        """Send *request*; *auth* and *follow_redirects* are not supported and ignored."""
        response = await self.straight.handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    @property
    def cookies(self) -> httpx.Cookies:
        """Always empty."""
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        raise AttributeError("this client keeps no cookies")
