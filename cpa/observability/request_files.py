"""Finding and reading the files that request logs leave (proxy 6.9, 7.2). Blocking; a name never leaves the folder."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

PIECE_BYTES: Final = 1 << 20
"""Of a file that is read piece by piece: with long requests and several attempts it may have a hundred of these."""
MAX_LISTED: Final = 10_000
_ERROR_NAME: Final = re.compile(r"error-[A-Za-z0-9._-]{1,250}\.log")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_APPLICATION: Final = re.compile(r"main(-.*)?\.log")


@attrs.frozen(kw_only=True)
class ListedFile:
    """*modified_unix*: whole seconds."""

    name: str
    size_bytes: int
    modified_unix: int


@attrs.define(eq=False, kw_only=True)
class RequestFile:
    """An open file. Ownership: whoever finds it closes it."""

    name: str
    _descriptor: int
    _place: int = 0

    def read(self) -> bytes:
        """The next piece; empty at the end. Raises: OSError."""
        piece = os.pread(self._descriptor, PIECE_BYTES, self._place)
        self._place += len(piece)
        return piece

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def error_files(directory: Path) -> tuple[ListedFile, ...]:
    """Files of failed requests, the newest first, `MAX_LISTED` at most. Raises: OSError."""
    found = sorted(_regular(directory), key=lambda pair: (-pair[1].st_mtime_ns, pair[0]))
    return tuple(
        ListedFile(name=name, size_bytes=status.st_size, modified_unix=int(status.st_mtime))
        for name, status in found
        if _ERROR_NAME.fullmatch(name)
    )[:MAX_LISTED]


def find_error_file(directory: Path, name: str) -> RequestFile | None:
    """The file *name* if it is one of a failed request. Raises: OSError."""
    return _open(directory, name) if _ERROR_NAME.fullmatch(name) else None


def find_file_of(directory: Path, trace_id: str) -> RequestFile | None:
    """The first file of the request with that trace id, by name; None without one. Raises: OSError."""
    if _ID.fullmatch(trace_id) is None:
        return None
    names = sorted(name for name, _ in _regular(directory) if name.endswith(f"-{trace_id}.log"))
    for name in names:
        found = None if _APPLICATION.fullmatch(name) else _open(directory, name)
        if found is not None:
            return found
    return None


def _regular(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files named ``*.log``; links are none."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".log"):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield entry.name, status


def _open(directory: Path, name: str) -> RequestFile | None:
    """Raises: OSError."""
    try:
        descriptor = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == errno.ELOOP:  # a link
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return RequestFile(name=name, descriptor=descriptor)
