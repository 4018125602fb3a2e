"""Makes E1 to E9 true (translation 0.4), whatever a parser says, so that emitters may rely on them.

Theory of operation. Blocks are numbered anew, in the order in which they open, over all choices. Three kinds of events
are held back, because what they mean depends on what comes later:

* `Stop`, until the terminal: nothing but usage may follow it, but some providers send content after it, and whether
  calls were made is known at the end only (E8). `Normalizer.stopped` says that it was seen.
* `PartBreak`, until there is something behind it: no answer ends in an empty part.
* citations of a whole block, until it closes and its length is known (3.5).

The end is judged here as well, once for all protocols (4.1): an answer without anything in it, one that was cut off,
and one that consists of a tool call that could not be read, are errors, not successes.
"""

from collections.abc import Iterable
from typing import Final, assert_never

import attrs
import msgspec
import structlog

from cpa.translation import ids
from cpa.translation.context import Context
from cpa.translation.ir import (
    Ann,
    Annotation,
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    Open,
    PartBreak,
    Ping,
    Sig,
    SigEvent,
    Start,
    Stop,
    StopReason,
    TokenProb,
    Tokens,
    Usage,
)
from cpa.translation.stops import INCOMPLETE
from cpa.translation.usage import merge

log = structlog.get_logger(__name__)

TOOL_KINDS: Final = frozenset({BlockKind.TOOL, BlockKind.CUSTOM_TOOL})
WRITTEN_KINDS: Final = frozenset({BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.REASONING})
"""Blocks that are nothing without text in them."""
PROBABLE_KINDS: Final = frozenset({BlockKind.TEXT, BlockKind.REFUSAL})
"""Blocks whose tokens have probabilities."""
NO_BLOCK: Final = -1
"""Number of the block of a signature that belongs to none."""

EMPTY: Final = Err(status=502, message="upstream answered with nothing", code="empty_stream")
TRUNCATED: Final = Err(status=502, message="upstream ended its answer before it was complete", code="upstream_error")
MALFORMED: Final = Err(status=502, message="upstream made a tool call that cannot be read", code="upstream_error")
CANCELLED: Final = Err(status=499, message="upstream cancelled its answer", code="cancelled")


@attrs.define(eq=False)
class _Block:
    """An open block."""

    number: int
    choice: int
    kind: BlockKind
    pieces: list[str] = attrs.field(factory=list)
    """What was streamed, to be compared with `Close.final`."""
    length: int = 0
    breaks: bool = False
    """A `PartBreak` waits for what it separates."""
    citations: list[Annotation] = attrs.field(factory=list)
    probs: tuple[TokenProb, ...] = ()
    """Came without text: of the text that follows, or of all before if nothing does."""


class Normalizer:
    """Stands behind every parser of one answer.

    Attributes:
      stopped: every choice that began has ended, and only usage is still to be expected (4.1, tail rule).
      ended: `End` or `Err` was given out; everything more is ignored.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.ended = False
        self._started = False
        self._open: dict[tuple[int, int], _Block] = {}
        self._closed: set[tuple[int, int]] = set()
        self._count = 0
        self._stops: dict[int, Stop] = {}
        self._choices: set[int] = set()
        self._with_tools: set[int] = set()
        self._call_ids: set[str] = set()
        self._has_content = False  # of which reasoning is none: a call that failed after it must not look like success
        self._usage: Tokens | None = None

    @property
    def stopped(self) -> bool:
        return bool(self._stops) and self._choices <= self._stops.keys()

    @property
    def has_usage(self) -> bool:
        """Usage was stated, so that there is nothing to wait for once it has stopped."""
        return self._usage is not None

    def feed(self, events: Iterable[IREvent]) -> list[IREvent]:
        """What emitters get of *events*, any events in any order."""
        out: list[IREvent] = []
        for event in events:
            if self.ended:
                break
            if type(event) is Delta:
                self._delta(event, out)
            else:
                self._one(event, out)
        return out

    def finish(self) -> list[IREvent]:
        """The provider's answer is over: its terminal, unless that has been."""
        out: list[IREvent] = []
        if not self.ended:
            if self.stopped:
                self._end(out)
            else:
                self._fail(TRUNCATED if self._started else EMPTY, out)
        return out

    # --- events ------------------------------------------------------------------------------------------------------

    def _one(self, event: IREvent, out: list[IREvent]) -> None:
        match event:
            case Delta():
                self._delta(event, out)
            case Start():
                if not self._started:
                    self._start(event, out)
            case Open():
                self._open_block(event, out)
            case PartBreak():
                block = self._open.get((event.choice, event.b))
                if block is not None and block.length and block.kind is BlockKind.REASONING:
                    block.breaks = True
            case SigEvent():
                self._signature(event, out)
            case Ann():
                self._citation(event, out)
            case Close():
                block = self._open.get((event.choice, event.b))
                if block is not None:
                    self._close_block((event.choice, event.b), block, event, out)
            case Usage():
                self._ensure_start(out)
                self._usage = merge(self._usage, event.tokens)
                out.append(Usage(tokens=self._usage, choice=event.choice))
            case Stop():
                self._ensure_start(out)
                self._choices.add(event.choice)
                self._stops.setdefault(event.choice, event)
            case Ping():
                if self._started:
                    out.append(event)
            case End():
                if self._stops or self._count:
                    self._end(out)
                else:
                    self._fail(EMPTY, out)
            case Err():
                self._fail(event, out)
            case _:
                assert_never(event)

    def _start(self, event: Start, out: list[IREvent]) -> None:
        self._started = True
        created = ids.created_unix(event.created_unix, self._ctx)
        out.append(Start(id=event.id, model=event.model or self._ctx.model, created_unix=created))

    def _ensure_start(self, out: list[IREvent]) -> None:
        if not self._started:
            self._start(Start(), out)

    def _open_block(self, event: Open, out: list[IREvent]) -> None:
        key = event.choice, event.b
        if key in self._open:
            log.debug("translation.block_opened_twice", block=event.b)
            return
        self._ensure_start(out)
        block = _Block(self._count, event.choice, event.kind)
        self._count += 1
        self._open[key] = block
        self._closed.discard(key)
        self._choices.add(event.choice)
        meta = event.meta
        if event.kind in TOOL_KINDS:
            self._with_tools.add(event.choice)
            if not meta.call_id or meta.call_id in self._call_ids:
                # Without an id of its own a call cannot be answered; they are random, see 2.8.
                meta = msgspec.structs.replace(meta, call_id=ids.call_id(self._ctx))
            self._call_ids.add(meta.call_id)
        self._has_content = self._has_content or event.kind not in WRITTEN_KINDS
        out.append(Open(b=block.number, kind=event.kind, meta=meta, choice=event.choice))

    def _delta(self, event: Delta, out: list[IREvent]) -> None:
        block = self._open.get((event.choice, event.b))
        if block is None:
            log.debug("translation.delta_of_no_block", block=event.b)
        elif event.s:
            self._write(block, event.s, out, event.probs)
        elif event.probs:
            block.probs += event.probs

    def _write(self, block: _Block, text: str, out: list[IREvent], probs: tuple[TokenProb, ...] = ()) -> None:
        if block.breaks:
            block.breaks = False
            out.append(PartBreak(b=block.number, choice=block.choice))
        self._has_content = self._has_content or block.kind is not BlockKind.REASONING
        block.pieces.append(text)
        block.length += len(text)
        if block.probs:
            probs, block.probs = block.probs + probs, ()
        if probs and block.kind not in PROBABLE_KINDS:
            probs = ()
        out.append(Delta(b=block.number, s=text, probs=probs, choice=block.choice))

    def _signature(self, event: SigEvent, out: list[IREvent]) -> None:
        key = event.choice, event.b
        block = self._open.get(key)
        if block is not None:
            out.append(SigEvent(b=block.number, sig=event.sig, choice=event.choice))
            return
        sig: Sig = event.sig
        if key in self._closed:  # too late for its block, not for the turn
            sig = msgspec.structs.replace(sig, preceding=True)
        self._ensure_start(out)
        self._choices.add(event.choice)
        out.append(SigEvent(b=NO_BLOCK, sig=sig, choice=event.choice))

    def _citation(self, event: Ann, out: list[IREvent]) -> None:
        block = self._open.get((event.choice, event.b))
        if block is None:
            log.debug("translation.citation_of_no_block", block=event.b)
        elif event.annotation.end < 0:
            block.citations.append(event.annotation)
        else:
            out.append(Ann(b=block.number, annotation=event.annotation, choice=event.choice))

    def _close_block(self, key: tuple[int, int], block: _Block, event: Close, out: list[IREvent]) -> None:
        if event.final is not None:
            self._reconcile(block, event.final, out)
        if block.probs and block.length and block.kind in PROBABLE_KINDS:
            out.append(Delta(b=block.number, s="", probs=block.probs, choice=block.choice))
        for annotation in block.citations:
            whole = msgspec.structs.replace(annotation, start=max(0, annotation.start), end=block.length)
            out.append(Ann(b=block.number, annotation=whole, choice=block.choice))
        del self._open[key]
        self._closed.add(key)
        incomplete = event.incomplete or event.failed
        out.append(Close(b=block.number, incomplete=incomplete, failed=event.failed, choice=block.choice))

    def _reconcile(self, block: _Block, final: str, out: list[IREvent]) -> None:
        """E6. Arguments are forwarded as they come, so *final* replaces nothing that is not its beginning."""
        streamed = "".join(block.pieces)
        if final.startswith(streamed):
            if missing := final[len(streamed) :]:
                self._write(block, missing, out)
        else:
            log.debug("translation.final_contradicts", kind=block.kind, streamed=len(streamed), final=len(final))

    # --- terminals ---------------------------------------------------------------------------------------------------

    def _end(self, out: list[IREvent]) -> None:
        reasons = {choice: self._reason(choice) for choice in sorted(self._choices | self._stops.keys())}
        if StopReason.CANCELLED in reasons.values():
            self._fail(CANCELLED, out)
            return
        if StopReason.MALFORMED_CALL in reasons.values() and not self._has_content:
            detail = next(stop.detail for stop in self._stops.values() if stop.reason is StopReason.MALFORMED_CALL)
            message = f"{MALFORMED.message}: {detail}" if detail else MALFORMED.message
            self._fail(msgspec.structs.replace(MALFORMED, message=message), out)
            return
        self._ensure_start(out)
        for key, block in list(self._open.items()):
            incomplete = reasons[block.choice] in INCOMPLETE
            self._close_block(key, block, Close(b=block.number, incomplete=incomplete), out)
        for choice, reason in reasons.items():
            said = self._stops.get(choice)
            detail, sequence = (said.detail, said.sequence) if said else ("", "")
            out.append(Stop(reason=reason, detail=detail, sequence=sequence, choice=choice))
        out.append(End())
        self.ended = True

    def _reason(self, choice: int) -> StopReason:
        """E8. A provider that ends without a reason (``[DONE]`` alone) has simply stopped."""
        said = self._stops.get(choice)
        reason = said.reason if said else StopReason.STOP
        if reason in (StopReason.STOP, StopReason.TOOL_USE):
            return StopReason.TOOL_USE if choice in self._with_tools else StopReason.STOP
        return reason

    def _fail(self, error: Err, out: list[IREvent]) -> None:
        for key, block in list(self._open.items()):
            self._close_block(key, block, Close(b=block.number, failed=True), out)
        out.append(msgspec.structs.replace(error))
        self.ended = True
