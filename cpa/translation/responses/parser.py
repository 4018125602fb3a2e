"""Answers of providers that speak Responses, read into events (translation 4.4).

Theory of operation. Items are known by their place in the output and by their id, never by the order of events. Each
text, refusal or reasoning of an item is a block of its own. Whatever an event left out, later ones fill in: the item's
own ``done`` event, and at last the output of the whole response, which is also all that a plain answer has. So there
is one way to finish an item (`_Item` filled from its object), and `parse_full` is the terminal event alone.

What came twice counts once; text that differs from what was streamed the normalizer judges (E6).
"""

from collections.abc import Callable
from typing import Final

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import read_error_value
from cpa.formats.faults import make_fault
from cpa.formats.json import JsonError, decode
from cpa.formats.names import Format
from cpa.translation.annotations import from_openai
from cpa.translation.context import Context
from cpa.translation.ids import created_unix
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Channel,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Meta,
    Open,
    PartBreak,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from cpa.translation.responses import wire
from cpa.translation.responses.wire import Answer, Event, Item, Part, given, raw_of
from cpa.translation.signatures import unwrap
from cpa.translation.stops import from_responses
from cpa.translation.usage import from_responses as read_usage

ORIGIN: Final = Format.OPENAI_RESPONSE.value
TIMEOUT_STATUS: Final = 408
"""Of a codex stream without a terminal event: the request may be tried on another credential (2.19)."""
MAX_ITEMS: Final = 10_000
"""More items than any answer has; what comes after them is not read."""

_TOOL_KINDS: Final = {"function_call": BlockKind.TOOL, "custom_tool_call": BlockKind.CUSTOM_TOOL}
_SERVER_KINDS: Final = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcp",
    "mcp_approval_request": "mcp",
    "local_shell_call": "other",
    "shell_call": "other",
    "apply_patch_call": "other",
    "computer_call": "other",
    "tool_search_call": "other",
}
_TIERS: Final = {"default": "standard"}
_STARTS: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS: Final = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}


@attrs.define(eq=False)
class _Block:
    """One block of the answer. *pieces*: of the part that is being read, for reasoning only."""

    b: int
    open: bool = True
    pieces: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class _Item:
    """One item of the output.

    Attributes:
      blocks: of a message by ``content_index``; of anything else one, at 0.
      waiting: argument text that came before the call's name.
      part: number of the reasoning part that is being read; *breaks*: a boundary is due before the next text.
    """

    index: int
    kind: str = ""
    id: str = ""
    call_id: str = ""
    phase: str = ""
    name: str = ""
    namespace: str = ""
    blocks: dict[int, _Block] = attrs.field(factory=dict)
    waiting: list[str] = attrs.field(factory=list)
    channel: Channel | None = None
    part: int = -1
    done: bool = False


class Parser:
    """Reads one stream; see `spoke.StreamParser`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._out: list[IREvent] = []
        self._items: dict[int, _Item] = {}
        self._ids: dict[str, _Item] = {}
        self._calls: set[str] = set()
        self._last: _Item | None = None
        self._images: set[int] = set()
        self._blocks = 0
        self._started = False
        self._ended = False
        self._has_calls = False
        self._has_refusal = False
        self._has_text = False
        self._usage: Tokens | None = None
        self._handlers: dict[str, Callable[[Event], None]] = {
            "response.output_text.delta": self._text_delta,
            "response.refusal.delta": self._refusal_delta,
            "response.function_call_arguments.delta": self._arguments_delta,
            "response.custom_tool_call_input.delta": self._arguments_delta,
            "response.reasoning_summary_text.delta": self._summary_delta,
            "response.reasoning_text.delta": self._raw_delta,
            "response.output_item.added": self._item_added,
            "response.output_item.done": self._item_done,
            "response.content_part.added": self._part_added,
            "response.content_part.done": self._part_done,
            "response.output_text.done": self._text_done,
            "response.refusal.done": self._text_done,
            "response.output_text.annotation.added": self._annotation,
            "response.function_call_arguments.done": self._arguments_done,
            "response.custom_tool_call_input.done": self._arguments_done,
            "response.reasoning_summary_text.done": self._summary_done,
            "response.reasoning_text.done": self._raw_done,
        }

    def feed(self, name: str, data: bytes) -> list[IREvent]:
        """See `spoke.StreamParser.feed`. Raises: UpstreamProtocolError for data that is no JSON object."""
        if self._ended or data.strip() == b"[DONE]":
            return []
        event = wire.read(Event, data)
        if event is None:
            raise UpstreamProtocolError("upstream sent a stream event that is not a JSON object")
        kind = event.type or name
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(event)
        elif kind in _STARTS:
            self._start(wire.read(Answer, event.response) if given(event.response) else None)
        elif kind in _ENDS:
            self._end(kind, data, wire.read(Answer, event.response) if given(event.response) else None)
        elif kind in ("error", "response.error") or (given(event.error) and not event.type):
            self._fail(data)
        out, self._out = self._out, []
        return out

    def finish(self) -> list[IREvent]:
        """See `spoke.StreamParser.finish`."""
        if self._ended or not self._started or not self._ctx.profile.codex:
            return []
        self._ended = True
        return [Err(status=TIMEOUT_STATUS, message="upstream stream closed before a terminal event", code="stream_cut")]

    def full(self, body: bytes) -> list[IREvent]:
        """The events of a whole response object. Raises: UpstreamProtocolError."""
        answer = wire.read(Answer, body)
        if answer is None:
            raise UpstreamProtocolError("upstream answered with something that is not a JSON object")
        if answer.output is None and given(answer.error):
            self._fail(body)
        elif answer.output is None and answer.status not in ("failed", "cancelled"):
            raise UpstreamProtocolError("upstream answered with something that is not a response")
        else:
            self._end(f"response.{answer.status or 'completed'}", body, answer)
        out, self._out = self._out, []
        return out

    # --- life cycle ---

    def _start(self, answer: Answer | None) -> None:
        if self._started:
            return
        self._started = True
        found = answer or Answer()
        stated = found.created_at or 0
        created = created_unix(stated, self._ctx) if stated else 0
        self._out.append(Start(id=found.id or "", model=found.model or "", created_unix=created))

    def _end(self, kind: str, data: bytes, answer: Answer | None) -> None:
        status = _ENDS.get(kind)
        found = answer or Answer()
        if status is None:
            raise UpstreamProtocolError(f"upstream answered with an unfinished response ({kind[9:73]})")
        if status == "failed" or (given(found.error) and status != "incomplete"):
            self._fail(data)
            return
        if status == "completed" and found.status in ("incomplete", "cancelled"):
            status = found.status
        self._start(answer)
        self._reconcile(found.output or [])
        usage = raw_of(found.usage)
        if usage or found.service_tier:
            tokens = read_usage(usage) if usage else Tokens()
            tokens.tier = _TIERS.get(found.service_tier or "", found.service_tier or "")
            self._out.append(Usage(tokens=tokens))
        details = wire.read(wire.Incomplete, found.incomplete_details) if given(found.incomplete_details) else None
        reason = (details.reason if details is not None else None) or ""
        refused = self._has_refusal and not self._has_text
        stop = from_responses(status, reason, has_calls=self._has_calls, only_refusal=refused)
        self._ended = True
        if status == "cancelled" or stop is None or stop is StopReason.CANCELLED:
            self._out.append(Err(status=499, message="the response was cancelled", code="cancelled"))
            return
        self._out.append(Stop(reason=stop, detail=reason))
        self._out.append(End())

    def _fail(self, data: bytes) -> None:
        self._ended = True
        try:
            error = read_error_value(decode(data))
        except JsonError:  # a repaired event, odd enough that only its bytes are left
            error = make_fault(Format.OPENAI_RESPONSE, data, frame=b"data: " + data).error
        self._out.append(
            Err(
                status=error.status,
                message=error.message or "upstream reported an error without a message",
                code=error.code or error.type,
                retry_after_s=error.retry_after_s,
            )
        )

    # --- items ---

    def _find(self, event: Event) -> _Item | None:
        """The item of an event; a new one if it was never announced."""
        index = event.output_index
        item = self._items.get(index) if index is not None else None
        if item is not None and not (
            event.item_id and item.id and event.item_id != item.id and event.item_id in self._ids
        ):
            return item
        if event.item_id and event.item_id in self._ids:
            return self._ids[event.item_id]
        if index is None and not event.item_id:
            return self._last
        return self._new_item(index, event.item_id or "")

    def _new_item(self, index: int | None, item_id: str) -> _Item | None:
        if len(self._items) >= MAX_ITEMS:
            return None
        self._start(None)
        if index is None or index in self._items:
            index = max(self._items, default=-1) + 1
        item = _Item(index=index, id=item_id)
        self._items[index] = item
        if item_id:
            self._ids[item_id] = item
        self._last = item
        return item

    def _learn(self, item: _Item, found: Item) -> None:
        """What an object tells of its item; ids of one item may differ between events, so all are remembered."""
        item.kind = found.type or item.kind
        item.phase = found.phase or item.phase
        item.name = item.name or found.name or ""
        item.namespace = item.namespace or found.namespace or ""
        item.call_id = item.call_id or found.call_id or ""
        if found.id:
            item.id = item.id or found.id
            self._ids.setdefault(found.id, item)

    def _item_added(self, event: Event) -> None:
        found = wire.read(Item, event.item) if given(event.item) else None
        if found is None:
            return
        event.item_id = event.item_id or found.id
        item = self._find(event) if event.output_index is not None or event.item_id else self._new_item(None, "")
        if item is None:
            return
        self._last = item
        self._learn(item, found)
        if item.kind in _TOOL_KINDS and item.name and item.call_id:
            self._open_call(item)

    def _item_done(self, event: Event) -> None:
        found = wire.read(Item, event.item) if given(event.item) else None
        if found is None:
            return
        event.item_id = event.item_id or found.id
        item = self._find(event) if event.output_index is not None or event.item_id else self._unfinished(found)
        if item is not None:
            self._complete(item, found, bytes(event.item))

    def _unfinished(self, found: Item) -> _Item | None:
        """The item that a ``done`` without any key can mean."""
        last = self._last
        if last is not None and not last.done and last.kind == found.type:
            return last
        return self._new_item(None, "")

    def _reconcile(self, output: list[msgspec.Raw]) -> None:
        """What the whole response says beyond what was streamed."""
        for place, raw in enumerate(output):
            found = wire.read(Item, raw)
            if found is None:
                continue
            item = self._ids.get(found.id) if found.id else None
            if item is None and found.call_id:
                item = next((known for known in self._items.values() if known.call_id == found.call_id), None)
            if item is None:
                at_place = self._items.get(place)
                # Ids of one item differ between the events of some hosts.
                if (
                    at_place is not None
                    and at_place.kind in ("", found.type)
                    and not (found.call_id and at_place.call_id)
                ):
                    item = at_place
            if item is None:
                item = self._new_item(place, found.id or "")
            if item is not None and not item.done:
                self._complete(item, found, bytes(raw))

    def _complete(self, item: _Item, found: Item, raw: bytes) -> None:
        """Fill an item from its object, close its blocks."""
        if item.done:
            return
        item.done = True
        self._learn(item, found)
        incomplete = found.status == "incomplete"
        match item.kind:
            case "message":
                self._complete_message(item, found, incomplete=incomplete)
            case "reasoning":
                self._complete_reasoning(item, found)
            case "function_call" | "custom_tool_call":
                self._complete_call(item, found, incomplete=incomplete)
            case "image_generation_call":
                self._complete_image(item, found)
            case _:
                server = _SERVER_KINDS.get(item.kind, "")
                kind = BlockKind.SERVER_CALL if server else BlockKind.OPAQUE
                meta = Meta(item_id=item.id, call_id=item.call_id or item.id, server=server, origin=ORIGIN, raw=raw)
                self._close(self._open(item, 0, kind, meta))

    # --- blocks ---

    def _open(self, item: _Item, place: int, kind: BlockKind, meta: Meta) -> _Block:
        self._start(None)
        block = _Block(b=self._blocks)
        self._blocks += 1
        item.blocks[place] = block
        self._out.append(Open(b=block.b, kind=kind, meta=meta))
        return block

    def _close(self, block: _Block, final: str | None = None, *, incomplete: bool = False) -> None:
        if block.open:
            block.open = False
            self._out.append(Close(b=block.b, final=final, incomplete=incomplete))

    # --- messages ---

    def _content(self, item: _Item, place: int, kind: BlockKind) -> _Block:
        block = item.blocks.get(place)
        if block is None:
            item.kind = item.kind or "message"
            block = self._open(item, place, kind, Meta(item_id=item.id, phase=item.phase))
            if kind is BlockKind.REFUSAL:
                self._has_refusal = True
        return block

    def _text_delta(self, event: Event) -> None:
        self._content_delta(event, BlockKind.TEXT)

    def _refusal_delta(self, event: Event) -> None:
        self._content_delta(event, BlockKind.REFUSAL)

    def _content_delta(self, event: Event, kind: BlockKind) -> None:
        item = self._find(event)
        if item is None or not event.delta:
            return
        block = self._content(item, event.content_index or 0, kind)
        if block.open:
            self._has_text = self._has_text or kind is BlockKind.TEXT
            self._out.append(Delta(b=block.b, s=event.delta))

    def _part_added(self, event: Event) -> None:
        part = wire.read(Part, event.part) if given(event.part) else None
        item = self._find(event)
        if part is None or item is None:
            return
        if part.type == "output_text" and item.kind != "reasoning":
            self._content(item, event.content_index or 0, BlockKind.TEXT)
        elif part.type == "refusal":
            self._content(item, event.content_index or 0, BlockKind.REFUSAL)

    def _text_done(self, event: Event) -> None:
        """Not the end of the block: citations may follow. Only what it has more is taken, by `_part_done`."""

    def _part_done(self, event: Event) -> None:
        part = wire.read(Part, event.part) if given(event.part) else None
        item = self._find(event)
        if part is not None and item is not None and item.kind != "reasoning":
            self._finish_part(item, event.content_index or 0, part)

    def _finish_part(self, item: _Item, place: int, part: Part, *, incomplete: bool = False) -> None:
        if part.type not in ("output_text", "text", "refusal"):
            return
        refused = part.type == "refusal"
        final = (part.refusal if refused else part.text) or ""
        block = item.blocks.get(place)
        if block is None:
            if not final:
                return
            block = self._content(item, place, BlockKind.REFUSAL if refused else BlockKind.TEXT)
        if not block.open:
            return
        if final and not refused:
            self._has_text = True
        if not block.pieces:  # no citation came by itself
            for raw in part.annotations or ():
                self._cite(block, raw)
        self._close(block, final, incomplete=incomplete)

    def _annotation(self, event: Event) -> None:
        item = self._find(event)
        if item is None or not given(event.annotation):
            return
        block = self._content(item, event.content_index or 0, BlockKind.TEXT)
        if block.open:
            block.pieces.append("")
            self._cite(block, event.annotation)

    def _cite(self, block: _Block, raw: msgspec.Raw) -> None:
        annotation = from_openai(bytes(raw), origin=ORIGIN)
        if annotation is not None:
            self._out.append(Ann(b=block.b, annotation=annotation))

    def _complete_message(self, item: _Item, found: Item, *, incomplete: bool) -> None:
        parts = [Part(type="output_text", text=found.content)] if isinstance(found.content, str) else found.content
        for place, part in enumerate(parts or ()):
            self._finish_part(item, place, part, incomplete=incomplete)
        for block in item.blocks.values():
            self._close(block, incomplete=incomplete)

    # --- calls ---

    def _open_call(self, item: _Item) -> _Block:
        self._has_calls = True
        kind = _TOOL_KINDS.get(item.kind, BlockKind.TOOL)
        meta = Meta(item_id=item.id, call_id=item.call_id, name=item.name, namespace=item.namespace)
        block = item.blocks.get(0) or self._open(item, 0, kind, meta)
        self._out.extend(Delta(b=block.b, s=piece) for piece in item.waiting)
        item.waiting.clear()
        return block

    def _arguments_delta(self, event: Event) -> None:
        item = self._find(event)
        if item is None or not event.delta or item.done:
            return
        block = item.blocks.get(0)
        if block is None:
            item.waiting.append(event.delta)
        else:
            self._out.append(Delta(b=block.b, s=event.delta))

    def _arguments_done(self, event: Event) -> None:
        """What it says the item's own ``done`` says again; kept only for a stream that breaks off between the two."""

    def _complete_call(self, item: _Item, found: Item, *, incomplete: bool) -> None:
        if not item.name:
            if not item.waiting and not (found.arguments or found.input):
                self._ctx.lose("output", "a call without name or arguments", dropped=True)
                return
            item.name = "unknown_tool"
        block = self._open_call(item)
        final = found.input if item.kind == "custom_tool_call" else found.arguments
        self._close(block, final, incomplete=incomplete)

    # --- reasoning ---

    def _reasoning(self, item: _Item, channel: Channel) -> _Block | None:
        """The item's block, if *channel* is the one that it shows: the one that came first."""
        if item.channel is None:
            item.kind = item.kind or "reasoning"
            item.channel = channel
            return self._open(item, 0, BlockKind.REASONING, Meta(item_id=item.id, channel=channel))
        return item.blocks[0] if item.channel is channel else None

    def _summary_delta(self, event: Event) -> None:
        self._reasoning_delta(event, Channel.SUMMARY, event.summary_index)

    def _raw_delta(self, event: Event) -> None:
        self._reasoning_delta(event, Channel.RAW, event.content_index)

    def _reasoning_delta(self, event: Event, channel: Channel, part: int | None) -> None:
        item = self._find(event)
        if item is None or not event.delta or item.done:
            return
        block = self._reasoning(item, channel)
        if block is not None and block.open:
            self._more_reasoning(item, block, part or 0, event.delta)

    def _more_reasoning(self, item: _Item, block: _Block, part: int, text: str) -> None:
        if part != item.part:
            if item.part >= 0:
                self._out.append(PartBreak(b=block.b))
            item.part = part
            block.pieces.clear()
        block.pieces.append(text)
        self._out.append(Delta(b=block.b, s=text))

    def _summary_done(self, event: Event) -> None:
        self._reasoning_done(event, Channel.SUMMARY, event.summary_index)

    def _raw_done(self, event: Event) -> None:
        self._reasoning_done(event, Channel.RAW, event.content_index)

    def _reasoning_done(self, event: Event, channel: Channel, part: int | None) -> None:
        item = self._find(event)
        if item is None or not event.text or item.done:
            return
        block = self._reasoning(item, channel)
        if block is not None and block.open:
            self._rest_of_part(item, block, part or 0, event.text)

    def _rest_of_part(self, item: _Item, block: _Block, part: int, text: str) -> None:
        """What a whole part has beyond what was streamed of it; parts that are over are not looked at again."""
        if part < item.part:
            return
        streamed = "".join(block.pieces) if part == item.part else ""
        if text.startswith(streamed) and len(text) > len(streamed):
            self._more_reasoning(item, block, part, text[len(streamed) :])

    def _complete_reasoning(self, item: _Item, found: Item) -> None:
        summary = [part.text or "" for part in found.summary or ()]
        raw = [part.text or "" for part in found.content] if isinstance(found.content, list) else []
        channel = item.channel or (Channel.SUMMARY if any(summary) or not any(raw) else Channel.RAW)
        texts = summary if channel is Channel.SUMMARY else raw
        sig = self._encrypted(found)
        if not any(texts) and sig is None and item.channel is None:
            return
        block = self._reasoning(item, channel)
        if block is None or not block.open:
            return
        for place, text in enumerate(texts):
            if text:
                self._rest_of_part(item, block, place, text)
        if sig is not None:
            self._out.append(SigEvent(b=block.b, sig=sig))
        self._close(block)

    def _encrypted(self, found: Item) -> Sig | None:
        """Only of a finished item: what its announcement holds is provisional."""
        if not found.encrypted_content:
            return None
        return unwrap(found.encrypted_content, bare=Provenance.OPENAI, kind=SigKind.ENCRYPTED)

    # --- images ---

    def _complete_image(self, item: _Item, found: Item) -> None:
        if not found.result:
            return
        digest = hash(found.result)
        if digest in self._images:
            return
        self._images.add(digest)
        form = found.output_format or "png"
        mime = "image/svg+xml" if form == "svg" else f"image/{form}"
        block = self._open(item, 0, BlockKind.IMAGE, Meta(item_id=item.id, mime=mime))
        self._out.append(Delta(b=block.b, s=found.result))
        self._close(block)


def open_parser(ctx: Context) -> Parser:
    """For one stream."""
    return Parser(ctx)


def parse_full(body: bytes, ctx: Context) -> list[IREvent]:
    """The events of a whole answer; see `spoke.ParseFull`."""
    return Parser(ctx).full(body)
