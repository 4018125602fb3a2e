"""The members of Claude's bodies that translation reads, as flat permissive structs (translation 0.6).

Reading has two speeds. Nearly everything decodes in one pass. An object that holds a member of a type that no client
of the vendor would send is read again member by member, and what cannot be used counts as absent. Only what is not
JSON at all fails.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec

from cpa.formats.json import JsonError, decode_members, repair
from cpa.translation.ir import NO_RAW, Raw

S = TypeVar("S", bound=msgspec.Struct)
ABSENT: Final = msgspec.Raw(b"")


class Reader(Generic[S]):
    """Reads objects of one kind, tolerantly.

    Args:
      struct: what to read; every member optional.
      nested: readers of members that are structs themselves.
    """

    def __init__(self, struct: type[S], nested: "dict[str, Reader[Any]] | None" = None) -> None:
        self._struct = struct
        self._decode = msgspec.json.Decoder(struct).decode
        inner = nested or {}
        self._members = [
            (field.name, field.encode_name, inner[field.name] if field.name in inner else _member(field.type))
            for field in msgspec.structs.fields(struct)
        ]

    def __call__(self, data: bytes | msgspec.Raw) -> S:
        """*data* as the struct. Raises: JsonError when it is not a JSON object."""
        try:
            return self._decode(data)
        except (ValueError, RecursionError):
            return self._piecewise(bytes(data))

    def _piecewise(self, data: bytes) -> S:
        members = decode_members(data)
        found = {}
        for name, encoded, read in self._members:
            raw = members.get(encoded)
            if raw is None:
                continue
            try:
                found[name] = read(raw)
            except (ValueError, RecursionError):
                continue
        return self._struct(**found)


def _member(hint: Any) -> Any:
    return msgspec.json.Decoder(hint).decode if hint is not msgspec.Raw else _as_it_is


def _as_it_is(raw: msgspec.Raw) -> msgspec.Raw:
    return raw


# --- requests --------------------------------------------------------------------------------------------------------


class Block(msgspec.Struct, gc=False):
    """A content block of a request or of an answer, whatever its type."""

    type: str | None = None
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    content: msgspec.Raw = ABSENT
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    source: msgspec.Raw = ABSENT
    title: str | None = None
    context: str | None = None
    citations: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT


class InputBlock(msgspec.Struct, gc=False):
    """A content block of a request. *text* raw: long texts are not decoded, see `literals`.

    Members are in the order in which clients send them: the decoder looks for the next one behind the last.
    """

    type: str | None = None
    text: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    content: msgspec.Raw = ABSENT
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT
    citations: msgspec.Raw = ABSENT
    data: str | None = None
    source: msgspec.Raw = ABSENT
    title: str | None = None
    context: str | None = None
    tool_name: str | None = None


class Message(msgspec.Struct, gc=False):
    """A message of a request."""

    role: str | None = None
    content: str | list[InputBlock] | None = None


class LooseMessage(msgspec.Struct, gc=False):
    """The same, for content that `Message` does not fit."""

    role: str | None = None
    content: msgspec.Raw = ABSENT


class KnownBody(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A request without any member that this version does not know: nearly all of them. All but *messages* raw."""

    messages: list[Message]
    model: msgspec.Raw = ABSENT
    stream: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    max_tokens: msgspec.Raw = ABSENT
    temperature: msgspec.Raw = ABSENT
    top_p: msgspec.Raw = ABSENT
    top_k: msgspec.Raw = ABSENT
    stop_sequences: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    output_config: msgspec.Raw = ABSENT
    output_format: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    speed: msgspec.Raw = ABSENT
    cache_control: msgspec.Raw = ABSENT


class Source(msgspec.Struct, gc=False):
    """Where media come from."""

    type: str | None = None
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: msgspec.Raw = ABSENT


class Citing(msgspec.Struct, gc=False):
    """``citations`` of a document."""

    enabled: bool | None = None


class ToolDef(msgspec.Struct, gc=False):
    """A tool definition."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None
    cache_control: msgspec.Raw = ABSENT
    defer_loading: bool | None = None
    allowed_callers: msgspec.Raw = ABSENT
    input_examples: msgspec.Raw = ABSENT
    eager_input_streaming: msgspec.Raw = ABSENT


class Choice(msgspec.Struct, gc=False):
    """``tool_choice``."""

    type: str | None = None
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, gc=False):
    """``thinking``. *budget_tokens* raw, because a wrong one is the client's to know."""

    type: str | None = None
    budget_tokens: msgspec.Raw = ABSENT
    display: str | None = None


class OutputConfig(msgspec.Struct, gc=False):
    """``output_config``."""

    effort: str | None = None
    format: msgspec.Raw = ABSENT


class OutputFormat(msgspec.Struct, gc=False):
    """``output_config.format``."""

    type: str | None = None
    schema: msgspec.Raw = ABSENT


class CacheControl(msgspec.Struct, gc=False):
    """``cache_control``."""

    type: str | None = None
    ttl: str | None = None


# --- answers ---------------------------------------------------------------------------------------------------------


class BlockDelta(msgspec.Struct, gc=False):
    """``delta`` of a ``content_block_delta`` or a ``message_delta``."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    citation: msgspec.Raw = ABSENT
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = ABSENT


class Frame(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str | None = None
    index: int | None = None
    delta: BlockDelta | None = None
    content_block: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class Answer(msgspec.Struct, gc=False):
    """A message, as an answer."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    content: msgspec.Raw = ABSENT
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class StopDetails(msgspec.Struct, gc=False):
    """``stop_details`` of a refusal."""

    explanation: str | None = None
    category: str | None = None


read_block: Final = Reader(Block)
read_input: Final = Reader(InputBlock)
read_source: Final = Reader(Source)
read_citing: Final = Reader(Citing)
read_message: Final = Reader(LooseMessage)
read_tool: Final = Reader(ToolDef)
read_choice: Final = Reader(Choice)
read_thinking: Final = Reader(Thinking)
read_output_config: Final = Reader(OutputConfig)
read_output_format: Final = Reader(OutputFormat)
read_cache_control: Final = Reader(CacheControl)
read_frame: Final = Reader(Frame, {"delta": Reader(BlockDelta)})
read_answer: Final = Reader(Answer)
read_stop_details: Final = Reader(StopDetails)

decode_messages: Final = msgspec.json.Decoder(list[Message]).decode
decode_blocks: Final = msgspec.json.Decoder(list[InputBlock]).decode
decode_known: Final = msgspec.json.Decoder(KnownBody).decode
decode_tools: Final = msgspec.json.Decoder(list[ToolDef]).decode
decode_strings: Final = msgspec.json.Decoder(list[str]).decode
_decode_spans = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode
_NULL: Final = b"null"


def given(raw: msgspec.Raw | None) -> bool:
    """Whether a member is there and not null."""
    if raw is None or raw is ABSENT:
        return False
    size = len(raw)  # values may be megabytes of base64: not copied to be compared
    return size > 0 and (size != len(_NULL) or bytes(raw) != _NULL)


def raw_of(raw: msgspec.Raw | None) -> Raw:
    """The JSON text of a member; `NO_RAW` when it is absent or null."""
    if raw is None or raw is ABSENT:
        return NO_RAW
    data = bytes(raw)
    return NO_RAW if data == _NULL else data


def spans(raw: bytes | msgspec.Raw) -> list[msgspec.Raw] | None:
    """The elements of a list, undecoded; None when *raw* is none."""
    try:
        return _decode_spans(raw)
    except (ValueError, RecursionError):
        try:
            return _decode_spans(repair(bytes(raw)))
        except (ValueError, RecursionError):
            return None


def text_of(raw: msgspec.Raw) -> str | None:
    """The string that *raw* is; None for anything else."""
    try:
        return _decode_text(raw)
    except ValueError:
        return None


def value_of(raw: msgspec.Raw) -> Any:
    """Any JSON value, meant for small ones. Raises: JsonError."""
    try:
        return _decode_any(raw)
    except (ValueError, RecursionError) as exc:
        raise JsonError(str(exc)) from exc
