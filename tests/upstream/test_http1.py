"""HTTP/1.1 codec: what goes out, and that no split and no garbage changes or breaks what comes in."""

import itertools
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.upstream.http1 import (
    MAX_IDLE_BYTES,
    BufferStream,
    ResponseReader,
    add_framing,
    encode_request,
)

Headers = list[tuple[bytes, bytes]]


class Pieces(httpx.AsyncByteStream):
    """A body that is not in memory."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"abc"


def make_request(
    headers: Headers | None = None,
    *,
    method: str = "POST",
    url: str = "http://user:pw@h.test:81/a?b=c",
    body: httpx.AsyncByteStream | None = None,
) -> httpx.Request:
    return httpx.Request(method, url, headers=headers or [], stream=body or BufferStream((b"ab", b"", b"c")))


def read(
    *pieces: bytes, head_only: bool = False, eof: bool = False, clean: bool = True, detailed: bool = True
) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader(head_only=head_only, detailed=detailed)
    body = b""
    for piece in pieces:
        reader.feed(piece)
        body += reader.take()
    if eof:
        reader.feed_eof(clean=clean)
    return reader, body


def test_headers_go_out_as_given_after_what_was_missing() -> None:
    outgoing = encode_request(make_request([(b"X-Api-KEY", b"k"), (b"accept", b"a/b"), (b"accept", b"c/d")]))
    assert outgoing.head == (
        b"POST /a?b=c HTTP/1.1\r\nHost: h.test:81\r\nContent-Length: 3\r\n"
        b"X-Api-KEY: k\r\naccept: a/b\r\naccept: c/d\r\n\r\n"
    )
    assert outgoing.buffers == (b"ab", b"", b"c")


def test_given_host_and_length_are_not_repeated() -> None:
    outgoing = encode_request(make_request([(b"host", b"other"), (b"content-length", b"3")]))
    assert outgoing.head == b"POST /a?b=c HTTP/1.1\r\nhost: other\r\ncontent-length: 3\r\n\r\n"


@pytest.mark.parametrize(("method", "framing"), [("GET", b""), ("POST", b"Content-Length: 0\r\n")])
def test_empty_bodies(method: str, framing: bytes) -> None:
    outgoing = encode_request(make_request(method=method, body=BufferStream(())))
    assert outgoing.head == b"%b /a?b=c HTTP/1.1\r\nHost: h.test:81\r\n%b\r\n" % (method.encode(), framing)


def test_bodies_that_httpx_made_itself() -> None:
    outgoing = encode_request(httpx.Request("POST", "http://h/", content=b"xyz"))
    assert outgoing.buffers == (b"xyz",)
    assert outgoing.head.count(b"Content-Length: 3\r\n") == 1


def test_foreign_stream_is_chunked_unless_its_length_is_given() -> None:
    assert b"Transfer-Encoding: chunked\r\n" in encode_request(make_request(body=Pieces())).head
    outgoing = encode_request(make_request([(b"content-length", b"3")], body=Pieces()))
    assert outgoing.length == 3
    assert outgoing.buffers is None
    assert b"chunked" not in outgoing.head


def test_add_framing_does_the_same_for_other_transports() -> None:
    request = make_request()
    add_framing(request)
    assert request.headers["host"] == "h.test:81"
    assert request.headers["content-length"] == "3"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"b\r\nc: d")],
        [(b"a", b"b\nc")],
        [(b"a", b"b\rc")],
        [(b"a", b"b\0")],
        [(b"a\r\nb", b"c")],
        [(b"a b", b"c")],
        [(b"a:", b"c")],
        [(b"", b"c")],
        [(b"\xe4", b"c")],
        [(b"content-length", b"4")],
        [(b"content-length", b"+3")],
        [(b"content-length", b"3"), (b"Content-Length", b"3")],
        [(b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"3")],
        [(b"host", b"a"), (b"Host", b"b")],
    ],
)
def test_requests_that_would_break_the_framing_are_refused(headers: Headers) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        encode_request(make_request(headers))


@pytest.mark.parametrize("method", ["GET /x HTTP/1.1\r\nA: b\r\n\r\nGET", "", "A B"])
def test_methods_that_are_no_token_are_refused(method: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        encode_request(make_request(method=method))


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_no_header_can_add_a_line(headers: Headers) -> None:
    """Whatever is accepted has exactly the lines that were asked for."""
    try:
        head = encode_request(make_request(headers)).head
    except httpx.LocalProtocolError:
        return
    lines = head.split(b"\r\n")
    given = [line for line in lines[1:-2] if not line.startswith((b"Host: h.test:81", b"Content-Length: 3"))]
    assert given == [name + b": " + value for name, value in headers]
    assert b"\n" not in head.replace(b"\r\n", b"")


def test_response_with_length() -> None:
    reader, body = read(b"HTTP/1.1 429 Too Many\r\nRetry-After:  5 \r\nX:\r\nx: 2\r\nContent-Length: 2\r\n\r\nhi")
    assert (reader.status, reader.reason, reader.http_version) == (429, b"Too Many", b"HTTP/1.1")
    assert reader.headers == [(b"Retry-After", b"5"), (b"X", b""), (b"x", b"2"), (b"Content-Length", b"2")]
    assert body == b"hi"
    assert reader.complete
    assert reader.reusable


def test_interim_responses_are_skipped() -> None:
    reader, body = read(
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    )
    assert (reader.status, reader.reason, reader.headers, body) == (200, b"OK", [(b"Content-Length", b"1")], b"x")
    assert reader.reusable


@pytest.mark.parametrize(
    ("head", "head_only", "reusable"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, True),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True, False),
        (b"HTTP/1.1 200 OK\r\n\r\n", True, False),
    ],
)
def test_responses_without_body(head: bytes, head_only: bool, reusable: bool) -> None:
    reader, body = read(head, head_only=head_only)
    assert reader.complete
    assert body == b""
    assert reader.reusable is reusable


def test_pieces_of_one_receive_are_one_piece_and_trailers_are_dropped() -> None:
    reader = ResponseReader(head_only=False)
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: v\r\n\r\n")
    assert reader.take() == b"abc"
    assert reader.take() == b""
    assert reader.headers == [(b"Transfer-Encoding", b"Chunked")]
    assert reader.reusable


def test_body_until_close() -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def", eof=True)
    assert body == b"abcdef"
    assert reader.complete
    assert not reader.reusable


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\n\r\n", b"garbage", b"H"])
def test_unasked_bytes_after_the_end_spoil_the_connection_only(extra: bytes) -> None:
    reader, body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na" + extra)
    assert (reader.status, body, reader.complete, reader.reusable) == (200, b"a", True, False)
    reader, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", extra)
    assert not reader.reusable


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (b"", True),
        (b"HTTP/1.1 200", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\nab", False),
    ],
)
def test_early_end_is_an_error(data: bytes, clean: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        read(*([data] if data else []), eof=True, clean=clean)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxyz",
        b"HTTP/1.1 000 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n",
    ],
)
def test_malformed_responses(data: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        read(data)
    with pytest.raises(httpx.RemoteProtocolError):
        read(*(data[i : i + 1] for i in range(len(data))))


def test_head_limit_counts_all_heads_but_not_the_body() -> None:
    line = b"X: " + b"y" * 1000 + b"\r\n"
    many = MAX_IDLE_BYTES // len(line)
    body = b"z" * (2 * MAX_IDLE_BYTES)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body) + line * (many - 1) + b"\r\n"
    assert read(head + body)[1] == body
    assert read(head[:50_000], head[50_000:] + body)[1] == body
    for data in (
        b"HTTP/1.1 200 OK\r\n" + line * (many + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_IDLE_BYTES,
        b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 6000,
        (b"HTTP/1.1 100 Continue\r\n" + line * (many // 2) + b"\r\n") * 3 + b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * MAX_IDLE_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    ):
        for size in (len(data), 5000):
            for detailed in (True, False):
                with pytest.raises(httpx.RemoteProtocolError):
                    read(*(data[i : i + size] for i in range(0, len(data), size)), detailed=detailed)


def test_endless_framing_is_an_error() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    many = MAX_IDLE_BYTES // 1000 + 2
    with pytest.raises(httpx.RemoteProtocolError):
        read(head, b"1;", *[b"x" * 1000] * many)
    with pytest.raises(httpx.RemoteProtocolError):
        read(head, b"0\r\n", *[b"t: " + b"x" * 1000 + b"\r\n"] * many)


# What a server may send, as (bytes, status, body).
BODIES = st.binary(max_size=60)
TOKENS = st.text("abcXYZ-09", min_size=1, max_size=8).map(lambda name: b"x-" + name.encode())
VALUES = st.text("abc ;=\u00e9", max_size=12).map(lambda value: value.strip().encode("latin-1"))


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, int, Headers, bytes, bool]:
    status = draw(st.sampled_from([200, 201, 400, 429, 500]))
    headers = draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4))
    body = draw(BODIES)
    kind = draw(st.sampled_from(["length", "chunked", "close"]))
    data = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2)) + b"HTTP/1.1 %d OK\r\n" % status
    if kind == "length":
        headers = [*headers, (b"Content-Length", b"%d" % len(body))]
    elif kind == "chunked":
        headers = [*headers, (b"Transfer-Encoding", b"chunked")]
    data += b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
    if kind == "chunked":
        size = draw(st.integers(1, 20))
        parts = [body[i : i + size] for i in range(0, len(body), size)]
        data += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        data += body
    return data, status, headers, body, kind == "close"


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


@given(responses(), st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=250, deadline=None)
def test_any_split_gives_the_same_response(case: tuple[bytes, int, Headers, bytes, bool], places: list[int]) -> None:
    data, status, headers, body, until_close = case
    for pieces in (cut(data, places), [data[i : i + 1] for i in range(len(data))]):
        reader, received = read(*pieces, eof=until_close)
        assert (reader.status, reader.headers, received) == (status, headers, body)
        assert reader.complete
        assert reader.reusable is not until_close
        short, received = read(*pieces, eof=until_close, detailed=False)
        lowered = tuple((name.lower(), value) for name, value in headers)
        assert reader.take_headers() == lowered
        assert (short.status, short.take_headers(), received, short.reusable) == (
            status,
            lowered,
            body,
            not until_close,
        )
        assert short.take_headers() == ()


@given(responses(), st.binary(max_size=20), st.integers(0, 10_000), st.lists(st.integers(0, 10_000), max_size=4))
@settings(max_examples=250, deadline=None)
def test_any_bytes_give_a_response_or_a_protocol_error(
    case: tuple[bytes, int, Headers, bytes, bool], noise: bytes, place: int, places: list[int]
) -> None:
    """Noise in a valid response, so that every state of the reader meets it."""
    data = case[0]
    place %= len(data) + 1
    try:
        reader, _ = read(*cut(data[:place] + noise + data[place:], places), eof=True)
    except httpx.RemoteProtocolError:
        return
    assert 200 <= reader.status <= 999
    assert reader.complete
    assert not reader.reusable
