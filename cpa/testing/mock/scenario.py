"""What one answer shall be like: read from the model's name and from ``X-Mock-*`` headers.

Grammar of a name: ``[anything-]mock[-word]*``. After the word ``mock`` (case does not matter) known keys take the next
word as their value, everything else is ignored, so that ``mock-tool-think-chunks-5`` and ``team/mock-fault-reset-at-3``
both mean what they look like. A name is chosen by whoever configured a proxy and may carry foreign words: a value that
does not fit leaves its key without effect. A header is a deliberate order: there a wrong one is an error.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import attrs

MAX_CHUNKS = 1_000_000
"""Of one answer; with nothing in them these are some 200 MB on the wire, more than any rehearsal needs."""
MAX_CHUNK_BYTES = 1 << 20
MAX_ANSWER_BYTES = 64 << 20
"""Text of one answer: protocols that repeat it in their last event hold it in memory some four times."""
MAX_WAIT_MS = 3_600_000
DEFAULT_CHUNKS = 8
DEFAULT_CHUNK_BYTES = 32
DEFAULT_FAULT_AT = 2
"""After the stream's opening and one piece of content, so that a client has begun to read."""
MAX_CALLS = 32


class Fault(StrEnum):
    """What goes wrong. Values are the words of names and headers."""

    RESET = "reset"
    RESET_HEADERS = "reset-headers"
    CLOSE_BEFORE_HEADERS = "close-before-headers"
    CUT = "cut"
    EOF = "eof"
    NO_DONE = "no-done"
    STALL = "stall"
    EMPTY = "empty"
    GARBAGE = "garbage"
    INBAND_ERROR = "inband-error"
    SPLIT_UTF8 = "split-utf8"
    SPLIT_FRAMES = "split-frames"
    MERGE_FRAMES = "merge-frames"
    CRLF = "crlf"
    SLOW_BYTES = "slow-bytes"


class BadDirective(ValueError):
    """A header ``X-Mock-*`` that means nothing; the text says what was expected."""


@attrs.frozen(kw_only=True)
class Scenario:
    """How to answer.

    Attributes:
      chunks: pieces of text; None = the short scripted text.
      chunk_bytes: UTF-8 bytes of each piece; None likewise.
      delay_s: pause before each write but the first; None = not asked for.
      first_byte_s: pause before the first byte of the answer, errors included.
      status: answer with this status (200..599) and an error body; None = 200 and a real answer.
      body: replaces the error's body (or, without `status`, the answer's).
      retry_after: seconds, sent as ``Retry-After``.
      fault: what goes wrong, None = nothing.
      fault_at: index of the write at which it does; 0 is the stream's opening. Clamped to the last one.
      times: only the first so many requests of this model suffer `status`, `body` and `fault`; None = all.
      calls: tool calls in a turn that calls tools.
      tool: call tools if the request has some.
      think: show reasoning before the answer.
    """

    chunks: int | None = None
    chunk_bytes: int | None = None
    delay_s: float | None = None
    first_byte_s: float = 0.0
    status: int | None = None
    body: str | None = None
    retry_after: int | None = None
    fault: Fault | None = None
    fault_at: int = DEFAULT_FAULT_AT
    times: int | None = None
    calls: int = 1
    tool: bool = False
    think: bool = False

    @property
    def text_chunks(self) -> int | None:
        """Pieces of pseudo-text, at most `MAX_ANSWER_BYTES` in all; None = the scripted text."""
        if self.chunks is None and self.chunk_bytes is None:
            return None
        wanted = DEFAULT_CHUNKS if self.chunks is None else self.chunks
        return min(wanted, MAX_ANSWER_BYTES // self.text_chunk_bytes)

    @property
    def text_chunk_bytes(self) -> int:
        """UTF-8 bytes of each piece of pseudo-text, > 0."""
        return DEFAULT_CHUNK_BYTES if self.chunk_bytes is None else self.chunk_bytes

    def healthy(self) -> "Scenario":
        """The same answer without what goes wrong: what comes after `times` failures."""
        return attrs.evolve(self, status=None, body=None, retry_after=None, fault=None, times=None)


@attrs.frozen
class _Number:
    """A key that takes an integer of a range."""

    field: str
    low: int
    high: int
    milliseconds: bool = False

    def read(self, text: str) -> int | float | None:
        """The attribute's value, or None if *text* is not one."""
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            return None
        number = int(text)
        if not self.low <= number <= self.high:
            return None
        return number / 1000 if self.milliseconds else number


_DELAY = _Number("delay_s", 0, MAX_WAIT_MS, True)
_FIRST_BYTE = _Number("first_byte_s", 0, MAX_WAIT_MS, True)
_FAULT_AT = _Number("fault_at", 0, MAX_CHUNKS)

_NUMBERS = {
    "chunks": _Number("chunks", 1, MAX_CHUNKS),
    "chunk-bytes": _Number("chunk_bytes", 1, MAX_CHUNK_BYTES),
    "delay": _DELAY,
    "delay-ms": _DELAY,
    "first-byte": _FIRST_BYTE,
    "first-byte-ms": _FIRST_BYTE,
    "status": _Number("status", 200, 599),
    "retry-after": _Number("retry_after", 0, 999_999_999),
    "at": _FAULT_AT,
    "fault-at": _FAULT_AT,
    "times": _Number("times", 0, 999_999_999),
    "calls": _Number("calls", 1, MAX_CALLS),
}
_FLAGS = {"tool", "think"}
_FAULTS = {fault.value: fault for fault in Fault}
_LONGEST_FAULT = max(len(name.split("-")) for name in _FAULTS)
_SEPARATORS = re.compile(r"[-/]")
_SUFFIX = re.compile(r"\([^()]*\)$")

HEADER_PREFIX = b"x-mock-"


def _number_at(words: list[str], at: int) -> tuple[_Number, int | float, int] | None:
    """The key that begins at word *at* with its value, and how many words they are."""
    for length in (3, 2, 1):
        key = _NUMBERS.get("-".join(words[at : at + length]))
        if key is None or at + length >= len(words):
            continue
        value = key.read(words[at + length])
        if value is not None:
            return key, value, length + 1
    return None


def _fault_at(words: list[str], at: int) -> tuple[Fault, int] | None:
    """The fault whose name begins at word *at*, longest first, and how many words that is."""
    for length in range(_LONGEST_FAULT, 0, -1):
        fault = _FAULTS.get("-".join(words[at : at + length]))
        if fault is not None:
            return fault, length
    return None


def parse_model(model: str) -> Scenario:
    """What a model's name asks for. Pure, total: any text is a name.

    Args:
      model: as the request has it; a prefix with ``/`` and a suffix in parentheses do no harm.
    """
    name = model.lower()
    found: dict[str, Any] = {"tool": "tool" in name, "think": "think" in name}
    words = _SEPARATORS.split(_SUFFIX.sub("", name))
    at = words.index("mock") + 1 if "mock" in words else len(words)
    while at < len(words):
        number = _number_at(words, at)
        if number is not None:
            key, value, used = number
            found[key.field] = value
            at += used
            continue
        at += 1
        if words[at - 1] == "fault" and (fault := _fault_at(words, at)) is not None:
            found["fault"] = fault[0]
            at += fault[1]
        elif words[at - 1] == "body" and at < len(words):
            found["body"] = words[at]
            at += 1
    return attrs.evolve(Scenario(), **found)


def _parse_header(name: str, value: str) -> tuple[str, object]:
    number = _NUMBERS.get(name)
    if number is not None:
        parsed = number.read(value)
        if parsed is None:
            raise BadDirective(f"X-Mock-{name}: expected an integer from {number.low} to {number.high}, got {value!r}")
        return number.field, parsed
    if name == "fault":
        fault = _FAULTS.get(value.lower())
        if fault is None:
            raise BadDirective(f"X-Mock-fault: expected one of {', '.join(_FAULTS)}, got {value!r}")
        return "fault", fault
    if name in _FLAGS:
        return name, value.lower() not in ("0", "false", "no", "")
    if name == "body":
        return "body", value
    known = sorted([*_NUMBERS, *_FLAGS, "body", "fault"])
    raise BadDirective(f"X-Mock-{name} is unknown; known are {', '.join(known)}")


def apply_headers(scenario: Scenario, headers: Iterable[tuple[bytes, bytes]]) -> Scenario:
    """*scenario* with what the headers ask for; they win over the name.

    Args:
      headers: lower-case names; those that do not begin with ``x-mock-`` are ignored.

    Raises: BadDirective.
    """
    found: dict[str, Any] = {}
    for name, value in headers:
        if name.startswith(HEADER_PREFIX):
            key, parsed = _parse_header(name[len(HEADER_PREFIX) :].decode("latin-1"), value.decode("latin-1").strip())
            found[key] = parsed
    return attrs.evolve(scenario, **found) if found else scenario
