"""Clients per proxy setting, error mapping, and that nothing is added, kept or leaked."""

import logging
import ssl
from collections.abc import Iterator

import httpx
import pytest
import trio
import trio.testing

from cpa.errors import (
    CpaError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamHungUp,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from cpa.upstream import client as client_module
from cpa.upstream.client import HTTPX_ERRORS, ClientStats, UpstreamClients, map_errors, open_clients
from cpa.upstream.transport import BufferStream
from tests.upstream.proxies_fake import open_http_proxy, open_socks_proxy
from tests.upstream.scripted import Peer, RawRequest, answering, make_tls, open_fds, open_server, response


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv(client_module.ENGINE_VARIABLE, raising=False)
    return monkeypatch


def post(url: str, body: bytes = b"{}") -> httpx.Request:
    return httpx.Request("POST", url, headers=[(b"x-test", b"1")], stream=BufferStream((body,)))


async def fetch(client: httpx.AsyncClient, request: httpx.Request) -> tuple[int, bytes]:
    answer = await client.send(request, stream=True)
    try:
        return answer.status_code, await answer.aread()
    finally:
        await answer.aclose()


# -- errors --


def subclasses(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_table_covers_every_error_of_httpx() -> None:
    """All but misuse of a response object (StreamError) and of cookies, which are bugs and must look like them."""
    ours = {cls for cls in subclasses(httpx.HTTPError) if cls.__module__.startswith("httpx")}
    assert httpx.ReadTimeout in ours
    assert ours | {httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError, ssl.SSLError} <= HTTPX_ERRORS.keys()
    public = {value for value in vars(httpx).values() if isinstance(value, type) and issubclass(value, Exception)}
    bugs = {cls for cls in public if issubclass(cls, httpx.StreamError)} | {httpx.CookieConflict}
    assert public - bugs <= HTTPX_ERRORS.keys()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("x"), UpstreamConnectError),
        (httpx.ProxyError("x"), UpstreamConnectError),
        (httpx.UnsupportedProtocol("x"), UpstreamConnectError),
        (httpx.InvalidURL("x"), UpstreamConnectError),
        (ssl.SSLCertVerificationError("x"), UpstreamConnectError),
        (httpx.ConnectTimeout("x"), UpstreamTimeout),
        (httpx.ReadTimeout("x"), UpstreamTimeout),
        (trio.TooSlowError(), UpstreamTimeout),
        (httpx.ReadError("x"), UpstreamHungUp),
        (httpx.WriteError("x"), UpstreamHungUp),
        (httpx.RemoteProtocolError("x"), UpstreamHungUp),
        (httpx.DecodingError("x"), UpstreamProtocolError),
        (httpx.TransportError("x"), UpstreamError),
        (httpx.LocalProtocolError("x"), CpaError),
    ],
)
def test_errors_are_mapped(error: Exception, expected: type[CpaError]) -> None:
    with pytest.raises(CpaError) as caught, map_errors():
        raise error
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error
    assert caught.value.message


def test_other_errors_and_success_pass() -> None:
    with map_errors():
        pass
    for error in (KeyError("x"), UpstreamTimeout("y"), httpx.StreamClosed()):
        with pytest.raises(type(error)) as caught, map_errors():
            raise error
        assert caught.value is error


def test_mapped_messages_have_no_secrets() -> None:
    with pytest.raises(UpstreamConnectError) as caught, map_errors():
        raise httpx.ConnectError("no way to https://user:secret@h.test/v1?key=secret&a=b")
    assert caught.value.message == "no way to https://***@h.test/v1?***"


async def test_cancellation_is_not_mapped() -> None:
    with trio.CancelScope() as scope, map_errors():
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


# -- requests go out as they are --


async def test_nothing_is_added_kept_or_followed() -> None:
    seen: list[RawRequest] = []

    async def handle(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.send(
                response(b"x", status=b"302 Found", headers=b"Set-Cookie: a=b; Path=/\r\nLocation: http://[bad\r\n")
            )

    async with open_server(handle) as server, open_clients() as clients:
        client = clients.client_for("", "")
        for _ in range(2):
            url = server.url("/a?key=k").replace("://", "://user:pw@")
            assert await fetch(client, post(url)) == (302, b"x")
            assert (await client.send(post(url))).content == b"x"
        assert dict(client.cookies) == {}
        with pytest.raises(AttributeError):
            client.cookies = httpx.Cookies({"a": "b"})
        expected = (
            b"POST /a?key=k HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 2\r\nx-test: 1\r\n\r\n" % server.port
        )
        assert [request.head for request in seen] == [expected] * 4


async def test_request_urls_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(answering(response())) as server, open_clients() as clients:
        await fetch(clients.client_for("", ""), post(server.url("/?key=canary")))
    assert "canary" not in caplog.text


# -- one client per setting --


async def test_precedence_and_sharing(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HTTP_PROXY", "http://environment.test")
    async with open_clients() as clients:
        direct = clients.client_for("direct", "http://global.test")
        assert clients.client_for(" None ", "http://global.test") is direct
        assert clients.client_for("", "DIRECT") is direct
        glob = clients.client_for("", "http://global.test")
        own = clients.client_for("http://own.test", "http://global.test")
        env = clients.client_for("", "")
        assert len({id(client) for client in (direct, glob, own, env)}) == 4
        assert clients.client_for("http://global.test", "") is glob
        assert clients.client_for("http://own.test", "") is own
        assert clients.stats() == ClientStats(clients=4, open_connections=0, idle_connections=0, proxied_requests=0)


async def test_empty_environment_shares_the_direct_client() -> None:
    async with open_clients() as clients:
        assert clients.client_for("", "") is clients.client_for("direct", "")


async def test_invalid_settings_are_refused_each_time(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("HTTPS_PROXY", "ftp://u:secret@p.test")
    async with open_clients() as clients:
        for proxy_url, global_proxy, name in (
            ("ftp://u:secret@p", "http://ok.test", "proxy-url of the credential"),
            ("", "http://u:secret@p:99999", "global proxy-url"),
            ("", "", "environment variable HTTPS_PROXY"),
        ):
            for _ in range(2):
                with pytest.raises(UpstreamConnectError, match=f"^{name}: ") as caught:
                    clients.client_for(proxy_url, global_proxy)
                assert "secret" not in str(caught.value)
        assert clients.stats().clients == 1


async def test_number_of_settings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_CLIENTS", 5)
    async with open_clients() as clients:
        for number in range(2):
            clients.client_for(f"http://p{number}.test", "")
        with pytest.raises(UpstreamConnectError, match="more than 5"):
            clients.client_for("http://p3.test", "")
        await clients.retire_unused([])
        clients.client_for("http://p3.test", "")


async def test_direct_stats_and_closing() -> None:
    before = open_fds()
    async with open_server(answering(response())) as server:
        async with open_clients() as clients:
            client = clients.client_for("", "")
            answer = await client.send(post(server.url()), stream=True)
            await answer.aclose()
            assert clients.stats() == ClientStats(clients=1, open_connections=1, idle_connections=1, proxied_requests=0)
        assert clients.stats().open_connections == 0
    assert open_fds() == before


# -- the straight way --


@pytest.mark.parametrize(
    ("proxy_url", "global_proxy", "url", "straight"),
    [
        ("", "", "http://provider.test/", False),  # HTTP_PROXY
        ("", "", "https://provider.test/", True),
        ("", "", "http://127.0.0.1/", True),
        ("", "", "http://x.test:81/", True),  # NO_PROXY
        ("", "", "http://y.x.test/", True),
        ("none", "http://global.test", "http://provider.test/", True),
        ("", "DIRECT", "http://provider.test/", True),
        ("", "http://global.test", "http://127.0.0.1/", False),
        ("socks5://own.test", "direct", "http://127.0.0.1/", False),
    ],
)
async def test_only_what_no_proxy_carries_goes_straight(
    environ: pytest.MonkeyPatch, proxy_url: str, global_proxy: str, url: str, straight: bool
) -> None:
    """A proxy is there for a reason; and the switch turns every call back to httpx's interface."""
    environ.setenv("HTTP_PROXY", "http://environment.test")
    environ.setenv("NO_PROXY", "x.test")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reads no certificates
    async with open_clients(ssl_context=tls) as clients:
        transport = clients.direct_for(httpx.URL(url), proxy_url, global_proxy)
        direct = clients.client_for("direct", "").straight
        assert transport is (direct if straight else None)
    environ.setenv(client_module.ENGINE_VARIABLE, "httpx")
    async with open_clients(ssl_context=tls) as clients:
        assert clients.direct_for(httpx.URL(url), proxy_url, global_proxy) is None


async def test_unusable_proxy_is_no_straight_way() -> None:
    async with open_clients() as clients:
        with pytest.raises(UpstreamConnectError, match="proxy-url of the credential"):
            clients.direct_for(httpx.URL("http://127.0.0.1/"), "ftp://p.test", "")


# -- through proxies --


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", ["http", "socks5", "socks5h"])
async def test_proxies_carry_requests_and_keep_connections(kind: str, tls: bool) -> None:
    contexts = make_tls()
    login = ("user", "pa:ss")
    before = open_fds()
    async with (
        open_server(answering(response(b"abc")), tls=contexts.server if tls else None) as server,
        open_http_proxy(server.port) if kind == "http" else open_socks_proxy(server.port, login=login) as proxy,
        open_clients(ssl_context=contexts.client) as clients,
    ):
        client = clients.client_for(f"{kind}://user:pa%3Ass@127.0.0.1:{proxy.port}", "")
        url = f"{server.scheme}://provider.test:81/x"
        for _ in range(3):
            assert await fetch(client, post(url)) == (200, b"abc")
        assert server.connections == 1
        assert proxy.targets == ["provider.test:81" if tls or kind != "http" else url]
        assert proxy.credentials == ["user:pa:ss"]
        assert clients.stats().proxied_requests == 0
    assert open_fds() == before


@pytest.mark.parametrize("fault", ["refuse", "garbage", "down"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_proxy_failures_are_connect_errors_and_never_go_direct(kind: str, fault: str) -> None:
    contexts = make_tls()
    before = open_fds()
    async with open_server(answering(response()), tls=contexts.server) as server:
        async with open_http_proxy(server.port) if kind == "http" else open_socks_proxy(server.port) as proxy:
            proxy.refuse = fault == "refuse"
            proxy.garbage = fault == "garbage"
            port = 1 if fault == "down" else proxy.port
            async with open_clients(ssl_context=contexts.client) as clients:
                client = clients.client_for(f"{kind}://u:secret@127.0.0.1:{port}", "")
                with pytest.raises((UpstreamConnectError, UpstreamProtocolError)) as caught, map_errors():
                    await fetch(client, post(server.url()))
                assert type(caught.value) is UpstreamConnectError or fault == "garbage"
                assert "secret" not in str(caught.value)
                assert clients.stats().proxied_requests == 0
        assert server.connections == 0
    assert open_fds() == before


async def test_wrong_proxy_password() -> None:
    async with open_socks_proxy(1, login=("u", "right")) as proxy, open_clients() as clients:
        client = clients.client_for(f"socks5://u:wrong@127.0.0.1:{proxy.port}", "")
        with pytest.raises(UpstreamConnectError), map_errors():
            await fetch(client, post("http://provider.test/"))


async def test_environment_chooses_per_request(environ: pytest.MonkeyPatch) -> None:
    async with open_server(answering(response(b"abc"))) as server, open_http_proxy(server.port) as proxy:
        environ.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        environ.setenv("NO_PROXY", "x.test")
        async with open_clients() as clients:
            client = clients.client_for("", "")
            assert await fetch(client, post("http://provider.test/")) == (200, b"abc")
            assert proxy.targets == ["http://provider.test/"]
            assert await fetch(client, post(server.url())) == (200, b"abc")
            assert len(proxy.targets) == 1
            assert await fetch(clients.client_for("none", ""), post(server.url())) == (200, b"abc")
            assert clients.stats().open_connections == 1


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_retired_client_ends_with_its_last_response(kind: str) -> None:
    go = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await go.wait()
        await peer.send(b"def")
        await peer.request()

    before = open_fds()
    async with (
        open_server(handle) as server,
        open_http_proxy(server.port) if kind == "http" else open_socks_proxy(server.port) as proxy,
        open_clients() as clients,
    ):
        idle_fds = open_fds()
        setting = f"{kind}://127.0.0.1:{proxy.port}"
        client = clients.client_for("", setting)
        answer = await client.send(post("http://provider.test/"), stream=True)
        await clients.retire_unused([("", setting)])
        assert clients.client_for("", setting) is client
        await clients.retire_unused([("direct", setting)])
        assert clients.stats().proxied_requests == 1
        assert clients.client_for("", setting) is not client
        go.set()
        assert await answer.aread() == b"abcdef"
        await answer.aclose()
        assert clients.stats().proxied_requests == 0
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert open_fds() == idle_fds
    assert open_fds() == before


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("place", ["proxy", "provider"])
async def test_cancelled_proxied_exchange_leaves_nothing(kind: str, place: str) -> None:
    """Cancelled in the talk with the proxy, or waiting for the provider."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    before = open_fds()
    async with (
        open_server(handle) as server,
        open_http_proxy(server.port) if kind == "http" else open_socks_proxy(server.port) as proxy,
        open_clients() as clients,
    ):
        proxy.stall = place == "proxy"
        client = clients.client_for(f"{kind}://127.0.0.1:{proxy.port}", "")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, client, post("http://provider.test/"))
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert clients.stats().proxied_requests == 1
            assert server.connections == (place == "provider")
            nursery.cancel_scope.cancel()
        assert clients.stats().proxied_requests == 0
    assert open_fds() == before


async def test_clients_are_closed_also_when_the_block_fails() -> None:
    kept: list[UpstreamClients] = []
    async with open_server(answering(response())) as server:

        async def fail() -> None:
            async with open_clients() as clients:
                kept.append(clients)
                await fetch(clients.client_for("", ""), post(server.url()))
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert kept[0].stats().open_connections == 0
