"""The mock provider over real sockets: HTTP, faults, records, cancellation."""

import json
import socket
from collections.abc import Sequence

import pytest
import trio
import trio.testing

from cpa.testing.mock import MockProvider, Recorder, expected_body, open_mock, refusing_port, serve_mock
from cpa.testing.mock.connection import MAX_PIPELINED_BYTES
from cpa.testing.mock.http import Request
from cpa.testing.mock.main import main
from cpa.testing.mock.record import Changes, RecordedRequest
from cpa.testing.mock.server import base_url
from cpa.testing.mock.state import MockState

CHAT = "/v1/chat/completions"
TARGETS = {
    "chat": CHAT,
    "responses": "/v1/responses",
    "claude": "/v1/messages?beta=true",
    "gemini": "/v1beta/models/{model}:streamGenerateContent?alt=sse",
}


def chat_body(model: str, *, stream: bool = True, text: str = "hi") -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "stream": stream, "messages": messages}).encode()


def body_for(name: str, model: str) -> bytes:
    if name == "gemini":
        return b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
    if name == "responses":
        return json.dumps({"model": model, "stream": True, "input": "hi"}).encode()
    return chat_body(model)


def post(target: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {target} HTTP/{version}", "Host: mock", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def read_all(client: trio.SocketStream) -> bytes:
    """Until the end of the connection; a reset raises trio.BrokenResourceError."""
    return b"".join([piece async for piece in client])


async def read_until(client: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = await client.receive_some()
        assert piece, f"the connection ended with {data!r}"
        data += piece
    return data


async def read_until_reset(client: trio.SocketStream) -> bytes:
    """What comes before a reset; an orderly end is a failure."""
    data = b""
    with trio.fail_after(5):
        try:
            async for piece in client:
                data += piece
        except trio.BrokenResourceError:
            return data
    pytest.fail(f"no reset, but an orderly end after {data!r}")


async def exchange(mock: MockProvider, request: bytes) -> bytes:
    """Send *request* on a connection of its own, read to the end."""
    with trio.fail_after(5):
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            await client.send_all(request)
            return await read_all(client)


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, raw body) of a response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split(" ")[1]), dict(line.split(": ", 1) for line in lines), body


def dechunk(body: bytes) -> tuple[list[bytes], bool]:
    """(HTTP chunks, whether the last chunk came)."""
    chunks: list[bytes] = []
    at = 0
    while at < len(body):
        start = body.index(b"\r\n", at) + 2
        size = int(body[at : start - 2], 16)
        if size == 0:
            assert body[start:] == b"\r\n"
            return chunks, True
        chunks.append(body[start : start + size])
        at = start + size + 2
    return chunks, False


async def streamed(mock: MockProvider, model: str, *headers: str) -> tuple[list[bytes], bool]:
    """(HTTP chunks, complete) of a Chat stream."""
    answer = await exchange(mock, post(CHAT, chat_body(model), "Connection: close", *headers))
    status, fields, body = split(answer)
    assert (status, fields["content-type"]) == (200, "text/event-stream")
    return dechunk(body)


@pytest.mark.parametrize("name", TARGETS)
async def test_streams_arrive_byte_for_byte(name: str) -> None:
    model = "mock-think-chunks-40-chunk-bytes-100"
    target, body = TARGETS[name].format(model=model), body_for(name, model)
    async with open_mock() as mock:
        status, headers, raw = split(await exchange(mock, post(target, body, "Connection: close")))
        chunks, complete = dechunk(raw)
        assert (status, headers["transfer-encoding"], complete) == (200, "chunked", True)
        assert len(chunks) > 40
        assert b"".join(chunks) == expected_body(target, body)
        assert mock.requests[-1].body == body
        assert mock.requests[-1].target == target


async def test_ten_megabytes_arrive_byte_for_byte() -> None:
    """The answer is made while it is sent: too large for the cache."""
    body = chat_body("mock-chunks-1000-chunk-bytes-10240")
    async with open_mock() as mock:
        _, _, raw = split(await exchange(mock, post(CHAT, body, "Connection: close")))
        chunks, complete = dechunk(raw)
        assert complete
        assert sum(map(len, chunks)) > 10_000_000
        assert b"".join(chunks) == expected_body(CHAT, body)


async def test_connection_is_kept_and_requests_are_pipelined() -> None:
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            for text in ("a", "b"):
                body = chat_body("mock", stream=False, text=text)
                expected = expected_body(CHAT, body)
                await client.send_all(post(CHAT, body))
                answer = await read_until(client, expected)
                assert split(answer)[1]["content-length"] == str(len(expected))
            await client.send_all(post(CHAT, chat_body("mock")) * 3)
            answer = b""
            while answer.count(b"0\r\n\r\n") < 3:
                answer += await client.receive_some()
        await mock.wait_idle()
        assert (mock.total_requests, mock.total_connections, mock.active_responses) == (5, 1, 0)
        assert [request.connection_id for request in mock.requests] == [1] * 5
        assert all(request.answered for request in mock.requests)


async def test_request_that_arrives_during_a_slow_answer_is_kept() -> None:
    """The watcher for disconnects reads it; it must not be lost."""
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            with trio.fail_after(5):
                await client.send_all(post(CHAT, chat_body("mock-chunks-3-delay-10")))
                await client.receive_some()
                await client.send_all(post(CHAT, chat_body("mock", text="second")))
                await mock.wait_requests(2)
                await mock.requests[-1].wait_answered()
        assert mock.requests[-1].body == chat_body("mock", text="second")
        assert not mock.requests[0].closed_by_client


async def test_chunked_request_with_expect_continue() -> None:
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            await client.send_all(head.encode())
            assert await client.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            body = chat_body("mock", stream=False)
            await client.send_all(b"5\r\n" + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n")
            answer = await read_until(client, expected_body(CHAT, body))
        assert split(answer)[0] == 200
        assert mock.requests[-1].body == body


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    body = chat_body("mock")
    async with open_mock() as mock:
        status, headers, raw = split(await exchange(mock, post(CHAT, body, version="1.0")))
        assert (status, headers["connection"], "transfer-encoding" in headers) == (200, "close", False)
        assert raw == expected_body(CHAT, body)


@pytest.mark.parametrize("target", ["/", "/healthz", "/v1/models", "/v1/models/any"])
async def test_head_has_the_length_but_no_body(target: str) -> None:
    async with open_mock() as mock:
        got = split(await exchange(mock, f"GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()))
        head = split(await exchange(mock, f"HEAD {target} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()))
        assert got[2].startswith(b"{")
        assert head == (200, got[1], b"")


@pytest.mark.parametrize(
    ("target", "header", "member"),
    [
        ("/v1/models", "Accept: */*", "object"),
        ("/v1/models", "Anthropic-Version: 2023-06-01", "has_more"),
        ("/v1beta/models", "Accept: */*", "models"),
        ("/v1/models", "x-goog-api-key: k", "models"),
        ("/v1beta/models/mock", "Accept: */*", "supportedGenerationMethods"),
        ("/v1/models/mock", "Anthropic-Version: 2023-06-01", "display_name"),
    ],
)
async def test_model_lists_have_three_shapes(target: str, header: str, member: str) -> None:
    async with open_mock() as mock:
        request = f"GET {target} HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n".encode()
        assert member in json.loads(split(await exchange(mock, request))[2])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/messages HTTP/1.1\r\nConnection: close\r\n\r\n", 405),
        (post("/v1/models", b"{}", "Connection: close"), 405),
        (post(CHAT, b"{}", "Connection: close"), 400),
        (post(CHAT, chat_body("mock"), "X-Mock-Chunks: many", "Connection: close"), 400),
        (post(CHAT, chat_body("mock"), "Content-Encoding: zstd", "Connection: close"), 415),
        (post("/v1/embeddings", b'{"model":"m","input":"x","dimensions":99999}', "Connection: close"), 400),
        (b"GET /v1/responses HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n", 426),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000, 431),
    ],
)
async def test_bad_requests_get_an_answer_and_cost_nobody_anything(request_bytes: bytes, status: int) -> None:
    async with open_mock() as mock:
        answer = await exchange(mock, request_bytes)
        assert split(answer)[0] == status
        assert json.loads(split(answer)[2])["error"]["message"].startswith("mock provider: ")
        await mock.wait_idle()
        assert split(await exchange(mock, post(CHAT, chat_body("mock"), "Connection: close")))[0] == 200


async def test_number_that_no_answer_can_hold_is_the_clients_fault() -> None:
    schema = {"properties": {"n": {"type": "integer", "minimum": 10**400}}, "required": ["n"]}
    tools = [{"name": "f", "input_schema": schema}]
    body = {"model": "mock-tool", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    async with open_mock() as mock:
        answer = await exchange(mock, post("/v1/messages", json.dumps(body).encode(), "Connection: close"))
        assert split(answer)[0] in (200, 400)
        assert mock.active_responses == 0


def make_request(body: bytes) -> Request:
    return Request(method="POST", target=CHAT, headers=[], body=body, keep_alive=True, chunked_ok=True, websocket=False)


def test_cached_answers_and_counted_models_are_bounded() -> None:
    state = MockState()
    for number in range(200):
        body = chat_body("mock", text=str(number))
        assert state.plan(make_request(body)) is state.plan(make_request(body))
    first = make_request(chat_body("mock", text="0"))
    again = state.plan(first)
    assert again.writes == state.plan(first).writes
    for number in range(5000):
        state.plan(make_request(chat_body(f"mock-status-500-times-{number}", stream=False)))
    assert (len(state._plans), len(state._failures)) == (128, 4096)


# --- statuses, keys, times -----------------------------------------------------------------------------------------


async def test_status_with_retry_after_from_the_name() -> None:
    async with open_mock() as mock:
        request = post(CHAT, chat_body("mock-status-429-retry-after-7"), "Connection: close")
        status, headers, body = split(await exchange(mock, request))
        assert (status, headers["retry-after"]) == (429, "7")
        error = json.loads(body)["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


async def test_status_and_body_from_headers() -> None:
    async with open_mock() as mock:
        orders = ("X-Mock-Status: 503", "X-Mock-Body: down for lunch", "Connection: close")
        status, headers, body = split(await exchange(mock, post(CHAT, chat_body("mock"), *orders)))
        assert (status, headers["content-type"], body) == (503, "text/plain; charset=utf-8", b"down for lunch")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/messages", ("error", "type", "overloaded_error")),
        ("/v1beta/models/mock-status-529:generateContent", ("error", "status", "UNAVAILABLE")),
        ("/v1/responses", ("error", "type", "server_error")),
    ],
)
async def test_errors_have_the_shape_of_their_protocol(target: str, path: Sequence[str]) -> None:
    body = {"model": "mock-status-529", "messages": [{}], "input": "x", "contents": [{}]}
    async with open_mock() as mock:
        answer = await exchange(mock, post(target, json.dumps(body).encode(), "Connection: close"))
        assert split(answer)[0] == 529
        assert json.loads(split(answer)[2])[path[0]][path[1]] == path[2]


@pytest.mark.parametrize(
    ("model", "status", "header", "empty"),
    [
        ("mock-status-302", 302, ("location", "/elsewhere"), False),
        ("mock-status-204", 204, ("server", "cpa-mock"), True),
    ],
)
async def test_statuses_that_are_no_errors(model: str, status: int, header: tuple[str, str], empty: bool) -> None:
    async with open_mock() as mock:
        got, headers, body = split(await exchange(mock, post(CHAT, chat_body(model), "Connection: close")))
        assert (got, header in headers.items(), body == b"") == (status, True, empty)


async def test_gemini_tells_when_to_retry_in_the_body_too() -> None:
    async with open_mock() as mock:
        target = "/v1beta/models/mock-status-429-retry-after-9:generateContent"
        answer = await exchange(mock, post(target, b'{"contents":[{}]}', "Connection: close"))
        assert json.loads(split(answer)[2])["error"]["details"][0]["retryDelay"] == "9s"


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("/v1/responses/input_tokens", b'{"model":"m","input":"x"}', 200),
        ("/v1beta/models/m:embedContent", b'{"content":{}}', 200),
        ("/v1beta/models/m:batchEmbedContents", b'{"requests":[%b{}]}' % (b"{}," * 3000), 400),
        ("/v1/embeddings", b'{"input":[%b1]}' % (b"1," * 3000), 400),
    ],
)
async def test_small_endpoints(target: str, body: bytes, status: int) -> None:
    async with open_mock() as mock:
        answer = await exchange(mock, post(target, body, "Connection: close"))
        assert split(answer)[0] == status
        assert isinstance(json.loads(split(answer)[2]), dict)


async def test_times_heals_the_model() -> None:
    """Each model counts for itself; `forget` starts anew."""
    async with open_mock() as mock:

        async def status(model: str) -> int:
            return split(await exchange(mock, post(CHAT, chat_body(model), "Connection: close")))[0]

        sick = "mock-status-500-times-2"
        assert [await status(sick) for _ in range(4)] == [500, 500, 200, 200]
        assert await status("mock-status-503-times-1") == 503
        mock.forget()
        assert len(mock.requests) == 0
        assert await status(sick) == 500


@pytest.mark.parametrize("header", ["Authorization: Bearer s3cret", "X-Api-Key: s3cret", "X-Goog-Api-Key: s3cret"])
async def test_required_key(header: str) -> None:
    async with open_mock(require_key="s3cret") as mock:
        request = (CHAT, chat_body("mock"), "Connection: close")
        assert split(await exchange(mock, post(*request, header)))[0] == 200
        assert split(await exchange(mock, post(*request, header + "x")))[0] == 401
        status, _, body = split(await exchange(mock, post("/v1/messages", b"", "Connection: close")))
        assert (status, json.loads(body)["error"]["type"]) == (401, "authentication_error")
        assert "s3cret" not in repr(mock)


# --- faults on the wire --------------------------------------------------------------------------------------------


async def test_reset_is_a_reset() -> None:
    good, _ = await _with_mock("mock-chunks-9")
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            await client.send_all(post(CHAT, chat_body("mock-chunks-9-fault-reset-at-3")))
            data = await read_until_reset(client)
        chunks, complete = dechunk(split(data)[2])
        assert not complete
        assert len(chunks) == 4
        plain = [chunk.replace(b"-fault-reset-at-3", b"") for chunk in chunks]
        assert [len(chunk) for chunk in plain[:3]] == [len(chunk) for chunk in good[:3]]
        assert not plain[3].endswith(b"\n\n")


async def _with_mock(model: str, *headers: str) -> tuple[list[bytes], bool]:
    async with open_mock() as mock:
        return await streamed(mock, model, *headers)


async def test_cut_is_an_orderly_close_without_the_last_chunk() -> None:
    chunks, complete = await _with_mock("mock-fault-cut-at-1")
    assert (len(chunks), complete) == (2, False)
    assert not chunks[-1].endswith(b"\n\n")


async def test_eof_ends_the_body_as_http_says() -> None:
    chunks, complete = await _with_mock("mock-fault-eof-at-2")
    assert (len(chunks), complete) == (2, True)


async def test_empty_stream() -> None:
    assert await _with_mock("mock-fault-empty") == ([], True)


async def test_close_before_headers_says_nothing() -> None:
    async with open_mock() as mock:
        assert await exchange(mock, post(CHAT, chat_body("mock-fault-close-before-headers"))) == b""


async def test_reset_in_the_headers() -> None:
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            await client.send_all(post(CHAT, chat_body("mock-fault-reset-headers")))
            data = await read_until_reset(client)
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in data


@pytest.mark.parametrize("fault", ["split-utf8", "split-frames", "merge-frames", "slow-bytes"])
async def test_recuts_are_http_chunks_of_their_own(fault: str) -> None:
    """So that a client's parser meets them however the kernel coalesces."""
    good, _ = await _with_mock("mock", "X-Mock-Delay: 0")
    recut, complete = await _with_mock("mock", "X-Mock-Delay: 0", f"X-Mock-Fault: {fault}")
    assert complete
    assert b"".join(recut) == b"".join(good)
    assert len(recut) < len(good) if fault == "merge-frames" else len(recut) > len(good)


@pytest.mark.parametrize("fault", ["cut", "reset", "eof"])
async def test_whole_answers_break_off_as_well(fault: str) -> None:
    """`eof` cannot be told from `cut` here: the length was announced."""
    body = chat_body("mock", stream=False)
    whole = expected_body(CHAT, body)
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            await client.send_all(post(CHAT, body, f"X-Mock-Fault: {fault}"))
            data = b""
            try:
                with trio.fail_after(5):
                    data = await read_until(client, whole[: len(whole) // 2])
                    rest = await client.receive_some()
            except trio.BrokenResourceError:
                rest = None
        assert rest == (None if fault == "reset" else b"")
        assert split(data)[1]["content-length"] == str(len(whole))
        assert split(data)[2] == whole[: len(whole) // 2]


async def test_whole_answer_as_garbage_or_error_with_status_200() -> None:
    async with open_mock() as mock:
        request = (CHAT, chat_body("mock", stream=False), "Connection: close")
        assert b"mock garbage" in await exchange(mock, post(*request, "X-Mock-Fault: garbage"))
        status, _, body = split(await exchange(mock, post(*request, "X-Mock-Fault: inband-error")))
        assert (status, json.loads(body)["error"]["message"]) == (200, "mock in-band error")


async def test_refused_port() -> None:
    async with refusing_port() as port:
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


# --- pace, disconnects, cancellation -------------------------------------------------------------------------------


async def test_delays_pass_before_writes() -> None:
    async with open_mock() as mock:
        start = trio.current_time()
        _, complete = await streamed(mock, "mock-chunks-2-first-byte-20-delay-10")
        assert complete
        assert trio.current_time() - start >= 0.02 + 3 * 0.01
        [request] = mock.requests
        assert request.answered_at is not None
        assert request.answered_at - request.received_at >= 0.05


@pytest.mark.parametrize(
    "model", ["mock-fault-stall-at-2", "mock-delay-3600000", "mock-first-byte-3600000", "mock-fault-stall-delay-1"]
)
async def test_leaving_client_is_seen_while_the_mock_waits(model: str) -> None:
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        await client.send_all(post(CHAT, chat_body(model)))
        await mock.wait_requests(1)
        request = mock.requests[-1]
        if "first-byte" not in model:
            await client.receive_some()
        assert mock.active_responses == 1
        assert not request.closed_by_client
        left_at = trio.current_time()
        await client.aclose()
        with trio.fail_after(5):
            await request.wait_closed_by_client()
            await mock.wait_for(lambda mock: mock.active_responses == mock.open_connections == 0)
        assert request.closed_at is not None
        assert left_at <= request.closed_at < left_at + 1
        assert not request.answered


async def test_reset_by_the_client_is_seen_as_well() -> None:
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        await client.send_all(post(CHAT, chat_body("mock-fault-stall")))
        await client.receive_some()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await client.aclose()
        with trio.fail_after(5):
            await mock.requests[-1].wait_closed_by_client()


async def test_leaving_client_is_seen_by_sends() -> None:
    """No pause, but more than the kernel's buffers take: the client closes with the answer half read."""
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        await client.send_all(post(CHAT, chat_body("mock-chunks-64-chunk-bytes-1000000")))
        await client.receive_some()
        await client.aclose()
        with trio.fail_after(5):
            await mock.requests[-1].wait_closed_by_client()
            await mock.wait_idle()


async def test_client_that_floods_a_stalled_answer_is_dropped() -> None:
    async with open_mock() as mock:
        client = await trio.open_tcp_stream(mock.host, mock.port)
        async with client:
            await client.send_all(post(CHAT, chat_body("mock-fault-stall")))
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
                await client.send_all(b"x" * MAX_PIPELINED_BYTES * 64)
        with trio.fail_after(5):
            await mock.wait_idle()


async def test_many_clients_leave_nothing_behind() -> None:
    async with open_mock() as mock:

        async def visit(number: int) -> None:
            client = await trio.open_tcp_stream(mock.host, mock.port)
            async with client:
                await client.send_all(post(CHAT, chat_body("mock-chunks-1000-delay-1"))[: 10 + number * 5])
                if number > 40:
                    await client.receive_some()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(visit, number)
            await mock.wait_for(lambda mock: mock.total_connections == 60)
            await mock.wait_idle()
        assert mock.active_responses == 0
        assert all(request.closed_by_client for request in mock.requests)


async def test_closing_the_mock_cuts_everything_off() -> None:
    with trio.fail_after(5):
        async with open_mock() as mock:
            idle = await trio.open_tcp_stream(mock.host, mock.port)
            stalled = await trio.open_tcp_stream(mock.host, mock.port)
            await stalled.send_all(post(CHAT, chat_body("mock-fault-stall")))
            await mock.wait_for(lambda mock: mock.active_responses == 1 and mock.open_connections == 2)
        assert await read_all(idle) == b""
        assert dechunk(split(await read_all(stalled))[2])[1] is False
        assert (mock.open_connections, mock.active_responses) == (0, 0)
        await idle.aclose()
        await stalled.aclose()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", mock.port)


async def test_requests_are_kept_within_bounds() -> None:
    def request(size: int) -> RecordedRequest:
        return RecordedRequest(
            method="POST",
            target="/",
            headers=(),
            body=bytes(size),
            connection_id=1,
            received_at=0.0,
            changes=Changes(),
        )

    recorder = Recorder(max_requests=3, max_kept_bytes=100)
    for size in (1, 2, 3, 4):
        recorder.add(request(size))
    assert [len(kept.body) for kept in recorder.requests] == [2, 3, 4]
    recorder.add(request(95))
    assert [len(kept.body) for kept in recorder.requests] == [4, 95]
    recorder.add(request(500))  # the latest one is always there
    assert [len(kept.body) for kept in recorder.requests] == [500]
    recorder.clear()
    assert recorder.kept_bytes == 0


async def test_waiting_is_a_checkpoint_and_can_be_cancelled() -> None:
    changes = Changes()
    with trio.testing.assert_checkpoints():
        await changes.wait_for(lambda: True)
    with trio.move_on_after(0) as scope:
        await changes.wait_for(lambda: False)
    assert scope.cancelled_caught
    changes.notify()


async def test_serve_mock_starts_with_its_port_and_records_only_when_asked() -> None:
    recorder = Recorder()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_mock(record=recorder, task_status=task_status)

        port: int = await nursery.start(serve)
        client = await trio.open_tcp_stream("127.0.0.1", port)
        async with client:
            await client.send_all(post(CHAT, chat_body("mock"), "X-Odd: \xff", "Connection: close"))
            assert (await read_all(client)).endswith(b"0\r\n\r\n")
        assert recorder.requests[0].header(b"x-odd") == "\xff".encode()
        assert recorder.requests[0].header(b"x-none") is None
        nursery.cancel_scope.cancel()


async def test_command_announces_where_it_listens() -> None:
    said: list[str] = []
    heard = trio.Event()

    def announce(line: str) -> None:
        said.append(line)
        heard.set()

    async def run() -> None:
        await main(host="127.0.0.1", port=0, announce=announce)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await heard.wait()
        address, port = said[0].removeprefix("mock provider listening on http://").split(":")
        client = await trio.open_tcp_stream(address, int(port))
        async with client:
            await client.send_all(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert (await read_all(client)).endswith(b'{"status":"ok"}')
        nursery.cancel_scope.cancel()
    assert len(said) == 1


def test_addresses_are_written_as_urls() -> None:
    assert base_url("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert base_url("::1", 80) == "http://[::1]:80"


async def test_port_in_use_is_told() -> None:
    async with open_mock() as mock:
        with pytest.raises(OSError, match="in use"):
            await serve_mock(port=mock.port)
