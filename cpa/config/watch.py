"""Noticing that the configuration file, or the folder of credentials, changed, and reading the former again.

The file is watched through its directory, so that an atomic replacement and a swapped symbolic link (Kubernetes mounts
``config.yaml -> ..data/config.yaml`` and swaps ``..data``) are seen. Notifications do not reach every place a file can
be in (bind mounts, network drives, links that lead elsewhere), so its status is polled as well. Whatever is noticed
only means "look": the content's hash decides.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from watchfiles._rust_notify import RustNotify

from cpa.config.changes import RESTART_KEYS, describe_changes, restart_keys_changed
from cpa.config.load import Loaded, digest_of, parse_config, read_bytes
from cpa.errors import ConfigError

__all__ = ["RESTART_KEYS", "describe_changes", "reload", "restart_keys_changed", "watch_config", "watch_files"]

DEBOUNCE_S = 0.15
"""Quiet time after the last sign of a change; editors and ``kubectl`` make several (contract: 150 ms)."""
MAX_DEBOUNCE_S = 2.0
"""A file that never becomes quiet is read after that long all the same."""
POLL_S = 2.0
"""Time between looks at the file's status (contract)."""
WATCH_STEP_MS = 50
"""How often the watching thread looks whether it shall end: the longest that cancellation waits for it."""
_WATCH_GROUP_MS = 50
"""How long the watching thread itself groups events; the debounce above is what counts."""

_logger = structlog.get_logger(__name__)

_Status = tuple[int, int, int] | None
"""(mtime in ns, size, inode) of the file behind all links; None when there is none."""
_Seen = TypeVar("_Seen")


async def reload(path: Path, previous: Loaded) -> Loaded | None:
    """Read *path* again.

    Returns: None when the content is what *previous* was read from, and for an empty file: some editors truncate
      before they write, and nobody means "forget everything".
    Raises: ConfigError with every problem; *previous* stays what it was.
    Cancellation: waits for the worker thread that reads and parses (milliseconds).
    """
    return await trio.to_thread.run_sync(_reload, path, previous)


def _reload(path: Path, previous: Loaded) -> Loaded | None:
    data = read_bytes(path)
    if not data.strip() or digest_of(data) == previous.digest:
        return None
    return parse_config(data, file=str(path))


async def watch_config(
    path: Path,
    *,
    on_change: Callable[[], Awaitable[None]],
    digest: str | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call *on_change* after each change of the content of *path*, until cancelled.

    Never called for an empty or missing file, nor twice for the same content in a row. One call runs at a time; changes
    meanwhile lead to one further call. *task_status* is told when no later change can be missed.

    Args:
      digest: `Loaded.digest` of what is in use; when the file differs already, *on_change* is called at once. None =
        take the file as it is now for known.
    Raises: what *on_change* raises, grouped.
    Cancellation: prompt (at most about `WATCH_STEP_MS`), and no thread of Python's is left behind. The notification
      library's own one has been told to end and does so within milliseconds.
    """
    path = Path(await trio.Path(path).absolute())
    status = await _status(path)
    known = digest if digest is not None else await _digest(path)
    send, receive = trio.open_memory_channel[None](1)
    with receive:
        await _watch(path, known, status, on_change, send, receive, task_status)


async def _watch(
    path: Path,
    known: str | None,
    status: _Status,
    on_change: Callable[[], Awaitable[None]],
    send: trio.MemorySendChannel[None],
    receive: trio.MemoryReceiveChannel[None],
    task_status: trio.TaskStatus[None],
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_directory, path.parent, partial(_concerns, path), send.clone())
        nursery.start_soon(_poll, partial(_status, path), status, send.clone(), name="config:poll")
        with send:
            _signal(send)
        task_status.started()
        async for _ in receive:
            await _settle(receive)
            found = await _digest(path)
            if found is not None and found != known:
                known = found
                await on_change()


def _signal(send: trio.MemorySendChannel[None]) -> None:
    with suppress(trio.WouldBlock):  # then a look is due already
        send.send_nowait(None)


async def _settle(receive: trio.MemoryReceiveChannel[None]) -> None:
    latest = trio.current_time() + MAX_DEBOUNCE_S
    while trio.current_time() < latest:
        with trio.move_on_after(DEBOUNCE_S) as quiet:
            await receive.receive()
        if quiet.cancelled_caught:
            return


async def watch_files(
    directory: Path,
    *,
    suffix: str,
    on_change: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call *on_change* after files of that lower-case *suffix* at the top of *directory* may have changed.

    A directory that is missing is looked for, too. Otherwise as `watch_config`, except that nobody compares contents:
    *on_change* may be called when nothing did change.
    """
    directory = Path(await trio.Path(directory).absolute())
    known = await _listing(directory, suffix)
    send, receive = trio.open_memory_channel[None](1)

    def concerns(changed: Path) -> bool:
        return changed.name.lower().endswith(suffix) or changed.name.startswith("..")

    with receive:
        async with trio.open_nursery() as nursery:
            with send:
                await nursery.start(_watch_directory, directory, concerns, send.clone())
                nursery.start_soon(_poll, partial(_listing, directory, suffix), known, send.clone(), name="files:poll")
            task_status.started()
            async for _ in receive:
                await _settle(receive)
                await on_change()


async def _listing(directory: Path, suffix: str) -> frozenset[tuple[str, int, int, int]]:
    """(name, mtime in ns, size, inode) of every such file; none when there is no directory."""
    return await trio.to_thread.run_sync(_list, directory, suffix)


def _list(directory: Path, suffix: str) -> frozenset[tuple[str, int, int, int]]:
    found = set()
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.lower().endswith(suffix):
                with suppress(OSError):  # gone again
                    status = entry.stat()
                    found.add((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(found)


async def _poll(look: Callable[[], Awaitable[_Seen]], status: _Seen, send: trio.MemorySendChannel[None]) -> None:
    with send:
        while True:
            await trio.sleep(POLL_S)
            seen = await look()
            if seen != status:
                status = seen
                _signal(send)


async def _watch_directory(
    directory: Path,
    concerns: Callable[[Path], bool],
    send: trio.MemorySendChannel[None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Signal events at paths that *concerns* approves of; ends when the directory cannot be watched, polling then goes
    on alone."""
    stop, started = trio.Event(), False
    with send:
        async with trio.open_nursery() as nursery:
            try:
                # As watchfiles' awatch does, whose anyio would be imported for nothing else.
                with RustNotify([str(directory)], False, False, 0, False, False) as watcher:
                    # The watching thread is not reached by cancellation; the event is.
                    nursery.start_soon(_set_at_end, stop, name="config:stop")
                    started = True
                    task_status.started()
                    watch = partial(watcher.watch, _WATCH_GROUP_MS, WATCH_STEP_MS, 0, stop)
                    while not isinstance(found := await trio.to_thread.run_sync(watch), str):
                        if any(concerns(Path(name)) for _change, name in found):
                            _signal(send)
            except (OSError, RuntimeError) as exc:
                if not started:
                    task_status.started()
                _unwatched(directory, exc)
            nursery.cancel_scope.cancel()


def _unwatched(directory: Path, error: Exception) -> None:
    # Most plugins folders have none of the folders for platforms: that is nothing to warn of at every start.
    say = _logger.debug if isinstance(error, FileNotFoundError) else _logger.warning
    say("directory cannot be watched, polling only", directory=str(directory), error=str(error))


async def _set_at_end(stop: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        stop.set()


def _concerns(path: Path, changed: Path) -> bool:
    # Names that begin with ".." are how Kubernetes names what it swaps.
    return changed.name == path.name or changed.name.startswith("..")


async def _status(path: Path) -> _Status:
    try:
        found = await trio.Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def _digest(path: Path) -> str | None:
    """SHA-256 of the content; None when there is none."""
    try:
        data = await trio.to_thread.run_sync(read_bytes, path)
    except ConfigError:
        return None
    return digest_of(data) if data.strip() else None
