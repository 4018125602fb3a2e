"""Frames of a Responses stream: an ``event:`` line, a ``data:`` line, numbers without a gap (translation 4.8)."""

from typing import Final

from cpa.formats.json import encode
from cpa.jsontypes import JsonObject, JsonValue

_END: Final = b"}\n\n"


class Frames:
    """Numbers the events of one stream, from 0."""

    __slots__ = ("next_number",)

    def __init__(self) -> None:
        self.next_number = 0

    def event(self, kind: str, **members: JsonValue) -> bytes:
        """One event of *kind*."""
        data: JsonObject = {"type": kind, "sequence_number": self.next_number, **members}
        self.next_number += 1
        return b"event: " + kind.encode() + b"\ndata: " + encode(data) + b"\n\n"


class DeltaFrames:
    """Events that differ in their text only: the hot path of a stream (0.6), about 2 µs each."""

    __slots__ = ("_after", "_before", "_frames", "_head")

    def __init__(self, frames: Frames, kind: str, where: JsonObject, *, after: bytes = b"") -> None:
        """*where*: members that say which item and part. *after*: JSON members behind the text, with their comma."""
        self._frames = frames
        name = kind.encode()
        self._head = b"event: " + name + b'\ndata: {"type":"' + name + b'","sequence_number":'
        self._before = b"," + encode(where)[1:-1] + b',"delta":'
        self._after = after + _END

    def write(self, text: str, *, after: bytes = b"") -> bytes:
        """The next event. *after*: what stands behind this text instead of what stands behind all others."""
        number = self._frames.next_number
        self._frames.next_number = number + 1
        end = after + _END if after else self._after
        return b"".join((self._head, b"%d" % number, self._before, encode(text), end))
