"""The configuration file is read again when its content changed, however it was changed, and only then.

Real files, real notifications and worker threads: so no mock clock. Polling alone is tested with its interval cut.
"""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from cpa.config import watch
from cpa.config.load import digest_of, load_config
from cpa.config.watch import reload, watch_config, watch_files
from cpa.errors import ConfigError

PATIENCE_S = 10


@attrs.define(eq=False)
class Calls:
    """Collects what the watcher reports; *send* blocks nobody as long as a test stays below its size."""

    send: trio.MemorySendChannel[bytes]
    receive: trio.MemoryReceiveChannel[bytes]
    path: Path

    async def record(self) -> None:
        self.send.send_nowait(self.path.read_bytes())

    async def next(self) -> bytes:
        with trio.fail_after(PATIENCE_S):
            return await self.receive.receive()


@asynccontextmanager
async def watching(path: Path, *, digest: str | None = None) -> AsyncIterator[Calls]:
    send, receive = trio.open_memory_channel[bytes](8)
    calls = Calls(send=send, receive=receive, path=path)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await watch_config(path, on_change=calls.record, digest=digest, task_status=task_status)

        await nursery.start(run)
        yield calls
        nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"port: 1\n")
    return path


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def link(path: Path, target: str | Path) -> None:
    path.symlink_to(target)


def replace(path: Path, data: bytes) -> None:
    fresh = path.with_name("fresh.tmp")
    fresh.write_bytes(data)
    fresh.replace(path)


def make_directory(path: Path) -> None:
    path.mkdir()


def mount(directory: Path) -> Path:
    """As Kubernetes mounts a ConfigMap."""
    for version in (1, 2):
        (directory / f"..v{version}").mkdir()
        (directory / f"..v{version}" / "config.yaml").write_bytes(b"port: %d\n" % version)
    (directory / "..data").symlink_to("..v1")
    path = directory / "config.yaml"
    path.symlink_to("..data/config.yaml")
    return path


def swap(directory: Path) -> None:
    """As Kubernetes updates it."""
    (directory / "..data_tmp").symlink_to("..v2")
    (directory / "..data_tmp").replace(directory / "..data")


def watching_threads() -> list[str]:
    """Names of the threads that are inside the watcher; trio names a thread after the task that it serves."""
    return [thread.name for thread in threading.enumerate() if "_watch_directory" in thread.name]


async def test_a_write_in_place_is_seen(path: Path) -> None:
    async with watching(path) as calls:
        write(path, b"port: 2\n")
        assert await calls.next() == b"port: 2\n"


async def test_an_atomic_replacement_is_seen_again_and_again(path: Path) -> None:
    async with watching(path) as calls:
        for port in (2, 3):
            replace(path, b"port: %d\n" % port)
            assert await calls.next() == b"port: %d\n" % port


async def test_a_swapped_link_is_seen(tmp_path: Path) -> None:
    path = mount(tmp_path)
    async with watching(path) as calls:
        swap(tmp_path)
        assert await calls.next() == b"port: 2\n"


async def test_a_burst_is_one_change_and_same_content_is_none(path: Path) -> None:
    async with watching(path) as calls:
        for port in range(2, 6):
            write(path, b"port: %d\n" % port)
        assert await calls.next() == b"port: 5\n"
        os.utime(path)
        replace(path, b"port: 5\n")
        write(path, b"")
        remove(path)
        replace(path, b"port: 6\n")
        assert await calls.next() == b"port: 6\n"
        with pytest.raises(trio.WouldBlock):
            calls.receive.receive_nowait()


async def test_an_empty_or_missing_file_is_no_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = trio.Event()
    digests = watch._digest

    async def digest(path: Path) -> str | None:
        found = await digests(path)
        if found is None:
            looked.set()
        return found

    monkeypatch.setattr(watch, "_digest", digest)
    async with watching(path) as calls:
        for make in (partial(write, path, b" \n"), partial(remove, path)):
            looked = trio.Event()
            make()
            with trio.fail_after(PATIENCE_S):
                await looked.wait()
        write(path, b"port: 1\n")  # the content that was known
        write(path.with_name("..other"), b"")
        replace(path, b"port: 2\n")
        assert await calls.next() == b"port: 2\n"


async def test_a_change_between_loading_and_watching_is_seen(path: Path) -> None:
    async with watching(path, digest=digest_of(b"port: 0\n")) as calls:
        assert await calls.next() == b"port: 1\n"


async def test_a_link_that_leads_elsewhere_is_polled(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    target = tmp_path_factory.mktemp("elsewhere") / "real.yaml"
    write(target, b"port: 1\n")
    remove(path)
    link(path, target)
    async with watching(path) as calls:
        write(target, b"port: 22\n")
        assert await calls.next() == b"port: 22\n"


@pytest.mark.parametrize("early", [True, False], ids=["at once", "from the thread"])
async def test_a_directory_that_cannot_be_watched_is_polled(
    path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.02)

    class Refusing:
        """A watch that fails as the real one does."""

        def __init__(self, *_arguments: object) -> None:
            if early:
                raise OSError("no space left on device")  # what Linux says when the inotify limit is reached

        def __enter__(self) -> "Refusing":
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def watch(self, *_arguments: object) -> str:
            raise RuntimeError("watch failed")

    monkeypatch.setattr(watch, "RustNotify", Refusing)
    async with watching(path) as calls:
        write(path, b"port: 22\n")
        assert await calls.next() == b"port: 22\n"


async def test_a_missing_directory_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_S", 0.02)
    path = tmp_path / "later" / "config.yaml"
    async with watching(path) as calls:
        make_directory(path.parent)
        write(path, b"port: 3\n")
        assert await calls.next() == b"port: 3\n"


async def test_an_error_of_the_callback_comes_out(path: Path) -> None:
    async def fail() -> None:
        raise LookupError("callback")

    with trio.fail_after(PATIENCE_S), pytest.RaisesGroup(LookupError, flatten_subgroups=True):
        await watch_config(path, on_change=fail, digest="other")


@pytest.mark.parametrize("when", ["at once", "watching", "in the callback"])
async def test_cancellation_is_prompt_and_leaves_no_thread(path: Path, when: str) -> None:
    called = trio.Event()

    async def hang() -> None:
        called.set()
        await trio.sleep_forever()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await watch_config(path, on_change=hang, digest="other", task_status=task_status)

    limiter = trio.to_thread.current_default_thread_limiter()
    descriptors = len(os.listdir("/proc/self/fd"))
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            if when == "at once":
                nursery.start_soon(lambda: watch_config(path, on_change=hang))
            else:
                await nursery.start(run)
            if when == "in the callback":
                await called.wait()
            if when != "at once":
                with trio.fail_after(PATIENCE_S):
                    while not watching_threads():
                        await trio.lowlevel.checkpoint()
            began = trio.current_time()
            nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 1.0
    assert limiter.borrowed_tokens == 0
    with trio.fail_after(PATIENCE_S):
        # The notification library's own thread closes its descriptors by itself, within milliseconds.
        while len(os.listdir("/proc/self/fd")) > descriptors:
            await trio.lowlevel.checkpoint()
    assert watching_threads() == []


async def test_reload(path: Path) -> None:
    previous = load_config(path)
    assert await reload(path, previous) is None
    write(path, b"# other bytes\nport: 2\n")
    loaded = await reload(path, previous)
    assert loaded is not None
    assert loaded.config.port == 2
    assert await reload(path, loaded) is None
    write(path, b" \n")
    assert await reload(path, loaded) is None
    write(path, b"port: x\nhost: 3.5:1\n")
    with pytest.raises(ConfigError) as caught:
        await reload(path, loaded)
    assert [line.split(": ")[1] for line in caught.value.problems] == ["port", "host"]
    remove(path)
    with pytest.raises(ConfigError, match="expected a readable file"):
        await reload(path, loaded)


# -- folders --


@asynccontextmanager
async def watching_files(directory: Path) -> AsyncIterator[trio.MemoryReceiveChannel[None]]:
    """Says when files of the folder may have changed."""
    send, receive = trio.open_memory_channel[None](64)

    async def seen() -> None:
        await trio.lowlevel.checkpoint()
        send.send_nowait(None)

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(watch_files, directory, suffix=".json", on_change=seen))
            yield receive
            nursery.cancel_scope.cancel()


async def test_new_changed_and_removed_files_of_a_folder_are_noticed(tmp_path: Path) -> None:
    """Each by itself; others are nobody's business."""
    async with watching_files(tmp_path) as changes:
        for step in (write, replace):
            step(tmp_path / "a.JSON", step.__name__.encode())
            await changes.receive()
        (tmp_path / "logs").mkdir()
        write(tmp_path / "notes.txt", b"x")
        with trio.move_on_after(4 * watch.DEBOUNCE_S):
            await changes.receive()
            raise AssertionError("nothing concerned us")
        remove(tmp_path / "a.JSON")
        await changes.receive()


async def test_a_folder_without_notifications_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is not there yet, and one that vanishes."""
    monkeypatch.setattr(watch, "POLL_S", 0.05)
    folder = tmp_path / "later"
    async with watching_files(folder) as changes:
        folder.mkdir()
        write(folder / "a.json", b"{}")
        await changes.receive()
        remove(folder / "a.json")
        folder.rmdir()
        await changes.receive()
