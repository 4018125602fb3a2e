"""Turns as Claude takes them (translation 2.2, 2.3, 2.5, 2.8, 2.10, 2.15).

Two steps. `adapt` replaces, in the intermediate representation, whatever Claude cannot read: afterwards all parts can
be written, and the shared passes over turns see what will be sent. `write_messages` writes them.
"""

import binascii
from typing import Any, Final

import msgspec

from cpa.translation.annotations import claude_takes
from cpa.translation.claude.messages import ORIGIN, PDF, PLAIN, TOOL_REFERENCE
from cpa.translation.context import Context, Names
from cpa.translation.ir import (
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
    Sig,
    SigKind,
    Text,
    Turn,
    Written,
)
from cpa.translation.literals import is_blank
from cpa.translation.loss import Untranslatable
from cpa.translation.media import (
    clean_mime,
    foreign_items_text,
    is_text_mime,
    mime_of_name,
    placeholder,
    sniff_mime,
)
from cpa.translation.signatures import for_family
from cpa.translation.tools import without_reasoning, written_object

IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
SUMMARY_INTRO: Final = "Summary of earlier conversation: "
_FOREIGN_REASONING: Final = "reasoning without a signature of Claude's"
_CLAUDE: Final = Provenance.CLAUDE
_ASSISTANT: Final = Role.ASSISTANT  # looking into an enumeration takes long
Members = dict[str, Any]


# --- what Claude can read --------------------------------------------------------------------------------------------


def adapt(request: IRRequest, ctx: Context) -> None:
    """Replace what Claude cannot read, in place. Raises: Untranslatable."""
    last_user = next((turn for turn in reversed(request.turns) if turn.role is Role.USER), None)
    for number, turn in enumerate(request.turns):
        if turn.plain:  # as nearly all are
            continue
        if turn.thinks and not ctx.settings.foreign_reasoning_as_text:
            thoughts = without_reasoning(turn, _is_signed)
            for place, _ in thoughts:
                ctx.lose(f"messages[{number}].content[{place}]", _FOREIGN_REASONING, dropped=True)
            if thoughts:
                continue
        if turn is last_user:
            _refuse_unreadable(turn, number)
        loose = turn.role is Role.ASSISTANT and not turn.ordered
        if all(map(_fits, turn.parts)) and not (loose and _says_after_calls(turn.parts)):
            continue
        parts: list[Part] = []
        for place, part in enumerate(turn.parts):
            if isinstance(part, Text):
                # The API rejects texts without any visible character.
                if not is_blank(part):
                    parts.append(part)
            elif isinstance(part, Call):
                parts.append(part)
            elif isinstance(part, Reasoning):
                parts.extend(_reasoning(part, turn.role, f"messages[{number}].content[{place}]", ctx))
            else:
                parts.extend(_adapted(part, turn, f"messages[{number}].content[{place}]", ctx))
        if loose:
            # Chat does not say in which order its pieces were made; Claude wants calls last (2.3).
            parts = [part for part in parts if not isinstance(part, Call)] + [
                part for part in parts if isinstance(part, Call)
            ]
        turn.parts = parts
    request.turns = [turn for turn in request.turns if turn.parts]


def _is_signed(part: Reasoning) -> bool:
    """Claude takes it back."""
    return bool(part.sigs and for_family(part.sigs, _CLAUDE))


def _fits(part: Part) -> bool:
    """Nothing is to be done with it."""
    if isinstance(part, Call):
        return True
    if isinstance(part, Result):
        only = part.parts[0] if len(part.parts) == 1 else None
        return isinstance(only, Text) and bool(only.written or only.text)
    return isinstance(part, Text) and not is_blank(part)


def _says_after_calls(parts: list[Part]) -> bool:
    calls = [isinstance(part, Call) for part in parts]
    return calls != sorted(calls)


def _refuse_unreadable(turn: Turn, number: int) -> None:
    """A file of another vendor that is all that the user says now (0.7)."""
    said = [part for part in turn.parts if not isinstance(part, Text) or not is_blank(part)]
    if said and all(isinstance(part, Media) and part.file_id and part.issuer != ORIGIN for part in said):
        raise Untranslatable(f"messages[{number}]", "this model's provider cannot read the file")


def _adapted(part: Part, turn: Turn, path: str, ctx: Context) -> list[Part]:
    match part:
        case Text() | Call():
            return [part]
        case Media():
            return [_media(part, turn.role, path, ctx)]
        case Result():
            return _result(part, path, ctx)
        case Reasoning():
            return _reasoning(part, turn.role, path, ctx)
        case Refusal():
            return [Text(text=part.text)] if part.text.strip() else []
        case Compaction():
            if not part.text:
                raise Untranslatable(path, "the compacted history can only be read by the provider that compacted it")
            return [Text(text=SUMMARY_INTRO + part.text)]
        case ServerCall() | ServerResult() | Native():
            return _foreign(part, path, ctx)


def _media(part: Media, role: Role, path: str, ctx: Context) -> Text | Media:
    """*part* in a form that `write_media` can write, or a placeholder."""
    if role is not Role.USER:  # neither the assistant's turns nor the operator's take any
        return _unavailable(part, path, ctx)
    kind, mime = part.media, _mime(part)
    if part.file_id:
        readable = part.issuer == ORIGIN and kind in (MediaKind.IMAGE, MediaKind.FILE)
    elif kind is MediaKind.IMAGE or mime in IMAGES:
        part.media = MediaKind.IMAGE
        readable = mime in IMAGES or (bool(part.url) and not mime)
        readable = readable and (bool(part.b64) or _is_web(part.url))
    elif kind is not MediaKind.FILE:
        readable = False
    elif part.text:
        readable = bool(part.text.strip())
    elif part.b64 and mime != PDF:
        text = _decoded(part.b64) if is_text_mime(mime) else None
        readable = text is not None and bool(text.strip())
        if text is not None and readable:
            part.text, part.b64, part.mime = text, "", PLAIN
            return part
    elif part.url:
        readable = mime in (PDF, "") and _is_web(part.url)
    else:
        readable = bool(part.b64)
    if not readable:
        return _unavailable(part, path, ctx)
    part.mime = mime
    return part


def _mime(part: Media) -> str:
    mime = clean_mime(part.mime)
    if part.b64 and mime in ("", "application/octet-stream"):
        mime = mime_of_name(part.name) or sniff_mime(part.b64)
    elif part.url and not mime:
        mime = mime_of_name(part.url)
    return mime


def _is_web(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def _decoded(b64: str) -> str | None:
    """A text file's text; base64 is decoded here because Claude takes documents of text as text only."""
    try:
        return binascii.a2b_base64(b64).decode("utf-8")
    except ValueError:
        return None


def _unavailable(part: Media, path: str, ctx: Context) -> Text:
    what = part.mime or part.media.value
    if ctx.settings.strict_content:
        raise Untranslatable(path, f"this model's provider cannot read {what}")
    ctx.lose(path, f"{what} became a placeholder")
    found = placeholder(what)
    found.cache = part.cache
    return found


def _result(part: Result, path: str, ctx: Context) -> list[Part]:
    """A result whose media Claude can read; where none may stand in results they follow it."""
    only = part.parts[0] if len(part.parts) == 1 else None
    if isinstance(only, Text) and (only.written or only.text):
        return [part]
    inner: list[Text | Media] = []
    after: list[Part] = []
    for place, item in enumerate(part.parts):
        if isinstance(item, Media):
            item = _media(item, Role.USER, f"{path}.content[{place}]", ctx)
        if isinstance(item, Media) and not ctx.profile.tool_result_media:
            after.append(item)
        elif not isinstance(item, Text) or not is_blank(item):
            inner.append(item)
    part.parts = inner
    return [part, *after]


def _reasoning(part: Reasoning, role: Role, path: str, ctx: Context) -> list[Part]:
    """Claude takes its own reasoning only, signed: an unsigned block is an error (2.10)."""
    sigs = for_family(part.sigs, Provenance.CLAUDE) if role is Role.ASSISTANT else []
    if sigs:
        part.sigs = sigs[-1:]
        return [part]
    text = "\n\n".join(part.texts)
    if ctx.settings.foreign_reasoning_as_text and text.strip():
        ctx.lose(path, "foreign reasoning became text")
        return [Text(text=f"<previous_reasoning>\n{text}\n</previous_reasoning>")]
    ctx.lose(path, _FOREIGN_REASONING, dropped=True)
    return []


def _foreign(part: ServerCall | ServerResult | Native, path: str, ctx: Context) -> list[Part]:
    if part.origin == ORIGIN:
        return [part]
    text = foreign_items_text(part)
    if text.strip():
        ctx.lose(path, "a provider's own step became text")
        return [Text(text=text)]
    ctx.lose(path, "no counterpart", dropped=True)
    return []


# --- writing ---------------------------------------------------------------------------------------------------------


class Message(msgspec.Struct, gc=False):
    """A message as it is sent."""

    role: str
    content: "list[Block]"


class TextBlock(msgspec.Struct, gc=False):
    """A text without anything else. *text*: a string, or undecoded."""

    type: str
    text: Written


class ToolUse(msgspec.Struct, gc=False):
    """A call without anything else."""

    type: str
    id: str
    name: str
    input: msgspec.Raw


class TextResult(msgspec.Struct, gc=False):
    """A result that is one text."""

    type: str
    tool_use_id: str
    content: Written


Block = TextBlock | ToolUse | TextResult | Members | msgspec.Raw
"""A content block. What nearly all blocks are has structs, which cost half of what a dict does."""


def write_messages(request: IRRequest, ctx: Context) -> list[Message]:
    """``messages`` of turns that `adapt` and the shared passes have made fit."""
    messages: list[Message] = []
    for turn in request.turns:
        role, parts = turn.role, turn.parts
        if turn.plain:
            blocks: list[Block] = []
            _write_plain(parts, ctx.names, blocks)
        else:
            blocks = [write_part(part, role, ctx) for part in parts]
        messages.append(Message("assistant" if role is _ASSISTANT else role.value, blocks))
    return messages


def _write_plain(parts: list[Part], names: Names, blocks: list[Block]) -> None:
    """The blocks of a plain turn."""
    for part in parts:
        if type(part) is Text:
            blocks.append(TextBlock("text", part.written or part.text))
        elif type(part) is Result:
            only = part.parts[0]
            assert type(only) is Text  # otherwise the turn is not plain
            block = TextResult("tool_result", part.call_id, only.written or only.text)
            blocks.append(msgspec.structs.asdict(block) | {"is_error": True} if part.is_error else block)
        else:
            assert type(part) is Call
            name = part.name if names.unchanged else names.to_wire(part.name, part.namespace)
            blocks.append(ToolUse("tool_use", part.call_id, name, written_object(part)))


def write_part(part: Part, role: Role, ctx: Context) -> Members | msgspec.Raw:
    """One content block."""
    match part:
        case Call():  # the first three are nearly all there are
            out: Members = {
                "type": "tool_use",
                "id": part.call_id,
                "name": ctx.names.to_wire(part.name, part.namespace),
                "input": written_object(part),
            }
            return _marked(out, part.cache) if part.cache else out
        case Result():
            return _tool_result(part)
        case Text():
            if not part.cache and not part.annotations:
                return {"type": "text", "text": part.written or part.text}
            return _text(part, role)
        case Media():
            return write_media(part)
        case Reasoning():
            return _thinking(part, part.sigs[0])
        case ServerCall() | ServerResult() | Native():
            return msgspec.Raw(part.raw)
        case Refusal() | Compaction():
            return {"type": "text", "text": part.text}  # `adapt` made texts of them


def _marked(out: Members, cache: bytes) -> Members:
    if cache:
        out["cache_control"] = msgspec.Raw(cache)
    return out


def _text(part: Text, role: Role) -> Members:
    out: Members = {"type": "text", "text": part.written or part.text}
    if part.annotations and role is Role.ASSISTANT:
        cited = [
            msgspec.Raw(annotation.raw)
            for annotation in part.annotations
            if annotation.origin == ORIGIN and annotation.raw and claude_takes(annotation.raw)
        ]
        if cited:
            out["citations"] = cited
    return _marked(out, part.cache)


def _thinking(part: Reasoning, sig: Sig) -> Members:
    if part.redacted or sig.kind is SigKind.REDACTED:
        return {"type": "redacted_thinking", "data": sig.data}
    return {"type": "thinking", "thinking": "\n\n".join(part.texts), "signature": sig.data}


def write_media(part: Media) -> Members:
    """An image or a document."""
    source: Members
    if part.text:
        source = {"type": "text", "media_type": PLAIN, "data": part.text}
    elif part.b64:
        source = {"type": "base64", "media_type": part.mime, "data": part.b64}
    elif part.file_id:
        source = {"type": "file", "file_id": part.file_id}
    else:
        source = {"type": "url", "url": part.url}
    if part.media is MediaKind.IMAGE:
        return _marked({"type": "image", "source": source}, part.cache)
    out: Members = {"type": "document", "source": source}
    if part.title or part.name:
        out["title"] = part.title or part.name
    if part.context:
        out["context"] = part.context
    if part.citations_on:
        out["citations"] = {"enabled": True}
    return _marked(out, part.cache)


def _returned(item: Text | Media) -> Members:
    """A block of a tool result."""
    if isinstance(item, Media):
        return write_media(item)
    reference = next((found for found in item.annotations if found.kind == TOOL_REFERENCE), None)
    if reference is None:
        return _text(item, Role.USER)
    return _marked({"type": TOOL_REFERENCE, "tool_name": reference.title}, item.cache)


def _tool_result(part: Result) -> Members:
    out: Members = {"type": "tool_result", "tool_use_id": part.call_id}
    only = part.parts[0] if len(part.parts) == 1 else None
    if part.json:
        out["content"] = part.json.decode("utf-8", "replace")
    elif isinstance(only, Text) and not only.cache and not only.annotations:
        out["content"] = only.written or only.text
    elif part.parts:
        out["content"] = [_returned(item) for item in part.parts]
    if part.is_error:
        out["is_error"] = True
    return _marked(out, part.cache)
