"""Answers of providers that speak Gemini, read into events (translation 4.5).

Theory of operation. Every frame is an answer with a few more parts, so a whole answer is a stream of one frame. Text
and thoughts continue the block that is open; a signature ends it; calls and media are blocks by themselves. Citations
come last and refer to the whole text: if Google searches, blocks of text stay open until the end of the stream.
"""

from typing import Final

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import read_error_value
from cpa.formats.json import JsonError, decode
from cpa.formats.names import Format
from cpa.translation.annotations import from_gemini, search_from_gemini
from cpa.translation.context import Context
from cpa.translation.gemini import wire
from cpa.translation.gemini.partial_args import PartialArgs
from cpa.translation.gemini.wire import Blob, Candidate, Frame, FunctionCall, Part, given, raw_of
from cpa.translation.ids import call_id, parse_time
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    MediaKind,
    Meta,
    Open,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    TokenProb,
    Tokens,
    ToolKind,
    Usage,
)
from cpa.translation.logprobs import read_gemini
from cpa.translation.media import clean_mime, media_kind
from cpa.translation.signatures import unwrap
from cpa.translation.stops import from_gemini as read_reason
from cpa.translation.usage import from_gemini as read_usage

ORIGIN: Final = Format.GEMINI.value
MAX_CHOICES: Final = 128
"""More answers than any model gives at once."""
_MEDIA: Final = {MediaKind.IMAGE: BlockKind.IMAGE, MediaKind.AUDIO: BlockKind.AUDIO}
_SEARCHES: Final = frozenset({"web_search", "web_fetch", "file_search"})
_PLAIN_END: Final = "STOP"
_NOT_JSON: Final = "upstream sent something that is not a JSON object"
_NOT_AN_ANSWER: Final = "upstream answered with something that is not an answer"


@attrs.define(eq=False)
class _Said:
    """A text part as it came: *start* is its place in block *b*, in code points."""

    b: int
    start: int
    text: str
    frame: int


@attrs.define(eq=False)
class _Choice:
    """One candidate.

    Attributes:
      b: the block that text or thoughts continue, -1 = none; *kind*, *length* of it.
      waiting: blocks of text that wait for citations.
      said: all text, if there may be citations.
      partial: the call whose arguments are arriving, by its ``functionCall``.
      probs: of tokens whose text has not come.
    """

    index: int
    b: int = -1
    kind: BlockKind = BlockKind.TEXT
    length: int = 0
    waiting: list[int] = attrs.field(factory=list)
    said: list[_Said] = attrs.field(factory=list)
    grounding: bytes = b""
    stopped: bool = False
    partial: FunctionCall | None = None
    partial_sig: Sig | None = None
    partial_args: PartialArgs = attrs.field(factory=PartialArgs)
    probs: tuple[TokenProb, ...] = ()


class Parser:
    """Reads one stream; see `spoke.StreamParser`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        request = ctx.request
        self._grounded = request is not None and any(
            tool.kind is ToolKind.SERVER and tool.server in _SEARCHES for tool in request.tools
        )
        self._out: list[IREvent] = []
        self._choices: dict[int, _Choice] = {}
        self._blocks = 0
        self._frames = 0
        self._started = False
        self._ended = False
        self._blocked = False
        self._usage: Tokens | None = None

    def feed(self, name: str, data: bytes) -> list[IREvent]:
        """See `spoke.StreamParser.feed`; also a JSON array of frames. Raises: UpstreamProtocolError."""
        if self._ended:
            return []
        stripped = data.strip()
        if stripped[:1] == b"[":
            if stripped != b"[DONE]":
                for span in _elements(stripped):
                    self._frame(bytes(span))
        elif stripped:
            self._frame(stripped)
        out, self._out = self._out, []
        return out

    def finish(self) -> list[IREvent]:
        """See `spoke.StreamParser.finish`."""
        if self._ended:
            return []
        for choice in self._choices.values():
            self._finish_choice(choice)
        stopped = [choice.stopped for choice in self._choices.values()]
        if self._blocked or (stopped and all(stopped)):
            self._ended = True
            self._out.append(End())
        out, self._out = self._out, []
        return out

    def full(self, body: bytes) -> list[IREvent]:
        """The events of a whole answer. Raises: UpstreamProtocolError."""
        events = self.feed("", body)
        if not self._ended:
            if not self._choices and not self._blocked:
                raise UpstreamProtocolError(_NOT_AN_ANSWER)
            for choice in self._choices.values():
                if not choice.stopped:  # nothing was cut: it came in one piece
                    choice.stopped = True
                    self._out.append(Stop(reason=StopReason.STOP, choice=choice.index))
            events += self.finish()
        return events

    # --- frames ---

    def _frame(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            frame = wire.read_frame(data)
            if given(frame.response) and frame.candidates is None:
                data = bytes(frame.response)
                frame = wire.read_frame(data)
        except ValueError:
            raise UpstreamProtocolError(_NOT_JSON) from None
        if given(frame.error):
            self._fail(data)
            return
        self._frames += 1
        if not self._started:
            self._start(frame)
        for place, candidate in enumerate(frame.candidates or ()):
            self._candidate(candidate, place, data)
        feedback = frame.promptFeedback
        if feedback is not None and feedback.blockReason and not frame.candidates and not self._choices:
            self._blocked = True
            detail = ": ".join(filter(None, (feedback.blockReason, feedback.blockReasonMessage)))
            self._out.append(Stop(reason=StopReason.REFUSAL, detail=detail))
        if given(frame.usageMetadata):
            self._usage = read_usage(bytes(frame.usageMetadata), self._usage)
            self._out.append(Usage(tokens=self._usage))

    def _start(self, frame: Frame) -> None:
        self._started = True
        created = parse_time(frame.createTime) if frame.createTime else 0
        self._out.append(Start(id=frame.responseId or "", model=frame.modelVersion or "", created_unix=created))

    def _fail(self, data: bytes) -> None:
        self._ended = True
        try:
            error = read_error_value(decode(data))
        except JsonError:
            self._out.append(Err(status=502, message="upstream reported an error that cannot be read"))
            return
        self._out.append(
            Err(
                status=error.status,
                message=error.message or "upstream reported an error without a message",
                code=error.code if not error.code.isdigit() else "",
                retry_after_s=error.retry_after_s,
            )
        )

    # --- candidates ---

    def _candidate(self, candidate: Candidate, place: int, data: bytes) -> None:
        index = candidate.index if candidate.index is not None else place
        if not 0 <= index < MAX_CHOICES:
            return
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index)
        if given(candidate.logprobsResult):
            choice.probs += read_gemini(bytes(candidate.logprobsResult))
        parts = candidate.content.parts if candidate.content is not None else None
        for number, part in enumerate(parts if isinstance(parts, list) else [parts] if parts else ()):
            self._part(part, choice, (place, number), data)
        if given(candidate.groundingMetadata):
            choice.grounding = bytes(candidate.groundingMetadata)
        reason = candidate.finishReason
        if reason and not choice.stopped:
            choice.stopped = True
            detail = "" if reason == _PLAIN_END else reason
            detail = ": ".join(filter(None, (detail, candidate.finishMessage)))
            self._out.append(Stop(reason=read_reason(reason), detail=detail, choice=index))

    def _part(self, part: Part, choice: _Choice, place: tuple[int, int], data: bytes) -> None:
        if part.text and not part.signature:  # first, it is the most frequent
            self._text(part.text, BlockKind.REASONING if part.thought else BlockKind.TEXT, choice)
            if part.functionCall is None and part.function_call is None:
                return
        if call := part.functionCall or part.function_call:
            self._call(call, self._sig(part, SigKind.PART, of_call=True), choice)
        elif blob := part.inlineData or part.inline_data:
            self._blob(blob, part, choice, place, data)
        elif code := part.code:
            self._step(BlockKind.SERVER_CALL, b'{"executableCode":' + code + b"}", choice)
        elif result := part.code_result:
            self._step(BlockKind.SERVER_RESULT, b'{"codeExecutionResult":' + result + b"}", choice)
        elif part.signature:
            self._signed(part, choice)
        elif part.text is None:
            self._opaque(choice, place, data)

    def _open(self, kind: BlockKind, choice: _Choice, meta: Meta | None = None) -> int:
        b = self._blocks
        self._blocks += 1
        self._out.append(Open(b=b, kind=kind, meta=meta or Meta(), choice=choice.index))
        return b

    def _leave(self, choice: _Choice) -> None:
        """End the block that was continued; text that may be cited stays open."""
        if choice.b < 0:
            return
        if self._grounded and choice.kind is BlockKind.TEXT:
            choice.waiting.append(choice.b)
        else:
            self._out.append(Close(b=choice.b, choice=choice.index))
        choice.b = -1

    def _text(self, text: str, kind: BlockKind, choice: _Choice) -> None:
        if choice.b < 0 or choice.kind is not kind:
            self._leave(choice)
            choice.b, choice.kind, choice.length = self._open(kind, choice), kind, 0
        if kind is BlockKind.TEXT:
            choice.said.append(_Said(choice.b, choice.length, text, self._frames))
            choice.length += len(text)
            if choice.probs:
                probs, choice.probs = choice.probs, ()
                self._out.append(Delta(b=choice.b, s=text, probs=probs, choice=choice.index))
                return
        self._out.append(Delta(b=choice.b, s=text, choice=choice.index))

    def _sig(self, part: Part, kind: SigKind, *, of_call: bool = False) -> Sig | None:
        if not part.signature:
            return None
        sig = unwrap(part.signature, bare=Provenance.GEMINI, kind=kind)
        if sig is not None and sig.kind is SigKind.PART:
            sig.of_call = of_call
        return sig

    def _signed(self, part: Part, choice: _Choice) -> None:
        """Text or a thought with a signature, often empty. It ends its block, as the next one has its own."""
        kind = BlockKind.REASONING if part.thought else BlockKind.TEXT
        sig = self._sig(part, SigKind.THINKING if part.thought else SigKind.PART)
        redacted = sig is not None and sig.kind is SigKind.REDACTED
        if part.text:
            self._text(part.text, kind, choice)
        elif part.thought and sig is not None and (redacted or choice.b < 0 or choice.kind is not kind):
            self._leave(choice)
            choice.b, choice.kind = self._open(kind, choice, Meta(redacted=redacted)), kind
        if sig is None:
            return
        if choice.b < 0 or choice.kind is not kind:
            self._out.append(SigEvent(b=-1, sig=sig, choice=choice.index))
            return
        self._out.append(SigEvent(b=choice.b, sig=sig, choice=choice.index))
        self._leave(choice)

    # --- whole parts ---

    def _call(self, call: FunctionCall, sig: Sig | None, choice: _Choice) -> None:
        more = call.willContinue or call.will_continue or False
        pieces = call.partialArgs if given(call.partialArgs) else call.partial_args
        if given(pieces) or more or (choice.partial is not None and not call.name):
            if choice.partial is None:
                choice.partial, choice.partial_sig, choice.partial_args = call, None, PartialArgs()
            choice.partial_sig = sig or choice.partial_sig
            if given(pieces):
                choice.partial_args.feed(pieces)
            if not more:
                self._finish_partial(choice)
            return
        self._finish_partial(choice)
        self._write_call(call, raw_of(call.args), sig, choice)

    def _finish_partial(self, choice: _Choice) -> None:
        call, choice.partial = choice.partial, None
        if call is not None:
            args = raw_of(call.args) or choice.partial_args.json()
            self._write_call(call, args, choice.partial_sig, choice)

    def _write_call(self, call: FunctionCall, args: bytes, sig: Sig | None, choice: _Choice) -> None:
        self._leave(choice)
        meta = Meta(call_id=call.id or call_id(self._ctx), name=call.name or "unknown_tool")
        b = self._open(BlockKind.TOOL, choice, meta)
        if sig is not None:
            self._out.append(SigEvent(b=b, sig=sig, choice=choice.index))
        self._out.append(Delta(b=b, s=args.decode("utf-8", "replace") or "{}", choice=choice.index))
        self._out.append(Close(b=b, choice=choice.index))

    def _blob(self, blob: Blob, part: Part, choice: _Choice, place: tuple[int, int], data: bytes) -> None:
        mime, b64 = blob.mimeType or blob.mime_type or "", blob.data
        kind = _MEDIA.get(media_kind(clean_mime(mime)))
        if kind is None or not b64 or part.thought:
            self._opaque(choice, place, data)
            return
        self._leave(choice)
        b = self._open(kind, choice, Meta(mime=mime))
        self._out.append(Delta(b=b, s=b64, choice=choice.index))
        sig = self._sig(part, SigKind.PART)
        if sig is not None:
            self._out.append(SigEvent(b=b, sig=sig, choice=choice.index))
        self._out.append(Close(b=b, choice=choice.index))

    def _step(self, kind: BlockKind, raw: bytes, choice: _Choice, server: str = "code") -> None:
        self._leave(choice)
        b = self._open(kind, choice, Meta(server=server, origin=ORIGIN, raw=raw))
        self._out.append(Close(b=b, choice=choice.index))

    def _opaque(self, choice: _Choice, place: tuple[int, int], data: bytes) -> None:
        raw = _span(data, place)
        if not wire.members(raw):
            return  # an empty part says nothing
        self._leave(choice)
        b = self._open(BlockKind.OPAQUE, choice, Meta(origin=ORIGIN, raw=raw))
        self._out.append(Close(b=b, choice=choice.index))

    # --- the end ---

    def _finish_choice(self, choice: _Choice) -> None:
        if choice.stopped:  # half a call is no call
            self._finish_partial(choice)
        if choice.grounding:
            self._cite(choice)
        if choice.probs and choice.b >= 0 and choice.kind is BlockKind.TEXT:  # all at the end
            self._out.append(Delta(b=choice.b, s="", probs=choice.probs, choice=choice.index))
            choice.probs = ()
        closing = [*choice.waiting, choice.b] if choice.b >= 0 else choice.waiting
        self._out.extend(Close(b=b, choice=choice.index, incomplete=not choice.stopped) for b in closing)
        choice.waiting, choice.b = [], -1
        if choice.grounding and search_from_gemini(choice.grounding).queries:
            self._step(BlockKind.SERVER_CALL, choice.grounding, choice, "web_search")

    def _cite(self, choice: _Choice) -> None:
        """Supports of a single frame name its parts; those of a stream can only mean the text as a whole."""
        said = choice.said
        if said and said[0].frame != said[-1].frame:
            pieces: dict[int, list[str]] = {}
            for entry in said:
                pieces.setdefault(entry.b, []).append(entry.text)
            said = [_Said(b, 0, "".join(texts), 0) for b, texts in pieces.items()]
        still_open = {*choice.waiting, choice.b}
        for part, annotation in from_gemini(choice.grounding, [entry.text for entry in said]):
            entry = said[part]
            if entry.b in still_open:
                annotation.start += entry.start
                annotation.end += entry.start
                self._out.append(Ann(b=entry.b, annotation=annotation, choice=choice.index))


def _elements(data: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        raise UpstreamProtocolError(_NOT_JSON) from None


def _span(data: bytes, place: tuple[int, int]) -> bytes:
    """A part of a frame undecoded; costs a pass over the frame, and is needed for what is unknown only."""
    candidates = wire.spans(wire.members(data).get("candidates", wire.ABSENT))
    if place[0] >= len(candidates):
        return b"{}"
    content = wire.members(candidates[place[0]]).get("content", wire.ABSENT)
    parts = wire.spans(wire.members(content).get("parts", wire.ABSENT))
    return bytes(parts[place[1]]) if place[1] < len(parts) else b"{}"


def open_parser(ctx: Context) -> Parser:
    """For one stream."""
    return Parser(ctx)


def parse_full(body: bytes, ctx: Context) -> list[IREvent]:
    """See `spoke.ParseFull`."""
    return Parser(ctx).full(body)
