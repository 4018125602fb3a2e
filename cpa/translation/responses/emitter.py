"""Answers for Responses clients, streamed and whole (translation 3.1 to 3.5, 4.8, 4.9a).

Theory of operation. The emitter turns blocks into output items. An item's place in the output is given when it is
announced. Calls and reasoning are written as they come, also side by side; texts one after the other: adjacent ones
are parts of one message, which ends when an item of another kind begins.

The last item is not done before it is known why the answer ends, since a call or text that the limit cut is
``incomplete``. Everything else is done at once.

The response object at the end holds all items, so the emitter keeps them, as JSON text. A whole answer is just that
object: `emit_full` feeds the same machine and throws the events away.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.errors import WireError, redact
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.formats.streams import FrameContext, error_frames
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.context import Context, family
from cpa.translation.ids import answer_id, call_id, created_unix
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
    Sig,
    SigEvent,
    Start,
    Stop,
    StopReason,
    TokenProb,
    Tokens,
    Usage,
)
from cpa.translation.media import placeholder
from cpa.translation.responses.blocks import DONE, MessageItem, Place, ReasoningItem, TextBlock, ToolItem, raw
from cpa.translation.responses.failure import typed_code
from cpa.translation.responses.frames import Frames
from cpa.translation.responses.steps import ImageStep, ServerStep, is_own, own_item
from cpa.translation.signatures import carry
from cpa.translation.stops import to_responses as to_status
from cpa.translation.usage import answer_tier, merge
from cpa.translation.usage import to_responses as to_usage

END_MARK: Final = b""
"""Behind the last event nothing follows: no ``[DONE]`` in this protocol."""
CLIENT: Final = Format.OPENAI_RESPONSE
_DEFAULTS: Final[dict[str, bytes]] = {"parallel_tool_calls": b"true", "tool_choice": b'"auto"', "tools": b"[]"}
"""Members that the vendor's type requires, though the request had none (3.1)."""


class Emitter:
    """Writes one stream; see `spoke.StreamEmitter`.

    Attributes:
      response: the whole response object, once the answer has ended.
    """

    def __init__(self, ctx: Context) -> None:
        self.response = b""
        self._ctx = ctx
        self._frames = Frames()
        self._base: JsonObject = {}
        self._suffix = ""
        self._places = 0
        self._done: dict[int, bytes] = {}
        self._call_ids: set[str] = set()

        self._texts: dict[int, TextBlock] = {}
        self._reasoning: dict[int, _Reasoning] = {}
        self._tools: dict[int, _Tool] = {}
        self._steps: dict[int, ServerStep | ImageStep] = {}
        self._message: MessageItem | None = None
        self._live: TextBlock | None = None
        self._queue: list[TextBlock] = []
        self._pending: ToolItem | None = None  # complete, but perhaps cut
        self._pending_cut = False
        self._search: ServerStep | None = None  # waits for what it found

        self._usage: Tokens | None = None
        self._stop: Stop | None = None
        self._cut = False
        self._refused = False
        intent = ctx.request.reasoning if ctx.request is not None else None
        self._carries = intent is not None and intent.carry
        self._hidden = intent is not None and intent.visible is False
        # Signatures of calls come right behind their Open, and their carrier stands before the call.
        self._late_calls = self._carries and family(ctx.provider) != family(CLIENT)
        self._handlers: dict[type, Callable[..., bytes]] = {
            Delta: self._delta,
            Start: self._start,
            Open: self._open,
            PartBreak: self._break,
            SigEvent: self._signature,
            Ann: self._cite,
            Close: self._close,
            Usage: self._count,
            Stop: self._stopped,
            End: self._end,
            Err: self._fail,
        }

    def feed(self, event: IREvent) -> bytes:
        """See `spoke.StreamEmitter.feed`. Other choices than the first cannot be there, as ``n`` was refused."""
        handler = self._handlers.get(type(event))
        return handler(event) if handler is not None and not event.choice else b""

    @property
    def next_sequence(self) -> int:
        """`sequence_number` of the next event, for whoever has to write an error."""
        return self._frames.next_number

    # --- life cycle ---

    def _start(self, event: Start) -> bytes:
        if self._base:
            return b""
        ctx = self._ctx
        response_id = answer_id(event.id, CLIENT, ctx)
        self._suffix = response_id.removeprefix("resp_")
        provider_model = event.model if ctx.settings.report_provider_model else ""
        self._base = {
            "id": response_id,
            "object": "response",
            "created_at": created_unix(event.created_unix, ctx),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": provider_model or ctx.client_model,
        }
        self._base.update({name: raw(value) for name, value in {**_DEFAULTS, **ctx.echo}.items()})
        first: JsonObject = {**self._base, "output": []}
        return self._frames.event("response.created", response=first) + self._frames.event(
            "response.in_progress", response=first
        )

    def _count(self, event: Usage) -> bytes:
        self._usage = merge(self._usage, event.tokens)
        return b""

    def _stopped(self, event: Stop) -> bytes:
        self._stop = event
        return b""

    def _end(self, event: End) -> bytes:
        out = self._start(Start())
        reason = self._stop.reason if self._stop is not None else StopReason.STOP
        if reason is StopReason.PAUSE:
            self._ctx.lose("stop_reason", "pause_turn: this client cannot continue it")
        status, why = to_status(reason, has_refusal=self._refused)
        self._cut = status == "incomplete"
        out += self._finish_items()
        members: JsonObject = {"status": status}
        if why:
            members["incomplete_details"] = {"reason": why}
        if status == "completed":
            members["completed_at"] = created_unix(0, self._ctx)
        response = self._response(members)
        return out + self._frames.event(f"response.{status}", response=raw(response))

    def _response(self, members: JsonObject) -> bytes:
        output: list[JsonValue] = [raw(self._done[place]) for place in sorted(self._done)]
        usage = self._usage or Tokens()
        whole: JsonObject = {**self._base, **members, "output": output, "usage": to_usage(usage)}
        tier = answer_tier(usage)
        if tier:
            whole["service_tier"] = tier
        self.response = encode(whole)
        return self.response

    def _fail(self, event: Err) -> bytes:
        error = WireError(
            status=event.status, message=event.message, code=event.code, retry_after_s=event.retry_after_s
        )
        if not self._base:
            context = FrameContext(sequence_number=self._frames.next_number)
            return error_frames(CLIENT, error, context)
        # What was open is shown, but not ended: its events would say that it is complete (4.9a).
        if self._pending is not None:
            self._done[self._pending.place.index] = self._pending.json("completed")
        if self._message is not None:
            part = self._live.part() if self._live is not None else None
            self._done[self._message.place.index] = self._message.json("incomplete", part)
        for reasoning in self._reasoning.values():
            if reasoning.item is not None:
                self._done[reasoning.item.place.index] = reasoning.item.json("", "incomplete")
        for tool in self._tools.values():
            if tool.item is not None:
                self._done[tool.item.place.index] = tool.item.json("incomplete")
        detail: JsonObject = {"code": typed_code(error), "message": redact(error.message)}
        response = self._response({"status": "failed", "error": detail})
        return self._frames.event("response.failed", response=raw(response))

    # --- places ---

    def _place(self) -> Place:
        """For a new item of any kind but a message: what came before it is over."""
        place = Place(self._places, self._suffix)
        self._places += 1
        return place

    def _leave_message(self) -> bytes:
        """An item of another kind begins: the message ends, at once or with its text."""
        out = self._finish_pending()
        if self._message is not None:
            self._message.over = True
            if self._live is None:
                out += self._finish_message("completed")
        return out

    def _item_done(self, place: Place, item: bytes) -> bytes:
        self._done[place.index] = item
        return self._frames.event(DONE, output_index=place.index, item=raw(item))

    def _finish_message(self, status: str) -> bytes:
        message, self._message = self._message, None
        return self._item_done(message.place, message.json(status)) if message is not None else b""

    def _finish_pending(self, *, cut: bool = False) -> bytes:
        tool, self._pending = self._pending, None
        if tool is None:
            return b""
        return self._item_done(tool.place, tool.json("incomplete" if cut or self._pending_cut else "completed"))

    def _finish_items(self) -> bytes:
        """The answer is over: what was held back."""
        out = self._end_search() if self._search is not None else b""
        out += self._finish_pending(cut=self._cut)
        return out + self._finish_message("incomplete" if self._cut else "completed")

    # --- blocks ---

    def _open(self, event: Open) -> bytes:
        meta = event.meta
        match event.kind:
            case BlockKind.TEXT | BlockKind.REFUSAL:
                self._refused = self._refused or event.kind is BlockKind.REFUSAL
                self._texts[event.b] = TextBlock(event.kind, meta.phase)
            case BlockKind.REASONING:
                self._reasoning[event.b] = _Reasoning(meta.channel)
            case BlockKind.TOOL | BlockKind.CUSTOM_TOOL:
                self._tools[event.b] = tool = _Tool(meta, custom=event.kind is BlockKind.CUSTOM_TOOL)
                return b"" if self._late_calls else self._begin_tool(tool)[0]
            case BlockKind.IMAGE | BlockKind.AUDIO:
                self._steps[event.b] = ImageStep(meta, event.kind)
            case BlockKind.SERVER_CALL | BlockKind.SERVER_RESULT | BlockKind.OPAQUE:
                self._steps[event.b] = step = ServerStep(meta, event.kind)
                if step.is_search:
                    return self._begin_search(step)
        return b""

    def _delta(self, event: Delta) -> bytes:
        b = event.b
        text = self._texts.get(b)
        if text is not None:
            return text.delta(event.s, event.probs) if text is self._live else self._say(text, event.s, event.probs)
        tool = self._tools.get(b)
        if tool is not None:
            if tool.item is not None:
                return tool.item.delta(event.s)
            out, item = self._begin_tool(tool)
            return out + item.delta(event.s)
        reasoning = self._reasoning.get(b)
        if reasoning is not None:
            return b"" if self._hidden else self._reason(reasoning, event.s)
        step = self._steps.get(b)
        if step is not None:
            step.pieces.append(event.s)
        return b""

    def _break(self, event: PartBreak) -> bytes:
        reasoning = self._reasoning.get(event.b)
        return reasoning.item.end_part() if reasoning is not None and reasoning.item is not None else b""

    def _cite(self, event: Ann) -> bytes:
        text = self._texts.get(event.b)
        return text.cite(event.annotation) if text is not None else b""

    def _signature(self, event: SigEvent) -> bytes:
        if not self._carries:
            return b""
        reasoning = self._reasoning.get(event.b)
        if reasoning is not None:
            reasoning.sig = event.sig  # a later one replaces an earlier one
            return b""
        tool = self._tools.get(event.b)
        if tool is not None and tool.item is None:
            return self._carrier(event.sig, of_call=True)
        text = self._texts.get(event.b)
        if text is not None and not text.has_text:
            return self._carrier(event.sig)
        if text is not None:
            text.late_sig = event.sig
            return b""
        if tool is not None:
            tool.late_sig = event.sig
            return b""
        # It belongs to no block: to what came before, if anything did.
        return self._carrier(event.sig, preceding=self._places > 0)

    def _close(self, event: Close) -> bytes:
        if event.failed:
            return b""  # an error follows, which shows what is open as incomplete
        b = event.b
        text = self._texts.pop(b, None)
        if text is not None:
            return self._close_text(text, event)
        tool = self._tools.pop(b, None)
        if tool is not None:
            return self._close_tool(tool, event)
        reasoning = self._reasoning.pop(b, None)
        if reasoning is not None:
            return self._close_reasoning(reasoning, event)
        step = self._steps.pop(b, None)
        return self._close_step(step, event) if step is not None else b""

    # --- text ---

    def _say(self, block: TextBlock, text: str, probs: tuple[TokenProb, ...] = ()) -> bytes:
        """Text of a block that is not being written: its turn comes, or it waits."""
        block.wait(text, probs)
        if self._live is not None:
            if block not in self._queue:
                self._queue.append(block)
            return b""
        return self._go_live(block)

    def _go_live(self, block: TextBlock) -> bytes:
        out = self._finish_pending()
        message = self._message
        if message is not None and (message.over or message.phase != block.phase):
            out += self._finish_message("completed")
            message = None
        if message is None:
            message = self._message = MessageItem(self._frames, self._place(), block.phase)
            out += message.begin()
        self._live = block
        return out + block.begin(self._frames, message)

    def _close_text(self, block: TextBlock, event: Close) -> bytes:
        out = b""
        if not block.has_text and event.final:
            out = self._say(block, event.final)
        block.closed = True
        block.incomplete = event.incomplete
        if block is not self._live:
            return out  # never said anything, or waits
        out += self._end_live()
        while self._queue:
            following = self._queue.pop(0)
            out += self._go_live(following)
            if not following.closed:
                break
            out += self._end_live()
        return out

    def _end_live(self) -> bytes:
        block, message = self._live, self._message
        assert block is not None
        assert message is not None
        self._live = None
        out = block.end(message)
        if block.incomplete or message.over:
            out += self._finish_message("incomplete" if block.incomplete else "completed")
        if block.late_sig is not None:
            out += self._carrier(block.late_sig, preceding=True)
        return out

    def _note(self, text: str) -> bytes:
        """Text of our own, in place of what this client cannot be shown."""
        block = TextBlock(BlockKind.TEXT, "")
        out = self._say(block, text)
        return out + self._close_text(block, Close(b=-1))

    # --- calls ---

    def _begin_tool(self, tool: "_Tool") -> tuple[bytes, ToolItem]:
        out = self._leave_message()
        names, meta = self._ctx.names, tool.meta
        namespace, name = names.to_client(meta.name) if not meta.namespace else self._within(meta)
        call = meta.call_id or call_id(self._ctx)
        place = self._place()
        if call in self._call_ids:
            call = f"{call[:56]}_{place.index}"  # this client knows calls by their id alone
        self._call_ids.add(call)
        wrapped = not tool.custom and meta.name in names.custom
        item = tool.item = ToolItem(
            self._frames,
            place,
            call_id=call,
            name=name,
            namespace=namespace,
            custom=tool.custom or wrapped,
            wrapped=wrapped,
        )
        return out + item.begin(), item

    def _within(self, meta: Meta) -> tuple[str, str]:
        """(namespace, the client's name) of a call that states its namespace."""
        for (namespace, name), wire in self._ctx.names.wire.items():
            if namespace == meta.namespace and wire == meta.name:
                return namespace, name
        return meta.namespace, meta.name

    def _close_tool(self, tool: "_Tool", event: Close) -> bytes:
        out, item = self._begin_tool(tool) if tool.item is None else (self._finish_pending(), tool.item)
        if not item.started and event.final:
            out += item.delta(event.final)
        out += item.end()
        self._pending, self._pending_cut = item, event.incomplete
        if tool.late_sig is not None:
            out += self._carrier(tool.late_sig, preceding=True, of_call=True)
        return out

    # --- reasoning ---

    def _begin_reasoning(self, reasoning: "_Reasoning") -> tuple[bytes, ReasoningItem]:
        out = self._leave_message()
        item = reasoning.item = ReasoningItem(self._frames, self._place(), reasoning.channel)
        return out + item.begin(), item

    def _reason(self, reasoning: "_Reasoning", text: str) -> bytes:
        out, item = self._begin_reasoning(reasoning) if reasoning.item is None else (b"", reasoning.item)
        return out + item.delta(text)

    def _close_reasoning(self, reasoning: "_Reasoning", event: Close) -> bytes:
        out = b""
        if reasoning.item is None and event.final and not self._hidden:
            out = self._reason(reasoning, event.final)
        encrypted = carry(reasoning.sig, CLIENT) if reasoning.sig is not None else ""
        item = reasoning.item
        if item is None:
            if not encrypted:
                return out  # nothing to show, nothing to keep
            begun, item = self._begin_reasoning(reasoning)
            out += begun
        out += item.end_part()
        return out + self._item_done(item.place, item.json(encrypted, "incomplete" if event.incomplete else ""))

    def _carrier(self, sig: Sig, *, preceding: bool = False, of_call: bool = False) -> bytes:
        """An item that shows nothing and brings a neighbour's signature back (2.10)."""
        marked = msgspec.structs.replace(sig, preceding=preceding, of_call=of_call)
        out = self._leave_message()
        item = ReasoningItem(self._frames, self._place(), Channel.SUMMARY)
        return out + item.begin() + self._item_done(item.place, item.json(carry(marked, CLIENT)))

    # --- steps of the provider's tools ---

    def _begin_search(self, step: ServerStep) -> bytes:
        out = self._end_search() if self._search is not None else b""
        out += self._leave_message()
        step.place = self._place()
        return out + step.begin(self._frames)

    def _end_search(self, result: bytes = b"") -> bytes:
        step, self._search = self._search, None
        assert step is not None
        assert step.place is not None
        item = step.search_item(result)
        return step.end(self._frames) + self._item_done(step.place, item)

    def _close_step(self, step: ServerStep | ImageStep, event: Close) -> bytes:
        if not step.pieces and event.final:
            step.pieces.append(event.final)
        if isinstance(step, ImageStep):
            return self._close_image(step)
        if step.is_search:
            out = self._end_search() if self._search is not None else b""
            self._search = step
            # Claude's findings follow in a block of their own; all others state them here.
            return out if step.meta.origin == Format.CLAUDE.value else out + self._end_search()
        if step.kind is BlockKind.SERVER_RESULT and self._search is not None and step.meta.server == "web_search":
            return self._end_search(step.json())
        if is_own(step.meta):
            out = self._leave_message()
            place = self._place()
            item = own_item(step.meta.raw, place, "completed")
            added = self._frames.event("response.output_item.added", output_index=place.index, item=raw(item))
            return out + added + self._item_done(place, item)
        text = step.text()
        if text:
            self._ctx.lose("output", f"{step.meta.server or 'step'} of another provider became text")
            return self._note(text)
        self._ctx.lose("output", "a block of another provider", dropped=True)
        return b""

    def _close_image(self, step: ImageStep) -> bytes:
        if step.kind is BlockKind.AUDIO:
            what = step.meta.mime or "audio"
            self._ctx.lose("output", f"{what[:64]} cannot be shown")
            return self._note(placeholder(what).text)
        out = self._leave_message()
        place = self._place()
        item = step.item(place)
        return out + step.events(self._frames, place) + self._item_done(place, item)


class _Reasoning:
    """A block of reasoning; its item begins with its first text."""

    __slots__ = ("channel", "item", "sig")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.item: ReasoningItem | None = None
        self.sig: Sig | None = None


class _Tool:
    """A block of a call; its item may begin later."""

    __slots__ = ("custom", "item", "late_sig", "meta")

    def __init__(self, meta: Meta, *, custom: bool) -> None:
        self.meta = meta
        self.custom = custom
        self.item: ToolItem | None = None
        self.late_sig: Sig | None = None


def open_emitter(ctx: Context) -> Emitter:
    """For one stream."""
    return Emitter(ctx)


def emit_full(events: list[IREvent], ctx: Context) -> bytes:
    """A whole answer: the response object with which its stream would end; see `spoke.EmitFull`.

    Raises: UpstreamProtocolError for an answer that failed, or did not end.
    """
    emitter = Emitter(ctx)
    for event in events:
        if isinstance(event, Err):
            raise UpstreamProtocolError(event.message, code=event.code or None, http_status=event.status)
        emitter.feed(event)
    if not emitter.response:
        raise UpstreamProtocolError("upstream's answer has no end")
    return emitter.response
