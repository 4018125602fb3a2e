"""Chat answers, streamed and whole, read into events (translation 4.3).

A whole answer is one chunk that says everything: both ways of answering have one meaning (law L2).
"""

from typing import Final

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import read_error_value
from cpa.formats.json import JsonError, decode
from cpa.formats.names import Format
from cpa.translation.annotations import from_openai
from cpa.translation.chat import wire
from cpa.translation.chat.calls import Calls
from cpa.translation.chat.details import SUMMARY, signature_of
from cpa.translation.chat.parts import read_image
from cpa.translation.chat.wire import AnswerChoice, AudioRef, Chunk, Delta, Detail, LogProbs, given, text_of
from cpa.translation.chat.wire import Part as WirePart
from cpa.translation.context import Context
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Channel,
    Close,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    TokenProb,
    Tokens,
    Usage,
)
from cpa.translation.ir import Delta as DeltaEvent
from cpa.translation.logprobs import read_openai
from cpa.translation.stops import INCOMPLETE, from_chat
from cpa.translation.usage import from_chat as usage_from_chat

DONE: Final = b"[DONE]"
NOT_JSON: Final = "upstream sent an event that is not a JSON object"
NO_ANSWER: Final = "upstream answered with something that is no chat completion"
FAILED: Final = "upstream ended its answer with an error"
MAX_CHOICES: Final = 128
"""The vendor's limit of ``n``."""
_NO_ERROR: Final = frozenset({b"", b"null", b"{}", b'""', b"false", b"[]"})
_TIERS: Final = {"default": "standard"}
_KNOWN_TIERS: Final = frozenset({"standard", "flex", "priority", "fast"})
_SINGLE: Final = (BlockKind.TEXT, BlockKind.REASONING, BlockKind.REFUSAL)


@attrs.define(eq=False)
class _Choice:
    """What is known of one choice.

    Attributes:
      calls: its tool calls.
      open: the blocks that are open, by kind; of text, reasoning and refusal at most one each.
      had_calls: it had calls before its end.
      plain_reasoning: its reasoning stands in a plain member, which details only repeat.
      signed: the open reasoning block has its signature: more reasoning is another block.
      pending: citations that wait for the end of the text.
      length: code points of the open text block; *before*: of those before it.
      probs: of tokens whose text has not come.
    """

    calls: Calls
    open: dict[BlockKind, int] = attrs.field(factory=dict)
    had_calls: bool = False
    plain_reasoning: bool = False
    signed: bool = False
    has_text: bool = False
    has_refusal: bool = False
    pending: list[Annotation] = attrs.field(factory=list)
    images: set[str] = attrs.field(factory=set)
    length: int = 0
    before: int = 0
    audio: int = -1
    probs: dict[BlockKind, tuple[TokenProb, ...]] = attrs.field(factory=dict)


class ChatParser:
    """Reads one stream; see `spoke.StreamParser`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._choices: dict[int, _Choice] = {}
        self._blocks = 0
        self._started = False
        self._ended = False
        self._tokens: Tokens | None = None
        self._stops = frozenset(ctx.request.sampling.stop) if ctx.request is not None else frozenset()

    def feed(self, name: str, data: bytes) -> list[IREvent]:
        """See `spoke.StreamParser.feed`."""
        if self._ended:
            return []
        if data.strip() == DONE:
            return self._end()
        chunk = wire.read(Chunk, data)
        out: list[IREvent] = []
        if chunk is None:
            self._fail(_not_an_object(data), out)
        elif name == "error" or _reports_error(chunk):
            self._fail(_read_error(data), out)
        else:
            self._chunk(chunk, out, whole=False)
        return out

    def finish(self) -> list[IREvent]:
        """See `spoke.StreamParser.finish`: whether it is an end or a truncation the normalizer decides."""
        return []

    def feed_whole(self, chunk: Chunk) -> list[IREvent]:
        """An answer that was not streamed."""
        out: list[IREvent] = []
        self._chunk(chunk, out, whole=True)
        if not self._ended:
            out += self._end()
        return out

    # --- chunks ---

    def _chunk(self, chunk: Chunk, out: list[IREvent], *, whole: bool) -> None:
        choices = chunk.choices or ()
        if not self._started and (chunk.id or choices):  # some hosts begin with an empty one, without an id
            self._started = True
            out.append(Start(id=chunk.id or "", model=chunk.model or "", created_unix=_seconds(chunk.created)))
        for place, found in enumerate(choices):
            number = found.index if found.index is not None else place
            if not 0 <= number < MAX_CHOICES:
                continue
            self._choice(number, found, out, whole=whole)
            if self._ended:
                return
            if given(found.usage) and not given(chunk.usage):
                self._usage(found.usage, "", out)  # where some hosts put it
        if given(chunk.usage):
            self._usage(chunk.usage, chunk.service_tier or "", out)

    def _choice(self, number: int, found: AnswerChoice, out: list[IREvent], *, whole: bool) -> None:
        state = self._choices.get(number)
        if state is None:
            state = self._choices[number] = _Choice(calls=Calls(self._ctx, number, self._new_block))
        delta = found.delta or found.message
        if given(found.logprobs):
            self._weigh(state, delta, found.logprobs)
        if delta is not None:
            self._delta(number, state, delta, out)
        # Present and null, or empty, is no end.
        reason = found.finish_reason or ("stop" if whole or found.message is not None else "")
        if reason:
            self._finish(number, state, reason, found, out)

    def _weigh(self, state: _Choice, delta: Delta | None, raw: msgspec.Raw) -> None:
        """Probabilities belong to what is said beside them. Some hosts tell those of reasoning or of a call in the same
        place, which nobody else could tell from those of text."""
        probs = wire.read(LogProbs, raw)
        if probs is None:
            return
        other = delta is not None and not (delta.content or delta.refusal)
        if delta is not None and other and (delta.reasoning_content or delta.reasoning or delta.tool_calls):
            return
        for kind, told in ((BlockKind.TEXT, probs.content), (BlockKind.REFUSAL, probs.refusal)):
            tokens = read_openai(told) if given(told) else ()
            if tokens:
                state.probs[kind] = state.probs.get(kind, ()) + tokens

    def _usage(self, raw: msgspec.Raw, tier: str, out: list[IREvent]) -> None:
        self._tokens = usage_from_chat(bytes(raw), self._tokens)
        tier = _TIERS.get(tier, tier)
        if tier in _KNOWN_TIERS:
            self._tokens.tier = tier
        out.append(Usage(tokens=self._tokens))

    # --- content ---

    def _delta(self, number: int, state: _Choice, delta: Delta, out: list[IREvent]) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning:
            state.plain_reasoning = True
            self._reason(number, state, reasoning, Channel.RAW, out)
        for detail in delta.reasoning_details or ():
            self._detail(number, state, detail, out)
        content = delta.content
        if content:
            if isinstance(content, str):
                self._say(number, state, content, out)
            else:
                for part in content:
                    self._part(number, state, part, out)
        for raw in delta.annotations or ():
            self._cite(state, raw)
        if delta.refusal:
            state.has_refusal = True
            self._write(number, state, BlockKind.REFUSAL, delta.refusal, out)
        if delta.audio is not None:
            self._audio(number, state, delta.audio, out)
        for image in delta.images or ():
            self._image(number, state, image, out)
        if delta.tool_calls or delta.function_call is not None:
            self._call(number, state, delta, out)

    def _call(self, number: int, state: _Choice, delta: Delta, out: list[IREvent]) -> None:
        entries = [
            entry
            for entry in delta.tool_calls or ()
            if entry.function is not None or entry.custom is not None or entry.id is not None
        ]
        if not entries and delta.function_call is not None:
            entries = [wire.ToolCall(index=0, function=delta.function_call)]
        if entries:
            self._close(number, state, _SINGLE, out)
        for entry in entries:
            state.calls.feed(entry, out)

    def _say(self, number: int, state: _Choice, text: str, out: list[IREvent]) -> None:
        state.has_text = True
        if BlockKind.REASONING in state.open:
            self._close(number, state, (BlockKind.REASONING,), out)
        self._write(number, state, BlockKind.TEXT, text, out)
        state.length += len(text)

    def _part(self, number: int, state: _Choice, part: WirePart, out: list[IREvent]) -> None:
        """One part of a content that is a list, of compatible hosts."""
        if part.image_url is not None:
            self._image(number, state, part, out)
        elif part.refusal:
            state.has_refusal = True
            self._write(number, state, BlockKind.REFUSAL, part.refusal, out)
        elif given(part.thinking):
            text = text_of(part.thinking)
            texts = [text] if text else [inner.text for inner, _ in wire.read_list(WirePart, part.thinking)]
            for piece in texts:
                if piece:
                    self._reason(number, state, piece, Channel.RAW, out)
        elif part.text:
            self._say(number, state, part.text, out)

    def _write(self, number: int, state: _Choice, kind: BlockKind, text: str, out: list[IREvent]) -> None:
        b = state.open.get(kind)
        if b is None:
            b = self._open(number, state, kind, Meta(), out)
        probs = state.probs.pop(kind, ()) if state.probs else ()
        out.append(DeltaEvent(b=b, s=text, probs=probs, choice=number))

    # --- reasoning ---

    def _reason(self, number: int, state: _Choice, text: str, channel: Channel, out: list[IREvent]) -> None:
        if state.signed:
            self._close(number, state, (BlockKind.REASONING,), out)
        b = state.open.get(BlockKind.REASONING)
        if b is None:
            self._close(number, state, (BlockKind.TEXT, BlockKind.REFUSAL), out)
            b = self._open(number, state, BlockKind.REASONING, Meta(channel=channel), out)
        out.append(DeltaEvent(b=b, s=text, choice=number))

    def _detail(self, number: int, state: _Choice, detail: Detail, out: list[IREvent]) -> None:
        """Text only where the plain members do not say the same; opaque state always (2.10)."""
        text = detail.text or detail.summary
        if text and not state.plain_reasoning:
            channel = Channel.SUMMARY if detail.type == SUMMARY else Channel.RAW
            self._reason(number, state, text, channel, out)
        sig = signature_of(detail)
        if sig is None:
            return
        if sig.kind is SigKind.PART:
            b = state.open.get(BlockKind.TEXT, -1) if not sig.of_call else -1
            out.append(SigEvent(b=b, sig=sig, choice=number))
        elif sig.kind is SigKind.REDACTED:
            self._close(number, state, (BlockKind.REASONING,), out)
            b = self._open(number, state, BlockKind.REASONING, Meta(redacted=True), out)
            out.append(SigEvent(b=b, sig=sig, choice=number))
            self._close(number, state, (BlockKind.REASONING,), out)
        else:
            self._signed(number, state, sig, out)

    def _signed(self, number: int, state: _Choice, sig: Sig, out: list[IREvent]) -> None:
        b = state.open.get(BlockKind.REASONING)
        if b is None or (state.signed and sig.kind is SigKind.ENCRYPTED):
            self._close(number, state, (BlockKind.REASONING,), out)
            b = self._open(number, state, BlockKind.REASONING, Meta(), out)
        state.signed = True
        out.append(SigEvent(b=b, sig=sig, choice=number))

    # --- media and citations ---

    def _image(self, number: int, state: _Choice, part: WirePart, out: list[IREvent]) -> None:
        media = read_image(part.image_url)
        if media is None:
            return
        known = media.url or media.b64
        if known in state.images:
            return  # some hosts repeat them on every chunk
        state.images.add(known)
        if media.url:
            self._say(number, state, f"![image]({media.url})", out)
            return
        self._close(number, state, _SINGLE, out)
        b = self._new_block()
        out.append(Open(b=b, kind=BlockKind.IMAGE, meta=Meta(mime=media.mime), choice=number))
        out.append(DeltaEvent(b=b, s=media.b64, choice=number))
        out.append(Close(b=b, choice=number))

    def _audio(self, number: int, state: _Choice, audio: AudioRef, out: list[IREvent]) -> None:
        if audio.data:
            if state.audio < 0:
                state.audio = self._new_block()
                meta = Meta(mime=self._audio_mime(), item_id=audio.id or "")
                out.append(Open(b=state.audio, kind=BlockKind.AUDIO, meta=meta, choice=number))
            out.append(DeltaEvent(b=state.audio, s=audio.data, choice=number))
        if audio.transcript:
            self._say(number, state, audio.transcript, out)

    def _audio_mime(self) -> str:
        request = self._ctx.request
        try:
            found = decode(request.output.audio) if request is not None and request.output.audio else {}
        except JsonError:
            found = {}
        form = found.get("format") if isinstance(found, dict) else None
        return {"mp3": "audio/mpeg", "pcm16": "audio/pcm"}.get(str(form), f"audio/{form}" if form else "audio/wav")

    def _cite(self, state: _Choice, raw: msgspec.Raw) -> None:
        annotation = from_openai(bytes(raw), origin=Format.OPENAI)
        if annotation is not None:
            state.pending.append(annotation)

    # --- blocks ---

    def _new_block(self) -> int:
        self._blocks += 1
        return self._blocks - 1

    def _open(self, number: int, state: _Choice, kind: BlockKind, meta: Meta, out: list[IREvent]) -> int:
        b = state.open[kind] = self._new_block()
        out.append(Open(b=b, kind=kind, meta=meta, choice=number))
        return b

    def _close(
        self,
        number: int,
        state: _Choice,
        kinds: tuple[BlockKind, ...],
        out: list[IREvent],
        *,
        incomplete: bool = False,
    ) -> None:
        for kind in kinds:
            b = state.open.pop(kind, None)
            if b is None:
                continue
            if state.probs and (late := state.probs.pop(kind, ())):
                out.append(DeltaEvent(b=b, s="", probs=late, choice=number))
            if kind is BlockKind.TEXT:
                self._flush_citations(number, state, b, out)
            elif kind is BlockKind.REASONING:
                state.signed = False
            out.append(Close(b=b, incomplete=incomplete, choice=number))

    def _flush_citations(self, number: int, state: _Choice, b: int, out: list[IREvent]) -> None:
        """Offsets count from the message's beginning; in events from the block's (3.5)."""
        for annotation in state.pending:
            if annotation.end >= 0:
                annotation.start = max(0, annotation.start - state.before)
                annotation.end = min(max(annotation.start, annotation.end - state.before), state.length)
            out.append(Ann(b=b, annotation=annotation, choice=number))
        state.pending.clear()
        state.before += state.length
        state.length = 0

    # --- ends ---

    def _finish(self, number: int, state: _Choice, reason: str, found: AnswerChoice, out: list[IREvent]) -> None:
        stop = from_chat(
            reason,
            has_tools=state.had_calls or state.calls.has_calls,
            has_refusal=state.has_refusal,
            has_text=state.has_text,
        )
        if stop is None:
            self._fail(Err(status=502, message=FAILED, code="upstream_error"), out)
            return
        self._close_all(number, state, out, incomplete=stop in INCOMPLETE)
        sequence = text_of(found.stop_reason) or ""
        if stop is StopReason.STOP and sequence and sequence in self._stops:
            stop = StopReason.STOP_SEQUENCE
        else:
            sequence = ""
        detail = reason if stop in (StopReason.OTHER, StopReason.REFUSAL) else ""
        out.append(Stop(reason=stop, detail=detail, sequence=sequence, choice=number))

    def _close_all(self, number: int, state: _Choice, out: list[IREvent], *, incomplete: bool = False) -> None:
        if state.pending and BlockKind.TEXT not in state.open:
            self._ctx.lose("annotations", "citations without text", dropped=True)
            state.pending.clear()
        self._close(number, state, _SINGLE, out, incomplete=incomplete)
        if state.audio >= 0:
            out.append(Close(b=state.audio, incomplete=incomplete, choice=number))
            state.audio = -1
        state.had_calls = state.had_calls or state.calls.has_calls
        state.calls.finish(out, incomplete=incomplete)

    def _end(self) -> list[IREvent]:
        """The provider says that this was all; calls that wait for more are as complete as they will be."""
        self._ended = True
        out: list[IREvent] = []
        for number, state in self._choices.items():
            self._close_all(number, state, out)
        out.append(End())
        return out

    def _fail(self, error: Err, out: list[IREvent]) -> None:
        self._ended = True
        out.append(error)


def parse_full(body: bytes, ctx: Context) -> list[IREvent]:
    """The events of a whole answer; an error in it is an `Err`. See `spoke.ParseFull`."""
    chunk = wire.read(Chunk, body)
    if chunk is None:
        error = _not_an_object(body)
        if error.message == NOT_JSON:
            raise UpstreamProtocolError(NO_ANSWER)
        return [error]
    if _reports_error(chunk):
        return [_read_error(body)]
    if chunk.choices is None:
        raise UpstreamProtocolError(NO_ANSWER)
    return ChatParser(ctx).feed_whole(chunk)


# --- errors ----------------------------------------------------------------------------------------------------------


def _reports_error(chunk: Chunk) -> bool:
    """``"error": null`` does not; a bare message is one only where there is no answer."""
    if given(chunk.error) and bytes(chunk.error) not in _NO_ERROR:
        return True
    if chunk.choices is not None or given(chunk.usage):
        return False
    return chunk.type == "error" or given(chunk.message) or given(chunk.detail)


def _read_error(data: bytes) -> Err:
    try:
        error = read_error_value(decode(data))
    except JsonError:
        return _not_an_object(data)
    return Err(
        status=error.status,
        message=error.message or FAILED,
        code=error.code,
        retry_after_s=error.retry_after_s,
    )


def _not_an_object(data: bytes) -> Err:
    """Google's host of this protocol wraps its errors into a list."""
    if data.lstrip()[:1] == b"[" and _is_json(data):
        error = read_error_value(decode(data))
        if error.message:
            return Err(status=error.status, message=error.message, code=error.code, retry_after_s=error.retry_after_s)
    return Err(status=502, message=NOT_JSON, code="upstream_error")


def _is_json(data: bytes) -> bool:
    try:
        decode(data)
    except JsonError:
        return False
    return True


def _seconds(created: float | None) -> int:
    return int(created) if created is not None and 0 < created < 1 << 53 else 0
