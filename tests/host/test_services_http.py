"""`host.http.*` as plugins call them, against servers on real sockets."""

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from cpa.host.services_http import BLOCK_BYTES
from tests.host.hosting import ALICE, BOB, Host, Refused, b64, open_host, unb64
from tests.upstream.scripted import Peer, RawRequest, ScriptedServer, answering, open_server, response

NEXT = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def recording(seen: list[RawRequest], *answers: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A handler that notes requests and gives the answers in turn, the last one for all that follow."""
    left = list(answers)

    async def handle(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return handle


async def do(host: Host, server: ScriptedServer, **members: Any) -> Any:
    """`host.http.do`."""
    return await host.call("host.http.do", {"url": server.url("/x"), **members})


def line(request: RawRequest) -> bytes:
    """The request line."""
    return request.head.split(b"\r\n")[0]


async def test_do_sends_what_the_plugin_says() -> None:
    """Method, spelling of headers, body; Go's member names in the answer."""
    seen: list[RawRequest] = []
    async with (
        open_host() as host,
        open_server(recording(seen, response(b'{"ok":true}', headers=b"content-type: application/json\r\n"))) as server,
    ):
        got = await do(
            host, server, method="POST", headers={"x-LOWER": ["1"], "X-Two": ["a", "b"]}, body=b64(b'{"q":1}')
        )
    assert got == {
        "StatusCode": 200,
        "Headers": {"Content-Length": ["11"], "Content-Type": ["application/json"]},
        "Body": b64(b'{"ok":true}'),
    }
    (request,) = seen
    assert line(request) == b"POST /x HTTP/1.1"
    assert request.body == b'{"q":1}'
    assert b"\r\nx-LOWER: 1\r\nX-Two: a\r\nX-Two: b\r\n" in request.head
    assert request.header(b"accept-encoding") == b"gzip"
    assert request.header(b"content-length") == b"7"


async def test_the_nested_form_replaces_all_outer_members() -> None:
    """Both spellings of a request are in use."""
    seen: list[RawRequest] = []
    async with open_host() as host, open_server(recording(seen, response())) as server:
        await host.call(
            "host.http.do",
            {"method": "PUT", "url": "http://nowhere.invalid/", "request": {"url": server.url("/y?a=b")}},
        )
    assert line(seen[0]) == b"GET /y?a=b HTTP/1.1"


async def test_errors_of_the_server_are_results() -> None:
    """Only the network makes errors."""
    async with open_host() as host, open_server(answering(response(b"no", status=b"404 Not Found"))) as server:
        got = await do(host, server)
    assert (got["StatusCode"], unb64(got["Body"])) == (404, b"no")


async def test_gzip_is_decoded_unless_the_plugin_asked_for_it() -> None:
    """As Go's client: who names codings gets what came."""
    packed = gzip.compress(b"hello" * 1000)
    answer = response(packed, headers=b"Content-Encoding: gzip\r\n")
    async with open_host() as host, open_server(answering(answer)) as server:
        got = await do(host, server)
        assert unb64(got["Body"]) == b"hello" * 1000
        assert not {"Content-Encoding", "Content-Length"} & set(got["Headers"] or {})
        raw = await do(host, server, headers={"accept-encoding": ["gzip"]})
        assert unb64(raw["Body"]) == packed
        assert raw["Headers"]["Content-Encoding"] == ["gzip"]


async def test_broken_gzip_is_an_error() -> None:
    """Rather than half a body."""
    answer = response(gzip.compress(b"hello" * 1000)[:-9], headers=b"Content-Encoding: gzip\r\n")
    async with open_host() as host, open_server(answering(answer)) as server:
        with pytest.raises(Refused, match="read host http response: gzip: "):
            await do(host, server)


async def test_answers_are_bounded_before_and_after_decoding() -> None:
    """A bomb of a few KiB must not become gigabytes here."""
    bomb = response(gzip.compress(bytes(4 << 20)), headers=b"Content-Encoding: gzip\r\n")
    async with open_host(extra="limits: {response-bytes: 1048576}") as host:
        for answer in (response(bytes((1 << 20) + 1)), bomb):
            async with open_server(answering(answer)) as server:
                with pytest.raises(Refused, match="read host http response: larger than 1048576 bytes") as caught:
                    await do(host, server)
            assert caught.value.error["http_status"] == 502


@pytest.mark.parametrize(
    ("status", "method", "after", "body"),
    [
        (301, "POST", b"GET", b""),
        (302, "PUT", b"GET", b""),
        (303, "HEAD", b"HEAD", b""),
        (307, "POST", b"POST", b"data"),
        (308, "PUT", b"PUT", b"data"),
    ],
)
async def test_redirects(status: int, method: str, after: bytes, body: bytes) -> None:
    """As Go's client follows them."""
    seen: list[RawRequest] = []
    answer = response(b"", status=b"%d Moved" % status, headers=b"Location: ../y?z=1\r\n")
    async with open_host() as host, open_server(recording(seen, answer, response(b""))) as server:
        got = await do(
            host,
            server,
            method=method,
            body=b64(b"data") if method != "HEAD" else "",
            headers={"Authorization": ["Bearer k"], "Content-Type": ["text/plain"]},
        )
    assert got["StatusCode"] == 200
    assert line(seen[1]) == after + b" /y?z=1 HTTP/1.1"
    assert seen[1].body == body
    assert seen[1].header(b"authorization") == b"Bearer k"
    assert (seen[1].header(b"content-type") is None) == (not body and method != "HEAD")


async def test_secrets_stay_at_their_origin() -> None:
    """Another port is another server."""
    seen: list[RawRequest] = []
    async with open_host() as host, open_server(recording(seen, response())) as other:
        answer = response(b"", status=b"307 Temporary Redirect", headers=b"Location: %b\r\n" % other.url("/y").encode())
        async with open_server(answering(answer)) as server:
            await do(
                host,
                server,
                headers={"authorization": ["Bearer k"], "Cookie": ["c=1"], "X-Api-Key": ["k"], "X-Plain": ["1"]},
            )
    (request,) = seen
    assert request.header(b"x-plain") == b"1"
    assert not any(request.header(name) for name in (b"authorization", b"cookie", b"x-api-key"))


async def test_redirects_end() -> None:
    """After ten."""
    seen: list[RawRequest] = []
    answer = response(b"", status=b"302 Found", headers=b"Location: /again\r\n")
    async with open_host() as host, open_server(recording(seen, answer)) as server:
        with pytest.raises(Refused, match="stopped after 10 redirects"):
            await do(host, server)
    assert len(seen) == 11


async def test_a_redirect_to_no_http_url_is_an_error() -> None:
    """``file:`` is not for plugins of other people's servers."""
    answer = response(b"", status=b"302 Found", headers=b"Location: file:///etc/passwd\r\n")
    async with open_host() as host, open_server(answering(answer)) as server:
        with pytest.raises(Refused, match="invalid redirect location"):
            await do(host, server)


async def test_a_redirect_without_location_is_an_answer() -> None:
    """As for Go."""
    async with open_host() as host, open_server(answering(response(b"", status=b"302 Found"))) as server:
        assert (await do(host, server))["StatusCode"] == 302


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "create host http request: unsupported protocol scheme ''"),
        ({"url": "ftp://x/"}, "create host http request: unsupported protocol scheme 'ftp'"),
        ({"url": "http:///x"}, "create host http request: no host in url"),
        ({"url": "http://x:port/"}, "create host http request: invalid url"),
        ({"url": "http://x/", "method": "GE T"}, "create host http request: invalid method"),
        ({"url": "http://x/", "headers": {"A B": ["1"]}}, "create host http request: invalid header"),
        ({"url": "http://x/", "headers": {"A": ["1\r\nB: 2"]}}, "create host http request: invalid header"),
        ({"url": 7}, "decode host http request: "),
        ({"url": "http://x/", "headers": {"A": "1"}}, "decode host http request: "),
        ({"url": "http://x/", "body": "%%"}, "decode host http request: "),
    ],
)
async def test_bad_requests(members: Any, text: str) -> None:
    """Nothing is sent."""
    async with open_host() as host:
        for method in ("host.http.do", "host.http.do_stream"):
            with pytest.raises(Refused) as caught:
                await host.call(method, members)
            assert caught.value.error["message"].startswith(text)


async def test_a_refused_connection_is_an_error() -> None:
    """With a hint that another try may succeed."""
    async with open_host() as host:
        async with open_server(answering(b"")) as server:
            url = server.url()
        with pytest.raises(Refused, match="execute host http request: ") as caught:
            await host.call("host.http.do", {"url": url})
    assert caught.value.error["http_status"] == 502
    assert caught.value.error["retryable"] is True


async def test_a_login_in_the_url_is_sent_as_go_does() -> None:
    """As Basic authorization."""
    seen: list[RawRequest] = []
    async with open_host() as host, open_server(recording(seen, response())) as server:
        await host.call("host.http.do", {"url": f"http://u:p%20w@127.0.0.1:{server.port}/"})
    assert seen[0].header(b"authorization") == b"Basic " + b64(b"u:p w").encode()


async def test_framing_headers_of_the_plugin_are_replaced() -> None:
    """They could smuggle a second request."""
    seen: list[RawRequest] = []
    async with open_host() as host, open_server(recording(seen, response())) as server:
        headers = {"Host": ["evil"], "Content-Length": ["0"], "Transfer-Encoding": ["chunked"]}
        await do(host, server, method="POST", headers=headers, body=b64(b"data"))
    assert seen[0].body == b"data"
    assert seen[0].header(b"host") == b"127.0.0.1:%d" % server.port
    assert seen[0].header(b"transfer-encoding") is None


async def test_a_stream_is_read_block_by_block() -> None:
    """The head comes first; blocks as they arrive, the end without payload, then an error."""
    go_on = trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(NEXT, chunk(b"one"))
        await go_on.wait()
        await peer.send(chunk(b"two"), chunk(b""))

    async with open_host() as host, open_server(handle) as server:
        head = await host.call("host.http.do_stream", {"url": server.url()})
        assert list(head) == ["status_code", "headers", "stream_id"]
        assert head["status_code"] == 200
        ref = {"stream_id": head["stream_id"]}
        assert await host.call("host.http.stream_read", ref) == {"payload": b64(b"one")}
        go_on.set()
        assert await host.call("host.http.stream_read", ref) == {"payload": b64(b"two")}
        assert await host.call("host.http.stream_read", ref) == {"done": True}
        with pytest.raises(Refused, match=f"http stream {ref['stream_id']} is not open"):
            await host.call("host.http.stream_read", ref)
        assert host.open_streams == 0


async def test_large_bodies_come_in_blocks() -> None:
    """Of at most 32 KiB, compressed or not."""
    body = bytes(range(256)) * 4096
    packed = response(gzip.compress(body), headers=b"Content-Encoding: gzip\r\n")
    async with open_host() as host:
        for answer in (response(body), packed):
            async with open_server(answering(answer)) as server:
                head = await host.call("host.http.do_stream", {"url": server.url()})
                blocks: list[bytes] = []
                while not (got := await host.call("host.http.stream_read", {"stream_id": head["stream_id"]})).get(
                    "done"
                ):
                    blocks.append(unb64(got["payload"]))
                assert b"".join(blocks) == body
                assert max(map(len, blocks)) == BLOCK_BYTES


async def test_a_cut_stream_ends_with_an_error() -> None:
    """After what had come."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(NEXT, chunk(b"one"))

    async with open_host() as host, open_server(handle) as server:
        ref = {"stream_id": (await host.call("host.http.do_stream", {"url": server.url()}))["stream_id"]}
        assert await host.call("host.http.stream_read", ref) == {"payload": b64(b"one")}
        got = await host.call("host.http.stream_read", ref)
        assert got["done"] is True
        assert got["error"]
        with pytest.raises(Refused, match="is not open"):
            await host.call("host.http.stream_read", ref)


@pytest.mark.parametrize("stream_id", ["", "7", "0" * 32])
async def test_closing_what_is_not_open_is_nothing(stream_id: str) -> None:
    """Reading it is an error."""
    async with open_host() as host:
        assert await host.call("host.http.stream_close", {"stream_id": stream_id}) == {}
        text = f"http stream {stream_id} is not open" if stream_id else "http stream id is required"
        with pytest.raises(Refused, match=text):
            await host.call("host.http.stream_read", {"stream_id": stream_id})


class Hanging:
    """A server that sends a head and one piece, and then waits for its client to leave."""

    def __init__(self) -> None:
        self.left = trio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(NEXT, chunk(b"one"))
        assert await peer.request() is None
        self.left.set()


@pytest.mark.parametrize("how", ["close", "scope", "owner"])
async def test_what_ends_a_stream_closes_its_connection(how: str) -> None:
    """And wakes a blocked read: with the end, or with an error when the call is gone."""
    server_side = Hanging()
    async with open_host() as host, open_server(server_side) as server, trio.open_nursery() as nursery:
        async with host.services.scopes.open(ALICE) as scope:
            scope_id = scope.id if how == "scope" else ""
            head = await host.call("host.http.do_stream", {"url": server.url(), "host_callback_id": scope_id})
            ref = {"stream_id": head["stream_id"]}
            assert await host.call("host.http.stream_read", ref) == {"payload": b64(b"one")}
            answers: list[Any] = []

            async def read() -> None:
                answers.append(json.loads(await host.services.handle(ALICE, b"host.http.stream_read", dumped(ref))))

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.01)
            if how == "close":
                await host.call("host.http.stream_close", ref)
            elif how == "owner":
                host.services.close_owner(ALICE)
            else:
                scope.close()
            await server_side.left.wait()
            assert host.open_streams == 0
        if how == "scope":
            assert answers[0]["ok"] is False
            assert answers[0]["error"]["http_status"] == 499
        else:
            assert answers == [{"ok": True, "result": {"done": True}}]


def dumped(members: Any) -> bytes:
    """As JSON."""
    return json.dumps(members).encode()


async def test_a_request_is_cancelled_with_its_scope() -> None:
    """The plugin's thread gets an error, the server loses its client."""
    server_side, asked = trio.Event(), trio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        asked.set()
        assert await peer.request() is None
        server_side.set()

    async with open_host() as host, open_server(handle) as server, trio.open_nursery() as nursery:

        async def ask(scope_id: str) -> None:
            with pytest.raises(Refused, match="canceled") as caught:
                await do(host, server, host_callback_id=scope_id)
            assert caught.value.error["http_status"] == 499

        async with host.services.scopes.open(ALICE) as scope:
            nursery.start_soon(ask, scope.id)
            await asked.wait()
        await server_side.wait()


async def test_streams_and_scopes_of_others_are_errors() -> None:
    """Upstream lets any plugin read any stream."""
    server_side = Hanging()
    async with open_host() as host, open_server(server_side) as server, host.services.scopes.open(ALICE) as scope:
        members = {"url": server.url(), "host_callback_id": scope.id}
        for method in ("host.http.do", "host.http.do_stream"):
            with pytest.raises(Refused, match="another plugin"):
                await host.call(method, members, plugin=BOB)
        ref = {"stream_id": (await host.call("host.http.do_stream", members))["stream_id"]}
        for method in ("host.http.stream_read", "host.http.stream_close"):
            with pytest.raises(Refused, match="another plugin"):
                await host.call(method, ref, plugin=BOB)


async def test_an_expired_scope_is_the_background() -> None:
    """Contract: it works, without cancellation."""
    async with open_host() as host, open_server(answering(response())) as server:
        async with host.services.scopes.open(ALICE) as scope:
            pass
        assert (await do(host, server, host_callback_id=scope.id))["StatusCode"] == 200


async def test_many_at_once() -> None:
    """From many threads of several plugins."""
    async with (
        open_host() as host,
        open_server(answering(response(b"x" * 10_000))) as server,
        trio.open_nursery() as nursery,
    ):

        async def ask(number: int) -> None:
            plugin = ALICE if number % 2 else BOB
            got = await host.call("host.http.do", {"url": server.url()}, plugin=plugin)
            assert unb64(got["Body"]) == b"x" * 10_000

        for number in range(60):
            nursery.start_soon(ask, number)
