"""The Redis protocol, version 2, as far as collectors of usage speak it: commands in, replies out. No I/O.

A command is an array of bulk strings, or a line of words. Nothing here is believed before it is counted: whoever sends
may send anything.
"""

from collections.abc import Iterable
from typing import Final

import attrs

MARKS: Final = frozenset(b"*$+-:")
"""A connection that begins with one of these speaks this protocol; no HTTP method does."""
MAX_ARGUMENTS: Final = 16
MAX_ARGUMENT_BYTES: Final = 4096
"""Commands are names, keys and numbers; the longest is a password."""
MAX_LINE_BYTES: Final = 1024
CRLF: Final = b"\r\n"

OK: Final = b"+OK\r\n"
PONG: Final = b"+PONG\r\n"
NIL: Final = b"$-1\r\n"


class RespError(Exception):
    """The client does not speak the protocol; the connection is of no use any more."""


@attrs.define(eq=False)
class RespReader:
    """Takes bytes as they come and gives whole commands."""

    _buffer: bytearray = attrs.field(factory=bytearray, init=False, repr=False)

    def feed(self, data: bytes) -> list[tuple[bytes, ...]]:
        """Commands that *data* completes, empty ones left out. Raises: RespError, and then always again."""
        self._buffer += data
        found = []
        while (command := self._next()) is not None:
            if command:
                found.append(command)
        return found

    def _next(self) -> tuple[bytes, ...] | None:
        """The next command, or None while it is not complete."""
        line, at = self._line(0)
        if line is None:
            return None
        if not line.startswith(b"*"):
            if line[:1] and line[0] in MARKS:
                raise RespError("expected a command")
            del self._buffer[:at]
            return tuple(line.split())
        arguments = []
        for _ in range(_number(line, MAX_ARGUMENTS)):
            head, at = self._line(at)
            if head is None:
                return None
            if not head.startswith(b"$"):
                raise RespError("expected a bulk string")
            end = at + _number(head, MAX_ARGUMENT_BYTES)
            if len(self._buffer) < end + 2:
                return None
            if self._buffer[end : end + 2] != CRLF:
                raise RespError("a bulk string is longer than it said")
            arguments.append(bytes(self._buffer[at:end]))
            at = end + 2
        del self._buffer[:at]
        return tuple(arguments)

    def _line(self, at: int) -> tuple[bytes | None, int]:
        """The line at *at* and what follows it; None while it is not complete."""
        end = self._buffer.find(CRLF, at, at + MAX_LINE_BYTES + 2)
        if end >= 0:
            return bytes(self._buffer[at:end]), end + 2
        if len(self._buffer) - at > MAX_LINE_BYTES:
            raise RespError("a line is too long")
        return None, at


def _number(line: bytes, high: int) -> int:
    text = line[1:]
    if not text.isdigit() or len(text) > 9 or int(text) > high:
        raise RespError(f"expected a number of at most {high}")
    return int(text)


def error(text: str, *, code: str = "ERR") -> bytes:
    """An error of one line."""
    return f"-{code} {' '.join(text.split())}\r\n".encode()


def bulk(data: bytes) -> bytes:
    """A string of any bytes."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(items: Iterable[bytes]) -> bytes:
    """An array of replies that are encoded already."""
    encoded = list(items)
    return b"*%d\r\n%b" % (len(encoded), b"".join(encoded))


def integer(value: int) -> bytes:
    """A whole number."""
    return b":%d\r\n" % value
