"""One process at a time renews a credential, where several share a folder (``workers``, replicas on one volume).

A provider that rotates refresh tokens takes the second use of one for theft and withdraws all of them. The lock is a
byte of one hidden file, by the credential's name; it dies with its process. Where the file system has no locks, nobody
is kept from anything.
"""

import fcntl
import os
from hashlib import sha256
from pathlib import Path
from typing import Final

LOCK_NAME: Final = ".cpa-refresh.lock"
MODE: Final = 0o600


class RefreshLocks:
    """The locks of one process in one folder. Its methods do not block; one owner for each name at a time.

    There must be one of these for a folder in a process: the system gives back all locks of a process on a file when it
    closes any descriptor of that file. Ownership: `close`, or the end of the object, gives back what is held.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / LOCK_NAME
        self._descriptor: int | None = None

    def __del__(self) -> None:
        self.close()

    def take(self, name: str) -> bool:
        """Try to take the lock for *name*. False: another process has it."""
        try:
            if self._descriptor is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._descriptor = os.open(self._path, flags, MODE)
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(name))
        except (BlockingIOError, PermissionError):  # the two errors that mean: taken (POSIX), or no right to the file
            return self._descriptor is None
        except OSError:
            return True  # a folder that cannot be written, a file system without locks
        return True

    def give(self, name: str) -> None:
        """Give it back."""
        if self._descriptor is not None:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(name))
            except OSError:
                return

    def close(self) -> None:
        """Give everything back. Closed twice is closed."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _place(name: str) -> int:
    """Of the byte in the file, which stays empty; two names share one as seldom as anything."""
    return int.from_bytes(sha256(name.encode("utf-8", "surrogatepass")).digest()[:7], "big")
