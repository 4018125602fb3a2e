"""The free text of a custom tool, out of the JSON object in which a foreign provider sends it (translation 2.6, 4.8).

Arguments arrive in pieces: ``{"input":"…"}``. While they look so, the string is decoded as it comes, and the client
sees its tool's input grow. As soon as they do not, everything is held back to the end and read there whole.
"""

import re
from typing import Final

from cpa.translation.tools import unwrap_custom

_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_OPENING_TEXT: Final = '{"input":"'
MAX_OPENING_CHARS: Final = 256
"""White space and all; what is longer is no opening."""
_SPECIAL = re.compile(r'["\\]')
_ESCAPES: Final = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
REPLACEMENT: Final = "\ufffd"
_HEX = re.compile(r"[0-9a-fA-F]{4}")


class CustomInput:
    """Unwraps one call's arguments.

    `feed` gives out text that is certain; `finish` gives the whole input, which begins with all that was given out.
    """

    __slots__ = ("_ended", "_held", "_pieces", "_raw", "_streaming")

    def __init__(self) -> None:
        self._raw: list[str] = []  # as it came, for the whole reading
        self._held = ""  # not yet decided about: the opening, or half an escape
        self._pieces: list[str] = []  # decoded
        self._streaming: bool | None = None  # None = the opening is not complete
        self._ended = False

    @property
    def started(self) -> bool:
        """Anything has come."""
        return bool(self._raw) or bool(self._streaming)

    def feed(self, piece: str) -> str:
        """More of the arguments; returns what is new of the input."""
        if self._streaming:
            return self._decode(piece)
        self._raw.append(piece)
        if self._streaming is not None:
            return ""
        self._held += piece
        match = _OPENING.match(self._held)
        if match is not None:
            rest = self._held[match.end() :]
            self._streaming = True
            self._raw.clear()
            self._held = ""
            return self._decode(rest)
        bare = "".join(self._held.split())
        if not _OPENING_TEXT.startswith(bare) or len(self._held) > MAX_OPENING_CHARS:
            self._streaming = False
            self._held = ""
        return ""

    def finish(self) -> str:
        """All of the input; what was cut off in the middle ends there."""
        if not self._streaming:
            return unwrap_custom("".join(self._raw))
        if self._held and not self._ended and not self._held.startswith("\\"):
            self._pieces.append(REPLACEMENT)
        return "".join(self._pieces)

    def _decode(self, piece: str) -> str:
        if self._ended or not piece:
            return ""
        text = self._held + piece
        self._held = ""
        out: list[str] = []
        position = 0
        while True:
            match = _SPECIAL.search(text, position)
            if match is None:
                out.append(text[position:])
                break
            out.append(text[position : match.start()])
            position = match.start()
            if text[position] == '"':
                self._ended = True
                break
            decoded = _escape(text, position)
            if decoded is None:
                self._held = text[position:]
                break
            out.append(decoded[0])
            position = decoded[1]
        fresh = "".join(out)
        if fresh:
            self._pieces.append(fresh)
        return fresh


def _escape(text: str, at: int) -> tuple[str, int] | None:
    """(what the escape at *at* stands for, where it ends); None when more is needed to know."""
    if at + 1 >= len(text):
        return None
    kind = text[at + 1]
    if kind != "u":
        return _ESCAPES.get(kind, "\\" + kind), at + 2
    digits = text[at + 2 : at + 6]
    if len(digits) < 4:
        return None
    if _HEX.fullmatch(digits) is None:
        return "\\u", at + 2
    code = int(digits, 16)
    if 0xDC00 <= code <= 0xDFFF:
        return REPLACEMENT, at + 6
    if not 0xD800 <= code <= 0xDBFF:
        return chr(code), at + 6
    second = text[at + 6 : at + 12]
    if len(second) < 6 and "\\u".startswith(second[:2]):
        return None
    low = int(second[2:], 16) if second.startswith("\\u") and _HEX.fullmatch(second[2:]) else 0
    if 0xDC00 <= low <= 0xDFFF:
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), at + 12
    return REPLACEMENT, at + 6
