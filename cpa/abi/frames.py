"""Frames between the proxy and a plugin's worker process: bytes to values and back, without I/O.

A stream of frames in both directions over one Unix stream socket, all integers little-endian::

    offset 0   u8   kind
           1   u8   version, 1
           2   u16  length of the method name, at most 255
           4   i32  status
           8   u64  id
          16   u64  length of the body, at most the limit that the hello names
          24        method name (UTF-8, no NUL), then the body

    kind        direction  id           status            method       body
    HELLO    1  to worker                                 plugin id    u64 largest body in bytes, u32 calls that may
                                                                       run at once, u32 process id of the proxy, u32
                                                                       grace after an end of stream in ms, u32 0,
                                                                       path of the library (absolute, rest)
    READY    2  to host    process id   ABI version
    FAILED   3  to host                 LoadFailure                    text for people
    CALL     4  to worker  of the host                    of the call  request
    REPLY    5  to host    of the call  plugin's result                reply
    REFUSED  6  to host    of the call  Refusal                        size in bytes (decimal), or a reason
    HOST_CALL 7 to host    of the worker                  of the call  request
    HOST_REPLY 8 to worker of the call  0 or 1                         answer, empty with 1
    SHUTDOWN 9  to worker               grace in ms
    BYE     10  to host                                                the plugin's shutdown() has returned

One HELLO comes first and is answered by READY or FAILED; before that only HOST_CALL and HOST_REPLY may pass. Replies
come in any order. A side that sees a rule broken ends the connection: the worker exits with a message, the host kills
it.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

import attrs

HEADER = struct.Struct("<BBHiQQ")
HELLO = struct.Struct("<QIIII")
VERSION = 1

MAX_METHOD_BYTES = 255
"""Method names of the contract have at most 35 bytes; the header of the contract promises plugin authors 255."""

MAX_BODY_BYTES = 2**31 - 1
"""Go plugins cut lengths to 32 bits with a sign (plugin-abi 9.2)."""

RECEIVE_BYTES = 64 * 1024
"""One receive call, unless the rest of a body is longer; almost all frames fit."""

KEPT_BYTES = 512 * 1024
"""Of a buffer for the next large frame: what agents send (about 300 KB) passes without new memory, and twenty plugins
keep 10 MB at most."""


class Kind(IntEnum):
    """See the table above."""

    HELLO = 1
    READY = 2
    FAILED = 3
    CALL = 4
    REPLY = 5
    REFUSED = 6
    HOST_CALL = 7
    HOST_REPLY = 8
    SHUTDOWN = 9
    BYE = 10


class LoadFailure(IntEnum):
    """Which check of plugin-abi 1.9 failed; the numbers are those of `enum cpa_load_result` in shim.h."""

    NOT_OPENED = 1
    NO_ENTRY = 2
    INIT_FAILED = 3
    ABI_MISMATCH = 4
    TABLE_INCOMPLETE = 5


class Refusal(IntEnum):
    """Why a call got no reply of the plugin."""

    CLOSED = 1
    TOO_LARGE = 2
    NO_THREAD = 3


class FrameError(Exception):
    """The other side broke a rule of the framing."""


@attrs.define(slots=True)
class Frame:
    """One frame; not frozen because freezing triples the cost of the commonest object of the plugin path."""

    kind: int
    id: int
    status: int
    method: bytes
    body: bytes = attrs.field(repr=False)  # large, and full of secrets


def header(kind: Kind, *, id: int = 0, status: int = 0, method: bytes = b"", body_len: int = 0) -> bytes:
    """The 24 bytes before method and body. Sizes are the caller's business."""
    return HEADER.pack(kind, VERSION, len(method), status, id, body_len)


def hello(*, plugin_id: str, path: str, max_body: int, max_calls: int, parent_pid: int, eof_grace_ms: int) -> bytes:
    """The whole first frame."""
    method = plugin_id.encode()
    body = HELLO.pack(max_body, max_calls, parent_pid, eof_grace_ms, 0) + path.encode("utf-8", "surrogateescape")
    return header(Kind.HELLO, method=method, body_len=len(body)) + method + body


class FrameDecoder:
    """Bytes as they come to frames.

    The receiver writes into `space` and says how much by `received`. One buffer takes everything, grown to the frame
    that is coming and kept while it is not larger than `KEPT_BYTES`: a frame costs one copy and the memory of its body,
    where joining received pieces costs twice that, and fresh large blocks cost more (page faults) than the copying.
    """

    def __init__(self, *, max_body: int) -> None:
        self._max_body = max_body
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._start = 0  # of what has not been given out
        self._end = 0  # of what was received

    @property
    def space(self) -> memoryview:
        """Where the next receive call shall write; never empty."""
        return self._buffer[self._end :]

    def received(self, size: int) -> Iterator[Frame]:
        """*size* bytes are in `space`: give the frames that are complete now; must be exhausted. Raises: FrameError."""
        self._end += size
        need = HEADER.size
        while self._end - self._start >= need:
            kind, version, method_len, status, frame_id, body_len = HEADER.unpack_from(self._buffer, self._start)
            if version != VERSION or method_len > MAX_METHOD_BYTES or body_len > self._max_body:
                raise FrameError(f"kind {kind}, version {version}, method of {method_len}, body of {body_len} bytes")
            method_at = self._start + HEADER.size
            body_at = method_at + method_len
            after = body_at + body_len
            if after > self._end:
                need = after - self._start
                break
            self._start = after
            method = bytes(self._buffer[method_at:body_at])
            yield Frame(kind, frame_id, status, method, bytes(self._buffer[body_at:after]))
        self._make_room(need)

    def _make_room(self, need: int) -> None:
        """Let the rest, a frame of at least *need* bytes, begin at the start of a buffer that holds it."""
        rest = self._end - self._start
        size = max(need, RECEIVE_BYTES)
        if len(self._buffer) < size or (len(self._buffer) > max(size, KEPT_BYTES)):
            old, self._buffer = self._buffer, memoryview(bytearray(size))
            self._buffer[:rest] = old[self._start : self._end]
        elif self._start and rest:
            self._buffer[:rest] = self._buffer[self._start : self._end]  # memmove: they may overlap
        self._start, self._end = 0, rest
