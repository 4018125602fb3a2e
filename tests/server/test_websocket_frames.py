"""Frames from hostile and from merely unlucky clients: close codes, bounds, and nothing that stays behind."""

import json
import zlib

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, TextMessage
from wsproto.extensions import PerMessageDeflate

from cpa.config.schema import LimitsConfig
from cpa.server.websocket_frames import MAX_WAITING, Inflate
from tests.server.wire import FAIL_S, Hangup, connect, head, serving
from tests.server.ws_client import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    RawSocket,
    create,
    frame,
    noise,
    raw_socket,
    settled,
)

SMALL = "limits: {body-bytes: 262144}"


def deflated(text: bytes) -> bytes:
    """As a client compresses a message."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def error_of(socket: RawSocket) -> str:
    """The message of the error event that comes next."""
    opcode, payload = await socket.next()
    assert opcode == TEXT
    return str(json.loads(payload)["error"]["message"])


BREACHES = (
    ("binary", [frame(BINARY, b"{}")], 1003),
    ("no UTF-8", [frame(TEXT, b"\xff\xfe")], 1007),
    ("split UTF-8", [frame(TEXT, b"\xc3", fin=False), frame(0, b"(")], 1007),
    ("no mask", [frame(TEXT, b"{}", mask=False)], 1002),
    ("opcode", [frame(3, b"{}")], 1002),
    ("compressed", [frame(TEXT, b"{}", rsv1=True)], 1002),
    ("continuation", [frame(0, b"{}")], 1002),
    ("new message", [frame(TEXT, b"{", fin=False), frame(TEXT, b"}")], 1002),
    ("large ping", [frame(PING, b"x" * 126)], 1002),
    ("cut ping", [frame(PING, b"x", fin=False)], 1002),
    ("close of one byte", [frame(CLOSE, b"\x03")], 1002),
    ("close with 999", [frame(CLOSE, b"\x03\xe7")], 1002),
)


async def test_breaches_of_the_protocol_are_answered_with_their_code() -> None:
    """The client reads why, then the end of the connection; what it sends behind that harms nobody."""
    async with serving() as proxy:
        for name, frames, code in BREACHES:
            with trio.fail_after(FAIL_S):
                async with raw_socket(proxy) as socket:
                    assert socket.reply.status == 101
                    await socket.send(*frames, frame(TEXT, create()))
                    assert ((await socket.closed())[0], name) == (code, name)
                    assert isinstance(socket.wire.stream, trio.SocketStream)
                    await socket.wire.stream.send_eof()
                    assert await socket.wire.rest() == b""
                await settled(proxy)
        assert proxy.mock.total_requests == 0


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_message_beyond_the_limit_is_too_big(pieces: int) -> None:
    """1009, which the client gets to see although it is still writing; in one frame or in several."""
    payload = create(instructions="x" * (4 << 20))
    async with serving(extra=SMALL) as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy) as socket:
                step = -(-len(payload) // pieces)
                for number in range(pieces):
                    part = payload[number * step : (number + 1) * step]
                    await socket.send(frame(0 if number else TEXT, part, fin=number == pieces - 1))
                code, reason = await socket.closed()
                assert (code, "262144 bytes (limits.body-bytes)" in reason) == (1009, True)
            await settled(proxy)
        assert proxy.mock.total_requests == 0


async def test_a_message_at_the_limit_is_served() -> None:
    """To the byte."""
    async with serving(extra=SMALL) as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy) as socket:
                await socket.send(frame(TEXT, b"x" * 262144))
                assert "expected one JSON object" in await error_of(socket)
                await socket.send(frame(TEXT, b"x" * 262145))
                assert (await socket.closed())[0] == 1009


async def test_bombs_are_not_unpacked() -> None:
    """16 MiB in some KiB: refused by their ratio, long before the limit of a message."""
    async with serving() as proxy:
        for text in (b"x" * (16 << 20), b"[" + b"0," * (8 << 20)):
            bomb = deflated(text)
            assert len(bomb) < len(text) // 500
            with trio.fail_after(FAIL_S):
                async with raw_socket(proxy, DEFLATE) as socket:
                    assert "permessage-deflate" in socket.reply.headers["sec-websocket-extensions"]
                    await socket.send(frame(TEXT, bomb, rsv1=True))
                    code, reason = await socket.closed()
                    assert (code, "200 times" in reason) == (1009, True)
                await settled(proxy)


async def test_compressed_messages_are_read_with_pings_between_their_frames() -> None:
    """Also in several frames, and with what came before as the dictionary."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, DEFLATE) as socket:
                for _ in range(2):
                    packed = (packer.compress(create(type="no such type")) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
                    await socket.send(
                        frame(TEXT, packed[:10], fin=False, rsv1=True),
                        frame(PING, b"there?"),
                        frame(0, packed[10:20], fin=False),
                        frame(PING),
                        frame(0, packed[20:]),
                    )
                    found = [await socket.next() for _ in range(3)]
                    assert [payload for opcode, payload in found if opcode == PONG] == [b"there?", b""]
                    [answer] = [payload for opcode, payload in found if opcode == TEXT]
                    assert b"got no such type" in answer
                await socket.send(frame(TEXT, b"plain"))
                assert "expected one JSON object" in await error_of(socket)
                await socket.send(frame(TEXT, b"\xff\xff\xff garbage", rsv1=True))
                assert (await socket.closed())[0] == 1007


async def test_offers_that_cannot_be_met_are_declined() -> None:
    """The connection goes on without."""
    offers = (
        "permessage-deflate; client_max_window_bits=many",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=99",
        "x-webkit-deflate-frame",
        ";;,;=",
    )
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for offer in offers:
                async with raw_socket(proxy, f"sec-websocket-extensions: {offer}") as socket:
                    assert socket.reply.status == 101
                    assert "sec-websocket-extensions" not in socket.reply.headers
                    await socket.send(frame(TEXT, b"{}"))
                    assert "type: expected response.create" in await error_of(socket)


async def test_messages_ahead_of_their_answers_are_bounded() -> None:
    """A client that asks and asks is sent away, and what runs for it ends."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, "x-mock-first-byte: 600000") as socket:
                await socket.send(frame(TEXT, create()))
                await proxy.mock.wait_requests(1)
                await socket.send(*[frame(TEXT, create())] * MAX_WAITING)
                await socket.send(frame(PING))
                assert await socket.next() == (PONG, b"")  # nothing has happened yet
                await socket.send(frame(TEXT, create()))
                code, reason = await socket.closed()
                assert (code, f"at most {MAX_WAITING}" in reason) == (1008, True)
                await proxy.mock.requests[0].wait_closed_by_client()
            await settled(proxy)
        assert proxy.mock.total_requests == 1


async def test_bytes_ahead_of_their_answers_are_bounded() -> None:
    """All that waits together is at most as large as one message may be."""
    async with serving(extra=SMALL) as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, "x-mock-first-byte: 600000") as socket:
                await socket.send(frame(TEXT, create()))
                await proxy.mock.wait_requests(1)
                for _ in range(2):
                    await socket.send(frame(TEXT, create(instructions=noise(150_000).decode())))
                assert (await socket.closed())[0] == 1008
            await settled(proxy)


async def test_thousands_of_empty_frames_keep_nobody_waiting() -> None:
    """They cost the parser's time; others are served in between, and the message is served in the end."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy) as socket, raw_socket(proxy) as other:
                flood = frame(TEXT, b"{", fin=False) + frame(0, b"", fin=False) * 20_000
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(socket.send, flood)
                    await other.send(frame(TEXT, b"{}"))
                    assert "type: expected" in await error_of(other)
                await socket.send(frame(0, b"}"))
                assert "type: expected" in await error_of(socket)


async def test_a_close_is_answered_with_the_same_code() -> None:
    """And then the server ends the connection."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for code in (1000, 1001, 3000, 4999):
                async with raw_socket(proxy) as socket:
                    await socket.send(frame(CLOSE, code.to_bytes(2, "big") + b"bye"))
                    assert (await socket.closed())[0] == code
                    assert await socket.wire.rest() == b""
                await settled(proxy)


async def test_frames_before_the_handshake_is_answered_leave_nothing_behind() -> None:
    """Whether they are too early depends on the moment; the connection is served or refused, and ends."""
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy, behind=frame(TEXT, b"{}")) as socket:
                assert socket.reply.status in (101, 400)
            async with connect(proxy.url) as wire:  # and one that never sends its frames
                await wire.send(head("GET", "/v1/responses", headers=UPGRADE))
            await settled(proxy)


async def test_broken_handshakes_are_bad_requests() -> None:
    """By Hypercorn's parser; the connection ends."""
    old = (*UPGRADE[:2], UPGRADE[3], "sec-websocket-version: 8")
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for headers in (UPGRADE[:3], old, UPGRADE[:2]):
                async with connect(proxy.url) as wire:
                    await wire.send(head("GET", "/v1/responses", headers=headers))
                    assert (await wire.reply()).status == 400
                    assert await wire.rest() == b""
                await settled(proxy)


async def test_half_a_frame_and_a_reset_leave_nothing_behind() -> None:
    """At any point of a frame."""
    whole = frame(TEXT, create())
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            for cut in (1, 3, 6, 20, len(whole) - 1):
                async with raw_socket(proxy) as socket:
                    await socket.send(whole[:cut])
            await settled(proxy)
        assert proxy.mock.total_requests == 0


async def test_the_server_ends_also_for_those_who_do_not_answer_its_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment."""
    monkeypatch.setattr("cpa.server.websocket_frames.LINGER_S", 0.05)
    async with serving() as proxy:
        with trio.fail_after(FAIL_S):
            async with raw_socket(proxy) as socket:
                await socket.send(frame(BINARY))
                assert (await socket.closed())[0] == 1003
                with pytest.raises((Hangup, trio.BrokenResourceError)):
                    await socket.next()
            await settled(proxy)


# --- decompression ---------------------------------------------------------------------------------------------------


def unpacked(packed: bytes, limits: LimitsConfig, *, step: int) -> bytes | int:
    """The message in *packed*, received in pieces of *step*, or the code of its refusal."""
    inflate = Inflate(limits)
    inflate.accept("permessage-deflate")
    frames = Frames(ConnectionType.SERVER, [inflate])
    wire, text = frame(TEXT, packed, rsv1=True), ""
    for start in range(0, len(wire), step):
        frames.receive_data(wire[start : start + step])
        for event in frames.events():
            if isinstance(event, CloseConnection):
                return int(event.code)
            assert isinstance(event, TextMessage)
            text += event.data
    return text.encode()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=2000).map(lambda data: data.hex().encode() * 3), st.integers(1, 500))
def test_any_cut_of_a_compressed_message_gives_the_message(text: bytes, step: int) -> None:
    """Bounds do not show where there is room."""
    limits = LimitsConfig(body_bytes=max(len(text), 1))
    assert unpacked(deflated(text), limits, step=step) == text
    if len(text) > 1:
        assert unpacked(deflated(text), LimitsConfig(body_bytes=len(text) - 1), step=step) == 1009


@pytest.mark.parametrize("size_bytes", [1 << 20, (1 << 20) + 1000])
def test_the_ratio_counts_from_a_mebibyte_on(size_bytes: int) -> None:
    """Whatever is smaller may be as regular as it likes."""
    found = unpacked(deflated(b"a" * size_bytes), LimitsConfig(), step=1 << 16)
    assert found == (b"a" * size_bytes if size_bytes == 1 << 20 else 1009)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_decompressor(data: bytes) -> None:
    """They are text, or refused with a code."""
    found = unpacked(data, LimitsConfig(body_bytes=1000), step=64)
    assert isinstance(found, bytes) or found in (1002, 1007, 1009)


def test_answers_are_not_compressed() -> None:
    """Agreed or not."""
    inflate = Inflate(LimitsConfig())
    inflate.accept("permessage-deflate")
    frames = Frames(ConnectionType.SERVER, [inflate])
    assert frames.send(TextMessage(data="text")) == b"\x81\x04text"
    assert isinstance(inflate, PerMessageDeflate)
