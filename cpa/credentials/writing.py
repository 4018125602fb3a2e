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

import ctypes
import errno
import fcntl
import os
import select
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Final

import msgspec

from cpa.errors import CredentialError

FILE_MODE: Final = 0o600
MAX_FILE_BYTES: Final = 1 << 20
"""A credential with certificates and a long list of models has some 20 KiB."""
LOCK_WAIT_S: Final = 5.0
"""For another process of ours; one that was stopped in the middle must not stop this one as well."""
UNFINISHED_WAIT_S: Final = 1.0
"""For a program that is writing into the file to come to its end."""
STEP_S: Final = 0.005
"""Between two looks while waiting; this is a worker thread, nobody else waits with it."""
MAX_ROUNDS: Final = 100
"""Of merging again because somebody was faster; who edits that often is no editor."""

_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100


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


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes of ours from replacing files in *directory*. A lock that dies with its process.

    It is advice, not a condition: after `LOCK_WAIT_S`, and where the file system has no locks, the block runs without.
    Raises: OSError without such a directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= until:
                    break
                _pause()
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _pause() -> None:
    select.select((), (), (), STEP_S)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace *path* by a file with *data*, mode `FILE_MODE`, on disk when this returns. Raises: OSError."""
    scratch = _scratch(path, data)
    try:
        os.replace(scratch, path)
    except BaseException:
        _remove(scratch)
        raise
    _keep_directory(path.parent)


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
            _remove(scratch)
            expected, expected_content, wanted = placed, wanted, merged
            scratch = _scratch(path, wanted)
        _keep_directory(path.parent)
        return wanted
    finally:
        _remove(scratch)
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
        _pause()


def _is(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at *path*. Raises: FileNotFoundError."""
    return _same(path.stat(), os.fstat(descriptor))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _scratch(path: Path, data: bytes) -> Path:
    """A finished file with *data* beside *path*, on disk. Raises: OSError."""
    # In the same directory, or it could not be renamed; without the suffix, or it would be taken for a credential.
    scratch = path.with_name(f".{token_hex(8)}.tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        _remove(scratch)
        raise
    return scratch


def _remove(scratch: Path) -> None:
    with suppress(OSError):
        os.unlink(scratch)


def _keep_directory(directory: Path) -> None:
    """Make renamed entries last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Let two files change places in one step. False: this system or file system cannot. Raises: OSError."""
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


@lru_cache(maxsize=1)
def _renameat2() -> Callable[..., int] | None:
    """The C library's function; Python has none for it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    return call
