"""What a Chat client gets of an answer's events, as deltas (translation 3.2, 4.7).

The one meaning of events in this protocol. `emitter` writes each delta as a chunk, `full` adds them up to a message,
as the vendor's client does with chunks: law L2 holds by construction.
"""

from typing import Final

import attrs
import msgspec

from cpa.formats.json import encode
from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.annotations import to_chat as citation
from cpa.translation.chat.details import write_carrier, write_details
from cpa.translation.context import Context
from cpa.translation.ir import (
    Ann,
    BlockKind,
    Close,
    Delta,
    IREvent,
    Open,
    PartBreak,
    Provenance,
    Sig,
    SigEvent,
    SigKind,
    Stop,
    ToolKind,
)
from cpa.translation.logprobs import write_openai
from cpa.translation.signatures import wrap
from cpa.translation.stops import to_chat as finish_reason
from cpa.translation.tools import unwrap_custom

BREAK: Final = "\n\n"


class Piece(msgspec.Struct, gc=False):
    """A delta of one choice; *finish*: its ``finish_reason``, empty until it has one. *logprobs*: None = absent."""

    choice: int
    delta: JsonObject
    finish: str = ""
    logprobs: JsonObject | None = None


@attrs.define(eq=False)
class _Block:
    """An open block.

    Attributes:
      index: of a call among the choice's calls, -1 = this client cannot be told of it.
      start: the delta with which a call begins, until it is given out.
      pieces: what is held back: arguments that have to be unwrapped or wrapped, base64.
      parts: reasoning text that was written, should a signature come that covers it.
      offset: code points of the message before this text.
    """

    kind: BlockKind
    choice: int = 0
    index: int = 0
    name: str = ""
    custom: bool = False
    held: bool = False
    written: bool = False
    start: JsonObject | None = None
    call_id: str = ""
    mime: str = ""
    item_id: str = ""
    pieces: list[str] = attrs.field(factory=list)
    parts: list[list[str]] = attrs.field(factory=list)
    sigs: list[Sig] = attrs.field(factory=list)
    breaks: bool = False
    offset: int = 0


@attrs.define(eq=False)
class _Choice:
    """One choice so far."""

    calls: int = 0
    details: int = 0
    images: int = 0
    length: int = 0
    reasoned: bool = False
    refused: bool = False
    audio: bool = False
    finished: bool = False
    annotations: list[JsonValue] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    text_sigs: list[Sig] = attrs.field(factory=list)


class Deltas:
    """Makes deltas of events that keep E1 to E9, for one answer."""

    def __init__(self, ctx: Context) -> None:
        request = ctx.request
        self._ctx = ctx
        self._blocks: dict[int, _Block] = {}
        self._choices: dict[int, _Choice] = {}
        self._legacy = request is not None and request.legacy_functions
        self._visible = request is None or request.reasoning.visible is not False
        self._details = ctx.settings.chat_reasoning_details
        self._custom = frozenset(
            tool.name for tool in (request.tools if request is not None else ()) if tool.kind is ToolKind.CUSTOM
        )
        # Of Google's answers, the signature follows the opening, and belongs into the first delta (4.7).
        self._waits = ctx.provider is Format.GEMINI

    def feed(self, event: IREvent) -> list[Piece]:
        """The deltas of *event*, often none. `Start`, usage and terminals are for whoever writes the envelope."""
        match event:
            case Delta():
                return self._delta(event)
            case Open():
                return self._open(event)
            case Close():
                block = self._blocks.pop(event.b, None)
                return self._close(event, block) if block is not None and not event.failed else []
            case PartBreak():
                block = self._blocks.get(event.b)
                if block is not None:
                    block.breaks = True
                return []
            case SigEvent():
                return self._signature(event)
            case Ann():
                self._cite(event)
                return []
            case Stop():
                return self.finish(event)
            case _:
                return []

    def begin(self, choice: int = 0) -> list[Piece]:
        """The role, once per choice, and of lower ones first: the vendor's client counts them as they come."""
        out = []
        for number in range(choice + 1):
            if number not in self._choices:
                self._choices[number] = _Choice()
                out.append(Piece(number, {"role": "assistant", "content": ""}))
        return out

    def finish(self, event: Stop) -> list[Piece]:
        """The end of a choice."""
        out = self.begin(event.choice)
        state = self._choices[event.choice]
        if state.finished:
            return out
        state.finished = True
        if state.annotations:
            # In one chunk: the vendor's client cannot merge a second list of what has no index.
            out.append(Piece(event.choice, {"annotations": state.annotations}))
        if self._ctx.signatures is not None and state.text_sigs:
            text = "".join(state.texts)
            for sig in state.text_sigs:
                self._ctx.signatures.keep_text(text, sig)
        reason = finish_reason(event.reason, legacy_functions=self._legacy, has_refusal=state.refused)
        out.append(Piece(event.choice, {}, reason))
        return out

    def unfinished(self) -> list[int]:
        """Choices that had no `Stop`."""
        return [number for number, state in self._choices.items() if not state.finished]

    # --- text ---

    def _delta(self, event: Delta) -> list[Piece]:
        block = self._blocks.get(event.b)
        if block is None:
            return []
        text = event.s
        match block.kind:
            case BlockKind.TEXT:
                state = self._choices[event.choice]
                state.length += len(text)
                if self._ctx.signatures is not None:
                    state.texts.append(text)
                return [Piece(event.choice, {"content": text}, logprobs=_probs("content", event))]
            case BlockKind.TOOL | BlockKind.CUSTOM_TOOL:
                return self._arguments(event, block)
            case BlockKind.REASONING:
                return self._reasoning(event, block)
            case BlockKind.REFUSAL:
                self._choices[event.choice].refused = True
                return [Piece(event.choice, {"refusal": text}, logprobs=_probs("refusal", event))]
            case BlockKind.IMAGE | BlockKind.AUDIO:
                block.pieces.append(text)
                return []
            case BlockKind.SERVER_CALL | BlockKind.SERVER_RESULT | BlockKind.OPAQUE:
                return []

    def _reasoning(self, event: Delta, block: _Block) -> list[Piece]:
        text = event.s
        if not self._visible:
            return []
        if self._details:
            if block.breaks or not block.parts:
                block.parts.append([])
            block.parts[-1].append(text)
        state = self._choices[event.choice]
        # Parts, and blocks, stand apart by a blank line, written only when something follows.
        if block.breaks or (state.reasoned and not block.written):
            text = BREAK + text
        block.breaks = False
        block.written = state.reasoned = True
        return [Piece(event.choice, {"reasoning_content": text})]

    # --- blocks ---

    def _open(self, event: Open) -> list[Piece]:
        out = self.begin(event.choice)
        state = self._choices[event.choice]
        meta = event.meta
        block = _Block(event.kind, event.choice, mime=meta.mime, item_id=meta.item_id)
        self._blocks[event.b] = block
        if event.kind is BlockKind.TEXT:
            block.offset = state.length
        elif event.kind in (BlockKind.TOOL, BlockKind.CUSTOM_TOOL):
            for waiting in self._blocks.values():  # indices have to come in order
                if waiting.start is not None and waiting.choice == event.choice:
                    out += self._begin_call(event.choice, waiting)
            self._open_call(event, block, state)
            if block.start is not None and not self._waits:
                out += self._begin_call(event.choice, block)
        return out

    def _open_call(self, event: Open, block: _Block, state: _Choice) -> None:
        wire_name = event.meta.name
        block.name = self._ctx.names.to_client(wire_name)[1]
        block.call_id = event.meta.call_id
        wrapped = wire_name in self._ctx.names.custom and event.kind is BlockKind.TOOL
        block.custom = wrapped or (event.kind is BlockKind.CUSTOM_TOOL and block.name in self._custom)
        # A wrapped call has to be complete to be unwrapped; free text that the client did not declare, to be wrapped.
        block.held = wrapped or (event.kind is BlockKind.CUSTOM_TOOL and not block.custom)
        block.index = state.calls
        state.calls += 1
        if self._legacy:
            if block.index:
                block.index = -1
                self._ctx.lose("function_call", "a second call cannot be told to this client", dropped=True)
                return
            block.start = {"function_call": {"name": block.name, "arguments": ""}}
            return
        call: JsonObject = {"index": block.index, "id": block.call_id}
        if block.custom:
            call |= {"type": "custom", "custom": {"name": block.name, "input": ""}}
        else:
            call |= {"type": "function", "function": {"name": block.name, "arguments": ""}}
        block.start = {"tool_calls": [call]}

    def _begin_call(self, choice: int, block: _Block) -> list[Piece]:
        start, block.start = block.start, None
        if start is None:
            return []
        if block.sigs and not self._legacy:
            calls = start["tool_calls"]
            assert isinstance(calls, list)
            assert isinstance(calls[0], dict)
            calls[0]["extra_content"] = _google(block.sigs[-1])
        return [Piece(choice, start)]

    def _arguments(self, event: Delta, block: _Block) -> list[Piece]:
        if block.held:
            block.pieces.append(event.s)
            return []
        return [*self._begin_call(event.choice, block), *self._input(event.choice, block, event.s)]

    def _input(self, choice: int, block: _Block, text: str) -> list[Piece]:
        if block.index < 0 or not text:
            return []
        block.written = True
        if self._legacy:
            return [Piece(choice, {"function_call": {"arguments": text}})]
        if block.custom:
            return [Piece(choice, {"tool_calls": [{"index": block.index, "custom": {"input": text}}]})]
        return [Piece(choice, {"tool_calls": [{"index": block.index, "function": {"arguments": text}}]})]

    def _close(self, event: Close, block: _Block) -> list[Piece]:
        choice = event.choice
        state = self._choices[choice]
        match block.kind:
            case BlockKind.TOOL | BlockKind.CUSTOM_TOOL:
                return self._close_call(event, block)
            case BlockKind.REASONING:
                return self._close_reasoning(choice, block, state)
            case BlockKind.TEXT if block.sigs:
                return [piece for sig in block.sigs for piece in self._carry(choice, state, _after(sig))]
            case BlockKind.IMAGE if block.pieces:
                url = f"data:{block.mime or 'image/png'};base64,{''.join(block.pieces)}"
                image: JsonObject = {"type": "image_url", "index": state.images, "image_url": {"url": url}}
                state.images += 1
                return [Piece(choice, {"images": [image]})]
            case BlockKind.AUDIO if block.pieces:
                return self._close_audio(choice, block, state)
            case BlockKind.OPAQUE:
                self._ctx.lose("answer", "a part that this protocol cannot show", dropped=True)
        return []

    def _close_call(self, event: Close, block: _Block) -> list[Piece]:
        if self._ctx.signatures is not None:
            for sig in block.sigs:
                self._ctx.signatures.keep_call(block.call_id, sig)
        out = self._begin_call(event.choice, block)
        if block.held:
            text = "".join(block.pieces)
            wrapped = block.kind is BlockKind.TOOL
            text = unwrap_custom(text) if wrapped else encode({"input": text}).decode()
            out += self._input(event.choice, block, text)
        if not block.written and not block.custom and not event.incomplete:
            out += self._input(event.choice, block, "{}")
        return out

    def _close_reasoning(self, choice: int, block: _Block, state: _Choice) -> list[Piece]:
        if not self._details or not block.sigs:
            return []
        entries = write_details(["".join(part) for part in block.parts], block.sigs[-1], state.details)
        state.details += len(entries)
        return [Piece(choice, {"reasoning_details": list[JsonValue](entries)})]

    def _close_audio(self, choice: int, block: _Block, state: _Choice) -> list[Piece]:
        if state.audio:
            self._ctx.lose("answer", "more than one audio", dropped=True)
            return []
        state.audio = True
        audio: JsonObject = {
            "id": block.item_id or f"audio_{self._ctx.new_id()}",
            "data": "".join(block.pieces),
            "transcript": "",
            "expires_at": int(self._ctx.now_unix()),  # nobody keeps it
        }
        return [Piece(choice, {"audio": audio})]

    # --- what belongs to blocks ---

    def _signature(self, event: SigEvent) -> list[Piece]:
        block = self._blocks.get(event.b)
        if block is None:
            out = self.begin(event.choice)
            return out + self._carry(event.choice, self._choices[event.choice], event.sig)
        if block.kind is BlockKind.TEXT:
            block.sigs.append(event.sig)
            self._choices[event.choice].text_sigs.append(event.sig)
            return []
        block.sigs = [event.sig]  # a later one replaces an earlier one
        if block.kind not in (BlockKind.TOOL, BlockKind.CUSTOM_TOOL) or self._legacy or block.index < 0:
            return []
        if block.start is not None:
            return []
        call: JsonObject = {"index": block.index, "extra_content": _google(event.sig)}
        if not block.custom:
            call["function"] = {"arguments": ""}  # the vendor's helper asserts that it is there
        return [Piece(event.choice, {"tool_calls": [call]})]

    def _carry(self, choice: int, state: _Choice, sig: Sig) -> list[Piece]:
        """A signature that has no place of its own."""
        if not self._details:
            return []
        entry = write_carrier(sig, state.details)
        state.details += 1
        return [Piece(choice, {"reasoning_details": [entry]})]

    def _cite(self, event: Ann) -> None:
        block = self._blocks.get(event.b)
        state = self._choices.get(event.choice)
        if block is None or state is None:
            return
        found = citation(event.annotation, block.offset)
        if found is not None:
            state.annotations.append(found)


def _probs(member: str, event: Delta) -> JsonObject | None:
    return {"content": None, "refusal": None, member: write_openai(event.probs)} if event.probs else None


def _google(sig: Sig) -> JsonObject:
    """``extra_content`` by Google's own convention; of others, which have none, an envelope."""
    bare = sig.provenance is Provenance.GEMINI
    return {"google": {"thought_signature": sig.data if bare else wrap(sig)}}


def _after(sig: Sig) -> Sig:
    """Text was written before its signature came, so that it is carried behind it."""
    return msgspec.structs.replace(sig, kind=SigKind.PART, preceding=True)
