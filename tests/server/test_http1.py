"""The fast HTTP/1.1 path beside the parser whose place it takes: it reads what that reads, and leaves it the rest."""

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from cpa.server.http1 import MAX_HEAD_BYTES, SKIP_BYTES, Exchange, Message, Request, exchange, head_end, read_head
from tests.server.wire import FAIL_S, connect, post, serving

names = st.sampled_from(
    [
        "Host",
        "X-A",
        "Accept",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "Upgrade",
        "Expect",
        "B@d",
        "",
        "Sp ace",
    ]
)
values = st.one_of(
    st.sampled_from(
        ["", "a", "5", "05", "+5", "5, 5", "-1", "close", "Keep-Alive", "chunked", "websocket", "a\tb", " a "]
    ),
    st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=8),
)
lines = st.lists(st.tuples(names, st.sampled_from([": ", ":", " : ", ":\t"]), values), max_size=6)
heads = st.builds(
    lambda method, target, version, found, end: (
        f"{method} {target} {version}{end}" + "".join(f"{n}{s}{v}{end}" for n, s, v in found) + end
    ).encode("latin-1"),
    st.sampled_from(["GET", "POST", "HEAD", "get", "PRI", "CONNECT", "M-SEARCH", "G T", "GE\0"]),
    st.sampled_from(["/", "/a?b=c", "/%41", "*", "http://a/b", "a", "/ü", "/a b", "/\x7f"]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/11", "http/1.1", ""]),
    lines.map(lambda found: [("Host", ": ", "a"), *found]),
    st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"]),
)


@given(heads)
def test_what_is_read_here_is_what_the_other_parser_reads(head: bytes) -> None:
    """Line for line; a head that the other one refuses is never accepted."""
    found = read_head(head)
    if found is None:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(head)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert (found.method.encode(), found.target) == (event.method.upper(), event.target)
    assert found.headers == list(event.headers)
    [length] = [int(value) for name, value in event.headers if name == b"content-length"] or [0]
    assert found.length == length
    assert found.keep == (
        other.their_state is not h11.MUST_CLOSE and b"close" not in dict(event.headers).get(b"connection", b"").lower()
    )


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"GET / HT", 0),
        (b"GET / HTTP/1.1\r\n\r\nrest", 18),
        (b"GET / HTTP/1.1\n\n", -1),
        (b"GET / HTTP/1.1\n\r\n", -1),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", -1),
        (b"\x16\x03\x01", -1),
        (b"*1\r\n", -1),
        (b"A" * MAX_HEAD_BYTES, -1),
        (b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", -1),
    ],
)
def test_where_a_head_ends(data: bytes, end: int) -> None:
    """Not yet, there, or never in here."""
    assert head_end(bytearray(data)) == end


class Wire:
    """The bytes of a connection, piece by piece, and what was written."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.written = b""

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        self.written += data
        return True


def asked(wire: Wire, *, method: str = "POST", length: int = 0, ahead: bytes = b"") -> Exchange:
    request = Request(method=method, target=b"/", headers=[(b"host", b"a")], length=length, keep=True)
    return Exchange(request=request, read=wire.read, write=wire.write, ahead=bytearray(ahead))


def answer(*messages: Message) -> "type[object]":
    """An application that says that."""

    async def app(_scope: Message, _receive: object, send: object) -> None:
        for message in messages:
            await send(message)  # type: ignore[operator]

    return app  # type: ignore[return-value]


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"date", b"now"), *headers]}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_bodies_come_as_they_were_read_and_what_follows_is_kept() -> None:
    """Nothing of the next request is lost."""
    wire = Wire(b"cd", b"efGET")
    one = asked(wire, length=6, ahead=b"ab")
    got = [await one.receive() for _ in range(3)]
    assert [message["body"] for message in got] == [b"ab", b"cd", b"ef"]
    assert [message["more_body"] for message in got] == [True, True, False]
    assert (bytes(one.ahead), one.unread) == (b"GET", 0)
    assert (await one.receive())["type"] == "http.disconnect"
    assert one.gone


@pytest.mark.parametrize(
    ("messages", "method", "written", "stays"),
    [
        (
            [start((b"content-length", b"2")), body(b"ok")],
            "POST",
            b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
            True,
        ),
        (
            [start(), body(b"a", more=True), body(b"bc", more=True), body()],
            "POST",
            b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n"
            b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            True,
        ),
        (
            [start((b"Connection", b"close")), body(b"a")],
            "POST",
            b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"1\r\na\r\n0\r\n\r\n",
            False,
        ),
        (
            [start(status=204), body()],
            "POST",
            b"HTTP/1.1 204 No Content\r\ndate: now\r\nconnection: keep-alive\r\n\r\n",
            True,
        ),
        (
            [start((b"content-length", b"9")), body(b"123456789")],
            "HEAD",
            b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 9\r\nconnection: keep-alive\r\n\r\n",
            True,
        ),
        ([start(status=299), body()], "HEAD", b"HTTP/1.1 299 \r\ndate: now\r\nconnection: keep-alive\r\n\r\n", True),
    ],
    ids=["length", "chunks", "close", "no-content", "head", "unknown-status"],
)
async def test_answers_are_framed(messages: list[Message], method: str, written: bytes, stays: bool) -> None:
    """By their length, in chunks, or without a body."""
    wire = Wire()
    assert await exchange(answer(*messages), asked(wire, method=method), {}) is stays  # type: ignore[arg-type]
    assert wire.written == written


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"a\r\nset-cookie: b"), (b"x-a", b"a\nb"), (b"x a", b"b"), (b"", b"b"), (b"x-a", b"\0"), (b"x:a", b"b")],
)
async def test_a_header_cannot_break_out_of_its_line(header: tuple[bytes, bytes]) -> None:
    """Whoever made it, nothing of it is written."""
    wire = Wire()
    assert not await exchange(answer(start(header), body(b"x")), asked(wire), {})  # type: ignore[arg-type]
    assert wire.written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert wire.written.count(b"\r\n") == 5


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [body(b"x")],
        [start((b"content-length", b"1")), body(b"xy")],
        [start((b"content-length", b"3")), body(b"xy")],
        [start(), body(b"x", more=True)],
        [start(), start()],
    ],
    ids=["nothing", "headless", "too-long", "too-short", "unfinished", "twice"],
)
async def test_an_application_that_breaks_the_rules_ends_the_connection(messages: list[Message]) -> None:
    """A client never takes half an answer for a whole one."""
    wire = Wire()
    assert not await exchange(answer(*messages), asked(wire), {})  # type: ignore[arg-type]
    assert not wire.written.endswith(b"0\r\n\r\n")


async def test_requests_in_a_row_and_one_for_the_other_parser_share_a_connection() -> None:
    """Fast, fast, chunked (Hypercorn's), and on from there; in one write by the client."""
    chat = b'{"model":"gpt","messages":[{"role":"user","content":"a"}]}'
    chunked = post(b"", "/v1/chat/completions").replace(b"content-length: 0", b"transfer-encoding: chunked")
    assert b"chunked" in chunked
    chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(chat), chat)
    async with serving() as proxy, connect(proxy.url) as wire:
        with trio.fail_after(FAIL_S):
            await wire.send(post(chat, "/v1/chat/completions") * 2 + chunked + post(chat, "/v1/chat/completions"))
            for _ in range(4):
                assert (await wire.reply()).status == 200


@pytest.mark.parametrize("late", [False, True], ids=["came with the head", "came after the answer"])
async def test_a_body_that_nobody_read_is_skipped(late: bool) -> None:
    """Frameworks answer some requests without a look at their bodies; the connection was promised to stay."""
    wire = Wire(b"abcdGET")
    one = asked(wire, length=4, ahead=b"" if late else wire.pieces.pop())
    app = answer(start((b"content-length", b"2")), body(b"ok"))
    with trio.fail_after(FAIL_S):
        assert await exchange(app, one, {})  # type: ignore[arg-type]
    assert bytes(one.ahead) == b"GET"


async def test_a_large_body_that_nobody_read_ends_the_connection() -> None:
    """Reading megabytes for nothing costs more than a new connection."""
    wire = Wire(bytes(SKIP_BYTES))
    one = asked(wire, length=SKIP_BYTES + 1)
    app = answer(start((b"content-length", b"2")), body(b"ok"))
    with trio.fail_after(FAIL_S):
        assert not await exchange(app, one, {})  # type: ignore[arg-type]
    assert len(wire.pieces) == 1


async def test_who_leaves_in_a_body_that_nobody_reads_is_gone() -> None:
    """There is no next request."""
    one = asked(Wire(b"ab"), length=4)
    app = answer(start((b"content-length", b"2")), body(b"ok"))
    with trio.fail_after(FAIL_S):
        assert not await exchange(app, one, {})  # type: ignore[arg-type]
