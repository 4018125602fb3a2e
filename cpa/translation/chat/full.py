"""Whole Chat answers for clients: the sum of the deltas that a stream would bring (translation Part 3)."""

import attrs

from cpa.errors import UpstreamProtocolError
from cpa.formats.json import encode
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.chat.deltas import Deltas, Piece
from cpa.translation.chat.emitter import envelope
from cpa.translation.context import Context
from cpa.translation.ir import End, Err, IREvent, Start, Stop, StopReason, Tokens, Usage
from cpa.translation.usage import answer_tier, to_chat

_TEXTS = ("content", "refusal", "reasoning_content")
_LISTS = ("reasoning_details", "images", "annotations")


@attrs.define(eq=False)
class _Call:
    """A tool call; *word*: ``function`` or ``custom``, *key*: the member that its text has there."""

    entry: JsonObject
    word: str
    key: str
    name: str
    pieces: list[str] = attrs.field(factory=list)

    def value(self) -> JsonObject:
        """As it stands in a message."""
        return self.entry | {self.word: {"name": self.name, self.key: "".join(self.pieces)}}


@attrs.define(eq=False)
class _Message:
    """One choice while its deltas are added up; text in pieces, joined once."""

    texts: dict[str, list[str]] = attrs.field(factory=dict)
    lists: dict[str, list[JsonValue]] = attrs.field(factory=dict)
    calls: list[_Call] = attrs.field(factory=list)
    function_call: _Call | None = None
    audio: JsonValue = None
    finish: str = ""
    probs: dict[str, list[JsonValue]] = attrs.field(factory=dict)

    def add(self, piece: Piece) -> None:
        """The next delta."""
        self.finish = piece.finish or self.finish
        for name, tokens in (piece.logprobs or {}).items():
            if isinstance(tokens, list):
                self.probs.setdefault(name, []).extend(tokens)
        for name, value in piece.delta.items():
            if name in _TEXTS and isinstance(value, str):
                self.texts.setdefault(name, []).append(value)
            elif name in _LISTS and isinstance(value, list):
                self.lists.setdefault(name, []).extend(value)
            elif name == "tool_calls" and isinstance(value, list):
                for entry in value:
                    if isinstance(entry, dict):
                        self._call(dict(entry))
            elif name == "function_call" and isinstance(value, dict):
                if self.function_call is None:
                    self.function_call = _Call({}, name, "arguments", str(value.get("name")))
                self.function_call.pieces.append(str(value.get("arguments", "")))
            elif name == "audio":
                self.audio = value

    def _call(self, entry: JsonObject) -> None:
        index = entry.pop("index")
        assert isinstance(index, int)
        word = "custom" if "custom" in entry else "function"
        key = "input" if word == "custom" else "arguments"
        inner = entry.pop(word, None)
        said = inner if isinstance(inner, dict) else {}
        if index == len(self.calls):
            self.calls.append(_Call(entry, word, key, str(said.get("name"))))
        else:
            self.calls[index].entry |= entry
        self.calls[index].pieces.append(str(said.get(key, "")))

    def choice(self, number: int) -> JsonObject:
        """The whole choice."""
        probs: JsonObject | None = {"content": None, "refusal": None, **self.probs} if self.probs else None
        return {"index": number, "message": self.value(), "logprobs": probs, "finish_reason": self.finish or "stop"}

    def value(self) -> JsonObject:
        """The message, with what is empty left out, and ``null`` where the vendor says so (3.2)."""
        content = "".join(self.texts.get("content", ()))
        refusal = "".join(self.texts.get("refusal", ()))
        calls = bool(self.calls) or self.function_call is not None
        message: JsonObject = {
            "role": "assistant",
            "content": content if content or not (calls or refusal) else None,
            "refusal": refusal or None,
        }
        reasoning = "".join(self.texts.get("reasoning_content", ()))
        if reasoning:
            message["reasoning_content"] = reasoning
        message.update(self.lists)
        if self.audio is not None:
            message["audio"] = self.audio
        if self.calls:
            message["tool_calls"] = [call.value() for call in self.calls]
        if self.function_call is not None:
            function = self.function_call.value()["function_call"]
            message["function_call"] = function
        return message


def emit_full(events: list[IREvent], ctx: Context) -> bytes:
    """A whole answer; see `spoke.EmitFull`. Raises: UpstreamProtocolError when they end in an error."""
    deltas = Deltas(ctx)
    messages: dict[int, _Message] = {}
    start, tokens = Start(), Tokens()

    def add(pieces: list[Piece]) -> None:
        for piece in pieces:
            messages.setdefault(piece.choice, _Message()).add(piece)

    for event in events:
        match event:
            case Start():
                start = event
                add(deltas.begin())
            case Usage():
                tokens = event.tokens
            case Err():
                raise UpstreamProtocolError(event.message, code=event.code or None, http_status=event.status)
            case End():
                add(deltas.begin())
                for number in deltas.unfinished():
                    add(deltas.finish(Stop(reason=StopReason.STOP, choice=number)))
            case _:
                add(deltas.feed(event))
    body = envelope(start, ctx, "chat.completion")
    body["choices"] = [message.choice(number) for number, message in sorted(messages.items())]
    body["usage"] = to_chat(tokens)
    tier = answer_tier(tokens)
    if tier:
        body["service_tier"] = tier
    return encode(body)
