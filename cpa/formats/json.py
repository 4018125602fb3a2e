"""The one policy for JSON: how bodies are read, edited and written.

Theory of operation. Bodies of requests are large and mostly none of our business, so three depths of reading exist:

* `read_head` decodes two members with msgspec and skips the rest (about 0.5 µs per KB). An anchored regular expression
  for bodies that begin with ``{"model":`` was measured and rejected: it must still search the rest for a second
  ``model`` and for ``stream``, and these searches cost more than the decoder, which also proves that the body is JSON.
* `splice_model` and `pop_member` edit one member and keep the bytes of all others.
* `decode` makes Python values: for the few bodies that we really look into.

Strict decoders refuse what vendors accept (a byte order mark, lone surrogate escapes, NaN, very deep nesting). A body
that the decoder refuses is therefore read once more by `_members`, a scanner that only knows strings and brackets. It
is slower (tens of µs per KB), and only such bodies and rare edits pay for it.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache

import attrs
import msgspec

from cpa.errors import MalformedRequest
from cpa.types import JsonObject, JsonValue

BOM = b"\xef\xbb\xbf"
MAX_SPLICE_CANDIDATES = 8
"""Occurrences of ``"model"`` that `splice_model` tries before it scans: each try decodes the body once."""


class JsonError(ValueError):
    """Bytes that are not JSON. Whose fault that is only the caller knows."""


class StreamFlag(Enum):
    """The member ``stream`` as the client sent it."""

    ABSENT = "absent"
    TRUE = "true"
    FALSE = "false"
    OTHER = "other"


@attrs.frozen(kw_only=True)
class Head:
    """What routing needs of a body. `model` is empty when missing or not a string."""

    model: str
    stream: StreamFlag


def chat_streams(flag: StreamFlag) -> bool:
    """Chat, Completions and Responses stream only for a literal ``true``."""
    return flag is StreamFlag.TRUE


def claude_streams(flag: StreamFlag) -> bool:
    """Messages streams if the member is there and not ``false``; `null` counts as there, as deployed proxies do it."""
    return flag in (StreamFlag.TRUE, StreamFlag.OTHER)


_ABSENT = msgspec.Raw(b"")


class _Head(msgspec.Struct, gc=False):
    model: msgspec.Raw = _ABSENT
    stream: msgspec.Raw = _ABSENT


class _Model(msgspec.Struct, gc=False):
    model: msgspec.Raw = _ABSENT


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_model = msgspec.json.Decoder(_Model).decode
_decode_any = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_FLAGS = {b"": StreamFlag.ABSENT, b"true": StreamFlag.TRUE, b"false": StreamFlag.FALSE}

# An escaped backslash is consumed as a pair, so that only real escapes are looked at.
_SURROGATES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def encode(value: object) -> bytes:
    """Compact UTF-8 JSON of *value*: plain values, msgspec structs, `msgspec.Raw` leaves as they are.

    Lone surrogates in strings, which UTF-8 cannot carry, become U+FFFD.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_without_surrogates(value))


def decode(data: bytes) -> JsonValue:
    """Read *data* whole; a byte order mark and unpaired surrogate escapes are repaired.

    Raises: JsonError for anything else that is not JSON, too deeply nested values included.
    """
    try:
        value: JsonValue = _decode_any(data)
    except (ValueError, RecursionError):
        try:
            value = _decode_any(repair(data))
        except (ValueError, RecursionError) as exc:
            raise JsonError(str(exc)) from exc
    return value


def decode_object(data: bytes) -> JsonObject:
    """As `decode`, for callers that need an object. Raises: JsonError."""
    value = decode(data)
    if not isinstance(value, dict):
        raise JsonError(f"expected an object, got {type(value).__name__}")
    return value


def decode_members(data: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object as undecoded spans, which keep *data* alive. Raises: JsonError."""
    try:
        return _decode_members(data)
    except (ValueError, RecursionError):
        try:
            return _decode_members(repair(data))
        except (ValueError, RecursionError) as exc:
            raise JsonError(str(exc)) from exc


def is_json(data: bytes) -> bool:
    """Whether *data* is one JSON value, read tolerantly."""
    try:
        decode(data)
    except JsonError:
        return False
    return True


def repair(data: bytes) -> bytes:
    """*data* without byte order mark, unpaired surrogate escapes replaced by the escape of U+FFFD."""
    return _SURROGATES.sub(lambda m: m[0] if len(m[0]) != 6 else b"\\ufffd", data.removeprefix(BOM))


def read_head(body: bytes) -> Head:
    """Read `model` and `stream` of a request *body*; of repeated members the last counts.

    Raises: MalformedRequest when *body* is not a JSON object at all.
    """
    try:
        head = _decode_head(body)
    except (ValueError, RecursionError):
        return _scan_head(body)
    return Head(
        model=_text(bytes(head.model)),
        stream=_FLAGS.get(bytes(head.stream), StreamFlag.OTHER),
    )


def splice_model(body: bytes, new: str) -> tuple[bytes, ...]:
    """Make *new* the model of *body*; every other byte stays.

    Returns: pieces to be sent one after the other: ``(before, name, after)``, or ``(body,)`` when *new* is the model
      already. Not joined, because the copy of a large body costs as much as reading it. A body without the member
      gets it in front.
    Raises: MalformedRequest when *body* is not a JSON object.
    """
    start, end = _model_span(body)
    if start == end:
        return (body[:start], b'"model":' + encode(new) + _comma_before(body, end), body[end:])
    if body[start : start + 1] == b'"' and _text(body[start:end]) == new:
        return (body,)
    return (body[:start], encode(new), body[end:])


def has_member(body: bytes, name: str) -> bool:
    """Whether the JSON object *body* has a top-level member *name*; False for anything else."""
    try:
        found = _presence(name).decode(body)
    except (ValueError, RecursionError):
        try:
            return name in [member.name for member in _members(body)]
        except MalformedRequest:
            return False
    return getattr(found, "value") is not msgspec.UNSET  # noqa: B009 - the struct is made at run time


def pop_member(body: bytes, name: str) -> tuple[bytes, bytes | None]:
    """Remove the top-level member *name*, every occurrence of it; all other members keep their bytes.

    White space between members may go, and of other repeated members only the last stays.

    Returns: the new body, the same object when there was nothing to remove; the bytes of the (last) value, or None.
    Raises: MalformedRequest when *body* is not a JSON object.
    """
    if not has_member(body, name):
        read_head(body)
        return body, None
    try:
        spans = _decode_members(body)
    except (ValueError, RecursionError):
        return _cut_member(body, name)
    removed = spans.pop(name)
    return _encode(spans), bytes(removed)


def set_member(body: bytes, name: str, value: bytes) -> bytes:
    """Give the top-level member *name* the JSON text *value*, at the end when it is new.

    Raises: MalformedRequest when *body* is not a JSON object.
    """
    spans = [member for member in _members(body) if member.name == name]
    if spans:
        return body[: spans[-1].value_start] + value + body[spans[-1].value_end :]
    end = body.rindex(b"}")
    separator = b"," if any(True for _ in _members(body)) else b""
    return body[:end] + separator + encode(name) + b":" + value + body[end:]


# --- model -----------------------------------------------------------------------------------------------------------

_MODEL_VALUE = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")', re.DOTALL)

# A name that no body has and no client can guess: reading it back proves that a candidate was the effective member.
_PROBE = b'"' + secrets.token_hex(16).encode() + b'"'


def _model_span(body: bytes) -> tuple[int, int]:
    """Start and end of the value of the effective top-level ``model``; equal where the member has to be inserted."""
    position = 0
    for _ in range(MAX_SPLICE_CANDIDATES):
        match = _MODEL_VALUE.search(body, position)
        if match is None:
            break
        start, end = match.span(1)
        try:
            found = _decode_model(b"".join((body[:start], _PROBE, body[end:]))).model
        except (ValueError, RecursionError):
            break
        if bytes(found) == _PROBE:
            return start, end
        position = match.start() + 1
    spans = [(m.value_start, m.value_end) for m in _members(body) if m.name == "model"]
    if spans:
        return spans[-1]
    opening = body.index(b"{") + 1
    return opening, opening


def _comma_before(body: bytes, position: int) -> bytes:
    return b"" if body[position:].lstrip(b" \t\r\n").startswith(b"}") else b","


def _scan_head(body: bytes) -> Head:
    model = stream = b""
    for member in _members(body):
        if member.name == "model":
            model = body[member.value_start : member.value_end]
        elif member.name == "stream":
            stream = body[member.value_start : member.value_end]
    return Head(model=_text(model), stream=_FLAGS.get(stream, StreamFlag.OTHER))


def _text(raw: bytes) -> str:
    """The string that the JSON text *raw* stands for, or "" when it is none; never with lone surrogates."""
    if not raw.startswith(b'"'):
        return ""
    try:
        return _decode_text(raw)
    except ValueError:
        try:
            return _decode_text(repair(raw).decode("utf-8", "replace").encode())
        except ValueError:
            return ""


# --- the tolerant scanner --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Member:
    name: str
    key_start: int
    value_start: int
    value_end: int
    next_start: int  # of the next key, or of the closing brace


_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\r\n,\[\]{}":]++')
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_OPEN = b"[{"
_NOT_AN_OBJECT = "the request body is not a JSON object"


def _members(body: bytes) -> Iterator[_Member]:
    """The top-level members of *body*, values unread but for strings and brackets. Raises: MalformedRequest."""
    position = _skip(body, len(BOM) if body.startswith(BOM) else 0)
    if body[position : position + 1] != b"{":
        raise MalformedRequest(_NOT_AN_OBJECT)
    position = _skip(body, position + 1)
    while body[position : position + 1] != b"}":
        key = _STRING.match(body, position)
        if key is None:
            raise MalformedRequest(_NOT_AN_OBJECT)
        colon = _skip(body, key.end())
        if body[colon : colon + 1] != b":":
            raise MalformedRequest(_NOT_AN_OBJECT)
        start = _skip(body, colon + 1)
        end = _value_end(body, start)
        following = _skip(body, end)
        if body[following : following + 1] == b",":
            following = _skip(body, following + 1)
            if body[following : following + 1] == b"}":
                raise MalformedRequest(_NOT_AN_OBJECT)
        elif body[following : following + 1] != b"}":
            raise MalformedRequest(_NOT_AN_OBJECT)
        yield _Member(name=_text(key[0]), key_start=key.start(), value_start=start, value_end=end, next_start=following)
        position = following
    if _skip(body, position + 1) != len(body):
        raise MalformedRequest(_NOT_AN_OBJECT)


def _skip(body: bytes, position: int) -> int:
    match = _SPACE.match(body, position)
    return match.end() if match else position


def _value_end(body: bytes, start: int) -> int:
    """End of the value at *start*: a string, a scalar, or a container with balanced brackets."""
    first = body[start : start + 1]
    match = _STRING.match(body, start) if first == b'"' else _SCALAR.match(body, start)
    if match is not None:
        return match.end()
    if not first or first not in _OPEN:
        raise MalformedRequest(_NOT_AN_OBJECT)
    depth = 0
    for token in _TOKEN.finditer(body, start):
        kind = body[token.start()]
        if kind == 0x22:  # a string
            continue
        depth += 1 if kind in _OPEN else -1
        if depth == 0:
            return token.end()
    raise MalformedRequest(_NOT_AN_OBJECT)


def _cut_member(body: bytes, name: str) -> tuple[bytes, bytes | None]:
    """`pop_member` for bodies that only the scanner reads."""
    members = list(_members(body))
    kept = [member for member in members if member.name != name]
    removed = [member for member in members if member.name == name]
    pieces = [body[: members[0].key_start]]
    pieces += [body[member.key_start : member.next_start] for member in kept[:-1]]
    pieces += [body[member.key_start : member.value_end] for member in kept[-1:]]
    pieces.append(body[members[-1].value_end :])
    return b"".join(pieces), body[removed[-1].value_start : removed[-1].value_end]


@lru_cache(maxsize=64)
def _presence(name: str) -> msgspec.json.Decoder[msgspec.Struct]:
    """A decoder that looks for one member. Cached: callers ask for a handful of fixed names."""
    struct = msgspec.defstruct(
        "Presence",
        [("value", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET)],
        rename={"value": name},
        gc=False,
    )
    return msgspec.json.Decoder(struct)


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_without_surrogates(v) for v in value]
    if isinstance(value, msgspec.Struct):
        return _without_surrogates(msgspec.structs.asdict(value))
    return value
