"""HTTP/2 without TLS, by prior knowledge: one connection, many exchanges, none of which may harm another."""

import pytest
import trio

from cpa.server import listener
from tests.server.h2_client import h2_client
from tests.server.wire import CHAT, CHAT_STREAM, FAIL_S, connect, serving

SWEEP_S = 0.02


@pytest.fixture(autouse=True)
def quick_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are compared fifty times a second, so that they can be short."""
    monkeypatch.setattr(listener, "SWEEP_S", SWEEP_S)


async def test_prior_knowledge_serves_many_exchanges_at_once() -> None:
    """Sidecars talk so; answers come when they are ready, not in order."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                path = "/v1/chat/completions"
                slow = await client.request("POST", path, body=CHAT, headers={"x-mock-first-byte": "200"})
                others = [await client.request("POST", path, body=CHAT_STREAM) for _ in range(20)]
                for stream_id in others:
                    exchange = await client.answer(stream_id)
                    assert exchange.status == 200
                    assert exchange.body.endswith(b"data: [DONE]\n\n")
                assert not client.exchanges[slow].ended
                assert (await client.answer(slow)).status == 200
            await proxy.quiet()


async def test_reset_cancels_that_exchange_only() -> None:
    """Within 100 ms its provider is free; the others on the connection go on."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                path = "/v1/chat/completions"
                orders = {"x-mock-chunks": "1000", "x-mock-delay": "5"}
                given_up = await client.request("POST", path, body=CHAT_STREAM, headers=orders)
                await client.some(given_up, 1)
                orders = {"x-mock-chunks": "60", "x-mock-delay": "5"}
                kept = await client.request("POST", path, body=CHAT_STREAM, headers=orders)
                await client.some(kept, 1)
                reset_at = trio.current_time()
                await client.reset(given_up)
                await proxy.mock.requests[0].wait_closed_by_client()
                assert trio.current_time() - reset_at < 0.1
                exchange = await client.answer(kept)
                assert exchange.body.endswith(b"data: [DONE]\n\n")
                assert not proxy.mock.requests[1].closed_by_client
            await proxy.quiet()


async def test_reset_while_waiting_for_the_first_byte_cancels() -> None:
    """Nothing was sent yet; the exchange has to notice all the same."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                headers = {"x-mock-first-byte": "600000"}
                stream_id = await client.request("POST", "/v1/messages", body=CHAT.replace(b"gpt", b"claude"))
                await client.answer(stream_id)
                stream_id = await client.request("POST", "/v1/chat/completions", body=CHAT, headers=headers)
                await proxy.mock.wait_requests(2)
                await client.reset(stream_id)
                await proxy.mock.requests[-1].wait_closed_by_client()
                assert (await client.answer(await client.request("GET", "/healthz"))).status == 200


async def test_client_without_window_is_dropped() -> None:
    """It takes no data although its socket reads: the flow control of HTTP/2 hides that from the socket."""
    async with serving(extra="limits: {send-idle-seconds: 0.3}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                client.grants = False
                headers = {"x-mock-chunks": "60", "x-mock-chunk-bytes": "1000000"}
                await client.request("POST", "/v1/chat/completions", body=CHAT_STREAM, headers=headers)
                await proxy.mock.wait_requests(1)
                await client.wait_closed()
                assert len(client.exchanges[1].body) == 65535
            await proxy.mock.wait_idle()
            assert proxy.mock.requests[0].closed_by_client  # it was not read to its end meanwhile
            await proxy.quiet()


async def test_slow_h2_reader_gets_a_large_answer_whole() -> None:
    """A whole body of megabytes takes longer than the limit in one piece; taking it slowly is no offence."""
    async with serving(extra="limits: {send-idle-seconds: 0.3}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                client.grants = False
                headers = {"x-mock-chunks": "30", "x-mock-chunk-bytes": "100000"}
                stream_id = await client.request("POST", "/v1/chat/completions", body=CHAT, headers=headers)
                exchange = client.exchanges[stream_id]
                while not exchange.ended:
                    await trio.sleep(0.01)
                    assert not client.closed
                    taken = len(exchange.body)
                    client.connection.increment_flow_control_window(65535)
                    if not exchange.ended:
                        client.connection.increment_flow_control_window(65535, stream_id)
                    await client.flush()
                    assert taken <= 4_000_000
                assert len(exchange.body) > 3_000_000


async def test_connection_without_any_request_is_closed_when_idle() -> None:
    """The preface alone is no use of a connection."""
    async with serving(extra="limits: {keepalive-idle-seconds: 0.1}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                await client.wait_closed()
            await proxy.quiet()


async def test_used_connection_is_closed_when_idle() -> None:
    """As with HTTP/1.1; a running exchange is not idle."""
    async with serving(extra="limits: {keepalive-idle-seconds: 0.15}") as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                headers = {"x-mock-first-byte": "400"}
                stream_id = await client.request("POST", "/v1/chat/completions", body=CHAT, headers=headers)
                assert (await client.answer(stream_id)).status == 200
                await client.wait_closed()


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", "/nowhere", True, 404),
        ("POST", "/v1/messages/", True, 307),
        ("OPTIONS", "/v1/messages", True, 204),
        ("POST", "/v1/messages", False, 401),
    ],
)
async def test_body_behind_an_early_answer_harms_no_other_exchange(
    method: str, path: str, key: bool, status: int
) -> None:
    """The answer is complete before the request is; what still comes of that belongs to nobody."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                orders = {"x-mock-chunks": "40", "x-mock-delay": "5"}
                other = await client.request("POST", "/v1/chat/completions", body=CHAT_STREAM, headers=orders)
                await client.some(other, 1)
                headers = {} if key else {"authorization": "Bearer wrong"}
                early = await client.request(method, path, body=bytes(100), headers=headers, end=False)
                if key:
                    exchange = await client.answer(early)
                    assert exchange.status == status
                    if exchange.reset is None:
                        client.connection.send_data(early, bytes(1000))
                        await client.flush()
                else:
                    await client.some(early, 1)
                    await client.data(early, bytes(1000), end=True)
                    exchange = await client.answer(early)
                    assert exchange.status == status
                assert (await client.answer(other)).body.endswith(b"data: [DONE]\n\n")
                assert (await client.answer(await client.request("GET", "/healthz"))).status == 200


async def test_upload_larger_than_the_windows_arrives() -> None:
    """The server gives room as it reads."""
    body = b'{"model":"gpt","messages":[{"role":"user","content":"' + b"a" * (1 << 20) + b'"}]}'
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                stream_id = await client.request("POST", "/v1/chat/completions", body=body)
                assert (await client.answer(stream_id)).status == 200
                assert len(proxy.mock.requests[0].body) > 1 << 20


async def test_garbage_behind_the_preface_ends_the_connection() -> None:
    """Not HTTP/2 after all."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire:
                await wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x05\x01" + b"\xff" * 200)
                await wire.rest()
            await proxy.quiet()


async def test_path_that_is_no_text_is_refused_without_harm() -> None:
    """HTTP/2 carries any bytes as a path; the server must not fail over them."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                await client.request("GET", "/v1/m\u00f6dels")
                await client.wait_closed()
            await proxy.quiet()
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                assert (await client.answer(await client.request("GET", "/healthz"))).status == 200


async def test_client_that_leaves_cancels_all_its_exchanges() -> None:
    """Leaving a connection leaves everything on it."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with connect(proxy.url) as wire, h2_client(wire.stream) as client:
                for _ in range(5):
                    headers = {"x-mock-first-byte": "600000"}
                    await client.request("POST", "/v1/chat/completions", body=CHAT, headers=headers)
                await proxy.mock.wait_requests(5)
            left = trio.current_time()
            await proxy.mock.wait_idle()
            assert trio.current_time() - left < 2
            await proxy.quiet()
