"""Fetching what a client names by address: nothing inside our network, nothing large, nothing that is no medium."""

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from cpa.types import FetchedMedia
from cpa.upstream import media
from cpa.upstream.client import open_clients
from cpa.upstream.media import MediaFetcher, is_public
from tests.upstream.scripted import Peer, RawRequest, answering, make_tls, open_server

LOOPBACK = ("127.0.0.0/8",)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Resolver(trio.abc.HostnameResolver):
    """Names that lead where a test says, each look-up to the next of its addresses."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = {name.replace("_", "."): list(addresses) for name, addresses in names.items()}
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *args: int, **kwargs: int) -> Any:
        """The addresses of *host*; those behind a ``|`` come together."""
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.append(name)
        known = self.names.get(name)
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        said = known.pop(0) if len(known) > 1 else known[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in said.split("|")]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        """Nobody asks."""
        raise NotImplementedError


@asynccontextmanager
async def fetching(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[MediaFetcher]:
    """A fetcher and the clients below it."""
    with trio.fail_after(60):
        async with open_clients(ssl_context=tls) as clients:
            yield MediaFetcher(clients)


async def fetched(url: str, *, allowed: Sequence[str] = LOOPBACK) -> FetchedMedia:
    async with fetching() as fetcher:
        [found] = await fetcher.fetch([url], allowed=allowed)
    assert bool(found.data) is not bool(found.problem)
    return found


def image(body: bytes = PNG, kind: bytes = b"image/png", *more: bytes) -> bytes:
    headers = [b"content-length: %d" % len(body), *([b"content-type: " + kind] if kind else []), *more]
    return b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body


def moved(location: str, status: int = 302) -> bytes:
    return b"HTTP/1.1 %d Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (status, location.encode())


# --- which addresses -------------------------------------------------------------------------------------------------

INSIDE = [
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1"),
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address: str) -> None:
    """Whatever they are written as."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_outside_are(address: str) -> None:
    """Also behind NAT64, where all of the old internet looks like that."""
    assert is_public(ipaddress.ip_address(address))


def test_the_operator_may_allow_networks() -> None:
    """And only those."""
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    found = ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "10.2.0.1", "127.0.0.1", "fe80::1"]
    assert [is_public(ipaddress.ip_address(one), allowed) for one in found] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1.", "localhost.", "①②⑦.⓪.⓪.①"),
    ],
)
async def test_our_own_machine_is_never_asked(host: str) -> None:
    """However its address is spelled: it is judged when it has become numbers."""
    async with open_server(answering(image())) as server:
        found = await fetched(f"http://{host}:{server.port}/x.png", allowed=())
        assert server.connections == 0
    assert found.problem in ("its host is not on the public internet", "its host is not known", "it is no address")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "only http and https addresses are fetched"),
        ("ftp://127.0.0.1/x", "only http and https addresses are fetched"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "only http and https addresses are fetched"),
        ("http:///x", "only http and https addresses are fetched"),
        ("//127.0.0.1/x", "only http and https addresses are fetched"),
        ("http://user:secret@127.0.0.1/x", "addresses with a user name or password are not fetched"),
        ("http://" + "a" * 9000, "the address is longer than 8192 characters"),
        ("http://[::1", "it is no address"),
        ("http://127.0.0.1:99999/", "it is no address"),
        ("http://no-such-name.invalid/x", "its host is not known"),
    ],
)
async def test_odd_addresses(url: str, problem: str) -> None:
    """None of them is tried, and none is repeated in full."""
    resolver = Resolver()
    with resolving(resolver):
        assert await fetched(url) == FetchedMedia(problem=problem)


# --- names -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def resolving(resolver: Resolver) -> Any:
    before = trio.socket.set_custom_hostname_resolver(resolver)
    try:
        yield resolver
    finally:
        trio.socket.set_custom_hostname_resolver(before)


async def test_a_name_is_looked_up_once() -> None:
    """What a second look-up would say does not matter: the address that was judged is the one that is asked."""
    seen: list[RawRequest] = []

    async def handle(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.send(image())

    async with open_server(handle) as server:
        with resolving(Resolver(cdn_example=("127.0.0.1", "127.0.0.2"))) as resolver:
            found = await fetched(f"http://cdn.example:{server.port}/x.png?sig=1", allowed=("127.0.0.1",))
            again = await fetched(f"http://cdn.example:{server.port}/x.png", allowed=("127.0.0.1",))
    assert (found.mime, found.data, resolver.asked) == ("image/png", PNG, ["cdn.example"] * 2)
    assert again.problem == "its host is not on the public internet"
    [request] = seen
    assert request.head.startswith(b"GET /x.png?sig=1 HTTP/1.1\r\n")
    assert request.header(b"host") == b"cdn.example:%d" % server.port
    names = {line.partition(b":")[0].lower() for line in request.head.split(b"\r\n")[1:] if line}
    assert names <= {b"host", b"accept", b"accept-encoding", b"content-length"}  # nobody's keys, nobody's cookies


async def test_of_several_addresses_only_those_outside_are_asked() -> None:
    """A name with one foot inside."""
    async with open_server(answering(image())) as server:
        with resolving(Resolver(both_example=("127.0.0.9|127.0.0.1",))):
            found = await fetched(f"http://both.example:{server.port}/", allowed=("127.0.0.1",))
        assert (found.data, server.connections) == (PNG, 1)


async def test_certificates_are_those_of_the_name() -> None:
    """Although the connection goes to a number."""
    tls = make_tls()
    async with open_server(answering(image()), tls=tls.server) as server, fetching(tls=tls.client) as fetcher:
        with resolving(Resolver(provider_test=("127.0.0.1",), other_example=("127.0.0.1",))):
            good, bad = await fetcher.fetch(
                [f"https://provider.test:{server.port}/", f"https://other.example:{server.port}/"], allowed=LOOPBACK
            )
    assert good.data == PNG
    assert bad.problem == "the server could not be reached or broke off"


# --- redirects -------------------------------------------------------------------------------------------------------


async def test_redirects_are_judged_like_the_first_address() -> None:
    """The usual way in."""
    async with open_server(answering(image())) as inside:
        to = f"http://127.0.0.2:{inside.port}/latest/meta-data/"
        async with open_server(answering(moved(to))) as server:
            found = await fetched(server.url(), allowed=("127.0.0.1",))
        assert (found.problem, inside.connections) == ("its host is not on the public internet", 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int) -> None:
    """Also relative ones."""
    paths: list[bytes] = []

    async def handle(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            paths.append(request.head.split(b" ")[1])
            await peer.send(image() if paths[-1] == b"/b.png?x=1" else moved("../b.png?x=1", status))

    async with open_server(handle) as server:
        assert (await fetched(server.url("/a/a.png"))).data == PNG
    assert paths == [b"/a/a.png", b"/b.png?x=1"]


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("/again", "it redirects more than 3 times"),
        ("file:///etc/passwd", "only http and https addresses are fetched"),
        ("http://[::1", "it redirects to something that is no address"),
    ],
)
async def test_redirects_that_lead_nowhere(location: str, problem: str) -> None:
    """Each is an answer, not an endless walk."""
    async with open_server(answering(moved(location))) as server:
        assert (await fetched(server.url())).problem == problem


async def test_no_redirect_leads_out_of_tls() -> None:
    """What was asked for in secret is not fetched in the open."""
    tls = make_tls()
    redirect = answering(moved("http://127.0.0.1:1/"))
    async with open_server(redirect, tls=tls.server) as server, fetching(tls=tls.client) as fetcher:
        [found] = await fetcher.fetch([server.url()], allowed=LOOPBACK)
    assert found.problem == "it redirects from https to http"


# --- what comes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "mime"),
    [
        (PNG, b"image/png", "image/png"),
        (b"x", b"Image/JPG; q=1", "image/jpeg"),
        (b"x", b"application/pdf", "application/pdf"),
        (b"x", b"audio/mpeg", "audio/mpeg"),
        (PNG, b"application/octet-stream", "image/png"),
        (b"%PDF-1.7", b"", "application/pdf"),
        (b"RIFF1234WEBPx", b"binary/octet-stream", "image/webp"),
    ],
)
async def test_types(body: bytes, kind: bytes, mime: str) -> None:
    """As the server says; where it does not, as the first bytes do."""
    async with open_server(answering(image(body, kind))) as server:
        assert await fetched(server.url()) == FetchedMedia(mime=mime, data=body)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (image(b"<html>", b"text/html"), "it is of type text/html, which is no media type that is passed on"),
        (image(b"<svg/>", b"image/svg+xml"), "it is of type image/svg+xml, which is no media type that is passed on"),
        (image(b"root:x:0:0", b""), "it is of type unknown, which is no media type that is passed on"),
        (image(b"x", b"\xff\xfe"), "it is of type unknown, which is no media type that is passed on"),
        (image(b""), "it is empty"),
        (image(b"x", b"image/png", b"content-encoding: gzip"), "the server sent it encoded, which was not asked for"),
        (b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}", "the server answered with status 404"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}", "the server answered with status 500"),
        (b"nonsense\r\n\r\n", "the server could not be reached or broke off"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 20971521\r\n\r\n",
            "it is larger than 20 MB",
        ),
    ],
)
async def test_what_is_no_medium(answer: bytes, problem: str) -> None:
    """Nothing of what came is told."""
    async with open_server(answering(answer)) as server:
        assert await fetched(server.url()) == FetchedMedia(problem=problem)


async def test_sizes_are_counted_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not say how much it sends, and sends for ever."""
    monkeypatch.setattr(media, "MAX_MEDIA_BYTES", 100_000)

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"1000\r\n" + bytes(4096) + b"\r\n")

    async with open_server(handle) as server:
        assert (await fetched(server.url())).problem.startswith("it is larger than")


async def test_all_of_one_request_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes; the same address counts once."""
    monkeypatch.setattr(media, "MAX_MEDIA", 3)
    monkeypatch.setattr(media, "MAX_REQUEST_BYTES", 2 * len(PNG))
    async with open_server(answering(image())) as server, fetching() as fetcher:
        urls = [server.url(f"/{n}") for n in (1, 2, 1, 2)]
        assert [one.data for one in await fetcher.fetch(urls, allowed=LOOPBACK)] == [PNG] * 4
        found = await fetcher.fetch([server.url(f"/{n}") for n in range(4)], allowed=LOOPBACK)
    problems = [one.problem for one in found]
    assert problems[3] == "more than 3 of them in one request"
    assert sum(problem.startswith("the media of one request are larger") for problem in problems) == 1


async def test_slow_servers_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, wherever they stop."""
    monkeypatch.setattr(media, "FETCH_S", 0.05)

    async def handle(peer: Peer) -> None:
        await peer.request()
        await trio.sleep_forever()

    async with open_server(handle) as server:
        assert (await fetched(server.url())).problem == "it took more than 0.05 s"


@pytest.mark.parametrize("together", [False, True])
async def test_only_so_many_at_once(monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    """Of all requests together, and of each; and a client that leaves ends its own."""
    monkeypatch.setattr(media, "MAX_AT_ONCE_PER_REQUEST" if together else "MAX_AT_ONCE", 2)
    running, most, reached = 0, 0, trio.Event()

    async def handle(peer: Peer) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            reached.set()
        try:
            await peer.request()
            await peer.request()  # until the client leaves
        finally:
            running -= 1

    async with open_server(handle) as server, fetching() as fetcher:
        async with trio.open_nursery() as nursery:
            urls = [server.url(f"/{n}") for n in range(3)]
            for group in [urls] if together else [[url] for url in urls]:
                nursery.start_soon(partial(fetcher.fetch, group, allowed=LOOPBACK))
            await reached.wait()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert most == 2
        assert fetcher._slots.borrowed_tokens == 0
        assert fetcher._clients.stats().open_connections == 0
