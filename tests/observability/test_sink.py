"""Log lines reach their destination, and never hold anybody up."""

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from cpa.observability.sink import (
    BATCH_BYTES,
    FileDestination,
    LogSink,
    StreamDestination,
    enforce_size_cap,
    log_directory,
    open_sink,
)


class FakeDestination:
    """Takes *room* bytes, or fails; remembers what it got."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.error: OSError | None = None
        self.data = b""
        self.writes: list[int] = []
        self.sweeps = 0
        self.closed = False
        self.has_room = trio.Event()
        self.waits: list[float] = []

    def write_nowait(self, data: bytes | memoryview) -> int:
        if self.error is not None:
            raise self.error
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.data += taken
        self.writes.append(len(taken))
        return len(taken)

    async def wait_writable(self) -> None:
        await self.has_room.wait()

    def wait_writable_blocking(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)

    def sweep(self) -> None:
        self.sweeps += 1

    def close(self) -> None:
        self.closed = True


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def fill(fd: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 4096)


def read_all(fd: int) -> bytes:
    data = b""
    while True:
        try:
            piece = os.read(fd, 1 << 16)
        except BlockingIOError:
            return data
        if not piece:
            return data
        data += piece


def test_lines_are_written_at_once_before_the_task_runs() -> None:
    """What is logged while the program starts must be seen even if it then dies."""
    destination = FakeDestination()
    sink = LogSink(destination)
    sink.write(b"one\n")
    assert destination.data == b"one\n"


async def test_lines_are_batched_while_the_task_runs() -> None:
    """One write for many lines, at most 4096 bytes each, in order."""
    destination = FakeDestination()
    lines = [b"%04d %s\n" % (number, b"x" * 90) for number in range(100)]
    async with open_sink(LogSink(destination)) as sink:
        for line in lines:
            sink.write(line)
        assert destination.data == b""
        await trio.testing.wait_all_tasks_blocked()
        assert destination.data == b"".join(lines)
        assert len(destination.writes) < 5
        assert max(destination.writes) <= BATCH_BYTES


async def test_a_line_longer_than_a_batch_is_written_whole() -> None:
    """Tracebacks are long."""
    destination = FakeDestination()
    line = b"y" * (3 * BATCH_BYTES) + b"\n"
    async with open_sink(LogSink(destination)) as sink:
        sink.write(b"short\n")
        sink.write(line)
        await trio.testing.wait_all_tasks_blocked()
    assert destination.data == b"short\n" + line


async def test_a_full_queue_drops_the_oldest_and_says_so() -> None:
    """The newest lines are the ones that explain what is happening."""
    destination = FakeDestination(room=0)
    async with open_sink(LogSink(destination, max_lines=5)) as sink:
        sink.write(b"first\n")
        await trio.testing.wait_all_tasks_blocked()  # "first" is in a batch already
        for number in range(12):
            sink.write(b"line %d\n" % number)
        assert sink.dropped == 7
        destination.room = 1 << 20
        destination.has_room.set()
        await trio.testing.wait_all_tasks_blocked()
        assert destination.data.splitlines() == [
            b"first",
            b"7 log lines dropped",
            *(b"line %d" % number for number in range(7, 12)),
        ]


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    """Ten thousand tracebacks are not ten thousand lines."""
    destination = FakeDestination(room=0)
    sink = LogSink(destination, max_bytes=1000, flush_wait_s=0)
    async with open_sink(sink):
        for _ in range(20):
            sink.write(b"x" * 99 + b"\n")
        assert sink.dropped == 10


async def test_partial_writes_go_on_where_they_stopped() -> None:
    """A pipe takes as much as fits."""
    destination = FakeDestination(room=3)
    async with open_sink(LogSink(destination, flush_wait_s=0)) as sink:
        sink.write(b"abcdef\n")
        await trio.testing.wait_all_tasks_blocked()
        assert destination.data == b"abc"
        destination.room = 100
        destination.has_room.set()
        await trio.testing.wait_all_tasks_blocked()
    assert destination.data == b"abcdef\n"


async def test_a_broken_destination_costs_lines_only() -> None:
    """Full disk, reader gone: counted, reported once it works again, never raised."""
    destination = FakeDestination()
    destination.error = OSError(28, "No space left on device")
    async with open_sink(LogSink(destination)) as sink:
        sink.write(b"one\n")
        sink.write(b"two\n")
        await trio.testing.wait_all_tasks_blocked()
        assert sink.dropped == 2
        destination.error = None
        sink.write(b"three\n")
        await trio.testing.wait_all_tasks_blocked()
        assert destination.data == b"2 log lines dropped\nthree\n"


async def test_what_is_queued_is_written_when_the_task_is_cancelled() -> None:
    """The last lines say why it ended."""
    destination = FakeDestination()
    with trio.CancelScope() as scope:
        async with open_sink(LogSink(destination)) as sink:
            sink.write(b"last words\n")
            scope.cancel()
    assert destination.data == b"last words\n"
    sink.write(b"afterwards\n")
    assert destination.data.endswith(b"afterwards\n")


def test_without_a_reader_only_the_first_synchronous_line_waits() -> None:
    """Twenty lines at start must not make ten seconds."""
    destination = FakeDestination(room=0)
    sink = LogSink(destination, flush_wait_s=0.02)
    sink.write(b"one\n")
    waited = len(destination.waits)
    assert 0 < max(destination.waits) <= 0.02
    for _ in range(20):
        sink.write(b"more\n")
    assert len(destination.waits) == waited


async def test_a_sink_cannot_be_served_twice() -> None:
    """Two tasks would mix their batches."""
    async with open_sink(LogSink(FakeDestination())) as sink:
        with pytest.raises(RuntimeError, match="already"):
            await sink.serve()


async def test_other_threads_may_log() -> None:
    """File writers and name resolvers do."""
    destination = FakeDestination()
    async with open_sink(LogSink(destination)) as sink:
        await trio.testing.wait_all_tasks_blocked()

        def work() -> None:
            for number in range(200):
                sink.write(b"%03d\n" % number)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
        with trio.fail_after(5):
            while destination.data.count(b"\n") < 600:
                await trio.lowlevel.checkpoint()
    assert sorted(destination.data.split()) == sorted(b"%03d" % number for number in range(200) for _ in range(3))


async def test_redirecting_closes_the_old_and_uses_the_new() -> None:
    """``logging-to-file`` changes at a reload, also while the old destination takes nothing."""
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        fill(writer)
        new = FakeDestination()
        async with open_sink(LogSink(StreamDestination(writer))) as sink:
            sink.write(b"stuck\n")
            await trio.testing.wait_all_tasks_blocked()
            sink.redirect(new)
            sink.write(b"free\n")
            await trio.testing.wait_all_tasks_blocked()
        assert new.data == b"free\n"
        read_all(reader)


async def test_the_directory_is_swept_regularly(autojump_clock: trio.testing.MockClock) -> None:
    """Once a minute, by the task that owns the sink."""
    swept = trio.Event()
    token = trio.lowlevel.current_trio_token()

    class Sweeping(FakeDestination):
        def sweep(self) -> None:
            super().sweep()
            token.run_sync_soon(swept.set)

    destination = Sweeping()
    async with open_sink(LogSink(destination), sweep_every_s=60):
        await swept.wait()
        assert destination.sweeps >= 1


async def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    """The program goes on, later the reader learns how much it missed; fd flags of the process stay untouched."""
    with pipe() as (reader, writer):
        sink = LogSink(StreamDestination(writer), max_lines=100, flush_wait_s=0.01)
        started = time.perf_counter()
        with trio.fail_after(5):
            async with open_sink(sink):
                for number in range(3000):
                    sink.write(b"%06d %s\n" % (number, b"z" * 192))
                    if number % 100 == 0:
                        await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
                assert sink.dropped > 1000
                assert os.get_blocking(writer)
                missed = sink.dropped
                data = read_all(reader)
                while b"002999" not in data:
                    await trio.testing.wait_all_tasks_blocked()
                    data += read_all(reader)
        assert time.perf_counter() - started < 5
        lines = data.splitlines()
        notes = [int(line.split()[0]) for line in lines if line.endswith(b" log lines dropped")]
        assert sum(notes) == missed
        assert lines[-1].startswith(b"002999 ")
        assert len(lines) - len(notes) == 3000 - missed
        sink.close()


async def test_a_pipe_without_proc_is_written_in_pieces_that_cannot_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no descriptor of our own can be had, 4096 bytes after a poll are safe."""

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        raise PermissionError(13, "no /proc here", path)

    with pipe() as (reader, writer):
        monkeypatch.setattr("cpa.observability.sink.os.open", refuse)
        destination = StreamDestination(writer)
        monkeypatch.undo()
        async with open_sink(LogSink(destination, max_lines=10, flush_wait_s=0.01)) as sink:
            for number in range(100):
                sink.write(b"%d" % number * 3000 + b"\n")
                await trio.testing.wait_all_tasks_blocked()
            assert sink.dropped > 0
            assert read_all(reader).startswith(b"000")
        sink.close()


async def test_a_closed_reader_costs_lines_only() -> None:
    """`cpa serve | head -1`."""
    reader, writer = os.pipe()
    sink = LogSink(StreamDestination(writer))
    os.close(reader)
    async with open_sink(sink):
        sink.write(b"one\n")
        await trio.testing.wait_all_tasks_blocked()
        assert sink.dropped == 1
    sink.close()
    os.close(writer)


async def test_sockets_and_devices_are_written_too(tmp_path: Path) -> None:
    """The journal gives a socket; /dev/null is no file for epoll."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = LogSink(StreamDestination(ours.fileno()))
        async with open_sink(sink):
            sink.write(b"to a socket\n")
            await trio.testing.wait_all_tasks_blocked()
            assert theirs.recv(100) == b"to a socket\n"
        sink.close()
    terminal, slave = os.openpty()
    sink = LogSink(StreamDestination(slave))
    async with open_sink(sink):
        sink.write(b"to a terminal\n")
        await trio.testing.wait_all_tasks_blocked()
        assert os.read(terminal, 100) == b"to a terminal\r\n"
    sink.close()
    os.close(slave)
    os.close(terminal)
    for name in (tmp_path / "out", os.devnull):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT)
        sink = LogSink(StreamDestination(fd))
        os.close(fd)
        async with open_sink(sink):
            sink.write(b"to a file\n")
            await trio.testing.wait_all_tasks_blocked()
        assert sink.dropped == 0
        sink.close()
        sink.close()
        sink.write(b"too late\n")
        assert sink.dropped == 1
    assert (tmp_path / "out").read_bytes() == b"to a file\n"


def test_processes_that_share_a_log_lose_no_line_of_it(tmp_path: Path) -> None:
    """Whoever finds the file full moves it away; whoever comes a moment later must not move the new one over it."""
    writers = [FileDestination(tmp_path, rotate_bytes=120) for _ in range(3)]
    for number in range(60):
        writers[number % 3].write_nowait(b"line %d of a worker\n" % number)
    for writer in writers:
        writer.close()
    text = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert sorted(text.splitlines()) == sorted(b"line %d of a worker" % number for number in range(60))


def test_log_files_are_private_and_rotate(tmp_path: Path) -> None:
    """Mode 0600 in 0700; nothing is lost at the border."""
    directory = tmp_path / "a" / "logs"
    destination = FileDestination(directory, rotate_bytes=100)
    sink = LogSink(destination)
    for number in range(10):
        sink.write(b"%02d %s\n" % (number, b"x" * 36))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 5
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_size <= 100 for path in files)
    assert all(path.name.startswith("main-20") for path in files if path.name != "main.log")
    assert sorted(int(line[:2]) for path in files for line in path.read_bytes().splitlines()) == list(range(10))
    sink.close()


def test_log_files_survive_what_others_do_to_them(tmp_path: Path) -> None:
    """The management API truncates, operators move and delete."""
    sink = LogSink(FileDestination(tmp_path))
    main = tmp_path / "main.log"
    sink.write(b"one\n")
    os.truncate(main, 0)
    sink.write(b"two\n")
    assert main.read_bytes() == b"two\n"
    main.rename(tmp_path / "moved.log")
    sink.write(b"three\n")
    assert main.read_bytes() == b"three\n"
    main.unlink()
    sink.write(b"four\n")
    assert main.read_bytes() == b"four\n"
    sink.close()
    sink.write(b"five\n")
    assert main.read_bytes() == b"four\n"
    assert sink.dropped == 1


def test_the_oldest_logs_are_deleted_and_the_active_spared(tmp_path: Path) -> None:
    """Only ``*.log`` and ``*.log.gz``, only files, only as many as needed."""
    for age, name in enumerate(["main.log", "a.log", "b.log.gz", "c.log", "d.txt"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    (tmp_path / "dir.log").mkdir()
    (tmp_path / "link.log").symlink_to(tmp_path / "d.txt")
    active = tmp_path / "main.log"
    assert enforce_size_cap(tmp_path, 400, active=active) == []
    assert enforce_size_cap(tmp_path, 250, active=active) == [tmp_path / "a.log", tmp_path / "b.log.gz"]
    assert enforce_size_cap(tmp_path, 1, active=active) == [tmp_path / "c.log"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.txt", "dir.log", "link.log", "main.log"]
    assert enforce_size_cap(tmp_path / "missing", 1, active=active) == []
    destination = FileDestination(tmp_path, max_total_bytes=50)
    (tmp_path / "old.log").write_bytes(b"x" * 100)
    destination.sweep()
    destination.close()
    assert not (tmp_path / "old.log").exists()
    assert active.exists()


def test_the_log_directory_follows_the_contract(tmp_path: Path) -> None:
    """Environment, then ./logs if it is there, then the auth directory."""
    auth, here = tmp_path / "auth", tmp_path / "here"
    here.mkdir()
    for name in ("WRITABLE_PATH", "writable_path"):
        assert log_directory({name: "/data"}, auth, working_directory=here) == Path("/data/logs")
    assert log_directory({}, auth, working_directory=here) == auth / "logs"
    (here / "logs").mkdir()
    assert log_directory({"WRITABLE_PATH": ""}, auth, working_directory=here) == here / "logs"
