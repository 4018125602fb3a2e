"""From events to what a Claude client reads, in the order that it demands (translation 4.6).

Theory of operation. Blocks of the events may overlap; on the wire one is open at a time, and they are numbered in the
order in which they begin. `Composer` keeps the blocks in a line: the first one is written live, what comes for the
others waits. When the first one closes, those behind it are written as far as they have come, whole if they are
complete, until one is found that is still open.

A block takes its place in the line when it opens, a text with its first word. What it needs on the wire is decided
when it gets there: a tool whose arguments do not begin like a JSON object is held back and mended at its end, a
signature that Claude has no member for becomes a thinking block without text (2.10).

`Composer` knows nothing of bytes. It tells a `Sink`: one writes the frames of a stream, one builds a whole message.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

import attrs
import msgspec

from cpa.errors import UpstreamProtocolError
from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.translation.annotations import search_from_gemini, search_from_responses, search_to_claude, to_claude
from cpa.translation.claude.sink import Members, Sink
from cpa.translation.context import Context
from cpa.translation.ids import answer_id, call_id
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
    PartBreak,
    Ping,
    ServerCall,
    ServerResult,
    Sig,
    SigEvent,
    SigKind,
    Start,
    Stop,
    StopReason,
    Tokens,
    Usage,
)
from cpa.translation.media import foreign_items_text
from cpa.translation.signatures import carry
from cpa.translation.stops import MALFORMED_NOTE
from cpa.translation.stops import to_claude as reason_to_claude
from cpa.translation.tools import repair_arguments
from cpa.translation.usage import merge
from cpa.translation.usage import to_claude as usage_to_claude

MAX_WAITING_CHARS: Final = 8 * 1024 * 1024
"""Of blocks that wait for the one before them; a provider that interleaves more is not to be believed."""
_EVENT_CHARS: Final = 64  # of an event without its text
ORIGIN: Final = Format.CLAUDE.value
BREAK: Final = "\n\n"


@attrs.define(eq=False)
class _Block:
    """A block of the events.

    Attributes:
      waiting: events that came before it was its turn.
      begun: it is open on the wire.
      sig: to be written at its end.
      breaks: a boundary is due before the next text.
      held: pieces of arguments that are kept back; None = they are passed on. *undecided*: their beginning has to be
        seen first.
      size: of base64.
    """

    kind: BlockKind
    meta: Meta
    placed: bool = False
    closed: bool = False
    waiting: list[IREvent] = attrs.field(factory=list)
    begun: bool = False
    sig: Sig | None = None
    breaks: bool = False
    held: list[str] | None = attrs.field(factory=list)
    undecided: bool = True
    incomplete: bool = False
    size: int = 0


class Composer:
    """One answer. Events keep E1 to E9.

    Attributes:
      ended: the message is complete, or failed; nothing more is told.
    """

    def __init__(self, ctx: Context, sink: Sink) -> None:
        self._ctx = ctx
        self._sink = sink
        self._blocks: dict[int, _Block] = {}
        self._line: deque[_Block] = deque()
        self._waiting_chars = 0
        self._start_event = Start()
        self._started = False
        self._tokens = Tokens()
        self._stop: Stop | None = None
        self._has_tools = False
        self._late_tool: _Block | None = None
        # Gemini signs calls, and its signature must stand before the call, which is opened one event later therefore.
        self._signs_calls = ctx.provider in (Format.GEMINI, Format.OPENAI)
        self._hides = ctx.request is not None and ctx.request.reasoning.visible is False
        self.ended = False
        self._live: dict[BlockKind, Callable[[_Block, str], None]] = {
            BlockKind.TEXT: self._text,
            BlockKind.REFUSAL: self._text,
            BlockKind.REASONING: self._thinking,
            BlockKind.TOOL: self._arguments,
            BlockKind.CUSTOM_TOOL: self._arguments,
            BlockKind.IMAGE: self._media,
            BlockKind.AUDIO: self._media,
        }

    def feed(self, event: IREvent) -> None:
        """Take one event. Raises: UpstreamProtocolError when too much waits."""
        if self.ended or event.choice:
            return
        if type(event) is Delta:  # as nearly all are
            if event.s:  # what comes without text is not for these clients
                self._content(event)
            return
        match event:
            case Delta() | SigEvent() | Ann() | PartBreak():
                self._content(event)
            case Start():
                self._start_event = event
            case Usage():
                self._tokens = merge(self._tokens, event.tokens)
            case Open():
                self._begin()
                self._open(event)
            case Close():
                self._close(event)
            case Stop():
                self._stop = event
            case Ping():
                if self._started:
                    self._sink.ping()
            case End():
                self._end()
            case Err():
                self.ended = True
            case _:
                assert_never(event)

    # --- the message -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The message begins with its first content: until then an error can still be answered as one."""
        if self._started:
            return
        self._started = True
        ctx, start = self._ctx, self._start_event
        model = start.model if ctx.settings.report_provider_model and start.model else ctx.client_model
        self._sink.start(answer_id(start.id, Format.CLAUDE, ctx), model, self._usage())

    def _usage(self) -> Members:
        usage: Members = dict(usage_to_claude(self._tokens))
        if self._tokens.input is None:
            usage["input_tokens"] = self._ctx.estimated_input
        return usage

    def _end(self) -> None:
        self._begin()
        for block in list(self._line):  # E7 leaves none
            block.closed = block.incomplete = True
        self._advance()
        stop = self._stop
        reason = StopReason.TOOL_USE if self._has_tools else StopReason.STOP
        if stop is not None:
            reason = stop.reason
        if reason is StopReason.MALFORMED_CALL:
            self._whole_text(MALFORMED_NOTE)
        details: Members | None = None
        if reason is StopReason.REFUSAL and stop is not None and stop.detail:
            details = {"type": "refusal", "category": None, "explanation": stop.detail}
        sequence = stop.sequence if stop is not None and reason is StopReason.STOP_SEQUENCE else ""
        self.ended = True
        self._sink.finish(reason_to_claude(reason), sequence or None, details, self._usage())

    # --- the line ----------------------------------------------------------------------------------------------------

    def _open(self, event: Open) -> None:
        self._settle_late_tool()
        block = _Block(kind=event.kind, meta=event.meta)
        self._blocks[event.b] = block
        if event.kind not in (BlockKind.TEXT, BlockKind.REFUSAL):
            self._place(block)

    def _place(self, block: _Block) -> None:
        block.placed = True
        self._line.append(block)
        if self._line[0] is block:
            self._take_turn(block)

    def _content(self, event: Delta | SigEvent | Ann | PartBreak) -> None:
        block = self._blocks.get(event.b)
        if block is None:
            if isinstance(event, SigEvent):
                self._standalone(event)
            return
        if block.closed:
            return
        if self._late_tool is not None and not (isinstance(event, SigEvent) and block is self._late_tool):
            self._settle_late_tool()
        if not block.placed:
            if not isinstance(event, Delta | SigEvent):
                self._wait(block, event)  # a citation is nothing without text
                return
            self._place(block)
        if self._line[0] is block:
            self._apply(block, event)
            return
        self._wait(block, event)

    def _wait(self, block: _Block, event: IREvent) -> None:
        block.waiting.append(event)
        self._waiting_chars += _size(event)
        if self._waiting_chars > MAX_WAITING_CHARS:
            raise UpstreamProtocolError("upstream interleaved more content than can be put in order")

    def _standalone(self, event: SigEvent) -> None:
        """A signature of no block stands in the line like one."""
        self._begin()
        block = _Block(kind=BlockKind.OPAQUE, meta=Meta(), closed=True, sig=event.sig)
        self._place(block)
        self._advance()

    def _close(self, event: Close) -> None:
        block = self._blocks.pop(event.b, None)
        if block is None or block.closed:
            return
        if block is self._late_tool:
            self._settle_late_tool()
        block.closed = True
        block.incomplete = event.incomplete
        if block.placed:
            self._advance()

    def _advance(self) -> None:
        """Write what is complete at the head of the line, and begin the first that is not."""
        line = self._line
        while line:
            block = line[0]
            if not block.closed:
                return
            line.popleft()
            if block.waiting:
                self._take_turn(block)
            self._finish(block)
            if line and not line[0].closed:
                self._take_turn(line[0])

    def _take_turn(self, block: _Block) -> None:
        """*block* has come to the head of the line."""
        if block.kind in (BlockKind.TOOL, BlockKind.CUSTOM_TOOL):
            if self._signs_calls and not block.waiting and not block.closed:
                self._late_tool = block
            elif not (block.waiting and isinstance(block.waiting[0], SigEvent)):
                self._open_tool(block)
        waiting, block.waiting = block.waiting, []
        pieces: list[str] = []  # of adjacent deltas, which go out as one
        for event in waiting:
            self._waiting_chars -= _size(event)
            if isinstance(event, Delta):
                pieces.append(event.s)
                continue
            self._apply_text(block, pieces)
            self._apply(block, event)
        self._apply_text(block, pieces)

    def _settle_late_tool(self) -> None:
        block, self._late_tool = self._late_tool, None
        if block is not None and not block.begun:
            self._open_tool(block)

    # --- the first in the line ---------------------------------------------------------------------------------------

    def _apply_text(self, block: _Block, pieces: list[str]) -> None:
        live = self._live.get(block.kind)
        if live is not None and pieces:
            live(block, "".join(pieces))
        pieces.clear()

    def _apply(self, block: _Block, event: IREvent) -> None:
        if type(event) is Delta:
            live = self._live.get(block.kind)
            if live is not None:
                live(block, event.s)
        elif isinstance(event, SigEvent):
            self._sign(block, event.sig)
        elif isinstance(event, PartBreak):
            block.breaks = block.begun
        elif isinstance(event, Ann) and block.kind in (BlockKind.TEXT, BlockKind.REFUSAL):
            citation = to_claude(event.annotation)
            if citation is not None:
                self._open_text(block)
                self._sink.citation(citation)

    def _open_text(self, block: _Block) -> None:
        if not block.begun:
            block.begun = True
            self._sink.open_block({"type": "text", "text": ""})

    def _text(self, block: _Block, text: str) -> None:
        if not block.begun:
            self._open_text(block)
        self._sink.text(text)

    def _open_thinking(self, block: _Block) -> None:
        if not block.begun:
            block.begun = True
            self._sink.open_block({"type": "thinking", "thinking": "", "signature": ""})

    def _thinking(self, block: _Block, text: str) -> None:
        if self._hides or block.meta.redacted:
            return
        self._open_thinking(block)
        if block.breaks:
            block.breaks = False
            text = BREAK + text
        self._sink.thinking(text)

    def _open_tool(self, block: _Block) -> None:
        block.begun = True
        self._has_tools = True
        meta = block.meta
        name = self._ctx.names.to_client(meta.name)[1]
        self._sink.open_block({"type": "tool_use", "id": meta.call_id or call_id(self._ctx), "name": name, "input": {}})

    def _arguments(self, block: _Block, text: str) -> None:
        """Passed on as they come, unless they do not begin like a JSON object: then they are mended at the end."""
        if not block.begun:
            self._open_tool(block)
        if block.held is None:
            self._sink.input(text)
            return
        block.held.append(text)
        # White space decides nothing; two pieces with more do, so that there is no joining over and over.
        if not block.undecided or block.closed or text.isspace() or block.kind is BlockKind.CUSTOM_TOOL:
            return
        beginning = "".join(block.held)
        plain = _begins_like_an_object(beginning)
        block.undecided = plain is None
        if plain:
            block.held = None
            self._sink.input(beginning)

    def _media(self, block: _Block, text: str) -> None:
        block.size += len(text)

    def _sign(self, block: _Block, sig: Sig) -> None:
        if block.begun or block.kind is BlockKind.REASONING:
            block.sig = sig  # a later one replaces an earlier one
            return
        self._carrier(sig)
        if block is self._late_tool:
            self._settle_late_tool()

    def _carrier(self, sig: Sig) -> None:
        """A thinking block without text, for a signature that belongs to another block."""
        self._sink.open_block({"type": "thinking", "thinking": "", "signature": ""})
        self._sink.signature(carry(sig, Format.CLAUDE))
        self._sink.close_block()

    # --- the end of the first in the line ----------------------------------------------------------------------------

    def _finish(self, block: _Block) -> None:
        match block.kind:
            case BlockKind.TEXT | BlockKind.REFUSAL:
                self._finish_signed(block)
            case BlockKind.REASONING:
                self._finish_reasoning(block)
            case BlockKind.TOOL | BlockKind.CUSTOM_TOOL:
                self._finish_tool(block)
            case BlockKind.IMAGE | BlockKind.AUDIO:
                kilobytes = max(1, round(block.size * 3 / 4 / 1024))
                what = f"{block.kind.value} generated: {block.meta.mime or block.kind.value}, {kilobytes} KB"
                self._ctx.lose("output", f"{block.kind.value} became a placeholder")
                self._whole_text(f"[{what}]")
            case BlockKind.SERVER_CALL | BlockKind.SERVER_RESULT:
                self._server(block)
            case BlockKind.OPAQUE:
                self._opaque(block)

    def _finish_signed(self, block: _Block) -> None:
        if block.begun:
            self._sink.close_block()
        if block.sig is not None:
            # It came after what it belongs to was written (2.10, flag bit 1).
            self._carrier(msgspec.structs.replace(block.sig, preceding=True))

    def _finish_reasoning(self, block: _Block) -> None:
        sig = block.sig
        if sig is not None and not block.begun and (block.meta.redacted or sig.kind is SigKind.REDACTED):
            self._sink.open_block({"type": "redacted_thinking", "data": carry(sig, Format.CLAUDE)})
            self._sink.close_block()
            return
        if sig is not None:
            self._open_thinking(block)
            if sig.kind is SigKind.PART:  # of this block itself: it must not look like a carrier
                sig = msgspec.structs.replace(sig, kind=SigKind.THINKING)
            self._sink.signature(carry(sig, Format.CLAUDE))
        if block.begun:
            self._sink.close_block()

    def _finish_tool(self, block: _Block) -> None:
        if not block.begun:
            self._open_tool(block)
        text = "".join(block.held or ())
        if text.strip():
            if block.kind is BlockKind.CUSTOM_TOOL:
                text = encode({"input": text}).decode()
            elif not block.incomplete or _begins_like_an_object(text) is False:
                text = repair_arguments(text).decode()
            # else cut off by a limit: the client must see how far it came
            self._sink.input(text)
        self._finish_signed(block)

    def _whole_text(self, text: str) -> None:
        self._sink.open_block({"type": "text", "text": ""})
        self._sink.text(text)
        self._sink.close_block()

    def _server(self, block: _Block) -> None:
        """A step of a tool that the provider ran: as it is, as a search of Claude's, or told in words."""
        meta = block.meta
        if meta.origin == ORIGIN and meta.raw:
            self._whole(msgspec.Raw(meta.raw))
            return
        if meta.server == "web_search" and block.kind is BlockKind.SERVER_CALL and meta.raw:
            read = search_from_gemini if meta.origin == Format.GEMINI.value else search_from_responses
            use, result = search_to_claude(read(meta.raw), f"srvtoolu_{self._ctx.new_id()}")
            query = encode(use["input"]).decode()
            self._sink.open_block({**use, "input": {}})
            self._sink.input(query)
            self._sink.close_block()
            self._whole(result)
            return
        kind = ServerCall if block.kind is BlockKind.SERVER_CALL else ServerResult
        text = foreign_items_text(kind(kind=meta.server, origin=meta.origin, raw=meta.raw, call_id=meta.call_id))
        self._ctx.lose(
            "output", f"a step of {meta.server or 'a provider'} " + ("became text" if text else "was left out")
        )
        if text.strip():
            self._whole_text(text)

    def _whole(self, block: Members | msgspec.Raw) -> None:
        self._sink.open_block(block)
        self._sink.close_block()

    def _opaque(self, block: _Block) -> None:
        if block.sig is not None:
            self._carrier(block.sig)
        elif block.meta.origin == ORIGIN and block.meta.raw:
            self._whole(msgspec.Raw(block.meta.raw))
        else:
            self._ctx.lose("output", "content without a counterpart", dropped=True)


def _size(event: IREvent) -> int:
    """About what an event that waits takes, in characters."""
    match event:
        case Delta():
            return _EVENT_CHARS + len(event.s)
        case SigEvent():
            return _EVENT_CHARS + len(event.sig.data)
        case Ann():
            return _EVENT_CHARS + len(event.annotation.raw) + len(event.annotation.cited_text)
        case _:
            return _EVENT_CHARS


def _begins_like_an_object(text: str) -> bool | None:
    """Whether *text* can be passed on as JSON of an object; None = too short to tell.

    A quote has to follow the brace, because models write Python's dicts as well (corpus 124); and of an empty object
    nothing is worth passing on early.
    """
    bare = text.lstrip()
    if not bare:
        return None
    if bare[0] != "{":
        return False
    inner = bare[1:].lstrip()
    return inner[0] == '"' if inner else None
