"""Blocks of an answer on their way into output items (translation 4.8). `emitter.Emitter` decides when; this is how.

Each class knows the events of one kind of item, in their order, and gives the item as JSON text when it is done. Item
ids hold the item's place in the output, so they are unique.
"""

from typing import Final

import attrs
import msgspec

from cpa.formats.json import encode
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.annotations import to_responses
from cpa.translation.ir import Annotation, BlockKind, Channel, Sig, TokenProb
from cpa.translation.logprobs import write_openai
from cpa.translation.responses.custom_input import CustomInput
from cpa.translation.responses.frames import DeltaFrames, Frames

ADDED: Final = "response.output_item.added"
DONE: Final = "response.output_item.done"
_LOGPROBS: Final = b',"logprobs":[]'


@attrs.frozen
class Place:
    """Where an item stands in the output. *suffix*: of all ids in this answer."""

    index: int
    suffix: str

    def item_id(self, prefix: str) -> str:
        """An id that no other item of the answer has."""
        return f"{prefix}_{self.suffix}_{self.index}"


def raw(data: bytes) -> JsonValue:
    """JSON text as a leaf of what is encoded; msgspec writes it as it is, which `JsonValue` cannot say."""
    return msgspec.Raw(data)  # type: ignore[return-value]


class MessageItem:
    """A message: a run of texts and refusals."""

    def __init__(self, frames: Frames, place: Place, phase: str) -> None:
        self.place = place
        self.phase = phase
        self.over = False  # another item has begun: no further part
        self._frames = frames
        self.id = place.item_id("msg")
        self.parts: list[JsonValue] = []

    def _object(self, status: str, parts: list[JsonValue]) -> JsonObject:
        item: JsonObject = {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": parts}
        if self.phase:
            item["phase"] = self.phase
        return item

    def begin(self) -> bytes:
        """The event with which it is announced."""
        return self._frames.event(ADDED, output_index=self.place.index, item=self._object("in_progress", []))

    def json(self, status: str, extra: JsonValue = None) -> bytes:
        """The item. *extra*: a part that is not complete."""
        return encode(self._object(status, self.parts if extra is None else [*self.parts, extra]))


class TextBlock:
    """A text or a refusal; several wait for each other, as a message's parts are written one after the other."""

    def __init__(self, kind: BlockKind, phase: str) -> None:
        self.phase = phase
        self.closed = False
        self.incomplete = False
        self.late_sig: Sig | None = None  # came after its text
        self._refusal = kind is BlockKind.REFUSAL
        self._pieces: list[str] = []
        self._annotations: list[Annotation] = []
        self._written: list[JsonValue] = []
        self._probs: list[JsonValue] = []
        self._waiting: list[JsonValue] = []  # of what is said when its turn comes
        self._frames: Frames | None = None
        self._deltas: DeltaFrames | None = None
        self._where: JsonObject = {}

    @property
    def has_text(self) -> bool:
        """Anything was said."""
        return bool(self._pieces)

    def wait(self, text: str, probs: tuple[TokenProb, ...] = ()) -> None:
        """More text before it is this block's turn."""
        self._pieces.append(text)
        if probs and not self._refusal:
            self._waiting += write_openai(probs)

    def cite(self, annotation: Annotation) -> bytes:
        """A citation; at once if the block is being written."""
        if self._refusal:
            return b""
        if self._deltas is None:
            self._annotations.append(annotation)
            return b""
        return self._annotate(annotation)

    def begin(self, frames: Frames, message: MessageItem) -> bytes:
        """Its turn has come: what was waiting is written."""
        self._frames = frames
        self._where = {
            "item_id": message.id,
            "output_index": message.place.index,
            "content_index": len(message.parts),
        }
        kind = "response.refusal.delta" if self._refusal else "response.output_text.delta"
        self._deltas = DeltaFrames(frames, kind, self._where, after=b"" if self._refusal else _LOGPROBS)
        out = frames.event("response.content_part.added", **self._where, part=self._part("", []))
        if self._pieces:
            self._pieces = ["".join(self._pieces)]
            out += self._write(self._pieces[0], self._waiting)
        for annotation in self._annotations:
            out += self._annotate(annotation)
        return out

    def delta(self, text: str, probs: tuple[TokenProb, ...] = ()) -> bytes:
        """More text, after `begin`."""
        self._pieces.append(text)
        return self._write(text, write_openai(probs) if probs and not self._refusal else [])

    def _write(self, text: str, probs: list[JsonValue]) -> bytes:
        assert self._deltas is not None
        if not probs:
            return self._deltas.write(text)
        self._probs += probs
        return self._deltas.write(text, after=b',"logprobs":' + encode(probs))

    def end(self, message: MessageItem) -> bytes:
        """The part is complete; *message* gets it."""
        assert self._frames is not None
        text = "".join(self._pieces)
        part = self.part()
        message.parts.append(part)
        if self._refusal:
            out = self._frames.event("response.refusal.done", **self._where, refusal=text)
        else:
            out = self._frames.event("response.output_text.done", **self._where, text=text, logprobs=self._probs)
        return out + self._frames.event("response.content_part.done", **self._where, part=part)

    def part(self) -> JsonValue:
        """The part as it is now."""
        return self._part("".join(self._pieces), self._written)

    def _part(self, text: str, annotations: list[JsonValue]) -> JsonValue:
        if self._refusal:
            return {"type": "refusal", "refusal": text}
        part: JsonObject = {"type": "output_text", "text": text, "annotations": annotations}
        if self._probs:
            part["logprobs"] = self._probs
        return part

    def _annotate(self, annotation: Annotation) -> bytes:
        written = to_responses(annotation, index=len(self._written))
        if written is None:
            return b""
        assert self._frames is not None
        self._written.append(written)
        place = len(self._written) - 1
        return self._frames.event(
            "response.output_text.annotation.added", **self._where, annotation_index=place, annotation=written
        )


class ReasoningItem:
    """Reasoning: summary parts, or raw text, and at last what only its maker can read."""

    def __init__(self, frames: Frames, place: Place, channel: Channel) -> None:
        self.place = place
        self.id = place.item_id("rs")
        self._frames = frames
        self._summary = channel is Channel.SUMMARY
        self._parts: list[JsonValue] = []
        self._pieces: list[str] = []
        self._deltas: DeltaFrames | None = None
        self._where: JsonObject = {}

    def begin(self) -> bytes:
        """The event with which it is announced."""
        item: JsonObject = {"id": self.id, "type": "reasoning", "summary": []}
        return self._frames.event(ADDED, output_index=self.place.index, item=item)

    def delta(self, text: str) -> bytes:
        """More of it; the first of a part announces the part."""
        out = b""
        if self._deltas is None:
            place = "summary_index" if self._summary else "content_index"
            self._where = {"item_id": self.id, "output_index": self.place.index, place: len(self._parts)}
            begin = "response.reasoning_summary_part.added" if self._summary else "response.content_part.added"
            kind = "response.reasoning_summary_text.delta" if self._summary else "response.reasoning_text.delta"
            self._deltas = DeltaFrames(self._frames, kind, self._where)
            out = self._frames.event(begin, **self._where, part=self._part(""))
        self._pieces.append(text)
        return out + self._deltas.write(text)

    def end_part(self) -> bytes:
        """The part that is open, if any, is complete."""
        if self._deltas is None:
            return b""
        text = "".join(self._pieces)
        part = self._part(text)
        done = "response.reasoning_summary_text.done" if self._summary else "response.reasoning_text.done"
        part_done = "response.reasoning_summary_part.done" if self._summary else "response.content_part.done"
        out = self._frames.event(done, **self._where, text=text)
        out += self._frames.event(part_done, **self._where, part=part)
        self._parts.append(part)
        self._pieces.clear()
        self._deltas = None
        return out

    def _part(self, text: str) -> JsonValue:
        return {"type": "summary_text" if self._summary else "reasoning_text", "text": text}

    def json(self, encrypted: str, status: str = "") -> bytes:
        """The item as it is now."""
        parts = [*self._parts, self._part("".join(self._pieces))] if self._deltas is not None else self._parts
        item: JsonObject = {"id": self.id, "type": "reasoning", "summary": list(parts) if self._summary else []}
        if not self._summary:
            item["content"] = list(parts)
        if encrypted:
            item["encrypted_content"] = encrypted
        if status:
            item["status"] = status
        return encode(item)


class ToolItem:
    """A call of the client's tool, as a function's or, unwrapped if need be, with free text."""

    def __init__(
        self, frames: Frames, place: Place, *, call_id: str, name: str, namespace: str, custom: bool, wrapped: bool
    ) -> None:
        """*wrapped*: the free text comes inside a JSON object."""
        self.place = place
        self.custom = custom
        self._frames = frames
        self._input = CustomInput() if wrapped else None
        self._pieces: list[str] = []
        self.id = place.item_id("ctc" if custom else "fc")
        self._where: JsonObject = {"item_id": self.id, "output_index": place.index}
        self._member = "input" if custom else "arguments"
        self._event = "response.custom_tool_call_input" if custom else "response.function_call_arguments"
        self._deltas = DeltaFrames(frames, f"{self._event}.delta", self._where)
        self._head: JsonObject = {"id": self.id, "type": "custom_tool_call" if custom else "function_call"}
        self._name: JsonObject = {"call_id": call_id, "name": name}
        if namespace:
            self._name["namespace"] = namespace

    @property
    def started(self) -> bool:
        """Arguments have come."""
        return bool(self._pieces) or (self._input is not None and self._input.started)

    def _object(self, status: str, text: str) -> JsonObject:
        # The type of free-text calls has no status; only a cut one is told by it all the same.
        stated: JsonObject = {} if self.custom and status != "incomplete" else {"status": status}
        return {**self._head, **stated, **self._name, self._member: text}

    def begin(self) -> bytes:
        """The event with which it is announced."""
        return self._frames.event(ADDED, output_index=self.place.index, item=self._object("in_progress", ""))

    def delta(self, text: str) -> bytes:
        """More of the arguments."""
        if self._input is not None:
            text = self._input.feed(text)
            if not text:
                return b""
        self._pieces.append(text)
        return self._deltas.write(text)

    def end(self) -> bytes:
        """The arguments are complete."""
        out = b""
        if self._input is not None:
            whole = self._input.finish()
            rest = whole[len("".join(self._pieces)) :]
            if rest:
                self._pieces.append(rest)
                out = self._deltas.write(rest)
        elif not self._pieces and not self.custom:
            self._pieces.append("{}")  # an object, as everybody parses it
        where: JsonObject = {**self._where, self._member: "".join(self._pieces)}
        if not self.custom:
            where["name"] = self._name["name"]
        return out + self._frames.event(f"{self._event}.done", **where)

    def json(self, status: str) -> bytes:
        """The item as it is now."""
        return encode(self._object(status, "".join(self._pieces)))
