"""Answers of providers that speak Responses, read into events (translation 4.4).

Theory of operation. Items are known by their place in the output and by their id, never by the order of events. Each
text, refusal or reasoning of an item is a block of its own. Whatever an event left out, later ones fill in: the item's
own ``done`` event, and at last the output of the whole response, which is also all that a plain answer has. So there
is one way to finish an item (`_Item` filled from its object), and `parse_full` is the terminal event alone.

What came twice counts once; text that differs from what was streamed the normalizer judges (E6).
"""

from collections.abc import Callable
from typing import Final

import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import read_error_value
from cpa.formats.faults import make_fault
from cpa.formats.json import JsonError, decode
from cpa.formats.names import Format
from cpa.translation.context import Context
from cpa.translation.ids import created_unix
from cpa.translation.ir import (
    BlockKind,
    Channel,
    End,
    Err,
    IREvent,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from cpa.translation.responses import wire
from cpa.translation.responses.answer_items import TOOL_KINDS, AnswerItem, ItemBlocks
from cpa.translation.responses.wire import Answer, Event, Item, Part, given, raw_of
from cpa.translation.stops import from_responses
from cpa.translation.usage import from_responses as read_usage

ORIGIN: Final = Format.OPENAI_RESPONSE.value
TIMEOUT_STATUS: Final = 408
"""Of a codex stream without a terminal event: the request may be tried on another credential (2.19)."""
MAX_ITEMS: Final = 10_000
"""More items than any answer has; what comes after them is not read."""

_DONE_BYTES: Final = 16
_TEXT: Final = BlockKind.TEXT  # looking into an enumeration takes longer than to make an event
_TIERS: Final = {"default": "standard"}
_STARTS: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS: Final = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}


class Parser:
    """Reads one stream; see `spoke.StreamParser`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._blocks = ItemBlocks(ctx)
        self._items: dict[int, AnswerItem] = {}
        self._ids: dict[str, AnswerItem] = {}
        self._last: AnswerItem | None = None
        self._started = False
        self._ended = False
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
            "response.refusal.done": self._refusal_done,
            "response.output_text.annotation.added": self._annotation,
            "response.function_call_arguments.done": self._arguments_done,
            "response.custom_tool_call_input.done": self._arguments_done,
            "response.reasoning_summary_text.done": self._summary_delta,
            "response.reasoning_text.done": self._raw_delta,
        }

    def feed(self, name: str, data: bytes) -> list[IREvent]:
        """See `spoke.StreamParser.feed`. Raises: UpstreamProtocolError for data that is no JSON object."""
        if self._ended or (len(data) < _DONE_BYTES and data.strip() == b"[DONE]"):
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
        out, self._blocks.out = self._blocks.out, []
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
        out, self._blocks.out = self._blocks.out, []
        return out

    # --- life cycle ---

    def _start(self, answer: Answer | None) -> None:
        if self._started:
            return
        self._started = True
        found = answer or Answer()
        stated = found.created_at or 0
        created = created_unix(stated, self._ctx) if stated else 0
        self._blocks.out.append(Start(id=found.id or "", model=found.model or "", created_unix=created))

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
        for item in self._items.values():
            if not item.done:
                self._blocks.settle(item)
        usage = raw_of(found.usage)
        if usage or found.service_tier:
            tokens = read_usage(usage) if usage else Tokens()
            tokens.tier = _TIERS.get(found.service_tier or "", found.service_tier or "")
            self._blocks.out.append(Usage(tokens=tokens))
        details = wire.read(wire.Incomplete, found.incomplete_details) if given(found.incomplete_details) else None
        reason = (details.reason if details is not None else None) or ""
        blocks = self._blocks
        refused = blocks.has_refusal and not blocks.has_text
        stop = from_responses(status, reason, has_calls=blocks.has_calls, only_refusal=refused)
        self._ended = True
        if status == "cancelled" or stop is None or stop is StopReason.CANCELLED:
            self._blocks.out.append(Err(status=499, message="the response was cancelled", code="cancelled"))
            return
        self._blocks.out.append(Stop(reason=stop, detail=reason))
        self._blocks.out.append(End())

    def _fail(self, data: bytes) -> None:
        self._ended = True
        try:
            error = read_error_value(decode(data))
        except JsonError:  # a repaired event, odd enough that only its bytes are left
            error = make_fault(Format.OPENAI_RESPONSE, data, frame=b"data: " + data).error
        busy = error.status == 502 and "at capacity" in error.message.lower()  # codex (5.4)
        self._blocks.out.append(
            Err(
                status=429 if busy else error.status,
                message=error.message or "upstream reported an error without a message",
                code=error.code or error.type,
                retry_after_s=error.retry_after_s,
            )
        )

    # --- items ---

    def _find(self, event: Event) -> AnswerItem | None:
        """The item of an event; a new one if it was never announced."""
        index = event.output_index
        item = self._items.get(index) if index is not None else None
        named = self._ids.get(event.item_id) if event.item_id else None
        if item is not None and (named is None or named is item or not item.id):
            return item
        if named is not None:
            return named
        if index is None and not event.item_id:
            return self._last
        return self._new_item(index, event.item_id or "")

    def _new_item(self, index: int | None, item_id: str) -> AnswerItem | None:
        if len(self._items) >= MAX_ITEMS:
            return None
        self._start(None)
        if index is None or index in self._items:
            index = max(self._items, default=-1) + 1
        item = AnswerItem(index=index, id=item_id)
        self._items[index] = item
        if item_id:
            self._ids[item_id] = item
        self._last = item
        return item

    def _learn(self, item: AnswerItem, found: Item) -> None:
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
        if item.kind in TOOL_KINDS and item.name and item.call_id:
            self._blocks.open_call(item)

    def _item_done(self, event: Event) -> None:
        found = wire.read(Item, event.item) if given(event.item) else None
        if found is None:
            return
        event.item_id = event.item_id or found.id
        item = self._find(event) if event.output_index is not None or event.item_id else self._unfinished(found)
        if item is not None:
            self._complete(item, found, bytes(event.item))

    def _unfinished(self, found: Item) -> AnswerItem | None:
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
                if at_place is not None and at_place.kind in ("", found.type):
                    item = at_place if not (found.call_id and at_place.call_id) else None
            if item is None:
                item = self._new_item(place, found.id or "")
            if item is not None and not item.done:
                self._complete(item, found, bytes(raw))

    def _complete(self, item: AnswerItem, found: Item, raw: bytes) -> None:
        if not item.done:
            self._learn(item, found)
            self._blocks.complete(item, found, raw)

    # --- events of their parts ---

    def _text_delta(self, event: Event) -> None:
        item = self._find(event)
        if item is not None and event.delta:
            self._blocks.text_delta(item, event.content_index or 0, _TEXT, event.delta, event.logprobs)

    def _refusal_delta(self, event: Event) -> None:
        item = self._find(event)
        if item is not None and event.delta:
            self._blocks.text_delta(item, event.content_index or 0, BlockKind.REFUSAL, event.delta)

    def _part_added(self, event: Event) -> None:
        part = wire.read(Part, event.part) if given(event.part) else None
        item = self._find(event)
        if part is None or item is None or item.kind == "reasoning":
            return
        kind = {"output_text": BlockKind.TEXT, "refusal": BlockKind.REFUSAL}.get(part.type or "")
        if kind is not None:
            self._blocks.content(item, event.content_index or 0, kind)

    def _part_done(self, event: Event) -> None:
        part = wire.read(Part, event.part) if given(event.part) else None
        item = self._find(event)
        if part is not None and item is not None and item.kind != "reasoning":
            self._blocks.finish_part(item, event.content_index or 0, part)

    def _text_done(self, event: Event) -> None:
        item = self._find(event)
        if item is not None and event.text:
            self._blocks.text_final(item, event.content_index or 0, BlockKind.TEXT, event.text, event.logprobs)

    def _refusal_done(self, event: Event) -> None:
        item = self._find(event)
        if item is not None and event.refusal:
            self._blocks.text_final(item, event.content_index or 0, BlockKind.REFUSAL, event.refusal)

    def _annotation(self, event: Event) -> None:
        item = self._find(event)
        if item is not None and given(event.annotation):
            self._blocks.cite(item, event.content_index or 0, event.annotation)

    def _arguments_delta(self, event: Event) -> None:
        item = self._find(event)
        if item is not None and event.delta:
            self._blocks.arguments_delta(item, event.delta)

    def _arguments_done(self, event: Event) -> None:
        """Not the end of the call, whose name may still be missing."""
        item = self._find(event)
        if item is None:
            return
        item.final = event.arguments if event.input is None else event.input
        item.kind = item.kind or ("function_call" if event.input is None else "custom_tool_call")

    def _summary_delta(self, event: Event) -> None:
        self._reasoning(event, Channel.SUMMARY, event.summary_index)

    def _raw_delta(self, event: Event) -> None:
        self._reasoning(event, Channel.RAW, event.content_index)

    def _reasoning(self, event: Event, channel: Channel, part: int | None) -> None:
        item = self._find(event)
        if item is None or item.done:
            return
        if event.delta:
            self._blocks.reasoning_delta(item, channel, part or 0, event.delta)
        elif event.text:  # of a ``done`` event
            self._blocks.reasoning_final(item, channel, part or 0, event.text)


def open_parser(ctx: Context) -> Parser:
    """For one stream."""
    return Parser(ctx)


def parse_full(body: bytes, ctx: Context) -> list[IREvent]:
    """The events of a whole answer; see `spoke.ParseFull`."""
    return Parser(ctx).full(body)
