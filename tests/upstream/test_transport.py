"""The transport over real sockets: reuse, races, refusals, cancellation, and what is left behind."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import trio
import trio.testing

from cpa.upstream.transport import BufferStream, TrioTransport
from tests.upstream.scripted import (
    FAIL_S,
    Handler,
    Peer,
    ScriptedServer,
    answering,
    make_tls,
    open_fds,
    open_server,
    response,
)

BIG = bytes(range(256)) * 40_960
"""10 MiB."""


class Produced(httpx.AsyncByteStream):
    """A body that is not in memory; fails after its pieces if told so."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await trio.lowlevel.checkpoint()
            yield piece
        if self.error is not None:
            raise self.error


def post(url: str, *buffers: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> httpx.Request:
    return httpx.Request("POST", url, headers=headers or [], stream=BufferStream(buffers))


async def fetch(transport: TrioTransport, request: httpx.Request) -> tuple[int, bytes]:
    """Status and body, the response closed."""
    answer = await transport.handle_async_request(request)
    try:
        return answer.status_code, b"".join([piece async for piece in pieces_of(answer)])
    finally:
        await answer.aclose()


def pieces_of(answer: httpx.Response) -> httpx.AsyncByteStream:
    assert isinstance(answer.stream, httpx.AsyncByteStream)
    return answer.stream


async def test_request_and_response_as_on_the_wire() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def handle(peer: Peer) -> None:
        request = await peer.request()
        assert request is not None
        seen.append((request.head, request.body))
        await peer.send(b"HTTP/1.1 418 I'm a teapot\r\nA-b: c\r\na-B: d\r\nContent-Length: 2\r\n\r\nhi")

    async with open_server(handle) as server, TrioTransport() as transport:
        request = post(server.url("/v1/x?y=z"), b"{", b"}", headers=[(b"x-Api-Key", b"k"), (b"Host", b"h")])
        answer = await transport.handle_async_request(request)
        assert (answer.status_code, answer.reason_phrase, answer.http_version) == (418, "I'm a teapot", "HTTP/1.1")
        assert answer.headers.raw == [(b"A-b", b"c"), (b"a-B", b"d"), (b"Content-Length", b"2")]
        assert [piece async for piece in pieces_of(answer)] == [b"hi"]
    assert seen == [(b"POST /v1/x?y=z HTTP/1.1\r\nContent-Length: 2\r\nx-Api-Key: k\r\nHost: h\r\n\r\n", b"{}")]


@pytest.mark.parametrize("tls", [False, True])
async def test_sequential_requests_use_one_connection(tls: bool) -> None:
    contexts = make_tls()
    count = 200 if tls else 1000
    async with (
        open_server(answering(response(b"abc")), tls=contexts.server if tls else None) as server,
        TrioTransport(ssl_context=contexts.client) as transport,
    ):
        for _ in range(count):
            assert await fetch(transport, post(server.url(), b"body")) == (200, b"abc")
        assert server.connections == 1
        assert (transport.open_connections, transport.idle_connections) == (1, 1)


async def test_fifty_at_once_and_the_last_used_connection_first() -> None:
    everybody = trio.Event()
    waiting = 0

    async def handle(peer: Peer) -> None:
        nonlocal waiting
        while (request := await peer.request()) is not None:
            waiting += 1
            if waiting == 50:
                everybody.set()
            await everybody.wait()
            await peer.send(response(request.body))

    async with open_server(handle) as server, TrioTransport() as transport:

        async def one(number: int) -> None:
            body = b"%d" % number
            assert await fetch(transport, post(server.url(), body)) == (200, body)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        assert (transport.open_connections, transport.idle_connections) == (50, 50)
        for number in range(50):
            await one(number)
        assert server.connections == 50


@pytest.mark.parametrize("tls", [False, True])
async def test_ten_megabytes_both_ways(tls: bool) -> None:
    """In many buffers: more than one scatter write takes, small and large mixed."""
    contexts = make_tls()
    buffers = [BIG[:100], *(BIG[100 + i : 101 + i] for i in range(300)), BIG[400:70_000], b"", BIG[70_000:]]

    async def echo(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            await peer.send(response(request.body))

    async with (
        open_server(echo, tls=contexts.server if tls else None) as server,
        TrioTransport(ssl_context=contexts.client) as transport,
    ):
        status, body = await fetch(transport, post(server.url(), *buffers))
        assert (status, body == BIG) == (200, True)
        assert transport.idle_connections == 1


async def test_streamed_bodies_are_chunked_or_have_their_given_length() -> None:
    seen: list[tuple[bytes | None, bytes]] = []

    async def handle(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append((request.header(b"transfer-encoding"), request.body))
            await peer.send(response())

    async with open_server(handle) as server, TrioTransport() as transport:
        stream = Produced(b"ab", b"", b"c" * 20)
        assert await fetch(transport, httpx.Request("POST", server.url(), stream=stream)) == (200, b"ok")
        length = {"content-length": "22"}
        assert await fetch(transport, httpx.Request("POST", server.url(), headers=length, stream=stream)) == (
            200,
            b"ok",
        )
        assert transport.idle_connections == 1
        for wrong in ("21", "23"):
            request = httpx.Request("POST", server.url(), headers={"content-length": wrong}, stream=stream)
            with pytest.raises(httpx.LocalProtocolError):
                await fetch(transport, request)
        broken = Produced(b"ab", error=KeyError("mine"))
        with pytest.raises(KeyError, match="mine"):
            await fetch(transport, httpx.Request("POST", server.url(), stream=broken))
        assert transport.open_connections == 0
    assert seen == [(b"chunked", b"ab" + b"c" * 20), (None, b"ab" + b"c" * 20)]


@pytest.mark.parametrize(
    "data",
    [
        response(b"hello world", headers=b"X: y\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello world",
    ],
)
async def test_responses_split_anywhere(data: bytes) -> None:
    until_close = b"\r\n\r\nhello" in data and b"Content-Length" not in data

    for place in range(1, len(data)):

        async def handle(peer: Peer, place: int = place) -> None:
            await peer.request()
            await peer.send(data[:place], data[place:])

        async with open_server(handle) as server, TrioTransport() as transport:
            answer = await transport.handle_async_request(post(server.url()))
            pieces = [piece async for piece in pieces_of(answer)]
            assert b"".join(pieces) == b"hello world"
            assert all(pieces)
            assert answer.headers["x"] == "y"
            await answer.aclose()
            assert transport.open_connections == (0 if until_close else transport.idle_connections)


async def test_body_that_came_with_the_head_costs_no_connection() -> None:
    """The connection is free again before anybody reads the body."""
    async with open_server(answering(response(b"abc"))) as server, TrioTransport() as transport:
        first = await transport.handle_async_request(post(server.url()))
        assert transport.idle_connections == 1
        assert await fetch(transport, post(server.url())) == (200, b"abc")
        assert [piece async for piece in pieces_of(first)] == [b"abc"]
        assert server.connections == 1


async def test_pieces_come_as_they_are_sent_and_only_when_asked_for() -> None:
    go = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n1\r\nc\r\n")
        await go.wait()
        await peer.send(b"1\r\nd\r\n0\r\n\r\n")

    async with open_server(handle) as server, TrioTransport() as transport:
        answer = await transport.handle_async_request(post(server.url()))
        stream = pieces_of(answer).__aiter__()
        received = await anext(stream)
        while received != b"abc":
            received += await anext(stream)
        assert transport.idle_connections == 0
        go.set()
        assert await anext(stream) == b"d"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert transport.idle_connections == 1


async def test_cancelled_wait_for_a_piece_loses_nothing() -> None:
    """What a keep-alive timer does: give up waiting, and take the same stream up again."""
    go = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await go.wait()
        await peer.send(b"ab", b"cd")

    async with open_server(handle) as server, TrioTransport() as transport:
        answer = await transport.handle_async_request(post(server.url()))
        stream = pieces_of(answer).__aiter__()
        received = b""
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        go.set()
        while len(received) < 4:
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(stream)
            assert scope.cancelled_caught
            received += await anext(stream)
        assert received == b"abcd"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert transport.idle_connections == 1


async def test_every_await_has_a_checkpoint() -> None:
    async with open_server(answering(response(b"abc"))) as server, TrioTransport() as transport:
        with trio.testing.assert_checkpoints():
            answer = await transport.handle_async_request(post(server.url()))
        with trio.testing.assert_checkpoints():
            await anext(pieces_of(answer).__aiter__())
        with trio.testing.assert_no_checkpoints():
            await answer.aclose()


@pytest.mark.parametrize(
    "data",
    [
        response(headers=b"Connection: close\r\n"),
        response() + b"unasked",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
)
async def test_connections_that_cannot_be_reused_are_closed(data: bytes) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    async with open_server(handle) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url())) == (200, b"ok")
        assert transport.open_connections == 0
        assert await fetch(transport, post(server.url())) == (200, b"ok")
        assert server.connections == 2


async def test_unread_body_closes_the_connection() -> None:
    left: list[bool] = []

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        left.append(await peer.request() is None)

    async with open_server(handle) as server, TrioTransport() as transport:
        answer = await transport.handle_async_request(post(server.url()))
        await answer.aclose()
        await answer.aclose()
        assert transport.open_connections == 0
        with pytest.raises(httpx.StreamClosed):
            await anext(pieces_of(answer).__aiter__())
        await trio.testing.wait_all_tasks_blocked()
    assert left == [True]


@pytest.mark.parametrize("data", [b"", b"H"])
async def test_stale_connection_is_noticed_before_it_is_used(data: bytes) -> None:
    """Closed by the server, or spoken to unasked, while idle."""
    closed = trio.Event()
    go = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(response())
        if peer.number == 1:
            await go.wait()
            await (peer.send(data) if data else peer.stream.aclose())
            closed.set()
            await trio.sleep_forever()

    async with open_server(handle) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url())) == (200, b"ok")
        go.set()
        await closed.wait()
        assert await fetch(transport, post(server.url())) == (200, b"ok")
        assert server.connections == 2
        assert transport.open_connections == 1


def first_answer_then(leave: Callable[[Peer], Awaitable[None]]) -> Handler:
    """Connection 1 answers once and then leaves when the next request has come; later ones answer all."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(response())
        while (await peer.request()) is not None:
            if peer.number == 1:
                await leave(peer)
                return
            await peer.send(response(b"again"))

    async def wait_for_second(peer: Peer) -> None:
        if peer.number == 1:
            await handle(peer)
        else:
            while (await peer.request()) is not None:
                await peer.send(response(b"again"))

    return wait_for_second


async def close(peer: Peer) -> None:
    await peer.stream.aclose()


async def reset(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize("leave", [close, reset])
async def test_idle_close_race_is_retried_once_on_a_fresh_connection(leave: Callable[[Peer], Awaitable[None]]) -> None:
    async with open_server(first_answer_then(leave)) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url(), b"1")) == (200, b"ok")
        assert await fetch(transport, post(server.url(), b"2")) == (200, b"again")
        assert server.connections == 2
        assert (transport.open_connections, transport.idle_connections) == (1, 1)


async def test_no_retry_after_a_byte_of_the_answer() -> None:
    async def leave(peer: Peer) -> None:
        await peer.send(b"H")
        await peer.stream.aclose()

    async with open_server(first_answer_then(leave)) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url(), b"1")) == (200, b"ok")
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, post(server.url(), b"2"))
        assert server.connections == 1
        assert transport.open_connections == 0


async def test_no_retry_when_the_server_leaves_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has worked on the request and would be paid twice; only an immediate hang-up is the race of idle closing."""
    monkeypatch.setattr("cpa.upstream.transport.IDLE_CLOSE_RACE_S", 0.0)
    async with open_server(first_answer_then(close)) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url(), b"1")) == (200, b"ok")
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, post(server.url(), b"2"))
        assert server.connections == 1


async def test_no_retry_of_a_body_that_cannot_be_sent_again() -> None:
    async with open_server(first_answer_then(close)) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url(), b"1")) == (200, b"ok")
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, httpx.Request("POST", server.url(), stream=Produced(b"2")))
        assert server.connections == 1


@pytest.mark.parametrize(
    ("leave", "error"), [(close, httpx.RemoteProtocolError), (reset, httpx.ReadError)], ids=["close", "reset"]
)
async def test_fresh_connection_that_fails_is_an_error(
    leave: Callable[[Peer], Awaitable[None]], error: type[Exception]
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await leave(peer)

    async with open_server(handle) as server, TrioTransport() as transport:
        with pytest.raises(error):
            await fetch(transport, post(server.url(), b"1"))
        assert server.connections == 1
        assert transport.open_connections == 0


@pytest.mark.parametrize(
    ("data", "leave", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", close, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", close, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz", None, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", reset, httpx.ReadError),
    ],
)
async def test_body_that_breaks_gives_its_pieces_and_then_the_error(
    data: bytes, leave: Callable[[Peer], Awaitable[None]] | None, error: type[Exception]
) -> None:
    received = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        if leave is None:
            await trio.sleep_forever()
        await received.wait()
        assert leave is not None
        await leave(peer)

    async with open_server(handle) as server, TrioTransport() as transport:
        stream: AsyncIterator[bytes] | None = None
        if leave is not None:
            stream = pieces_of(await transport.handle_async_request(post(server.url()))).__aiter__()
            assert await anext(stream) == b"abc"
            received.set()
            with pytest.raises(error):
                await anext(stream)
            with pytest.raises(httpx.StreamClosed):
                await anext(stream)
        else:
            with pytest.raises(error):
                await fetch(transport, post(server.url()))
        assert transport.open_connections == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("how", ["close", "reset", "stall"])
async def test_early_refusal_of_a_large_body_is_read(tls: bool, how: str) -> None:
    """A server that answers 413 and hangs up, resets, or just stops reading: the answer wins over the write error."""
    contexts = make_tls()

    async def handle(peer: Peer) -> None:
        await peer.stream.receive_some(1000)
        await peer.send(response(b"too big", status=b"413 Too Large"))
        if how == "stall":
            await trio.sleep_forever()
        await peer.raw.send_eof()
        if how == "reset":
            await trio.testing.wait_all_tasks_blocked()
            peer.reset()

    async with (
        open_server(handle, tls=contexts.server if tls else None) as server,
        TrioTransport(ssl_context=contexts.client) as transport,
    ):
        assert await fetch(transport, post(server.url(), BIG, BIG)) == (413, b"too big")
        assert transport.open_connections == 0
        request = httpx.Request("POST", server.url(), stream=Produced(*[BIG[:1_000_000]] * 20))
        assert await fetch(transport, request) == (413, b"too big")
        assert transport.open_connections == 0


async def test_early_success_does_not_end_the_request() -> None:
    sizes: list[int] = []

    async def handle(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        request = await peer.request()
        assert request is not None
        sizes.append(len(request.body))
        await peer.send(b"ok")

    async with open_server(handle) as server, TrioTransport() as transport:
        assert await fetch(transport, post(server.url(), BIG, BIG)) == (200, b"ok")
        assert transport.idle_connections == 1
    assert sizes == [2 * len(BIG)]


async def test_head_request() -> None:
    handler = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    async with open_server(handler) as server, TrioTransport() as transport:
        assert await fetch(transport, httpx.Request("HEAD", server.url())) == (200, b"")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///x", "/x"])
async def test_urls_that_are_not_ours(url: str) -> None:
    async with TrioTransport() as transport:
        with pytest.raises(httpx.UnsupportedProtocol):
            await fetch(transport, post(url))


async def test_refused_and_unknown_hosts() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with TrioTransport() as transport:
            with pytest.raises(httpx.ConnectError, match=f"127.0.0.1:{port}: .*refused"):
                await fetch(transport, post(f"http://user:secret@127.0.0.1:{port}/?key=secret"))
            with pytest.raises(httpx.ConnectError, match="not a host name"):
                await fetch(transport, post(f"http://{'a' * 64}.test/"))
            assert transport.open_connections == 0


async def test_tls_is_verified() -> None:
    contexts = make_tls()
    before = open_fds()
    async with open_server(answering(response()), tls=contexts.server) as server:
        async with TrioTransport(ssl_context=ssl.create_default_context()) as transport:
            with pytest.raises(httpx.ConnectError, match=r"(?i)certificate.verify.failed"):
                await fetch(transport, post(server.url()))
            assert transport.open_connections == 0
        async with TrioTransport(ssl_context=contexts.client) as transport:
            with pytest.raises(httpx.ConnectError, match=r"(?i)certificate.verify.failed"):
                await fetch(transport, post(server.url().replace("127.0.0.1", "localhost")))
    assert open_fds() == before


async def test_tls_to_a_server_that_does_not_speak_it() -> None:
    async def handle(peer: Peer) -> None:
        await peer.stream.receive_some(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    contexts = make_tls()
    async with open_server(handle) as server, TrioTransport(ssl_context=contexts.client) as transport:
        with pytest.raises(httpx.ConnectError):
            await fetch(transport, post(server.url().replace("http:", "https:")))
        assert transport.open_connections == 0


@pytest.mark.parametrize(("clean", "complete"), [(True, True), (False, False)])
async def test_tls_body_until_close_needs_the_closing_alert(clean: bool, complete: bool) -> None:
    contexts = make_tls()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        if clean:
            assert isinstance(peer.stream, trio.SSLStream)
            peer.stream._https_compatible = False
            with trio.move_on_after(FAIL_S):
                await peer.stream.aclose()
        else:
            await peer.raw.aclose()

    async with (
        open_server(handle, tls=contexts.server) as server,
        TrioTransport(ssl_context=contexts.client) as transport,
    ):
        if complete:
            assert await fetch(transport, post(server.url())) == (200, b"abc")
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await fetch(transport, post(server.url()))
        assert transport.open_connections == 0


async def test_connect_deadline_covers_the_handshake() -> None:
    async def handle(peer: Peer) -> None:
        await trio.sleep_forever()

    contexts = make_tls()
    async with (
        open_server(handle) as server,
        TrioTransport(ssl_context=contexts.client, connect_seconds=0.05) as transport,
    ):
        with pytest.raises(httpx.ConnectTimeout, match=r"0\.05 s"):
            await fetch(transport, post(server.url().replace("http:", "https:")))
        assert transport.open_connections == 0


# -- cancellation: one test per place where an exchange can wait --


async def cancelled_at(server: ScriptedServer, transport: TrioTransport, request: httpx.Request) -> None:
    """Run *request* until everything waits, then cancel it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, transport, request)
        await trio.testing.wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()
    assert transport.open_connections == 0
    assert transport.idle_connections == 0


async def stall(peer: Peer) -> None:
    await trio.sleep_forever()


async def stall_after_request(peer: Peer) -> None:
    await peer.request()
    await trio.sleep_forever()


async def stall_in_head(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-")
    await trio.sleep_forever()


async def stall_in_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    await trio.sleep_forever()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("handler", "body"),
    [(stall, BIG), (stall_after_request, b"x"), (stall_in_head, b"x"), (stall_in_body, b"x")],
    ids=["sending", "head", "in-head", "body"],
)
async def test_cancelled_exchange_leaves_nothing(handler: Handler, body: bytes, tls: bool) -> None:
    if tls and handler is stall:
        handler = stall_after_handshake
    contexts = make_tls()
    before = open_fds()
    async with (
        open_server(handler, tls=contexts.server if tls else None) as server,
        TrioTransport(ssl_context=contexts.client) as transport,
    ):
        await cancelled_at(server, transport, post(server.url(), body))
    assert open_fds() == before


async def stall_after_handshake(peer: Peer) -> None:
    assert isinstance(peer.stream, trio.SSLStream)
    await peer.stream.do_handshake()
    await trio.sleep_forever()


async def test_cancelled_handshake_leaves_nothing() -> None:
    contexts = make_tls()
    before = open_fds()
    async with open_server(stall) as server, TrioTransport(ssl_context=contexts.client) as transport:
        await cancelled_at(server, transport, post(server.url().replace("http:", "https:")))
    assert open_fds() == before


async def test_cancelled_connect_leaves_nothing() -> None:
    """A full accept queue makes connecting wait."""
    before = open_fds()
    listener = socket.socket()
    fillers = [socket.socket() for _ in range(4)]
    with listener, fillers[0], fillers[1], fillers[2], fillers[3]:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        server = ScriptedServer(listener.getsockname()[1], "http")
        async with TrioTransport() as transport:
            await cancelled_at(server, transport, post(server.url()))
    assert open_fds() == before


async def test_closing_works_in_a_cancelled_scope() -> None:
    before = open_fds()
    async with open_server(stall_in_body) as server, TrioTransport() as transport:
        answer = await transport.handle_async_request(post(server.url()))
        assert transport.open_connections == 1
        with trio.CancelScope() as scope:
            scope.cancel()
            await answer.aclose()
        assert transport.open_connections == 0
    assert open_fds() == before


async def test_five_hundred_cancelled_at_random_places_leave_nothing() -> None:
    """Places are the number of checkpoints passed, so that each run is the same."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"abc", b"def")

    before = open_fds()
    async with open_server(handle) as server, TrioTransport() as transport:

        async def one(turns: int) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fetch, transport, post(server.url(), b"x" * 1000))
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number % 25)
        for number in range(400):
            await one(number % 25)
        assert transport.open_connections == transport.idle_connections
        assert await fetch(transport, post(server.url())) == (200, b"abcdef")
    assert open_fds() == before


async def test_closing_the_transport_ends_running_exchanges() -> None:
    before = open_fds()
    failed = trio.Event()
    async with open_server(stall_in_body) as server:
        transport = TrioTransport()

        async def wait_for_body() -> None:
            with pytest.raises(httpx.ReadError):
                await fetch(transport, post(server.url()))
            failed.set()

        async def sending() -> None:
            with pytest.raises((httpx.ReadError, httpx.WriteError)):
                await fetch(transport, post(server.url(), BIG, BIG, headers=[(b"x", b"y")]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_body)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert transport.open_connections == 1
            await transport.aclose()
            await transport.aclose()
        assert failed.is_set()
        assert transport.open_connections == 0
        with pytest.raises(RuntimeError):
            await fetch(transport, post(server.url()))
    async with open_server(stall) as server:
        transport = TrioTransport()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sending)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await transport.aclose()
    assert open_fds() == before
