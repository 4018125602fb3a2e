"""Reader of a Responses stream: checks each event, separates what came unseparated, repairs the final answer.

The provider's bytes pass unchanged except in four cases: events that lack the blank line between them get it, frames
``[DONE]`` go, a final answer with an empty `output` is filled from the items that were announced as done, and nothing
follows the terminal event.
"""

import msgspec

from cpa.errors import UpstreamHungUp, UpstreamProtocolError
from cpa.formats.faults import Probe, StreamFault, bare_fault, has_error, is_nothing, make_fault, probe, response_probe
from cpa.formats.json import JsonError, decode_members, encode, is_json
from cpa.formats.names import Format
from cpa.formats.sse import (
    MAX_SSE_EVENT_BYTES,
    EventSplitter,
    event_data,
    is_bare_json,
    leading_blanks,
    parse_event,
    split_events,
)

TERMINAL = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.done",
        "error",
        "response.error",
    }
)
"""Types after which a Responses stream is over."""

BEFORE_PAYLOAD = "upstream stream closed before first payload"
BEFORE_TERMINAL = "upstream stream closed before a terminal event (last event: {})"
MAX_HELD_BYTES = 65536
"""Comments kept back before the first payload, so that an error can still get its real status; more are let through."""

_STARTS = frozenset({"response.created", "response.in_progress", "response.queued"})
_REPAIRED = frozenset({"response.completed", "response.done"})
_ITEM_DONE = "response.output_item.done"
_BARE_STARTS = (b"{", b"[")


_LOOKED_INTO = TERMINAL | {_ITEM_DONE}
_UNSET = msgspec.Raw(b"")


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    error: msgspec.Raw = _UNSET
    code: msgspec.Raw = _UNSET
    response: msgspec.Raw = _UNSET


class _DoneItem(msgspec.Struct, gc=False):
    item: msgspec.Raw = _UNSET
    output_index: msgspec.Raw = _UNSET


class _Numbered(msgspec.Struct, gc=False):
    sequence_number: msgspec.Raw = _UNSET


_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_item = msgspec.json.Decoder(_DoneItem).decode
_decode_number = msgspec.json.Decoder(_Numbered).decode


class ResponsesReader:
    """A `StreamReader` (see `cpa.formats.streams`) for Responses and its codex dialect."""

    __slots__ = (
        "_failure",
        "_format",
        "_held",
        "_items",
        "_items_bytes",
        "_last",
        "_limit",
        "_open_end",
        "_scanned",
        "_splitter",
        "_started",
        "done",
        "fault",
        "substantial",
        "terminal",
    )

    def __init__(self, fmt: Format, *, max_event_bytes: int = MAX_SSE_EVENT_BYTES, open_end: bool = False) -> None:
        """*open_end*: a stream that ends without a terminal sign is complete; whoever feeds it knows."""
        self.terminal = False
        self.done = False
        self.substantial = False
        self.fault: StreamFault | None = None
        self._format = fmt
        self._open_end = open_end
        self._limit = max_event_bytes
        self._splitter = EventSplitter(max_event_bytes=max_event_bytes)
        self._started = False
        self._held = bytearray()
        self._failure: UpstreamProtocolError | None = None
        self._last = b""  # the last event that was relayed
        self._items: list[bytes] = []
        self._items_bytes = 0
        self._scanned = 0  # of the tail, for events without blank lines

    def feed(self, data: bytes) -> bytes:
        """See `StreamReader.feed`. Raises: UpstreamProtocolError also for an event that is not JSON."""
        self._raise_failure()
        if self.done:
            return b""
        block = self._splitter.feed(data)
        if block:
            self._scanned = 0
        out = self._relay(block) if block else b""
        if len(self._splitter.tail) > self._scanned and not self.done and self._failure is None:
            out += self._unseparated()
        if not out:
            self._raise_failure()
        return out

    def finish(self) -> bytes:
        """See `StreamReader.finish`."""
        self._raise_failure()
        rest = b"" if self.done else self._splitter.take_tail()
        if not rest.strip(b"\r\n"):
            out = rest if self._started else b""
        else:
            event = closed_event(rest)
            out = self._relay(event) if event else leading_blanks(rest)
            self._raise_failure()
        if self.fault is None and not self.terminal and not self._open_end:
            raise cut_short(self._last_name() if self._started else None)
        return out

    def next_sequence(self) -> int:
        """Number of the event that would come next; 0 when nothing came or the provider does not count."""
        data = event_data(self._last) if self._last else None
        if data is None:
            return 0
        try:
            number = bytes(_decode_number(data).sequence_number)
        except (ValueError, RecursionError):
            return 0
        return int(number) + 1 if number.isdigit() and len(number) < 19 else 0

    def _relay(self, block: bytes) -> bytes:
        """Check the events of *block*; return what the client gets of them."""
        out: list[bytes] = []
        unchanged = True
        for event in split_events(block):
            frames = separate(event)
            unchanged = unchanged and len(frames) == 1
            for frame in frames:
                passed = self._frame(frame)
                if passed is not frame:
                    unchanged = False
                if passed:
                    out.append(passed)
                if self.done or self._failure is not None:
                    return b"".join(out)
        return block if unchanged else b"".join(out)

    def _frame(self, frame: bytes) -> bytes:
        """What the client gets of one frame: the same object when nothing changes."""
        data = event_data(frame)
        if data is not None and self.substantial and _is_delta(frame, data):
            self._last = frame
            return frame
        if data is None or not data.strip():
            return frame if self._started else self._hold(frame)
        if is_bare_json(frame):
            return self._end_with(bare_fault(self._format, data))
        if data.strip() == b"[DONE]":
            blank = b"".join(line for line in frame.splitlines(keepends=True) if not line.strip(b"\r\n"))
            return blank if self._started else self._hold(blank)
        seen = probe(data)
        if seen is None:
            if is_json(data):
                return self._start(frame)
            self._failure = UpstreamProtocolError("upstream sent a stream event that is not valid JSON")
            return b""
        name = seen.name or parse_event(frame).event
        if has_error(seen, name):
            self.terminal = name in TERMINAL
            return self._end_with(make_fault(self._format, data, frame=frame))
        if name == _ITEM_DONE:
            self._keep_item(data)
        elif name in TERMINAL:
            self.terminal = self.done = True
            if name in _REPAIRED:
                frame = self._repaired(frame, data, seen)
        return self._start(frame, name)

    def _start(self, frame: bytes, name: str = "") -> bytes:
        self._last = frame
        self.substantial = self.substantial or name not in _STARTS
        if self._started:
            return frame
        self._started = True
        if not self._held:
            return frame
        held = bytes(self._held)
        self._held.clear()
        return held + frame

    def _hold(self, frame: bytes) -> bytes:
        self._held += frame
        if len(self._held) <= MAX_HELD_BYTES:
            return b""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _end_with(self, fault: StreamFault) -> bytes:
        self.fault = fault
        self.done = True
        return b""

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self.done = True
            raise self._failure

    def _last_name(self) -> str:
        event = parse_event(self._last)
        seen = probe(event.data or b"")
        return ((seen.name if seen else "") or event.event or "unknown")[:256]

    def _unseparated(self) -> bytes:
        """Complete events at the start of the tail that no blank line ends, because the next one follows at once."""
        tail = self._splitter.tail
        start = max(self._scanned - 8, 0)
        self._scanned = len(tail)
        if tail.find(b"\ndata:", start) < 0 and tail.find(b"\rdata:", start) < 0:
            return b""
        if tail.count(b"\ndata:") + tail.count(b"\rdata:") + tail.startswith(b"data:") < 2:
            return b""
        frames = _cut(bytes(tail))[:-1]
        size = sum(len(frame) for frame, _ in frames)
        if not size:
            return b""
        self._splitter.take(size)
        self._scanned = 0
        return self._relay(b"".join(frame + end for frame, end in frames))

    # --- the final answer ---

    def _keep_item(self, data: bytes) -> None:
        # Bounded: a stream whose items are larger than an event may be is not repaired.
        self._items_bytes += len(data)
        if self._items_bytes <= self._limit:
            self._items.append(data)
        else:
            self._items.clear()

    def _repaired(self, frame: bytes, data: bytes, seen: Probe) -> bytes:
        """*frame* with the items seen as `output`, when the provider left it empty."""
        if not self._items or not bytes(seen.response).startswith(b"{"):
            return frame
        output = response_probe(seen.response).output
        if not (is_nothing(output) or bytes(output).replace(b" ", b"") == b"[]"):
            return frame
        try:
            members = decode_members(data)
            response = decode_members(bytes(members["response"]))
        except JsonError:
            return frame
        response["output"] = msgspec.Raw(b"[" + b",".join(_ordered(self._items)) + b"]")
        members["response"] = msgspec.Raw(encode(response))
        name = parse_event(frame).event
        head = b"event: " + name.encode("utf-8", "replace") + b"\n" if name else b""
        return leading_blanks(frame) + head + b"data: " + encode(members) + b"\n\n"


def separate(event: bytes) -> list[bytes]:
    """The frames of one event: several when the provider forgot the blank lines between them, usually just *event*."""
    first = event.find(b"data:")
    if event.find(b"\ndata:", first + 1) < 0 and (b"\r" not in event or event.find(b"\rdata:", first + 1) < 0):
        return [event]
    frames = _cut(event)
    if len(frames) == 1:
        return [event]
    return [frame + end for frame, end in frames]


def _cut(text: bytes) -> list[tuple[bytes, bytes]]:
    """Cut *text* before each line that begins another event; with each part the line end that it lacks.

    A `data:` line after data that is JSON already begins another event; otherwise it continues one payload, which SSE
    allows. An `event:` line between the two belongs to the second.
    """
    frames: list[tuple[bytes, bytes]] = []
    lines: list[bytes] = []
    data: list[bytes] = []
    named = -1  # line of an `event:` that came after data
    for line in text.splitlines(keepends=True):
        if line.startswith(b"event:") and data:
            named = len(lines)
        elif line.startswith(b"data:"):
            if data and (named >= 0 or is_json(b"\n".join(data))):
                end = named if named >= 0 else len(lines)
                previous = lines[end - 1]
                frames.append((b"".join(lines[:end]), previous[len(previous.rstrip(b"\r\n")) :]))
                lines, data, named = lines[end:], [], -1
            data.append(line[5:].strip())
        lines.append(line)
    frames.append((b"".join(lines), b""))
    return frames


def closed_event(rest: bytes) -> bytes:
    """What a stream ended with, given the blank line that it lacks; empty for a mere piece of an event.

    A piece is of no use to anybody.
    """
    data = event_data(rest)
    if data is None or not (is_bare_json(rest) or data.strip() == b"[DONE]" or is_json(data)):
        return b""
    return rest.rstrip(b"\r\n") + b"\n\n"


def cut_short(last: str | None) -> UpstreamProtocolError:
    """The error of a stream that ended before its terminal sign.

    Args:
      last: name of the last event, None when there was no payload at all.
    """
    if last is None:
        return UpstreamProtocolError(BEFORE_PAYLOAD, code="empty_stream")
    return UpstreamHungUp(BEFORE_TERMINAL.format(last))


def _is_delta(frame: bytes, data: bytes) -> bool:
    """Whether an event is valid and none that needs a closer look: true of nearly all, so the short way for them."""
    if frame[0] not in b"ed":
        return False
    try:
        seen = _decode_delta(data)
    except (ValueError, RecursionError):
        return False
    return (
        seen.error is _UNSET
        and seen.code is _UNSET
        and seen.response is _UNSET
        and seen.type not in _LOOKED_INTO
        and bool(seen.type)
    )


def _ordered(items: list[bytes]) -> list[bytes]:
    indexed: dict[int, bytes] = {}
    others: list[bytes] = []
    for data in items:
        try:
            done = _decode_item(data)
        except (ValueError, RecursionError):
            continue
        item = bytes(done.item)
        index = bytes(done.output_index)
        if not item.startswith(_BARE_STARTS):
            continue
        if index.isdigit() and len(index) < 19:
            indexed[int(index)] = item
        else:
            others.append(item)
    return [indexed[index] for index in sorted(indexed)] + others
