"""Long strings that go from one body into another without being decoded (translation 0.6).

Most of an agent's request is text that the target takes verbatim: files, logs, instructions. A JSON string is the same
in every protocol, so what arrives between two quotes can leave between them: unescaping and escaping it again costs
more than everything else in a translation, and twice the memory.

A decoder that skips a string checks its escapes and control characters, but not that it is UTF-8. Whoever keeps
literals of a body has therefore asked `is_utf8` about all of it; where the answer is no, nothing is kept.
"""

import re
from struct import Struct
from typing import Final

import msgspec

from cpa.formats.scan import PROSE, is_utf8, text_start
from cpa.translation.ir import NO_RAW, Authority, Call, SysBlock, Text, Written
from cpa.translation.undecoded import UNREAD

LONG_BYTES: Final = 128
"""Shorter strings are decoded at once: that costs no more than remembering where they are."""

_first = Struct("c").unpack_from
_decode = msgspec.json.Decoder(str).decode
# The first character behind ordinary white space; ASCII, and no escape of a code: of anything else the caller decodes.
_VISIBLE = re.compile(rb'"(?:[ \t]|\\[nrt])*+(?:[!#-\[\]-~]|\\["\\/])').match
_NULL_BYTES: Final = 4
_NO_ARGUMENTS: Final = (b"", b'""', b"null")


def sound(data: bytes) -> bytes:
    """*data*, or a copy with U+FFFD where it is not UTF-8."""
    return data if is_utf8(data) else data.decode("utf-8", "replace").encode()


def first_of(raw: msgspec.Raw) -> bytes:
    """The first byte of a JSON value, which tells its kind. *raw* must not be empty."""
    first: bytes = _first(raw)[0]
    return first


def read_text(raw: msgspec.Raw) -> Text | None:
    """The text that the JSON string *raw* of a sound body is; None when it is no string, or is empty.

    A long one keeps a view of the body.
    """
    size = len(raw)
    if size >= LONG_BYTES:
        start = text_start(raw)
        return Text(UNREAD, (), (), NO_RAW, "", raw, start == PROSE) if start else None
    if not size or (size == _NULL_BYTES and bytes(raw) == b"null"):  # to raise an error takes longer
        return None
    try:
        text = _decode(raw)
    except ValueError:
        return None
    return Text(text, (), (), NO_RAW, "", text, "!" <= text < "[" or "\\" <= text < "\x7f")


def read_arguments(raw: msgspec.Raw) -> Written:
    """Arguments of a protocol whose clients write them as a string: that, undecoded, or empty. *raw*: of a sound body;
    what is no string is arguments that somebody forgot to write as one.
    """
    if len(raw) > len(b'""') and _first(raw)[0] == b'"':
        return raw
    data = bytes(raw)
    return "" if data in _NO_ARGUMENTS else data.decode()


def system_block(part: Text, authority: Authority = Authority.SYSTEM) -> SysBlock:
    """*part* as a block of system text."""
    written = part.text if part.written is None else part.written
    return SysBlock(text=UNREAD, authority=authority, cache=part.cache, written=written, prose=part.prose)


def object_call(call_id: str, name: str, raw: msgspec.Raw) -> Call:
    """A call of a protocol whose arguments are an object. *raw*: of a sound body, may be empty or of any kind."""
    if len(raw) > 1 and _first(raw)[0] == b"{":
        return Call(call_id, name, UNREAD, written=raw)
    data = bytes(raw)
    return Call(call_id, name, NO_RAW if data == b"null" else data)


def is_blank(part: Text | SysBlock) -> bool:
    """Whether there is nothing in *part* but white space."""
    if part.prose:
        return False
    written = part.written
    if type(written) is msgspec.Raw and _VISIBLE(written):
        return False
    return not part.text or part.text.isspace()
