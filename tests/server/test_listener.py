"""Connections of slow, broken and hostile HTTP/1.1 clients, and of odd but honest ones."""

import socket
import struct

import pytest
import trio
import trio.testing

from cpa.server import gateway, listener
from tests.server.wire import CHAT, CHAT_STREAM, FAIL_S, Hangup, connect, head, post, serving

SWEEP_S = 0.02


@pytest.fixture(autouse=True)
def quick_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are compared fifty times a second, so that they can be short."""
    monkeypatch.setattr(listener, "SWEEP_S", SWEEP_S)


async def test_half_a_head_is_answered_408() -> None:
    """A client that never finishes its head holds a connection, nothing more, and is told why it lost it."""
    async with serving(extra="limits: {header-seconds: 0.1}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: pro")
                reply = await wire.reply()
                assert reply.status == 408
                assert b"request_timeout" in reply.body
                assert await wire.rest() == b""
            await proxy.quiet()


async def test_head_in_drips_is_answered_408_all_the_same() -> None:
    """Slow loris: every byte is progress, but the head as a whole has a deadline."""
    async with serving(extra="limits: {header-seconds: 0.2}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, trio.open_nursery() as nursery:

                async def drip() -> None:
                    for byte in head(headers=["x-a: b"] * 1000):
                        await wire.send(bytes([byte]))
                        await trio.sleep(0.01)

                nursery.start_soon(drip)
                assert (await wire.reply()).status == 408
                nursery.cancel_scope.cancel()


async def test_idle_connection_is_closed_without_a_word() -> None:
    """Also after a request; a client that has nothing to say must not read an answer to nothing."""
    async with serving(extra="limits: {keepalive-idle-seconds: 0.1}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as fresh, connect(proxy.url) as used:
                await used.send(post())
                assert (await used.reply()).status == 200
                assert await fresh.rest() == b""
                assert await used.rest() == b""


async def test_running_request_is_not_idle() -> None:
    """The idle limit counts between requests only."""
    async with serving(extra="limits: {keepalive-idle-seconds: 0.1, header-seconds: 0.1}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(headers=["x-mock-first-byte: 400"]))
                assert (await wire.reply()).status == 200


@pytest.mark.parametrize("size_bytes", [200_000, 1 << 20])
async def test_oversized_head_is_refused_readably(size_bytes: int) -> None:
    """The refusal reaches also a client that is still writing: a plain close would reset it away."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head("GET", "/healthz", headers=["x-long: " + "a" * size_bytes]))
                assert (await wire.reply()).status == 431
                assert await wire.rest() == b""
            await proxy.quiet()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
    ],
    ids=["binary", "tls", "no version", "no host", "no colon", "bad length", "two lengths", "bad coding"],
)
async def test_garbage_is_refused_and_closed(garbage: bytes) -> None:
    """Whatever it is, it is not HTTP; the connection ends with a status from the 4xx or 5xx range."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(garbage)
                reply = await wire.reply()
                assert reply.status in (400, 501)
                assert await wire.rest() == b""
            await proxy.quiet()


async def test_broken_chunk_in_a_body_ends_the_connection() -> None:
    """Nobody knows where the next request would begin; the one that broke never reaches a provider."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(headers=["transfer-encoding: chunked"]) + b"5\r\nhello\r\nxyz\r\n")
                rest = await wire.rest()
                assert not rest or rest.startswith(b"HTTP/1.1 400")
            await proxy.quiet()
            assert proxy.mock.total_requests == 0


async def test_client_that_stops_reading_is_dropped_with_its_request() -> None:
    """It would hold a provider's stream, and what the provider costs, for as long as it likes."""
    body = CHAT_STREAM.replace(b'"gpt"', b'"mock-gpt-unrenamed"')
    async with serving(extra="limits: {send-idle-seconds: 0.3}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url, receive_buffer_bytes=4096) as wire:
                await wire.send(post(body, headers=["x-mock-chunks: 60", "x-mock-chunk-bytes: 1000000"]))
                await proxy.mock.wait_requests(1)
                await proxy.connections.until(lambda: not proxy.connections)
                await proxy.mock.wait_idle()
                assert proxy.mock.requests[0].closed_by_client


async def test_slow_reader_is_served_to_the_end() -> None:
    """Taking little is not the same as taking nothing."""
    async with serving(extra="limits: {send-idle-seconds: 0.5}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url, receive_buffer_bytes=16 << 10) as wire:
                await wire.send(post(CHAT_STREAM, headers=["x-mock-chunks: 40", "x-mock-chunk-bytes: 100000"]))
                size_bytes = 0
                await wire.head()
                async for chunk in wire.chunks():
                    size_bytes += len(chunk)
                    await trio.sleep(0.01)
                assert size_bytes > 4_000_000


async def test_connections_beyond_the_limit_are_refused_with_503() -> None:
    """The limit protects file descriptors; those who have a connection keep it, and a freed place is free."""
    async with serving(extra="limits: {connections: 2}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as first:
                async with connect(proxy.url) as second:
                    for wire in (first, second):
                        await wire.send(head("GET", "/healthz"))
                        assert (await wire.reply()).status == 200
                    async with connect(proxy.url) as third:
                        reply = await third.reply()
                        assert reply.status == 503
                        assert b"too_many_connections" in reply.body
                    await first.send(post())
                    assert (await first.reply()).status == 200
                await proxy.connections.until(lambda: len(proxy.connections) < 2)
                async with connect(proxy.url) as fourth:
                    await fourth.send(head("GET", "/healthz"))
                    assert (await fourth.reply()).status == 200


async def test_one_connection_serves_more_than_a_thousand_requests() -> None:
    """Hypercorn closes a connection after a thousand by default, which agents see as a random failure."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                for _ in range(1100):
                    await wire.send(head("GET", "/healthz"))
                    reply = await wire.reply()
                    assert reply.status == 200
                    assert reply.headers.get("connection") != "close"
                await wire.send(post())
                assert (await wire.reply()).status == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    """HTTP/1.1 allows them; some load generators and old proxies send them."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                slow = post(headers=["x-mock-first-byte: 50"])
                await wire.send(slow + head("GET", "/healthz") + post(CHAT_STREAM) + head("GET", "/"))
                assert (await wire.reply()).body.startswith(b'{"id"')
                assert (await wire.reply()).body == b'{"status":"ok"}'
                assert (await wire.reply()).body.endswith(b"data: [DONE]\n\n")
                assert b"endpoints" in (await wire.reply()).body
                await wire.send(post())
                assert (await wire.reply()).status == 200


@pytest.mark.parametrize("extra", [b"\r\n", post()], ids=["stray line end", "pipelined request"])
async def test_leaving_is_noticed_behind_pipelined_bytes(extra: bytes) -> None:
    """Bytes of a next request must not hide that the client has gone: its provider would work for nobody."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(headers=["x-mock-fault: stall", "x-mock-first-byte: 600000"]) + extra)
                await proxy.mock.wait_requests(1)
            left = trio.current_time()
            await proxy.mock.requests[0].wait_closed_by_client()
            assert trio.current_time() - left < 2
            await proxy.quiet()


async def test_endless_pipelining_ends_the_connection() -> None:
    """A client that goes on sending while its answer is made costs bounded memory, and is taken for gone."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(headers=["x-mock-first-byte: 600000"]))
                await proxy.mock.wait_requests(1)
                with pytest.raises(trio.BrokenResourceError):
                    await wire.send(bytes(64 << 20))
            await proxy.mock.requests[0].wait_closed_by_client()
            await proxy.quiet()


async def test_expect_100_continue_is_granted_before_the_body() -> None:
    """curl waits for it with every large body."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(length=len(CHAT), headers=["expect: 100-continue"]))
                assert (await wire.head()).status == 100
                await wire.send(CHAT)
                assert (await wire.reply()).status == 200


async def test_chunked_request_bodies_arrive_whole() -> None:
    """Clients that stream their body do not know its length."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head(headers=["transfer-encoding: chunked"]))
                for byte in CHAT:
                    await wire.send(b"1\r\n%c\r\n" % byte)
                await wire.send(b"0\r\nx-trailer: 1\r\n\r\n")
                assert (await wire.reply()).status == 200
                assert proxy.mock.requests[0].body == CHAT.replace(b'"gpt"', b'"mock-gpt"')


async def test_head_of_healthz_has_no_body() -> None:
    """Load balancers ask so."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head("HEAD", "/healthz"))
                assert (await wire.reply(head_only=True)).status == 200
                await wire.send(head("GET", "/healthz"))
                assert (await wire.reply()).body == b'{"status":"ok"}'


async def test_http_1_0_clients_get_streams_that_end_with_the_connection() -> None:
    """Simple tools speak it; there are no chunks for them."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(CHAT_STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
                reply = await wire.head()
                assert reply.status == 200
                assert "transfer-encoding" not in reply.headers
                assert (await wire.rest()).endswith(b"data: [DONE]\n\n")


async def test_websocket_upgrade_is_answered_426_where_none_is_offered() -> None:
    """Codex then falls back to HTTP at once and in silence; any other answer costs it seven seconds."""
    upgrade = ["connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    upgrade += ["sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "openai-beta: responses_websockets=2026-02-06"]
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for path in ("/v1/chat/completions", "/v1/responses/compact"):
                async with connect(proxy.url) as wire:
                    await wire.send(head("GET", path, headers=upgrade))
                    reply = await wire.reply()
                    assert reply.status == 426
                    assert reply.headers["access-control-allow-origin"] == "*"
                    assert await wire.rest() == b""
            await proxy.quiet()


async def test_connection_close_is_honoured() -> None:
    """A client that asks for it gets its answer whole, then the end."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(headers=["connection: close"]))
                assert (await wire.reply()).status == 200
                assert await wire.rest() == b""


async def test_bodies_that_nobody_reads_do_not_hold_the_connection() -> None:
    """Redirects, preflights and unknown paths answer without the body; its rest must not block the connection."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for method, path, status in (
                ("POST", "/v1/messages/", 307),
                ("OPTIONS", "/v1/messages", 204),
                ("POST", "/nowhere", 404),
                ("POST", "/v1/models", 405),
            ):
                async with connect(proxy.url) as wire:
                    body = bytes(4 << 20)
                    with_body = head(method, path, length=len(body)) + body
                    try:
                        await wire.send(with_body)
                        reply = await wire.reply()
                        assert reply.status == status, path
                    except (trio.BrokenResourceError, Hangup):
                        pytest.fail(f"{method} {path}: the answer was lost")
            await proxy.quiet()


async def test_reload_changes_limits_of_open_connections() -> None:
    """An operator under attack shortens the limits; those who attack are connected already."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(head("GET", "/healthz"))
                assert (await wire.reply()).status == 200
                proxy.app.server.limits = type(proxy.app.server.limits)(keepalive_idle_seconds=0.05)
                assert await wire.rest() == b""


async def test_plain_requests_are_served_beside_all_that() -> None:
    """The hostile ones cost nobody else anything."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as half, connect(proxy.url) as garbage, connect(proxy.url) as honest:
                await half.send(b"POST /v1/chat")
                await garbage.send(b"\x00" * 100 + b"\r\n\r\n")
                await honest.send(post(CHAT))
                assert (await honest.reply()).status == 200


@pytest.mark.parametrize("fast", ["", "hypercorn"])
async def test_who_leaves_is_499_in_the_access_line(fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its leaving came to be known; for a stream, whose head said 200, as well."""
    monkeypatch.setenv(listener.FAST_VARIABLE, fast)
    statuses: list[object] = []
    monkeypatch.setattr(gateway, "log_access", lambda **line: statuses.append(line["status"]))
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(headers=["x-mock-first-byte: 600000"]))
                await proxy.mock.wait_requests(1)
            await proxy.quiet()
            async with connect(proxy.url) as wire:
                await wire.send(post(CHAT_STREAM, headers=["x-mock-fault: stall", "x-mock-at: 3"]))
                assert (await wire.head()).status == 200
            await proxy.quiet()
            while len(statuses) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert statuses == [499, 499]


async def test_a_reset_that_the_sweep_sees_first_is_that_connections_alone() -> None:
    """The sweep is everybody's: what it finds on one socket must not end the server."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(post(headers=["x-mock-first-byte: 600000"]))
                await proxy.mock.wait_requests(1)
                [connection] = proxy.app.server.connections
                wire.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.stream.socket.close()
                connection.look_ahead()  # before anybody else could hear of it
            await proxy.mock.requests[0].wait_closed_by_client()
            async with connect(proxy.url) as wire:
                await wire.send(post())
                assert (await wire.reply()).status == 200
