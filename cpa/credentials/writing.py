"""Writing credential files: whole or not at all, and never over somebody else's edit (proxy 3.6). Blocking.

Theory of operation. A file is replaced by renaming a finished one into its place. Between the reading of the old
content, which goes into the new one, and the renaming, others may write. Three kinds of them:

- Processes of ours: all of them hold a lock on the directory while they read, merge and replace.
- Programs that replace the file: on Linux the two files are *exchanged* in one step, so that what was displaced is in
  our hands. If it is not what the new content was made of, it is merged again and exchanged again, until it is.
- Programs that write into the file: they hold the old one, which stays open here and is read once more after the
  exchange; an unfinished text is waited for.

Where the system cannot exchange files, the comparison right before the renaming is all there is.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec

from cpa.config.exchanging import exchange as _exchange
from cpa.config.exchanging import keep_directory, pause, remove, scratch_file
from cpa.config.exchanging import locked as lock
from cpa.errors import CredentialError

FILE_MODE: Final = 0o600
MAX_FILE_BYTES: Final = 1 << 20
"""A credential with certificates and a long list of models has some 20 KiB."""
LOCK_WAIT_S: Final = 5.0
"""For another process of ours; one that was stopped in the middle must not stop this one as well."""
UNFINISHED_WAIT_S: Final = 1.0
"""For a program that is writing into the file to come to its end."""
MAX_ROUNDS: Final = 100
"""Of merging again because somebody was faster; who edits that often is no editor."""


class CredentialFileError(CredentialError):
    """A credential file cannot be read or written; the text is the contract's (plugin-abi Appendix B)."""

    http_status = 400
    code = "auth_file"
    retryable = False


class UnreadableFile(CredentialFileError):
    """It is no regular file, or holds too much."""


def read_regular(path: Path) -> tuple[bytes, os.stat_result]:
    """The content of the regular file at *path*. Never waits: pipes and devices are refused before they are read.

    Raises: OSError; UnreadableFile.
    """
    with _opened(path) as descriptor:
        return _content(descriptor), os.fstat(descriptor)


def judge_kind(status: os.stat_result) -> os.stat_result:
    """*status* if it is a regular file's of bounded size. Raises: UnreadableFile."""
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile(
            f"expected a regular file, got a {_KINDS.get(stat.S_IFMT(status.st_mode), 'special file')}"
        )
    if status.st_size > MAX_FILE_BYTES:
        raise UnreadableFile(f"expected at most {MAX_FILE_BYTES} bytes, got {status.st_size}")
    return status


_KINDS: Final = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def _content(descriptor: int) -> bytes:
    """All of an open file, from its beginning. Raises: OSError; UnreadableFile."""
    pieces: list[bytes] = []
    size = 0
    while piece := os.pread(descriptor, 1 << 16, size):
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise UnreadableFile(f"expected at most {MAX_FILE_BYTES} bytes, got more")
        pieces.append(piece)
    return b"".join(pieces)


def locked(directory: Path) -> AbstractContextManager[None]:
    """Keep other processes of ours from replacing files in *directory*; see `cpa.config.exchanging.locked`.

    Raises: OSError on entering without such a directory.
    """
    return lock(directory, wait_s=LOCK_WAIT_S)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace *path* by a file with *data*, mode `FILE_MODE`, on disk when this returns. Raises: OSError."""
    scratch = _scratch(path, data)
    try:
        os.replace(scratch, path)
    except BaseException:
        remove(scratch)
        raise
    keep_directory(path.parent)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Replace the content of *path* by what *change* makes of it, losing no edit of anybody.

    Args:
      change: called with the file's content, each time anew when somebody else edited it meanwhile. It returns its
        argument to leave the file alone, and raises `UnfinishedText` for one that its writer is still busy with.

    Returns: the content then.
    Raises: OSError, FileNotFoundError among them: a file that was removed is not brought back; CredentialFileError when
      the file never becomes readable or never comes to rest; whatever *change* raises. The file is as others left it.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    with locked(path.parent):
        for _ in range(MAX_ROUNDS):
            with _opened(path) as present:
                before, wanted = _settled(present, change)
                if wanted == before:
                    return before
                placed = _replace(path, present, before, wanted, change)
                if placed is not None:
                    return placed
    raise CredentialFileError("auth file is being changed all the time", http_status=500)


class UnfinishedText(CredentialFileError):
    """A file does not hold a whole JSON text: somebody writes it right now, or has broken it."""


def _replace(path: Path, present: int, before: bytes, wanted: bytes, change: Callable[[bytes], bytes]) -> bytes | None:
    """Put *wanted*, made of *before*, which the open file *present* held, in its place.

    Returns: what was put there in the end; None = nothing was, because somebody was faster.
    """
    scratch = _scratch(path, wanted)
    ours: list[int] = []  # open files that were put in place here, so that later writes into them are seen
    try:
        if _content(present) != before or not _is(path, present):
            return None
        expected, expected_content = present, before
        for _ in range(MAX_ROUNDS):
            placed = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
            ours.append(placed)
            if not _exchange(scratch, path):
                os.replace(scratch, path)
                break
            with _opened(scratch) as displaced:
                content = _content(displaced)
                if _same(os.fstat(displaced), os.fstat(expected)) and content == expected_content:
                    break
                # Somebody edited between the last look and the exchange: their text, merged, goes in as well. What was
                # on its way already goes in with it: it may hold the edit of somebody else, which they never saw.
                try:
                    theirs, merged = _settled(displaced, change)
                    if expected is not present:
                        merged = change(combined(base=expected_content, ours=wanted, theirs=theirs))
                except CredentialFileError:
                    _exchange(scratch, path)  # what they left is theirs to mend
                    raise
            remove(scratch)
            expected, expected_content, wanted = placed, wanted, merged
            scratch = _scratch(path, wanted)
        keep_directory(path.parent)
        return wanted
    finally:
        remove(scratch)
        for descriptor in ours:
            os.close(descriptor)


def combined(*, base: bytes, ours: bytes, theirs: bytes) -> bytes:
    """Two versions of the JSON object *base* in one: where both changed a member, theirs counts.

    Whatever is no object is left to them.
    """
    try:
        old, mine, found = (msgspec.json.decode(text, type=dict[str, msgspec.Raw]) for text in (base, ours, theirs))
    except (ValueError, RecursionError):
        return theirs
    for name in old.keys() | mine.keys():
        if _raw(found, name) != _raw(old, name) or _raw(mine, name) == _raw(old, name):
            continue
        if name in mine:
            found[name] = mine[name]
        else:
            del found[name]
    return msgspec.json.encode(found)


def _raw(members: Mapping[str, msgspec.Raw], name: str) -> object:
    """The value of a member, comparable; `Raw` compares spelling."""
    return msgspec.json.decode(members[name]) if name in members else _ABSENT


_ABSENT: Final = object()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The regular file at *path*, open for reading. Raises: OSError; UnreadableFile."""
    judge_kind(path.stat())
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        judge_kind(os.fstat(descriptor))  # what was looked at before may be something else by now
        yield descriptor
    finally:
        os.close(descriptor)


def _settled(descriptor: int, change: Callable[[bytes], bytes]) -> tuple[bytes, bytes]:
    """The content of an open file and what *change* makes of it; waits a little for one that is being written."""
    until = monotonic() + UNFINISHED_WAIT_S
    while True:
        content = _content(descriptor)
        try:
            return content, change(content)
        except UnfinishedText:
            if monotonic() >= until:
                raise
        pause()


def _is(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at *path*. Raises: FileNotFoundError."""
    return _same(path.stat(), os.fstat(descriptor))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _scratch(path: Path, data: bytes) -> Path:
    """A finished file with *data* beside *path*, on disk. Raises: OSError."""
    return scratch_file(path, data, mode=FILE_MODE)
