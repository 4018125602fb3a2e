"""Where log lines go: a bounded queue that a Trio task empties without ever blocking the loop.

Theory of operation. `LogSink.write` only appends, from any thread. While `serve_sink` runs, its task joins lines to
batches of at most 4096 bytes and writes them when the destination takes them: pipes, sockets and terminals through a
descriptor of our own in non-blocking mode (the process's own fd 1 may be shared with others, who would be surprised by
that mode), regular files directly. When nobody reads, the queue fills, the oldest lines are dropped and counted, and a
line says so as soon as there is room again. Before the task runs and after it ended, lines are written at once, with a
bounded wait for a full pipe.
"""

import errno
import fcntl
import os
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import localtime, monotonic, strftime, time
from typing import Protocol

import trio

from cpa.observability.recent import RecentLog

BATCH_BYTES = 4096
"""PIPE_BUF of Linux: a pipe that polls writable takes this much at once, even on a blocking descriptor."""
MAX_QUEUED_LINES = 10_000
MAX_QUEUED_BYTES = 8 * 1024 * 1024
FLUSH_WAIT_S = 0.5
"""Longest that writing outside of the task waits for a reader: at start and at exit somebody may have stopped it."""
ROTATE_BYTES = 10 * 1000 * 1000
SWEEP_EVERY_S = 60.0


class Destination(Protocol):
    """Takes bytes. Used by one thread at a time, under the lock of its sink."""

    def write_nowait(self, data: bytes | memoryview) -> int:
        """Write what fits without blocking; 0 = nothing fits now. Raises: OSError when it is broken."""
        ...

    async def wait_writable(self) -> None:
        """Wait until `write_nowait` may succeed. Raises: trio.ClosedResourceError when closed meanwhile."""
        ...

    def wait_writable_blocking(self, timeout_s: float) -> None:
        """The same without Trio, for at most *timeout_s*."""
        ...

    def sweep(self) -> None:
        """Housekeeping that touches the disk; called from a thread about once a minute."""
        ...

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        ...


class StreamDestination:
    """A pipe, socket, terminal or file behind a file descriptor that stays the caller's."""

    def __init__(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._socket: socket.socket | None = None
        self._nonblocking = False
        self._fd = -1
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
        elif not stat.S_ISREG(mode):
            # A new open file description: the mode that we set on it is ours alone.
            with suppress(OSError):
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._nonblocking = True
        if self._fd < 0:
            self._fd = os.dup(fd)
        self._pollable = not stat.S_ISREG(mode) and _epoll_takes(self._fd)

    def write_nowait(self, data: bytes | memoryview) -> int:
        if self._fd < 0:
            raise OSError(errno.EBADF, "closed")
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT)
            if self._pollable and not self._nonblocking:
                return os.write(self._fd, data[:BATCH_BYTES]) if self._is_writable(0) else 0
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    async def wait_writable(self) -> None:
        if self._pollable:
            await trio.lowlevel.wait_writable(self._fd)
        else:
            await trio.lowlevel.checkpoint()

    def wait_writable_blocking(self, timeout_s: float) -> None:
        if self._fd >= 0:
            self._is_writable(timeout_s)

    def _is_writable(self, timeout_s: float) -> bool:
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        return bool(poller.poll(int(timeout_s * 1000)))

    def sweep(self) -> None:
        pass

    def close(self) -> None:
        if self._fd < 0:
            return
        _notify_closing(self._fd)
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)
        self._fd = -1


def _epoll_takes(fd: int) -> bool:
    with select.epoll() as epoll:
        try:
            epoll.register(fd, select.EPOLLOUT)
        except PermissionError:  # regular files and /dev/null: always writable
            return False
    return True


def _notify_closing(fd: int) -> None:
    with suppress(RuntimeError):  # outside of Trio nobody waits
        trio.lowlevel.notify_closing(fd)


class FileDestination:
    """``main.log`` in a directory: mode 0600, rotated at 10 MB, the directory's logs capped in total.

    Args:
      directory: created with mode 0700 if missing.
      max_total_bytes: cap for all logs of the directory, oldest deleted first, the active one spared; 0 = no cap.
    Raises: OSError if the file cannot be opened.
    """

    def __init__(self, directory: Path, *, max_total_bytes: int = 0, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.directory = directory
        self.path = directory / "main.log"
        self.max_total_bytes = max_total_bytes
        self._rotate_bytes = rotate_bytes
        self._fd = -1
        self._closed = False
        self._open()

    def _open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "closed")
        self._close_fd()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)

    def write_nowait(self, data: bytes | memoryview) -> int:
        # Somebody else may have truncated, moved or removed the file: look at it, do not count. 3 µs per batch.
        if self._fd < 0 or not self._is_active():
            self._open()
        if 0 < os.fstat(self._fd).st_size > self._rotate_bytes - len(data):
            self._rotate()
        return os.write(self._fd, data)

    def _is_active(self) -> bool:
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)

    def _rotate(self) -> None:
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Other processes of the same port write to the same file.
            fcntl.flock(directory, fcntl.LOCK_EX)
            if self._is_active():
                self._rename()
            self._open()
        finally:
            os.close(directory)

    def _rename(self) -> None:
        now = time()
        stamp = strftime("%Y-%m-%dT%H-%M-%S", localtime(now)) + f".{int(now * 1000) % 1000:03d}"
        target = self.directory / f"main-{stamp}.log"
        number = 1
        while target.exists():
            number += 1
            target = self.directory / f"main-{stamp}-{number}.log"
        self.path.rename(target)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def wait_writable_blocking(self, timeout_s: float) -> None:
        pass

    def sweep(self) -> None:
        if self.max_total_bytes > 0:
            enforce_size_cap(self.directory, self.max_total_bytes, active=self.path)

    def close(self) -> None:
        self._closed = True
        self._close_fd()

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def enforce_size_cap(directory: Path, max_total_bytes: int, *, active: Path) -> list[Path]:
    """Delete the oldest ``*.log`` and ``*.log.gz`` of *directory* until all together fit; *active* is spared.

    Returns: what was deleted. Files that vanish or resist meanwhile are passed over. Blocking.
    """
    files: list[tuple[float, str, int]] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith((".log", ".log.gz")) and entry.is_file(follow_symlinks=False):
                    with suppress(OSError):
                        info = entry.stat(follow_symlinks=False)
                        files.append((info.st_mtime, entry.path, info.st_size))
    except OSError:
        return []
    total = sum(size for _, _, size in files)
    deleted: list[Path] = []
    for _, name, size in sorted(files):
        if total <= max_total_bytes:
            break
        if Path(name) == active:
            continue
        with suppress(OSError):
            os.unlink(name)
            total -= size
            deleted.append(Path(name))
    return deleted


def log_directory(env: Mapping[str, str], auth_dir: Path, *, working_directory: Path | None = None) -> Path:
    """``$WRITABLE_PATH/logs``, else ``./logs`` if it exists and is writable, else ``<auth-dir>/logs``.

    Creates nothing. *working_directory* stands for ``.``.
    """
    writable = env.get("WRITABLE_PATH") or env.get("writable_path")
    if writable:
        return Path(writable) / "logs"
    local = (working_directory or Path()) / "logs"
    if local.is_dir() and os.access(local, os.W_OK | os.X_OK):
        return local.absolute()
    return auth_dir / "logs"


class LogSink:
    """The queue between those who log and one `Destination`, which it owns.

    Attributes:
      recent: the last lines, wherever they go.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        max_lines: int = MAX_QUEUED_LINES,
        max_bytes: int = MAX_QUEUED_BYTES,
        flush_wait_s: float = FLUSH_WAIT_S,
    ) -> None:
        self.recent = RecentLog()
        self._destination = destination
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._flush_wait_s = flush_wait_s
        # Re-entrant: a signal handler or a finalizer may log while this thread is inside `write`.
        self._lock = threading.RLock()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._rest: bytes | memoryview = b""  # of the batch that is being written
        self._rest_lines = 0
        self._rest_reports = 0
        self._broken = False
        self._dropped = 0
        self._reported = 0
        self._stuck = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = 0
        self._wake: trio.Event | None = None
        self.dropped_line: Callable[[int], bytes] = lambda count: b"%d log lines dropped\n" % count

    def __repr__(self) -> str:
        return f"<LogSink queued={len(self._lines)} dropped={self._dropped}>"

    @property
    def dropped(self) -> int:
        """Lines lost since the start, because nobody read or the destination was broken."""
        return self._dropped

    @property
    def destination(self) -> Destination:
        return self._destination

    def write(self, line: bytes) -> None:
        """Take one complete line (with its line end). Any thread; never blocks while the task runs."""
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            while len(self._lines) > self._max_lines or (self._bytes > self._max_bytes and len(self._lines) > 1):
                self._bytes -= len(self._lines.popleft())
                self._dropped += 1
            if self._token is None:
                self._flush(0.0 if self._stuck else self._flush_wait_s)
            elif self._wake is not None:
                self._wake_task()

    def _wake_task(self) -> None:
        wake, self._wake = self._wake, None
        if wake is None or self._token is None:
            return
        if threading.get_ident() == self._thread:
            wake.set()
        else:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(wake.set)

    def flush(self, timeout_s: float = FLUSH_WAIT_S) -> None:
        """Write all that is queued now, waiting at most *timeout_s* for a reader. Blocking; not while the task runs."""
        with self._lock:
            self._flush(timeout_s)

    def _flush(self, timeout_s: float) -> None:
        deadline = monotonic() + timeout_s
        self._stuck = False
        while self._has_work():
            if self._write_batch():
                continue
            left = deadline - monotonic()
            if left <= 0:
                self._stuck = True  # do not wait again for each further line
                return
            self._destination.wait_writable_blocking(left)

    def _has_work(self) -> bool:
        return bool(self._lines) or len(self._rest) > 0 or (self._dropped > self._reported and not self._broken)

    def _write_batch(self) -> bool:
        """Write one batch; False = the destination takes nothing now."""
        if not self._rest:
            self._rest = self._next_batch()
        try:
            written = self._destination.write_nowait(self._rest)
        except OSError:
            # Broken pipe, full disk: these lines are lost; that is said once something can be written again.
            self._dropped += self._rest_lines
            self._broken = True
            self._rest = b""
            return True
        self._broken = False
        if written < len(self._rest):
            self._rest = memoryview(self._rest)[written:]
        else:
            self._rest = b""
            self._reported += self._rest_reports
        return written > 0

    def _next_batch(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        self._rest_reports = self._dropped - self._reported
        if self._rest_reports:
            pieces.append(self.dropped_line(self._rest_reports))
            size = len(pieces[0])
        count = 0
        while self._lines and (not pieces or size + len(self._lines[0]) <= BATCH_BYTES):
            line = self._lines.popleft()
            size += len(line)
            pieces.append(line)
            count += 1
        self._bytes = self._bytes - size + (len(pieces[0]) if self._rest_reports else 0)
        self._rest_lines = count
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def redirect(self, destination: Destination) -> None:
        """Write to *destination* from now on, close the old one. A line that was half written to that stays half."""
        with self._lock:
            old, self._destination = self._destination, destination
            if len(self._rest) > 0:
                with suppress(OSError):
                    old.write_nowait(self._rest)
                self._rest = b""
            old.close()

    def close(self) -> None:
        """Flush (bounded) and close the destination; later lines are dropped."""
        with self._lock:
            self._flush(self._flush_wait_s)
            self._destination.close()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; then flush, waiting at most `FLUSH_WAIT_S` for a reader.

        Raises: RuntimeError if it runs already. Errors of the destination are counted as dropped lines, never raised.
        """
        if self._token is not None:
            raise RuntimeError("this sink is being served already")
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
            self._thread = threading.get_ident()
        task_status.started()
        try:
            while True:
                await self._step()
        finally:
            with self._lock:
                self._token = self._wake = None
                self._flush(self._flush_wait_s)

    async def _step(self) -> None:
        wake: trio.Event | None = None
        with self._lock:
            if not self._has_work():
                wake = self._wake = trio.Event()
            else:
                progress = self._write_batch()
        if wake is not None:
            await wake.wait()
        elif progress:
            await trio.lowlevel.checkpoint()
        else:
            with suppress(trio.ClosedResourceError):  # redirected meanwhile
                await self._destination.wait_writable()


async def _sweep_regularly(sink: LogSink, every_s: float) -> None:
    while True:
        await trio.sleep(every_s)
        await trio.to_thread.run_sync(sink.destination.sweep)


async def serve_sink(
    sink: LogSink,
    *,
    sweep_every_s: float = SWEEP_EVERY_S,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run *sink* until cancelled: its writer, and the size check of its directory once a minute."""
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.serve, name="log-sink")
        nursery.start_soon(_sweep_regularly, sink, sweep_every_s, name="log-size-cap")
        task_status.started()


@asynccontextmanager
async def open_sink(sink: LogSink, *, sweep_every_s: float = SWEEP_EVERY_S) -> AsyncIterator[LogSink]:
    """Serve *sink* while the block runs; open it outermost, so that the end of everything else is logged as well."""
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve_sink(sink, sweep_every_s=sweep_every_s, task_status=task_status))
        try:
            yield sink
        finally:
            nursery.cancel_scope.cancel()
