"""Tool calls out of the deltas of Chat providers, which deviate from the vendor in every way (translation 4.3)."""

from collections.abc import Callable
from typing import Final

import attrs

from cpa.translation.chat.wire import ToolCall
from cpa.translation.context import Context
from cpa.translation.ir import (
    BlockKind,
    Close,
    Delta,
    IREvent,
    Meta,
    Open,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
)
from cpa.translation.signatures import unwrap

UNKNOWN_TOOL: Final = "unknown_tool"
MAX_CALLS: Final = 4096
"""Of one choice; nobody's answer has so many, and each takes memory."""


@attrs.define(eq=False)
class _Call:
    """One call while it is assembled.

    Attributes:
      b: its block, -1 until it is opened.
      held: argument text that came before the block could be opened.
    """

    call_id: str = ""
    name: str = ""
    custom: bool = False
    b: int = -1
    held: list[str] = attrs.field(factory=list)
    sigs: list[Sig] = attrs.field(factory=list)


class Calls:
    """The calls of one choice.

    Args:
      choice: its number. *new_block*: gives the number of the next block.
    """

    def __init__(self, ctx: Context, choice: int, new_block: Callable[[], int]) -> None:
        self._ctx = ctx
        self._choice = choice
        self._new_block = new_block
        self._calls: list[_Call] = []
        self._by_key: dict[int, _Call] = {}
        self._declared = frozenset(ctx.names.client)

    @property
    def has_calls(self) -> bool:
        """There is one, be it not opened yet."""
        return any(call.name or call.held for call in self._calls)

    def feed(self, entry: ToolCall, out: list[IREvent]) -> None:
        """One of a delta's ``tool_calls``."""
        call_id = entry.id if isinstance(entry.id, str) else ""
        function = entry.function
        name = function.name if function is not None else None
        arguments = function.arguments if function is not None else None
        custom = entry.custom
        if custom is not None and function is None:
            name, arguments = custom.name, custom.input
        call = self._find(entry, call_id, name or "", out)
        if call is None:
            return
        if entry.type == "custom" or (custom is not None and function is None):
            call.custom = True
        if call_id and not call.call_id:
            call.call_id = call_id
        if name:
            self._name(call, name)
        google = entry.extra_content.google if entry.extra_content is not None else None
        if google is not None and google.thought_signature:
            self._sign(call, google.thought_signature, out)
        text = arguments or ""
        if call.b >= 0:
            if text:
                out.append(Delta(b=call.b, s=text, choice=self._choice))
            return
        if text:
            call.held.append(text)
        if call.name and call.held:
            self._open(call, out)

    def finish(self, out: list[IREvent], *, incomplete: bool = False) -> None:
        """The choice has ended: open what can be, close all. *incomplete*: it was cut."""
        for call in self._calls:
            if call.b < 0:
                if not call.name:
                    if not call.held:
                        self._ctx.lose("tool_calls", "a call without a name and arguments", dropped=True)
                        continue
                    call.name = UNKNOWN_TOOL
                self._open(call, out)
            out.append(Close(b=call.b, incomplete=incomplete, choice=self._choice))
        self._calls.clear()
        self._by_key.clear()

    # --- details ---

    def _find(self, entry: ToolCall, call_id: str, name: str, out: list[IREvent]) -> _Call | None:
        """The call that *entry* belongs to, made if need be; None when there are too many."""
        key = entry.index if isinstance(entry.index, int) and not isinstance(entry.index, bool) else None
        call: _Call | None
        if key is not None:
            call = self._by_key.get(key)
        else:
            call = next((known for known in self._calls if call_id and known.call_id == call_id), None)
            if call is None and self._calls:
                call = self._calls[-1]
        if call is not None and call_id and name and call.call_id and call.call_id != call_id:
            call = None  # providers that send index 0 for every call
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                return None
            if self._calls and self._calls[-1].b < 0 and self._calls[-1].name:
                self._open(self._calls[-1], out)  # the next one begins, so its name is complete
            call = _Call()
            self._calls.append(call)
        if key is not None:
            self._by_key[key] = call
        return call

    def _name(self, call: _Call, piece: str) -> None:
        """The first name counts; some providers send it in pieces, which shows when only the whole is declared."""
        if not call.name:
            call.name = piece
        elif call.b < 0 and call.name != piece and call.name not in self._declared:
            whole = call.name + piece
            if whole in self._declared:
                call.name = whole

    def _sign(self, call: _Call, data: str, out: list[IREvent]) -> None:
        sig = unwrap(data, bare=Provenance.GEMINI, kind=SigKind.PART)
        if sig is None:
            return
        sig.of_call = True
        if call.b < 0:
            call.sigs.append(sig)
        else:
            out.append(SigEvent(b=call.b, sig=sig, choice=self._choice))

    def _open(self, call: _Call, out: list[IREvent]) -> None:
        call.b = self._new_block()
        kind = BlockKind.CUSTOM_TOOL if call.custom else BlockKind.TOOL
        meta = Meta(call_id=call.call_id, name=call.name)
        out.append(Open(b=call.b, kind=kind, meta=meta, choice=self._choice))
        out.extend(SigEvent(b=call.b, sig=sig, choice=self._choice) for sig in call.sigs)
        if call.held:
            out.append(Delta(b=call.b, s="".join(call.held), choice=self._choice))
            call.held.clear()
