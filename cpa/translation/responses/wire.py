"""The members of Responses bodies that translation reads, as flat permissive structs (translation 0.6).

Reading has two speeds. Nearly all bodies decode in one pass. When a member has a type that no client of the vendor
would send, the object that holds it is read again member by member: what cannot be used counts as absent, values that
stand where text is expected keep their JSON text, so that no content is lost. Only text that is not JSON at all fails.
"""

from typing import Any, Final, TypeVar, get_type_hints

import msgspec

from cpa.formats.json import JsonError, decode_members, encode
from cpa.translation.ir import NO_RAW

S = TypeVar("S", bound="Wire")
ABSENT: Final = msgspec.Raw(b"")
_NULL: Final = b"null"


class Wire(msgspec.Struct, gc=False):
    """Base of what is read."""


class Part(Wire):
    """A content part of a message, of a tool's output, of a summary or of reasoning text."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    annotations: list[msgspec.Raw] | None = None
    logprobs: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class InputPart(Wire):
    """A content part of a request's message. *text* raw: long texts are not decoded, see `literals`."""

    type: str | None = None
    text: msgspec.Raw = ABSENT
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    annotations: list[msgspec.Raw] | None = None
    logprobs: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class Item(Wire):
    """An input or output item, whatever its type.

    Members are in the order in which clients send them: the decoder looks for the next one behind the last.
    """

    type: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: msgspec.Raw = ABSENT
    """Raw: long texts are not decoded, see `literals`."""
    summary: list[Part] | None = None
    encrypted_content: str | None = None
    status: str | None = None
    phase: str | None = None
    namespace: str | None = None
    input: str | None = None
    tools: msgspec.Raw = ABSENT
    result: str | None = None
    output_format: str | None = None
    cache_control: msgspec.Raw = ABSENT


class InputItem(Item):
    """An item of a request."""

    content: str | list[InputPart] | None = None  # type: ignore[assignment] # never used as the other
    arguments: msgspec.Raw = ABSENT  # type: ignore[assignment] # not decoded, see `literals`


class Body(Wire):
    """A request. All but *input* raw: it is read once, and echoed as it came."""

    model: msgspec.Raw = ABSENT
    stream: msgspec.Raw = ABSENT
    input: str | list[InputItem] | None = None
    instructions: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    parallel_tool_calls: msgspec.Raw = ABSENT
    max_output_tokens: msgspec.Raw = ABSENT
    max_tool_calls: msgspec.Raw = ABSENT
    temperature: msgspec.Raw = ABSENT
    top_p: msgspec.Raw = ABSENT
    top_logprobs: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    safety_identifier: msgspec.Raw = ABSENT
    user: msgspec.Raw = ABSENT
    prompt_cache_key: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    include: msgspec.Raw = ABSENT
    previous_response_id: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT
    background: msgspec.Raw = ABSENT
    truncation: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    stream_options: msgspec.Raw = ABSENT


class KnownBody(Body, forbid_unknown_fields=True):
    """A request without any member that this version does not know: nearly all of them."""


class ToolDef(Wire):
    """A tool definition."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    format: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    defer_loading: bool | None = None
    external_web_access: bool | None = None
    cache_control: msgspec.Raw = ABSENT


class KnownTool(ToolDef, forbid_unknown_fields=True):
    """A definition without any member that this version does not know."""


class Choice(Wire):
    """A tool choice that is an object."""

    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: msgspec.Raw = ABSENT


class Format(Wire):
    """``text.format``."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class TextConfig(Wire):
    """``text``."""

    format: msgspec.Raw = ABSENT
    verbosity: str | None = None


class ReasoningConfig(Wire):
    """``reasoning``."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: msgspec.Raw = ABSENT
    mode: msgspec.Raw = ABSENT


class Answer(Wire):
    """A response object."""

    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    incomplete_details: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    service_tier: str | None = None


class Incomplete(Wire):
    """``incomplete_details``."""

    reason: str | None = None


class Event(Wire):
    """A stream event."""

    type: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: str | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: msgspec.Raw = ABSENT
    refusal: str | None = None
    arguments: str | None = None
    input: str | None = None
    item: msgspec.Raw = ABSENT
    part: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    annotation: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_DECODERS: Final[dict[type[Wire], msgspec.json.Decoder[Any]]] = {}
_HINTS: Final[dict[type[Wire], dict[str, Any]]] = {}
_LISTS: Final[dict[tuple[type[Wire], str], type[Wire]]] = {
    (Body, "input"): InputItem,
    (KnownBody, "input"): InputItem,
    (InputItem, "content"): InputPart,
    (InputItem, "summary"): Part,
    (Item, "content"): Part,
    (Item, "summary"): Part,
}
_WITH_TEXTS: Final[frozenset[type[Wire]]] = frozenset({Item, InputItem, Part, InputPart, Event})
_TEXTS: Final = frozenset({"output", "arguments", "input", "text", "delta", "refusal", "content"})
"""Members that hold content: a value of another type is kept as its JSON text."""


def read(cls: type[S], raw: bytes | msgspec.Raw) -> S | None:
    """*raw* as a *cls*, tolerantly; None when it is no JSON object."""
    decoder = _DECODERS.get(cls)
    if decoder is None:
        decoder = _DECODERS.setdefault(cls, msgspec.json.Decoder(cls))
    try:
        found: S = decoder.decode(raw)
    except (ValueError, RecursionError):
        return _tolerantly(cls, raw)
    return found


def read_parts(raw: msgspec.Raw) -> list[InputPart]:
    """The content parts in the list *raw* of a request, tolerantly."""
    try:
        return _decode_parts(raw)
    except (ValueError, RecursionError):
        return [part for span in spans(raw) if isinstance(part := _part(InputPart, span), InputPart)]


_decode_parts = msgspec.json.Decoder(list[InputPart]).decode


def read_list(cls: type[S], raw: bytes | msgspec.Raw) -> list[tuple[S, msgspec.Raw]]:
    """The objects in the list *raw*, each with its JSON text; nothing when it is no list."""
    return [(found, span) for span in spans(raw) if (found := read(cls, span)) is not None]


_decode_spans = msgspec.json.Decoder(list[msgspec.Raw]).decode


def spans(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The elements of the list *raw*, undecoded; nothing when it is no list."""
    if not raw:
        return []
    try:
        return _decode_spans(raw)
    except (ValueError, RecursionError):
        return []


def _tolerantly(cls: type[S], raw: bytes | msgspec.Raw) -> S | None:
    try:
        members = decode_members(bytes(raw))
    except JsonError:
        return None
    hints = _HINTS.get(cls)
    if hints is None:
        hints = _HINTS.setdefault(cls, get_type_hints(cls))
    found: dict[str, Any] = {}
    for name, value in members.items():
        hint = hints.get(name)
        if hint is None:
            continue
        if hint is msgspec.Raw:
            found[name] = value
            continue
        inner = _LISTS.get((cls, name))
        if inner is not None and bytes(value)[:1] == b"[":
            found[name] = [_part(inner, span) for span in spans(value)]
            continue
        try:
            found[name] = msgspec.json.decode(value, type=hint)
        except (ValueError, RecursionError):
            if name in _TEXTS and cls in _WITH_TEXTS:
                found[name] = bytes(value).decode("utf-8", "replace")
    return cls(**found)


def _part(cls: type[Wire], span: msgspec.Raw) -> Wire:
    """One element of a list of objects; what is none keeps its JSON text where parts are expected."""
    found = read(cls, span)
    if found is not None:
        return found
    text = text_of(span) or bytes(span).decode("utf-8", "replace")
    if cls is InputPart:
        return InputPart(type="input_text", text=msgspec.Raw(encode(text)))
    return Part(type="input_text", text=text) if cls is Part else cls()


_decode_text = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode


def given(raw: msgspec.Raw) -> bool:
    """Whether a member is there and not null."""
    size = len(raw)  # values may be megabytes: not copied to be compared
    return size > 0 and (size != len(_NULL) or bytes(raw) != _NULL)


def raw_of(raw: msgspec.Raw) -> bytes:
    """The JSON text of a member; `NO_RAW` when it is absent or null."""
    if raw is ABSENT:
        return NO_RAW
    data = bytes(raw)
    return NO_RAW if data == _NULL else data


def text_of(raw: msgspec.Raw) -> str | None:
    """The string that *raw* is; None for anything else."""
    try:
        return _decode_text(raw) if raw else None
    except ValueError:
        return None


def number_of(raw: msgspec.Raw) -> float | int | None:
    """The number that *raw* is; None for anything else."""
    try:
        value = _decode_any(raw) if raw else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
