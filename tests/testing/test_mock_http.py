"""The request parser, sans I/O."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpa.testing.mock.http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    READ_BYTES,
    RequestReader,
    in_http_chunks,
    response_head,
)

PLAIN = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h\r\nX-Two: a\r\nx-two: b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED_HEAD = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
GET = b"GET /g HTTP/1.1\r\nHost: h\r\n\r\n"
WIRE = PLAIN + CHUNKED + GET


def read(*pieces: bytes) -> RequestReader:
    reader = RequestReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def summary(reader: RequestReader) -> list[tuple[str, str, bytes, int]]:
    return [(item.method, item.target, item.body, len(item.headers)) for item in reader.ready]


EXPECTED = [("POST", "/v1/x?y=1", b"hello", 4), ("POST", "/c", b"hello", 2), ("GET", "/g", b"", 1)]


def test_pipelined_requests() -> None:
    reader = read(WIRE)
    assert summary(reader) == EXPECTED
    assert reader.ready[0].headers[1:3] == [(b"x-two", b"a"), (b"x-two", b"b")]
    assert reader.refusal == 0


def test_byte_by_byte() -> None:
    assert summary(read(*(WIRE[at : at + 1] for at in range(len(WIRE))))) == EXPECTED


@settings(max_examples=50)
@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_any_split_gives_the_same_requests(cuts: list[int]) -> None:
    edges = sorted({0, *cuts, len(WIRE)})
    assert summary(read(*(WIRE[a:b] for a, b in pairwise(edges)))) == EXPECTED


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from([b"", PLAIN, CHUNKED[:60]]))
def test_any_bytes_give_requests_or_a_refusal(pieces: list[bytes], start: bytes) -> None:
    assert read(start, *pieces).refusal in (0, 400)


def test_connection_handling_is_told() -> None:
    http_10 = read(b"GET / HTTP/1.0\r\n\r\n").ready[0]
    assert (http_10.keep_alive, http_10.chunked_ok) == (False, False)
    closing = read(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").ready[0]
    assert (closing.keep_alive, closing.chunked_ok) == (False, True)
    assert read(GET).ready[0].keep_alive


def test_expect_continue_is_asked_once() -> None:
    head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    reader = read(head)
    assert reader.wants_continue
    reader.wants_continue = False
    reader.feed(b"a")
    assert not reader.wants_continue
    reader.feed(b"b")
    assert reader.ready[0].body == b"ab"


def test_websocket_upgrade_is_recognised_and_parsing_goes_on() -> None:
    upgrade = b"GET /v1/responses HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    reader = read(upgrade + GET)
    assert [item.websocket for item in reader.ready] == [True, False]


def test_other_upgrades_are_ignored() -> None:
    """Some clients offer h2c with every request."""
    head = b"POST /p HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab"
    reader = read(head + GET)
    assert [(item.target, item.body, item.websocket) for item in reader.ready] == [
        ("/p", b"ab", False),
        ("/g", b"", False),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody speaks TLS
        b"HELLO\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(data: bytes) -> None:
    assert read(data).refusal == 400


def test_requests_before_a_malformed_one_are_kept() -> None:
    reader = read(GET + b"nonsense\r\n\r\n")
    assert summary(reader) == [EXPECTED[2]]
    assert reader.refusal == 400


def feed_until_refused(start: bytes, piece: bytes, most_bytes: int) -> tuple[int, int]:
    """(refusal, bytes fed) of an endless request."""
    reader, fed = read(start), 0
    while not reader.refusal and fed <= most_bytes:
        reader.feed(piece)
        fed += len(piece)
    return reader.refusal, fed


def test_endless_header_is_refused() -> None:
    refusal, fed = feed_until_refused(b"GET / HTTP/1.1\r\nX: ", b"a" * READ_BYTES, 1 << 20)
    assert refusal == 431
    assert fed <= MAX_HEAD_BYTES + READ_BYTES


def test_many_headers_are_refused() -> None:
    lines = b"".join(b"x-%d: 1\r\n" % at for at in range(MAX_HEADERS + 10))
    assert read(b"GET / HTTP/1.1\r\n" + lines).refusal == 431


def test_oversized_body_is_refused() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n"
    refusal, fed = feed_until_refused(head, b"a" * (1 << 20), MAX_BODY_BYTES * 2)
    assert refusal == 413
    assert fed <= MAX_BODY_BYTES + (1 << 20)


def test_long_body_before_a_long_head_is_fine() -> None:
    """What one read brings of a body must not count as the next request's head."""
    body = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (READ_BYTES - 100) + b"a" * (READ_BYTES - 100)
    wire = body + b"GET / HTTP/1.1\r\nX-Long: " + b"b" * 60_000 + b"\r\n\r\n"
    reader = read(*(wire[at : at + READ_BYTES] for at in range(0, len(wire), READ_BYTES)))
    assert [item.method for item in reader.ready] == ["POST", "GET"]


def test_response_heads() -> None:
    whole = response_head(200, b"application/json", [(b"a", b"b")], length=2, chunked=True)
    assert whole == (
        b"HTTP/1.1 200 OK\r\nserver: cpa-mock\r\ncontent-type: application/json\r\ncontent-length: 2\r\na: b\r\n\r\n"
    )
    streamed = response_head(529, b"text/event-stream", [], length=None, chunked=True, connection=b"close")
    assert streamed == (
        b"HTTP/1.1 529 Mock\r\nserver: cpa-mock\r\ncontent-type: text/event-stream\r\n"
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert (
        response_head(204, b"x", [], length=0, chunked=True) == b"HTTP/1.1 204 No Content\r\nserver: cpa-mock\r\n\r\n"
    )


def test_http_chunks() -> None:
    writes = [b"a", b"x" * 16]
    framed = [b"1\r\na\r\n", b"10\r\n" + b"x" * 16 + b"\r\n"]
    assert list(in_http_chunks(writes, complete=False)) == framed
    assert list(in_http_chunks(writes, complete=True)) == [framed[0], framed[1] + b"0\r\n\r\n"]
    assert list(in_http_chunks([], complete=True)) == [b"0\r\n\r\n"]
    assert list(in_http_chunks([], complete=False)) == []
