"""The members of Gemini's bodies that translation reads, as flat permissive structs (translation 0.6).

Proto JSON knows each member in two spellings, ``inlineData`` and ``inline_data``, and clients use both. The large
structs have both as members; small objects are read by `members`, which spells all names in camel case.

Reading has two speeds. Nearly everything decodes in one pass. What does not fit is read again object by object, and
there whatever cannot be used counts as absent, but text that is no string is kept as its JSON text. Only what is not
JSON at all, or no list of contents, fails.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from cpa.formats.json import JsonError, decode_members, repair
from cpa.translation.ir import NO_RAW, Raw

S = TypeVar("S", bound=msgspec.Struct)
ABSENT: Final = msgspec.Raw(b"")
MAX_NUMBER_CHARS: Final = 40
"""Of a number that is spelled as a string, as proto JSON allows; none has more digits."""


class FunctionCall(msgspec.Struct, gc=False):
    """``functionCall``. *partialArgs*, *willContinue*: of arguments that arrive piece by piece."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = ABSENT
    partialArgs: msgspec.Raw = ABSENT
    partial_args: msgspec.Raw = ABSENT
    willContinue: bool | None = None
    will_continue: bool | None = None


class FunctionResponse(msgspec.Struct, gc=False):
    """``functionResponse``."""

    id: str | None = None
    name: str | None = None
    response: msgspec.Raw = ABSENT
    parts: msgspec.Raw = ABSENT


class Blob(msgspec.Struct, gc=False):
    """``inlineData``."""

    data: str | None = None
    mimeType: str | None = None
    mime_type: str | None = None
    displayName: str | None = None
    display_name: str | None = None


class Part(msgspec.Struct, gc=False):
    """A part of a content, whatever it holds."""

    text: str | None = None
    thought: bool | None = None
    thoughtSignature: str | None = None
    thought_signature: str | None = None
    functionCall: FunctionCall | None = None
    function_call: FunctionCall | None = None
    functionResponse: FunctionResponse | None = None
    function_response: FunctionResponse | None = None
    inlineData: Blob | None = None
    inline_data: Blob | None = None
    fileData: msgspec.Raw = ABSENT
    file_data: msgspec.Raw = ABSENT
    executableCode: msgspec.Raw = ABSENT
    executable_code: msgspec.Raw = ABSENT
    codeExecutionResult: msgspec.Raw = ABSENT
    code_execution_result: msgspec.Raw = ABSENT
    videoMetadata: msgspec.Raw = ABSENT
    video_metadata: msgspec.Raw = ABSENT
    mediaResolution: msgspec.Raw = ABSENT
    media_resolution: msgspec.Raw = ABSENT

    @property
    def signature(self) -> str:
        """The thought signature, or empty."""
        return self.thoughtSignature or self.thought_signature or ""

    @property
    def file(self) -> Raw:
        """``fileData``, or `NO_RAW`; likewise the properties below."""
        return raw_of(self.fileData) or raw_of(self.file_data)

    @property
    def code(self) -> Raw:
        return raw_of(self.executableCode) or raw_of(self.executable_code)

    @property
    def code_result(self) -> Raw:
        return raw_of(self.codeExecutionResult) or raw_of(self.code_execution_result)

    @property
    def tuned(self) -> bool:
        """It says how its media are to be read, which only Gemini knows."""
        return any(map(given, (self.videoMetadata, self.video_metadata, self.mediaResolution, self.media_resolution)))


class Content(msgspec.Struct, gc=False):
    """A turn."""

    role: str | None = None
    parts: list[Part] | Part | None = None


class Body(msgspec.Struct, gc=False):
    """A request."""

    contents: list[Content] | Content | None = None
    model: msgspec.Raw = ABSENT
    systemInstruction: msgspec.Raw = ABSENT
    system_instruction: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    toolConfig: msgspec.Raw = ABSENT
    tool_config: msgspec.Raw = ABSENT
    generationConfig: msgspec.Raw = ABSENT
    generation_config: msgspec.Raw = ABSENT
    safetySettings: msgspec.Raw = ABSENT
    safety_settings: msgspec.Raw = ABSENT
    serviceTier: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    generateContentRequest: msgspec.Raw = ABSENT
    generate_content_request: msgspec.Raw = ABSENT


class PlainCall(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A call, whole."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = ABSENT


class PlainOutput(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A response that is one text, as nearly all are."""

    output: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT


class PlainResponse(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A response without media."""

    response: PlainOutput
    id: str | None = None
    name: str | None = None


class PlainPart(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A part as agents write nearly all of them. *text* raw: long texts are not decoded, see `literals`."""

    text: msgspec.Raw = ABSENT
    thought: bool | None = None
    thoughtSignature: str | None = None
    functionCall: PlainCall | None = None
    functionResponse: PlainResponse | None = None


class PlainContent(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A turn of nothing else."""

    role: str | None = None
    parts: list[PlainPart] = []


class PlainBody(Body, forbid_unknown_fields=True):
    """A request without any member that is rare: it needs no second look for what this version does not know."""

    contents: list[PlainContent] = []  # type: ignore[assignment] # never used as the other


class Declaration(msgspec.Struct, gc=False):
    """A declaration of a function."""

    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    parametersJsonSchema: msgspec.Raw = ABSENT
    parameters_json_schema: msgspec.Raw = ABSENT


class Candidate(msgspec.Struct, gc=False):
    """One of the answers in a frame."""

    index: int | None = None
    content: Content | None = None
    finishReason: str | None = None
    finishMessage: str | None = None
    groundingMetadata: msgspec.Raw = ABSENT
    logprobsResult: msgspec.Raw = ABSENT


class Feedback(msgspec.Struct, gc=False):
    """``promptFeedback``."""

    blockReason: str | None = None
    blockReasonMessage: str | None = None


class Frame(msgspec.Struct, gc=False):
    """An answer, or a part of one. *response*: of dialects that wrap it."""

    candidates: list[Candidate] | None = None
    promptFeedback: Feedback | None = None
    usageMetadata: msgspec.Raw = ABSENT
    responseId: str | None = None
    modelVersion: str | None = None
    createTime: str | None = None
    error: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT


_decode_plain: Final = msgspec.json.Decoder(PlainBody).decode
_decode_body: Final = msgspec.json.Decoder(Body).decode
_decode_content: Final = msgspec.json.Decoder(Content).decode
_decode_call: Final = msgspec.json.Decoder(FunctionCall).decode
_decode_response: Final = msgspec.json.Decoder(FunctionResponse).decode
_decode_blob: Final = msgspec.json.Decoder(Blob).decode
_decode_declaration: Final = msgspec.json.Decoder(Declaration).decode
_decode_part: Final = msgspec.json.Decoder(Part).decode
_decode_candidate: Final = msgspec.json.Decoder(Candidate).decode
_decode_feedback: Final = msgspec.json.Decoder(Feedback).decode
_decode_frame: Final = msgspec.json.Decoder(Frame).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_spans: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_number: Final = msgspec.json.Decoder(int | float).decode
_decode_bool: Final = msgspec.json.Decoder(bool).decode


# --- whole bodies ----------------------------------------------------------------------------------------------------


def read_body(data: bytes) -> Body:
    """A request. Raises: JsonError when *data* is no JSON object; ValueError when its contents are no list of objects,
    with the place as its text."""
    try:
        return _decode_body(data)
    except (ValueError, RecursionError):
        pass
    mended = repair(data)
    try:
        return _decode_body(mended)
    except (ValueError, RecursionError):
        return _piecewise(Body, decode_members(mended), {"contents": _contents})


def read_plain_body(data: bytes) -> PlainBody | None:
    """A request, if it is a plain one."""
    try:
        return _decode_plain(data)
    except (ValueError, RecursionError):
        return None


def read_frame(data: bytes) -> Frame:
    """An answer, or a frame of one. Raises: ValueError when *data* is no JSON object, or has no list of candidates."""
    try:
        return _decode_frame(data)
    except (ValueError, RecursionError):
        return _piecewise(Frame, decode_members(data), {"candidates": _candidates, "promptFeedback": _feedback})


def read_content(data: bytes | msgspec.Raw) -> Content:
    """A content, or a part alone. Raises: ValueError when *data* is no object."""
    try:
        return _decode_content(data)
    except (ValueError, RecursionError):
        return _piecewise(Content, _object(data), {"parts": _parts})


def read_part(data: bytes | msgspec.Raw) -> Part:
    """A part. Raises: ValueError when *data* is no object."""
    try:
        return _decode_part(data)
    except (ValueError, RecursionError):
        pass
    text = text_of(data)
    if text is not None:  # a list of strings
        return Part(text=text)
    readers: dict[str, Callable[[msgspec.Raw], Any]] = {
        "text": as_text,
        "thought": boolean_of,
        "functionCall": _read_call,
        "function_call": _read_call,
        "functionResponse": _read_response,
        "function_response": _read_response,
        "inlineData": read_blob,
        "inline_data": read_blob,
    }
    return _piecewise(Part, _object(data), readers)


def _read_call(data: msgspec.Raw) -> FunctionCall:
    try:
        return _decode_call(data)
    except (ValueError, RecursionError):
        readers = dict.fromkeys(("willContinue", "will_continue"), boolean_of)
        return _piecewise(FunctionCall, _object(data), readers)


def _read_response(data: msgspec.Raw) -> FunctionResponse:
    try:
        return _decode_response(data)
    except (ValueError, RecursionError):
        return _piecewise(FunctionResponse, _object(data), {})


def read_blob(data: bytes | msgspec.Raw) -> Blob:
    """``inlineData``. Raises: ValueError when *data* is no object."""
    try:
        return _decode_blob(data)
    except (ValueError, RecursionError):
        return _piecewise(Blob, _object(data), {})


def read_declaration(data: msgspec.Raw) -> Declaration:
    """A declaration of a function; an empty one when *data* is no object."""
    try:
        return _decode_declaration(data)
    except (ValueError, RecursionError):
        try:
            return _piecewise(Declaration, _object(data), {})
        except ValueError:
            return Declaration()


def _read_candidate(data: msgspec.Raw) -> Candidate:
    try:
        return _decode_candidate(data)
    except (ValueError, RecursionError):
        readers: dict[str, Callable[[msgspec.Raw], Any]] = {
            "index": integer_of,
            "content": read_content,
        }
        return _piecewise(Candidate, _object(data), readers)


def _contents(data: msgspec.Raw) -> list[Content] | None:
    return _each(data, read_content, "contents")


def _parts(data: msgspec.Raw) -> list[Part] | None:
    return _each(data, read_part, "parts")


def _candidates(data: msgspec.Raw) -> list[Candidate] | None:
    return _each(data, _read_candidate, "candidates")


def _feedback(data: msgspec.Raw) -> Feedback | None:
    try:
        return _decode_feedback(data)
    except (ValueError, RecursionError):
        return Feedback(blockReason="OTHER") if bytes(data).startswith(b"{") else None


def _each(data: msgspec.Raw, read: Callable[[msgspec.Raw], S], where: str) -> list[S] | None:
    """The elements of a list; proto JSON takes an element alone as a list of it."""
    if not given(data):
        return None
    if bytes(data)[:1] == b"{":
        return [read(data)]
    try:
        elements = _decode_spans(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{where}: expected a list") from None
    found = []
    for place, element in enumerate(elements):
        try:
            found.append(read(element))
        except ValueError as exc:
            inner = str(exc) or "expected an object"
            separator = "." if not inner.startswith("expected") else ": "
            raise ValueError(f"{where}[{place}]{separator}{inner}") from None
    return found


def _piecewise(cls: type[S], found: dict[str, msgspec.Raw], readers: Mapping[str, Callable[[msgspec.Raw], Any]]) -> S:
    values: dict[str, Any] = {}
    for name in cls.__struct_fields__:
        raw = found.get(name)
        if raw is None or not given(raw):
            continue
        reader = readers.get(name)
        if reader is not None:
            values[name] = reader(raw)
        elif cls.__annotations__[name] is msgspec.Raw:
            values[name] = raw
        else:
            values[name] = text_of(raw)
    return cls(**values)


def _object(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return decode_members(bytes(data))
    except JsonError:
        raise ValueError("expected an object") from None


def as_text(raw: msgspec.Raw) -> str:
    """The string that *raw* is, or its JSON text."""
    text = text_of(raw)
    return bytes(raw).decode("utf-8", "replace") if text is None else text


# --- small objects and values ----------------------------------------------------------------------------------------


_SNAKE = re.compile(r"_+([A-Za-z0-9])")


def camel(name: str) -> str:
    """A member's name as proto JSON spells it; a leading underscore, which one SDK writes, goes."""
    if "_" not in name:
        return name
    return _SNAKE.sub(lambda match: match[1].upper(), name.strip("_"))


def members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of a small object, undecoded, by their names in camel case, without nulls; nothing for no object."""
    if not raw:
        return {}
    try:
        found = decode_members(bytes(raw))
    except JsonError:
        return {}
    return {camel(name): value for name, value in found.items() if given(value)}


def spans(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The elements of a list, undecoded; an object counts as a list of it, anything else as an empty one."""
    if bytes(memoryview(raw)[:1]) == b"{":
        return [msgspec.Raw(bytes(raw))]
    try:
        return _decode_spans(raw)
    except (ValueError, RecursionError):
        return []


def given(raw: msgspec.Raw | None) -> bool:
    """Whether a member is there and not null."""
    if raw is None or raw is ABSENT:
        return False
    size = len(raw)  # not copied to be compared
    return size > 0 and (size != 4 or bytes(raw) != b"null")


def raw_of(raw: msgspec.Raw | None) -> Raw:
    """The JSON text of a member; `NO_RAW` when it is absent or null."""
    if raw is None or raw is ABSENT:
        return NO_RAW
    data = bytes(raw)
    return NO_RAW if data == b"null" else data


def text_of(raw: bytes | msgspec.Raw | None) -> str | None:
    """The string that *raw* is; None for anything else."""
    if raw is None:
        return None
    try:
        return _decode_text(raw)
    except ValueError:
        return None


def number_of(raw: msgspec.Raw | None) -> float | int | None:
    """The number that *raw* is, as a number or as a string; None for anything else."""
    if raw is None:
        return None
    text = text_of(raw)
    try:
        value: float | int = _decode_number(raw if text is None else text[:MAX_NUMBER_CHARS].strip())
    except (ValueError, RecursionError):
        return None
    return value


def integer_of(raw: msgspec.Raw | None) -> int | None:
    """The same for integers."""
    value = number_of(raw)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value


def boolean_of(raw: msgspec.Raw | None) -> bool | None:
    """The truth value that *raw* is; None for anything else."""
    if raw is None:
        return None
    try:
        return _decode_bool(raw)
    except ValueError:
        return {"true": True, "false": False}.get(text_of(raw) or "")


def strings_of(raw: msgspec.Raw | None) -> list[str] | None:
    """The list of strings that *raw* is, a string being a list of it; None for anything else."""
    if raw is None:
        return None
    alone = text_of(raw)
    if alone is not None:
        return [alone]
    try:
        return msgspec.json.decode(raw, type=list[str])
    except (ValueError, RecursionError):
        return None
