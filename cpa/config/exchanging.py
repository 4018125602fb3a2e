"""What replacing a file without losing anybody's edit takes: finished files beside it, exchanges, locks. Blocking."""

import ctypes
import errno
import fcntl
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Final

STEP_S: Final = 0.005
"""Between two looks while waiting; this is a worker thread, nobody else waits with it."""

_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100


@contextmanager
def locked(directory: Path, *, wait_s: float) -> Iterator[None]:
    """Keep other processes of ours from replacing files in *directory*. A lock that dies with its process.

    It is advice, not a condition: after *wait_s*, and where the file system has no locks, the block runs without.
    Raises: OSError without such a directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= until:
                    break
                pause()
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


def pause() -> None:
    """Wait a moment."""
    select.select((), (), (), STEP_S)


def scratch_file(path: Path, data: bytes, *, mode: int) -> Path:
    """A finished file with *data* beside *path*, on disk. Raises: OSError."""
    # In the same directory, or it could not be renamed; without a suffix that anybody would take for one of theirs.
    scratch = path.with_name(f".{token_hex(8)}.tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        remove(scratch)
        raise
    return scratch


def remove(scratch: Path) -> None:
    """Remove a file if that is possible."""
    with suppress(OSError):
        os.unlink(scratch)


def keep_directory(directory: Path) -> None:
    """Make renamed entries last. Raises: OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Let two files change places in one step. False: this system or file system cannot. Raises: OSError."""
    call = renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


@lru_cache(maxsize=1)
def renameat2() -> Callable[..., int] | None:
    """The C library's function; Python has none for it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    return call
