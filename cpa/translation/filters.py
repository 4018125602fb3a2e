"""Filters on the events of an answer that stand between normalizer and emitter."""

from collections.abc import Sequence
from typing import Final

import attrs

from cpa.translation.context import Context
from cpa.translation.ir import (
    BlockKind,
    Close,
    Delta,
    End,
    Err,
    IREvent,
    IRRequest,
    Open,
    Stop,
    StopReason,
    TokenProb,
    Tokens,
    Usage,
)
from cpa.translation.logprobs import covered

MAX_STOPS: Final = 64
"""More are not looked for: each is searched in each piece of text. The protocols allow 4 or 5."""
MAX_EXACT_CHARS: Final = 256
"""Up to this length of the longest sequence, only what may be the beginning of one is held back."""
CHARS_PER_TOKEN: Final = 4
"""For the estimate of an answer that was cut: the provider never gets to state its usage."""


@attrs.define(eq=False)
class _Held:
    """An open block. *text*: what is held back of it, "" of blocks that are not text; *probs*: of its tokens."""

    is_text: bool
    text: str = ""
    probs: tuple[TokenProb, ...] = ()


def open_stop_guard(request: IRRequest, ctx: Context) -> "StopGuard | None":
    """A guard for what *request* asks, for providers that know no stop sequences; None = nothing to guard."""
    stops = [stop for stop in request.sampling.stop if stop]
    if len(stops) > MAX_STOPS:
        ctx.lose("stop", f"only {MAX_STOPS} sequences are looked for")
    return StopGuard(stops, estimated_input=ctx.estimated_input) if stops else None


class StopGuard:
    """Emulates stop sequences for providers that know none (translation 2.4).

    Takes events that keep E1 to E9 and gives out such. Only text is searched, each block for itself, and never
    reasoning or arguments. The first sequence to be *completed* ends the answer, as it does in a model, so that how
    the text was cut into deltas makes no difference. For answers of one choice, all that Responses has.

    Attributes:
      stopped: a sequence was found and `End` was given out; the provider's request is to be cancelled, and all
        further events are swallowed.
    """

    def __init__(self, stops: Sequence[str], *, estimated_input: int = 0) -> None:
        self.stopped = False
        self._stops = tuple(dict.fromkeys(stop for stop in stops if stop))[:MAX_STOPS]
        self._hold = max(map(len, self._stops), default=1) - 1
        self._firsts = frozenset(stop[0] for stop in self._stops)
        self._estimated_input = estimated_input
        self._blocks: dict[tuple[int, int], _Held] = {}
        self._chars = 0
        self._usage: Tokens | None = None

    def feed(self, event: IREvent) -> list[IREvent]:
        """What the emitter gets instead of *event*."""
        if self.stopped:
            return []
        match event:
            case Delta():
                self._chars += len(event.s)
                held = self._blocks.get((event.choice, event.b))
                return self._search(event, held) if held is not None and held.is_text and self._stops else [event]
            case Open():
                self._blocks[event.choice, event.b] = _Held(event.kind is BlockKind.TEXT)
            case Close():
                held = self._blocks.pop((event.choice, event.b), None)
                if held is not None and (held.text or held.probs):
                    return [Delta(b=event.b, s=held.text, probs=held.probs, choice=event.choice), event]
            case Usage():
                self._usage = event.tokens
            case End() | Err():
                self._blocks.clear()
            case _:
                pass
        return [event]

    def _search(self, event: Delta, held: _Held) -> list[IREvent]:
        # What is held back is shorter than any sequence, so whatever is found ends in the new piece.
        text = held.text + event.s
        probs = held.probs + event.probs if held.probs or event.probs else ()
        found = [(place + len(stop), place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            _, place, stop = min(found)
            return self._cut(event, text[:place], probs, stop)
        kept = self._kept(text)
        held.text = text[len(text) - kept :]
        given = text[: len(text) - kept]
        told = covered(probs, given) if kept else len(probs)
        held.probs = probs[told:]
        return [Delta(b=event.b, s=given, probs=probs[:told], choice=event.choice)] if given or told else []

    def _kept(self, text: str) -> int:
        """How many characters at the end may be the beginning of a sequence."""
        longest = min(self._hold, len(text))
        if self._hold >= MAX_EXACT_CHARS:
            return longest
        for start in range(len(text) - longest, len(text)):
            if text[start] in self._firsts:
                tail = text[start:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return len(tail)
        return 0

    def _cut(self, event: Delta, text: str, probs: tuple[TokenProb, ...], stop: str) -> list[IREvent]:
        """The end of the answer: *text*, and whatever of other blocks was begun."""
        out: list[IREvent] = []
        if text:
            out.append(Delta(b=event.b, s=text, probs=probs[: covered(probs, text)], choice=event.choice))
        out.append(Close(b=event.b, choice=event.choice))
        for (choice, number), held in self._blocks.items():
            if (choice, number) == (event.choice, event.b):
                continue
            if held.text:
                out.append(Delta(b=number, s=held.text, probs=held.probs, choice=choice))
            out.append(Close(b=number, incomplete=not held.is_text, choice=choice))
        out.append(Usage(tokens=self._estimate()))
        out.append(Stop(reason=StopReason.STOP_SEQUENCE, sequence=stop, choice=event.choice))
        out.append(End())
        self.stopped = True
        self._blocks.clear()
        return out

    def _estimate(self) -> Tokens:
        said = self._usage
        stated = said is not None and said.input is not None
        return Tokens(
            input=said.input if said is not None and stated else self._estimated_input,
            cached=said.cached if said is not None else None,
            cache_write=said.cache_write if said is not None else None,
            output=max((said.output or 0) if said is not None else 0, -(-self._chars // CHARS_PER_TOKEN)),
            estimated=True,
        )
