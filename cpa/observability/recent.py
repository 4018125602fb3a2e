"""The last lines of the application log, in memory: for panels, and where the log goes nowhere that could be read.

Lines come here as they went to the log: rendered, bounded and without secrets. What it costs per line is one append.
"""

import secrets
import threading
from collections import deque
from time import time
from typing import Final

import attrs

MAX_LINES: Final = 5000
MAX_BYTES: Final = 2 << 20
"""Of all lines; ordinary ones have some 150 bytes."""
LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}


@attrs.frozen(kw_only=True)
class RecentLine:
    """Attributes:
    number: counted from the start of the process.
    time_unix: wall clock.
    level: `debug`, `info`, `warn` or `error`.
    line: UTF-8, with its line end; several lines where there is a traceback.
    """

    number: int
    time_unix: float
    level: str
    event: str
    line: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class RecentSlice:
    """Attributes:
    lines: the oldest first.
    cursor: for the next call.
    reset: the cursor that was given could not be honoured, or lines since then are gone: these are simply the last.
    """

    lines: tuple[RecentLine, ...]
    cursor: str
    reset: bool


class RecentLog:
    """The ring. Any thread."""

    def __init__(self, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lock = threading.RLock()  # as that of the sink: a finalizer may log while this thread is in here
        self._lines: deque[tuple[int, float, str, str, bytes]] = deque()
        self._bytes = 0
        self._count = 0
        self._life = secrets.token_hex(4)  # a cursor of another process, or of one before, means nothing here

    def __repr__(self) -> str:
        return f"<RecentLog lines={len(self._lines)}>"

    def add(self, level: str, event: str, line: bytes) -> None:
        """Keep a line; the oldest ones go."""
        with self._lock:
            self._count += 1
            self._lines.append((self._count, time(), level, event, line))
            self._bytes += len(line)
            while len(self._lines) > self._max_lines or self._bytes > self._max_bytes:
                self._bytes -= len(self._lines.popleft()[4])

    def read(self, *, cursor: str = "", limit: int, level: str = "debug") -> RecentSlice:
        """Lines of at least *level*: without *cursor* the last *limit* ones, else the first *limit* since then."""
        with self._lock:
            lines, count = tuple(self._lines), self._count
        least = LEVELS[level]
        life, _, told = cursor.partition("-")
        since = int(told) if life == self._life and told.isascii() and told.isdecimal() and len(told) < 20 else -1
        oldest = lines[0][0] if lines else count + 1
        honoured = oldest - 1 <= since <= count
        wanted = [line for line in lines if LEVELS.get(line[2], 0) >= least and (not honoured or line[0] > since)]
        last = count
        if not honoured:
            wanted = wanted[-limit:]
        elif len(wanted) > limit:
            wanted = wanted[:limit]
            last = wanted[-1][0]
        return RecentSlice(
            lines=tuple(
                RecentLine(number=number, time_unix=moment, level=name, event=event, line=line)
                for number, moment, name, event, line in wanted
            ),
            cursor=f"{self._life}-{last}",
            reset=bool(cursor) and not honoured,
        )
