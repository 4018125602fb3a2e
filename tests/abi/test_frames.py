"""Frames: values to bytes and back, however the bytes arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpa.abi import frames
from cpa.abi.frames import Frame, FrameDecoder, FrameError, Kind
from tests.abi.support import feed

LIMIT = 200_000
Draft = tuple[Kind, int, int, bytes, bytes, int]
"""Kind, id, status, method, body, and how often the body is repeated: large frames with a small description."""

DRAFTS = st.lists(
    st.tuples(
        st.sampled_from(Kind),
        st.integers(0, 2**64 - 1),
        st.integers(-(2**31), 2**31 - 1),
        st.binary(max_size=255),
        st.binary(max_size=300),
        st.sampled_from([1, 1, 1, 220, 440]),
    ),
    max_size=4,
)


def make(draft: Draft) -> Frame:
    """The frame that is described."""
    kind, number, status, method, body, times = draft
    return Frame(kind, number, status, method, body * times)


def encode(frame: Frame) -> bytes:
    """A frame on the wire."""
    kind = Kind(frame.kind)
    head = frames.header(kind, id=frame.id, status=frame.status, method=frame.method, body_len=len(frame.body))
    return head + frame.method + frame.body


def test_the_header_is_fixed() -> None:
    """worker.c reads the same 24 bytes."""
    head = frames.header(Kind.CALL, id=0x0102030405060708, status=-2, method=b"abc", body_len=5)
    assert head == bytes.fromhex("04 01 0300 feffffff 0807060504030201 0500000000000000")


def test_the_hello_is_fixed() -> None:
    """As worker.c reads it; a path may hold any byte but NUL."""
    data = frames.hello(plugin_id="p", path="/\udcff.so", max_body=1, max_calls=2, parent_pid=3, eof_grace_ms=4)
    assert data[24:] == b"p" + bytes.fromhex("0100000000000000 02000000 03000000 04000000 00000000") + b"/\xff.so"


@given(DRAFTS, st.lists(st.integers(1, 100_000) | st.integers(1, 30), min_size=1, max_size=20))
def test_any_split_gives_the_same_frames(drafts: list[Draft], cuts: list[int]) -> None:
    """Also cuts inside headers, names and bodies."""
    expected = [make(draft) for draft in drafts]
    data = b"".join(map(encode, expected))
    got: list[Frame] = []
    decoder, at, turn = FrameDecoder(max_body=LIMIT), 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        got += feed(decoder, data[at : at + size])
        at += size
        turn += 1
    assert got == expected


def test_a_large_frame_gets_its_buffer_and_a_small_one_is_kept() -> None:
    """Memory of a frame that was exceptionally large goes back."""
    decoder = FrameDecoder(max_body=10 * frames.KEPT_BYTES)
    for size, kept in [
        (10, frames.RECEIVE_BYTES),
        (300_000, 300_024),
        (10, 300_024),
        (1_000_000, frames.RECEIVE_BYTES),
    ]:
        frame = Frame(Kind.REPLY, 1, 0, b"", bytes(size))
        data = encode(frame)
        assert list(feed(decoder, data[:24])) == []
        assert len(decoder.space) >= size
        assert list(feed(decoder, data[24:])) == [frame]
        assert len(decoder.space) == kept


def test_byte_by_byte() -> None:
    """The slowest sender."""
    frame = Frame(Kind.REPLY, 7, 1, b"", b"body")
    decoder = FrameDecoder(max_body=LIMIT)
    got = [frame for byte in encode(frame) for frame in feed(decoder, bytes([byte]))]
    assert got == [frame]


@pytest.mark.parametrize(
    ("version", "method_len", "body_len"), [(0, 0, 0), (2, 0, 0), (1, 256, 0), (1, 0, LIMIT + 1), (1, 0, 2**64 - 1)]
)
def test_a_frame_against_the_rules_is_an_error(version: int, method_len: int, body_len: int) -> None:
    """Seen in the header, before anything is collected; frames before it have been given out."""
    good = Frame(Kind.REPLY, 1, 0, b"", b"x")
    data = encode(good) + frames.HEADER.pack(Kind.REPLY, version, method_len, 0, 1, body_len)
    got = feed(FrameDecoder(max_body=LIMIT), data)
    assert next(got) == good
    with pytest.raises(FrameError):
        next(got)


@given(st.binary(max_size=400))
def test_any_bytes_give_frames_or_the_error(data: bytes) -> None:
    """Nothing else comes out of a confused worker."""
    decoder = FrameDecoder(max_body=64)
    try:
        got = list(feed(decoder, data))
    except FrameError:
        return
    assert sum(24 + len(frame.method) + len(frame.body) for frame in got) <= len(data)
