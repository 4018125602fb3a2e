"""Answers of providers that speak Claude, read into events (translation 4.2).

A whole answer is read by the methods that read a stream: its blocks begin, and end, as they would there. Blocks of
tools that the provider runs are given out when they are complete, because only then their input is known.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import read_error_value
from cpa.formats.json import JsonError, decode, encode
from cpa.formats.names import Format
from cpa.translation.annotations import from_claude
from cpa.translation.claude import wire
from cpa.translation.claude.server_kinds import CALL_TYPES, call_kind, is_result, server_kind
from cpa.translation.claude.wire import Block, BlockDelta, Frame, given, raw_of
from cpa.translation.context import Context
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    Ping,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    Tokens,
    Usage,
)
from cpa.translation.stops import from_claude as read_reason
from cpa.translation.usage import from_claude as read_usage

ORIGIN: Final = Format.CLAUDE.value
UNKNOWN_TOOL: Final = "unknown_tool"
"""Name of a call whose beginning never came."""
MAX_BLOCKS: Final = 10_000
"""More blocks than any answer has; what comes after them is not read."""

_NOT_JSON: Final = "upstream sent a stream event that is not a JSON object"
_NO_MESSAGE: Final = "upstream answered with something that is not a message"
_EMPTY_INPUT: Final = (b"", b"{}", b"null")


@attrs.define(eq=False)
class _Open:
    """A block that has begun.

    Attributes:
      b: its number among the events; -1 for one that is given out when complete.
      input: of a tool, as it stood in the beginning; used unless deltas follow.
      raw: of a block that is given out whole; *pieces*: of its input.
    """

    b: int
    kind: BlockKind
    input: bytes = b""
    raw: bytes = b""
    meta: Meta = attrs.field(factory=Meta)
    pieces: list[str] = attrs.field(factory=list)


class Parser:
    """Reads one answer; see `spoke.StreamParser`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._out: list[IREvent] = []
        self._blocks: dict[int, _Open] = {}
        self._count = 0
        self._tokens: Tokens | None = None
        self._ended = False
        self._handlers: dict[str, Callable[[Frame], None]] = {
            "content_block_delta": self._block_delta,
            "content_block_start": self._block_start,
            "content_block_stop": self._block_stop,
            "message_start": self._message_start,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "ping": self._ping,
        }
        self._deltas: dict[str, Callable[[int, BlockDelta], None]] = {
            "text_delta": self._text,
            "thinking_delta": self._thinking,
            "input_json_delta": self._input,
            "signature_delta": self._signature,
            "citations_delta": self._citation,
        }

    def feed(self, name: str, data: bytes) -> list[IREvent]:
        """See `spoke.StreamParser.feed`. Raises: UpstreamProtocolError for data that is no JSON object."""
        if self._ended or data.strip() == b"[DONE]":
            return []
        try:
            frame = wire.read_frame(data)
        except JsonError as exc:
            raise UpstreamProtocolError(_NOT_JSON) from exc
        handler = self._handlers.get(frame.type or name)
        if handler is not None:
            handler(frame)
        elif frame.type == "error" or name == "error" or (given(frame.error) and frame.type is None):
            self._fail(data)
        out, self._out = self._out, []
        return out

    def finish(self) -> list[IREvent]:
        """See `spoke.StreamParser.finish`. What has not ended is no news: the normalizer judges the stream."""
        return []

    def full(self, body: bytes) -> list[IREvent]:
        """The events of a whole answer. Raises: UpstreamProtocolError."""
        try:
            answer = wire.read_answer(body)
        except JsonError as exc:
            raise UpstreamProtocolError(_NO_MESSAGE) from exc
        if answer.type == "error" or (given(answer.error) and not given(answer.content)):
            self._fail(body)
            return self._out
        content = _content(answer.content)
        if content is None:
            raise UpstreamProtocolError(_NO_MESSAGE)
        self._out.append(Start(id=answer.id or "", model=answer.model or ""))
        self._usage(answer.usage)
        for number, span in enumerate(content[:MAX_BLOCKS]):
            self._begin(number, span)
            self._end(number)
        if answer.stop_reason:
            self._stop(answer.stop_reason, answer.stop_sequence, answer.stop_details)
        self._out.append(End())
        return self._out

    # --- life cycle ---

    def _message_start(self, frame: Frame) -> None:
        try:
            message = wire.read_answer(frame.message)
        except JsonError:
            message = wire.Answer()
        self._out.append(Start(id=message.id or "", model=message.model or ""))
        self._usage(message.usage)

    def _message_delta(self, frame: Frame) -> None:
        # Usage is cumulative, and null erases nothing that was stated (4.2).
        self._usage(frame.usage)
        delta = frame.delta
        if delta is not None and delta.stop_reason:
            self._stop(delta.stop_reason, delta.stop_sequence, delta.stop_details)

    def _message_stop(self, frame: Frame) -> None:
        self._ended = True
        self._out.append(End())

    def _ping(self, frame: Frame) -> None:
        self._out.append(Ping())

    def _usage(self, raw: msgspec.Raw) -> None:
        if given(raw):
            self._tokens = read_usage(bytes(raw), self._tokens)
            self._out.append(Usage(tokens=self._tokens))

    def _stop(self, reason: str, sequence: str | None, details: msgspec.Raw) -> None:
        detail = ""
        if given(details):
            try:
                found = wire.read_stop_details(details)
            except JsonError:
                found = wire.StopDetails()
            detail = found.explanation or found.category or ""
        self._out.append(Stop(reason=read_reason(reason), detail=detail, sequence=sequence or ""))

    def _fail(self, data: bytes) -> None:
        self._ended = True
        try:
            error = read_error_value(decode(data))
        except JsonError as exc:
            raise UpstreamProtocolError(_NOT_JSON) from exc
        self._out.append(
            Err(
                status=error.status,
                message=error.message or "upstream reported an error without a message",
                code=error.code,
                retry_after_s=error.retry_after_s,
            )
        )

    # --- blocks ---

    def _block_start(self, frame: Frame) -> None:
        index = frame.index
        if index is None:
            index = max(self._blocks, default=-1) + 1
        if index in self._blocks:
            self._end(index)
        if given(frame.content_block):
            self._begin(index, frame.content_block)

    def _block_stop(self, frame: Frame) -> None:
        if frame.index is not None and frame.index in self._blocks:
            self._end(frame.index)

    def _block_delta(self, frame: Frame) -> None:
        delta = frame.delta
        if delta is None or frame.index is None:
            return
        handler = self._deltas.get(delta.type or "")
        if handler is not None:
            handler(frame.index, delta)

    def _begin(self, index: int, raw: msgspec.Raw) -> None:
        """A block begins, with whatever of it is there already."""
        try:
            block = wire.read_block(raw)
        except JsonError:
            return
        match block.type:
            case "text":
                opened = self._open(index, BlockKind.TEXT)
                self._delta(opened, block.text)
                self._citations(opened, block.citations)
            case "thinking":
                opened = self._open(index, BlockKind.REASONING)
                self._delta(opened, block.thinking)
                self._sign(opened, block.signature, SigKind.THINKING)
            case "redacted_thinking":
                opened = self._open(index, BlockKind.REASONING, Meta(redacted=True))
                self._sign(opened, block.data, SigKind.REDACTED)
            case "tool_use":
                meta = Meta(call_id=block.id or "", name=block.name or UNKNOWN_TOOL)
                opened = self._open(index, BlockKind.TOOL, meta)
                if opened is not None:
                    opened.input = raw_of(block.input)
            case _:
                self._hold(index, block, bytes(raw))

    def _hold(self, index: int, block: Block, raw: bytes) -> None:
        """A block of a server tool, or of a type that nobody here knows: given out at its end."""
        if len(self._blocks) >= MAX_BLOCKS:
            return
        kind, word = BlockKind.OPAQUE, block.type or ""
        meta = Meta(origin=ORIGIN)
        if word in CALL_TYPES:
            kind = BlockKind.SERVER_CALL
            meta.server, meta.call_id, meta.name = call_kind(word, block.name or ""), block.id or "", block.name or ""
        elif is_result(word):
            kind = BlockKind.SERVER_RESULT
            meta.server, meta.call_id = server_kind(word), block.tool_use_id or ""
        self._blocks[index] = _Open(b=-1, kind=kind, raw=raw, meta=meta)

    def _open(self, index: int, kind: BlockKind, meta: Meta | None = None) -> _Open | None:
        if self._count >= MAX_BLOCKS:
            return None
        opened = _Open(b=self._count, kind=kind)
        self._count += 1
        self._blocks[index] = opened
        self._out.append(Open(b=opened.b, kind=kind, meta=meta or Meta()))
        return opened

    def _end(self, index: int) -> None:
        opened = self._blocks.pop(index, None)
        if opened is None:
            return
        if opened.b < 0:
            opened.meta.raw = _with_input(opened.raw, "".join(opened.pieces))
            done = self._open(index, opened.kind, opened.meta)
            if done is None:
                return
            del self._blocks[index]
            opened = done
        elif opened.input not in _EMPTY_INPUT:
            self._out.append(Delta(b=opened.b, s=opened.input.decode("utf-8", "replace")))
        self._out.append(Close(b=opened.b))

    # --- deltas ---

    def _at(self, index: int, kind: BlockKind) -> _Open | None:
        """The block of a delta; one that never began begins now (4.2)."""
        opened = self._blocks.get(index)
        if opened is not None:
            return opened
        meta = Meta(name=UNKNOWN_TOOL) if kind is BlockKind.TOOL else None
        return self._open(index, kind, meta)

    def _delta(self, opened: _Open | None, text: str | None) -> None:
        if text and opened is not None and opened.b >= 0:
            self._out.append(Delta(b=opened.b, s=text))

    def _text(self, index: int, delta: BlockDelta) -> None:
        self._delta(self._at(index, BlockKind.TEXT), delta.text)

    def _thinking(self, index: int, delta: BlockDelta) -> None:
        self._delta(self._at(index, BlockKind.REASONING), delta.thinking)

    def _input(self, index: int, delta: BlockDelta) -> None:
        opened = self._at(index, BlockKind.TOOL)
        if opened is None or not delta.partial_json:
            return
        if opened.b < 0:
            opened.pieces.append(delta.partial_json)
            return
        opened.input = b""
        self._delta(opened, delta.partial_json)

    def _signature(self, index: int, delta: BlockDelta) -> None:
        self._sign(self._at(index, BlockKind.REASONING), delta.signature, SigKind.THINKING)

    def _sign(self, opened: _Open | None, data: str | None, kind: SigKind) -> None:
        if data and opened is not None and opened.b >= 0:
            # Opaque whatever it looks like: it goes back to this provider, or to another one of its family.
            sig = Sig(provenance=Provenance.CLAUDE, kind=kind, data=data, model=self._ctx.model)
            self._out.append(SigEvent(b=opened.b, sig=sig))

    def _citation(self, index: int, delta: BlockDelta) -> None:
        opened = self._at(index, BlockKind.TEXT)
        if opened is not None:
            self._cite(opened, delta.citation)

    def _citations(self, opened: _Open | None, raw: msgspec.Raw) -> None:
        if opened is not None and given(raw):
            for span in wire.spans(raw) or ():
                self._cite(opened, span)

    def _cite(self, opened: _Open, raw: msgspec.Raw) -> None:
        annotation = from_claude(bytes(raw)) if given(raw) and opened.b >= 0 else None
        if annotation is not None:
            self._out.append(Ann(b=opened.b, annotation=annotation))


def _content(raw: msgspec.Raw) -> list[msgspec.Raw] | None:
    """``content`` of an answer; some compatible servers send a string."""
    if not given(raw):
        return None
    text = wire.text_of(raw)
    if text is not None:
        return [msgspec.Raw(encode({"type": "text", "text": text}))]
    return wire.spans(raw)


def _with_input(raw: bytes, text: str) -> bytes:
    """The block *raw* with the input that came in pieces, if any came that can be read."""
    if not text:
        return raw
    try:
        members: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        members["input"] = msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return raw
    return encode(members)


def parse_full(body: bytes, ctx: Context) -> list[IREvent]:
    """See `spoke.ParseFull`."""
    return Parser(ctx).full(body)
