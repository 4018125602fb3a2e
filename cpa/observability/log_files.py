"""Reading the application log's files as the management API shows them (proxy 6.9). Blocking, and bounded.

Theory of operation. ``main.log`` grows and is renamed to ``main-<time>.log`` when it is full; both keep their inode. A
*cursor* names inode and offset of the first byte that was not told yet, and a fingerprint of what stands before it. So
it finds its file again after any number of rotations, as long as that is there, and a file that was truncated or that
merely got the inode of another one is not mistaken for it.

A line of ``main.log`` counts when its line end is there. Nobody holds a lock: what is read is what was there when its
file was opened, and a rotation meanwhile shows in the next call.
"""

import errno
import hashlib
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

ACTIVE: Final = "main.log"
MAX_LINES: Final = 20_000
"""Of one answer."""
MAX_TEXT_BYTES: Final = 8 << 20
"""Of the lines of one answer; a panel shows some hundred kilobytes."""
MAX_SCAN_BYTES: Final = 64 << 20
"""That one call reads, beginning with the newest: about a second of computing."""
MAX_FILES: Final = 64
"""That are open at a time; there are seven of full size in what one call reads."""
MAX_LINE_BYTES: Final = 64 << 10
"""Longer lines are cut; those of the log itself are shorter unless they show long tracebacks."""
_BLOCK_BYTES: Final = 256 << 10
_MARK_BYTES: Final = 256
_ROTATED: Final = re.compile(r"main-[^/]*\.log")
_CURSOR: Final = re.compile(r"1-([0-9a-f]{1,16})-([0-9a-f]{1,16})-([0-9a-f]{0,16})")
_CONSOLE_TIME: Final = re.compile(rb"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\]")
_JSON_TIME: Final = re.compile(rb'\{"ts":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)')


@attrs.frozen(kw_only=True)
class LogSlice:
    """Some of the log.

    Attributes:
      lines: the oldest first, without line ends.
      latest_unix: time of the newest of them, whole seconds; 0 = none says one.
      cursor: for `continued`.
      cut: there was more than one answer holds; the oldest lines are missing.
    """

    lines: tuple[str, ...] = ()
    latest_unix: int = 0
    cursor: str
    cut: bool = False


@attrs.frozen(kw_only=True)
class _Opened:
    """A file as it is now: up to *end*, which for ``main.log`` is the end of the last whole line."""

    descriptor: int
    inode: int
    end: int


def tail(directory: Path, limit: int) -> LogSlice:
    """The newest *limit* lines. Raises: OSError when the log cannot be read; a missing one is empty."""
    with _files(directory) as files:
        collected = _Newest(limit)
        for file in reversed(files):
            collected.put_before(_last_lines(file, collected.room, collected.room_bytes))
            if collected.full:
                break
        return collected.told(_end_of(files))


def since(directory: Path, after_unix: int, limit: int) -> LogSlice:
    """The newest *limit* of the lines that are newer than *after_unix*; 0 = of all. Raises: OSError.

    Lines without a time belong to the line before them.
    """
    with _files(directory, changed_since=after_unix) as files:
        clock = _Clock()
        kept: deque[bytes] = deque()
        size = latest = 0
        left, cut = MAX_SCAN_BYTES, False
        starts: list[tuple[_Opened, int]] = []
        for file in reversed(files):
            starts.append((file, max(0, file.end - left)))
            left -= file.end - starts[-1][1]
        for file, start in reversed(starts):
            for line, _ in _lines(file, start, partial=start > 0):
                moment = clock.of(line)
                if 0 < after_unix >= moment:
                    continue
                latest = max(latest, moment)
                kept.append(line)
                size += len(line)
                while len(kept) > limit or size > MAX_TEXT_BYTES:
                    size -= len(kept.popleft())
                    cut = True
        cut = cut or any(start for _, start in starts)
        lines = tuple(map(_text, kept))
        return LogSlice(lines=lines, latest_unix=latest, cursor=_end_of(files), cut=cut)


def continued(directory: Path, cursor: str, limit: int) -> LogSlice | None:
    """The whole lines since *cursor*, the oldest *limit* of them, to be gone on with by the cursor of the result.

    Returns: None when the cursor cannot be honoured: it is none, or its file is gone or was changed. Raises: OSError.
    """
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        return None
    inode, offset = int(match[1], 16), int(match[2], 16)
    with _files(directory) as files:
        place = 0
        if inode:
            place = next((number for number, file in enumerate(files) if file.inode == inode), -1)
            if place < 0 or offset > files[place].end or _mark(files[place], offset) != match[3]:
                return None
        clock = _Clock()
        kept: list[str] = []
        size = latest = 0
        told = cursor
        for file in files[place:]:
            start = offset if file.inode == inode else 0
            for line, end in _lines(file, start):
                latest = max(latest, clock.of(line))
                kept.append(_text(line))
                size += len(line)
                if len(kept) >= limit or size > MAX_TEXT_BYTES:
                    return LogSlice(lines=tuple(kept), latest_unix=latest, cursor=_cursor(file, end))
            told = _cursor(file, file.end)
        return LogSlice(lines=tuple(kept), latest_unix=latest, cursor=told)


def clear(directory: Path) -> int:
    """Remove the rotated files and empty ``main.log``. Returns: how many were removed. Raises: OSError."""
    removed = 0
    for path, _ in _rotated(directory):
        with suppress(FileNotFoundError):
            path.unlink()
            removed += 1
    with suppress(FileNotFoundError):
        # Whoever writes to it appends: the next line is the first one.
        flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        os.close(os.open(directory / ACTIVE, flags))
    return removed


# ---- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _files(directory: Path, *, changed_since: int = 0) -> Iterator[list[_Opened]]:
    """The log's files, the oldest first, ``main.log`` last; rotated ones only if written since then. Raises: OSError.

    ``main.log`` is opened first: if it is rotated meanwhile it is seen once, and what comes after it next time.
    """
    with ExitStack() as stack:
        active = _opened(directory / ACTIVE, stack, whole_lines=True)
        found: list[_Opened] = []
        left = MAX_SCAN_BYTES
        for path, modified in reversed(_rotated(directory)[-MAX_FILES:]):
            if left <= 0 or modified < changed_since:
                break
            file = _opened(path, stack, whole_lines=False)
            if file is not None and (active is None or file.inode != active.inode):
                found.append(file)
                left -= file.end
        found.reverse()
        yield found if active is None else [*found, active]


def _rotated(directory: Path) -> list[tuple[Path, float]]:
    """Rotated files and their times, the oldest first."""
    found: list[tuple[float, Path]] = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        for entry in entries:
            if _ROTATED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    return [(path, modified) for modified, path in sorted(found)]


def _opened(path: Path, stack: ExitStack, *, whole_lines: bool) -> _Opened | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:  # a link: the log itself does not write through one either
            return None
        raise
    stack.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    end = status.st_size
    if whole_lines:
        end = _last_break(descriptor, end)
    return _Opened(descriptor=descriptor, inode=status.st_ino, end=end)


def _last_break(descriptor: int, size: int) -> int:
    """Where the last whole line ends. An unfinished text longer than `MAX_SCAN_BYTES` counts as whole."""
    end = size
    while end > 0 and size - end < MAX_SCAN_BYTES:
        start = max(0, end - _BLOCK_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0 if end <= 0 else size


def _end_of(files: list[_Opened]) -> str:
    return _cursor(files[-1], files[-1].end) if files else "1-0-0-"


def _cursor(file: _Opened, offset: int) -> str:
    return f"1-{file.inode & (2**64 - 1):x}-{offset:x}-{_mark(file, offset)}"


def _mark(file: _Opened, offset: int) -> str:
    """A fingerprint of what stands right before *offset*."""
    start = max(0, offset - _MARK_BYTES)
    return hashlib.sha256(os.pread(file.descriptor, offset - start, start)).hexdigest()[:16]


# ---- lines -----------------------------------------------------------------------------------------------------------


def _lines(file: _Opened, start: int, *, partial: bool = False) -> Iterator[tuple[bytes, int]]:
    """The lines from *start* on, with the offset behind each. *partial*: it is inside of a line, which is left out.

    No more than a line and a block is held, however long a line is.
    """
    kept, place, skipping = b"", start, partial
    while place < file.end:
        block = os.pread(file.descriptor, min(_BLOCK_BYTES, file.end - place), place)
        if not block:
            break
        pieces = block.split(b"\n")
        for piece in pieces[:-1]:
            place += len(piece) + 1
            if not skipping:
                yield _shortened(kept + piece), place
            kept, skipping = b"", False
        kept = (kept + pieces[-1])[: MAX_LINE_BYTES + 1]
        place += len(pieces[-1])
    if kept and not skipping:
        yield _shortened(kept), place


def _last_lines(file: _Opened, limit: int, room_bytes: int) -> tuple[list[bytes], bool]:
    """The last *limit* lines of *file* within *room_bytes*, and whether its first line is among them."""
    place, text = file.end, b""
    breaks = 0
    while place > 0 and breaks <= limit and len(text) < room_bytes:
        start = max(0, place - _BLOCK_BYTES)
        block = os.pread(file.descriptor, place - start, start)
        breaks += block.count(b"\n")
        text, place = block + text, start
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    if place > 0 and lines:
        del lines[0]  # the rest of a line
    whole = place == 0 and len(lines) <= limit
    return [_shortened(line) for line in lines[-limit:]], whole


@attrs.define(eq=False)
class _Newest:
    """Lines that come in groups, the newest group first."""

    _limit: int
    _groups: list[list[bytes]] = attrs.field(factory=list)
    _count: int = 0
    _bytes: int = 0
    _cut: bool = False

    @property
    def room(self) -> int:
        return self._limit - self._count

    @property
    def room_bytes(self) -> int:
        return MAX_TEXT_BYTES - self._bytes

    @property
    def full(self) -> bool:
        return self._cut or self.room <= 0 or self.room_bytes <= 0

    def put_before(self, found: tuple[list[bytes], bool]) -> None:
        lines, whole = found
        self._groups.append(lines)
        self._count += len(lines)
        self._bytes += sum(map(len, lines))
        self._cut = self._cut or not whole

    def told(self, cursor: str) -> LogSlice:
        lines = [line for group in reversed(self._groups) for line in group]
        clock = _Clock()
        latest = max(map(clock.of, lines), default=0)
        return LogSlice(
            lines=tuple(map(_text, lines)), latest_unix=latest, cursor=cursor, cut=self._cut and self.room > 0
        )


def _shortened(line: bytes) -> bytes:
    return line if len(line) <= MAX_LINE_BYTES else line[:MAX_LINE_BYTES] + " … (line cut)".encode()


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")


@attrs.define(eq=False)
class _Clock:
    """Times of lines; thousands of them share a second."""

    _known: dict[bytes, int] = attrs.field(factory=dict)
    _last: int = 0

    def of(self, line: bytes) -> int:
        """Unix seconds; without a time of its own that of the line before; 0 = nobody knows."""
        for pattern, read in _TIMES:
            match = pattern.match(line)
            if match is not None:
                stamp = match[1]
                moment = self._known.get(stamp)
                if moment is None:
                    if len(self._known) > 4096:
                        self._known.clear()
                    moment = self._known[stamp] = read(stamp.decode("ascii"))
                if moment:
                    self._last = moment
                break
        return self._last


def _local(text: str) -> int:
    try:
        return max(0, int(time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))))
    except (ValueError, OverflowError):
        return 0


def _utc(text: str) -> int:
    try:
        return max(0, int(datetime.fromisoformat(f"{text}+00:00").timestamp()))
    except (ValueError, OverflowError):
        return 0


_TIMES: Final[Iterable[tuple[re.Pattern[bytes], Callable[[str], int]]]] = (
    (_CONSOLE_TIME, _local),
    (_JSON_TIME, _utc),
)
