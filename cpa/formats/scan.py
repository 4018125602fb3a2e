"""Questions about whole bodies that are answered byte by byte: in C (`_scan.c`) where that was built, else in Python.

Both give the same answers, which a test compares; C gives them eight times sooner, which is a tenth of what it costs to
translate a request. Whoever installs without a compiler misses nothing else.
"""

import re
from codecs import utf_8_decode
from collections.abc import Callable
from typing import Final

import msgspec

try:
    from cpa.formats import _scan
except ImportError:
    _scan = None  # type: ignore[assignment] # nobody has compiled it

_CHUNK_BYTES: Final = 16384
"""Checked at a time, so that what is decoded for it stays in the processor's cache and takes no memory to speak of."""
_WIDE_BYTES: Final = bytes(range(0x80, 0x100))
_NO_LEAD_BYTES: Final = bytes(range(0xC0))
_is_text = re.compile(rb'"').match
_is_prose = re.compile(rb'"(?:[ \t]|\\[nrt])*+(?:[!#-Z\]-~]|\\["\\/])').match

NO_TEXT: Final = 0
TEXT: Final = 1
PROSE: Final = 2
"""What `text_start` says."""


def is_utf8_in_python(data: bytes) -> bool:
    """`is_utf8` without C."""
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


def count_chars_in_python(data: bytes) -> tuple[int, int]:
    """`count_chars` without C."""
    return len(data.translate(None, _WIDE_BYTES)), len(data.translate(None, _NO_LEAD_BYTES))


def text_start_in_python(data: bytes | msgspec.Raw) -> int:
    """`text_start` without C."""
    return PROSE if _is_prose(data) else TEXT if _is_text(data) else NO_TEXT


def contains_in_python(data: bytes, part: bytes) -> bool:
    """`contains` without C."""
    return part in data


_is_utf8: Final[Callable[[bytes], bool]] = is_utf8_in_python if _scan is None else _scan.is_utf8
_count_chars: Final[Callable[[bytes], tuple[int, int]]] = count_chars_in_python if _scan is None else _scan.count_chars


text_start: Final[Callable[[bytes | msgspec.Raw], int]] = text_start_in_python if _scan is None else _scan.text_start
"""How the JSON value *data* begins: `PROSE` for a string whose first character behind blanks, tabs and line ends is a
visible one of ASCII, and no opening bracket; `TEXT` for any other string, and for one that might be; else `NO_TEXT`."""


contains: Final[Callable[[bytes, bytes], bool]] = contains_in_python if _scan is None else _scan.contains
"""Whether the second is somewhere in the first."""


def is_utf8(data: bytes) -> bool:
    """Whether *data* is valid UTF-8 throughout."""
    return data.isascii() or _is_utf8(data)


def count_chars(data: bytes) -> tuple[int, int]:
    """(ASCII characters, others) in the UTF-8 *data*; a cut one at its end counts, one at its beginning does not."""
    return (len(data), 0) if data.isascii() else _count_chars(data)
