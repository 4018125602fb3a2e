"""Answers for Gemini clients: a stream of answers, each with a few more parts, or one with all (translation 4.9).

Theory of operation. `_Writer` turns events into parts and hands them to a sink. The sink of a stream frames each part
as it comes; that of a whole answer collects them. So both say the same, and a whole answer is the fold of the stream.

Text and thoughts go out as they come. Calls go out whole, when they close, and media likewise. Of what was opened while
an earlier call is still open everything waits, so that the order of an answer is kept. `finishReason` and usage stand
in the last frame only, beside an empty text, because simple clients look at the first part without looking.
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import WireError
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.translation.annotations import (
    Search,
    search_from_claude,
    search_from_gemini,
    search_from_responses,
    to_gemini,
)
from cpa.translation.context import Context
from cpa.translation.gemini.frames import Frames, Sink, Whole
from cpa.translation.gemini.media_parts import ORIGIN
from cpa.translation.ids import answer_id
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    PartBreak,
    Sig,
    SigEvent,
    Start,
    Stop,
    StopReason,
    TokenProb,
    Tokens,
    Usage,
)
from cpa.translation.signatures import carry, wrap
from cpa.translation.stops import from_gemini
from cpa.translation.stops import to_gemini as reason_to_gemini
from cpa.translation.tools import repair_arguments
from cpa.translation.usage import to_gemini as usage_to_gemini

END_MARK: Final = b""
"""What a stream of events ends with: nothing. Google's clients fail on ``[DONE]``, comments and `event:` lines."""
MAX_HELD_CHARS: Final = 8 * 1024 * 1024
"""Of text that waits for a call before it; beyond it the order is given up rather than the answer."""

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}")
_BLOCK_REASONS: Final = frozenset(
    {"SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"}
)
_STREAMED: Final = frozenset({BlockKind.TEXT, BlockKind.REASONING, BlockKind.REFUSAL})
_TOOLS: Final = frozenset({BlockKind.TOOL, BlockKind.CUSTOM_TOOL})
_MEDIA: Final = frozenset({BlockKind.IMAGE, BlockKind.AUDIO})
_WAITED_FOR: Final = _TOOLS | _MEDIA
_DEFAULT_MIMES: Final = {BlockKind.IMAGE: "image/png", BlockKind.AUDIO: "audio/wav"}


@attrs.define(eq=False)
class _Part:
    """A part of the answer as a client has it that puts adjacent texts together; empty for what is no text."""

    pieces: list[str] = attrs.field(factory=list)
    length: int = 0
    annotations: list[Annotation] = attrs.field(factory=list)


@attrs.define(eq=False)
class _Block:
    """A block of the answer.

    Attributes:
      held: it waits for a call before it; what it says is kept in *pending*.
      pending: what has not been said: of a held block, or of one that is said as a whole.
      part, offset: where the text of the block begins. *annotations*: those that came before it.
      breaks: a boundary between parts of reasoning is due before the next text.
    """

    kind: BlockKind
    meta: Meta
    choice: int
    held: bool = False
    closed: bool = False
    failed: bool = False
    pending: list[str] = attrs.field(factory=list)
    part: _Part | None = None
    offset: int = 0
    sig: Sig | None = None
    breaks: bool = False
    annotations: list[Annotation] = attrs.field(factory=list)
    probs: tuple[TokenProb, ...] = ()


@attrs.define(eq=False)
class _Choice:
    """One candidate. *parts*: all that was said; *last_kind*: of the last of them, ``text`` and ``thought`` go on.

    *weight*: the sum of its tokens' logarithmic probabilities; *weighed*: how many they are.
    """

    waiting: deque[_Block] = attrs.field(factory=deque)
    parts: list[_Part] = attrs.field(factory=list)
    last_kind: str = ""
    queries: list[str] = attrs.field(factory=list)
    stop: Stop | None = None
    said: bool = False
    weight: float = 0.0
    weighed: int = 0


class _Writer:
    """Events to parts."""

    def __init__(self, ctx: Context, sink: Sink) -> None:
        self._ctx = ctx
        self._sink = sink
        request = ctx.request
        self._hide_thoughts = request is not None and request.reasoning.visible is False
        self._blocks: dict[int, _Block] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Tokens | None = None
        self._held_chars = 0
        self._handlers: dict[type[IREvent], Callable[[Any], bytes]] = {
            Delta: self._delta,
            Start: self._start,
            Open: self._open,
            PartBreak: self._break,
            SigEvent: self._signature,
            Ann: self._citation,
            Close: self._close,
            Usage: self._note_usage,
            Stop: self._note_stop,
            End: self._end,
        }

    def feed(self, event: IREvent) -> bytes:
        """What the sink makes of *event*."""
        handler = self._handlers.get(type(event))
        return handler(event) if handler is not None else b""

    # --- the answer ---

    def _start(self, event: Start) -> bytes:
        ctx = self._ctx
        model = event.model if ctx.settings.report_provider_model and event.model else ctx.client_model
        members = {"modelVersion": model, "responseId": answer_id(event.id, Format.GEMINI, ctx)}
        self._sink.begin(encode(members)[1:-1])
        return b""

    def _note_usage(self, event: Usage) -> bytes:
        self._usage = event.tokens
        return b""

    def _note_stop(self, event: Stop) -> bytes:
        self._choice(event.choice).stop = event
        return b""

    def _choice(self, index: int) -> _Choice:
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = _Choice()
        return found

    def _end(self, event: End) -> bytes:
        members: dict[str, Any] = {}
        if self._usage is not None:
            members["usageMetadata"] = usage_to_gemini(self._usage)
        only = self._choices.get(0) if len(self._choices) <= 1 else None
        if only is not None and not only.said and only.stop is not None and only.stop.reason is StopReason.REFUSAL:
            reason, message = _split_detail(only.stop.detail, _BLOCK_REASONS)
            feedback = {"blockReason": reason or "OTHER"}
            if message:
                feedback["blockReasonMessage"] = message
            return self._sink.last({}, _members({"promptFeedback": feedback, **members}))
        endings = {index: self._ending(choice) for index, choice in sorted(self._choices.items())}
        return self._sink.last(endings or {0: b'"finishReason":"STOP"'}, _members(members))

    def _ending(self, choice: _Choice) -> bytes:
        stop = choice.stop or Stop(reason=StopReason.STOP)
        word, message = _split_detail(stop.detail, None)
        if self._ctx.provider is not Format.GEMINI or not word or from_gemini(word) is not stop.reason:
            word, message = reason_to_gemini(stop.reason), stop.detail
        ending: dict[str, Any] = {"finishReason": word}
        if message and stop.reason in (StopReason.REFUSAL, StopReason.MALFORMED_CALL, StopReason.OTHER):
            ending["finishMessage"] = message
        if choice.weighed:
            ending["avgLogprobs"] = choice.weight / choice.weighed
        if choice.queries or any(part.annotations for part in choice.parts):
            blocks = [("".join(part.pieces), part.annotations) for part in choice.parts]
            grounding = to_gemini(blocks, tuple(dict.fromkeys(choice.queries)))
            if grounding is not None:
                ending["groundingMetadata"] = grounding
        return encode(ending)[1:-1]

    # --- blocks ---

    def _open(self, event: Open) -> bytes:
        block = _Block(event.kind, event.meta, event.choice)
        self._blocks[event.b] = block
        choice = self._choice(event.choice)
        if choice.waiting or event.kind in _WAITED_FOR:
            block.held = True
            choice.waiting.append(block)
        return b""

    def _delta(self, event: Delta) -> bytes:
        block = self._blocks.get(event.b)
        if block is None:
            return b""
        if block.held or block.kind not in _STREAMED:
            if block.breaks:
                block.breaks = False
                block.pending.append("\n\n")
            block.pending.append(event.s)
            block.probs += event.probs
            if block.kind in _STREAMED:
                self._held_chars += len(event.s)
                if self._held_chars > MAX_HELD_CHARS:
                    return self._release(block)
            return b""
        return self._say(block, event.s, event.probs)

    def _say(self, block: _Block, text: str, probs: tuple[TokenProb, ...] = ()) -> bytes:
        if block.breaks:
            block.breaks = False
            text = "\n\n" + text
        choice = self._choices[block.choice]
        if block.kind is BlockKind.REASONING:
            if self._hide_thoughts:
                return b""
            self._place(choice, "thought")
            return self._sink.text(block.choice, text, thought=True)
        self._place(choice, "text")
        part = choice.parts[-1]
        if block.part is None:
            block.part, block.offset = part, part.length
            part.annotations.extend(_moved(annotation, part.length) for annotation in block.annotations)
        part.pieces.append(text)
        part.length += len(text)
        if probs:
            choice.weight += sum(found.logprob for found in probs)
            choice.weighed += len(probs)
        return self._sink.text(block.choice, text, thought=False, probs=probs)

    def _place(self, choice: _Choice, kind: str) -> None:
        """Note that something of *kind* follows."""
        choice.said = True
        if kind != choice.last_kind:
            choice.last_kind = kind if kind in ("text", "thought") else ""
            choice.parts.append(_Part())

    def _release(self, block: _Block) -> bytes:
        """Let *block* go before what it waited for."""
        block.held = False
        pending, block.pending = "".join(block.pending), []
        self._held_chars -= len(pending)
        self._choices[block.choice].waiting.remove(block)
        return self._say(block, pending, self._held_probs(block)) if pending else b""

    def _break(self, event: PartBreak) -> bytes:
        block = self._blocks.get(event.b)
        if block is not None:
            block.breaks = True
        return b""

    def _signature(self, event: SigEvent) -> bytes:
        block = self._blocks.get(event.b)
        if block is not None:
            block.sig = event.sig  # a later one replaces it
            return b""
        self._place(self._choice(event.choice), "signature")
        return self._sink.part(event.choice, encode({"text": "", "thoughtSignature": _carried(event.sig)}))

    def _citation(self, event: Ann) -> bytes:
        block = self._blocks.get(event.b)
        if block is None:
            return b""
        if block.part is None:
            block.annotations.append(event.annotation)
        else:
            block.part.annotations.append(_moved(event.annotation, block.offset))
        return b""

    def _close(self, event: Close) -> bytes:
        block = self._blocks.pop(event.b, None)
        if block is None:
            return b""
        block.closed, block.failed = True, event.failed
        if block.held:
            return self._drain(self._choices[block.choice])
        return self._finish(block)

    def _drain(self, choice: _Choice) -> bytes:
        """What need not wait any longer: up to the first call that is still open."""
        out = b""
        waiting = choice.waiting
        while waiting and (waiting[0].closed or waiting[0].kind in _STREAMED):
            block = waiting.popleft()
            block.held = False
            if block.kind in _STREAMED:
                pending, block.pending = "".join(block.pending), []
                self._held_chars -= len(pending)
                out += self._say_whole(block, pending)
            if block.closed:
                out += self._finish(block)
        return out

    def _say_whole(self, block: _Block, text: str) -> bytes:
        if not text:
            return b""
        breaks, block.breaks = block.breaks, False  # that of what follows
        out = self._say(block, text, self._held_probs(block))
        block.breaks = breaks
        return out

    def _held_probs(self, block: _Block) -> tuple[TokenProb, ...]:
        probs, block.probs = block.probs, ()
        return probs

    def _finish(self, block: _Block) -> bytes:
        """What a block says when it ends."""
        if block.failed:
            return b""  # half a call would be taken for a whole one; an error follows
        kind = block.kind
        if kind in _STREAMED:
            return self._sign_end(block)
        if kind in _TOOLS:
            return self._whole(block, self._call(block))
        if kind in _MEDIA:
            data = "".join(block.pending)
            mime = block.meta.mime or _DEFAULT_MIMES[kind]
            return self._whole(block, {"inlineData": {"mimeType": mime, "data": data}}) if data else b""
        return self._step(block)

    def _sign_end(self, block: _Block) -> bytes:
        if block.sig is None:
            return b""
        part: dict[str, Any] = {"text": ""}
        if block.kind is BlockKind.REASONING:
            part["thought"] = True
        return self._whole(block, part)

    def _whole(self, block: _Block, part: dict[str, Any]) -> bytes:
        if block.sig is not None:
            part["thoughtSignature"] = _carried(block.sig)
        self._place(self._choices[block.choice], "part")
        return self._sink.part(block.choice, encode(part))

    def _call(self, block: _Block) -> dict[str, Any]:
        meta = block.meta
        name = meta.name if meta.namespace else self._ctx.names.to_client(meta.name)[1]
        text = "".join(block.pending)
        args = encode({"input": text}) if block.kind is BlockKind.CUSTOM_TOOL else repair_arguments(text)
        return {"functionCall": {"id": meta.call_id, "name": name, "args": msgspec.Raw(args)}}

    def _step(self, block: _Block) -> bytes:
        """Steps of the provider's own tools, and what only its family knows."""
        meta, choice = block.meta, self._choices[block.choice]
        if meta.server == "web_search":
            if block.kind is BlockKind.SERVER_CALL:
                choice.queries.extend(_search(meta).queries)
            return b""
        if meta.origin != ORIGIN or not meta.raw.startswith(b"{"):
            self._ctx.lose(f"answer.{meta.server or block.kind.value}", "a step of the provider's tool", dropped=True)
            return b""
        self._place(choice, "part")
        return self._sink.part(block.choice, meta.raw)


def _search(meta: Meta) -> Search:
    match meta.origin:
        case Format.CLAUDE:
            return search_from_claude(meta.raw)
        case Format.GEMINI:
            return search_from_gemini(meta.raw)
        case _:
            return search_from_responses(meta.raw)


def _moved(annotation: Annotation, offset: int) -> Annotation:
    """A citation of a block that does not begin where its part does."""
    end = annotation.end + offset if annotation.end >= 0 else -1
    return msgspec.structs.replace(annotation, start=max(0, annotation.start) + offset, end=end)


def _carried(sig: Sig) -> str:
    """A signature as this client carries it: always base64, as Google's SDK demands."""
    data = carry(sig, Format.GEMINI)
    return data if _BASE64.fullmatch(data) and len(data.rstrip("=")) % 4 != 1 else wrap(sig)


def _split_detail(detail: str, known: frozenset[str] | None) -> tuple[str, str]:
    """(the reason in Google's words, the message) of a `Stop.detail`; no reason if it begins otherwise."""
    word, _, message = detail.partition(": ")
    if word in known if known is not None else re.fullmatch(r"[A-Z]+(?:_[A-Z]+)*", word):
        return word, message
    return "", detail


def _members(members: dict[str, Any]) -> bytes:
    return encode(members)[1:-1]


# --- emitters --------------------------------------------------------------------------------------------------------


class Emitter:
    """Writes one stream; see `spoke.StreamEmitter`."""

    def __init__(self, ctx: Context, frames: Frames) -> None:
        self._frames = frames
        self._writer = _Writer(ctx, frames)

    def feed(self, event: IREvent) -> bytes:
        """See `spoke.StreamEmitter.feed`."""
        if isinstance(event, Err):
            return self._frames.error(_wire_error(event))
        return self._writer.feed(event)


def open_emitter(ctx: Context) -> Emitter:
    """For one stream of events, as clients ask for it by ``alt=sse``."""
    return Emitter(ctx, Frames())


def array_frames(ctx: Context) -> Emitter:
    """For one stream as a JSON array, which clients get that do not ask for ``alt=sse``."""
    return Emitter(ctx, Frames(array=True))


def emit_full(events: list[IREvent], ctx: Context) -> bytes:
    """See `spoke.EmitFull`. Raises: UpstreamProtocolError for events that end in an error."""
    writer = _Writer(ctx, Whole())
    out = b""
    for event in events:
        if isinstance(event, Err):
            raise UpstreamProtocolError(event.message, code=event.code or None, http_status=event.status)
        out += writer.feed(event)
    return out


def _wire_error(event: Err) -> WireError:
    return WireError(status=event.status, message=event.message, code=event.code, retry_after_s=event.retry_after_s)
