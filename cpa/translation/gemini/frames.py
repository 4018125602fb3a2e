"""Where the parts of an answer go: into frames of a stream, or into one body (translation 4.9)."""

from typing import Any, Final, Protocol

from cpa.formats.errors import WireError, error_object
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.formats.streams import error_frames
from cpa.translation.ir import Raw, TokenProb
from cpa.translation.logprobs import write_gemini

ARRAY_END: Final = b"]"
"""What a stream as a JSON array ends with."""
_EMPTY_PART: Final = b'{"text":""}'
_COMMA: Final = b","
_LOGPROBS: Final = "logprobsResult"


class Sink(Protocol):
    """Where parts go."""

    def begin(self, envelope: bytes) -> None:
        """The answer begins; *envelope* are members that each frame has."""
        ...

    def text(self, choice: int, text: str, *, thought: bool, probs: tuple[TokenProb, ...] = ()) -> bytes:
        """Some text. *probs*: of its tokens."""
        ...

    def part(self, choice: int, part: Raw) -> bytes:
        """A part as it is."""
        ...

    def last(self, endings: dict[int, bytes], members: bytes) -> bytes:
        """The end: members of each candidate and of the whole."""
        ...


class Frames:
    """Each part in a frame of its own: an event, or an element of an array."""

    def __init__(self, *, array: bool = False) -> None:
        before, after = (b"", b"") if array else (b"data: ", b"\n\n")
        self._before = before
        self._after = after
        self._array = array
        self._started = False
        self._envelope = b""
        self._heads: dict[int, tuple[bytes, bytes, bytes]] = {}

    def begin(self, envelope: bytes) -> None:
        self._envelope = envelope

    def text(self, choice: int, text: str, *, thought: bool, probs: tuple[TokenProb, ...] = ()) -> bytes:
        head, tail, thought_tail = self._heads.get(choice) or self._head(choice)
        if probs:
            tail = tail.replace(b',"index"', b"," + encode({_LOGPROBS: write_gemini(probs)})[1:-1] + b',"index"', 1)
        frame = head + b'{"text":' + encode(text) + (thought_tail if thought else tail)
        return self._separated(frame) if self._array else frame

    def part(self, choice: int, part: Raw) -> bytes:
        head, tail, _ = self._heads.get(choice) or self._head(choice)
        frame = head + part + tail[1:]
        return self._separated(frame) if self._array else frame

    def last(self, endings: dict[int, bytes], members: bytes) -> bytes:
        candidates = _COMMA.join(
            b'{"content":{"role":"model","parts":[%b]},%b,"index":%d}' % (_EMPTY_PART, ending, index)
            for index, ending in endings.items()
        )
        pieces = [b'"candidates":[' + candidates + b"]"] if endings else []
        pieces += [piece for piece in (members, self._envelope) if piece]
        frame = self._before + b"{" + _COMMA.join(pieces) + b"}" + self._after
        return self._separated(frame) + ARRAY_END if self._array else frame

    def error(self, error: WireError) -> bytes:
        """An error, and the end."""
        if self._array:
            return array_error(error, started=self._started)
        return error_frames(Format.GEMINI, error)

    def _head(self, choice: int) -> tuple[bytes, bytes, bytes]:
        head = self._before + b'{"candidates":[{"content":{"role":"model","parts":['
        end = b'}]},"index":%d}]' % choice
        tail = end + (b"," + self._envelope if self._envelope else b"") + b"}" + self._after
        self._heads[choice] = head, tail, b',"thought":true' + tail
        return self._heads[choice]

    def _separated(self, frame: bytes) -> bytes:
        out = (b",\n" if self._started else b"[") + frame
        self._started = True
        return out


class Whole:
    """All parts in one answer: what a client gets that puts the frames together."""

    def __init__(self) -> None:
        self._envelope = b""
        self._parts: dict[int, list[Raw]] = {}
        self._runs: dict[int, tuple[bool, list[str]]] = {}
        self._probs: dict[int, list[TokenProb]] = {}

    def begin(self, envelope: bytes) -> None:
        self._envelope = envelope

    def text(self, choice: int, text: str, *, thought: bool, probs: tuple[TokenProb, ...] = ()) -> bytes:
        if probs:
            self._probs.setdefault(choice, []).extend(probs)
        run = self._runs.get(choice)
        if run is None or run[0] is not thought:
            self._flush(choice)
            run = self._runs[choice] = thought, []
        run[1].append(text)
        return b""

    def part(self, choice: int, part: Raw) -> bytes:
        self._flush(choice)
        self._parts.setdefault(choice, []).append(part)
        return b""

    def last(self, endings: dict[int, bytes], members: bytes) -> bytes:
        candidates = []
        for index, ending in endings.items():
            self._flush(index)
            parts = _COMMA.join(self._parts.get(index) or [_EMPTY_PART])
            if index in self._probs:
                ending += b"," + encode({_LOGPROBS: write_gemini(self._probs[index])})[1:-1]
            candidates.append(b'{"content":{"role":"model","parts":[%b]},%b,"index":%d}' % (parts, ending, index))
        pieces = [b'"candidates":[' + _COMMA.join(candidates) + b"]"] if candidates else []
        pieces += [piece for piece in (members, self._envelope) if piece]
        return b"{" + _COMMA.join(pieces) + b"}"

    def _flush(self, choice: int) -> None:
        run = self._runs.pop(choice, None)
        if run is not None:
            part: dict[str, Any] = {"text": "".join(run[1])}
            if run[0]:
                part["thought"] = True
            self._parts.setdefault(choice, []).append(encode(part))


def array_error(error: WireError, *, started: bool) -> bytes:
    """An error inside a stream as a JSON array, and the end of it. *started*: frames were sent before."""
    return (b",\n" if started else b"[") + encode(error_object(Format.GEMINI, error)[1]) + ARRAY_END
