"""Arguments of tool calls between the protocols that carry a string and those that carry an object (2.8, 3.2).

What stands in a request's history is never guessed at: text that is no JSON goes out under ``_raw_arguments``, so that
the model sees what it had called. Only in answers (`repair_arguments`) is malformed text mended, within bounds.
"""

import ast
import re
from typing import Final

import msgspec

from cpa.formats.json import encode, repair
from cpa.translation.ir import Call, Shape, Tool, Written

EMPTY_OBJECT: Final = b"{}"
EMPTY_SCHEMA: Final = b'{"type":"object","properties":{}}'
MAX_GRAMMAR_BYTES: Final = 4096
"""A longer grammar would cost more context than it helps (2.6)."""
MAX_MENDED_CHARS: Final = 64 * 1024
"""Arguments of this length are mended; a longer blob that no decoder reads is not a slip of the model's syntax."""
MAX_MENDED_DEPTH: Final = 64

_TEXT, _JSON = Shape.TEXT, Shape.JSON  # looking into an enumeration takes long
_check = msgspec.json.Decoder(msgspec.Raw).decode
_decode_value = msgspec.json.Decoder().decode


class _Wrapped(msgspec.Struct, gc=False):
    input: msgspec.Raw = msgspec.Raw(b"")


_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode
_decode_str = msgspec.json.Decoder(str).decode


def args_object(call: Call) -> bytes:
    """The arguments as the JSON text of an object, for Claude and Gemini; big integers keep their digits.

    Free text becomes ``{"input": …}``, nothing ``{}``, another JSON value ``{"value": …}``, text that is no JSON
    ``{"_raw_arguments": …}``.
    """
    return bytes(written_object(call))


def written_object(call: Call) -> msgspec.Raw:
    """The same to be written, without a copy where the client's own text will do."""
    written = call.written
    if type(written) is msgspec.Raw:
        if not call.args_text:
            return written
        written = _decode_str(written)
    if call.shape is _TEXT and call.args_text:
        return msgspec.Raw(b'{"input":' + encode(call.args.decode("utf-8", "replace")) + b"}")
    if type(written) is str and written[:1] == "{":
        try:
            value: msgspec.Raw = _check(written)
        except (ValueError, RecursionError):
            pass
        else:
            return value
    return msgspec.Raw(_object(call.args))


def args_string(call: Call, *, wrapped: bool = False) -> str:
    """The arguments as a string, for Chat and Responses: the client's text, or the object's JSON text as it is.

    Args:
      wrapped: the target knows no free text, so that a custom tool's input travels in an object.
    """
    if wrapped and call.shape is _TEXT:
        return args_object(call).decode("utf-8", "replace")
    text: str = written_string(call)
    return text if type(text) is str else _decode_str(text)


def written_string(call: Call) -> Written:
    """The same to be written: a string, or that of a client of OpenAI's undecoded. Free text is not wrapped."""
    written = call.written
    if written is not None:
        return written if call.args_text or type(written) is str else str(written, "utf-8")
    text = call.args.decode("utf-8", "replace")
    if not text and call.shape is _JSON and not call.args_text:
        return "{}"  # an absent object (2.8)
    return text


def unwrap_custom(args_text: str) -> str:
    """The free text that a wrapped tool was called with; what is not wrapped is the text itself (2.6)."""
    text = args_text.strip()
    try:
        if text.startswith('"'):
            return _decode_str(text)
        if text.startswith("{"):
            inner = _decode_wrapped(text).input
            if bytes(inner).startswith(b'"'):
                return _decode_str(inner)
    except (ValueError, RecursionError):
        return args_text
    return args_text


def wrapped_schema(tool: Tool, description: str | None = None) -> tuple[str, bytes]:
    """(description, input schema) of a custom tool for a target without free text.

    Args:
      description: instead of the tool's own, see `tool_names.descriptions`.
    """
    text = tool.description if description is None else description
    note = _grammar_note(tool.grammar)
    schema = (
        b'{"type":"object","properties":{"input":{"type":"string","description":"Raw text input of the tool"}},'
        b'"required":["input"],"additionalProperties":false}'
    )
    return "\n\n".join(filter(None, (text, note))), schema


def repair_arguments(text: str) -> bytes:
    """The JSON text of an object out of what a provider's model wrote as arguments (3.2). For answers only.

    A code fence is taken off and a Python literal of a dict is rewritten, both within `MAX_MENDED_CHARS`.
    """
    raw = text.encode("utf-8", "replace")
    if _valid(raw.strip()) is not None or not raw.strip():
        return _object(raw)
    if len(text) <= MAX_MENDED_CHARS:
        bare = _without_fence(text)
        if bare != text and _valid(bare.encode("utf-8", "replace")) is not None:
            return _object(bare.encode("utf-8", "replace"))
        mended = _python_dict(bare)
        if mended is not None:
            return mended
    return _object(raw)


def _valid(raw: bytes) -> bytes | None:
    """*raw* if it is one JSON value, a copy with lone surrogates repaired if that helps, else None."""
    try:
        _check(raw)
        if not raw.isascii():
            str(raw, "utf-8")  # a skipped span is not checked for it
    except UnicodeDecodeError:
        return None
    except (ValueError, RecursionError):
        try:
            mended = repair(raw)
            _check(mended)
            str(mended, "utf-8")
        except (ValueError, RecursionError):
            return None
        return mended.strip()
    return raw


def _object(raw: bytes) -> bytes:
    stripped = raw.strip()
    if not stripped or stripped == b"null":
        return EMPTY_OBJECT
    value = _valid(stripped)
    if value is None:
        return b'{"_raw_arguments":' + encode(raw.decode("utf-8", "replace")) + b"}"
    if value.startswith(b"{"):
        return value
    return b'{"value":' + value + b"}"


class _Grammar(msgspec.Struct, gc=False):
    type: str = ""
    syntax: str = ""
    definition: str = ""


_decode_grammar = msgspec.json.Decoder(_Grammar).decode


def _grammar_note(grammar: bytes) -> str:
    if not grammar:
        return ""
    try:
        found = _decode_grammar(grammar)
    except (ValueError, RecursionError):
        return ""
    if not found.definition:
        return ""
    kind = f"{found.syntax} grammar" if found.syntax else "grammar"
    if len(found.definition.encode("utf-8", "replace")) > MAX_GRAMMAR_BYTES:
        return f"The `input` string must follow a {kind} that is too long to be shown here."
    return f"The `input` string must follow this {kind}:\n{found.definition}"


_FENCE = re.compile(r"\s*```[A-Za-z0-9_+-]*[ \t]*\r?\n?(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)
# What a literal of plain values is made of. Text that passes holds no operators, names or calls, so that the parser
# behind `literal_eval` meets nothing but brackets, whose depth is counted.
_LITERAL = re.compile(
    r"""(?:\s++|[\[\]{}(),:]|-?(?:\d[\d_]*+(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?|True|False|None"""
    r"""|[uU]?'(?:[^'\\\n]++|\\.)*+'|[uU]?"(?:[^"\\\n]++|\\.)*+")*+""",
    re.DOTALL,
)
_QUOTED = re.compile(r"""'(?:[^'\\\n]++|\\.)*+'|"(?:[^"\\\n]++|\\.)*+\"""", re.DOTALL)


def _without_fence(text: str) -> str:
    match = _FENCE.fullmatch(text)
    return match[1].strip() if match else text


def _python_dict(text: str) -> bytes | None:
    """A Python literal of a dict as JSON, or None."""
    stripped = text.strip()
    if not stripped.startswith("{") or _LITERAL.fullmatch(stripped) is None:
        return None
    depth = deepest = 0
    for character in _QUOTED.sub("", stripped):
        if character in "[{(":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]})":
            depth -= 1
    if deepest > MAX_MENDED_DEPTH:
        return None
    try:
        value = ast.literal_eval(stripped)
        if not isinstance(value, dict):
            return None
        encoded = encode(value)
        _decode_value(encoded)  # keys that JSON cannot have
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, OverflowError):
        return None
    return encoded
