"""Replacing the configuration file: whole or not at all, and never over somebody else's edit (proxy 5.1). Blocking.

Theory of operation. A finished file takes the place of the old one in one step, and what it displaced is looked at: if
that is not what the edit was made of, the two change places again and the edit is made anew. Links are followed, so
that what Kubernetes mounts stays as it is mounted. A file that is a mount point itself cannot be renamed; it is written
in place, which is all that can be done there.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from cpa.config.document import MAX_DOCUMENT_BYTES
from cpa.config.exchanging import exchange, keep_directory, locked, remove, scratch_file
from cpa.errors import EditError

NEW_FILE_MODE: Final = 0o600
"""It holds keys."""
LOCK_WAIT_S: Final = 5.0
"""For another process of ours; one that was stopped in the middle must not stop this one as well."""
MAX_ROUNDS: Final = 100
"""Of putting back what others wrote in the same instant; who edits that often is no editor."""

_IMMOVABLE: Final = frozenset({errno.EBUSY, errno.EXDEV})


def read_file(path: Path) -> bytes | None:
    """The content of *path*, of a larger file than a configuration can be no more than one byte too many.

    Returns: None when there is no such file. Raises: EditError.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise EditError(f"cannot read {path}: {exc.strerror}") from exc


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep other processes of ours from editing *path* while the block runs.

    Raises: EditError when there is no directory for it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(Path(os.path.realpath(path)).parent, wait_s=LOCK_WAIT_S))
        except OSError as exc:
            raise EditError(f"cannot write {path}: {exc.strerror}") from exc
        yield


def replace_file(path: Path, *, expected: bytes | None, data: bytes) -> bool:
    """Make *data* the content of *path* if it is *expected*, None = no file. On disk when this returns.

    The file's mode stays, and its owner where that is permitted. Returns: False when somebody else was faster; what
    they wrote is in place then. Raises: EditError when it cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        if read_file(target) != expected:
            return False
        return _create(target, data) if expected is None else _replace(target, expected, data)
    except OSError as exc:
        raise EditError(f"cannot write {path}: {exc.strerror or exc}") from exc


def _create(target: Path, data: bytes) -> bool:
    scratch = scratch_file(target, data, mode=NEW_FILE_MODE)
    try:
        os.link(scratch, target)  # unlike renaming, not over what is there by now
    except FileExistsError:
        return False
    finally:
        remove(scratch)
    keep_directory(target.parent)
    return True


def _replace(target: Path, expected: bytes, data: bytes) -> bool:
    before = target.stat()
    # Renaming asks for the directory's permission only; whoever made the file read-only meant it.
    os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))
    scratch = scratch_file(target, data, mode=stat.S_IMODE(before.st_mode))
    try:
        _keep_owner(scratch, before)
        return _swap(target, scratch, expected, data)
    except OSError as exc:
        if exc.errno not in _IMMOVABLE:
            raise
        return _write_in_place(target, expected, data)
    finally:
        remove(scratch)


def _keep_owner(scratch: Path, before: os.stat_result) -> None:
    if (os.geteuid(), os.getegid()) != (before.st_uid, before.st_gid):
        try:
            os.chown(scratch, before.st_uid, before.st_gid)
        except PermissionError:
            return
        os.chmod(scratch, stat.S_IMODE(before.st_mode))  # changing owners may take bits away


def _swap(target: Path, scratch: Path, expected: bytes, data: bytes) -> bool:
    """Let the finished file *scratch* take *target*'s place. Raises: OSError."""
    if not exchange(scratch, target):
        if read_file(target) != expected:
            return False
        os.replace(scratch, target)
        keep_directory(target.parent)
        return True
    placed, displaced = data, read_file(scratch)
    won = displaced == expected
    for _ in range(MAX_ROUNDS):
        if displaced is None or displaced == expected:
            break
        # Somebody else's edit came between the look and the exchange: it goes back to its place.
        exchange(scratch, target)
        placed, expected, displaced = displaced, placed, read_file(scratch)
    keep_directory(target.parent)
    return won


def _write_in_place(target: Path, expected: bytes, data: bytes) -> bool:
    with target.open("r+b") as file:
        if file.read(MAX_DOCUMENT_BYTES + 1) != expected:
            return False
        file.seek(0)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    return True
