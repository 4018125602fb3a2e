"""Input items of Responses, read into turns (translation 2.3, 2.5, 2.8, 2.10, 2.16).

Items are flat; a model's turn is a run of them: reasoning, messages of the assistant, calls, steps of server tools. It
ends with a message of anybody else or with a call's output.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.names import Format
from cpa.formats.scan import text_start
from cpa.translation.annotations import from_openai
from cpa.translation.context import Context
from cpa.translation.ir import (
    Authority,
    Call,
    Channel,
    Compaction,
    Media,
    MediaKind,
    Native,
    Part,
    Provenance,
    Raw,
    Reasoning,
    Refusal,
    Result,
    Role,
    ServerCall,
    ServerResult,
    Shape,
    Sig,
    SigKind,
    SysBlock,
    Text,
    Turn,
)
from cpa.translation.literals import first_of, read_arguments, read_text, sound, system_block
from cpa.translation.loss import Untranslatable
from cpa.translation.media import file_mime, mime_of_name, parse_data_url
from cpa.translation.responses import wire
from cpa.translation.responses.wire import InputItem, given, raw_of, text_of
from cpa.translation.signatures import unwrap, unwrap_compaction
from cpa.translation.undecoded import UNREAD

ORIGIN: Final = Format.OPENAI_RESPONSE.value
SUMMARY_INTRO: Final = "Summary of earlier conversation: "
MAX_REFERENCES: Final = 1000
"""Items that one request may refer to; each is a look-up."""

Spans = Callable[[], list[msgspec.Raw]]
"""Gives the items undecoded; costs a pass over the body, so it is asked for only when one is needed."""

_USER, _ASSISTANT, _SYSTEM = Role  # looking into an enumeration takes long
_TEXT: Final = Shape.TEXT
_OPENAI: Final = Provenance.OPENAI
_SUMMARY, _RAW = Channel
_, _REDACTED, _ENCRYPTED, _PART = SigKind
_ABSENT: Final = wire.ABSENT
_EMPTY_TEXT: Final = len(b'""')
_RETURNED: Final = (Result, ServerResult)
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_SERVER_KINDS: Final = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code",
    "image_generation_call": "image_gen",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcp",
    "mcp_approval_request": "mcp",
    "local_shell_call": "other",
    "shell_call": "other",
    "apply_patch_call": "other",
    "computer_call": "other",
    "tool_search_call": "other",
    "program": "other",
}
_SERVER_RESULTS: Final = {
    "mcp_approval_response": "mcp",
    "local_shell_call_output": "other",
    "shell_call_output": "other",
    "apply_patch_call_output": "other",
    "computer_call_output": "other",
    "tool_search_output": "other",
    "program_output": "other",
}
_CLIENT_RESULTS: Final = frozenset(_SERVER_RESULTS) - {"tool_search_output", "program_output"}
"""What the client reports, so that the model's turn is over."""


class ItemReader:
    """Makes turns of items.

    Attributes:
      system: leading system text. *more_tools*: lists of tools in items, undecoded.
    """

    def __init__(self, ctx: Context, *, native: bool) -> None:
        """*native*: the provider speaks Responses, so that items of its own kind may stay as they are."""
        self.system: list[SysBlock] = []
        self.more_tools: list[msgspec.Raw] = []
        self._ctx = ctx
        self._native = native
        self._turns: list[Turn] = []
        self._said: list[Part] | None = None  # parts of the last turn, if it is the model's
        self._leading = True
        self._sigs: list[Sig] = []  # for the part that follows
        self._references = 0

    def feed_text(self, text: str) -> None:
        """An input that is a string: one message of the user."""
        self._add_turn(Turn(role=Role.USER, parts=[Text(text=text)]))

    def feed_items(self, items: list[InputItem], spans: Spans) -> None:
        """The input's items, in order."""
        for place, item in enumerate(items):
            if not self._feed_usual(item):
                self._feed(item, place, spans)

    def feed_stored(self, raws: Iterable[Raw]) -> None:
        """Items of earlier answers, which come before the input."""
        for raw in map(sound, raws):
            item = wire.read(InputItem, raw)
            if item is not None:
                self._feed(item, 0, _just(raw))

    def finish(self) -> list[Turn]:
        """All turns."""
        return [turn for turn in self._turns if turn.parts]

    # --- dispatch ---

    def _feed_usual(self, item: InputItem) -> bool:
        """Read an item of those that nearly all are, which say no more than they must; False for any other.

        All is done here, without helpers: histories are long, and a call costs as much as what it does. `_feed` reads
        the same items likewise.
        """
        kind = item.type
        said = self._said
        if item.cache_control is not _ABSENT or self._sigs or item.namespace:
            return False
        if kind == "function_call":
            name, args = item.name, item.arguments
            if not name or len(args) <= _EMPTY_TEXT or not text_start(args):
                return False
            call = Call(item.call_id or "", name, UNREAD, True, written=args)
            if item.id:
                call.item_id = item.id
            if item.status:
                call.status = item.status
            if said is not None:
                said.append(call)
            else:
                self._add_turn(Turn(_ASSISTANT, [call]))
            return True
        if kind == "function_call_output":
            text = read_text(item.output)
            if text is None or item.name or item.status:
                return False
            result = Result(item.call_id or "", "", [text])
            if item.id:
                result.item_id = item.id
            if said is not None:  # the first behind the model's turn
                self._said = None
                self._turns.append(Turn(_USER, [result]))
            else:
                self._user(result)
            return True
        if kind == "message":
            content, role = item.content, item.role
            if type(content) is not list or len(content) != 1 or item.phase:
                return False
            part = content[0]
            if part.type not in _TEXTS or part.prompt_cache_breakpoint is not _ABSENT or part.annotations:
                return False
            text = read_text(part.text) if part.cache_control is _ABSENT else None
            if text is None:
                return False
            if role == "user":
                self._add_turn(Turn(_USER, [text]))
            elif role != "assistant":
                return False
            elif said is not None:
                said.append(text)
            else:
                self._add_turn(Turn(_ASSISTANT, [text]))
            return True
        return False

    def _feed(self, item: InputItem, place: int, spans: Spans) -> None:
        kind = item.type or ("message" if item.role else "item_reference" if item.id else "")
        if kind == "function_call" or kind == "custom_tool_call":
            self._assistant(self._call(item, kind, place))
        elif kind == "function_call_output" or kind == "custom_tool_call_output":
            self._result(item, kind, place, spans)
        elif kind == "message":
            self._message(item, place, spans)
        elif kind == "reasoning":
            self._reasoning(item)
        else:
            self._rare(item, kind, place, spans)

    def _rare(self, item: InputItem, kind: str, place: int, spans: Spans) -> None:
        match kind:
            case "additional_tools":
                self.more_tools.append(item.tools)
            case "item_reference":
                self._reference(item, place, spans)
            case "compaction" | "compaction_summary":
                self._compaction(item, place)
            case "compaction_trigger" if not self._native:
                raise Untranslatable(f"input[{place}]", "this model's provider does not support 'compaction_trigger'")
            case _ if kind in _SERVER_KINDS:
                self._server_call(item, kind, place, spans)
            case _ if kind in _SERVER_RESULTS:
                part = ServerResult(
                    kind=_SERVER_RESULTS[kind], origin=ORIGIN, raw=_span(spans, place), call_id=item.call_id or ""
                )
                if kind in _CLIENT_RESULTS:
                    self._user(part)
                else:
                    self._assistant(part)
            case _:
                self._unknown(kind, place, spans)

    def _unknown(self, kind: str, place: int, spans: Spans) -> None:
        if not self._native:
            self._ctx.lose(f"input[{place}]", f"unknown item type {kind[:64]!r}", dropped=True)
            return
        part = Native(origin=ORIGIN, raw=_span(spans, place))
        if self._turns:
            self._turns[-1].parts.append(part)
        else:
            self._add_turn(Turn(role=Role.USER, parts=[part]))

    # --- turns ---

    def _add_turn(self, turn: Turn) -> None:
        self._leading = self._leading and turn.role is _SYSTEM
        self._said = turn.parts if turn.role is _ASSISTANT else None
        self._turns.append(turn)

    def _assistant(self, part: Part) -> None:
        """Add to the model's turn, with the signatures that stood before it."""
        if self._sigs and isinstance(part, Text | Call):
            part.sigs = [sig for sig in self._sigs if isinstance(part, Call) or not sig.of_call]
            self._sigs = [sig for sig in self._sigs if isinstance(part, Text) and sig.of_call]
        if self._said is not None:
            self._said.append(part)
        else:
            self._add_turn(Turn(_ASSISTANT, [part]))

    def _user(self, part: Part) -> None:
        """Add to the outputs that follow a model's turn."""
        last = self._turns[-1] if self._turns else None
        if last is not None and last.role is _USER and last.parts and type(last.parts[-1]) in _RETURNED:
            last.parts.append(part)
        else:
            self._add_turn(Turn(_USER, [part]))

    # --- messages ---

    def _message(self, item: InputItem, place: int, spans: Spans) -> None:
        parts = self._parts(item, place, spans)
        cache = b"" if item.cache_control is _ABSENT else raw_of(item.cache_control)
        if cache and parts:
            last = parts[-1]
            if isinstance(last, Text | Media) and not last.cache:
                last.cache = cache
        match item.role:
            case "assistant":
                for part in parts:
                    if item.phase and type(part) is Text:
                        part.phase = item.phase
                    self._assistant(part)
                if item.phase and self._turns and not self._turns[-1].phase:
                    self._turns[-1].phase = item.phase
            case "system" | "developer":
                self._system(parts, Authority(item.role))
            case _:
                self._add_turn(Turn(_USER, parts))

    def _system(self, parts: list[Part], authority: Authority) -> None:
        """Leading text is the request's system text; what is no text cannot be there and becomes a turn (2.2)."""
        if self._leading:
            self.system.extend(system_block(part, authority) for part in parts if isinstance(part, Text))
            parts = [part for part in parts if not isinstance(part, Text)]
        if parts:
            self._add_turn(Turn(role=Role.SYSTEM, parts=parts, authority=authority))

    def _parts(self, item: InputItem, place: int, spans: Spans) -> list[Part]:
        content = item.content
        if content is None:
            return []
        if isinstance(content, str):
            return [Text(text=content, written=content)]
        parts: list[Part] = []
        for number, part in enumerate(content):
            if part.type in _TEXTS and part.prompt_cache_breakpoint is _ABSENT:  # nearly all
                parts.append(_read_text(part))
                continue
            path = f"input[{place}].content[{number}]"
            read = read_part(part, path)
            if part.prompt_cache_breakpoint is not wire.ABSENT:
                if self._native and not self._ctx.profile.codex:
                    read = None  # only the part as it came can say it (2.13)
                else:
                    self._ctx.lose(f"{path}.prompt_cache_breakpoint", dropped=True)
            if read is not None:
                parts.append(read)
            elif self._native:
                inner = wire.spans(_content_span(_span(spans, place)))
                if number < len(inner):
                    parts.append(Native(origin=ORIGIN, raw=bytes(inner[number]), inner=True))
            elif part.type == "input_audio":
                # The vendor has no such part, though some hosts do.
                parts.append(audio_part(_content_span(_span(spans, place)), number))
            else:
                self._ctx.lose(path, f"unknown part type {(part.type or '')[:64]!r}", dropped=True)
        return parts

    # --- calls and results ---

    def _call(self, item: InputItem, kind: str, place: int) -> Call:
        if not item.name:
            raise MalformedRequest("a call needs a name", param=f"input[{place}].name")
        custom = kind == "custom_tool_call"
        args = item.input or "" if custom else read_arguments(item.arguments)
        call = Call(item.call_id or "", item.name, UNREAD, True, written=args)
        if custom:
            call.shape = _TEXT
        if item.namespace:
            call.namespace = item.namespace
        if item.id:
            call.item_id = item.id
        if item.status:
            call.status = item.status
        return call

    def _result(self, item: InputItem, kind: str, place: int, spans: Spans) -> None:
        parts: list[Text | Media] = []
        text = read_text(item.output)
        if text is not None:
            parts.append(text)
        elif given(item.output) and first_of(item.output) != b"[":
            parts.append(Text(text=bytes(item.output).decode("utf-8", "replace")))  # no text, but a tool's words
        for number, part in enumerate(wire.read_parts(item.output) if text is None and given(item.output) else ()):
            path = f"input[{place}].output[{number}]"
            read = read_part(part, path)
            if isinstance(read, Text | Media):
                parts.append(read)
            else:
                # A tool's own words, whatever they are: as text, not lost.
                inner = wire.spans(_member(_span(spans, place), "output"))
                said = bytes(inner[number]).decode("utf-8", "replace") if number < len(inner) else ""
                parts.append(Text(text=said))
                self._ctx.lose(path, "unknown part type became text")
        self._user(
            Result(
                call_id=item.call_id or "",
                name=item.name or "",
                namespace=item.namespace or "",
                parts=parts,
                is_error=item.status == "incomplete",
                shape=Shape.TEXT if kind == "custom_tool_call_output" else Shape.JSON,
                status=item.status or "",
                item_id=item.id or "",
                cache=raw_of(item.cache_control),
            )
        )

    def _server_call(self, item: InputItem, kind: str, place: int, spans: Spans) -> None:
        if kind == "image_generation_call" and not self._native:
            self._image(item)
            return
        self._assistant(
            ServerCall(kind=_SERVER_KINDS[kind], origin=ORIGIN, raw=_span(spans, place), call_id=item.call_id or "")
        )

    def _image(self, item: InputItem) -> None:
        """An image that the model made: for models of others one that the user shows (2.16)."""
        if not item.result:
            self._assistant(Text(text="[image generation failed]"))
            return
        mime, b64 = parse_data_url(item.result) or (f"image/{item.output_format or 'png'}", item.result)
        media = Media(media=MediaKind.IMAGE, mime=mime, b64=b64)
        self._add_turn(Turn(role=Role.USER, parts=[Text(text="[image generated earlier by the assistant]"), media]))

    # --- state ---

    def _reasoning(self, item: InputItem) -> None:
        content, data = item.content, item.encrypted_content
        summary = [part.text for part in item.summary or () if part.text]
        hidden = [text for part in content if (text := _plain(part))] if content and type(content) is list else []
        sig = None
        if data:
            sig = unwrap(data, bare=_OPENAI, kind=_ENCRYPTED)
        if sig is not None and sig.kind is _PART and not summary and not hidden:
            # A carrier of ours: the signature belongs to a neighbour (2.10).
            if not sig.preceding:
                self._sigs.append(sig)
                return
            last = self._said[-1] if self._said else None
            if isinstance(last, Text | Call):
                last.sigs = [*last.sigs, sig]
            return
        self._assistant(
            Reasoning(
                texts=summary or hidden,
                channel=_SUMMARY if summary or not hidden else _RAW,
                sigs=[sig] if sig is not None else [],
                item_id=item.id or "",
                redacted=sig is not None and sig.kind is _REDACTED,
                hidden=hidden if summary else [],
            )
        )

    def _reference(self, item: InputItem, place: int, spans: Spans) -> None:
        if self._ctx.provider is Format.OPENAI_RESPONSE:
            part = Native(origin=ORIGIN, raw=_span(spans, place))
            self._assistant(part)  # an output of the model, in nearly all cases
            return
        self._references += 1
        stored = None
        if self._ctx.responses is not None and item.id and self._references <= MAX_REFERENCES:
            stored = self._ctx.responses.item(item.id)
            stored = sound(stored) if stored else None
        found = wire.read(InputItem, stored) if stored else None
        if stored is None or found is None or (found.type or found.role or "item_reference") == "item_reference":
            raise Untranslatable(
                f"input[{place}].id", f"Item with id '{(item.id or '')[:128]}' not found.", code="item_not_found"
            )
        self._feed(found, 0, _just(stored))

    def _compaction(self, item: InputItem, place: int) -> None:
        data = item.encrypted_content or ""
        text = unwrap_compaction(data)
        if text is not None:
            # An envelope never reaches a vendor, whoever that is.
            self._add_turn(Turn(role=Role.USER, parts=[Text(text=SUMMARY_INTRO + text)]))
        elif self._native:
            self._add_turn(Turn(role=Role.USER, parts=[Compaction(origin=ORIGIN, data=data)]))
        else:
            raise Untranslatable(
                f"input[{place}]", "the compacted history can only be read by the provider that compacted it"
            )


# --- parts -----------------------------------------------------------------------------------------------------------


def _plain(part: wire.InputPart) -> str:
    """The text of a part; of what is no string its JSON text."""
    if not given(part.text):
        return ""
    text = text_of(part.text)
    return bytes(part.text).decode("utf-8", "replace") if text is None else text


def _read_text(part: wire.InputPart) -> Text:
    text = read_text(part.text)
    if text is None:
        text = Text(text=_plain(part))
    if part.annotations:
        found = (from_openai(bytes(raw), origin=ORIGIN) for raw in part.annotations)
        text.annotations = [annotation for annotation in found if annotation is not None]
    if part.cache_control is not _ABSENT:
        text.cache = raw_of(part.cache_control)
    return text


def read_part(part: wire.InputPart, path: str) -> Part | None:
    """A content part; None for an unknown type. Raises: MalformedRequest for one that says nothing."""
    kind = part.type or ("text" if given(part.text) else "")
    if kind in _TEXTS:
        return _read_text(part)
    match kind:
        case "refusal":
            return Refusal(text=part.refusal or _plain(part))
        case "input_image":
            return _read_image(part, path)
        case "input_file":
            return _read_file(part, path)
        case _:
            return None


def _read_image(part: wire.InputPart, path: str) -> Media:
    media = Media(media=MediaKind.IMAGE, detail=part.detail or "", cache=raw_of(part.cache_control))
    if part.image_url:
        inline = parse_data_url(part.image_url)
        if inline is None:
            media.url = part.image_url
            media.mime = mime_of_name(part.image_url)
        else:
            media.mime, media.b64 = inline
    elif part.file_id:
        media.file_id, media.issuer = part.file_id, ORIGIN
    else:
        raise MalformedRequest("an image needs image_url or file_id", param=path)
    return media


def _read_file(part: wire.InputPart, path: str) -> Media:
    name = part.filename or ""
    media = Media(media=MediaKind.FILE, name=name, detail=part.detail or "", cache=raw_of(part.cache_control))
    if part.file_data:
        media.mime, media.b64 = parse_data_url(part.file_data) or (file_mime(name, part.file_data), part.file_data)
    elif part.file_url:
        media.url = part.file_url
        media.mime = mime_of_name(name) or mime_of_name(part.file_url)
    elif part.file_id:
        media.file_id, media.issuer = part.file_id, ORIGIN
    else:
        raise MalformedRequest("a file needs file_data, file_url or file_id", param=path)
    return media


class _Audio(msgspec.Struct, gc=False):
    data: str = ""
    format: str = ""


class _AudioPart(msgspec.Struct, gc=False):
    input_audio: _Audio = msgspec.field(default_factory=_Audio)


def audio_part(content: Raw, number: int) -> Media:
    """An ``input_audio`` part, spelled as Chat does."""
    try:
        found = msgspec.json.decode(wire.spans(content)[number], type=_AudioPart).input_audio
    except (ValueError, IndexError):
        found = _Audio()
    mime = {"mp3": "audio/mpeg"}.get(found.format, f"audio/{found.format or 'wav'}")
    return Media(media=MediaKind.AUDIO, mime=mime, b64=found.data)


def system_texts(raw: msgspec.Raw, ctx: Context) -> list[SysBlock]:
    """``instructions``: a string, or a list of items of which the texts count."""
    alone = read_text(raw)
    if alone is not None:
        block = system_block(alone)
        block.instructions = True
        return [block] if block.written else []
    blocks: list[SysBlock] = []
    items = wire.read_list(InputItem, raw)
    if not items and bytes(raw) != b"[]":
        raise MalformedRequest("instructions: expected a string", param="instructions")
    for place, (item, _) in enumerate(items):
        path = f"instructions[{place}]"
        content = item.content
        found = [content] if isinstance(content, str) else [text for part in content or () if (text := _plain(part))]
        if not found:
            ctx.lose(path, "no text", dropped=True)
        blocks.extend(SysBlock(text=text, instructions=True) for text in found)
    return blocks


def _just(raw: Raw) -> Spans:
    return lambda: [msgspec.Raw(raw)]


def _span(spans: Spans, place: int) -> Raw:
    found = spans()
    return bytes(found[place]) if place < len(found) else b"{}"


class _Inner(msgspec.Struct, gc=False):
    content: msgspec.Raw = wire.ABSENT
    output: msgspec.Raw = wire.ABSENT


def _member(item: Raw, name: str) -> Raw:
    try:
        return bytes(getattr(msgspec.json.decode(item, type=_Inner), name))
    except (ValueError, RecursionError):
        return b""


def _content_span(item: Raw) -> Raw:
    return _member(item, "content")
