"""Whose state an opaque text is, by its structure (translation 2.10).

Theory of operation. Signatures are base64, of a Fernet token (OpenAI) or of protobuf messages (Claude, Gemini). They
may be large and come from clients, who may send anything: therefore nothing here decodes more than a few bytes at
known places (`_View`), walks more than `MAX_FIELDS` fields, or raises. What is found is a filter against obviously
foreign data, no proof.
"""

import binascii
import re
from collections.abc import Iterator
from functools import lru_cache
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
MAX_PREFIX_CHARS: Final = 16
MAX_CACHED: Final = 2048
MAX_CACHED_CHARS: Final = 4096
"""Of a signature whose provenance is remembered: 8 MB in all, whatever strangers send."""

_FERNET_PREFIX = "gAAAA"
_FERNET_VERSION = b"\x80"
_FERNET_FRAME_BYTES = 57
"""Version, time, IV and MAC; between IV and MAC stand whole blocks of 16, at least one."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URLSAFE = str.maketrans("-_", "+/")
_UUID_CHARS = 36
_MAX_WRAPPED_UUID_CHARS = 64
_EDGE_CHARS = 64
_HEAD_CHARS = 128
_ALPHABET = re.compile(r"[A-Za-z0-9+/_-]*")
_BYTES_FIELD, _VARINT_FIELD = 2, 0


def provenance_of(data: str) -> Provenance:
    """Whose state bare *data* seems to be: an explicit prefix, else its structure. Signatures of Kimi have none."""
    # A session sends all its signatures with each request.
    return _known(data) if len(data) <= MAX_CACHED_CHARS else _judged(data)


def _judged(data: str) -> Provenance:
    if data in GEMINI_BYPASSES:
        return Provenance.GEMINI
    word, mark, _ = data[:MAX_PREFIX_CHARS].partition("#")
    if mark:
        return PREFIXES.get(word, Provenance.UNKNOWN)
    # The first character of base64 is six bits of the first byte, and rules out all but one or two.
    match data[:1]:
        case "g" if _is_openai(data):
            return Provenance.OPENAI
        case "C" if (view := _View(data)).is_base64 and _names_claude(view, 0, view.size, depth=3):
            return Provenance.CLAUDE
        case "E":
            return _of_container(data)
        case "R":  # E, in base64 once more
            inner = _View(data)
            if inner.is_base64 and _of_container(inner.read(0, inner.size).decode("ascii", "replace")) is (
                Provenance.CLAUDE
            ):
                return Provenance.CLAUDE
        case _:
            pass
    return Provenance.UNKNOWN


_known = lru_cache(MAX_CACHED)(_judged)


def without_prefix(data: str) -> str:
    """*data* as its vendor made it."""
    word, mark, rest = data[:MAX_PREFIX_CHARS].partition("#")
    return data[len(word) + 1 :] if mark and word in PREFIXES and rest else data


def is_replayable(data: str, provenance: Provenance) -> bool:
    """Whether its vendor takes *data* back. Gemini does not take a signature that is nothing but a UUID, nor what is
    no base64, which is how its SDK reads the member."""
    if not data:
        return False
    if provenance is not Provenance.GEMINI:
        return True
    if len(data) == _UUID_CHARS and _UUID.fullmatch(data.encode("utf-8", "replace")):
        return False
    if not _BASE64.fullmatch(data):
        return False
    if len(data) > _MAX_WRAPPED_UUID_CHARS:
        return True
    return not _UUID.fullmatch(_gemini_inner(data))


# --- structure -------------------------------------------------------------------------------------------------------


class _View:
    """Random access to the bytes of base64 text in either alphabet, with or without padding."""

    __slots__ = ("_head", "_text", "is_base64", "size")

    def __init__(self, text: str) -> None:
        stripped = text.rstrip("=")
        self._text = stripped
        whole, rest = divmod(len(stripped), 4)
        self.is_base64 = (
            bool(stripped)
            and rest != 1
            and len(text) - len(stripped) <= 2
            and bool(_ALPHABET.fullmatch(stripped, 0, _EDGE_CHARS))
            and bool(_ALPHABET.fullmatch(stripped, max(0, len(stripped) - _EDGE_CHARS)))
        )
        self.size = whole * 3 + (0, 0, 1, 2)[rest]
        # Nearly all that is looked at.
        self._head = self._decode(stripped[:_HEAD_CHARS]) if self.is_base64 else b""

    def read(self, start: int, count: int) -> bytes:
        """Up to *count* bytes; fewer at the end, none at all where the text is no base64."""
        end = min(start + count, self.size)
        if end <= len(self._head):
            return self._head[start:end]
        first = start // 3
        return self._decode(self._text[4 * first : 4 * -(-end // 3)])[start - 3 * first : end - 3 * first]

    @staticmethod
    def _decode(chars: str) -> bytes:
        if "-" in chars or "_" in chars:
            chars = chars.translate(_URLSAFE)
        try:
            return binascii.a2b_base64(chars + "=" * (-len(chars) % 4), strict_mode=True)
        except ValueError:
            return b""


_Field = tuple[int, int, int, int]
"""Number, wire type, and of a bytes field where its content starts and ends; number 0 = no message any more."""
_BROKEN: Final[_Field] = (0, 0, 0, 0)


def _field(view: _View, start: int, end: int) -> tuple[_Field, int]:
    """The field at *start*, and where the next one is."""
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
        return _BROKEN, end
    return (number, wire, start + stop, start + stop + size), start + stop + size


def _fields(view: _View, start: int, end: int) -> Iterator[_Field]:
    """The fields between two places, not too many; the last one is broken where the bytes are no message."""
    for _ in range(MAX_FIELDS):
        if start >= end:
            return
        field, start = _field(view, start, end)
        yield field


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number and where it ends; 0 = there is none."""
    value = shift = 0
    for byte in data[place : place + 10]:
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    return 0, 0


def _is_openai(data: str) -> bool:
    if not data.startswith(_FERNET_PREFIX):
        return False
    view = _View(data)
    encrypted = view.size - _FERNET_FRAME_BYTES
    return view.is_base64 and encrypted >= 16 and encrypted % 16 == 0 and view.read(0, 1) == _FERNET_VERSION


def _of_container(data: str) -> Provenance:
    """Claude's form 1 and Gemini's: both begin with a container, field 2, that begins with field 1.

    Claude's field 1 is a channel block, and more fields follow the container. Gemini's holds what begins with 1 (or a
    UUID), and nothing follows either of the two.
    """
    view = _View(data)
    if not view.is_base64:
        return Provenance.UNKNOWN
    (number, wire, start, end), after = _field(view, 0, view.size)
    if (number, wire) != (2, _BYTES_FIELD):
        return Provenance.UNKNOWN
    (number, wire, inner, inner_end), inner_after = _field(view, start, end)
    if (number, wire) != (1, _BYTES_FIELD):
        return Provenance.UNKNOWN
    if after == view.size:
        content = view.read(inner, min(inner_end - inner, _UUID_CHARS + 1))
        is_gemini = inner_after == end and (content.startswith(b"\x01") or _UUID.fullmatch(content))
        return Provenance.GEMINI if is_gemini else Provenance.UNKNOWN
    if not all(number for number, _, _, _ in _fields(view, after, view.size)):
        return Provenance.UNKNOWN
    has_channel = any(number == 1 and wire == _VARINT_FIELD for number, wire, _, _ in _fields(view, inner, inner_end))
    return Provenance.CLAUDE if has_channel else Provenance.UNKNOWN


def _names_claude(view: _View, start: int, end: int, *, depth: int) -> bool:
    """Claude's form 2: somewhere in the message stands the name of a model."""
    for number, wire, inner, inner_end in _fields(view, start, end):
        if not number:
            return False
        if wire != _BYTES_FIELD:
            continue
        if view.read(inner, 7) == b"claude-":
            return True
        if depth > 1 and _names_claude(view, inner, inner_end, depth=depth - 1):
            return True
    return False


def _gemini_inner(data: str) -> bytes:
    """The first bytes of what is in field 1 of field 2."""
    view = _View(data)
    (number, _, start, end), _ = _field(view, 0, view.size)
    (inner_number, _, inner, inner_end), _ = _field(view, start, end) if number == 2 else (_BROKEN, 0)
    return view.read(inner, min(inner_end - inner, _UUID_CHARS + 1)) if inner_number == 1 else b""
