"""Whose state an opaque text is, by its structure (translation 2.10).

Theory of operation. Signatures are base64, of a Fernet token (OpenAI) or of protobuf messages (Claude, Gemini). They
may be large and come from clients, who may send anything: therefore nothing here decodes more than a few bytes at
known places (`_View`), walks more than `MAX_FIELDS` fields, or raises. What is found is a filter against obviously
foreign data, no proof.
"""

import binascii
import re
from collections.abc import Iterator
from typing import Final

from cpa.translation.ir import Provenance

GEMINI_BYPASS: Final = "skip_thought_signature_validator"
"""Google's documented value for a call that has no signature of its own."""
GEMINI_BYPASSES: Final = frozenset({GEMINI_BYPASS, "context_engineering_is_the_way_to_go"})
PREFIXES: Final = {
    "claude": Provenance.CLAUDE,
    "gemini": Provenance.GEMINI,
    "openai": Provenance.OPENAI,
}
"""Words that deployed proxies write before a ``#``."""
MAX_FIELDS: Final = 32
"""Of one protobuf message that are looked at; real ones have fewer than ten."""
MAX_LAYERS: Final = 2
"""Of base64 around a signature of Claude's."""
MAX_PREFIX_CHARS: Final = 16

_FERNET_PREFIX = "gAAAA"
_FERNET_VERSION = 0x80
_FERNET_FRAME_BYTES = 57
"""Version, time, IV and MAC; between IV and MAC stand whole blocks of 16, at least one."""
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URLSAFE = str.maketrans("-_", "+/")
_EDGE_CHARS = 64
_ALPHABET = re.compile(r"[A-Za-z0-9+/_-]*")
_BYTES_FIELD, _VARINT_FIELD = 2, 0


def provenance_of(data: str) -> Provenance:
    """Whose state bare *data* seems to be: an explicit prefix, else its structure. Signatures of Kimi have none."""
    if data in GEMINI_BYPASSES:
        return Provenance.GEMINI
    word, mark, _ = data[:MAX_PREFIX_CHARS].partition("#")
    if mark:
        return PREFIXES.get(word, Provenance.UNKNOWN)
    if _is_openai(data):
        return Provenance.OPENAI
    if _is_claude(data):
        return Provenance.CLAUDE
    if _is_gemini(data):
        return Provenance.GEMINI
    return Provenance.UNKNOWN


def without_prefix(data: str) -> str:
    """*data* as its vendor made it."""
    word, mark, rest = data[:MAX_PREFIX_CHARS].partition("#")
    return data[len(word) + 1 :] if mark and word in PREFIXES and rest else data


def is_replayable(data: str, provenance: Provenance) -> bool:
    """Whether its vendor takes *data* back. Gemini does not take a signature that is nothing but a UUID."""
    if not data:
        return False
    if provenance is not Provenance.GEMINI:
        return True
    if _UUID.fullmatch(data.encode("utf-8", "replace")[:64]):
        return False
    inner = _gemini_inner(data)
    return inner is None or not _UUID.fullmatch(inner)


# --- structure -------------------------------------------------------------------------------------------------------


class _View:
    """Random access to the bytes of base64 text in either alphabet, with or without padding."""

    def __init__(self, text: str) -> None:
        stripped = text.rstrip("=") if text.endswith("=") else text
        self._text = stripped
        whole, rest = divmod(len(stripped), 4)
        edges = stripped[:_EDGE_CHARS], stripped[-_EDGE_CHARS:]
        padding = len(text) - len(stripped)
        self.is_base64 = (
            bool(stripped) and rest != 1 and padding <= 2 and all(_ALPHABET.fullmatch(edge) for edge in edges)
        )
        self.size = whole * 3 + (0, 0, 1, 2)[rest]

    def read(self, start: int, count: int) -> bytes:
        """Up to *count* bytes; fewer at the end, none at all where the text is no base64."""
        first = start // 3
        last = -(-min(start + count, self.size) // 3)
        chars = self._text[4 * first : 4 * last].translate(_URLSAFE)
        try:
            found = binascii.a2b_base64(chars + "=" * (-len(chars) % 4), strict_mode=True)
        except ValueError:
            return b""
        skip = start - 3 * first
        return found[skip : skip + count]


class _Field:
    """A protobuf field: of a bytes field *start* and *size* are those of its content."""

    __slots__ = ("number", "size", "start", "wire")

    def __init__(self, number: int, wire: int, start: int, size: int) -> None:
        self.number, self.wire, self.start, self.size = number, wire, start, size


def _fields(view: _View, start: int, end: int) -> Iterator[_Field]:
    """The fields between two places; stops where the bytes are no message, `_Field.number` 0 then."""
    for _ in range(MAX_FIELDS):
        if start >= end:
            return
        head = view.read(start, min(20, end - start))
        tag, after = _varint(head, 0)
        number, wire = tag >> 3, tag & 7
        size = 0
        if wire == _VARINT_FIELD:
            _, stop = _varint(head, after)
        elif wire == _BYTES_FIELD:
            size, stop = _varint(head, after)
        elif wire in (1, 5):
            stop, size = after, 8 if wire == 1 else 4
        else:
            stop = 0
        if not number or not after or not stop or start + stop + size > end:
            yield _Field(0, 0, start, 0)
            return
        yield _Field(number, wire, start + stop, size)
        start += stop + size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number and where it ends; 0 = there is none."""
    value = 0
    for shift, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    return 0, 0


def _is_openai(data: str) -> bool:
    if not data.startswith(_FERNET_PREFIX):
        return False
    view = _View(data)
    encrypted = view.size - _FERNET_FRAME_BYTES
    return view.is_base64 and encrypted >= 16 and encrypted % 16 == 0 and view.read(0, 1) == bytes((_FERNET_VERSION,))


def _is_claude(data: str) -> bool:
    text = data
    for layer in range(MAX_LAYERS):
        view = _View(text)
        if not view.is_base64:
            return False
        first = view.read(0, 1)
        if first == b"\x12":
            return _is_claude_container(view)
        if first == b"\x08":
            return _names_claude(view, 0, view.size, depth=3)
        if first != b"E" or layer + 1 == MAX_LAYERS:
            return False
        # Base64 of base64: the inner text begins with E.
        inner = view.read(0, view.size)
        text = inner.decode("ascii", "replace")
    return False


def _is_claude_container(view: _View) -> bool:
    """Form 1: a container with a channel block in it, and more fields after the container."""
    top = list(_fields(view, 0, view.size))
    if len(top) < 2 or not all(field.number for field in top):
        return False
    container = top[0]
    block = next(_fields(view, container.start, container.start + container.size), None)
    if block is None or block.number != 1 or block.wire != _BYTES_FIELD:
        return False
    inner = _fields(view, block.start, block.start + block.size)
    return any(field.number == 1 and field.wire == _VARINT_FIELD for field in inner)


def _names_claude(view: _View, start: int, end: int, *, depth: int) -> bool:
    """Form 2: somewhere in the message stands the name of a model."""
    for field in _fields(view, start, end):
        if not field.number:
            return False
        if field.wire != _BYTES_FIELD:
            continue
        if view.read(field.start, 7) == b"claude-":
            return True
        if depth > 1 and _names_claude(view, field.start, field.start + field.size, depth=depth - 1):
            return True
    return False


def _is_gemini(data: str) -> bool:
    inner = _gemini_inner(data)
    return inner is not None and (inner.startswith(b"\x01") or bool(_UUID.fullmatch(inner)))


def _gemini_inner(data: str) -> bytes | None:
    """The first bytes of what is wrapped in exactly one field 2 that holds exactly one field 1."""
    view = _View(data)
    if not view.is_base64:
        return None
    start, end = 0, view.size
    for number in (2, 1):
        fields = list(_fields(view, start, end))
        if len(fields) != 1 or fields[0].number != number or fields[0].wire != _BYTES_FIELD:
            return None
        start, end = fields[0].start, fields[0].start + fields[0].size
    return view.read(start, min(end - start, 37))
