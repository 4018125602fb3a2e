"""Long strings that go from one body into another without being decoded (translation 0.6).

Most of an agent's request is text that the target takes verbatim: files, logs, instructions. A JSON string is the same
in every protocol, so what arrives between two quotes can leave between them: unescaping and escaping it again costs
more than everything else in a translation, and twice the memory.

A decoder that skips a string checks its escapes and control characters, but not that it is UTF-8. Whoever keeps
literals of a body has therefore asked `is_utf8` about all of it; where the answer is no, nothing is kept.
"""

import re
from codecs import utf_8_decode
from struct import Struct
from typing import Final

import msgspec

from cpa.translation.ir import Text

LONG_BYTES: Final = 128
"""Shorter strings are decoded at once: that costs no more than remembering where they are."""
_CHUNK_BYTES: Final = 8192
"""Checked at a time, so that what is decoded for it stays in the processor's cache and takes no memory to speak of."""

_first = Struct("c").unpack_from
_decode = msgspec.json.Decoder(str).decode
# The first character behind ordinary white space; ASCII only, and no escape: of anything else the caller decodes it.
_VISIBLE = re.compile(rb'"(?:[ \t]|\\[nrt])*+[!#-\[\]-~]').match


def is_utf8(data: bytes) -> bool:
    """Whether *data* is valid UTF-8 throughout."""
    if data.isascii():
        return True
    view = memoryview(data)
    place, size = 0, len(data)
    try:
        while place < size:
            end = place + _CHUNK_BYTES
            if data[place:end].isascii():
                place = end
            else:
                place += utf_8_decode(view[place:end], "strict", end >= size)[1]
    except UnicodeDecodeError:
        return False
    return True


def sound(data: bytes) -> bytes:
    """*data*, or a copy with U+FFFD where it is not UTF-8."""
    return data if is_utf8(data) else data.decode("utf-8", "replace").encode()


def first_of(raw: msgspec.Raw) -> bytes:
    """The first byte of a JSON value, which tells its kind. *raw* must not be empty."""
    first: bytes = _first(raw)[0]
    return first


def read_text(raw: msgspec.Raw) -> Text | None:
    """The text that the JSON string *raw* of a sound body is; None when it is no string.

    A long one keeps a view of the body.
    """
    if _first(raw)[0] != b'"':
        return None
    if len(raw) < LONG_BYTES:
        return Text(text=_decode(raw))
    part = Text(text="", literal=raw)
    del part.text  # until somebody asks for it, see `Text`
    return part


def is_blank(part: Text) -> bool:
    """Whether there is nothing in *part* but white space."""
    if part.literal and _VISIBLE(part.literal):
        return False
    return not part.text or part.text.isspace()
