"""What only the process transport does: contain, name and end what goes wrong."""

import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import trio

from cpa.abi.errors import PluginCrashed, PluginLoadError
from cpa.abi.process import EXIT_AFTER_EOF_S, WORKER
from cpa.abi.transport import PluginTransport, TransportLimits
from cpa.config.schema import Isolation
from tests.abi.support import Compiler, Harness

CRASHES = [
    ("segv", b"{}", "killed by signal 11 (SIGSEGV)"),
    ("abort", b"{}", "killed by signal 6 (SIGABRT)"),
    ("exit", b"0", "exited with status 0"),
    ("exit", b"3", "exited with status 3"),
]


def gone(pid: int) -> bool:
    """Wait for the end of *pid*, for a while."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(fd):
        return bool(select.select([fd], [], [], 10)[0])


@pytest.mark.parametrize(("method", "payload", "reason"), CRASHES)
async def test_a_crash_ends_its_calls_and_names_plugin_method_and_cause(
    worker: Harness, library: Compiler, method: str, payload: bytes, reason: str
) -> None:
    """All of them at once, each with its own method; another plugin does not notice."""
    asked = trio.Event()

    async def never(host_method: bytes, host_payload: bytes) -> bytes:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    async def call(name: str, body: bytes) -> None:
        with pytest.raises(PluginCrashed) as caught:
            await acme.call(name, body)
        assert str(caught.value) == f"plugin acme crashed in {name}: {reason}"
        assert (caught.value.plugin_id, caught.value.method, caught.value.reason) == ("acme", name, reason)

    async with worker(library("behave"), plugin_id="other") as other:
        async with worker(library("behave"), handler=never) as acme:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call, "host", b"x")
                await asked.wait()
                nursery.start_soon(call, method, payload)
            await acme.died.wait()
            assert acme.death == reason
            assert (acme.in_flight, acme.abandoned) == (0, 0)
            await call("echo", b"{}")
        assert (await other.call("echo", b"still here")).body == b"still here"


@pytest.mark.parametrize(
    ("case", "reason"),
    [(5, "killed by signal 11 (SIGSEGV)"), (6, "exited with status 0"), (7, "exited with status 3")],
)
async def test_a_crash_in_init_is_a_crash(worker: Harness, library: Compiler, case: int, reason: str) -> None:
    """Not a refused plugin: trying again may help."""
    with pytest.raises(PluginCrashed) as caught:
        async with worker(library("starts", f"-DCASE={case}")):
            raise AssertionError
    assert (caught.value.method, caught.value.reason) == ("cliproxy_plugin_init", reason)


async def test_a_hung_plugin_can_be_killed(worker: Harness, library: Compiler) -> None:
    """The reason that was given stands for the signal."""

    async def call() -> None:
        with pytest.raises(PluginCrashed, match="plugin acme crashed in hang: did not come back"):
            await acme.call("hang", b"{}")

    async with worker(library("behave")) as acme, trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        acme.kill("did not come back")
        await acme.died.wait()
        acme.kill("again")
        assert acme.death == "did not come back"


async def test_a_foreign_kill_is_a_crash(worker: Harness, library: Compiler) -> None:
    """By the kernel's memory killer, for instance."""
    async with worker(library("behave")) as acme:
        os.kill(acme.pid, signal.SIGKILL)
        await acme.died.wait()
        assert acme.death == "killed by signal 9 (SIGKILL)"
        assert gone(acme.pid)


async def test_real_time_signals_are_named_by_number(worker: Harness, library: Compiler) -> None:
    """Python has no names for most of them."""
    async with worker(library("behave")) as acme:
        os.kill(acme.pid, signal.SIGRTMIN + 5)
        await acme.died.wait()
        assert acme.death == f"killed by signal {signal.SIGRTMIN + 5}"


async def test_a_child_of_the_plugin_cannot_hide_the_crash(worker: Harness, library: Compiler) -> None:
    """It holds socket and pipes, so none of them ends; the exit counts."""
    async with worker(library("behave")) as acme:
        child = int((await acme.call("fork", b"{}")).body)
        try:
            os.kill(acme.pid, signal.SIGKILL)
            with trio.fail_after(5):
                await acme.died.wait()
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE])
async def test_signals_of_the_group_do_not_end_a_worker(
    worker: Harness, library: Compiler, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C reaches it too, and the proxy still has to drain."""
    async with worker(library("behave")) as acme:
        os.kill(acme.pid, number)
        assert (await acme.call("echo", b"here")).body == b"here"


async def test_a_stolen_signal_is_not_ours(worker: Harness, library: Compiler) -> None:
    """A plugin that handles SIGTERM harms itself; the proxy's handler stays."""
    before = signal.getsignal(signal.SIGTERM)
    async with worker(library("behave")) as acme:
        await acme.call("steal.sigterm", b"{}")
        os.kill(acme.pid, signal.SIGTERM)
        await acme.died.wait()
        assert acme.death == "exited with status 15"
    assert signal.getsignal(signal.SIGTERM) is before


async def test_the_directory_is_the_hosts_until_the_plugin_changes_its_own(worker: Harness, library: Compiler) -> None:
    """chdir() of a plugin is its own affair."""
    here = os.getcwd()
    async with worker(library("behave")) as acme:
        assert (await acme.call("getcwd", b"{}")).body == here.encode()
        await acme.call("chdir", b"/proc\0")
        assert (await acme.call("getcwd", b"{}")).body == b"/proc"
    assert os.getcwd() == here


async def test_the_management_password_stays_here(
    worker: Harness, library: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin in a process of its own gets the rest of the environment only."""
    monkeypatch.setenv("MANAGEMENT_PASSWORD", "open-sesame")
    monkeypatch.setenv("ACME_KEY", "for-the-plugin")
    async with worker(library("behave")) as acme:
        environment = await trio.Path(f"/proc/{acme.pid}/environ").read_bytes()
        assert b"ACME_KEY=for-the-plugin" in environment
        assert b"open-sesame" not in environment


async def test_the_command_line_is_what_plugins_expect(worker: Harness, library: Compiler) -> None:
    """They look for ``-config`` in it."""
    async with worker(library("behave")) as acme:
        assert (await acme.call("cmdline", b"{}")).body == b"cpa\0-config\0/etc/cpa.yaml\0"


@pytest.mark.parametrize("method", ["stdout.close", "fds.close"])
async def test_closed_descriptors_do_not_matter(worker: Harness, library: Compiler, method: str) -> None:
    """Neither the output nor all the low numbers: the socket lies elsewhere."""
    async with worker(library("behave")) as acme:
        await acme.call(method, b"{}")
        assert (await acme.call("storm", b"{}")).body == b"400"


async def test_a_call_cancelled_while_it_is_sent_leaves_whole_frames(worker: Harness, library: Compiler) -> None:
    """The worker stands still with a full socket; what was begun is completed for those who come after."""
    async with worker(library("behave")) as acme:
        process = psutil.Process(acme.pid)
        process.suspend()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(acme.call, "echo", b"x" * 5_000_000)
                nursery.start_soon(acme.call, "echo", b"y" * 10)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert acme.abandoned == 2
        process.resume()
        assert (await acme.call("echo", b"z" * 5_000_000)).body == b"z" * 5_000_000
        while acme.late_replies < 2:
            await acme.call("nothing", b"{}")
        assert acme.abandoned == 0


async def test_a_crash_with_a_full_socket_ends_what_waits(worker: Harness, library: Compiler) -> None:
    """Requests that were never sent whole fail like the others."""

    async def call() -> None:
        with pytest.raises(PluginCrashed, match="killed by signal 9"):
            await acme.call("echo", b"x" * 5_000_000)

    async with worker(library("behave")) as acme:
        psutil.Process(acme.pid).suspend()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(acme.pid, signal.SIGKILL)


async def test_a_host_call_outlives_its_worker_quietly(worker: Harness, library: Compiler) -> None:
    """Its answer has no address any more."""
    asked, answered = trio.Event(), trio.Event()

    async def slow(method: bytes, payload: bytes) -> bytes:
        asked.set()
        await acme.died.wait()
        answered.set()
        return b"{}"

    async with worker(library("behave"), handler=slow) as acme:
        await acme.call("late", b"{}")
        await asked.wait()
        with pytest.raises(PluginCrashed):
            await acme.call("segv", b"{}")
        await answered.wait()


async def test_a_stolen_socket_ends_the_worker(worker: Harness, library: Compiler) -> None:
    """And says so on its standard error."""
    async with worker(library("behave")) as acme:
        with pytest.raises(PluginCrashed, match="exited with status 70"):
            await acme.call("socket.steal", b"{}")
    assert re.fullmatch(r"cpa-plugin-worker: cannot (read|write): Bad file descriptor", worker.log.of("stderr")[0])


async def test_a_buffer_that_cannot_be_read_ends_the_worker(worker: Harness, library: Compiler) -> None:
    """Lying lengths cannot be noticed in general; this is the case that can."""
    async with worker(library("behave")) as acme:
        with pytest.raises(PluginCrashed, match="exited with status 70"):
            await acme.call("unreadable", b"{}")
    assert "a buffer of the plugin is not readable memory (1048576 bytes at 0x1000)" in worker.log.of("stderr")[0]


async def test_ten_megabytes_of_output_are_drained(worker: Harness, library: Compiler) -> None:
    """Line by line, in order, while the call runs."""
    async with worker(library("behave")) as acme:
        await acme.call("stdout.spam", b"10000000\0")
    lines = worker.log.of("stdout")
    assert len(lines) == 78125 + 1  # and the last words of shutdown()
    assert set(lines[:-1]) == {"x" * 127}


async def test_output_in_init_is_drained(worker: Harness, library: Compiler) -> None:
    """200 KB, more than a pipe holds, before the worker is ready."""
    async with worker(library("starts", "-DCASE=11")):
        pass
    assert len(worker.log.of("stdout")) == 1000


async def test_unfinished_and_garbled_lines_are_kept(worker: Harness, library: Compiler) -> None:
    """What a plugin said last is what one wants to know."""
    async with worker(library("behave")) as acme:
        await acme.call("stdout.partial", b"{}")
        with pytest.raises(PluginCrashed):
            await acme.call("segv", b"{}")
    assert worker.log.lines == [("stdout", "no end"), ("stderr", "bad \ufffd")] or worker.log.lines == [
        ("stderr", "bad \ufffd"),
        ("stdout", "no end"),
    ]


async def test_calls_beyond_the_limit_wait_their_turn(worker: Harness, library: Compiler) -> None:
    """Two at a time, all of them in the end."""
    async with worker(library("behave"), limits=TransportLimits(max_calls=2)) as acme:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(acme.call, "stdout.spam", b"1000\0")
        assert int((await acme.call("most.inside", b"{}")).body) <= 2


async def test_a_worker_that_cannot_start_is_a_load_error(
    worker: Harness, library: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Broken installations say what is missing."""
    monkeypatch.setattr("cpa.abi.process.WORKER", tmp_path / "cpa-plugin-worker")
    before = descriptors()
    with pytest.raises(PluginLoadError, match=r"^cannot start cpa-plugin-worker: .*No such file"):
        async with worker(library("behave")):
            raise AssertionError
    assert descriptors() == before


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """No descriptor, process or file in *folder* more than before."""
    before = descriptors(), len(psutil.Process().children(recursive=True))
    yield
    assert (descriptors(), len(psutil.Process().children(recursive=True))) == before
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("how", ["close", "kill", "crash", "refuse", "cancel", "cancel start"])
async def test_nothing_is_left_over(
    worker: Harness, library: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """However it ends: processes, descriptors, temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = library("starts", "-DCASE=1") if how == "refuse" else library("behave")
    with nothing_left(tmp_path):
        try:
            with trio.CancelScope() as scope:
                if how == "cancel start":
                    scope.cancel()
                async with worker(path) as acme:
                    if how == "kill":
                        acme.kill("test")
                    elif how == "crash":
                        await acme.call("segv", b"{}")
                    elif how == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
                    else:
                        await acme.aclose(5)
        except (PluginCrashed, PluginLoadError):
            assert how in ("crash", "refuse")


def test_workers_die_with_a_killed_proxy(library: Compiler) -> None:
    """kill -9 gives nobody a chance to clean up: the kernel ends the worker, even one that hangs."""
    program = textwrap.dedent(f"""
        import trio
        from cpa.config.schema import Isolation
        from tests.abi.support import Harness

        async def main():
            async with Harness(Isolation.PROCESS)({library("behave")!r}) as acme, trio.open_nursery() as nursery:
                nursery.start_soon(acme.call, "hang", b"{{}}")
                print(acme.pid, flush=True)
                await trio.sleep_forever()

        trio.run(main)
    """)
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        pid = int(proxy.stdout.readline())
        assert psutil.Process(pid).ppid() == proxy.pid
        proxy.kill()
        assert gone(pid)


async def test_forty_workers_start_soon_and_stay_small(library: Compiler) -> None:
    """Under 3 s, and far below the 12 MB that each may have above its library."""
    path = library("behave")
    began = time.perf_counter()
    async with AsyncExitStack() as stack:
        plugins: list[PluginTransport] = []
        for number in range(40):
            harness = Harness(Isolation.PROCESS)
            plugins.append(await stack.enter_async_context(harness(path, plugin_id=f"p{number}")))
        elapsed_s = time.perf_counter() - began
        for plugin in plugins:
            await plugin.call("echo", b"x" * 2_000_000)
        largest = max(psutil.Process(plugin.pid).memory_info().rss for plugin in plugins)
        print(f"40 workers: {elapsed_s * 1000:.0f} ms, largest {largest / 1e6:.1f} MB resident")
    assert elapsed_s < 3
    assert largest < 12_000_000


async def test_a_worker_that_closes_its_connection_is_ended(worker: Harness, library: Compiler) -> None:
    """It lives but cannot be talked to; there is nothing to wait for."""
    async with worker(library("behave")) as acme:
        psutil.Process(acme.pid).suspend()
        # What the plugin itself cannot do while our reader sits in recv(): the far end of the socket shuts down.
        acme._sock.shutdown(0)  # type: ignore[attr-defined]
        with trio.fail_after(EXIT_AFTER_EOF_S + 5):
            await acme.died.wait()
        assert acme.death == "closed its connection to the proxy"


def test_the_worker_is_small_and_needs_no_python() -> None:
    """It is what crashes, so it should be little."""
    linked = subprocess.run(["ldd", WORKER], check=True, capture_output=True, text=True).stdout
    assert "python" not in linked
