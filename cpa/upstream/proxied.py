"""Transports for requests that a proxy carries: httpx's own, closed and counted as ours are."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar

import httpcore
import httpx
import socksio
import trio

from cpa.upstream.http1 import add_framing
from cpa.upstream.proxies import EnvironmentProxies
from cpa.upstream.transport import CLOSE_GRACE_S, TrioTransport

MAX_IDLE_PER_PROXY = 32
"""httpx's own pool looks at each of them per request, so fewer than for direct connections."""


class ProxiedTransport(httpx.AsyncBaseTransport):
    """httpx's own transport through one proxy, plus a count of what is under way.

    Attributes:
      active: requests and responses that are not closed yet.
    """

    def __init__(
        self,
        proxy: httpx.Proxy,
        *,
        ssl_context: ssl.SSLContext,
        connect_seconds: float,
        keepalive_idle_seconds: float,
    ) -> None:
        limits = httpx.Limits(
            max_connections=None,
            max_keepalive_connections=MAX_IDLE_PER_PROXY,
            keepalive_expiry=keepalive_idle_seconds,
        )
        self._inner: httpx.AsyncHTTPTransport
        if proxy.url.scheme in ("socks5", "socks5h"):
            self._inner = _SocksTransport(proxy, ssl_context=ssl_context, limits=limits)
        else:
            self._inner = httpx.AsyncHTTPTransport(proxy=proxy, verify=ssl_context, trust_env=False, limits=limits)
        # Only connecting has a deadline here, as in `TrioTransport`; the others are the callers'.
        self._timeout = httpx.Timeout(None, connect=connect_seconds).as_dict()
        self._retired = False
        self.active = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`; missing framing headers are added as `TrioTransport` does."""
        add_framing(request)
        request.extensions = {**request.extensions, "timeout": self._timeout}
        self.active += 1
        try:
            response = await self._inner.handle_async_request(request)
        except socksio.ProtocolError as exc:  # not in the lower layer's table
            await self._leave()
            raise httpx.ProxyError("the SOCKS proxy broke its protocol") from exc
        except BaseException:
            await self._leave()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LeavingStream(response.stream, self._leave)
        return response

    async def retire(self) -> None:
        """Close now, or when the last response is closed."""
        self._retired = True
        if not self.active:
            await self._inner.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        self._retired = True
        await self._inner.aclose()

    async def _leave(self) -> None:
        self.active -= 1
        if self._retired and not self.active:
            with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                await self._inner.aclose()


class _SocksTransport(httpx.AsyncHTTPTransport):
    """httpx's SOCKS transport, which forgets to close its socket when the talk with the proxy fails or is cancelled."""

    def __init__(self, proxy: httpx.Proxy, *, ssl_context: ssl.SSLContext, limits: httpx.Limits) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        # The base's pool is unused, and has opened nothing yet; httpx offers no other place for a backend.
        self._pool = httpcore.AsyncSOCKSProxy(
            proxy_url=str(proxy.url),
            proxy_auth=proxy.raw_auth,
            ssl_context=ssl_context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_RememberingBackend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        opened: list[httpcore.AsyncNetworkStream] = []
        token = _opened.set(opened)
        try:
            return await super().handle_async_request(request)
        except BaseException:
            # A request that fails leaves no connection worth keeping: at best it is closed already.
            with trio.move_on_after(CLOSE_GRACE_S, shield=True):
                for stream in opened:
                    await stream.aclose()
            raise
        finally:
            _opened.reset(token)


_opened: ContextVar[list[httpcore.AsyncNetworkStream]] = ContextVar("_opened")
"""Connections that the running request of a `_SocksTransport` has opened."""


class _RememberingBackend(httpcore.TrioBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        _opened.get().append(stream)
        return stream


class _LeavingStream(httpx.AsyncByteStream):
    """A response body that says when it is closed."""

    def __init__(self, inner: httpx.AsyncByteStream, leave: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._leave: Callable[[], Awaitable[None]] | None = leave

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._inner.__aiter__()

    async def aclose(self) -> None:
        leave, self._leave = self._leave, None
        if leave is None:
            return
        try:
            await self._inner.aclose()
        finally:
            await leave()


class EnvironmentTransport(httpx.AsyncBaseTransport):
    """Chooses per request what the environment says; the transports belong to `UpstreamClients`."""

    def __init__(
        self, *, direct: TrioTransport, by_scheme: Mapping[str, ProxiedTransport], environment: EnvironmentProxies
    ) -> None:
        self._direct = direct
        self._by_scheme = by_scheme
        self._no_proxy = environment.no_proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        return await self.transport_for(request.url).handle_async_request(request)

    def transport_for(self, url: httpx.URL) -> TrioTransport | ProxiedTransport:
        """What carries requests to *url*."""
        proxied = self._by_scheme.get(url.scheme)
        port = url.port or (443 if url.scheme == "https" else 80)
        return self._direct if proxied is None or self._no_proxy.matches(url.host.lower(), port) else proxied
