"""Turns as input items of Responses (translation 2.2, 2.3, 2.5, 2.8, 2.10, 2.16)."""

from typing import Final, TypeAlias

import msgspec

from cpa.formats.names import Format
from cpa.jsontypes import JsonObject, JsonValue
from cpa.translation.context import Context
from cpa.translation.ir import (
    Authority,
    Call,
    Channel,
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
    Sig,
    SigKind,
    Text,
    Turn,
    Written,
)
from cpa.translation.loss import Untranslatable
from cpa.translation.media import data_url, document_text, foreign_items_text, placeholder
from cpa.translation.responses.tool_defs import FAMILY
from cpa.translation.signatures import for_family
from cpa.translation.tools import error_text, without_reasoning, written_string

MAX_ITEM_ID: Final = 64
_FOREIGN_REASONING: Final = "reasoning of another provider"
_OPENAI_MADE: Final = Provenance.OPENAI
_USER, _TEXT = Role.USER, Shape.TEXT  # looking into an enumeration takes long
_OPENAI: Final = frozenset({Format.OPENAI_RESPONSE.value, Format.CODEX.value, Format.OPENAI.value})


class Said(msgspec.Struct, gc=False):
    """A message in its easy form. What nearly all items are has structs, which cost half of what a dict does."""

    type: str
    role: str
    content: "Written | list[InputText]"


class InputText(msgspec.Struct, gc=False):
    """A text of anybody but the model."""

    type: str
    text: Written


class FunctionCall(msgspec.Struct, gc=False):
    """A call of a function."""

    type: str
    call_id: str
    name: str
    arguments: Written


class Output(msgspec.Struct, gc=False):
    """What a function returned, a text."""

    type: str
    call_id: str
    output: Written


Item: TypeAlias = "Said | FunctionCall | Output | JsonValue"


def write_turns(request: IRRequest, ctx: Context) -> list[Item]:
    """The input after the leading system text."""
    writer = _Writer(request, ctx)
    for place, turn in enumerate(request.turns):
        writer.turn(turn, place)
    if request.client_format not in FAMILY:
        writer.drop_dangling_reasoning()
    return writer.items


class _Writer:
    def __init__(self, request: IRRequest, ctx: Context) -> None:
        self.items: list[Item] = []
        self._ctx = ctx
        self._names = ctx.names
        self._codex = ctx.profile.codex
        self._own = request.client_format in FAMILY
        self._stored = self._own and not ctx.profile.codex and request.state.store is not False
        self._path = ""
        self._reasons = False

    def turn(self, turn: Turn, place: int) -> None:
        """One turn's items, in the order of its parts."""
        if turn.plain and not self._own:
            self._plain(turn)
            return
        self._path = f"messages[{place}]"
        if turn.thinks and not self._own:
            thoughts = without_reasoning(turn, lambda part: bool(_sealed(part)))
            for _ in thoughts:
                self._ctx.lose(self._path, _FOREIGN_REASONING, dropped=True)
            if thoughts:
                self._plain(turn)
                return
        if turn.role is Role.ASSISTANT:
            self._assistant(turn)
        else:
            self._others(turn)

    def _plain(self, turn: Turn) -> None:
        """A plain turn of another protocol's client: no item has anything that is not said here."""
        items = self.items
        said: list[InputText] | None = None  # by the user, in a message that is not finished
        for part in turn.parts:
            if type(part) is Text:
                text = part.written or part.text
                if turn.role is _USER:
                    if said is None:
                        said = []
                        items.append(Said("message", "user", said))
                    said.append(InputText("input_text", text))
                elif self._codex or part.phase or turn.phase:
                    self._said(part, turn)
                else:
                    items.append(Said("message", "assistant", text))
            elif type(part) is Call:
                if part.shape is _TEXT or part.namespace:
                    self._call(part)
                else:
                    name = part.name if self._names.unchanged else self._names.to_wire(part.name)
                    items.append(FunctionCall("function_call", part.call_id, name, written_string(part)))
            else:
                assert type(part) is Result
                if part.is_error or part.shape is _TEXT:
                    self._result(part)
                else:
                    only = part.parts[0]
                    assert type(only) is Text  # otherwise the turn is not plain
                    items.append(Output("function_call_output", part.call_id, only.written or only.text))

    def drop_dangling_reasoning(self) -> None:
        """A reasoning item wants the item that it led to behind it; where a repair has removed that, it goes too."""
        if not self._reasons:
            return
        kept: list[Item] = []
        for item in reversed(self.items):
            if _is_reasoning(item) and not (kept and _is_step(kept[-1])):
                self._ctx.lose("messages", "reasoning whose outcome is gone", dropped=True)
            else:
                kept.append(item)
        self.items = kept[::-1]

    # --- user and system ---

    def _others(self, turn: Turn) -> None:
        """Results are items of their own; what stands between them is a message."""
        role = turn.role.value
        if turn.role is Role.SYSTEM:
            role = (Authority.DEVELOPER if self._codex else turn.authority).value
        content: list[JsonValue] = []

        def flush() -> None:
            if content:
                self.items.append({"type": "message", "role": role, "content": list(content)})
                content.clear()

        for part in turn.parts:
            if isinstance(part, Result):
                flush()
                self._result(part)
                continue
            item = self._state_item(part)
            if item is not None:
                flush()
                self.items.append(item)
                continue
            written = self._input_part(part)
            if written is not None:
                content.append(written)
        flush()

    def _state_item(self, part: Part) -> JsonValue:
        """Parts that are items in their own family, in whatever turn they stand; None for all others."""
        match part:
            case ServerCall() | ServerResult() if part.origin in FAMILY:
                return _raw(part.raw)
            case Native() if part.origin in FAMILY and not part.inner:
                return _raw(part.raw)
            case Compaction() if part.origin in FAMILY and not part.text:
                return {"type": "compaction", "encrypted_content": part.data}
            case _:
                return None

    def _input_part(self, part: Part) -> JsonValue:
        """A part of a user's or the system's message; None = nothing."""
        match part:
            case Text():
                self._lose_cache(part)
                return {"type": "input_text", "text": part.written or part.text}
            case Media():
                self._lose_cache(part)
                return self._media(part)
            case Refusal():
                return {"type": "input_text", "text": part.text}
            case Compaction():
                return {"type": "input_text", "text": self._compacted(part)}
            case ServerCall() | ServerResult():
                text = self._foreign(part)
                return {"type": "input_text", "text": text} if text else None
            case Native() if part.origin in FAMILY:
                return _raw(part.raw)
            case Call() | Reasoning() | Native() | Result():
                # Calls are the model's alone: in a user's turn they are text that looks like one (2.8).
                self._ctx.lose(self._path, f"{type(part).__name__.lower()} outside the assistant's turn", dropped=True)
                return None

    def _compacted(self, part: Compaction) -> str:
        if part.text:
            return f"Summary of earlier conversation: {part.text}"
        raise Untranslatable(self._path, "the compacted history can only be read by the provider that compacted it")

    def _lose_cache(self, part: Text | Media | Call | Result) -> None:
        if part.cache:
            self._ctx.lose(f"{self._path}.cache_control", dropped=True)

    # --- assistant ---

    def _assistant(self, turn: Turn) -> None:
        shown: list[JsonValue] = []  # media cannot stand in an assistant's message
        for part in turn.parts:
            match part:
                case Text():
                    self._lose_cache(part)
                    if part.written or part.text:
                        self._said(part, turn)
                case Refusal():
                    content: list[JsonValue] = [{"type": "refusal", "refusal": part.text}]
                    self.items.append({"type": "message", "role": "assistant", "content": content})
                case Call():
                    self._lose_cache(part)
                    self._call(part)
                case Reasoning():
                    self._reasoning(part)
                case Media():
                    shown.append(self._media(part))
                case Result():
                    self._result(part)
                case _:
                    self._other_step(part)
        if shown:
            self._ctx.lose(self._path, "media of the assistant became the user's")
            intro: JsonValue = {"type": "input_text", "text": "[shown earlier by the assistant]"}
            self.items.append({"type": "message", "role": "user", "content": [intro, *shown]})

    def _said(self, part: Text, turn: Turn) -> None:
        """Text in the easy form, which needs no id; the list form where something hangs on it (2.16)."""
        annotations: list[JsonValue] = [
            _raw(found.raw) for found in part.annotations if found.raw and found.origin in FAMILY
        ]
        message: JsonObject = {"type": "message", "role": "assistant"}
        if annotations or self._codex:
            text: JsonObject = {"type": "output_text", "text": part.written or part.text}
            if annotations:
                text["annotations"] = annotations
            message["content"] = [text]
        else:
            message["content"] = part.written or part.text
        phase = part.phase or ("" if self._own else turn.phase)
        if phase:
            message["phase"] = phase
        self.items.append(message)

    def _call(self, call: Call) -> None:
        custom = call.shape is Shape.TEXT
        item: JsonObject = {
            "type": "custom_tool_call" if custom else "function_call",
            "call_id": call.call_id,
            "name": self._ctx.names.to_wire(call.name, call.namespace),
        }
        if call.namespace:
            item["namespace"] = call.namespace
        item["input" if custom else "arguments"] = written_string(call)
        prefix = "ctc_" if custom else "fc_"
        if self._own and call.item_id.startswith(prefix) and len(call.item_id) <= MAX_ITEM_ID:
            item["id"] = call.item_id
        if self._own and call.status in ("in_progress", "completed", "incomplete") and not custom:
            item["status"] = call.status
        self.items.append(item)

    def _result(self, result: Result) -> None:
        self._lose_cache(result)
        custom = result.shape is Shape.TEXT
        item: JsonObject = {
            "type": "custom_tool_call_output" if custom else "function_call_output",
            "call_id": result.call_id,
            "output": self._result_output(result),
        }
        if not custom and (result.is_error or (self._own and result.status == "completed")):
            item["status"] = "incomplete" if result.is_error else "completed"
        self.items.append(item)

    def _result_output(self, result: Result) -> JsonValue:
        # Who speaks this protocol says errors in its own words; others had a flag (2.8).
        mark = result.is_error and not self._own
        only = result.parts[0] if len(result.parts) == 1 and not result.json and not mark else None
        if isinstance(only, Text):
            whole: JsonValue = only.written or only.text
            return whole
        if result.json:
            text = result.json.decode("utf-8", "replace")
            return error_text(text) if mark else text
        if all(isinstance(part, Text) for part in result.parts) and (len(result.parts) < 2 or not self._own):
            text = "\n".join(part.text for part in result.parts if part.text)
            return error_text(text) if mark else text
        parts: list[JsonValue] = []
        for part in result.parts:
            if isinstance(part, Media):
                parts.append(self._media(part))
            elif part.text:
                parts.append({"type": "input_text", "text": error_text(part.text) if mark else part.text})
                mark = False
        if mark:
            parts.insert(0, {"type": "input_text", "text": error_text("")})
        return parts

    def _reasoning(self, part: Reasoning) -> None:
        """Only with what the vendor made itself; the text of others would be taken for a claim (2.10)."""
        own = _sealed(part)
        known = self._own and part.item_id.startswith("rs_") and len(part.item_id) <= MAX_ITEM_ID
        if not own and not (self._stored and known):
            self._ctx.lose(self._path, _FOREIGN_REASONING, dropped=True)
            return
        item: JsonObject = {"type": "reasoning"}
        if known:
            item["id"] = part.item_id
        raw = part.texts if part.channel is Channel.RAW else part.hidden
        summary = part.texts if part.channel is Channel.SUMMARY else []
        item["summary"] = [{"type": "summary_text", "text": text} for text in summary]
        if raw:
            item["content"] = [{"type": "reasoning_text", "text": text} for text in raw]
        if own:
            item["encrypted_content"] = own[-1].data
        self._reasons = True
        self.items.append(item)

    def _other_step(self, part: ServerCall | ServerResult | Compaction | Native) -> None:
        item = self._state_item(part)
        if item is not None:
            self.items.append(item)
        elif isinstance(part, Native) and part.origin in FAMILY:
            self.items.append({"type": "message", "role": "assistant", "content": [_raw(part.raw)]})
        elif isinstance(part, ServerCall | ServerResult):
            text = self._foreign(part)
            if text:
                self._said(Text(text=text), Turn(role=Role.ASSISTANT, parts=[]))
        elif isinstance(part, Compaction):
            text = self._compacted(part)
            self.items.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
        else:
            self._ctx.lose(self._path, "unknown part", dropped=True)

    def _foreign(self, part: ServerCall | ServerResult) -> str:
        self._ctx.lose(self._path, f"{part.kind} of another provider became text")
        return foreign_items_text(part)

    # --- media ---

    def _media(self, media: Media) -> JsonValue:
        """A content part for *media*, or the placeholder that stands for it (2.5)."""
        if media.text:
            return {"type": "input_text", "text": document_text(media)}
        foreign_id = media.file_id and media.issuer not in _OPENAI
        if media.media in (MediaKind.AUDIO, MediaKind.VIDEO) or foreign_id:
            return self._unavailable(media)
        image = media.media is MediaKind.IMAGE
        out: JsonObject = {"type": "input_image" if image else "input_file"}
        if media.file_id:
            out["file_id"] = media.file_id
        elif media.url:
            out["image_url" if image else "file_url"] = media.url
        elif media.b64:
            if not image:
                out["filename"] = media.name or media.title or _file_name(media.mime)
            out["image_url" if image else "file_data"] = data_url(media)
        else:
            return self._unavailable(media)
        if image:
            out["detail"] = media.detail or "auto"  # its type demands one
        else:
            if media.name and "filename" not in out:
                out["filename"] = media.name
            if media.detail and self._own:
                out["detail"] = media.detail
            if media.context:
                self._ctx.lose(f"{self._path}.context", dropped=True)
        return out

    def _unavailable(self, media: Media) -> JsonValue:
        what = media.mime or media.media.value
        if self._ctx.settings.strict_content:
            raise Untranslatable(self._path, f"this model cannot take {what[:64]}")
        self._ctx.lose(self._path, f"{what[:64]} not available to this model")
        return {"type": "input_text", "text": placeholder(what).text}


def _sealed(part: Reasoning) -> list[Sig]:
    """What the vendor takes back of *part*."""
    return [sig for sig in for_family(part.sigs, _OPENAI_MADE) if sig.kind is SigKind.ENCRYPTED]


def _file_name(mime: str) -> str:
    """A name for a file that has none: the vendor tells the type by it."""
    return {"application/pdf": "document.pdf", "text/plain": "document.txt"}.get(mime, "document")


def _raw(data: bytes) -> JsonValue:
    """JSON text as a leaf, which msgspec writes as it is."""
    return msgspec.Raw(data)  # type: ignore[return-value]


def _is_reasoning(item: Item) -> bool:
    return isinstance(item, dict) and item.get("type") == "reasoning"


def _is_step(item: Item) -> bool:
    """Whether *item* is something that a model does."""
    if isinstance(item, Said):
        return item.role == "assistant"
    if isinstance(item, Output):
        return False
    if not isinstance(item, dict):
        return True  # an item of the vendor's own, as it came
    kind = str(item.get("type"))
    return item.get("role") == "assistant" if kind == "message" else not kind.endswith("_output")
