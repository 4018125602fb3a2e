"""Content codings undone piece by piece, under limits.

Sizes are checked while the output appears, never after it: 64 KiB of zstd may stand for gigabytes, so every decoder
hands over at most `PIECE_BYTES` at a time and stops at the first piece too much.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import brotli
import zstandard

PIECE_BYTES = 128 << 10
"""Largest single output of a decoder; zstd's own block size."""
RATIO_FLOOR_BYTES = 1 << 20
"""Below this much output a high ratio harms nobody: short bodies of repeated text are honest."""
MAX_WINDOW_BYTES = 8 << 20
"""The window that every zstd decoder must support (RFC 9659); larger ones are refused, they are memory."""
MAX_CODINGS = 4
"""Nobody stacks more; each one costs a pass."""
ZLIB_HEADER_BYTES = 2
PROBE = b"end of the frame before this one"
PROBE_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress(PROBE)

Emit = Callable[[bytes], None]


class CodingError(ValueError):
    """Unknown coding, corrupt or truncated data."""


class DecodedTooLarge(ValueError):
    """The limits do not allow what this body decodes to."""


class Step(Protocol):
    """One coding undone."""

    def feed(self, data: bytes, emit: Emit) -> None:
        """Decode *data*; *emit* gets non-empty pieces. Raises: CodingError."""

    def finish(self, emit: Emit) -> None:
        """There is no more data. Raises: CodingError when there should be."""


class ZlibStep:
    """``gzip`` and ``deflate``; the latter also without the zlib wrapper, as some senders have it."""

    def __init__(self, *, wbits: int, raw_allowed: bool = False) -> None:
        self._inner = zlib.decompressobj(wbits)
        self._guessing = raw_allowed
        self._head = b""

    def feed(self, data: bytes, emit: Emit) -> None:
        """See `Step`."""
        if self._guessing:
            data = self._head + data
            if len(data) < ZLIB_HEADER_BYTES:
                self._head = data
                return
            self._guessing, self._head = False, b""
            if not is_zlib(data):
                self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            self._decode(data, emit)
        except zlib.error as exc:
            raise CodingError(str(exc)) from exc

    def _decode(self, data: bytes, emit: Emit) -> None:
        full = False
        while data or full:
            if self._inner.eof:
                raise CodingError("data after the end of the compressed body")
            piece = self._inner.decompress(data, PIECE_BYTES)
            data = self._inner.unconsumed_tail or self._inner.unused_data
            # A full piece may have more behind it although the input is used up.
            full = len(piece) == PIECE_BYTES and not self._inner.eof
            if piece:
                emit(piece)

    def finish(self, emit: Emit) -> None:
        """See `Step`."""
        if not self._inner.eof:
            raise CodingError("compressed body ends early")


def is_zlib(data: bytes) -> bool:
    """Whether *data* begins with a zlib header: method deflate, and the check bits add up (RFC 1950)."""
    return data[0] & 0x0F == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0


class BrotliStep:
    """``br``."""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    def feed(self, data: bytes, emit: Emit) -> None:
        """See `Step`. There is more output as long as some comes: the library's own sign of it is not to be trusted."""
        try:
            piece = self._inner.process(data, output_buffer_limit=PIECE_BYTES)
            while piece:
                emit(piece)
                if self._inner.is_finished():
                    return
                piece = self._inner.process(b"", output_buffer_limit=PIECE_BYTES)
        except brotli.error as exc:
            raise CodingError(str(exc)) from exc

    def finish(self, emit: Emit) -> None:
        """See `Step`."""
        if not self._inner.is_finished():
            raise CodingError("compressed body ends early")


class _Writer:
    """What zstandard writes to; passes its pieces on."""

    def __init__(self) -> None:
        self.emit: Emit = lambda piece: None

    def write(self, data: bytes) -> int:
        self.emit(bytes(data))
        return len(data)


class ZstdStep:
    """``zstd``, one frame or several."""

    def __init__(self) -> None:
        self._writer = _Writer()
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._inner = decompressor.stream_writer(self._writer, write_size=PIECE_BYTES, closefd=False)  # type: ignore[arg-type]
        self._fed = False

    def feed(self, data: bytes, emit: Emit) -> None:
        """See `Step`."""
        self._fed = self._fed or bool(data)
        self._writer.emit = emit
        try:
            self._inner.write(data)
        except zstandard.ZstdError as exc:
            raise CodingError(str(exc)) from exc

    def finish(self, emit: Emit) -> None:
        """The library does not tell whether a frame is complete, but only then another one can follow: try one."""
        seen: list[bytes] = []
        if self._fed:
            # In two parts: a frame in one part is decoded as such even where the end of a header is due.
            self.feed(PROBE_FRAME[:1], seen.append)
            self.feed(PROBE_FRAME[1:], seen.append)
        if b"".join(seen) != PROBE:
            raise CodingError("compressed body ends early")


STEPS: dict[str, Callable[[], Step]] = {
    "gzip": lambda: ZlibStep(wbits=16 + zlib.MAX_WBITS),
    "x-gzip": lambda: ZlibStep(wbits=16 + zlib.MAX_WBITS),
    "deflate": lambda: ZlibStep(wbits=zlib.MAX_WBITS, raw_allowed=True),
    "br": BrotliStep,
    "zstd": ZstdStep,
}


def codings(header: str) -> tuple[str, ...]:
    """Names in a ``Content-Encoding`` value, in the order in which they were applied, without ``identity``."""
    names = (name.strip().lower() for name in header.split(","))
    return tuple(name for name in names if name not in ("", "identity"))


class Decoder:
    """Undoes *names* (as `codings` gives them), last one first.

    Raises from `feed` and `finish`: CodingError; DecodedTooLarge beyond *max_bytes*, or beyond *max_ratio* times the
    input once the output passes `RATIO_FLOOR_BYTES` (0 = no ratio).

    *whole_bytes*: size of the whole input where that is known: the ratio is one of the body, not of its beginning.
    """

    def __init__(self, names: Sequence[str], *, max_bytes: int, max_ratio: int = 0, whole_bytes: int = 0) -> None:
        if len(names) > MAX_CODINGS:
            raise CodingError(f"more than {MAX_CODINGS} content codings")
        unknown = [name for name in names if name not in STEPS]
        if unknown:
            raise CodingError(f"unknown content coding {unknown[0]!r}")
        self._steps = [STEPS[name]() for name in reversed(names)]
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._whole_bytes = whole_bytes
        self._in_bytes = 0
        self._out_bytes = [0] * len(self._steps)
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What *data* adds to the decoded body."""
        self._in_bytes += len(data)
        self._push(0, data)
        return self._take()

    def finish(self) -> bytes:
        """What the end of the data adds."""
        for index, step in enumerate(self._steps):
            step.finish(self._emitter(index))
        return self._take()

    def _push(self, index: int, data: bytes) -> None:
        if index == len(self._steps):
            self._out.append(data)
        else:
            self._steps[index].feed(data, self._emitter(index))

    def _emitter(self, index: int) -> Emit:
        """Takes what step *index* puts out. Each step's output is limited: an inner coding may swallow any amount."""

        def emit(piece: bytes) -> None:
            self._out_bytes[index] += len(piece)
            self._check(self._out_bytes[index])
            self._push(index + 1, piece)

        return emit

    def _check(self, out_bytes: int) -> None:
        if out_bytes > self._max_bytes:
            raise DecodedTooLarge(f"decoded body is larger than {self._max_bytes} bytes")
        in_bytes = max(self._in_bytes, self._whole_bytes)
        if self._max_ratio and out_bytes > RATIO_FLOOR_BYTES and out_bytes > in_bytes * self._max_ratio:
            raise DecodedTooLarge(f"decoded body is more than {self._max_ratio} times the size that was sent")

    def _take(self) -> bytes:
        joined = b"".join(self._out)
        self._out.clear()
        return joined
