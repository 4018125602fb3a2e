"""A Claude client's messages, read into turns (translation 2.2, 2.5, 2.8, 2.10).

Blocks of types that nobody here knows are kept undecoded, for Claude only. Signatures that could not stand where they
belong came to the client in thinking blocks without text (`compose`); here they return to their parts.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.json import JsonError, decode_members
from cpa.formats.names import Format
from cpa.translation.annotations import from_claude
from cpa.translation.claude import wire
from cpa.translation.claude.server_kinds import CALL_TYPES, call_kind, is_result, server_kind
from cpa.translation.claude.wire import InputBlock, LooseMessage, Message, given, raw_of
from cpa.translation.context import Context
from cpa.translation.ir import (
    Annotation,
    Authority,
    Call,
    Media,
    MediaKind,
    Native,
    Part,
    Provenance,
    Reasoning,
    Result,
    Role,
    ServerCall,
    ServerResult,
    Sig,
    SigKind,
    SysBlock,
    Text,
    Turn,
)
from cpa.translation.literals import object_call, read_text, system_block
from cpa.translation.media import clean_mime, mime_of_name, parse_data_url, placeholder, sniff_mime
from cpa.translation.signatures import unwrap

ORIGIN: Final = Format.CLAUDE.value
TOOL_REFERENCE: Final = "tool_reference"
"""Kind of a block in a tool result, and of the annotation that keeps it: that tool is deferred no longer."""
_ABSENT: Final = wire.ABSENT
PDF: Final = "application/pdf"
PLAIN: Final = "text/plain"

_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}
_ASSISTANT: Final = Role.ASSISTANT  # a look-up in an enumeration takes longer than to make a part
_CLAUDE: Final = Provenance.CLAUDE
_THINKING, _REDACTED, _, _PART = SigKind


def read_system(raw: msgspec.Raw) -> list[SysBlock]:
    """``system``: a string or text blocks. Raises: MalformedRequest."""
    if not given(raw):
        return []
    alone = read_text(raw)
    if alone is not None:
        return [system_block(alone)]
    found = wire.spans(raw)
    if found is None:
        raise MalformedRequest("system: expected a string or a list of text blocks", param="system")
    blocks = []
    for place, span in enumerate(found):
        block = _read_block(span, f"system[{place}]")
        part = read_text(block.text)
        if part is None:
            raise MalformedRequest("a system block needs text", param=f"system[{place}]")
        part.cache = raw_of(block.cache_control)
        blocks.append(system_block(part))
    return blocks


def read_messages(raw: msgspec.Raw) -> list[Message]:
    """``messages``, undecoded so far. Raises: MalformedRequest."""
    if not given(raw):
        raise MalformedRequest("messages: field required", param="messages")
    try:
        return wire.decode_messages(raw)
    except (ValueError, RecursionError):
        return _loosely(raw)


def read_turns(messages: list[Message], body: bytes, ctx: Context) -> list[Turn]:
    """The turns of *messages* of *body*, which is sound UTF-8. Raises: MalformedRequest."""
    read = _Reader(body, ctx).read
    turns = []
    for number, message in enumerate(messages):
        word, content = message.role, message.content
        role = _ROLES.get(word or "")
        if role is None:
            param = f"messages[{number}].role"
            raise MalformedRequest(f"{param}: expected user, assistant or system", param=param)
        if isinstance(content, str):
            turn = Turn(role, [Text(text=content, written=content)])
        else:
            turn = Turn(role, read(number, role, content or []))
        if word == "developer":  # no vendor's word, but nobody's authority is lowered (2.2)
            turn.authority = Authority.DEVELOPER
        turns.append(turn)
    return turns


def _loosely(raw: msgspec.Raw) -> list[Message]:
    """Messages with members of unexpected types, one by one."""
    found = wire.spans(raw)
    if found is None:
        raise MalformedRequest("messages: expected a list", param="messages")
    messages = []
    for number, span in enumerate(found):
        path = f"messages[{number}]"
        try:
            message = wire.read_message(span)
        except JsonError:
            raise MalformedRequest(f"{path}: expected an object", param=path) from None
        messages.append(Message(role=message.role, content=_content(message.content, f"{path}.content")))
    return messages


def _content(raw: msgspec.Raw, path: str) -> str | list[InputBlock] | None:
    """``content``: text or blocks. Raises: MalformedRequest."""
    if not given(raw):
        return None
    text = wire.text_of(raw)
    return text if text is not None else _blocks(raw, path)


def _blocks(raw: msgspec.Raw, path: str) -> list[InputBlock]:
    try:
        return wire.decode_blocks(raw)
    except (ValueError, RecursionError):
        found = wire.spans(raw)
    if found is None:
        raise MalformedRequest(f"{path}: expected a string or a list of blocks", param=path)
    return [_read_block(span, f"{path}[{place}]") for place, span in enumerate(found)]


def _read_block(span: msgspec.Raw, path: str) -> InputBlock:
    try:
        return wire.read_input(span)
    except JsonError:
        if wire.text_of(span) is None:
            raise MalformedRequest(f"{path}: expected a content block", param=path) from None
        return InputBlock(type="text", text=span)


def _plain(block: InputBlock) -> str | None:
    """The text of a block that is not merely passed on."""
    return None if block.text is wire.ABSENT else wire.text_of(block.text)


class _Reader:
    """Reads the blocks of messages, one message after the other."""

    def __init__(self, body: bytes, ctx: Context) -> None:
        self._body = body
        self._ctx = ctx
        self._messages: list[LooseMessage] = []
        self._number = 0
        self._role = Role.USER
        self._parts: list[Part] = []
        self._waiting: list[Sig] = []

    def read(self, number: int, role: Role, blocks: Sequence[InputBlock]) -> list[Part]:
        """The parts of message *number*. Raises: MalformedRequest."""
        self._number, self._role = number, role
        parts: list[Part] = []
        self._parts = parts
        for place, block in enumerate(blocks):
            # Histories are long, and nearly all of them is this: what is plain gets by with the least work.
            kind = block.type
            if block.cache_control is not _ABSENT or self._waiting:
                self._read(block, place)
            elif kind == "tool_result":
                text = read_text(block.content)
                if text is None:
                    self._result(block, place)
                else:
                    result = Result(block.tool_use_id or "", "", [text])
                    if block.is_error:
                        result.is_error = True
                    parts.append(result)
            elif kind == "tool_use" and role is _ASSISTANT and block.name is not None:
                parts.append(object_call(block.id or "", block.name, block.input))
            elif kind == "text" and block.citations is _ABSENT:
                text = read_text(block.text)
                if text is None:
                    raise _no_string(f"{self._path(place)}.text")
                parts.append(text)
            elif kind == "thinking":
                self._thinking(block, kind, place)
            else:
                self._read(block, place)
        if self._waiting:
            # An empty part with a signature is what Gemini sent at the end of its answer.
            parts.append(Text(text="", sigs=self._waiting))
            self._waiting = []
        return parts

    def _path(self, place: int) -> str:
        return f"messages[{self._number}].content[{place}]"

    def _read(self, block: InputBlock, place: int) -> None:
        kind = block.type or ("text" if given(block.text) else "")
        match kind:
            case "tool_use":
                self._call(block, place)
            case "tool_result":
                self._result(block, place)
            case "text":
                self._text(block, place)
            case "thinking" | "redacted_thinking":
                self._thinking(block, kind, place)
            case "image" | "document" | "search_result":
                self._parts.extend(_media(block, kind, self._path(place)))
            case _:
                self._foreign(block, kind, place)

    def _text(self, block: InputBlock, place: int) -> None:
        part = None if block.text is wire.ABSENT else read_text(block.text)
        if part is None:
            raise _no_string(f"{self._path(place)}.text")
        if block.cache_control is not wire.ABSENT:
            part.cache = raw_of(block.cache_control)
        if block.citations is not wire.ABSENT:
            part.annotations = _annotations(block.citations)
        self._add(part)

    def _add(self, part: Text | Call) -> None:
        """A part that may carry signatures."""
        if self._waiting:
            part.sigs = self._waiting
            self._waiting = []
        self._parts.append(part)

    def _thinking(self, block: InputBlock, kind: str, place: int) -> None:
        if self._role is not _ASSISTANT:
            self._ctx.lose(self._path(place), "thinking outside of the assistant's turns", dropped=True)
            return
        redacted = kind == "redacted_thinking"
        data = block.data if redacted else block.signature
        sig = unwrap(data, bare=_CLAUDE, kind=_REDACTED if redacted else _THINKING) if data else None
        text = block.thinking
        if sig is None:
            self._parts.append(Reasoning(texts=[text] if text else [], redacted=redacted))
        elif sig.kind is _PART and not text:
            self._carried(sig)
        else:
            redacted = redacted or sig.kind is _REDACTED
            self._parts.append(Reasoning(texts=[text] if text else [], sigs=[sig], redacted=redacted))

    def _carried(self, sig: Sig) -> None:
        if not sig.preceding:
            self._waiting.append(sig)
            return
        last = self._parts[-1] if self._parts else None
        if isinstance(last, Text | Call):
            last.sigs = [*last.sigs, sig]

    def _call(self, block: InputBlock, place: int) -> None:
        if self._role is not Role.ASSISTANT:
            # Nobody but the model calls tools: what users write of it is text (2.8).
            self._parts.append(Text(text=_json_text(self._span(place)), cache=raw_of(block.cache_control)))
            self._ctx.lose(self._path(place), "tool_use outside of the assistant's turns became text")
            return
        name = block.name
        if name is None:
            name = _required(None, f"{self._path(place)}.name")
        part = object_call(block.id or "", name, block.input)
        if block.cache_control is not wire.ABSENT:
            part.cache = raw_of(block.cache_control)
        self._add(part)

    def _result(self, block: InputBlock, place: int) -> None:
        content = block.content
        text = read_text(content)
        parts: list[Text | Media] = []
        if text is None:
            parts = _result_parts(content, self._path(place), self._ctx)
        else:
            parts.append(text)
        part = Result(call_id=block.tool_use_id or "", parts=parts, is_error=block.is_error or False)
        if block.cache_control is not wire.ABSENT:
            part.cache = raw_of(block.cache_control)
        self._parts.append(part)

    def _foreign(self, block: InputBlock, kind: str, place: int) -> None:
        raw = self._span(place)
        if kind in CALL_TYPES:
            name = block.name or ""
            self._parts.append(ServerCall(kind=call_kind(kind, name), origin=ORIGIN, raw=raw, call_id=block.id or ""))
        elif is_result(kind):
            call_id = block.tool_use_id or ""
            self._parts.append(ServerResult(kind=server_kind(kind), origin=ORIGIN, raw=raw, call_id=call_id))
        else:
            self._parts.append(Native(origin=ORIGIN, raw=raw))

    def _span(self, place: int) -> bytes:
        """A block undecoded. All messages are cut up for it once, only when a block has to be kept as it is."""
        if not self._messages:
            raw = decode_members(self._body).get("messages", wire.ABSENT)
            self._messages = [wire.read_message(span) for span in wire.spans(raw) or ()]
        found = wire.spans(self._messages[self._number].content) or ()
        return bytes(found[place]) if place < len(found) else b"{}"


def _required(text: str | None, path: str) -> str:
    if text is None:
        raise _no_string(path)
    return text


def _no_string(path: str) -> MalformedRequest:
    return MalformedRequest(f"{path}: expected a string", param=path)


def _json_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _annotations(raw: msgspec.Raw) -> list[Annotation]:
    if not given(raw):
        return []
    found = (from_claude(bytes(span)) for span in wire.spans(raw) or ())
    return [annotation for annotation in found if annotation is not None]


# --- media -----------------------------------------------------------------------------------------------------------


def _media(block: InputBlock, kind: str, path: str) -> "list[Text | Media]":
    """An image, a document (with the images that stand in it), or a search result as text."""
    if kind == "search_result":
        return [_search_result(block, path)]
    try:
        source = wire.read_source(block.source)
    except JsonError:
        raise MalformedRequest(f"{path}.source: expected an object", param=f"{path}.source") from None
    if kind == "image":
        return [_image(block, source, path)]
    return _document(block, source, path)


def _image(block: InputBlock, source: wire.Source, path: str) -> Media:
    media = Media(media=MediaKind.IMAGE, cache=raw_of(block.cache_control))
    _fill(media, source, path)
    return media


def _document(block: InputBlock, source: wire.Source, path: str) -> "list[Text | Media]":
    media = Media(
        media=MediaKind.FILE,
        name=block.title or "",
        title=block.title or "",
        context=block.context or "",
        citations_on=_cites(block.citations),
        cache=raw_of(block.cache_control),
    )
    if source.type == "text":
        media.mime = PLAIN
        media.text = _required(source.data, f"{path}.source.data")
        return [media]
    if source.type == "content":
        # Blocks inside a document: their text is the document, images follow it.
        inner = _content(source.content, f"{path}.source.content")
        if isinstance(inner, str):
            media.mime, media.text = PLAIN, inner
            return [media]
        media.mime = PLAIN
        media.text = "\n".join(text for item in inner or () if (text := _plain(item)))
        images = [
            part
            for place, item in enumerate(inner or ())
            if item.type == "image"
            for part in _media(item, "image", f"{path}.source.content[{place}]")
        ]
        return [media, *images] if media.text else images
    _fill(media, source, path)
    return [media]


def _fill(media: Media, source: wire.Source, path: str) -> None:
    """The content of *media* from a ``source`` of one of the simple kinds. Raises: MalformedRequest."""
    param = f"{path}.source"
    match source.type:
        case "base64":
            media.b64 = _required(source.data, f"{param}.data")
            media.mime = clean_mime(source.media_type or "") or sniff_mime(media.b64)
        case "url":
            url = _required(source.url, f"{param}.url")
            inline = parse_data_url(url)
            if inline is None:
                media.url = url
                media.mime = mime_of_name(url) or (PDF if media.media is MediaKind.FILE else "")
            else:
                media.mime, media.b64 = inline
        case "file":
            media.file_id, media.issuer = _required(source.file_id, f"{param}.file_id"), ORIGIN
        case _:
            raise MalformedRequest(f"{param}.type: unknown source", param=f"{param}.type")


def _cites(raw: msgspec.Raw) -> bool:
    try:
        return bool(given(raw) and wire.read_citing(raw).enabled)
    except JsonError:
        return False


def _search_result(block: InputBlock, path: str) -> Text:
    """A search result as text: title, source, lines (2.5)."""
    source = wire.text_of(block.source) if given(block.source) else None
    inner = _content(block.content, f"{path}.content")
    lines = [inner] if isinstance(inner, str) else [_plain(item) for item in inner or ()]
    text = "\n".join(filter(None, (block.title, source, *lines)))
    return Text(text=text, cache=raw_of(block.cache_control))


def _result_parts(content: msgspec.Raw, path: str, ctx: Context) -> "list[Text | Media]":
    """The content of a ``tool_result`` that is no string."""
    parts: list[Text | Media] = []
    for place, item in enumerate(_blocks(content, f"{path}.content") if given(content) else ()):
        parts.extend(_result_part(item, f"{path}.content[{place}]", ctx))
    return parts


def _result_part(item: InputBlock, path: str, ctx: Context) -> "list[Text | Media]":
    kind = item.type or ("text" if given(item.text) else "")
    if kind == "text":
        part = None if item.text is wire.ABSENT else read_text(item.text)
        if part is None:
            raise _no_string(f"{path}.text")
        part.cache = raw_of(item.cache_control)
        return [part]
    if kind in ("image", "document", "search_result"):
        return _media(item, kind, path)
    if kind == TOOL_REFERENCE and item.tool_name:
        # What a search for deferred tools found. Other protocols have no such part, but their models can read.
        found = Annotation(kind=TOOL_REFERENCE, title=item.tool_name, origin=ORIGIN)
        return [Text(text=f"[tool available: {item.tool_name}]", annotations=[found], cache=raw_of(item.cache_control))]
    ctx.lose(path, "unknown content in a tool result")
    return [placeholder(kind or "unknown")]
