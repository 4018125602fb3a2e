"""One call to a provider over real sockets: what goes out, what comes back, and what is left when it goes wrong."""

import contextlib
import gc
import gzip
import weakref
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import brotli
import pytest
import trio
import trio.testing
import zstandard

from cpa.config.load import parse_config
from cpa.credentials.model import Credential
from cpa.errors import (
    CpaError,
    RawHeaders,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamTimeout,
)
from cpa.formats.names import Format
from cpa.testing.fakes import execution
from cpa.testing.mock import expected_body, open_mock, refusing_port
from cpa.types import Executor, Operation, UpstreamCall
from cpa.upstream import executor as executor_module
from cpa.upstream.client import UpstreamClients, open_clients
from cpa.upstream.executor import HttpAnswer, UpstreamSettings, executors
from cpa.upstream.http1 import ResponseReader
from cpa.version import VERSION
from tests.upstream.proxies_fake import open_http_proxy, open_socks_proxy
from tests.upstream.scripted import Handler, Peer, RawRequest, answering, make_tls, open_server, response

KEY = "sk-canary-0123"
SHORT_S = 0.1
"""A limit that is meant to pass; what it limits would never end."""
CHAT = b'{"model":"%b","stream":%b,"messages":[{"role":"user","content":"hi \xc3\xbc"}]}'
GEMINI = b'{"contents":[{"role":"user","parts":[{"text":"x"}]}],"z":%b}'
TLS = make_tls()
"""Made once: it takes longer than most of these tests."""


@attrs.define
class FakeLog:
    """A `WireLog` that remembers."""

    events: list[str] = attrs.field(factory=list)
    url: str = ""
    method: str = ""
    auth: str = ""
    request_headers: RawHeaders = ()
    request_body: bytes = b""
    status: int = 0
    response_headers: RawHeaders = ()
    response_body: bytes = b""

    def attempt(
        self, *, url: str, method: str, headers: RawHeaders, body: Sequence[bytes] = (), auth: str = ""
    ) -> None:
        """See `cpa.types.WireLog`."""
        self.events.append("attempt")
        self.url, self.method, self.request_headers, self.auth = url, method, headers, auth
        self.request_body = b"".join(body)

    def attempt_response(self, status: int, headers: RawHeaders) -> None:
        """See `cpa.types.WireLog`."""
        self.events.append("response")
        self.status, self.response_headers = status, headers

    def attempt_body(self, chunk: bytes) -> None:
        """See `cpa.types.WireLog`."""
        assert chunk
        self.response_body += chunk

    def attempt_error(self, text: str) -> None:
        """See `cpa.types.WireLog`."""
        self.events.append(f"error {text}")


@attrs.frozen
class Harness:
    """Executors over clients of their own."""

    clients: UpstreamClients
    settings: UpstreamSettings
    by_provider: Mapping[str, Executor]

    def open(
        self,
        base_url: str,
        provider: str = "openai-compatible-x",
        *,
        model: str = "mock",
        stream: bool = False,
        body: tuple[bytes, ...] | None = None,
        key: str = KEY,
        proxy_url: str = "",
        headers: Mapping[str, str] | None = None,
        client: RawHeaders = (),
        log: FakeLog | None = None,
        operation: Operation = Operation.GENERATE,
    ) -> AbstractAsyncContextManager[HttpAnswer]:
        """Send a call. *headers* are the operator's, *client* the client's."""
        credential = Credential(
            id="c",
            provider=provider,
            label="label",
            api_key=key,
            base_url=base_url,
            proxy_url=proxy_url,
            headers=headers or {},
            index="0123456789abcdef",
        )
        opened = self.by_provider[provider].open(
            UpstreamCall(
                credential=credential,
                execution=execution(),
                wire=self.by_provider[provider].wire(Format.OPENAI),
                operation=operation,
                model=model,
                stream=stream,
                body=(CHAT % (model.encode(), b"true" if stream else b"false"),) if body is None else body,
                client_headers=client,
                log=log,
            )
        )
        return opened  # type: ignore[return-value]  # the protocol promises less

    async def fetch(self, *args: Any, **kwargs: Any) -> bytes:
        """The whole answer to a call of `open`."""
        async with self.open(*args, **kwargs) as answer:
            return await answer.read()

    @property
    def clean(self) -> bool:
        """No connection is in use."""
        stats = self.clients.stats()
        return stats.open_connections == stats.idle_connections and stats.proxied_requests == 0


@asynccontextmanager
async def open_harness(settings: UpstreamSettings | None = None) -> AsyncIterator[Harness]:
    """Executors of all kinds, by default without proxies and limits."""
    settings = settings or UpstreamSettings(proxy_url="direct")
    with trio.fail_after(30):
        async with open_clients(ssl_context=TLS.client, connect_seconds=10) as clients:
            made = executors(clients, settings, ["openai-compatible-x"])
            yield Harness(clients, settings, made)


def limits(**changes: Any) -> UpstreamSettings:
    """Settings without a proxy and with *changes*."""
    return attrs.evolve(UpstreamSettings(proxy_url="direct"), **changes)


def chunked(*pieces: bytes, headers: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    """A response in HTTP chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%b%b" % (headers, body, end)


# -- what goes out --


@pytest.mark.parametrize(
    ("provider", "target", "own"),
    [
        ("openai-compatible-x", "/v1/chat/completions", {"authorization": f"Bearer {KEY}"}),
        ("codex", "/v1/responses", {"authorization": f"Bearer {KEY}"}),
        ("xai", "/v1/responses", {"authorization": f"Bearer {KEY}"}),
        ("claude", "/v1/v1/messages", {"authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01"}),
        ("gemini", "/v1/v1beta/models/mock:generateContent", {"x-goog-api-key": KEY}),
        ("vertex", "/v1/v1/publishers/google/models/mock:generateContent", {"x-goog-api-key": KEY}),
    ],
)
async def test_request_is_exactly_this(provider: str, target: str, own: dict[str, str]) -> None:
    """Nothing of the client but the body, nothing of libraries, every header once, the body byte for byte."""
    seen: list[RawRequest] = []
    body = (b'{ "b":1.0,', b'"model":"mock",', b'"a":"\xc3\xbc"}\n')
    client = [
        (name, b"client-secret")
        for name in (b"authorization", b"cookie", b"x-forwarded-for", b"x-api-key", b"host", b"content-length", b"te")
    ]
    async with open_server(recording(seen)) as server, open_harness() as harness:
        await harness.fetch(server.url("/v1"), provider, body=body, client=client)
    (request,) = seen
    first, *lines = request.head.decode().rstrip("\r\n").split("\r\n")
    assert first == f"POST {target} HTTP/1.1"
    assert {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines} == {
        "user-agent": f"cpa/{VERSION}",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "host": f"127.0.0.1:{server.port}",
        "content-length": str(len(b"".join(body))),
        **own,
    }
    assert len(lines) == 6 + len(own)
    assert request.body == b"".join(body)


def recording(seen: list[RawRequest], *pieces: bytes) -> Handler:
    """A handler that keeps requests and answers them with *pieces*."""

    async def handle(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.send(*(pieces or (response(b"{}"),)))

    return handle


async def test_stream_says_that_it_wants_one() -> None:
    """Some servers decide by that and not by the body."""
    async with open_mock() as mock, open_harness() as harness:
        await harness.fetch(mock.url, stream=True)
        await harness.fetch(mock.url, "claude", stream=True)
        await harness.fetch(mock.url, "gemini", stream=True, body=(GEMINI % b"true",))
    assert [request.header(b"accept") for request in mock.requests] == [b"text/event-stream"] * 3
    assert mock.requests[0].header(b"cache-control") == b"no-cache"
    assert mock.requests[2].target.endswith("?alt=sse")


async def test_operators_headers_replace_all_but_the_framing() -> None:
    """Appendix A: they come last; the length of the body is ours to state, and nobody may state it twice."""
    headers = {
        "Authorization": "Custom abc",
        "USER-AGENT": "corp/1",
        "Host": "inner.test",
        "Content-Length": "99999",
        "Transfer-Encoding": "chunked",
        "X-Team": "größe",
        "X-Request": "$X-Client-Request",
        "X-Absent": "$X-Nobody-Sent-This",
    }
    seen: list[RawRequest] = []
    async with open_server(recording(seen)) as server, open_harness() as harness:
        await harness.fetch(server.url(""), headers=headers, client=[(b"x-client-request", b"r-1")])
    (request,) = seen
    assert request.header(b"authorization") == b"Custom abc"
    assert request.header(b"user-agent") == b"corp/1"
    assert request.header(b"host") == b"inner.test"
    assert request.header(b"x-team") == "größe".encode()
    assert request.header(b"x-request") == b"r-1"
    assert request.header(b"x-absent") is None
    assert request.header(b"transfer-encoding") is None
    assert request.head.lower().count(b"content-length") == 1
    assert len(request.body) == int(request.header(b"content-length") or 0) > 0


async def test_betas_of_the_body_reach_the_provider_as_a_header() -> None:
    """With the length of what is left."""
    body = b'{"model":"mock","betas":["x-1"],"max_tokens":1,"messages":[]}'
    seen: list[RawRequest] = []
    client = [(b"anthropic-version", b"2026-10-21"), (b"anthropic-beta", b"a-1"), (b"user-agent", b"claude-cli/2")]
    async with open_server(recording(seen)) as server, open_harness() as harness:
        await harness.fetch(server.url(""), "claude", body=(body,), client=client)
    (request,) = seen
    assert request.header(b"anthropic-beta") == b"a-1,x-1"
    assert request.header(b"anthropic-version") == b"2026-10-21"
    assert request.header(b"user-agent") == b"claude-cli/2"
    assert request.body == body.replace(b'"betas":["x-1"],', b"")


@pytest.mark.parametrize("evil", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb", "a\0b"])
@pytest.mark.parametrize("where", ["key", "header", "copied", "version"])
@pytest.mark.parametrize("proxied", [False, True])
async def test_line_breaks_never_reach_the_wire(evil: str, where: str, proxied: bool) -> None:
    """Configuration and HTTP servers refuse them; were there a way in, the call fails unsent and shows no value."""
    async with (
        open_server(answering(response(b"{}"))) as server,
        open_http_proxy(server.port) as proxy,
        open_harness() as harness,
    ):
        with pytest.raises(CpaError) as caught:
            await harness.fetch(
                server.url(""),
                "claude",
                key=evil if where == "key" else KEY,
                headers={"X-A": evil if where == "header" else "$x-b"},
                client=[
                    (b"x-b", evil.encode() if where == "copied" else b"b"),
                    (b"anthropic-version", evil.encode() if where == "version" else b"v"),
                ],
                proxy_url=f"http://127.0.0.1:{proxy.port}" if proxied else "",
            )
        assert not isinstance(caught.value, UpstreamError)  # nothing to try again elsewhere
        assert "Evil" not in str(caught.value)
        assert repr(evil)[1:-1] not in str(caught.value)
        assert (server.connections, proxy.targets) == (0, [])
        assert harness.clean


async def test_odd_bytes_in_copied_headers_pass_as_they_are() -> None:
    """Bytes above ASCII cannot end a header; what they mean is between client and provider."""
    seen: list[RawRequest] = []
    async with open_server(recording(seen)) as server, open_harness() as harness:
        await harness.fetch(server.url(""), headers={"X-A": "$X-B"}, client=[(b"x-b", b"\xff\xfe \xc3\xbc")])
    assert seen[0].header(b"x-a") == b"\xff\xfe \xc3\xbc"


async def test_model_cannot_leave_its_place_in_the_path_on_the_wire() -> None:
    """The request line is one line, and its path has as many segments as ever."""
    seen: list[RawRequest] = []
    names = ["../../admin", "a/b?c#d", "%2e%2e/x", "ü\r\nX-Evil: 1", "a b"]
    async with open_server(recording(seen)) as server, open_harness() as harness:
        for name in names:
            await harness.fetch(server.url(""), "gemini", model=name, body=(b"{}",))
    for request in seen:
        target = request.head.split(b" ")[1]
        assert target.count(b"/") == 3
        assert request.head.startswith(b"POST /v1beta/models/")
        assert b"Evil: 1" not in request.head


# -- what comes back --


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("openai-compatible-x", "/v1", b'{"model":"mock","stream":%b,"messages":[{"role":"user","content":"x"}]}'),
        ("codex", "/v1", b'{"model":"mock","stream":%b,"input":"x"}'),
        ("claude", "", b'{"model":"mock","max_tokens":9,"stream":%b,"messages":[{"role":"user","content":"x"}]}'),
        ("gemini", "", GEMINI),
        ("vertex", "", GEMINI),
    ],
)
async def test_answers_of_all_providers_arrive_byte_for_byte(
    provider: str, path: str, body: bytes, stream: bool
) -> None:
    """Read whole or in pieces, which are never empty."""
    sent = body % (b"true" if stream else b"false")
    async with open_mock(require_key=KEY) as mock, open_harness() as harness:
        async with harness.open(mock.url + path, provider, stream=stream, body=(sent,)) as answer:
            assert answer.status == 200
            assert all(name == name.lower() for name, _ in answer.headers)
            pieces = [piece async for piece in answer.chunks()]
        whole = await harness.fetch(mock.url + path, provider, stream=stream, body=(sent,))
        assert all(pieces)
        assert mock.requests[0].body == sent
        assert b"".join(pieces) == whole == expected_body(mock.requests[0].target, sent)
        assert mock.total_connections == 1
        assert harness.clean


async def test_ten_thousand_pieces_arrive_in_order() -> None:
    """However the socket cuts them."""
    async with open_mock() as mock, open_harness() as harness:
        body = CHAT % (b"mock-chunks-10000", b"true")
        async with harness.open(mock.url, stream=True, body=(body,)) as answer:
            received = b"".join([piece async for piece in answer])
        assert received == expected_body(mock.requests[0].target, body)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 404, 418, 429, 500, 503, 529, 599])
async def test_every_status_from_300_on_is_the_providers_error(status: int) -> None:
    """With headers and body, for the client may need both. Redirects are not followed: they would carry keys."""
    body = b"" if status == 304 else b'{"error":"\xff"}'
    async with open_server(answering(response(b"{}"))) as elsewhere:
        headers = b"Location: %b\r\nRetry-After: 7\r\nX-Dup: 1\r\nx-dup: 2\r\n" % elsewhere.url().encode()
        reply = response(body, status=b"%d Whatever" % status, headers=headers)
        async with open_server(answering(reply)) as server, open_harness() as harness:
            for _ in range(2):
                with pytest.raises(UpstreamStatusError) as caught:
                    await harness.fetch(server.url(""), "claude")
            error = caught.value
            assert (error.status, error.http_status, error.body) == (status, status, body)
            assert error.provider_format == Format.CLAUDE
            assert error.header(b"retry-after") == b"7"
            assert [value for name, value in error.headers if name == b"x-dup"] == [b"1", b"2"]
            assert (server.connections, elsewhere.connections) == (1, 0)
            assert harness.clean


@pytest.mark.parametrize("status", [201, 202, 299])
async def test_other_statuses_below_300_are_answers(status: int) -> None:
    """Success is success."""
    reply = response(b"{}", status=b"%d Fine" % status)
    async with (
        open_server(answering(reply)) as server,
        open_harness() as harness,
        harness.open(server.url("")) as answer,
    ):
        assert (answer.status, await answer.read()) == (status, b"{}")


@pytest.mark.parametrize("size", [999, 1000, 1001, 50_000])
async def test_errors_keep_a_limited_part_of_their_body(size: int) -> None:
    """An error page of megabytes tells nobody more than its beginning."""
    body = bytes(range(33, 126)) * (size // 93 + 1)
    reply = response(body[:size], status=b"500 Oops")
    async with open_server(answering(reply)) as server, open_harness(limits(error_body_bytes=1000)) as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(server.url(""))
        assert caught.value.body == body[: min(size, 1000)]
        assert harness.clean


async def test_endless_error_body_ends() -> None:
    """After its limit nobody reads on, and the connection is given up."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")

    async with open_server(handle) as server, open_harness(limits(error_body_bytes=5000)) as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(server.url(""))
        assert caught.value.body == b"x" * 5000
        assert harness.clients.stats().open_connections == 0


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (b"Content-Length: 100\r\n\r\nslow down", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n9\r\nslow down\r\n", b"zz\r\n"),
    ],
    ids=["cut", "malformed"],
)
async def test_error_whose_body_breaks_off_is_still_that_error(framing: bytes, rest: bytes) -> None:
    """The status decides what happens to the credential, and it is known."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 429 Too Many\r\nRetry-After: 9\r\n" + framing)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await peer.send(rest)

    async with open_server(handle) as server, open_harness() as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(server.url(""))
        assert (caught.value.status, caught.value.header(b"retry-after")) == (429, b"9")
        assert caught.value.body == b"slow down"
        assert harness.clean


async def test_error_whose_body_never_ends_is_still_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without any limits in the configuration: nobody waits for ever to be told of a failure."""
    monkeypatch.setattr(executor_module, "ERROR_BODY_S", SHORT_S)

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\npart")
        await trio.sleep_forever()

    async with open_server(handle) as server, open_harness() as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(server.url(""))
        assert (caught.value.status, caught.value.body) == (503, b"part")
        assert harness.clients.stats().open_connections == 0


@pytest.mark.parametrize("coding", [b"gzip", b"made-up"])
async def test_error_whose_body_cannot_be_decoded_is_still_that_error(coding: bytes) -> None:
    """Its body is no use, its status is."""
    reply = response(b"\x00garbage", status=b"401 No", headers=b"Content-Encoding: %b\r\n" % coding)
    async with open_server(answering(reply)) as server, open_harness() as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(server.url(""))
        assert (caught.value.status, caught.value.body) == (401, b"")


async def test_compressed_error_is_decoded() -> None:
    """Clients get it as text."""
    reply = response(gzip.compress(b'{"error":1}'), status=b"400 No", headers=b"Content-Encoding: gzip\r\n")
    async with open_server(answering(reply)) as server, open_harness() as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(server.url(""))
        assert caught.value.body == b'{"error":1}'


# -- both ways --


@pytest.mark.parametrize("provider", ["openai-compatible-x", "claude", "gemini"])
async def test_straight_and_through_httpx_all_is_the_same(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes out, what comes back, what the log hears, how it fails, and which connections are left."""
    replies = [
        response(b'{"a":1}', headers=b"X-A: b\r\nx-a:  c \r\n"),
        chunked(b"data: 1\n\n", b"data: 2\n\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"", status=b"204 None"),
        response(gzip.compress(b"packed"), headers=b"Content-Encoding: gzip\r\n"),
        response(b'{"error":"slow down"}', status=b"429 Busy", headers=b"Retry-After: 3\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"nonsense\r\n\r\n",
    ]

    async def run() -> list[object]:
        seen: list[object] = []
        for number, reply in enumerate(replies):

            async def handle(peer: Peer, reply: bytes = reply) -> None:
                while (request := await peer.request()) is not None:
                    seen.append((request.head.replace(b":%d" % server.port, b":0"), request.body))
                    await peer.send(reply)
                    if not reply.endswith((b"}", b"0\r\n\r\n", b"\r\n\r\n")) or b"nonsense" in reply:
                        return

            async with open_server(handle) as server, open_harness() as harness:
                for stream in (False, True):
                    log = FakeLog()
                    body = (b"x" * 5000,) * number
                    try:
                        async with harness.open(
                            server.url("/v1"), provider, stream=stream, log=log, body=body, headers={"X-Own": "1"}
                        ) as answer:
                            seen.append((answer.status, answer.headers, await answer.read()))
                            await answer.drain()
                    except UpstreamError as exc:
                        seen.append((type(exc), str(exc), getattr(exc, "headers", None), getattr(exc, "body", None)))
                    log.url = log.url.replace(f":{server.port}", ":0")
                    seen.append([*log.events, log.url, log.response_headers, log.response_body, log.request_body])
                    seen.append([value for value in log.request_headers if value[0] != b"host"])
                    stats = harness.clients.stats()
                    seen.append((stats.open_connections, stats.idle_connections))
        return seen

    straight = await run()
    monkeypatch.setenv("CPA_UPSTREAM", "httpx")
    assert await run() == straight
    assert len(straight) > 4 * len(replies)


@pytest.mark.parametrize("coding", [b"identity", b"gzip"])
async def test_body_is_the_same_whether_it_came_with_the_head_or_behind_it(coding: bytes) -> None:
    """The usual small answer takes a shorter way."""
    body = CODINGS[coding](b'{"a":1}')
    reply = response(body, headers=b"Content-Encoding: %b\r\n" % coding)
    place = 0

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(reply[:place])
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(reply[place:])

    async with open_server(handle) as server, open_harness() as harness:
        for place in range(1, len(reply) + 1):  # noqa: B007  # the server's handler reads it
            log = FakeLog()
            async with harness.open(server.url(""), log=log) as answer:
                assert (await answer.read(), await answer.read()) == (b'{"a":1}', b"")
            assert log.response_body == b'{"a":1}'
        assert server.connections == 1


async def test_a_streams_request_is_forgotten_when_its_answer_begins() -> None:
    """It may be a megabyte, and the stream may last an hour."""
    async with open_mock() as mock, open_harness() as harness:
        call = UpstreamCall(
            credential=Credential(id="c", provider="codex", label="l", base_url=mock.url),
            execution=execution(),
            wire=harness.by_provider["codex"].wire(Format.CODEX),
            operation=Operation.GENERATE,
            model="mock",
            stream=True,
            body=(b'{"model":"mock-chunks-3-delay-60000","stream":true,"input":"x"}',),
            client_headers=(),
        )
        kept = weakref.ref(call)
        opened = harness.by_provider["codex"].open(call)
        del call
        async with opened as answer:
            assert answer.status == 200
            gc.collect()
            assert kept() is None


async def test_ended_exchanges_leave_nothing_to_the_garbage_collector() -> None:
    """Parsers and readers refer to each other; what waits for the collector costs more than it did alive."""

    def alive() -> int:
        return sum(type(found) is ResponseReader for found in gc.get_objects())

    async with open_mock() as mock, open_harness() as harness:
        gc.collect()
        assert alive() == 0
        gc.disable()
        try:
            await harness.fetch(mock.url)
            await harness.fetch(mock.url, stream=True)
            async with harness.open(mock.url, model="mock-chunks-3-delay-60000", stream=True) as answer:
                await answer.__anext__()
                del answer
            for model in ("mock-status-429", "mock-fault-cut", "mock-fault-reset-headers"):
                with contextlib.suppress(UpstreamError):
                    await harness.fetch(mock.url, model=model, stream=True)
            assert alive() == 0
        finally:
            gc.enable()


# -- codings --


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


CODINGS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstd,
    b"GZIP": gzip.compress,
    b"gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    b"identity": lambda data: data,
}
TEXT = b"".join(b'data: {"n":%d,"t":"\xc3\xbc"}\n\n' % number for number in range(500))


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("coding", CODINGS)
async def test_compressed_answers_are_decoded(coding: bytes, step: int) -> None:
    """Providers compress although asked not to; in whatever pieces it comes, no piece of the answer is empty."""
    packed = CODINGS[coding](TEXT)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    reply = chunked(*pieces, headers=b"Content-Encoding: %b\r\n" % coding)
    log = FakeLog()
    async with open_server(answering(reply)) as server, open_harness() as harness:
        async with harness.open(server.url(""), stream=True, log=log) as answer:
            received = [piece async for piece in answer]
        assert b"".join(received) == TEXT == await harness.fetch(server.url("")) == log.response_body
        assert all(received)
        assert server.connections == 1


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
async def test_compressed_answer_that_is_cut_is_no_answer(coding: bytes) -> None:
    """HTTP says that it is complete, the coding says that it is not: a client would get half of it as all of it."""
    packed = CODINGS[coding](TEXT)
    reply = response(packed[: len(packed) * 2 // 3], headers=b"Content-Encoding: %b\r\n" % coding)
    async with open_server(answering(reply)) as server, open_harness() as harness:
        with pytest.raises(UpstreamProtocolError, match="decoded"):
            await harness.fetch(server.url(""))
        async with harness.open(server.url(""), stream=True) as answer:
            with pytest.raises(UpstreamProtocolError, match="decoded"):
                await answer.read()
        assert harness.clean


async def test_empty_answer_in_a_coding_is_empty() -> None:
    """Some servers name the coding even if there is nothing to encode."""
    reply = response(b"", headers=b"Content-Encoding: gzip\r\n")
    async with open_server(answering(reply)) as server, open_harness() as harness:
        assert await harness.fetch(server.url("")) == b""


@pytest.mark.parametrize("coding", [b"made-up", b"gzip, gzip, gzip, gzip, gzip", b"gzip"])
async def test_answer_that_cannot_be_decoded_is_the_providers_fault(coding: bytes) -> None:
    """Unknown codings, too many of them, or garbage."""
    reply = response(b"garbage", headers=b"Content-Encoding: %b\r\n" % coding)
    async with open_server(answering(reply)) as server, open_harness() as harness:
        with pytest.raises(UpstreamProtocolError):
            await harness.fetch(server.url(""))
        assert harness.clean


# -- limits --


@pytest.mark.parametrize("coding", [b"identity", b"gzip", b"br", b"zstd"])
async def test_answer_larger_than_its_limit_is_refused(coding: bytes) -> None:
    """Before it is in memory: a compressed one stands for a thousand times its size."""
    packed = CODINGS[coding](bytes(3_000_000))
    reply = response(packed, headers=b"Content-Encoding: %b\r\n" % coding)
    async with open_server(answering(reply)) as server, open_harness(limits(response_bytes=1_000_000)) as harness:
        with pytest.raises(UpstreamProtocolError, match="larger than 1000000 bytes"):
            await harness.fetch(server.url(""))
        assert harness.clean


async def test_small_answers_have_their_limit_too() -> None:
    """Also those that are here already when they are asked for."""
    async with (
        open_server(answering(response(bytes(100)))) as server,
        open_harness(limits(response_bytes=99)) as harness,
    ):
        with pytest.raises(UpstreamProtocolError, match="larger than 99 bytes"):
            await harness.fetch(server.url(""))
        assert harness.clean


async def test_answer_as_large_as_its_limit_is_taken() -> None:
    """The limit is the largest allowed size."""
    async with (
        open_server(answering(response(bytes(70_000)))) as server,
        open_harness(limits(response_bytes=70_000)) as harness,
    ):
        assert await harness.fetch(server.url("")) == bytes(70_000)


async def test_stream_has_no_limit_of_size() -> None:
    """Nobody holds it."""
    async with (
        open_server(answering(response(bytes(70_000)))) as server,
        open_harness(limits(response_bytes=1_000)) as harness,
        harness.open(server.url(""), stream=True) as answer,
    ):
        assert sum([len(piece) async for piece in answer]) == 70_000


# -- deadlines --


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", ["first_byte_s", "request_s"])
async def test_provider_that_does_not_answer_in_time(limit: str, stream: bool) -> None:
    """Either limit ends the waiting for the head; the connection is given up."""
    async with open_mock() as mock, open_harness(limits(**{limit: SHORT_S})) as harness:
        with pytest.raises(UpstreamTimeout, match=r"within 0[.]1 s") as caught:
            await harness.fetch(mock.url, model="mock-first-byte-60000", stream=stream)
        assert caught.value.http_status == 504
        await mock.requests[0].wait_closed_by_client()
        assert harness.clients.stats().open_connections == 0


async def test_request_limit_holds_also_for_a_longer_first_byte_limit() -> None:
    """The whole cannot take longer than its limit, whatever its parts may."""
    async with open_mock() as mock, open_harness(limits(first_byte_s=60, request_s=SHORT_S)) as harness:
        with pytest.raises(UpstreamTimeout):
            await harness.fetch(mock.url, model="mock-first-byte-60000")


async def test_request_limit_counts_from_sending() -> None:
    """The wait for the head is part of it: what it took is missing for the body."""
    times: list[float] = []

    async def handle(peer: Peer) -> None:
        await peer.request()
        await trio.sleep(0.3)  # the provider thinks; under test is what of the limit that leaves
        times.append(trio.current_time())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await trio.sleep_forever()

    async with open_server(handle) as server, open_harness(limits(request_s=1.0)) as harness:
        with pytest.raises(UpstreamTimeout, match="finish"):
            await harness.fetch(server.url(""))
        assert trio.current_time() - times[0] < 0.95
        assert harness.clients.stats().open_connections == 0


async def test_stream_that_stops_is_noticed() -> None:
    """What came before the silence was delivered."""
    async with open_mock() as mock, open_harness(limits(stream_idle_s=SHORT_S)) as harness:
        log = FakeLog()
        with pytest.raises(UpstreamTimeout, match="middle"):
            await harness.fetch(mock.url, model="mock-fault-stall-at-3", stream=True, log=log)
        assert log.response_body.startswith(b"data: {")
        await mock.requests[0].wait_closed_by_client()
        assert harness.clients.stats().open_connections == 0


async def test_idle_limit_counts_between_pieces_only() -> None:
    """A stream may last longer than its longest pause, and its end is no pause."""
    async with open_mock() as mock, open_harness(limits(stream_idle_s=0.5)) as harness:
        body = CHAT % (b"mock-chunks-12-delay-50", b"true")
        received = await harness.fetch(mock.url, stream=True, body=(body,))
        assert received == expected_body(mock.requests[0].target, body)


async def test_slow_consumer_is_not_the_providers_fault() -> None:
    """Only waiting for the provider counts."""
    async with (
        open_mock() as mock,
        open_harness(limits(stream_idle_s=SHORT_S, first_byte_s=5)) as harness,
        harness.open(mock.url, model="mock-chunks-3", stream=True) as answer,
    ):
        async for _ in answer:
            await trio.sleep(SHORT_S * 1.5)  # the client takes its time: that is what is under test


async def test_idle_limit_is_for_streams() -> None:
    """An answer that is read whole has a limit for the whole; some providers pause for long in its middle."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"half")[:-2])
        await trio.sleep(SHORT_S)  # a pause longer than the limit
        await peer.send(b"lf")

    async with open_server(handle) as server, open_harness(limits(stream_idle_s=SHORT_S / 10)) as harness:
        assert await harness.fetch(server.url("")) == b"half"


async def test_settings_come_from_the_configuration() -> None:
    """One place maps keys to limits."""
    text = (
        "proxy-url: http://u:secret@proxy.test:1\nrequest-timeout-seconds: 1.5\nfirst-byte-timeout-seconds: 2\n"
        "stream-idle-timeout-seconds: 3\nlimits: {response-bytes: 4, error-body-bytes: 5}"
    )
    settings = UpstreamSettings.of(parse_config(text, file="test.yaml").config)
    assert settings == UpstreamSettings(
        proxy_url="http://u:secret@proxy.test:1",
        request_s=1.5,
        first_byte_s=2,
        stream_idle_s=3,
        response_bytes=4,
        error_body_bytes=5,
    )
    assert "secret" not in repr(settings)


# -- faults of providers --


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("reset-headers", UpstreamProtocolError),
        ("close-before-headers", UpstreamProtocolError),
        ("reset", UpstreamProtocolError),
        ("cut", UpstreamProtocolError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_broken_answers_are_protocol_errors(fault: str, expected: type[CpaError], stream: bool) -> None:
    """Never a shorter answer."""
    async with open_mock() as mock, open_harness() as harness:
        with pytest.raises(expected):
            await harness.fetch(mock.url, model=f"mock-fault-{fault}", stream=stream)
        assert harness.clients.stats().open_connections == 0


async def test_refused_connection() -> None:
    """Nothing was processed, and the error says so."""
    async with refusing_port() as port, open_harness() as harness:
        with pytest.raises(UpstreamConnectError):
            await harness.fetch(f"http://127.0.0.1:{port}")


async def test_address_that_only_the_client_library_refuses() -> None:
    """The configuration's check is coarser than the library's: a bad address fails its calls, not the proxy."""
    async with open_harness() as harness:
        with pytest.raises(UpstreamConnectError):
            await harness.fetch("https://ü..test/v1")


# -- connections --


async def test_drained_stream_gives_its_connection_back() -> None:
    """The end of an SSE answer is known before the end of its HTTP body: waiting for the latter saves a connection."""
    async with open_mock() as mock, open_harness() as harness:
        for _ in range(5):
            async with harness.open(mock.url, stream=True) as answer:
                received = b""
                async for piece in answer:
                    received += piece
                    if b"[DONE]" in received:
                        break
                await answer.drain()
        assert (mock.total_requests, mock.total_connections) == (5, 1)
        assert harness.clients.stats().idle_connections == 1


async def test_drain_after_the_end_and_twice_is_harmless() -> None:
    """Callers need not know how far they have read."""
    async with open_mock() as mock, open_harness() as harness:
        async with harness.open(mock.url, stream=True) as answer:
            await answer.read()
            await answer.drain()
            await answer.drain()
        assert harness.clients.stats().idle_connections == 1


async def test_drain_gives_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has its answer already; a connection is not worth its waiting."""
    monkeypatch.setattr(executor_module, "DRAIN_S", SHORT_S)

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked(b"data: [DONE]\n\n", end=b""))
        await trio.sleep_forever()

    async with open_server(handle) as server, open_harness() as harness:
        async with harness.open(server.url(""), stream=True) as answer:
            await answer.__anext__()
            await answer.drain()
        assert harness.clients.stats().open_connections == 0


async def test_drain_gives_up_after_much() -> None:
    """A provider that sends on and on after its own end is cut off."""
    sent = 0

    async def handle(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
            sent += 1024

    async with open_server(handle) as server, open_harness() as harness:
        async with harness.open(server.url(""), stream=True) as answer:
            await answer.__anext__()
            await answer.drain()
        assert harness.clients.stats().open_connections == 0


@pytest.mark.parametrize("end", [b"zz\r\n", b""], ids=["malformed", "cut"])
async def test_drain_hides_what_no_longer_matters(end: bytes) -> None:
    """The answer was complete; that its HTTP body is not costs the connection only."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked(b"x", end=b""))
        await first.wait()
        await peer.send(end)

    first = trio.Event()
    async with open_server(handle) as server, open_harness() as harness:
        async with harness.open(server.url(""), stream=True) as answer:
            assert await answer.__anext__() == b"x"
            first.set()
            await answer.drain()
        assert harness.clients.stats().open_connections == 0


async def test_stream_that_is_left_closes_its_connection() -> None:
    """What follows would be read as the answer to the next request."""
    async with open_mock() as mock, open_harness() as harness:
        async with harness.open(mock.url, model="mock-chunks-5-delay-60000", stream=True) as answer:
            await answer.__anext__()
        assert harness.clients.stats().open_connections == 0
        await mock.requests[0].wait_closed_by_client()
        await harness.fetch(mock.url)
        assert mock.total_connections == 2


async def test_failing_consumer_closes_its_connection() -> None:
    """However the block is left."""
    async with open_mock() as mock, open_harness() as harness:
        with pytest.raises(KeyError):
            async with harness.open(mock.url, model="mock-chunks-5-delay-60000", stream=True):
                raise KeyError("the consumer's own")
        assert harness.clients.stats().open_connections == 0


# -- cancellation --


async def cancelled(harness: Harness, reached: trio.Event, run: Callable[[], Awaitable[None]]) -> None:
    """Run *run* until *reached*, and until it waits for its socket; then cancel it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await reached.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert harness.clean


PHASES = ["handshake", "sending", "head", "body", "error-body", "drain"]


@pytest.mark.parametrize("phase", PHASES)
async def test_cancellation_leaves_no_connection(phase: str) -> None:
    """Wherever the call is, a client that leaves takes the provider's connection with it, and at once."""
    reached, gone = trio.Event(), trio.Event()

    async def handle(peer: Peer) -> None:
        if phase == "handshake":
            reached.set()
        elif phase == "sending":
            await peer.stream.receive_some(1)
            reached.set()
            await trio.sleep_forever()  # its window fills up
        else:
            await peer.request()
            head = b"HTTP/1.1 %b\r\nContent-Length: 100\r\n\r\nx"
            if phase != "head":
                await peer.send(head % (b"500 Oops" if phase == "error-body" else b"200 OK"))
            reached.set()
        with trio.fail_after(10):
            while await peer.stream.receive_some(65536):
                pass
        gone.set()

    async with open_server(handle) as server, open_harness() as harness:

        async def run() -> None:
            base = server.url("").replace("http://", "https://") if phase == "handshake" else server.url("")
            body = (b"x" * 30_000_000,) if phase == "sending" else (b"{}",)
            async with harness.open(base, stream=True, body=body) as answer:
                await answer.__anext__()
                if phase == "drain":
                    await answer.drain()
                else:
                    await answer.__anext__()

        before = trio.current_time()
        await cancelled(harness, reached, run)
        assert harness.clients.stats().open_connections == 0
        if phase != "sending":
            await gone.wait()
        assert trio.current_time() - before < 1.0


@pytest.mark.parametrize("kind", ["http", "socks"])
@pytest.mark.parametrize("phase", ["proxy", "head", "body"])
async def test_cancellation_leaves_no_connection_through_a_proxy(kind: str, phase: str) -> None:
    """The same, over httpx's own transports."""
    reached, gone = trio.Event(), trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        if phase == "body":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        reached.set()
        assert await peer.request() is None
        gone.set()

    opened = open_http_proxy if kind == "http" else open_socks_proxy
    async with open_server(handle) as server, opened(server.port) as proxy, open_harness() as harness:
        proxy.stall = phase == "proxy"
        scheme = "http" if kind == "http" else "socks5"

        async def run() -> None:
            async with harness.open(
                server.url(""), stream=True, proxy_url=f"{scheme}://127.0.0.1:{proxy.port}"
            ) as answer:
                await answer.__anext__()
                await answer.__anext__()

        if phase == "proxy":
            reached.set()
        await cancelled(harness, reached, run)
        assert harness.clients.stats().proxied_requests == 0
        if phase != "proxy":
            await gone.wait()  # the proxy has seen its client leave


async def test_cancelled_stream_can_be_taken_up_again() -> None:
    """A cancelled wait for a piece loses nothing."""
    async with open_mock() as mock, open_harness() as harness:
        body = CHAT % (b"mock-chunks-3-delay-100", b"true")
        received = b""
        async with harness.open(mock.url, stream=True, body=(body,)) as answer:
            while True:
                with trio.move_on_after(0.03):
                    try:
                        received += await answer.__anext__()
                    except StopAsyncIteration:
                        break
        assert received == expected_body(mock.requests[0].target, body)
        assert harness.clients.stats().idle_connections == 1


# -- proxies --


@pytest.mark.parametrize("where", ["credential", "global"])
async def test_proxy_of_the_credential_or_of_all(where: str) -> None:
    """The credential's comes first; its user and password reach it."""
    async with open_mock() as mock, open_http_proxy(mock.port) as proxy, open_http_proxy(mock.port) as other:
        ours = f"http://user:pass@127.0.0.1:{proxy.port}"
        theirs = f"http://127.0.0.1:{other.port}"
        everywhere = theirs if where == "credential" else ours
        async with open_harness(UpstreamSettings(proxy_url=everywhere)) as harness:
            await harness.fetch(mock.url, proxy_url=ours if where == "credential" else "")
            assert (len(proxy.targets), len(other.targets)) == (1, 0)
            assert proxy.credentials == ["user:pass"]
            assert harness.clean


async def test_direct_credential_avoids_the_proxy_of_all() -> None:
    """A provider in one's own network."""
    async with (
        open_mock() as mock,
        open_http_proxy(mock.port) as proxy,
        open_harness(UpstreamSettings(proxy_url=f"http://127.0.0.1:{proxy.port}")) as harness,
    ):
        await harness.fetch(mock.url, proxy_url="direct")
        assert proxy.targets == []


async def test_socks_proxy_carries_streams() -> None:
    """Byte for byte."""
    async with open_mock() as mock, open_socks_proxy(mock.port) as proxy, open_harness() as harness:
        body = CHAT % (b"mock-chunks-20", b"true")
        received = await harness.fetch(
            mock.url, stream=True, body=(body,), proxy_url=f"socks5://127.0.0.1:{proxy.port}"
        )
        assert received == expected_body(mock.requests[0].target, body)
        assert proxy.targets == [f"127.0.0.1:{mock.port}"]


@pytest.mark.parametrize("proxy_url", ["ftp://user:s3cr3t@proxy.test", "http://user:s3cr3t@", "user:s3cr3t@proxy.test"])
async def test_unusable_proxy_fails_its_calls_and_keeps_its_password(proxy_url: str) -> None:
    """Never a silent direct connection."""
    log = FakeLog()
    async with open_mock() as mock, open_harness() as harness:
        with pytest.raises(UpstreamConnectError) as caught:
            await harness.fetch(mock.url, proxy_url=proxy_url, log=log)
        assert caught.value.code == "invalid_proxy"
        assert "s3cr3t" not in f"{caught.value} {caught.value!r}"
        assert mock.total_connections == 0
    async with open_mock() as mock, open_harness(UpstreamSettings(proxy_url=proxy_url)) as harness:
        with pytest.raises(UpstreamConnectError, match="global proxy-url") as caught:
            await harness.fetch(mock.url)
        assert "s3cr3t" not in str(caught.value)


async def test_proxy_that_cannot_be_reached_keeps_its_password() -> None:
    """It is the kind of error that ends in bug reports."""
    async with refusing_port() as port, open_harness() as harness:
        with pytest.raises(UpstreamConnectError) as caught:
            await harness.fetch("http://127.0.0.1:9/v1", proxy_url=f"http://user:s3cr3t@127.0.0.1:{port}")
        assert "s3cr3t" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


# -- wire log --


async def test_wire_log_sees_the_whole_exchange() -> None:
    """What really went out and came back: URL, all headers, the body as sent, every piece of the answer."""
    log = FakeLog()
    body = b'{"model":"mock","betas":["x-1"],"max_tokens":5,"stream":true,"messages":[{"role":"user","content":"x"}]}'
    async with open_mock() as mock, open_harness() as harness:
        received = await harness.fetch(mock.url, "claude", stream=True, body=(body,), log=log)
        (request,) = mock.requests
        assert log.events == ["attempt", "response"]
        assert (log.method, log.url) == ("POST", f"{mock.url}/v1/messages")
        assert {(name.lower(), value) for name, value in log.request_headers} == set(request.headers)
        assert log.request_body == request.body != body
        assert log.auth == "label 0123456789abcdef"
        assert log.status == 200
        assert (b"content-type", b"text/event-stream") in [(n, v.partition(b";")[0]) for n, v in log.response_headers]
        assert log.response_body == received


async def test_wire_log_sees_errors_with_their_bodies() -> None:
    """The very exchanges that people look at logs for."""
    log = FakeLog()
    async with open_mock() as mock, open_harness() as harness:
        with pytest.raises(UpstreamStatusError) as caught:
            await harness.fetch(mock.url, model="mock-status-429-retry-after-3", log=log)
        assert log.events == ["attempt", "response"]
        assert log.status == 429
        assert (b"retry-after", b"3") in log.response_headers
        assert log.response_body == caught.value.body != b""


async def test_wire_log_sees_attempts_that_were_never_answered() -> None:
    """The attempt is on record before the connection is."""
    log = FakeLog()
    async with refusing_port() as port, open_harness() as harness:
        with pytest.raises(UpstreamConnectError):
            await harness.fetch(f"http://127.0.0.1:{port}", log=log)
        assert log.events == ["attempt"]


# -- the table --


async def test_every_known_provider_has_an_executor() -> None:
    """Compatible ones share one, unknown ones have none."""
    async with open_clients() as clients:
        made = executors(clients, UpstreamSettings(), ["openai-compatible-a", "openai-compatibility", "kiro", "claude"])
        assert made.keys() == {
            *("claude", "codex", "gemini", "vertex", "xai", "openai-compatible-a", "openai-compatibility")
        }
        assert made["openai-compatible-a"] is made["openai-compatibility"]
        assert all(isinstance(executor, Executor) for executor in made.values())
