"""Turns as Chat messages (translation 2.2, 2.3, 2.5, 2.8, 2.10).

Chat has one message for a model's turn, with one place for text and one for calls, and tool messages that hold text
only. Media that a tool returned, or that the model showed, therefore become the user's, after the group's last result.
"""

from typing import Final

import attrs
import msgspec

from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.chat.parts import OPENAI, ORIGIN, write_media
from cpa.translation.context import Context
from cpa.translation.ir import (
    Authority,
    Call,
    Compaction,
    IRRequest,
    Media,
    MediaKind,
    Native,
    Part,
    Provenance,
    Reasoning,
    Refusal,
    Result,
    Role,
    ServerCall,
    ServerResult,
    Shape,
    SysBlock,
    Text,
    Turn,
    Written,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.media import document_text, foreign_items_text, placeholder
from cpa.translation.signatures import for_family
from cpa.translation.tools import (
    args_string,
    error_text,
    media_intro,
    split_result_media,
    without_reasoning,
    written_string,
)
from cpa.translation.undecoded import UNREAD

SHOWN: Final = "[shown earlier by the assistant]"
_UNSENT: Final = "reasoning is not sent to this provider"
_BREAK: Final = Text(text="\n\n")
_USER, _ASSISTANT, _ = Role  # looking into an enumeration takes long
_JSON, _TEXT = Shape


class Said(msgspec.Struct, gc=False):
    """A message of one text. What nearly all messages are has structs, which cost half of what a dict does."""

    role: str
    content: Written


class ToolText(msgspec.Struct, gc=False):
    """A tool's message."""

    role: str
    tool_call_id: str
    content: Written


class CalledFunction(msgspec.Struct, gc=False):
    """``function`` of a call."""

    name: str
    arguments: Written


class FunctionCall(msgspec.Struct, gc=False):
    """A call of a function."""

    id: str
    type: str
    function: CalledFunction


class Calling(msgspec.Struct, gc=False):
    """An assistant's message with calls, and perhaps a text."""

    role: str
    content: Written
    tool_calls: "list[WrittenCall]"


WrittenCall = FunctionCall | JsonObject
Message = Said | ToolText | Calling | JsonObject


def write_messages(request: IRRequest, ctx: Context) -> list[Message]:
    """``messages``: the system text, then all turns."""
    writer = _Writer(request, ctx)
    writer.system(request.system)
    for place, turn in enumerate(request.turns):
        writer.turn(turn, place)
    writer.flush()
    return writer.messages


@attrs.define(eq=False)
class _Said:
    """What one assistant's turn says, by the members of its message.

    Attributes:
      pieces: its text. *parts*: the same as content parts. *apart*: the next text does not directly follow the last.
      opaque: there is reasoning that cannot be shown.
    """

    pieces: list[Text] = attrs.field(factory=list)
    parts: list[JsonValue] = attrs.field(factory=list)
    refusals: list[str] = attrs.field(factory=list)
    reasoning: list[str] = attrs.field(factory=list)
    calls: "list[WrittenCall]" = attrs.field(factory=list)
    audio: str = ""
    apart: bool = False
    opaque: bool = False

    def text(self, text: Text, part: JsonValue) -> None:
        """More text. Blocks that follow each other are one text that was cut (at citations), others are not."""
        there = bool(text.written or text.text)
        if there and self.apart and any(piece.written or piece.text for piece in self.pieces):
            self.pieces.append(_BREAK)
        if there or not self.parts:
            self.pieces.append(text)
            self.parts.append(part)
            self.apart = False

    @property
    def content(self) -> JsonValue:
        """All of the text as one string; empty = none."""
        if len(self.pieces) == 1:
            return self.pieces[0].written or self.pieces[0].text
        return "".join(piece.text for piece in self.pieces)


class _Writer:
    def __init__(self, request: IRRequest, ctx: Context) -> None:
        self.messages: list[Message] = []
        self._ctx = ctx
        self._names = ctx.names
        self._own = request.client_format == ORIGIN
        self._pending: list[JsonValue] = []
        """Content parts for a user's message after the results of a group."""
        self._place = -1

    def flush(self) -> None:
        """The message that waits for the end of a group of results."""
        if self._pending:
            self.messages.append({"role": "user", "content": self._pending})
            self._pending = []

    # --- system ---

    def system(self, blocks: list[SysBlock]) -> None:
        """One message for each run of equal authority (2.2)."""
        run: list[SysBlock] = []
        for block in [*blocks, None]:
            if run and (block is None or block.authority is not run[0].authority):
                parts = [Text(text=UNREAD, cache=found.cache, written=found.written or found.text) for found in run]
                self._system_message(parts, run[0].authority, "")
                run = []
            if block is not None and (block.written or block.text):
                run.append(block)

    def _system_message(self, texts: list[Text], authority: Authority, name: str) -> None:
        role = self._ctx.profile.system_role if authority is Authority.DEVELOPER else Authority.SYSTEM.value
        content = self._content([self._text(text) for text in texts])
        self.messages.append({"role": role, "content": content} | ({"name": name} if name else {}))

    # --- turns ---

    def turn(self, turn: Turn, place: int) -> None:
        """One turn's messages."""
        self._place = place
        if turn.role is _ASSISTANT:
            if self._pending:
                self.flush()
            if turn.thinks and not self._ctx.profile.echo_reasoning:
                self._think(turn)
            if not self._plain_assistant(turn):
                self._assistant(turn)
        elif turn.role is _USER:
            if not self._plain_results(turn):
                self._user(turn)
        else:
            self.flush()
            texts = [self._as_text(part) for part in turn.parts]
            if texts:
                self._system_message(texts, turn.authority, turn.name)

    @property
    def _path(self) -> str:
        """Where losses are."""
        return "system" if self._place < 0 else f"messages[{self._place}]"

    def _as_text(self, part: Part) -> Text:
        """System text is text: what is none is named (2.2)."""
        match part:
            case Text():
                return part
            case Media():
                if part.text:
                    return Text(text=document_text(part), cache=part.cache)
                self._ctx.lose(self._path, "media in system text")
                return Text(text=placeholder(part.mime or part.media.value).text, cache=part.cache)
            case _:
                self._ctx.lose(self._path, f"{type(part).__name__.lower()} in system text", dropped=True)
                return Text(text="")

    def _plain_results(self, turn: Turn) -> bool:
        """Write a turn of results that are texts; False for any other."""
        if not turn.plain or type(turn.parts[0]) is Text:
            return False
        messages = self.messages
        for part in turn.parts:  # behind the first result of a plain turn there are only results, each one text
            if type(part) is not Result:
                continue
            only = part.parts[0]
            if part.is_error or type(only) is not Text:
                self._result(part)
            else:
                messages.append(ToolText("tool", part.call_id, only.written or only.text))
        return True

    def _user(self, turn: Turn) -> None:
        only = turn.parts[0] if len(turn.parts) == 1 else None
        if type(only) is Text and not only.cache and not turn.name:
            if self._pending:
                self.flush()
            self.messages.append(Said("user", only.written or only.text))
            return
        content: list[JsonValue] = []
        for part in turn.parts:
            if isinstance(part, Result):
                self._result(part)
                continue
            written = self._user_part(part)
            if written is not None:
                content.append(written)
        if not content:
            return
        self.flush()
        message: JsonObject = {"role": "user", "content": self._content(content)}
        if turn.name:
            message["name"] = turn.name
        self.messages.append(message)

    def _user_part(self, part: Part) -> JsonValue:
        match part:
            case Text():
                return self._text(part)
            case Media():
                return self._media(part)
            case Refusal():
                return {"type": "text", "text": part.text}
            case Compaction():
                return {"type": "text", "text": self._compacted(part)}
            case ServerCall() | ServerResult():
                text = self._foreign(part)
                return {"type": "text", "text": text} if text else None
            case Native() if part.origin == ORIGIN and part.inner and self._ctx.profile.native_extras:
                return _raw(part.raw)
            case Call() | Reasoning() | Native() | Result():
                # Calls are the model's alone: in a user's turn they are text that looks like one (2.8).
                self._ctx.lose(self._path, f"{type(part).__name__.lower()} in the user's turn", dropped=True)
                return None

    def _result(self, result: Result) -> None:
        content: JsonValue
        only = result.parts[0] if len(result.parts) == 1 and not result.json else None
        if type(only) is Text and not only.cache and not result.cache:
            text = error_text(only.text) if result.is_error else only.written or only.text
            self.messages.append(ToolText("tool", result.call_id, text))
            return
        if self._own and all(isinstance(part, Text) for part in result.parts):
            content = self._own_result(result)
        elif self._ctx.profile.tool_result_media and any(isinstance(p, Media) and not p.text for p in result.parts):
            parts = [self._media(part) if isinstance(part, Media) else self._text(part) for part in result.parts]
            mark: list[JsonValue] = [{"type": "text", "text": error_text("").strip()}] if result.is_error else []
            content = [*mark, *parts]
        else:
            if result.cache:
                self._ctx.lose(f"{self._path}.cache_control", dropped=True)
            content, media = split_result_media(result, mark_error=True)
            if media:
                self._ctx.lose(self._path, "media of a tool result moved to a user message")
                self._pending.append({"type": "text", "text": media_intro(result).text})
                self._pending += [self._media(found) for found in media]
        self.messages.append({"role": "tool", "tool_call_id": result.call_id, "content": content})

    def _own_result(self, result: Result) -> JsonValue:
        """Text parts as a client of this protocol wrote them."""
        texts = [part for part in result.parts if isinstance(part, Text)]
        parts = [self._text(part) for part in texts]
        if result.cache and parts:
            parts[-1] = self._text(Text(text=texts[-1].text, cache=result.cache))
        return self._content(parts) if parts else ""

    # --- assistant ---

    def _think(self, turn: Turn) -> None:
        """Take reasoning that is not sent out of *turn*, unless it parts two texts."""
        if len([part for part in turn.parts if type(part) is Text]) > 1:
            return
        said: list[str] = []
        opaque = False
        for _, part in without_reasoning(turn):
            opaque = opaque or part.redacted or bool(part.sigs)
            said += part.texts
        if opaque or _BREAK.text.join(said):
            self._ctx.lose(self._path, _UNSENT, dropped=True)

    def _plain_assistant(self, turn: Turn) -> bool:
        """Write a turn of one text at most, and calls after it; False for any other."""
        text: Written = None
        calls: list[WrittenCall] = []
        unchanged = self._names.unchanged
        for part in turn.parts:
            if type(part) is Call and not part.cache:
                if unchanged and part.written and part.shape is _JSON and not part.sigs:  # as nearly all are
                    function = CalledFunction(part.name, written_string(part))
                    calls.append(FunctionCall(part.call_id, "function", function))
                else:
                    calls.append(self._call(part))
            elif type(part) is Text and text is None and not calls and not part.cache:
                text = part.written or part.text
            else:
                return False
        if turn.name or not turn.parts:
            return False
        self.messages.append(Calling("assistant", text or None, calls) if calls else Said("assistant", text))
        return True

    def _assistant(self, turn: Turn) -> None:
        said = _Said()
        for part in turn.parts:
            match part:
                case Text():
                    if said.calls and turn.ordered and part.text:
                        self._ctx.lose(self._path, "text after a call moved before it")
                    said.text(part, self._text(part))
                case Call():
                    said.calls.append(self._call(part))
                    said.apart = True
                case Reasoning():
                    said.reasoning += [] if part.redacted else part.texts
                    said.opaque = said.opaque or part.redacted or bool(part.sigs)
                    said.apart = True
                case Refusal():
                    said.refusals.append(part.text)
                case Media() if part.media is MediaKind.AUDIO and part.file_id and part.issuer in OPENAI:
                    said.audio = part.file_id
                case Media():
                    if not self._pending:
                        self._pending.append({"type": "text", "text": SHOWN})
                    self._ctx.lose(self._path, "media of the assistant became the user's")
                    self._pending.append(self._media(part))
                case Result():
                    self._result(part)
                case Native() if part.origin == ORIGIN and part.inner and self._ctx.profile.native_extras:
                    said.parts.append(_raw(part.raw))
                case _:
                    self._step(part, said)
        self._write(said, turn)

    def _write(self, said: "_Said", turn: Turn) -> None:
        """The message of an assistant's turn, unless nothing is left of it."""
        if said.refusals and not self._own and not self._ctx.profile.vendor_host:
            # Compatible hosts do not know the member, and would see an empty message.
            text = _BREAK.text.join(said.refusals)
            said.refusals = []
            said.apart = True
            said.text(Text(text=text), {"type": "text", "text": text})
        message: JsonObject = {"role": "assistant", "content": self._content_of(said)}
        reasoning = _BREAK.text.join(said.reasoning)
        echoes = self._ctx.profile.echo_reasoning and bool(said.calls)
        if reasoning and echoes:
            message["reasoning_content"] = reasoning
        if said.opaque or (reasoning and not echoes):
            self._ctx.lose(self._path, _UNSENT, dropped=True)
        if said.refusals:
            message["refusal"] = _BREAK.text.join(said.refusals)
        if said.audio:
            message["audio"] = {"id": said.audio}
        if said.calls:
            message["tool_calls"] = said.calls  # type: ignore[assignment] # structs among them
        if turn.name:
            message["name"] = turn.name
        if said.parts or said.refusals or said.audio or said.calls:
            self.messages.append(message)

    def _content_of(self, said: "_Said") -> JsonValue:
        """The assistant's text: a client of Chat keeps its parts, of others all is one string (3.2)."""
        if self._own and (len(said.parts) > 1 or any(not _is_plain(part) for part in said.parts)):
            return said.parts
        return said.content or (None if said.calls or said.refusals or said.audio else "")

    def _call(self, call: Call) -> WrittenCall:
        name = call.name if self._names.unchanged else self._names.to_wire(call.name, call.namespace)
        if call.written and call.shape is _JSON and not call.cache and not call.sigs:  # as nearly all are
            return FunctionCall(call.call_id, "function", CalledFunction(name, written_string(call)))
        if call.cache:
            self._ctx.lose(f"{self._path}.cache_control", dropped=True)
        out: JsonObject
        if call.shape is _TEXT and name not in self._ctx.names.custom and not self._wraps:
            out = {"id": call.call_id, "type": "custom", "custom": {"name": name, "input": args_string(call)}}
        else:
            arguments = args_string(call, wrapped=call.shape is _TEXT)
            out = {"id": call.call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        if call.sigs and self._own and not self._ctx.profile.vendor_host:
            google = for_family(call.sigs, Provenance.GEMINI)
            if google:
                # Google's own host of this protocol wants it back.
                out["extra_content"] = {"google": {"thought_signature": google[-1].data}}
        return out

    @property
    def _wraps(self) -> bool:
        """Free-text tools are functions for this host, those that are no longer declared as well."""
        return not self._own and not self._ctx.profile.vendor_host

    def _step(self, part: Part, said: "_Said") -> None:
        """What other parts of an assistant's turn say in words."""
        match part:
            case ServerCall() | ServerResult():
                text = self._foreign(part)
            case Compaction():
                text = self._compacted(part)
            case _:
                self._ctx.lose(self._path, "unknown part", dropped=True)
                return
        if text:
            said.apart = True
            said.text(Text(text=text), {"type": "text", "text": text})
            said.apart = True

    # --- parts ---

    def _text(self, part: Text) -> JsonObject:
        out: JsonObject = {"type": "text", "text": part.written or part.text}
        if part.cache:
            if self._own and not self._ctx.profile.vendor_host:
                out["cache_control"] = _raw(part.cache)  # some hosts of this protocol honour it
            else:
                self._ctx.lose(f"{self._path}.cache_control", dropped=True)
        return out

    def _media(self, media: Media) -> JsonObject:
        if media.cache:
            self._ctx.lose(f"{self._path}.cache_control", dropped=True)
        return write_media(media, self._path, self._ctx, own=self._own)

    def _content(self, parts: list[JsonObject] | list[JsonValue]) -> JsonValue:
        """A string for one plain text, as every host knows it, else the list."""
        only = parts[0] if len(parts) == 1 else None
        if isinstance(only, dict) and _is_plain(only):
            return only["text"]
        return list[JsonValue](parts)

    def _compacted(self, part: Compaction) -> str:
        if part.text:
            return f"Summary of earlier conversation: {part.text}"
        raise Untranslatable(self._path, "the compacted history can only be read by the provider that compacted it")

    def _foreign(self, part: ServerCall | ServerResult) -> str:
        self._ctx.lose(self._path, f"{part.kind} of another provider became text")
        return foreign_items_text(part)


def _is_plain(part: JsonValue) -> bool:
    """Whether a content part is text and nothing else."""
    return isinstance(part, dict) and part.keys() == {"type", "text"}


def _raw(data: bytes) -> JsonValue:
    """JSON text as a leaf, which msgspec writes as it is."""
    return msgspec.Raw(data)  # type: ignore[return-value]
