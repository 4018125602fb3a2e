"""Server-sent events: bytes in, whole events out.

Two levels. `EventSplitter` finds the ends of events and hands their bytes on unchanged; this is all that most chunks
need. `parse_event` reads one event, for the few that must be looked into. Line ends may be LF, CRLF, CR or a mixture.

When a chunk ends between the CR and the LF of a blank line the event waits for the next chunk, so that the same stream
gives the same blocks however it was cut. A stream that ends its lines with CR alone is not held back: there a blank
line is CR CR, and complete.
"""

import re

import attrs

from cpa.errors import UpstreamProtocolError

MAX_SSE_EVENT_BYTES = 50 * 1024 * 1024
"""Largest event: images travel in one piece, and deployed proxies stop at 50 MiB as well."""

BOM = b"\xef\xbb\xbf"
_USUAL_ENDS = (b"\n\n", b"\r\n\r\n")
_BARE_STARTS = (b"{", b"[")
_NAMED = b"event: "
_PLAIN_STARTS = (_NAMED, b"id: ")

# Atomic groups: CR LF is one line end, never two.
_BOUNDARY = re.compile(rb"(?>\r\n|\n|\r){2}")
_USUAL = re.compile(rb"(?:event: ([^\r\n]*+)\n)?data: ([^\r\n]++)\n\n").fullmatch
_SMALL_BYTES = 2048
"""What is longer is searched sooner by `bytes.find` than by a pattern."""


@attrs.frozen(kw_only=True)
class SseEvent:
    """One event.

    Attributes:
      event: its name, "" when it has none.
      data: the data lines joined with LF; None for an event without any, e.g. a comment.
      id: as sent, or None.
      retry: milliseconds, or None.
      comment: comment lines joined with LF, or None.
    """

    event: str = ""
    data: bytes | None = None
    id: str | None = None
    retry: int | None = None
    comment: bytes | None = None


class EventSplitter:
    """Collects chunks and gives out the bytes of complete events.

    Concurrency: none; one stream, one splitter.
    """

    __slots__ = ("_limit", "_tail")

    def __init__(self, *, max_event_bytes: int = MAX_SSE_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._tail = bytearray()

    @property
    def tail(self) -> bytearray:
        """Bytes of the event that is not complete yet. Read only."""
        return self._tail

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; return the bytes of all events that are complete now, b"" when none is.

        A chunk that holds whole events only is returned as it is, the same object.
        Raises: UpstreamProtocolError when one event grows over the limit.
        """
        tail = self._tail
        if not tail:
            if data.endswith(_USUAL_ENDS):
                return data
            end = _last_boundary(data, 0)
            if end == len(data):
                return data
            tail += data[end:]
            self._check()
            return data[:end]
        before = len(tail)
        tail += data
        # One byte back, two for CR LF, because the first half of a blank line may have come earlier.
        end = _last_boundary(tail, max(before - 2, 0))
        if not end:
            self._check()
            return b""
        return self.take(end)

    def take(self, size: int) -> bytes:
        """Remove the first *size* bytes of the tail and return them."""
        block = bytes(self._tail[:size])
        del self._tail[:size]
        self._check()
        return block

    def take_tail(self) -> bytes:
        """Remove and return what is left, at the end of the stream."""
        rest = bytes(self._tail)
        self._tail.clear()
        return rest

    def _check(self) -> None:
        if len(self._tail) > self._limit:
            size_bytes = self._limit
            self._tail.clear()
            raise UpstreamProtocolError(f"upstream sent an event of more than {size_bytes} bytes")


def _last_boundary(data: bytes | bytearray, start: int) -> int:
    """End of the last blank line that lies wholly or partly behind *start*; 0 when there is none."""
    end = data.rfind(b"\n\n", start) + 2
    if b"\r" in data:
        # A CR at the very end may be half of CR LF.
        at = data.rfind(b"\n\r", start, len(data) - 1)
        if at >= 0:
            end = max(end, at + 2 + (data[at + 2] == 0x0A))
        at = data.rfind(b"\r\r", start)
        if at >= 0:
            end = max(end, at + 2 + (data[at + 2 : at + 3] == b"\n"))
    return end if end >= 2 else 0


def split_events(block: bytes) -> list[bytes]:
    """The events of *block*, each with its blank line; joined they are *block* again.

    Further blank lines lead the next event. What follows the last blank line is the last element, if there is anything.
    """
    events: list[bytes] = []
    start = 0
    if b"\r" in block:
        for match in _BOUNDARY.finditer(block):
            events.append(block[start : match.end()])
            start = match.end()
    else:
        # Three times as fast as the pattern, for what nearly all providers send.
        while (end := block.find(b"\n\n", start) + 2) >= 2:
            if end == len(block) and not start:
                return [block]
            events.append(block[start:end])
            start = end
    if start < len(block):
        events.append(block[start:])
    return events


def event_data(event: bytes) -> bytes | None:
    """The data of one event, None when it has none. As `parse_event(event).data`, but quick for the usual shapes."""
    start = 6 if event.startswith(b"data: ") else event.find(b"\ndata: ") + 7
    # 6 after a failed search too: told apart by what the event begins with.
    plain = event.startswith(b"data: ") or (start > 6 and event.startswith(_PLAIN_STARTS))
    if not plain or b"\r" in event or event.find(b"\ndata", start) >= 0:
        return parse_event(event).data
    end = event.find(b"\n", start)
    return event[start:] if end < 0 else event[start:end]


def event_name(event: bytes) -> str:
    """The name of one event, "" when it has none. As `parse_event(event).event`, but quick where it comes first."""
    if not event.startswith(_NAMED) or b"\r" in event or event.find(b"\nevent", len(_NAMED)) >= 0:
        return parse_event(event).event if b"event" in event else ""
    end = event.find(b"\n")
    return (event[len(_NAMED) :] if end < 0 else event[len(_NAMED) : end]).decode("utf-8", "replace")


def named_data(event: bytes) -> tuple[str, bytes | None]:
    """(`event_name`, `event_data`) of one event, found in one step where it is small and has one line of each."""
    usual = _USUAL(event) if len(event) <= _SMALL_BYTES else None
    if usual is None:
        return event_name(event), event_data(event)
    name, data = usual.groups()
    return name.decode("utf-8", "replace") if name else "", data


def parse_event(event: bytes) -> SseEvent:
    """Read one event. Bare JSON counts as data: some compatible servers send their errors so. Never raises."""
    if is_bare_json(event):
        return SseEvent(data=event.removeprefix(BOM).strip())
    name = ""
    data: list[bytes] = []
    comments: list[bytes] = []
    event_id: str | None = None
    retry: int | None = None
    for line in event.removeprefix(BOM).splitlines():
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id":
            event_id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit():
            retry = int(value)
        elif colon and not field:
            comments.append(value)
    return SseEvent(
        event=name,
        data=b"\n".join(data) if data else None,
        id=event_id,
        retry=retry,
        comment=b"\n".join(comments) if comments else None,
    )


def is_bare_json(event: bytes) -> bool:
    """Whether *event* is JSON without `data:`, or begins so."""
    return event.removeprefix(BOM).lstrip(b"\r\n").startswith(_BARE_STARTS)


def leading_blanks(event: bytes) -> bytes:
    """The blank lines in front of *event*, which belong to what came before it."""
    return event[: len(event) - len(event.lstrip(b"\r\n"))]
