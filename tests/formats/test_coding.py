"""Content codings undone: any split of the input, every truncation, and bombs under bounded memory."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from time import process_time

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cpa.formats.coding import (
    MAX_CODINGS,
    PIECE_BYTES,
    RATIO_FLOOR_BYTES,
    CodingError,
    DecodedTooLarge,
    Decoder,
    codings,
)

MIB = 1 << 20
TEXT = ('{"model":"gpt","messages":[{"role":"user","content":"' + "Grüße, 世界! " * 40 + '"}]}').encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def zstd_stream(data: bytes) -> bytes:
    """As clients that stream send it: no content size in the header, several blocks, a checksum."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    half = len(data) // 2
    parts = [packer.compress(data[:half]), packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*parts, packer.compress(data[half:]), packer.flush()])


PACK: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", lambda data: gzip.compress(data, mtime=0)),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd stream": ("zstd", zstd_stream),
}
each_coding = pytest.mark.parametrize("kind", PACK)


def decode(names: Sequence[str], pieces: Iterable[bytes], *, max_bytes: int = 64 * MIB, max_ratio: int = 0) -> bytes:
    decoder = Decoder(names, max_bytes=max_bytes, max_ratio=max_ratio)
    return b"".join([*(decoder.feed(piece) for piece in pieces), decoder.finish()])


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@each_coding
def test_whole_and_byte_by_byte_are_the_same(kind: str) -> None:
    """Network pieces have nothing to do with the coding's own units."""
    name, pack = PACK[kind]
    assert decode([name], [pack(TEXT)]) == TEXT
    assert decode([name], bytewise(pack(TEXT))) == TEXT


@each_coding
@given(body=st.binary(max_size=5000), places=st.lists(st.integers(0, 1 << 20), max_size=6))
def test_any_body_in_any_split_comes_out(kind: str, body: bytes, places: list[int]) -> None:
    """The general form of the test above, with bodies that do not compress."""
    name, pack = PACK[kind]
    assert decode([name], cut(pack(body), places)) == body


@each_coding
@pytest.mark.parametrize("size_bytes", [PIECE_BYTES, PIECE_BYTES + 1, PIECE_BYTES * 2, PIECE_BYTES * 3 + 77])
def test_nothing_is_held_back_when_output_fills_whole_pieces(kind: str, size_bytes: int) -> None:
    """Decoders keep output when the piece is full and the input used up; it has to be asked for."""
    name, pack = PACK[kind]
    body = bytes(size_bytes)
    packed = pack(body)
    assert decode([name], [packed]) == body
    assert decode([name], bytewise(packed)) == body


@each_coding
def test_every_truncation_is_an_error(kind: str) -> None:
    """Half a request must never be taken for a whole one, even if what there is of it happens to parse."""
    name, pack = PACK[kind]
    packed = pack(TEXT)
    for end in range(len(packed)):
        with pytest.raises(CodingError):
            decode([name], [packed[:end]])
        with pytest.raises(CodingError):
            decode([name], cut(packed[:end], [end - 1, end - 2, 5]))


@each_coding
@given(garbage=st.binary(min_size=1, max_size=300))
def test_any_bytes_decode_or_are_a_coding_error(kind: str, garbage: bytes) -> None:
    """No other exception may come out of hostile input."""
    name, _ = PACK[kind]
    with suppress(CodingError, DecodedTooLarge):
        decode([name], [garbage], max_bytes=MIB)


@pytest.mark.parametrize("kind", ["gzip", "deflate", "raw deflate", "br"])
def test_data_behind_the_end_is_an_error(kind: str) -> None:
    """What follows is not part of the body, and whoever put it there meant something else."""
    name, pack = PACK[kind]
    with pytest.raises(CodingError):
        decode([name], [pack(TEXT) + b"more"])
    with pytest.raises(CodingError):
        decode([name], [pack(TEXT), b"more"])


def test_several_zstd_frames_are_one_body() -> None:
    """The format allows it, and parallel compressors write it."""
    pack = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    packed = pack(TEXT[:100]) + skippable + pack(TEXT[100:])
    assert decode(["zstd"], [packed]) == TEXT
    assert decode(["zstd"], bytewise(packed)) == TEXT


def test_codings_are_undone_in_reverse_order() -> None:
    """The header lists them in the order in which they were applied."""
    packed = zlib.compress(zstandard.ZstdCompressor().compress(gzip.compress(TEXT)))
    assert decode(["gzip", "zstd", "deflate"], [packed]) == TEXT
    assert decode(["gzip", "zstd", "deflate"], bytewise(packed)) == TEXT


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ()),
        ("identity", ()),
        (" GZip ,, identity, ZSTD ", ("gzip", "zstd")),
        ("x-gzip", ("x-gzip",)),
    ],
)
def test_header_is_read_case_insensitively_without_identity(header: str, expected: tuple[str, ...]) -> None:
    """`identity` says nothing, blanks and capitals neither."""
    assert codings(header) == expected


def test_unknown_and_too_many_codings_are_refused() -> None:
    """A stack of codings costs a pass each."""
    with pytest.raises(CodingError, match="compress"):
        Decoder(["compress"], max_bytes=1)
    Decoder(["gzip"] * MAX_CODINGS, max_bytes=1)
    with pytest.raises(CodingError, match=str(MAX_CODINGS)):
        Decoder(["gzip"] * (MAX_CODINGS + 1), max_bytes=1)


def test_zstd_windows_beyond_the_mandatory_one_are_refused() -> None:
    """The window is memory that a header of six bytes would make us allocate."""
    params = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=params).compressobj()
    with pytest.raises(CodingError):
        decode(["zstd"], [packer.compress(TEXT) + packer.flush()])


@each_coding
def test_size_limit_is_exact(kind: str) -> None:
    """A body of exactly the limit passes, one byte more does not."""
    name, pack = PACK[kind]
    assert decode([name], [pack(TEXT)], max_bytes=len(TEXT)) == TEXT
    with pytest.raises(DecodedTooLarge):
        decode([name], [pack(TEXT)], max_bytes=len(TEXT) - 1)


@each_coding
def test_ratio_counts_only_past_the_floor(kind: str) -> None:
    """Short bodies of repeated text are honest; a million of zeros in a hundred bytes is not."""
    name, pack = PACK[kind]
    assert decode([name], [pack(bytes(RATIO_FLOOR_BYTES))], max_ratio=2) == bytes(RATIO_FLOOR_BYTES)
    with pytest.raises(DecodedTooLarge):
        decode([name], [pack(bytes(RATIO_FLOOR_BYTES * 2))], max_ratio=2)


@each_coding
def test_bombs_cost_little_memory_and_time(kind: str) -> None:
    """A bomb is noticed at the first piece too much, not when it has gone off."""
    name, pack = PACK[kind]
    bomb = pack(bytes(64 * MIB))
    decoder = Decoder([name], max_bytes=2 * MIB)
    started = process_time()
    tracemalloc.start()
    try:
        with pytest.raises(DecodedTooLarge):
            decoder.feed(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * MIB
    assert process_time() - started < 2


@pytest.mark.parametrize("kind", ["zstd", "br", "gzip"])
def test_bombs_that_decode_to_nothing_are_caught_on_the_way(kind: str) -> None:
    """A gzip header's file name may be endless: stacked under another coding it costs time and yields no output."""
    name, pack = PACK[kind]
    endless_name = b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (64 * MIB)
    bomb = pack(endless_name)
    started = process_time()
    with pytest.raises(DecodedTooLarge):
        Decoder(["gzip", name], max_bytes=2 * MIB).feed(bomb)
    with pytest.raises(DecodedTooLarge):
        Decoder(["gzip", name], max_bytes=256 * MIB, max_ratio=50).feed(bomb)
    assert process_time() - started < 2
