"""Readers of a provider's stream in passthrough, and the frames that the proxy itself adds to a client's stream.

A reader relays the provider's bytes, event by event and unchanged, and notices three things: the terminal sign, an
error inside the stream, the end. Nearly all chunks are settled by a few substring tests; only when one of them hits
are events cut apart and decoded, so text that merely mentions an error costs a microsecond and changes nothing.

Comments that come before the first payload are held until it comes: as long as nothing was sent to the client an
error can be answered with its real status.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

import attrs
import msgspec

from cpa.errors import CpaError
from cpa.formats.errors import WireError, error_object, from_exception, redact, stream_code
from cpa.formats.faults import Probe, StreamFault, bare_fault, has_error, is_nothing, make_fault, probe
from cpa.formats.json import decode_members, encode
from cpa.formats.names import Format
from cpa.formats.responses_stream import MAX_HELD_BYTES, ResponsesReader, closed_event, cut_short
from cpa.formats.sse import (
    MAX_SSE_EVENT_BYTES,
    EventSplitter,
    event_data,
    is_bare_json,
    leading_blanks,
    parse_event,
    split_events,
)
from cpa.types import JsonObject

DONE_FRAME = b"data: [DONE]\n\n"


class StreamReader(Protocol):
    """Reads one provider stream.

    Attributes:
      terminal: the provider said that its answer is complete; the end of the stream is a clean end from now on.
      done: nothing will be relayed any more, the rest of the provider's stream need not be read.
      substantial: something was relayed beyond the events with which every stream of the protocol begins. Until then
        the answer may still turn out to be an error, whose status the client should get.
      fault: the provider reported an error inside the stream. The event itself is not relayed: while nothing was sent,
        answer with `fault.status` and `fault.body`; later write `fault.frame`, or `error_frames` when that is empty.
    """

    terminal: bool
    done: bool
    substantial: bool
    fault: StreamFault | None

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; return the complete events for the client, b"" when there is none yet. Look at `fault` after.

        Raises: UpstreamProtocolError for an event over the limit, or a stream that ends before it began.
        """
        ...

    def finish(self) -> bytes:
        """The provider's stream has ended; return what is left for the client. Look at `fault` after.

        Once `terminal` is set it may have ended in any way, a broken connection included: the answer is complete, and
        what the client still has to get to see that is returned.

        Raises: UpstreamProtocolError, code ``empty_stream`` when there was no payload at all, otherwise when there was
          no terminal sign; the last event is named.
        """
        ...

    def next_sequence(self) -> int:
        """`sequence_number` of the next event of a Responses stream; 0 elsewhere."""
        ...


def open_reader(
    fmt: str, *, max_event_bytes: int = MAX_SSE_EVENT_BYTES, units: bool = False, open_end: bool = False
) -> StreamReader:
    """A reader for a provider that speaks *fmt*, good for one stream.

    Args:
      units: what comes are the units of a plugin's executor (plugin-abi 6.16), of a protocol that need not be known.
      open_end: Responses only: a stream that ends without a terminal sign is complete.
    """
    if units:
        return UnitReader()
    if fmt in (Format.OPENAI_RESPONSE, Format.CODEX):
        return ResponsesReader(Format(fmt), max_event_bytes=max_event_bytes, open_end=open_end)
    return EventReader(_DIALECTS[Format(fmt)], max_event_bytes=max_event_bytes)


class UnitReader:
    """The `StreamReader` of a plugin's executor: each unit says something, and the plugin says when it ends."""

    __slots__ = ("done", "fault", "substantial", "terminal")

    def __init__(self) -> None:
        self.terminal = False
        self.done = False
        self.substantial = False
        self.fault: StreamFault | None = None

    def feed(self, data: bytes) -> bytes:
        """The unit as it is."""
        self.substantial = True
        return data

    def finish(self) -> bytes:
        """Nothing is left."""
        return b""

    def next_sequence(self) -> int:
        """Nobody counts."""
        return 0


class Verdict(Enum):
    """What an event is to a reader."""

    PLAIN = auto()
    TERMINAL = auto()  # relayed; more may follow
    LAST = auto()  # relayed; nothing follows
    DROPPED = auto()  # only its blank lines are relayed, as those of a comment


@attrs.frozen(kw_only=True)
class Dialect:
    """What the readers of two protocols do differently.

    Attributes:
      suspicious: whether a block has to be looked into; cheap, may be wrong only in saying yes.
      judge: what an event without error is. `name` is its type or event name.
      rewrite: bytes for the client, the same object when they do not change.
      is_start: whether the data of an event belongs to the beginning that says nothing yet.
      completion: what the client gets at a clean end at which no event was the `LAST`.
    """

    format: Format
    suspicious: Callable[[bytes], bool]
    judge: Callable[[bytes, Probe | None, str], Verdict]
    rewrite: Callable[[bytes], bytes] | None = None
    is_start: Callable[[bytes], bool] = lambda data: False
    completion: bytes = b""


class EventReader:
    """The `StreamReader` of Chat, Claude and Gemini."""

    __slots__ = (
        "_dialect", "_held", "_last", "_splitter", "_started", "_suspicious", "done", "fault", "substantial", "terminal"
    )  # fmt: skip

    def __init__(self, dialect: Dialect, *, max_event_bytes: int = MAX_SSE_EVENT_BYTES) -> None:
        self.terminal = False
        self.done = False
        self.substantial = False
        self.fault: StreamFault | None = None
        self._dialect = dialect
        self._suspicious = dialect.suspicious
        self._splitter = EventSplitter(max_event_bytes=max_event_bytes)
        self._started = False
        self._held = bytearray()
        self._last = b""  # the last block with data; read only to describe a failure

    def feed(self, data: bytes) -> bytes:
        """See `StreamReader.feed`."""
        if self.done:
            return b""
        block = self._splitter.feed(data)
        if not block:
            return b""
        if self.substantial and not self._suspicious(block):
            return self._pass_on(block)
        return self._look(block)

    def _pass_on(self, block: bytes) -> bytes:
        """*block* as it is, which no test found suspicious."""
        if block.startswith(b"data:") or block.find(b"\ndata:") >= 0 or block.find(b"\rdata:") >= 0:
            self._last = block
        return block

    def finish(self) -> bytes:
        """See `StreamReader.finish`."""
        rest = b"" if self.done else self._splitter.take_tail()
        if not rest.strip(b"\r\n"):
            out = rest if self._started else b""
        else:
            event = closed_event(rest)
            out = self._look(event) if event else leading_blanks(rest)
        if self.fault is not None:
            return out
        if not self.terminal:
            raise cut_short(self._last_name() if self._started else None)
        if not self.done:
            self.done = True
            out += self._dialect.completion
        return out

    def next_sequence(self) -> int:
        """Only Responses streams are numbered."""
        return 0

    def _look(self, block: bytes) -> bytes:
        """Judge each event of *block*; return what the client gets."""
        out: list[bytes] = []
        unchanged = True
        for event in split_events(block):
            # One event of a large block made it suspicious, or the first one has yet to come: the others are cheap.
            plain = self._started and not self._suspicious(event)
            passed = self._pass_on(event) if plain else self._event(event)
            if passed is not event:
                unchanged = False
            if passed:
                out.append(passed)
                if not self.substantial:
                    self.substantial = self._says_something(event)
            if self.done:
                return b"".join(out)
        return block if unchanged else b"".join(out)

    def _says_something(self, event: bytes) -> bool:
        data = event_data(event)
        return data is not None and bool(data.strip()) and not self._dialect.is_start(data)

    def _event(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None or not data.strip():
            return self._without_payload(event)
        if is_bare_json(event):
            return self._end_with(bare_fault(self._dialect.format, data))
        seen = probe(data)
        name = (seen.name if seen is not None else "") or parse_event(event).event
        if seen is not None and has_error(seen, name):
            return self._end_with(make_fault(self._dialect.format, data, frame=self._rewritten(event)))
        verdict = self._dialect.judge(data, seen, name)
        if verdict is Verdict.DROPPED:
            return self._without_payload(event)
        if verdict is Verdict.LAST:
            if not self._started:
                self.done = True
                raise cut_short(None)
            self.done = True
        if verdict is not Verdict.PLAIN:
            self.terminal = True
        self._last = event
        passed = self._rewritten(event)
        if self._started:
            return passed
        self._started = True
        held = bytes(self._held)
        self._held.clear()
        return held + passed if held else passed

    def _without_payload(self, event: bytes) -> bytes:
        event = self._rewritten(event)
        if self._started:
            return event
        self._held += event
        if len(self._held) <= MAX_HELD_BYTES:
            return b""
        held = bytes(self._held)
        self._held.clear()
        return held

    def _rewritten(self, event: bytes) -> bytes:
        return event if self._dialect.rewrite is None else self._dialect.rewrite(event)

    def _end_with(self, fault: StreamFault) -> bytes:
        self.fault = fault
        self.done = True
        return b""

    def _last_name(self) -> str:
        for text in reversed(split_events(self._last)):
            event = parse_event(text)
            if event.data is not None and event.data.strip():
                seen = probe(event.data)
                return ((seen.name if seen else "") or event.event or "data")[:256]
        return "none"


# --- dialects --------------------------------------------------------------------------------------------------------


def _any_error(block: bytes) -> bool:
    """Substring tests that every protocol needs: error members and types, error events, JSON without `data:`.

    `error"` ends the member `error` and the types that end so; in text a quote is escaped, which makes it ``error\\"``,
    unless the text itself ends there. Decoding settles it. `find`, not `in`: for bytes that costs twice as much.
    """
    find = block.find
    if find(b"error") >= 0 and (find(b'error"') >= 0 or find(b"event: error") >= 0 or find(b"event:error") >= 0):
        return True
    if find(b'"code"') >= 0 and find(b'"message"') >= 0:
        return True
    if block[0] in b"{[\r\n\xef":
        return True
    if 0 <= find(b"\n\n") < len(block) - 2 and (find(b"\n\n{") >= 0 or find(b"\n\n[") >= 0):
        return True
    return find(b"\r") >= 0 and (b"\n{" in block or b"\n[" in block or b"\r{" in block or b"\r[" in block)


def _chat_suspicious(block: bytes) -> bool:
    finishes = block.count(b'"finish_reason"')
    if finishes and finishes != block.count(b'"finish_reason":null') + block.count(b'"finish_reason": null'):
        return True
    # Not "[DONE]" alone: answers quote it. Whatever stands before it in an event's line ends with a colon or a blank.
    return block.find(b":[DONE]") >= 0 or block.find(b" [DONE]") >= 0 or _any_error(block)


class _ChatChoice(msgspec.Struct, gc=False):
    finish_reason: msgspec.Raw = msgspec.Raw(b"")
    delta: msgspec.Raw = msgspec.Raw(b"{}")


_decode_choices = msgspec.json.Decoder(list[_ChatChoice]).decode


def _judge_chat(data: bytes, seen: Probe | None, name: str) -> Verdict:
    if data.strip() == b"[DONE]":
        return Verdict.LAST
    # Chunks have no type; a Responses event means that the provider answers in that dialect.
    if seen is None or is_nothing(seen.choices):
        return Verdict.PLAIN
    try:
        choices = _decode_choices(seen.choices)
    except (ValueError, RecursionError):
        return Verdict.PLAIN
    return Verdict.TERMINAL if any(not is_nothing(choice.finish_reason) for choice in choices) else Verdict.PLAIN


def _chat_is_start(data: bytes) -> bool:
    """Whether a chunk names a role at most; one without choices, as Azure begins its streams, says nothing either."""
    seen = probe(data)
    if seen is None:
        return False
    try:
        choices = [] if is_nothing(seen.choices) else _decode_choices(seen.choices)
        said = [
            value
            for choice in choices
            for name, value in (("", choice.finish_reason), *decode_members(bytes(choice.delta)).items())
            if name != "role"
        ]
    except (ValueError, RecursionError):
        return False
    return all(is_nothing(value) or bytes(value) == b"[]" for value in said)


def _claude_is_start(data: bytes) -> bool:
    seen = probe(data)
    return seen is not None and seen.name in ("message_start", "ping")


def _claude_suspicious(block: bytes) -> bool:
    return block.find(b"message_stop") >= 0 or _any_error(block)


def _judge_claude(data: bytes, seen: Probe | None, name: str) -> Verdict:
    return Verdict.LAST if name == "message_stop" and seen is not None else Verdict.PLAIN


def _gemini_suspicious(block: bytes) -> bool:
    # Whether every line that is not blank is a `data: ` line: then each event has two line ends.
    separators = block.count(b"\n\ndata: ") + block.count(b"\n\r\ndata: ")
    return (
        not block.startswith(b"data: ")
        or block.count(b"\n") != 2 * separators + 2
        or block.find(b"inishReason") >= 0
        or block.find(b"lockReason") >= 0
        or block.find(b"[DONE]") >= 0
        or _any_error(block)
    )


class _Candidate(msgspec.Struct, gc=False):
    finishReason: msgspec.Raw = msgspec.Raw(b"")


class _Feedback(msgspec.Struct, gc=False):
    blockReason: msgspec.Raw = msgspec.Raw(b"")


_decode_candidates = msgspec.json.Decoder(list[_Candidate]).decode
_decode_feedback = msgspec.json.Decoder(_Feedback).decode


def _judge_gemini(data: bytes, seen: Probe | None, name: str) -> Verdict:
    if data.strip() == b"[DONE]":
        return Verdict.DROPPED
    if seen is None:
        return Verdict.PLAIN
    try:
        if not is_nothing(seen.promptFeedback) and not is_nothing(_decode_feedback(seen.promptFeedback).blockReason):
            return Verdict.TERMINAL
        candidates = [] if is_nothing(seen.candidates) else _decode_candidates(seen.candidates)
    except (ValueError, RecursionError):
        return Verdict.PLAIN
    return Verdict.TERMINAL if any(not is_nothing(item.finishReason) for item in candidates) else Verdict.PLAIN


def _gemini_frame(event: bytes) -> bytes:
    """*event* without the lines that make Google's SDKs fail: comments, `event:`, ``[DONE]``, `data:` without space.

    Line by line, so that blank lines, which are harmless, come out the same wherever a chunk was cut.
    """
    lines = event.splitlines(keepends=True)
    kept = [_gemini_line(line) for line in lines]
    return event if kept == lines else b"".join(kept)


def _gemini_line(line: bytes) -> bytes:
    if not line.strip(b"\r\n"):
        return line
    if not line.startswith(b"data:") or line[5:].strip() in (b"", b"[DONE]"):
        return b""
    return line if line.startswith(b"data: ") else b"data: " + line[5:]


_DIALECTS = {
    Format.OPENAI: Dialect(
        format=Format.OPENAI,
        suspicious=_chat_suspicious,
        judge=_judge_chat,
        is_start=_chat_is_start,
        completion=DONE_FRAME,
    ),
    Format.CLAUDE: Dialect(
        format=Format.CLAUDE, suspicious=_claude_suspicious, judge=_judge_claude, is_start=_claude_is_start
    ),
    Format.GEMINI: Dialect(
        format=Format.GEMINI, suspicious=_gemini_suspicious, judge=_judge_gemini, rewrite=_gemini_frame
    ),
}


# --- frames of our own -----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class FrameContext:
    """What an error frame of a Responses stream needs to know.

    Attributes:
      sequence_number: see `StreamReader.next_sequence`.
      codex_client: the client acts on `response.failed` only.
    """

    sequence_number: int = 0
    codex_client: bool = False


_NO_CONTEXT = FrameContext()


def error_frames(fmt: Format, error: CpaError | StreamFault | WireError, ctx: FrameContext = _NO_CONTEXT) -> bytes:
    """An error inside a stream that has begun, in the protocol *fmt* of the client; the stream has to be closed after.

    Texts are redacted and cut. Gemini gets no `event:` line, because Google's SDKs fail on one.
    """
    if isinstance(error, CpaError):
        error = from_exception(error)
    elif isinstance(error, StreamFault):
        error = error.error
    _, body = error_object(fmt, error)
    if fmt is Format.CLAUDE:
        return b"event: error\ndata: " + encode(body) + b"\n\n"
    if fmt is Format.GEMINI:
        return b"data: " + encode(body) + b"\n\n"
    if fmt is Format.OPENAI:
        detail = body["error"]
        if isinstance(detail, dict):
            detail.setdefault("param", None)
            detail.setdefault("code", None)
        return b"data: " + encode(body) + b"\n\n"
    return _responses_error(error, body, ctx)


def _responses_error(error: WireError, body: JsonObject, ctx: FrameContext) -> bytes:
    message = redact(error.message)
    code = redact(stream_code(error))
    if not ctx.codex_client:
        return (
            b"event: error\ndata: "
            + encode(
                {
                    "type": "error",
                    "code": code,
                    "message": message,
                    "param": error.param,
                    "sequence_number": ctx.sequence_number,
                }
            )
            + b"\n\n"
        )
    detail = body["error"]
    kind = detail.get("type") if isinstance(detail, dict) else None
    return (
        b"event: response.failed\ndata: "
        + encode(
            {
                "type": "response.failed",
                "sequence_number": ctx.sequence_number,
                "response": {"status": "failed", "error": {"type": kind, "code": code, "message": message}},
            }
        )
        + b"\n\n"
    )


_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_COMMENT = b": keep-alive\n\n"


def keepalive_frame(fmt: Format) -> bytes:
    """What keeps an idle stream of this protocol open and means nothing to its clients."""
    if fmt is Format.CLAUDE:
        return _PING
    if fmt is Format.GEMINI:
        # Google's SDKs fail on comments, as Claude's pass over them; a blank line both ignore.
        return b"\n"
    return _COMMENT
