"""The one policy for JSON: how bodies are read, edited and written.

Theory of operation. Bodies of requests are large and mostly none of our business, so three depths of reading exist:

* `read_head` decodes two members with msgspec and skips the rest (about 0.5 µs per KB). An anchored regular expression
  for bodies that begin with ``{"model":`` was measured and rejected: it must still search the rest for a second
  ``model`` and for ``stream``, and these searches cost more than the decoder, which also proves that the body is JSON.
* `splice_model` and `pop_member` edit one member and keep the bytes of all others.
* `decode` makes Python values: for the few bodies that we really look into.

Strict decoders refuse what vendors accept (a byte order mark, lone surrogate escapes, NaN, very deep nesting). A body
that the decoder refuses is therefore read once more from `repair`'s copy, which has the same length, so that places
found in it are places in the original. What is refused even so is left to `_scan`, which only knows strings and
brackets: half a µs for each of them, in one go. Hence its two bounds: strangers write bodies, and while one is read
nobody else is served.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import TypeVar

import attrs
import msgspec

from cpa.errors import MalformedRequest
from cpa.formats.members import Members
from cpa.types import JsonValue

_T = TypeVar("_T")

BOM = b"\xef\xbb\xbf"
MAX_SPLICE_CANDIDATES = 2
"""Occurrences of ``"model"`` that `splice_model` tries before it walks the members: each try decodes the body once."""
MAX_SCANNED_BYTES = 256 * 1024
"""Of one body, at most so much is scanned for strings and brackets; beyond it, what no strict decoder reads is a 400.

Strings at the top level do not count, they are skipped at once."""
MAX_SCANNED_MEMBERS = 10_000
"""Top-level members that are walked one by one; no protocol has a hundred."""
MAX_REPAIRS = 100_000
"""Unpaired surrogate escapes that are replaced in one body."""


class JsonError(ValueError):
    """Bytes that are not JSON. Whose fault that is only the caller knows."""


class StreamFlag(Enum):
    """The member ``stream`` as the client sent it."""

    ABSENT = "absent"
    TRUE = "true"
    FALSE = "false"
    OTHER = "other"


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What routing needs of a body. `model` is empty when missing or not a string."""

    model: str
    stream: StreamFlag
    members: Members | None = None
    """What else was read on the way; None when the body is an odd one."""


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


class _PlainHead(Members, gc=False):
    """Both members as nearly everybody sends them, and what is read beside them."""

    model: str = ""
    stream: bool | msgspec.UnsetType | None = msgspec.UNSET


class _Model(msgspec.Struct, gc=False):
    model: msgspec.Raw = _ABSENT


_decode_plain_head = msgspec.json.Decoder(_PlainHead).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_model = msgspec.json.Decoder(_Model).decode
_decode_any = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_FLAGS = {b"": StreamFlag.ABSENT, b"true": StreamFlag.TRUE, b"false": StreamFlag.FALSE}
_PLAIN_FLAGS = {
    msgspec.UNSET: StreamFlag.ABSENT,
    True: StreamFlag.TRUE,
    False: StreamFlag.FALSE,
    None: StreamFlag.OTHER,
}

# To be used where no backslash is escaped. Decisions come after the literal beginning: it is what makes it fast.
_UNPAIRED = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
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
    """A copy of *data* of the same length that strict decoders take more often.

    A byte order mark becomes blanks, unpaired surrogate escapes become that of U+FFFD, at most `MAX_REPAIRS` of them.
    """
    if data.startswith(BOM):
        data = b" " * len(BOM) + data[len(BOM) :]
    if b"\0" in data:  # no JSON in any case, and needed as a mark
        return data
    # Pairs of backslashes out of the way, so that each that is left begins an escape.
    return _UNPAIRED.sub(rb"\\ufffd", data.replace(b"\\\\", b"\0\0"), count=MAX_REPAIRS).replace(b"\0\0", b"\\\\")


def read_head(body: bytes) -> Head:
    """Read `model` and `stream` of a request *body*; of repeated members the last counts.

    Raises: MalformedRequest when *body* is not a JSON object at all, or a large one that only `_scan` could read.
    """
    try:
        plain = _decode_plain_head(body)
    except (ValueError, RecursionError):
        return _read_odd_head(body)
    return Head(model=plain.model, stream=_PLAIN_FLAGS[plain.stream], members=plain)


def _read_odd_head(body: bytes) -> Head:
    """As `read_head`, whatever the members are and whatever the decoder says."""
    try:
        head = _strictly(_decode_head, body)
    except (ValueError, RecursionError):
        return _scan_head(body)
    return Head(
        model=_text(bytes(head.model)),
        stream=_FLAGS.get(bytes(head.stream), StreamFlag.OTHER),
    )


def _strictly(decoder: Callable[[bytes], _T], body: bytes) -> _T:
    """*body* decoded, or else its repaired copy. Raises: ValueError, RecursionError."""
    try:
        return decoder(body)
    except (ValueError, RecursionError):
        repaired = repair(body)
        if repaired == body:
            raise
        return decoder(repaired)


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
        found = _strictly(_presence(name).decode, body)
    except (ValueError, RecursionError):
        try:
            return name in [member.name for member in _scan(body, {})]
        except MalformedRequest:
            return False
    return _present(found)


def pop_member(body: bytes, name: str) -> tuple[bytes, bytes | None]:
    """Remove the top-level member *name*, every occurrence of it; all other members keep their bytes.

    White space between members may go, and of other repeated members only the last stays.

    Returns: the new body, the same object when there was nothing to remove; the bytes of the (last) value, or None.
    Raises: MalformedRequest when *body* is not a JSON object.
    """
    try:
        if not _present(_presence(name).decode(body)):
            return body, None
        spans = _decode_members(body)
    except (ValueError, RecursionError):
        return _cut_member(body, name)
    removed = spans.pop(name)
    return _encode(spans), bytes(removed)


# --- model -----------------------------------------------------------------------------------------------------------

_MODEL_VALUE = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")', re.DOTALL)

# A name that no body has and no client can guess: reading it back proves that a candidate was the effective member.
_PROBE = b'"' + secrets.token_hex(16).encode() + b'"'


def _model_span(body: bytes) -> tuple[int, int]:
    """Start and end of the value of the effective top-level ``model``; equal where the member has to be inserted."""
    text, readable = body, True
    found = None
    try:
        found = _probed_span(text)
    except (ValueError, RecursionError):
        text = repair(body)
        try:
            found = _probed_span(text)
        except (ValueError, RecursionError):
            readable = False
    if found is not None:
        return found
    members = _members(text) if readable else _scan(text, {})
    spans = [(m.value_start, m.value_end) for m in members if m.name == "model"]
    if spans:
        return spans[-1]
    opening = body.index(b"{") + 1
    return opening, opening


def _probed_span(body: bytes) -> tuple[int, int] | None:
    """The place of the model among the first that look like it, None when it is none of them.

    Raises: ValueError, RecursionError, as the decoder.
    """
    position = 0
    for _ in range(MAX_SPLICE_CANDIDATES):
        match = _MODEL_VALUE.search(body, position)
        if match is None:
            break
        start, end = match.span(1)
        found = _decode_model(b"".join((body[:start], _PROBE, body[end:]))).model
        if bytes(found) == _PROBE:
            return start, end
        position = match.start() + 1
    return None


def _comma_before(body: bytes, position: int) -> bytes:
    return b"" if body[position:].lstrip(b" \t\r\n").startswith(b"}") else b","


def _scan_head(body: bytes) -> Head:
    model = stream = b""
    for member in _scan(body, {}):
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
_AFTER_VALUE = (b",", b"}", b" ", b"\t", b"\r", b"\n")
_NOT_AN_OBJECT = "the request body is not a JSON object"
_TOO_MUCH = "the request body is not strict JSON, and too large to be read in spite of that"


def _members(body: bytes) -> Iterator[_Member]:
    """The top-level members of *body*, by the decoder if it can read them. Raises: MalformedRequest."""
    try:
        known = _decode_members(body)
    except (ValueError, RecursionError):
        return _scan(body, {})
    return _scan(body, {name: bytes(value) for name, value in known.items()})


def _scan(body: bytes, known: Mapping[str, bytes]) -> Iterator[_Member]:
    """The top-level members of *body*, values unread but for strings and brackets.

    Args:
      known: values that a decoder has found (of repeated members the last); they are skipped at once.

    Raises: MalformedRequest, also when objects and arrays that are not known exceed `MAX_SCANNED_BYTES` together.
    """
    position = _skip(body, len(BOM) if body.startswith(BOM) else 0)
    if body[position : position + 1] != b"{":
        raise MalformedRequest(_NOT_AN_OBJECT)
    count = 0
    budget = MAX_SCANNED_BYTES
    position = _skip(body, position + 1)
    while body[position : position + 1] != b"}":
        key = _STRING.match(body, position)
        if key is None:
            raise MalformedRequest(_NOT_AN_OBJECT)
        colon = _skip(body, key.end())
        if body[colon : colon + 1] != b":":
            raise MalformedRequest(_NOT_AN_OBJECT)
        start = _skip(body, colon + 1)
        name = _text(key[0])
        value = known.get(name, b"")
        end = start + len(value)
        # A value that begins like another ends with it, unless it is a longer number.
        if not value or not body.startswith(value, start) or body[end : end + 1] not in _AFTER_VALUE:
            end = _value_end(body, start, budget)
            if body[start] in _OPEN:
                budget -= end - start
        count += 1
        if count > MAX_SCANNED_MEMBERS:
            raise MalformedRequest(_TOO_MUCH)
        following = _skip(body, end)
        if body[following : following + 1] == b",":
            following = _skip(body, following + 1)
            if body[following : following + 1] == b"}":
                raise MalformedRequest(_NOT_AN_OBJECT)
        elif body[following : following + 1] != b"}":
            raise MalformedRequest(_NOT_AN_OBJECT)
        yield _Member(name=name, key_start=key.start(), value_start=start, value_end=end, next_start=following)
        position = following
    if _skip(body, position + 1) != len(body):
        raise MalformedRequest(_NOT_AN_OBJECT)


def _skip(body: bytes, position: int) -> int:
    match = _SPACE.match(body, position)
    return match.end() if match else position


def _value_end(body: bytes, start: int, limit: int) -> int:
    """End of the value at *start*: a string, a scalar, or a container of at most *limit* bytes, brackets balanced."""
    first = body[start : start + 1]
    match = _STRING.match(body, start) if first == b'"' else _SCALAR.match(body, start)
    if match is not None:
        return match.end()
    if not first or first not in _OPEN:
        raise MalformedRequest(_NOT_AN_OBJECT)
    depth = 0
    for token in _TOKEN.finditer(body, start, start + limit):
        kind = body[token.start()]
        if kind == 0x22:  # a string
            continue
        depth += 1 if kind in _OPEN else -1
        if depth == 0:
            return token.end()
    raise MalformedRequest(_NOT_AN_OBJECT if len(body) - start <= limit else _TOO_MUCH)


def _cut_member(body: bytes, name: str) -> tuple[bytes, bytes | None]:
    """`pop_member` for bodies that strict decoders refuse."""
    members = list(_members(repair(body)))
    kept = [member for member in members if member.name != name]
    removed = [member for member in members if member.name == name]
    if not removed:
        return body, None
    pieces = [body[: members[0].key_start]]
    pieces += [body[member.key_start : member.next_start] for member in kept[:-1]]
    pieces += [body[member.key_start : member.value_end] for member in kept[-1:]]
    pieces.append(body[members[-1].value_end :])
    return b"".join(pieces), body[removed[-1].value_start : removed[-1].value_end]


def _present(found: msgspec.Struct) -> bool:
    return getattr(found, "value") is not msgspec.UNSET  # noqa: B009 - the struct is made at run time


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
