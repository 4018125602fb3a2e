"""The members of Chat bodies that translation reads, as flat permissive structs (translation 0.6).

Reading has two speeds. Nearly everything decodes in one pass. An object that holds a member of a type that no client
or server of the vendor would send is read again member by member: what cannot be used counts as absent, and values that
stand where text is expected keep their JSON text, so that no content is lost. Only what is no JSON object at all fails.
"""

from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from cpa.formats.json import JsonError, decode_members, repair
from cpa.translation.ir import NO_RAW

S = TypeVar("S", bound="Wire")
ABSENT: Final = msgspec.Raw(b"")
_NULL: Final = b"null"


class Wire(msgspec.Struct, gc=False):
    """Base of what is read."""


# --- parts and messages, in requests and answers ---------------------------------------------------------------------


class Link(Wire):
    """``image_url`` or ``video_url``."""

    url: str | None = None
    detail: str | None = None


class AudioData(Wire):
    """``input_audio``."""

    data: str | None = None
    format: str | None = None


class FileData(Wire):
    """``file``."""

    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None


class Part(Wire):
    """A content part, whatever its type."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: str | Link | None = None
    video_url: str | Link | None = None
    detail: str | None = None
    input_audio: AudioData | None = None
    file: FileData | None = None
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    thinking: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT


class Function(Wire):
    """What a call calls."""

    name: str | None = None
    arguments: str | None = None


class Custom(Wire):
    """What a call of a free-text tool says."""

    name: str | None = None
    input: str | None = None


class GoogleExtra(Wire):
    """``extra_content.google``."""

    thought_signature: str | None = None


class Extra(Wire):
    """``extra_content``."""

    google: GoogleExtra | None = None


class ToolCall(Wire):
    """One of ``tool_calls``, of a message or of a delta."""

    index: int | float | str | bool | None = None
    id: str | int | float | bool | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: Extra | None = None


class Detail(Wire):
    """One of ``reasoning_details``."""

    type: str | None = None
    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    data: str | None = None
    format: str | None = None
    id: str | None = None


class AudioRef(Wire):
    """``audio`` of an assistant's message."""

    id: str | None = None
    data: str | None = None
    transcript: str | None = None


class Message(Wire):
    """A message of a request. *content* raw: long texts are not decoded, see `literals`."""

    role: str | None = None
    content: msgspec.Raw = ABSENT
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Function | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    audio: AudioRef | None = None
    images: list[Part] | None = None
    cache_control: msgspec.Raw = ABSENT


# --- request ---------------------------------------------------------------------------------------------------------


class Body(Wire):
    """A request. What is small is raw: it is read once, with errors that name it."""

    messages: list[Message] | None = None
    model: msgspec.Raw = ABSENT
    stream: msgspec.Raw = ABSENT
    stream_options: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    functions: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    function_call: msgspec.Raw = ABSENT
    parallel_tool_calls: msgspec.Raw = ABSENT
    max_completion_tokens: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    temperature: msgspec.Raw = ABSENT
    top_p: msgspec.Raw = ABSENT
    top_k: msgspec.Raw = ABSENT
    stop: msgspec.Raw = ABSENT
    n: msgspec.Raw = ABSENT
    seed: msgspec.Raw = ABSENT
    presence_penalty: msgspec.Raw = ABSENT
    frequency_penalty: msgspec.Raw = ABSENT
    logit_bias: msgspec.Raw = ABSENT
    logprobs: msgspec.Raw = ABSENT
    top_logprobs: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT
    verbosity: msgspec.Raw = ABSENT
    modalities: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT
    reasoning_effort: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    include_reasoning: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    extra_body: msgspec.Raw = ABSENT
    google: msgspec.Raw = ABSENT
    thinking_config: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    safety_identifier: msgspec.Raw = ABSENT
    user: msgspec.Raw = ABSENT
    prompt_cache_key: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    web_search_options: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT


class ToolBody(Wire):
    """``function`` or ``custom`` of a tool definition, or one of ``functions``."""

    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    format: msgspec.Raw = ABSENT


class ToolDef(Wire):
    """A tool definition; some clients write the function's members at its top."""

    type: str | None = None
    function: ToolBody | None = None
    custom: ToolBody | None = None
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    cache_control: msgspec.Raw = ABSENT
    defer_loading: bool | None = None


class Named(Wire):
    """``function`` or ``custom`` of a tool choice."""

    name: str | None = None


class Allowed(Wire):
    """``allowed_tools`` of a tool choice."""

    mode: str | None = None
    tools: msgspec.Raw = ABSENT


class Choice(Wire):
    """A tool choice that is an object."""

    type: str | None = None
    name: str | None = None
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: Allowed | None = None
    mode: str | None = None
    tools: msgspec.Raw = ABSENT


class JsonSchema(Wire):
    """``response_format.json_schema``."""

    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class ResponseFormat(Wire):
    """``response_format``."""

    type: str | None = None
    json_schema: JsonSchema | None = None


class StreamOptions(Wire):
    """``stream_options``."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Grammar(Wire):
    """A grammar: nested in Chat's ``format``, flat in that of Responses (2.6)."""

    type: str | None = None
    grammar: msgspec.Raw = ABSENT
    syntax: str | None = None
    definition: str | None = None


class ReasoningConfig(Wire):
    """``reasoning`` of compatible hosts."""

    effort: str | None = None
    max_tokens: int | None = None
    exclude: bool | None = None
    enabled: bool | None = None


class Thinking(Wire):
    """``thinking`` of compatible hosts, as Claude writes it."""

    type: str | None = None
    budget_tokens: int | None = None
    display: str | None = None


class ThinkingConfig(Wire):
    """``google.thinking_config``."""

    thinking_budget: int | None = None
    thinking_level: str | None = None
    include_thoughts: bool | None = None


class Google(Wire):
    """``google``."""

    thinking_config: ThinkingConfig | None = None


class ExtraBody(Wire):
    """``extra_body``, which clients send when they should have merged it."""

    google: Google | None = None


# --- answers ---------------------------------------------------------------------------------------------------------


class Delta(Wire):
    """``delta`` of a chunk, or ``message`` of a whole answer."""

    content: str | list[Part] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    annotations: list[msgspec.Raw] | None = None
    images: list[Part] | None = None
    audio: AudioRef | None = None


class AnswerChoice(Wire):
    """One of ``choices``. *stop_reason*: the stop sequence, of some compatible hosts."""

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = ABSENT
    stop_reason: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


class LogProbs(Wire):
    """``logprobs`` of a choice."""

    content: msgspec.Raw = ABSENT
    refusal: msgspec.Raw = ABSENT


class Chunk(Wire):
    """A chunk, or a whole answer."""

    id: str | None = None
    type: str | None = None
    model: str | None = None
    created: int | float | None = None
    choices: list[AnswerChoice] | None = None
    usage: msgspec.Raw = ABSENT
    service_tier: str | None = None
    error: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT
    detail: msgspec.Raw = ABSENT


# --- reading ---------------------------------------------------------------------------------------------------------

_DECODERS: Final[dict[type[Wire], msgspec.json.Decoder[Any]]] = {}
_LIST_DECODERS: Final[dict[type[Wire], msgspec.json.Decoder[Any]]] = {}
_HINTS: Final[dict[type[Wire], dict[str, Any]]] = {}
_TEXTS: Final = frozenset({"text", "content", "refusal", "reasoning_content"})
"""Members that hold content: a scalar of another type is kept as its JSON text."""
_JSON_TEXTS: Final = frozenset({"arguments", "input"})
"""Members that hold JSON as text: some write it as it is."""
MAX_DEPTH: Final = 8
"""Of structs within structs; the deepest that there is has six."""


def read(cls: type[S], raw: bytes | msgspec.Raw) -> S | None:
    """*raw* as a *cls*, tolerantly; None when it is no JSON object."""
    decoder = _DECODERS.get(cls)
    if decoder is None:
        decoder = _DECODERS.setdefault(cls, msgspec.json.Decoder(cls))
    try:
        found: S = decoder.decode(raw)
    except (ValueError, RecursionError):
        return _read_repaired(cls, bytes(raw))
    return found


def read_list(cls: type[S], raw: bytes | msgspec.Raw) -> list[tuple[S, msgspec.Raw]]:
    """The objects in the list *raw*, each with its JSON text; nothing when it is no list."""
    return [(found, span) for span in spans(raw) if (found := read(cls, span)) is not None]


def read_all(cls: type[S], raw: bytes | msgspec.Raw) -> list[S] | None:
    """All of the list *raw*; None when it is no list, or has an element that is no object."""
    decoder = _LIST_DECODERS.get(cls)
    if decoder is None:
        decoder = _LIST_DECODERS.setdefault(cls, msgspec.json.Decoder(list[cls]))  # type: ignore[valid-type]
    try:
        found: list[S] = decoder.decode(raw)
    except (ValueError, RecursionError):
        pieces = [read(cls, span) for span in spans(raw)] if bytes(raw)[:1] == b"[" else None
        if pieces is None or None in pieces:
            return None
        return [piece for piece in pieces if piece is not None]
    return found


def read_parts(raw: msgspec.Raw) -> list[Part]:
    """The content parts in the list *raw*, tolerantly."""
    try:
        return _decode_parts(raw)
    except (ValueError, RecursionError):
        return [part for span in spans(raw) if isinstance(part := _element(Part, span, MAX_DEPTH - 1), Part)]


def spans(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The elements of the list *raw*, undecoded; nothing when it is no list."""
    try:
        return _decode_spans(raw) if raw else []
    except (ValueError, RecursionError):
        return []


_decode_parts = msgspec.json.Decoder(list[Part]).decode
_decode_spans = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode


def _read_repaired(cls: type[S], raw: bytes) -> S | None:
    """The second try: what strict decoders dislike is repaired first, then members are taken one by one."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        raw = raw.decode("utf-8", "replace").encode()
    raw = repair(raw)
    try:
        found: S = _DECODERS[cls].decode(raw)
    except (ValueError, RecursionError):
        return _piecewise(cls, raw, MAX_DEPTH)
    return found


def _piecewise(cls: type[S], raw: bytes, depth: int) -> S | None:
    try:
        members = decode_members(raw)
    except JsonError:
        return None
    hints = _HINTS.get(cls)
    if hints is None:
        hints = _HINTS.setdefault(cls, get_type_hints(cls))
    found: dict[str, Any] = {}
    for name, value in members.items():
        hint = hints.get(name)
        if hint is msgspec.Raw:
            found[name] = value
        elif hint is not None:
            member = _member(name, hint, bytes(value), depth)
            if member is not None:
                found[name] = member
    return cls(**found)


def _member(name: str, hint: Any, value: bytes, depth: int) -> Any:
    """The value of one member, or None for what cannot be used."""
    try:
        return msgspec.json.decode(value, type=hint)
    except (ValueError, RecursionError):
        pass
    struct, element = _structs(hint)
    if value[:1] == b"{" and struct is not None and depth:
        return _piecewise(struct, value, depth - 1)
    if value[:1] == b"[" and element is not None and depth:
        return [_element(element, span, depth - 1) for span in spans(value)]
    if name in _JSON_TEXTS or (name in _TEXTS and value[:1] not in b"[{"):
        return value.decode("utf-8", "replace")
    return None


def _element(cls: type[Wire], span: msgspec.Raw, depth: int) -> Wire:
    """One element of a list of objects; what is none keeps its text where parts are expected."""
    if cls is Part and bytes(span)[:1] != b"{":
        return Part(type="text", text=text_of(span) or bytes(span).decode("utf-8", "replace"))
    return _piecewise(cls, bytes(span), depth) or cls()


def _structs(hint: Any) -> tuple[type[Wire] | None, type[Wire] | None]:
    """(struct, struct of a list) among the alternatives of *hint*."""
    struct = element = None
    for alternative in get_args(hint):
        if alternative is NoneType:
            continue
        if get_origin(alternative) is list:
            inner = get_args(alternative)[0]
            element = inner if isinstance(inner, type) and issubclass(inner, Wire) else None
        elif isinstance(alternative, type) and issubclass(alternative, Wire):
            struct = alternative
    return struct, element


# --- raw members -----------------------------------------------------------------------------------------------------


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
